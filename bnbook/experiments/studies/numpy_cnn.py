"""The NumPy network with and without batch normalization over a grid of learning rates; chapter 8 reads the rows.

The best rate of an arm is the one with the highest validation accuracy, and must lie inside the grid. The test images
are scored after the last epoch of every run and choose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ... import data, nn, optim
from ...models.numpy_cnn import cnn
from ...optim import cosine
from ...probes import record, spread

QUESTION = "How well does the NumPy network learn with batch normalization and without, at which rates?"
CHAPTER, VERSION, SEEDS = 8, 1, 3
DATASET = "Fashion-MNIST, 10,000 images"
NETWORK = "CNN of chapter 8 in NumPy"
METRIC = "test_accuracy"

ARMS = {"with BN": True, "without BN": False}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
EPOCHS, BATCH_SIZE, MOMENTUM = 5, 64, 0.9

EVALUATION_BATCH = 100  # larger ones leave the processor's cache and take longer
XRAY_BATCH = 256
DETAILED_SEED = 0  # the seed whose rows also hold the X-ray, γ, β, the filters and the confusion matrix

Splits = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Run:
    """The settings of one run."""

    arm: str
    lr: float
    seed: int
    epochs: int = EPOCHS
    batch_size: int = BATCH_SIZE
    momentum: float = MOMENTUM
    train_images: int = 10_000

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"arm must be one of {', '.join(map(repr, ARMS))}, got {self.arm!r}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.epochs < 1 or not 2 <= self.batch_size <= self.train_images:
            raise ValueError(
                f"epochs must be at least 1 and batch_size from 2 to {self.train_images}, "
                f"got {self.epochs} and {self.batch_size}"
            )


# One run


def grid(quick: bool = False) -> list[dict]:
    """Both arms at every rate, so that they can also be compared at equal ones; quick: at one, with 640 images."""
    size = {"epochs": 1, "images": 640} if quick else {"epochs": EPOCHS, "images": 10_000}
    return [{"arm": arm, "lr": lr, **size} for arm in ARMS for lr in RATES if not quick or lr == 0.03]


def run(setting: Mapping, seed: int) -> dict:
    """One run on the images of the book."""
    wanted = Run(setting["arm"], setting["lr"], seed, setting["epochs"], train_images=setting["images"])
    return train(wanted, {split: data.load(split) for split in data.SPLITS})


def predict(model: nn.Module, images: np.ndarray, batch_size: int = EVALUATION_BATCH) -> np.ndarray:
    """The logits (N, 10) of all images in evaluation mode; the mode of the model is put back."""
    training = model.training
    model.eval()
    labels = np.zeros(len(images), np.int64)
    logits = np.concatenate([model(x) for x, _ in data.batches(images, labels, batch_size)])
    model.train(training)
    return logits


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose largest logit is that of their label."""
    return float((predict(model, images).argmax(axis=1) == labels).mean())


def spreads(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """The X-ray in numbers: per layer the outputs' standard deviation and the gradients' root mean square."""
    recorded = record(model, images, labels)
    return {
        name: [_number(spread(output)[0]), _number(spread(gradient, center=False)[0])]
        for name, (output, gradient) in recorded.items()
    }


def train(run: Run, splits: Splits) -> dict:
    """One run from its initial values to its measurements.

    Both arms draw the same initial weights from `run.seed` and see the same batches in the same order.
    """
    images, labels = (array[: run.train_images] for array in splits["train"])
    model = cnn(ARMS[run.arm], rng=run.seed)
    loss_function = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), run.lr, run.momentum)
    order = np.random.default_rng([run.seed, 1])  # a stream of its own: the initial values have used the first
    steps_per_epoch = len(images) // run.batch_size
    steps = run.epochs * steps_per_epoch
    detailed = run.seed == DETAILED_SEED
    looked_at = [array[:XRAY_BATCH] for array in splits["val"]]

    xray, before = {}, model.state_dict()
    train_loss, val_accuracy, step = [], [], 0
    with np.errstate(all="ignore"):  # a run that diverges is a result, not a warning
        if detailed:
            xray["0"] = spreads(model, *looked_at)
        for _ in range(run.epochs):
            losses = []
            for x, target in data.batches(images, labels, run.batch_size, rng=order, drop_last=True):
                optimizer.lr = cosine(step, steps, run.lr)
                optimizer.zero_grad()
                losses.append(float(loss_function(model(x), target)))
                model.backward(loss_function.backward())
                optimizer.step()
                step += 1
                if detailed and step == 10:
                    xray["10"] = spreads(model, *looked_at)
            train_loss.append(_number(np.mean(losses)))
            val_accuracy.append(accuracy(model, *splits["val"]))
            if detailed and step in (steps_per_epoch, steps):
                xray[str(step)] = spreads(model, *looked_at)
        predicted = predict(model, splits["test"][0]).argmax(axis=1)

    target = splits["test"][1]
    row = {
        "batch_size": run.batch_size,
        "momentum": run.momentum,
        "steps": steps,
        "train_loss": train_loss,
        "val_accuracy": val_accuracy,
        "test_accuracy": float((predicted == target).mean()),
        "diverged": train_loss[-1] is None,
    }
    if detailed:
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (target, predicted), 1)
        filters = {"initial": _filters(before), "final": _filters(model.state_dict())}
        row |= {"xray": xray, "confusion": confusion.tolist(), "filters": filters, "learned": _learned(model)}
    return row


def _filters(state: Mapping[str, np.ndarray]) -> list:
    return [[_number(v) for v in kernel.ravel()] for kernel in state["conv.weight"]]


def _learned(model: nn.Module) -> dict[str, list]:
    """γ and β of every batch normalization of the model."""
    return {name: [_number(v) for v in p.data] for name, p in model.named_parameters() if name.startswith("bn")}


def _number(value: float) -> float | None:
    """Six significant digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


# The choice of the rate


def mean_validation(rows: Iterable[Mapping], arm: str) -> dict[float, float]:
    """Rate → mean validation accuracy after the last epoch over the seeds of one arm."""
    by_rate: dict[float, list[float]] = {}
    for row in rows:
        if row["setting"]["arm"] == arm:
            by_rate.setdefault(row["setting"]["lr"], []).append(row["val_accuracy"][-1])
    return {lr: float(np.mean(values)) for lr, values in sorted(by_rate.items())}


def best_rate(rows: Iterable[Mapping], arm: str) -> float:
    """The rate with the highest mean validation accuracy; of equals the smaller."""
    means = mean_validation(rows, arm)
    if not means:
        raise ValueError(f"there is no row of the arm {arm!r}")
    return max(means, key=means.get)
