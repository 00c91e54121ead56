"""The explanations on a convolutional network: its arms, what is measured on the way, and what rows say of claims."""

from __future__ import annotations

import copy
import json
import math
from math import log10

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from bnbook import experiments
from bnbook.experiments.claims import conv_smoothness as S
from bnbook.experiments.claims import conv_why as C
from bnbook.experiments.claims import landscape as L
from bnbook.experiments.claims import noise as N
from bnbook.experiments.engine.completion import plan_confirmation
from bnbook.models.torch_conv import vgg

matplotlib.use("Agg")

FRESH = tuple(range(100, 110))


# The networks


def test_every_arm_has_its_rates_and_those_with_bn_have_all_of_the_others():
    grid = C.grid()
    assert len(grid) == 2 * len(C.LOW_RATES) + 3 * len(C.RATES) and set(C.LOW_RATES) < set(C.RATES)
    assert all(setting in grid for setting in C.grid(quick=True)) and {s["arm"] for s in grid} == set(N.ARMS)
    assert list(C.RATES) == sorted(C.RATES)


def test_noise_stands_behind_every_normalization_and_arms_share_their_weights():
    names = {arm: [type(layer).__name__ for layer in C.network(arm, 0)] for arm in N.ARMS}
    for arm, (norm, noisy, _) in N.ARMS.items():
        assert names[arm].count("BatchNorm2d") == 6 * (norm == "batch") and names[arm].count("Noise") == 6 * noisy
    for at, name in enumerate(names[N.NOISY]):
        if name == "Noise":
            assert names[N.NOISY][at - 1 : at + 2] == ["BatchNorm2d", "Noise", "ReLU"]
    weights = [[p for p in C.network(arm, 7).parameters() if p.ndim > 1] for arm in N.ARMS]
    for arm in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], arm, strict=True))
    noises = [layer.generator.initial_seed() for layer in C.network(N.NOISY, 7) if isinstance(layer, N.Noise)]
    assert len(set(noises)) == 6


# What is measured on the way


def test_the_shift_of_images_is_that_of_the_values_of_their_channels():
    x = torch.randn(20, 3, 4, 5) * torch.arange(1.0, 4)[:, None, None]
    rows = x.movedim(1, -1).reshape(-1, 3)
    y = 1.5 * x + 2
    assert L.distribution_shift(x, y) == L.distribution_shift(rows, 1.5 * rows + 2)
    assert L.distribution_shift(x, x.flip(0, 3)) == 0  # who has a value, and where, does not count
    assert L.distribution_shift(x, x[:, [1, 0, 2]]) > 0.1  # which channel does


def test_a_probe_of_convolutions_has_a_layer_for_each():
    torch.manual_seed(0)
    model = vgg("batch", width=2)
    parts = L.layers(model)
    assert [len(part) for part in parts] == [3] * 6 + [2]  # weights and what BN learns; the last has weights and bias
    assert sum(len(part) for part in parts) == len(list(model.parameters()))
    x, y = torch.randn(16, 1, 14, 14), torch.randint(10, (16,))
    state = copy.deepcopy(model.state_dict())
    found = L.probe(model, x, y, 0.1, (x, y))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.train()
    losses = [nn.functional.cross_entropy(model(x), y)]
    gradient = torch.autograd.grad(losses[0], list(model.parameters()))
    for s in (0.5, 1, 2, 4):
        there = copy.deepcopy(model)
        with torch.no_grad():
            for p, g in zip(there.parameters(), gradient, strict=True):
                p -= s * 0.1 * g
        losses.append(nn.functional.cross_entropy(there(x), y))
    values = [loss.item() for loss in losses]
    assert 10 ** found["loss_range"] == pytest.approx(max(values) - min(values), rel=1e-3)


@pytest.fixture
def tiny(monkeypatch):
    """Six updates on a few images, looked at before three of them."""
    monkeypatch.setattr(C, "STEPS", 6)
    monkeypatch.setattr(C, "PROBED", (1, 2, 5))
    monkeypatch.setattr(C, "REFERENCE", 32)
    monkeypatch.setattr(C, "subset", lambda count, seed, half: C.split("train", 256, half=half))
    monkeypatch.setattr(C, "split", lambda name, count=256, half=True, split=C.split: split(name, 256, half=half))
    kept = {}
    make = C.network

    def network(arm, seed):
        kept[arm] = make(arm, seed)
        return kept[arm]

    monkeypatch.setattr(C, "network", network)
    return kept


