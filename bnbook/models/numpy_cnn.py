"""The convolutional network of the book in NumPy."""

from __future__ import annotations

import numpy as np

from .. import nn


def cnn(
    batch_norm: bool = True, *, rng: np.random.Generator | int | None = None, dtype: type = np.float32
) -> nn.Sequential:
    """conv 1→32 (3×3), BN, ReLU, max-pool 2, flatten, fully connected 128, BN, ReLU, fully connected 10.

    It maps images (N, 1, 28, 28) to logits (N, 10).

    Args:
        batch_norm: with False both BN layers are left out and nothing else changes; the initial weights are the same.
        rng: a NumPy generator or a seed for the initial values.
        dtype: of parameters, statistics and images.
    """
    rng = np.random.default_rng(rng)
    layers = {
        "conv": nn.Conv2d(1, 32, 3, rng=rng, dtype=dtype),
        "bn1": nn.BatchNorm2d(32, dtype=dtype),
        "relu1": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(32 * 13 * 13, 128, rng=rng, dtype=dtype),
        "bn2": nn.BatchNorm1d(128, dtype=dtype),
        "relu2": nn.ReLU(),
        "fc2": nn.Linear(128, 10, rng=rng, dtype=dtype),
    }
    layers["conv"].needs_input_grad = False
    return nn.Sequential({name: layer for name, layer in layers.items() if batch_norm or not name.startswith("bn")})
