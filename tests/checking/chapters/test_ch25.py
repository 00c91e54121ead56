"""The checkers of chapter 25 accept the solutions and refuse wrong answers."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bnbook.checking import check
from bnbook.checking.chapters.ch25 import LIMITS, record

TORCH = importlib.util.find_spec("torch") is not None


def fused(grad_z, x, mean, inv_std, weight, bias, *, mask="affine", inside=True, sums="masked", after=False):
    x_hat = (x - mean) * inv_std
    y = {"affine": weight * x_hat + bias, "x_hat": x_hat, "no bias": weight * x_hat, "all": np.ones_like(x)}[mask]
    g = grad_z * (y > 0)
    of = g if sums == "masked" else grad_z
    grad_bias, grad_weight = of.sum(axis=0), (of * x_hat).sum(axis=0)
    inner = g - grad_bias / len(x) - x_hat * grad_weight / len(x) if inside else g
    grad_x = weight * inv_std * inner
    return (grad_x * (weight * x_hat + bias > 0) if after else grad_x), grad_weight, grad_bias


def in_place(grad_z, x, mean, inv_std, weight, bias):
    grads = fused(grad_z, x, mean, inv_std, weight, bias)
    grad_z *= weight * (x - mean) * inv_std + bias > 0
    return grads


def even(launches, launch, maps, size, bandwidth):
    return launches * launch * bandwidth / (maps * size)


def kept(call, *, once=True, of=lambda t: t.untyped_storage().nbytes(), hold=True, twice=False):
    import torch

    found = {}

    def note(t):
        found[t.untyped_storage().data_ptr() if once else len(found)] = of(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        held = call()
        if twice:
            call()
    assert held is not None
    return sum(found.values())


def limit(given, *, flat=1.5, far=2.0, sides=("memory", "arithmetic")):
    seconds, values = given["seconds"], given["values"][-1]
    if seconds[-1] < flat * seconds[0]:
        return "launches"
    times = values * given["bytes"] / given["bandwidth"], values * given["flops"] / given["peak"]
    if seconds[-1] > far * max(times):
        return "access"
    return sides[int(times[1] > times[0])]


RIGHT = {
    "ch25.fused_backward": fused,
    "ch25.even": even,
    "ch25.smallest": lambda u, bias, largest, error: u * abs(bias) / (error - u * largest),
    "ch25.limit": limit,
    "ch25.kept_bytes": kept,
}

WRONG = {
    "ch25.fused_backward": {
        "no mask": lambda *given: fused(*given, mask="all"),
        "the mask of x_hat": lambda *given: fused(*given, mask="x_hat"),
        "no bias in the mask": lambda *given: fused(*given, mask="no bias"),
        "diagonal": lambda *given: fused(*given, inside=False),
        "sums before the mask": lambda *given: fused(*given, sums="all"),
        "the mask at the end": lambda *given: fused(*given, mask="all", after=True),
        "in another order": lambda *given: fused(*given)[::-1],
        "two of them": lambda *given: fused(*given)[:2],
        "in place": in_place,
    },
    "ch25.even": {
        "bytes": lambda n, launch, maps, size, b: n * launch * b / maps,
        "one map": lambda n, launch, maps, size, b: n * launch * b / size,
        "one launch": lambda n, launch, maps, size, b: launch * b / (maps * size),
        "inverted": lambda n, launch, maps, size, b: maps * size / (n * launch * b),
    },
    "ch25.smallest": {
        "the bias alone": lambda u, bias, largest, error: u * abs(bias) / error,
        "added": lambda u, bias, largest, error: u * abs(bias) / (error + u * largest),
        "signed": lambda u, bias, largest, error: -u * bias / (error - u * largest) if bias > 0 else 0.0,
        "no bias": lambda u, bias, largest, error: u / (error - u * largest),
    },
    "ch25.limit": {
        **{f"always {name}": lambda given, name=name: name for name in LIMITS},
        "no launches": lambda given: limit(given, flat=0),
        "never far": lambda given: limit(given, far=1e9),
        "too strict": lambda given: limit(given, far=1.02),
        "the sides swapped": lambda given: limit(given, sides=("arithmetic", "memory")),
        "no name": lambda given: "the card",
    },
    "ch25.kept_bytes": {
        "everything twice": lambda call: kept(call, once=False),
        "values, not bytes": lambda call: kept(call, of=lambda t: t.numel()),
        "of the view alone": lambda call: kept(call, of=lambda t: t.numel() * t.element_size()),
        "called twice": lambda call: kept(call, twice=True),
        "nothing": lambda call: (call(), 0)[1],
    },
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_records_are_what_they_say(name):
    for _ in range(20):
        given = record(name, np.random.default_rng())
        assert np.all(np.diff(given["values"]) > 0) and given["seconds"].shape == given["values"].shape
        roof = given["values"][-1] * max(given["bytes"] / given["bandwidth"], given["flops"] / given["peak"])
        share = roof / given["seconds"][-1]
        assert (share < 0.3) == (name in ("access", "launches")) and share <= 1
        assert (given["seconds"][-1] < 1.1 * given["seconds"][0]) == (name == "launches")


def test_mistakes_are_named():
    said = {name: check("ch25.fused_backward", answer).message for name, answer in WRONG["ch25.fused_backward"].items()}
    assert "The mask of the ReLU is missing" in said["no mask"]
    assert "β is missing in the mask" in said["no bias in the mask"]
    assert "the two means are subtracted" in said["diagonal"]
    assert "changed the array it was given" in said["in place"]
    assert "not in values" in check("ch25.even", WRONG["ch25.even"]["bytes"]).message
    assert "not β alone" in check("ch25.smallest", WRONG["ch25.smallest"]["the bias alone"]).message


@pytest.mark.skipif(not TORCH, reason="torch is not installed")
def test_what_is_kept_is_counted_once():
    assert "untyped_storage" in check("ch25.kept_bytes", WRONG["ch25.kept_bytes"]["everything twice"]).message
    assert "called once, was called 2" in check("ch25.kept_bytes", WRONG["ch25.kept_bytes"]["called twice"]).message
