"""Checkers of chapter 21, numerics."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, same

Array = np.ndarray


@checker("ch21.farthest")
def farthest(answer, rng) -> None:
    """`answer(digits, error)` is the largest μ/σ at which the one-pass formula keeps the variance so well."""
    for digits in (11, 24, 53):
        error = float(10 ** rng.uniform(-2, -1))
        kappa = np.sqrt(error * 2.0**digits)
        same(
            answer(digits, error),
            np.sqrt(kappa**2 - 1),
            f"The ratio for {digits} digits and an error of {error:.2g}",
            tol=3e-2,  # κ for μ/σ will do
            hint="Solve u κ² = error for μ/σ, with u = 2⁻ᵖ.",
            mistakes={
                "That is the square of the ratio.": kappa**2,
                "u is 2⁻ᵖ, half of the distance from 1 to the next number.": kappa / np.sqrt(2),
                "The error is a share of σ², not a number of decimal digits.": np.sqrt(2.0**digits),
                "That is how far rounded data may be, not the one-pass formula.": error * 2.0**digits / 2,
            },
        )


@checker("ch21.worst")
def worst(answer, rng) -> None:
    """`answer(m)` is the largest 1 + (μ − c)²/σ² for a value c of a batch of m."""
    for m in (2, 3, int(rng.integers(4, 5000))):
        same(
            answer(m),
            float(m),
            f"The largest κ² for {m} values",
            hint="(c − μ)/σ is a normalized value, and the chapter on the forward transform bounds it.",
            mistakes={
                "1 is missing: κ² is 1 + (μ − c)²/σ².": m - 1.0,
                "That is the bound of (c − μ)/σ; its square enters.": 1 + np.sqrt(m - 1),
                "That is κ, not its square.": np.sqrt(m),
                "The bound is √(m − 1), not √m.": m + 1.0,
            },
        )


def _part(x: Array) -> tuple[int, Array, Array]:
    """(m, μ, M₂) of (m, C)."""
    return len(x), x.mean(axis=0), len(x) * x.var(axis=0)


@checker("ch21.merge")
def merge(answer, rng) -> None:
    """`answer(a, b)` merges two parts (m, μ, M₂)."""
    for far in (0.0, 1e7):
        m_a, m_b = (int(m) for m in rng.choice(np.arange(2, 30), 2, replace=False))
        x = far + rng.normal(size=(m_a + m_b, 3)) * rng.uniform(0.5, 2, 3)
        x[:m_a] += rng.uniform(1, 3, 3)  # means that differ
        a, b = _part(x[:m_a]), _part(x[m_a:])
        got = answer(a, b)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"Return three things, (m, mean, M2), got {type(got).__name__}.")
        m, mean, M = _part(x)
        d2 = (b[1] - a[1]) ** 2
        parts = f"of parts with {m_a} and {m_b} values"
        same(got[0], m, f"The number of values {parts}")
        same(
            np.asarray(got[1]) - far,
            mean - far,
            f"The mean {parts}" + (f", less {far:g}" if far else ""),
            tol=1e-6,
            hint="The larger part pulls more.",
            mistakes={
                "The parts have different sizes.": (a[1] + b[1]) / 2 - far,
                "The weights are those of the other part.": (m_a * b[1] + m_b * a[1]) / m - far,
            },
        )
        same(
            got[2],
            M,
            f"M₂ {parts}" + (f" and means near {far:g}" if far else ""),
            tol=1e-6,
            hint="Squares of what is far from zero lose the digits: only the difference of the means may be squared."
            if far
            else "Every value of a part moves away from its mean by the same distance.",
            mistakes={
                "The distance of the means is missing.": a[2] + b[2],
                "d² has the factor m_a m_b/m.": a[2] + b[2] + d2,
                "m_a m_b is divided by m once.": a[2] + b[2] + d2 * m_a * m_b / m**2,
                "m_a m_b is divided by m.": a[2] + b[2] + d2 * m_a * m_b,
                "That is the variance, M₂/m.": M / m,
                "Only one of the parts moves away from its mean.": a[2] + b[2] + m_b * d2,
            },
        )


def rounded(x: Any, digits: int) -> Any:
    """x to so many binary digits, to the nearest, ties to even."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(np.ldexp(fraction, digits)), exponent - digits)


def _stop(alpha: float, digits: int, *, store: Any = rounded) -> float:
    average = 0.0
    while (moved := float(store(average + alpha * (1 - average), digits))) != average:
        average = moved
    return average


def _cut(x: float, digits: int) -> float:
    """x to so many binary digits, towards zero."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.trunc(np.ldexp(fraction, digits)), exponent - digits)


@checker("ch21.stop")
def stop(answer, rng) -> None:
    """`answer(alpha, digits)` is where a running mean from 0 towards 1 stands still."""
    for digits in (8, 11):
        for low in (-3, -2, -1.5):
            alpha = float(10 ** rng.uniform(low, low + 0.5))
            expected = _stop(alpha, digits)
            same(
                answer(alpha, digits),
                expected,
                f"The running mean for α = {alpha:.4g} and {digits} digits",
                hint="Round in every step, until a step changes nothing.",
                mistakes={
                    "Without rounding it would get there.": 1.0,
                    "That is how much is missing to 1.": 1 - expected,
                    "Round to the nearest, not towards zero.": _stop(alpha, digits, store=_cut),
                    "That is one digit too many.": _stop(alpha, digits + 1),
                },
            )


FAULTS = ("correct", "one pass", "rounded mean", "stored in float16", "eps in float16")
EPS = 1e-8


def layer(fault: str, x: Array) -> Array:
    """x̂ of a float32 table (N, C), with an ε of 1e-8 and one of FAULTS."""
    if fault == "correct":
        return F.batch_norm(x, None, None, training=True, eps=EPS)[0]
    with np.errstate(all="ignore"):
        eps = np.float32(np.float16(EPS) if fault == "eps in float16" else EPS)
        if fault == "stored in float16":
            x = x.astype(np.float16).astype(np.float32)
        mean = x.mean(axis=0, dtype=np.float64)
        if fault == "rounded mean":
            mean = np.cumsum(x, axis=0)[-1] / np.float32(len(x))  # one after the other
        if fault == "one pass":
            mean = x.mean(axis=0)
            var = np.maximum((x * x).mean(axis=0) - mean * mean, 0)
        else:
            var = ((x - mean) ** 2).mean(axis=0)
        return ((x - mean) / np.sqrt(var + eps)).astype(np.float32)


@checker("ch21.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer)` names what is wrong with the arithmetic of a layer."""
    for fault in rng.permutation(list(FAULTS) * 2):

        def given(x: Array, fault: str = str(fault)) -> Array:
            if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != 2 or len(x) < 2:
                raise Wrong("The layer takes a float32 table (N, C) of at least two examples.")
            return layer(fault, x)

        got = answer(given)
        if got not in FAULTS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, FAULTS))}.")
        if got != fault:
            raise Wrong(f"A layer that is {str(fault)!r} was called {got!r}.")
