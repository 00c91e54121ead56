"""What makes the normalizations exact and fast, out of sight of their formulas.

Exact: σ² comes from x − μ, and long sums are in float64. Fast: no more passes over memory than the formulas need, in
x's memory order, which every result keeps, and a large array in parts, each in a thread of its own, as in PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, lru_cache, partial
from math import prod
from string import ascii_letters
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Array = np.ndarray

# --- sums over the averaged axes -------------------------------------------------------------------------------------

RUN = 4096  # at most so many values are added up in x's own precision, the sums of such runs in float64


def count(x: Array, axes: tuple[int, ...]) -> int:
    """m, the number of values that share a statistic; 1 where there is none, so that their sum, 0, can be divided."""
    return max(prod(x.shape[a] for a in axes), 1)


def total(axes: tuple[int, ...], *operands: Array) -> Array:
    """Σ of an array, or of the product of two, over `axes`, which are kept with length 1. Float64.

    `einsum` reads each operand once, in any memory order, and makes no temporary for the product: it adds up the last
    of the axes, as many as hold RUN values at most. Where the last one alone is longer it adds nothing up: the product
    is then a temporary, and all its values are added in float64.
    """
    subscripts, outer, shape = _plan(operands[0].shape, axes, len(operands))
    return np.einsum(subscripts, *operands).sum(axis=outer, dtype=np.float64).reshape(shape)


@lru_cache(maxsize=512)
def _plan(shape: tuple[int, ...], axes: tuple[int, ...], operands: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    inner = list(axes)
    while inner and prod(shape[a] for a in inner) > RUN:
        inner.pop(0)
    letters = ascii_letters[: len(shape)]
    kept = [a for a in range(len(shape)) if a not in inner]
    subscripts = ",".join([letters] * operands) + "->" + "".join(letters[a] for a in kept)
    outer = tuple(i for i, a in enumerate(kept) if a in axes)
    return subscripts, outer, tuple(1 if a in axes else n for a, n in enumerate(shape))


def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """μ, x − μ and σ², the first and the last in float64 with `axes` of length 1.

    Two passes: x − μ comes first and σ² from it, so that σ² survives a mean far larger than σ (Chan, Golub & LeVeque
    1983). Sums in float32 will do while |μ| ≤ 10 σ and nothing overflows; beyond that, a constant channel included,
    their rounding would show in x − μ, and everything is computed in float64.
    """
    xc = np.empty_like(x)
    mean, var = in_parts(partial(_center, axes), axes, x, xc)
    if x.dtype == np.float32 and ((mean * mean > 100 * var) | ~np.isfinite(var)).any():
        xc = x.astype(np.float64)
        mean, var = in_parts(partial(_center, axes), axes, xc, xc)
        xc = xc.astype(np.float32)
    return mean, xc, var


def _center(axes: tuple[int, ...], x: Array, xc: Array) -> tuple[Array, Array]:
    m = count(x, axes)
    mean = total(axes, x) / m
    np.subtract(x, _along(x, mean), out=xc)
    return mean, total(axes, xc, xc) / m


def totals(g: Array, xc: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Σ g and Σ g (x − μ): the two sums of every backward pass, one after the other while g is at hand."""
    return in_parts(lambda xc, g: (total(axes, g), total(axes, g, xc)), axes, xc, g)


# --- arithmetic with few numbers and many, in the dtype and the memory order of the many -----------------------------


def inv_sqrt(var: Array, eps: float) -> Array:
    """1/√(σ² + ε) in float64, where ε = 0 and σ² = 0 give ∞ without a warning, as in torch."""
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(var.astype(np.float64) + eps)


def per_channel(parameter: Array | None, x: Array) -> Array | None:
    """One value per channel, (C,), in a shape that broadcasts against x, (N, C, *)."""
    return None if parameter is None else parameter.reshape((1, -1) + (1,) * (x.ndim - 2))


def minus(x: Array, values: Array) -> Array:
    """x − values."""
    out = np.empty_like(x)
    in_parts(_minus, (), x, values, out)
    return out


