"""The checkers of chapter 1: each accepts the solution and others like it, and rejects what people get wrong."""

from __future__ import annotations

import numpy as np

from bnbook.checking.chapters.ch01 import xray


def standardize_by(mean_of, std_of):
    """A standardization whose statistics are computed from (train, test) by two functions."""

    def standardize(train, test):
        mean, std = mean_of(train, test), std_of(train, test)
        std = np.where(std < 1e-9, 1, std)
        return (train - mean) / std, (test - mean) / std

    return standardize


def mean(train, test):
    return train.mean(axis=0)


def std(train, test):
    return train.std(axis=0)


def diagnose(activations, gradients, *, level=False, backward=True, both=True, dead=True):
    """The solution, or with one of the arguments changed a version with a mistake."""
    a, g = np.array(activations), np.array(gradients)
    if dead and np.any(a == 0):
        return "dead"
    if not (np.isfinite(a).all() and np.isfinite(g).all()):
        return "exploding"
    pairs = [(a[0], a[-1]), (g[-1], g[0]) if backward else (g[0], g[-1])][: 2 if both else 1]
    if level:  # sizes instead of ratios
        pairs = [(1, a[-1]), (1, g[0])]
    if any(last > 1000 * first for first, last in pairs):
        return "exploding"
    return "vanishing" if any(last < first / 1000 for first, last in pairs) else "healthy"


RIGHT = {
    "ch01.factor": [
        lambda n, v, a: n * v * (1 + a**2) / 2,
        lambda n, v, a: n * v - n * v * (1 - a * a) / 2,
    ],
    "ch01.standardize": [standardize_by(mean, std)],
    "ch01.weight_std": [
        lambda n, activation: {"relu": np.sqrt(2), "tanh": 5 / 3}[activation] / np.sqrt(n),
        lambda n, activation: np.sqrt(2 / n),
        lambda n, activation: {"relu": 1.41, "tanh": 2.5}[activation] / np.sqrt(n),
    ],
    "ch01.diagnose": [diagnose],
}
WRONG = {
    "ch01.factor": {
        "ReLU": lambda n, v, a: n * v / 2,
        "slope not squared": lambda n, v, a: n * v * (1 + a) / 2,
        "no half": lambda n, v, a: n * v * (1 + a**2),
        "root": lambda n, v, a: np.sqrt(n * v * (1 + a**2) / 2),
        "variance squared": lambda n, v, a: n * v**2 * (1 + a**2) / 2,
        "constant": 1.0,
    },
    "ch01.standardize": {
        "each its own": lambda train, test: (
            standardize_by(mean, std)(train, test)[0],
            standardize_by(mean, std)(test, test)[0],
        ),
        "both together": standardize_by(
            lambda a, b: np.concatenate([a, b]).mean(axis=0), lambda a, b: np.concatenate([a, b]).std(axis=0)
        ),
        "test statistics": standardize_by(lambda a, b: b.mean(axis=0), lambda a, b: b.std(axis=0)),
        "one for all features": standardize_by(lambda a, b: a.mean(), lambda a, b: a.std()),
        "per example": lambda train, test: tuple(
            (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True) for x in (train, test)
        ),
        "m - 1": standardize_by(mean, lambda a, b: a.std(axis=0, ddof=1)),
        "only the training table": lambda train, test: standardize_by(mean, std)(train, test)[0],
        "divides by a rounding error": lambda train, test: tuple(
            (x - train.mean(axis=0)) / np.where(train.std(axis=0) == 0, 1, train.std(axis=0)) for x in (train, test)
        ),
        "eps": lambda train, test: tuple((x - train.mean(axis=0)) / (train.std(axis=0) + 1e-5) for x in (train, test)),
    },
    "ch01.weight_std": {
        "Glorot for both": lambda n, activation: 1 / np.sqrt(n),
        "PyTorch's default": lambda n, activation: 1 / np.sqrt(3 * n),
        "variance for deviation": lambda n, activation: 2 / n,
        "for one width": lambda n, activation: np.sqrt(2 / 1000),
        "5/3 for both": lambda n, activation: 5 / 3 / np.sqrt(n),
        "negative": lambda n, activation: -np.sqrt(2 / n),
    },
    "ch01.diagnose": {
        "always healthy": lambda a, g: "healthy",
        "gradients forward": lambda a, g: diagnose(a, g, backward=False),
        "activations alone": lambda a, g: diagnose(a, g, both=False),
        "sizes, not ratios": lambda a, g: diagnose(a, g, level=True),
        "dead is vanishing": lambda a, g: diagnose(a, g, dead=False),
        "not a name": lambda a, g: 3,
    },
}


def test_invented_networks_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    for kind in ("dead", "exploding", "vanishing", "healthy"):
        for _ in range(50):
            assert diagnose(*xray(kind, rng)) == kind
