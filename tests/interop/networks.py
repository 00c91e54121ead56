"""The same networks written out by hand in NumPy, torch and Keras: what `bnbook.interop` has to match.

All axes have different lengths, and eps and momentum are no framework's defaults.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch

from bnbook import nn
from bnbook.models.keras_cnn import keras
from tests.references import generator

L = keras.layers
EPS, MOMENTUM = 0.02, 0.15


@dataclass(frozen=True)
class Network:
    """A chain for NumPy and torch, whose layers have the same names and arguments, and the same chain for Keras."""

    name: str
    shape: tuple[int, int, int]  # (C, H, W)
    layers: Callable  # a module (bnbook.nn or torch.nn) → {name: layer}
    keras_layers: Callable  # the arguments of every layer, and those of a BN → layers

    def __str__(self) -> str:
        return self.name

    def numpy(self, dtype=np.float64) -> nn.Sequential:
        with_arrays = ("Conv2d", "Linear", "BatchNorm1d", "BatchNorm2d")
        return nn.Sequential(
            self.layers(
                SimpleNamespace(
                    **{name: partial(getattr(nn, name), dtype=dtype) for name in with_arrays},
                    **{name: getattr(nn, name) for name in ("ReLU", "Sigmoid", "Tanh", "MaxPool2d", "Flatten")},
                )
            )
        )

    def torch(self, dtype=np.float64):
        return torch.nn.Sequential(OrderedDict(self.layers(torch.nn))).to(getattr(torch, np.dtype(dtype).name))

    def keras(self, dtype=np.float64):
        c, h, w = self.shape
        inputs = keras.Input((h, w, c), dtype=np.dtype(dtype).name)
        return keras.Sequential([inputs, *self.made_of(dtype)])

    def made_of(self, dtype=np.float64) -> list:
        """New layers of Keras."""
        dtype = {"dtype": np.dtype(dtype).name}
        return self.keras_layers(dtype, {"epsilon": EPS, "momentum": 1 - MOMENTUM} | dtype)


BN = {"eps": EPS, "momentum": MOMENTUM}

NETWORKS = [
    Network(
        "conv, pool, two fully connected",
        (2, 8, 11),
        lambda m: {
            "conv": m.Conv2d(2, 5, (3, 2)),
            "bn1": m.BatchNorm2d(5, **BN),
            "relu1": m.ReLU(),
            "pool": m.MaxPool2d(2),
            "flatten": m.Flatten(),
            "fc1": m.Linear(5 * 3 * 5, 7),
            "bn2": m.BatchNorm1d(7, **BN),
            "relu2": m.ReLU(),
            "fc2": m.Linear(7, 3),
        },
        lambda a, bn: [
            L.Conv2D(5, (3, 2), name="conv", **a),
            L.BatchNormalization(name="bn1", **bn),
            L.Activation("relu", name="relu1", **a),
            L.MaxPooling2D(name="pool", **a),
            L.Flatten(name="flatten", **a),
            L.Dense(7, name="fc1", **a),
            L.BatchNormalization(name="bn2", **bn),
            L.ReLU(name="relu2", **a),
            L.Dense(3, name="fc2", **a),
        ],
    ),
    Network(
        "two convolutions, strides, padding, no biases, BN on the flat features",
        (3, 9, 7),
        lambda m: {
            "conv": m.Conv2d(3, 4, (5, 3), padding=(2, 1), bias=False),
            "bn1": m.BatchNorm2d(4, **BN),
            "act1": m.Tanh(),
            "conv2": m.Conv2d(4, 6, 2, stride=(2, 1), bias=False),
            "bn2": m.BatchNorm2d(6, **BN),
            "act2": m.Sigmoid(),
            "pool": m.MaxPool2d((2, 3), (1, 2)),
            "flatten": m.Flatten(),
            "bn3": m.BatchNorm1d(6 * 3 * 2, **BN),
            "fc": m.Linear(6 * 3 * 2, 5, bias=False),
        },
        lambda a, bn: [
            L.Conv2D(4, (5, 3), padding="same", use_bias=False, name="conv", **a),
            L.BatchNormalization(name="bn1", **bn),
            L.Activation("tanh", **a),
            L.Conv2D(6, 2, strides=(2, 1), use_bias=False, name="conv2", **a),
            L.BatchNormalization(name="bn2", **bn),
            L.Activation("sigmoid", **a),
            L.MaxPooling2D((2, 3), (1, 2), **a),
            L.Flatten(**a),
            L.BatchNormalization(name="bn3", **bn),
            L.Dense(5, use_bias=False, name="fc", **a),
        ],
    ),
    Network(
        "after the activation, BN without γ and β",
        (2, 6, 5),
        lambda m: {
            "conv": m.Conv2d(2, 3, (1, 4)),
            "relu1": m.ReLU(),
            "bn1": m.BatchNorm2d(3, affine=False, **BN),
            "flatten": m.Flatten(),
            "fc1": m.Linear(3 * 6 * 2, 4),
            "relu2": m.ReLU(),
            "bn2": m.BatchNorm1d(4, **BN),
            "fc2": m.Linear(4, 6),
        },
        lambda a, bn: [
            L.Conv2D(3, (1, 4), activation="relu", name="conv", **a),
            L.BatchNormalization(center=False, scale=False, name="bn1", **bn),
            L.Flatten(**a),
            L.Dense(4, activation="relu", name="fc1", **a),
            L.BatchNormalization(name="bn2", **bn),
            L.Dense(6, name="fc2", **a),
        ],
    ),
    Network(
        "no convolution",
        (1, 4, 3),
        lambda m: {
            "flatten": m.Flatten(),
            "fc1": m.Linear(12, 9),
            "bn1": m.BatchNorm1d(9, **BN),
            "relu1": m.ReLU(),
            "fc2": m.Linear(9, 4),
        },
        lambda a, bn: [
            L.Flatten(**a),
            L.Dense(9, name="fc1", **a),
            L.BatchNormalization(name="bn1", **bn),
            L.ReLU(**a),
            L.Dense(4, name="fc2", **a),
        ],
    ),
]
SMALL = NETWORKS[0]


def randomize(model: nn.Sequential, name: str) -> nn.Sequential:
    """Random values in every array: γ of both signs, no statistic at 0 or 1, weights that keep the signal's size."""
    rng = generator(name)
    values = {}
    for key, array in model.state_dict().items():
        if array.dtype.kind != "f":
            values[key] = array + 17
        elif array.ndim > 1:
            values[key] = rng.normal(0.1, np.prod(array.shape[1:]) ** -0.5, array.shape)
        elif key.endswith("running_var"):
            values[key] = rng.uniform(0.3, 3, array.shape)
        else:
            values[key] = rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1, 1], array.shape)
        values[key] = values[key].astype(array.dtype)
    model.load_state_dict(values)
    return model


def assert_same_state(actual, expected, what: str) -> None:
    """The same keys, dtypes and bits."""
    assert list(actual) == list(expected), what
    for key in actual:
        np.testing.assert_array_equal(actual[key], expected[key], err_msg=f"{what}: {key}")
        assert actual[key].dtype == expected[key].dtype, f"{what}: {key}"
