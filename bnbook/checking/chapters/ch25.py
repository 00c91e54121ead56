"""Checkers of chapter 25, speed on a GPU."""

from __future__ import annotations

import numpy as np

from ..exercises import Wrong, checker, same

Array = np.ndarray


@checker("ch25.fused_backward")
def fused(answer, rng) -> None:
    """`answer(grad_z, x, mean, inv_std, weight, bias)` is the backward pass of batch normalization with ReLU."""
    for _ in range(3):
        m, channels = int(rng.integers(5, 30)), int(rng.integers(2, 6))
        x = rng.normal(rng.normal(size=channels), rng.uniform(0.5, 2, channels), (m, channels))
        grad_z = rng.normal(0.3, 1, (m, channels))
        weight, bias = rng.normal(size=(2, channels))
        mean, inv_std = x.mean(axis=0), 1 / np.sqrt(x.var(axis=0) + 1e-3)
        x_hat = (x - mean) * inv_std
        got = answer(grad_z, x, mean, inv_std, weight, bias)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(f"Return three arrays, (grad_x, grad_weight, grad_bias), got {type(got).__name__}.")

        def backward(mask: Array, inside: bool = True, x_hat=x_hat, grad_z=grad_z, weight=weight, inv_std=inv_std):
            g = grad_z * mask
            sums = (g * x_hat).sum(axis=0), g.sum(axis=0)
            inner = g - sums[1] / len(g) - x_hat * sums[0] / len(g) if inside else g
            return weight * inv_std * inner, *sums

        positive = weight * x_hat + bias > 0
        expected = backward(positive)
        wrong = {
            "The mask of the ReLU is missing: g is ∂z where γx̂ + β > 0, else 0.": backward(np.ones_like(x)),
            "The mask is where γx̂ + β is positive, not x̂.": backward(x_hat > 0),
            "The mask is where γx̂ + β is positive, not x.": backward(x > 0),
            "β is missing in the mask.": backward(weight * x_hat > 0),
            "The mask is the wrong way round.": backward(~positive),
        }
        unmasked = backward(np.ones_like(x))
        for i, name in enumerate(("grad_x", "grad_weight", "grad_bias")):
            mistakes = {what: value[i] for what, value in wrong.items()}
            if i == 0:
                g, rest = grad_z * positive, unmasked
                mistakes |= {
                    "In training the two means are subtracted, as in chapter 4.": backward(positive, inside=False)[0],
                    "The sums are those of the masked gradient.": weight
                    * inv_std
                    * (g - rest[2] / m - x_hat * rest[1] / m),
                    "Mask the upstream gradient, not the result.": unmasked[0] * positive,
                    "The factor γ is missing.": expected[0] / weight,
                }
            same(got[i], expected[i], name, tol=1e-9, mistakes=mistakes)


@checker("ch25.even")
def even(answer, rng) -> None:
    """`answer(launches, launch, maps, size, bandwidth)` is the map from which the bytes take longer."""
    for _ in range(4):
        launches, maps = int(rng.integers(2, 20)), int(rng.integers(3, 14))
        size, launch = int(rng.choice([2, 4, 8])), float(rng.uniform(1e-6, 5e-5))
        bandwidth = float(10 ** rng.uniform(11, 13))
        values = launches * launch * bandwidth / (maps * size)
        same(
            answer(launches, launch, maps, size, bandwidth),
            values,
            f"The map for {launches} launches and {maps} maps of {size} bytes",
            tol=1e-3,  # a whole number will do
            hint="The bytes take values · size · maps / bandwidth seconds.",
            mistakes={
                "That is in bytes of a map, not in values.": values * size,
                "All maps are moved, not one of them.": values * maps,
                "Every launch takes its time.": values / launches,
                "That is the number of bytes in all.": values * size * maps,
                "It is the other way round.": 1 / values,
            },
        )


@checker("ch25.smallest")
def gamma(answer, rng) -> None:
    """`answer(u, bias, largest, error)` is the smallest |γ| from which x̂ is recovered so well."""
    for _ in range(4):
        u, bias = 2.0 ** -int(rng.choice([8, 11, 24])), float(rng.normal() * 3)
        largest = float(rng.uniform(2, 6))
        error = float(u * largest * rng.uniform(2, 50))
        expected = u * abs(bias) / (error - u * largest)
        same(
            answer(u, bias, largest, error),
            expected,
            f"The smallest γ for u = {u:.2g}, β = {bias:.2f} and an error of {error:.2g}",
            tol=1e-9,
            hint="|y| is at most |β| + |γ| · largest, and what is wrong with y is divided by γ.",
            mistakes={
                "γx̂ is rounded as well, not β alone.": u * abs(bias) / error,
                "|γ| · largest adds to the error: it is on the other side.": u * abs(bias) / (error + u * largest),
                "γ may have either sign and so may β: |β|.": u * bias / (error - u * largest),
                "β is missing.": u / (error - u * largest),
                "The error of y is u |y|, and |y| is more than largest.": u * largest / error,
            },
        )


