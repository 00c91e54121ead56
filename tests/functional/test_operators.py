"""Convolution, pooling, the fully connected layer, activations and the loss: brute force, numeric gradients, torch."""

from __future__ import annotations

import copy
import itertools
import warnings

import numpy as np
import pytest

from bnbook import functional as F
from bnbook.checking.numeric import numeric_gradient
from tests.references import DTYPES, GRADIENT, OUTPUT, assert_agrees, generator, layouts, memory_order, tensor, torch

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
numpy_2 = pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 turns float32 values without axes into float64")
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
# (x, kernel_size, stride, padding)
POOLINGS = [
    ((3, 2, 6, 8), 2, None, 0),
    ((2, 3, 7, 9), 2, None, 0),
    ((2, 3, 7, 8), (3, 2), (2, 3), 0),
    ((2, 3, 6, 7), 3, 2, 1),
    ((2, 3, 6, 9), (2, 3), None, (1, 0)),
    ((2, 1, 5, 6), 3, 1, (0, 1)),
    ((2, 3, 4, 5), 1, None, 0),
    ((2, 3, 5, 7), 1, 2, 0),
    ((2, 3, 7, 5), (4, 1), (1, 2), (2, 0)),
    ((2, 3, 8, 9), 2, 3, 0),
    ((2, 3, 6, 4), (6, 4), None, 0),
    ((2, 3, 3, 2), 4, 1, 2),  # larger than the image, padded by half of it
]


def as_pair(value):
    return value if isinstance(value, tuple) else (value, value)


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


