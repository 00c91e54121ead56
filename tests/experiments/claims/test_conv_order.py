"""The convolutional experiment of chapter 16: its networks, what is compared, and the statistics estimated again."""

from __future__ import annotations

from itertools import product

import matplotlib
import pytest
from torch import nn

from bnbook.experiments.claims import conv_order as C

matplotlib.use("Agg")


def made_up(accuracy, seeds=range(C.SEEDS)) -> list[dict]:
    """Rows of `accuracy(setting)`, less off the middle rate and a little more with every seed before the activation."""
    rows = []
    for setting, seed in product(C.grid(), seeds):
        off = abs(C.RATES.index(setting["lr"]) - len(C.RATES) // 2)
        value = accuracy(setting) - 0.05 * off + 0.0001 * seed * (setting["place"] == C.BEFORE)
        row = {"experiment": "conv_order", "setting": setting, "seed": seed, "phase": "choose", "planned": 10}
        rows.append(row | {"diverged": False, "val_accuracy": value, "test_accuracy": value - 0.01})
    return rows


def with_dropout(setting: dict) -> float:
    """Dropout costs, twice as much right before the norm; before the activation is two points better."""
    return (
        0.8 - 0.1 * setting["dropout"] * (1 + (setting["dropout_at"] == "norm")) + 0.02 * (setting["place"] == "before")
    )


def test_both_orders_have_the_same_rates_with_every_dropout():
    grid = C.grid()
    assert len(grid) == 2 * 2 * 5 * len(C.RATES) and all(setting in grid for setting in C.grid(quick=True))
    assert list(C.RATES) == sorted(set(C.RATES)) and {(s["dropout"], s["dropout_at"]) for s in grid} == {*C.DROPOUTS}


@pytest.mark.parametrize("network", C.NETWORKS)
@pytest.mark.parametrize("place", C.PLACES)
def test_the_networks_have_the_order_of_their_settings(network, place):
    setting = {"network": network, "place": place, "dropout": 0.5, "dropout_at": "norm"}
    kinds = [type(layer) for layer in C.network(setting).modules()]
    dropped = [i for i, kind in enumerate(kinds) if kind is nn.Dropout]
    assert len(dropped) == (6 if network == "VGG-6" else 3)
    for i in dropped:
        assert kinds[i + 1] is nn.BatchNorm2d
        assert (kinds[i + 2] if place == C.BEFORE else kinds[i - 1]) is nn.ReLU


def test_before_is_compared_with_after_in_every_condition():
    found = C.comparisons(made_up(with_dropout))
    assert [c.name for c in found][:3] == [
        "VGG-6, no dropout",
        "VGG-6, dropout 0.2 at the end of the layer",
        "VGG-6, dropout 0.2 right before BN",
    ]
    assert len(found) == 10 and len({c.levels for c in found}) == 10
    for comparison in found:
        assert comparison.difference.mean == pytest.approx(0.02 + 0.00005) and not comparison.edges
        assert [setting["place"] for setting in comparison.settings] == ["before", "after"]
        assert not C.in_scope(comparison)


def test_the_figure_shows_every_arm():
    figure = C.figure(made_up(with_dropout))
    assert [ax.get_title() for ax in figure.axes] == list(C.NETWORKS)
    assert all(len(ax.get_yticks()) == 5 and len(ax.lines) == 20 for ax in figure.axes)


@pytest.mark.long
def test_a_run_with_dropout_is_scored_with_statistics_of_both_kinds(monkeypatch):
    monkeypatch.setattr(C, "STEPS", 12)
    monkeypatch.setattr(C, "subset", lambda count, seed, half: C.split("train", 512, half=half))
    monkeypatch.setattr(C, "split", lambda name, *count, half, split=C.split: split(name, 256, half=half))
    setting = {"network": "VGG-6", "place": "before", "dropout": 0.5, "dropout_at": "norm", "lr": 0.1}
    row = C.run(setting, seed=0)
    assert 0 < row["accuracy_dropout_on"] != row["accuracy_dropout_off"] > 0
    assert C.run({**setting, "dropout": 0.0}, seed=0)["accuracy_dropout_on"] is None
