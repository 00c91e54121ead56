"""The convolutional experiment of chapter 15: its arms, what is compared in three scores, and a run."""

from __future__ import annotations

from itertools import product

import matplotlib
import pytest

from bnbook.experiments.claims import conv_regularization as C
from bnbook.experiments.claims import conv_regularized_calibration, conv_regularized_loss

matplotlib.use("Agg")

BETTER = {"batch": 0.03, "none": 0.0, "group": 0.01}
MEAN = 1 + 0.01 * (C.SEEDS - 1) / 2  # of what multiplies it, over the seeds that choose


def strength(setting: dict) -> float:
    return 10 * setting["weight_decay"] + setting["dropout"] / 10 + 0.02 * setting["augment"]


def made_up(seeds=range(C.SEEDS)) -> list[dict]:
    """Every arm is best at its second rate; the stronger a regularizer, the better; BN gains three points, GN one."""
    rows = []
    for setting, seed in product(C.grid(), seeds):
        off = abs(C.RATES[setting["norm"]].index(setting["lr"]) - 1)
        value = 0.7 + BETTER[setting["norm"]] * (1 + 0.01 * seed) + strength(setting) - 0.02 * off
        row = {"experiment": "conv_regularization", "setting": setting, "seed": seed, "phase": "choose", "planned": 10}
        tested = {"test_accuracy": value, "test_loss": 2 - 2 * value, "test_calibration_error": (1 - value) / 2}
        rows.append(row | {"diverged": False, "val_accuracy": value} | tested)
    return rows


def test_every_normalization_stands_alone_and_beside_each_regularizer():
    grid = C.grid()
    assert len(grid) == 3 * 4 * (1 + 2 + 2 + 1) and all(setting in grid for setting in C.grid(quick=True))
    assert all(sum(bool(setting[name]) for name in C.PLAIN) <= 1 for setting in grid)
    strengths = {value for changes in C.BESIDE.values() for values in changes.values() for value in values} - {True}
    assert not strengths & {lr for rates in C.RATES.values() for lr in rates}  # or a rate's edge would be none


def test_the_best_strength_and_rate_of_each_are_compared():
    found = C.comparisons(made_up())
    assert [c.levels for c in found] == [(beside, norm) for beside in C.BESIDE for norm in ("none", "group")]
    best = {"no other regularizer": C.PLAIN, "dropout": {"dropout": 0.5}, "weight decay": {"weight_decay": 0.005}}
    best["shift and flip"] = {"augment": True}
    for comparison in found:
        beside, norm = comparison.levels
        gain = (BETTER["batch"] - BETTER[norm]) * MEAN
        assert comparison.difference.mean == pytest.approx(gain) and not comparison.edges
        for setting, name in zip(comparison.settings, ("batch", norm), strict=True):
            assert setting == {**setting, "norm": name, **C.PLAIN, **best[beside], "lr": C.RATES[name][1]}
    assert [c.name for c in found if C.in_scope(c)] == ["no other regularizer, against no normalization"]


@pytest.mark.parametrize(("claim", "share"), [(conv_regularized_loss, 2), (conv_regularized_calibration, 0.5)])
def test_of_what_should_be_low_batch_normalization_is_subtracted(claim, share):
    for comparison in claim.comparisons(made_up()):
        gain = share * (BETTER["batch"] - BETTER[comparison.levels[1]]) * MEAN
        assert comparison.difference.mean == pytest.approx(gain) and comparison.arms == ("without BN", "with BN")
        assert comparison.metric == claim.METRIC


def test_the_figure_shows_every_arm():
    axes = C.figure(made_up()).axes
    assert len(axes) == 3 and all(len(ax.lines) == 2 * 4 * 3 for ax in axes)


@pytest.mark.long
def test_a_run_has_the_three_scores(monkeypatch):
    monkeypatch.setattr(C, "STEPS", 8)
    monkeypatch.setattr(C, "split", lambda name, count, half, split=C.split: split(name, 256, half=half))
    setting = {"norm": "batch", **C.PLAIN, "augment": True, "lr": 0.1}
    row = C.run(setting, seed=0)
    assert all(row[name] > 0 for name in C.SCORES) and not row["diverged"] and len(row["correct"]) == 256
    assert row["train_loss"] != C.run({**setting, "augment": False}, seed=0)["train_loss"]
