"""Checkers of chapter 19, when the batch is the problem."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..exercises import Wrong, checker, same


@checker("ch19.momentum_of_parts")
def momentum_of_parts(answer, rng) -> None:
    """`answer(momentum, parts)` moves the running statistics in `parts` steps as far as `momentum` does in one."""
    for case in range(12):
        momentum = float(rng.uniform(0.05, 0.6))
        parts = int(rng.integers(3, 20)) if case else 2
        same(
            answer(momentum, parts),
            1 - (1 - momentum) ** (1 / parts),
            f"The momentum for {parts} parts and α = {momentum:.3g}",
            hint="After all parts the old value should have the weight 1 − α.",
            mistakes={
                "The parts do not share α equally: each takes its share of what the one before left.": momentum / parts,
                "That is how far the parts move it with the old momentum.": 1 - (1 - momentum) ** parts,
                "That is what each part leaves of the old value: the momentum is the weight of the new one.": (
                    1 - momentum
                )
                ** (1 / parts),
                "α is the weight of the new value, not of the old one.": momentum ** (1 / parts),
                "That is the momentum for one part.": momentum,
            },
        )


@checker("ch19.reveal")
def reveal(answer, rng) -> None:
    """`answer(z, y, weight, bias, m)` is the mean of the other m − 2 values of each channel, from two of them."""
    for case in range(10):
        m, channels, eps = int(rng.integers(4, 12)) if case else 3, 5, float(10 ** rng.uniform(-5, -1))
        x = rng.normal(rng.normal() * 3, rng.uniform(0.5, 3), (m, channels))
        x[1] = x[0] + rng.choice([-1, 1], channels) * rng.uniform(0.5, 2, channels)
        weight, bias = rng.choice([-1, 1], channels) * rng.uniform(0.5, 2, channels), rng.normal(size=channels)
        mean, root = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
        y = weight * (x - mean) / root + bias
        without_weight = (x[0] - x[1]) / (y[0] - y[1])
        unscaled = x[0] - without_weight * y[0]
        same(
            answer(x[:2].copy(), y[:2].copy(), weight, bias, m),
            x[2:].mean(axis=0),
            f"The mean of the others in a batch of {m}",
            tol=1e-6,
            hint="The difference of your two outputs knows nothing of the mean; what does it tell about the variance?",
            mistakes={
                "That is the mean of the whole batch; your own two values are in it.": mean,
                "That is the sum of the others.": x[2:].sum(axis=0),
                "weight and bias come after the normalization: take them off first.": (m * unscaled - x[:2].sum(axis=0))
                / (m - 2),
            },
        )


@checker("ch19.renorm")
def renorm(answer, rng) -> None:
    """`answer(x, running_mean, running_std, weight, bias, r_max, d_max, eps)`: Batch Renormalization in training."""
    for _ in range(8):
        shape = (int(rng.integers(3, 9)), 6)
        eps, r_max, d_max = float(10 ** rng.uniform(-4, -1)), float(rng.uniform(1.2, 2)), float(rng.uniform(0.3, 1))
        x = rng.normal(size=shape) * rng.uniform(0.5, 2, 6) + rng.normal(size=6)
        mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
        # r and d are below their limits, between them, and above
        running_std = std / (r_max ** np.array([-2, -0.5, 0.5, 2, 0.3, -0.3]))
        running_mean = mean - running_std * d_max * np.array([0.5, -2, 2, -0.5, 0.2, 3])
        weight, bias = rng.uniform(0.5, 2, 6), rng.normal(size=6)
        before = x.copy(), running_mean.copy(), running_std.copy()
        x_hat, ratio, shift = (x - mean) / std, std / running_std, (mean - running_mean) / running_std
        r, d = np.clip(ratio, 1 / r_max, r_max), np.clip(shift, -d_max, d_max)
        got = answer(x, running_mean, running_std, weight, bias, r_max, d_max, eps)
        if not all(np.array_equal(now, was) for now, was in zip((x, running_mean, running_std), before, strict=True)):
            raise Wrong("x and the running statistics must stay as they are.")
        same(
            got,
            weight * (x_hat * r + d) + bias,
            "The output",
            hint="r and d are clipped, each by its own limit; a ratio as far below 1 as above it.",
            mistakes={
                "That is batch normalization: r and d are missing.": weight * x_hat + bias,
                "That is evaluation mode: r and d are not clipped.": weight * (x_hat * ratio + shift) + bias,
                "r has a lower limit, too.": weight * (x_hat * np.minimum(ratio, r_max) + d) + bias,
                "d is clipped on both sides.": weight * (x_hat * r + np.minimum(shift, d_max)) + bias,
                "d is not multiplied by r.": weight * r * (x_hat + d) + bias,
                "d is in units of the running standard deviation.": weight
                * (x_hat * r + np.clip((mean - running_mean) / std, -d_max, d_max))
                + bias,
                "r is upside down.": weight * (x_hat * np.clip(1 / ratio, 1 / r_max, r_max) + d) + bias,
                "weight and bias come last.": x_hat * r + d,
            },
        )


@checker("ch19.generous")
def generous(answer, rng) -> None:
    """`answer(m)`: the loss of the first of m values sends ten times as much gradient to the others as to itself."""
    for m in (3, 4, *(int(m) for m in rng.integers(5, 60, 3))):
        x = np.asarray(answer(m), float)
        if x.shape != (m,) or not np.isfinite(x).all():
            raise Wrong(f"For m = {m} return {m} numbers, got an array of shape {x.shape}.")
        if np.ptp(x) < 1e-9 * np.abs(x).max() or not x.any():
            raise Wrong("All values are equal: there is nothing to normalize.")
        x_hat = (x - x.mean()) / x.std()
        itself = 1 - 1 / m - x_hat[0] ** 2 / m  # the entry of the projection
        if itself < 1e-10:
            raise Wrong(
                f"For m = {m} the first value is as far out as it can be, √(m − 1): nothing is sent at all, to nobody."
            )
        ratio = np.sqrt((1 - itself) / itself)
        if not ratio >= 10:
            raise Wrong(
                f"For m = {m} the companions receive {ratio:.3g} times as much as the first value, not ten times."
                " Look at the denominator of the formula: how large can x̂² be?"
            )


def layers(rng: np.random.Generator) -> dict[str, Callable]:
    """Layers `layer(x)` of (16, 4) in training mode, by what their statistics are taken from."""
    mean, std = rng.normal(3, 1, 4), rng.uniform(1.5, 3, 4)

    def normalized(x, axis):
        return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)

    def renormalized(x):
        own = np.sqrt(x.var(axis=0) + 1e-5)
        r, d = np.clip(own / std, 1 / 3, 3), np.clip((x.mean(axis=0) - mean) / std, -5, 5)
        return normalized(x, 0) * r + d

    return {
        "batch": lambda x: normalized(x, 0),
        "ghost": lambda x: normalized(x.reshape(4, 4, 4), 1).reshape(16, 4),
        "frozen": lambda x: (x - mean) / std,
        "layer": lambda x: normalized(x, 1),
        "renorm": renormalized,
    }


@checker("ch19.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer)` names what the statistics of a layer in training mode are taken from."""
    names = list(layers(rng))
    for name in rng.permutation(names * 3):
        got = answer(layers(rng)[str(name)])
        if got not in names:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, names))}.")
        if got != name:
            raise Wrong(f"A layer that is {str(name)!r} was called {got!r}.")
