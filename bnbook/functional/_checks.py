"""One voice for the errors of every function, and the rule for dtypes.

Everything is checked before anything is computed, so that an error leaves every argument as it was.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from math import prod

import numpy as np

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
AXES = 31  # at most so many: NumPy 1.26 holds one more, into which `group_norm` splits the channels


def check_float_array(name: str, value: object) -> None:
    """Refuse anything but a NumPy array of floats."""
    check_array(name, value)
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be a float16, float32 or float64 array, got dtype {value.dtype}")


def check_array(name: str, value: object) -> None:
    """Refuse anything but a NumPy array; a masked one, too, whose mask no function here would respect."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__module__}.{type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask, got a masked array: give {name}.filled(...)")


def check_dtype(name: str, value: object, x_name: str, dtype: np.dtype) -> None:
    """Refuse anything but a NumPy array of the dtype of another argument."""
    check_float_array(name, value)
    if value.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} like {x_name}, got {value.dtype}")


def check_shape(name: str, value: np.ndarray, expected: tuple[int, ...], why: str) -> None:
    if value.shape != expected:
        raise ValueError(f"{name} has shape {value.shape}, expected {expected}: {why}")


def check_ndim(name: str, value: np.ndarray, accepted: Sequence[int], layout: str) -> None:
    if value.ndim not in accepted:
        raise ValueError(f"{name} has shape {value.shape}, expected {layout}")


