"""`dropout_before_norm` again, from the rows of `placement_cosine`: also with half of the values dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison
from . import dropout_before_norm
from .dropout_before_norm import ORDERS, draw, off_minus_on
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


def in_scope(comparison: Comparison) -> bool:
    """Their networks drop half of the values."""
    return comparison.levels[2] == 0.5


def figure(rows: list[dict]) -> Figure:
    """What the fitting statistics gain, in points, a panel for each strength: dots are seeds, bars 95 % intervals."""
    import matplotlib.pyplot as plt

    found = comparisons(rows)
    picture, axes = plt.subplots(1, len(STRENGTHS), figsize=(6.4, 4.6), sharey=True)
    for ax, strength in zip(axes, STRENGTHS, strict=True):
        some = [comparison for comparison in found if comparison.levels[2] == strength]
        draw(ax, some, [", ".join(c.name.split(", ")[:2]) for c in some], size=3)
        ax.set(xlabel="gain in test accuracy (points)", title=f"dropout of {strength:g}")
    axes[0].invert_yaxis()
    return picture
