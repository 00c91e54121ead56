"""What batch normalization adds to a convolutional network when images are few, beside the other regularizers.

A VGG of six convolutions on 1,024 images, with no normalization, batch or group normalization; each alone, with
dropout, with weight decay, and with images that are shifted and flipped. `conv_regularized_loss` and
`conv_regularized_calibration` read the other two scores from the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...models.torch_conv import vgg
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import evaluate, split, subset, updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "With few images, does batch normalization raise the test accuracy of a convolutional network?"
CLAIM = "It also acts as a regularizer, in some cases eliminating the need for Dropout."
SOURCE = "ioffe2015batch"
FOLKLORE = "Batch normalization is a regularizer of convolutional networks."
CHAPTER, VERSION, SEEDS, CONFIRM = 15, 1, 5, True
DATASET = "Fashion-MNIST, 1,024 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "six convolutions as VGG, width 16"
IMAGES, BATCH_SIZE, STEPS = 1024, 128, 320  # forty epochs of 8 updates
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "against the network without normalization, with no other regularizer"
FACTOR = "what stands beside it", "the opponent"

NORMS = {"batch": "batch normalization", "none": "no normalization", "group": "group normalization"}
RATES = {"batch": (0.03, 0.1, 0.3, 1.0), "none": (0.01, 0.03, 0.1, 0.3), "group": (0.01, 0.03, 0.1, 0.3)}
BESIDE = {  # name: what it changes in a setting; of a list the best strength is chosen
    "no other regularizer": {},
    "dropout": {"dropout": (0.2, 0.5)},
    "weight decay": {"weight_decay": (0.0005, 0.005)},
    "shift and flip": {"augment": (True,)},
}
PLAIN = {"dropout": 0.0, "weight_decay": 0.0, "augment": False}
SCORES = {"test_accuracy": "accuracy", "test_loss": "loss (nats)", "test_calibration_error": "calibration error"}


def grid(quick: bool = False) -> list[dict]:
    """Every normalization with every strength of every regularizer, at every rate. Quick: alone, at two rates."""
    strengths = [PLAIN]
    for changes in BESIDE.values():
        strengths += [{**PLAIN, name: value} for name, values in changes.items() for value in values]
    return [
        {"norm": norm, **strength, "lr": lr}
        for strength in strengths[: 1 if quick else None]
        for norm in NORMS
        for lr in (RATES[norm][1:3] if quick else RATES[norm])
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores on validation and test images after the last update."""
    x, y = subset(IMAGES, seed, half=True)
    torch.manual_seed(seed)
    model = vgg(setting["norm"], width=16, init="he", dropout=setting["dropout"])
    how = {name: setting[name] for name in ("lr", "weight_decay", "augment")}
    losses = [
        loss
        for _, loss in updates(
            model, x, y, steps=STEPS, seed=seed, batch_size=BATCH_SIZE, momentum=0.9, schedule="cosine", **how
        )
    ]
    val, test = (evaluate(model, *split(name, 10_000, half=True)) for name in ("val", "test"))
    return {
        "train_loss": sum(losses[-8:]) / len(losses[-8:]),
        "diverged": not (math.isfinite(losses[-1]) and math.isfinite(test.loss)),
        "val_accuracy": val.accuracy,
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_calibration_error": test.calibration_error,
        "correct": test.correct,
    }


def arm(rows: Sequence[dict], norm: str, beside: str) -> Choice:
    """A normalization with a regularizer, at the best rate and strength."""
    changes = BESIDE[beside]
    fixed = {name: value for name, value in PLAIN.items() if name not in changes}
    own = [row for row in select(rows, norm=norm, **fixed) if all(row["setting"][name] for name in changes)]
    ends = tuple(value for values in changes.values() for value in values if value is not True)  # which equals 1.0
    return best(own, over=(*changes, "lr"), ends=ends)


def besides(rows: Sequence[dict]) -> list[str]:
    """The regularizers; a quick grid has none."""
    there = [row["setting"] for row in rows]
    return [name for name, changes in BESIDE.items() if all(any(s[c] for s in there) for c in changes)]


def scores(
    rows: Sequence[dict], metric: str = METRIC, worst: float | None = 0.1, *, lower: bool = False
) -> list[Comparison]:
    """The comparisons of BN with the others in a score, where it stands alone and beside each regularizer.

    Args:
        worst: what a diverged run counts as.
        lower: the other minus BN, where less is better.
    """
    return [
        compare(
            f"{beside}, against {NORMS[norm]}",
            *(arm(rows, name, beside) for name in ((norm, "batch") if lower else ("batch", norm))),
            arms=("without BN", "with BN") if lower else ("with BN", "without BN"),
            metric=metric,
            chance=worst,
            levels=(beside, norm),
        )
        for beside in besides(rows)
        for norm in NORMS
        if norm != "batch"
    ]


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy with batch normalization minus without, alone and beside each regularizer at its best strength."""
    return scores(rows)


def in_scope(comparison: Comparison) -> bool:
    """The sentence speaks of a network without normalization, and of what it eliminates the need for."""
    return comparison.levels == ("no other regularizer", "none")


def figure(rows: list[dict]) -> Figure:
    """Test accuracy, loss and calibration error of every normalization, alone and beside the others; dots are seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    colors = {"batch": plotting.WITH_BN, "none": plotting.WITHOUT_BN, "group": plotting.SKY}
    names = besides(rows)
    picture, axes = plt.subplots(1, len(SCORES), figsize=(6.4, 1.4 + 0.6 * len(names)), sharey=True)
    for ax, (metric, words) in zip(axes, SCORES.items(), strict=True):
        for i, beside in enumerate(names):
            for up, (norm, color) in zip((-0.2, 0, 0.2), colors.items(), strict=True):
                values = [row[metric] for row in arm(rows, norm, beside).rows if row[metric] is not None]
                ax.plot(values, [i + up] * len(values), ".", ms=4, color=color, alpha=0.5)
                label = NORMS[norm] if i == 0 else None
                ax.plot(sum(values) / len(values), i + up, "|", ms=10, mew=2.5, color=color, label=label)
        ax.set_xlabel(words)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return picture
