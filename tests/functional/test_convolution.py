"""Convolution: four loops over the definition, numeric gradients, torch."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook import functional as F
from bnbook.checking.numeric import numeric_gradient
from tests.references import (
    DTYPES,
    GRADIENT,
    OUTPUT,
    as_pair,
    assert_agrees,
    generator,
    tensor,
    torch,
)

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


# (x, weight, stride, padding): every axis of another length, sizes that do not divide, pairs that differ
CONVOLUTIONS = [
    ((4, 3, 6, 7), (5, 3, 2, 3), 1, 0),
    ((2, 3, 7, 6), (4, 3, 3, 2), 2, 1),
    ((2, 1, 8, 9), (3, 1, 3, 3), (2, 3), (0, 2)),
    ((3, 2, 5, 8), (4, 2, 5, 1), (3, 1), (2, 0)),
    ((2, 4, 3, 5), (1, 4, 1, 1), 2, 0),
    ((1, 2, 4, 3), (3, 2, 4, 3), 1, 0),
    ((2, 3, 9, 7), (2, 3, 2, 2), 3, 3),
    ((2, 2, 1, 1), (3, 2, 3, 3), 1, 1),
]


def brute_force_convolution(x, weight, bias, stride, padding):
    """Four loops over the output, straight from the definition."""
    (sh, sw), (ph, pw) = as_pair(stride), as_pair(padding)
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    (n, _, height, width), (filters, _, kh, kw) = x.shape, weight.shape
    y = np.empty((n, filters, (height - kh) // sh + 1, (width - kw) // sw + 1))
    for i, f, row, column in np.ndindex(y.shape):
        patch = x[i, :, row * sh : row * sh + kh, column * sw : column * sw + kw]
        y[i, f, row, column] = (patch * weight[f]).sum() + (0 if bias is None else bias[f])
    return y


def convolution_arguments(shapes, dtype=np.float64, bias=True):
    x_shape, weight_shape, stride, padding = shapes
    rng = generator(str(shapes))
    x, weight = rng.normal(0.3, 1, x_shape), rng.normal(0.2, 1, weight_shape)
    b = rng.normal(size=weight_shape[0]) if bias else None
    y_shape = F.conv2d(x, weight, b, stride, padding)[0].shape
    grad_y = rng.normal(0.1, 1, y_shape)
    return [None if a is None else a.astype(dtype) for a in (x, weight, b, grad_y)]


@both_dtypes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shapes", CONVOLUTIONS, ids=str)
def test_conv2d_is_the_definition(shapes, bias, dtype):
    x, weight, b, _ = convolution_arguments(shapes, dtype, bias)
    expected = brute_force_convolution(
        *(None if a is None else a.astype(np.float64) for a in (x, weight, b)), *shapes[2:]
    )
    y, _ = F.conv2d(x, weight, b, *shapes[2:])
    assert y.dtype == dtype
    assert_agrees(y, expected, OUTPUT[np.dtype(dtype)], "y")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shapes", CONVOLUTIONS, ids=str)
def test_conv2d_gradients_are_the_numeric_ones(shapes, bias):
    x, weight, b, g = convolution_arguments(shapes, bias=bias)
    _, cache = F.conv2d(x, weight, b, *shapes[2:])
    grad_x, grad_weight, grad_bias = F.conv2d_backward(g, cache)
    assert_agrees(grad_x, numeric_gradient(lambda v: F.conv2d(v, weight, b, *shapes[2:])[0], x, g), 1e-8, "grad_x")
    expected = numeric_gradient(lambda v: F.conv2d(x, v, b, *shapes[2:])[0], weight, g)
    assert_agrees(grad_weight, expected, 1e-8, "grad_weight")
    if bias:
        expected = numeric_gradient(lambda v: F.conv2d(x, weight, v, *shapes[2:])[0], b, g)
        assert_agrees(grad_bias, expected, 1e-8, "grad_bias")
    else:
        assert grad_bias is None
    left_out, again, _ = F.conv2d_backward(g, cache, needs_input_grad=False)
    assert left_out is None
    np.testing.assert_array_equal(again, grad_weight)


@needs_torch
@both_dtypes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shapes", [*CONVOLUTIONS, ((16, 8, 17, 19), (24, 8, 3, 3), 1, 1)], ids=str)
def test_conv2d_agrees_with_torch(shapes, bias, dtype):
    x, weight, b, g = convolution_arguments(shapes, dtype, bias)
    t = [tensor(a) for a in (x, weight, b)]
    expected = torch.nn.functional.conv2d(*t, *shapes[2:])
    expected.backward(torch.tensor(g))
    y, cache = F.conv2d(x, weight, b, *shapes[2:])
    gradients = F.conv2d_backward(g, cache)
    assert_agrees(y, expected, OUTPUT[np.dtype(dtype)], "y")
    for name, ours, theirs in zip(("x", "weight", "bias"), gradients, t, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == dtype
            assert_agrees(ours, theirs.grad, GRADIENT[np.dtype(dtype)], f"grad_{name}")
