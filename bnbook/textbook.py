r"""Batch normalization as chapters 2 to 5 first write it down: the formulas, in their order, and nothing for speed.

The one clear version. Tests, checkers and benchmarks compare with it, so it uses NumPy alone and nothing of `bnbook`:
what is compared with it cannot share its mistakes.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def channel_axes(x: Array) -> tuple[int, ...]:
    """All axes but the channel's: those over which (N, C) and (N, C, *) are averaged."""
    return (0, *range(2, x.ndim))


def per_channel(values: Array, x: Array) -> Array:
    """One value per channel, in a shape that broadcasts against x."""
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))


def statistics(x: Array) -> tuple[Array, Array]:
    r"""μ and σ² of every channel, both (C,); σ² divides by m."""
    return x.mean(channel_axes(x)), x.var(channel_axes(x))


def normalize(x: Array, mean: Array, var: Array, eps: float) -> Array:
    r"""$\hat x = (x-\mu)/\sqrt{\sigma^2+\varepsilon}$, for statistics that broadcast against x: any averaged axes."""
    return (x - mean) / np.sqrt(var + eps)


def forward(x: Array, mean: Array, var: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Array, Array]:
    r"""$y = \gamma\hat x + \beta$, $\hat x$ and $1/\sqrt{\sigma^2+\varepsilon}$, for given statistics: either mode."""
    x_hat = normalize(x, per_channel(mean, x), per_channel(var, x), eps)
    return per_channel(weight, x) * x_hat + per_channel(bias, x), x_hat, 1 / np.sqrt(var + eps)


def updated(
    running_mean: Array, running_var: Array, mean: Array, var: Array, m: int, momentum: float
) -> tuple[Array, Array]:
    """The running statistics after a batch of m values a channel; the new variance is the unbiased one."""
    return (
        running_mean + momentum * (mean - running_mean),
        running_var + momentum * (var * m / (m - 1) - running_var),
    )


def backward(g: Array, x_hat: Array, inv_std: Array, weight: Array, training: bool) -> tuple[Array, Array, Array]:
    r"""$\partial L/\partial x = \gamma/\sqrt{\sigma^2+\varepsilon}\,(g-\langle g\rangle-\hat x\langle g\hat x\rangle)$,
    $\partial L/\partial\gamma=\sum g\hat x$ and $\partial L/\partial\beta=\sum g$; in evaluation the statistics are
    constants, and only $g$ stays in the bracket."""
    axes, m = channel_axes(g), g.size // g.shape[1]
    grad_weight, grad_bias = (g * x_hat).sum(axes), g.sum(axes)
    scale = per_channel(weight * inv_std, g)
    if not training:
        return scale * g, grad_weight, grad_bias
    mean_g, mean_g_x_hat = per_channel(grad_bias / m, g), per_channel(grad_weight / m, g)
    return scale * (g - mean_g - x_hat * mean_g_x_hat), grad_weight, grad_bias


class BatchNorm:
    """The layer of chapter 5: batch normalization of (N, C) or (N, C, *)."""

    def __init__(self, C: int, eps: float = 1e-5, momentum: float | None = 0.1, dtype: type = float) -> None:
        self.weight, self.bias = np.ones(C, dtype), np.zeros(C, dtype)
        self.running_mean, self.running_var = np.zeros(C, dtype), np.ones(C, dtype)
        self.num_batches_tracked = np.array(0)
        self.eps, self.momentum, self.training = eps, momentum, True

    def forward(self, x: Array) -> Array:
        if self.training:
            mean, var = statistics(x)
            self.update(mean, var, x.size // x.shape[1])
        else:
            mean, var = self.running_mean, self.running_var
        y, x_hat, inv_std = forward(x, mean, var, self.weight, self.bias, self.eps)
        self.cache = x_hat, inv_std, self.training  # the mode of this pass, whatever eval() is called before backward
        return y

    def update(self, mean: Array, var: Array, m: int) -> None:
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # every batch so far has the same weight
            momentum = 1 / int(self.num_batches_tracked)
        self.running_mean[...], self.running_var[...] = updated(
            self.running_mean, self.running_var, mean, var, m, momentum
        )

    def backward(self, g: Array) -> Array:
        x_hat, inv_std, training = self.cache
        grad_x, self.grad_weight, self.grad_bias = backward(g, x_hat, inv_std, self.weight, training)
        return grad_x
