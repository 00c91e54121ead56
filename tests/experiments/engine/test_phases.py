"""Two phases: settings are chosen on a few seeds, planned, and confirmed on fresh ones."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bnbook import experiments
from bnbook.experiments import Incomplete, __main__, best, claims, fresh, select
from bnbook.experiments.engine import bits, experiment, plan
from bnbook.experiments.engine.plan import FEWEST, FIRST, MOST, Pilot, seeds_needed
from bnbook.experiments.engine.rows import ResultsError

EXAMPLES = Path(__file__).parent / "example_experiments"
DELTA = 0.005


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path_factory):
    """The example, without the other claim on its rows; it confirms."""
    folder = tmp_path_factory.mktemp("experiments")
    shutil.copy(EXAMPLES / "tiny.py", folder)
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(folder)])
    module = importlib.import_module("bnbook.experiments.claims.tiny")
    monkeypatch.setattr(module, "CONFIRM", True, raising=False)
    return module


def run(folder: Path, **more) -> list[dict]:
    assert experiments.run("tiny", results=folder, progress=False, **more) == []
    return experiments.load("tiny", folder)


def by_phase(rows: list[dict], phase: str) -> list[dict]:
    return [row for row in rows if row["phase"] == phase]


def write(folder: Path, rows: list[dict]) -> None:
    (folder / "tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# --- the runs ---------------------------------------------------------------------------------------------------------


def test_what_was_chosen_is_planned_and_confirmed_on_fresh_seeds(tmp_path, tiny):
    rows = run(tmp_path)
    choosing, confirming = by_phase(rows, "choose"), by_phase(rows, "confirm")
    assert len(choosing) == 6 * tiny.SEEDS and {row["seed"] for row in choosing} == set(range(tiny.SEEDS))
    planned = plan.load(tmp_path / "tiny.jsonl", 1)
    chosen = [best(select(choosing, norm=norm), "lr").rows[0]["setting"] for norm in ("none", "batch")]
    assert sorted(planned.settings, key=str) == sorted(chosen, key=str)
    assert FEWEST <= planned.seeds <= MOST
    assert {(row["setting"]["norm"], row["setting"]["lr"], row["seed"], row["planned"]) for row in confirming} == {
        (setting["norm"], setting["lr"], seed, planned.seeds)
        for setting in chosen
        for seed in range(FIRST, FIRST + planned.seeds)
    }
    assert "planned" not in choosing[0]
    written = (tmp_path / "tiny.jsonl").read_text(encoding="utf-8")
    assert run(tmp_path) == rows and (tmp_path / "tiny.jsonl").read_text(encoding="utf-8") == written


def test_fresh_seeds_run_what_is_named_beside_the_comparisons(tmp_path, tiny, monkeypatch):
    """It is planned and confirmed as well, and changes neither the number of seeds nor the verdict."""
    alone, other = run(tmp_path / "alone"), tiny.grid()[0]
    assert other not in [row["setting"] for row in by_phase(alone, "confirm")]
    monkeypatch.setattr(tiny, "beside", lambda rows: [rows[0]["setting"]], raising=False)
    rows = run(tmp_path / "both")
    planned, before = (plan.load(tmp_path / name / "tiny.jsonl", 1) for name in ("both", "alone"))
    assert planned.settings == [other, *before.settings]
    assert (planned.seeds, planned.pilots) == (before.seeds, before.pilots)
    assert [row["seed"] for row in by_phase(rows, "confirm") if row["setting"] == other] == list(planned.fresh)
    assert experiments.judge(rows) == experiments.judge(alone)


def test_it_can_stop_at_the_plan(tmp_path, tiny, capsys):
    assert __main__.main(["run", "tiny", "--phase", "choose", "--results", str(tmp_path)]) == 0
    rows, planned = experiments.load("tiny", tmp_path), plan.load(tmp_path / "tiny.jsonl", 1)
    said = capsys.readouterr().out
    assert f"18 rows, {2 * planned.seeds} missing" in said and f"planned: {planned.seeds} fresh seeds of 2" in said
    assert len(rows) == 18 and experiments.judge(rows).sentence.startswith("Open: the chosen settings have not")
    before = plan.file(tmp_path / "tiny.jsonl").read_bytes()
    assert __main__.main(["run", "tiny", "--results", str(tmp_path)]) == 0
    assert "0 missing" in capsys.readouterr().out
    assert plan.file(tmp_path / "tiny.jsonl").read_bytes() == before
    assert __main__.main(["status", "--results", str(tmp_path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny"))
    assert line.split()[1:3] == [str(18 + 2 * planned.seeds), "0"]
    assert __main__.main(["show", "tiny", "--results", str(tmp_path)]) == 0
    assert f"over {planned.seeds} paired seeds" in capsys.readouterr().out


def test_nothing_is_planned_while_runs_are_missing_nor_for_a_part_or_a_quick_grid(tmp_path, tiny):
    for more in ({"seeds": [0, 1, 2]}, {"only": {"norm": "none"}}, {"quick": True}):
        folder = tmp_path / str(more)
        experiments.run("tiny", results=folder, progress=False, **more)
        assert not list(folder.rglob("*.plan.json"))
        assert {row["phase"] for row in experiments.load("tiny", folder, "quick" in more)} == {"choose"}


def test_a_plan_that_is_there_is_not_changed(tmp_path, tiny):
    rows = run(tmp_path)
    planned = plan.load(tmp_path / "tiny.jsonl", 1)
    others = [row | {"val_accuracy": 1 - row["val_accuracy"]} for row in by_phase(rows, "choose")]
    write(tmp_path, others)
    run(tmp_path)
    assert plan.load(tmp_path / "tiny.jsonl", 1) == planned
    plan.file(tmp_path / "tiny.jsonl").unlink()
    with pytest.raises(ResultsError, match=r"tiny\.plan\.json is gone, but rows that confirm are there: restore it"):
        run(tmp_path)
    plan.file(tmp_path / "tiny.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(ResultsError, match="is no plan"):
        run(tmp_path)


def test_more_seeds_choose_again_and_the_number_of_fresh_ones_stays(tmp_path, tiny, monkeypatch):
    """With batch normalization later seeds like another rate better; without, the same."""
    grid = [{"norm": norm, "lr": lr} for lr in (0.01, 0.03, 0.1, 0.3) for norm in ("none", "batch")]
    made, few, more = tiny.run, tiny.SEEDS, tiny.SEEDS + 3
    old, new, other = {"norm": "batch", "lr": 0.1}, {"norm": "batch", "lr": 0.03}, {"norm": "none", "lr": 0.1}

    def liked(setting, seed):
        good = setting == other or setting == (old if seed < few or seed >= FIRST else new)
        return made(setting, seed) | {"val_accuracy": 0.9 if good else 0.1}

    monkeypatch.setattr(tiny, "grid", lambda quick=False: [dict(setting) for setting in grid])
    monkeypatch.setattr(tiny, "run", liked)
    first = run(tmp_path)
    before = plan.load(tmp_path / "tiny.jsonl", 1)
    assert before.settings == [other, old] and before.earlier == []
    monkeypatch.setattr(tiny, "SEEDS", more)
    rows = run(tmp_path, phase="choose")
    planned = plan.load(tmp_path / "tiny.jsonl", 1)
    assert planned.settings == [new, other] and planned.chosen_on == more
    assert planned.earlier == [plan.Earlier(few, before.settings, before.provenance)]
    assert (planned.seeds, planned.pilots) == (before.seeds, before.pilots)
    assert "was chosen, but not confirmed" in experiments.judge(rows).sentence
    rows = run(tmp_path)
    assert plan.load(tmp_path / "tiny.jsonl", 1) == planned and experiments.judge(rows).outcomes
    added = [row for row in by_phase(rows, "confirm") if row["setting"] == new]
    assert [row["seed"] for row in added] == list(planned.fresh)
    assert {experiment.row_key(row): row["test_accuracy"] for row in first}.items() <= {
        experiment.row_key(row): row["test_accuracy"] for row in rows
    }.items()
    (comparison,) = experiment.find("tiny").comparisons(rows)
    assert new in comparison.settings and old not in comparison.settings and comparison.seeds == tuple(planned.fresh)


def test_another_confirmation_is_of_other_seeds_and_replaces_the_verdict(tmp_path, tiny, monkeypatch):
    """Its number is that of the first one's scatter, whose rows and plan stay; what is missing of either is made."""
    first = run(tmp_path)
    path, before = tmp_path / "tiny.jsonl", plan.load(tmp_path / "tiny.jsonl", 1)
    (comparison,) = experiment.find("tiny").comparisons(first)
    monkeypatch.setattr(tiny, "CONFIRMATION", 2, raising=False)
    assert experiments.judge(first).sentence.startswith("Open: the chosen settings have not been confirmed")
    assert experiments.judge(run(tmp_path, phase="choose")).sentence.startswith("Open: the chosen settings have not")
    planned = plan.load(path, 1)
    assert planned.before == before and planned.settings == before.settings and planned.earlier == []
    found = comparison.difference
    assert planned.pilots == [Pilot("tiny", comparison.name, found.mean, found.sd, experiment.find("tiny").delta)]
    assert planned.seeds == plan.number_again(planned.pilots)
    assert planned.fresh == range(2 * FIRST, 2 * FIRST + planned.seeds)
    rows = run(tmp_path)
    assert plan.load(path, 1) == planned
    assert {row["seed"] for row in by_phase(rows, "confirm")} == set(planned.fresh)
    assert {row["planned"] for row in by_phase(rows, "confirm")} == {planned.seeds}
    (again,) = experiment.find("tiny").comparisons(rows)
    assert again.seeds == tuple(planned.fresh) and experiments.judge(rows).outcomes
    everything = experiment.inventory(experiment.find("tiny"), path)
    old = [row for row in everything.rows if row["seed"] in before.fresh]
    assert [row["planned"] for row in old] == [before.seeds] * 2 * before.seeds and everything.missing == []
    monkeypatch.setattr(tiny, "CONFIRMATION", 1)  # as before its rows are all there: the pages keep the first verdict
    assert experiments.judge(experiments.load("tiny", tmp_path)) == experiments.judge(first)
    assert experiment.find("tiny").plan(path) == before
    monkeypatch.setattr(tiny, "CONFIRMATION", 2)
    lost = [old[0], everything.rows[-1]]
    write(tmp_path, [row for row in everything.rows if row not in lost])
    run(tmp_path)
    assert sorted(map(experiment.row_key, experiment.inventory(experiment.find("tiny"), path).rows)) == sorted(
        map(experiment.row_key, everything.rows)
    )
    assert run(tmp_path / "from the start") and plan.load(tmp_path / "from the start" / "tiny.jsonl", 1).before


