"""Checkers of chapter 16, before or after the activation."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, one_change, positive, repeatable, same

Array = np.ndarray


@checker("ch16.shift", name="shift_of")
def shift(answer, rng) -> None:
    """`answer(w, mean, cov, q)` is Var(w·u) in evaluation over that in training, with dropout of a share q on u."""
    for features in (1, 1, *rng.integers(2, 9, 6)):
        w, mean = rng.normal(size=features), rng.normal(0.5, 1, features)
        root = rng.normal(size=(features, features + 2))
        cov, q = root @ root.T / features, float(rng.uniform(0.05, 0.9))
        evaluation = w @ cov @ w
        squares = w**2 @ (np.diag(cov) + mean**2)
        noise = q / (1 - q) * squares
        same(
            answer(w.copy(), mean.copy(), cov.copy(), q),
            evaluation / (evaluation + noise),
            f"The ratio for {features} input{'s' if features > 1 else ''} and q = {q:.2f}",
            hint="What does a mask add to the variance of one input?",
            mistakes={
                "It is upside down.": (evaluation + noise) / evaluation,
                "Without a mask inputs that go together move w·u together: take the whole matrix.": w**2
                @ np.diag(cov)
                / (w**2 @ np.diag(cov) + noise),
                "A mask scales the mean of an input as well.": evaluation
                / (evaluation + q / (1 - q) * (w**2 @ np.diag(cov))),
                "Every input has a mask of its own.": evaluation
                / (evaluation + q / (1 - q) * (evaluation + (w @ mean) ** 2)),
                "What is kept is divided by 1 − q.": evaluation / (evaluation + q * (1 - q) * squares),
                "A mask that is divided by 1 − q has another variance than q.": evaluation / (evaluation + q * squares),
                "q is the share that is dropped, not that which is kept.": evaluation
                / (evaluation + (1 - q) / q * squares),
                "That is the ratio of the standard deviations.": np.sqrt(evaluation / (evaluation + noise)),
            },
        )


@checker("ch16.absorb")
def absorb(answer, rng) -> None:
    """`answer(weight, bias, gamma, beta, mean, var, eps)` are weight and bias without a normalization in front."""
    for _ in range(4):
        n, inside, out = (int(k) for k in rng.integers(2, 9, 3))
        u = rng.uniform(0, 1, (n, inside))
        weight, bias = rng.normal(size=(out, inside)), rng.normal(size=out)
        gamma, beta, mean = rng.normal(size=(3, inside))
        var, eps = rng.uniform(0.1, 2, inside), float(rng.choice([1e-5, 0.1]))
        expected = F.linear(F.batch_norm(u, mean, var, gamma, beta, eps=eps)[0], weight, bias)[0]
        got = answer(*(a.copy() for a in (weight, bias, gamma, beta, mean, var)), eps)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong(f"Return two arrays, weight and bias, got {got!r}.")
        new_weight, new_bias = (np.asarray(a, dtype=float) for a in got)
        if new_weight.shape != weight.shape or new_bias.shape != bias.shape:
            raise Wrong(
                f"Weight and bias must keep their shapes {weight.shape} and {bias.shape}, "
                f"got {new_weight.shape} and {new_bias.shape}."
            )
        a, given = gamma / np.sqrt(var + eps), u @ weight.T
        through = (u * a) @ weight.T
        same(
            u @ new_weight.T + new_bias,
            expected,
            "What the linear layer puts out",
            hint="Insert y = a u + b for BN.",
            mistakes={
                "The mean and β go into the bias.": through + bias,
                "β goes into the bias as well.": through + bias - weight @ (a * mean),
                "The mean goes into the bias as well.": through + bias + weight @ beta,
                "The mean is subtracted, also in the bias.": through + bias + weight @ (beta + a * mean),
                "The bias of the linear layer is lost.": expected - bias,
                "The weight has not taken anything over.": given + bias + weight @ (beta - a * mean),
                "ε is missing.": (u - mean) / np.sqrt(var) * gamma @ weight.T + beta @ weight.T + bias,
                "Divide by the root of the variance.": (u - mean) / (var + eps) * gamma @ weight.T
                + weight @ beta
                + bias,
                "γ is missing.": (u - mean) / np.sqrt(var + eps) @ weight.T + weight @ beta + bias,
            },
        )


BASE = {"activation": "tanh", "init": "xavier", "lr": 0.01}
UPDATES, WIDTHS = 156, (128,) * 5
AT_MOST, AT_LEAST = 0.02, 0.78  # of the mean difference over three seeds, and of both mean accuracies


def accuracy(placement: str, activation: str, init: str, lr: float, seed: int) -> float:
    """Validation accuracy after 156 updates with Adam; a diverged run counts as guessing."""

    from ...experiments.protocol import evaluate, split, updates
    from ...models.torch_mlp import mlp

    with repeatable(seed):
        model = mlp(widths=WIDTHS, activation=activation, init=init, placement=placement)
        done = sum(1 for _ in updates(model, *split("train"), steps=UPDATES, lr=lr, seed=seed, optimizer="adam"))
        return evaluate(model, *split("val")).accuracy if done == UPDATES else 0.1


@checker("ch16.overturn")
def overturn(answer, rng) -> None:
    """`answer()` is the one setting to change, such as {"lr": 0.1}."""
    from ...models.torch_mlp import INITS

    name, value = one_change(answer, BASE, lr=0.1)
    if name == "lr":
        positive(name, value)
    else:
        accepted = ("relu", "tanh", "sigmoid") if name == "activation" else INITS
        if value not in accepted:
            raise Wrong(f"The value of {name!r} must be one of {', '.join(accepted)}, got {value!r}.")
    seeds = [int(seed) for seed in rng.choice(1000, 3, replace=False)]
    before, after = (
        np.mean([accuracy(placement, **(BASE | {name: value}), seed=seed) for seed in seeds])
        for placement in ("before", "after")
    )
    found = f"With {name} = {value!r} the mean accuracy of three seeds is {before:.3f} before and {after:.3f} after"
    if min(before, after) < AT_LEAST:
        raise Wrong(f"{found}: both should learn, to {AT_LEAST} at least.")
    if before - after > AT_MOST:
        raise Wrong(f"{found}: 'before' is still ahead by more than {AT_MOST}.")


ORDERS = ("before", "after")


def hidden_layer(rng: np.random.Generator, order: str) -> tuple[Array, Array, Array]:
    """What a hidden layer hands on in training mode, and the scale and shift of its normalization.

    The activation is ReLU, tanh or sigmoid; the normalization stands "before" or "after" it.
    """
    activation = rng.choice([F.relu, F.tanh, F.sigmoid])
    n, features = int(rng.integers(30, 200)), int(rng.integers(3, 12))
    z = rng.normal(rng.uniform(-0.7, 0.7, features), 1, (n, features)) * rng.uniform(0.5, 2, features)  # none dead
    weight = rng.uniform(0.3, 2, features) * rng.choice([1, 1, -1], features)
    bias = rng.normal(rng.choice([0, 2]), 1, features)

    def normalize(values):
        return F.batch_norm(values, None, None, weight, bias, training=True)[0]

    if order == "after":
        return normalize(activation(z)[0]), weight, bias
    values = activation(normalize(z))[0]
    if min(abs(values.mean(0) - bias).max(), abs(values.std(0) - abs(weight)).max()) < 0.1:
        return hidden_layer(rng, order)  # a ReLU that has hardly a negative value to cut off: either order would fit
    return values, weight, bias


@checker("ch16.order")
def order(answer, rng) -> None:
    """`answer(values, weight, bias)` says where the normalization of a hidden layer stands."""
    for expected in rng.permutation(np.repeat(ORDERS, 50)):
        values, weight, bias = hidden_layer(rng, str(expected))
        got = answer(values, weight, bias)
        if got not in ORDERS:
            raise Wrong(f"Return one of {', '.join(map(repr, ORDERS))}, got {got!r}.")
        if got != expected:
            reach = f"from {values.min():.2f} to {values.max():.2f}"
            raise Wrong(f"The layer with values {reach} is {str(expected)!r}, got {got!r}.")
