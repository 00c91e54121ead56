"""The verdict, the interval under it and the choice before it, on rows made up for every outcome."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnbook.experiments import Choice, Comparison, Incomplete, best, compare, select, verdict
from bnbook.experiments.engine.bits import pack_bits
from bnbook.experiments.engine.multiple import contrast
from bnbook.experiments.engine.verdict import against, outcome
from bnbook.experiments.engine.words import OUTCOMES, amount

ARMS = ("with BN", "without BN")


def condition(name: str, *differences: float | None, **more) -> Comparison:
    """A condition with these differences, seed by seed; B's own values vary far more than they."""
    b = {seed: 0.5 + 0.1 * (seed % 3) for seed in range(len(differences))}
    a = {seed: None if d is None else b[seed] + d for seed, d in enumerate(differences)}
    return Comparison(name, a, b, ARMS, **more)


# Five differences with these intervals, in points: [1.6, 2.4], [−2.4, −1.6], [−0.2, 0.2], [−0.3, 1.3], [0.1, 0.4],
# [0.2, 1.0], [−1, 5]
ABOVE = (0.017, 0.018, 0.020, 0.022, 0.023)
BELOW = tuple(-d for d in ABOVE)
ZERO = (-0.0015, -0.001, 0.0, 0.001, 0.0015)
WIDE = (-0.003, 0.002, 0.005, 0.008, 0.013)
SMALL = tuple(0.0025 - d for d in ZERO)
SOME = tuple(0.006 + 2 * d for d in ZERO)
VAST = (-0.01, 0.005, 0.02, 0.035, 0.05)


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


# --- the outcome of a condition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "low, high, said",
    [
        (0.6, 0.9, "supported"),
        (0.500001, 9, "supported"),
        (0.5, 0.9, "direction known, size open"),  # a border belongs to neither side
        (0.1, 0.9, "direction known, size open"),
        (0.1, 0.5, "direction known, size open"),
        (1e-6, 0.499999, "smaller than claimed"),
        (0.1, 0.4, "smaller than claimed"),
        (0, 0.4, "negligible"),
        (-0.4, 0.4, "negligible"),
        (-0.4, -0.1, "negligible"),
        (-0.499999, 0.499999, "negligible"),
        (-0.5, 0.4, "open"),
        (-0.4, 0.5, "open"),
        (0, 0.6, "open"),
        (-0.9, 0.9, "open"),
        (-0.9, 0, "open"),
        (-0.9, -1e-6, "direction known, size open"),
        (-0.9, -0.5, "direction known, size open"),
        (-9, -0.500001, "reversed"),
        (0.7, 0.7, "supported"),
        (0, 0, "negligible"),
    ],
)
def test_the_outcome_of_every_interval_and_border(low, high, said):
    assert outcome(low, high, 0.5) == said
    if said in ("negligible", "open"):  # these know no direction; of the others the other side has its own word
        assert outcome(-high, -low, 0.5) in ("negligible", "open", "smaller than claimed")


def test_every_interval_has_one_outcome_and_each_is_what_its_words_say():
    rng = np.random.default_rng(0)
    seen = set()
    for low, high in np.sort(rng.normal(0, 1, (2000, 2))):
        seen.add(said := outcome(low, high, 0.5))
        assert (said == "supported") == (low > 0.5) and (said == "reversed") == (high < -0.5)
        assert (said == "smaller than claimed") == (0 < low and high < 0.5)
        assert (said == "negligible") == (-0.5 < low <= 0 and high < 0.5)
        assert (said == "open") == (low <= 0 <= high and (low <= -0.5 or high >= 0.5))
    assert seen == set(OUTCOMES)


def test_without_a_smallest_effect_only_the_sign_counts():
    assert outcome(0.1, 0.2, 0) == "supported" and outcome(-0.2, -0.1, 0) == "reversed"
    assert outcome(-0.1, 0.1, 0) == "open"


@pytest.mark.parametrize("low, high, delta", [(1, 0, 0.5), (math.nan, 1, 0.5), (0, 1, -0.1), (0, 1, math.nan)])
def test_what_is_no_interval_or_no_size_has_no_outcome(low, high, delta):
    with pytest.raises(ValueError, match="must be"):
        outcome(low, high, delta)


def test_a_size_that_a_source_names_is_reached_excluded_or_open():
    assert [against(*ends, 1.0) for ends in ((1.1, 2), (0.5, 0.9), (0.5, 1.0), (0.9, 1.1))] == [
        "above", "below", "open", "open",
    ]  # fmt: skip


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_the_made_up_conditions_are_what_they_are_called():
    for differences, low, high in (
        (ABOVE, 0.016, 0.024),
        (BELOW, -0.024, -0.016),
        (ZERO, -0.002, 0.002),
        (WIDE, -0.003, 0.013),
        (SMALL, 0.0005, 0.0045),
        (SOME, 0.002, 0.010),
        (VAST, -0.02, 0.06),
    ):
        found = condition("c", *differences).difference
        assert low - 0.001 < found.low < found.high < high + 0.001


