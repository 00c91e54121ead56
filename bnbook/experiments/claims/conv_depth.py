"""How deep a convolutional residual network still learns: without normalization, with it, and with what replaces it.

The basic blocks of He et al. (2016) at 8, 20 and 56 layers. Six arms: no normalization from He's weights, whose
branches are as large as the skip, and from PyTorch's smaller ones; batch and group normalization; and two that need
none, SkipInit and Fixup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import TYPE_CHECKING

import torch

from ...models.torch_conv import resnet
from ...models.torch_mlp import scalars
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How deep can a convolutional residual network be and still learn, with batch normalization and without?"
CLAIM = (
    "Batch normalization dramatically increases the largest trainable depth of residual networks, and this benefit has"
    " been crucial to the empirical success of deep residual networks on a wide range of benchmarks."
)
SOURCE = "de2020batch"
FOLKLORE = "Deep residual networks need batch normalization."
CHAPTER, VERSION, SEEDS, CONFIRM = 14, 1, 5, True
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "residual networks of 3x3 convolutions, width 8"
BATCH_SIZE, STEPS, WIDTH = 128, 390, 8  # five epochs of 78 updates
METRIC, DELTA = "test_accuracy", POINTS.delta
NEEDS_MORE = True  # "dramatically"
SCOPE = "against the same network without normalization, and without what replaces it"
FACTOR = "the depth", "the network without BN"

DEPTHS = (8, 20, 56)
GUESSING = 0.15  # an arm whose validation accuracy is below this at every rate has learned nothing at any
BN = "BN"
ARMS = {  # name: (normalization, initial weights, rates of SGD with momentum 0.9)
    "no BN, He": ("none", "he", (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
    "no BN, default init": ("none", "default", (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    BN: ("batch", "he", (0.01, 0.03, 0.1, 0.3, 1.0)),
    "SkipInit": ("skipinit", "he", (0.003, 0.01, 0.03, 0.1, 0.3)),
    "Fixup": ("fixup", "he", (0.01, 0.03, 0.1, 0.3, 1.0)),
    "group norm": ("group", "he", (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
}


def grid(quick: bool = False) -> list[dict]:
    """Every arm at every depth and rate. Quick: 8 layers, two rates."""
    return [
        {"depth": depth, "arm": arm, "lr": lr}
        for depth in (DEPTHS[:1] if quick else DEPTHS)
        for arm, (_, _, rates) in ARMS.items()
        for lr in (rates[2:4] if quick else rates)
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; validation and test scores after the last update."""
    norm, init, _ = ARMS[setting["arm"]]
    torch.manual_seed(seed)
    model = resnet(norm, depth=setting["depth"], width=WIDTH, init=init)
    return train_and_score(
        model,
        subset(10_000, seed, half=True),
        split("val", 5_000, half=True),
        split("test", half=True),
        steps=STEPS,
        lr=setting["lr"],
        momentum=0.9,
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
        slow=scalars(model) if norm == "fixup" else (),
    )


def chosen(rows: Sequence[dict], depth: int, arm: str) -> Choice:
    """An arm at its best rate. One that guesses at every rate has none: the first stands for all, and is no edge."""
    choice = best(select(rows, depth=depth, arm=arm), over="lr")
    return replace(choice, edge=()) if max(choice.means.values()) < GUESSING else choice


def depths(rows: Sequence[dict]) -> list[int]:
    """The depths; a quick grid has one."""
    return sorted({row["setting"]["depth"] for row in rows})


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy at each depth and each arm's best rate: with batch normalization minus each of the other arms."""
    return [
        compare(
            f"{depth} layers, against {arm}",
            chosen(rows, depth, BN),
            chosen(rows, depth, arm),
            arms=("with BN", "without BN"),
            levels=(depth, arm),
        )
        for depth in depths(rows)
        for arm in ARMS
        if arm != BN
    ]


def in_scope(comparison: Comparison) -> bool:
    """The sentence compares with networks without normalization; SkipInit and Fixup are later."""
    return comparison.levels[1].startswith("no BN")


def figure(rows: list[dict]) -> Figure:
    """Test accuracy over the depth, a line for each arm: left the means, right the medians, closer; dots are seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    looks = {
        "no BN, He": (plotting.WITHOUT_BN, "-"),
        "no BN, default init": (plotting.WITHOUT_BN, "--"),
        BN: (plotting.WITH_BN, "-"),
        "SkipInit": (plotting.GREEN, "-"),
        "Fixup": (plotting.PURPLE, "-"),
        "group norm": (plotting.SKY, "-"),
    }
    picture, axes = plt.subplots(1, 2, figsize=(6.4, 3.8))
    for arm, (color, style) in looks.items():
        scores = [
            [0.1 if row["diverged"] else row["test_accuracy"] for row in chosen(rows, depth, arm).rows]
            for depth in depths(rows)
        ]
        for ax, average in zip(axes, (fmean, median), strict=True):
            ax.plot(depths(rows), [average(values) for values in scores], style, color=color, label=arm)
            for depth, values in zip(depths(rows), scores, strict=True):
                ax.plot([depth] * len(values), values, "o", color=color, ms=3, alpha=0.5)
    for ax, title, limits in zip(axes, ("mean", "median, closer"), ((0, 0.9), (0.75, 0.88)), strict=True):
        ax.set(xscale="log", xlabel="layers", title=title, ylim=limits)
        ax.set_xticks(depths(rows), depths(rows))
        ax.minorticks_off()
    axes[0].axhline(0.1, color="k", ls=":", lw=1)
    axes[0].set_ylabel("test accuracy")
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return picture
