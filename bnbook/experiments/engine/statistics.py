"""Choosing settings, comparing arms, and the verdict: what every experiment's numbers go through.

Two arms are compared seed by seed: run i of either starts from the same random numbers and sees the same batches, so
the difference of each pair is one observation. Its 95 % t-interval covers seeds; the bootstrap beside it covers the
choice of the test images.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .rows import unpack_bits

CONFIDENCE = 0.95
RESAMPLES = 2000  # of the bootstrap


class Incomplete(ValueError):
    """Rows are missing that a choice or a comparison needs; the message says which."""


def select(rows: Iterable[Mapping], **setting: object) -> list[Mapping]:
    """The rows whose setting has these values.

    Raises:
        ValueError: a name that no setting has.
    """
    rows = list(rows)
    known = {name for row in rows for name in row["setting"]}
    if rows and not known >= setting.keys():
        unknown = ", ".join(sorted(setting.keys() - known))
        raise ValueError(f"setting must have names among {', '.join(sorted(known))}, got {unknown}")
    return [row for row in rows if all(row["setting"].get(name) == value for name, value in setting.items())]


def measured(row: Mapping, metric: str, chance: float | None) -> float | None:
    """A row's value of a metric; that of a diverged run is `chance`."""
    if metric not in row:
        raise ValueError(f"metric must be one of a row's measurements, got {metric!r}")
    value = None if row["diverged"] else row[metric]
    return chance if value is None else value


# The choice of a setting


@dataclass(frozen=True)
class Choice:
    """The best setting of an arm, chosen by its mean over the seeds in a validation metric."""

    rows: list[Mapping]  # of the best setting, one a seed
    over: tuple[str, ...]
    means: dict[tuple, float]  # values of `over` → mean over the seeds
    edge: tuple[str, ...]  # those of `over` whose best value is the first or last of its grid

    @property
    def values(self) -> dict[str, object]:
        """The values that were chosen."""
        return {name: self.rows[0]["setting"][name] for name in self.over}

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} {_plain(value)}" for name, value in self.values.items())
        edge = f" (AT THE EDGE of its grid: {', '.join(self.edge)})" if self.edge else ""
        return chosen + edge


def best(
    rows: Sequence[Mapping],
    over: str | Sequence[str],
    metric: str = "val_accuracy",
    chance: float | None = 0.1,
    ends: Collection = (),
) -> Choice:
    """The setting of one arm with the highest mean of a validation metric; of equals the first in the grid.

    Args:
        rows: those of the arm: their settings differ in `over` alone.
        over: what is chosen, such as "lr", or several names.
        chance: what a diverged run counts as; None: a setting with a diverged run is never chosen before another.
        ends: values that nothing lies beyond (a dropout of 0), so that they are no edge of a grid.

    Raises:
        Incomplete: no rows, or settings with different seeds.
        ValueError: settings that differ in something else, or a metric that sees the test images.
    """
    over = (over,) if isinstance(over, str) else tuple(over)
    if metric.startswith("test"):
        raise ValueError(f"metric must be one of validation, nothing is chosen on the test images: got {metric!r}")
    if not rows:
        raise Incomplete("there are no rows to choose from")
    for name in rows[0]["setting"].keys() - set(over):
        if len({row["setting"][name] for row in rows}) > 1:
            raise ValueError(f"rows must be those of one arm, but their settings differ in {name!r}")
    groups: dict[tuple, dict[int, Mapping]] = {}
    for row in rows:
        groups.setdefault(tuple(row["setting"][name] for name in over), {})[row["seed"]] = row
    seeds = set().union(*groups.values())
    for value, group in groups.items():
        if absent := seeds - group.keys():
            raise Incomplete(f"{_words(over, value)} has no row of {_seeds(absent)}")
    worst = -math.inf if chance is None else chance
    means = {
        value: statistics.fmean(measured(row, metric, worst) for row in group.values())
        for value, group in groups.items()
    }
    chosen = max(means, key=means.get)
    edge = tuple(name for i, name in enumerate(over) if _at_the_edge(i, chosen, groups, ends))
    return Choice([groups[chosen][seed] for seed in sorted(seeds)], over, means, edge)


