r"""Batch normalization and its relatives: pure functions on arrays, each with its backward.

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

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from ._checks import check_bool, check_grad, check_integer, check_ndim, check_number, check_shape, float_arrays
from ._reduce import in_parts

Array = np.ndarray


class NormCache(NamedTuple):
    r"""What the backward pass of a normalization needs, in the symbols of the derivation.

    `xc` is $x-\mu$ (for `rms_norm` $x$ itself), in the shape in which `axes` are the averaged ones; `inv_std` is
    $1/\sqrt{\sigma^2+\varepsilon}$ and `weight` is $\gamma$, both shaped to broadcast against `xc`.
    """

    xc: Array
    inv_std: Array
    weight: Array | None
    has_bias: bool
    axes: tuple[int, ...]
    training: bool = True
    centered: bool = True
    shape: tuple[int, ...] = ()

    @property
    def x_hat(self) -> Array:
        r"""$\hat x = (x-\mu)/\sqrt{\sigma^2+\varepsilon}$, in the shape of x."""
        return (self.xc * self.inv_std.astype(self.xc.dtype)).reshape(self.shape)


# --- sums over the averaged axes -------------------------------------------------------------------------------------

_RUN = 4096  # at most so many values are added up in x's own precision, the sums of such runs in float64


@lru_cache(maxsize=512)
def _plan(shape: tuple[int, ...], axes: tuple[int, ...], operands: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    inner = list(axes)
    while inner and prod(shape[a] for a in inner) > _RUN:
        inner.pop(0)
    letters = "abcdefghijklmnop"[: len(shape)]
    kept = [a for a in range(len(shape)) if a not in inner]
    subscripts = ",".join([letters] * operands) + "->" + "".join(letters[a] for a in kept)
    outer = tuple(i for i, a in enumerate(kept) if a in axes)
    return subscripts, outer, tuple(1 if a in axes else n for a, n in enumerate(shape))


def _sum(axes: tuple[int, ...], *operands: Array) -> Array:
    """Σ of an array, or of the product of two, over `axes`, which are kept with length 1. Float64.

    `einsum` reads each operand once, in any memory order, and makes no temporary for the product.
    """
    subscripts, outer, shape = _plan(operands[0].shape, axes, len(operands))
    return np.einsum(subscripts, *operands).sum(axis=outer, dtype=np.float64).reshape(shape)


def _normalize(
    x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, shape: tuple[int, ...]
) -> tuple[Array, NormCache, Array, Array, int]:
    """y and the cache, μ, σ² and m. A part of x is normalized to the end while its thread has it at hand.

    x − μ comes first and σ² from it: two passes, so that σ² survives a mean far larger than σ (Chan, Golub & LeVeque
    1983). Sums in float32 will do while |μ| ≤ 10 σ and no square overflows; beyond that, a constant channel included,
    their rounding would show in x − μ, and everything is computed in float64.
    """
    m = prod(x.shape[a] for a in axes)

    def moments(x: Array, xc: Array) -> tuple[Array, Array]:
        mean = _sum(axes, x) / max(m, 1)
        np.subtract(x, _along(x, mean), out=xc)
        var = _sum(axes, xc, xc) / max(m, 1)
        return mean, var

    def rough(mean: Array, var: Array) -> bool:
        return x.dtype == np.float32 and bool(((mean * mean > 100 * var) | np.isinf(var)).any())

    def forward(x: Array, weight: Array | None, bias: Array | None, xc: Array, y: Array) -> tuple[Array, Array]:
        mean, var = moments(x, xc)
        if not rough(mean, var):
            _affine(xc, _inv_sqrt(var, eps), weight, bias, y)
        return mean, var

    xc, y = np.empty_like(x), np.empty_like(x)
    mean, var = in_parts(forward, axes, x, weight, bias, xc, y)
    if rough(mean, var):
        wide = x.astype(np.float64)
        mean, var = in_parts(moments, axes, wide, wide)
        xc = wide.astype(np.float32)
        in_parts(_affine, axes, xc, _inv_sqrt(var, eps), weight, bias, y)
    return (
        y.reshape(shape),
        NormCache(xc, _inv_sqrt(var, eps), weight, bias is not None, axes, shape=shape),
        mean,
        var,
        m,
    )


# --- batch normalization ---------------------------------------------------------------------------------------------


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
) -> tuple[Array, NormCache]:
    r"""Normalize every channel by the mean and the variance of its m values.

    $$ y = \gamma\,\frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}} + \beta,\qquad
       \mu=\frac1m\sum x,\quad \sigma^2=\frac1m\sum(x-\mu)^2,\quad m = N\cdot H\cdot W $$

    In training μ and σ² are those of this batch, and the running statistics, where given, are updated **in place**:
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
    check_bool("training", training)
    _check_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = (0, *range(2, x.ndim))
    weight, bias = _per_channel(weight, x), _per_channel(bias, x)
    if not training:
        return _by_running(x, running_mean, running_var, weight, bias, axes, eps)
    y, cache, mean, var, m = _normalize(x, weight, bias, axes, eps, x.shape)
    if running_mean is not None and m > 0:
        _update_running(running_mean, mean.ravel(), momentum)
        _update_running(running_var, var.ravel() * (m / (m - 1)), momentum)
    return y, cache


