"""Activation functions as layers."""

from __future__ import annotations

from .. import functional as F
from .module import Array, Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Array) -> Array:
        y, self._cache = F.relu(x)
        return y

    def backward(self, grad_y: Array) -> Array:
        return F.relu_backward(grad_y, self._saved())


class Sigmoid(Module):
    r"""$1/(1+e^{-x})$."""

    def forward(self, x: Array) -> Array:
        y, self._cache = F.sigmoid(x)
        return y

    def backward(self, grad_y: Array) -> Array:
        return F.sigmoid_backward(grad_y, self._saved())


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Array) -> Array:
        y, self._cache = F.tanh(x)
        return y

    def backward(self, grad_y: Array) -> Array:
        return F.tanh_backward(grad_y, self._saved())