@pytest.mark.long
def test_a_run_of_every_arm(tiny):
    rows = {arm: C.run({"arm": arm, "init": "he", "lr": 0.03}, seed=1) for arm in N.ARMS}
    for arm, row in rows.items():
        assert not row["diverged"] and 0 < row["test_accuracy"] == np.mean(row["correct"]) and row["val_accuracy"] > 0
        assert len(row["shift"]) == 3 and all(math.isfinite(value) for value in row["shift"])
        for name in C.MEASURES:
            assert row[name] is None if N.ARMS[arm][1] else len(row[name]) == 3
    moved = {arm: np.mean(row["shift"]) for arm, row in rows.items()}
    assert moved[N.NOISY] > moved[N.BN] + 0.3  # the noise does what it is there for
    assert rows[N.BN]["loss"][0] == rows[N.HELD]["loss"][0] != rows[N.HELD]["loss"][2]
    start = C.network(N.HELD, 1)
    for arm, same in ((N.HELD, True), (N.BN, False)):
        trained = C.run({"arm": arm, "init": "he", "lr": 0.03}, seed=1) and tiny[arm]
        for name, weight in start.named_parameters():
            if weight.ndim == 4:
                lengths = [w.detach().flatten(1).norm(dim=1) for w in (weight, trained.get_parameter(name))]
                assert torch.allclose(*lengths, rtol=1e-5) == same
                assert not torch.allclose(weight, trained.get_parameter(name))


@pytest.mark.long
def test_the_loss_is_followed_over_the_same_steps_at_every_rate(tiny):
    low, high = (C.run({"arm": N.BN, "init": "he", "lr": lr}, seed=3) for lr in (0.01, 0.3))
    x, y = C.subset(10_000, 3, half=True)
    batch = torch.randint(len(x), (128,), generator=torch.Generator().manual_seed(3))
    start = L.probe(C.network(N.BN, 3), x[batch], y[batch], C.STEP, (x[:32], y[:32]))
    for name in C.MEASURES:
        assert low[name][0] == high[name][0] == pytest.approx(start[name], abs=1e-4)
        assert low[name][1] != high[name][1]
    assert high["shift"][0] > low["shift"][0] + 1  # this is of the update, whose rate is 30 times as high


@pytest.mark.long
def test_what_is_measured_changes_nothing_and_is_that_of_the_update_itself(tiny):
    setting = {"arm": N.NOISY, "init": "he", "lr": 0.1}
    found = C.run(setting, seed=2)
    trained = tiny[N.NOISY]
    x, y = C.subset(10_000, 2, half=True)
    model = N.with_noise(vgg("batch", init="he"), 2)
    model.load_state_dict(C.network(N.NOISY, 2).state_dict())
    expected, states = [], [copy.deepcopy(model)]
    for _ in C.updates(model, x, y, steps=6, lr=0.1, momentum=0.9, schedule="cosine", seed=2, batch_size=128):
        states.append(copy.deepcopy(model))
    for update in (1, 2, 5):
        pair = [L.activations(copy.deepcopy(states[i]).train(), x[:32])[0] for i in (update - 1, update)]
        expected.append(np.mean([log10(L.distribution_shift(a, b)) for a, b in zip(*pair, strict=True)]))
    assert found["shift"] == pytest.approx(expected, abs=1e-3)
    for ours, theirs in zip(model.state_dict().values(), trained.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)  # also the running statistics


@pytest.mark.long
def test_a_diverged_run_says_so(tiny):
    row = C.run({"arm": N.STANDARD, "init": "he", "lr": 1e6}, seed=0)
    assert row["diverged"] and row["train_loss"] is None and C.over_run(row, "shift") is None


# What the rows say


def made_up(height, seeds=range(C.SEEDS), phase="choose", best=None, shift=None, **with_bn) -> list[dict]:
    """Rows with a hill of accuracy at each arm's best rate; measures are −1, with batch normalization as said."""
    rows = []
    for s in C.grid():
        arm, noisy = s["arm"], N.ARMS[s["arm"]][1]
        for seed in seeds:
            value = height[arm] - 0.02 * abs(log10(s["lr"] / (best or {}).get(arm, 0.1))) + 0.001 * (seed % 5)
            level = {"loss": 0.5, **dict.fromkeys(C.MEASURES[1:], -1.0)} | (with_bn if arm != N.STANDARD else {})
            series = {
                name: None if noisy else [v(s) if callable(v) else v] * len(C.PROBED) for name, v in level.items()
            }
            for name in S.MEASURES:
                series[name] = series[name] and [v + 0.001 * (seed % 5) * (arm == N.BN) for v in series[name]]
            rows.append(
                {
                    "experiment": "conv_why",
                    "setting": s,
                    "seed": seed,
                    "phase": phase,
                    "planned": len(FRESH),
                    "diverged": False,
                    "val_accuracy": value,
                    "test_accuracy": value - 0.01 + 0.0003 * (seed % 3) * (arm == N.NOISY),
                    "shift": [(shift or {}).get(arm, -1.0)] * len(C.PROBED),
                    **series,
                }
            )
    return rows


