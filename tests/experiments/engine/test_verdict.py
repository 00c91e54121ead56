"""The verdict, the interval under it and the choice before it, on rows made up for every outcome."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnbook.experiments import Choice, Comparison, Incomplete, best, compare, select, verdict
from bnbook.experiments.engine.bits import pack_bits
from bnbook.experiments.engine.words import amount

ARMS = ("with BN", "without BN")


def condition(name: str, *differences: float | None, **more) -> Comparison:
    """A condition with these differences, seed by seed; B's own values vary far more than they."""
    b = {seed: 0.5 + 0.1 * (seed % 3) for seed in range(len(differences))}
    a = {seed: None if d is None else b[seed] + d for seed, d in enumerate(differences)}
    return Comparison(name, a, b, ARMS, **more)


# Five differences with these intervals, in points: [1.6, 2.4], [−2.4, −1.6], [−0.2, 0.2], [−0.3, 1.3], [0.1, 0.4]
ABOVE = (0.017, 0.018, 0.020, 0.022, 0.023)
BELOW = tuple(-d for d in ABOVE)
ZERO = (-0.0015, -0.001, 0.0, 0.001, 0.0015)
WIDE = (-0.003, 0.002, 0.005, 0.008, 0.013)
SMALL = tuple(0.0025 + d for d in ZERO)


def judge(*conditions: Comparison, **more):
    return verdict(conditions, 0.005, **{"planned": 5, **more})


def row(setting: dict, seed: int, **measured) -> dict:
    return {"setting": setting, "seed": seed, "diverged": False, **measured}


# --- the interval -----------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(3)
    b = rng.normal(0.8, 0.05, 7)
    a = b + rng.normal(0.01, 0.004, 7)
    seeds = (4, 0, 9, 2, 7, 1, 3)
    by_seed = [dict(zip(seeds, values, strict=True)) for values in (a, b)]
    found = Comparison("c", by_seed[0], dict(sorted(by_seed[1].items()))).difference  # paired by seed, not by place
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.mean == pytest.approx(np.mean(a - b)) and found.sd == pytest.approx(np.std(a - b, ddof=1))
    assert found.seeds == (0, 1, 2, 3, 4, 7, 9)
    assert high - low < 0.3 * np.diff(stats.ttest_ind(a, b).confidence_interval(0.95))[0]  # pairs matter here


def test_the_interval_covers_in_nineteen_of_twenty_cases():
    """Both ends: an interval of one side, or one of the normal distribution, does not."""
    draws = np.random.default_rng(0).normal(0.3, 1.0, (2000, 4))
    found = [Comparison("c", dict(enumerate(d)), dict.fromkeys(range(4), 0.0)).difference for d in draws]
    above, below = (np.mean([d.low > 0.3 for d in found]), np.mean([d.high < 0.3 for d in found]))
    assert 0.016 < above < 0.034 and 0.016 < below < 0.034


def test_one_seed_has_no_interval_and_equal_differences_have_one_without_width():
    one = condition("c", 0.02).difference
    assert (one.mean, one.sd, one.low, one.high) == (pytest.approx(0.02), None, None, None)
    equal = Comparison("c", dict.fromkeys(range(3), 0.75), dict.fromkeys(range(3), 0.5)).difference
    assert (equal.mean, equal.sd, equal.low, equal.high) == (0.25, 0.0, 0.25, 0.25)
    nearly = Comparison("c", {0: 0.87, 1: 0.88, 2: 0.3}, {0: 0.86, 1: 0.87, 2: 0.29}).difference
    assert nearly.low == pytest.approx(0.01) == pytest.approx(nearly.high)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_value_that_is_missing_gives_no_difference(missing):
    assert Comparison("c", {0: 0.5, 1: missing}, {0: 0.4, 1: 0.4}).difference is None
    assert Comparison("c", {}, {0: 0.4}).difference is None


