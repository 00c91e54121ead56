"""The experiments of chapter 15: the statistics and their noise, the grid, and what the claims make of rows."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest
import torch

from bnbook import experiments
from bnbook.experiments.claims import (
    need_for_dropout,
    noise_helps,
    regularization,
    regularized_calibration,
    regularized_loss,
)
from bnbook.experiments.claims import regularization as R
from bnbook.models.torch_statistics import (
    FrozenBatchNorm1d,
    GhostBatchNorm1d,
    WholeSet,
    WholeSetBatchNorm1d,
    exact_statistics,
)

matplotlib.use("Agg")


# --- layers ----------------------------------------------------------------------------------------------------------


def affine(layer):
    """The layer with random weight and bias."""
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
    return layer


def data(rows, columns=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = 0.1 + torch.rand(columns, generator=generator)
    x = torch.randn(rows, columns, generator=generator) * scale + 3
    return x.requires_grad_(), torch.randn(rows, columns, generator=generator)


@pytest.mark.parametrize("size", [3, 4, 12])
def test_every_ghost_is_normalized_by_itself_forward_and_backward(size):
    (x, upstream), layer = data(12), affine(GhostBatchNorm1d(5, size))
    reference = torch.nn.BatchNorm1d(5)
    reference.load_state_dict(layer.state_dict())
    y, expected = layer(x), torch.cat([reference(part) for part in x.split(size)])
    torch.testing.assert_close(y, expected)
    inputs = lambda layer: (x, layer.weight, layer.bias)  # noqa: E731
    for got, right in zip(
        torch.autograd.grad(y, inputs(layer), upstream),
        torch.autograd.grad(expected, inputs(reference), upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="a multiple of 12 rows in training, got 10"):
        GhostBatchNorm1d(5, 12)(data(10)[0])


def test_statistics_of_the_whole_set_have_their_gradient():
    (x, upstream), (images, _) = data(4), data(9, seed=1)
    layer = affine(WholeSetBatchNorm1d(5, 9))
    y = WholeSet(layer, images)(x)
    sd = (images.var(0, correction=0) + layer.eps).sqrt()
    expected = layer.weight * (x - images.mean(0)) / sd + layer.bias
    torch.testing.assert_close(y, expected)
    for got, right in zip(
        torch.autograd.grad(y, (x, images, layer.weight), upstream),
        torch.autograd.grad(expected, (x, images, layer.weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)


def test_with_the_whole_set_as_batch_the_noise_is_gone():
    """Ghosts of the size of the set, the whole set, and exact statistics in evaluation mode are one function."""
    x = data(16)[0]
    ghost, whole, plain = affine(GhostBatchNorm1d(5, 16)), WholeSetBatchNorm1d(5, 16), torch.nn.BatchNorm1d(5)
    whole.load_state_dict(ghost.state_dict())
    plain.load_state_dict(ghost.state_dict())
    expected = ghost(x)
    torch.testing.assert_close(whole(x), expected)
    torch.testing.assert_close(exact_statistics(torch.nn.Sequential(plain), x)(x), expected)


def test_exact_statistics_are_those_behind_the_layers_before():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 7), affine(torch.nn.BatchNorm1d(7)), torch.nn.ReLU(), torch.nn.Dropout(0.5),
        torch.nn.Linear(7, 3), affine(GhostBatchNorm1d(3, 2)),
    )  # fmt: skip
    x = data(20)[0].detach()
    assert exact_statistics(model, x) is model and not model.training
    for i in (1, 5):
        before = model[:i](x)  # without dropout
        torch.testing.assert_close(model[i].running_mean, before.mean(0))
        torch.testing.assert_close(model[i].running_var, before.var(0, correction=0))


def test_frozen_statistics_are_those_of_the_first_weights():
    x, y = R.images_of(256, seed=3)
    setting = R.setting(256, "frozen", 0.01)
    torch.manual_seed(0)
    model = R.network(setting, x)
    before = [model.bn1.running_mean.clone(), model.bn2.running_var.clone()]
    out = model.train()(x)
    assert all(isinstance(layer, FrozenBatchNorm1d) for layer in (model.bn1, model.bn2))
    torch.testing.assert_close(out, model.eval()(x))
    torch.testing.assert_close(model[:3](x).mean(0), torch.zeros(256), atol=1e-5, rtol=0)
    for _ in R.updates(model, x, y, steps=3, lr=0.01, seed=0, batch_size=128):
        pass
    assert torch.equal(before[0], model.bn1.running_mean) and torch.equal(before[1], model.bn2.running_var)


# --- grid and runs ---------------------------------------------------------------------------------------------------


def test_the_grid_has_every_arm_at_its_rates_and_no_setting_twice():
    grid = R.grid()
    assert len({tuple(s.items()) for s in grid}) == len(grid) == 2 * sum(len(rates) for _, rates in R.arms())
    for arm, rates in R.arms():
        for images in R.IMAGES:
            expected = R.setting(images, lr=0.0, **arm)
            mine = tuple(s["lr"] for s in grid if {**s, "lr": 0.0} == expected)
            assert mine == rates and {0.03, 0.1} <= set(mine) and len(mine) >= 4  # equal rates can be compared
    assert all(R.BATCH_SIZE % size == 0 and size < R.BATCH_SIZE for size in R.GHOSTS)
    assert len(R.DROPOUT) == len(R.DECAY)  # tuned as carefully
    assert all(s in grid for s in R.grid(quick=True)) and len(R.grid(quick=True)) == 2 * 10


def test_a_seed_has_its_own_training_images_and_the_smaller_set_is_part_of_the_larger():
    small, large, other = R.images_of(256, 0), R.images_of(1024, 0), R.images_of(256, 1)
    assert small[0].shape == (256, 1, 14, 14) and torch.equal(small[0], large[0][:256])
    assert torch.equal(small[1], large[1][:256]) and not torch.equal(small[0], other[0])


def test_arms_of_a_seed_start_from_the_same_weights():
    x = R.images_of(256, 0)[0]

    def weights(norm, **changes):
        torch.manual_seed(5)
        return R.network(R.setting(256, norm, 0.1, **changes), x).fc2.weight

    first = weights("none")
    for norm, changes in [("batch", {"ghost": 4}), ("whole", {}), ("frozen", {}), ("none", {"dropout": 0.5})]:
        assert torch.equal(first, weights(norm, **changes))


@pytest.mark.parametrize(
    ("norm", "changes"),
    [("none", {"weight_decay": 0.01}), ("batch", {"ghost": 4, "dropout": 0.2}), ("whole", {}), ("frozen", {})],
)
def test_a_run_is_the_same_again_and_learns(norm, changes, monkeypatch):
    monkeypatch.setattr(R, "STEPS", 40)
    setting = R.setting(256, norm, 0.03, **changes)
    result = R.run(setting, seed=0)
    again = R.run(setting, seed=0)
    assert np.array_equal(result.pop("correct"), again.pop("correct")) and result == again
    assert not result["diverged"] and result["val_accuracy"] > 0.6 and result["val_log_likelihood"] < 0


def test_a_run_says_when_it_has_diverged(monkeypatch):
    monkeypatch.setattr(R, "STEPS", 40)
    assert R.run(R.setting(256, "none", 1000.0), seed=0)["diverged"]


# --- what the claims make of rows ------------------------------------------------------------------------------------


def made_up(accuracy) -> list[dict]:
    """Rows of the whole grid with these accuracies at an arm's middle rate, on test 0.1 less than on validation."""
    rows = []
    peaks = [R.setting(images, lr=rates[len(rates) // 2], **arm) for images in R.IMAGES for arm, rates in R.arms()]
    for s in R.grid():
        for seed in range(R.SEEDS):
            value = accuracy(s) - 0.02 * (s not in peaks) + 0.001 * seed
            row = {
                "experiment": "regularization",
                "setting": s,
                "seed": seed,
                "diverged": False,
                "val_accuracy": value,
                "test_accuracy": value - 0.1,
                "test_loss": 1 - value,
                "test_calibration_error": 0.1,
            }
            rows.append(row)
    return rows


def verdict(module, rows):
    comparisons = module.comparisons(rows)
    return experiments.verdict(comparisons, module.DELTA, planned=R.SEEDS, factor=module.FACTOR)


def strengths(norm, dropout=(), decay=(), ghost=(), init=0.0):
    """An accuracy that is `norm`'s, plus that of each strength."""
    table = {"dropout": dict(dropout), "weight_decay": dict(decay), "ghost": dict(ghost)}

    def accuracy(s):
        more = sum(values.get(s[name], 0.0) for name, values in table.items())
        return norm.get(s["norm"], 0.7) + more - init * (s["init"] == "default")

    return accuracy


def test_batch_normalization_is_compared_without_any_other_regularizer():
    rows = made_up(strengths({"batch": 0.82, "none": 0.8}, dropout={0.5: 0.1}, decay={0.01: 0.1}, ghost={8: 0.1}))
    comparisons = R.comparisons(rows)
    assert [c.name for c in comparisons][:2] == ["256 images, default weights", "256 images, He weights"]
    assert [c.difference.mean for c in comparisons] == pytest.approx([0.02] * 4)
    assert verdict(regularization, rows).word == "supported"
    assert verdict(regularization, made_up(strengths({"batch": 0.8, "none": 0.82}))).word == "contradicted"


def test_loss_and_calibration_are_better_where_they_are_lower():
    rows = made_up(strengths({"batch": 0.8, "none": 0.8}))
    for row in rows:
        with_bn = row["setting"]["norm"] == "batch"
        row["test_loss"], row["test_calibration_error"] = (0.5, 0.1) if with_bn else (0.8, 0.105)
    for module, gain, word in ((regularized_loss, 0.3, "supported"), (regularized_calibration, 0.005, "smaller")):
        found = module.comparisons(rows)
        assert [c.difference.mean for c in found] == pytest.approx([gain] * 4)
        assert found[0].arms == ("without BN", "with BN")
        assert experiments.verdict(found, module.DELTA, planned=R.SEEDS, factor=module.FACTOR).word.startswith(word)
    gone = [row | {"diverged": row["setting"]["norm"] == "none" and row["seed"] == 1} for row in rows]
    assert {c.a[1] for c in regularized_calibration.comparisons(gone)} == {1.0}  # the worst there is
    assert {c.a[1] for c in regularized_loss.comparisons(gone)} == {math.log(10)}  # as one that guesses


def test_each_regularizer_has_its_own_strength_and_no_strength_is_no_edge():
    rows = made_up(strengths({"batch": 0.82, "none": 0.8}, dropout={0.5: 0.03}, decay={0.01: 0.01}))
    arms = R.regularized(rows, 256)
    assert arms["dropout"].values == {"dropout": 0.5, "lr": 0.1}
    assert arms["weight decay"].values == {"weight_decay": 0.01, "lr": 0.1}
    assert {choice.edge for choice in arms.values()} == {()}
    none = R.regularized(made_up(strengths({}, dropout={p: -0.1 for p in R.DROPOUT})), 1024)["dropout"]
    assert none.values["dropout"] == 0 and none.edge == ()
    assert R.arm(made_up(strengths({}, dropout={0.7: 0.1})), 256, "none", over=["dropout"]).edge == ("dropout",)


def test_noise_helps_where_some_size_is_better_than_the_whole_set():
    rows = made_up(strengths({"batch": 0.8, "whole": 0.8}, ghost={16: 0.02}))
    assert verdict(noise_helps, rows).word == "supported"
    assert "ghost 16" in noise_helps.comparisons(rows)[0].chosen[0]
    alike = made_up(strengths({"batch": 0.8, "whole": 0.8}, ghost={4: -0.1}))
    assert verdict(noise_helps, alike).word == "negligible"
    least = made_up(strengths({"batch": 0.8, "whole": 0.8}, ghost={128: 0.02}))
    assert verdict(noise_helps, least).word == "supported"  # the whole batch is no edge
    most = made_up(strengths({"batch": 0.8, "whole": 0.8}, ghost={4: 0.02}))
    assert verdict(noise_helps, most).word == "open"  # more noise might help more


def test_the_need_for_dropout_is_asked_of_bn_without_it_against_it_without_bn():
    def accuracy(with_bn, weak, usual):
        def value(s):
            if s["norm"] == "batch":
                return with_bn + 0.05 * (s["dropout"] == 0.35)  # BN with dropout is no part of it
            return 0.8 + {0.2: weak, 0.5: usual}.get(s["dropout"], 0.0)

        return value

    rows = made_up(accuracy(0.83, 0.01, 0.02))
    comparisons = need_for_dropout.comparisons(rows)
    assert [c.levels for c in comparisons] == [(256, 0.2), (256, 0.5), (1024, 0.2), (1024, 0.5)]
    assert comparisons[0].arms == ("BN without dropout", "dropout without BN")
    assert [c.difference.mean for c in comparisons] == pytest.approx([0.02, 0.01] * 2)
    assert verdict(need_for_dropout, rows).word == "supported"
    assert verdict(need_for_dropout, made_up(accuracy(0.8, 0.02, 0.02))).word == "contradicted"
    assert verdict(need_for_dropout, made_up(accuracy(0.82, 0.02, 0.02))).word == "negligible"
    confirmed = [(s["norm"], s["dropout"]) for s in comparisons[1].settings]
    assert confirmed == [("none", 0.0), ("batch", 0.0), ("none", 0.5), ("batch", 0.5)]  # each alone, and both


def test_what_is_shown_of_fresh_seeds_is_confirmed_along():
    rows = made_up(strengths({"batch": 0.82, "none": 0.8}, dropout={0.5: 0.03}, decay={0.01: 0.01}))
    settings = [s for module in (regularization, noise_helps, need_for_dropout) for c in module.comparisons(rows)
                for s in c.settings]  # fmt: skip
    fresh = [
        {**row, "seed": 100 + seed, "phase": "confirm", "val_accuracy": 0.1}
        for row in rows
        if row["seed"] == 0 and row["setting"] in settings
        for seed in range(3)
    ]
    both = [row | {"phase": "choose"} for row in rows] + fresh
    for images in R.IMAGES:
        shown = [*R.regularized(both, images).values(), *need_for_dropout.arms(both, images, 0.5).values()]
        assert {row["seed"] for choice in shown for row in choice.rows} == {100, 101, 102}
        for init in R.INITS:
            for lr in R.EQUAL:
                assert R.at_equal_rate(both, images, init, lr).seeds == (100, 101, 102)
    assert {row["seed"] for row in experiments.pilot(both)} == set(range(R.SEEDS))
    for module in (regularization, need_for_dropout, noise_helps):
        picture = module.figure(both)
        matplotlib.pyplot.close(picture)


def test_figures_are_drawn_from_full_and_from_quick_grids_and_with_a_diverged_run():
    rows = made_up(strengths({"batch": 0.82, "none": 0.8}))
    rows[0] |= {"diverged": True, "test_loss": None}
    quick = [row for row in rows if row["setting"] in R.grid(quick=True)]
    for module in (regularization, need_for_dropout, noise_helps):
        for some in (rows, quick):
            picture = module.figure(some)
            assert all(len(ax.lines) >= 3 for ax in picture.axes)
            matplotlib.pyplot.close(picture)
