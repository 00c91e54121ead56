"""How numbers, conditions and verdicts are said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .statistics import Comparison

# The outcomes of a condition, in the order in which they are told, and what else a verdict may be
SUPPORTED = "supported"
DIRECTION = "direction known, size open"
SMALLER = "smaller than claimed"
NEGLIGIBLE = "negligible"
REVERSED = "reversed"
OPEN = "open"
OUTCOMES = (SUPPORTED, DIRECTION, SMALLER, NEGLIGIBLE, REVERSED, OPEN)
CONTRADICTED = "contradicted"


# The sentence of a verdict


def verdict_sentence(
    word: str,
    comparisons: Sequence[Comparison],
    outcomes: Mapping[str, str],
    delta: float,
    reasons: Mapping[str, Sequence[str]],
) -> str:
    """The verdict with the effect in every condition, as the pages print it.

    Args:
        outcomes: by the name of a comparison.
        reasons: by the name of a comparison, why it cannot be judged.
    """
    metric = comparisons[0].metric
    limit, zero = amount(delta, metric, sign=False), "1" if is_factor(metric) else "0"
    minus = f"{amount(-delta, metric)}" if is_factor(metric) else f"−δ = −{limit}"
    where = {
        (SUPPORTED, True): f"above δ = {limit}",
        (DIRECTION, True): f"above {zero}, but whether by more than δ = {limit} is open,",
        (SMALLER, True): f"above {zero}, but below δ = {limit},",
        (NEGLIGIBLE, None): f"within δ = {limit}",
        (DIRECTION, False): f"below {zero}, but whether by more than δ = {limit} is open,",
        (REVERSED, False): f"below {minus}",
        (OPEN, None): "open",
    }
    judged = [c for c in comparisons if not reasons[c.name]]
    groups = {
        (outcome, above): [c for c in judged if outcomes[c.name] == outcome and above in (None, c.difference.mean > 0)]
        for outcome, above in where
    }
    parts = [f"{where[key]} with {_effects(group)}" for key, group in groups.items() if group]
    lacking = "; ".join(reason for c in comparisons for reason in reasons[c.name])
    if not judged:
        return f"{_capital(word)}, {_subject(comparisons[0])}: {lacking}."
    counts = sorted({len(comparison.seeds) for comparison in judged})
    seeds = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    diverged = sum(sum(comparison.diverged) for comparison in judged)
    counted = f", {diverged} diverged run{'s' if diverged > 1 else ''} counted in" if diverged else ""
    return (
        f"{_capital(word)}: {_subject(comparisons[0])} is {'; '.join(parts)} "
        f"({seeds} paired seeds, 95 % intervals{counted}){f'; not judged: {lacking}' if lacking else ''}."
    )


def no_verdict_sentence(reason: object) -> str:
    """Why there can be no verdict."""
    return f"{_capital(OPEN)}: {reason}."


def summary(outcomes: Iterable[str]) -> str:
    """How many conditions have which outcome: "supported in 5 of 8 conditions, negligible in 2, open in 1"."""
    said = list(outcomes)
    counts = {outcome: said.count(outcome) for outcome in OUTCOMES if outcome in said}
    if len(said) == 1:
        return said[0]
    parts = [f"{outcome} in {count}" for outcome, count in counts.items()]
    return ", ".join([f"{parts[0]} of {len(said)} conditions", *parts[1:]]) if parts else ""


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


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _subject(comparison: Comparison) -> str:
    than = "over" if is_factor(comparison.metric) else "minus"
    return f"{measured_as(comparison.metric)} of {comparison.arms[0]!r} {than} that of {comparison.arms[1]!r}"


def _effects(comparisons: Iterable[Comparison]) -> str:
    return ", ".join(
        f"{c.name} ({amount(c.difference.mean, c.metric)} {interval(c.difference.low, c.difference.high, c.metric)})"
        for c in comparisons
    )


# Numbers, lists


def is_factor(metric: str) -> bool:
    """Whether a metric is a power of ten, so that its differences are factors."""
    return metric.startswith("log10") or metric.endswith("decades")


def measured_as(metric: str) -> str:
    """A metric in words; of a power of ten, what it is the power of."""
    words = metric.removeprefix("log10_of_the_").removeprefix("log10 of the ").removesuffix("_in_decades")
    return words.replace("_", " ")


def amount(value: float, metric: str, sign: bool = True) -> str:
    """A value of a metric in words: of accuracies in points, of powers of ten as factor, of others in three digits."""
    if metric.endswith("accuracy"):
        return f"{round(100 * value, 2) + 0.0:{'+' if sign else ''}.2f} points".replace("-", "−")  # no −0.00
    if is_factor(metric):
        return f"{_factor(value)} times"
    return f"{value:{'+' if sign else ''}.3g}".replace("-", "−")


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _factor(power: float) -> str:
    """10 to this power in two digits: "2.9", "130", "4.1·10⁻⁷"."""
    if -2 <= power < 4:
        return f"{float(f'{10**power:.2g}'):g}"
    mantissa, carried = f"{10 ** (power % 1):.1e}".split("e")
    return f"{mantissa}·10{str(int(power // 1) + int(carried)).translate(SUPERSCRIPTS)}"


def interval(low: float, high: float, metric: str) -> str:
    """An interval in the words of `amount`, with the unit left to the value beside it."""
    low, high = (amount(end, metric).removesuffix(" points").removesuffix(" times") for end in (low, high))
    return f"[{low}, {high}]"


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
