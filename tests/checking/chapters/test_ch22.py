"""The checkers of chapter 22 accept the solutions and reject what only looks like one."""

from math import prod

import numpy as np
import pytest

from bnbook import functional as F
from bnbook.checking import check
from bnbook.checking.chapters.ch22 import KINDS, layer


def by_batch_norm(x, num_groups, order=lambda x, g: (1, len(x) * g, -1)):
    return F.batch_norm(x.reshape(order(x, num_groups)), None, None, training=True)[0].reshape(x.shape)


def by_definition(x, num_groups):
    split = x.reshape(len(x), num_groups, -1)
    centered = split - split.mean(2, keepdims=True)
    return (centered / np.sqrt((centered**2).mean(2, keepdims=True) + 1e-5)).reshape(x.shape)


def interleaved(x, num_groups):
    split = x.reshape(len(x), -1, num_groups, *x.shape[2:]).swapaxes(1, 2)
    y = by_batch_norm(split.reshape(x.shape), num_groups)
    return y.reshape(split.shape).swapaxes(1, 2).reshape(x.shape)


def in_place(x, num_groups):
    x[:] = by_batch_norm(x, num_groups)
    return x


def rank(shape, num_groups, lost=2):
    statistics = shape[0] * num_groups
    return statistics * max(prod(shape) // statistics - lost, 0)


def ratio(weight, inputs):
    return np.linalg.norm(weight) / (inputs @ weight).std()


def ratio_by_covariance(weight, inputs):
    return np.sqrt(weight @ weight / (weight @ np.cov(inputs.T, ddof=0) @ weight))


def agree(shape):
    return F.instance_norm(np.random.default_rng(0).normal(size=shape), eps=1e-12)[0]


def halves(shape):
    """Signs: each map has as many 1 as −1 but for a zero, in an order of its own."""
    rng, size = np.random.default_rng(0), shape[2] * shape[3]
    signs = np.resize([1.0, -1.0], size)
    signs[-1] *= 1 - size % 2
    return np.stack([rng.permutation(signs) for _ in range(shape[0] * shape[1])]).reshape(shape)


def which(layer, shape=(3, 4, 2, 5)):
    x = np.random.default_rng(0).normal(size=shape)
    bumped = x.copy()
    bumped[0, 0, 0, 0] += 1
    moved = np.abs(layer(bumped) - layer(x)) > 1e-9
    if np.sum(moved) == 20 and not moved[0, 1].any():
        return "interleaved"
    found = {30: "batch", 40: "layer", 20: "group", 10: "instance", 4: "position", 5: "row"}[int(moved.sum())]
    return "RMS" if found == "layer" and not np.allclose(layer(x + 1), layer(x), atol=1e-3) else found


RIGHT = {
    "ch22.by_batch_norm": [by_batch_norm, by_definition],
    "ch22.rank": rank,
    "ch22.ratio": [ratio, ratio_by_covariance],
    "ch22.agree": [agree, halves],
    "ch22.which": which,
}

WRONG = {
    "ch22.by_batch_norm": {
        "a batch of its own": lambda x, g: by_batch_norm(x, g, lambda x, g: (len(x), g, -1)),
        "batch and channels swapped": lambda x, g: by_batch_norm(x, g, lambda x, g: (len(x) * g, -1)),
        "interleaved": interleaved,
        "batch": lambda x, g: F.batch_norm(x, None, None, training=True)[0],
        "always one group": lambda x, g: by_batch_norm(x, 1),
        "not put back": lambda x, g: by_batch_norm(x, g).reshape(1, len(x) * g, -1),
        "in place": in_place,
        "nothing": lambda x, g: None,
    },
    "ch22.rank": {
        "two in all": lambda shape, g: prod(shape) - 2,
        "per group": lambda shape, g: prod(shape) - 2 * g,
        "RMS": lambda shape, g: rank(shape, g, 1),
        "lost": lambda shape, g: 2 * shape[0] * g,
        "negative": lambda shape, g: prod(shape) - 2 * shape[0] * g,
        "channels": lambda shape, g: prod(shape) - 2 * shape[1],
    },
    "ch22.ratio": {
        "inverse": lambda w, x: 1 / ratio(w, x),
        "unbiased": lambda w, x: np.linalg.norm(w) / (x @ w).std(ddof=1),
        "not centred": lambda w, x: np.linalg.norm(w) / np.sqrt(((x @ w) ** 2).mean()),
        "squared": lambda w, x: ratio(w, x) ** 2,
        "diagonal": lambda w, x: np.linalg.norm(w) / np.sqrt(w**2 @ x.var(axis=0)),
        "one": lambda w, x: 1.0,
    },
    "ch22.agree": {
        "random": lambda shape: np.random.default_rng(0).normal(size=shape),
        "means alone": lambda shape: (r := np.random.default_rng(0).normal(size=shape)) - r.mean((2, 3), keepdims=True),
        "shifted": lambda shape: agree(shape) + 1,
        "copies": lambda shape: np.broadcast_to(agree((1, 1, *shape[2:])), shape),
        "constant": lambda shape: np.zeros(shape) + np.arange(prod(shape[:2])).reshape(*shape[:2], 1, 1),
        "another shape": lambda shape: agree(shape)[0],
        "of layers": lambda shape: F.layer_norm(np.random.default_rng(0).normal(size=shape), shape[1:])[0],
    },
    "ch22.which": {
        **{f"always {kind}": lambda given, kind=kind: kind for kind in KINDS},
        "blind to order": lambda given: "group" if which(given) == "interleaved" else which(given),
        "blind to the mean": lambda given: "layer" if which(given) == "RMS" else which(given),
        "counts that coincide": lambda given: "batch" if which(given) == "group" else which(given),
        "no name": lambda given: which(given).upper(),
    },
}


def test_the_rank_is_that_of_the_jacobian():
    for shape, groups in (((2, 4, 3), 2), ((2, 4), 2), ((2, 4), 4), ((2, 6), 2), ((3, 2, 3), 1)):
        x, jacobian = np.random.default_rng(0).normal(size=shape), []
        _, cache = F.group_norm(x, groups, eps=1e-20)
        for unit in np.eye(x.size):
            jacobian.append(F.group_norm_backward(unit.reshape(shape), cache)[0].ravel())
        largest = np.linalg.svd(jacobian, compute_uv=False)
        found = int((largest > 1e-6 * max(1, largest[0])).sum()) if x.size > len(x) * groups else 0
        assert found == rank(shape, groups), (shape, groups)


@pytest.mark.parametrize("kind", KINDS)
def test_the_boxes_are_what_they_are_called(kind):
    x = np.random.default_rng(0).normal(2, 3, (3, 4, 5, 6))
    y = layer(kind, x)
    axes = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3), "position": (1,), "row": (3,)}
    if kind in axes:
        np.testing.assert_allclose(y.mean(axes[kind]), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axes[kind]), 1, atol=1e-3)
    elif kind == "RMS":
        np.testing.assert_allclose((y**2).mean((1, 2, 3)), 1, atol=1e-3)
        assert y.mean() > 0.3
    else:
        parts = (y[:, :2], y[:, 2:]) if kind == "group" else (y[:, ::2], y[:, 1::2])
        for part in parts:
            np.testing.assert_allclose(part.mean((1, 2, 3)), 0, atol=1e-12)


def test_mistakes_are_named():
    wrong = WRONG["ch22.by_batch_norm"]
    assert "neighbouring channels" in check("ch22.by_batch_norm", wrong["interleaved"]).message
    assert "a batch of one" in check("ch22.by_batch_norm", wrong["a batch of its own"]).message
    assert "RMS normalization" in check("ch22.rank", WRONG["ch22.rank"]["RMS"]).message
    assert "No rank is negative" in check("ch22.rank", WRONG["ch22.rank"]["negative"]).message
    assert "other way round" in check("ch22.ratio", WRONG["ch22.ratio"]["inverse"]).message
    assert "need one mean" in check("ch22.agree", WRONG["ch22.agree"]["random"]).message
    assert "need one variance" in check("ch22.agree", WRONG["ch22.agree"]["means alone"]).message
    assert "subtracts nothing" in check("ch22.agree", WRONG["ch22.agree"]["shifted"]).message