def test_the_bootstrap_draws_images_in_pairs():
    """Against the normal interval of the mean over images of the difference; unpaired, it would be far wider."""
    rng = np.random.default_rng(1)
    hard = rng.random(4000) < 0.4  # either arm is right on about the same images
    arms = []
    for improvement in (0.03, 0.0):
        right = [(~hard & (rng.random(4000) < 0.99)) | (rng.random(4000) < improvement) for _ in range(3)]
        arms.append(dict(enumerate(right)))
    packed = tuple({seed: pack_bits(right) for seed, right in arm.items()} for arm in arms)
    values = ({seed: right.mean() for seed, right in arm.items()} for arm in arms)
    compared = Comparison("c", *values, correct=packed)
    gain = np.mean([arms[0][s].astype(float) - arms[1][s] for s in range(3)], axis=0)
    half = 1.96 * gain.std() / math.sqrt(4000)
    assert compared.over_images() == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.15 * half)
    unpaired = 1.96 * math.sqrt(sum(np.mean(list(arm.values()), 0).var() for arm in arms) / 4000)
    assert unpaired > 2 * half
    assert compared.over_images() == compared.over_images()
    assert Comparison("c", compared.a, compared.b, correct=packed, diverged=(1, 0)).over_images() is None
    assert Comparison("c", compared.a, compared.b).over_images() is None


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_the_made_up_conditions_are_what_they_are_called():
    for differences, low, high in (
        (ABOVE, 0.016, 0.024),
        (BELOW, -0.024, -0.016),
        (ZERO, -0.002, 0.002),
        (WIDE, -0.003, 0.013),
        (SMALL, 0.0005, 0.0045),
    ):
        found = condition("c", *differences).difference
        assert low - 0.001 < found.low < found.high < high + 0.001


@pytest.mark.parametrize(
    "conditions, more, word",
    [
        ([ABOVE], {}, "supported here"),
        ([ABOVE, ABOVE], {}, "supported here"),
        ([BELOW], {}, "contradicted here"),
        ([BELOW, BELOW], {"needs_more": False}, "contradicted here"),
        ([ZERO], {}, "contradicted here"),
        ([SMALL], {}, "contradicted here"),
        ([ZERO], {"needs_more": False}, "inconclusive"),
        ([SMALL], {"needs_more": False}, "inconclusive"),
        ([BELOW, ZERO], {}, "contradicted here"),
        ([BELOW, ZERO], {"needs_more": False}, "depends on the initialization"),  # −2 is not 0
        ([ABOVE, BELOW], {}, "depends on the initialization"),
        ([ABOVE, ZERO], {}, "depends on the initialization"),
        ([ABOVE, ZERO], {"needs_more": False}, "depends on the initialization"),
        ([WIDE], {}, "inconclusive"),
        ([WIDE, WIDE], {}, "inconclusive"),
        ([ZERO, WIDE], {}, "inconclusive"),  # the intervals overlap: the two may be the same
        ([ABOVE, WIDE], {}, "depends on the initialization"),  # 1.6 and more is not 1.3 and less
        ([ABOVE, (-0.01, 0.005, 0.02, 0.035, 0.05)], {}, "inconclusive"),
        ([ABOVE, WIDE, BELOW], {}, "depends on the initialization"),
    ],
)
def test_every_outcome(conditions, more, word):
    named = [condition(f"condition {i}", *differences) for i, differences in enumerate(conditions)]
    found = judge(*named, factor="the initialization", **more)
    assert found.word == word
    assert found.sentence.lower().startswith(word) and found.sentence.endswith(".")
    assert set(found.outcomes) == {c.name for c in named}
    for c in named:  # every condition, with its numbers
        assert f"{c.name} ({amount(c.difference.mean, c.metric)} [" in found.sentence


FACTORS = "the optimizer", "the start", "the depth"


