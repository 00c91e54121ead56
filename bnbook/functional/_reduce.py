"""Large arrays in parts, each in a thread of its own, as PyTorch does it; a NumPy function alone uses one."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

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


def in_parts(function: Callable, axes: tuple[int, ...], *arrays: np.ndarray | None) -> tuple[np.ndarray, ...] | None:
    """`function(*arrays)`, where the first array is large in parts along an axis that is not one of `axes`.

    An array that broadcasts along that axis, and None, is given to every part whole. What the function returns, arrays
    in which `axes` have length 1 or nothing, is put together again; what it writes goes into the arrays. Values that
    differ in that axis must not depend on each other: then the result is that of one part, bit by bit (in parts of
    length 1 NumPy would join other axes and add up in another order, so there are none).
    """
    whole = arrays[0]
    free = [a for a in range(whole.ndim) if a not in axes]
    axis = max(free, key=lambda a: (whole.shape[a] > 1) * abs(whole.strides[a]), default=0)
    length = whole.shape[axis] if free else 1
    parts = min(COUNT, whole.nbytes // PART, length // 2)
    if parts < 2:
        return function(*arrays)
    errors = np.geterr()  # a thread has its own

    def call(i: int):
        cut = (slice(None),) * axis + (slice(length * i // parts, length * (i + 1) // parts),)
        own = (a[cut] if a is not None and a.ndim == whole.ndim and a.shape[axis] > 1 else a for a in arrays)
        with np.errstate(**errors):
            return function(*own)

    others = [_pool(COUNT - 1).submit(call, i) for i in range(1, parts)]
    results = [call(0), *(other.result() for other in others)]
    return None if results[0] is None else tuple(np.concatenate(values, axis) for values in zip(*results, strict=True))
