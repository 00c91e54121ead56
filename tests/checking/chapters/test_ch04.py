"""The checkers of chapter 4 accept the solutions and reject what only looks like one."""

from __future__ import annotations

import numpy as np

from bnbook.checking.chapters.ch04 import backwards


def center(grad_y):
    return grad_y - grad_y.mean()


def scale(grad_y, x, eps):
    s = 1 / np.sqrt((x**2).mean() + eps)
    return s * (grad_y - x * s * (grad_y * x * s).mean())


def dx(grad_y, x, weight, eps, *, mean=True, var=True, gamma=True, axes=None, ddof=0, outside=False):
    axes = axes or (0, *range(2, x.ndim))
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    v = x.var(axes, keepdims=True, ddof=ddof)
    s = 1 / (np.sqrt(v) + eps) if outside else 1 / np.sqrt(v + eps)
    x_hat = (x - x.mean(axes, keepdims=True)) * s
    bracket = grad_y - mean * grad_y.mean(axes, keepdims=True)
    bracket = bracket - var * x_hat * (grad_y * x_hat).mean(axes, keepdims=True)
    return (weight.reshape(per_channel) if gamma else 1) * s * bracket


def dx_in_place(grad_y, x, weight, eps):
    grad_y -= grad_y.mean()
    return grad_y


def invisible(x):
    return np.stack([np.ones_like(x), x])


def diagnose(backward):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    weight = np.array([2.0, -3.0, 5.0])
    for name, known in backwards().items():
        if np.allclose(backward(g, x, weight, 1e-5), known(g, x, weight, 1e-5)):
            return name


RIGHT = {
    "ch04.center": center,
    "ch04.scale": scale,
    "ch04.dx": dx,
    "ch04.invisible": invisible,
    "ch04.diagnose": diagnose,
}

WRONG = {
    "ch04.center": {
        "direct path only": lambda g: g,
        "all is lost": np.zeros_like,
        "the median": lambda g: g - np.median(g),
        "m - 1": lambda g: g - g.sum() / max(len(g) - 1, 1),
        "the path with the wrong sign": lambda g: g + g.mean(),
        "a number": lambda g: 0.0,
    },
    "ch04.scale": {
        "direct path only": lambda g, x, eps: g / np.sqrt((x**2).mean() + eps),
        "also centred": lambda g, x, eps: scale(g, x, eps) - scale(g, x, eps).mean(),
        "batch normalization": lambda g, x, eps: dx(g[:, None], x[:, None], np.ones(1), eps)[:, 0],
        "no eps": lambda g, x, eps: scale(g, x, 0),
        "zero": lambda g, x, eps: np.zeros_like(g),
        "one term too many": lambda g, x, eps: scale(g, x, eps) - scale(x, x, eps),
    },
    "ch04.dx": {
        "no mean path": lambda *a: dx(*a, mean=False),
        "no variance path": lambda *a: dx(*a, var=False),
        "no gamma": lambda *a: dx(*a, gamma=False),
        "evaluation": lambda *a: dx(*a, mean=False, var=False),
        "per pixel": lambda *a: dx(*a, axes=(0,)),
        "per example": lambda *a: dx(*a, axes=tuple(range(1, a[1].ndim))),
        "unbiased": lambda *a: dx(*a, ddof=1),
        "eps outside": lambda *a: dx(*a, outside=True),
        "the absolute value of gamma": lambda g, x, weight, eps: dx(g, x, np.abs(weight), eps),
        "tables only": lambda g, x, weight, eps: dx(g, x, weight, eps) if x.ndim == 2 else np.zeros_like(x),
        "in place": dx_in_place,
    },
    "ch04.invisible": {
        "ones twice": lambda x: np.stack([np.ones_like(x), -3 * np.ones_like(x)]),
        "a zero": lambda x: np.stack([np.ones_like(x), np.zeros_like(x)]),
        "only one": lambda x: x,
        "squares": lambda x: np.stack([np.ones_like(x), x**2]),
        "random": lambda x: np.random.default_rng(0).normal(size=(2, len(x))),
        "not a number": lambda x: np.full((2, len(x)), np.nan),
    },
    "ch04.diagnose": {
        "always correct": lambda backward: "correct",
        "upstream ones": lambda backward: (
            "correct"
            if np.allclose(backward(np.ones((5, 2)), np.arange(10.0).reshape(5, 2) ** 2, np.array([2.0, 3.0]), 1e-5), 0)
            else "no mean path"
        ),
        "another name": lambda backward: "fine",
        "blind for gamma": lambda backward: {"no gamma": "correct"}.get(diagnose(backward), diagnose(backward)),
    },
}
