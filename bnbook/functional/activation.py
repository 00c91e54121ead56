"""Activation functions. Each cache is the output alone: it is enough for the derivative."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._checks import backward_of, check_grad, check_integer, float_arrays
from ._mask import kept

Array = np.ndarray


class ActivationCache(NamedTuple):
    """`half`: the output was rounded to float16 (in every cache of this package)."""

    y: Array
    half: bool = False


class ReLUCache(ActivationCache):
    """Of `relu`."""


class SigmoidCache(ActivationCache):
    """Of `sigmoid`."""


class TanhCache(ActivationCache):
    """Of `tanh`."""


class SoftmaxCache(NamedTuple):
    y: Array
    dim: int
    half: bool = False


@float_arrays()
def relu(x: Array) -> tuple[Array, ReLUCache]:
    """max(x, 0), elementwise."""
    y = np.clip(x, 0, np.inf)  # three times faster than np.maximum(x, 0), whose scalar operand leaves the SIMD path
    return y, ReLUCache(y)


@backward_of("relu", ReLUCache)
def relu_backward(grad_y: Array, cache: ReLUCache) -> Array:
    """g where the output is not 0, else 0: the derivative at 0 is taken to be 0, and that at nan 1, as in torch."""
    check_grad(grad_y, cache.y.shape, cache.y.dtype)
    return kept(grad_y, cache.y != 0)


@float_arrays()
def sigmoid(x: Array) -> tuple[Array, SigmoidCache]:
    r"""$1/(1+e^{-x})$, computed from $e^{-|x|}$, which cannot overflow."""
    z = np.exp(-np.abs(x))
    y = np.where(x >= 0, 1, z).astype(x.dtype) / (1 + z)
    return y, SigmoidCache(y)


@backward_of("sigmoid", SigmoidCache)
def sigmoid_backward(grad_y: Array, cache: SigmoidCache) -> Array:
    """g · y · (1 − y)."""
    check_grad(grad_y, cache.y.shape, cache.y.dtype)
    return grad_y * cache.y * (1 - cache.y)


@float_arrays()
def tanh(x: Array) -> tuple[Array, TanhCache]:
    """The hyperbolic tangent, elementwise."""
    y = np.tanh(x)
    return y, TanhCache(y)


@backward_of("tanh", TanhCache)
def tanh_backward(grad_y: Array, cache: TanhCache) -> Array:
    """g · (1 − y²)."""
    check_grad(grad_y, cache.y.shape, cache.y.dtype)
    return grad_y * (1 - cache.y * cache.y)


@float_arrays()
def softmax(x: Array, dim: int = -1) -> tuple[Array, SoftmaxCache]:
    r"""$e^{x_k}/\sum_j e^{x_j}$ along the axis `dim`, from $x-\max x$, which cannot overflow.

    Raises:
        ValueError: x has no axis `dim`.
    """
    dim = check_integer("dim", dim, at_least=-x.ndim)
    if dim >= x.ndim:
        raise ValueError(f"dim must be less than {x.ndim} for x of shape {x.shape}, got {dim}")
    y = np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
    y /= y.sum(axis=dim, keepdims=True)
    return y, SoftmaxCache(y, dim)


@backward_of("softmax", SoftmaxCache)
def softmax_backward(grad_y: Array, cache: SoftmaxCache) -> Array:
    """y · (g − Σ g y), the sum along `dim`."""
    y, dim, _ = cache
    check_grad(grad_y, y.shape, y.dtype)
    return y * (grad_y - (grad_y * y).sum(axis=dim, keepdims=True))
