r"""Batch normalization: equation (2.2), the running statistics of chapter 3, and the closed form of chapter 4.

What makes them exact and fast (sums in float64, the order in memory, threads) stands in `_reduce`, the checks of the
arguments in `_checks`.
"""

from __future__ import annotations

import numpy as np

from ._caches import BatchNormCache
from ._checks import backward_of, check_batch_norm, check_grad, float_arrays
from ._reduce import count, inv_sqrt, minus, moments, per_channel, residual, scale_and_shift, totals

Array = np.ndarray


@float_arrays("running_mean", "running_var", "weight", "bias")
def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, BatchNormCache]:
    r"""Normalize every channel by the mean and the variance of its m values.

    $$ y = \gamma\,\frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}} + \beta $$

    $$ \mu=\frac1m\sum x,\quad \sigma^2=\frac1m\sum(x-\mu)^2 $$

    In training μ and σ² are those of this batch (m = N·H·W), and the running statistics are updated **in place**:
    `running = (1 - momentum) * running + momentum * new`, with the *unbiased* variance $\sigma^2 m/(m-1)$. In
    evaluation the running statistics take the place of μ and σ².

    Args:
        x: (N, C) or (N, C, *), float16, float32 or float64, in any memory order, which the output keeps.
        running_mean, running_var: (C,); both or neither; needed in evaluation.
        weight, bias: γ and β, (C,), each may be None (1 and 0).
        training: use the batch's statistics rather than the running ones.
        momentum: weight of the new value in the running statistics.
        eps: ε, added to the variance inside the root.

    Returns:
        y, of x's shape, dtype and memory order, and the cache for `batch_norm_backward`. An empty batch gives an empty
        y and leaves the running statistics alone.

    Raises:
        ValueError: shapes that do not match, one value per channel in training, eps ≤ 0 in training, statistics that
            are missing in evaluation or read-only in training. Nothing has changed then.
        TypeError: not an array, not floats, or arrays of different dtypes.

    Source: Ioffe & Szegedy (2015), algorithm 1; argument names and conventions of `torch.nn.functional.batch_norm`.
    """
    check_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = (0, *range(2, x.ndim))  # all but the channels'
    weight, bias = per_channel(weight, x), per_channel(bias, x)
    if training:
        mean, xc, var = moments(x, axes)  # μ, x − μ, σ²
        if running_mean is not None and x.size > 0:
            update(running_mean, running_var, mean, var, count(x, axes), momentum)
    else:
        mean, var = per_channel(running_mean, x), per_channel(running_var, x)
        xc = minus(x, mean)
    inv_std = inv_sqrt(var, eps)  # 1/√(σ² + ε)
    y = scale_and_shift(xc, inv_std, weight, bias)  # γ x̂ + β, where x̂ is xc · inv_std
    return y, BatchNormCache(xc, inv_std, weight, bias is not None, axes, training, shape=x.shape)


@backward_of("batch_norm", BatchNormCache)
def batch_norm_backward(grad_y: Array, cache: BatchNormCache) -> tuple[Array, Array | None, Array | None]:
    r"""Gradients of `batch_norm`.

    $$ \frac{\partial L}{\partial\beta}=\sum g,\qquad \frac{\partial L}{\partial\gamma}=\sum g\,\hat x $$

    $$ \frac{\partial L}{\partial x}=\frac{\gamma}{\sqrt{\sigma^2+\varepsilon}}
       \Big(g-\tfrac1m\sum g-\hat x\,\tfrac1m\sum g\hat x\Big) $$

    In evaluation the statistics are constants, and $\partial L/\partial x = g\,\gamma/\sqrt{\bar\sigma^2+\varepsilon}$.

    Args:
        grad_y: the upstream gradient g, of y's shape and dtype.
        cache: what `batch_norm` returned.

    Returns:
        (grad_x, grad_weight, grad_bias), the last two None where the parameter was None.

    Raises:
        ValueError: grad_y has not the shape of y.
        TypeError: grad_y has another dtype than y; cache is another thing, or that of another function.

    Source: Ioffe & Szegedy (2015), section 3, with the three paths of the derivation collected into one expression.
    """
    xc, inv_std, weight, axes = cache.xc, cache.inv_std, cache.weight, cache.axes
    check_grad(grad_y, xc.shape, xc.dtype)
    m = count(xc, axes)
    scale = inv_std if weight is None else weight * inv_std  # γ/√(σ² + ε)
    sum_g, sum_g_xc = totals(grad_y, xc, axes)
    sum_g_xhat = sum_g_xc * inv_std
    if cache.training:  # scale · (g − ⟨g⟩ − x̂ ⟨g x̂⟩)
        grad_x = residual(scale, grad_y, sum_g / m, sum_g_xhat * inv_std / m, xc)
    else:
        grad_x = scale_and_shift(grad_y, scale, like=xc)
    grad_weight = None if weight is None else sum_g_xhat.ravel().astype(xc.dtype)
    grad_bias = sum_g.ravel().astype(xc.dtype) if cache.has_bias else None
    return grad_x, grad_weight, grad_bias


def update(running_mean: Array, running_var: Array, mean: Array, var: Array, m: int, momentum: float) -> None:
    """Move the running statistics, in place, towards μ and the unbiased σ² m/(m − 1), m values a statistic.

    Not `running + momentum * (new - running)`, in which a new value far smaller than the old one is rounded away.
    """
    with np.errstate(over="ignore"):  # a variance that its dtype cannot hold becomes ∞, as in torch
        running_mean[...] = (1 - momentum) * running_mean + momentum * mean.ravel()
        running_var[...] = (1 - momentum) * running_var + momentum * (var.ravel() * (m / (m - 1)))
