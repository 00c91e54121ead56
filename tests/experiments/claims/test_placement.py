"""The experiment of chapter 16: its grid, its networks, and what the two claims make of rows."""

from __future__ import annotations

import copy
from math import log10

import matplotlib
import numpy as np
import pytest
import torch

from bnbook import experiments
from bnbook.experiments.claims import dropout_before_norm, placement
from bnbook.experiments.protocol import split
from bnbook.models.torch_mlp import mlp

matplotlib.use("Agg")

SEEDS = range(5)


def made_up(accuracy, off=lambda setting, seed: None, on=lambda setting, seed: None) -> list[dict]:
    return [
        {
            "experiment": "placement",
            "setting": setting,
            "seed": seed,
            "diverged": False,
            "val_accuracy": accuracy(setting, seed),
            "test_accuracy": accuracy(setting, seed),
            "accuracy_dropout_off": off(setting, seed),
            "accuracy_dropout_on": on(setting, seed),
        }
        for setting in placement.grid()
        for seed in SEEDS
    ]


def hill(height, peak=0.003):
    """Accuracies that fall from the peak, different by seed in the same way in both places."""
    return lambda setting, seed: height(setting) - 0.05 * abs(log10(setting["lr"] / peak)) + 0.003 * seed


def verdict(module, rows):
    return experiments.verdict(module.comparisons(rows), module.DELTA, planned=5, factor=module.FACTOR)


def test_the_places_differ_in_nothing_else():
    arms = {}
    for setting in placement.grid():
        rest = tuple((name, setting[name]) for name in ("activation", "init", "dropout", "strength"))
        arms.setdefault(rest, {}).setdefault(setting["place"], []).append(setting["lr"])
    assert len(arms) == 18
    for arm, rates in arms.items():
        assert set(rates) >= {"before", "after"} and len(set(map(tuple, rates.values()))) == 1
        assert ("without BN" in rates) == (("dropout", "none") in arm)
    quick = placement.grid(quick=True)
    assert {s["dropout"] for s in quick} == {"none"} and all(s in placement.grid() for s in quick)


@pytest.mark.parametrize(
    ("place", "dropout", "order"),
    [
        ("before", "none", "fc1 bn1 act1"),
        ("after", "none", "fc1 act1 bn1"),
        ("without BN", "none", "fc1 act1"),
        ("before", "end", "fc1 bn1 act1 drop1"),
        ("after", "end", "fc1 act1 bn1 drop1"),
        ("before", "norm", "fc1 drop1 bn1 act1"),
        ("after", "norm", "fc1 act1 drop1 bn1"),
        ("without BN", "end", "fc1 act1 drop1"),
    ],
)
def test_a_hidden_layer_has_the_order_that_is_said(place, dropout, order):
    strength = 0.0 if dropout == "none" else 0.5
    setting = {"activation": "tanh", "init": "xavier", "place": place, "dropout": dropout, "strength": strength}
    model = placement.network(setting)
    names = [name for name, _ in model.named_children()]
    assert names[1 : names.index("fc2")] == order.split() and names[-1] == "out"
    assert dropout == "none" or model.drop1.p == 0.5


def test_statistics_that_are_estimated_again_are_those_of_the_images():
    torch.manual_seed(0)
    model = mlp(widths=(16,), placement="after", dropout=0.5, dropout_at="norm")
    x = torch.randn(4 * placement.BATCH_SIZE + 5, 784)
    inside = torch.relu(model.fc1(x[: 4 * placement.BATCH_SIZE])).detach()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    off, on = (placement.estimated_again(model, x, dropout=dropout) for dropout in (False, True))
    batches = inside.split(placement.BATCH_SIZE)
    assert torch.allclose(off.bn1.running_mean, inside.mean(0), atol=1e-6)
    assert torch.allclose(off.bn1.running_var, torch.stack([b.var(0) for b in batches]).mean(0), rtol=1e-5)
    # dropout with the factor 1/(1-p): E[x^2]/(1-p) - E[x]^2, up to the draw of the masks
    expected = 2 * (inside**2).mean(0) - inside.mean(0) ** 2
    assert (on.bn1.running_var / expected).mean() == pytest.approx(1, abs=0.05)
    assert (on.bn1.running_var / off.bn1.running_var).min() > 1.2
    assert not any(layer.training for layer in [*off.modules(), *on.modules()])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model.bn1.momentum == 0.1


def test_before_is_compared_with_after_at_the_best_rate_of_each():
    rows = made_up(hill(lambda s: {"before": 0.86, "after": 0.84, "without BN": 0.9}[s["place"]]))
    assert [c.name for c in placement.comparisons(rows)] == [
        "ReLU, default weights", "ReLU, He weights", "tanh, default weights", "tanh, Xavier weights",
        "sigmoid, default weights", "sigmoid, Xavier weights",
    ]  # fmt: skip
    for comparison in placement.comparisons(rows) + placement.with_dropout(rows, 0.2):
        assert comparison.difference.mean == pytest.approx(0.02) and comparison.edges == ()
    assert verdict(placement, rows).word == "supported"
    for init, count in (("xavier", 5), ("default", 6)):
        equal = placement.at_equal_rates(rows, "tanh", init)
        assert [c.difference.mean for c in equal.values()] == pytest.approx([0.02] * count)
    alike = made_up(hill(lambda s: 0.86))
    assert verdict(placement, alike).word == "negligible"
    swapped = made_up(hill(lambda s: 0.86 + 0.02 * (s["place"] == "after") * (-1) ** (s["activation"] == "relu")))
    assert verdict(placement, swapped).word == "depends on the activation"
    edge = made_up(hill(lambda s: 0.86, peak=0.1))
    assert verdict(placement, edge).word == "open"


