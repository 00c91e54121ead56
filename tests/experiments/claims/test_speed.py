"""The experiments of chapter 11: their grids, and what the claims make of rows."""

from __future__ import annotations

from math import log10

import matplotlib
import numpy as np
import pytest

from bnbook import experiments
from bnbook.experiments.claims import faster, higher_rates, learning_rate, rate_is_the_reason, sigmoid
from bnbook.experiments.engine import experiment
from bnbook.experiments.engine.verdict import beside

matplotlib.use("Agg")

MODULES = (learning_rate, faster, higher_rates, rate_is_the_reason)
PLANNED = 10


@pytest.fixture
def all_rates(monkeypatch):
    """Every rate at every budget, so that what rows are made up does not depend on which were best in the pilot."""
    around = {
        (optimizer, arm["norm"], arm["init"]): rates
        for optimizer, (_, _, rates) in learning_rate.OPTIMIZERS.items()
        for arm in learning_rate.ARMS
    }
    monkeypatch.setattr(learning_rate, "AROUND", around)


def row(setting: dict, seed: int, accuracy: float | None, phase: str = "choose", test: float | None = None) -> dict:
    """A row; an accuracy of None is a diverged run."""
    end = 0.0 if accuracy is None else accuracy
    return {
        "experiment": "learning_rate",
        "setting": setting,
        "seed": seed,
        "phase": phase,
        "planned": PLANNED,
        "diverged": accuracy is None,
        "val_accuracy": end,
        "test_accuracy": end if test is None else test,
    }


def made_up(accuracy, test=lambda setting, seed: None, settings=None) -> list[dict]:
    """The pilot; with settings, fresh seeds of these."""
    seeds, phase = (range(learning_rate.SEEDS), "choose") if settings is None else (range(100, 110), "confirm")
    grid = learning_rate.grid() if settings is None else [s for s in learning_rate.grid() if s in settings]
    return [row(s, seed, accuracy(s, seed), phase, test(s, seed)) for s in grid for seed in seeds]


def confirmed(accuracy, fresh=None) -> list[dict]:
    """The pilot, and fresh seeds of all that the four claims read, by `fresh` if that is given."""
    pilot = made_up(accuracy)
    read = [setting for module in MODULES for c in module.comparisons(pilot) for setting in c.settings]
    return pilot + made_up(fresh or accuracy, settings=read)


def hill(peaks: dict[str, float], height: dict[str, float], slope: float = 0.1, growth: float = 0.0):
    """Accuracies that fall by `slope` with every decade from the peak of an arm; by `growth` for half the updates."""

    def accuracy(setting, seed):
        norm = setting["norm"]
        best = peaks[norm] * {"SGD": 1, "SGD, momentum 0.9": 0.1, "Adam": 0.01}[setting["optimizer"]]
        off = slope * abs(log10(setting["lr"] / best))
        return height[norm] - off - growth * log10(390 / setting["steps"]) / log10(2) + 0.001 * (seed % 5)

    return accuracy


def verdict(module, comparisons, planned=2):
    needs_more = getattr(module, "NEEDS_MORE", False)
    return experiments.verdict(comparisons, module.DELTA, planned=planned, needs_more=needs_more, factor=module.FACTOR)


def of_sgd(rows, module):
    return module.comparisons([r for r in rows if r["setting"]["optimizer"] == "SGD"])


