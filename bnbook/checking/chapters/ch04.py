"""Checkers of chapter 4, the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ... import textbook
from ..exercises import Wrong, checker, same
from ..numeric import numeric_gradient

Array = np.ndarray


@checker("ch04.center", name="center_backward")
def center(answer, rng) -> None:
    """`answer(grad_y)` is the input gradient of y = x − μ."""
    for m in (3, 2, 1, *rng.integers(3, 30, 5)):
        g = rng.normal(rng.normal(), 1, m)
        same(
            answer(g),
            numeric_gradient(lambda x: x - x.mean(), rng.normal(size=m), g),
            f"The input gradient for g = {np.array2string(g[:5], precision=4)}{'' if m <= 5 else ' …'}",
            tol=1e-6,
            hint="The direct path gives g_i; μ is used by all m values and made from all m values.",
            mistakes={
                "The path through μ is missing.": g,
                "Every value makes only 1/m of μ.": g - g.sum(),
                "μ is subtracted: its path has the other sign.": g + g.mean(),
            },
        )


@checker("ch04.scale", name="scale_backward")
def scale(answer, rng) -> None:
    """`answer(grad_y, x, eps)` is the input gradient of y = x/√(⟨x²⟩ + ε)."""
    for m in (2, *rng.integers(3, 20, 8)):
        x, g = rng.normal(rng.normal(), 1, m), rng.normal(rng.normal(), 1, m)
        eps = 10 ** rng.uniform(-5, 0)
        expected = numeric_gradient(lambda x, eps=eps: x / np.sqrt((x**2).mean() + eps), x, g)
        root, bare = np.sqrt((x**2).mean() + eps), np.sqrt((x**2).mean())
        path = x * (g * x).mean() / root**3
        same(
            answer(g, x, eps),
            expected,
            f"The input gradient for m = {m}, ε = {eps:.3g}",
            # Where m is small the parts may cancel: the natural size is that of the direct path.
            tol=1e-6 * max(1, np.abs(g).max() / root / np.abs(expected).max()),
            hint="Two paths: direct, and through the mean square. Nothing is centred.",
            mistakes={
                "The path through the mean square is missing.": g / root,
                "Nothing is centred here: that is batch normalization.": _gradient(
                    g[:, None], x[:, None], np.ones(1), eps
                )[:, 0],
                "Every value makes only 1/m of the mean square.": g / root - m * path,
                "A larger mean square makes y smaller: its path has the other sign.": g / root + path,
                "Count the powers of the root in the path through the mean square.": g / root - path * root**2,
                "ε is missing.": g / bare - x * (g * x).mean() / bare**3,
            },
        )


def _gradient(g: Array, x: Array, weight: Array, eps: float, mean=True, var=True, gamma=True, axes=None, ddof=0):
    """The input gradient for (N, C) and (N, C, *), or without a path; axes other than those of a channel are wrong."""
    axes = textbook.channel_axes(x) if axes is None else axes
    inv_std = 1 / np.sqrt(x.var(axis=axes, keepdims=True, ddof=ddof) + eps)
    x_hat = (x - x.mean(axis=axes, keepdims=True)) * inv_std
    paths = mean * g.mean(axis=axes, keepdims=True) + var * x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
    return (textbook.per_channel(weight, x) if gamma else 1) * inv_std * (g - paths)


@checker("ch04.dx", name="grad_x")
def dx(answer, rng) -> None:
    """`answer(grad_y, x, weight, eps)` is the input gradient in training for (N, C) and (N, C, *)."""
    for shape in ((6, 2), (3, 2, 4), (3, 2, 2, 4), (2, 3, 2, 1, 4)):
        per_channel = (1, -1) + (1,) * (len(shape) - 2)
        x = rng.normal(rng.normal(0, 2, shape[1]).reshape(per_channel), rng.uniform(0.5, 2), shape)
        weight, g = rng.uniform(0.5, 2, shape[1]) * rng.choice([-1, 1], shape[1]), rng.normal(size=shape) + rng.normal()
        eps = 10 ** rng.uniform(-2, 0)

        def forward(x, weight=weight, eps=eps):
            return textbook.forward(x, *textbook.statistics(x), weight, 0 * weight, eps)[0]

        same(
            answer(g, x, weight, eps),
            numeric_gradient(forward, x, g),
            f"The input gradient for x of shape {shape} with ε = {eps:.3g}",
            tol=1e-6,
            hint="Take every mean over all axes but the channel, and shape weight to (1, C, 1, …).",
            mistakes={
                "The path through the mean is missing.": _gradient(g, x, weight, eps, mean=False),
                "The path through the variance is missing.": _gradient(g, x, weight, eps, var=False),
                "That is evaluation, where the statistics are constants.": _gradient(g, x, weight, eps, False, False),
                "γ is missing.": _gradient(g, x, weight, eps, gamma=False),
                "ε is missing.": _gradient(g, x, weight, 0),
                "The variance divides by m, not by m − 1.": _gradient(g, x, weight, eps, ddof=1),
            }
            | (
                {
                    "Those are means over the batch alone: there are positions, too.": _gradient(
                        g, x, weight, eps, axes=0
                    )
                }
                if x.ndim > 2
                else {}
            ),
        )


@checker("ch04.invisible")
def invisible(answer, rng) -> None:
    """`answer(x)` is (2, m): two independent upstream gradients for which the input gradient is zero at ε = 0."""
    for m in (3, *rng.integers(4, 30, 5)):
        x = rng.normal(rng.normal(0, 2), rng.uniform(0.5, 2), m)
        gradients = np.asarray(answer(x), dtype=np.float64)
        if gradients.shape != (2, m):
            raise Wrong(f"For m = {m} the answer has shape {gradients.shape}, expected (2, {m}).")
        lengths = np.linalg.norm(gradients, axis=1)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise Wrong("Both upstream gradients must be finite and not zero.")
        gradients = gradients / lengths[:, None]
        x_hat = (x - x.mean()) / x.std()
        for name, g in zip(("first", "second"), gradients, strict=True):
            left = np.abs(g - g.mean() - x_hat * (g * x_hat).mean()).max()
            if not left < 1e-7:
                raise Wrong(
                    f"For m = {m} the layer passes something of your {name} gradient on (a share of {left:.2g})."
                )
        if np.linalg.svd(gradients, compute_uv=False)[1] < 1e-6:
            raise Wrong(
                "The two gradients are multiples of each other. One direction follows the mean; what else is lost?"
            )


def backwards() -> dict[str, Callable[[Array, Array, Array, float], Array]]:
    """Backward passes of a table (N, C) to tell apart: the one that is right and four that are not."""

    return {
        "correct": _gradient,
        "no mean path": partial(_gradient, mean=False),
        "no variance path": partial(_gradient, var=False),
        "no gamma": partial(_gradient, gamma=False),
        "evaluation": partial(_gradient, mean=False, var=False),
    }


@checker("ch04.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(backward)` names what a backward pass of a table leaves out."""
    known = backwards()
    for name in rng.permutation(list(known) * 3):
        got = answer(known[str(name)])
        if got not in known:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, known))}.")
        if got != name:
            raise Wrong(f"A backward pass that is {str(name)!r} was called {got!r}.")
