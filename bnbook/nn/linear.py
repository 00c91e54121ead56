"""The fully connected layer."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..functional._checks import check_integer
from .module import Array, Module, accumulate, uniform, value


class Linear(Module):
    r"""$y = xW^\top + b$, initialized as in torch: W and b from $U(-1/\sqrt{k}, 1/\sqrt{k})$ with k = in_features.

    Args:
        in_features, out_features: the lengths of the last axis of x and of y.
        bias: whether there is a b.
        rng: a NumPy generator or a seed for the initial values.
        dtype: of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: type = np.float32,
    ) -> None:
        super().__init__()
        self.in_features = check_integer("in_features", in_features, at_least=1)
        self.out_features = check_integer("out_features", out_features, at_least=1)
        rng, bound = np.random.default_rng(rng), in_features**-0.5
        self.weight = uniform(rng, bound, (out_features, in_features), dtype)
        self.bias = uniform(rng, bound, (out_features,), dtype) if bias else None

    def forward(self, x: Array) -> Array:
        y, self._cache = F.linear(x, self.weight.data, value(self.bias))
        return y

    def backward(self, grad_y: Array) -> Array:
        grad_x, grad_weight, grad_bias = F.linear_backward(grad_y, self._saved())
        accumulate(self.weight, grad_weight)
        accumulate(self.bias, grad_bias)
        return grad_x

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features}, bias={self.bias is not None})"