def check_grad(grad_y: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """The upstream gradient has the shape and the dtype of the output it belongs to; it is never broadcast."""
    check_shape("grad_y", grad_y, tuple(shape), "the shape of the output")
    if grad_y.dtype != dtype:
        raise TypeError(f"grad_y must be {dtype} like the output, got {grad_y.dtype}")


def check_cache(cache: object, kind: type, name: str) -> None:
    """Refuse anything but a cache of the function `name`, whose caches are of a `kind` of their own."""
    if not isinstance(cache, kind):
        raise TypeError(f"cache must be the cache that {name} returned, got {type(cache).__name__}")


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_number(name: str, value: object, *, above: float | None = None, at_least: float | None = None) -> None:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be greater than {above}, got {value}")
    if at_least is not None and not value >= at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")


def check_integer(name: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def check_one_of(name: str, value: object, accepted: Collection[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")


def pair(name: str, value: object, *, at_least: int) -> tuple[int, int]:
    """An integer for both image axes, or a pair of them: 3 means (3, 3)."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an integer or a pair of integers, got {value!r}")
    return check_integer(name, values[0], at_least=at_least), check_integer(name, values[1], at_least=at_least)


# --- the arguments of the normalizations -----------------------------------------------------------------------------


def check_batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps) -> None:
    check_bool("training", training)
    check_ndim("x", x, (2, 3, 4, 5), "(N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W)")
    _check_statistics(x, running_mean, running_var, training)
    check_affine(weight, bias, x.shape[1:2], _per_channel_of(x))
    _check_training(x, training, momentum, eps, m=x.shape[0] * prod(x.shape[2:]), per="channel")


def check_instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps) -> None:
    check_bool("use_input_stats", use_input_stats)
    check_ndim("x", x, (3, 4, 5), "(N, C, L), (N, C, H, W) or (N, C, D, H, W)")
    _check_statistics(x, running_mean, running_var, use_input_stats)
    check_affine(weight, bias, x.shape[1:2], _per_channel_of(x))
    _check_training(x, use_input_stats, momentum, eps, m=prod(x.shape[2:]), per="image and channel")


def check_normalized_shape(x, normalized_shape, weight, bias, eps) -> tuple[int, ...]:
    """Check the arguments of `layer_norm` and `rms_norm`; return the averaged axes."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    shape = tuple(check_integer("normalized_shape", n, at_least=0) for n in shape)
    _check_axes(x)
    if not shape:
        raise ValueError("normalized_shape must name at least one axis, got ()")
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"x has shape {x.shape}, expected one that ends in normalized_shape={shape}")
    check_affine(weight, bias, shape, "the normalized_shape")
    check_number("eps", eps, at_least=0)
    return tuple(range(x.ndim - len(shape), x.ndim))


def check_group_norm(x, num_groups, weight, bias, eps) -> int:
    """Check the arguments of `group_norm`; return the number of groups as a plain integer."""
    _check_axes(x)
    check_ndim("x", x, range(2, AXES + 1), "(N, C) or (N, C, *)")
    groups, channels = check_integer("num_groups", num_groups, at_least=1), x.shape[1]
    if channels % groups:
        raise ValueError(f"num_groups must divide the {channels} channels of x, got {groups}")
    check_affine(weight, bias, x.shape[1:2], _per_channel_of(x))
    check_number("eps", eps, at_least=0)
    if x.size // groups == 1:
        raise ValueError(f"expected more than one value per group, got x of shape {x.shape} with num_groups={groups}")
    return groups


def check_affine(weight: np.ndarray | None, bias: np.ndarray | None, shape: tuple[int, ...], why: str) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            check_shape(name, value, shape, why)


def _check_axes(x) -> None:
    if x.ndim > AXES:
        raise ValueError(f"x has {x.ndim} axes, expected at most {AXES}")


def _check_statistics(x, running_mean, running_var, training: bool) -> None:
    if (running_mean is None) != (running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{missing} is None: give both running statistics or neither")
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        if value is None:
            if not training:
                raise ValueError(f"{name} is None, but evaluation normalizes by the running statistics")
            continue
        check_shape(name, value, x.shape[1:2], _per_channel_of(x))
        if training and not value.flags.writeable:
            raise ValueError(f"{name} is read-only, but training updates it in place")


def _check_training(x, training: bool, momentum, eps, m: int, per: str) -> None:
    check_number("momentum", momentum)
    if training:
        check_number("eps", eps, above=0)
        if m == 1:
            raise ValueError(f"expected more than one value per {per} in training, got x of shape {x.shape}")
    else:
        check_number("eps", eps)


def _per_channel_of(x) -> str:
    return f"one value per channel of x, which has shape {x.shape}"


# --- the rule for dtypes ---------------------------------------------------------------------------------------------


def float_arrays(*names: str) -> Callable:
    """Decorate a function of arrays with the dtype rule of the package.

    The first argument is an array of floats; every argument in `names` is None or an array of the same dtype. float16
    is computed in float32 and the results are rounded to float16 once, at the end; arguments that the function
    updates in place (running statistics) receive their rounded new values. A cache stays in float32 and is marked
    `half`.
    """

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        first = next(iter(signature.parameters))

        @functools.wraps(function)
        def checked(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            check_float_array(first, given[first])
            dtype = given[first].dtype
            for name in names:
                if given.get(name) is not None:
                    check_dtype(name, given[name], first, dtype)
            if dtype != np.float16:
                return function(*args, **kwargs)
            wide = {
                name: value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float16 else value
                for name, value in given.items()
            }
            for name in names:  # read-only stays read-only, so that the function can refuse to update it
                if given.get(name) is not None:
                    wide[name].flags.writeable = given[name].flags.writeable
            result = function(**wide)
            with np.errstate(over="ignore"):  # a statistic that float16 cannot hold becomes ∞, as in torch
                for name in names:
                    if name.startswith("running_") and given.get(name) is not None and given[name].flags.writeable:
                        given[name][...] = wide[name]
            return _to_half(result)

        return checked

    return decorate


def backward_of(name: str, kind: type) -> Callable:
    """Decorate the backward function of the function `name` with the same rule.

    grad_y is an array of the dtype of the output, and the cache one of the `kind` that only `name` returns.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(grad_y, cache, **options):
            check_float_array("grad_y", grad_y)
            check_cache(cache, kind, name)
            if not cache.half:  # the function compares the dtypes
                return function(grad_y, cache, **options)
            check_dtype("grad_y", grad_y, "the output", np.dtype(np.float16))
            return _to_half(function(grad_y.astype(np.float32), cache, **options))

        return checked

    return decorate


def _to_half(result):
    if isinstance(result, np.ndarray | np.float32):
        return result.astype(np.float16)
    if type(result) is tuple:
        return tuple(None if part is None else _to_half(part) for part in result)
    return result._replace(half=True)  # a cache stays as it was computed
