"""Whether batch normalization takes over the work of dropout, from the rows of `regularization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import Comparison, compare
from ..policy import POINTS
from .regularization import DROPOUT, NORMS, arm, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does dropout gain less in a network with batch normalization than in one without?"
CLAIM = (
    "Whereas Dropout is typically used to reduce overfitting, in a batch-normalized network we found that it can be"
    " either removed or reduced in strength."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "With batch normalization you need no dropout."
CHAPTER, ROWS = 15, "regularization"
METRIC, DELTA = "gain_in_test_accuracy", POINTS.delta
FACTOR = "the number of training images"


def gain(rows: Sequence[dict], images: int, norm: str) -> Comparison:
    """Test accuracy with dropout, of the best strength (which may be none), minus without; each at its best rate."""
    return compare(
        f"{images:,} images",
        arm(rows, images, norm, over=["dropout"]),
        arm(rows, images, norm),
        arms=("with dropout", "without dropout"),
    )


def comparisons(rows: list[dict]) -> list[Comparison]:
    """The gain of dropout in the network without BN minus its gain in the network with BN."""
    result = []
    for images in sizes(rows):
        gains = {name: gain(rows, images, norm) for name, norm in reversed(NORMS.items())}
        result.append(
            Comparison(
                f"{images:,} images",
                *({seed: each.a[seed] - each.b[seed] for seed in each.seeds} for each in gains.values()),
                arms=tuple(f"dropout {name}" for name in gains),
                metric=METRIC,
                chosen=tuple(f"{name}, {words}" for name, each in gains.items() for words in each.chosen),
                edges=tuple(f"{edge}, {name}" for name, each in gains.items() for edge in each.edges),
            )
        )
    return result


def figure(rows: list[dict]) -> Figure:
    """Test accuracy over the strength of dropout, with BN and without, each strength at its best rate."""
    import matplotlib.pyplot as plt

    from ... import plotting

    tried = {row["setting"]["dropout"] for row in rows}
    strengths = [p for p in (0.0, *DROPOUT) if p in tried]
    picture, axes = plt.subplots(1, len(sizes(rows)), figsize=(6.4, 3.2), squeeze=False)
    for ax, images in zip(axes[0], sizes(rows), strict=True):
        for (name, norm), color in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
            scores = [[row["test_accuracy"] for row in arm(rows, images, norm, dropout=p).rows] for p in strengths]
            for p, dots in zip(strengths, scores, strict=True):
                ax.plot([p] * len(dots), dots, ".", ms=5, color=color, alpha=0.5)
            ax.plot(strengths, [sum(dots) / len(dots) for dots in scores], color=color, label=name)
        ax.set(title=f"{images:,} training images", xlabel="share of units dropped")
    axes[0, 0].set_ylabel("test accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
