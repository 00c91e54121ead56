"""The verdict: what the intervals of the conditions say about a claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from .multiple import ALPHA, contrast, holm
from .statistics import Comparison, PairedDifference, exceeds
from .words import (
    CONTRADICTED,
    DIRECTION,
    NEGLIGIBLE,
    OPEN,
    REVERSED,
    SMALLER,
    SUPPORTED,
    conjunction,
    lacks,
    verdict_sentence,
)


@dataclass(frozen=True)
class Verdict:
    """What the rows say about a claim: in a word, in the sentence that the page prints, and condition by condition."""

    word: str  # an outcome that all conditions share, "contradicted", "depends on …" or "size depends on …"
    sentence: str
    outcomes: dict[str, str]  # condition → its `outcome`
    quoted: Verdict | None = None  # the same for the conditions within what the source speaks of; None without any


def outcome(low: float, high: float, delta: float) -> str:
    """What an interval says about "A is above B by δ".

    - supported: all of it lies above δ;
    - reversed: all of it lies below −δ;
    - smaller than claimed: it lies between 0 and δ and holds neither;
    - negligible: it lies between −δ and δ;
    - direction known, size open: it does not hold 0, but δ or −δ;
    - open: it holds 0, and δ or −δ.

    Args:
        low, high: the ends of the interval.
        delta: the smallest effect worth having δ, at least 0.

    Raises:
        ValueError: ends that are no numbers or the wrong way round, or δ < 0.
    """
    if not low <= high:
        raise ValueError(f"low and high must be the ends of an interval, got {low} and {high}")
    if not 0 <= delta < math.inf:
        raise ValueError(f"delta must be at least 0, got {delta}")
    if exceeds(low, delta):
        return SUPPORTED
    if exceeds(-delta, high):
        return REVERSED
    inside = exceeds(delta, high) and exceeds(low, -delta)
    if exceeds(low, 0):
        return SMALLER if inside else DIRECTION
    if inside:
        return NEGLIGIBLE
    return DIRECTION if exceeds(0, high) else OPEN


def against(low: float, high: float, size: float) -> str:
    """Where an interval lies beside a size that a source names, or 0: "above", "below" or "open"."""
    return "above" if exceeds(low, size) else "below" if exceeds(size, high) else "open"


def beside(comparison: Comparison, size: float) -> str:
    """`against` of a comparison's interval; a size that only what was not run keeps it from is open, not below."""
    difference = comparison.difference
    return against(difference.low, max(difference.high, comparison.reaches), size)


def verdict(
    comparisons: Sequence[Comparison],
    delta: float,
    *,
    planned: int = 2,
    needs_more: bool = False,
    factor: str | tuple[str, ...] = "the condition",
) -> Verdict:
    """Judge the claim that A is above B, by the `outcome` of every condition.

    A condition is open, whatever its numbers, while planned seeds are missing, a seed is without its partner or without
    a value, or a setting was chosen at the edge of its grid. The word is

    - contradicted, where all are reversed; and for a claim that needs more than δ, where no interval reaches δ;
    - the outcome that all conditions share;
    - depends on a factor, where the intervals of two conditions exclude each other's outcome (none of "below −δ",
      "from −δ to 0", "from 0 to δ" and "above δ" has a part of both), and their difference, paired by seed, survives
      Holm's correction for all pairs of conditions;
    - negligible, where all lie between −δ and δ;
    - size depends on a factor, where such a difference survives, and the two outcomes are not the same, but may be;
    - direction known, size open, where all intervals lie on one side of 0;
    - open, everything else.

    Args:
        delta: the smallest effect worth having δ, at least 0, in units of the metric.
        planned: number of seeds planned beforehand, at least 2.
        needs_more: whether an advantage smaller than δ contradicts the claim, as "dramatically" does.
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
    reasons = {comparison.name: lacks(comparison, planned) for comparison in comparisons}
    outcomes = {
        c.name: OPEN if reasons[c.name] else outcome(c.difference.low, c.difference.high, delta) for c in comparisons
    }
    whole = [c for c in comparisons if not reasons[c.name]]
    word = _word(whole, outcomes, delta, needs_more, factors) if whole else OPEN
    if len(whole) < len(comparisons) and not word.startswith("depends"):
        word = OPEN
    return Verdict(word, verdict_sentence(word, comparisons, outcomes, delta, reasons), outcomes)


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


def _word(
    comparisons: Sequence[Comparison],
    outcomes: Mapping[str, str],
    delta: float,
    needs_more: bool,
    factors: tuple[str, ...],
) -> str:
    """The verdict in a word: of all conditions, or on what it depends."""
    kinds = {outcomes[c.name] for c in comparisons}
    found: list[PairedDifference] = [c.difference for c in comparisons]
    if kinds == {REVERSED} or (needs_more and all(exceeds(delta, d.high) for d in found)):
        return CONTRADICTED
    if len(kinds) == 1 and kinds != {DIRECTION}:
        return kinds.pop()
    differ = _differ(comparisons, outcomes)
    if apart := [pair for pair in differ if not _zones(pair[0], delta) & _zones(pair[1], delta)]:
        return f"depends on {conjunction(_responsible(apart, factors))}"
    if kinds <= {NEGLIGIBLE, SMALLER}:
        return NEGLIGIBLE
    if differ:
        return f"size depends on {conjunction(_responsible(differ, factors))}"
    if all(exceeds(d.low, 0) for d in found) or all(exceeds(0, d.high) for d in found):
        return DIRECTION
    return OPEN


def _differ(comparisons: Sequence[Comparison], outcomes: Mapping[str, str]) -> list[tuple[Comparison, Comparison]]:
    """The pairs of conditions that come out differently and differ from one another.

    That one interval lies above δ and another does not quite is no difference between the two.
    """
    pairs = list(combinations(comparisons, 2))
    adjusted = holm([contrast(one, other) for one, other in pairs])
    return [
        pair
        for pair, p in zip(pairs, adjusted, strict=True)
        if p < ALPHA and len({_side(c, outcomes) for c in pair}) > 1
    ]


def _zones(comparison: Comparison, delta: float) -> set[int]:
    """Which of "below −δ", "from −δ to 0", "from 0 to δ" and "above δ" the interval of a condition has a part of."""
    low, high = comparison.difference.low, comparison.difference.high
    ends = [-math.inf, -delta, 0, delta, math.inf]
    return {i for i in range(4) if not exceeds(low, ends[i + 1]) and not exceeds(ends[i], high)}


def _side(comparison: Comparison, outcomes: Mapping[str, str]) -> str:
    """The outcome of a condition; where only its direction is known, with the direction."""
    said = outcomes[comparison.name]
    return f"{said}, {'above' if comparison.difference.mean > 0 else 'below'}" if said == DIRECTION else said


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
