"""Checkers of chapter 13, signals and gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, same

Array = np.ndarray


@checker("ch13.growth")
def growth(answer, rng) -> None:
    """`answer(slope)` is the growth of the squared gradient per layer of leaky ReLU, for a large batch."""
    for slope in (0.0, 1.0, *rng.uniform(-1, 2, 8)):
        square = (1 + slope**2) / 2  # of the outputs, and of the derivatives
        mean = (1 - slope) / np.sqrt(2 * np.pi)
        same(
            answer(float(slope)),
            square / (square - mean**2),
            f"The growth for a slope of {slope:.3g}",
            hint="Divide the mean square of the derivative by the variance of the output.",
            mistakes={
                "The outputs have a mean, which normalization takes away.": 1.0,
                "It is upside down.": (square - mean**2) / square,
                "That is the growth of the gradient, not of its square.": np.sqrt(square / (square - mean**2)),
                "The derivative is not zero where z is negative.": 0.5 / (square - mean**2),
                "That is the variance of the output alone.": square - mean**2,
            },
        )


def _after(layers: int, cosines: Array) -> Array:
    """Cosines after so many wide ReLU layers."""
    for _ in range(layers):
        cosines = np.clip(cosines, -1, 1)
        cosines = (np.sqrt(1 - cosines**2) + (np.pi - np.arccos(cosines)) * cosines) / np.pi
    return np.asarray(cosines)


@checker("ch13.similarity")
def similarity(answer, rng) -> None:
    """`answer(x, layers)` predicts the mean cosine of two different rows of (N, C) after so many ReLU layers."""
    for layers in (0, 1, 3, 20):
        n = int(rng.integers(5, 40))
        x = rng.normal(size=(n, 30)) * rng.uniform(0.1, 10, (n, 1)) + rng.normal(size=30)
        x[1] = 3.1 * x[0]  # a cosine of 1, or of 1 and a rounding error
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        cosines = np.clip((unit @ unit.T)[np.triu_indices(n, k=1)], -1, 1)
        with_itself, dots = (unit @ unit.T)[np.triu_indices(n)], (x @ x.T)[np.triu_indices(n, k=1)]
        same(
            answer(x, layers),
            _after(layers, cosines).mean(),
            f"The prediction for {n} rows and {layers} layers",
            tol=1e-6,
            hint="Every pair has a cosine of its own, and goes through the layers by itself.",
            mistakes={
                "Rounding can make a cosine larger than 1.": np.nan,
                "Every pair goes through the layers by itself, not their mean.": _after(layers, cosines.mean()),
                "No row is paired with itself.": _after(layers, with_itself).mean(),
                "Take every pair once, and no row with itself.": _after(layers, (unit @ unit.T).ravel()).mean(),
                "That is one layer too many.": _after(layers + 1, cosines).mean(),
                "That is one layer too few.": _after(layers - 1, cosines).mean(),
                "A cosine is that of rows of length 1.": _after(layers, dots).mean(),
            },
        )


# --- networks before training ----------------------------------------------------------------------------------------

SETTING = {"batch_size": 128, "bias": 0.0, "eps": 1e-5, "slope": 0.0, "times_he": 1.0, "weight": 1.0}
EVEN = 0.5  # decades, the δ of the chapter


def sizes(
    rng: np.random.Generator,
    *,
    depth: int,
    width: int,
    norm: bool = True,
    batch_size: int,
    bias: float = 0.0,
    eps: float = 1e-5,
    slope: float = 0.0,
    times_he: float = 1.0,
    weight: float = 1.0,
) -> tuple[Array, Array]:
    """Of random inputs: per layer the deviation of the outputs, and of the gradient with respect to them the rms."""
    x, kept, signals = rng.normal(size=(batch_size, width)), [], []
    for _ in range(depth):
        W = rng.normal(0, times_he * np.sqrt(2 / width), (width, width))
        z, cache = x @ W.T, None
        if norm:
            z, cache = F.batch_norm(
                z, None, None, np.full(width, float(weight)), np.full(width, float(bias)), True, eps=eps
            )
        x = np.where(z > 0, z, slope * z)
        kept.append((W, cache, np.where(z > 0, 1, slope)))
        signals.append(x.std(axis=0).mean())
    g, gradients = rng.normal(size=x.shape), []
    for W, cache, derivative in reversed(kept):
        gradients.insert(0, np.sqrt(np.mean(g**2)))
        g = g * derivative
        g = (F.batch_norm_backward(g, cache)[0] if norm else g) @ W
    return np.array(signals), np.array(gradients)


@checker("ch13.setting")
def setting(answer, rng) -> None:
    """`answer()` is a dictionary with one setting: 40 layers with batch normalization get even gradients."""
    got = answer() if callable(answer) else answer
    known = ", ".join(SETTING)
    if not isinstance(got, Mapping):
        raise Wrong(f"Return a dictionary such as {{'eps': 0.001}}, got {type(got).__name__}.")
    if unknown := [name for name in got if name not in SETTING]:
        raise Wrong(f"The settings are {known}; got {unknown[0]!r}.")
    if len(changed := {name: value for name, value in got.items() if value != SETTING[name]}) != 1:
        raise Wrong(f"Change one of {known}; you changed {len(changed)}.")
    ((name, value),) = changed.items()
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise Wrong(f"{name} should be a number, got {value!r}.")
    if name == "batch_size" and not (isinstance(value, int) and 2 <= value <= 2048):
        raise Wrong(f"batch_size should be a whole number from 2 to 2048, got {value!r}.")
    if name == "slope" and abs(value - 1) < 0.05:
        raise Wrong(f"With a slope of {value:g} the network is linear: 40 layers can do no more than one.")
    if name in ("eps", "times_he") and value <= 0:
        raise Wrong(f"{name} should be positive, got {value:g}.")
    for _ in range(2):
        with np.errstate(all="ignore"):
            signals, gradients = sizes(rng, depth=40, width=256, **{**SETTING, **got})
            decades = {
                "gradients": float(np.log10(gradients[0] / gradients[-1])),
                "activations": float(np.log10(signals[-1] / signals[0])),
            }
        for what, size in decades.items():
            if not abs(size) <= EVEN:
                way = "from the last layer to the first" if what == "gradients" else "from the first layer to the last"
                raise Wrong(f"With {name} = {value:g} the {what} change by {size:+.2f} powers of ten, {way}.")


NETWORKS = ("ReLU", "linear", "no normalization")


@checker("ch13.network", name="network_of")
def network(answer, rng) -> None:
    """`answer(sizes, m)` names the network whose gradients have these sizes, first layer first."""
    cases = [("ReLU", 8), ("ReLU", 64), ("ReLU", 128), ("linear", 4), ("linear", 8), ("linear", 10)]
    cases += [("no normalization", int(rng.choice([4, 8]))) for _ in range(2)]
    for i in rng.permutation(len(cases)):
        name, m = cases[i]
        _, gradients = sizes(
            rng,
            depth=30,
            width=400,
            norm=name != "no normalization",
            batch_size=m,
            slope=float(name == "linear"),
            times_he=1.0 if name == "no normalization" else float(rng.uniform(0.2, 3)),
        )
        got = answer(gradients * 10 ** rng.uniform(-6, 6), m)
        if got not in NETWORKS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, NETWORKS))}.")
        if got != name:
            per_layer = (gradients[0] / gradients[-1]) ** (2 / (len(gradients) - 1))
            raise Wrong(
                f"A network that is {name!r}, with batches of {m}, was called {got!r}: its squared gradient is"
                f" multiplied by {per_layer:.2f} per layer."
            )