def test_the_verdict_does_not_see_the_networks_with_dropout():
    rows = made_up(hill(lambda s: 0.86 - 0.3 * (s["dropout"] != "none") * (s["place"] == "before")))
    assert {round(c.difference.mean, 9) for c in placement.comparisons(rows)} == {0}
    assert {round(c.difference.mean, 9) for c in placement.with_dropout(rows, 0.5)} == {-0.3}


def test_the_cost_of_the_shift_is_that_of_the_chosen_networks():
    def off(setting, seed):
        gain = {("before", "end"): 0.01, ("after", "norm"): 0.05}.get((setting["place"], setting["dropout"]), 0)
        return 0.8 + 0.001 * seed + gain * (setting["lr"] == 0.003)

    rows = made_up(hill(lambda s: 0.86), off, lambda setting, seed: 0.8 + 0.001 * seed)
    found = dropout_before_norm.comparisons(rows)
    assert [round(c.difference.mean, 9) for c in found] == [0.01, 0.01, 0, 0, 0.05, 0.05, 0, 0] * 3
    assert "lr 0.003" in found[0].chosen[0]
    assert verdict(dropout_before_norm, rows).word == "depends on the order"
    nothing = made_up(hill(lambda s: 0.86), lambda s, seed: 0.8, lambda s, seed: 0.8)
    assert verdict(dropout_before_norm, nothing).word == "negligible"


def test_dropout_is_tried_weak_and_strong_and_confirmed_at_the_chosen_rates():
    gains = {0.2: 0.0, 0.5: 0.03}
    pilot = [
        row | {"phase": "choose"}
        for row in made_up(hill(lambda s: 0.86), lambda s, seed: 0.8 + gains.get(s["strength"], 0), lambda s, seed: 0.8)
        if row["seed"] < 2
    ]
    modules = placement, dropout_before_norm
    read = [s for module in modules for c in module.comparisons(pilot) for s in c.settings]
    first = {tuple(row["setting"].items()): row for row in pilot if row["seed"] == 0}
    rows = pilot + [
        first[key] | {"seed": seed, "phase": "confirm"}
        for key in dict.fromkeys(tuple(s.items()) for s in read)
        for seed in range(100, 110)
    ]
    beside = [c for strength in placement.STRENGTHS for c in placement.with_dropout(rows, strength)]
    for c in (*placement.comparisons(rows), *dropout_before_norm.comparisons(rows), *beside):
        assert c.seeds == tuple(range(100, 110)), c.name
    found = dropout_before_norm.comparisons(rows)
    assert [round(c.difference.mean, 9) for c in found] == [0, 0.03] * 12
    assert [dropout_before_norm.in_scope(c) for c in found] == [False, True] * 12
    judged = experiments.verdict(found, dropout_before_norm.DELTA, planned=10, factor=dropout_before_norm.FACTOR)
    assert judged.word == "depends on the strength of dropout"
    gone = [row | {"diverged": row["seed"] == 103} for row in rows]
    (first, *_) = dropout_before_norm.comparisons(gone)
    assert first.a[103] == first.b[103] == 0.1
    picture = dropout_before_norm.figure(rows)
    assert [ax.get_title() for ax in picture.axes] == ["dropout of 0.2", "dropout of 0.5"]
    matplotlib.pyplot.close(picture)
    assert placement.comparisons([row for row in rows if row["setting"] in placement.grid(quick=True)])


def test_figures_are_drawn_from_rows_of_one_seed_and_of_five():
    rows = made_up(hill(lambda s: 0.86), lambda s, seed: 0.8 + 0.01 * seed, lambda s, seed: 0.8)
    for module in (placement, dropout_before_norm):
        for some in (rows, [row for row in rows if row["seed"] == 0]):
            picture = module.figure(some)
            assert sum(len(ax.lines) for ax in picture.axes) >= 12
            matplotlib.pyplot.close(picture)


@pytest.mark.long
def test_a_run_scores_the_same_network_with_statistics_of_both_kinds(monkeypatch):
    def blind_without_dropout(model, x, dropout):
        if not dropout:
            model = copy.deepcopy(model)
            torch.nn.init.zeros_(model.out.weight)
        return model

    monkeypatch.setattr(placement, "STEPS", 100)
    monkeypatch.setattr(placement, "estimated_again", blind_without_dropout)
    setting = {"activation": "relu", "init": "he", "place": "after", "dropout": "norm", "strength": 0.2, "lr": 0.003}
    result = placement.run(setting, seed=0)
    assert not result["diverged"] and np.mean(result["correct"]) == result["test_accuracy"] > 0.7
    assert result["accuracy_dropout_on"] == result["test_accuracy"]
    assert result["accuracy_dropout_off"] == pytest.approx(0.1)
    without = placement.run({**setting, "place": "without BN", "dropout": "none", "strength": 0.0}, seed=0)
    assert without["accuracy_dropout_on"] is None and len(split("test")[1]) == len(without["correct"])
