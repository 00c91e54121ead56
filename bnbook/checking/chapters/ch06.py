"""Checkers of chapter 6, tests that can fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import wrong
from ..bugs import BUGS
from ..compare import max_difference
from ..exercises import Wrong, checker, recognized

Array = np.ndarray

# --- find the bug ----------------------------------------------------------------------------------------------------

HIDDEN, SHOWN = 1e-4, 1e-2  # relative to the size of the results: less is hidden, more is shown
MOST_VALUES, MOST_STEPS = 1_000_000, 500
POSITIVE = ("var", "running_var", "eps")
NOT_ZERO = ("weight", "gamma")
PER_CHANNEL = ("weight", "bias", "mean", "var", "running_mean", "running_var", "gamma", "beta")


class Clue(NamedTuple):
    """What a bug is given, and what helps when an input does not do what it should."""

    arguments: tuple[str, ...]  # () for a script
    hides: str
    shows: str


_X, _GX = ("x",), ("g", "x")
_UPDATE = ("running_mean", "running_var", "mean", "var", "m", "momentum")

CLUES: dict[int, Clue] = {
    1: Clue(
        _X,
        "Look at the axes that are averaged: for which images would they be enough?",
        "Pixels of one channel have to differ in their statistics.",
    ),
    2: Clue(
        _X,
        "By what factor do the outputs differ, for m values a channel?",
        "The factor is the farther from 1, the fewer values there are.",
    ),
    3: Clue(
        _X,
        "ε must not matter, wherever it stands.",
        "ε has to matter: make the deviation of a channel small.",
    ),
    4: Clue(
        ("x", "weight", "bias"),
        "For which γ or β is γ(x̂ + β) the same as γx̂ + β?",
        "Neither may have the value that it has in a new layer.",
    ),
    5: Clue(
        _X,
        "Both terms of the variance have to be of its own size.",
        "Two nearly equal numbers are subtracted, in float32: make them large beside their difference.",
    ),
    6: Clue(
        _UPDATE,
        "For which momentum does it not matter which of the two it weighs?",
        "Old and new statistics have to differ, and their two weights as well.",
    ),
    7: Clue(
        _UPDATE,
        "The factor m/(m − 1) must not matter.",
        "The factor m/(m − 1) has to be far from 1, and the new value has to have a say.",
    ),
    8: Clue(
        (*_GX, "weight"),
        "What comes through μ is the mean of g, what comes through σ² its mean product with x̂: both must vanish.",
        "An upstream gradient without a mean and without x̂ in it hides it.",
    ),
    9: Clue(
        (*_GX, "weight", "bias"),
        "When is y the same as x̂?",
        "γ and β must not be those of a new layer.",
    ),
    10: Clue(
        (*_GX, "weight"),
        "γ is in one of three terms: when does that not matter?",
        "γ must not be that of a new layer.",
    ),
    11: Clue(
        _GX,
        "When are the sum and the mean of more than one number the same?",
        "The upstream gradient needs a mean.",
    ),
    12: Clue(
        (),
        "Evaluation moves the running statistics: with which batch do they stay?",
        "Evaluate a batch of another mean or spread.",
    ),
    13: Clue(
        (),
        "What was saved must not have changed when it is loaded.",
        "Something has to change the layer between saving and loading.",
    ),
    14: Clue(
        ("weight", "bias", "running_mean", "running_var", "gamma", "beta"),
        "The bias of the linear layer should be scaled by a: when is that the same?",
        "There has to be a bias in front, and a has to be far from 1.",
    ),
}


def _pair(answer: Any) -> tuple[Any, Any]:
    got = answer() if callable(answer) else answer
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"Return two inputs, one that hides the mistake and one that shows it; got {type(got).__name__}.")
    return got[0], got[1]


def _arguments(given: Any, clue: Clue, which: str) -> dict[str, Any]:
    """The arguments of one call, checked: numbers that a layer could meet."""
    if not isinstance(given, Mapping) or not set(clue.arguments) <= set(given) <= {*clue.arguments, "eps"}:
        wanted = ", ".join(f'"{name}": …' for name in clue.arguments)
        raise Wrong(f"The {which} input should be a dictionary {{{wanted}}}; ε may be given as well.")
    checked: dict[str, Any] = {}
    for name, value in given.items():
        try:
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            raise Wrong(f"{name} of the {which} input should be numbers, got {type(value).__name__}.") from None
        if not np.isfinite(array).all() or not 0 < array.size <= MOST_VALUES:
            raise Wrong(f"{name} of the {which} input should be at most a million finite numbers.")
        checked[name] = array
    _each(checked, clue, which)
    return checked


def _each(given: dict[str, Any], clue: Clue, which: str) -> None:
    """Raise `Wrong` where an argument is none that a layer could meet, or hides everything."""
    if "x" in given:
        x = given["x"]
        shape = "(N, C, H, W)" if clue is CLUES[1] else "(N, C)"
        if x.ndim != shape.count(",") + 1 or len(x) < 3:
            raise Wrong(f"x of the {which} input should have shape {shape}, with three examples or more.")
        if np.any(np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).std(axis=1) <= 1e-12 * np.abs(x).max()):
            raise Wrong(f"A channel of the {which} x is constant: that hides everything. Let its values differ.")
    if "g" in given:
        if given["g"].shape != given["x"].shape:
            raise Wrong(f"g of the {which} input should have the shape of x.")
        if not np.any(given["g"], axis=0).all():
            raise Wrong(f"g of the {which} input is zero in a channel: that hides everything.")
    if "m" in given:
        m = given["m"]
        if m.ndim or m != int(m) or m < 2:
            raise Wrong(f"m of the {which} input should be a whole number from 2 on, got {m}.")
    if "momentum" in given and (given["momentum"].ndim or not 0 < given["momentum"] < 1):
        raise Wrong(f"momentum of the {which} input should lie between 0 and 1, got {given['momentum']}.")
    fold = "gamma" in given  # there `weight` is that of a linear layer
    shapes = {given[name].shape for name in PER_CHANNEL if name in given and not (fold and name == "weight")}
    if len(shapes) > 1:
        raise Wrong(f"The values for each channel of the {which} input should have one shape (C,).")
    if fold and (given["weight"].ndim != 2 or {given["weight"].shape[:1]} != shapes):
        raise Wrong(f"weight of the {which} input should have shape (out, in), the others (out,).")
    if "x" in given and not shapes <= {given["x"].shape[1:2]}:
        raise Wrong(f"weight and bias of the {which} input should have shape (C,).")
    for name in POSITIVE:
        if name in given and np.any(given[name] <= 0):
            raise Wrong(f"{name} of the {which} input should be positive.")
    for name in NOT_ZERO:
        if name in given and not (fold and name == "weight") and np.any(given[name] == 0):
            raise Wrong(f"A {name} of 0 in the {which} input hides everything.")


def _script(given: Any, which: str, saves: bool) -> list[tuple]:
    """The steps of a script, checked."""
    if not isinstance(given, list | tuple) or not all(isinstance(step, tuple | list) and step for step in given):
        raise Wrong(f'The {which} script should be a list of steps such as ("train", x), got {type(given).__name__}.')
    if len(given) > MOST_STEPS:
        raise Wrong(f"The {which} script has more than {MOST_STEPS} steps.")
    for step in given:
        if step[0] in ("train", "eval"):
            x = np.asarray(step[1] if len(step) == 2 else 0, dtype=float)
            if x.ndim != 2 or x.shape[1] != 2 or len(x) < 3 or not np.isfinite(x).all() or np.any(np.ptp(x, 0) == 0):
                raise Wrong(f"A batch of the {which} script should be (N, 2), three rows or more, no column constant.")
    kinds = [step[0] for step in given]
    if saves and not ("save" in kinds and "load" in kinds and "eval" in kinds[kinds.index("load") :]):
        raise Wrong(f"The {which} script should save, load, and evaluate after that.")
    if not saves and not ("train" in kinds and "eval" in kinds):
        raise Wrong(f"The {which} script should train and evaluate.")
    return [tuple(step) for step in given]


def _apart(number: int, given: Any) -> float:
    """How far the wrong results are from the right ones, relative to the size of what is added up in them."""
    call = (lambda f: f(given)) if number in (12, 13) else (lambda f: f(**given))
    with np.errstate(all="ignore"):
        right, got = call(BUGS[number].right), call(BUGS[number].wrong)
        if isinstance(right, np.ndarray):
            right, got = (right,), (got,)
        largest = 0.0
        for a, b in zip(got, right, strict=True):
            if np.shape(a) != np.shape(b):
                return math.inf
            difference = max_difference(a, b, _scale(number, given, b))
            largest = max(largest, math.inf if math.isnan(difference) else difference)
    return largest


def _scale(number: int, given: Any, result: Array) -> float | None:
    """Of gradients, which may cancel: the size of their parts."""
    if number not in (8, 9, 10, 11):
        return None
    g, x = given["g"], given["x"]
    if np.shape(result) == x.shape:
        return float(np.max(np.abs(given["weight"]) / np.sqrt(x.var(axis=0) + 1e-5)) * np.abs(g).max())
    return float(np.abs(g).sum(axis=0).max())


def _find(number: int) -> Callable[[Any, np.random.Generator], None]:
    def find(answer, rng) -> None:
        clue = CLUES[number]
        given = _pair(answer)
        if clue.arguments:
            given = [_arguments(part, clue, which) for part, which in zip(given, ("first", "second"), strict=True)]
        else:
            given = [_script(part, which, number == 13) for part, which in zip(given, ("first", "second"), strict=True)]
        hides, shows = (_apart(number, part) for part in given)
        if hides > HIDDEN and shows < HIDDEN:
            raise Wrong("They are exchanged: the first should hide the mistake, the second show it.")
        if hides > HIDDEN:
            raise Wrong(f"The first input does not hide it: {_size(hides)}. {clue.hides}")
        if shows < SHOWN:
            raise Wrong(f"The second input does not show it: {_size(shows)}. {clue.shows}")

    find.__doc__ = f"""`answer()` is an input that hides mistake {number} and one that shows it."""
    return find


def _size(difference: float) -> str:
    if difference < 1e-12:
        return "the results are the same"
    return "the results are " + ("far" if difference > 1 else f"{difference:.2g} of their size") + " apart"


for _number in BUGS:
    checker(f"ch06.bug{_number}")(_find(_number))


# --- the others ------------------------------------------------------------------------------------------------------


@checker("ch06.largest_m")
def largest_m(answer, rng) -> None:
    """`answer(tolerance)` is the m from which on m − 1 for m goes unnoticed, at ε = 0."""
    for tolerance in (*10 ** rng.uniform(-6, -1, 4), 0.3):
        tolerance = float(tolerance)
        expected = 1 / (1 - (1 - tolerance) ** 2)
        try:
            got = float(answer(tolerance))
        except TypeError:
            raise Wrong("Return a number.") from None
        if not abs(got - expected) <= 1e-6 * expected:
            hint = recognized(
                got,
                {
                    "That is the ratio of the variances: the outputs are divided by its root.": 1 / tolerance,
                    "That is for small tolerances; no approximation is needed.": 1 / (2 * tolerance),
                    "The difference is measured against the right output.": 1 / (1 - (1 + tolerance) ** -2),
                    "One less, or one more.": expected + 1,
                },
                tol=1e-6,
            )
            raise Wrong(f"For the tolerance {tolerance:.3g} m should be {expected:.6g}, got {got:.6g}. {hint}".rstrip())


@checker("ch06.quiet_std")
def quiet_std(answer, rng) -> None:
    """`answer(eps)` is the deviation at which ε outside the root changes the output most."""
    for eps in 10 ** rng.uniform(-7, -3, 4):
        eps = float(eps)
        try:
            std = float(answer(eps))
        except TypeError:
            raise Wrong("Return a number.") from None
        if not 0 < std < math.inf:
            raise Wrong(f"A deviation is positive, got {std}.")

        def change(s, eps=eps):
            return np.abs(s / (s + eps) - s / np.sqrt(s * s + eps))

        grid = np.logspace(-9, 2, 4000)
        most, best = float(change(grid).max()), float(grid[change(grid).argmax()])
        if change(std) < 0.97 * most:
            known = {
                "There σ² is ε, and ε begins to matter where it belongs; the mistake shows most farther down.": eps
                ** 0.5,
                "There σ is ε: then also the wrong one halves the output.": eps,
                "That is an ordinary spread, and ε plays no part there.": 1.0,
            }
            hint = recognized(std, known, tol=1e-6) or f"It is {'smaller' if std > best else 'larger'}."
            raise Wrong(
                f"For ε = {eps:.2g} a deviation of {std:.2g} changes the output by {change(std):.2g}, "
                f"another one by {most:.2g}. {hint}"
            )


def _variants() -> list[Callable]:
    """Right backward passes: the formula, another order of the sums, and the last digits wrong."""

    def reordered(g, x, weight, bias, eps):
        xc = x - x.mean(axis=0)
        var = (xc * xc).sum(axis=0) / len(x)
        g_hat, std = g * weight, np.sqrt(var + eps)
        grad_var = -0.5 * (g_hat * xc).sum(axis=0) / std**3
        grad_x = g_hat / std + grad_var * 2 * xc / len(x)
        return grad_x - grad_x.mean(axis=0), (g * xc / std).sum(axis=0), g.sum(axis=0)

    def rounded(*arguments):
        return tuple(part * (1 + 1e-12) for part in wrong.backward(*arguments))

    return [wrong.backward, reordered, rounded]


def _mistaken() -> dict[str, Callable]:
    def with_one(mistake):
        return lambda *arguments: wrong.backward(*arguments, mistake)

    def other_eps(change):
        return lambda g, x, weight, bias, eps: wrong.backward(g, x, weight, bias, change(x, eps))

    return {mistake: with_one(mistake) for mistake in wrong.BACKWARD} | {
        "ε missing": other_eps(lambda x, eps: 0.0),
        "ε outside the root": other_eps(lambda x, eps: 2 * eps * x.std(axis=0) + eps**2),
        "the absolute value of γ": lambda g, x, weight, bias, eps: wrong.backward(g, x, np.abs(weight), bias, eps),
        "one scale for all channels": lambda g, x, weight, bias, eps: wrong.backward(
            g, x, np.full_like(weight, weight.mean()), bias, eps
        ),
    }


@checker("ch06.accepts")
def accepts(answer, rng) -> None:
    """`answer(backward)` says whether a backward pass is right."""
    for n, backward in enumerate(_variants()):
        verdict = answer(backward)
        if not isinstance(verdict, bool | np.bool_):
            raise Wrong(f"Return True or False, got {type(verdict).__name__}.")
        if not verdict:
            why = (
                "",
                "It adds up in another order: allow for the last digits.",
                "Its last digits are off, by a part in a trillion: no test may be finer than the arithmetic.",
            )[n]
            raise Wrong(f"Your test refuses a right backward pass. {why}".rstrip())
    passed = [name for name, backward in _mistaken().items() if answer(backward)]
    if passed:
        more = f", and {len(passed) - 1} more" if len(passed) > 1 else ""
        raise Wrong(f"Your test passes a backward pass with the mistake {passed[0]!r}{more}. {_habit(passed)}".rstrip())


def _habit(passed: list[str]) -> str:
    """The habit of a test that passes these mistakes."""
    habits = {
        "It accepts everything.": set(_mistaken()),
        "Look at the gradients of γ and β as well.": {"grad γ averaged", "grad β averaged"},
        "With an upstream gradient of ones the gradient of x is zero.": {"σ² path added"},
        "Use a γ that is neither 1 nor of one sign.": {"the absolute value of γ"},
        "Choose an ε that matters.": {"ε outside the root"},
        "Give the channels different γ.": {"one scale for all channels"},
    }
    return next((words for words, mistakes in habits.items() if mistakes <= set(passed)), "")
