"""Whether batch normalization takes over the work of dropout, from the rows of `regularization`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import Choice, Comparison, compare, pilot
from ..policy import POINTS
from .regularization import DROPOUT, NORMS, arm, sizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is a network with batch normalization and without dropout as good as one with dropout and without it?"
CLAIM = (
    "Whereas Dropout is typically used to reduce overfitting, in a batch-normalized network we found that it can be"
    " either removed or reduced in strength."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "With batch normalization you need no dropout."
CHAPTER, ROWS = 15, "regularization"
METRIC, DELTA = "test_accuracy", POINTS.delta
FACTOR = "the number of images", "the strength of dropout"

STRENGTHS = (0.2, 0.5)  # a weak dose, and the usual one


def arms(rows: Sequence[dict], images: int, strength: float) -> dict[str, Choice]:
    """Nothing, each alone, and both, from He's weights, each at its own best rate."""
    return {
        "nothing": arm(rows, images, "none"),
        "BN": arm(rows, images, "batch"),
        "dropout": arm(rows, images, "none", dropout=strength),
        "BN and dropout": arm(rows, images, "batch", dropout=strength),
    }


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy of BN without dropout minus that of dropout without BN; nothing and both are confirmed as well."""
    there = {row["setting"]["dropout"] for row in rows}
    result = []
    for images in sizes(rows):
        for strength in STRENGTHS:
            if strength not in there:
                continue  # of a quick grid
            found = arms(rows, images, strength)
            comparison = compare(
                f"{images:,} images, dropout {strength:g}",
                found["BN"],
                found["dropout"],
                arms=("BN without dropout", "dropout without BN"),
                levels=(images, strength),
            )
            settings = tuple(choice.rows[0]["setting"] for choice in found.values())
            result.append(replace(comparison, settings=settings))
    return result


def figure(rows: list[dict]) -> Figure:
    """Test accuracy over the strength of dropout, with BN and without, each strength at its best rate, in the pilot."""
    import matplotlib.pyplot as plt

    from ... import plotting

    rows = pilot(rows)
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
