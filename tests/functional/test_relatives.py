"""Layer, group, instance and RMS normalization: what only they have."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook import functional as F
from bnbook import nn
from tests.references import (
    DTYPES,
    OUTPUT,
    assert_agrees,
    torch,
)

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)


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


@needs_torch
def test_default_eps_of_rms_norm_for_float16_is_that_of_float32():
    """In which it is computed, here and in torch; that of float16 would outweigh these x² a thousand times."""
    x = np.full((2, 5), 1e-3, np.float16) * np.arange(1, 6, dtype=np.float16)
    expected, _ = F.rms_norm(x, 5, eps=float(np.finfo(np.float32).eps))
    np.testing.assert_array_equal(F.rms_norm(x, 5)[0], expected)
    np.testing.assert_allclose(expected, torch.nn.functional.rms_norm(torch.tensor(x), (5,)).numpy(), rtol=2e-3)


MANY_AXES = {
    "layer_norm": lambda x, weight: F.layer_norm(x, x.shape[-2:], weight),
    "rms_norm": lambda x, weight: F.rms_norm(x, x.shape[-2:], weight),
    "group_norm": lambda x, weight: F.group_norm(x, 2, weight),
}


@pytest.mark.parametrize("axes", [16, 17, 27, 31])
@pytest.mark.parametrize("name", MANY_AXES)
def test_many_axes_are_as_good_as_few(name, axes):
    rng = np.random.default_rng(axes)
    few, g = rng.normal(size=(2, 3, 4, 2, 5, 3, 2)), rng.normal(size=(2, 3, 4, 2, 5, 3, 2))
    few, g = few.swapaxes(1, 2), g.swapaxes(1, 2)  # (2, 4, 3, …), not in C order
    weight = rng.uniform(0.5, 2, few.shape[1] if name == "group_norm" else few.shape[-2:])
    shape = (*few.shape[:2], *(1,) * (axes - few.ndim), *few.shape[2:])
    backward = getattr(F, f"{name}_backward")
    expected, cache = MANY_AXES[name](few, weight)
    y, many = MANY_AXES[name](few.reshape(shape), weight)
    assert_agrees(y.reshape(few.shape), expected, 1e-12, "y")
    grads = zip(backward(g.reshape(shape), many), backward(g, cache), strict=True)
    for ours, theirs in (pair for pair in grads if pair[1] is not None):
        assert_agrees(ours.reshape(theirs.shape), theirs, 1e-10, "gradient")


@pytest.mark.parametrize("name", MANY_AXES)
def test_more_axes_are_refused_by_name(name):
    x = np.ones((2, 4, *(1,) * 28, 3, 2))
    weight = np.ones(4 if name == "group_norm" else (3, 2))
    with pytest.raises(ValueError, match="x has 32 axes, expected at most 31"):
        MANY_AXES[name](x, weight)


def test_groups_of_one_value_give_the_bias_from_two_examples_on():
    """As torch, which refuses one value per group only where there is one example."""
    x, bias = np.random.default_rng(9).normal(size=(2, 4)), np.arange(4.0)
    np.testing.assert_array_equal(F.group_norm(x, 4, np.ones(4), bias)[0], [bias, bias])
    with pytest.raises(ValueError, match="expected more than one value per group"):
        F.group_norm(x[:1], 4)
