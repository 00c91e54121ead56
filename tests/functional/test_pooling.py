"""Max pooling: a loop over the windows, numeric gradients, torch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bnbook import functional as F
from bnbook.checking.numeric import numeric_gradient
from tests.references import (
    DTYPES,
    GRADIENT,
    as_pair,
    assert_agrees,
    generator,
    tensor,
    torch,
)

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


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


@pytest.mark.parametrize("shapes", POOLINGS, ids=str)
def test_an_infinite_upstream_gradient_goes_to_the_maximum_alone(shapes):
    """∞ · 0 would be nan, and ∞ − ∞ as well."""
    x = generator(str(shapes)).normal(size=shapes[0])
    y, cache = F.max_pool2d(x, *shapes[1:])
    _, where = brute_force_pooling(x, *shapes[1:])
    grad_x = np.zeros(x.shape)
    for source in where.values():
        grad_x[source] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(F.max_pool2d_backward(np.full(y.shape, np.inf), cache), grad_x)


@pytest.mark.parametrize(
    ("image", "at"),
    [
        ([[1, np.nan], [2, 3]], (0, 1)),
        ([[np.nan, 1], [2, 3]], (0, 0)),
        ([[np.nan, np.nan], [2, 3]], (0, 1)),
        ([[np.nan, 1], [np.nan, 3]], (1, 0)),
        ([[np.nan, np.inf], [-np.inf, np.nan]], (1, 1)),
    ],
    ids=["one", "the first", "two of a row", "two of a column", "beside infinities"],
)
def test_the_gradient_of_a_nan_goes_to_the_last_nan(image, at):
    x = np.array(image, float)[None, None]
    y, cache = F.max_pool2d(x, 2)
    expected = np.zeros((2, 2))
    expected[at] = 5
    assert np.isnan(y).all()
    np.testing.assert_array_equal(F.max_pool2d_backward(np.full_like(y, 5), cache)[0, 0], expected)


@needs_torch
@pytest.mark.parametrize("shapes", POOLINGS, ids=str)
def test_max_pool2d_with_many_nans_agrees_with_torch(shapes):
    rng = generator(str(shapes))
    x = rng.integers(-3, 3, shapes[0]).astype(np.float64)
    x[rng.random(x.shape) < 0.2] = np.nan
    t = tensor(x)
    expected = torch.nn.functional.max_pool2d(t, *shapes[1:])
    g = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(g))
    y, cache = F.max_pool2d(x, *shapes[1:])
    np.testing.assert_array_equal(y, expected.detach())
    assert_agrees(F.max_pool2d_backward(g, cache), t.grad, 1e-14, "grad_x")


@needs_torch
@pytest.mark.parametrize("dtype", [np.float16, *DTYPES], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shapes", [*POOLINGS, ((2, 3, 1, 2), (5, 4), 1, 2)], ids=str)
def test_the_gradient_of_a_window_of_infinities_goes_to_its_first_value(shapes, dtype):
    """−∞ is as large as the padding, which has no gradient: none may be lost there."""
    rng = generator(str(shapes))
    x = np.where(rng.random(shapes[0]) < 0.9, -np.inf, rng.integers(-3, 3, shapes[0]))
    x[0] = -np.inf  # a whole image of them
    x[1, 0, 0, 0] = np.nan
    t = tensor(x)
    expected = torch.nn.functional.max_pool2d(t, *shapes[1:])
    g = rng.integers(1, 9, expected.shape).astype(dtype)
    expected.backward(torch.tensor(g.astype(np.float64)))
    y, cache = F.max_pool2d(x.astype(dtype), *shapes[1:])
    np.testing.assert_array_equal(y, expected.detach())
    grad_x = F.max_pool2d_backward(g, cache)
    np.testing.assert_array_equal(grad_x, t.grad)
    assert grad_x.sum(dtype=np.float64) == g.sum(dtype=np.float64)