def _at_the_edge(i: int, chosen: tuple, values: Iterable[tuple], ends: Collection) -> bool:
    """Whether the number `chosen[i]` is the least or greatest that was tried along with the other chosen values."""
    others = [value[i] for value in values if value[:i] + value[i + 1 :] == chosen[:i] + chosen[i + 1 :]]
    if isinstance(chosen[i], bool | str | None) or chosen[i] in ends:
        return False
    numbers = [other for other in others if isinstance(other, int | float)]
    return chosen[i] in (min(numbers), max(numbers))


# The comparison of two arms


@dataclass(frozen=True)
class Difference:
    """A minus B over paired seeds."""

    seeds: tuple[int, ...]
    mean: float
    sd: float | None  # between seeds; None with one
    low: float | None  # the 95 % t-interval; None with one seed
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One condition of a comparison: the values of arm A and of arm B, by seed.

    A value is None where the run diverged and nothing stands for it. The claim is that A is above B.
    """

    name: str
    a: Mapping[int, float | None]
    b: Mapping[int, float | None]
    arms: tuple[str, str] = ("A", "B")
    metric: str = "test_accuracy"
    chosen: tuple[str, ...] = ()  # how the settings of the arms were chosen, in words
    edges: tuple[str, ...] = ()  # which of them lie at the edge of their grid
    diverged: tuple[int, int] = (0, 0)  # how many runs of either arm did
    correct: tuple[Mapping[int, str], Mapping[int, str]] | None = None  # which test images were right, packed
    levels: tuple = ()  # of the factors that the conditions vary, in their order

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that both arms have."""
        return tuple(sorted(self.a.keys() & self.b.keys()))

    @property
    def unpaired(self) -> tuple[int, ...]:
        """The seeds that only one arm has."""
        return tuple(sorted(self.a.keys() ^ self.b.keys()))

    @cached_property
    def difference(self) -> Difference | None:
        """Mean, standard deviation and interval of A minus B; None where there is no pair or a value is missing."""
        pairs = [(self.a[seed], self.b[seed]) for seed in self.seeds]
        if not pairs or any(value is None or not math.isfinite(value) for pair in pairs for value in pair):
            return None
        differences = [a - b for a, b in pairs]
        mean = statistics.fmean(differences)
        if len(pairs) == 1:
            return Difference(self.seeds, mean, None, None, None)
        sd = statistics.stdev(differences)
        if sd == 0:  # SciPy has no interval then
            return Difference(self.seeds, mean, sd, mean, mean)
        from scipy import stats

        low, high = stats.t.interval(CONFIDENCE, len(pairs) - 1, loc=mean, scale=sd / math.sqrt(len(pairs)))
        return Difference(self.seeds, mean, sd, float(low), float(high))

    def over_images(self) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of the mean difference over test images, drawn anew in pairs; seeds are fixed.

        None where the rows do not say which images were right, or where a run diverged.
        """
        if not self.correct or not self.seeds or any(self.diverged):
            return None
        import numpy as np
        from scipy import stats

        a, b = (np.mean([unpack_bits(arm[seed]) for seed in self.seeds], axis=0) for arm in self.correct)
        drawn = stats.bootstrap(
            (a - b,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=100,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def compare(
    name: str,
    a: Sequence[Mapping] | Choice,
    b: Sequence[Mapping] | Choice,
    *,
    arms: tuple[str, str] = ("A", "B"),
    metric: str = "test_accuracy",
    chance: float | None = 0.1,
    levels: tuple = (),
) -> Comparison:
    """The comparison of two arms in one condition, from the rows of one setting each or from a `Choice`.

    Args:
        chance: what a diverged run counts as; with None the condition has no interval then.
        levels: of the factors that the conditions vary, in the order of FACTOR.

    Raises:
        Incomplete: an arm without rows.
        ValueError: rows of more than one setting in an arm.
    """
    rows = [arm.rows if isinstance(arm, Choice) else list(arm) for arm in (a, b)]
    for arm, those in zip(arms, rows, strict=True):
        if not those:
            raise Incomplete(f"{name}: there are no rows of {arm!r}")
        if len({row["seed"] for row in those}) < len(those):
            raise ValueError(f"{name}: the rows of {arm!r} must be of one setting, one a seed: choose with best()")
    choices = [(arm, choice) for arm, choice in zip(arms, (a, b), strict=True) if isinstance(choice, Choice)]
    packed = all(isinstance(row.get("correct"), str) for those in rows for row in those)
    return Comparison(
        name,
        *({row["seed"]: measured(row, metric, chance) for row in those} for those in rows),
        arms=arms,
        metric=metric,
        chosen=tuple(f"{arm}: {choice}" for arm, choice in choices),
        edges=tuple(f"{edge} of {arm!r}" for arm, choice in choices for edge in choice.edge),
        diverged=tuple(sum(row["diverged"] for row in those) for those in rows),
        correct=tuple({row["seed"]: row["correct"] for row in those} for those in rows) if packed else None,
        levels=levels,
    )


# The verdict

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported here", "contradicted here", "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What the rows say about a claim: in a word, in the sentence that the page prints, and condition by condition."""

    word: str  # "supported here", "contradicted here", "depends on …" or "inconclusive"
    sentence: str
    outcomes: dict[str, str]  # condition → "supported here", "contradicted here" or "inconclusive"


