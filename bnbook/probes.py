"""Look inside a network: how large its activations and gradients are, layer by layer."""

from __future__ import annotations

import copy

import numpy as np

from . import data, nn


def record(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per layer its output for one batch in training mode, and the gradient of the loss for that output.

    A copy of the model does it: the statistics and gradients of `model` stay as they are.

    Args:
        model: maps images to logits; layers are known by their names.
        images: uint8, (N, 28, 28), as `data.load` gives them.
        labels: (N,).
    """
    model = copy.deepcopy(model).train()
    loss = nn.CrossEntropyLoss()
    activations, gradients = [], []
    x = data.to_input(images)
    for layer in model:
        x = layer(x)
        activations.append(x)
    loss(x, labels)
    grad = loss.backward()
    for layer in reversed(model):
        gradients.append(grad)
        grad = layer.backward(grad)
    names = [name for name, _ in model.named_children()]
    return dict(zip(names, zip(activations, reversed(gradients), strict=True), strict=True))


def spread(values: np.ndarray, center: bool = True) -> tuple[float, float, float]:
    """How far the values of a layer's units reach over the batch: (root mean square over the units, 10 %, 90 %).

    Args:
        values: (N, C) or (N, C, *), axis 1 holds the units: activations or their gradients.
        center: around each unit's own mean (its standard deviation: what tells the examples apart), or around zero.
    """
    units = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
    size = units.std(axis=1) if center else np.sqrt((units**2).mean(axis=1))
    low, high = np.percentile(size, [10, 90])
    return float(np.sqrt((size**2).mean())), float(low), float(high)
