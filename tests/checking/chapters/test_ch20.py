"""The checkers of chapter 20 accept the solutions and refuse wrong answers."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np

from bnbook.checking.chapters.ch20 import layers

TORCH = importlib.util.find_spec("torch") is not None


def leaves(shift, factor, momentum, steps):
    left = (1 - momentum) ** steps
    shift, factor = left * shift, 1 + left * (factor - 1)
    return -shift / np.sqrt(factor), 1 / np.sqrt(factor)


def stall(goal, momentum, dtype=np.float16):
    mean = dtype(0)
    while True:
        exact = float(mean) + momentum * (goal - float(mean))
        if dtype(exact) == mean:
            return float(mean)
        mean = dtype(exact)


def diagnose(layer, x):
    y = layer(x)
    if not np.isfinite(y).all():
        return "poisoned"
    if not np.allclose(layer(x[:5]), y[:5], atol=1e-6):
        return "training mode"
    if np.allclose(y, x, rtol=1e-3, atol=1e-3):
        return "never updated"
    mean, spread = y.mean(axis=0), np.log(y.std(axis=0))
    return "healthy" if np.abs(mean).max() < 0.3 and np.abs(spread).max() < 0.3 else "stale"


def recalibrate(
    model, batches, *, frozen=True, dropout=False, weighted=True, guarded=True, empty="raises", learn=False, anew=True
):
    import torch
    from torch import nn

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    layers = [m for m in norms if m.training or not model.training or not frozen]
    modes = {m: m.training for m in model.modules()}
    momenta = {m: m.momentum for m in layers}
    old = copy.deepcopy(model.state_dict())
    if empty == "resets":
        for layer in layers:
            layer.reset_running_stats()
    seen, number = 0, 0
    try:
        for x in batches:
            if anew and not number:
                for layer in layers:
                    layer.reset_running_stats()
            model.train(dropout)
            for layer in norms:
                layer.train(layer in layers)
            seen, number = seen + len(x), number + 1
            for layer in layers:
                layer.momentum = len(x) / seen if weighted else 1 / number
            with torch.set_grad_enabled(learn):
                y = model(x)
            if learn:
                y.sum().backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= 0.01 * p.grad
    except Exception:
        if guarded:
            put_back(modes, momenta)
        raise
    put_back(modes, momenta)
    if not number and empty != "passes":
        if empty == "raises":
            model.load_state_dict(old)
        raise ValueError("no batch")


def put_back(modes, momenta):
    for module, mode in modes.items():
        module.training = mode
    for module, momentum in momenta.items():
        module.momentum = momentum


def update_bn(model, batches):
    from torch.optim.swa_utils import update_bn

    update_bn(batches, model)


RIGHT = {
    "ch20.leaves": [leaves, lambda *arguments: np.array(leaves(*arguments))],
    "ch20.momentum": [
        lambda momentum, runs: 1 - (1 - momentum) ** (1 / runs),
        lambda momentum, runs: -np.expm1(np.log1p(-momentum) / runs),
    ],
    "ch20.stall": [stall],
    "ch20.diagnose": [diagnose],
}
WRONG = {
    "ch20.leaves": {
        "sign": lambda d, f, a, k: (-leaves(d, f, a, k)[0], leaves(d, f, a, k)[1]),
        "mean not divided": lambda d, f, a, k: (-((1 - a) ** k) * d, leaves(d, f, a, k)[1]),
        "never repaired": lambda d, f, a, k: leaves(d, f, a, 0),
        "factor to zero": lambda d, f, a, k: (
            -((1 - a) ** k) * d / np.sqrt((1 - a) ** k * f),
            1 / np.sqrt((1 - a) ** k * f),
        ),
        "variance": lambda d, f, a, k: (leaves(d, f, a, k)[0], leaves(d, f, a, k)[1] ** 2),
        "the other momentum": lambda d, f, a, k: leaves(d, f, 1 - a, k),
        "one number": lambda d, f, a, k: leaves(d, f, a, k)[0],
    },
    "ch20.momentum": {
        "shared out": lambda momentum, runs: momentum / runs,
        "what is left": lambda momentum, runs: (1 - momentum) ** (1 / runs),
        "the other way round": lambda momentum, runs: 1 - (1 - momentum) ** runs,
        "root of the momentum": lambda momentum, runs: momentum ** (1 / runs),
        "two runs only": lambda momentum, runs: 1 - np.sqrt(1 - momentum),
    },
    "ch20.stall": {
        "the goal": lambda goal, momentum: goal,
        "the goal, rounded": lambda goal, momentum: float(np.float16(goal)),
        "float32": lambda goal, momentum: stall(goal, momentum, np.float32),
        "the bound": lambda goal, momentum: goal - np.spacing(np.float16(goal)) / 2 / momentum,
        "a hundred steps": lambda goal, momentum: float(np.float16(goal * (1 - (1 - momentum) ** 100))),
    },
    "ch20.diagnose": {
        "always healthy": lambda layer, x: "healthy",
        "by chance": lambda layer, x: np.random.default_rng().choice(list(layers())),
        "another word": lambda layer, x: "broken",
        "blind to company": lambda layer, x: "healthy" if (d := diagnose(layer, x)) == "training mode" else d,
        "blind to fresh ones": lambda layer, x: "stale" if (d := diagnose(layer, x)) == "never updated" else d,
        "looks at the mean alone": lambda layer, x: (
            "healthy" if (d := diagnose(layer, x)) == "stale" and abs(layer(x).mean()) < 0.1 else d
        ),
    },
}
if TORCH:
    RIGHT["ch20.recalibrate"] = [recalibrate]
    WRONG["ch20.recalibrate"] = {
        "update_bn": update_bn,
        "frozen layers too": lambda model, batches: recalibrate(model, batches, frozen=False),
        "dropout awake": lambda model, batches: recalibrate(model, batches, dropout=True),
        "batches all alike": lambda model, batches: recalibrate(model, batches, weighted=False),
        "an error leaves it open": lambda model, batches: recalibrate(model, batches, guarded=False),
        "reset before the first batch": lambda model, batches: recalibrate(model, batches, empty="resets"),
        "no error without a batch": lambda model, batches: recalibrate(model, batches, empty="passes"),
        "poisoned for good": lambda model, batches: recalibrate(model, batches, anew=False),
        "learns": lambda model, batches: recalibrate(model, batches, learn=True),
        "nothing": lambda model, batches: None,
    }
