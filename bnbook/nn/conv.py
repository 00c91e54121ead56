"""The convolutional layer."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..functional._checks import check_integer, pair
from .module import Array, Module, accumulate, uniform, value


class Conv2d(Module):
    r"""Convolution of images (`functional.conv2d`).

    W and b are initialized as in torch, from $U(-1/\sqrt{k}, 1/\sqrt{k})$ with k = C·kh·kw.

    Args:
        in_channels, out_channels: C and F.
        kernel_size, stride, padding: integers or pairs (height, width).
        bias: whether there is a b.
        rng: a NumPy generator or a seed for the initial values.
        dtype: of the parameters.

    Attributes:
        needs_input_grad: set it to False in the first layer of a network, where nothing asks for the gradient of the
            input: `backward` then returns None and saves that work.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        *,
        bias: bool = True,
        rng: np.random.Generator | int | None = None,
        dtype: type = np.float32,
    ) -> None:
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels, at_least=1)
        self.out_channels = check_integer("out_channels", out_channels, at_least=1)
        self.kernel_size = pair("kernel_size", kernel_size, at_least=1)
        self.stride, self.padding = pair("stride", stride, at_least=1), pair("padding", padding, at_least=0)
        shape = (out_channels, in_channels, *self.kernel_size)
        rng, bound = np.random.default_rng(rng), np.prod(shape[1:]) ** -0.5
        self.weight = uniform(rng, bound, shape, dtype)
        self.bias = uniform(rng, bound, (out_channels,), dtype) if bias else None
        self.needs_input_grad = True

    def forward(self, x: Array) -> Array:
        y, self._cache = F.conv2d(x, self.weight.data, value(self.bias), self.stride, self.padding)
        return y

    def backward(self, grad_y: Array) -> Array | None:
        grad_x, grad_weight, grad_bias = F.conv2d_backward(
            grad_y, self._saved(), needs_input_grad=self.needs_input_grad
        )
        accumulate(self.weight, grad_weight)
        accumulate(self.bias, grad_bias)
        return grad_x

    def __repr__(self) -> str:
        return (
            f"Conv2d({self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, bias={self.bias is not None})"
        )
