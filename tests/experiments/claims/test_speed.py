"""The experiments of chapter 11: their grids, and what the claims make of rows."""

from __future__ import annotations

from math import log10

import matplotlib
import numpy as np
import pytest

from bnbook import experiments
from bnbook.experiments.claims import faster, higher_rates, learning_rate, rate_is_the_reason, sigmoid

matplotlib.use("Agg")

SEEDS = range(5)


def row(setting: dict, seed: int, accuracy: float | None, test: float | None = None) -> dict:
    """A row of `learning_rate`; an accuracy of None is a diverged run."""
    end = 0.0 if accuracy is None else accuracy
    return {
        "experiment": "learning_rate",
        "setting": setting,
        "seed": seed,
        "diverged": accuracy is None,
        "marks": [100, 390],
        "val_curve": [0.5 * end, end],
        "val_accuracy": end,
        "test_accuracy": end if test is None else test,
    }


def made_up(accuracy, test=lambda setting, seed: None) -> list[dict]:
    return [row(s, seed, accuracy(s, seed), test(s, seed)) for s in learning_rate.grid() for seed in SEEDS]


def hill(peaks: dict[str, float], height: dict[str, float], slope: float = 0.1):
    """Accuracies that fall by `slope` with every decade from the peak of an arm."""

    def accuracy(setting, seed):
        norm = setting["norm"]
        return height[norm] - slope * abs(log10(setting["lr"] / peaks[norm])) + 0.001 * seed

    return accuracy


def verdict(module, comparisons):
    return experiments.verdict(
        comparisons, module.DELTA, planned=5, needs_more=getattr(module, "NEEDS_MORE", False), factor=module.FACTOR
    )


def of_sgd(rows, module):
    return module.comparisons([r for r in rows if r["setting"]["optimizer"] == "SGD"])


