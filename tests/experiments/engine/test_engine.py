"""The engine of the experiments: what is found, run, kept, read back and shown."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bnbook import experiments
from bnbook.experiments import __main__ as command
from bnbook.experiments import claims, policy
from bnbook.experiments.engine import bits, experiment, runs
from bnbook.experiments.engine.experiment import everywhere
from bnbook.experiments.engine.rows import ResultsError, Rows
from bnbook.experiments.engine.words import is_factor
from bnbook.provenance import provenance

ROOT = Path(__file__).parents[3]
EXAMPLES = Path(__file__).parent / "example_experiments"
BROKEN = "QUESTION, CHAPTER, VERSION = 'Why?', 1, 1\ndef grid(quick=False): return []\n"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The module of the example, found as the package's own are."""
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(EXAMPLES)])
    monkeypatch.setenv("BNBOOK_EXPERIMENTS", str(EXAMPLES))
    for name in [name for name in os.environ if name.startswith("TINY_")]:
        monkeypatch.delenv(name)
    return importlib.import_module("bnbook.experiments.claims.tiny")


def measured(rows: list[dict]) -> list[dict]:
    """Rows without what differs from one process to the next."""
    return [{k: v for k, v in row.items() if k not in ("provenance", "seconds", "pid", "threads")} for row in rows]


def run(folder: Path, **more) -> list[dict]:
    """Run the example; the rows."""
    assert experiments.run("tiny", results=folder, progress=False, **more) == []
    return experiments.load("tiny", folder, more.get("quick", False))


def lines(folder: Path) -> list[str]:
    return (folder / "tiny.jsonl").read_text(encoding="utf-8").splitlines()


