"""Batch normalization as chapter 5 first writes it down: the formulas, in their order, and nothing for speed."""

from __future__ import annotations

import numpy as np

from bnbook.nn.module import Module, Parameter

Array = np.ndarray


class TextbookBatchNorm(Module):
    """Batch normalization of (N, C) or (N, C, *), in the attributes of `bnbook.nn.BatchNorm2d`."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, dtype: type = np.float32) -> None:
        super().__init__()
        self.weight, self.bias = Parameter(np.ones(num_features, dtype)), Parameter(np.zeros(num_features, dtype))
        self.register_buffer("running_mean", np.zeros(num_features, dtype))
        self.register_buffer("running_var", np.ones(num_features, dtype))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Array) -> Array:
        axes = (0, *range(2, x.ndim))
        m = x.size // x.shape[1]
        if self.training:
            mean, var = x.mean(axes), x.var(axes)
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (var * m / (m - 1) - self.running_var)
        else:
            mean, var = self.running_mean, self.running_var
        inv_std = 1 / np.sqrt(var + self.eps)
        x_hat = (x - per_channel(mean, x)) * per_channel(inv_std, x)
        self._cache = x_hat, inv_std, axes, m, self.training
        return per_channel(self.weight.data, x) * x_hat + per_channel(self.bias.data, x)

    def backward(self, grad_y: Array) -> Array:
        x_hat, inv_std, axes, m, training = self._saved()
        self.bias.grad = grad_y.sum(axes)
        self.weight.grad = (grad_y * x_hat).sum(axes)
        scale = per_channel(self.weight.data * inv_std, grad_y)
        if not training:
            return scale * grad_y
        mean_g, mean_g_x_hat = per_channel(self.bias.grad / m, grad_y), per_channel(self.weight.grad / m, grad_y)
        return scale * (grad_y - mean_g - x_hat * mean_g_x_hat)


def per_channel(values: Array, x: Array) -> Array:
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))
