"""The runs of chapter 8: what is trained and measured, and what is committed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnbook import data, experiments
from bnbook.experiments.studies import numpy_cnn as t
from bnbook.models.numpy_cnn import cnn
from bnbook.probes import record

SMALL = {"epochs": 2, "batch_size": 20, "train_images": 60}


@pytest.fixture(scope="module")
def splits() -> dict:
    return {split: tuple(array[:60] for array in data.load(split)) for split in data.SPLITS}


@pytest.fixture(scope="module")
def row(splits) -> dict:
    return t.train(t.Run("with BN", 0.03, 0, **SMALL), splits)


# --- one run ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_row_repeats_exactly_and_is_json(splits, row):
    again = t.train(t.Run("with BN", 0.03, 0, **SMALL), splits)
    assert again == row == json.loads(json.dumps(row, allow_nan=False))
    assert t.train(t.Run("with BN", 0.03, 1, **SMALL), splits)["train_loss"] != row["train_loss"]


def test_a_row_holds_what_the_chapter_draws(splits, row):
    assert row["steps"] == 6 and len(row["train_loss"]) == len(row["val_accuracy"]) == 2
    assert row["train_loss"][1] < row["train_loss"][0]
    assert set(row["xray"]) == {"0", "3", "6"}  # there is no step 10 in six
    assert list(row["xray"]["0"]) == ["conv", "bn1", "relu1", "pool", "flatten", "fc1", "bn2", "relu2", "fc2"]
    assert row["xray"]["0"]["bn1"][0] == pytest.approx(1, abs=1e-3)
    assert np.array_equal(np.sum(row["confusion"], axis=1), np.bincount(splits["test"][1], minlength=10))  # row: truth
    assert np.trace(row["confusion"]) / 60 == pytest.approx(row["test_accuracy"])
    assert {name: len(v) for name, v in row["learned"].items()} == {
        "bn1.weight": 32,
        "bn1.bias": 32,
        "bn2.weight": 128,
        "bn2.bias": 128,
    }
    assert np.shape(row["filters"]["initial"]) == np.shape(row["filters"]["final"]) == (32, 9)


def test_both_arms_start_from_the_same_weights_and_see_the_same_batches(splits, monkeypatch):
    started, seen = [], []
    make, batches = t.cnn, data.batches

    def watched_cnn(batch_norm, rng):
        model = make(batch_norm, rng=rng)
        started.append(model.state_dict())
        seen.append([])
        return model

    def watched_batches(images, labels, size, **options):
        for x, target in batches(images, labels, size, **options):
            if "rng" in options:  # training, not evaluation
                seen[-1].append(x)
            yield x, target

    monkeypatch.setattr(t, "cnn", watched_cnn)
    monkeypatch.setattr(t.data, "batches", watched_batches)
    for arm in t.ARMS:
        row = t.train(t.Run(arm, 0.01, 1, **SMALL), splits)
        assert "xray" not in row  # only the detailed seed has it
    with_bn, without = started
    assert len(with_bn) > len(without)
    assert all(np.array_equal(with_bn[name], without[name]) for name in without)
    assert len(seen[0]) == 6 and np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0][0], seen[0][3])  # another order in the second epoch


def test_a_run_that_diverges_is_a_row(splits):
    row = t.train(t.Run("without BN", 1e4, 0, **SMALL), splits)
    assert row["diverged"] and row["train_loss"][-1] is None
    assert row["test_accuracy"] <= 0.3
    json.dumps(row, allow_nan=False)


def test_the_schedule_starts_at_the_rate_and_ends_at_zero():
    rates = [t.cosine(step, 40, 0.2) for step in range(41)]
    assert rates[0] == 0.2 and rates[20] == pytest.approx(0.1) and rates[40] == pytest.approx(0)
    assert np.all(np.diff(rates) < 0)


def test_evaluation_changes_nothing_and_counts_the_last_batch(splits):
    model = cnn(rng=0)
    before = model.state_dict()
    whole = t.predict(model, splits["val"][0], batch_size=60)
    assert np.allclose(t.predict(model, splits["val"][0], batch_size=25), whole, atol=1e-5)
    assert t.accuracy(model, *splits["val"]) == (whole.argmax(axis=1) == splits["val"][1]).mean()
    record(model, *(array[:16] for array in splits["val"]))
    assert model.training
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_recorded_gradient_is_that_of_the_loss(splits):
    """Checked where it is known in closed form: for the logits it is (softmax − one-hot)/N."""
    images, labels = (array[:16] for array in splits["val"])
    logits, grad = record(cnn(rng=0), images, labels)["fc2"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(grad, (p - np.eye(10)[labels]) / 16, atol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"arm": "BN"}, "arm must be one of 'with BN', 'without BN', got 'BN'"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1}, "batch_size from 2 to 10000, got 5 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        t.Run(**({"arm": "with BN", "lr": 0.1, "seed": 0} | settings))


# --- the grid and the choice of the rate ------------------------------------------------------------------------------


def of_validation(arm: str, values: dict[float, tuple[float, ...]]) -> list[dict]:
    """Rows with these validation accuracies, whose test accuracies would choose otherwise."""
    return [
        {"setting": {"arm": arm, "lr": lr}, "seed": seed, "val_accuracy": [0.99, value], "test_accuracy": 1 - value}
        for lr, accuracies in values.items()
        for seed, value in enumerate(accuracies)
    ]


def test_the_best_rate_has_the_highest_mean_validation_accuracy_after_the_last_epoch():
    rows = of_validation("with BN", {0.1: (0.7, 0.9), 0.03: (0.85, 0.85), 0.3: (0.5, 0.95)})
    rows += of_validation("without BN", {0.01: (0.9, 0.9)})
    assert t.best_rate(rows, "with BN") == 0.03 and t.best_rate(rows, "without BN") == 0.01
    assert list(t.mean_validation(rows, "with BN")) == [0.03, 0.1, 0.3]
    with pytest.raises(ValueError, match="no row of the arm 'no arm'"):
        t.best_rate(rows, "no arm")


@pytest.mark.long
def test_the_small_grid_is_run_by_the_engine(tmp_path):
    assert experiments.run("numpy_cnn", results=tmp_path, quick=True, seeds=(1,), progress=False, command="…") == []
    rows = experiments.load("numpy_cnn", tmp_path, quick=True)
    assert [row["setting"]["arm"] for row in rows] == list(t.ARMS)
    assert all(row["steps"] == 10 and row["test_accuracy"] > 0.3 and row["seconds"] > 0 for row in rows)
    assert set(rows[0]["provenance"]) >= {"command", "bnbook", "numpy", "python", "processor", "date", "commit"}
    assert str(tmp_path) not in json.dumps(rows) and str(Path.home()) not in json.dumps(rows[0]["provenance"])


def test_it_needs_numpy_alone():
    code = "import sys, bnbook.experiments.studies.numpy_cnn"
    code += "; print({'torch', 'tqdm', 'matplotlib', 'scipy'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
        == "set()\n"
    )


def test_the_committed_rows_are_complete():
    """Both arms at the same rates with the same seeds, each best rate inside the grid, whole runs of five epochs."""
    rows = experiments.load("numpy_cnn")
    assert len(rows) == len(t.ARMS) * len(t.RATES) * t.SEEDS
    assert all((row["setting"]["epochs"], row["batch_size"], row["steps"]) == (5, 64, 780) for row in rows)
    for arm in t.ARMS:
        assert min(t.RATES) < t.best_rate(rows, arm) < max(t.RATES)
    best = experiments.select(rows, arm="with BN", lr=t.best_rate(rows, "with BN"))
    assert np.mean([row["test_accuracy"] for row in best]) >= 0.86
    details = {"xray", "confusion", "filters", "learned"}
    assert all((details <= row.keys()) == (row["seed"] == t.DETAILED_SEED) for row in rows)
