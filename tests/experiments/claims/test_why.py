"""The experiments of chapter 17: what noise and held lengths do, what a probe measures, and what rows say of claims."""

from __future__ import annotations

import copy
import math
from math import log10

import matplotlib
import numpy as np
import pytest
import torch

from bnbook import experiments
from bnbook.experiments import explanations as E
from bnbook.experiments import protocol as T
from bnbook.experiments.claims import covariate_shift as C
from bnbook.experiments.claims import landscape as L
from bnbook.experiments.claims import noise as N
from bnbook.experiments.claims import rate_tuning as R
from bnbook.models.torch_mlp import mlp

matplotlib.use("Agg")

SEEDS = range(10)


# What is taken away


def test_noise_has_the_mean_and_the_scale_that_it_says():
    layer, x = N.Noise(0), torch.linspace(-2, 2, 2000)[:, None].expand(2000, 500)
    y = layer(x)
    mean, scale = y.mean(dim=0), (y * x).mean(dim=0) / (x * x).mean(dim=0)
    assert -0.51 < mean.min() < -0.45 and 0.45 < mean.max() < 0.51  # the shift of each unit
    assert 0.98 < scale.min() < 1.02 and 1.23 < scale.max() < 1.27
    rest = y - mean - scale * x
    assert rest[999:1001].std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.1)  # near x = 0 the shift alone
    assert rest[-1].std().item() == pytest.approx(math.sqrt(0.01 / 3 + 4 * 0.01), rel=0.1)


def test_noise_changes_with_every_call_and_is_off_in_evaluation():
    layer, x = N.Noise(3), torch.ones(50, 20)
    state = torch.get_rng_state()
    first, second = layer(x), layer(x)
    assert (first.mean(dim=0) - second.mean(dim=0)).abs().mean() > 0.1
    assert torch.equal(N.Noise(3)(x), first) and not torch.equal(N.Noise(4)(x), first)
    assert torch.equal(layer.eval()(x), 1.125 * x)
    assert torch.equal(torch.get_rng_state(), state)  # others' random numbers stay the same


def test_the_noise_of_images_is_one_for_all_pixels_of_a_channel():
    layer, x = N.Noise(0), torch.randn(40, 6, 5, 3)
    y, rows = layer(x), N.Noise(0)(torch.ones(40, 6))
    scale = (y[..., 0, 0] - y[..., 1, 2]) / (x[..., 0, 0] - x[..., 1, 2])
    assert torch.allclose(y, scale[..., None, None] * (x - x[..., :1, :1]) + y[..., :1, :1], atol=1e-3)
    at_one = y[..., 0, 0] + scale * (1 - x[..., 0, 0])
    assert torch.allclose(at_one, rows, atol=1e-3)  # the same numbers as those of a row of six units
    assert torch.equal(layer.eval()(x), 1.125 * x)


def test_noise_stands_right_behind_every_normalization_and_arms_share_their_weights():
    names = {arm: [type(layer).__name__ for layer in N.network(arm, "he", 0)] for arm in N.ARMS}
    layer = ["Linear", "BatchNorm1d", "Noise", "ReLU"]
    assert names[N.NOISY] == ["Flatten", *layer * 5, "Linear"]
    assert names[N.NOISY_STANDARD] == [name for name in names[N.NOISY] if name != "BatchNorm1d"]
    assert names[N.BN] == names[N.HELD] == [name for name in names[N.NOISY] if name != "Noise"]
    assert "Noise" not in names[N.STANDARD] + names[N.BN]
    weights = [[p for p in N.network(arm, "he", 7).parameters() if p.ndim == 2] for arm in N.ARMS]
    for arm in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], arm, strict=True))
    noises = [layer.generator.initial_seed() for layer in N.network(N.NOISY, "he", 7) if isinstance(layer, N.Noise)]
    assert len(set(noises)) == 5


def test_held_rows_have_their_length_and_keep_their_direction():
    weight = torch.randn(6, 4)
    before = weight.clone()
    N.hold_lengths([weight], [torch.arange(1.0, 7)[:, None]])
    assert torch.allclose(weight.norm(dim=1), torch.arange(1.0, 7))
    assert torch.allclose(torch.cosine_similarity(weight, before), torch.ones(6))


