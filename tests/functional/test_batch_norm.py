"""Batch normalization alone: by hand, odd shapes, large means, running statistics, bad values."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bnbook import functional as F
from tests.references import (
    DTYPES,
    FUNCTIONS,
    GRADIENT,
    OUTPUT,
    assert_agrees,
    tensor,
    torch,
)

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


def test_the_one_batch_of_the_book():
    x = np.array([2, 4, 5, 6, 8], float)[:, None]
    mean, var = np.zeros(1), np.ones(1)
    y, cache = F.batch_norm(x, mean, var, np.array([2.0]), np.array([5.0]), training=True, momentum=0.1, eps=1e-300)
    np.testing.assert_allclose(y, x, rtol=1e-14)
    np.testing.assert_allclose(cache.x_hat.ravel(), [-1.5, -0.5, 0, 0.5, 1.5], rtol=1e-14)
    np.testing.assert_allclose([mean[0], var[0]], [0.5, 1.4], rtol=1e-14)
    _, cache = F.batch_norm(x, None, None, training=True, eps=1e-300)
    grad_x, _, _ = F.batch_norm_backward(np.eye(5)[:, :1], cache)
    np.testing.assert_allclose(grad_x.ravel(), [0.175, -0.175, -0.1, -0.025, 0.125], rtol=1e-13)


@both_dtypes
def test_two_values_per_channel(dtype):
    """At m = 2 only terms of order ε remain in the input gradient."""
    x = np.array([[1, -3, 2.5], [2, 4, 2.5]], dtype)
    g = np.array([[0.3, -1, 2], [1.5, 0.7, -0.4]], dtype)
    y, cache = F.batch_norm(x, None, None, training=True, eps=1e-3)
    half = (x[1] - x[0]).astype(np.float64) / 2
    x_hat = half / np.sqrt(half**2 + 1e-3)
    assert_agrees(y, np.stack([-x_hat, x_hat]), OUTPUT[np.dtype(dtype)], "y")
    expected = (g[1] - g[0]).astype(np.float64) / 2 * 1e-3 / (half**2 + 1e-3) ** 1.5
    assert_agrees(
        F.batch_norm_backward(g, cache)[0], np.stack([-expected, expected]), GRADIENT[np.dtype(dtype)], "grad_x"
    )


ODD_SHAPES = [(2, 1), (1000, 1), (3, 257), (4097, 3), (1, 5, 2), (129, 3, 17), (1, 2, 33, 65), (2, 1, 1, 3)]
ODD_SHAPES += [(5, 7, 1, 1), (64, 32, 26, 26), (3, 2, 1, 7, 5), (1, 1, 5000), (2, 3, 8193)]


@needs_torch
@both_dtypes
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
def test_batch_norm_of_large_and_odd_shapes_agrees_with_torch(shape, training, dtype):
    rng = np.random.default_rng(len(shape))
    x, g = rng.normal(0.7, 1.3, shape).astype(dtype), rng.normal(0.1, 1, shape).astype(dtype)
    weight, bias, mean, var = (rng.uniform(0.5, 2, shape[1]).astype(dtype) for _ in range(4))
    t = [tensor(value) for value in (x, weight, bias)]
    stats = [torch.tensor(mean), torch.tensor(var)]
    # torch's own float32 sums are the less accurate ones on long rows: compare with its float64
    wide = [value.detach().double().requires_grad_() for value in t]
    wide_stats = [value.double() for value in stats]
    expected = torch.nn.functional.batch_norm(wide[0], *wide_stats, wide[1], wide[2], training, 0.2, 1e-4)
    expected.backward(torch.tensor(g).double())
    scale = float(np.abs(weight).max() * np.abs(g).max() / (x.std() if training else np.sqrt(var.min())))
    y, cache = F.batch_norm(x, mean, var, weight, bias, training, 0.2, 1e-4)
    gradients = F.batch_norm_backward(g, cache)
    output, gradient = OUTPUT[np.dtype(dtype)], GRADIENT[np.dtype(dtype)]
    assert_agrees(y, expected, output, "y")
    assert_agrees(mean, wide_stats[0], output, "running_mean")
    assert_agrees(var, wide_stats[1], output, "running_var")
    assert_agrees(gradients[0], wide[0].grad, gradient, "grad_x", scale)
    assert_agrees(gradients[1], wide[1].grad, gradient, "grad_weight", scale)
    assert_agrees(gradients[2], wide[2].grad, gradient, "grad_bias")


@pytest.mark.parametrize("large_mean", [5, 1000])
@pytest.mark.parametrize("shape", [(64, 32, 26, 26), (1_000_000, 4), (1, 2, 2048, 2048), (2, 3, 100_000)], ids=str)
@pytest.mark.parametrize("order", ["contiguous", "channels outermost", "batch innermost"])
def test_float32_variance_survives_many_values_and_a_large_mean(shape, order, large_mean):
    """A mean 1,000 times the standard deviation leaves four of float32's seven digits to the deviations."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape, dtype=np.float32) + np.float32(large_mean)
    if order == "channels outermost":
        x = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    elif order == "batch innermost":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    mean, var = np.zeros(shape[1], np.float32), np.zeros(shape[1], np.float32)
    _y, _ = F.batch_norm(x, mean, var, training=True, momentum=1)
    axes = (0, *range(2, len(shape)))
    true_mean = x.mean(axes, dtype=np.float64)
    true_var = np.array([x[:, c].astype(np.float64).var(ddof=1) for c in range(shape[1])])
    np.testing.assert_allclose(var, true_var, rtol=1e-5)
    np.testing.assert_allclose(mean, true_mean, rtol=1e-6)