@pytest.mark.parametrize(
    "conditions, word",
    [
        ({"aax": ABOVE, "abx": ABOVE, "bax": ZERO, "bbx": ZERO}, "depends on the optimizer"),
        ({"aax": ABOVE, "abx": ZERO, "bax": ZERO, "bbx": BELOW}, "depends on the optimizer and the start"),
        ({"aax": ABOVE, "aay": BELOW, "abx": ZERO, "bax": BELOW}, "depends on the optimizer, the start and the depth"),
        ({"aax": ABOVE, "bbx": ZERO}, "depends on the optimizer, the start and the depth"),  # nobody knows which
        ({"aax": ABOVE, "bax": WIDE, "bby": BELOW}, "depends on the optimizer"),
        ({"aax": ABOVE, "abx": (-0.01, 0.005, 0.02, 0.035, 0.05)}, "inconclusive"),
    ],
)
def test_of_several_factors_it_names_those_that_matter(conditions, word):
    """Two conditions that differ in one factor alone, and come out apart, say that it matters."""
    named = [condition(name, *differences, levels=tuple(name)) for name, differences in conditions.items()]
    found = judge(*named, factor=FACTORS)
    assert found.word == word and found.sentence.lower().startswith(f"{word}:")


def test_a_condition_without_a_level_for_each_factor_is_refused():
    named = [condition("a", *ABOVE, levels=("a", "b", "c")), condition("b", *ZERO, levels=("a", "b"))]
    with pytest.raises(ValueError, match="a level for each of 3 factors, 'b' has not"):
        judge(*named, factor=FACTORS)


def test_the_sentence_names_arms_numbers_and_seeds():
    found = judge(condition("default init", *ABOVE), condition("He init", *ZERO), factor="the initialization")
    assert found.sentence == (
        "Depends on the initialization: test accuracy of 'with BN' minus that of 'without BN' is "
        "above δ = 0.50 points with default init (+2.00 points [+1.68, +2.32]); "
        "below δ = 0.50 points, less than the claim needs, with He init (+0.00 points [−0.16, +0.16]) "
        "(5 paired seeds, 95 % intervals)."
    )
    assert found.outcomes == {"default init": "supported here", "He init": "contradicted here"}
    assert "below −δ = −0.50 points with" in judge(condition("c", *BELOW)).sentence


def test_the_unit_is_that_of_the_metric():
    wide = Comparison("c", {0: 3.0, 1: 3.2}, {0: 1.0, 1: 1.1}, ARMS, metric="log_rate_range")
    assert "log rate range of 'with BN' minus that of 'without BN'" in verdict([wide], 0.5).sentence
    assert "δ = 0.5 with c (+2.05 [" in verdict([wide], 0.5).sentence
    assert amount(-0.0123, "val_accuracy") == "−1.23 points" and amount(-1e-9, "accuracy") == "+0.00 points"
    assert amount(-0.0123, "loss") == "−0.0123"


def test_delta_counts_and_its_boundary_belongs_to_neither_side():
    half_a_point = Comparison("c", dict.fromkeys(range(5), 0.875), dict.fromkeys(range(5), 0.87), ARMS)
    assert half_a_point.difference.low > 0.005  # by rounding
    assert judge(half_a_point).word == "inconclusive"
    assert judge(condition("c", *(-d for d in [0.005] * 5)), needs_more=False).word == "inconclusive"
    assert verdict([half_a_point], 0.0049, planned=5).word == "supported here"
    assert verdict([half_a_point], 0.0051, planned=5).word == "contradicted here"
    found = condition("c", *ABOVE)
    assert verdict([found], found.difference.low - 1e-6, planned=5).word == "supported here"
    assert verdict([found], found.difference.low + 1e-6, planned=5).word == "inconclusive"
    assert verdict([found], found.difference.high - 1e-6, planned=5).word == "inconclusive"
    assert verdict([found], found.difference.high + 1e-6, planned=5).word == "contradicted here"
    assert verdict([condition("c", *SMALL)], 0).word == "supported here"


@pytest.mark.parametrize(
    "broken, reason",
    [
        (condition("He", 0.02), "He: 1 of the 5 planned seeds"),
        (condition("He", *ABOVE[:4]), "He: 4 of the 5 planned seeds"),
        (condition("He"), "He: 0 of the 5 planned seeds"),
        (condition("He", *ABOVE, None), "He: a seed has no value"),
        (condition("He", *ABOVE[:4], math.nan), "He: a seed has no value"),
        (condition("He", *ABOVE, edges=("lr of 'with BN'",)), "the best lr of 'with BN' lies at the edge of its grid"),
    ],
)
def test_there_is_no_verdict_when_something_is_missing(broken, reason):
    """Whatever the other conditions say."""
    for conditions in ([broken], [condition("default", *ABOVE), broken]):
        found = judge(*conditions)
        assert found.word == "inconclusive" and reason in found.sentence
        assert set(found.outcomes.values()) == {"inconclusive"}


