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


def test_groups_of_one_value_give_the_bias_from_two_examples_on():
    """As torch, which refuses one value per group only where there is one example."""
    x, bias = np.random.default_rng(9).normal(size=(2, 4)), np.arange(4.0)
    np.testing.assert_array_equal(F.group_norm(x, 4, np.ones(4), bias)[0], [bias, bias])
    with pytest.raises(ValueError, match="expected more than one value per group"):
        F.group_norm(x[:1], 4)