@pytest.mark.parametrize(
    "conditions, more, word",
    [
        ([ABOVE], {}, "supported"),
        ([ABOVE, ABOVE], {}, "supported"),
        ([BELOW], {}, "contradicted"),
        ([BELOW, BELOW], {}, "contradicted"),
        ([ZERO], {}, "negligible"),
        ([ZERO], {"needs_more": True}, "contradicted"),
        ([SMALL], {}, "smaller than claimed"),
        ([SMALL], {"needs_more": True}, "contradicted"),
        ([SMALL, ZERO], {}, "negligible"),
        ([BELOW, ZERO], {"needs_more": True}, "contradicted"),
        ([BELOW, ZERO], {}, "depends on the initialization"),  # −2 is not 0
        ([ABOVE, BELOW], {}, "depends on the initialization"),
        ([ABOVE, ZERO], {}, "depends on the initialization"),
        ([SOME], {}, "direction known, size open"),
        ([SOME, SOME], {}, "direction known, size open"),
        ([SOME, SMALL], {}, "direction known, size open"),  # the two may be the same
        ([SOME, tuple(-d for d in SOME)], {}, "depends on the initialization"),
        ([WIDE], {}, "open"),
        ([WIDE, WIDE], {}, "open"),
        ([WIDE, WIDE], {"needs_more": True}, "open"),
        ([ZERO, WIDE], {}, "open"),
        ([ABOVE, WIDE], {}, "size depends on the initialization"),  # both may be above δ
        ([ABOVE, SOME], {}, "size depends on the initialization"),
        ([ABOVE, SMALL], {}, "depends on the initialization"),
        ([BELOW, WIDE], {}, "depends on the initialization"),  # that is open above 0, not below −δ
        ([tuple(-d for d in SOME), ZERO], {}, "size depends on the initialization"),
        ([tuple(-d for d in SOME), SMALL], {}, "depends on the initialization"),
        ([ABOVE, VAST], {}, "open"),
        ([ABOVE, WIDE, BELOW], {}, "depends on the initialization"),
    ],
)
def test_every_word(conditions, more, word):
    named = [condition(f"condition {i}", *differences) for i, differences in enumerate(conditions)]
    found = judge(*named, factor="the initialization", **more)
    assert found.word == word
    assert found.sentence.lower().startswith(word) and found.sentence.endswith(".")
    assert found.outcomes == {c.name: outcome(c.difference.low, c.difference.high, 0.005) for c in named}
    for c in named:  # every condition, with its numbers
        assert f"{c.name} ({amount(c.difference.mean, c.metric)} [" in found.sentence


def test_it_depends_only_where_a_direct_contrast_survives_holm():
    """Intervals that do not overlap are not asked for; many pairs ask for more."""
    rng = np.random.default_rng(2)
    common = rng.normal(0, 0.02, 8)  # of a seed, in both conditions: intervals are wide, their difference is not
    one, other = common + 0.03, common + 0.009 + rng.normal(0, 0.002, 8)
    pair = [condition("one", *one), condition("other", *other)]
    assert pair[0].difference.low < pair[1].difference.high
    assert judge(*pair, planned=8).word == "size depends on the condition"
    noisy = [condition("a", *ABOVE), condition("b", -0.01, 0.0, 0.001, 0.004, 0.012)]
    p = contrast(*noisy)
    assert 0.001 < p < 0.05 and judge(*noisy).word == "size depends on the condition"
    alike = [condition(f"c{i}", -0.01, 0.0, 0.001, 0.004, 0.012) for i in range(12)]
    assert judge(noisy[0], *alike).word == "open" and p * 78 > 0.05  # pairs of 13 conditions
    assert judge(noisy[0], *alike[:5]).word == "size depends on the condition" and p * 15 < 0.05


FACTORS = "the optimizer", "the start", "the depth"


