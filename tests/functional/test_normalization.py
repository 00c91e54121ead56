"""Every normalization, as a function and as a layer, under the same tests."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from bnbook import functional as F
from bnbook import nn
from bnbook.checking.numeric import numeric_gradient
from tests.references import (
    DTYPES,
    FUNCTIONS,
    GRADIENT,
    NORMALIZATIONS,
    OUTPUT,
    Normalization,
    assert_agrees,
    layouts,
    memory_order,
    tensor,
    torch,
)

every = pytest.mark.parametrize("norm", NORMALIZATIONS, ids=str)
tracking = pytest.mark.parametrize("norm", [n for n in NORMALIZATIONS if n.tracks], ids=str)
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


def run(norm: Normalization, a):
    """y and the three gradients."""
    y, saved = norm.forward(a)
    return y, *norm.backward(a.grad_y, saved)


@every
@both_dtypes
def test_output_is_the_textbook_formula(norm, dtype):
    for combination in norm.combinations():
        a = norm.arguments(dtype, **combination)
        expected = norm.textbook(a)
        y, _ = norm.forward(a)
        assert y.dtype == dtype and y.shape == a.x.shape
        assert_agrees(y, expected, OUTPUT[np.dtype(dtype)], f"y with {combination}")


@every
def test_gradients_are_the_numeric_ones(norm):
    for combination in norm.combinations():
        a = norm.arguments(**combination)
        _y, *gradients = run(norm, copy.deepcopy(a))
        for name, gradient in zip(("x", "weight", "bias"), gradients, strict=True):
            if getattr(a, name) is None:
                assert gradient is None, f"a gradient for {name}, which was None"
                continue

            def f(value, name=name, a=a):
                changed = copy.deepcopy(a)
                setattr(changed, name, value)
                return norm.forward(changed)[0]

            expected = numeric_gradient(f, getattr(a, name), a.grad_y)
            assert_agrees(gradient, expected, 1e-8, f"gradient of {name} with {combination}")


@needs_torch
@every
@both_dtypes
def test_agrees_with_torch(norm, dtype):
    for combination in norm.combinations():
        a = norm.arguments(dtype, **combination)
        t = copy.copy(a)
        t.x, t.weight, t.bias = tensor(a.x), tensor(a.weight), tensor(a.bias)
        t.mean, t.var = (None if s is None else torch.tensor(s) for s in (a.mean, a.var))
        scale = norm.gradient_scale(a)
        expected = norm.torch_forward(t)
        expected.backward(torch.tensor(a.grad_y))
        y, grad_x, grad_weight, grad_bias = run(norm, a)
        output, gradient = OUTPUT[np.dtype(dtype)], GRADIENT[np.dtype(dtype)]
        assert_agrees(y, expected, output, f"y with {combination}")
        assert_agrees(grad_x, t.x.grad, gradient, f"grad_x with {combination}", scale)
        for name, ours, theirs in (("weight", grad_weight, t.weight), ("bias", grad_bias, t.bias)):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.dtype == dtype
                assert_agrees(ours, theirs.grad, gradient, f"grad_{name} with {combination}")
        if norm.tracks:
            assert_agrees(a.mean, t.mean, output, "running_mean")
            assert_agrees(a.var, t.var, output, "running_var")


@tracking
@both_dtypes
@pytest.mark.parametrize("momentum", [0, 1, 0.37, 0.1])
def test_running_statistics(norm, dtype, momentum):
    a = norm.arguments(dtype, momentum=momentum)
    mean, var = a.mean.copy(), a.var.copy()
    expected = norm.updated(a) if norm.training else (mean, var)
    norm.forward(a)
    assert a.mean.dtype == a.var.dtype == dtype
    assert_agrees(a.mean, expected[0], OUTPUT[np.dtype(dtype)], "running_mean")
    assert_agrees(a.var, expected[1], OUTPUT[np.dtype(dtype)], "running_var")
    if not norm.training or momentum == 0:
        np.testing.assert_array_equal(a.mean, mean)
        np.testing.assert_array_equal(a.var, var)


@pytest.mark.parametrize("norm", [n for n in FUNCTIONS if n.tracks and n.training], ids=str)
def test_running_statistics_may_be_absent_in_training(norm):
    a = norm.arguments()
    y, *gradients = run(norm, copy.deepcopy(a))
    a.mean = a.var = None
    for with_them, without in zip((y, *gradients), run(norm, a), strict=True):
        np.testing.assert_array_equal(with_them, without)


@every
def test_any_memory_is_read_kept_and_left_alone(norm):
    a = norm.arguments()
    expected = run(norm, copy.deepcopy(a))
    for (name, x), (_, grad_y) in zip(layouts(a.x), layouts(a.grad_y), strict=True):
        b = copy.deepcopy(a)
        b.x, b.grad_y = x, grad_y
        for parameter in ("weight", "bias"):  # parameters come from anywhere, too
            getattr(b, parameter, None) is None or setattr(b, parameter, list(layouts(getattr(a, parameter)))[-1][1])
        y, grad_x, grad_weight, grad_bias = run(norm, b)
        results = zip(
            ("y", "grad_x", "grad_weight", "grad_bias"), (y, grad_x, grad_weight, grad_bias), expected, strict=True
        )
        for what, ours, reference in results:
            if reference is not None:
                assert_agrees(ours, reference, 1e-13, f"{what} from memory: {name}", norm.gradient_scale(a))
        assert memory_order(y) == memory_order(x), f"y loses the memory order: {name}"
        assert memory_order(grad_x) == memory_order(x), f"grad_x loses the memory order: {name}"
        np.testing.assert_array_equal(x, a.x, err_msg="x was modified")
        np.testing.assert_array_equal(grad_y, a.grad_y, err_msg="grad_y was modified")
        for parameter in ("weight", "bias"):
            if getattr(a, parameter) is not None:
                np.testing.assert_array_equal(getattr(b, parameter), getattr(a, parameter))


@every
def test_backward_can_be_asked_again(norm):
    a = norm.arguments()
    y, saved = norm.forward(a)
    first = norm.backward(a.grad_y, saved)[0]
    kept = first.copy()
    np.testing.assert_array_equal(norm.backward(a.grad_y, saved)[0], kept)
    np.testing.assert_array_equal(first, kept, err_msg="the second backward changed the result of the first")
    y_kept = y.copy()
    norm.backward(a.grad_y, saved)
    np.testing.assert_array_equal(y, y_kept, err_msg="backward changed y")


@every
def test_results_share_no_memory_with_arguments(norm):
    a = norm.arguments()
    for result in run(norm, a):
        for name in ("x", "grad_y", "weight", "bias", "mean", "var"):
            if result is not None and getattr(a, name) is not None:
                assert not np.shares_memory(result, getattr(a, name)), name


@every
def test_float16_is_computed_in_float32(norm):
    half = norm.arguments(np.float16, eps=1e-3)
    single = copy.deepcopy(half)
    for name, value in vars(single).items():
        if isinstance(value, np.ndarray):
            setattr(single, name, value.astype(np.float32))
    expected = run(norm, single)
    for ours, reference in zip(run(norm, half), expected, strict=True):
        if reference is not None:
            assert ours.dtype == np.float16
            np.testing.assert_array_equal(ours, reference.astype(np.float16))
    if norm.tracks:
        np.testing.assert_array_equal(half.mean, single.mean.astype(np.float16))
        np.testing.assert_array_equal(half.var, single.var.astype(np.float16))


@pytest.mark.parametrize("norm", [n for n in NORMALIZATIONS if len(n.shape) > 1], ids=str)
def test_empty_batch(norm):
    a = norm.arguments(np.float32, shape=(0, *norm.shape[1:]))
    before = copy.deepcopy(a)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, grad_x, grad_weight, grad_bias = run(norm, a)
    assert y.shape == grad_x.shape == a.x.shape and y.dtype == grad_x.dtype == np.float32
    for gradient, parameter in ((grad_weight, a.weight), (grad_bias, a.bias)):
        if gradient is not None:
            np.testing.assert_array_equal(gradient, np.zeros_like(parameter))
            assert gradient.dtype == np.float32
    if norm.tracks:
        np.testing.assert_array_equal(a.mean, before.mean)
        np.testing.assert_array_equal(a.var, before.var)


@every
@both_dtypes
def test_no_float64_leaks_out(norm, dtype):
    for result in run(norm, norm.arguments(dtype, eps=np.float64(0.1), momentum=np.float64(0.5))):
        assert result is None or result.dtype == dtype


# --- special cases of batch normalization -----------------------------------------------------------------------------


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


def test_x_hat_of_the_cache():
    for norm in FUNCTIONS:
        a = norm.arguments(affine=(False, False))
        y, cache = norm.forward(a)
        np.testing.assert_allclose(cache.x_hat, y, rtol=1e-14, err_msg=str(norm))


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


@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "instance_norm"])
def test_float32_variance_of_the_relatives_survives_a_large_mean(name):
    x = np.random.default_rng(4).standard_normal((2, 4, 100, 120), dtype=np.float32) + np.float32(1000)
    y, _ = {
        "layer_norm": lambda: F.layer_norm(x, x.shape[1:]),
        "group_norm": lambda: F.group_norm(x, 2),
        "instance_norm": lambda: F.instance_norm(x),
    }[name]()
    split = x.astype(np.float64).reshape({"layer_norm": (2, -1), "group_norm": (4, -1), "instance_norm": (8, -1)}[name])
    expected = (split - split.mean(1, keepdims=True)) / np.sqrt(split.var(1, keepdims=True) + 1e-5)
    # the spread shows the variance; the mean of the output, the rounding of the mean to x's dtype
    np.testing.assert_allclose(y.reshape(split.shape).astype(np.float64).std(1), expected.std(1), rtol=5e-6)


@both_dtypes
def test_rms_norm_without_eps(dtype):
    """Its ε is the machine epsilon, seen where x² is of that size."""
    eps = np.finfo(dtype).eps
    x = (np.sqrt(eps) / 3 * np.arange(1, 6)).astype(dtype)
    expected = x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).mean() + float(eps))
    for y in (F.rms_norm(x, 5)[0], nn.RMSNorm(5, dtype=dtype)(x)):
        assert_agrees(y, expected, OUTPUT[np.dtype(dtype)], "y")


@needs_torch
@both_dtypes
def test_default_eps_of_rms_norm_is_that_of_torch(dtype):
    x = np.full((2, 5), np.sqrt(np.finfo(dtype).eps) / 3, dtype) * np.arange(1, 6, dtype=dtype)
    y, _ = F.rms_norm(x, 5)
    assert_agrees(y, torch.nn.functional.rms_norm(torch.tensor(x), (5,)), OUTPUT[np.dtype(dtype)], "y")


CENTRED = {
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True)[0],
    "layer_norm": lambda x: F.layer_norm(x.T, len(x))[0].T,
    "group_norm": lambda x: F.group_norm(x.T[None], x.shape[1])[0][0].T,
    "instance_norm": lambda x: F.instance_norm(x.T[None])[0][0].T,
}


@both_dtypes
@pytest.mark.parametrize("name", CENTRED)
def test_a_large_mean_takes_no_digits(name, dtype):
    """Beyond those that x itself has lost, and a constant is normalized to 0."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(4096, 3)) + {np.float32: 1e4, np.float64: 1e8}[dtype]).astype(dtype)
    wide = x.astype(np.longdouble)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    assert_agrees(CENTRED[name](x), expected.astype(np.float64), {np.float32: 2e-6, np.float64: 1e-6}[dtype], "y")
    constant = np.full_like(x, 1000.1)
    assert np.abs(CENTRED[name](constant)).max() < 1e-6


@pytest.mark.parametrize("scale", [1e-18, 1e17, 1e30])
@pytest.mark.parametrize("name", CENTRED)
def test_float32_squares_do_not_overflow(name, scale):
    x = (np.random.default_rng(6).normal(size=(5000, 3)) * scale).astype(np.float32)
    expected = CENTRED[name](x.astype(np.float64))
    assert_agrees(CENTRED[name](x), expected, 2e-6, "y")


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


def test_groups_of_one_value_give_the_bias_from_two_examples_on():
    """As torch, which refuses one value per group only where there is one example."""
    x, bias = np.random.default_rng(9).normal(size=(2, 4)), np.arange(4.0)
    np.testing.assert_array_equal(F.group_norm(x, 4, np.ones(4), bias)[0], [bias, bias])
    with pytest.raises(ValueError, match="expected more than one value per group"):
        F.group_norm(x[:1], 4)


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
