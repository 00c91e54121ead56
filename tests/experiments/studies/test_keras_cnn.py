"""The runs of the Keras network: what is committed, and the command that makes what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnbook.experiments.engine import rows as results
from bnbook.experiments.studies.numpy_cnn import best_rate

keras_cnn = pytest.importorskip("bnbook.experiments.studies.keras_cnn", reason="TensorFlow is not installed")

ROWS = Path(__file__).parents[3] / keras_cnn.RESULTS


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    contents = results.read(ROWS)
    assert not contents.damage and not contents.truncated
    return [row for row in contents.rows if row["version"] == keras_cnn.VERSION]


@pytest.mark.parametrize("order", keras_cnn.ORDERS)
def test_three_seeds_of_the_best_rate_reach_the_accuracy(rows, order):
    lr = best_rate(rows, order)
    rates = {row["lr"] for row in rows if row["arm"] == order}
    assert min(rates) < lr < max(rates), "the best rate lies at the edge of the grid"
    scores = {row["seed"]: row["test_accuracy"] for row in rows if row["arm"] == order and row["lr"] == lr}
    assert len(scores) >= 3 and np.mean(list(scores.values())) >= 0.86


def test_rows_are_complete_and_say_where_they_come_from(rows):
    assert {(row["arm"], row["lr"], row["seed"]) for row in rows} == {
        (order, lr, seed) for order in keras_cnn.ORDERS for lr in keras_cnn.RATES for seed in keras_cnn.SEEDS
    }
    for row in rows:
        assert len(row["train_loss"]) == len(row["val_accuracy"]) == row["epochs"] == keras_cnn.EPOCHS
        assert {"command", "tensorflow", "keras", "processor", "date", "commit"} <= set(row["provenance"])


def test_the_command_makes_what_is_missing(tmp_path, monkeypatch, capsys):
    made = []

    def train(order, lr, seed):
        made.append((order, lr, seed))
        return {"version": keras_cnn.VERSION, "arm": order, "lr": lr, "seed": seed, "test_accuracy": 0.5}

    monkeypatch.setattr(keras_cnn, "train", train)
    path = tmp_path / "rows.jsonl"
    keras_cnn.main(["--results", str(path)])
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(made) == len(lines) == len(keras_cnn.ORDERS) * len(keras_cnn.RATES) * len(keras_cnn.SEEDS)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # killed while it wrote the sixth
    made.clear()
    keras_cnn.main(["--results", str(path)])
    assert len(made) == len(lines) - 5 and sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