def test_a_plan_of_an_older_version_is_made_again(tmp_path, tiny, monkeypatch):
    run(tmp_path, phase="choose")
    monkeypatch.setattr(tiny, "VERSION", 2)
    assert experiment.find("tiny").plan(tmp_path / "tiny.jsonl") is None
    run(tmp_path, phase="choose")
    assert plan.load(tmp_path / "tiny.jsonl", 2).version == 2


@pytest.mark.parametrize(
    "more, message",
    [
        ({"seeds": [99, 100]}, r"seeds from 100 on must be those of the plan, got \[100\]"),
        ({"phase": "confirm"}, "phase must be choose or left out, got 'confirm'"),
    ],
)
def test_arguments_out_of_range(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        experiments.run("tiny", results=tmp_path, **more)
    assert not list(tmp_path.iterdir())


def test_a_row_that_confirms_is_made_again_elsewhere(tmp_path, tiny, monkeypatch):
    """By the plan that is committed with the rows; what it does not hold is not confirmed."""
    monkeypatch.setattr(experiment.Study.file, "__defaults__", (tmp_path, False))
    rows = by_phase(run(tmp_path), "confirm")
    again = run(tmp_path / "elsewhere", seeds=[FIRST + 3])
    expected = [row for row in rows if row["seed"] == FIRST + 3]
    without_bits = [{k: v for k, v in row.items() if k not in ("correct", "seconds", "provenance")} for row in expected]
    assert [
        {k: v for k, v in row.items() if k not in ("correct", "seconds", "provenance")} for row in again
    ] == without_bits
    with pytest.raises(ValueError, match=r"seeds from 100 on must be those of the plan, got \[900\]"):
        run(tmp_path / "elsewhere", seeds=[900])


def test_a_comparison_made_by_hand_must_name_its_settings(tmp_path, tiny, monkeypatch):
    made = [experiments.Comparison("by hand", {0: 0.1, 1: 0.2, 2: 0.4}, {0: 0.0, 1: 0.0, 2: 0.0})]
    monkeypatch.setattr(tiny, "comparisons", lambda rows: made)
    with pytest.raises(ValueError, match="tiny: the comparison 'by hand' must name its settings"):
        run(tmp_path)


def test_nothing_is_confirmed_at_the_edge_of_a_grid(tmp_path, tiny, monkeypatch):
    inside = tiny.comparisons
    monkeypatch.setattr(tiny, "comparisons", lambda rows: [replace(*inside(rows), edges=("lr of 'with BN'",))])
    with pytest.raises(ValueError, match="tiny, each at its best rate: the best lr of 'with BN' lies at the edge"):
        run(tmp_path)
    assert len(experiments.load("tiny", tmp_path)) == 18 and not list(tmp_path.glob("*.plan.json"))


def test_the_bits_of_fresh_rows_are_kept(tmp_path, tiny):
    """The bootstrap over images reads them; those of the pilot are dropped."""
    rows = run(tmp_path)
    kept = bits.load(tmp_path / "tiny.jsonl")
    assert {experiment.row_key(row) for row in by_phase(rows, "confirm")} == kept.keys()
    assert all(row["correct"] is None for row in by_phase(rows, "choose"))


# --- the choice and the verdict ---------------------------------------------------------------------------------------


def made_up(lr: float, seed: int, val: float, test: float) -> dict:
    phase = {"phase": "choose"} if seed < FIRST else {"phase": "confirm", "planned": 2}
    measured = {"val_accuracy": val, "test_accuracy": test, "diverged": False}
    return {"setting": {"lr": lr}, "seed": seed, **phase, **measured}


def test_the_choice_does_not_see_fresh_rows():
    rows = [made_up(lr, seed, val, 0.5) for lr, val in ((0.1, 0.7), (1.0, 0.8), (10.0, 0.6)) for seed in (0, 1)]
    rows += [made_up(lr, 100, val, 0.6) for lr, val in ((0.1, 0.95), (1.0, 0.1))]
    choice = best(rows, "lr")
    assert choice.values == {"lr": 1.0} and choice.means == {(0.1,): 0.7, (1.0,): 0.8, (10.0,): 0.6}
    assert [row["seed"] for row in choice.rows] == [100]
    assert [row["seed"] for row in fresh(rows)] == [100, 100] and fresh(rows[:6]) == rows[:6]
    assert [row["seed"] for row in best(rows[:6], "lr").rows] == [0, 1]
    with pytest.raises(Incomplete, match="lr 1 was chosen, but not confirmed"):
        best([row for row in rows if row["setting"]["lr"] != 1.0 or row["seed"] < FIRST], "lr")
    with pytest.raises(Incomplete, match="only rows that confirm"):
        best(rows[6:], "lr")


def test_the_verdict_is_from_the_planned_seeds_alone(tmp_path, tiny):
    """Neither the pilot nor a seed added afterwards changes it; one that is missing takes it away."""
    rows = run(tmp_path)
    judged = experiments.judge(rows)
    confirming = by_phase(rows, "confirm")
    assert f"({confirming[0]['planned']} paired seeds" in judged.sentence
    changed = [row | {"test_accuracy": 0.1} if row["phase"] == "choose" else row for row in rows]
    assert experiments.judge(changed) == judged
    more = [row | {"seed": row["seed"] + 1000, "test_accuracy": 1.0, "planned": 1050} for row in confirming]
    assert experiments.judge(rows + more) == judged
    assert "1 of the" in experiments.judge([row for row in rows if row is not confirming[-1]]).sentence
    unplanned = [row | {"seed": seed} for row in rows if row["phase"] == "choose" for seed in (50, 51)]
    misleading = [row | {"val_accuracy": 1 - row["val_accuracy"], "test_accuracy": 1.0} for row in unplanned]
    assert experiments.judge(rows + misleading) == judged and experiments.judge(rows + misleading[:1]) == judged
    without_pilot = experiments.judge([row for row in rows if row["phase"] == "confirm" or row["seed"]])
    assert "6 of the 18 planned runs are missing" in without_pilot.sentence


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"phase": None}, "has a phase that is neither choose nor confirm: None"),
        ({"seed": 5}, "has the phase 'confirm', but fresh seeds begin at 100: 5"),
        ({"planned": None}, "confirms, but does not say how many seeds were planned"),
    ],
)
def test_a_row_of_the_wrong_phase_is_damage(tmp_path, tiny, change, problem):
    row = by_phase(run(tmp_path), "confirm")[0]
    study = experiment.find("tiny")
    assert study.problem(row) is None and study.problem(row | change) == problem


