"""Convolution as one matrix product."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ._checks import backward_of, check_float_array, check_grad, check_ndim, check_shape, float_arrays, pair

Array = np.ndarray


class Conv2dCache(NamedTuple):
    r"""`columns` is the matrix of patches, $(C\,k_h k_w,\; H'W'N)$; the rest says how it was cut."""

    columns: Array
    weight: Array
    has_bias: bool
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    half: bool = False


@float_arrays("weight", "bias")
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> tuple[Array, Conv2dCache]:
    r"""The cross-correlation that deep learning calls convolution, as `torch.nn.functional.conv2d`.

    $$ y_{n,f,i,j} = b_f + \sum_{c,u,v} W_{f,c,u,v}\; x_{n,\,c,\,i s_h+u-p_h,\,j s_w+v-p_w} $$

    Every output position is the product of one row of W with one column of patches, so all of them are one matrix
    product. The columns are ordered (row, column, image): the output is an (N, F, H', W') *view* over memory in which
    the images lie innermost, and what follows runs over long contiguous rows without knowing it.

    Args:
        x: (N, C, H, W).
        weight: W, (F, C, kh, kw).
        bias: b, (F,), or None.
        stride, padding: a positive and a non-negative integer, or pairs (height, width); padding is with zeros.

    Returns:
        y, (N, F, H', W') with H' = (H + 2 p_h − kh) // s_h + 1, and the cache for `conv2d_backward`.

    Raises:
        ValueError: shapes that do not match, no filter, images without a pixel, a kernel larger than the padded image,
            stride < 1, padding < 0.
        TypeError: not arrays of floats of one dtype; a stride or padding that is not an integer.
    """
    check_ndim("x", x, (4,), "(N, C, H, W)")
    check_float_array("weight", weight)  # not None
    check_ndim("weight", weight, (4,), "(F, C, kh, kw)")
    if weight.shape[0] == 0:
        raise ValueError(f"weight has shape {weight.shape}, expected at least one filter")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x of shape {x.shape} has {x.shape[1]} channels, weight of shape {weight.shape} expects {weight.shape[1]}"
        )
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], "one value per output channel of weight")
    (sh, sw), (ph, pw) = pair("stride", stride, at_least=1), pair("padding", padding, at_least=0)
    filters, channels, kh, kw = weight.shape
    n, _, height, width = x.shape
    if 0 in (height, width):
        raise ValueError(f"x has shape {x.shape}, expected images of at least one pixel")
    if min(kh, kw) < 1 or kh > height + 2 * ph or kw > width + 2 * pw:
        raise ValueError(f"weight has a {kh}×{kw} kernel, x with its padding is {height + 2 * ph}×{width + 2 * pw}")

    windows = sliding_window_view(pad(x, ph, pw), (kh, kw), axis=(2, 3))[
        :, :, ::sh, ::sw
    ]  # (N, C, H', W', kh, kw), no copy
    out_h, out_w = windows.shape[2:4]
    columns = windows.transpose(1, 4, 5, 2, 3, 0).reshape(channels * kh * kw, out_h * out_w * n)
    y = weight.reshape(filters, -1) @ columns
    if bias is not None:
        y += bias[:, None]
    y = y.reshape(filters, out_h, out_w, n).transpose(3, 0, 1, 2)
    return y, Conv2dCache(columns, weight, bias is not None, x.shape, y.shape, (sh, sw), (ph, pw))


@backward_of("conv2d", Conv2dCache)
def conv2d_backward(
    grad_y: Array, cache: Conv2dCache, *, needs_input_grad: bool = True
) -> tuple[Array | None, Array, Array | None]:
    r"""(grad_x, grad_weight, grad_bias) of `conv2d`.

    With G the upstream gradient as a matrix and P the columns: $\partial L/\partial W = GP^\top$ and
    $\partial L/\partial P = W^\top G$, whose entries are added back where the patches were cut.

    `needs_input_grad=False` leaves grad_x out (None): nothing asks for it in the first layer of a network.
    """
    check_grad(grad_y, cache.y_shape, cache.columns.dtype)
    filters, channels, kh, kw = cache.weight.shape
    n, _, height, width = cache.x_shape
    _, _, out_h, out_w = cache.y_shape
    g = grad_y.transpose(1, 2, 3, 0).reshape(filters, out_h * out_w * n)
    grad_weight = (g @ cache.columns.T).reshape(cache.weight.shape)
    grad_bias = np.einsum("fp->f", g) if cache.has_bias else None
    if not needs_input_grad:
        return None, grad_weight, grad_bias

    (sh, sw), (ph, pw) = cache.stride, cache.padding
    patches = (cache.weight.reshape(filters, -1).T @ g).reshape(channels, kh, kw, out_h, out_w, n)
    grad_x = np.zeros((channels, height + 2 * ph, width + 2 * pw, n), dtype=g.dtype)
    for u in range(kh):
        for v in range(kw):
            grad_x[:, u : u + sh * out_h : sh, v : v + sw * out_w : sw] += patches[:, u, v]
    grad_x = grad_x[:, ph : ph + height, pw : pw + width]
    return grad_x.transpose(3, 0, 1, 2), grad_weight, grad_bias


def pad(x: Array, ph: int, pw: int, value: float = 0) -> Array:
    """Images with a border of `value`, the images innermost in memory; x itself where there is no border."""
    if ph == pw == 0:
        return x
    n, channels, height, width = x.shape
    padded = np.full((channels, height + 2 * ph, width + 2 * pw, n), value, dtype=x.dtype)
    padded[:, ph : ph + height, pw : pw + width] = x.transpose(1, 2, 3, 0)
    return padded.transpose(3, 0, 1, 2)
