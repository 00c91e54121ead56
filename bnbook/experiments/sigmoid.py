"""The first experiment of Ioffe & Szegedy: three hidden layers of 100 sigmoid units, 50,000 steps of 60 examples.

Theirs was on MNIST; this one is on Fashion-MNIST. Their weights began as "small random Gaussian values"; here from a
Gaussian of standard deviation 0.01 or 0.05, and beside it from Glorot & Bengio's, the standard choice for sigmoids.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..models.torch_mlp import mlp
from ._training import evaluate, logits, split, updates

QUESTION = "How much faster does the sigmoid network of the paper learn with batch normalization, and from which start?"
CLAIM = "The batch-normalized network enjoys the higher test accuracy."
SOURCE = "ioffe2015batch"
CHAPTER, VERSION, SEEDS = 11, 1, 5
DATASET = "Fashion-MNIST, 10,000 training images"
NETWORK = "784-100-100-100-10, sigmoid"
BATCH_SIZE, STEPS = 60, 50_000
METRIC, DELTA = "test_accuracy", 0.005

INITS = (0.01, 0.05, "xavier")
RATES = (0.1, 0.3, 1.0, 3.0)
MARKS = (0, 100, 250, 500, 1_000, 2_000, 4_000, 8_000, 12_000, 18_000, 25_000, 33_000, 41_000, 50_000)
PERCENTILES = (15, 50, 85)  # those of the paper's figure 1(b, c)


def grid(quick: bool = False) -> list[dict]:
    """Every initialization at every rate, with and without; quick: two of each and a twentieth of the steps."""
    inits, rates, steps = (INITS[1:], RATES[::2], STEPS // 20) if quick else (INITS, RATES, STEPS)
    return [
        {"init": init, "lr": lr, "norm": norm, "steps": steps}
        for init in inits
        for lr in rates
        for norm in ("none", "batch")
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; at the marks validation accuracy, and the input of one sigmoid of the last hidden layer."""
    x, y = split("train")
    val, test = split("val"), split("test")
    torch.manual_seed(seed)
    model = mlp(setting["norm"], widths=(100,) * 3, activation="sigmoid", init=setting["init"])
    inputs_of_the_last_sigmoid = model[: list(dict(model.named_children())).index("act3")]
    marks, curve, percentiles, losses, train_loss = [], [], [], [], []

    def look(step: int) -> None:
        marks.append(step)
        curve.append(evaluate(model, *val).accuracy)
        unit = logits(inputs_of_the_last_sigmoid, val[0][:500])[:, 0].numpy()
        percentiles.append(np.percentile(unit, PERCENTILES).tolist())
        train_loss.append(float(np.mean(losses)) if losses else None)
        losses.clear()

    look(step := 0)
    for step, loss in updates(model, x, y, steps=setting["steps"], lr=setting["lr"], seed=seed, batch_size=BATCH_SIZE):
        losses.append(loss)
        if step in MARKS:
            look(step)
    if marks[-1] != step:
        look(step)
    tested = evaluate(model, *test)
    return {
        "marks": marks,
        "val_curve": curve,
        "train_loss": train_loss,
        "percentiles": percentiles,
        "diverged": step < setting["steps"] or not math.isfinite(tested.loss),
        "val_accuracy": curve[-1],
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
    }