@checker("ch25.kept_bytes")
def kept(answer, rng) -> None:
    """`answer(call)` is the bytes that a call keeps for the backward pass, each memory once."""
    import torch
    from torch import nn

    n, c = int(rng.integers(3, 9)), int(rng.integers(2, 6))
    x = torch.tensor(rng.normal(size=(n, c, 4, 5))).float()
    of_map = x.numel() * x.element_size()
    weight = torch.ones(c, 1, 1, requires_grad=True)
    leaf = x.clone().requires_grad_()
    norm = nn.BatchNorm2d(c)
    cases = {  # name: (call, bytes)
        "x * x, which keeps x twice": (lambda: leaf * leaf, of_map),
        "sigmoid, which keeps its output": (lambda: torch.sigmoid(leaf), of_map),
        "x + x, which keeps nothing": (lambda: leaf + leaf, 0),
        "sigmoid of sigmoid": (lambda: torch.sigmoid(torch.sigmoid(leaf)), 2 * of_map),
        "x · w with a weight per channel": (lambda: leaf * weight, of_map + 4 * c),
        "a product with a view of x, whose memory is all of x's": (
            lambda: leaf[:, :1].sigmoid() * leaf[:, 1:],
            of_map // c + of_map,
        ),
        "the exponential, without gradients": (lambda: torch.exp(x), 0),
        "batch normalization": (lambda: norm(leaf), None),
    }
    for name, (call, expected) in cases.items():
        calls = []

        def counted(call=call, calls=calls):
            calls.append(1)
            return call()

        got = answer(counted)
        if len(calls) != 1:
            raise Wrong(f"call() must be called once, was called {len(calls)} times.")
        if expected is None:  # and what it keeps of its statistics besides
            if not of_map + 4 * c <= float(got) <= of_map + 64 * c:
                raise Wrong(f"Of {name}: x, γ and two statistics are kept, {of_map + 12 * c} bytes or a few more.")
            continue
        same(
            np.asarray(got, dtype=float),
            float(expected),
            f"What {name} keeps, in bytes",
            hint="Keep the result until you have counted, and count each storage (untyped_storage) once.",
            mistakes={"That counts the values, not their bytes.": expected / 4 if expected else -1.0},
        )


LIMITS = ("launches", "memory", "arithmetic", "access")


def record(limit: str, rng: np.random.Generator) -> dict:
    """Times with a few per cent of noise, of an operation that `limit` decides at the largest size."""
    values = np.array([2**k for k in range(10, 27, 2)])
    if limit == "launches":
        values = values[:5]
    bandwidth, launch = float(rng.uniform(1e12, 4e12)), float(rng.uniform(5e-5, 1e-4))
    moved = float(rng.choice([16, 32, 52]))
    ridge = float(rng.uniform(10, 30))
    dense = limit == "arithmetic" or (limit == "access" and rng.integers(2))
    flops = moved * ridge * float(rng.uniform(6, 20) if dense else rng.uniform(0.03, 0.3))
    peak = bandwidth * ridge
    share = rng.uniform(0.03, 0.25) if limit == "access" else rng.uniform(0.65, 0.95)
    work = np.maximum(values * moved / bandwidth, values * flops / peak) / share
    if limit == "launches":
        work = np.minimum(work, launch / 10)
    seconds = np.maximum(work, launch) * rng.uniform(0.97, 1.03, len(values))
    return {"values": values, "seconds": seconds, "bytes": moved, "flops": flops, "bandwidth": bandwidth, "peak": peak}


@checker("ch25.limit")
def limit(answer, rng) -> None:
    """`answer(record)` names what decides at the largest size."""
    for expected in map(str, rng.permutation(list(LIMITS) * 4)):
        got = answer(record(expected, rng))
        if got not in LIMITS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, LIMITS))}.")
        if got != expected:
            raise Wrong(f"A record of which the limit is {expected!r} was called {got!r}.")
