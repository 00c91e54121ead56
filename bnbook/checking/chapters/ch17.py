"""Checkers of chapter 17, why it works."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ..exercises import Wrong, checker, one_change, positive, repeatable, same

Array = np.ndarray


@checker("ch17.guaranteed")
def guaranteed(answer, rng) -> None:
    """`answer(size, curvature, lr)` is by how much a step lowers the loss at least; negative: it may raise it."""
    for _ in range(20):
        size, curvature = 10.0 ** rng.uniform(-2, 2, 2)
        lr = float(rng.uniform(0, 3) / curvature)
        same(
            answer(float(size), float(curvature), lr),
            np.float64(lr * size**2 * (1 - lr * curvature / 2)),
            f"For a gradient of length {size:.3g}, a curvature of {curvature:.3g} and η = {lr:.3g} the answer",
            hint="Add up the slope along the step: after a distance t it is still size − curvature·t, at least.",
            mistakes={
                "The slope does not stay what it is at the start.": lr * size**2,
                "That is the slope at the end of the step, all along it.": lr * size**2 * (1 - lr * curvature),
                "A step has the length η times that of the gradient.": lr * size - curvature * lr**2 / 2,
                "A step has the length η times that of the gradient: square it in both terms.": lr * size**2
                - curvature * lr**2 / 2,
                "That is the slope at the end.": size - curvature * lr * size,
            },
        )


def network(rng: np.random.Generator, least: int = 2):
    """A small network without normalization: its weights, and its gradients as a function of the weights."""
    widths = rng.integers(3, 7, int(rng.integers(least + 1, 6)))
    weights = [rng.normal(0, 1.2 / math.sqrt(n), (m, n)) for n, m in pairwise(widths)]
    x, target = rng.normal(size=(12, widths[0])), rng.normal(size=(12, widths[-1]))

    def gradient(weights: list[Array]) -> list[Array]:
        inputs, h = [], x
        for weight in weights:
            inputs.append(h)
            h = np.tanh(h @ weight.T)
        g, found = (h - target) / len(x), []
        for weight, below, above in zip(reversed(weights), reversed(inputs), [h, *inputs[:0:-1]], strict=True):
            g = g * (1 - above**2)
            found.insert(0, g.T @ below)
            g = g @ weight
        return found

    return weights, gradient


def _shifts(own: list[Array], gradient, moved: list[list[Array]], of_the_end: bool = False) -> list[float]:
    """How far the gradient of every layer but the first goes where the weights are those of `moved`, relatively."""
    ends = [gradient(there)[i] for i, there in enumerate(moved, start=1)]
    return [
        float(np.linalg.norm(end - start) / np.linalg.norm(end if of_the_end else start))
        for start, end in zip(own[1:], ends, strict=True)
    ]


@checker("ch17.gradient_shift")
def gradient_shift(answer, rng) -> None:
    """`answer(weights, gradient, lr)` lists ‖G′−G‖/‖G‖ of every layer but the first, by definition 2.1."""
    for case in range(20):  # with two layers some mistakes do not show
        weights, gradient = network(rng, least=2 if case else 3)
        lr = float(rng.uniform(0.2, 1))
        own = gradient(weights)
        after = [w - lr * g for w, g in zip(weights, own, strict=True)]
        layers = range(1, len(weights))
        expected = _shifts(own, gradient, [after[:i] + weights[i:] for i in layers])
        before = [w.copy() for w in weights]
        got = answer(weights, gradient, lr)
        if len(before) != len(weights) or not all(map(np.array_equal, before, weights)):
            raise Wrong("Your function changed the weights it was given; work on a copy.")
        same(
            got,
            expected,
            f"The list for {len(weights)} layers",
            hint="For layer i all layers before it are updated; layer i itself and those behind it are not.",
            mistakes={
                words: _shifts(own, gradient, moved)
                for words, moved in {
                    "Layer i and those behind it do not move.": [after for _ in layers],
                    "Layer i itself does not move.": [after[: i + 1] + weights[i + 1 :] for i in layers],
                    "All layers before layer i move, not only the one.": [
                        [*weights[: i - 1], after[i - 1], *weights[i:]] for i in layers
                    ],
                    "The layers before layer i move, not those behind it.": [
                        weights[: i + 1] + after[i + 1 :] for i in layers
                    ],
                }.items()
            }
            | {
                "It is divided by the size of the gradient at the start.": _shifts(
                    own, gradient, [after[:i] + weights[i:] for i in layers], of_the_end=True
                ),
                "A size is no square.": np.square(expected),
            },
        )


# --- the cosine of G and G′ in the first updates ---------------------------------------------------------------------

SETTING = {"init": "he", "lr": 0.1, "depth": 5, "width": 128}
UPDATES, EVERY = 60, 10
MARGIN = 0.1  # of the mean cosine


def cosine(norm: str, seed: int, *, init: str, lr: float, depth: int, width: int) -> float:
    """The mean cosine of G and G′ over the first 60 updates of a network, NaN where it diverged."""
    import torch

    from ...experiments.claims.landscape import probe
    from ...experiments.protocol import split, updates
    from ...models.torch_mlp import mlp

    x, y = split("train")
    with repeatable(seed):
        model, found = mlp(norm, widths=(width,) * depth, init=init), []
        batch = torch.arange(128)
        for step, _ in updates(model, x, y, steps=UPDATES, lr=lr, seed=seed):
            if step % EVERY == 0:
                found.append(probe(model, x[batch], y[batch], lr, (x[batch], y[batch]))["cosine"])
        return float(np.mean(found)) if len(found) == UPDATES // EVERY else math.nan


@checker("ch17.overturn")
def overturn(answer, rng) -> None:
    """`answer()` is the one setting to change, such as {"lr": 0.03}."""
    name, value = one_change(answer, SETTING, lr=0.03)
    _check_setting(name, value)
    for seed in map(int, rng.integers(0, 1000, 2)):
        with_bn, without = (cosine(norm, seed, **(SETTING | {name: value})) for norm in ("batch", "none"))
        found = (
            f"With {name} = {value!r} and seed {seed} the mean cosine is {with_bn:.2f} with BN, {without:.2f} without"
        )
        if not (math.isfinite(with_bn) and math.isfinite(without)):
            raise Wrong(f"{found}: a network diverged.")
        if with_bn > without - MARGIN:
            raise Wrong(f"{found}: with BN it should be lower by {MARGIN} at least.")


def _check_setting(name: str, value: object) -> None:
    if name == "init":
        if value not in ("default", "he", "xavier", "orthogonal"):
            raise Wrong(f"The init must be 'default', 'he', 'xavier' or 'orthogonal', got {value!r}.")
        return
    positive(name, value)
    if name == "lr" and value < 0.001:
        raise Wrong(f"At a rate of {value:g} hardly anything moves: 0.001 at least.")
    if name in ("depth", "width") and (not isinstance(value, int) or value > (20 if name == "depth" else 512)):
        raise Wrong(f"The {name} must be a whole number, at most {20 if name == 'depth' else 512}, got {value!r}.")


# --- what an experiment with noise says ------------------------------------------------------------------------------

NOTHING, NEEDLESS, HURTS, MATTERS = (
    "nothing to explain",
    "not the reason",
    "the noise hurts by itself",
    "may be the reason",
)
POINT = 0.005  # δ, half a point


def study(rng: np.random.Generator, conclusion: str | None = None) -> tuple[dict[str, Array], str]:
    """Made-up test accuracies of the four arms, five paired seeds each, and what may be concluded from their means."""
    conclusion = conclusion or str(rng.choice([NOTHING, NEEDLESS, HURTS, MATTERS]))
    gain = rng.uniform(-0.02, 0.003) if conclusion == NOTHING else rng.uniform(0.02, 0.06)
    if conclusion == NOTHING:
        takes, control = rng.uniform(-0.01, 0.03, 2)
    elif conclusion == NEEDLESS:
        takes, control = gain * rng.uniform(-0.2, 0.3), rng.uniform(-0.01, 0.05)
    else:
        takes = gain * rng.uniform(0.7, 1.2)
        control = takes + rng.uniform(-0.003, 0.02) if conclusion == HURTS else takes - rng.uniform(0.009, 0.05)
    standard = rng.uniform(0.78, 0.84)
    means = {"standard": standard, "standard + noise": standard - control}
    means |= {"BN": standard + gain, "BN + noise": standard + gain - takes}
    together = rng.normal(0, 0.01, 5)  # what the arms of a seed have in common
    return {arm: mean + together - together.mean() + _even(rng) for arm, mean in means.items()}, conclusion


def _even(rng: np.random.Generator) -> Array:
    """Five values with the mean 0."""
    values = rng.normal(0, 0.006, 5)
    return values - values.mean()


@checker("ch17.conclude")
def conclude(answer, rng) -> None:
    """`answer(arms)` is what may be concluded from the accuracies of the four arms."""
    for _ in range(100):
        arms, expected = study(rng)
        got = answer(arms)
        if got != expected:
            means = ", ".join(f"{arm} {100 * values.mean():.1f}" for arm, values in arms.items())
            raise Wrong(f"From the means {means} (in percent) your function concludes {got!r}, expected {expected!r}.")
