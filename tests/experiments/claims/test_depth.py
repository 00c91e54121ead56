"""The experiment of chapter 14: its networks, what is chosen, what is compared, the five columns."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

from bnbook import experiments
from bnbook.experiments.claims import depth as D

matplotlib.use("Agg")

SEEDS = range(D.SEEDS)
HEIGHT = {"none": 0.7, "batch": 0.8, "skipinit": 0.81, "fixup": 0.79}
PLANNED = 10


def peaked(setting: dict, seed: int, at: float = 0.001) -> float:
    """Validation accuracy: an arm's height at one rate, less elsewhere."""
    return HEIGHT[setting["norm"]] - 0.1 * abs(np.log10(setting["lr"] / at)) + 0.001 * seed


def made_up(validation=peaked, test=None, seeds=SEEDS, phase="choose") -> list[dict]:
    return [
        {
            "experiment": "depth",
            "setting": setting,
            "seed": seed,
            "phase": phase,
            "planned": PLANNED,
            "diverged": False,
            "val_accuracy": validation(setting, seed),
            "test_accuracy": (test or validation)(setting, seed),
        }
        for setting in D.grid()
        for seed in seeds
    ]


def confirmed(validation=peaked, test=None) -> list[dict]:
    """The pilot, and fresh seeds of every arm at every depth at the rate that was chosen for it."""
    pilot = made_up(validation, test)
    fresh = made_up(validation, test, range(100, 100 + PLANNED), "confirm")
    kept = {str(setting) for setting in D.beside(pilot)}
    return pilot + [row for row in fresh if str(row["setting"]) in kept]


def of(comparison) -> float:
    return comparison.difference.mean


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return made_up()


def test_the_claim_is_a_sentence_of_the_abstract():
    assert D.CLAIM.startswith("Batch normalization dramatically increases the largest trainable depth of residual")
    assert "has been crucial to the empirical success" in D.CLAIM


def test_every_arm_is_tried_at_every_depth_that_it_has_and_at_all_its_rates():
    grid = D.grid()
    for arm in D.ARMS:
        depths = [depth for depth in D.DEPTHS if arm["network"] == "plain" or depth % 2 == 0]
        found = [(s["depth"], s["lr"]) for s in grid if s == {**arm, "depth": s["depth"], "lr": s["lr"]}]
        assert found == [(depth, lr) for depth in depths for lr in D.rates(arm)]
    assert len(grid) == 4 * 5 * 6 + 5 + 6 * 4 * 6
    assert D.PRIMARY_DEPTH in D.DEPTHS and all(s in grid for s in D.grid(quick=True))


