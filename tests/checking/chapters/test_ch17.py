"""The checkers of chapter 17 accept the solutions and refuse wrong answers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bnbook.checking.chapters import ch17
from bnbook.checking.chapters.ch17 import HURTS, MATTERS, NEEDLESS, NOTHING, study


def shifts(weights, gradient, lr, moved=lambda i, after, weights: after[:i] + weights[i:], relative=True):
    own = gradient(weights)
    after = [w - lr * g for w, g in zip(weights, own, strict=True)]
    found = []
    for i in range(1, len(weights)):
        there = gradient(moved(i, after, weights))[i]
        found.append(np.linalg.norm(there - own[i]) / (np.linalg.norm(own[i]) if relative else 1))
    return found


def in_place(weights, gradient, lr):
    own = gradient(weights)
    found = []
    for i in range(1, len(weights)):
        weights[i - 1] -= lr * own[i - 1]
        found.append(np.linalg.norm(gradient(weights)[i] - own[i]) / np.linalg.norm(own[i]))
    return found


def each_at_its_turn(weights, gradient, lr):
    """Updates a layer with the gradient that it has after the layers before it were updated."""
    weights, own = [w.copy() for w in weights], gradient(weights)
    found = []
    for i in range(1, len(weights)):
        weights[i - 1] = weights[i - 1] - lr * gradient(weights)[i - 1]
        found.append(np.linalg.norm(gradient(weights)[i] - own[i]) / np.linalg.norm(own[i]))
    return found


def conclude(arms, control=True, delta=ch17.POINT):
    mean = {arm: values.mean() for arm, values in arms.items()}
    gain, takes = mean["BN"] - mean["standard"], mean["BN"] - mean["BN + noise"]
    if gain < delta:
        return NOTHING
    if takes < gain / 2:
        return NEEDLESS
    if control and mean["standard"] - mean["standard + noise"] > takes - delta:
        return HURTS
    return MATTERS


RIGHT = {
    "ch17.guaranteed": lambda size, beta, lr: lr * size**2 - beta * (lr * size) ** 2 / 2,
    "ch17.gradient_shift": [shifts, lambda *arguments: np.array(shifts(*arguments))],
    "ch17.overturn": [lambda: {"init": "default"}, {"init": "default"}],
    "ch17.conclude": conclude,
}
WRONG = {
    "ch17.guaranteed": {
        "first order": lambda size, beta, lr: lr * size**2,
        "no half": lambda size, beta, lr: lr * size**2 * (1 - lr * beta),
        "length once": lambda size, beta, lr: lr * size * (1 - lr * beta / 2),
        "never negative": lambda size, beta, lr: max(0.0, lr * size**2 * (1 - lr * beta / 2)),
        "the best rate": lambda size, beta, lr: size**2 / (2 * beta),
    },
    "ch17.gradient_shift": {
        "all layers updated": lambda w, g, lr: shifts(w, g, lr, lambda i, after, weights: after),
        "itself as well": lambda w, g, lr: shifts(
            w, g, lr, lambda i, after, weights: after[: i + 1] + weights[i + 1 :]
        ),
        "the layer before alone": lambda w, g, lr: shifts(
            w, g, lr, lambda i, after, weights: weights[: i - 1] + after[i - 1 : i] + weights[i:]
        ),
        "those behind": lambda w, g, lr: shifts(w, g, lr, lambda i, after, weights: weights[: i + 1] + after[i + 1 :]),
        "not relative": lambda w, g, lr: shifts(w, g, lr, relative=False),
        "with the first layer": lambda w, g, lr: [0.0, *shifts(w, g, lr)],
        "in place": in_place,
        "one after the other": each_at_its_turn,
    },
    "ch17.overturn": {
        "nothing changed": lambda: {"init": "he"},
        "still good": lambda: {"init": "orthogonal"},
        "a smaller rate": lambda: {"lr": 0.01},
        "nothing moves": lambda: {"lr": 1e-6},
        "diverges": lambda: {"lr": 3.0},
        "two settings": lambda: {"init": "default", "lr": 0.01},
        "another setting": lambda: {"batch_size": 4},
        "too deep": lambda: {"depth": 400},
        "no such init": lambda: {"init": "small"},
        "half a layer": lambda: {"depth": 2.5},
        "no dictionary": lambda: "default",
    },
    "ch17.conclude": {
        "without the control": lambda arms: conclude(arms, control=False),
        "never a gain too small": lambda arms: conclude(arms, delta=-1.0),
        "always the same": lambda arms: NEEDLESS,
        "noise at all": lambda arms: NEEDLESS if arms["BN + noise"].mean() > arms["standard"].mean() else MATTERS,
        "one seed": lambda arms: conclude({arm: values[:1] for arm, values in arms.items()}),
    },
}


@pytest.mark.parametrize("conclusion", [NOTHING, NEEDLESS, HURTS, MATTERS])
def test_a_study_allows_the_conclusion_that_was_asked_for(conclusion):
    for seed in range(200):
        arms, told = study(np.random.default_rng(seed), conclusion)
        assert told == conclusion == conclude(arms) and {len(values) for values in arms.values()} == {5}


def test_the_gradients_of_the_small_network_are_right():
    for seed in range(5):
        weights, gradient = ch17.network(np.random.default_rng(seed))
        rng = np.random.default_rng(seed)  # the same network once more, and its loss
        widths = rng.integers(3, 7, int(rng.integers(3, 6)))
        for n, m in pairwise(widths):
            rng.normal(0, 1, (m, n))
        x, target = rng.normal(size=(12, widths[0])), rng.normal(size=(12, widths[-1]))

        def loss(ws, x=x, target=target):
            h = x
            for w in ws:
                h = np.tanh(h @ w.T)
            return 0.5 * ((h - target) ** 2).sum() / len(x)

        for i, g in enumerate(gradient(weights)):
            step = np.zeros_like(g)
            step[0, 1] = 1e-6
            up, down = (loss([w + sign * step if k == i else w for k, w in enumerate(weights)]) for sign in (1, -1))
            assert g[0, 1] == pytest.approx((up - down) / 2e-6, abs=1e-7)


@pytest.mark.long
def test_the_overturned_setting_holds_with_a_margin_and_the_base_does_not():
    base, changed = (
        [ch17.cosine(norm, 7, **{**ch17.SETTING, **change}) for norm in ("batch", "none")]
        for change in ({}, {"init": "default"})
    )
    assert base[0] - base[1] > 0.2 and changed[1] - changed[0] > 3 * ch17.MARGIN
