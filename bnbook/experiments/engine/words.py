"""How numbers, conditions and verdicts are said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .statistics import Comparison

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported here", "contradicted here", "inconclusive"


# The sentence of a verdict


def verdict_sentence(
    word: str,
    comparisons: Sequence[Comparison],
    outcomes: Mapping[str, str],
    delta: float,
    needs_more: bool,
    clearly_below: bool,
) -> str:
    """The verdict with the effect in every condition, as the pages print it.

    Args:
        outcomes: by the name of a comparison.
        clearly_below: whether the contradicting conditions lie below −δ, and not only below δ.
    """
    limit = amount(delta, comparisons[0].metric, sign=False)
    where = {
        SUPPORTED: f"above δ = {limit}",
        CONTRADICTED: f"below −δ = −{limit}" if clearly_below else f"below δ = {limit}, less than the claim needs,",
        INCONCLUSIVE: f"not clearly on one side of {'' if needs_more else '±'}δ = {limit}",
    }
    by_outcome = {outcome: [c for c in comparisons if outcomes[c.name] == outcome] for outcome in where}
    parts = [f"{where[outcome]} with {_effects(group)}" for outcome, group in by_outcome.items() if group]
    counts = sorted({len(comparison.seeds) for comparison in comparisons})
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    diverged = sum(sum(comparison.diverged) for comparison in comparisons)
    counted = f", {diverged} diverged run{'s' if diverged > 1 else ''} counted in" if diverged else ""
    return (
        f"{word[0].upper()}{word[1:]}: {_subject(comparisons[0])} is {'; '.join(parts)} "
        f"({seeds} paired seeds, 95 % intervals{counted})."
    )


def no_verdict_sentence(comparisons: Sequence[Comparison], reasons: Iterable[str]) -> str:
    """Why there can be no verdict."""
    return f"Inconclusive, {_subject(comparisons[0])}: {'; '.join(reasons)}."


def lacks(comparison: Comparison, planned: int) -> list[str]:
    """Why there can be no verdict on this condition, whatever its numbers."""
    reasons = []
    if comparison.unpaired:
        reasons.append(f"{name_seeds(comparison.unpaired)} of one arm without the other")
    if len(comparison.seeds) < planned:
        reasons.append(f"{len(comparison.seeds)} of the {planned} planned seeds")
    elif comparison.difference is None:
        reasons.append("a seed has no value")
    if comparison.edges:
        reasons.append(f"the best {' and '.join(comparison.edges)} lies at the edge of its grid")
    return [f"{comparison.name}: {', '.join(reasons)}"] if reasons else []


def _subject(comparison: Comparison) -> str:
    metric = comparison.metric.replace("_", " ")
    return f"{metric} of {comparison.arms[0]!r} minus that of {comparison.arms[1]!r}"


def _effects(comparisons: Iterable[Comparison]) -> str:
    return ", ".join(
        f"{c.name} ({amount(c.difference.mean, c.metric)} {interval(c.difference.low, c.difference.high, c.metric)})"
        for c in comparisons
    )


# Numbers, lists


def amount(value: float, metric: str, sign: bool = True) -> str:
    """A value of a metric in words: of accuracies in points, of others in three digits."""
    if metric.endswith("accuracy"):
        return f"{round(100 * value, 2) + 0.0:{'+' if sign else ''}.2f} points".replace("-", "−")  # no −0.00
    return f"{value:{'+' if sign else ''}.3g}".replace("-", "−")


def interval(low: float, high: float, metric: str) -> str:
    """An interval in the words of `amount`, with the unit left to the value beside it."""
    return f"[{amount(low, metric).removesuffix(' points')}, {amount(high, metric).removesuffix(' points')}]"


def duration(seconds: float) -> str:
    """Seconds in words, to a reasonable digit."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def name_seeds(seeds: Iterable[int]) -> str:
    """ "seed 3", or "seeds 3, 7"."""
    seeds = sorted(seeds)
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def pairs(names: Sequence[str], values: Sequence) -> str:
    """ "lr 0.1, norm batch"."""
    return ", ".join(f"{name} {as_text(value)}" for name, value in zip(names, values, strict=True))


def conjunction(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + [words[-1]])


def as_text(value: object) -> str:
    """A value of a setting."""
    return f"{value:g}" if isinstance(value, float) else str(value)
