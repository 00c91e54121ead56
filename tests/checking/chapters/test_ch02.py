"""The checkers of chapter 2 accept the solutions and refuse wrong answers."""

import numpy as np
import pytest

from bnbook.checking import check
from bnbook.checking.chapters.ch02 import layers


def normalize(x, eps):
    axes = tuple(a for a in range(x.ndim) if a != 1)
    centered = x - x.mean(axes, keepdims=True)
    return (centered / np.sqrt((centered * centered).mean(axes, keepdims=True) + eps)).astype(x.dtype)


def over(x, axes, eps, ddof=0, root=lambda var, eps: np.sqrt(var + eps)):
    centered = x - x.mean(axes, keepdims=True)
    return (centered / root(x.var(axes, keepdims=True, ddof=ddof), eps)).astype(x.dtype)


def in_place(x, eps):
    x -= x.mean(0)
    return x


def largest(m):
    return np.eye(m)[0]


def diagnose(layer):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(4, 3, 2, 5))
    y = layer(x)
    if np.allclose(y.mean(axis=0), 0):
        return "per pixel"
    if np.allclose(y.mean(axis=(1, 2, 3)), 0):
        return "per example"
    if np.all(y.var(axis=(0, 2, 3)) < 0.99):
        return "unbiased"
    return "eps outside" if layer(1e-4 * x).std() > 0.5 else "correct"


RIGHT = {
    "ch02.output_variance": lambda var, weight, eps: weight**2 * var / (var + eps),
    "ch02.normalize": normalize,
    "ch02.largest": largest,
    "ch02.diagnose": diagnose,
}
WRONG = {
    "ch02.output_variance": [
        lambda var, weight, eps: weight**2,
        lambda var, weight, eps: weight * var / (var + eps),
        lambda var, weight, eps: weight**2 * eps / (var + eps),
        lambda var, weight, eps: weight**2 * var / (np.sqrt(var) + eps) ** 2,
        lambda var, weight, eps: 1.0,
    ],
    "ch02.normalize": {
        "per position": lambda x, eps: over(x, 0, eps),
        "per example": lambda x, eps: over(x, tuple(range(1, x.ndim)), eps),
        "instance": lambda x, eps: over(x, tuple(range(2, x.ndim)), eps) if x.ndim > 2 else normalize(x, eps),
        "unbiased": lambda x, eps: over(x, (0, *range(2, x.ndim)), eps, ddof=1),
        "eps outside": lambda x, eps: over(x, (0, *range(2, x.ndim)), eps, root=lambda v, e: np.sqrt(v) + e),
        "variance": lambda x, eps: over(x, (0, *range(2, x.ndim)), eps, root=lambda v, e: v + e),
        "centred": lambda x, eps: over(x, (0, *range(2, x.ndim)), eps, root=lambda v, e: 1),
        "no eps": lambda x, eps: normalize(x, 0),
        "float64": lambda x, eps: normalize(x, eps).astype(np.float64),
        "zeros": lambda x, eps: np.zeros_like(x),
        "one example": lambda x, eps: normalize(x, eps)[:1],
        "as it was": lambda x, eps: x,
        "nothing": lambda x, eps: None,
        "in place": in_place,
    },
    "ch02.largest": [
        lambda m: np.arange(m),
        lambda m: np.zeros(m),
        lambda m: np.array([1.0, 0.0]),
        lambda m: np.sqrt(m - 1),
        lambda m: 1 / 0,
    ],
    "ch02.diagnose": [
        lambda layer: "correct",
        lambda layer: "I do not know",
        lambda layer: "per pixel" if diagnose(layer) == "per example" else diagnose(layer),
        lambda layer: "correct" if diagnose(layer) == "eps outside" else diagnose(layer),
        lambda layer: "correct" if diagnose(layer) == "unbiased" else diagnose(layer),
    ],
}


def test_a_package_that_a_chapter_lacks_is_named(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr("importlib.import_module", import_module)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        check("ch02.normalize", 1)


def test_the_black_boxes_differ():
    x = np.random.default_rng(0).normal(3, 2, size=(4, 3, 2, 5)) * 1e-3
    outputs = [layer(x) for layer in layers().values()]
    for i, a in enumerate(outputs):
        for b in outputs[:i]:
            assert not np.allclose(a, b, rtol=1e-3)