def test_a_network_has_the_depth_and_the_norm_of_its_setting():
    for setting in (s for s in D.grid() if s["lr"] == D.RATES[0] and s["depth"] <= 20):
        model = D.network(setting)
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        bn = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        residual = setting["network"] == "residual"  # a stem before the blocks; an output layer in both
        assert len(linear) == setting["depth"] + 1 + residual
        assert len(bn) == (setting["depth"] + residual) * (setting["norm"] == "batch")
        factors = [p.item() for name, p in model.named_parameters() if name.endswith("alpha")]
        start = {"skipinit": [0.0], "fixup": [1.0]}.get(setting["norm"], [])
        assert factors == start * (setting["depth"] // 2)
        assert linear[1].weight.shape == (D.WIDTH, D.WIDTH)


def test_rates_are_chosen_on_validation_and_scores_are_of_the_test():
    rows = made_up(test=lambda s, seed: 0.9 if s["lr"] == 0.03 else 0.5 + 0.1 * (s["norm"] == "batch"))
    for comparison in D.comparisons(rows):
        assert of(comparison) == pytest.approx(0.1) and "lr 0.001" in comparison.chosen[0]


def test_the_primary_comparison_is_of_forty_layers():
    def deep_only(setting, seed):
        return peaked(setting, seed) - 0.3 * (setting["depth"] == 40 and setting["norm"] == "batch")

    found = {comparison.name: of(comparison) for comparison in D.comparisons(made_up(deep_only))}
    assert found == pytest.approx(
        dict.fromkeys(
            [f"{kind} network, {init} weights" for kind in ("plain", "residual") for init in ("default", "He")], -0.2
        )
    )


def test_bn_is_compared_with_the_same_network_and_initialization():
    def accuracy(setting, seed):
        arm = (setting["network"], setting["init"], setting["norm"])
        lost = {("plain", "default", "none"): 0.2, ("plain", "he", "batch"): 0.3, ("residual", "he", "none"): 0.5}
        return peaked(setting, seed) - lost.get(arm, 0)

    rows = confirmed(accuracy)
    found = [of(comparison) for comparison in D.comparisons(rows)]
    assert found == pytest.approx([0.3, -0.2, 0.1, 0.6])
    assert experiments.judge(rows).word == "depends on the network and the initialization"


def test_what_replaces_bn_is_compared_with_it_in_the_residual_network(rows):
    for norm, name, ahead in (("skipinit", "SkipInit", 0.01), ("fixup", "Fixup", -0.01)):
        for depth in (10, 80):
            comparison = D.without_bn(rows, depth, norm)
            assert of(comparison) == pytest.approx(ahead) and comparison.arms == (name, "with BN")
    worse = made_up(lambda s, seed: peaked(s, seed) - 0.2 * (s["norm"] == "skipinit") * (s["depth"] == 80))
    assert of(D.without_bn(worse, 80)) == pytest.approx(-0.19) and of(D.without_bn(worse, 40)) > 0


def test_no_verdict_from_a_rate_at_the_edge():
    rows = confirmed(lambda s, seed: peaked(s, seed, at=min(D.rates(s)) if s["norm"] == "none" else 0.001))
    assert experiments.judge(rows).word == "open"
    assert "at the edge" in experiments.judge(rows).sentence


def test_an_arm_that_guesses_at_every_rate_has_no_edge():
    """All its rates are equal, so the first is taken: that says nothing about rates below it."""

    def accuracy(setting, seed):
        hopeless = setting["norm"] == "none" and setting["init"] == "default"
        return 0.1 + 0.01 * (setting["lr"] == D.RATES[-1]) if hopeless else peaked(setting, seed)

    rows = confirmed(accuracy)
    assert D.chosen(rows, 40, network="plain", norm="none", init="default").edge == ()
    assert experiments.judge(rows).word == "supported"
    for level in (0.14, 0.16):  # and where something is learned the edge counts
        some = confirmed(lambda s, seed, level=level: level if s["norm"] == "none" else peaked(s, seed))
        assert (experiments.judge(some).word == "open") == (level > D.GUESSING)


def test_missing_rows_give_no_verdict(rows):
    assert f"1 of the {D.SEEDS * len(D.grid())} planned runs" in experiments.judge(rows[1:]).sentence
    assert "not been confirmed" in experiments.judge(rows).sentence
    assert experiments.judge(confirmed()[:-1]).word == "open" and experiments.judge(confirmed()).word == "supported"


def test_fresh_seeds_run_every_arm_at_every_depth(rows):
    found = D.beside(rows)
    assert {setting["lr"] for setting in found} == {0.001}
    places = [tuple(value for name, value in setting.items() if name != "lr") for setting in found]
    assert places == [(*arm.values(), depth) for arm in D.ARMS for depth in D.depths(arm)]


def test_the_figure_has_six_columns_with_all_seeds(rows):
    picture = D.figure(rows)
    titles = [ax.get_title() for ax in picture.axes]
    assert titles == [
        "plain\nno BN",
        "plain\nBN",
        "residual\nno BN",
        "residual\nBN",
        "residual\nSkipInit",
        "residual\nFixup",
    ]
    for ax in picture.axes:
        means = [line for line in ax.lines if len(line.get_xdata()) in (4, 5) and line.get_marker() == "None"]
        plain = ax.get_title().startswith("plain")
        replaced = ax.get_title().endswith(("SkipInit", "Fixup"))
        assert len(means) == 2 - replaced  # both initializations
        for line in means:
            assert list(line.get_xdata()) == [d for d in D.DEPTHS if plain or d % 2 == 0]
        assert sum(line.get_marker() == "o" for line in ax.lines) == sum(len(line.get_xdata()) for line in means)
    norm = {"no BN": "none", "BN": "batch", "SkipInit": "skipinit", "Fixup": "fixup"}
    for ax in picture.axes:
        score = np.mean([peaked({"norm": norm[ax.get_title().split("\n")[1]], "lr": 0.001}, seed) for seed in SEEDS])
        assert ax.lines[0].get_ydata() == pytest.approx(score)
    matplotlib.pyplot.close(picture)


def test_the_figure_marks_rates_at_an_edge():
    def accuracy(setting, seed):
        return peaked(
            setting, seed, at=min(D.rates(setting)) if setting["norm"] == "none" and setting["depth"] == 80 else 0.001
        )

    picture = D.figure(made_up(accuracy))
    rings = [[line.get_xdata()[0] for line in ax.lines if line.get_markersize() == 10] for ax in picture.axes]
    assert rings == [[80, 80], [], [80, 80], [], [], []]
    matplotlib.pyplot.close(picture)


@pytest.mark.long
def test_a_run_repeats_and_its_scores_are_those_of_its_images(monkeypatch):
    monkeypatch.setattr(D, "STEPS", 80)
    setting = {"network": "residual", "norm": "fixup", "init": "he", "depth": 10, "lr": 0.003}
    result = D.run(setting, seed=0)
    assert result["test_accuracy"] == np.mean(result["correct"]) > 0.5 and not result["diverged"]
    assert len(result["correct"]) == 10_000 and result["val_accuracy"] * D.VALIDATION % 1 == pytest.approx(0, abs=1e-6)
    again = D.run(setting, seed=0)
    assert np.array_equal(result.pop("correct"), again.pop("correct")) and result == again
    assert D.run(setting, seed=1)["val_accuracy"] != result["val_accuracy"]


def test_a_run_trains_the_network_of_its_setting(monkeypatch):
    seen = {}

    def watched(model, images, val, test, **more):
        seen.update(model=model, images=images, val=val, more=more)
        return {"test_accuracy": 0.5}

    monkeypatch.setattr(D, "train_and_score", watched)
    monkeypatch.setattr(D, "split", lambda *names: names)
    monkeypatch.setattr(D, "subset", lambda *drawn: drawn)
    for arm in D.ARMS:
        assert D.run({**arm, "depth": 10, "lr": 0.003}, 7) == {"test_accuracy": 0.5}
        assert seen["images"] == (20_000, 7) and seen["val"] == ("val", 10_000)
        more = seen["more"]
        assert (more["lr"], more["optimizer"], more["schedule"], more["steps"]) == (0.003, "adam", "cosine", 312)
        slow = [parameter.numel() for parameter in more["slow"]]
        assert slow == ([1] * (3 + 5 * 5) if arm["norm"] == "fixup" else [])
        torch.manual_seed(7)
        expected = D.network({**arm, "depth": 10, "lr": 0.003}).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in seen["model"].state_dict().items())
