"""What dropout before batch normalization costs in evaluation, from the rows of `placement`.

Dropout raises the variance that a batch normalization meets in training, and is off in evaluation. The same trained
network is scored twice: with statistics estimated with dropout off, as evaluation meets them, and with dropout on, as
training does. The difference is what the shift of the variance costs, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import Choice, Comparison
from ..policy import POINTS
from .placement import AFTER, BEFORE, FIT, STRENGTHS, WORDS, at_best_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUESTION = "Does a network with dropout before its batch normalization err more because the variances do not fit?"
CLAIM = (
    "The inconsistency of variances in Dropout and BN (we name this scheme “variance shift”) causes the unstable"
    " numerical behavior in inference that leads to erroneous predictions finally."
)
SOURCE = "li2019understanding"
FOLKLORE = "Dropout before batch normalization does harm."
CHAPTER, ROWS = 16, "placement"
METRIC, DELTA = "accuracy", POINTS.delta
SCOPE = "networks that drop half of the values"
FACTOR = "the activation", "the order", "the strength of dropout"

ARMS = ("statistics with dropout off", "statistics with dropout on")
ORDERS = {  # of a layer: (place of BN, place of dropout)
    "linear→BN→act→dropout": (BEFORE, "end"),
    "linear→act→BN→dropout": (AFTER, "end"),
    "linear→act→dropout→BN": (AFTER, "norm"),
    "linear→dropout→BN→act": (BEFORE, "norm"),
}


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy of the networks at their best rate, statistics with dropout off minus on; the same networks."""
    if not any(row["setting"]["dropout"] != "none" for row in rows):
        return []  # of a quick grid
    return [
        off_minus_on(
            f"{WORDS[activation]}, {order}, {strength:g}",
            at_best_rate(rows, activation, fit, place, dropout, strength),
            levels=(activation, order, strength),
        )
        for activation, fit in FIT.items()
        for order, (place, dropout) in ORDERS.items()
        for strength in STRENGTHS
    ]


def off_minus_on(name: str, choice: Choice, levels: tuple) -> Comparison:
    """Accuracy of the same networks, with statistics estimated with dropout off minus with dropout on.

    A diverged network, which has neither, counts as guessing twice.

    Args:
        name, levels: of the condition.
        choice: their rows, which hold accuracy_dropout_off and accuracy_dropout_on.
    """
    off, on = (
        {row["seed"]: 0.1 if row["diverged"] else row[f"accuracy_dropout_{mode}"] for row in choice.rows}
        for mode in ("off", "on")
    )
    diverged = sum(row["diverged"] for row in choice.rows)
    return Comparison(
        name,
        off,
        on,
        arms=ARMS,
        metric=METRIC,
        chosen=(str(choice),),
        edges=tuple(f"{edge} of {name}" for edge in choice.edge),
        diverged=(diverged, diverged),
        levels=levels,
        settings=(choice.rows[0]["setting"],),
    )


def in_scope(comparison: Comparison) -> bool:
    """Their networks drop half of the values."""
    return comparison.levels[2] == 0.5


def figure(rows: list[dict]) -> Figure:
    """What the fitting statistics gain, in points, a panel for each strength: dots are seeds, bars 95 % intervals."""
    import matplotlib.pyplot as plt

    found = comparisons(rows)
    picture, axes = plt.subplots(1, len(STRENGTHS), figsize=(6.0, 4.6), sharey=True)
    for ax, strength in zip(axes, STRENGTHS, strict=True):
        some = [comparison for comparison in found if comparison.levels[2] == strength]
        draw(ax, some, [", ".join(c.name.split(", ")[:2]) for c in some], size=3)
        ax.set(xlabel="gain (points)", title=f"dropout of {strength:g}")
    axes[0].invert_yaxis()
    return picture


def draw(ax: Axes, found: Sequence[Comparison], labels: Sequence[str], size: float = 4) -> None:
    """The differences of the comparisons in points, a line for each: dots are seeds, bars their 95 % intervals.

    Args:
        labels: of the lines.
        size: of the dots, in points.
    """
    from ... import plotting

    colors = plotting.SKY, plotting.GREEN, plotting.PURPLE, plotting.YELLOW
    for at, comparison in enumerate(found):
        values = [100 * (comparison.a[seed] - comparison.b[seed]) for seed in comparison.seeds]
        color = colors[at % len(colors)]
        ax.plot(values, [at - 0.15] * len(values), "o", color=color, ms=size, alpha=0.6)
        difference = comparison.difference
        if difference.low is not None:
            ax.plot([100 * difference.low, 100 * difference.high], [at + 0.15] * 2, color=color, lw=3)
        ax.plot(100 * difference.mean, at + 0.15, "D", color=color, ms=size + 2)
    ax.axvline(0, color="k", lw=1)
    ax.axvline(100 * DELTA, color="k", lw=1, ls=":")
    ax.set_yticks(range(len(found)), labels)