def test_every_arm_has_the_same_rates_and_every_pair_of_arms_is_a_condition():
    grid = learning_rate.grid()
    for optimizer, (_, _, rates) in learning_rate.OPTIMIZERS.items():
        for arm in learning_rate.ARMS:
            mine = [s["lr"] for s in grid if s == {"optimizer": optimizer, **arm, "steps": 390, "lr": s["lr"]}]
            assert tuple(mine) == rates == tuple(sorted(rates))
    quick = learning_rate.grid(quick=True)
    assert {s["steps"] for s in quick} == set(learning_rate.BUDGETS) and {s["optimizer"] for s in quick} == {"SGD"}
    rows = made_up(lambda s, seed: 0.5)
    assert len(learning_rate.conditions(rows)) == 6
    assert learning_rate.conditions(rows[:1]) == [("SGD", "default"), ("SGD", "he")]
    both = set(sigmoid.RATES["none"]) & set(sigmoid.RATES["batch"])
    assert {0.1, 1.0} <= both and {s["steps"] for s in sigmoid.grid(quick=True)} == {sigmoid.STEPS // 20}


def test_the_other_budgets_have_rates_around_the_best_of_the_pilot():
    """And no others than those, their neighbours, and what was added beyond an edge."""
    study = experiment.find("learning_rate")
    found = experiment.inventory(study, study.file(), ()).rows
    pilot = [r for r in found if r["setting"]["steps"] == 390 and r["phase"] == "choose"]
    for optimizer, init in learning_rate.conditions(pilot):
        rates = learning_rate.OPTIMIZERS[optimizer][2]
        for norm in learning_rate.NORMS.values():
            at = rates.index(learning_rate.at_best_rate(pilot, optimizer, init, norm).values["lr"])
            around = learning_rate.AROUND[optimizer, norm, init]
            first = rates.index(around[0])
            assert set(rates[at - 1 : at + 2]) <= set(around) and around == rates[first : first + len(around)]


def test_nothing_is_planned_before_all_budgets_are_there(all_rates):
    rows = made_up(lambda s, seed: 0.5)
    with pytest.raises(experiments.Incomplete, match="no rows to choose from"):
        faster.comparisons([r for r in rows if r["setting"]["steps"] == 390])


def wall(last: dict[str, float], peak: float = 0.1):
    """Accuracies that fall slowly from the peak; above the last rate of an arm nothing is learned."""

    def accuracy(setting, seed):
        scale = {"SGD": 1, "SGD, momentum 0.9": 0.1, "Adam": 0.01}[setting["optimizer"]]
        if setting["lr"] > 1.5 * scale * last[setting["norm"]]:
            return 0.1
        return 0.85 - 0.03 * abs(log10(setting["lr"] / scale / peak)) + 0.0001 * (seed % 5)

    return accuracy


def test_the_highest_rate_is_the_last_that_learns(all_rates):
    rows = made_up(wall({"batch": 3.0, "none": 0.3}))
    assert higher_rates.tried(higher_rates.of_arm(rows, "SGD", "he", "batch")) == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert higher_rates.tried(higher_rates.of_arm(rows, "SGD", "he", "none"), 1) == [0.1, 0.3, 1.0, 3.0]  # one further
    assert higher_rates.usable(higher_rates.of_arm(rows, "SGD", "he", "none"), 1)[0] == [0.1, 0.3]
    assert higher_rates.usable(higher_rates.of_arm(rows, "SGD", "he", "batch"), tolerance=0.02)[1] == [0.1, 0.3]
    for comparison in higher_rates.comparisons(rows):
        assert comparison.difference.mean == pytest.approx(1) and comparison.edges == ()
    (sgd, *_) = of_sgd(rows, higher_rates)
    assert len(sgd.settings) == 9 and {s["steps"] for s in sgd.settings} == {390}
    assert verdict(higher_rates, of_sgd(rows, higher_rates)).word == "supported"
    for comparison in higher_rates.comparisons(rows, tolerance=0.02):
        assert comparison.difference.mean == pytest.approx(0)


def test_fresh_seeds_decide_and_what_was_not_run_counts_against_the_claim(all_rates):
    last = {"batch": 3.0, "none": 0.3}

    def fresh(setting, seed):
        return 0.5 if seed == 104 and setting["norm"] == "none" else wall(last | {"none": 0.1})(setting, seed)

    rows = confirmed(wall(last), fresh)
    found = {c.name: c for c in higher_rates.comparisons(rows)}["SGD, He weights"]
    assert found.seeds == tuple(range(100, 110)) and found.edges == ()
    assert found.b[104] == pytest.approx(log10(0.03))  # below those that were confirmed
    assert found.b[100] == pytest.approx(-1) and found.a[100] == pytest.approx(log10(3))
    lines = higher_rates.figure(rows).axes[0].lines
    assert sum(np.isnan(line.get_xdata()).sum() for line in lines) == 12  # by both measures in every condition


def test_a_size_is_not_excluded_by_what_was_not_run(all_rates):
    """Every fresh seed learns at 3, the last rate with BN that is run; the grid goes on to 30."""
    last = {"batch": 1.0, "none": 0.3}
    found = {c.name: c for c in higher_rates.comparisons(confirmed(wall(last), wall(last | {"batch": 3.0})))}
    condition = found["SGD, He weights"]
    assert condition.difference.high == pytest.approx(1) and condition.reaches == pytest.approx(2)
    assert [beside(condition, log10(size)) for size in (5, 20, 200)] == ["above", "open", "below"]
    sure = {c.name: c for c in higher_rates.comparisons(confirmed(wall(last), wall(last)))}["SGD, He weights"]
    assert sure.reaches == sure.difference.high and beside(sure, log10(20)) == "below"


def test_a_diverged_run_has_not_learned(all_rates):
    rows = made_up(wall({"batch": 3.0, "none": 0.3}))
    for r in rows:
        r["diverged"] = r["setting"]["lr"] == 0.3 and r["setting"]["norm"] == "none"
    assert max(higher_rates.usable(higher_rates.of_arm(rows, "SGD", "he", "none"), 1)[1]) == 0.1
    assert not higher_rates.learns({"diverged": True, "val_accuracy": 0.9})
    assert not higher_rates.learns({"diverged": False, "val_accuracy": 0.6})


def test_a_rate_at_which_one_seed_of_the_pilot_learns_is_not_the_last(all_rates):
    def accuracy(setting, seed):
        return wall({"batch": 3.0, "none": 1.0 if seed == 1 else 0.3})(setting, seed)

    arm = higher_rates.of_arm(made_up(accuracy), "SGD", "he", "none")
    assert higher_rates.tried(arm) == [0.1, 0.3, 1.0, 3.0] and higher_rates.tried(arm, 1)[-1] == 10.0


def test_no_verdict_where_a_rate_of_the_network_without_may_be_hidden(all_rates):
    flat = made_up(wall({"batch": 100, "none": 100}))
    assert "'without BN' lies at the edge" in verdict(higher_rates, of_sgd(flat, higher_rates)).sentence
    wide = higher_rates.comparisons(made_up(wall({"batch": 100, "none": 0.3})))
    assert {c.edges for c in wide} == {()} and wide[0].difference.mean == pytest.approx(2)  # 100 times at least
    last = {"batch": 3.0, "none": 0.3}
    late = higher_rates.comparisons(confirmed(wall(last), wall(last | {"none": 3.0})))
    assert {c.edges for c in late} == {("usable rate",)}  # fresh seeds learn at all that are tried: perhaps at more
    assert [c.b[100] for c in late[::2]] == pytest.approx([log10(30), 1, 1])
    low = {"batch": 0.1, "none": 0.3}  # then with BN the last that was run is as high as without, or all there are
    either = higher_rates.comparisons(confirmed(wall(low), wall({"batch": 0.3, "none": 0.3})))
    assert all(c.edges == ("usable rate",) and c.difference.mean == pytest.approx(0) for c in either)
    with_none = higher_rates.comparisons(confirmed(wall(last), wall({"batch": 0.001, "none": 0.3})))
    assert with_none[0].a[100] == pytest.approx(log10(0.003) - 0.5)  # the worst there is


PEAKS = {"batch": 0.3, "none": 0.1}


def test_speed_is_that_of_the_budgets_to_the_mark_of_the_network_without(all_rates):
    rows = made_up(hill(PEAKS, {"batch": 0.84, "none": 0.8}, growth=0.04))
    assert faster.mark(rows, "SGD", "he") == pytest.approx(0.842 - 0.01)
    for c in of_sgd(rows, faster):
        assert 10 ** -c.b[0] == pytest.approx(780 * 2 ** (-0.008 / 0.04), rel=1e-3)
        assert 10**c.difference.mean == pytest.approx(2, rel=0.01)  # four points are a doubling
        assert len(c.settings) == 8 and c.edges == () and c.metric == faster.METRIC
    failed = [r | {"diverged": r["setting"]["norm"] == "batch"} for r in rows]
    assert [10**-v for v in of_sgd(failed, faster)[0].a.values()] == pytest.approx([1560] * 5)  # never: the worst
    assert faster.curves(faster.at_budgets(failed, "SGD", "he", "batch")) == {seed: [0.1] * 4 for seed in range(5)}
    edge = made_up(lambda s, seed: 0.8 + 0.1 * (s["lr"] == 30.0 and s["steps"] == 98))
    assert "lr of 'with BN' after 98 updates" in of_sgd(edge, faster)[0].edges


def test_the_two_parts_of_the_gain_add_up_and_their_difference_decides(all_rates):
    height = {"batch": 0.88, "none": 0.86}
    by_rate = made_up(hill({"batch": 0.3, "none": 0.03}, height, slope=0.1))  # BN at 0.03 is worse than without
    (a, b) = rate_is_the_reason.gains(by_rate, "SGD", "he")
    total = learning_rate.comparisons(by_rate)[1].difference.mean
    assert a.difference.mean == pytest.approx(0.1) and b.difference.mean == pytest.approx(-0.08)
    assert a.difference.mean + b.difference.mean == pytest.approx(total)
    assert verdict(rate_is_the_reason, of_sgd(by_rate, rate_is_the_reason)).word == "supported"
    at_once = made_up(hill(PEAKS, {"batch": 0.9, "none": 0.8}, slope=0.01))
    assert verdict(rate_is_the_reason, of_sgd(at_once, rate_is_the_reason)).word == "contradicted"
    alike = made_up(hill(PEAKS, {"batch": 0.86, "none": 0.86}, slope=0.003))
    assert verdict(rate_is_the_reason, of_sgd(alike, rate_is_the_reason)).word == "smaller than claimed"


def test_where_both_have_the_same_rate_there_is_no_test(all_rates):
    def accuracy(setting, seed):
        at = PEAKS if setting["init"] == "he" else dict.fromkeys(PEAKS, 0.3)
        return hill(at, {"batch": 0.9, "none": 0.8}, slope=0.01)(setting, seed)

    rows = confirmed(accuracy)
    found = rate_is_the_reason.comparisons(rows)
    assert [c.levels for c in found] == [(optimizer, "he") for optimizer in learning_rate.OPTIMIZERS]
    assert all(c.seeds == tuple(range(100, 110)) and len(c.settings) == 4 for c in found)
    assert all(part.unpaired == () for part in rate_is_the_reason.gains(rows, "SGD", "he"))
    assert experiments.judge(rows, "rate_is_the_reason").word == "contradicted"
    nowhere = confirmed(hill(dict.fromkeys(PEAKS, 0.3), {"batch": 0.9, "none": 0.8}))
    judged = experiments.judge(nowhere, "rate_is_the_reason")
    assert judged.sentence == "Open: no condition is a test of the claim." and not judged.outcomes


def test_rates_are_chosen_on_the_pilots_validation_and_scores_are_of_fresh_seeds_tests(all_rates):
    def test_accuracy(setting, seed):
        return 0.9 if setting["lr"] == 0.003 else 0.7 + 0.1 * (setting["norm"] == "batch")

    accuracy = hill(PEAKS, {"batch": 0.88, "none": 0.86})
    rows = made_up(accuracy, test_accuracy)
    comparison = learning_rate.comparisons(rows)[0]
    assert comparison.difference.mean == pytest.approx(0.1) and "lr 0.3" in comparison.chosen[0]
    assert {s["steps"] for s in comparison.settings} == {390}
    assert experiments.judge(rows).word == "open"  # not confirmed
    assert experiments.judge(confirmed(accuracy)).word == "supported"
    reversed_later = confirmed(accuracy, lambda s, seed: 0.8 if s["norm"] == "none" else 0.7)
    assert experiments.judge(reversed_later).word == "contradicted"


def test_figures_are_drawn_from_rows_of_one_seed_and_of_all(all_rates):
    rows = confirmed(hill(PEAKS, {"batch": 0.88, "none": 0.86}, slope=0.2))
    for module in MODULES:
        for some in (rows, [r for r in rows if r["seed"] == 0 and r["setting"]["optimizer"] == "SGD"]):
            picture = module.figure(some)
            assert sum(len(ax.lines) for ax in picture.axes) >= 4
            matplotlib.pyplot.close(picture)


def test_a_run_trains_the_network_of_its_setting(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        learning_rate, "train_and_score", lambda model, images, val, test, **how: seen.update(v=(images, val), how=how)
    )
    monkeypatch.setattr(learning_rate, "split", lambda *names, half: names)
    monkeypatch.setattr(learning_rate, "subset", lambda count, seed, half: (count, seed))
    for setting in learning_rate.grid()[::7]:
        learning_rate.run(setting, 3)
        how = seen["how"]
        assert seen["v"] == ((10_000, 3), ("val", 10_000)) and how["schedule"] == "cosine" and how["seed"] == 3
        assert (how["steps"], how["lr"], how["batch_size"]) == (setting["steps"], setting["lr"], 128)
        assert (how["optimizer"] == "adam") == (setting["optimizer"] == "Adam")
        assert how["momentum"] == (0.9 if "momentum" in setting["optimizer"] else 0.0)


@pytest.mark.long
def test_a_run_says_when_it_has_diverged():
    setting = {"optimizer": "SGD", "norm": "none", "init": "default", "steps": 98, "lr": 30.0}
    assert learning_rate.run(setting, seed=0)["diverged"]
    result = learning_rate.run({**setting, "norm": "batch", "lr": 0.3}, seed=0)
    assert not result["diverged"] and result["val_accuracy"] > 0.7
    assert np.mean(result["correct"]) == result["test_accuracy"]


@pytest.mark.parametrize(
    ("mark", "updates"), [(0.3, 50), (0.5, 100), (0.55, 150), (0.6, 200), (0.65, 375), (0.7, 400), (0.71, 50_000)]
)
def test_updates_to_the_mark(mark, updates):
    """Straight lines; the first time counts; never is all updates."""
    curve = {"marks": [0, 100, 200, 300, 400], "val_curve": [0.1, 0.5, 0.6, 0.5, 0.7]}
    assert sigmoid.needed(curve, mark) == pytest.approx(updates)


def test_fresh_seeds_run_the_sigmoid_networks_at_their_best_rates_and_from_the_small_start_at_one():
    def row(setting, seed, phase):
        value = 0.8 - 0.01 * abs(log10(setting["lr"] / (10 if setting["norm"] == "batch" else 3))) + 0.001 * seed
        return {"setting": setting, "seed": seed, "phase": phase, "diverged": False} | dict.fromkeys(
            ("val_accuracy", "test_accuracy"), value
        )

    pilot = [row(setting, seed, "choose") for setting in sigmoid.grid() for seed in range(sigmoid.SEEDS)]
    found = [s for c in sigmoid.comparisons(pilot) for s in c.settings]
    assert [(s["init"], s["norm"], s["lr"]) for s in found] == [
        (init, norm, lr) for init in sigmoid.INITS for norm, lr in (("batch", 10.0), ("none", 3.0))
    ]
    assert [(s["init"], s["norm"], s["lr"]) for s in sigmoid.beside(pilot)] == [
        (0.01, norm, sigmoid.EQUAL) for norm in ("batch", "none")
    ]
    confirming = [row(setting, 100, "confirm") for setting in sigmoid.beside(pilot)]
    assert sigmoid.at_equal_rate(pilot + confirming, 0.01, "none") == confirming[1:]


def test_the_sigmoid_network_is_looked_at_from_its_first_values_on():
    setting = {"init": "xavier", "norm": "batch", "lr": 1.0, "steps": 250}
    result = sigmoid.run(setting, seed=0)
    assert result["marks"] == [0, 100, 250] and result["train_loss"][0] is None
    assert len(result["percentiles"]) == len(result["val_curve"]) == 3 and not result["diverged"]
    assert all(low < middle < high for low, middle, high in result["percentiles"])
    assert result["val_curve"][0] < 0.3 and result["val_curve"][-1] > 0.5
