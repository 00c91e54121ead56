"""Checkers of chapter 24, many devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, same

Array = np.ndarray


@checker("ch24.factor")
def factor(answer, rng) -> None:
    """`answer(sizes, rank)` is what process `rank` multiplies its mean loss by, under DDP."""
    for K in (2, 3, int(rng.integers(4, 9))):
        sizes = [int(n) for n in rng.choice(np.arange(1, 60), K, replace=False)]
        sizes[int(rng.integers(1, K))] += 60 if K > 2 else 0
        for rank, n in enumerate(sizes):
            N = sum(sizes)
            same(
                answer(list(sizes), rank),
                K * n / N,
                f"The factor of process {rank} for the sizes {sizes}",
                hint="What should the losses of all images add up to, and what does DDP do with the gradients?",
                mistakes={
                    "DDP divides by K, which must be made up for.": n / N,
                    "That is the factor of the sum of the losses; the mean lacks n.": K / N,
                    "Without a factor, an image of a small shard counts for more.": 1.0,
                    "Divide by the number of all images, and multiply by that of the process.": N / (K * n),
                },
            )
    same(answer([4, 0], 1), 0.0, "The factor of a process without images", hint="It has no say.")


def _moments(shards: list[Array]) -> tuple[Array, Array, Array]:
    """(m, μ, M₂) of each; without values, NaN."""
    m = np.array([len(s) for s in shards])
    held = [(s.mean(axis=0), len(s) * s.var(axis=0)) if len(s) else (np.nan * s.sum(axis=0),) * 2 for s in shards]
    mean, M = (np.stack(part) for part in zip(*held, strict=True))
    return m, mean, M


@checker("ch24.merge")
def merge(answer, rng) -> None:
    """`answer(m, mean, M)` merges K shards, (K,) and (K, C), some of them empty."""
    for far, sizes in ((0.0, [7, 4, 12]), (0.0, [0, 5, 17, 0, 2]), (1e7, [6, 3, 9, 4])):
        sizes = [n and n + int(rng.integers(0, 4)) for n in sizes]
        x = rng.normal(size=(sum(sizes), 3)) * rng.uniform(0.5, 2, 3)
        shards = np.split(x, np.cumsum(sizes)[:-1])
        shards = [s + far + k * rng.uniform(0.5, 1.5, 3) for k, s in enumerate(shards)]
        whole = np.concatenate(shards)
        m, mean, M = _moments(shards)
        got = answer(m.copy(), mean.copy(), M.copy())
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"Return three things, (m, mean, M), got {type(got).__name__}.")
        of = f"of shards with {', '.join(map(str, sizes))} values" + (f" near {far:g}" if far else "")
        if not np.isfinite(np.asarray(got[1], float)).all() and 0 in sizes:
            raise Wrong(f"The mean {of} is not finite: what an empty shard holds must not count, not even times 0.")
        same(got[0], len(whole), f"The number of values {of}")
        held = m > 0
        same(
            np.asarray(got[1]) - far,
            whole.mean(axis=0) - far,
            f"The mean {of}" + (f", less {far:g}" if far else ""),
            tol=1e-6,
            hint="A shard counts by its number of values.",
            mistakes={"The shards have different sizes.": mean[held].mean(axis=0) - far},
        )
        total = len(whole) * whole.var(axis=0)
        d2 = (mean[held] - whole.mean(axis=0)) ** 2
        same(
            got[2],
            total,
            f"M {of}",
            tol=1e-6,
            hint="Squares of what is far from zero lose the digits: square differences of means."
            if far
            else "Every value of shard k is further from the common mean by the same distance.",
            mistakes={
                "What lies between the shards is missing.": M[held].sum(axis=0),
                "The distance of a shard counts once for each of its values.": M[held].sum(axis=0) + d2.sum(axis=0),
                "That is the variance, M/m.": whole.var(axis=0),
                "The means of the shards weigh by their numbers of values.": M[held].sum(axis=0)
                + m[held] @ (mean[held] - mean[held].mean(axis=0)) ** 2,
            },
        )


def _gradient(x: Array, g: Array) -> Array:
    _, cache = F.batch_norm(x, None, None, training=True)
    return F.batch_norm_backward(g, cache)[0]


@checker("ch24.ghosts")
def ghosts(answer, rng) -> None:
    """`answer(x, g, sizes)` is the relative error of the gradient where each shard is normalized by itself."""
    for sizes in ([5, 9], [3, 11, 4, 6], [8, 8, 8]):
        x, g = rng.normal(size=(2, sum(sizes), 3))
        x = x * rng.uniform(0.5, 2, 3) + 3
        cuts = np.cumsum(sizes)[:-1]
        parts = np.concatenate([_gradient(a, b) for a, b in zip(np.split(x, cuts), np.split(g, cuts), strict=True)])
        whole = _gradient(x, g)
        off, scale = np.abs(parts - whole), np.abs(whole).max()
        same(
            answer(x.copy(), g.copy(), list(sizes)),
            off.max() / scale,
            f"The error for shards of {sizes}",
            hint="Cut both x and g, normalize each shard by itself, and put the gradients together again.",
            mistakes={
                "Divide by the largest gradient of the whole batch.": off.max(),
                "Divide by the whole batch's largest gradient, not by that of the shards.": off.max()
                / np.abs(parts).max(),
                "The largest difference, not the mean.": off.mean() / scale,
                "Divide by the largest gradient, not each by its own.": (off / np.abs(whole)).max(),
                "That is the root mean square.": np.sqrt((off**2).mean() / (whole**2).mean()),
            },
        )


@checker("ch24.plan")
def plan(answer, rng) -> None:
    """`answer(K, C, a, b)` is the seconds of an all-gather of 2C + 1 numbers, and of all-reduces of C + 1 and C."""
    for power in (1, 3, 6, 12):
        K, C = 2**power, int(rng.integers(8, 2000))
        a, b = float(10 ** rng.uniform(-6, -4)), float(10 ** rng.uniform(8, 10))
        got = answer(K, C, a, b)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Wrong(f"Return two things, the seconds of both ways, got {type(got).__name__}.")
        numbers = 2 * C + 1
        sent, share = 4 * numbers / b, 2 * (K - 1) / K
        where = f"on {K} devices with {C} channels"
        same(
            got[0],
            a * power + (K - 1) * sent,
            f"The seconds of the all-gather {where}",
            tol=1e-9,
            mistakes={
                "A number has 4 bytes.": a * power + (K - 1) * sent / 4,
                "The messages follow one another: log₂K latencies.": a + (K - 1) * sent,
                "Each hands on what K − 1 others have.": a * power + sent,
            },
        )
        same(
            got[1],
            a * 4 * power + share * sent,
            f"The seconds of the two all-reduces {where}",
            tol=1e-9,
            hint="Each of the two has its own latencies; their bytes add up.",
            mistakes={
                "Two all-reduces have twice the messages of one.": a * 2 * power + share * sent,
                "The bytes are already those of both.": a * 4 * power + 2 * share * sent,
                "A number has 4 bytes.": a * 4 * power + share * sent / 4,
            },
        )


FAULTS = ("correct", "nothing", "averages", "no backward", "gamma twice")
EPS = 1e-5


def layer(fault: str, shards: list[Array], upstream: list[Array]) -> tuple[list[Array], list[Array], list[Array]]:
    """Outputs, gradients of x and of γ of each process, with one of FAULTS."""
    m = np.array([len(x) for x in shards])
    means, variances = (np.stack([f(x, axis=0) for x in shards]) for f in (np.mean, np.var))
    if fault == "nothing":
        mean, var = means, variances
    elif fault == "averages":
        mean, var = (np.broadcast_to(part.mean(axis=0), part.shape) for part in (means, variances))
    else:
        whole = np.concatenate(shards)
        mean, var = (np.broadcast_to(part, means.shape) for part in (whole.mean(axis=0), whole.var(axis=0)))
    inv = 1 / np.sqrt(var + EPS)
    hats = [(x - mean[k]) * inv[k] for k, x in enumerate(shards)]
    S1 = np.stack([g.sum(axis=0) for g in upstream])
    S2 = np.stack([(g * h).sum(axis=0) for g, h in zip(upstream, hats, strict=True)])
    if fault in ("nothing", "no backward"):
        by1, by2 = S1 / m[:, None], S2 / m[:, None]
    else:
        by1, by2 = (np.broadcast_to(S.sum(axis=0) / m.sum(), S.shape) for S in (S1, S2))
    grads = [inv[k] * (g - by1[k] - hats[k] * by2[k]) for k, g in enumerate(upstream)]
    return hats, grads, list(np.broadcast_to(S2.sum(axis=0), S2.shape) if fault == "gamma twice" else S2)


@checker("ch24.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(layer)` names what the processes of a synchronized layer exchange."""
    for fault in rng.permutation(list(FAULTS) * 2):

        def given(shards: Any, upstream: Any, fault: str = str(fault)) -> Any:
            shards, upstream = ([np.asarray(part, float) for part in parts] for parts in (shards, upstream))
            if [s.shape for s in shards] != [g.shape for g in upstream] or any(s.ndim != 2 for s in shards):
                raise Wrong("The layer takes two lists of tables (m, C), of the same shapes.")
            if min(map(len, shards)) < 1:
                raise Wrong("This layer does not take empty shards.")
            return layer(fault, shards, upstream)

        got = answer(given)
        if got not in FAULTS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, FAULTS))}.")
        if got != fault:
            raise Wrong(f"A layer that is {str(fault)!r} was called {got!r}.")
