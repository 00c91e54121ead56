"""Many conditions: whether two of them differ, and what is left of outcomes when there are many of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from .statistics import Comparison, PairedDifference
from .words import DIRECTION, NEGLIGIBLE, OPEN, REVERSED, SMALLER, SUPPORTED

ALPHA = 0.05


def contrast(one: Comparison, other: Comparison) -> float:
    """The p-value of "two conditions have the same effect": a paired t-test over the seeds that both have.

    1 where they have fewer than two seeds in common, or one of them has no difference.
    """
    seeds = sorted(set(one.seeds) & set(other.seeds))
    if len(seeds) < 2 or one.difference is None or other.difference is None:
        return 1.0
    differences = [(one.a[s] - one.b[s]) - (other.a[s] - other.b[s]) for s in seeds]
    return p_beyond(statistics.fmean(differences), statistics.stdev(differences), len(seeds), 0.0)


def p_beyond(mean: float, sd: float, seeds: int, border: float) -> float:
    """The two-sided p-value of "the mean is the border": below 0.05 where the 95 % interval does not hold it."""
    if sd == 0:
        return 1.0 if math.isclose(mean, border, rel_tol=1e-9, abs_tol=1e-12) else 0.0
    from scipy import stats

    return float(2 * stats.t.sf(abs(mean - border) / (sd / math.sqrt(seeds)), seeds - 1))


def p_of(outcome: str, difference: PairedDifference | None, delta: float) -> float:
    """The p-value of an outcome: the largest of the borders that its interval must not hold; 1 where it is open."""
    borders = {
        SUPPORTED: (delta,),
        REVERSED: (-delta,),
        NEGLIGIBLE: (-delta, delta),
        SMALLER: (0.0, delta),
        DIRECTION: (0.0,),
        OPEN: (),
    }[outcome]
    if difference is None or not borders:
        return 1.0
    return max(p_beyond(difference.mean, difference.sd, len(difference.seeds), border) for border in borders)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false rejection stays below α: Holm (1979)."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the expected share of false ones among the rejected stays below α: SciPy's."""
    from scipy import stats

    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []


def survivors(p_values: Sequence[float]) -> int:
    """How many are below α."""
    return sum(p < ALPHA for p in p_values)