def test_every_arm_has_the_same_rates_and_every_pair_of_arms_is_a_condition():
    for optimizer, (_, _, rates) in learning_rate.OPTIMIZERS.items():
        for arm in learning_rate.ARMS:
            mine = [s["lr"] for s in learning_rate.grid() if s == {"optimizer": optimizer, **arm, "lr": s["lr"]}]
            assert tuple(mine) == rates == tuple(sorted(rates))
    rows = made_up(lambda s, seed: 0.5)
    assert len(learning_rate.conditions(rows)) == 6
    assert learning_rate.conditions(rows[:1]) == [("SGD", "default"), ("SGD", "he")]
    both = set(sigmoid.RATES["none"]) & set(sigmoid.RATES["batch"])
    assert {0.1, 1.0} <= both and {s["steps"] for s in sigmoid.grid(quick=True)} == {sigmoid.STEPS // 20}


def test_the_highest_usable_rate_is_the_last_within_two_points_of_the_best():
    rows = made_up(hill({"batch": 0.3, "none": 0.03}, {"batch": 0.88, "none": 0.86}, slope=0.03))
    assert higher_rates.usable(rows, "SGD", "he", "batch")[0] == [0.1, 0.3, 1.0]
    assert higher_rates.usable(rows, "SGD", "he", "batch", tolerance=0.035)[4] == [0.03, 0.1, 0.3, 1.0, 3.0]
    tried = (0.01, 0.1, 1.0, 10.0)
    assert higher_rates.highest([0.1, 1.0], tried) == 0 and higher_rates.width([0.1, 1.0], tried) == pytest.approx(1)
    assert higher_rates.highest([], tried) == -2.5 and higher_rates.width([], tried) == 0  # the worst there is
    for comparison in of_sgd(rows, higher_rates):
        assert comparison.difference.mean == pytest.approx(1) and comparison.edges == ()
    assert verdict(higher_rates, of_sgd(rows, higher_rates)).word == "supported"
    once = made_up(hill({"batch": 0.1, "none": 0.03}, {"batch": 0.88, "none": 0.86}, slope=0.03))
    assert verdict(higher_rates, of_sgd(once, higher_rates)).word == "supported"  # three times


def test_a_diverged_run_is_not_usable():
    def accuracy(setting, seed):
        return None if setting["lr"] >= 1 else 0.8

    rows = made_up(accuracy)
    for r in rows:
        r["val_accuracy"] = 0.8  # as good as it was when it last was finite
    assert max(higher_rates.usable(rows, "SGD", "he", "none")[2]) == 0.3


def test_a_seed_without_a_usable_rate_counts_as_the_worst_and_has_no_line():
    def accuracy(setting, seed):
        return 0.5 if seed == 2 and setting["norm"] == "none" else 0.8 - 0.1 * abs(log10(setting["lr"] / 0.1))

    rows = made_up(accuracy)
    assert higher_rates.usable(rows, "SGD", "he", "none", tolerance=0.08)[2] == []
    (compared,) = {c.b[2] for c in higher_rates.comparisons(rows, tolerance=0.08) if c.levels[0] == "SGD"}
    assert compared == pytest.approx(log10(0.003) - 0.5)
    assert all(c.difference is not None for c in higher_rates.comparisons(rows))
    lines = higher_rates.figure(rows).axes[0].lines
    assert sum(np.isnan(line.get_xdata()).all() for line in lines) == 6  # one in every condition


def test_no_verdict_where_the_grid_ends_before_the_rates_of_the_network_without():
    flat = made_up(lambda s, seed: 0.8)
    assert verdict(higher_rates, of_sgd(flat, higher_rates)).word == "open"
    assert "'without BN' lies at the edge" in verdict(higher_rates, of_sgd(flat, higher_rates)).sentence

    def wide_with_bn(setting, seed):
        return 0.8 if setting["norm"] == "batch" or setting["lr"] in (0.03, 0.1) else 0.3

    found = of_sgd(made_up(wide_with_bn), higher_rates)
    assert {comparison.edges for comparison in found} == {()}  # its advantage is 100 times at least
    assert found[0].difference.mean == pytest.approx(2)


@pytest.mark.parametrize(
    ("mark", "updates"), [(0.3, 50), (0.5, 100), (0.55, 150), (0.6, 200), (0.65, 375), (0.7, 400), (0.71, 1000)]
)
def test_updates_to_the_mark(mark, updates):
    """Straight lines from guessing at 0; the first time counts; never is the whole budget."""
    curve = {"marks": [100, 200, 300, 400], "val_curve": [0.5, 0.6, 0.5, 0.7]}
    assert faster.needed(curve, mark, budget=1000) == pytest.approx(updates)


def test_needed_understands_marks_from_zero():
    assert faster.needed({"marks": [0, 100], "val_curve": [0.1, 0.5]}, 0.3) == pytest.approx(50)


def test_speed_is_that_to_the_mark_of_the_network_without():
    rows = made_up(hill({"batch": 0.3, "none": 0.03}, {"batch": 0.88, "none": 0.8}))
    assert faster.mark(rows, "SGD", "he") == pytest.approx(0.802 - 0.01)
    comparison = of_sgd(rows, faster)[0]
    # with BN: 0.792 on the line from (100, 0.44) to (390, 0.88); without: from (100, 0.4) to (390, 0.8) for seed 0
    expected = 100 + 290 * (0.792 - 0.44) / 0.44
    assert 10 ** -comparison.a[0] == pytest.approx(expected)
    assert 10 ** -comparison.b[0] == pytest.approx(100 + 290 * (0.792 - 0.4) / 0.4)
    assert comparison.a[0] > comparison.b[0]


def test_the_two_parts_of_the_gain_add_up_and_their_difference_decides():
    peaks, height = {"batch": 0.3, "none": 0.03}, {"batch": 0.88, "none": 0.86}
    by_rate = made_up(hill(peaks, height, slope=0.1))  # BN at 0.03 is worse than without: the rate is all
    (a, b) = rate_is_the_reason.gains(by_rate, "SGD", "he")
    total = learning_rate.comparisons(by_rate)[1].difference.mean
    assert a.difference.mean == pytest.approx(0.1) and b.difference.mean == pytest.approx(-0.08)
    assert a.difference.mean + b.difference.mean == pytest.approx(total)
    assert verdict(rate_is_the_reason, of_sgd(by_rate, rate_is_the_reason)).word == "supported"
    at_once = made_up(hill(peaks, {"batch": 0.9, "none": 0.8}, slope=0.01))
    assert verdict(rate_is_the_reason, of_sgd(at_once, rate_is_the_reason)).word == "contradicted"
    alike = made_up(hill(peaks, {"batch": 0.86, "none": 0.86}, slope=0.001))
    assert (
        verdict(rate_is_the_reason, of_sgd(alike, rate_is_the_reason)).word == "smaller than claimed"
    )  # hardly a gain


def test_rates_are_chosen_on_validation_and_scores_are_of_the_test():
    def test_accuracy(setting, seed):
        return 0.9 if setting["lr"] == 0.003 else 0.7 + 0.1 * (setting["norm"] == "batch")

    rows = made_up(hill({"batch": 0.3, "none": 0.03}, {"batch": 0.88, "none": 0.86}), test_accuracy)
    comparison = learning_rate.comparisons(rows)[0]
    assert comparison.difference.mean == pytest.approx(0.1) and "lr 0.3" in comparison.chosen[0]


def test_figures_are_drawn_from_rows_of_one_seed_and_of_five():
    rows = made_up(hill({"batch": 0.3, "none": 0.03}, {"batch": 0.88, "none": 0.86}))
    for module in (learning_rate, faster, higher_rates, rate_is_the_reason):
        for some in (rows, [r for r in rows if r["seed"] == 0 and r["setting"]["optimizer"] == "SGD"]):
            picture = module.figure(some)
            assert sum(len(ax.lines) for ax in picture.axes) >= 4
            matplotlib.pyplot.close(picture)


@pytest.mark.long
def test_a_run_says_when_it_has_diverged_and_a_curve_has_all_marks():
    setting = {"optimizer": "SGD", "norm": "none", "init": "default", "lr": 10.0}
    assert learning_rate.run(setting, seed=0)["diverged"]
    result = learning_rate.run({**setting, "norm": "batch", "lr": 0.1}, seed=0)
    assert not result["diverged"] and result["marks"] == list(learning_rate.MARKS)
    assert len(result["val_curve"]) == len(result["train_loss"]) == len(learning_rate.MARKS)
    assert result["val_curve"][-1] == result["val_accuracy"] > 0.7
    assert np.mean(result["correct"]) == result["test_accuracy"]


def test_the_sigmoid_network_is_looked_at_from_its_first_values_on():
    setting = {"init": "xavier", "norm": "batch", "lr": 1.0, "steps": 250}
    result = sigmoid.run(setting, seed=0)
    assert result["marks"] == [0, 100, 250] and result["train_loss"][0] is None
    assert len(result["percentiles"]) == len(result["val_curve"]) == 3 and not result["diverged"]
    assert all(low < middle < high for low, middle, high in result["percentiles"])
    assert result["val_curve"][0] < 0.3 and result["val_curve"][-1] > 0.5