def confirmed(*arguments, **more) -> list[dict]:
    """The rows of a pilot, and those of fresh seeds that its plan would ask for."""
    rows = made_up(*arguments, **more)
    settings = [s for module in (C, S) for c in module.comparisons(rows) for s in c.settings]
    assert all(s in C.grid() for s in settings) and not any(c.edges for m in (C, S) for c in m.comparisons(rows))
    return rows + [r for r in made_up(*arguments, FRESH, "confirm", **more) if r["setting"] in settings]


LEVEL = dict.fromkeys(N.ARMS, 0.8)


@pytest.mark.parametrize(
    ("noisy", "word"),
    [(0.82, "supported"), (0.84, "contradicted"), (0.83, "negligible"), (0.8285, "smaller than claimed")],
)
def test_the_noise_takes_one_part_of_the_gain_and_leaves_the_other(noisy, word):
    """The gain is from 0.80 to 0.86."""
    rows = confirmed({**LEVEL, N.BN: 0.86, N.NOISY: noisy}, best={N.STANDARD: 0.03, N.NOISY: 0.3})
    (comparison,) = C.comparisons(rows)
    assert comparison.difference.mean == pytest.approx((0.86 - noisy) - (noisy - 0.8), abs=1e-3)
    assert comparison.seeds == FRESH and comparison.arms == N.PARTS
    judged = experiments.judge(rows)
    assert judged.word == judged.quoted.word == word
    assert experiments.judge([row for row in rows if row["seed"] < 100]).word == "open"  # nothing is confirmed


def test_without_a_gain_there_is_nothing_to_take():
    assert experiments.judge(confirmed(LEVEL)).word == "negligible"


def test_a_best_rate_at_the_edge_gives_no_verdict():
    rows = made_up({**LEVEL, N.BN: 0.86}, best={N.NOISY: 1.0})
    (comparison,) = C.comparisons(rows)
    assert comparison.edges == (f"lr of {N.NOISY!r}",)


def test_the_arms_are_confirmed_at_their_own_rates_and_those_with_bn_at_the_other():
    best = {N.STANDARD: 0.03, N.NOISY_STANDARD: 0.03, N.BN: 0.1, N.NOISY: 0.3, N.HELD: 0.03}
    rows = confirmed({**LEVEL, N.BN: 0.86, N.NOISY: 0.84, N.HELD: 0.81}, best=best)
    (comparison,) = C.comparisons(rows)
    assert [(s["arm"], s["lr"]) for s in comparison.settings] == [
        (N.STANDARD, 0.03), (N.NOISY_STANDARD, 0.03), (N.BN, 0.1), (N.BN, 0.03), (N.NOISY, 0.3), (N.NOISY, 0.03),
        (N.HELD, 0.03),
    ]  # fmt: skip
    for without in (N.NOISY, N.HELD):
        for equal in (False, True):
            (found,) = C.comparisons(rows, without, equal)
            assert found.seeds == FRESH and found.settings == comparison.settings
    (held,) = C.comparisons(rows, N.HELD)
    assert held.difference.mean == pytest.approx((0.86 - 0.81) - (0.81 - 0.8), abs=1e-3)
    (equal,) = C.comparisons(rows, equal_rate=True)
    bn, noisy = 0.86 - 0.02 * log10(10 / 3), 0.84 - 0.02
    assert equal.difference.mean == pytest.approx((bn - noisy) - (noisy - 0.8), abs=1e-3)


def test_the_shifts_are_compared_with_the_network_without():
    rows = confirmed({**LEVEL, N.BN: 0.86, N.NOISY: 0.84}, shift={N.BN: -1.5, N.NOISY: -0.25})
    means = {c.name: c.difference.mean for c in C.shifts(rows)}
    assert means == pytest.approx({f"{N.BN} against {N.STANDARD}": 0.5, f"{N.NOISY} against {N.STANDARD}": -0.75})
    assert all(c.seeds == FRESH for c in C.shifts(rows))


