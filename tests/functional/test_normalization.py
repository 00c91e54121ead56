"""Every normalization, as a function and as a layer, under the same tests."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from bnbook import functional as F
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
def test_the_input_gradient_lies_in_memory_as_the_input(norm):
    """Wherever the upstream gradient lies: what comes before reads both."""
    a = norm.arguments()
    for name, grad_y in layouts(a.grad_y):
        _, saved = norm.forward(a)
        assert memory_order(norm.backward(grad_y, saved)[0]) == memory_order(a.x), name


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


# --- large means and large values ------------------------------------------------------------------------------------


def test_x_hat_of_the_cache():
    for norm in FUNCTIONS:
        a = norm.arguments(affine=(False, False))
        y, cache = norm.forward(a)
        np.testing.assert_allclose(cache.x_hat, y, rtol=1e-14, err_msg=str(norm))


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


def test_float32_sums_do_not_overflow():
    """Parts of the sum are +∞ and −∞, which together are no number."""
    x = np.tile(np.array([3e38, -3e38], np.float32), 64)[:, None]
    np.testing.assert_allclose(CENTRED["batch_norm"](x), np.sign(x), rtol=1e-6)
