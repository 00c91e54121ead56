"""Whether the noise of the batch statistics is what helps, from the rows of `regularization`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison, compare, pilot
from ..policy import POINTS
from .regularization import BATCH_SIZE, GHOSTS, SCORES, arm, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does the noise of the batch statistics raise the test accuracy, compared with statistics without noise?"
CLAIM = "In our experiments, we found this effect to be advantageous to the generalization of the network."
SOURCE = "ioffe2015batch"
FOLKLORE = "The noise of the batch statistics is what regularizes."
CHAPTER, ROWS = 15, "regularization"
METRIC, DELTA = "test_accuracy", POINTS.delta
FACTOR = "the number of images"


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Statistics of a batch, the best of all sizes, minus those of the whole training set; each at its best rate."""
    return [
        compare(
            f"{images:,} images",
            arm(rows, images, "batch", over=["ghost"]),
            arm(rows, images, "whole"),
            arms=("with noise", "without noise"),
        )
        for images in sizes(rows)
    ]


def figure(rows: list[dict]) -> Figure:
    """Test scores over the number of images that a statistic is taken over; dots are the seeds of the pilot."""
    import matplotlib.pyplot as plt

    from ... import plotting

    rows = pilot(rows)
    tried = {row["setting"]["ghost"] for row in rows}
    groups = [size for size in (*GHOSTS, BATCH_SIZE) if size in tried]
    picture, axes = plt.subplots(len(SCORES), 1, figsize=(5.6, 6.4), sharex=True)
    colors = ((plotting.SKY, plotting.YELLOW), (plotting.WITH_BN, plotting.WITHOUT_BN))
    for images, (color, other) in zip(sizes(rows), colors, strict=False):
        arms = [(str(m), arm(rows, images, "batch", ghost=m)) for m in groups] + [("all", arm(rows, images, "whole"))]
        without = arm(rows, images, "none")
        for ax, metric in zip(axes, SCORES, strict=True):
            values = [[row[metric] for row in choice.rows if row[metric] is not None] for _, choice in arms]
            for i, dots in enumerate(values):
                ax.plot([i] * len(dots), dots, ".", ms=5, color=color, alpha=0.5)
            ax.plot([sum(dots) / len(dots) for dots in values], color=color, label=f"with BN, {images:,} images")
            level = [row[metric] for row in without.rows if row[metric] is not None]
            ax.axhline(sum(level) / len(level), color=other, ls="--", lw=1.5, label=f"without BN, {images:,} images")
    for ax, words in zip(axes, SCORES.values(), strict=True):
        ax.set_ylabel(f"test {words}")
    axes[-1].set_xticks(range(len(arms)), [name for name, _ in arms])
    axes[-1].set_xlabel("images that a mean and a variance are taken over")
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
