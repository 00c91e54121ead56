"""Checkers of chapter 12, scale invariance and the effective learning rate."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, recognized, same

Array = np.ndarray


@checker("ch12.rest")
def rest(answer, rng) -> None:
    """`answer(lr, decay, g)` is the length at which steps and decay balance."""
    for _ in range(20):
        lr, g = 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-1, 1)
        decay = rng.uniform(0.05, 0.95) / lr
        length = g**0.5
        for _ in range(2_000):  # the recursion itself, which knows no formula
            squared = ((1 - lr * decay) * length) ** 2 + (lr * g / length) ** 2
            length = (length * squared**0.5) ** 0.5  # the same rest, without swinging around it
        case = f"for η = {lr:.3g}, λ = {decay:.3g}, G = {g:.3g}"
        same(
            answer(lr, decay, g),
            length,
            f"The length {case}",
            tol=1e-6,
            hint="Put the same length on both sides.",
            mistakes={
                "That is the approximation for small ηλ.": (lr * g**2 / (2 * decay)) ** 0.25,
                "That is the square of the length.": length**2,
                "That is the fourth power of the length.": length**4,
                "1 − ηλ is squared, too.": (lr * g**2 / decay) ** 0.25,
            },
        )


@checker("ch12.rising")
def rising(answer, rng) -> None:
    """`answer(lr, decay, t)` is the rate that stands for decay: both runs keep one direction."""
    data = rng.normal(size=(40, 6))
    upstream = rng.normal(size=(40, 1))

    def gradient(w: Array) -> Array:
        y, cache = F.batch_norm((data @ w)[:, None], None, None, training=True, eps=1e-15)
        return data.T @ F.batch_norm_backward((y - upstream) / 40, cache)[0][:, 0]

    for _ in range(3):
        lr, share = 10 ** rng.uniform(-1.5, -0.5), rng.uniform(0.01, 0.08)
        a = b = rng.normal(size=6)
        for t in range(12):
            rate = answer(lr, share / lr, t)
            if np.shape(rate) != () or not np.isfinite(rate):
                raise Wrong(f"Return one number, got {rate!r}.")
            a, b = (1 - share) * a - lr * gradient(a), b - rate * gradient(b)
            sine = np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))
            if not sine < 1e-7:
                steps, longer = np.arange(8), 1 / (1 - share)
                mistakes = {
                    "A constant rate falls behind the decay.": lr + 0 * steps,
                    "The step and the gradient change, both.": lr * longer**steps,
                    "The step and the gradient change, both: one of them only is there.": lr * longer ** (steps + 1),
                    "The decay of the step itself is missing.": lr * longer ** (2 * steps),
                    "That is one decay too many.": lr * longer ** (2 * steps + 2),
                    "The rate has to rise.": lr / longer ** (2 * steps + 1),
                    "That is so for small ηλ.": lr * np.exp(2 * share * steps),
                }
                hint = recognized(
                    [answer(lr, share / lr, int(step)) for step in steps],
                    mistakes,
                    "The gradient of weights that are c times as long is 1/c of the gradient.",
                )
                case = f"With η = {lr:.3g} and λ = {share / lr:.3g}"
                raise Wrong(f"{case} the directions are {sine:.1e} apart after step {t}. {hint}")


@checker("ch12.normalize_once")
def normalize_once(answer, rng) -> None:
    """`answer(weights, x)` scales each matrix so that every layer's outputs have mean square 1."""
    for layers in (1, 2, 5):
        widths = rng.integers(4, 30, layers + 1)
        x = rng.normal(rng.normal(), 1, size=(int(rng.integers(20, 60)), widths[0]))
        weights = [rng.normal(size=(after, before)) * 10 ** rng.uniform(-3, 2) for before, after in pairwise(widths)]
        kept = [weight.copy() for weight in weights]
        got, h = answer(weights, x), x
        if not isinstance(got, list | tuple) or len(got) != layers:
            raise Wrong(f"Return a list of {layers} matrices, got {type(got).__name__}.")
        if not all(np.array_equal(a, b) for a, b in zip(weights, kept, strict=True)):
            raise Wrong("Your function changed the weights it was given; return new ones.")
        raw, linear = x, x  # through the layers as they were given, and without ReLU
        for k, weight in enumerate(weights, start=1):
            z, from_raw, from_linear = h @ weight.T, raw @ weight.T, linear @ weight.T
            expected = weight / np.sqrt((z**2).mean())
            without_relu = weight / np.sqrt((from_linear**2).mean())
            same(
                got[k - 1],
                expected,
                f"Matrix {k} of {layers}",
                hint="Each layer receives what the scaled layers before it give, through ReLU.",
                mistakes={
                    "Its inputs are those behind the scaled layers.": weight / np.sqrt((from_raw**2).mean()),
                    "ReLU stands between the layers.": without_relu,
                    "The mean square is asked for, not the variance.": weight / z.std(),
                    "One factor for the matrix, not one for each unit.": weight / np.sqrt((z**2).mean(axis=0))[:, None],
                    "The root is missing.": weight / (z**2).mean(),
                    "It is the mean square of the outputs, not of the weights.": weight / np.sqrt((weight**2).mean()),
                },
            )
            h, raw, linear = np.maximum(h @ expected.T, 0), np.maximum(from_raw, 0), linear @ without_relu.T


