r"""The relatives of batch normalization: layer, group, instance and RMS normalization, each with its backward.

All of them compute

$$ y = \gamma\,\frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}} + \beta $$

and differ in the values that share one mean and one variance, that is in the *averaged axes*:

- `batch_norm`, x of shape (N, C, *): the batch and every position; one pair a channel;
- `layer_norm`, (*, normalized_shape): the last axes; one pair an example;
- `group_norm`, (N, C, *): a group's channels and every position; one pair an example and group;
- `instance_norm`, (N, C, *): every position; one pair an example and channel;
- `rms_norm`, (*, normalized_shape): as `layer_norm`, without subtracting a mean.
"""

from __future__ import annotations

import numpy as np

from ._caches import GroupNormCache, InstanceNormCache, LayerNormCache, NormCache, RMSNormCache
from ._checks import (
    backward_of,
    check_grad,
    check_group_norm,
    check_instance_norm,
    check_normalized_shape,
    float_arrays,
)
from ._reduce import count, inv_sqrt, minus, moments, per_channel, residual, scale_and_shift, total, totals
from .batch_norm import update

Array = np.ndarray


@float_arrays("weight", "bias")
def layer_norm(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, LayerNormCache]:
    r"""Normalize every example by the mean and the variance of its own features.

    The formula of `batch_norm` with μ and σ² over the last axes, those of `normalized_shape`; there is no batch in it,
    so training and evaluation are the same function.

    Args:
        x: any shape that ends in `normalized_shape`, of at most 31 axes.
        normalized_shape: an integer or a tuple.
        weight, bias: γ and β, of shape `normalized_shape`, or None.
        eps: ε ≥ 0.

    Returns:
        y and the cache for `layer_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`.

    Source: Ba, Kiros & Hinton (2016), equation 3.
    """
    axes = check_normalized_shape(x, normalized_shape, weight, bias, eps)
    return _normalize(LayerNormCache, x, weight, bias, axes, eps, x.shape)


@backward_of("layer_norm", LayerNormCache)
def layer_norm_backward(grad_y: Array, cache: LayerNormCache) -> tuple[Array, Array | None, Array | None]:
    r"""Gradients of `layer_norm`: (grad_x, grad_weight, grad_bias).

    With $h = g\gamma$ and sums over the averaged axes,

    $$ \frac{\partial L}{\partial x} =
       \frac{1}{\sqrt{\sigma^2+\varepsilon}}\Big(h - \tfrac1m\sum h - \hat x\,\tfrac1m\sum h\hat x\Big); $$

    $\partial L/\partial\gamma=\sum g\hat x$ and $\partial L/\partial\beta=\sum g$ are sums over the other axes.
    """
    grad_x, grad_weight, grad_bias = _backward(grad_y, cache, tuple(range(cache.axes[0])))
    shape = cache.xc.shape[cache.axes[0] :]
    return grad_x, _reshape(grad_weight, shape), _reshape(grad_bias, shape)


