"""The experiment on the scale of the initial weights: its grid, its networks, and what it makes of rows."""

from math import log10

import matplotlib
import numpy as np
import pytest
import torch

from bnbook.experiments import Incomplete
from bnbook.experiments.claims import init_scale

matplotlib.use("Agg")


def row(setting, seed=0, accuracy=0.8, diverged=False):
    return {"setting": setting, "seed": seed, "val_accuracy": accuracy, "test_accuracy": accuracy, "diverged": diverged}


def made_up(accuracy, seeds=3):
    """Rows of the whole grid, whose accuracies `accuracy(setting, seed)` gives; None: diverged."""
    values = [(s, seed, accuracy(s, seed)) for s in init_scale.grid() for seed in range(seeds)]
    return [row(s, seed, 0.0 if value is None else value, value is None) for s, seed, value in values]


def test_the_grid_has_every_arm_at_every_start():
    grid = init_scale.grid()
    for optimizer in init_scale.OPTIMIZERS:
        for start in init_scale.starts(optimizer):
            for norm in init_scale.ARMS.values():
                rates = [
                    s["lr"]
                    for s in grid
                    if (s["optimizer"], s["norm"], s["init"], s["scale"])
                    == (optimizer, norm, start["init"], start["scale"])
                ]
                assert len(rates) >= 5 and rates == sorted(rates)
    assert {s["init"] for s in grid} == {"he", "default"}


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_scale_multiplies_the_weights_of_every_linear_layer_and_nothing_else(norm):
    def network(scale):
        torch.manual_seed(3)
        return init_scale.network({"init": "he", "scale": scale, "norm": norm})

    one, ten = network(1.0), network(10.0)
    for (name, a), b in zip(one.named_parameters(), ten.parameters(), strict=True):
        factor = 10 if name.startswith(("fc", "out")) and name.endswith("weight") else 1
        assert torch.equal(factor * a, b), name


def test_a_rate_of_zero_leaves_the_network_alone(monkeypatch):
    monkeypatch.setattr(init_scale, "STEPS", 2)
    setting = {"optimizer": "SGD", "init": "he", "scale": 0.1, "norm": "none", "lr": 0.0}
    result = init_scale.run(setting, seed=0)
    before, after = result["weight_norms"]
    assert before == after and not result["diverged"] and abs(result["test_accuracy"] - 0.1) < 0.1
    assert before != init_scale.run({**setting, "lr": 1.0, "scale": 1.0}, seed=0)["weight_norms"][1]


def second(setting):
    """The second rate of a start."""
    start = {"init": setting["init"], "scale": setting["scale"]}
    return init_scale.rates(setting["optimizer"], start, setting["norm"])[1]


def test_each_arm_is_compared_at_its_own_best_rate():
    def accuracy(setting, seed):
        return (0.9 if setting["norm"] == "batch" else 0.7) - 0.1 * (setting["lr"] != second(setting)) + 0.001 * seed

    for optimizer in init_scale.OPTIMIZERS:
        compared = init_scale.comparisons(made_up(accuracy), optimizer)
        assert len(compared) == len(init_scale.starts(optimizer)) and compared[-1].name == "PyTorch's default"
        for comparison in compared:
            assert comparison.difference.mean == pytest.approx(0.2) and comparison.edges == ()


def test_adam_and_the_range_of_scales_are_confirmed_as_well():
    def accuracy(s, seed):
        best = {"batch": 0.1, "none": 0.1}[s["norm"]]
        if s["optimizer"] == "Adam":
            best = 0.00316 if s["norm"] == "none" else 0.01
        elif s["norm"] == "none" and s["init"] == "he":
            best = {3.16: 0.001, 10.0: 3.16e-05}.get(s["scale"], 0.1)
        return 0.85 - 0.02 * abs(log10((s["lr"] or 1e-12) / best)) - 0.1 * (s["norm"] == "none")

    grid = init_scale.grid()
    assert len({tuple(s.items()) for s in grid}) == len(grid) and all(s in grid for s in init_scale.grid(quick=True))
    pilot = [r | {"phase": "choose"} for r in made_up(accuracy, seeds=2)]
    read = [s for c in init_scale.comparisons(pilot) for s in c.settings]
    assert all(s in grid for s in read)
    fresh = [
        row(s, seed, accuracy(s, seed)) | {"phase": "confirm"} for s in grid if s in read for seed in range(100, 110)
    ]
    for optimizer in init_scale.OPTIMIZERS:
        for c in init_scale.comparisons(pilot + fresh, optimizer):
            assert len(c.seeds) == 10 and c.difference.mean == pytest.approx(0.1) and c.edges == ()
    for norm in init_scale.ARMS.values():
        assert set(init_scale.usable_scales(pilot + fresh, norm)) == set(range(100, 110))


def test_an_arm_that_never_learns_has_no_edge_at_rate_zero():
    untrained = made_up(lambda s, seed: 0.12 if s["lr"] == 0 else 0.5 if s["lr"] == 0.1 else 0.1)
    start = {"init": "he", "scale": 0.01}
    hopeless = [r for r in untrained if r["setting"]["norm"] == "none" and r["setting"]["lr"] != 0.1]
    choice = init_scale.at_best_rate(hopeless, "SGD", start, "none")
    assert choice.values == {"lr": 0.0} and choice.edge == ()


def test_usable_scales_are_the_unbroken_range_around_hes_scale():
    good = {"none": (0.316, 1.0), "batch": (0.01, 0.1, 0.316, 1.0, 3.16)}  # 0.0316 is missing: a gap

    def accuracy(setting, seed):
        if setting["lr"] != 0.1:
            return 0.4
        return 0.8 - 0.001 * seed if setting["scale"] in good[setting["norm"]] else None if seed == 1 else 0.7

    rows = made_up(accuracy)
    assert init_scale.usable_scales(rows, "none") == dict.fromkeys(range(3), (0.316, 1.0))
    assert init_scale.usable_scales(rows, "batch") == dict.fromkeys(range(3), (0.1, 3.16))
    assert init_scale.usable_scales(rows, "batch", tolerance=0.2)[0] == (0.01, 10.0)
    lacking = [r for r in rows if (r["seed"], r["setting"]["scale"], r["setting"]["lr"]) != (2, 10.0, 0.1)]
    with pytest.raises(Incomplete, match="scale 10 has no row of seed 2"):
        init_scale.usable_scales(lacking, "none")


def test_the_figure_shows_both_arms_by_both_optimizers():
    rows = made_up(lambda s, seed: 0.8 if s["norm"] == "batch" else 0.3 + 0.1 * (s["lr"] == second(s)))
    axes = init_scale.figure(rows).axes
    assert [ax.get_title() for ax in axes] == ["SGD", "Adam"]
    for ax, count in zip(axes, (7, 4), strict=True):
        lines = {line.get_label(): line.get_xydata() for line in ax.lines}
        assert np.allclose(lines["with BN"][:, 1], 0.8) and len(lines["with BN"]) == count
        assert np.allclose(lines["without BN"][:, 1], 0.4)