@checker("ch12.overturn")
def overturn(answer, rng) -> None:
    """`answer(setting)` changes one entry, neither norm nor scale, and the network learns."""
    from ...experiments.claims import init_scale

    setting = {"optimizer": "SGD", "init": "he", "scale": 0.01, "norm": "none", "lr": 0.01}
    got = answer(dict(setting))
    if not isinstance(got, dict) or got.keys() != setting.keys():
        raise Wrong(f"Return a setting with the entries {', '.join(setting)}.")
    changed = [name for name in setting if got[name] != setting[name]]
    if len(changed) != 1:
        raise Wrong(f"Exactly one entry should change, you changed {', '.join(changed) or 'none'}.")
    if changed[0] in ("norm", "scale"):
        raise Wrong(f"{changed[0]!r} should stay as it is.")
    got["optimizer"] = str(got["optimizer"])
    right = init_scale.run(got, int(rng.integers(1_000)))["val_accuracy"]
    if right < 0.7:
        raise Wrong(f"With {changed[0]} = {got[changed[0]]!r} the share of right answers is {right:.2f}.")


def black_box(rng: np.random.Generator) -> tuple[Callable[[dict], float], dict[str, Array], dict[str, str]]:
    """A random network's loss, its parameters under names that tell nothing, and what the loss sees of each."""
    x, goal = rng.normal(size=(30, 5)), rng.normal(size=(30, 3))
    widths = [5, *rng.integers(4, 9, 3), 3]
    normalized = [*rng.permutation([True, False, bool(rng.random() < 0.5)]), False]
    order = [f"p{k}" for k in rng.permutation(20)]
    parameters, truth, layers = {}, {}, []
    for (before, after), bn in zip(pairwise(widths), normalized, strict=True):
        names, shapes = [order.pop() for _ in range(4 if bn else 2)], [(before, after), (after,), (after,), (after,)]
        parameters |= {name: rng.normal(0.5, 1, shape) for name, shape in zip(names, shapes, strict=False)}
        kinds = ("direction", "nothing", "all", "all") if bn else ("all", "all")
        truth |= dict(zip(names, kinds, strict=True))
        layers.append(names)

    def loss(given: dict[str, Array]) -> float:
        h = x
        for k, names in enumerate(layers):
            weight, bias, *affine = (given[name] for name in names)
            h = h @ weight + bias
            if affine:
                h, _ = F.batch_norm(h, None, None, *affine, training=True, eps=1e-14)
            if k < len(layers) - 1:
                h = np.logaddexp(0, h)  # a smooth ReLU: no unit is ever dead
        return float(((h - goal) ** 2).mean())

    before = loss(parameters)
    for name in (name for name, kind in truth.items() if kind == "all"):
        value = parameters[name]
        for other in (value / 2, 3 * value, rng.normal(size=value.shape)):
            if abs(loss(parameters | {name: other}) - before) < 1e-3 * before:
                return black_box(rng)  # the loss sees so little of it that one may overlook it
    return loss, {name: parameters[name] for name in sorted(parameters)}, truth


@checker("ch12.sees")
def sees(answer, rng) -> None:
    """`answer(loss, parameters)` says of each array whether the loss sees nothing, the direction, or all of it."""
    for _ in range(6):
        loss, parameters, truth = black_box(rng)
        got = answer(loss, {name: value.copy() for name, value in parameters.items()})
        if not isinstance(got, dict) or got.keys() != truth.keys():
            raise Wrong("Return a dictionary with the names of the parameters.")
        for name, kind in truth.items():
            if got[name] not in ("nothing", "direction", "all"):
                raise Wrong(f"The answer {got[name]!r} is none of 'nothing', 'direction', 'all'.")
            if got[name] != kind:
                shape = parameters[name].shape
                raise Wrong(f"An array of shape {shape} of which the loss sees {kind!r} was called {got[name]!r}.")
