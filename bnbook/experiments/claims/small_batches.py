"""What the batch size does to batch normalization, group normalization, Batch Renormalization, and to none of them.

The convolutional network of the book on 1,024 images, three epochs at every batch size: all see the same images, with
small batches in more and smaller steps. `batch_renorm` reads another claim from the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...models.torch_cnn import cnn
from ...models.torch_statistics import BatchRenorm
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "At which batch sizes is a network better off with what does not depend on the batch?"
CLAIM = (
    "BN's error increases rapidly when the batch size becomes smaller, caused by inaccurate batch statistics"
    " estimation."
)
FOLKLORE = "Group normalization, or none, is better than batch normalization."
SOURCE = "wu2018group"
CHAPTER, VERSION, SEEDS, CONFIRM = 19, 1, 5, True
CONFIRMATION = 2
DATASET = "Fashion-MNIST, 1,024 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "the convolutional network of the book"
IMAGES, EPOCHS = 1024, 3
STEPS = EPOCHS * IMAGES // 2  # of batches of 2
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "against group normalization, in batches of 2, 4 and 8 images"
FACTOR = "the batch size", "the network without BN"

RATES = {  # by batch size: half decades, of SGD with momentum 0.9
    2: (0.0003, 0.001, 0.003, 0.01, 0.03),
    4: (0.001, 0.003, 0.01, 0.03, 0.1),
    8: (0.003, 0.01, 0.03, 0.1, 0.3),
    32: (0.01, 0.03, 0.1, 0.3, 1.0),
    128: (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
}
SMALL = (2, 4, 8)
NORMS = {
    "batch": "batch normalization",
    "renorm": "Batch Renormalization",
    "group": "group normalization",
    "none": "no normalization",
}


def grid(quick: bool = False) -> list[dict]:
    """Every normalization at every batch size and rate. Quick: batches of 32 and 128, two rates."""
    return [
        {"batch_size": size, "norm": norm, "lr": lr}
        for size, rates in RATES.items()
        if size >= 32 or not quick
        for norm in NORMS
        for lr in (rates[1:3] if quick else rates)
    ]


def steps_of(setting: Mapping) -> int:
    """Larger batches make fewer updates of the same images."""
    return EPOCHS * IMAGES // setting["batch_size"]


def network(norm: str, batch_size: int) -> nn.Sequential:
    """The network with a normalization, from PyTorch's initial weights, the same for all four.

    Running statistics average over about 320 images, but not over fewer than ten batches: with PyTorch's momentum of
    0.1 those of two images would be an average over 20. Batch Renormalization is batch normalization for a tenth of the
    updates, and has its full limits after another fifth.
    """
    momentum, steps = min(0.1, batch_size / 320), steps_of({"batch_size": batch_size})
    model = cnn("batch" if norm == "renorm" else norm, image_size=14)
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = momentum
            if norm == "renorm":
                renorm = BatchRenorm(layer.num_features, momentum=momentum, warmup=steps // 10, ramp=steps // 5)
                setattr(model, name, renorm)
    return model


@torch.no_grad()
def accuracy_in_training_mode(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> float:
    """The share of right answers where every batch has its own statistics, as in training; the model stays."""
    model = copy.deepcopy(model).train()
    parts = x.split(batch_size)
    right = [model(images).argmax(1) == labels for images, labels in zip(parts, y.split(batch_size), strict=True)]
    return torch.cat(right).double().mean().item()


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores in evaluation mode, and the validation accuracy in training mode at its batch size."""
    size = setting["batch_size"]
    torch.manual_seed(seed)
    model, val = network(setting["norm"], size), split("val", 2_000, half=True)
    row = train_and_score(
        model,
        subset(IMAGES, seed, half=True),
        val,
        split("test", half=True),
        steps=steps_of(setting),
        lr=setting["lr"],
        momentum=0.9,
        schedule="cosine",
        seed=seed,
        batch_size=size,
    )
    return row | {"train_mode_accuracy": accuracy_in_training_mode(model, *val, size)}


def at_best_rate(rows: Sequence[dict], batch_size: int, norm: str) -> Choice:
    """An arm at the rate that is best in evaluation mode."""
    return best(select(rows, batch_size=batch_size, norm=norm), over="lr")


def sizes(rows: Sequence[dict]) -> list[int]:
    """The batch sizes; a quick grid has two."""
    return sorted({row["setting"]["batch_size"] for row in rows})


def against_bn(rows: list[dict], norms: Sequence[str]) -> list[Comparison]:
    """Test accuracy at each batch size, each at its best rate: of each of the `norms`, minus batch normalization."""
    return [
        compare(
            f"batches of {size}, {NORMS[norm]}",
            at_best_rate(rows, size, norm),
            at_best_rate(rows, size, "batch"),
            arms=("with the other", "with BN"),
            levels=(size, norm),
        )
        for size in sizes(rows)
        for norm in norms
    ]


def comparisons(rows: list[dict]) -> list[Comparison]:
    """What does not depend on the batch, minus batch normalization."""
    return against_bn(rows, ("group", "none"))


def in_scope(comparison: Comparison) -> bool:
    """The paper compares with group normalization; small is what lies below its usual 16 or 32 images."""
    return comparison.levels[0] in SMALL and comparison.levels[1] == "group"


def figure(rows: list[dict]) -> Figure:
    """Test accuracy over the batch size, a line for each normalization; dots are seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    looks = {
        "batch": plotting.WITH_BN,
        "renorm": plotting.PURPLE,
        "group": plotting.GREEN,
        "none": plotting.WITHOUT_BN,
    }
    picture, ax = plt.subplots(figsize=(6.4, 3.9))
    for i, (norm, color) in enumerate(looks.items()):
        scores = [[row["test_accuracy"] for row in at_best_rate(rows, size, norm).rows] for size in sizes(rows)]
        ax.plot(sizes(rows), [fmean(values) for values in scores], color=color, label=NORMS[norm])
        for size, values in zip(sizes(rows), scores, strict=True):
            ax.plot([size * 1.04 ** (i - 1.5)] * len(values), values, "o", color=color, ms=2.5, alpha=0.4)
    ax.set(xscale="log", xlabel="images in a batch", ylabel="test accuracy")
    ax.set_xticks(sizes(rows), sizes(rows))
    ax.minorticks_off()
    picture.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