@pytest.mark.parametrize(
    "conditions, word",
    [
        ({"aax": ABOVE, "abx": ABOVE, "bax": ZERO, "bbx": ZERO}, "depends on the optimizer"),
        ({"aax": ABOVE, "abx": ZERO, "bax": ZERO, "bbx": BELOW}, "depends on the optimizer and the start"),
        ({"aax": ABOVE, "aay": BELOW, "abx": ZERO, "bax": BELOW}, "depends on the optimizer, the start and the depth"),
        ({"aax": ABOVE, "bbx": ZERO}, "depends on the optimizer, the start and the depth"),  # nobody knows which
        ({"aax": ABOVE, "bax": ZERO, "bby": BELOW}, "depends on the optimizer"),
        ({"aax": ABOVE, "bax": WIDE, "bbx": VAST}, "size depends on the optimizer"),
        ({"aax": ABOVE, "abx": VAST}, "open"),
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
    found = judge(condition("default weights", *ABOVE), condition("He weights", *ZERO), factor="the initialization")
    assert found.sentence == (
        "Depends on the initialization: test accuracy of 'with BN' minus that of 'without BN' is "
        "above δ = 0.50 points with default weights (+2.00 points [+1.68, +2.32]); "
        "within δ = 0.50 points with He weights (+0.00 points [−0.16, +0.16]) "
        "(5 paired seeds, 95 % intervals)."
    )
    assert found.outcomes == {"default weights": "supported", "He weights": "negligible"}
    assert "below −δ = −0.50 points with" in judge(condition("c", *BELOW)).sentence
    assert "above 0, but below δ = 0.50 points, with" in judge(condition("c", *SMALL)).sentence
    less = [condition("a", *SOME), condition("b", *(-d for d in SOME))]
    assert "above 0, but whether by more than δ = 0.50 points is open, with a (" in judge(*less).sentence
    assert "; below 0, but whether by more than δ = 0.50 points is open, with b (" in judge(*less).sentence


def test_the_unit_is_that_of_the_metric():
    wide = Comparison("c", {0: 3.0, 1: 3.2}, {0: 1.0, 1: 1.1}, ARMS, metric="loss_in_nats")
    assert "loss in nats of 'with BN' minus that of 'without BN'" in verdict([wide], 0.5).sentence
    assert "δ = 0.5 with c (+2.05 [" in verdict([wide], 0.5).sentence
    assert amount(-0.0123, "val_accuracy") == "−1.23 points" and amount(-1e-9, "accuracy") == "+0.00 points"
    assert amount(-0.0123, "loss") == "−0.0123"


def test_powers_of_ten_are_said_as_factors():
    half = math.log10(2)
    faster = Comparison("c", {0: half, 1: half + 0.01}, {0: 0.0, 1: 0.0}, ARMS, metric="log10_of_the_speed")
    found = verdict([faster], 0.1)
    assert found.sentence.startswith(
        "Supported: speed of 'with BN' over that of 'without BN' is above δ = 1.3 times with c (2 times [1.7, 2.3])"
    )
    slower = Comparison("c", faster.b, faster.a, ARMS, metric="evenness_in_decades")
    assert "evenness of 'with BN' over that of 'without BN' is below 0.79 times with" in verdict([slower], 0.1).sentence
    said = {0.0: "1", 1.234: "17", 2.1: "130", -2.0: "0.01", 24.25: "1.8·10²⁴", -6.2756: "5.3·10⁻⁷", 4.9999: "1.0·10⁵"}
    for power, text in said.items():
        assert amount(power, "log10 of the best rate") == f"{text} times"


def test_delta_counts_and_its_boundary_belongs_to_neither_side():
    half_a_point = Comparison("c", dict.fromkeys(range(5), 0.875), dict.fromkeys(range(5), 0.87), ARMS)
    assert half_a_point.difference.low > 0.005  # by rounding
    assert judge(half_a_point).word == "direction known, size open"
    assert verdict([half_a_point], 0.0049, planned=5).word == "supported"
    assert verdict([half_a_point], 0.0051, planned=5).word == "smaller than claimed"
    found = condition("c", *ABOVE)
    assert verdict([found], found.difference.low - 1e-6, planned=5).word == "supported"
    assert verdict([found], found.difference.low + 1e-6, planned=5).word == "direction known, size open"
    assert verdict([found], found.difference.high - 1e-6, planned=5).word == "direction known, size open"
    assert verdict([found], found.difference.high + 1e-6, planned=5).word == "smaller than claimed"
    assert verdict([condition("c", *SMALL)], 0).word == "supported"


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
def test_a_condition_that_lacks_something_is_open_and_so_is_the_claim(broken, reason):
    for others in ([], [condition("default", *ABOVE)]):
        found = judge(*others, broken)
        assert found.word == "open" and reason in found.sentence
        assert found.outcomes == {**{c.name: "supported" for c in others}, "He": "open"}
    apart = judge(condition("default", *ABOVE), condition("small", *BELOW), broken)
    assert apart.word == "depends on the condition" and reason in apart.sentence  # whatever the third will say


def test_a_seed_without_its_partner_is_named_not_dropped():
    b = dict.fromkeys(range(7), 0.5)
    unpaired = Comparison("He", {**dict.fromkeys(range(5), 0.6), 8: 0.6}, b, ARMS)
    assert unpaired.unpaired == (5, 6, 8) and unpaired.seeds == (0, 1, 2, 3, 4)
    found = judge(unpaired)
    assert found.word == "open" and "He: seeds 5, 6, 8 of one arm without the other" in found.sentence


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
    assert judge(compared).word == ("open" if edge else "supported")


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
