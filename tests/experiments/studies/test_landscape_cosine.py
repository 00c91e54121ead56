"""The landscape under a schedule: its rates, the step of a probe, and which seeds are compared."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from bnbook import experiments
from bnbook.experiments.claims import covariate_shift, landscape, noise
from bnbook.experiments.studies import landscape_cosine as study
from bnbook.optim import cosine


def test_the_rates_are_those_that_five_seeds_chose_in_noise():
    rows = experiments.load("noise")
    for init, rates in study.RATES.items():
        for norm, arm in (("batch", noise.BN), ("none", noise.STANDARD)):
            choice = noise.at_best_rate(rows, init, arm)
            assert choice.values == {"lr": rates[norm]} and choice.edge == ()
    assert experiments.find("noise").seeds == study.CHOSE
    assert (noise.WIDTHS, noise.STEPS, noise.BATCH_SIZE) == (landscape.WIDTHS, landscape.STEPS, landscape.BATCH_SIZE)


def test_a_probe_takes_the_step_of_the_update_that_it_stands_before(monkeypatch):
    monkeypatch.setattr(landscape, "STEPS", 4)
    monkeypatch.setattr(landscape, "PROBED", (1, 3, 4))
    probe, steps = landscape.probe, []

    def seen(model, x, y, lr, reference):
        steps.append(lr)
        return probe(model, x, y, lr, reference)

    monkeypatch.setattr(landscape, "probe", seen)
    (setting, *_) = study.grid(quick=True)
    row = study.run(setting, 0)
    assert steps == [cosine(done, 4, setting["lr"]) for done in (0, 2, 3)]
    constant = landscape.run(setting, 0)
    assert steps[3:] == [setting["lr"]] * 3
    assert row["beta"][0] == constant["beta"][0] and row["turn"][-1] < constant["turn"][-1] - 0.5
    assert "correct" not in row


def test_the_seeds_that_chose_the_rates_are_not_compared():
    rows = []
    for setting in study.grid():
        for seed in range(study.SEEDS):
            value = -2.0 if setting["norm"] == "batch" and seed >= study.CHOSE else -1.0
            series = {name: [value] * len(landscape.PROBED) for name in landscape.MEASURES}
            scores = {"diverged": False, "val_accuracy": 0.8 + setting["lr"] / 100}
            rows.append({"setting": setting, "seed": seed, **scores, **series})
    found = study.comparisons(landscape, rows, held=(landscape.SAME_UPDATES,))
    shifts = study.comparisons(covariate_shift, rows, own_rate=True)
    assert [len(found), len(shifts)] == [2, 8]
    for comparison in found + shifts[::2]:
        assert list(comparison.seeds) == list(range(study.CHOSE, study.SEEDS)) and comparison.edges == ()
        assert math.isclose(comparison.difference.mean, 1)
    own = study.comparisons(landscape, rows, own_rate=True)[2]
    assert [setting["lr"] for setting in own.settings] == [1.0, 0.1]
