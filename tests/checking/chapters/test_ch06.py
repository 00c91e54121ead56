"""The checkers of chapter 6 accept the solutions and reject what only looks like one."""

from __future__ import annotations

import math

import numpy as np

from bnbook.checking import wrong
from bnbook.checking.compare import max_difference

X = np.array([[1.0, 2.0], [3.0, -1.0], [4.0, 0.0], [8.0, 5.0]])  # (4, 2)
G = np.array([[1.0, 0.5], [2.0, -1.0], [0.5, 3.0], [-0.7, 1.0]])
LONG = np.random.default_rng(0).normal(size=(20_000, 2))
IMAGES = np.random.default_rng(1).normal(size=(4, 3, 2, 5)) + np.arange(10.0).reshape(2, 5)
UPDATE = {
    "running_mean": [1.0, 2.0],
    "running_var": [3.0, 4.0],
    "mean": [5.0, -6.0],
    "var": [7.0, 8.0],
    "m": 4,
    "momentum": 0.1,
}
FOLD = {
    "weight": np.ones((2, 3)),
    "bias": [1.0, 2.0],
    "running_mean": [3.0, 4.0],
    "running_var": [5.0, 6.0],
    "gamma": [2.0, -3.0],
    "beta": [1.0, 0.5],
}
ONE, ZERO, GAMMA, BETA = np.ones(2), np.zeros(2), np.array([2.0, -3.0]), np.array([0.5, 4.0])
FRESH = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)  # mean 0, unbiased variance 1
SETTLED = [("train", X)] * 150


def without(g, x, *, x_hat=True):
    """An upstream gradient without a mean, and without x̂ in it."""
    g = g - g.mean(axis=0)
    c = x - x.mean(axis=0)
    return g - x_hat * c * (g * c).sum(axis=0) / (c * c).sum(axis=0)


def x(values):
    return {"x": values}


def upstream(g, **more):
    return {"g": g, "x": X} | more


