"""What convolutional networks reach in a given number of updates, with batch normalization and without.

A VGG of six convolutions and a residual network of eight layers, by two optimizers, with no normalization, batch or
group normalization. Speed is measured by budgets: each number of updates is a training of its own, whose learning rate
falls to zero at its end. `conv_faster` reads another claim from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...models.torch_conv import resnet, vgg
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How good is a convolutional network after a given number of updates, with batch normalization and without?"
CLAIM = (
    "Applied to a state-of-the-art image classification model, Batch Normalization achieves the same accuracy with 14"
    " times fewer training steps, and beats the original model by a significant margin."
)
FOLKLORE = "A convolutional network with batch normalization ends up better."
SOURCE = "ioffe2015batch"
CHAPTER, VERSION, SEEDS, CONFIRM = 11, 1, 5, True
CONFIRMATION = 2
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "six convolutions as VGG, width 16, and a residual network of 8 layers, width 8"
BATCH_SIZE, BUDGETS = 128, (98, 195, 390, 780)  # of updates; 78 are an epoch
STEPS = BUDGETS[-1]
METRIC, DELTA = "test_accuracy", POINTS.delta
NEEDS_MORE = True  # "by a significant margin"
SCOPE = "SGD with momentum, against the same network without normalization"
FACTOR = "the network", "the optimizer", "the opponent"

NETWORKS = ("VGG-6", "ResNet-8")
NORMS = {"batch": "batch normalization", "none": "no normalization", "group": "group normalization"}
OPTIMIZERS = {  # name: (optimizer, momentum, {normalization: rates})
    "SGD, momentum 0.9": (
        "sgd",
        0.9,
        {
            "none": (0.003, 0.01, 0.03, 0.1, 0.3),
            "batch": (0.03, 0.1, 0.3, 1.0, 3.0),
            "group": (0.01, 0.03, 0.1, 0.3, 1.0),
        },
    ),
    "Adam": (
        "adam",
        0.0,
        {
            "none": (0.0003, 0.001, 0.003, 0.01, 0.03),
            "batch": (0.001, 0.003, 0.01, 0.03, 0.1),
            "group": (0.001, 0.003, 0.01, 0.03, 0.1),
        },
    ),
}


def grid(quick: bool = False) -> list[dict]:
    """Every network, optimizer and normalization at every budget and rate. Quick: VGG-6, SGD, 98 updates, two rates."""
    return [
        {"network": network, "optimizer": optimizer, "norm": norm, "steps": steps, "lr": lr}
        for steps in (BUDGETS[:1] if quick else BUDGETS)
        for network in (NETWORKS[:1] if quick else NETWORKS)
        for optimizer, (_, _, rates) in list(OPTIMIZERS.items())[: 1 if quick else None]
        for norm in NORMS
        for lr in (rates[norm][1:3] if quick else rates[norm])
    ]


def network(setting: dict) -> nn.Sequential:
    """The network of a setting from He's weights, of PyTorch's random numbers."""
    if setting["network"] == "VGG-6":
        return vgg(setting["norm"], width=16, init="he")
    return resnet(setting["norm"], depth=8, width=8, init="he")


def run(setting: dict, seed: int) -> dict:
    """Train one network; validation and test scores after the last update."""
    optimizer, momentum, _ = OPTIMIZERS[setting["optimizer"]]
    torch.manual_seed(seed)
    return train_and_score(
        network(setting),
        subset(10_000, seed, half=True),
        split("val", 5_000, half=True),
        split("test", half=True),
        steps=setting["steps"],
        lr=setting["lr"],
        optimizer=optimizer,
        momentum=momentum,
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )


def at_best_rate(rows: Sequence[dict], network: str, optimizer: str, norm: str, steps: int) -> Choice:
    """An arm after so many updates, at the rate that is best for them."""
    return best(select(rows, network=network, optimizer=optimizer, norm=norm, steps=steps), over="lr")


def places(rows: Sequence[dict]) -> list[tuple[str, str]]:
    """The pairs (network, optimizer); a quick grid has one."""
    there = {(row["setting"]["network"], row["setting"]["optimizer"]) for row in rows}
    return [(network, optimizer) for network in NETWORKS for optimizer in OPTIMIZERS if (network, optimizer) in there]


def budgets(rows: Sequence[dict]) -> list[int]:
    """The numbers of updates; a quick grid has one."""
    return sorted({row["setting"]["steps"] for row in rows})


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy after the longest training, each at its best rate: with batch normalization minus the others."""
    longest = budgets(rows)[-1]
    return [
        compare(
            f"{place[0]}, {place[1]}, against {NORMS[norm]}",
            at_best_rate(rows, *place, "batch", longest),
            at_best_rate(rows, *place, norm, longest),
            arms=("with BN", "without BN"),
            levels=(*place, norm),
        )
        for place in places(rows)
        for norm in NORMS
        if norm != "batch"
    ]


def in_scope(comparison: Comparison) -> bool:
    """The paper trained by SGD with momentum, and compared with the network without normalization."""
    return comparison.levels[1:] == ("SGD, momentum 0.9", "none")


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the number of updates, each point a training of its own; dots are seeds, lines medians.

    What is below 0.6 lies below the frame.
    """
    from statistics import median

    import matplotlib.pyplot as plt

    from ... import plotting

    colors = {"batch": plotting.WITH_BN, "none": plotting.WITHOUT_BN, "group": plotting.SKY}
    optimizers = list(dict.fromkeys(optimizer for _, optimizer in places(rows)))
    networks = list(dict.fromkeys(network for network, _ in places(rows)))
    picture, axes = plt.subplots(
        len(networks),
        len(optimizers),
        figsize=(6.4, 2.3 * len(networks) + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for place in places(rows):
        ax = axes[networks.index(place[0]), optimizers.index(place[1])]
        for norm, color in colors.items():
            scores = [
                [row["val_accuracy"] for row in at_best_rate(rows, *place, norm, steps).rows] for steps in budgets(rows)
            ]
            ax.plot(budgets(rows), [median(s) for s in scores], color=color, label=NORMS[norm])
            for steps, values in zip(budgets(rows), scores, strict=True):
                ax.plot([steps] * len(values), values, "o", color=color, ms=3, alpha=0.5)
        ax.set(xscale="log", title=", ".join(place), ylim=(0.6, 0.9))
        ax.set_xticks(budgets(rows), budgets(rows))
        ax.minorticks_off()
    for ax in axes[-1]:
        ax.set_xlabel("updates in all")
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return picture
