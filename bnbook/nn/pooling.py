"""The pooling layer."""

from __future__ import annotations

from .. import functional as F
from ..functional._checks import pair
from .module import Array, Module


class MaxPool2d(Module):
    """The largest value of every window (`functional.max_pool2d`); sizes are integers or pairs (height, width)."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size, at_least=1)
        self.stride = self.kernel_size if stride is None else pair("stride", stride, at_least=1)
        self.padding = pair("padding", padding, at_least=0)

    def forward(self, x: Array) -> Array:
        y, self._cache = F.max_pool2d(x, self.kernel_size, self.stride, self.padding)
        return y

    def backward(self, grad_y: Array) -> Array:
        return F.max_pool2d_backward(grad_y, self._saved())

    def __repr__(self) -> str:
        return f"MaxPool2d(kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding})"
