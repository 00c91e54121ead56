"""One voice for the errors of every function, and the rule for dtypes.

Everything is checked before anything is computed, so that an error leaves every argument as it was.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

import numpy as np

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def check_float_array(name: str, value: object) -> None:
    """Refuse anything but a NumPy array of floats."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__module__}.{type(value).__name__}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be a float16, float32 or float64 array, got dtype {value.dtype}")


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


def pair(name: str, value: object, *, at_least: int) -> tuple[int, int]:
    """An integer for both image axes, or a pair of them: 3 means (3, 3)."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be an integer or a pair of integers, got {value!r}")
    return check_integer(name, values[0], at_least=at_least), check_integer(name, values[1], at_least=at_least)


def float_arrays(*names: str) -> Callable:
    """Decorate a function of arrays with the dtype rule of the package.

    The first argument is an array of floats; every argument in `names` is None or an array of the same dtype. float16
    is computed in float32 and the results are rounded to float16 once, at the end; arguments that the function
    updates in place (running statistics) receive their rounded new values.
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
            for name in names:
                if name.startswith("running_") and given.get(name) is not None and given[name].flags.writeable:
                    given[name][...] = wide[name]
            return _to_half(result)

        return checked

    return decorate


def _to_half(result):
    if isinstance(result, np.ndarray | np.float32):
        return result.astype(np.float16)
    if type(result) is tuple:
        return tuple(None if part is None else _to_half(part) for part in result)
    return result  # a cache stays as it was computed
