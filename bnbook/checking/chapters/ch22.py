"""Checkers of chapter 22, the relatives."""

from __future__ import annotations

from itertools import combinations
from math import prod

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, same

Array = np.ndarray


def _batch(rng: np.random.Generator, *shape: int) -> Array:
    """Every channel of every example has a mean and a spread of its own."""
    ones = (1,) * (len(shape) - 2)
    return rng.normal(size=shape) * rng.uniform(0.5, 3, (*shape[:2], *ones)) + rng.normal(size=(*shape[:2], *ones))


@checker("ch22.by_batch_norm")
def by_batch_norm(answer, rng) -> None:
    """`answer(x, num_groups)` is group normalization of (N, C, *)."""
    for shape, groups in (((2, 6, 4, 3), 3), ((3, 4, 5), 1), ((3, 6, 2, 5), 6), ((4, 6), 2), ((2, 4, 2, 3, 5), 2)):
        x = _batch(rng, *shape)
        before = x.copy()
        got = answer(x, groups)
        if not np.array_equal(x, before):
            raise Wrong("x was changed.")
        n, channels = shape[:2]

        def batch_norm(y: Array) -> Array:
            return F.batch_norm(y, None, None, training=True)[0]

        interleaved = x.reshape(n, channels // groups, groups, -1).swapaxes(1, 2).reshape(1, n * groups, -1)
        back = batch_norm(interleaved).reshape(n, groups, channels // groups, -1).swapaxes(1, 2).reshape(shape)
        mistakes = {
            "Each group of each example is a channel; together they are a batch of one.": batch_norm(
                x.reshape(n, groups, -1)
            ).reshape(shape),
            "A group holds neighbouring channels.": back,
            "That is batch normalization.": batch_norm(x),
        }
        mistakes = {words: result for words, result in mistakes.items() if not np.allclose(result, _group(x, groups))}
        same(
            got,
            _group(x, groups),
            f"The output for {shape} and {groups} group{'s' * (groups > 1)}",
            hint="Make a channel of every group of every example, and reshape back.",
            mistakes=mistakes,
        )


def _group(x: Array, groups: int) -> Array:
    return F.group_norm(x, groups)[0]


@checker("ch22.rank")
def rank(answer, rng) -> None:
    """`answer(shape, num_groups)` is the rank of the Jacobian of group normalization at ε = 0."""
    for shape, groups in (
        ((3, 6, 4, 2), 3),
        ((2, 4, 5), 1),
        (tuple(int(size) for size in (*rng.integers(2, 9, 1), 6, *rng.integers(2, 9, 2))), 6),
        ((5, 8), 4),  # two values
        ((5, 8), 8),  # one
        ((5, 8), 2),
    ):
        size, statistics = prod(shape), shape[0] * groups
        m = size // statistics
        same(
            answer(shape, groups),
            statistics * max(m - 2, 0),
            f"The rank for {shape} and {groups} group{'s' * (groups > 1)}, {m} value{'s' * (m > 1)} each",
            hint="One value is its own mean: its output is 0, whatever it is."
            if m == 1
            else "Every mean and every variance that is taken away costs one direction.",
            mistakes={
                "There is a mean and a variance in every group of every example.": size - 2,
                "Every example has groups of its own.": size - 2 * groups,
                "That is one number for each group: RMS normalization. Here it is two.": size - statistics,
                "That is how many directions are lost.": 2 * statistics,
            }
            if m > 2
            else {"No rank is negative.": statistics * (m - 2)},
        )


@checker("ch22.ratio")
def ratio(answer, rng) -> None:
    """`answer(weight, inputs)` is what batch normalization makes of w·x over what weight normalization makes of it."""
    for _ in range(3):
        n, d = int(rng.integers(8, 40)), int(rng.integers(2, 6))
        inputs = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
        weight = rng.normal(size=d)
        z, length = inputs @ weight, np.linalg.norm(weight)
        same(
            answer(weight, inputs),
            length / z.std(),
            f"The ratio for {n} inputs of {d} features",
            hint="Batch normalization divides by the standard deviation of w·x, weight normalization by ‖w‖.",
            mistakes={
                "The other way round.": z.std() / length,
                "The variance of a batch divides by m.": length / z.std(ddof=1),
                "Batch normalization takes the mean away first.": length / np.sqrt((z**2).mean()),
                "Take the roots.": length**2 / z.var(),
                "That is what batch normalization divides by.": z.std(),
                "Correlations count: the covariance is not diagonal.": length / np.sqrt(weight**2 @ inputs.var(axis=0)),
            },
        )


@checker("ch22.agree")
def agree(answer, rng) -> None:
    """`answer(shape)` is a batch on which batch, layer, instance, group and RMS normalization give the same."""
    for _ in range(3):
        shape = (int(rng.integers(2, 4)), int(2 * rng.integers(1, 3)), *(int(s) for s in rng.integers(3, 6, 2)))
        x = np.asarray(answer(shape))
        if x.shape != shape or x.dtype.kind not in "fiu":
            raise Wrong(f"The batch should be numbers of shape {shape}, got {x.dtype} of shape {x.shape}.")
        x = x.astype(float)
        maps = x.reshape(-1, *shape[2:])
        if any(np.allclose(a, b) for a, b in combinations(maps, 2)):
            raise Wrong("Two channels hold the same values: let them all differ.")
        if maps.std(axis=(1, 2)).min() < 1e-3:
            raise Wrong("A channel of an image is constant, or nearly.")
        outputs = {
            "batch": F.batch_norm(x, None, None, training=True)[0],
            "layer": F.layer_norm(x, shape[1:])[0],
            "group": F.group_norm(x, 2)[0],
            "RMS": F.rms_norm(x, shape[1:], eps=1e-5)[0],
        }
        instance = F.instance_norm(x)[0]
        for name, y in outputs.items():
            if np.abs(y - instance).max() > 1e-6:
                means, spreads = maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))
                why = "All channels of all images need one variance."
                if np.ptp(means) > 1e-6:
                    why = "All channels of all images need one mean."
                elif np.ptp(spreads) < 1e-6:
                    why = "And one of them subtracts nothing."
                raise Wrong(f"Instance and {name} normalization still differ. {why}")