def test_the_held_arm_ends_with_the_lengths_that_it_began_with(monkeypatch):
    kept = {}
    make = N.network

    def network(arm, init, seed):
        kept[arm] = make(arm, init, seed)
        return kept[arm]

    monkeypatch.setattr(N, "network", network)
    monkeypatch.setattr(N, "STEPS", 6)
    for arm in (N.BN, N.HELD):
        result = N.run({"arm": arm, "init": "he", "lr": 0.3}, seed=1)
        assert math.isfinite(result["log10_turn"]) and not result["diverged"]
        assert math.isfinite(result[N.METRIC])  # the engine refuses a row without it
    begin = N.hidden_weights(make(N.BN, "he", 1))
    for arm, same in ((N.HELD, True), (N.BN, False)):
        for old, new in zip(begin, N.hidden_weights(kept[arm]), strict=True):
            assert torch.allclose(old.norm(dim=1), new.norm(dim=1)) == same
            assert not torch.allclose(old, new)


def test_the_turn_is_the_length_of_the_step_over_that_of_the_weights():
    model = mlp("none", widths=(8, 8), in_features=4)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    for layer, size in ((model.fc1, 0.1), (model.fc2, 0.001)):
        layer.weight.grad = size * layer.weight.detach().flip(0)
    assert N.log10_turn(model, lr=0.5) == pytest.approx((log10(0.05) + log10(0.0005)) / 2, abs=1e-4)
    model.fc2.weight.grad.zero_()  # a dead layer
    assert N.log10_turn(model, lr=0.5) == pytest.approx((log10(0.05) - 10) / 2, abs=1e-4)


def test_every_arm_has_every_rate_but_the_highest():
    grid = N.grid()
    assert len({tuple(s.items()) for s in grid}) == len(grid) == 10 * 6 + 4
    assert {s["arm"] for s in grid if s["lr"] == max(N.RATES)} == {N.BN, N.HELD}
    assert all(s in grid for s in N.grid(quick=True))


def test_the_turn_is_that_of_every_update_at_the_rate_that_it_had(monkeypatch):
    monkeypatch.setattr(N, "STEPS", 4)
    seen = []
    monkeypatch.setattr(N, "log10_turn", lambda model, lr: seen.append(lr) or lr)
    result = N.run({"arm": N.BN, "init": "he", "lr": 0.2}, seed=0)
    assert seen == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])
    assert result["log10_turn"] == pytest.approx(np.mean(seen)) and not result["diverged"]


def test_a_diverged_run_says_so():
    result = N.run({"arm": N.STANDARD, "init": "he", "lr": 10.0}, seed=0)
    assert result["diverged"] and result["train_loss"] is None and result["log10_turn"] is None


# What a probe measures


@pytest.fixture(scope="module")
def batch():
    x, y = T.split("train")
    return x[:64], y[:64]


def network(norm, widths=(16,) * 3):
    torch.manual_seed(0)
    return mlp(norm, widths=widths, init="he")


