"""Checkers of chapter 2, the forward transform."""

from __future__ import annotations

import numpy as np

from ... import textbook
from ..exercises import Wrong, checker, same


@checker("ch02.output_variance")
def output_variance(answer, rng) -> None:
    """`answer(var, weight, eps)` is the variance of the output over the batch."""
    for _ in range(20):
        x = rng.normal(rng.normal() * 3, 10 ** rng.uniform(-3, 1), rng.integers(3, 30))
        weight, eps = rng.normal() * 2, 10 ** rng.uniform(-6, -1)
        var = x.var()
        y = weight * (x - x.mean()) / np.sqrt(var + eps) + rng.normal()
        same(
            answer(var, weight, eps),
            y.var(),
            f"The output variance for σ² = {var:.3g}, γ = {weight:.3g}, ε = {eps:.3g}",
            hint="Start from y − β = γ (x − μ)/√(σ² + ε) and take the mean of its square.",
            mistakes={
                "That is the variance of x̂: γ comes behind it.": var / (var + eps),
                "A variance takes the square of what scales the values.": weight * var / (var + eps),
                "That is so for ε = 0 only.": weight**2,
                "ε stands inside the root.": weight**2 * var / (np.sqrt(var) + eps) ** 2,
                "That is the standard deviation.": abs(weight) * np.sqrt(var / (var + eps)),
                "That is what ε takes away.": weight**2 * eps / (var + eps),
            },
        )


def _standardized(x, axes, ddof=0, eps=1e-5, outside=False):
    """Right and wrong ways to normalize x; right are the axes but the channel's, ddof 0, and ε inside the root."""
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True, ddof=ddof)
    return (x - mean) / (np.sqrt(var) + eps if outside else np.sqrt(var + eps))


@checker("ch02.normalize")
def normalize(answer, rng) -> None:
    """`answer(x, eps)` is x̂ for (N, C) and (N, C, *)."""
    for shape in ((7, 3), (5, 2, 4), (4, 3, 5, 6), (2, 3, 4, 2, 5)):
        for dtype in (np.float64, np.float32):
            eps = 10 ** rng.uniform(-5, -1)
            x = rng.normal(rng.normal(size=shape) * 2, rng.uniform(0.5, 3, (1, shape[1]) + (1,) * (len(shape) - 2)))
            x = x.astype(dtype)
            wide = x.astype(np.float64)
            one, zero = np.ones(shape[1]), np.zeros(shape[1])
            expected, *_ = textbook.forward(wide, *textbook.statistics(wide), one, zero, eps)
            axes = textbook.channel_axes(x)
            mistakes = {
                "The variance divides by m, not by m − 1.": _standardized(wide, axes, ddof=1, eps=eps),
                "ε stands inside the root.": _standardized(wide, axes, eps=eps, outside=True),
                "ε is missing.": _standardized(wide, axes, eps=0),
                "It is divided by the variance: take the root.": (wide - wide.mean(axes, keepdims=True))
                / (wide.var(axes, keepdims=True) + eps),
                "It is centred only.": wide - wide.mean(axes, keepdims=True),
                "The statistics are those of one example: average over the batch as well.": _standardized(
                    wide, tuple(range(1, x.ndim)), eps=eps
                ),
                "The statistics are those of all channels together: every channel has its own.": _standardized(
                    wide, None, eps=eps
                ),
            }
            if x.ndim > 2:
                mistakes |= {
                    "The statistics are those of one position: average over the positions as well.": _standardized(
                        wide, 0, eps=eps
                    ),
                    "The statistics are those of one channel of one example: average over the batch as well.": (
                        _standardized(wide, axes[1:], eps=eps)
                    ),
                }
            got = answer(x, eps)
            if isinstance(got, np.ndarray) and got.dtype != dtype:
                raise Wrong(f"For a {np.dtype(dtype)} batch the result is {got.dtype}; keep the dtype of x.")
            same(
                got,
                expected,
                f"x̂ of a batch of shape {shape} with ε = {eps:.3g}",
                tol=1e-10 if dtype is np.float64 else 1e-4,
                hint="Keep the channel axis, average over all the others.",
                mistakes=mistakes,
            )


@checker("ch02.largest")
def largest(answer, rng) -> None:
    """`answer(m)` is a batch of m values, one of which reaches the bound √(m − 1)."""
    for m in (2, 3, *rng.integers(4, 200, 5)):
        x = np.asarray(answer(int(m)), dtype=np.float64)
        if x.shape != (m,):
            raise Wrong(f"For m = {m} the answer has shape {x.shape}, expected ({m},).")
        if x.std() == 0:
            raise Wrong(f"For m = {m} all values are equal: there is nothing to normalize.")
        reached = np.abs((x - x.mean()) / x.std()).max()
        if not np.isclose(reached, np.sqrt(m - 1), rtol=1e-6):
            raise Wrong(
                f"For m = {m} the largest |x̂| is {reached:.4g}; the bound is {np.sqrt(m - 1):.4g}. "
                "The proof is an equality when all the other values are equal."
            )


def layers() -> dict:
    """Four layers to tell apart, all with ε = 1e-5: the one that is right and three that are not."""
    return {
        "correct": lambda x: _standardized(x, (0, 2, 3)),
        "per pixel": lambda x: _standardized(x, 0),
        "per example": lambda x: _standardized(x, (1, 2, 3)),
        "unbiased": lambda x: _standardized(x, (0, 2, 3), ddof=1),
        "eps outside": lambda x: _standardized(x, (0, 2, 3), outside=True),
    }


@checker("ch02.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer)` names what a layer (N, C, H, W) → (N, C, H, W) does."""
    known = layers()
    for name in rng.permutation(list(known) * 3):
        got = answer(known[str(name)])
        if got not in known:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, known))}.")
        if got != name:
            raise Wrong(f"A layer that is {str(name)!r} was called {got!r}.")