@float_arrays("weight", "bias")
def group_norm(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, GroupNormCache]:
    r"""Normalize every group of neighbouring channels of every example.

    The formula of `batch_norm` with μ and σ² over C / num_groups channels and all positions of one example.

    Args:
        x: (N, C) or (N, C, *) of at most 31 axes, with C divisible by `num_groups`.
        num_groups: 1 takes all channels together, C takes each alone (`instance_norm`).
        weight, bias: γ and β, (C,), or None.
        eps: ε ≥ 0.

    Returns:
        y and the cache for `group_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`; channels that cannot be divided; one value in all per group.

    Source: Wu & He (2018), equations 1, 2 and 7.
    """
    groups = check_group_norm(x, num_groups, weight, bias, eps)
    n, channels, *positions = x.shape
    split = x.reshape(n, groups, channels // groups, *positions)
    shared = (1, groups, channels // groups) + (1,) * len(positions)
    axes = tuple(range(2, split.ndim))
    return _normalize(GroupNormCache, split, _reshape(weight, shared), _reshape(bias, shared), axes, eps, x.shape)


@backward_of("group_norm", GroupNormCache)
def group_norm_backward(grad_y: Array, cache: GroupNormCache) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `group_norm`: (grad_x, grad_weight, grad_bias), by the formula of `layer_norm_backward`."""
    check_grad(grad_y, cache.shape, cache.xc.dtype)
    grad_x, grad_weight, grad_bias = _backward(grad_y.reshape(cache.xc.shape), cache, (0, *range(3, cache.xc.ndim)))
    return grad_x.reshape(cache.shape), _ravel(grad_weight), _ravel(grad_bias)


@float_arrays("running_mean", "running_var", "weight", "bias")
def instance_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, InstanceNormCache]:
    r"""Normalize every channel of every image by the mean and the variance over its positions.

    The formula of `batch_norm` with μ and σ² over the positions alone. Running statistics, where given, are updated in
    place with the average over the images of their means and of their unbiased variances; with `use_input_stats=False`
    they take the place of μ and σ², and the function is `batch_norm` in evaluation.

    Args:
        x: (N, C, L), (N, C, H, W) or (N, C, D, H, W), with more than one position where its own statistics are used.
        running_mean, running_var: (C,); both or neither.
        weight, bias: γ and β, (C,), each may be None.
        use_input_stats, momentum, eps: as `training`, `momentum` and `eps` of `batch_norm`.

    Returns:
        y and the cache for `instance_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`.

    Source: Ulyanov, Vedaldi & Lempitsky (2016), equation 3.
    """
    check_instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    axes = tuple(range(2, x.ndim))  # the positions
    weight, bias = per_channel(weight, x), per_channel(bias, x)
    if use_input_stats:
        mean, xc, var = moments(x, axes)
        if running_mean is not None and x.size > 0:
            update(running_mean, running_var, mean.mean(0), var.mean(0), count(x, axes), momentum)
    else:
        mean, var = per_channel(running_mean, x), per_channel(running_var, x)
        xc = minus(x, mean)
    inv_std = inv_sqrt(var, eps)
    y = scale_and_shift(xc, inv_std, weight, bias)
    return y, InstanceNormCache(xc, inv_std, weight, bias is not None, axes, use_input_stats, shape=x.shape)


@backward_of("instance_norm", InstanceNormCache)
def instance_norm_backward(grad_y: Array, cache: InstanceNormCache) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `instance_norm`: (grad_x, grad_weight, grad_bias), by the formulas of `batch_norm_backward`."""
    grad_x, grad_weight, grad_bias = _backward(grad_y, cache, (0, *cache.axes))
    return grad_x, _ravel(grad_weight), _ravel(grad_bias)


@float_arrays("weight")
def rms_norm(
    x: Array, normalized_shape: int | tuple[int, ...], weight: Array | None = None, eps: float | None = None
) -> tuple[Array, RMSNormCache]:
    r"""Divide every example by the root of the mean square of its features.

    $$ y = \gamma\,\frac{x}{\sqrt{\tfrac1m\sum x^2+\varepsilon}} $$

    Args:
        x: any shape that ends in `normalized_shape`, of at most 31 axes.
        normalized_shape: an integer or a tuple.
        weight: γ, of shape `normalized_shape`, or None.
        eps: ε ≥ 0; None means, as in torch, the machine epsilon of the dtype in which it is computed: for float16 that
            of float32, else that of x's dtype.

    Returns:
        y and the cache for `rms_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`.

    Source: Zhang & Sennrich (2019), equation 4.
    """
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    axes = check_normalized_shape(x, normalized_shape, weight, None, eps)
    inv_rms = inv_sqrt(total(axes, x, x) / count(x, axes), eps)
    y = scale_and_shift(x, inv_rms, weight)
    return y, RMSNormCache(x, inv_rms, weight, False, axes, centered=False, shape=x.shape)


@backward_of("rms_norm", RMSNormCache)
def rms_norm_backward(grad_y: Array, cache: RMSNormCache) -> tuple[Array, Array | None]:
    r"""Gradients of `rms_norm`: (grad_x, grad_weight), those of `layer_norm_backward` without the path through μ."""
    grad_x, grad_weight, _ = _backward(grad_y, cache, tuple(range(cache.axes[0])))
    return grad_x, _reshape(grad_weight, cache.xc.shape[cache.axes[0] :])


# --- what they share -------------------------------------------------------------------------------------------------


def _normalize(
    kind: type[NormCache],
    x: Array,
    weight: Array | None,
    bias: Array | None,
    axes: tuple[int, ...],
    eps: float,
    shape: tuple[int, ...],
) -> tuple[Array, NormCache]:
    """y and the cache of a kind, both for the x that had `shape` before its groups were split."""
    _, xc, var = moments(x, axes)
    inv_std = inv_sqrt(var, eps)
    y = scale_and_shift(xc, inv_std, weight, bias)
    return y.reshape(shape), kind(xc, inv_std, weight, bias is not None, axes, shape=shape)


def _backward(grad_y: Array, cache: NormCache, shared: tuple[int, ...]) -> tuple[Array, Array | None, Array | None]:
    """The backward pass for any averaged axes; `shared` are the axes over which γ and β are shared.

    γ may differ between values that share a mean, so it stands inside the bracket: h = g γ takes the place of g.
    """
    xc, inv_std, weight, axes = cache.xc, cache.inv_std, cache.weight, cache.axes
    check_grad(grad_y, xc.shape, xc.dtype)
    m = count(xc, axes)
    h = grad_y if weight is None else scale_and_shift(grad_y, weight)
    if cache.training:  # (h − ⟨h⟩ − x̂ ⟨h x̂⟩)/√(σ² + ε)
        sum_h, sum_h_xc = totals(h, xc, axes)
        mean_h = sum_h / m if cache.centered else None
        grad_x = residual(inv_std, h, mean_h, sum_h_xc * inv_std**2 / m, xc)
    else:
        grad_x = scale_and_shift(h, inv_std, like=xc)
    grad_weight = None
    if weight is not None:
        grad_weight = total(shared, grad_y, scale_and_shift(xc, inv_std)).astype(xc.dtype)
    grad_bias = total(shared, grad_y).astype(xc.dtype) if cache.has_bias else None
    return grad_x, grad_weight, grad_bias


def _reshape(array: Array | None, shape: tuple[int, ...]) -> Array | None:
    return None if array is None else array.reshape(shape)


def _ravel(array: Array | None) -> Array | None:
    return None if array is None else array.ravel()
