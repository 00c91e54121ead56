"""Batch normalization with one mistake in it, chosen by its words: what the checks of chapter 6 are tried on.

Without a mistake each function is the formula of chapters 2 to 4, which `tests/checking/test_bugs.py` compares with
`bnbook.textbook`.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

BACKWARD = (
    "no path through μ",
    "no path through σ²",
    "σ² path added",
    "statistics as constants",
    "γ missing",
    "γ missing in the means",
    "σ² for σ",
    "sums for means",
    "m − 1 for m",
    "y for x̂",
    "grad γ from y",
    "grad γ averaged",
    "grad β averaged",
)

FORWARD = (
    "per position",
    "per example",
    "variance over m − 1",
    "ε missing",
    "ε outside the root",
    "γ missing",
    "β missing",
    "β before γ",
)

FOLDS = (
    "bias forgotten",
    "bias not scaled",
    "mean not scaled",
    "mean added",
    "β forgotten",
    "β scaled",
    "γ missing",
    "weights not scaled",
    "σ̄² for σ̄",
    "ε missing",
    "ε outside the root",
)


def backward(
    g: Array, x: Array, weight: Array, bias: Array, eps: float, mistake: str = ""
) -> tuple[Array, Array, Array]:
    r"""The gradients of x, γ and β in training, for a table (N, C) and the upstream gradient g, with one of `BACKWARD`.

    $$ \frac{\partial L}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2+\varepsilon}}
       \big(g-\langle g\rangle-\hat x\langle g\hat x\rangle\big) $$

    Raises:
        ValueError: there is no such mistake.
    """
    _known(mistake, BACKWARD)
    inv_std = 1 / np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) * inv_std
    y = weight * x_hat + bias
    grad_weight, grad_bias = (g * x_hat).sum(axis=0), g.sum(axis=0)

    m = {"m − 1 for m": len(x) - 1, "sums for means": 1}.get(mistake, len(x))
    through_mean, through_var = grad_bias / m, (y if mistake == "y for x̂" else x_hat) * grad_weight / m
    if mistake == "σ² path added":
        through_var = -through_var
    if mistake in ("no path through μ", "statistics as constants"):
        through_mean = 0
    if mistake in ("no path through σ²", "statistics as constants"):
        through_var = 0
    scale = weight * inv_std
    if mistake == "γ missing":
        scale = inv_std
    if mistake == "σ² for σ":
        scale = weight * inv_std**2
    grad_x = scale * (g - through_mean - through_var)
    if mistake == "γ missing in the means":
        grad_x = inv_std * (weight * g - through_mean - through_var)

    if mistake == "grad γ from y":
        grad_weight = (g * y).sum(axis=0)
    if mistake == "grad γ averaged":
        grad_weight = grad_weight / len(x)
    if mistake == "grad β averaged":
        grad_bias = grad_bias / len(x)
    return grad_x, grad_weight, grad_bias


def forward(x: Array, weight: Array, bias: Array, eps: float, mistake: str = "") -> Array:
    r"""$y=\gamma(x-\mu)/\sqrt{\sigma^2+\varepsilon}+\beta$ in training, for images (N, C, H, W), with one of `FORWARD`.

    Raises:
        ValueError: there is no such mistake.
    """
    _known(mistake, FORWARD)
    axes = {"per position": (0,), "per example": (1, 2, 3)}.get(mistake, (0, 2, 3))
    gamma, beta = weight.reshape(1, -1, 1, 1), bias.reshape(1, -1, 1, 1)
    var = x.var(axes, keepdims=True, ddof=int(mistake == "variance over m − 1"))
    std = np.sqrt(var + eps)
    if mistake == "ε missing":
        std = np.sqrt(var)
    if mistake == "ε outside the root":
        std = np.sqrt(var) + eps
    x_hat = (x - x.mean(axes, keepdims=True)) / std
    if mistake == "β before γ":
        return gamma * (x_hat + beta)
    return (1 if mistake == "γ missing" else gamma) * x_hat + (0 if mistake == "β missing" else beta)


def fold(
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    mistake: str = "",
) -> tuple[Array, Array]:
    r"""Weights (out, in) and bias of the linear layer that does what layer and normalization do in evaluation.

    $$ W' = a\,W,\qquad b' = a\,(b-\bar\mu)+\beta,\qquad a=\gamma/\sqrt{\bar\sigma^2+\varepsilon} $$

    With one of `FOLDS`.

    Raises:
        ValueError: there is no such mistake.
    """
    _known(mistake, FOLDS)
    std = np.sqrt(running_var + eps)
    if mistake == "σ̄² for σ̄":
        std = running_var + eps
    if mistake == "ε missing":
        std = np.sqrt(running_var)
    if mistake == "ε outside the root":
        std = np.sqrt(running_var) + eps
    a = 1 / std if mistake == "γ missing" else gamma / std
    folded = {
        "bias forgotten": -a * running_mean + beta,
        "bias not scaled": bias - a * running_mean + beta,
        "mean not scaled": a * bias - running_mean + beta,
        "mean added": a * (bias + running_mean) + beta,
        "β forgotten": a * (bias - running_mean),
        "β scaled": a * (bias - running_mean + beta),
    }
    new_bias = folded.get(mistake, a * (bias - running_mean) + beta)
    return (weight if mistake == "weights not scaled" else a[:, None] * weight), new_bias


def _known(mistake: str, known: tuple[str, ...]) -> None:
    if mistake and mistake not in known:
        raise ValueError(f"mistake is {mistake!r}, expected '' or one of {', '.join(map(repr, known))}")
