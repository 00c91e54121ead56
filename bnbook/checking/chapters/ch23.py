"""Checkers of chapter 23, folding and deployment."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..exercises import Wrong, checker, same

Array = np.ndarray


def _norm(rng: np.random.Generator, channels: int) -> dict[str, Any]:
    """Statistics and parameters of a layer, with variances near ε among them."""
    var = np.append(rng.uniform(1e-5, 1e-3, channels // 2), rng.uniform(0.1, 3, channels - channels // 2))
    mean, gamma, beta = rng.normal(size=(3, channels))
    return {"mean": mean, "var": rng.permutation(var), "gamma": gamma, "beta": beta, "eps": 1e-3}


def _pair(got: Any) -> tuple[Array, Array]:
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Wrong(f"Return the pair (weight, bias), got {type(got).__name__}.")
    return got[0], got[1]


@checker("ch23.fold")
def fold(answer, rng) -> None:
    """`answer(weight, bias, mean, var, gamma, beta, eps)` folds a layer into the convolution before it."""
    weight, bias, norm = rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4), _norm(rng, 4)
    mean, var, gamma, beta, eps = norm.values()
    a = gamma / np.sqrt(var + eps)
    got = _pair(answer(weight.copy(), bias.copy(), *(v.copy() for v in (mean, var, gamma, beta)), eps))
    per = (-1, 1, 1, 1)
    same(
        got[0],
        a.reshape(per) * weight,
        "The weight",
        hint="One factor for each output channel, axis 0 of (out, in, height, width).",
        mistakes={
            "The weights are as they were.": weight,
            "The layer divides by the root of σ̄² + ε.": (gamma / (var + eps)).reshape(per) * weight,
            "ε belongs inside of the root.": (gamma / (np.sqrt(var) + eps)).reshape(per) * weight,
            "ε is missing.": (gamma / np.sqrt(var)).reshape(per) * weight,
            "γ is missing.": weight / np.sqrt(var + eps).reshape(per),
        },
    )
    same(
        got[1],
        a * (bias - mean) + beta,
        "The bias",
        hint="Put z = Wx + b into y = a(z − μ̄) + β and look at x = 0.",
        mistakes={
            "The convolution's own bias is forgotten.": beta - a * mean,
            "The convolution's own bias is multiplied by a as well.": bias + beta - a * mean,
            "The running mean is multiplied by a as well.": a * bias + beta - mean,
            "The running mean is forgotten.": a * bias + beta,
            "β is forgotten.": a * (bias - mean),
            "The running mean is subtracted.": a * (bias + mean) + beta,
        },
    )


@checker("ch23.pad")
def pad(answer, rng) -> None:
    """`answer(mean, var, gamma, beta, eps)` is what to put around x, so that the layer makes zeros of it."""
    mean, var, gamma, beta, eps = _norm(rng, 5).values()
    std = np.sqrt(var + eps)
    same(
        answer(mean.copy(), var.copy(), gamma.copy(), beta.copy(), eps),
        mean - beta * std / gamma,
        "The value around each channel",
        hint="Solve γ(x − μ̄)/√(σ̄² + ε) + β = 0 for x.",
        mistakes={
            "Zero is what it was padded with, and that is wrong.": 0 * mean,
            "The mean becomes β, not zero.": mean,
            "That is what the layer makes of a zero.": beta - gamma * mean / std,
            "The sign of the second term is wrong.": mean + beta * std / gamma,
            "ε is missing.": mean - beta * np.sqrt(var) / gamma,
            "γ divides.": mean - beta * std * gamma,
        },
    )


def transposed_scaled(weight: Array, scale: Array, groups: int) -> Array:
    """The weight (in, out/groups, h, w) of a transposed convolution, its output channels multiplied by `scale`."""
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return (by_group * scale.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)


@checker("ch23.transposed")
def transposed(answer, rng) -> None:
    """`answer(weight, scale, groups)` scales the output channels of a transposed convolution."""
    for groups, ins, outs in ((1, 4, 3), (1, 3, 3), (3, 6, 6), (4, 4, 4), (2, 6, 4)):
        weight, scale = rng.normal(size=(ins, outs // groups, 2, 3)), rng.uniform(0.5, 2, outs)
        mistakes = {"The weights are as they were.": weight}
        if ins == outs:
            mistakes["Axis 0 has the input channels."] = weight * scale.reshape(-1, 1, 1, 1)
        if groups > 1:
            first = scale[: outs // groups].reshape(1, -1, 1, 1)
            mistakes["Every group has output channels of its own: not the first ones again."] = weight * first
        if groups > 1 and ins == outs == groups * (outs // groups):
            strided = np.stack([scale[i % groups :: groups] for i in range(ins)])[..., None, None]
            mistakes["The input channels of a group stand side by side."] = weight * strided
        same(
            answer(weight.copy(), scale.copy(), groups),
            transposed_scaled(weight, scale, groups),
            f"The weight of {ins} inputs, {outs} outputs and {groups} groups",
            hint="Split axis 0 into (groups, inputs of a group); axis 1 then holds the outputs of that group.",
            mistakes=mistakes,
        )


def rounding_error(weight: Array, bits: int, per_channel: bool) -> float:
    """The largest relative rounding error of a channel: root mean square of the error over that of the weights.

    A channel of zeros has no error.
    """
    flat = weight.reshape(len(weight), -1)
    flat = flat[np.any(flat, axis=1)]
    if not len(flat):
        return 0.0
    largest = np.abs(flat).max(axis=1, keepdims=True) if per_channel else np.abs(flat).max()
    step = largest / (2 ** (bits - 1) - 1)
    error = np.round(flat / step) * step - flat
    return float(np.sqrt((error**2).mean(axis=1) / (flat**2).mean(axis=1)).max())


def fewest_bits(weight: Array, error: float, per_channel: bool, measure: Any = rounding_error) -> int:
    """The fewest bits with which the error of every channel is at most `error`."""
    return next(bits for bits in range(2, 30) if measure(weight, bits, per_channel) <= error)


def _of_all(weight: Array, bits: int, per_channel: bool) -> float:
    """The error of all weights together, as if no channel could be lost in it."""
    flat = weight.reshape(len(weight), -1)
    largest = np.abs(flat).max(axis=1, keepdims=True) if per_channel else np.abs(flat).max()
    step = largest / (2 ** (bits - 1) - 1)
    return float(np.sqrt(((np.round(flat / step) * step - flat) ** 2).mean() / (flat**2).mean()))


@checker("ch23.bits")
def bits(answer, rng) -> None:
    """`answer(weight, error, per_channel)` is the fewest bits for which no channel is rounded by more."""
    for ratio in (1.0, 8.0, 200.0):
        weight = rng.normal(size=(6, 3, 3, 3)) * np.geomspace(1, ratio, 6).reshape(-1, 1, 1, 1)
        error = float(rng.uniform(0.005, 0.05))
        for per_channel in (False, True):
            expected = fewest_bits(weight, error, per_channel)
            kind = "one step for each channel" if per_channel else "one step for all"
            mistakes = {
                "Look at the worst channel, not at all weights together.": fewest_bits(
                    weight, error, per_channel, _of_all
                ),
                "There are 2ᵇ⁻¹ − 1 steps on each side: one bit is the sign.": expected - 1,
                "The other way of choosing the step was asked for.": fewest_bits(weight, error, not per_channel),
            }
            same(
                answer(weight.copy(), error, per_channel),
                expected,
                f"The bits for an error of {error:.2g}, {kind}",
                hint="Count up from 2 bits until the relative error of every channel is small enough.",
                mistakes={words: value for words, value in mistakes.items() if value != expected},
            )


FAULTS = (
    "correct",
    "bias forgotten",
    "bias not scaled",
    "mean forgotten",
    "eps outside the root",
    "no eps",
    "gamma forgotten",
    "input channels scaled",
)
EPS = 1e-3


def folded(fault: str, weight: Array, bias: Array, mean: Array, var: Array, gamma: Array, beta: Array) -> tuple:
    """W′ and b′ of a square matrix (C, C), at an ε of 1e-3, with one of FAULTS."""
    std = {"eps outside the root": np.sqrt(var) + EPS, "no eps": np.sqrt(var)}.get(fault, np.sqrt(var + EPS))
    scale = (1 if fault == "gamma forgotten" else gamma) / std
    shift = beta - (0 if fault == "mean forgotten" else scale * mean)
    own = {"bias forgotten": 0 * bias, "bias not scaled": bias}.get(fault, scale * bias)
    return weight * (scale if fault == "input channels scaled" else scale[:, None]), own + shift


@checker("ch23.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(fold)` names the mistake of a fold that is given as a black box."""
    for fault in rng.permutation(list(FAULTS) * 2):

        def given(weight, bias, mean, var, gamma, beta, fault: str = str(fault)) -> tuple:
            weight, *rest = (np.asarray(v, float) for v in (weight, bias, mean, var, gamma, beta))
            if weight.ndim != 2 or any(v.shape != (len(weight),) for v in rest) or weight.shape[0] != weight.shape[1]:
                raise Wrong("The fold takes a square matrix (C, C) and five arrays (C,).")
            if not np.all(rest[2] > 0):
                raise Wrong("The variances must be positive.")
            return folded(fault, weight, *rest)

        got = answer(given)
        if got not in FAULTS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, FAULTS))}.")
        if got != fault:
            raise Wrong(f"A fold that is {str(fault)!r} was called {got!r}.")
