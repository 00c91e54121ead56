"""The loss: its formula, numeric gradients, torch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bnbook import functional as F
from bnbook.checking.numeric import numeric_gradient
from tests.references import (
    DTYPES,
    GRADIENT,
    OUTPUT,
    assert_agrees,
    generator,
    tensor,
    torch,
)

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


@both_dtypes
@reductions
@pytest.mark.parametrize("shape", [(7, 5), (1, 3), (4, 3, 5), (2, 4, 3, 5), (6, 1)], ids=str)
def test_cross_entropy(shape, reduction, dtype):
    rng = generator(f"{shape}")
    x = rng.normal(0, 2, shape).astype(dtype)
    target_shape = (shape[0], *shape[2:])
    target = rng.integers(0, shape[1], target_shape).astype(rng.choice([np.uint8, np.int32, np.int64]))

    def textbook(v):
        p = np.exp(v) / np.exp(v).sum(1, keepdims=True)
        losses = np.array([-np.log(p[i[0], target[i], *i[1:]]) for i in np.ndindex(target_shape)]).reshape(target_shape)
        return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction]()

    loss, cache = F.cross_entropy(x, target, reduction=reduction)
    g = rng.normal(0.5, 1, np.shape(loss)).astype(dtype)
    grad_x = F.cross_entropy_backward(g, cache)
    assert loss.dtype == grad_x.dtype == dtype and grad_x.shape == shape
    scale = 1.0 if reduction == "none" else None
    assert_agrees(loss, textbook(x.astype(np.float64)), OUTPUT[np.dtype(dtype)], "loss", scale)
    expected = numeric_gradient(textbook, x, g)
    assert_agrees(grad_x, expected, max(GRADIENT[np.dtype(dtype)], 1e-8), "grad_x", 0.1)
    if torch is not None:
        t = tensor(x)
        expected = torch.nn.functional.cross_entropy(t, torch.tensor(target.astype(np.int64)), reduction=reduction)
        expected.backward(torch.tensor(g))
        assert_agrees(loss, expected, OUTPUT[np.dtype(dtype)], "loss and torch's", scale)
        assert_agrees(
            grad_x, t.grad, GRADIENT[np.dtype(dtype)], "grad_x and torch's", float(abs(g).max()) / target.size
        )
    if reduction != "none":
        ones, wide = F.cross_entropy_backward(cache=cache), F.cross_entropy_backward(2.0, cache=cache)
        np.testing.assert_allclose(wide, 2 * ones, rtol=1e-6)


def test_cross_entropy_upstream_of_one_is_the_default():
    x, target = generator("x").normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    for reduction in ("mean", "sum"):
        _, cache = F.cross_entropy(x, target, reduction=reduction)
        expected = numeric_gradient(lambda v, r=reduction: F.cross_entropy(v, target, reduction=r)[0], x)
        assert_agrees(F.cross_entropy_backward(cache=cache), expected, 1e-8, f"grad_x of the {reduction}")


def test_float16_cross_entropy():
    x = generator("half").normal(size=(6, 4)).astype(np.float16)
    target = np.array([0, 1, 2, 3, 0, 1])
    for reduction in ("mean", "sum", "none"):
        loss, cache = F.cross_entropy(x, target, reduction=reduction)
        single, single_cache = F.cross_entropy(x.astype(np.float32), target, reduction=reduction)
        assert loss.dtype == np.float16
        np.testing.assert_array_equal(loss, single.astype(np.float16))
        grad_x = F.cross_entropy_backward(cache=cache)
        assert grad_x.dtype == np.float16
        np.testing.assert_array_equal(grad_x, F.cross_entropy_backward(cache=single_cache).astype(np.float16))


def test_cross_entropy_of_no_example():
    x, target = np.empty((0, 3)), np.empty(0, int)
    for reduction, expected in (("sum", 0.0), ("mean", np.nan)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss, cache = F.cross_entropy(x, target, reduction=reduction)
            assert F.cross_entropy_backward(cache=cache).shape == (0, 3)
        np.testing.assert_equal(float(loss), expected)
