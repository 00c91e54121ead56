"""Checkers of chapter 0, the warm-up."""

from __future__ import annotations

import numpy as np

from ..exercises import Wrong, checker, recognized, same
from ..numeric import numeric_gradient


@checker("ch00.grad_logits")
def grad_logits(answer, rng) -> None:
    """`answer(z, q)` is the gradient of −Σ q log softmax(z) for z."""

    def loss(z, q):
        shifted = z - z.max()
        return -(q * (shifted - np.log(np.exp(shifted).sum()))).sum()

    for classes in (3, 2, 7):
        z, q = 2 * rng.normal(size=classes), rng.dirichlet(np.ones(classes))
        p = np.exp(z) / np.exp(z).sum()
        same(
            answer(z, q),
            numeric_gradient(lambda v, q=q: loss(v, q), z),
            f"The gradient for {classes} classes",
            tol=1e-6,
            hint="Write log p_k = z_k − log Σ e^z, and use that the q add up to 1.",
            mistakes={
                "That is the softmax alone: where is the truth?": p,
                "The truth is a distribution, not its most likely class alone.": p - (q == q.max()),
                "A logit is also in the sum under the probabilities of the other classes.": q * (p - 1),
            },
        )


@checker("ch00.layer_backward")
def layer_backward(answer, rng) -> None:
    """`answer(g, x, weight, bias)` is (grad_x, grad_weight, grad_bias) of max(x Wᵀ + b, 0)."""
    for n, d, k in ((5, 3, 4), (2, 6, 3), (7, 2, 5)):
        x, weight, bias, g = (rng.normal(size=shape) for shape in ((n, d), (k, d), (k,), (n, k)))
        got = answer(g, x, weight, bias)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong("Return three arrays: the gradients of x, weight and bias.")
        shapes, wanted = [np.shape(array) for array in got], [(n, d), (k, d), (k,)]
        if shapes != wanted and sorted(shapes) == sorted(wanted):
            raise Wrong(f"Return the gradients of x, weight and bias in this order: shapes {wanted}, got {shapes}.")

        def layer(x, weight, bias):
            return np.maximum(x @ weight.T + bias, 0)

        expected = (
            numeric_gradient(lambda v, w=weight, b=bias: layer(v, w, b), x, g, step=1e-7),
            numeric_gradient(lambda v, x=x, b=bias: layer(x, v, b), weight, g, step=1e-7),
            numeric_gradient(lambda v, x=x, w=weight: layer(x, w, v), bias, g, step=1e-7),
        )
        no_bias = g * (x @ weight.T > 0)
        without = (g @ weight, g.T @ x, g.sum(axis=0)), (no_bias @ weight, no_bias.T @ x, no_bias.sum(axis=0))
        for name, a, b, no_relu, unbiased in zip(("x", "weight", "bias"), got, expected, *without, strict=True):
            same(
                a,
                b,
                f"The gradient of {name} for N = {n}, D = {d}, K = {k}",
                tol=1e-5,
                hint="First let g through only where the ReLU's output is positive."
                if np.shape(a) == b.shape
                else "A gradient has the shape of what it is for.",
                mistakes={
                    "The ReLU is missing: g goes through only where its output is positive.": no_relu,
                    "The ReLU sees the bias as well.": unbiased,
                    "It is N times too small: sum over the examples.": b / n,
                },
            )


@checker("ch00.largest_rate")
def largest_rate(answer, rng) -> None:
    """`answer(a)` bounds the learning rates for which gradient descent on ½ Σ a w² converges."""
    for a in (np.ones(3), *(10 ** rng.uniform(-2, 2, size) for size in (1, 2, 3, 6))):
        got = answer(a)
        try:
            bound = float(got)
        except (TypeError, ValueError):
            raise Wrong(f"The answer should be a number, got {type(got).__name__}.") from None
        if not np.isfinite(bound) or bound <= 0:
            raise Wrong(f"The answer should be a positive number, got {bound}.")
        for factor, converges in ((0.97, True), (1.03, False)):
            per_step = np.abs(1 - factor * bound * a)  # what a step multiplies each |w_i| by
            if (per_step.max() < 1) != converges:
                what = "does not converge" if converges else "still converges"
                mistakes = {
                    "There a step just ends at the bottom; one that overshoots a little converges, too.": 1 / a.max(),
                    "That is the bound of the flattest direction: all of them have to converge.": 2 / a.min(),
                    "That is the bound for the mean curvature: every direction has to converge.": 2 / a.mean(),
                    "The directions do not mix: their curvatures do not add up.": 2 / a.sum(),
                }
                hint = recognized(bound, mistakes, "By what does one step multiply each w_i?")
                raise Wrong(
                    f"For a = {np.round(a, 3)} you say {bound:.4g}, but η = {factor * bound:.4g} {what}. {hint}"
                )


def gradients() -> dict:
    """The gradient of the mean cross-entropy of logits x Wᵀ for W, and four that are not."""

    def softmax(z, axis):
        e = np.exp(z - z.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    def gradient(x, target, weight, *, axis=1, truth=1, scale=1):
        g = softmax(x @ weight.T, axis)
        g[np.arange(len(x)), target] -= truth
        return scale * g.T @ x

    def mean(**options):
        return lambda x, target, weight: gradient(x, target, weight, scale=1 / len(x), **options)

    return {
        "correct": mean(),
        "sum": gradient,
        "uphill": lambda x, target, weight: gradient(x, target, weight, scale=-1 / len(x)),
        "wrong axis": mean(axis=0),
        "no truth": mean(truth=0),
    }


@checker("ch00.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(gradient)` names what a gradient (x, target, weight) → grad_weight is."""
    known = gradients()
    for name in rng.permutation(list(known) * 3):
        got = answer(known[str(name)])
        if not isinstance(got, str) or got not in known:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, known))}.")
        if got != name:
            raise Wrong(f"A gradient that is {str(name)!r} was called {got!r}.")