# --- the number of seeds ----------------------------------------------------------------------------------------------


def pilot(sd: float, mean: float = 0.0, delta: float = DELTA, claim: str = "c") -> Pilot:
    return Pilot(claim, "condition", mean, sd, delta)


@pytest.mark.parametrize("sd", [0.3, 0.6, 1.0])
def test_so_many_seeds_give_an_interval_of_half_delta(sd):
    n = seeds_needed([pilot(sd * DELTA)])
    half = [stats.t.interval(0.95, k - 1, scale=sd / math.sqrt(k))[1] for k in (n - 1, n)]
    assert half[0] > 0.5 >= half[1]


def test_so_many_seeds_find_twice_delta():
    """The probability of an interval above δ when the effect is 2δ, by simulation: above 0.8."""
    n = seeds_needed([pilot(0.8 * DELTA)])
    draws = np.random.default_rng(0).normal(2, 0.8, (4000, n))
    low = stats.t.interval(0.95, n - 1, draws.mean(axis=1), stats.sem(draws, axis=1))[0]
    assert (low > 1).mean() > 0.8
    few = draws[:, : n // 3]
    assert (stats.t.interval(0.95, n // 3 - 1, few.mean(axis=1), stats.sem(few, axis=1))[0] > 1).mean() < 0.8


def test_a_large_effect_needs_fewer_and_all_conditions_count_together():
    assert seeds_needed([pilot(2 * DELTA, mean=9 * DELTA)]) < 10 < seeds_needed([pilot(2 * DELTA)])
    assert seeds_needed([pilot(2 * DELTA, mean=-9 * DELTA)]) == seeds_needed([pilot(2 * DELTA, mean=9 * DELTA)])
    together = seeds_needed([pilot(0.3 * DELTA), pilot(0.9 * DELTA)])
    assert together == seeds_needed([pilot(math.sqrt((0.3**2 + 0.9**2) / 2) * DELTA)])
    assert seeds_needed([pilot(0)]) == 2 and seeds_needed([pilot(1)]) == MOST
    claims_together = [pilot(0.3 * DELTA), pilot(1.0, delta=1.2, claim="d")]
    assert plan.number_of_seeds(claims_together) == seeds_needed(claims_together[1:]) > FEWEST
    assert plan.number_of_seeds(claims_together[:1]) == FEWEST


def test_another_confirmation_brings_every_condition_to_the_width_asked_for():
    wide, far = pilot(0.9 * DELTA), pilot(2 * DELTA, mean=9 * DELTA)
    assert plan.number_again([far, wide, pilot(0.1 * DELTA)]) == seeds_needed([wide]) > seeds_needed([wide, far])
    assert plan.number_again([far]) == FEWEST and plan.number_again([pilot(1)]) == MOST
    with pytest.raises(ValueError, match="pilots must hold at least one condition"):
        plan.number_again([])


@pytest.mark.parametrize(
    "pilots, message",
    [
        ([], "pilots must hold at least one condition"),
        ([pilot(math.nan)], "sd must be a number of at least 0, got nan of 'condition'"),
        ([pilot(0.1, delta=0)], "delta must be above 0, got 0"),
    ],
)
def test_numbers_that_plan_nothing(pilots, message):
    with pytest.raises(ValueError, match=message):
        seeds_needed(pilots)


# --- the committed plans ----------------------------------------------------------------------------------------------


CONFIRMING = [study.name for study in map(experiment.find, experiments.names()) if study.confirm]


@pytest.mark.parametrize("name", CONFIRMING)
def test_a_committed_plan_is_that_of_its_pilot_and_older_than_its_rows(name):
    claim = experiment.find(name)
    study = experiment.find(claim.rows_of)
    rows = experiment.inventory(study, study.file(), ()).rows
    if (planned := plan.load(study.file(), study.version)) is None:  # also one of a confirmation that goes on
        assert not by_phase(rows, "confirm")
        return
    first_one, *others = planned.confirmations
    assert first_one.seeds == plan.number_of_seeds(first_one.pilots)
    plans = [*first_one.earlier, first_one]
    assert planned.chosen_on == study.seeds
    for i, a_plan in enumerate(plans):
        choosing = [row for row in by_phase(rows, "choose") if row["seed"] < a_plan.chosen_on]
        for comparison in claim.comparisons(choosing):
            assert all(setting in a_plan.settings for setting in comparison.settings)
            if i > 0:
                continue
            _said_before(first_one, claim, comparison)
    for k, again in enumerate(others, start=1):
        assert again.seeds == plan.number_again(again.pilots) and again.settings == again.before.settings
        for comparison in claim.comparisons(experiment.of_planned_seeds(study, rows, k)):
            _said_before(again, claim, comparison)
    for row in by_phase(rows, "confirm"):
        own = planned.confirmations[row["seed"] // FIRST - 1]
        first = next(a_plan for a_plan in [*own.earlier, own] if row["setting"] in a_plan.settings)
        assert row["planned"] == own.seeds and row["seed"] in own.fresh
        assert row["provenance"]["date"] >= first.provenance["date"]


def _said_before(planned: plan.Plan, claim: experiment.Experiment, comparison: experiments.Comparison) -> None:
    """The plan holds what this comparison said."""
    mine = next(p for p in planned.pilots if (p.experiment, p.condition) == (claim.name, comparison.name))
    found = comparison.difference
    assert (found.mean, found.sd, claim.delta) == pytest.approx((mine.mean, mine.sd, mine.delta))
