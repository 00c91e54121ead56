"""The runs of the Keras network: what is committed, and what one of them is."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook import experiments
from bnbook.experiments.studies import keras_cnn
from bnbook.experiments.studies.numpy_cnn import best_rate


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return experiments.load("keras_cnn")


@pytest.mark.parametrize("order", keras_cnn.ORDERS)
def test_three_seeds_of_the_best_rate_reach_the_accuracy(rows, order):
    lr = best_rate(rows, order)
    assert min(keras_cnn.RATES) < lr < max(keras_cnn.RATES), "the best rate lies at the edge of the grid"
    scores = [row["test_accuracy"] for row in experiments.select(rows, arm=order, lr=lr)]
    assert len(scores) == 3 and np.mean(scores) >= 0.86


def test_rows_are_complete_and_say_where_they_come_from(rows):
    assert len(rows) == len(keras_cnn.ORDERS) * len(keras_cnn.RATES) * keras_cnn.SEEDS
    for row in rows:
        assert len(row["train_loss"]) == len(row["val_accuracy"]) == row["setting"]["epochs"] == keras_cnn.EPOCHS
        assert {"command", "tensorflow", "keras", "processor", "date", "commit"} <= set(row["provenance"])


@pytest.mark.long
def test_the_small_grid_is_run_by_the_engine(tmp_path, monkeypatch):
    models = pytest.importorskip("bnbook.models.keras_cnn", reason="TensorFlow is not installed")
    assert keras_cnn.ORDERS == models.ORDERS and keras_cnn.EPOCHS == models.EPOCHS
    load = keras_cnn.data.load
    monkeypatch.setattr(keras_cnn.data, "load", lambda split: tuple(array[:640] for array in load(split)))
    assert experiments.run("keras_cnn", results=tmp_path, quick=True, seeds=(0,), progress=False) == []
    found = experiments.load("keras_cnn", tmp_path, quick=True)
    assert [row["setting"] for row in found] == keras_cnn.grid(quick=True)
    for row in found:
        assert row["train_images"] == 640 and 0 < row["val_accuracy"][0] < 1 and 0 < row["test_accuracy"] < 1
        assert row["provenance"]["keras"] == models.keras.__version__ and row["provenance"]["tensorflow"]