def test_a_seed_without_its_partner_is_named_not_dropped():
    b = dict.fromkeys(range(7), 0.5)
    unpaired = Comparison("He", {**dict.fromkeys(range(5), 0.6), 8: 0.6}, b, ARMS)
    assert unpaired.unpaired == (5, 6, 8) and unpaired.seeds == (0, 1, 2, 3, 4)
    found = judge(unpaired)
    assert found.word == "inconclusive" and "He: seeds 5, 6, 8 of one arm without the other" in found.sentence


def test_diverged_runs_are_counted_in_the_sentence():
    assert "counted" not in judge(condition("c", *ABOVE)).sentence
    assert "1 diverged run counted in" in judge(condition("c", *ABOVE, diverged=(0, 1))).sentence
    twice = [condition(name, *ABOVE, diverged=(0, 1)) for name in "ab"]
    assert "2 diverged runs counted in" in judge(*twice).sentence


@pytest.mark.parametrize(
    "comparisons, more, message",
    [
        ([], {}, "at least one condition"),
        ([condition("c", *ABOVE)] * 2, {}, "names of their own, got c, c"),
        ([condition("c", *ABOVE), condition("d", *ABOVE, metric="val_accuracy")], {}, "of one metric"),
        ([condition("c", *ABOVE)], {"delta": -0.1}, "delta must be at least 0, got -0.1"),
        ([condition("c", *ABOVE)], {"delta": math.nan}, "delta must be at least 0, got nan"),
        ([condition("c", *ABOVE)], {"planned": 1}, "planned must be at least 2 seeds"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(comparisons, more, message):
    with pytest.raises(ValueError, match=message):
        verdict(comparisons, **({"delta": 0.005} | more))


# --- the choice of a setting ------------------------------------------------------------------------------------------


def rows_of(validation: dict[float, tuple], norm: str = "batch", name: str = "lr") -> list[dict]:
    """Rows of an arm: value of `name` → validation accuracy by seed; None diverged. The test says the contrary."""
    return [
        row({"norm": norm, name: value}, seed, val_accuracy=score, test_accuracy=1 - (score or 0))
        | {"diverged": score is None}
        for value, scores in validation.items()
        for seed, score in enumerate(scores)
    ]


def test_the_best_setting_is_that_of_the_best_mean_in_validation():
    rows = rows_of({0.01: (0.5, 0.6), 0.1: (0.9, 0.7), 1.0: (0.95, 0.6)})
    choice = best(rows, "lr")
    assert choice.values == {"lr": 0.1} and not choice.edge and str(choice) == "lr 0.1"
    assert choice.means == pytest.approx({(0.01,): 0.55, (0.1,): 0.8, (1.0,): 0.775})
    assert choice.rows == rows[2:4]
    assert best(rows[::-1], "lr").rows == rows[2:4]  # paired by seed, not by place
    with pytest.raises(ValueError, match="nothing is chosen on the test images: got 'test_accuracy'"):
        best(rows, "lr", metric="test_accuracy")


@pytest.mark.parametrize("scores, edge", [((0.7, 0.8, 0.9), True), ((0.9, 0.8, 0.7), True), ((0.7, 0.9, 0.8), False)])
def test_a_choice_at_the_edge_of_its_grid_is_flagged(scores, edge):
    rows = rows_of({lr: (score,) * 5 for lr, score in zip((0.03, 0.1, 1.0), scores, strict=True)})
    choice = best(rows, "lr")
    assert (choice.edge == ("lr",)) is edge and ("AT THE EDGE" in str(choice)) is edge
    b = best(rows_of({0.1: (0.1,) * 5, 0.3: (0.2,) * 5, 1.0: (0.1,) * 5}, "none"), "lr")
    compared = compare("c", choice, b, arms=ARMS, metric="val_accuracy")
    assert compared.edges == (("lr of 'with BN'",) if edge else ())
    assert judge(compared).word == ("inconclusive" if edge else "supported here")


def test_edges_of_grids_of_several_names_and_with_natural_ends():
    grid = {("sgd", 0.1): 0.7, ("sgd", 0.3): 0.8, ("sgd", 1.0): 0.6, ("adam", 0.01): 0.9, ("adam", 0.1): 0.5}
    rows = [row({"optimizer": o, "lr": lr}, 0, val_accuracy=score) for (o, lr), score in grid.items()]
    assert best(rows, ("optimizer", "lr")).edge == ("lr",)  # among Adam's rates, not among all
    assert best(select(rows, optimizer="sgd"), ("optimizer", "lr")).edge == ()
    assert best(select(rows, optimizer="sgd", lr=0.1), "lr").edge == ("lr",)  # a grid of one value is all edge
    dropout = rows_of({0.0: (0.9,), 0.5: (0.8,)}, name="dropout")
    assert best(dropout, "dropout").edge == ("dropout",) and best(dropout, "dropout", ends=(0.0,)).edge == ()
    named = [row({"init": init}, 0, val_accuracy=0.5) for init in ("he", "default")]
    assert best(named, "init").edge == ()


def test_diverged_runs_count_in_the_choice():
    rows = rows_of({0.1: (0.6, 0.6), 0.3: (0.7, 0.7), 1.0: (0.98, None), 3.0: (None, None)})
    assert best(rows, "lr").values == {"lr": 0.3}
    assert best(rows, "lr").means[1.0,] == pytest.approx((0.98 + 0.1) / 2)
    assert best(rows, "lr", chance=None).means[1.0,] == -math.inf
    flag = rows_of({0.1: (0.6,), 0.3: (0.7,), 1.0: (0.9,), 3.0: (0.1,)})
    flag[2]["diverged"] = True  # a number beside it counts as little
    assert best(flag, "lr").values == {"lr": 0.3}


def test_what_does_not_belong_together_is_refused():
    rows = rows_of({0.1: (0.6, 0.6), 0.3: (0.7, 0.7)})
    with pytest.raises(Incomplete, match=r"lr 0\.3 has no row of seed 1"):
        best(rows[:-1], "lr")
    with pytest.raises(Incomplete, match="no rows"):
        best([], "lr")
    with pytest.raises(ValueError, match="one arm, but their settings differ in 'norm'"):
        best(rows + rows_of({0.1: (0.6, 0.6)}, "none"), "lr")
    with pytest.raises(ValueError, match="got 'val_loss'"):
        best(rows, "lr", metric="val_loss")
    with pytest.raises(ValueError, match="'with BN' must be of one setting"):
        compare("c", rows, rows[:2], arms=ARMS)
    with pytest.raises(Incomplete, match="no rows of 'without BN'"):
        compare("c", rows[:2], [], arms=ARMS)
    with pytest.raises(ValueError, match="names among lr, norm, got rate"):
        select(rows, rate=0.1)


def test_rows_are_compared_by_seed_with_diverged_ones_as_chance():
    a = rows_of({0.1: (0.6, 0.7, None)})[::-1]
    b = rows_of({0.1: (0.5, 0.4, 0.3)}, "none")
    compared = compare("c", a, b, arms=ARMS, metric="val_accuracy")
    assert compared.a == {0: 0.6, 1: 0.7, 2: 0.1} and compared.b == {0: 0.5, 1: 0.4, 2: 0.3}
    assert compared.difference.mean == pytest.approx((0.1 + 0.3 - 0.2) / 3) and compared.diverged == (1, 0)
    assert compare("c", a, b, metric="val_accuracy", chance=None).difference is None
    choice = Choice(b, ("lr",), {(0.1,): 0.4}, ())
    assert compare("c", a, choice, arms=ARMS).chosen == ("without BN: lr 0.1",)
