"""Activation functions: their formulas, numeric gradients, torch, and the ends of the number line."""

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
    memory_order,
    tensor,
    torch,
)

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


numpy_2 = pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 turns float32 values without axes into float64")
ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
}


@both_dtypes
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(7,), pytest.param((), marks=numpy_2), (3, 4), (2, 3, 4, 5)], ids=str)
def test_activation(name, shape, dtype):
    rng = generator(name)
    x, g = np.asarray(rng.normal(0, 2, shape), dtype), np.asarray(rng.normal(0.3, 1, shape), dtype)
    y, cache = getattr(F, name)(x)
    grad_x = getattr(F, f"{name}_backward")(g, cache)
    assert y.dtype == grad_x.dtype == dtype and y.shape == grad_x.shape == shape
    assert_agrees(y, ACTIVATIONS[name](x.astype(np.float64)), OUTPUT[np.dtype(dtype)], "y")
    expected = numeric_gradient(ACTIVATIONS[name], x, g)
    scale = float(np.abs(g).max())
    assert_agrees(grad_x, expected, max(GRADIENT[np.dtype(dtype)], 1e-8), "grad_x", scale)
    if torch is not None:
        t = torch.tensor(x, requires_grad=True)
        expected = getattr(torch, name)(t)
        expected.backward(torch.tensor(g))
        assert_agrees(y, expected, OUTPUT[np.dtype(dtype)], "y and torch's")
        assert_agrees(grad_x, t.grad, GRADIENT[np.dtype(dtype)], "grad_x and torch's")


def test_relu_at_zero_has_the_derivative_zero():
    x = np.array([-1.0, -0.0, 0.0, 5e-324, 2.0])
    y, cache = F.relu(x)
    np.testing.assert_array_equal(y, [0, 0, 0, 5e-324, 2])
    np.testing.assert_array_equal(F.relu_backward(np.full(5, 3.0), cache), [0, 0, 0, 3, 3])


@both_dtypes
def test_what_relu_stops_is_zero_whatever_comes_back(dtype):
    """∞ · 0 would be nan: y = √relu(x) sends 0.5/√0 = ∞ to every x that was not positive."""
    _, cache = F.relu(np.array([-1, 0, 4, np.nan, np.inf], dtype))
    for g in (np.inf, -np.inf, np.nan, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            grad_x = F.relu_backward(np.full(5, g, dtype), cache)
        np.testing.assert_array_equal(grad_x, [0, 0, g, g, g])  # nan was not stopped, as in torch
        if torch is not None:
            t = tensor(np.array([-1, 0, 4, np.nan, np.inf], dtype))
            torch.relu(t).backward(torch.full((5,), g, dtype=t.dtype))
            np.testing.assert_array_equal(grad_x, t.grad)


def test_the_gradient_of_relu_lies_in_memory_as_its_output():
    x = np.arange(-6.0, 6).reshape(3, 4)
    for view, order in ((x, (0, 1)), (np.asfortranarray(x), (1, 0))):
        _, cache = F.relu(view)
        for g in (x, np.asfortranarray(x)):
            assert memory_order(F.relu_backward(g, cache)) == order


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinities_pass_through_an_activation(name):
    limits = {"relu": [np.inf, 0], "sigmoid": [1, 0], "tanh": [1, -1]}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = getattr(F, name)(np.array([np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(y, [*limits, np.nan])


@both_dtypes
def test_sigmoid_tanh_and_softmax_do_not_overflow(dtype):
    x = np.array([-1e4, -100, 0, 100, 1e4], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_agrees(F.sigmoid(x)[0], np.array([0, 0, 0.5, 1, 1]), 1e-30, "sigmoid")
        assert_agrees(F.tanh(x)[0], np.array([-1, -1, 0, 1, 1]), 0, "tanh")
        assert_agrees(F.softmax(x)[0], np.array([0, 0, 0, 0, 1]), 0, "softmax")
        loss, cache = F.cross_entropy(np.array([[1e4, -1e4, 0]], dtype), np.array([1]))
        assert loss == 2e4
        assert_agrees(F.cross_entropy_backward(1.0, cache=cache), np.array([[1, -1, 0]]), 0, "its gradient")


@both_dtypes
@pytest.mark.parametrize(("shape", "dim"), [((4, 6), -1), ((4, 6), 0), ((3, 4, 5), 1), ((5,), 0), ((3, 4, 5), -3)])
def test_softmax(shape, dim, dtype):
    rng = generator("softmax")
    x, g = rng.normal(0, 2, shape).astype(dtype), rng.normal(0.3, 1, shape).astype(dtype)
    y, cache = F.softmax(x, dim)
    grad_x = F.softmax_backward(g, cache)
    e = np.exp(x.astype(np.float64))
    assert y.dtype == grad_x.dtype == dtype
    assert_agrees(y, e / e.sum(dim, keepdims=True), OUTPUT[np.dtype(dtype)], "y")
    expected = numeric_gradient(lambda v: np.exp(v) / np.exp(v).sum(dim, keepdims=True), x, g)
    assert_agrees(grad_x, expected, max(GRADIENT[np.dtype(dtype)], 1e-8), "grad_x")
    if torch is not None:
        t = tensor(x)
        expected = torch.softmax(t, dim)
        expected.backward(torch.tensor(g))
        assert_agrees(y, expected, OUTPUT[np.dtype(dtype)], "y and torch's")
        assert_agrees(grad_x, t.grad, GRADIENT[np.dtype(dtype)], "grad_x and torch's")


def test_softmax_over_no_value():
    y, cache = F.softmax(np.empty((3, 0)))
    assert y.shape == F.softmax_backward(y, cache).shape == (3, 0)
