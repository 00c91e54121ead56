"""Whether batch normalization makes the loss of a convolutional network smoother, from the rows of `conv_why`.

Along the gradient, over the same steps and at the same updates: how far the loss ranges, how much the gradient changes,
and how fast it does (the effective β-smoothness). A network at a higher rate ends where the loss is flatter, so that
both networks have the best rate of the one without, and then each its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .. import Choice, Comparison
from . import landscape
from .conv_why import INIT, PROBED, over_run
from .landscape import draw_over_time, smaller
from .noise import BN, STANDARD, at_best_rate, at_rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is the loss of a convolutional network smoother along its gradient with batch normalization than without?"
CLAIM, SOURCE = landscape.CLAIM, landscape.SOURCE
FOLKLORE = "It makes the loss of convolutional networks smoother."
CHAPTER, ROWS = 17, "conv_why"
METRIC, EFFECT, DELTA = landscape.METRIC, "times less change along the gradient", landscape.DELTA
NEEDS_MORE = landscape.NEEDS_MORE
FACTOR = "the measure", "the rates"

MEASURES = {"loss_range": "range of the loss", "gradient_change": "change of gradient", "beta": "curvature"}
RATES = {"at one rate": False, "each at its best rate": True}


def choices(rows: Sequence[dict], own_rate: bool) -> dict[str, tuple[list[dict], Choice]]:
    """With BN and without: the rows, and the choice that the rate comes from.

    Args:
        own_rate: each at its own best rate, and not both at the best rate of the network without.
    """
    chosen = {"with BN": at_best_rate(rows, INIT, BN), "without BN": at_best_rate(rows, INIT, STANDARD)}
    if own_rate:
        return {arm: (choice.rows, choice) for arm, choice in chosen.items()}
    choice = chosen["without BN"]
    return {"with BN": (at_rate(rows, INIT, BN, **choice.values), choice), "without BN": (choice.rows, choice)}


def comparisons(rows: list[dict]) -> list[Comparison]:
    """By how many powers of ten a measure is smaller with BN, the mean of its logarithms over the updates."""
    return [
        smaller(
            f"{words}, {rates}",
            arms,
            partial(over_run, measure=measure),
            metric=METRIC,
            levels=(words, rates),
        )
        for rates, arms in ((rates, choices(rows, own_rate)) for rates, own_rate in RATES.items())
        for measure, words in MEASURES.items()
    ]


def figure(rows: list[dict]) -> Figure:
    """The three measures over the updates, at one rate and each at its best rate; bands reach over the seeds."""
    panels = {rates: [runs for runs, _ in choices(rows, own_rate).values()] for rates, own_rate in RATES.items()}
    return draw_over_time(panels, MEASURES, PROBED)
