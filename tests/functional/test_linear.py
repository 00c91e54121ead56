"""The fully connected layer: its sums written out, and torch."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook import functional as F
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


LINEARS = [((7, 5), 3), ((5,), 3), ((2, 4, 5), 3), ((2, 3, 4, 5), 1), ((1, 1), 2), ((257, 33), 65)]


@both_dtypes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("shape", "out_features"), LINEARS, ids=str)
def test_linear(shape, out_features, bias, dtype):
    rng = generator(f"{shape}")
    x, weight = rng.normal(0.3, 1, shape).astype(dtype), rng.normal(size=(out_features, shape[-1])).astype(dtype)
    b = rng.normal(size=out_features).astype(dtype) if bias else None
    y, cache = F.linear(x, weight, b)
    g = rng.normal(0.2, 1, y.shape).astype(dtype)
    x64, weight64, g64 = (a.astype(np.float64) for a in (x, weight, g))
    rows, g_rows = x64.reshape(-1, shape[-1]), g64.reshape(-1, out_features)
    expected = (x64[..., None, :] * weight64).sum(-1) + (0 if b is None else b)
    grad_x, grad_weight, grad_bias = F.linear_backward(g, cache)
    output, gradient = OUTPUT[np.dtype(dtype)], GRADIENT[np.dtype(dtype)]
    assert_agrees(y, expected, output, "y")
    assert y.dtype == grad_x.dtype == grad_weight.dtype == dtype
    assert_agrees(grad_x, (g64[..., None] * weight64).sum(-2), gradient, "grad_x")
    assert_agrees(grad_weight, (g_rows[:, :, None] * rows[:, None]).sum(0), gradient, "grad_weight")
    assert (grad_bias is None) == (not bias)
    if bias:
        assert grad_bias.dtype == dtype
        assert_agrees(grad_bias, g_rows.sum(0), gradient, "grad_bias")
    if torch is not None:
        t = [tensor(a) for a in (x, weight, b)]
        expected = torch.nn.functional.linear(*t)
        expected.backward(torch.tensor(g))
        assert_agrees(y, expected, output, "y and torch's")
        for name, ours, theirs in zip(("x", "weight", "bias"), (grad_x, grad_weight, grad_bias), t, strict=True):
            ours is None or assert_agrees(ours, theirs.grad, gradient, f"grad_{name} and torch's")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("out_features", [0, 2])
@pytest.mark.parametrize("shape", [(4, 0), (0, 0), (0, 3), (4, 3), (0,), (3,), (2, 4, 0), (2, 0, 3)], ids=str)
def test_linear_without_features_or_examples(shape, out_features, bias):
    """A sum over nothing is 0, and only the bias is left."""
    x, weight, b = np.ones(shape), np.ones((out_features, shape[-1])), np.full(out_features, 7.0) if bias else None
    y, cache = F.linear(x, weight, b)
    grad_x, grad_weight, grad_bias = F.linear_backward(np.ones_like(y), cache)
    examples = int(np.prod(shape[:-1]))
    np.testing.assert_array_equal(y, np.full((*shape[:-1], out_features), shape[-1] + (7.0 if bias else 0)))
    np.testing.assert_array_equal(grad_x, np.full(shape, out_features))
    np.testing.assert_array_equal(grad_weight, np.full(weight.shape, examples))
    assert grad_bias is None if b is None else (grad_bias == examples).all()
