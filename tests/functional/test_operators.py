"""Convolution, pooling, the fully connected layer and activations under the same tests: memory, dtypes, empty axes."""

from __future__ import annotations

import copy
import itertools
import warnings

import numpy as np
import pytest

from bnbook import functional as F
from tests.references import assert_agrees, generator, layouts, memory_order


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
