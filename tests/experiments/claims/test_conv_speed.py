"""The convolutional experiments of chapter 11: their networks, their budgets, what is compared."""

from __future__ import annotations

from math import log10

import matplotlib
import pytest

from bnbook import experiments
from bnbook.experiments.claims import conv_faster, conv_speed
from bnbook.experiments.claims.conv_speed import BUDGETS

matplotlib.use("Agg")


MORE = 0.0001 * (conv_speed.SEEDS - 1) / 2  # of what `made_up` adds where there is BN, over the seeds that choose


def made_up(accuracy, seeds=range(conv_speed.SEEDS), phase="choose") -> list[dict]:
    """Rows of `accuracy(setting)`, less off the middle rate and a little more with every seed where there is BN."""
    rows = []
    for setting in conv_speed.grid():
        rates = conv_speed.OPTIMIZERS[setting["optimizer"]][2][setting["norm"]]
        off = abs(log10(setting["lr"] / rates[len(rates) // 2]))
        for seed in seeds:
            value = accuracy(setting) - 0.05 * off + 0.0001 * seed * (setting["norm"] == "batch")
            rows.append(
                {
                    "experiment": "conv_speed",
                    "setting": setting,
                    "seed": seed,
                    "phase": phase,
                    "planned": 10,
                    "diverged": False,
                    "val_accuracy": value,
                    "test_accuracy": value - 0.01,
                }
            )
    return rows


def growing(setting: dict) -> float:
    """Ten points a doubling; BN is two doublings ahead, group normalization one."""
    ahead = {"batch": 2, "group": 1, "none": 0}[setting["norm"]]
    return 0.4 + 0.1 * (log10(setting["steps"] / 98) / log10(2) + ahead)


def test_every_arm_is_trained_at_every_budget_with_rates_of_its_own():
    grid = conv_speed.grid()
    assert len(grid) == 4 * 2 * 2 * 3 * 5 and {s["steps"] for s in grid} == set(BUDGETS)
    assert all(setting in grid for setting in conv_speed.grid(quick=True))
    for _, _, rates in conv_speed.OPTIMIZERS.values():
        assert (
            all(list(values) == sorted(set(values)) for values in rates.values())
            and rates.keys() == conv_speed.NORMS.keys()
        )


def test_the_longest_trainings_are_compared():
    rows = made_up(growing)
    found = conv_speed.comparisons(rows)
    assert [c.levels for c in found] == [
        (network, optimizer, norm)
        for network in conv_speed.NETWORKS
        for optimizer in conv_speed.OPTIMIZERS
        for norm in ("none", "group")
    ]
    for comparison in found:
        expected = {"none": 0.2, "group": 0.1}[comparison.levels[2]]
        assert comparison.difference.mean == pytest.approx(expected + MORE) and not comparison.edges
        assert {setting["steps"] for setting in comparison.settings} == {780}
    assert [c.name for c in found if conv_speed.in_scope(c)] == [
        "VGG-6, SGD, momentum 0.9, against no normalization",
        "ResNet-8, SGD, momentum 0.9, against no normalization",
    ]


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ((0.5, 0.6, 0.7, 0.8), 390),
        ((0.5, 0.6, 0.65, 0.75), 390 * 2**0.5),
        ((0.7, 0.8, 0.8, 0.8), 98),
        ((0.9, 0.1, 0.1, 0.1), 98),
        ((0.1, 0.2, 0.3, 0.69), 1560),  # never: the worst there is
        ((0.5, 0.6, 0.7 - 1e-9, 0.9), 390),
    ],
)
def test_the_updates_that_are_needed(accuracy, expected):
    assert conv_faster.needed(accuracy, (98, 195, 390, 780), 0.7) == pytest.approx(expected, rel=1e-6)


def test_the_speed_is_that_of_the_budgets_to_the_mark_of_the_other_network():
    rows = made_up(growing)
    assert conv_faster.mark(rows, "VGG-6", "Adam", "none") == pytest.approx(0.69, abs=1e-3)
    for comparison in conv_faster.comparisons(rows):
        doublings = {"none": 2, "group": 1}[comparison.levels[2]]
        # Both come a margin short of the mark's accuracy, so that it is reached a little before the last budget.
        assert 10**comparison.difference.mean == pytest.approx(2**doublings, rel=0.02)
        assert len(comparison.settings) == 8 and not comparison.edges
    assert conv_faster.in_scope is conv_speed.in_scope


def test_a_rate_at_the_edge_of_one_budget_is_named():
    rows = made_up(lambda s: growing(s) + 0.5 * (s["norm"] == "batch" and s["lr"] == 0.03 and s["steps"] == 195))
    found = {c.name: c.edges for c in conv_faster.comparisons(rows)}
    assert found["VGG-6, SGD, momentum 0.9, against no normalization"] == ("lr of 'with BN' after 195 updates",)
    assert found["VGG-6, Adam, against no normalization"] == ()
    assert all(not c.edges for c in conv_speed.comparisons(rows))


def test_the_verdict_is_from_fresh_seeds_at_the_chosen_rates():
    pilot = made_up(growing)
    assert experiments.judge(pilot).word == "open"
    chosen = [setting for c in conv_faster.comparisons(pilot) for setting in c.settings]
    first = 100 * experiments.find("conv_speed").confirmation
    fresh = [r for r in made_up(growing, range(first, first + 10), "confirm") if r["setting"] in chosen]
    assert experiments.judge(pilot + fresh).word == "supported"
    assert experiments.judge(pilot + fresh, "conv_faster").word == "supported"
    worse = made_up(lambda s: growing(s) - 0.9 * (s["norm"] == "batch"), range(first, first + 10), "confirm")
    slow = pilot + [r for r in worse if r["setting"] in chosen]
    assert experiments.judge(slow).word == experiments.judge(slow, "conv_faster").word == "contradicted"


def test_a_run_trains_the_network_of_its_setting(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        conv_speed, "train_and_score", lambda model, images, val, test, **how: seen.update(model=model, how=how)
    )
    monkeypatch.setattr(conv_speed, "split", lambda *names, **more: names)
    monkeypatch.setattr(conv_speed, "subset", lambda count, seed, half: (count, seed, half))
    layers = {"batch": "BatchNorm2d", "group": "GroupNorm"}
    for setting in conv_speed.grid()[::7]:
        conv_speed.run(setting, 3)
        names = [type(layer).__name__ for layer in seen["model"].modules()]
        many = 6 if setting["network"] == "VGG-6" else 7
        assert names.count("Conv2d") == many
        assert {layer: names.count(layer) for layer in layers.values()} == {
            layer: many * (norm == setting["norm"]) for norm, layer in layers.items()
        }
        optimizer = "adam" if setting["optimizer"] == "Adam" else "sgd"
        how = seen["how"]
        assert (how["optimizer"], how["steps"], how["lr"], how["schedule"], how["seed"]) == (
            optimizer, setting["steps"], setting["lr"], "cosine", 3,
        )  # fmt: skip
        assert how["momentum"] == (0.9 if optimizer == "sgd" else 0.0)


def test_figures_are_drawn_from_a_quick_grid_and_from_all():
    rows = made_up(growing)
    assert len(conv_speed.figure(rows).axes) == 4
    assert len(conv_faster.figure(rows).axes[0].get_yticklabels()) == 8
    quick = [row for row in rows if row["setting"] in conv_speed.grid(quick=True)]
    assert len(conv_speed.figure(quick).axes) == 1
