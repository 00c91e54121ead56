"""The verdict: what the intervals of the conditions say about a claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .statistics import Comparison, PairedDifference, exceeds
from .words import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    conjunction,
    lacks,
    no_verdict_sentence,
    verdict_sentence,
)


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
    if reasons := [reason for comparison in comparisons for reason in lacks(comparison, planned)]:
        undecided = dict.fromkeys((comparison.name for comparison in comparisons), INCONCLUSIVE)
        return Verdict(INCONCLUSIVE, no_verdict_sentence(comparisons, reasons), undecided)
    outcomes = {comparison.name: _outcome(comparison.difference, delta, needs_more) for comparison in comparisons}
    word = _word(comparisons, outcomes, factors)
    below = [c.difference for c in comparisons if outcomes[c.name] == CONTRADICTED]
    clearly_below = all(exceeds(-delta, difference.high) for difference in below)
    return Verdict(word, verdict_sentence(word, comparisons, outcomes, delta, needs_more, clearly_below), outcomes)


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


def _outcome(difference: PairedDifference, delta: float, needs_more: bool) -> str:
    if exceeds(difference.low, delta):
        return SUPPORTED
    return CONTRADICTED if exceeds(delta if needs_more else -delta, difference.high) else INCONCLUSIVE


def _word(comparisons: Sequence[Comparison], outcomes: Mapping[str, str], factors: tuple[str, ...]) -> str:
    """The verdict in a word: of all conditions, or on what it depends."""
    if len(set(outcomes.values())) == 1:
        return outcomes[comparisons[0].name]
    apart = _apart(comparisons, outcomes)
    return f"depends on {conjunction(_responsible(apart, factors))}" if apart else INCONCLUSIVE


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
