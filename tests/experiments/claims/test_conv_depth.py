"""The convolutional experiment of chapter 14: its networks, its rates, what is compared."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from bnbook import experiments
from bnbook.experiments import best, select
from bnbook.experiments.claims import conv_depth as D
from bnbook.models.torch_conv import Scale
from bnbook.models.torch_mlp import scalars

matplotlib.use("Agg")

HEIGHT = dict(zip(D.ARMS, (0.6, 0.7, 0.8, 0.79, 0.78, 0.77), strict=True))
PLANNED = 10
BETTER = 0.001 * (D.SEEDS - 1) / 2  # on average over the seeds that choose


def made_up(seeds, phase: str, above=lambda setting: 0.0) -> list[dict]:
    """Every arm is best at its middle rate, BN a little better with every seed; `above` is added to test accuracies."""
    rows = []
    for setting in D.grid():
        rates = D.ARMS[setting["arm"]][2]
        off = abs(np.log10(setting["lr"] / rates[len(rates) // 2]))
        for seed in seeds:
            accuracy = HEIGHT[setting["arm"]] - 0.05 * off + 0.001 * seed * (setting["arm"] == D.BN)
            rows.append(
                {
                    "experiment": "conv_depth",
                    "setting": setting,
                    "seed": seed,
                    "phase": phase,
                    "planned": PLANNED,
                    "diverged": False,
                    "val_accuracy": accuracy,
                    "test_accuracy": accuracy + above(setting),
                }
            )
    return rows


@pytest.fixture(scope="module")
def pilot() -> list[dict]:
    return made_up(range(D.SEEDS), "choose")


def test_every_arm_has_its_rates_at_every_depth():
    grid = D.grid()
    assert len(grid) == len(D.DEPTHS) * sum(len(rates) for _, _, rates in D.ARMS.values())
    assert {s["depth"] for s in grid} == set(D.DEPTHS) and {s["arm"] for s in grid} == set(D.ARMS)
    assert all(list(rates) == sorted(set(rates)) for *_, rates in D.ARMS.values())
    assert all(setting in grid for setting in D.grid(quick=True))


def test_bn_is_compared_with_every_other_arm_at_every_depth(pilot):
    found = D.comparisons(pilot)
    assert [c.levels for c in found] == [(depth, arm) for depth in D.DEPTHS for arm in D.ARMS if arm != D.BN]
    for comparison in found:
        depth, arm = comparison.levels
        assert comparison.difference.mean == pytest.approx(HEIGHT[D.BN] - HEIGHT[arm] + BETTER)
        rates = {setting["arm"]: setting["lr"] for setting in comparison.settings}
        assert rates == {name: D.ARMS[name][2][len(D.ARMS[name][2]) // 2] for name in (D.BN, arm)}
        assert {setting["depth"] for setting in comparison.settings} == {depth} and not comparison.edges


def test_an_arm_that_guesses_at_every_rate_is_at_no_edge_of_its_rates(pilot):
    def at(height: float) -> list[dict]:
        lost = {"val_accuracy": height, "test_accuracy": height}
        return [row | lost if row["setting"]["arm"] == "Fixup" else row for row in pilot]

    assert D.chosen(at(0.1), 56, "Fixup").edge == () and D.chosen(at(0.5), 56, "Fixup").edge == ("lr",)


def test_the_verdict_is_from_fresh_seeds(pilot):
    """The pilot says that BN is ahead; the fresh seeds that it is behind."""
    assert experiments.judge(pilot).word == "open"
    confirming = made_up(range(100, 100 + PLANNED), "confirm", lambda setting: -0.5 * (setting["arm"] == D.BN))
    chosen = [best(select(pilot, depth=depth, arm=arm), "lr").values["lr"] for depth in D.DEPTHS for arm in D.ARMS]
    places = [(depth, arm) for depth in D.DEPTHS for arm in D.ARMS]
    kept = [
        row
        for row in confirming
        if (row["setting"]["depth"], row["setting"]["arm"], row["setting"]["lr"])
        in {(*place, lr) for place, lr in zip(places, chosen, strict=True)}
    ]
    assert experiments.judge(pilot + kept).word == "contradicted"


def test_a_run_trains_the_network_of_its_setting(monkeypatch):
    seen = {}

    def watched(model, images, val, test, **more):
        seen.update(model=model, images=images, more=more)
        return {"test_accuracy": 0.5}

    monkeypatch.setattr(D, "train_and_score", watched)
    monkeypatch.setattr(D, "split", lambda *names, **more: names)
    monkeypatch.setattr(D, "subset", lambda count, seed, half: (count, seed, half))
    for arm, (norm, init, rates) in D.ARMS.items():
        assert D.run({"depth": 8, "arm": arm, "lr": rates[0]}, 7) == {"test_accuracy": 0.5}
        assert seen["images"] == (10_000, 7, True)
        layers = [type(layer).__name__ for layer in seen["model"].modules()]
        assert (layers.count("BatchNorm2d"), layers.count("GroupNorm")) == (
            7 * (norm == "batch"),
            7 * (norm == "group"),
        )
        assert layers.count("Scale") == 3 * (norm in ("skipinit", "fixup"))
        assert layers.count("Conv2d") == 7 and (layers.count("Shift") > 0) == (norm == "fixup")
        std = seen["model"].stem.weight.std().item()
        assert std == pytest.approx(np.sqrt(2 / 9) if init == "he" else np.sqrt(1 / 27), rel=0.3)
        more = seen["more"]
        assert (more["lr"], more["momentum"], more["schedule"], more["steps"]) == (rates[0], 0.9, "cosine", 390)
        slow = {id(parameter) for parameter in more["slow"]}
        assert slow == ({id(p) for p in scalars(seen["model"])} if norm == "fixup" else set())


def test_the_scalars_are_those_of_scales_and_shifts():
    model = D.resnet("fixup", depth=8, width=8)
    found = scalars(model)
    assert len(found) == 3 + 3 * 5 and all(p.ndim == 0 for p in found)
    assert sum(isinstance(layer, Scale) for layer in model.modules()) == 3


def test_the_figure_has_a_line_for_every_arm(pilot):
    figure = D.figure(pilot)
    for ax in figure.axes:
        lines = [line for line in ax.lines if line.get_label() in D.ARMS]
        assert [line.get_label() for line in lines] == list(D.ARMS)
        for line in lines:
            expected = HEIGHT[line.get_label()] + BETTER * (line.get_label() == D.BN)
            assert list(line.get_xdata()) == list(D.DEPTHS) and line.get_ydata() == pytest.approx([expected] * 3)


def test_a_diverged_run_is_drawn_at_guessing(pilot):
    gone = [row | {"diverged": row["setting"]["arm"] == "Fixup", "test_accuracy": 0.0} for row in pilot]
    for ax in D.figure(gone).axes:
        (line,) = (line for line in ax.lines if line.get_label() == "Fixup")
        assert list(line.get_ydata()) == pytest.approx([0.1] * 3)
