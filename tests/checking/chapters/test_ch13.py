"""The checkers of chapter 13 accept the solutions and reject what only looks like one."""

import numpy as np
import pytest

from bnbook.checking import check
from bnbook.checking.chapters.ch13 import SETTING, sizes


def growth(slope):
    square = (1 + slope**2) / 2
    return square / (square - (1 - slope) ** 2 / (2 * np.pi))


def relu(c):
    c = np.clip(c, -1, 1)
    return (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi


def similarity(x, layers, pairs=lambda n: ~np.eye(n, dtype=bool), turn=relu, unit=True):
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x
    cosines = (x @ x.T)[pairs(len(x))]
    for _ in range(layers):
        cosines = turn(cosines)
    return cosines.mean()


def similarity_of_the_mean(x, layers):
    mean = similarity(x, 0)
    for _ in range(layers):
        mean = relu(mean)
    return mean


def unclipped(c):
    with np.errstate(invalid="ignore"):
        return (np.sqrt(1 - (c + 1e-15) ** 2) + (np.pi - np.arccos(c + 1e-15)) * c) / np.pi


def per_layer(gradients):
    return (gradients[0] / gradients[-1]) ** (2 / (len(gradients) - 1))


def network(gradients, m):
    c = -1 / (m - 1)
    angle = np.pi - np.arccos(c)
    j = (np.sqrt(1 - c**2) + angle * c) / np.pi
    expected = {
        "no normalization": 1,
        "linear": (m - 2) / (m - 3),
        "ReLU": (m - 2 + j + angle / np.pi) / ((m - 3) * (1 - j)),
    }
    found = per_layer(gradients)
    return min(expected, key=lambda name: abs(np.log(found / expected[name])))


def fixed_thresholds(gradients, m):
    found = per_layer(gradients)
    return "no normalization" if found < 1.05 else "linear" if found < 1.45 else "ReLU"


RIGHT = {
    "ch13.growth": growth,
    "ch13.similarity": similarity,
    "ch13.setting": [lambda: {"bias": 2.0}, lambda: {"slope": 0.7}, lambda: SETTING | {"bias": 3}],
    "ch13.network": network,
}

WRONG = {
    "ch13.growth": {
        "mean square for variance": lambda slope: 1.0,
        "ReLU alone": lambda slope: np.pi / (np.pi - 1),
        "of the norm": lambda slope: np.sqrt(growth(slope)),
        "the mean of |z|": lambda slope: 1 / (1 - (1 - slope) ** 2 / (2 * np.pi)),
        "inverted": lambda slope: 1 / growth(slope),
    },
    "ch13.similarity": {
        "with the diagonal": lambda x, layers: similarity(x, layers, pairs=lambda n: np.full((n, n), True)),
        "no unit length": lambda x, layers: similarity(x, layers, unit=False),
        "of the mean": similarity_of_the_mean,
        "columns": lambda x, layers: similarity(x.T, layers),
        "rounding": lambda x, layers: similarity(x, layers, turn=unclipped),
        "one layer more": lambda x, layers: similarity(x, layers + 1),
        "centred over the batch": lambda x, layers: similarity(x - x.mean(axis=0), layers),
    },
    "ch13.setting": {
        "nothing": lambda: {},
        "the default": lambda: {"bias": 0.0},
        "two": lambda: {"bias": 2.0, "slope": 0.7},
        "unknown": lambda: {"depth": 2},
        "other weights": lambda: {"times_he": 0.5},
        "larger batch": lambda: {"batch_size": 1024},
        "gamma": lambda: {"weight": 0.5},
        "even gradients, fading signals": lambda: {"eps": 1.0},
        "closed": lambda: {"bias": -3.0},
        "linear": lambda: {"slope": 1.0},
        "a little leaky": lambda: {"slope": 0.1},
        "text": lambda: {"bias": "2"},
        "not a dictionary": lambda: 2.0,
    },
    "ch13.network": {
        "always ReLU": lambda gradients, m: "ReLU",
        "always linear": lambda gradients, m: "linear",
        "blind to the batch size": fixed_thresholds,
        "upside down": lambda gradients, m: network(gradients[::-1], m),
        "no name": lambda gradients, m: "tanh",
    },
}


@pytest.mark.parametrize(("slope", "m"), [(0.0, 8), (0.0, 128), (1.0, 8)])
def test_the_networks_grow_as_the_chapter_derives(slope, m):
    """The checkers' networks against the formula, which nothing in them knows."""
    name = "linear" if slope else "ReLU"
    found = [
        per_layer(sizes(np.random.default_rng(seed), depth=30, width=400, batch_size=m, slope=slope)[1])
        for seed in range(3)
    ]
    expected = {("ReLU", 8): 1.788, ("ReLU", 128): 1.480, ("linear", 8): 1.2}[name, m]
    assert np.mean(found) == pytest.approx(expected, rel=0.02)


def test_gradients_that_are_even_because_signals_stop_are_named():
    assert "activations change by" in check("ch13.setting", lambda: {"eps": 1.0}).message