def brute_force_pooling(x, kernel_size, stride, padding):
    """The maximum of every window, and where it is first in reading order."""
    (kh, kw), (ph, pw) = as_pair(kernel_size), as_pair(padding)
    sh, sw = (kh, kw) if stride is None else as_pair(stride)
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    n, channels, height, width = padded.shape
    y = np.empty((n, channels, (height - kh) // sh + 1, (width - kw) // sw + 1))
    where = {}
    for i, c, row, column in np.ndindex(y.shape):
        window = padded[i, c, row * sh : row * sh + kh, column * sw : column * sw + kw]
        first, second = np.unravel_index(window.argmax(), window.shape)
        y[i, c, row, column] = window[first, second]
        where[i, c, row, column] = (i, c, row * sh + first - ph, column * sw + second - pw)
    return y, where


def convolution_arguments(shapes, dtype=np.float64, bias=True):
    x_shape, weight_shape, stride, padding = shapes
    rng = generator(str(shapes))
    x, weight = rng.normal(0.3, 1, x_shape), rng.normal(0.2, 1, weight_shape)
    b = rng.normal(size=weight_shape[0]) if bias else None
    y_shape = F.conv2d(x, weight, b, stride, padding)[0].shape
    grad_y = rng.normal(0.1, 1, y_shape)
    return [None if a is None else a.astype(dtype) for a in (x, weight, b, grad_y)]


# --- convolution -----------------------------------------------------------------------------------------------------


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


# --- pooling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@both_dtypes
@pytest.mark.parametrize("shapes", POOLINGS, ids=str)
def test_max_pool2d_is_the_definition(shapes, dtype, ties):
    """Also with ties, of which the first in reading order gets the gradient, and with negative values at the border."""
    rng = generator(str(shapes))
    x = rng.integers(-3, 0, shapes[0]).astype(dtype) if ties else rng.normal(-2, 1, shapes[0]).astype(dtype)
    expected, where = brute_force_pooling(x, *shapes[1:])
    y, cache = F.max_pool2d(x, *shapes[1:])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    g = rng.normal(size=y.shape).astype(dtype)
    grad_x = np.zeros(x.shape)
    for output, source in where.items():
        grad_x[source] += g[output]
    ours = F.max_pool2d_backward(g, cache)
    assert ours.dtype == dtype
    assert_agrees(ours, grad_x, GRADIENT[np.dtype(dtype)], "grad_x")


@needs_torch
@pytest.mark.parametrize("shapes", POOLINGS, ids=str)
def test_max_pool2d_agrees_with_torch(shapes):
    rng = generator(str(shapes))
    x = rng.integers(-3, 3, shapes[0]).astype(np.float64)  # many ties
    t = tensor(x)
    kernel_size, stride, padding = shapes[1:]
    expected = torch.nn.functional.max_pool2d(t, kernel_size, stride, padding)
    g = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(g))
    y, cache = F.max_pool2d(x, kernel_size, stride, padding)
    assert_agrees(y, expected, 0, "y")
    assert_agrees(F.max_pool2d_backward(g, cache), t.grad, 1e-14, "grad_x")


def test_sizes_may_be_integers_of_numpy():
    """Also small ones, in which 2 × 100 has no room."""
    x, size = generator("x").normal(size=(2, 3, 6, 200)), np.int8(2)
    y, cache = F.max_pool2d(x, size, (1, size), size // 2)
    expected, expected_cache = F.max_pool2d(x, 2, (1, 2), 1)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(F.max_pool2d_backward(y, cache), F.max_pool2d_backward(y, expected_cache))


def test_max_pool2d_of_nan_and_infinities():
    """A NaN is the maximum of its windows and of no other; −∞ may be one, and padding is never larger."""
    x = generator("nan").normal(size=(2, 3, 6, 7))
    x[0, 1, 2, 3], x[1, 0, 0, 0], x[1, 0, 0, 1], x[1, 2] = np.nan, np.nan, -np.inf, -np.inf
    for window in ((2, None, 0), (3, 2, 1), ((2, 3), 1, 1)):
        expected, _ = brute_force_pooling(x, *window)
        np.testing.assert_array_equal(F.max_pool2d(x, *window)[0], expected)
        if torch is not None:
            np.testing.assert_array_equal(torch.nn.functional.max_pool2d(torch.tensor(x), *window).numpy(), expected)


@pytest.mark.parametrize("shapes", POOLINGS[:4], ids=str)
def test_max_pool2d_gradient_is_the_numeric_one(shapes):
    x = generator(str(shapes)).permutation(np.prod(shapes[0])).reshape(shapes[0]).astype(np.float64)  # no ties
    y, cache = F.max_pool2d(x, *shapes[1:])
    g = generator("g").normal(size=y.shape)
    expected = numeric_gradient(lambda v: F.max_pool2d(v, *shapes[1:])[0], x, g)
    assert_agrees(F.max_pool2d_backward(g, cache), expected, 1e-8, "grad_x")


# --- the fully connected layer ---------------------------------------------------------------------------------------

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


# --- activations -----------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinities_pass_through_an_activation(name):
    limits = {"relu": [np.inf, 0], "sigmoid": [1, 0], "tanh": [1, -1]}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = getattr(F, name)(np.array([np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(y, [*limits, np.nan])


def test_a_nan_spoils_only_the_outputs_that_see_it():
    rng = generator("nan")
    x, weight = rng.normal(size=(2, 3, 6, 7)), rng.normal(size=(4, 3, 3, 2))
    expected, _ = F.conv2d(x, weight)
    x[1, 2, 4, 3] = np.nan
    y, cache = F.conv2d(x, weight)
    spoiled = np.zeros(y.shape, bool)
    spoiled[1, :, 2:5, 2:4] = True
    np.testing.assert_array_equal(y, np.where(spoiled, np.nan, expected))
    grad_x, _, _ = F.conv2d_backward(np.ones_like(y), cache)
    assert np.isfinite(grad_x).all()
    table, _ = F.linear(x[..., 0], rng.normal(size=(2, 6)))
    assert np.isfinite(table).all()


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
        assert_agrees(F.cross_entropy_backward(1.0, cache), np.array([[1, -1, 0]]), 0, "its gradient")


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


# --- the loss --------------------------------------------------------------------------------------------------------

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
        ones, wide = F.cross_entropy_backward(cache=cache), F.cross_entropy_backward(2.0, cache)
        np.testing.assert_allclose(wide, 2 * ones, rtol=1e-6)


def test_cross_entropy_upstream_of_one_is_the_default():
    x, target = generator("x").normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    for reduction in ("mean", "sum"):
        _, cache = F.cross_entropy(x, target, reduction=reduction)
        expected = numeric_gradient(lambda v, r=reduction: F.cross_entropy(v, target, reduction=r)[0], x)
        assert_agrees(F.cross_entropy_backward(cache=cache), expected, 1e-8, f"grad_x of the {reduction}")


# --- all of them: memory, dtypes, empty batches -----------------------------------------------------------------------


def _operators():
    """name: (arrays, function of them, backward); the first array is x."""
    rng = generator("operators")
    x, weight = rng.normal(size=(4, 3, 6, 8)), rng.normal(size=(5, 3, 3, 2))
    bias, table = rng.normal(size=5), rng.normal(size=(5, 8))
    yield "conv2d", [x, weight, bias], lambda x, w, b: F.conv2d(x, w, b, 2, 1), F.conv2d_backward
    yield "conv2d-unpadded", [x, weight, bias], lambda x, w, b: F.conv2d(x, w, b), F.conv2d_backward
    yield "linear", [x, table, bias], F.linear, F.linear_backward
    yield "max_pool2d", [x], lambda x: F.max_pool2d(x, 2), F.max_pool2d_backward
    yield "max_pool2d-overlapping", [x], lambda x: F.max_pool2d(x, 3, 2), F.max_pool2d_backward
    yield "max_pool2d-padded", [x], lambda x: F.max_pool2d(x, 3, 2, 1), F.max_pool2d_backward
    yield "max_pool2d-of-single-values", [x], lambda x: F.max_pool2d(x, 1), F.max_pool2d_backward
    yield "relu", [x], F.relu, F.relu_backward
    yield "sigmoid", [x], F.sigmoid, F.sigmoid_backward
    yield "tanh", [x], F.tanh, F.tanh_backward
    yield "softmax", [x], lambda x: F.softmax(x, 1), F.softmax_backward


OPERATORS = {name: rest for name, *rest in _operators()}
operators = pytest.mark.parametrize("name", OPERATORS)


def results(name, arrays, g=None):
    _, forward, backward = OPERATORS[name]
    y, cache = forward(*arrays)
    g = generator("g").normal(0.2, 1, y.shape).astype(y.dtype) if g is None else g
    gradients = backward(g, cache)
    return [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]


@operators
def test_any_memory_is_read_and_left_alone(name):
    arrays = OPERATORS[name][0]
    expected = results(name, arrays)
    g = generator("g").normal(0.2, 1, expected[0].shape)
    for position, array in enumerate(arrays):
        for memory, view in layouts(array):
            given = [*arrays[:position], view, *arrays[position + 1 :]]
            kept = [a.copy() for a in given]
            for ours, reference in zip(results(name, given), expected, strict=True):
                assert_agrees(ours, reference, 1e-14, f"array {position} of {name} from memory: {memory}")
                assert not np.shares_memory(ours, view), memory
            for array_, copy_ in zip(given, kept, strict=True):
                np.testing.assert_array_equal(array_, copy_, err_msg=f"{name} modified its argument: {memory}")
    for memory, view in layouts(g):
        kept = view.copy()
        for ours, reference in zip(results(name, arrays, view), expected, strict=True):
            assert_agrees(ours, reference, 1e-14, f"grad_y of {name} from memory: {memory}")
        np.testing.assert_array_equal(view, kept, err_msg=f"{name}_backward modified grad_y: {memory}")


POINTWISE = ["relu", "sigmoid", "tanh", "softmax"]


@pytest.mark.parametrize("name", [*POINTWISE, "max_pool2d", "max_pool2d-overlapping", "max_pool2d-of-single-values"])
def test_memory_order_is_kept(name):
    for memory, x in layouts(OPERATORS[name][0][0]):
        y, _grad_x = results(name, [x])
        assert memory_order(y) == memory_order(x), memory
        _, forward, backward = OPERATORS[name]
        y, cache = forward(x)
        g = np.empty_like(y)
        g[...] = 1
        assert memory_order(backward(g, cache)) == memory_order(x), memory


def test_conv2d_and_the_gradient_of_linear_have_the_images_innermost():
    y, cache = F.conv2d(*OPERATORS["conv2d"][0])
    assert memory_order(y) == memory_order(F.conv2d_backward(y.copy(), cache)[0]) == (1, 2, 3, 0)
    y, cache = F.linear(np.ones((4, 8)), np.ones((5, 8)))
    assert memory_order(F.linear_backward(y, cache)[0]) == (1, 0)


@operators
def test_float16_is_computed_in_float32(name):
    half = [a.astype(np.float16) for a in OPERATORS[name][0]]
    y = results(name, half)[0]
    g = generator("g").normal(0.2, 1, y.shape).astype(np.float16)
    ours = results(name, half, g)
    expected = results(name, [a.astype(np.float32) for a in half], g.astype(np.float32))
    for a, b in zip(ours, expected, strict=True):
        assert a.dtype == np.float16
        np.testing.assert_array_equal(a, b.astype(np.float16))


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


@operators
def test_empty_batch(name):
    arrays = [a.astype(np.float32) for a in OPERATORS[name][0]]
    arrays[0] = arrays[0][:0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, grad_x, *gradients = results(name, arrays)
    assert y.size == 0 and y.dtype == np.float32 and grad_x.shape == arrays[0].shape
    for gradient, parameter in zip(gradients, arrays[1:], strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(parameter))


def test_cross_entropy_of_no_example():
    x, target = np.empty((0, 3)), np.empty(0, int)
    for reduction, expected in (("sum", 0.0), ("mean", np.nan)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss, cache = F.cross_entropy(x, target, reduction=reduction)
            assert F.cross_entropy_backward(cache=cache).shape == (0, 3)
        np.testing.assert_equal(float(loss), expected)


def test_softmax_over_no_value():
    y, cache = F.softmax(np.empty((3, 0)))
    assert y.shape == F.softmax_backward(y, cache).shape == (3, 0)


def test_caches_do_not_share_results():
    """Two calls do not disturb each other: what the first saved is its own."""
    for name, (arrays, forward, backward) in OPERATORS.items():
        y, cache = forward(*arrays)
        g = generator("g").normal(size=y.shape)
        first = copy.deepcopy(backward(g, cache))
        other, _ = forward(*(a * 2 + 1 for a in arrays))
        again = backward(g, cache)
        for a, b in itertools.zip_longest(*(r if isinstance(r, tuple) else (r,) for r in (first, again))):
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert not np.shares_memory(other, y)
