"""The experiment on the scale of the initial weights: its grid, its networks, and what it makes of rows."""

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
                assert len(rates) >= 10 and rates == sorted(rates)
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


def test_a_rate_of_zero_leaves_the_network_alone():
    setting = {"optimizer": "SGD", "init": "he", "scale": 0.1, "norm": "none", "lr": 0.0}
    result = init_scale.run(setting, seed=0)
    before, after = result["weight_norms"]
    assert before == after and not result["diverged"] and abs(result["test_accuracy"] - 0.1) < 0.1


def test_each_arm_is_compared_at_its_own_best_rate():
    def accuracy(setting, seed):
        best = 0.0316 if setting["norm"] == "batch" else 0.001
        return (0.9 if setting["norm"] == "batch" else 0.7) - 0.1 * (setting["lr"] != best) + 0.001 * seed

    for optimizer in init_scale.OPTIMIZERS:
        compared = init_scale.comparisons(made_up(accuracy), optimizer)
        assert len(compared) == len(init_scale.starts(optimizer)) and compared[-1].name == "PyTorch's default"
        for comparison in compared:
            assert comparison.difference.mean == pytest.approx(0.2) and comparison.edges == ()


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
    rows = made_up(lambda s, seed: 0.8 if s["norm"] == "batch" else 0.3 + 0.1 * (s["lr"] == 0.001))
    axes = init_scale.figure(rows).axes
    assert [ax.get_title() for ax in axes] == ["SGD", "Adam"]
    for ax, count in zip(axes, (7, 4), strict=True):
        lines = {line.get_label(): line.get_xydata() for line in ax.lines}
        assert np.allclose(lines["with BN"][:, 1], 0.8) and len(lines["with BN"]) == count
        assert np.allclose(lines["without BN"][:, 1], 0.4)
