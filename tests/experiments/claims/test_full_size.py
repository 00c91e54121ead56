"""`full_size`: a run of its recipe with few images, and what is compared."""

import pytest
import torch

from bnbook import data, experiments
from bnbook.experiments.claims import full_size
from bnbook.experiments.engine.bits import unpack_bits
from bnbook.experiments.studies import full_size_card


@pytest.fixture
def small(monkeypatch):
    """The embedded images in the place of the official ones, which this test does not need."""
    load = data.load
    monkeypatch.setattr(data, "load", lambda split, subset=True: load(split))


@pytest.mark.long
def test_a_run_measures_what_is_compared(small):
    setting = {"norm": "batch", "lr": 0.03, "epochs": 2, "images": 1_280}
    row = full_size.run(setting, seed=1)
    assert len(row["val_curve"]) == len(row["train_loss"]) == 2 and row["train_loss"][1] < row["train_loss"][0]
    assert row["val_accuracy"] == row["val_curve"][-1] > 0.5 and not row["diverged"]
    assert row["correct"].mean() == pytest.approx(row["test_accuracy"])
    other = full_size.train_and_score(setting, 1, split_seed=0, device="cpu")  # the same weights, other images
    assert other["train_loss"] != row["train_loss"]
    assert full_size.run(setting | {"norm": "none"}, seed=1)["test_accuracy"] != row["test_accuracy"]


def a_row(norm, lr, seed, val, test):
    setting = {"norm": norm, "lr": lr, "epochs": 15, "images": 50_000}
    return {"setting": setting, "seed": seed, "diverged": False, "val_accuracy": val, "test_accuracy": test}


def test_each_network_has_the_rate_that_validation_chose():
    rows = [
        a_row(norm, lr, seed, 0.9 - 0.1 * (lr != best), 0.5 if lr == best else 0.95)  # the test set would choose others
        for norm, best in (("batch", 0.1), ("none", 0.03))
        for lr in full_size.RATES[norm]
        for seed in range(5)
    ]
    (comparison,) = full_size.comparisons(rows)
    assert set(comparison.a.values()) == set(comparison.b.values()) == {0.5} and not comparison.edges
    with pytest.raises(experiments.Incomplete):
        full_size.comparisons(rows[:-1])


def test_the_grid_goes_beyond_the_rates_of_the_ladder():
    grid = full_size.grid()
    assert len(grid) == 11 and {s["epochs"] for s in grid} == {full_size.EPOCHS}
    assert all(min(rates) < 0.03 and max(rates) > 0.1 for rates in full_size.RATES.values())
    assert {s["lr"] for s in full_size.grid(quick=True)} == {0.03}
    assert [s for s in grid if s not in full_size_card.grid()] == [grid[0]]


def test_a_verdict_reads_no_run_of_a_card():
    assert {row["device"] for row in experiments.load("full_size")} == {"cpu"}
    recorded = experiments.load("full_size_card")
    assert recorded and "cpu" not in {row["device"] for row in recorded}


def test_the_kept_bits_are_those_of_the_accuracy():
    kept = [row for row in experiments.load("full_size") if row["correct"]]
    assert kept and all(unpack_bits(row["correct"]).mean() == pytest.approx(row["test_accuracy"]) for row in kept)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_record_of_a_card_asks_for_one():
    with pytest.raises(RuntimeError, match="there is no CUDA device here; `full_size` makes the same runs"):
        full_size_card.run(full_size_card.grid()[0], 0)
