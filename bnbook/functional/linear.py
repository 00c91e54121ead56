"""The fully connected layer."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from ._checks import backward_of, check_float_array, check_grad, check_ndim, check_shape, float_arrays

Array = np.ndarray


class LinearCache(NamedTuple):
    x: Array
    weight: Array
    has_bias: bool
    half: bool = False


@float_arrays("weight", "bias")
def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, LinearCache]:
    r"""$y = xW^\top + b$, as `torch.nn.functional.linear`.

    Args:
        x: (*, in_features).
        weight: W, (out_features, in_features).
        bias: b, (out_features,), or None.

    Returns:
        y, (*, out_features), and the cache for `linear_backward`.

    Raises:
        ValueError: shapes that do not match. TypeError: not arrays of floats of one dtype.
    """
    check_float_array("weight", weight)  # not None
    check_ndim("weight", weight, (2,), "(out_features, in_features)")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x has shape {x.shape}, expected (*, {weight.shape[1]}) for weight of shape {weight.shape}")
    if bias is not None:
        check_shape("bias", bias, (weight.shape[0],), "the out_features of weight")
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y, LinearCache(x, weight, bias is not None)


@backward_of("linear", LinearCache)
def linear_backward(grad_y: Array, cache: LinearCache) -> tuple[Array, Array, Array | None]:
    r"""(grad_x, grad_weight, grad_bias) = $(gW,\; g^\top x,\; \sum g)$, the sums over all examples.

    grad_x is computed as $(W^\top g^\top)^\top$, which leaves the examples innermost in memory: what comes before a
    convolutional network's first fully connected layer then runs over long contiguous rows.
    """
    x, weight, has_bias, _ = cache
    check_grad(grad_y, (*x.shape[:-1], weight.shape[0]), x.dtype)
    out_features, in_features = weight.shape
    examples = prod(x.shape[:-1])  # not −1, which no reshape can find where there is no feature
    g = grad_y.reshape(examples, out_features)
    grad_x = (weight.T @ g.T).T.reshape(x.shape)
    grad_weight = g.T @ x.reshape(examples, in_features)
    return grad_x, grad_weight, g.sum(0) if has_bias else None