@float_arrays()
def batch_norm_backward(grad_y: Array, cache: NormCache) -> tuple[Array, Array | None, Array | None]:
    r"""Gradients of `batch_norm`.

    $$ \frac{\partial L}{\partial\beta}=\sum g,\qquad \frac{\partial L}{\partial\gamma}=\sum g\,\hat x,\qquad
       \frac{\partial L}{\partial x}=\frac{\gamma}{\sqrt{\sigma^2+\varepsilon}}
       \Big(g-\tfrac1m\sum g-\hat x\,\tfrac1m\sum g\hat x\Big) $$

    In evaluation the statistics are constants, and $\partial L/\partial x = g\,\gamma/\sqrt{\bar\sigma^2+\varepsilon}$.

    Args:
        grad_y: the upstream gradient g, of y's shape and dtype.
        cache: what `batch_norm` returned.

    Returns:
        (grad_x, grad_weight, grad_bias), the last two None where the parameter was None.

    Raises:
        ValueError: grad_y has not the shape of y. TypeError: it has another dtype.

    Source: Ioffe & Szegedy (2015), section 3, with the three paths of the derivation collected into one expression.
    """
    xc, inv_std, weight, axes = cache.xc, cache.inv_std, cache.weight, cache.axes
    check_grad(grad_y, xc.shape, xc.dtype)
    dtype, m = xc.dtype, max(prod(xc.shape[a] for a in axes), 1)
    scale = inv_std if weight is None else weight * inv_std

    def gradients(xc: Array, grad_y: Array, inv_std: Array, scale: Array, grad_x: Array) -> tuple[Array, Array]:
        sum_g = _sum(axes, grad_y)
        sum_g_xhat = _sum(axes, grad_y, xc) * inv_std
        if cache.training:
            np.multiply(xc, _along(xc, -sum_g_xhat * inv_std / m), out=grad_x)
            grad_x += grad_y
            grad_x -= _along(xc, sum_g / m)
            grad_x *= _along(xc, scale)
        else:
            np.multiply(grad_y, _along(grad_y, scale), out=grad_x)
        return sum_g, sum_g_xhat

    grad_x = np.empty_like(xc)
    sum_g, sum_g_xhat = in_parts(gradients, axes, xc, grad_y, inv_std, scale, grad_x)
    grad_weight = None if weight is None else sum_g_xhat.ravel().astype(dtype)
    grad_bias = sum_g.ravel().astype(dtype) if cache.has_bias else None
    return grad_x, grad_weight, grad_bias


# --- its relatives ---------------------------------------------------------------------------------------------------


@float_arrays("weight", "bias")
def layer_norm(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, NormCache]:
    r"""Normalize every example by the mean and the variance of its own features.

    The formula of `batch_norm` with μ and σ² over the last axes, those of `normalized_shape`; there is no batch in it,
    so training and evaluation are the same function.

    Args:
        x: any shape that ends in `normalized_shape`.
        normalized_shape: an integer or a tuple.
        weight, bias: γ and β, of shape `normalized_shape`, or None.
        eps: ε ≥ 0.

    Returns:
        y and the cache for `layer_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`.

    Source: Ba, Kiros & Hinton (2016), equation 3.
    """
    axes = _check_normalized_shape(x, normalized_shape, weight, bias, eps)
    return _normalize(x, weight, bias, axes, eps, x.shape)[:2]


