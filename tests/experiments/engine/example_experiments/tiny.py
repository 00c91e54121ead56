"""A real experiment of milliseconds, for the tests of the engine: softmax regression on 64 images.

The tests watch it through the environment: every run appends a line to the file TINY_TRACE when it begins and when it
ends, takes TINY_SECONDS, raises where TINY_RAISES names its setting, and ends its process where TINY_DIES does.
"""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bnbook import data, nn, optim
from bnbook.experiments import best, compare, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does batch normalization help softmax regression on 64 images?"
CLAIM = "Batch Normalization allows us to use much higher learning rates and be less careful about initialization."
FOLKLORE = "With batch normalization you can raise the learning rate."
SOURCE = "ioffe2015batch"
CHAPTER, VERSION, STEPS = 11, int(os.environ.get("TINY_VERSION", "1")), 8
DATASET, NETWORK = "Fashion-MNIST, 64 images", "softmax regression"
SEEDS = 3
RATES = (0.01, 0.1, 1.0)


def grid(quick: bool = False) -> list[dict]:
    return [{"norm": norm, "lr": lr} for lr in RATES[: 2 if quick else 3] for norm in ("none", "batch")]


@cache
def images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    x, y = data.load("val")
    x = data.to_input(x).reshape(len(x), -1)
    return {"train": (x[:64], y[:64]), "val": (x[64:128], y[64:128]), "test": (x[128:328], y[128:328])}


def run(setting: dict, seed: int) -> dict:
    name = f"{setting['norm']} {setting['lr']} {seed}"
    trace(f"begin {name}")
    time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
    if name in os.environ.get("TINY_RAISES", "").split(";"):
        raise ArithmeticError(f"{name} raises")
    if name in os.environ.get("TINY_DIES", "").split(";"):
        os.kill(os.getpid(), signal.SIGKILL)
    np.random.seed(seed)  # the process's own stream: threads of one process must not share it
    layers = [nn.BatchNorm1d(784)] if setting["norm"] == "batch" else []
    model = nn.Sequential(*layers, nn.Linear(784, 10, rng=np.random.randint(2**31)))
    loss, step = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), setting["lr"])
    x, y = images()["train"]
    for _ in range(STEPS):
        batch = np.random.permutation(len(x))[:32]
        step.zero_grad()
        loss(model(x[batch]), y[batch])
        model.backward(loss.backward())
        step.step()
    model.eval()
    right = {split: model(x).argmax(axis=1) == y for split, (x, y) in images().items()}
    trace(f"end {name}")
    return {
        "val_accuracy": right["val"].mean(),
        "test_accuracy": right["test"].mean(),
        "correct": right["test"],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "pid": os.getpid(),
    }


def trace(text: str) -> None:
    if path := os.environ.get("TINY_TRACE"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{text} {os.getpid()}\n")


def comparisons(rows: list[dict]) -> list:
    batch, none = (best(select(rows, norm=norm), "lr") for norm in ("batch", "none"))
    return [compare("each at its best rate", batch, none, arms=("with BN", "without BN"))]


def figure(rows: list[dict]) -> Figure:
    from matplotlib.figure import Figure

    drawn = Figure()
    drawn.subplots().plot([row["setting"]["lr"] for row in rows], [row["test_accuracy"] for row in rows], "o")
    return drawn
