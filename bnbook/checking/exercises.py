"""The exercises' checkers: `check("ch02.normalize", answer)` says whether an answer holds on random cases.

The checkers of a chapter live in one file, `chapters/chNN.py`. A checker draws its cases anew each time, so that an
answer that only fits the example on the page is found out.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

_CHECKERS: dict[str, Callable[[Any, np.random.Generator], None]] = {}
_ASKED: dict[str, Asked] = {}


class Asked(NamedTuple):
    """What an exercise asks for: the name of a function, or of a value."""

    name: str
    value: bool = False


class Checked:
    """What a check found. `passed` is True, False, or None for an exercise that was not attempted.

    `error` is what the answer raised, where it did.
    """

    def __init__(self, exercise: str, passed: bool | None, message: str, error: Exception | None = None) -> None:
        self.exercise, self.passed, self.message, self.error = exercise, passed, message, error

    def __repr__(self) -> str:
        return f"{self.exercise}: {self.message}"


class Wrong(Exception):
    """Raised by a checker: says what is wrong with an answer, in a sentence that helps."""


class _NotAttempted(Exception):
    pass


def checker(exercise: str, name: str = "", value: bool = False) -> Callable:
    """Register a function `(answer, rng)` that raises `Wrong` unless the answer holds.

    `name` is what the exercise calls the answer, where it is not the last part of `exercise`; with `value` it is a
    value, not a function.
    """

    def register(function: Callable[[Any, np.random.Generator], None]) -> Callable:
        _CHECKERS[exercise] = function
        _ASKED[exercise] = Asked(name or exercise.partition(".")[2], value)
        return function

    return register


def check(exercise: str, answer: Any) -> Checked:
    """Check an answer, a function or a value, on random cases.

    A stub, `NotImplemented` or a function that returns it, is "not attempted". An answer that raises is "not yet".

    Raises:
        ValueError: there is no such exercise.
        ModuleNotFoundError: a package that the exercise, or the answer, needs is not installed.
    """
    chapter = exercise.partition(".")[0]
    try:
        importlib.import_module(f"{__package__}.chapters.{chapter}")
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.chapters.{chapter}":  # the chapter is there, a package that it needs is not
            raise
    if exercise not in _CHECKERS:
        known = ", ".join(sorted(name for name in _CHECKERS if name.startswith(chapter))) or "none in this chapter"
        raise ValueError(f"there is no exercise {exercise!r}; known: {known}")
    try:
        _CHECKERS[exercise](_watched(answer), np.random.default_rng())
    except _NotAttempted:
        return Checked(exercise, None, "not attempted")
    except Wrong as wrong:
        return Checked(exercise, False, f"not yet. {wrong}")
    except ModuleNotFoundError:
        raise  # what is missing is a package, not an answer
    except Exception as error:
        return Checked(exercise, False, f"not yet. Your answer raised {type(error).__name__}: {error}", error)
    return Checked(exercise, True, "correct")


def _watched(answer: Any) -> Any:
    """The answer, where a call that returns NotImplemented or changes its arguments is noticed."""
    if answer is NotImplemented:
        raise _NotAttempted
    if not callable(answer):
        return answer

    def call(*args: Any, **kwargs: Any) -> Any:
        arrays = [value for value in (*args, *kwargs.values()) if isinstance(value, np.ndarray)]
        before = [value.copy() for value in arrays]
        result = answer(*args, **kwargs)
        if result is NotImplemented:
            raise _NotAttempted
        for value, copy in zip(arrays, before, strict=True):
            if not np.array_equal(value, copy, equal_nan=True):
                raise Wrong("Your function changed the array it was given; work on a copy.")
        return result

    return call


def same(
    got: Any,
    expected: Any,
    what: str,
    *,
    tol: float = 1e-8,
    hint: str = "",
    mistakes: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Raise `Wrong` unless `got` has the shape of `expected` and its values up to `tol` times their scale.

    Args:
        hint: ends the message, unless the mistake is recognized.
        mistakes: of known mistakes, what to say and the result that each gives.
    """
    expected = np.asarray(expected)
    if got is None:
        raise Wrong(f"{what} is None: did you forget to return it?")
    try:
        array = np.asarray(got, dtype=expected.dtype if expected.dtype.kind in "fc" else None)
    except (TypeError, ValueError):
        raise Wrong(f"{what} should be an array of shape {expected.shape}, got {type(got).__name__}.") from None
    if array.dtype.kind not in "biufc":
        raise Wrong(f"{what} should be an array of numbers, got dtype {array.dtype}.")
    if _agree(array, expected, tol):
        return
    hint = recognized(array, mistakes, tol=tol) or _in_general(array, expected, tol) or hint
    if array.shape != expected.shape:
        raise Wrong(f"{what} should have shape {expected.shape}, got {array.shape}. {hint}".rstrip())
    raise Wrong(f"{what} is {_short(array)}, expected {_short(expected)}. {hint}".rstrip())


