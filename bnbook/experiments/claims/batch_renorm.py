"""Whether Batch Renormalization mends small batches, from the rows of `small_batches`."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from .. import Comparison
from ..policy import POINTS
from .small_batches import SMALL, against_bn, at_best_rate, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does it help to correct the statistics of a batch by the running ones?"
CLAIM = (
    "Models trained with Batch Renormalization perform substantially better than batchnorm when training with small or"
    " non-i.i.d. minibatches."
)
FOLKLORE = "Batch Renormalization is better than batch normalization."
SOURCE = "ioffe2017batch"
CHAPTER, ROWS = 19, "small_batches"
METRIC, DELTA = "test_accuracy", POINTS.delta
NEEDS_MORE = True  # "substantially"
SCOPE = "batches of 2, 4 and 8 images"
FACTOR = "the batch size"


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Batch Renormalization minus batch normalization."""
    return against_bn(rows, ("renorm",))


def in_scope(comparison: Comparison) -> bool:
    """Small batches; those that are sorted are not in these rows."""
    return comparison.levels[0] in SMALL


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the batch size, by the running statistics and by those of batches; dots are seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    picture, axes = plt.subplots(1, 2, figsize=(6.4, 3.5), sharex=True, sharey=True)
    titles = {"batch": "batch normalization", "renorm": "Batch Renormalization"}
    colors = {"batch": plotting.WITH_BN, "renorm": plotting.PURPLE}
    modes = {"val_accuracy": ("evaluation mode", "-", "o"), "train_mode_accuracy": ("training mode", "--", "x")}
    for ax, (norm, title) in zip(axes, titles.items(), strict=True):
        for metric, (words, line, marker) in modes.items():
            scores = [[row[metric] for row in at_best_rate(rows, size, norm).rows] for size in sizes(rows)]
            ax.plot(sizes(rows), [fmean(values) for values in scores], line, color=colors[norm], label=words)
            for size, values in zip(sizes(rows), scores, strict=True):
                ax.plot([size] * len(values), values, marker, color=colors[norm], ms=3, alpha=0.4)
        ax.set(xscale="log", title=title, xlabel="images in a batch")
        ax.set_xticks(sizes(rows), sizes(rows))
        ax.minorticks_off()
        ax.legend(loc="lower right")
    axes[0].set_ylabel("validation accuracy")
    return picture
