"""Whether batch normalization gives a better network in the end at full size: all images, the whole CNN, more updates.

The CNN of chapter 8 on 28x28 images: every seed draws 50,000 of the 60,000 to train on, the other 10,000 choose the
rate, and the 10,000 test images score; three times the epochs of chapter 10. All runs are made on the CPU, so that they
are of one kind of processor, and anybody can make them again; the study `full_size_card` holds those of a card.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .. import Comparison, best, compare, select
from ..policy import POINTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Which network is better in the end on all training images, each at its best rate, with a longer training?"
CLAIM = (
    "Applied to a state-of-the-art image classification model, Batch Normalization achieves the same accuracy with 14"
    " times fewer training steps, and beats the original model by a significant margin."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "A network with batch normalization ends up better."
CHAPTER, VERSION, SEEDS, CONFIRM = 10, 2, 5, True
DATASET = "Fashion-MNIST, 50,000 training images, drawn anew for each seed"
NETWORK = "CNN of chapter 8, with 28x28 images"
BATCH_SIZE, EPOCHS = 64, 15
STEPS = EPOCHS * (50_000 // BATCH_SIZE)
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "SGD with momentum, as in the paper"  # all of it
NEEDS_MORE = True  # "by a significant margin"

NORMS = {"with BN": "batch", "without BN": "none"}
RATES = {"batch": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "none": (0.003, 0.01, 0.03, 0.1, 0.3)}


def grid(quick: bool = False) -> list[dict]:
    """Both networks at every rate; quick: at one rate, an epoch of 6,400 images."""
    return [
        {"norm": norm, "lr": lr, "epochs": 1 if quick else EPOCHS, "images": 6_400 if quick else 50_000}
        for norm, rates in RATES.items()
        for lr in rates
        if not quick or lr == 0.03
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network on the CPU; after every epoch the training loss and the validation loss and accuracy."""
    return train_and_score(setting, seed, split_seed=seed, device="cpu")


def train_and_score(setting: dict, seed: int, **how: object) -> dict:
    """What `run` measures, with more settings of `bnbook.train`."""
    from ...train import Settings, train
    from ...train.batches import load

    settings = Settings(
        data="full",
        evaluate="val",
        train_images=setting["images"],
        norm=setting["norm"],
        lr=setting["lr"],
        epochs=setting["epochs"],
        batch_size=BATCH_SIZE,
        seed=seed,
        **how,
    )
    result = train(settings, progress=False)
    device = torch.device(result.settings.device)
    x, y = (tensor.to(device) for tensor in load("test", settings))
    with torch.no_grad():
        right = torch.cat([result.model(part).argmax(1) for part in x.split(1_000)]) == y
    return {
        "train_loss": [row["train_loss"] for row in result.history],
        "val_loss": [row["loss"] for row in result.history],
        "val_curve": [row["accuracy"] for row in result.history],
        "diverged": result.diverged or not math.isfinite(result.final["test_loss"]),
        "val_accuracy": result.history[-1]["accuracy"],
        "test_accuracy": result.final["test_accuracy"],
        "test_loss": result.final["test_loss"],
        "correct": right.cpu().numpy(),
        "training_seconds": result.seconds["training"],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy after the last update, with BN minus without, each at its own best rate."""
    arms = [best(select(rows, norm=norm), over="lr") for norm in NORMS.values()]
    return [compare(f"{STEPS:,} updates", *arms, arms=tuple(NORMS))]


def in_scope(comparison: Comparison) -> bool:
    """Everywhere: the paper trained by SGD with momentum, and so does `run`."""
    return True


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the rate, with rings at the best rates; and over the epochs at the best rate."""
    import matplotlib.pyplot as plt
    import numpy as np

    from ... import plotting

    picture, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.2), sharey=True)
    for (arm, norm), color in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
        choice = best(select(rows, norm=norm), over="lr")
        rates, means = [rate for (rate,) in choice.means], list(choice.means.values())
        left.plot(rates, means, "-", color=color, label=arm)
        left.plot(choice.values["lr"], max(means), "o", ms=10, mfc="none", mew=1.5, color=color)
        curves = np.array([row["val_curve"] for row in choice.rows])
        epochs = np.arange(1, curves.shape[1] + 1)
        right.plot(epochs, curves.T, color=color, lw=0.7, alpha=0.5)
        right.plot(epochs, curves.mean(axis=0), color=color)
    left.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy", ylim=(0.85, 0.935))
    right.set(xlabel="epoch")
    picture.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