KINDS = ("batch", "layer", "group", "interleaved", "instance", "position", "row", "RMS")
"""What `which` is to tell apart."""


def layer(kind: str, x: Array) -> Array:
    """Images (N, C, H, W), C even, normalized by one of KINDS."""
    n, c, h, w = x.shape
    if kind == "batch":
        return F.batch_norm(x, None, None, training=True)[0]
    if kind == "group":
        return F.group_norm(x, 2)[0]
    if kind == "interleaved":
        split = x.reshape(n, c // 2, 2, h, w).swapaxes(1, 2).reshape(x.shape)
        return F.group_norm(split, 2)[0].reshape(n, 2, c // 2, h, w).swapaxes(1, 2).reshape(x.shape)
    if kind == "instance":
        return F.instance_norm(x)[0]
    if kind == "position":
        return np.moveaxis(F.layer_norm(np.moveaxis(x, 1, -1), c)[0], -1, 1)
    if kind == "RMS":
        return F.rms_norm(x, (c, h, w), eps=1e-5)[0]
    return F.layer_norm(x, {"layer": (c, h, w), "row": (w,)}[kind])[0]


@checker("ch22.which")
def which(answer, rng) -> None:
    """`answer(layer)` names the normalization that a black box is."""
    for kind in rng.permutation(list(KINDS) * 2):

        def given(x: Array, kind: str = str(kind)) -> Array:
            if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype.kind != "f" or x.shape[1] % 2:
                raise Wrong("The layer takes an array of floats (N, C, H, W) with an even number of channels.")
            if min(x.shape[2:]) < 2:
                raise Wrong("The layer takes images of at least 2 by 2 positions.")
            return layer(kind, x)

        got = answer(given)
        if got not in KINDS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, KINDS))}.")
        if got != kind:
            raise Wrong(f"A layer that is {str(kind)!r} was called {got!r}.")
