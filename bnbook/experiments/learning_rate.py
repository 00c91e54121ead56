"""Which learning rates work with and without batch normalization, and how good each is at its own best one.

The book's CNN on 14x14 images, three optimizers, two initializations, a grid of rates in half decades that reaches
beyond the best rate of every arm on both sides.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from ..models.torch_cnn import cnn
from ..models.torch_mlp import initialize
from ._training import evaluate, split, updates

QUESTION = "Does the network train at higher learning rates with batch normalization, and does it end up better?"
CLAIM = "Batch Normalization allows us to use much higher learning rates and be less careful about initialization."
SOURCE = "ioffe2015batch"
CHAPTER, VERSION, SEEDS = 11, 1, 5
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels"
NETWORK = "CNN of chapter 8"
BATCH_SIZE, STEPS = 128, 390  # five epochs of 78 updates
MARKS = (20, 39, 78, 117, 156, 234, 312, 390)  # updates after which the validation accuracy is taken
METRIC, DELTA = "test_accuracy", 0.005

ARMS = [{"norm": norm, "init": init} for norm in ("none", "batch") for init in ("default", "he")]
OPTIMIZERS = {  # name: (optimizer, momentum, rates)
    "SGD": ("sgd", 0.0, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "SGD, momentum 0.9": ("sgd", 0.9, (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "Adam": ("adam", 0.0, (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)),
}


def grid(quick: bool = False) -> list[dict]:
    """One setting per optimizer, arm and rate; quick: plain SGD and every other rate."""
    return [
        {"optimizer": optimizer, **arm, "lr": lr}
        for optimizer, (_, _, rates) in list(OPTIMIZERS.items())[: 1 if quick else None]
        for lr in rates[:: 2 if quick else 1]
        for arm in ARMS
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; validation accuracy and the mean loss since the last mark at the marks, test scores at the end."""
    x, y = split("train", half=True)
    val, test = split("val", half=True), split("test", half=True)
    torch.manual_seed(seed)
    model = initialize(cnn(setting["norm"], image_size=14), setting["init"])
    optimizer, momentum, _ = OPTIMIZERS[setting["optimizer"]]
    train = partial(updates, batch_size=BATCH_SIZE, optimizer=optimizer, momentum=momentum, seed=seed)
    marks, curve, losses, train_loss = [], [], [], []
    for step, loss in train(model, x, y, steps=STEPS, lr=setting["lr"]):
        losses.append(loss)
        if step in MARKS:
            marks.append(step)
            curve.append(evaluate(model, *val).accuracy)
            train_loss.append(sum(losses) / len(losses))
            losses.clear()
    tested = evaluate(model, *test)
    return {
        "marks": marks,
        "val_curve": curve,
        "train_loss": train_loss,
        "diverged": step < STEPS or not math.isfinite(tested.loss),
        "val_accuracy": evaluate(model, *val).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
    }