@float_arrays()
def layer_norm_backward(grad_y: Array, cache: NormCache) -> tuple[Array, Array | None, Array | None]:
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
) -> tuple[Array, NormCache]:
    r"""Normalize every group of neighbouring channels of every example.

    The formula of `batch_norm` with μ and σ² over C / num_groups channels and all positions of one example.

    Args:
        x: (N, C) or (N, C, *), with C divisible by `num_groups`.
        num_groups: 1 takes all channels together, C takes each alone (`instance_norm`).
        weight, bias: γ and β, (C,), or None.
        eps: ε ≥ 0.

    Returns:
        y and the cache for `group_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`; channels that cannot be divided; one value in all per group.

    Source: Wu & He (2018), equations 1, 2 and 7.
    """
    check_ndim("x", x, range(2, 17), "(N, C) or (N, C, *)")
    groups = check_integer("num_groups", num_groups, at_least=1)
    n, channels, *positions = x.shape
    if channels % groups:
        raise ValueError(f"num_groups must divide the {channels} channels of x, got {groups}")
    _check_affine(weight, bias, (channels,), f"one value per channel of x, which has shape {x.shape}")
    check_number("eps", eps, at_least=0)
    if n * channels // groups * prod(positions) == 1:
        raise ValueError(f"expected more than one value per group, got x of shape {x.shape} with num_groups={groups}")
    split = x.reshape(n, groups, channels // groups, *positions)
    shared = (1, groups, channels // groups) + (1,) * len(positions)
    axes = tuple(range(2, split.ndim))
    return _normalize(split, _reshape(weight, shared), _reshape(bias, shared), axes, eps, x.shape)[:2]


@float_arrays()
def group_norm_backward(grad_y: Array, cache: NormCache) -> tuple[Array, Array | None, Array | None]:
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
) -> tuple[Array, NormCache]:
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
    check_bool("use_input_stats", use_input_stats)
    check_ndim("x", x, (3, 4, 5), "(N, C, L), (N, C, H, W) or (N, C, D, H, W)")
    _check_batch_norm(
        x,
        running_mean,
        running_var,
        weight,
        bias,
        use_input_stats,
        momentum,
        eps,
        m=prod(x.shape[2:]),
        per="image and channel",
    )
    axes = tuple(range(2, x.ndim))
    weight, bias = _per_channel(weight, x), _per_channel(bias, x)
    if not use_input_stats:
        return _by_running(x, running_mean, running_var, weight, bias, axes, eps)
    y, cache, mean, var, m = _normalize(x, weight, bias, axes, eps, x.shape)
    if running_mean is not None and x.size > 0:
        _update_running(running_mean, mean.mean(0).ravel(), momentum)
        _update_running(running_var, var.mean(0).ravel() * (m / (m - 1)), momentum)
    return y, cache


@float_arrays()
def instance_norm_backward(grad_y: Array, cache: NormCache) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `instance_norm`: (grad_x, grad_weight, grad_bias), by the formulas of `batch_norm_backward`."""
    grad_x, grad_weight, grad_bias = _backward(grad_y, cache, (0, *cache.axes))
    return grad_x, _ravel(grad_weight), _ravel(grad_bias)


@float_arrays("weight")
def rms_norm(
    x: Array, normalized_shape: int | tuple[int, ...], weight: Array | None = None, eps: float | None = None
) -> tuple[Array, NormCache]:
    r"""Divide every example by the root of the mean square of its features.

    $$ y = \gamma\,\frac{x}{\sqrt{\tfrac1m\sum x^2+\varepsilon}} $$

    Args:
        x: any shape that ends in `normalized_shape`.
        normalized_shape: an integer or a tuple.
        weight: γ, of shape `normalized_shape`, or None.
        eps: ε ≥ 0; None means the machine epsilon of x's dtype, as in torch.

    Returns:
        y and the cache for `rms_norm_backward`.

    Raises:
        ValueError, TypeError: as `batch_norm`.

    Source: Zhang & Sennrich (2019), equation 4.
    """
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    axes = _check_normalized_shape(x, normalized_shape, weight, None, eps)
    mean_square = _sum(axes, x, x) / max(prod(x.shape[a] for a in axes), 1)
    return _scale_and_shift(x, _inv_sqrt(mean_square, eps), weight, None, axes, centered=False, shape=x.shape)


@float_arrays()
def rms_norm_backward(grad_y: Array, cache: NormCache) -> tuple[Array, Array | None]:
    r"""Gradients of `rms_norm`: (grad_x, grad_weight), those of `layer_norm_backward` without the path through μ."""
    grad_x, grad_weight, _ = _backward(grad_y, cache, tuple(range(cache.axes[0])))
    return grad_x, _reshape(grad_weight, cache.xc.shape[cache.axes[0] :])


# --- what they share -------------------------------------------------------------------------------------------------


def _by_running(x, running_mean, running_var, weight, bias, axes, eps) -> tuple[Array, NormCache]:
    """Evaluation: the running statistics in the place of μ and σ²."""
    xc = x - _per_channel(running_mean, x)
    var = _per_channel(running_var, x).astype(np.float64)
    return _scale_and_shift(xc, _inv_sqrt(var, eps), weight, bias, axes, training=False, shape=x.shape)


def _scale_and_shift(xc, inv_std, weight, bias, axes, *, training=True, centered=True, shape):
    """y of a given x − μ, and the cache."""
    y = np.empty_like(xc)
    in_parts(_affine, axes, xc, inv_std, weight, bias, y)
    return y.reshape(shape), NormCache(xc, inv_std, weight, bias is not None, axes, training, centered, shape)


def _affine(xc: Array, inv_std: Array, weight: Array | None, bias: Array | None, y: Array) -> None:
    """y = γ · xc · inv_std + β in two passes over memory."""
    np.multiply(xc, _along(xc, inv_std if weight is None else weight * inv_std), out=y)
    if bias is not None:
        y += _along(xc, bias)


def _backward(grad_y: Array, cache: NormCache, shared: tuple[int, ...]) -> tuple[Array, Array | None, Array | None]:
    """The backward pass for any averaged axes; `shared` are the axes over which γ and β are shared."""
    xc, inv_std, weight, axes = cache.xc, cache.inv_std, cache.weight, cache.axes
    check_grad(grad_y, xc.shape, xc.dtype)
    dtype, m = xc.dtype, max(prod(xc.shape[a] for a in axes), 1)
    h = grad_y if weight is None else _times(grad_y, weight)
    if cache.training:
        grad_x = _times(xc, (-_sum(axes, h, xc) * inv_std**2 / m).astype(dtype))
        grad_x += h
        if cache.centered:
            grad_x -= (_sum(axes, h) / m).astype(dtype)
        grad_x *= inv_std.astype(dtype)
    else:
        grad_x = _times(h, inv_std.astype(dtype))
    grad_weight = None
    if weight is not None:
        grad_weight = _sum(shared, grad_y, xc * inv_std.astype(dtype)).astype(dtype)
    grad_bias = _sum(shared, grad_y).astype(dtype) if cache.has_bias else None
    return grad_x, grad_weight, grad_bias


def _along(x: Array, values: Array) -> Array:
    """`values`, which broadcast against x, in x's dtype; one per channel becomes an example where images are small.

    NumPy works row by row. Against a value per channel a row is one plane of one example; against an example in which
    the values are repeated it is the example: the same arithmetic in half the time, while the example stays in cache.
    """
    values = values.astype(x.dtype)
    if values.shape[0] == 1 and 1 < prod(x.shape[2:]) <= _RUN and x.strides[0] == max(x.strides):
        example = np.empty_like(x[:1])
        example[...] = values
        return example
    return values


def _times(x: Array, factor: Array) -> Array:
    """x · factor in x's memory order, from which `*` departs where a broadcast factor lies in another one."""
    return np.multiply(x, factor, out=np.empty_like(x))


def _inv_sqrt(var: Array, eps: float) -> Array:
    """1/√(σ² + ε), where ε = 0 and σ² = 0 give ∞ without a warning, as in torch."""
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(var + eps)


def _update_running(running: Array, new: Array, momentum: float) -> None:
    """Not `running + momentum * (new - running)`, in which a new value far smaller than the old one is rounded away."""
    with np.errstate(over="ignore"):  # a variance that its dtype cannot hold becomes ∞, as in torch
        running[...] = (1 - momentum) * running + momentum * new


def _per_channel(parameter: Array | None, x: Array) -> Array | None:
    return None if parameter is None else parameter.reshape((1, -1) + (1,) * (x.ndim - 2))


def _reshape(array: Array | None, shape: tuple[int, ...]) -> Array | None:
    return None if array is None else array.reshape(shape)


def _ravel(array: Array | None) -> Array | None:
    return None if array is None else array.ravel()


def _check_affine(weight, bias, shape, why) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_shape(name, value, shape, why)


def _check_normalized_shape(x, normalized_shape, weight, bias, eps) -> tuple[int, ...]:
    """Check the arguments of `layer_norm` and `rms_norm`; return the averaged axes."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    shape = tuple(check_integer("normalized_shape", n, at_least=0) for n in shape)
    if not shape:
        raise ValueError("normalized_shape must name at least one axis, got ()")
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"x has shape {x.shape}, expected one that ends in normalized_shape={shape}")
    _check_affine(weight, bias, shape, "the normalized_shape")
    check_number("eps", eps, at_least=0)
    return tuple(range(x.ndim - len(shape), x.ndim))


def _check_batch_norm(
    x, running_mean, running_var, weight, bias, training, momentum, eps, m=None, per="channel"
) -> None:
    check_ndim("x", x, (2, 3, 4, 5), "(N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W)")
    channels = x.shape[1]
    why = f"one value per channel of x, which has shape {x.shape}"
    if (running_mean is None) != (running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{missing} is None: give both running statistics or neither")
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        if value is None:
            if not training:
                raise ValueError(f"{name} is None, but evaluation normalizes by the running statistics")
            continue
        check_shape(name, value, (channels,), why)
        if training and not value.flags.writeable:
            raise ValueError(f"{name} is read-only, but training updates it in place")
    _check_affine(weight, bias, (channels,), why)
    check_number("momentum", momentum)
    if training:
        check_number("eps", eps, above=0)
        m = x.shape[0] * prod(x.shape[2:]) if m is None else m
        if m == 1:
            raise ValueError(f"expected more than one value per {per} in training, got x of shape {x.shape}")
    else:
        check_number("eps", eps)