@both_dtypes
@pytest.mark.parametrize(("old", "spread"), [(1, 1e-6), (1e9, 1)])
def test_momentum_one_forgets_the_old_value(dtype, old, spread):
    """Also where it is so much larger than the new one that their difference has none of its digits."""
    x = (np.random.default_rng(7).normal(size=(50, 3)) * spread).astype(dtype)
    mean, var = np.full(3, old, dtype), np.full(3, old, dtype)
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    np.testing.assert_allclose(mean, x.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(var, x.var(0, ddof=1, dtype=np.float64), rtol=1e-5)


def test_no_variance_and_no_eps_give_infinity_without_a_warning():
    """In evaluation; a dead channel divides by zero."""
    x = np.array([[1.0, -2.0], [-3.0, 4.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = F.batch_norm(x, np.zeros(2), np.zeros(2), eps=0)
    np.testing.assert_array_equal(y, np.sign(x) * np.inf)


@pytest.mark.parametrize("dtype", [np.float16, *DTYPES])
def test_read_only_statistics_serve_in_evaluation_alone(dtype):
    x, mean, var = np.arange(6).reshape(3, 2).astype(dtype), np.ones(2, dtype), np.full(2, 4, dtype)
    mean.flags.writeable = var.flags.writeable = False
    np.testing.assert_allclose(F.batch_norm(x, mean, var)[0], (x - 1) / 2, rtol=1e-3)
    with pytest.raises(ValueError, match="running_mean is read-only, but training updates it in place"):
        F.batch_norm(x, mean, var, training=True)


@pytest.mark.parametrize("function", [F.batch_norm, F.instance_norm], ids=lambda f: f.__name__)
def test_a_variance_that_float16_cannot_hold_is_infinity_without_a_warning(function):
    """Here that of the second channel."""
    x = (np.random.default_rng(9).normal(size=(4, 2, 5)) * [[1], [3000]]).astype(np.float16)
    statistics = np.zeros(2, np.float16), np.ones(2, np.float16)
    names = {"running_mean": statistics[0], "running_var": statistics[1]}
    mode = {"training" if function is F.batch_norm else "use_input_stats": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _ = function(x, **names, **mode)
    assert np.isfinite(y).all() and np.isfinite(statistics[0]).all()
    np.testing.assert_array_equal(np.isinf(statistics[1]), [False, True])
    if torch is not None:
        theirs = torch.zeros(2, dtype=torch.float16), torch.ones(2, dtype=torch.float16)
        getattr(torch.nn.functional, function.__name__)(torch.tensor(x), *theirs, **mode)
        for ours, expected in zip(statistics, theirs, strict=True):
            np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_spoils_its_own_channel_only(bad):
    rng = np.random.default_rng(8)
    x, g = rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 4, 5))
    clean, spoiled = x.copy(), [1]
    x[2, 1, 3] = bad
    results = []
    for values in (x, clean):
        mean, var = np.zeros(4), np.ones(4)
        with np.errstate(invalid="ignore"):
            y, cache = F.batch_norm(values, mean, var, np.full(4, 2.0), np.ones(4), training=True)
            grad_x, grad_weight, grad_bias = F.batch_norm_backward(g, cache)
        results.append([y.swapaxes(0, 1), grad_x.swapaxes(0, 1), grad_weight, grad_bias, mean, var])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(np.delete(ours, spoiled, 0), np.delete(expected, spoiled, 0))
    assert np.isnan(results[0][0][1]).all() and not np.isfinite(results[0][4][1])


@both_dtypes
def test_running_statistics_may_be_views(dtype):
    """They are updated where they are, and what lies between them is left alone."""
    a = next(n for n in FUNCTIONS if n.name == "batch_norm-training-3d").arguments(dtype)
    table = np.full((2, 3 * len(a.mean)), -7, dtype)
    mean, var = table[0, ::3], table[1, ::-3]
    mean[...], var[...] = a.mean, a.var
    F.batch_norm(a.x, mean, var, training=True)
    F.batch_norm(a.x, a.mean, a.var, training=True)
    np.testing.assert_array_equal(table[0, ::3], a.mean)
    np.testing.assert_array_equal(table[1, ::-3], a.var)
    assert (table == -7).sum() == 4 * len(a.mean)