def test_the_mean_is_over_the_updates_that_are_looked_at():
    row = {"diverged": False, "beta": [2.0] * len(C.PROBED), "shift": [0.0] * 9 + [None], "loss": [0.0] * 9 + [1.0]}
    assert C.over_run(row, "beta") == pytest.approx(2)
    assert C.over_run(row, "loss") == pytest.approx(sum((u - 270) / 70 for u in range(271, 341)) / 340)
    assert C.over_run(row, "shift") is None and C.over_run(row | {"diverged": True}, "beta") is None
    assert list(C.PROBED) == sorted(set(C.PROBED)) and C.PROBED[0] == 1 and C.PROBED[-1] < C.STEPS


SMOOTH = dict.fromkeys(S.MEASURES, -1.5)


@pytest.mark.parametrize(
    ("with_bn", "word"),
    [
        (SMOOTH, "supported"),
        (dict.fromkeys(S.MEASURES, -0.5), "contradicted"),
        (dict.fromkeys(S.MEASURES, -1.05), "contradicted"),  # smoother, but not significantly
        ({**SMOOTH, "beta": -1.0}, "depends on the measure"),
        (dict.fromkeys(S.MEASURES, lambda s: -1.5 if s["lr"] == 0.3 else -0.9), "depends on the rates"),
    ],
)
def test_smaller_is_smoother_by_every_measure_and_at_either_rate(with_bn, word):
    rows = confirmed({**LEVEL, N.BN: 0.86}, best={N.STANDARD: 0.03, N.BN: 0.3}, **with_bn)
    found = S.comparisons(rows)
    assert len(found) == 6 == len({c.levels for c in found}) and all(c.seeds == FRESH for c in found)
    assert experiments.judge(rows, "conv_smoothness").word == word
    for comparison in found:
        bn, standard = comparison.settings
        assert bn["arm"] == N.BN and standard == {"arm": N.STANDARD, "init": "he", "lr": 0.03}
        assert bn["lr"] == (0.3 if "best" in comparison.levels[1] else 0.03)
        value = with_bn[next(name for name, words in S.MEASURES.items() if words == comparison.levels[0])]
        assert comparison.difference.mean == pytest.approx(-1 - (value(bn) if callable(value) else value), abs=0.003)


def test_a_diverged_run_gives_no_verdict_on_smoothness():
    rows = confirmed({**LEVEL, N.BN: 0.86}, **SMOOTH)
    for row in rows:
        if row["seed"] == 103 and row["setting"]["arm"] == N.STANDARD:
            row |= {"diverged": True, "beta": [None]}
    assert experiments.judge(rows, "conv_smoothness").word == "open"


def test_a_pilot_gives_the_plan_of_both_claims(tmp_path):
    made = made_up({**LEVEL, N.BN: 0.86, N.NOISY: 0.83}, best={N.STANDARD: 0.03}, **SMOOTH)
    made_by = {"command": "made up", "commit": "none", "date": "today"}
    more = {"version": C.VERSION, "seconds": 1.0, "provenance": made_by}
    path = tmp_path / "conv_why.jsonl"
    path.write_text("".join(json.dumps(row | more) + "\n" for row in made), encoding="utf-8")
    plan = plan_confirmation(experiments.find("conv_why"), tmp_path)
    assert [pilot.experiment for pilot in plan.pilots] == ["conv_smoothness"] * 6 + ["conv_why"]
    wanted = [s for module in (C, S) for c in module.comparisons(made) for s in c.settings]
    assert 10 <= plan.seeds <= 40 and plan.settings == [s for s in C.grid() if s in wanted] and len(plan.settings) == 8


def test_figures_are_drawn_from_a_quick_grid_and_from_all():
    rows = confirmed({**LEVEL, N.BN: 0.86}, best={N.STANDARD: 0.03, N.BN: 0.3}, **SMOOTH)
    quick = [row for row in made_up({**LEVEL, N.BN: 0.86}) if row["setting"] in C.grid(quick=True)]
    for some in (rows, quick):
        picture = C.figure(some)
        assert [ax.get_title() for ax in picture.axes] == ["He weights"]
        matplotlib.pyplot.close(picture)
        picture = S.figure(some)
        assert [ax.get_title() for ax in picture.axes[:2]] == list(S.RATES) and len(picture.axes) == 6
        assert [ax.get_ylabel() for ax in picture.axes[::2]] == list(S.MEASURES.values())
        assert all(len(ax.lines) == 2 for ax in picture.axes)
        matplotlib.pyplot.close(picture)