def recognized(got: Any, mistakes: Mapping[str, Any], hint: str = "", *, tol: float = 1e-8) -> str:
    """What to say of a wrong result: the words of the one known mistake that gives it; `hint` for none or several."""
    try:
        array = np.asarray(got, dtype=float)
    except (TypeError, ValueError):
        return hint
    found = [words for words, result in mistakes.items() if _agree(array, np.asarray(result, dtype=float), tol)]
    return found[0] if len(found) == 1 else hint


def _agree(array: np.ndarray, expected: np.ndarray, tol: float) -> bool:
    if array.shape != expected.shape:
        return False
    if not np.isfinite(expected).all():
        return bool(np.array_equal(array, expected, equal_nan=True))
    scale = max(float(np.max(np.abs(expected), initial=0)), 1e-12)
    difference = array ^ expected if array.dtype == expected.dtype == bool else np.abs(array - expected)
    return bool(np.isfinite(array).all() and np.max(difference, initial=0) <= tol * scale)


def _in_general(array: np.ndarray, expected: np.ndarray, tol: float) -> str:
    """The mistakes that are the same in every exercise."""
    if array.shape != expected.shape:
        if array.ndim == 2 and _agree(array.T, expected, tol):
            return "It is transposed."
        return "The values are right." if _agree(array.ravel(), expected.ravel(), tol) else ""
    if array.dtype == bool or not np.any(expected):
        return ""
    if _agree(-array, expected, tol):
        return "The sign is wrong."
    ratio = np.vdot(expected, array) / np.vdot(expected, expected)
    if expected.size > 2 and ratio != 0 and abs(ratio - 1) > 0.01 and _agree(array, ratio * expected, tol):
        return f"Every value is {ratio:.4g} times what it should be."
    return ""


def one_change(answer: Any, base: Mapping[str, Any], **example: Any) -> tuple[str, Any]:
    """The name and value of the one setting of `base` that an answer, or what it returns, changes; else `Wrong`."""
    change = answer() if callable(answer) else answer
    if not isinstance(change, Mapping) or len(change) != 1 or not change.keys() <= base.keys():
        raise Wrong(f"Return one changed setting, such as {example}, of {', '.join(base)}; got {change!r}.")
    ((name, value),) = change.items()
    if value == base[name]:
        raise Wrong(f"{name} is {value!r} already: change it.")
    return name, value


def positive(name: str, value: Any) -> None:
    """Raise `Wrong` unless the value is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise Wrong(f"The value of {name!r} must be a positive number, got {value!r}.")


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """PyTorch in one thread (more are slower with small matrices) and from a seed; both are put back afterwards."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def finds_faults(
    answer: Callable, rng: np.random.Generator, report: Callable, known: Collection[str], share: float, reports: int
) -> None:
    """Raise `Wrong` unless `answer` gives the set of faults of every report that `report(rng, faults)` makes up."""
    for _ in range(reports):  # many: some faults show in few of them
        faults = {fault for fault in known if rng.random() < share}
        got = answer(report(rng, faults))
        if isinstance(got, str) or not isinstance(got, Collection) or not set(got) <= set(known):
            raise Wrong(f"Return a set of faults among {', '.join(map(repr, known))}, got {got!r}.")
        if wrongly := set(got) - faults:
            raise Wrong(f"A report without the fault {min(wrongly)!r} was said to have it.")
        if missed := faults - set(got):
            raise Wrong(f"The fault {min(missed)!r} of a report was not found.")


def _short(array: np.ndarray) -> str:
    text = np.array2string(array.ravel()[:5], precision=4, separator=", ")
    return text if array.size <= 5 else f"{text[:-1]}, …]"