def gradient(model, x, y):
    model = copy.deepcopy(model).train()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def stepped(model, step, only=""):
    """A copy after a step; `only`: numbers of the layers that take it."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not only or name.split(".")[0][-1] in only:
                p -= step[name]
    return model


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_probe_is_what_its_definitions_say(norm, batch):
    model, lr = network(norm), 0.2
    found = L.probe(model, *batch, lr, batch)
    loss, g = gradient(model, *batch)
    step = {name: lr * value for name, value in g.items()}

    def size(d):
        return math.sqrt(sum(v.square().sum().item() for v in d.values()))

    losses, changes = [loss], []
    for s in (0.5, 1, 2, 4):
        there, after = gradient(stepped(model, {name: s * v for name, v in step.items()}), *batch)
        losses.append(there)
        changes.append((size({name: after[name] - g[name] for name in g}), s))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert 10 ** found["loss_range"] == pytest.approx(max(losses) - min(losses), rel=1e-4)
    assert 10 ** found["gradient_change"] == pytest.approx(max(c for c, _ in changes), rel=1e-4)
    assert 10 ** found["beta"] == pytest.approx(max(c / (s * lr * size(g)) for c, s in changes), rel=1e-4)

    shifts, cosines = [], []
    for name, before in (("fc2", "1"), ("fc3", "12"), ("out", "123")):
        own = g[f"{name}.weight"]
        after = gradient(stepped(model, step, only=before), *batch)[1][f"{name}.weight"]
        shifts.append(log10((after - own).norm() / own.norm()))
        cosines.append(torch.cosine_similarity(after.flatten(), own.flatten(), dim=0).item())
    assert found["gradient_shift"] == pytest.approx(np.mean(shifts), abs=1e-4)
    assert found["cosine"] == pytest.approx(np.mean(cosines), abs=1e-4)
    turned = [(step[f"fc{i}.weight"].norm() / model.get_parameter(f"fc{i}.weight").norm()).item() for i in (1, 2, 3)]
    assert found["turn"] == pytest.approx(np.mean(np.log10(turned)), abs=1e-4)

    moved, pair = [], (model.train(), stepped(model, step).train())
    for i in (1, 2, 3):
        outputs = [L.activations(copy.deepcopy(m), batch[0])[0][i - 1].double().numpy() for m in pair]
        before, after = (np.sort(values, axis=0) for values in outputs)
        moved.append(log10(np.sqrt(((after - before) ** 2).mean() / before.var(axis=0).mean())))
    assert found["distribution_shift"] == pytest.approx(np.mean(moved), abs=1e-4)
    assert set(found) == set(L.MEASURES)


def test_looking_changes_nothing(batch):
    model = network("batch").eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    L.probe(model, *batch, 0.1, batch)
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_shift_of_distributions_does_not_see_who_is_who():
    x = torch.randn(300, 7) * torch.arange(1.0, 8)
    spread = x.var(dim=0, correction=0).mean().sqrt().item()
    assert L.distribution_shift(x, x[torch.randperm(300)]) == 0
    assert L.distribution_shift(x, x + 3) == pytest.approx(3 / spread, rel=1e-4)
    assert L.distribution_shift(10 * x, 10 * x + 30) == pytest.approx(3 / spread, rel=1e-4)  # in units of the spread
    centred = x - x.mean(dim=0)
    assert L.distribution_shift(centred, 1.5 * centred) == pytest.approx(0.5, rel=1e-4)


def test_a_dead_network_is_measured_without_an_error(batch):
    model = network("none")
    with torch.no_grad():
        model.fc2.bias.fill_(-1e3)
    found = L.probe(model, *batch, 0.1, batch)
    assert not math.isfinite(found["gradient_shift"]) and not math.isfinite(found["turn"])


def test_a_layer_that_stands_still_beside_one_that_bursts_has_no_mean():
    """A row of such a network has no value; a mean that raises would leave it without a row."""
    assert L.over_layers([-1.0, 0.0, 4.0]) == 1.0 and L.over_layers([-math.inf, 1.0]) == -math.inf
    assert math.isnan(L.over_layers([-math.inf, 1.0, math.inf]))


def test_a_run_is_probed_before_every_update_of_the_list(monkeypatch):
    monkeypatch.setattr(L, "STEPS", 5)
    monkeypatch.setattr(L, "PROBED", (1, 3, 5))
    setting = {"norm": "batch", "init": "he", "lr": 0.1}
    result = L.run(setting, 0)
    assert all(len(result[name]) == 3 for name in L.MEASURES)
    assert result[L.METRIC] == pytest.approx(-L.over_updates(result["beta"])) and not result["diverged"]
    monkeypatch.setattr(L, "STEPS", 3)
    monkeypatch.setattr(L, "PROBED", (1, 3))
    shorter = L.run(setting, 0)
    assert all(shorter[name] == result[name][:2] for name in L.MEASURES)
    assert abs(result["loss"][0] - math.log(10)) < 1  # before the first update
    x, y = T.subset(10_000, 0)
    torch.manual_seed(0)
    start = mlp("batch", widths=L.WIDTHS, init="he").train()
    assert result["loss"][0] == pytest.approx(
        torch.nn.functional.cross_entropy(start(x[: L.REFERENCE]), y[: L.REFERENCE]).item(), abs=1e-4
    )


def test_the_mean_over_updates_weighs_updates_and_not_probes():
    flat = [2.0] * len(L.PROBED)
    assert L.over_updates(flat) == pytest.approx(2)
    early = [1.0 if update <= 29 else 0.0 for update in L.PROBED]  # 15 of the 41 probes
    assert L.over_updates(early) == pytest.approx((29 + (0.75 + 0.5 + 0.25)) / 390)


def test_the_mean_at_the_levels_is_taken_where_each_is_first_reached():
    losses = [2.3, 1.2, 0.98, 1.5, 0.6]
    values = [0.0, 10.0, 20.0, 99.0, 30.0]
    assert L.LEVELS == (1.1, 1.0, 0.9, 0.8, 0.7)
    on_the_way = [10 + 10 * (1.2 - level) / 0.22 for level in (1.1, 1.0)]
    late = [99 + (30 - 99) * (1.5 - level) / 0.9 for level in (0.9, 0.8, 0.7)]
    assert L.at_the_levels(values, losses) == pytest.approx(np.mean(on_the_way + late))
    assert L.at_the_levels(values[:4], losses[:4]) is None  # 0.9 is never reached


# What the rows say


def noise_row(setting, seed, accuracy, turn=-2.0):
    end = 0.0 if accuracy is None else accuracy
    return {
        "setting": setting,
        "seed": seed,
        "diverged": accuracy is None,
        "val_accuracy": end,
        "test_accuracy": end,
        "train_loss": None if accuracy is None else 1 - end,
        "log10_turn": None if accuracy is None else turn,
    }


def noise_rows(height, highest, slope=None, peak=None):
    """Flat up to the highest rate of an arm, then diverged; a bump of a point at the peak."""
    made = []
    for s in N.grid():
        arm, lr = s["arm"], s["lr"]
        for seed in SEEDS:
            at_peak = lr == (peak or {}).get(arm, 0.1)
            value = height[arm] + 0.001 * seed + 0.01 * at_peak
            turn = -2 + (slope or {}).get(arm, 0.5) * log10(lr)
            made.append(noise_row(s, seed, value if lr <= highest[arm] else None, turn))
    return made


LEVEL = dict.fromkeys(N.ARMS, 0.8)
ONE = dict.fromkeys(N.ARMS, 1.0)


def verdict(module, comparisons):
    more = getattr(module, "NEEDS_MORE", False)
    return experiments.verdict(comparisons, module.DELTA, planned=10, needs_more=more, factor=module.FACTOR)


def test_the_noise_takes_one_part_of_the_gain_and_leaves_the_other():
    rows = noise_rows({**LEVEL, N.BN: 0.85, N.NOISY: 0.82}, ONE)
    takes, leaves = N.gains(rows, "he")
    assert takes.difference.mean == pytest.approx(0.03) and leaves.difference.mean == pytest.approx(0.02)
    assert verdict(N, N.comparisons(rows)).word == "supported"
    assert verdict(N, N.comparisons(noise_rows({**LEVEL, N.BN: 0.85, N.NOISY: 0.84}, ONE))).word == "contradicted"
    assert verdict(N, N.comparisons(noise_rows(LEVEL, ONE))).word == "negligible"  # there is no gain
    assert [c.name for c in N.comparisons(rows)] == list(N.INITS.values())


def test_at_equal_rate_all_arms_have_the_rate_of_the_standard_network():
    rows = noise_rows({**LEVEL, N.BN: 0.85, N.NOISY: 0.82}, ONE, peak={N.STANDARD: 0.03, N.BN: 0.3, N.NOISY: 0.3})
    own, equal = (N.gains(rows, "he", equal_rate=rate) for rate in (False, True))
    assert own.leaves.difference.mean == pytest.approx(0.02)
    assert equal.leaves.difference.mean == pytest.approx(0.01)  # without the bump of the noisy arm
    assert "lr 0.03" in equal.leaves.chosen[0]


def test_a_best_rate_at_the_edge_gives_no_verdict():
    rows = noise_rows({**LEVEL, N.BN: 0.85}, ONE, peak={N.NOISY: 0.01})
    assert "edge of its grid" in verdict(N, N.comparisons(rows)).sentence


def test_the_highest_usable_rate_of_free_and_of_held_lengths():
    rows = noise_rows(LEVEL, {**ONE, N.BN: 3.0, N.HELD: 0.3})
    assert R.usable(rows, "he", N.HELD)[2] == [0.01, 0.03, 0.1, 0.3]
    last_seen = [row | {"val_accuracy": 0.81} for row in rows]  # also of the diverged: no use that they once were good
    assert R.usable(last_seen, "he", N.HELD)[2] == [0.01, 0.03, 0.1, 0.3]
    (comparison, _) = R.comparisons(rows)
    assert comparison.difference.mean == pytest.approx(1)
    assert verdict(R, R.comparisons(rows)).word == "supported"
    assert verdict(R, R.comparisons(noise_rows(LEVEL, ONE))).word == "negligible"
    beyond = noise_rows(LEVEL, {**ONE, N.HELD: 10.0})
    assert "at the edge" in verdict(R, R.comparisons(beyond)).sentence
    low = noise_rows(LEVEL, ONE)
    for row in low:
        row["val_accuracy"] -= 0.021 * (row["setting"]["lr"] == 1.0)  # more than two points below the best
    assert R.usable(low, "he", N.BN)[0][-1] == 0.3


def test_the_slope_of_the_turn():
    rows = noise_rows(LEVEL, ONE, slope={N.BN: 0.25, N.HELD: 0.75})
    assert R.slopes(rows, "he", N.BN)[3] == pytest.approx(0.25)
    assert [c.difference.mean for c in E.slope_of_turn(rows)] == pytest.approx([0.5, 0.5])
    diverged = noise_rows(LEVEL, {**ONE, N.HELD: 0.3})
    assert set(R.slopes(diverged, "he", N.HELD).values()) == {None}


def test_fresh_seeds_confirm_what_the_pilot_chose_and_what_the_predictions_compare():
    height = {**LEVEL, N.BN: 0.85, N.NOISY: 0.82}
    choosing = [
        row | {"phase": "choose"}
        for row in noise_rows(height, {**ONE, N.HELD: 0.3}, peak={N.STANDARD: 0.03, N.BN: 0.3, N.NOISY: 0.3})
        if row["seed"] < 2
    ]
    settings = [s for module in (N, R) for c in module.comparisons(choosing) for s in c.settings]
    assert all(s in N.grid() for s in settings)
    made = noise_rows({**height, N.NOISY: 0.84}, ONE, peak={N.STANDARD: 1.0})
    confirming = [r | {"phase": "confirm", "seed": 100 + r["seed"]} for r in made if r["setting"] in settings]
    rows, seeds = choosing + confirming, tuple(range(100, 110))
    takes, leaves = N.gains(rows, "he")
    assert takes.seeds == leaves.seeds == seeds and "lr 0.03" in leaves.chosen[1]
    assert takes.difference.mean == pytest.approx(0.01) and leaves.difference.mean == pytest.approx(0.04)
    assert N.gains(rows, "he", equal_rate=True).leaves.seeds == N.gains(rows, "he", N.HELD).takes.seeds == seeds
    assert R.usable(rows, "he", N.HELD)[105] == [0.03, 0.1, 0.3, 1.0] and set(R.usable(rows, "he", N.BN)) == set(seeds)
    for made in (R.comparisons(rows), E.higher_rate(rows), E.best_rate(rows), E.gain_by_the_rate(rows)):
        assert [c.seeds for c in made] == [seeds] * 2
    low = [row | {"val_accuracy": 0.78} if row["phase"] == "confirm" else row for row in rows]
    assert R.comparisons(low)[0].a[100] == pytest.approx(log10(0.01) - 0.5)  # none is usable: the mark is the pilot's
    for module in (N, R):
        picture = module.figure(rows)
        matplotlib.pyplot.close(picture)


def test_a_prediction_waits_for_the_planned_seeds():
    rows = noise_rows({**LEVEL, N.BN: 0.85, N.NOISY: 0.81}, ONE)
    (prediction,) = (p for p in E.PREDICTIONS if p.sentence.startswith("noise takes more"))
    for planned, outcome in ((len(SEEDS), "kept"), (len(SEEDS) + 1, "open")):
        said = [row | {"phase": "confirm", "planned": planned} for row in rows]
        pilot = [row | {"phase": "choose"} for row in rows if row["seed"] < 2]
        assert set(prediction.outcomes({"noise": pilot + said}).values()) == {outcome}


def landscape_rows(**with_bn):
    """All measures −1 without BN; with BN other constants; the loss falls alike."""
    made = []
    for s in L.grid():
        for seed in SEEDS:
            values = {name: -1.0 for name in L.MEASURES} | (with_bn if s["norm"] == "batch" else {})
            peak = 0.3 if s["norm"] == "batch" else 0.03
            series = {name: [value + 0.001 * seed] * len(L.PROBED) for name, value in values.items()}
            series["loss"] = list(np.linspace(2.3, 0.3, len(L.PROBED)))
            value = 0.85 - 0.01 * abs(log10(s["lr"] / peak))
            made.append({"setting": s, "seed": seed, "diverged": False, "val_accuracy": value, **series})
    return made


def test_smaller_is_smoother_and_both_networks_have_the_rate_of_the_one_without():
    rows = landscape_rows(beta=-1.5)
    found = L.comparisons(rows)
    assert [c.name for c in found] == [
        f"{init}, {held}" for init in N.INITS.values() for held in ("same updates", "same loss")
    ]
    for comparison in found:
        assert comparison.difference.mean == pytest.approx(0.5)
    assert verdict(L, found).word == "supported"
    assert verdict(L, L.comparisons(landscape_rows(beta=-0.5))).word == "contradicted"
    for own, rates in ((False, {0.03}), (True, {0.3, 0.03})):
        assert {row["setting"]["lr"] for runs, _ in L.choices(rows, "he", own) for row in runs} == rates


def test_fresh_seeds_run_the_landscape_at_the_rate_of_one_network_and_at_those_of_both():
    rows = landscape_rows(beta=-1.5)
    shared = [{"norm": norm, "init": init, "lr": 0.03} for init in N.INITS for norm in ("batch", "none")]
    own = [{"norm": norm, "init": init, "lr": lr} for init in N.INITS for norm, lr in (("batch", 0.3), ("none", 0.03))]
    assert [s for c in L.comparisons(rows)[::2] for s in c.settings] == shared
    assert L.beside(rows) == own
    fresh = [row | {"phase": "confirm", "seed": row["seed"] + 100} for row in landscape_rows(beta=-3.0)]
    rows += [row for row in fresh if row["setting"] in shared + own]
    for own_rate in (False, True):
        assert all(c.difference.mean == pytest.approx(2) for c in L.comparisons(rows, own_rate=own_rate))


def test_at_an_equal_product_the_curvatures_are_told_apart_that_an_equal_rate_holds_together():
    """Up to two in both, ηℓ is 10 η with BN and 31.6 η without, and is passed at rates half a decade apart."""
    rows = landscape_rows()
    for row in rows:
        slope = 1.0 if row["setting"]["norm"] == "batch" else 1.5
        early = [9.0 for step in L.PROBED if step <= L.STEPS / 2]
        late = min(log10(2) - log10(row["setting"]["lr"]), slope + 0.001 * row["seed"])
        row |= {"beta": early + [late] * (len(L.PROBED) - len(early)), "diverged": row["setting"]["lr"] == 1.0}
    for found in L.at_equal_product(rows, 0.9):
        assert list(found.seeds) == list(SEEDS) and found.metric == L.METRIC
        for seed in SEEDS:
            assert found.b[seed] == pytest.approx(log10(0.9) - 1.5 - 0.001 * seed)
            assert found.a[seed] - found.b[seed] == pytest.approx(0.5)
    assert [found.difference for found in L.at_equal_product(rows, 5.0)] == [None, None]


def test_a_level_that_is_not_reached_gives_no_verdict():
    rows = landscape_rows(beta=-1.5)
    for row in rows:
        if row["setting"] == {"norm": "none", "init": "he", "lr": 0.03} and row["seed"] == 1:
            row["loss"] = [2.3] * len(L.PROBED)
    assert verdict(L, L.comparisons(rows)).word == "open"


def test_the_two_definitions_of_covariate_shift_are_judged_apart():
    found = C.comparisons(landscape_rows(distribution_shift=-2.0, gradient_shift=0.0))
    means = {c.name: c.difference.mean for c in found}
    assert len(means) == 8
    for name, mean in means.items():
        assert mean == pytest.approx(1 if "distributions" in name else -1), name
    assert verdict(C, found).word.startswith("depends on")


def test_predictions_are_kept_or_broken_one_by_one():
    def outcomes(rows):
        return {(line["explanation"], line["prediction"]): set(line["outcomes"].values()) for line in E.table(rows)}

    height = {N.STANDARD: 0.8, N.NOISY_STANDARD: 0.8, N.BN: 0.85, N.NOISY: 0.81, N.HELD: 0.81}
    rates = {N.STANDARD: 0.3, N.NOISY_STANDARD: 0.3, N.BN: 3.0, N.NOISY: 3.0, N.HELD: 1.0}
    good = {
        "noise": noise_rows(height, rates, slope={N.BN: 0.2, N.HELD: 0.7}, peak={N.STANDARD: 0.03, N.BN: 0.3}),
        "landscape": landscape_rows(
            beta=-2.0, loss_range=-2.0, gradient_change=-2.0, gradient_shift=-2.0, distribution_shift=-2.0
        ),
    }
    bad = {
        "noise": noise_rows({**height, N.NOISY: 0.85, N.HELD: 0.85}, dict.fromkeys(N.ARMS, 1.0)),
        "landscape": landscape_rows(beta=0.0, loss_range=0.0, gradient_shift=0.0, distribution_shift=0.0),
    }
    kept, broken = outcomes(good), outcomes(bad)
    by_the_rate = (E.RATE, "the gain comes with the change of rate")
    assert len(kept) == len(E.PREDICTIONS) == 12
    assert {name for name, words in kept.items() if words != {"kept"}} == {by_the_rate}
    assert kept[by_the_rate] == {"broken"}  # the gain is there at the standard network's rate
    assert {name for name, words in broken.items() if words != {"broken"}} == {by_the_rate}
    assert broken[by_the_rate] == set()  # one rate for both: no test
    flat = outcomes({"noise": noise_rows(LEVEL, rates), "landscape": landscape_rows()})
    assert flat[E.SHIFT, "noise takes more of the gain than it leaves"] == {"open"}


def test_a_gain_that_comes_with_the_rate_is_told_from_one_that_is_there_before():
    rows = noise_rows({**LEVEL, N.BN: 0.85}, ONE, peak={N.STANDARD: 0.03, N.BN: 0.3})
    for row in rows:
        if row["setting"]["arm"] == N.BN and row["setting"]["lr"] == 0.03:
            row["test_accuracy"] = 0.805 + 0.001 * row["seed"]
    (comparison, _) = E.gain_by_the_rate(rows)
    assert comparison.difference.mean == pytest.approx((0.86 - 0.805) - (0.805 - 0.81))
    assert E.best_rate(rows)[0].difference.mean == pytest.approx(1, abs=0.05)


def test_figures_are_drawn_from_the_rows():
    rows = noise_rows({**LEVEL, N.BN: 0.85}, {**ONE, N.BN: 3.0}, slope={N.BN: 0.2})
    for module in (N, R):
        picture = module.figure(rows)
        assert [ax.get_title() for ax in picture.axes] == list(N.INITS.values())
        assert len(picture.legends[0].get_texts()) == (5 if module is N else 2)
    for module, count in ((L, 6), (C, 4)):
        picture = module.figure(landscape_rows(beta=-1.5))
        assert len(picture.axes) == count and picture.axes[0].get_title().startswith("default weights, rate 0.03")
        assert all(len(ax.lines) == 2 for ax in picture.axes)
        matplotlib.pyplot.close("all")


def test_the_grid_of_probed_networks_has_every_arm_at_every_rate():
    grid = L.grid()
    arms = {tuple(v for k, v in s.items() if k != "lr") for s in grid}
    assert len(grid) == len(arms) * len(L.RATES) and len(arms) == 4
    assert all(s in grid for s in L.grid(quick=True)) and set(R.TURNS) <= set(N.RATES)
