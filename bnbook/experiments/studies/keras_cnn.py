"""The Keras network in both orders over a grid of learning rates; chapter 9 reads the rows.

python -m bnbook.experiments.studies.keras_cnn            all runs that are missing in book/results/keras_cnn.jsonl
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from ... import data
from ...models.keras_cnn import BATCH_SIZE, EPOCHS, MOMENTUM, ORDERS, cnn, fit, keras, tf, to_input
from ...provenance import plain, provenance
from ..engine import rows as results

VERSION = 1  # of what a run does and a row holds
RESULTS = Path("book/results/keras_cnn.jsonl")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
SEEDS = (0, 1, 2)


def train(order: str, lr: float, seed: int) -> dict:
    """One run from its initial values to its row (without provenance); the test images are scored at its end."""
    model, (images, labels) = cnn(order, seed=seed), data.load("train")
    history = fit(model, images, labels, lr=lr, seed=seed, validation=data.load("val"))
    test_images, test_labels = data.load("test")
    _, accuracy = model.evaluate(to_input(test_images), test_labels, batch_size=100, verbose=0)
    return {
        "version": VERSION,
        "arm": order,
        "lr": lr,
        "seed": seed,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "momentum": MOMENTUM,
        "train_images": len(images),
        "train_loss": plain([round(value, 6) for value in history["loss"]]),
        "val_accuracy": [round(value, 6) for value in history["val_accuracy"]],  # Keras counts in float32
        "test_accuracy": round(accuracy, 6),
    }


def _key(row: dict) -> tuple:
    return tuple(row.get(name) for name in ("version", "arm", "lr", "seed"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bnbook.experiments.studies.keras_cnn",
        description="Train the Keras network in both orders; a command that was stopped goes on where it stopped.",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"the file of the rows (default: {RESULTS})")
    path = parser.parse_args(arguments).results
    done = {_key(row) for row in results.read(path).rows}
    source = provenance(
        "python -m bnbook.experiments.studies.keras_cnn", tensorflow=tf.__version__, keras=keras.__version__
    )
    for order, lr, seed in itertools.product(ORDERS, RATES, SEEDS):
        if (VERSION, order, lr, seed) not in done:
            row = train(order, lr, seed)
            results.append(path, row | {"provenance": source}, _key)
            print(f"{order}, lr {lr:g}, seed {seed}: test accuracy {row['test_accuracy']:.4f}", flush=True)


if __name__ == "__main__":
    main()