def verdict(
    comparisons: Sequence[Comparison],
    delta: float,
    *,
    planned: int = 2,
    needs_more: bool = True,
    factor: str | tuple[str, ...] = "the condition",
) -> Verdict:
    """Judge the claim that A is above B by δ.

    - supported here: the interval of the difference lies above δ in every condition;
    - contradicted here: below −δ in every condition, or below δ if the claim needs more than that;
    - depends on a factor: two conditions come out differently, and their intervals do not overlap;
    - inconclusive: everything else; and whatever the numbers, while planned seeds are missing, a seed is without its
      partner or without a value, or a setting was chosen at the edge of its grid.

    Args:
        delta: the smallest effect of interest δ, at least 0, in units of the metric.
        planned: number of seeds planned beforehand, at least 2.
        needs_more: whether an advantage smaller than δ is too small for the claim.
        factor: what the conditions vary; of several, whose values are the `levels` of a comparison, the verdict names
            those that alone separate two conditions (all, where only several together do).

    Raises:
        ValueError: no comparison, two of one name, of different metrics or arms, without a level for each factor, or
            arguments out of range.
    """
    _check(comparisons, delta, planned)
    factors = (factor,) if isinstance(factor, str) else tuple(factor)
    if len(factors) > 1 and (wrong := [c.name for c in comparisons if len(c.levels) != len(factors)]):
        raise ValueError(f"comparisons must have a level for each of {len(factors)} factors, {wrong[0]!r} has not")
    subject = f"{_metric(comparisons[0].metric)} of {comparisons[0].arms[0]!r} minus that of {comparisons[0].arms[1]!r}"
    if reasons := [reason for comparison in comparisons for reason in _lacks(comparison, planned)]:
        undecided = dict.fromkeys((comparison.name for comparison in comparisons), INCONCLUSIVE)
        return Verdict(INCONCLUSIVE, f"Inconclusive, {subject}: {'; '.join(reasons)}.", undecided)

    outcomes = {comparison.name: _outcome(comparison.difference, delta, needs_more) for comparison in comparisons}
    by_outcome: dict[str, list[Comparison]] = {SUPPORTED: [], CONTRADICTED: [], INCONCLUSIVE: []}
    for comparison in comparisons:
        by_outcome[outcomes[comparison.name]].append(comparison)
    limit = amount(delta, comparisons[0].metric, sign=False)
    all_below = all(_above(-delta, comparison.difference.high) for comparison in by_outcome[CONTRADICTED])
    where = {
        SUPPORTED: f"above δ = {limit}",
        CONTRADICTED: f"below −δ = −{limit}" if all_below else f"below δ = {limit}, less than the claim needs,",
        INCONCLUSIVE: f"not clearly on one side of {'' if needs_more else '±'}δ = {limit}",
    }
    parts = [f"{where[o]} with {_effects(those)}" for o, those in by_outcome.items() if those]
    if len(set(outcomes.values())) > 1:
        apart = _apart(comparisons, outcomes)
        word = f"depends on {_and(_responsible(apart, factors))}" if apart else INCONCLUSIVE
    else:
        word = outcomes[comparisons[0].name]
    counts = sorted({len(comparison.seeds) for comparison in comparisons})
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    diverged = sum(sum(comparison.diverged) for comparison in comparisons)
    counted = f", {diverged} diverged run{'s' if diverged > 1 else ''} counted in" if diverged else ""
    sentence = f"{subject} is {'; '.join(parts)} ({seeds} paired seeds, 95 % intervals{counted})."
    sentence = f"{word[0].upper()}{word[1:]}: {sentence}"
    return Verdict(word, sentence, outcomes)


