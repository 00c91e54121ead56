"""The loss of a classifier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._checks import check_array, check_cache, check_dtype, check_float_array, check_shape

Array = np.ndarray


class CrossEntropyCache(NamedTuple):
    log_p: Array
    target: Array
    reduction: str
    dtype: np.dtype


def cross_entropy(x: Array, target: Array, *, reduction: str = "mean") -> tuple[Array, CrossEntropyCache]:
    r"""The cross-entropy of logits with class labels, $-\log\operatorname{softmax}(x)_{\text{target}}$, in nats.

    Args:
        x: logits, (N, C) or (N, C, *).
        target: integer labels in 0..C−1, (N,) or (N, *).
        reduction: "mean" over all labels, "sum", or "none".

    Returns:
        The loss, a scalar (with "none" of target's shape), and the cache for `cross_entropy_backward`.

    Raises:
        ValueError: a shape that does not match, a label out of range, an unknown reduction.
        TypeError: labels that are not integers.
    """
    check_float_array("x", x)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"x has shape {x.shape}, expected logits (N, C) or (N, C, *) with C ≥ 1")
    if not isinstance(target, np.ndarray) or not np.issubdtype(target.dtype, np.integer):
        got = target.dtype if isinstance(target, np.ndarray) else type(target).__name__
        raise TypeError(f"target must be an array of integer class labels, got {got}")
    check_array("target", target)
    check_shape("target", target, (x.shape[0], *x.shape[2:]), f"one label for each of the logits of shape {x.shape}")
    outside = target[(target < 0) | (target >= x.shape[1])]
    if outside.size:
        raise ValueError(f"target must hold labels from 0 to {x.shape[1] - 1}, got {outside[0]}")
    logits = x.astype(np.float32) if x.dtype == np.float16 else x
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    losses = -_at_target(log_p, target)
    cache = CrossEntropyCache(log_p, target, reduction, x.dtype)
    if reduction == "none":
        return losses.astype(x.dtype, copy=False), cache
    if reduction == "sum":
        return losses.sum().astype(x.dtype), cache
    with np.errstate(invalid="ignore"):  # the mean over no label is nan, as in torch
        return (losses.sum() / log_p.dtype.type(target.size)).astype(x.dtype), cache


def cross_entropy_backward(grad_y: Array | float = 1.0, cache: CrossEntropyCache | None = None) -> Array:
    r"""The gradient with respect to the logits: $g\,(\operatorname{softmax}(x) - \text{one-hot}(\text{target}))$.

    Args:
        grad_y: the upstream gradient, 1 for a loss that ends the computation; with reduction "none" of target's shape.
        cache: what `cross_entropy` returned; by its name where grad_y before it is left out.

    Raises:
        ValueError: grad_y has not the shape of the loss. TypeError: it has another dtype; cache is another thing.
    """
    check_cache(cache, CrossEntropyCache, "cross_entropy")
    log_p, target, reduction, dtype = cache
    if isinstance(grad_y, int | float | np.number):
        g = np.full(target.shape if reduction == "none" else (), grad_y, dtype=log_p.dtype)
    else:
        check_dtype("grad_y", grad_y, "the loss", dtype)
        g = grad_y.astype(log_p.dtype, copy=False)
    check_shape("grad_y", g, target.shape if reduction == "none" else (), "the shape of the loss")
    grad_x = np.exp(log_p)
    np.put_along_axis(grad_x, target[:, None], _at_target(grad_x, target)[:, None] - 1, axis=1)
    if reduction == "mean":
        g = g / max(target.size, 1)
    grad_x *= g[:, None] if reduction == "none" else g.astype(log_p.dtype)
    return grad_x.astype(dtype, copy=False)


def _at_target(values: Array, target: Array) -> Array:
    return np.take_along_axis(values, target[:, None], axis=1)[:, 0]
