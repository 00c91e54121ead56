"""`dropout_before_norm` again, from the rows of `placement_cosine`: also with half of the values dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison
from . import dropout_before_norm
from .dropout_before_norm import ARMS, ORDERS
from .placement_cosine import FIT, STRENGTHS, WORDS, at_best_rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION, CLAIM = dropout_before_norm.QUESTION, dropout_before_norm.CLAIM
SOURCE, FOLKLORE = dropout_before_norm.SOURCE, dropout_before_norm.FOLKLORE
CHAPTER, ROWS = 16, "placement_cosine"
METRIC, DELTA = dropout_before_norm.METRIC, dropout_before_norm.DELTA
SCOPE = "networks that drop half of the values"
FACTOR = "the activation", "the order", "the strength of dropout"


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy of the networks at their best rate, statistics with dropout off minus on; the same networks.

    A diverged network, which has neither, counts as guessing twice.
    """
    if not any(row["setting"]["dropout"] != "none" for row in rows):
        return []  # of a quick grid
    result = []
    for activation, fit in FIT.items():
        for order, (place, dropout) in ORDERS.items():
            for strength in STRENGTHS:
                choice = at_best_rate(rows, activation, fit, place, dropout, strength)
                off, on = (
                    {row["seed"]: 0.1 if row["diverged"] else row[f"accuracy_dropout_{mode}"] for row in choice.rows}
                    for mode in ("off", "on")
                )
                diverged = sum(row["diverged"] for row in choice.rows)
                name = f"{WORDS[activation]}, {order}, {strength:g}"
                result.append(
                    Comparison(
                        name,
                        off,
                        on,
                        arms=ARMS,
                        metric=METRIC,
                        chosen=(str(choice),),
                        edges=tuple(f"{edge} of {name}" for edge in choice.edge),
                        diverged=(diverged, diverged),
                        levels=(activation, order, strength),
                        settings=(choice.rows[0]["setting"],),
                    )
                )
    return result


def in_scope(comparison: Comparison) -> bool:
    """Their networks drop half of the values."""
    return comparison.levels[2] == 0.5


def figure(rows: list[dict]) -> Figure:
    """What the fitting statistics gain, in points, a panel for each strength: dots are seeds, bars 95 % intervals."""
    import matplotlib.pyplot as plt

    from ... import plotting

    found = comparisons(rows)
    picture, axes = plt.subplots(1, len(STRENGTHS), figsize=(6.4, 4.6), sharey=True)
    colors = plotting.SKY, plotting.GREEN, plotting.PURPLE, plotting.YELLOW
    for ax, strength in zip(axes, STRENGTHS, strict=True):
        some = [comparison for comparison in found if comparison.levels[2] == strength]
        for at, comparison in enumerate(some):
            values = [100 * (comparison.a[seed] - comparison.b[seed]) for seed in comparison.seeds]
            color = colors[at % len(colors)]
            ax.plot(values, [at - 0.15] * len(values), "o", color=color, ms=3, alpha=0.6)
            difference = comparison.difference
            if difference.low is not None:
                ax.plot([100 * difference.low, 100 * difference.high], [at + 0.15] * 2, color=color, lw=3)
            ax.plot(100 * difference.mean, at + 0.15, "D", color=color, ms=5)
        ax.axvline(0, color="k", lw=1)
        ax.axvline(100 * DELTA, color="k", lw=1, ls=":")
        ax.set(xlabel="gain in test accuracy (points)", title=f"dropout of {strength:g}")
        ax.set_yticks(range(len(some)), [", ".join(c.name.split(", ")[:2]) for c in some])
    axes[0].invert_yaxis()
    return picture
