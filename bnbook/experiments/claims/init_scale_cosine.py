"""`init_scale` again, under a rate that falls to zero: settings are chosen on a pilot and confirmed on fresh seeds.

Each seed draws its own training images, and 10,000 others validate. Every start has rates of its own, about where its
best ones lie. When all rows are there, this takes the place of `init_scale`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .. import Comparison
from ..protocol import split, subset, train_and_score
from . import init_scale
from .init_scale import ARMS, BATCH_SIZE, OPTIMIZERS, SCALES, STEPS, _norms, at_best_rate, network, starts
from .init_scale import figure as figure
from .init_scale import in_scope as in_scope

QUESTION, CLAIM, SOURCE, FOLKLORE = init_scale.QUESTION, init_scale.CLAIM, init_scale.SOURCE, init_scale.FOLKLORE
CHAPTER, VERSION, SEEDS, CONFIRM = 12, 1, 2, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK, METRIC, DELTA = init_scale.NETWORK, init_scale.METRIC, init_scale.DELTA
SCOPE, FACTOR = init_scale.SCOPE, init_scale.FACTOR

VALIDATION = 10_000  # images, none of which any run trains on
HE = {"init": "he", "scale": 1.0}
AT_HE = (0.0316, 0.1, 0.316)  # without BN: about the best rate at He's scale, tried at every scale
RATES = {  # by optimizer and normalization; a rate of 0 is the untrained network: nothing lies beyond it
    ("SGD", "batch"): (0.001, 0.01, 0.1, 0.316, 1.0, 3.16, 10.0),
    ("Adam", "batch"): (1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.0316, 0.1),
    ("Adam", "none"): (0.000316, 0.001, 0.00316, 0.01, 0.0316),
}
WITHOUT = {  # SGD without BN, by scale: beside those of AT_HE
    0.01: (0.0, 1e-05, 1.0),
    0.0316: (0.0, 1e-05, 1.0),
    0.1: (0.0, 1.0, 3.16),
    0.316: (1.0, 3.16),
    1.0: (0.01, 1.0),
    3.16: (0.0001, 0.000316, 0.001, 0.00316, 0.01),
    10.0: (3.16e-06, 1e-05, 3.16e-05, 0.0001, 0.000316),
}


def rates(optimizer: str, start: dict, norm: str) -> tuple[float, ...]:
    """The rates that are tried from a start."""
    if (optimizer, norm) != ("SGD", "none"):
        return RATES[optimizer, norm]
    scale = 0.316 if start["init"] == "default" else start["scale"]  # PyTorch's default is close to that
    return tuple(sorted({*AT_HE, *WITHOUT[scale]}))


def grid(quick: bool = False) -> list[dict]:
    """Every start at its rates, with and without, by both optimizers; quick: SGD, three scales and three rates."""
    return [
        {"optimizer": optimizer, **start, "norm": norm, "lr": lr}
        for optimizer in (OPTIMIZERS[:1] if quick else OPTIMIZERS)
        for start in (starts(optimizer)[:-1:3] if quick else starts(optimizer))
        for norm in ARMS.values()
        for lr in (rates(optimizer, start, norm)[-3:] if quick else rates(optimizer, start, norm))
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores after the last update, and the norm of each layer's weights before and after."""
    torch.manual_seed(seed)
    model = network(setting)
    before = _norms(model)
    row = train_and_score(
        model,
        subset(10_000, seed),
        split("val", VALIDATION),
        split("test"),
        steps=STEPS,
        lr=setting["lr"],
        optimizer=setting["optimizer"].lower(),
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )
    return row | {"weight_norms": [before, _norms(model)]}


def comparisons(rows: list[dict], optimizer: str = "SGD") -> list[Comparison]:
    """With BN minus without, at every start, each arm at its own best rate there; by SGD, as in the paper.

    Confirmed are as well the same by Adam, and every scale at the rate that is best at He's.
    """
    found = init_scale.comparisons(rows, optimizer)
    if optimizer != "SGD":
        return found
    adam = [s for c in init_scale.comparisons(rows, "Adam") for s in c.settings]
    held = [
        {"optimizer": "SGD", "init": "he", "scale": scale, "norm": norm, **at_best_rate(rows, "SGD", HE, norm).values}
        for norm in ARMS.values()
        for scale in SCALES
        if any(row["setting"]["scale"] == 1.0 for row in rows)
    ]
    held = [setting for setting in held if setting in grid()]  # else the missing rows are named where they are read
    return [replace(found[0], settings=(*found[0].settings, *adam, *held)), *found[1:]]