# By bug: right pairs, then wrong ones.
PAIRS = {
    1: (
        [(x(IMAGES[:, :, :1, :1]), x(IMAGES)), (x(np.repeat(IMAGES[..., :1, :1], 3, axis=3)), x(10 * IMAGES))],
        {
            "exchanged": (x(IMAGES), x(IMAGES[:, :, :1, :1])),
            "both show": (x(IMAGES), x(IMAGES)),
            "both hide": (x(IMAGES[:, :, :1, :1]), x(IMAGES[:, :, :1, :1])),
            "tables": (x(X), x(IMAGES)),
            "constant": (x(np.ones((4, 3, 1, 1))), x(IMAGES)),
        },
    ),
    2: (
        [(x(LONG), x(X)), (x(LONG + 3), x(LONG[:5]))],
        {
            "exchanged": (x(X), x(LONG)),
            "not long enough": (x(LONG[:300]), x(X)),
            "still too long": (x(LONG), x(LONG[:500])),
            "too large": (x(np.random.default_rng(0).normal(size=(500_001, 2))), x(X)),
        },
    ),
    3: (
        [(x(X), x(1e-3 * X)), (x(100 * X), x(1e-4 * X))],
        {
            "exchanged": (x(1e-3 * X), x(X)),
            "scaled up": (x(X), x(100 * X)),
            "not quite": (x(0.01 * X), x(1e-3 * X)),
            "not a dictionary": (X, 1e-3 * X),
            "one channel constant": (x(X * [1, 0]), x(1e-3 * X)),
        },
    ),
    4: (
        [
            ({"x": X, "weight": ONE, "bias": BETA}, {"x": X, "weight": GAMMA, "bias": BETA}),
            ({"x": X, "weight": GAMMA, "bias": ZERO}, {"x": X, "weight": -ONE, "bias": ONE}),
        ],
        {
            "exchanged": ({"x": X, "weight": GAMMA, "bias": BETA}, {"x": X, "weight": ONE, "bias": ZERO}),
            "γ of zero": ({"x": X, "weight": ZERO, "bias": ZERO}, {"x": X, "weight": GAMMA, "bias": BETA}),
            "both new": ({"x": X, "weight": ONE, "bias": ZERO}, {"x": 3 * X, "weight": ONE, "bias": ZERO}),
            "both random": ({"x": X, "weight": GAMMA, "bias": BETA},) * 2,
        },
    ),
    5: (
        [(x(X), x(X + 1e5)), (x(X - X.mean(axis=0)), x(1e-2 * X + 1e3))],
        {
            "exchanged": (x(X + 1e5), x(X)),
            "both small": (x(X), x(3 * X)),
            "both large": (x(X + 1e4), x(X + 1e5)),
        },
    ),
    6: (
        [
            (UPDATE | {"momentum": 0.5}, UPDATE),
            (UPDATE | {"mean": [1.0, 2.0], "var": [2.25, 3.0]}, UPDATE | {"momentum": 0.9}),
        ],
        {
            "exchanged": (UPDATE, UPDATE | {"momentum": 0.5}),
            "both a half": (UPDATE | {"momentum": 0.5},) * 2,
            "both a tenth": (UPDATE,) * 2,
            "momentum 1": (UPDATE | {"momentum": 1.0}, UPDATE),
        },
    ),
    7: (
        [(UPDATE | {"m": 100_000}, UPDATE), (UPDATE | {"m": 1e6}, UPDATE | {"m": 2, "momentum": 0.9})],
        {
            "exchanged": (UPDATE, UPDATE | {"m": 100_000}),
            "m of 1": (UPDATE | {"m": 100_000}, UPDATE | {"m": 1}),
            "both large": (UPDATE | {"m": 100_000},) * 2,
            "hardly a say": (UPDATE | {"m": 30, "momentum": 0.1}, UPDATE),
        },
    ),
    8: (
        [
            (upstream(without(G, X), weight=GAMMA), upstream(G, weight=GAMMA)),
            (upstream(without(G, X), weight=ONE), upstream(np.ones((4, 2)), weight=ONE)),
        ],
        {
            "exchanged": (upstream(G, weight=GAMMA), upstream(without(G, X), weight=GAMMA)),
            "without its mean alone": (upstream(without(G, X, x_hat=False), weight=GAMMA), upstream(G, weight=GAMMA)),
            "zeros": (upstream(0 * G, weight=GAMMA), upstream(G, weight=GAMMA)),
            "ones": (upstream(np.ones((4, 2)), weight=GAMMA), upstream(G, weight=GAMMA)),
        },
    ),
    9: (
        [
            (upstream(G, weight=ONE, bias=ZERO), upstream(G, weight=GAMMA, bias=BETA)),
            (upstream(G, weight=ONE, bias=ZERO), upstream(G, weight=ONE, bias=ONE)),
        ],
        {
            "exchanged": (upstream(G, weight=GAMMA, bias=BETA), upstream(G, weight=ONE, bias=ZERO)),
            "β left": (upstream(G, weight=ONE, bias=BETA), upstream(G, weight=GAMMA, bias=BETA)),
            "both new": (upstream(G, weight=ONE, bias=ZERO),) * 2,
            "a row": (upstream(G, weight=ONE[None], bias=ZERO), upstream(G, weight=GAMMA, bias=BETA)),
        },
    ),
    10: (
        [
            (upstream(G, weight=ONE), upstream(G, weight=GAMMA)),
            (upstream(without(G, X), weight=GAMMA), upstream(G, weight=-ONE)),
        ],
        {
            "exchanged": (upstream(G, weight=GAMMA), upstream(G, weight=ONE)),
            "ones": (upstream(np.ones((4, 2)), weight=GAMMA), upstream(G, weight=GAMMA)),
            "both new": (upstream(G, weight=ONE),) * 2,
        },
    ),
    11: (
        [(upstream(without(G, X, x_hat=False)), upstream(G)), (upstream(without(G, X)), upstream(np.ones((4, 2))))],
        {
            "exchanged": (upstream(np.ones((4, 2))), upstream(without(G, X))),
            "both with a mean": (upstream(G), upstream(G)),
            "both without": (upstream(without(G, X)), upstream(without(G, X))),
            "another shape": (upstream(G[:3]), upstream(G)),
        },
    ),
    12: (
        [
            ([*SETTLED, ("eval", X)], [("train", X), ("eval", -3 * X)]),
            ([("eval", FRESH), ("train", X)], [("eval", X), ("eval", 2 * X), ("train", X)]),
        ],
        {
            "exchanged": ([("train", X), ("eval", -3 * X)], [("eval", FRESH), ("train", X)]),
            "trains alone": ([("train", X)], [("train", X), ("eval", -3 * X)]),
            "standardized, biased": (
                [("eval", (X - X.mean(axis=0)) / X.std(axis=0)), ("train", X)],
                [("train", X), ("eval", -3 * X)],
            ),
            "no script": (X, [("train", X), ("eval", -3 * X)]),
        },
    ),
    13: (
        [
            (
                [("train", X), ("save",), ("load",), ("eval", X)],
                [("train", X), ("save",), ("train", 9 * X), ("load",), ("eval", X)],
            ),
            (
                [("save",), ("eval", X), ("load",), ("eval", X)],
                [("save",), *[("train", X)] * 5, ("load",), ("eval", X)],
            ),
        ],
        {
            "exchanged": (
                [("save",), ("train", 9 * X), ("load",), ("eval", X)],
                [("train", X), ("save",), ("load",), ("eval", X)],
            ),
            "never evaluated": (
                [("train", X), ("save",), ("load",)],
                [("save",), ("train", 9 * X), ("load",), ("eval", X)],
            ),
            "evaluated in between": (
                [("save",), ("load",), ("eval", X)],
                [("train", X), ("save",), ("eval", 9 * X), ("load",), ("eval", X)],
            ),
            "trained in between": ([("save",), ("train", 9 * X), ("load",), ("eval", X)],) * 2,
        },
    ),
    14: (
        [(FOLD | {"bias": [0.0, 0.0]}, FOLD), (FOLD | {"gamma": np.sqrt(np.array([5, 6]) + 1e-5)}, FOLD)],
        {
            "exchanged": (FOLD, FOLD | {"bias": [0.0, 0.0]}),
            "fresh": (FOLD | {"bias": [0.0, 0.0]}, FOLD | {"gamma": ONE, "running_var": ONE}),
            "both with a bias": (FOLD, FOLD),
            "no table": (FOLD | {"weight": [1.0, 2.0]}, FOLD),
        },
    ),
}


