"""Max pooling, along one axis and then along the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ._checks import backward_of, check_grad, check_ndim, float_arrays, pair
from ._mask import kept
from .convolution import pad

Array = np.ndarray


class MaxPool2dCache(NamedTuple):
    """Per axis, for every window but its first value: where that value beats all before it."""

    across: list[Array]
    down: list[Array]
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    dtype: np.dtype
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    half: bool = False


@float_arrays()
def max_pool2d(
    x: Array,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> tuple[Array, MaxPool2dCache]:
    r"""The largest value of every window, as `torch.nn.functional.max_pool2d`.

    The maximum of a window is the maximum down its rows' maxima, so each axis is pooled alone. Where several values are
    largest, the first one in reading order is taken, and it alone receives the gradient; never the padding, also where
    all values are −∞. A nan is larger than every number, and the last one of a window is taken.

    Args:
        x: (N, C, H, W).
        kernel_size, stride: positive integers or pairs (height, width); the stride defaults to the kernel size.
        padding: with −∞, at most half the kernel.

    Returns:
        y, (N, C, H', W') with H' = (H + 2 p − k) // s + 1, and the cache for `max_pool2d_backward`.

    Raises:
        ValueError: not (N, C, H, W), no channel or no pixel, a window larger than the padded image, sizes out of range.
        TypeError: not an array of floats; sizes that are not integers.
    """
    check_ndim("x", x, (4,), "(N, C, H, W)")
    if 0 in x.shape[1:]:
        raise ValueError(f"x has shape {x.shape}, expected images of at least one channel and one pixel")
    kh, kw = pair("kernel_size", kernel_size, at_least=1)
    sh, sw = (kh, kw) if stride is None else pair("stride", stride, at_least=1)
    ph, pw = pair("padding", padding, at_least=0)
    if 2 * ph > kh or 2 * pw > kw:
        raise ValueError(f"padding must be at most half of kernel_size {(kh, kw)}, got {(ph, pw)}")
    height, width = x.shape[2] + 2 * ph, x.shape[3] + 2 * pw
    if kh > height or kw > width:
        raise ValueError(f"kernel_size is {kh}×{kw}, x with its padding is {height}×{width}")
    padded = pad(x, ph, pw, -np.inf)
    rows, across = _max_along(padded, 3, kw, sw, pw)
    y, down = _max_along(rows, 2, kh, sh, ph)
    if np.isnan(y.max(initial=-np.inf)):  # asked once for all windows; then who beats whom is decided again
        rows, across = _max_along(padded, 3, kw, sw, pw, _greater_or_nan)
        y, down = _max_along(rows, 2, kh, sh, ph, _greater_or_nan)
    return y, MaxPool2dCache(across, down, x.shape, y.shape, x.dtype, (kh, kw), (sh, sw), (ph, pw))


@backward_of("max_pool2d", MaxPool2dCache)
def max_pool2d_backward(grad_y: Array, cache: MaxPool2dCache) -> Array:
    """grad_x: every upstream gradient goes to the value that was the maximum; overlapping windows add up."""
    check_grad(grad_y, cache.y_shape, cache.dtype)
    (n, channels, height, width), (ph, pw) = cache.x_shape, cache.padding
    padded_h, padded_w = height + 2 * ph, width + 2 * pw
    rows = (n, channels, padded_h, cache.y_shape[3])
    grad_rows = _give_back_along(grad_y, cache.down, rows, 2, cache.stride[0])
    grad_x = _give_back_along(grad_rows, cache.across, (n, channels, padded_h, padded_w), 3, cache.stride[1])
    return grad_x[:, :, ph : ph + height, pw : pw + width]


def _window(axis: int, first: int, count: int, stride: int) -> tuple[slice, ...]:
    """The `first` value of each of `count` windows along an axis."""
    return (slice(None),) * axis + (slice(first, first + stride * (count - 1) + 1, stride),)


def _max_along(
    x: Array, axis: int, kernel: int, stride: int, padding: int, is_larger: Callable = np.greater
) -> tuple[Array, list[Array]]:
    count = (x.shape[axis] - kernel) // stride + 1
    y, beats = x[_window(axis, 0, count, stride)], []
    for i in range(1, kernel):
        value = x[_window(axis, i, count, stride)]
        beats.append(is_larger(value, y))
        y = np.maximum(y, value)
    for i in range(min(count, -(-padding // stride))):  # a window that begins in the padding: the first value beats it
        beats[padding - i * stride - 1][_window(axis, i, 1, 1)] = True
    return y.copy(order="K") if kernel == 1 else y, beats  # never a view of the input


def _greater_or_nan(value: Array, y: Array) -> Array:
    return (value > y) | np.isnan(value)


def _give_back_along(g: Array, beats: list[Array], shape: tuple[int, ...], axis: int, stride: int) -> Array:
    count, kernel = g.shape[axis], len(beats) + 1
    if stride == kernel and shape[axis] == count * kernel:  # the windows tile the axis: every value is written once
        grad_x = np.empty_like(g, shape=shape)
        for i in range(kernel - 1, 0, -1):
            kept(g, beats[i - 1], out=grad_x[_window(axis, i, count, stride)])
            g = kept(g, ~beats[i - 1], out=grad_x[_window(axis, 0, count, stride)] if i == 1 else None)
        if kernel == 1:
            grad_x[...] = g
        return grad_x
    grad_x = np.zeros_like(g, shape=shape)
    for i in range(kernel - 1, 0, -1):  # the last value that beats all before it is the maximum
        grad_x[_window(axis, i, count, stride)] += kept(g, beats[i - 1])
        g = kept(g, ~beats[i - 1])
    grad_x[_window(axis, 0, count, stride)] += g
    return grad_x