def tell(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """The command as one types it."""
    return subprocess.run(
        [sys.executable, "-m", "bnbook.experiments", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        env=os.environ | environment,
    )


# --- the rows ---------------------------------------------------------------------------------------------------------


def test_every_run_of_the_grid_is_made_once_and_kept(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("TINY_TRACE", str(tmp_path / "trace"))
    rows = run(tmp_path, command="python -m …", seeds=(0, 1))
    row = rows[0]
    assert row["experiment"] == "tiny" and row["version"] == 1 and row["diverged"] is False and row["seconds"] >= 0
    assert bits.unpack_bits(row["correct"]).mean() == row["test_accuracy"] > 0.2
    assert row["provenance"]["command"] == "python -m …" and row["provenance"]["commit"] == provenance("")["commit"]
    rows = run(tmp_path)
    assert [(row["setting"], row["seed"]) for row in rows] == [(s, seed) for s in tiny.grid() for seed in range(3)]
    assert [json.loads(line)["seed"] for line in lines(tmp_path)] == [0] * 6 + [1] * 6 + [2] * 6  # whole grids first
    assert experiment.inventory(experiment.find("tiny"), tmp_path / "tiny.jsonl", range(3)).missing == []
    before = (tmp_path / "tiny.jsonl").read_bytes()
    assert run(tmp_path) == rows and (tmp_path / "tiny.jsonl").read_bytes() == before
    assert len((tmp_path / "trace").read_text(encoding="utf-8").split("begin")) - 1 == 18
    assert run(tmp_path, seeds=(7, 1)) == rows  # a seed that was not planned is kept, but not loaded
    assert (tmp_path / "tiny.jsonl").read_bytes().startswith(before)
    more = experiment.inventory(experiment.find("tiny"), tmp_path / "tiny.jsonl").rows
    assert [(r["setting"], r["seed"]) for r in more] == [(s, seed) for s in tiny.grid() for seed in (0, 1, 2, 7)]


@pytest.mark.long
def test_rows_are_the_same_whoever_makes_them(tmp_path):
    """In this process, by the command, and by two workers, which begin with one thread."""
    here = run(tmp_path / "here")
    slow = {"OMP_NUM_THREADS": "3", "TINY_SECONDS": "0.25"}  # so that the first worker is not through alone
    answer = tell("run", "tiny", "--jobs", 2, "--results", tmp_path / "workers", **slow)
    assert answer.returncode == 0 and "tiny: 18 rows, 0 missing, 0 runs failed" in answer.stdout
    assert "18/18" in answer.stderr and re.search("run/s|s/run", answer.stderr)  # the bar
    by_workers = experiments.load("tiny", tmp_path / "workers")
    assert measured(by_workers) == measured(here)
    assert len({row["pid"] for row in by_workers}) == 2 and {row["threads"] for row in by_workers} == {"1"}
    assert by_workers[0]["provenance"]["command"] == "python -m bnbook.experiments run tiny"
    assert tell("run", "tiny", "--results", tmp_path / "one", "--seeds", 1, OMP_NUM_THREADS="3").returncode == 0
    assert {row["threads"] for row in experiments.load("tiny", tmp_path / "one")} == {"1"}


def test_threads_are_pinned_in_workers_of_the_library_too(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert {row["threads"] for row in run(tmp_path, jobs=2)} == {"1"}


def test_quick_rows_never_land_in_the_same_file(tmp_path, tiny):
    quick = run(tmp_path, quick=True, seeds=(0, 1))
    assert [row["setting"] for row in quick[::2]] == tiny.grid(quick=True)
    assert not (tmp_path / "tiny.jsonl").exists() and (tmp_path / "quick" / "tiny.jsonl").exists()
    assert len(run(tmp_path)) == 18 and len(experiments.load("tiny", tmp_path, quick=True)) == 8


def test_a_damaged_line_is_named_its_run_repeated_and_the_intact_rows_are_kept(tmp_path, capsys):
    rows = run(tmp_path, seeds=(0, 1))
    whole = lines(tmp_path)
    damaged = [*whole]
    damaged[3] = damaged[3][:100]
    damaged[5] = damaged[5].replace('"test_accuracy":', '"test_accuracy":1')  # not the share of correct images
    (tmp_path / "tiny.jsonl").write_text("\n".join(damaged) + "\n", encoding="utf-8")
    with pytest.raises(ResultsError, match="line 4 is not JSON"):
        experiments.load("tiny", tmp_path)
    assert experiments.run("tiny", results=tmp_path, seeds=(0, 1), progress=False) == []
    told = capsys.readouterr().err
    assert "line 4 is not JSON" in told and "line 6 has a test_accuracy of 1" in told and "delete the line" in told
    assert lines(tmp_path)[:12] == damaged and len(lines(tmp_path)) == 14  # the two runs that were lost
    kept = [line for i, line in enumerate(lines(tmp_path)) if i not in (3, 5)]  # as the message says
    (tmp_path / "tiny.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert measured(experiments.load("tiny", tmp_path)) == measured(rows)


def test_a_truncated_last_line_is_repeated(tmp_path, capsys):
    rows = run(tmp_path)
    (tmp_path / "tiny.jsonl").write_bytes((tmp_path / "tiny.jsonl").read_bytes()[:-9])
    assert measured(run(tmp_path)) == measured(rows)
    assert "the last line is incomplete; it is dropped and its run repeated" in capsys.readouterr().err
    assert len(lines(tmp_path)) == 18


def test_stale_rows_are_named_and_kept_but_not_used(tmp_path, tiny, capsys, monkeypatch):
    run(tmp_path)
    old = lines(tmp_path)
    monkeypatch.setattr(tiny, "VERSION", 2)
    with pytest.raises(ResultsError, match="no rows of 'tiny' yet: python -m"):
        experiments.load("tiny", tmp_path)
    rows = run(tmp_path)
    assert "18 rows are stale, of version 1; the experiment is 2" in capsys.readouterr().err
    assert {row["version"] for row in rows} == {2} and len(rows) == 18 and lines(tmp_path)[:18] == old
    assert command.main(["status", "--results", str(tmp_path)]) in (0, 1)
    words = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("tiny"))
    assert words[1:5] == ["18", "0", "18", "0"]


def test_rows_outside_the_grid_are_named_not_used(tmp_path, tiny, capsys, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(tiny, "RATES", (0.1, 1.0, 10.0))
    rows = run(tmp_path)
    assert "6 rows have settings that the grid does not have; they are not used" in capsys.readouterr().err
    assert {row["setting"]["lr"] for row in rows} == {0.1, 1.0, 10.0} and len(lines(tmp_path)) == 24


def test_some_settings_alone_can_be_run(tmp_path, capsys):
    folder = ["--results", str(tmp_path)]
    assert command.main(["run", "tiny", "--only", "norm=batch", "lr=0.1", "--seeds", "2", *folder]) == 0
    assert "tiny: 2 rows, 10 missing, 0 runs failed" in capsys.readouterr().out
    rows = experiments.load("tiny", tmp_path)
    assert [(row["setting"], row["seed"]) for row in rows] == [({"norm": "batch", "lr": 0.1}, seed) for seed in (0, 1)]
    assert rows[0]["provenance"]["command"] == (
        "python -m bnbook.experiments run tiny --seeds 2 --only norm=batch lr=0.1"
    )
    assert command.main(["run", "tiny", "--only", "norm", *folder]) == 1
    assert "--only must be given as name=value, got norm" in capsys.readouterr().err


@pytest.mark.long
def test_a_run_that_raises_has_no_row_and_the_others_go_on(tmp_path):
    raises = "batch 0.1 1;none 1.0 0"
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        answer = tell("run", "tiny", "--jobs", jobs, "--results", folder, TINY_RAISES=raises)
        assert answer.returncode == 1 and "16 rows, 2 missing, 2 runs failed" in answer.stdout
        assert "FAILED tiny, norm batch, lr 0.1, seed 1:" in answer.stderr
        assert "ArithmeticError: none 1.0 0 raises" in answer.stderr
        assert tell("run", "tiny", "--results", folder).returncode == 0
        assert len(experiments.load("tiny", folder)) == len(lines(folder)) == 18


@pytest.mark.parametrize(
    "more, diverged, value",
    [
        ({"test_accuracy": float("nan")}, True, None),
        ({"test_accuracy": None}, True, None),
        ({"diverged": True}, True, 0.5),
        ({}, False, 0.5),
    ],
)
def test_a_diverged_run_is_a_row(tmp_path, tiny, monkeypatch, more, diverged, value):
    monkeypatch.setattr(tiny, "run", lambda setting, seed: {"test_accuracy": 0.5, "val_accuracy": float("inf")} | more)
    row = run(tmp_path)[0]
    assert row["diverged"] is diverged and row["test_accuracy"] == value and row["val_accuracy"] is None


@pytest.mark.parametrize(
    "row, message",
    [
        ({"val_accuracy": 0.5}, "returned a row that has no test_accuracy"),
        ({"test_accuracy": "high"}, "has a test_accuracy that is no number: 'high'"),
        ({"test_accuracy": 0.5, "seconds": 3.0}, "must leave seconds to the engine"),
        ({"test_accuracy": 0.5, "correct": [1, 0]}, "bits must be a vector of booleans"),
        ({"test_accuracy": 0.5, "values": {1, 2}}, "got set"),
    ],
)
def test_a_run_with_the_wrong_measurements_fails(tmp_path, tiny, monkeypatch, capsys, row, message):
    monkeypatch.setattr(tiny, "run", lambda setting, seed: row)
    assert len(experiments.run("tiny", results=tmp_path, seeds=(0,), progress=False)) == 6
    assert message in capsys.readouterr().err and not (tmp_path / "tiny.jsonl").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda row: row.pop("seed"), "has no seed"),
        (lambda row: row.update(seed=True), "has a seed of the wrong kind: True"),
        (lambda row: row.update(version="1"), "has a version of the wrong kind: '1'"),
        (lambda row: row.update(experiment="huge"), "is a row of the experiment 'huge', not of 'tiny'"),
        (lambda row: row["setting"].update(lr=[0.1]), "has a setting that is not flat"),
        (lambda row: row.update(provenance={"date": "today"}), "has a provenance without command, commit"),
        (lambda row: row.update(test_accuracy=None), "has a test_accuracy that is no number: None"),
        (lambda row: row.update(test_accuracy=row["test_accuracy"] + 0.005), "of its images are correct"),
        (lambda row: row.update(correct="200:abc"), "has a correct that cannot be read"),
        (lambda row: row.update(seconds="3"), "has a seconds of the wrong kind: '3'"),
        (lambda row: row.update(seconds=None), None),  # not recorded
        (lambda row: row.update(correct=None), None),  # dropped
        (lambda row: row.update(more=3), None),
    ],
)
def test_the_schema(tmp_path, change, message):
    row = run(tmp_path, seeds=(0,))[0]
    tiny = experiment.find("tiny")
    assert tiny.problem(row) is None
    change(row)
    found = tiny.problem(row)
    assert found is message is None or message in found


UNDER_WAY = ("gpu_speed",)  # it waits for a card; a claim on the rows of one of these is under way, too


@pytest.mark.parametrize("name", experiments.names() + experiments.study_names())
def test_the_committed_results_are_whole(name):
    """No damage, no stale rows, none outside the grid; of all that are not under way, no planned run is missing."""
    study = experiment.find(experiment.find(name).rows_of)
    found = experiment.inventory(study, study.file())
    assert found.warnings(study, study.file()) == []
    whole = not found.missing and (study.plan(study.file()) or not study.confirm)
    assert whole != (study.name in UNDER_WAY) and (found.rows or not whole)


@pytest.mark.long
@pytest.mark.parametrize("name", ["conv_order", "conv_rates"])
def test_a_run_gives_a_row(monkeypatch, name):
    """That `run` measures what the schema asks for is seen before a long run, not after it."""
    module = importlib.import_module(f"bnbook.experiments.claims.{name}")
    split = module.split
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(module, "split", lambda *names, **how: tuple(part[:300] for part in split(*names, **how)))
    for setting in module.grid()[:: len(module.grid()) - 1]:
        row, error = runs.work(name, setting, 0, "test", {"phase": "choose"})
        assert row and not error, error


# --- experiments ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_experiment_is_one_file(tmp_path):
    assert "tiny" in experiments.names()
    assert not any(name.startswith("_") for name in experiments.names())
    (tmp_path / "new.py").write_text(
        (EXAMPLES / "tiny.py").read_text(encoding="utf-8").replace("softmax regression?", "new?"), encoding="utf-8"
    )
    (tmp_path / "_shared.py").write_text("raise ImportError", encoding="utf-8")
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    answer = tell("list", BNBOOK_EXPERIMENTS=str(tmp_path))
    assert answer.returncode == 1 and "_shared" not in answer.stdout
    assert "BROKEN: the experiment 'broken' must define CLAIM, FOLKLORE, SOURCE, DATASET" in answer.stdout
    assert "new " in answer.stdout
    answer = tell("run", "new", "--results", tmp_path, "--seeds", "1", BNBOOK_EXPERIMENTS=str(tmp_path))
    assert answer.returncode == 0 and len(Rows(tmp_path / "new.jsonl").read().rows) == 6


def test_constants_left_out_have_the_values_that_the_package_says():
    tiny = experiment.find("tiny")
    left_out = {
        "METRIC": "test_accuracy",
        "EFFECT": "points of test accuracy",
        "SIZE": 0.0,
        "SCOPE": "",
        "CHANCE": 0.1,
        "NEEDS_MORE": False,
        "FACTOR": "the condition",
    }
    assert {word: getattr(tiny, word.lower()) for word in left_out} == left_out
    assert tiny.delta == policy.POINTS.delta == 0.005 and "    DELTA = POINTS.delta " in experiments.__doc__
    assert tiny.seeds == 3  # its own
    for word, value in (left_out | {"SEEDS": experiment.Experiment.seeds}).items():
        assert f"    {word} = {json.dumps(value).replace('false', 'False')} " in experiments.__doc__
    for word in experiment.NEEDED[experiment.Experiment]:
        assert word in experiments.__doc__


def test_a_name_that_reads_as_a_switch_is_refused(monkeypatch, tiny):
    monkeypatch.setattr(tiny, "CONFIRM", "confirm", raising=False)
    with pytest.raises(ValueError, match="CONFIRM of the experiment 'tiny' must be True or False, got 'confirm'"):
        experiment.find("tiny")


def test_finding_an_experiment_changes_no_module(tiny):
    before = set(vars(tiny))
    found = experiment.find("tiny")
    assert set(vars(tiny)) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.delta = 1.0


@pytest.mark.parametrize(
    "grid, message",
    [
        ([{"lr": (1, 2)}], "must hold strings, numbers, booleans and None, got 'lr': \\(1, 2\\)"),
        ([{"lr": float("nan")}], "got 'lr': nan"),
        ([{"lr": 1}, {"rate": 1}], "the same names, got {'rate': 1} after {'lr': 1}"),
        ([{"lr": 1}, {"lr": 2}, {"lr": 1}], "once, got {'lr': 1} twice"),
    ],
)
def test_a_grid_that_cannot_be_kept_is_refused(tmp_path, tiny, monkeypatch, grid, message):
    monkeypatch.setattr(tiny, "grid", lambda quick=False: grid)
    with pytest.raises(ValueError, match=message):
        experiments.run("tiny", results=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "more, message",
    [
        ({"name": "huge"}, "NAME must be one of .*tiny.*, got 'huge'"),
        ({"seeds": (1, 1)}, "seeds must be at least one, different"),
        ({"seeds": (-1,)}, "not negative, got"),
        ({"seeds": ()}, "at least one"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"only": {"rate": "1"}}, "only must name norm, lr, got rate"),
        ({"only": {"lr": "2", "norm": "none"}}, "where lr is 0.01, 0.1, 1; norm is none, batch; got lr 2, norm none"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        experiments.run(**({"name": "tiny", "results": tmp_path} | more))
    assert not list(tmp_path.iterdir())


def test_the_package_stays_light():
    code = """
import sys, bnbook.experiments
print({"numpy", "torch", "scipy", "matplotlib", "joblib", "distributed", "tqdm"} & set(sys.modules))"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
        == "set()\n"
    )


@pytest.mark.parametrize("name", experiment.names())
def test_every_claim_says_what_it_is_worth_and_what_its_source_speaks_of(name):
    """δ is the policy's for the unit, and a source that names a setting has the conditions within it marked."""
    claim = experiment.find(name)
    factor = is_factor(claim.metric)
    ends = {"accuracy": policy.POINTS, "loss": policy.LOSS, "calibration_error": policy.CALIBRATION}
    sizes = [size for word, size in ends.items() if claim.metric.endswith(word)]
    assert claim.delta in [size.delta for size in sizes or policy.POLICY.values() if factor != (size in sizes)]
    assert factor == claim.effect.startswith("times") and bool(claim.scope) == (claim.in_scope is not everywhere)
    assert claim.size == 0 or claim.size > claim.delta
    assert claim.folklore != claim.claim and claim.folklore.endswith(".")


def test_the_quotation_is_judged_where_it_speaks_of_and_the_folklore_everywhere(tmp_path, tiny, monkeypatch):
    rows = run(tmp_path)
    found = experiments.judge(rows)
    assert found.quoted == dataclasses.replace(found, quoted=None)  # the source names no setting
    monkeypatch.setattr(tiny, "in_scope", lambda comparison: False, raising=False)
    assert experiments.judge(rows).quoted is None

    def twice(rows, of_tiny=tiny.comparisons):
        (one,) = of_tiny(rows)
        return [one, dataclasses.replace(one, name="swapped", a=one.b, b=one.a, correct=None)]

    monkeypatch.setattr(tiny, "comparisons", twice)
    monkeypatch.setattr(tiny, "in_scope", lambda comparison: comparison.name == "swapped")
    found = experiments.judge(rows)
    assert list(found.quoted.outcomes) == ["swapped"] and len(found.outcomes) == 2
    assert found.quoted.outcomes["swapped"] == found.outcomes["swapped"]


# --- the pages and the command ----------------------------------------------------------------------------------------


def test_the_verdict_needs_all_planned_runs(tmp_path, tiny, monkeypatch):
    run(tmp_path, seeds=(0, 1))
    found = experiments.judge(experiments.load("tiny", tmp_path))
    assert found.word == "open" and "6 of the 18 planned runs are missing" in found.sentence
    rows = run(tmp_path)
    assert "minus that of 'without BN'" in experiments.judge(rows).sentence
    monkeypatch.setattr(tiny, "DELTA", -1, raising=False)
    with pytest.raises(ValueError, match="delta must be at least 0"):  # it is this constant that counts
        experiments.judge(rows)
    monkeypatch.setattr(tiny, "DELTA", 0.005)
    monkeypatch.setattr(tiny, "SEEDS", 4)
    assert "6 of the 24 planned runs" in experiments.judge(rows).sentence
    half = [row for row in rows if row["setting"]["lr"] != 1.0]
    monkeypatch.setattr(tiny, "SEEDS", 3)
    assert "6 of the 18 planned runs" in experiments.judge(half).sentence  # no rate is forgotten


def test_where_rows_come_from_in_a_line(tmp_path, tiny):
    rows = run(tmp_path, seeds=(0, 1))
    date = rows[0]["provenance"]["date"]
    start = "Fashion-MNIST, 64 images; softmax regression; 8 updates; 2 seeds; "
    assert experiments.provenance_line(rows).startswith(start) and experiments.provenance_line(rows).endswith(date)
    for row in rows:
        row["provenance"]["torch"] = "2.13.0"
        row["setting"]["steps"] = 50_000
    rows[0]["setting"]["steps"], rows[0]["provenance"]["date"] = 2_500, "2000-01-01"
    line = experiments.provenance_line(rows)
    assert "2,500 to 50,000 updates" in line and "PyTorch 2.13.0" in line and f"2000-01-01 to {date}" in line
    for row, seconds in zip(rows, [600, 1800] + [0] * 10, strict=True):
        row["seconds"] = seconds
    assert experiments.cost(rows) == "about 40 minutes on one core"


def test_show_says_what_came_out(tmp_path, capsys):
    run(tmp_path, seeds=(0, 1))
    run(tmp_path, seeds=(2,), jobs=2)
    figure = tmp_path / "figure.png"
    assert command.main(["show", "tiny", "--results", str(tmp_path), "--figure", str(figure)]) == 0
    told = capsys.readouterr().out
    rows = experiments.load("tiny", tmp_path)
    (comparison,) = experiment.find("tiny").comparisons(rows)
    for words in (
        "[ioffe2015batch]",
        experiments.provenance_line(rows),
        "norm     lr  seeds  diverged  test_accuracy      sd",
        "with BN: lr 0.1",
        f"{100 * comparison.difference.mean:+.2f} points [",
        "95 % t-interval over 3 paired seeds",
        "95 % bootstrap interval over the test images",
        experiments.judge(rows).sentence,
    ):
        assert words in told
    assert figure.stat().st_size > 1000
    values = [row["test_accuracy"] for row in rows[:3]]
    row = ["none", "0.01", "3", f"{np.mean(values):.4f}", f"{np.std(values, ddof=1):.4f}"]
    assert row in [line.split() for line in told.splitlines()]


def test_studies_are_listed_apart_and_shown_without_a_verdict(tmp_path, capsys):
    pytest.importorskip("torch", reason="torch is not installed, and most claims and studies are broken")
    assert command.main(["list"]) == 0
    claims, _, studies = capsys.readouterr().out.partition("Studies, which answer no claim:")
    assert all(f"\n{name} " in claims and f"\n{name} " not in studies for name in experiments.names()[:-1])
    assert all(f"\n{name} " in studies and f"\n{name} " not in claims for name in experiments.study_names())
    assert command.main(["show", "numpy_cnn"]) == 0
    shown = capsys.readouterr().out
    assert "36 runs, their time was not recorded" in shown and "with BN     0.003      3" in shown
    assert "claim" not in shown.lower() and "open" not in shown.lower()
    assert command.main(["show", "numpy_cnn", "--figure", str(tmp_path / "f.png")]) == 1
    assert "--figure needs an experiment with a claim, numpy_cnn is a study" in capsys.readouterr().err
    with pytest.raises(ValueError, match="with a claim, 'numpy_cnn' is a study"):
        experiments.judge(experiments.load("numpy_cnn"))


def test_show_goes_through_a_pipe_that_closes(tmp_path):
    run(tmp_path, seeds=(0,))
    words = [sys.executable, "-m", "bnbook.experiments", "show", "tiny", "--results", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_show_names_what_is_not_as_planned(tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.setattr(tiny, "RATES", (0.01, 0.1))
    run(tmp_path, seeds=(0, 1))
    folder = ["--results", str(tmp_path)]
    assert command.main(["show", "tiny", *folder]) == 0
    told = capsys.readouterr().out
    assert "AT THE EDGE of its grid: lr" in told and "4 planned runs are missing" in told
    assert "Open: 4 of the 12 planned runs are missing." in told
    (tmp_path / "tiny.jsonl").write_text("\n".join(lines(tmp_path)[:-1]) + "\n", encoding="utf-8")
    assert command.main(["show", "tiny", *folder]) == 0
    assert "No comparison yet: lr 0.1 has no row of seed 1" in capsys.readouterr().out
    assert command.main(["show", "tiny", "--quick", *folder]) == 1
    assert "has no rows yet: python -m bnbook.experiments run tiny" in capsys.readouterr().err


def test_status_counts_and_estimates(tmp_path, capsys):
    run(tmp_path, seeds=(0, 1))
    rows = [json.loads(line) for line in lines(tmp_path)]
    kept = [row | {"seconds": 100.0 * (1 + i % 6)} for i, row in enumerate(rows[:8]) if i != 5]
    (tmp_path / "tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept) + "{\n", encoding="utf-8")
    assert command.main(["status", "--results", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    words = next(line for line in out.splitlines() if line.startswith("tiny")).split(maxsplit=5)
    assert words[:5] == ["tiny", "7", "11", "0", "1"]
    # Missing are 1, 1, 2, 2, 2 runs of settings that take 100 to 500 s, and 3 of one that has no row: 257 s, the mean.
    assert words[5].split() == ["30", "minutes", "58", "minutes"]
    assert "line 8 is not JSON" in err


@pytest.mark.parametrize(
    "words, seeds",
    [("5", [0, 1, 2, 3, 4]), ("3 7", [3, 7]), ("10-12", [10, 11, 12]), ("7-7", [7]), ("0-1 5", [0, 1, 5])],
)
def test_seeds_are_a_number_or_a_list(words, seeds):
    assert command.seed_list(words.split()) == seeds


def test_what_the_command_refuses(tmp_path, capsys, monkeypatch):
    for name, value in runs.ONE_THREAD.items():
        monkeypatch.setenv(name, value)  # the command does so; here it is taken back
    for arguments, message in (
        (["run", "tiny", "--seeds", "a"], "--seeds must be a number or a list as 3 7 10-14, got a"),
        (["run", "tiny", "--seeds", "0", "14-10"], "--seeds must be a number or a list as 3 7 10-14, got 0 14-10"),
        (["run", "tiny", "--seeds", "1-2-3"], "--seeds must be a number or a list as 3 7 10-14, got 1-2-3"),
        (["run", "huge"], "got 'huge'"),
        (["run", "tiny", "--jobs", "2", "--dask", "tcp://x:1"], "give one of them"),
        (["run", "tiny", "--jobs", "0", "--results", str(tmp_path)], "jobs must be at least 1"),
        (["run", "tiny", "--dask", "nonsense://x:1"], "nonsense" if find_spec("distributed") else "'distributed'"),
    ):
        assert command.main(arguments) == 1
        assert message in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TINY_TRACE", str(tmp_path / "trace"))
    assert command.main(["run", "tiny", "--seeds", "1", "--results", str(tmp_path / "file")]) == 1
    assert "results must be a folder that can be written" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()  # before the first run