def largest_m(tolerance):
    return 1 / (1 - (1 - tolerance) ** 2)


def quiet_std(eps):
    return eps**0.75


def accepts(backward, m=5, eps=0.1, weight=(2.0, -3.0, 0.5), parts=3, tolerance=1e-9, upstream=None):
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=(m, 3)), rng.normal(size=3)
    weight = np.array(weight)
    g = rng.normal(size=x.shape) if upstream is None else upstream(weight, bias, x)
    got, right = backward(g, x, weight, bias, eps), wrong.backward(g, x, weight, bias, eps)
    scale = np.abs(weight).max() * np.abs(g).max() * m
    return all(max_difference(a, b, scale) < tolerance for a, b in list(zip(got, right, strict=True))[:parts])


def squares(weight, bias, x):
    return 2 * wrong.forward(x[:, :, None, None], weight, bias, 0.0)[..., 0, 0]


RIGHT = {
    "ch06.largest_m": largest_m,
    "ch06.quiet_std": [quiet_std, lambda eps: eps**0.75 - eps],
    "ch06.accepts": accepts,
} | {f"ch06.bug{n}": [lambda pair=pair: pair for pair in right] for n, (right, _) in PAIRS.items()}

WRONG = {
    "ch06.largest_m": {
        "of the variance": lambda tolerance: 1 / tolerance,
        "small tolerances": lambda tolerance: 1 / (2 * tolerance),
        "against the wrong output": lambda tolerance: 1 / (1 - (1 + tolerance) ** -2),
        "words": lambda tolerance: "many",
    },
    "ch06.quiet_std": {
        "where the variance is eps": math.sqrt,
        "eps itself": lambda eps: eps,
        "ordinary": lambda eps: 1.0,
        "zero": lambda eps: 0.0,
        "a little large": lambda eps: 4 * eps**0.75,
    },
    "ch06.accepts": {
        "everything": lambda backward: True,
        "nothing": lambda backward: False,
        "not a verdict": lambda backward: backward,
        "to the last digit": lambda backward: accepts(backward, tolerance=1e-14),
        "grad x alone": lambda backward: accepts(backward, parts=1),
        "upstream ones": lambda backward: accepts(backward, upstream=lambda weight, bias, x: np.ones_like(x)),
        "squares": lambda backward: accepts(backward, upstream=squares, tolerance=1e-5, eps=1e-5),
        "positive γ": lambda backward: accepts(backward, weight=(2.0, 3.0, 0.5)),
        "γ of a new layer": lambda backward: accepts(backward, weight=(1.0, 1.0, 1.0)),
        "tiny eps": lambda backward: accepts(backward, eps=1e-12),
        "one γ": lambda backward: accepts(backward, weight=(-2.0, -2.0, -2.0)),
        "two values": lambda backward: accepts(backward, m=2, eps=1e-8, tolerance=1e-5),
    },
} | {f"ch06.bug{n}": {name: (lambda pair=pair: pair) for name, pair in bad.items()} for n, (_, bad) in PAIRS.items()}
