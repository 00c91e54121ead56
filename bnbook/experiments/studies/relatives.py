"""Batch normalization beside its relatives, in batches of 2 and of 64 images; chapter 22 reads the rows.

The network, the images and the updates are those of the claim `small_batches`. The rate of an arm at a batch size is
the one with the highest mean validation accuracy, and must lie inside the grid; the test images choose nothing.
(The lowest rate of batches of 2 was added for all arms when that of instance normalization lay at the edge.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from .. import Choice, best, select
from ..claims import small_batches
from ..protocol import split, subset, train_and_score

QUESTION = "How well do batch normalization and its relatives learn in batches of 2 and of 64 images?"
CHAPTER, VERSION, SEEDS = 22, 1, 3
DATASET, NETWORK = small_batches.DATASET, small_batches.NETWORK
METRIC = "test_accuracy"

RATES = {  # by batch size: half decades, of SGD with momentum 0.9
    2: (0.0003, 0.001, 0.003, 0.01, 0.03),
    64: (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
}
NORMS = {
    "batch": "batch",
    "layer": "layer",
    "group": "group",
    "instance": "instance",
    "rms": "RMS",
    "weight": "weight",
    "standardized": "weight standardization and group",
    "none": "none",
}
"""The arms, and what they are called."""


class RMSNorm2d(nn.Module):
    """RMS normalization of all channels and positions of an image, with one γ a channel, as `GroupNorm(1, C)` has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return nn.functional.rms_norm(x, x.shape[1:]) * self.weight


class Standardized(nn.Module):
    """Weights of mean 0 and variance 1 over the inputs of each output (Qiao et al. 2019)."""

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, ...) to the same shape."""
        return nn.functional.layer_norm(weight, weight.shape[1:], eps=1e-10)


LAYERS = {  # after the convolution, of so many channels, and after the fully connected layer
    "instance": (partial(nn.InstanceNorm2d, affine=True), lambda features: nn.Identity()),
    "rms": (RMSNorm2d, nn.RMSNorm),
}
WEIGHTS = {  # what the weights of the two layers before a normalization are made of
    "weight": weight_norm,
    "standardized": partial(register_parametrization, tensor_name="weight", parametrization=Standardized()),
}


def grid(quick: bool = False) -> list[dict]:
    """Every arm at both batch sizes and every rate; quick: in batches of 64, at one rate."""
    return [
        {"batch_size": size, "norm": norm, "lr": lr}
        for size, rates in RATES.items()
        for norm in NORMS
        for lr in rates
        if not quick or (size, lr) == (64, 0.1)
    ]


def network(norm: str, batch_size: int) -> nn.Sequential:
    """The network of `small_batches` with one of NORMS; after `torch.manual_seed(s)` all draw the same weights.

    Instance normalization has no positions to average over after the fully connected layer: there is none.
    """
    base = {"standardized": "group", "weight": "none", "instance": "batch", "rms": "batch"}.get(norm, norm)
    model = small_batches.network(base, batch_size)
    if norm in LAYERS:
        for name, make, size in zip(("bn1", "bn2"), LAYERS[norm], (32, 128), strict=True):
            setattr(model, name, make(size))
    if norm in WEIGHTS:
        for layer in (model.conv, model.fc1):
            WEIGHTS[norm](layer)
    return model


def run(setting: dict, seed: int) -> dict:
    """Train one network for three epochs; its scores in evaluation mode after the last update."""
    size = setting["batch_size"]
    torch.manual_seed(seed)
    row = train_and_score(
        network(setting["norm"], size),
        subset(small_batches.IMAGES, seed, half=True),
        split("val", 2_000, half=True),
        split("test", half=True),
        steps=small_batches.EPOCHS * small_batches.IMAGES // size,
        lr=setting["lr"],
        momentum=0.9,
        schedule="cosine",
        seed=seed,
        batch_size=size,
    )
    del row["correct"]
    return row


def at_best_rate(rows: Sequence[dict], batch_size: int, norm: str) -> Choice:
    """An arm in batches of one size, at its best rate."""
    return best(select(rows, batch_size=batch_size, norm=norm), over="lr")
