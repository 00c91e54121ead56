"""The convolutional experiment of chapter 16: its networks, what is compared, and the statistics estimated again."""

from __future__ import annotations

from itertools import product

import matplotlib
import pytest
from torch import nn

from bnbook import experiments
from bnbook.experiments.claims import conv_dropout_order as D
from bnbook.experiments.claims import conv_order as C
from bnbook.experiments.claims import dropout_before_norm

matplotlib.use("Agg")

MORE = 0.0001 * (C.SEEDS - 1) / 2  # of what `made_up` adds before the activation, over the seeds that choose


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
        assert comparison.difference.mean == pytest.approx(0.02 + MORE) and not comparison.edges
        assert [setting["place"] for setting in comparison.settings] == ["before", "after"]
        assert not C.in_scope(comparison)


def test_the_figure_shows_every_arm():
    figure = C.figure(made_up(with_dropout))
    assert [ax.get_title() for ax in figure.axes] == list(C.NETWORKS)
    assert all(len(ax.get_yticks()) == 5 and len(ax.lines) == 20 for ax in figure.axes)


def scored_twice(gain, seeds=range(C.SEEDS), phase="choose") -> list[dict]:
    """`made_up` of `with_dropout`; statistics with dropout off gain `gain(setting)` at the best rate, else nothing."""
    rows = made_up(with_dropout, seeds)
    for row in rows:
        s, seed = row["setting"], row["seed"]
        on = 0.7 + 0.001 * (seed % 7)
        off = on + gain(s) * (s["lr"] == 0.3) + 0.0001 * (seed % 3 - 1)
        none = not s["dropout"]
        row |= {"accuracy_dropout_on": None if none else on, "accuracy_dropout_off": None if none else off}
        row |= {"phase": phase}
    return rows


def confirmed(gain) -> list[dict]:
    """The rows of a pilot, and ten fresh seeds of what it chose."""
    rows = scored_twice(gain)
    chosen = [setting for c in (*C.comparisons(rows), *D.comparisons(rows)) for setting in c.settings]
    return rows + [r for r in scored_twice(gain, range(100, 110), "confirm") if r["setting"] in chosen]


def test_the_same_networks_are_scored_with_either_statistics():
    found = D.comparisons(confirmed(lambda s: 0.02 * (s["dropout"] == 0.5) + 0.01 * (s["dropout_at"] == "norm")))
    assert len(found) == 16 == len({c.name for c in found}) and {c.arms for c in found} == {dropout_before_norm.ARMS}
    order = {c.name: c.difference.mean for c in found if c.levels[0] == "ResNet-8" and c.levels[2] == 0.5}
    assert order == pytest.approx(
        {
            "ResNet-8, conv→BN→act→dropout, 0.5": 0.02,
            "ResNet-8, conv→act→BN→dropout, 0.5": 0.02,
            "ResNet-8, conv→act→dropout→BN, 0.5": 0.03,
            "ResNet-8, conv→dropout→BN→act, 0.5": 0.03,
        },
        abs=2e-4,
    )
    for comparison in found:
        (setting,) = comparison.settings
        assert setting["lr"] == 0.3 and setting["dropout"] == comparison.levels[2] and not comparison.edges
        assert setting["network"] == comparison.levels[0] and comparison.seeds == tuple(range(100, 110))
        assert (setting["dropout_at"] == "norm") == ("dropout→BN" in comparison.name)
        assert (setting["place"] == "after") == ("act→BN" in comparison.name or "act→dropout→BN" in comparison.name)


@pytest.mark.parametrize(
    ("gain", "repeated", "quoted"),
    [
        (lambda s: 0.02, "supported", "supported"),
        (lambda s: -0.02, "contradicted", "contradicted"),
        (lambda s: 0.0, "negligible", "negligible"),
        (lambda s: 0.02 * (s["dropout"] == 0.5), "depends on the strength of dropout", "supported"),
        (lambda s: 0.02 * (s["dropout_at"] == "norm"), "depends on the order", "depends on the order"),
        (lambda s: 0.02 * (s["network"] == "VGG-6"), "depends on the network", "depends on the network"),
    ],
)
def test_the_verdict_on_dropout_before_the_norm(gain, repeated, quoted):
    judged = experiments.judge(confirmed(gain), "conv_dropout_order")
    assert judged.word == repeated and judged.quoted.word == quoted and len(judged.quoted.outcomes) == 8
    assert experiments.judge(scored_twice(gain), "conv_dropout_order").word == "open"  # nothing is confirmed


def test_a_diverged_network_guesses_with_either_statistics():
    rows = [row | {"diverged": row["seed"] == 103} for row in confirmed(lambda s: 0.02)]
    for row in rows:
        if row["diverged"]:
            row |= {"accuracy_dropout_on": None, "accuracy_dropout_off": None, "test_accuracy": None}
    for comparison in D.comparisons(rows):
        assert comparison.a[103] == comparison.b[103] == 0.1 and comparison.diverged == (1, 1)


def test_a_quick_grid_has_no_dropout_to_judge():
    quick = [row for row in scored_twice(lambda s: 0.02) if row["setting"] in C.grid(quick=True)]
    assert C.comparisons(quick) and D.comparisons(quick) == []


def test_the_gain_of_statistics_that_fit_is_drawn_for_every_network_and_strength():
    picture = D.figure(confirmed(lambda s: 0.02))
    assert [ax.get_title() for ax in picture.axes] == [
        f"{network}, dropout of {share:g}" for network in C.NETWORKS for share in C.SHARES
    ]
    assert all(len(ax.lines) == 4 * 3 + 2 for ax in picture.axes)
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == list(D.ORDERS)
    low, high = picture.axes[0].get_ylim()
    assert low > high  # the first at the top
    matplotlib.pyplot.close(picture)


@pytest.mark.long
def test_a_run_with_dropout_is_scored_with_statistics_of_both_kinds(monkeypatch):
    monkeypatch.setattr(C, "STEPS", 12)
    monkeypatch.setattr(C, "subset", lambda count, seed, half: C.split("train", 512, half=half))
    monkeypatch.setattr(C, "split", lambda name, *count, half, split=C.split: split(name, 256, half=half))
    setting = {"network": "VGG-6", "place": "before", "dropout": 0.5, "dropout_at": "norm", "lr": 0.1}
    row = C.run(setting, seed=0)
    assert 0 < row["accuracy_dropout_on"] != row["accuracy_dropout_off"] > 0
    assert C.run({**setting, "dropout": 0.0}, seed=0)["accuracy_dropout_on"] is None
