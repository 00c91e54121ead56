"""What dropout before batch normalization costs a convolutional network in evaluation, from the rows of `conv_order`.

As in `dropout_before_norm` the same trained network is scored twice: with statistics estimated with dropout off, as
evaluation meets them, and with dropout on, as training does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison
from . import dropout_before_norm
from .conv_order import NETWORKS, SHARES, at_best_rate, kinds
from .dropout_before_norm import draw, off_minus_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does a convolutional network with dropout before its batch normalization err more because of the variances?"
CLAIM, SOURCE = dropout_before_norm.CLAIM, dropout_before_norm.SOURCE
FOLKLORE = "Dropout before batch normalization does harm to convolutional networks."
CHAPTER, ROWS = 16, "conv_order"
METRIC, DELTA = dropout_before_norm.METRIC, dropout_before_norm.DELTA
SCOPE = "networks that drop half of the values"
FACTOR = "the network", "the order", "the strength of dropout"

ORDERS = {order.replace("linear", "conv"): kind for order, kind in dropout_before_norm.ORDERS.items()}


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy of the networks at their best rate, statistics with dropout off minus on; the same networks."""
    there = kinds(rows)  # a quick grid has no dropout
    return [
        off_minus_on(
            f"{network}, {order}, {share:g}",
            at_best_rate(rows, network, place, share, at),
            levels=(network, order, share),
        )
        for network in NETWORKS
        for order, (place, at) in ORDERS.items()
        for share in SHARES
        if (network, share, at) in there
    ]


def in_scope(comparison: Comparison) -> bool:
    """Their networks drop half of the values."""
    return comparison.levels[2] == 0.5


def figure(rows: list[dict]) -> Figure:
    """What the fitting statistics gain, in points, a panel for each network and strength; bars are 95 % intervals."""
    import matplotlib.pyplot as plt

    found = comparisons(rows)
    picture, axes = plt.subplots(
        len(NETWORKS), len(SHARES), figsize=(6.4, 4.6), sharex="col", sharey=True, squeeze=False
    )
    for line, network in zip(axes, NETWORKS, strict=True):
        for ax, share in zip(line, SHARES, strict=True):
            some = [c for c in found if (c.levels[0], c.levels[2]) == (network, share)]
            draw(ax, some, [c.levels[1] for c in some], size=3)
            ax.set_title(f"{network}, dropout of {share:g}")
    picture.supxlabel("gain in test accuracy (points)", fontsize="medium")
    axes[0, 0].invert_yaxis()  # which all share
    return picture