def _minus(x: Array, values: Array, out: Array) -> None:
    np.subtract(x, _along(x, values), out=out)


def scale_and_shift(
    x: Array, scale: Array, weight: Array | None = None, bias: Array | None = None, *, like: Array | None = None
) -> Array:
    """weight · scale · x + bias, where `like` is given in its memory order; the small factors are multiplied first."""
    y = np.empty_like(x if like is None else like)
    in_parts(_scale_and_shift, (), x, scale, weight, bias, y)
    return y


def _scale_and_shift(x: Array, scale: Array, weight: Array | None, bias: Array | None, y: Array) -> None:
    np.multiply(x, _along(x, scale if weight is None else weight * scale), out=y)
    if bias is not None:
        y += _along(x, bias)


def residual(scale: Array, g: Array, mean: Array | None, slope: Array, xc: Array) -> Array:
    """scale · (g − mean − slope · xc): what is left of g without its mean (None: 0) and its part along xc."""
    out = np.empty_like(xc)
    in_parts(_residual, (), xc, scale, g, mean, slope, out)
    return out


def _residual(xc: Array, scale: Array, g: Array, mean: Array | None, slope: Array, out: Array) -> None:
    np.multiply(xc, _along(xc, -slope), out=out)
    out += g
    if mean is not None:
        out -= _along(xc, mean)
    out *= _along(xc, scale)


def _along(x: Array, values: Array) -> Array:
    """`values`, which broadcast against x, in x's dtype; one per channel becomes an example where images are small.

    NumPy works row by row. Against a value per channel a row is one plane of one example; against an example in which
    the values are repeated it is the example: the same arithmetic in half the time, while the example stays in cache.
    """
    values = values.astype(x.dtype)
    if values.shape[0] == 1 and 1 < prod(x.shape[2:]) <= RUN and x.strides[0] == max(x.strides):
        example = np.empty_like(x[:1])
        example[...] = values
        return example
    return values


# --- threads ---------------------------------------------------------------------------------------------------------

PART = 2**20  # bytes: in smaller parts a thread costs more than it saves


def _allowed() -> int:
    """`OMP_NUM_THREADS`, which BLAS and PyTorch obey too, else the processors of this process."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if said.isdigit() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


COUNT = _allowed()


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # not needed by who has small arrays only

    return ThreadPoolExecutor(size, thread_name_prefix="bnbook")


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_parts(function: Callable, axes: tuple[int, ...], *arrays: Array | None) -> tuple[Array, ...] | None:
    """`function(*arrays)`, where the first array is large in parts along an axis that is not one of `axes`.

    An array that broadcasts along that axis, and None, is given to every part whole. What the function returns, arrays
    in which `axes` have length 1 or nothing, is put together again; what it writes goes into the arrays. Values that
    differ in that axis must not depend on each other: then the result is that of one part, bit by bit (in parts of
    length 1 NumPy would join other axes and add up in another order, so there are none).
    """
    whole = arrays[0]
    parts = min(COUNT, whole.nbytes // PART)
    if parts < 2:
        return function(*arrays)
    free = [a for a in range(-whole.ndim, 0) if a + whole.ndim not in axes]  # from the end, as arrays broadcast
    axis = max(free, key=lambda a: (whole.shape[a] > 1) * abs(whole.strides[a]), default=0)
    length = whole.shape[axis] if free else 1
    parts = min(parts, length // 2)
    if parts < 2:
        return function(*arrays)
    errors = np.geterr()  # a thread has its own

    def call(i: int):
        cut = (..., slice(length * i // parts, length * (i + 1) // parts), *(slice(None),) * (-axis - 1))
        own = (a[cut] if a is not None and a.ndim >= -axis and a.shape[axis] > 1 else a for a in arrays)
        with np.errstate(**errors):
            return function(*own)

    others = [_pool(COUNT - 1).submit(call, i) for i in range(1, parts)]
    results = [call(0), *(other.result() for other in others)]
    return None if results[0] is None else tuple(np.concatenate(values, axis) for values in zip(*results, strict=True))