def _check(comparisons: Sequence[Comparison], delta: float, planned: int) -> None:
    if not comparisons:
        raise ValueError("comparisons must hold at least one condition, got none")
    names = [comparison.name for comparison in comparisons]
    if len(set(names)) < len(names):
        raise ValueError(f"comparisons must have names of their own, got {', '.join(names)}")
    if len({(comparison.metric, comparison.arms) for comparison in comparisons}) > 1:
        raise ValueError("comparisons must be of one metric and of the same two arms")
    if not 0 <= delta < math.inf:
        raise ValueError(f"delta must be at least 0, got {delta}")
    if planned < 2:
        raise ValueError(f"planned must be at least 2 seeds, one has no interval: got {planned}")


def _lacks(comparison: Comparison, planned: int) -> list[str]:
    """Why there can be no verdict on this condition, whatever its numbers."""
    reasons = []
    if comparison.unpaired:
        reasons.append(f"{_seeds(comparison.unpaired)} of one arm without the other")
    if len(comparison.seeds) < planned:
        reasons.append(f"{len(comparison.seeds)} of the {planned} planned seeds")
    elif comparison.difference is None:
        reasons.append("a seed has no value")
    if comparison.edges:
        reasons.append(f"the best {' and '.join(comparison.edges)} lies at the edge of its grid")
    return [f"{comparison.name}: {', '.join(reasons)}"] if reasons else []


def _outcome(difference: Difference, delta: float, needs_more: bool) -> str:
    if _above(difference.low, delta):
        return SUPPORTED
    return CONTRADICTED if _above(delta if needs_more else -delta, difference.high) else INCONCLUSIVE


def _above(value: float, limit: float) -> bool:
    """Whether `value` is above `limit` by more than rounding: 0.875 − 0.87 is 0.005, not above it."""
    return value > limit and not math.isclose(value, limit, rel_tol=1e-9, abs_tol=1e-12)


def _apart(comparisons: Sequence[Comparison], outcomes: Mapping[str, str]) -> list[tuple[Comparison, Comparison]]:
    """The pairs of conditions that have different outcomes and intervals that do not overlap.

    That one interval lies above δ and another does not quite is no difference between the two.
    """
    return [
        (one, other)
        for one in comparisons
        for other in comparisons
        if outcomes[one.name] != outcomes[other.name] and one.difference.low > other.difference.high
    ]


def _responsible(apart: Sequence[tuple[Comparison, Comparison]], factors: tuple[str, ...]) -> list[str]:
    """The factors of which one alone separates a pair; all of them where none does."""
    if len(factors) == 1:
        return list(factors)
    differ = [
        [factor for factor, a, b in zip(factors, one.levels, other.levels, strict=True) if a != b]
        for one, other in apart
    ]
    alone = {names[0] for names in differ if len(names) == 1}
    return [factor for factor in factors if factor in alone or not alone]


# Words


def amount(value: float, metric: str, sign: bool = True) -> str:
    """A value of a metric in words: of accuracies in points, of others in three digits."""
    if metric.endswith("accuracy"):
        return f"{round(100 * value, 2) + 0.0:{'+' if sign else ''}.2f} points".replace("-", "−")  # no −0.00
    return f"{value:{'+' if sign else ''}.3g}".replace("-", "−")


def interval(low: float, high: float, metric: str) -> str:
    """An interval in the words of `amount`, with the unit left to the value beside it."""
    return f"[{amount(low, metric).removesuffix(' points')}, {amount(high, metric).removesuffix(' points')}]"


def _effects(comparisons: Iterable[Comparison]) -> str:
    return ", ".join(
        f"{c.name} ({amount(c.difference.mean, c.metric)} {interval(c.difference.low, c.difference.high, c.metric)})"
        for c in comparisons
    )


def _metric(name: str) -> str:
    return name.replace("_", " ")


def _seeds(seeds: Iterable[int]) -> str:
    seeds = sorted(seeds)
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _words(names: Sequence[str], values: Sequence) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in zip(names, values, strict=True))


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + [words[-1]])


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
