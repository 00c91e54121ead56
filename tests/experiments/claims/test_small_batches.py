"""The experiment of chapter 19: its networks, its rates, what is compared, and the scores in training mode."""

from __future__ import annotations

import matplotlib
import pytest
import torch

from bnbook import experiments
from bnbook.experiments.claims import batch_renorm
from bnbook.experiments.claims import small_batches as S
from bnbook.models.torch_statistics import BatchRenorm

matplotlib.use("Agg")

HEIGHT = {"batch": 0.80, "renorm": 0.81, "group": 0.78, "none": 0.77}
PLANNED = 10


def made_up(seeds, phase: str, lost: float = 0.3) -> list[dict]:
    """Every arm is best at the middle rate; batch normalization loses `lost`/size², all are a little apart by seed."""
    rows = []
    for setting in S.grid():
        size, norm = setting["batch_size"], setting["norm"]
        rates = S.RATES[size]
        off = abs(rates.index(setting["lr"]) - len(rates) // 2)
        for seed in seeds:
            accuracy = HEIGHT[norm] - 0.05 * off + 0.0001 * (seed % 7) * (norm != "batch")
            accuracy -= lost * 4 / size**2 * (norm == "batch")
            rows.append(
                {
                    "experiment": "small_batches",
                    "setting": setting,
                    "seed": seed,
                    "phase": phase,
                    "planned": PLANNED,
                    "diverged": False,
                    "val_accuracy": accuracy,
                    "test_accuracy": accuracy,
                    "train_mode_accuracy": accuracy - 0.1,
                }
            )
    return rows


def confirmed(lost: float = 0.3) -> list[dict]:
    """The pilot, and fresh seeds of the rates that it chooses."""
    first = 100 * S.CONFIRMATION
    fresh = made_up(range(first, first + PLANNED), "confirm", lost)
    middle = {size: rates[len(rates) // 2] for size, rates in S.RATES.items()}
    return made_up(range(S.SEEDS), "choose", lost) + [
        row for row in fresh if row["setting"]["lr"] == middle[row["setting"]["batch_size"]]
    ]


def test_every_normalization_has_the_same_rates_at_a_size():
    grid = S.grid()
    assert len(grid) == len(S.NORMS) * sum(map(len, S.RATES.values()))
    assert all(list(rates) == sorted(set(rates)) and len(rates) > 2 for rates in S.RATES.values())
    assert all(setting in grid for setting in S.grid(quick=True))
    assert all(S.IMAGES % size == 0 for size in S.RATES)  # every size sees all images
    assert {S.EPOCHS * S.IMAGES / s["batch_size"] for s in grid} == {S.steps_of(s) for s in grid}
    assert max(map(S.steps_of, grid)) == S.STEPS


def test_what_replaces_bn_is_compared_with_it_at_every_size():
    rows = made_up(range(S.SEEDS), "choose")
    found = [*S.comparisons(rows), *batch_renorm.comparisons(rows)]
    places = [(size, norm) for size in S.RATES for norm in ("group", "none")]
    assert [c.levels for c in found] == [*places, *((size, "renorm") for size in S.RATES)]
    for comparison in found:
        size, norm = comparison.levels
        expected = HEIGHT[norm] - HEIGHT["batch"] + 0.3 * 4 / size**2 + 0.0001 * (S.SEEDS - 1) / 2
        assert comparison.difference.mean == pytest.approx(expected) and not comparison.edges
        assert [setting["norm"] for setting in comparison.settings] == [norm, "batch"]
        assert {setting["batch_size"] for setting in comparison.settings} == {size}


def test_the_sources_speak_of_small_batches():
    rows = made_up(range(S.SEEDS), "choose")
    assert [c.levels for c in S.comparisons(rows) if S.in_scope(c)] == [(size, "group") for size in (2, 4, 8)]
    assert [c.levels[0] for c in batch_renorm.comparisons(rows) if batch_renorm.in_scope(c)] == [2, 4, 8]


def test_the_verdict_is_from_fresh_seeds():
    assert experiments.judge(made_up(range(S.SEEDS), "choose"), "small_batches").word == "open"
    verdict = experiments.judge(confirmed(lost=2.0), "small_batches")
    assert verdict.word == "depends on the batch size" and verdict.quoted.word == "supported"
    assert experiments.judge(confirmed(lost=0.0), "small_batches").word == "contradicted"
    assert experiments.judge(confirmed(), "batch_renorm").word == "supported"


@pytest.mark.parametrize("norm", S.NORMS)
def test_a_network_has_its_normalization_and_the_same_weights(norm):
    torch.manual_seed(3)
    model = S.network(norm, 4)
    torch.manual_seed(3)
    plain = S.network("none", 4)
    assert torch.equal(model.fc1.weight, plain.fc1.weight) and torch.equal(model.conv.weight, plain.conv.weight)
    kinds = {
        "batch": (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d),
        "renorm": (BatchRenorm, BatchRenorm),
        "group": (torch.nn.GroupNorm, torch.nn.GroupNorm),
        "none": (),
    }
    layers = [layer for name, layer in model.named_children() if name.startswith("bn")]
    assert tuple(map(type, layers)) == kinds[norm]
    if norm in ("batch", "renorm"):
        assert {layer.momentum for layer in layers} == {4 / 320}
    if norm == "renorm":
        assert {(layer.warmup, layer.ramp) for layer in layers} == {(76, 153)}  # of 768 updates
    assert not [layer for layer in S.network("batch", 128).modules() if getattr(layer, "momentum", 0.1) != 0.1]


def test_the_score_in_training_mode_is_that_of_batches_and_leaves_the_model():
    torch.manual_seed(0)
    x, y = torch.randn(200, 3), torch.randint(2, (200,))
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = S.accuracy_in_training_mode(model, x, y, 4)
    z = model[0](x).view(50, 4, 2)
    centred = (z - z.mean(1, keepdim=True)) / z.std(1, correction=0, keepdim=True)
    assert found == pytest.approx((centred.view(200, 2).argmax(1) == y).double().mean().item())
    assert found != pytest.approx((model(x).argmax(1) == y).double().mean().item())
    assert not model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_trains_on_all_images_at_its_rate(monkeypatch):
    seen = {}

    def watched(model, images, val, test, **more):
        seen.update(images=images, more=more)
        return {"test_accuracy": 0.5}

    monkeypatch.setattr(S, "train_and_score", watched)
    monkeypatch.setattr(S, "subset", lambda count, seed, half: (count, seed, half))
    row = S.run({"batch_size": 128, "norm": "batch", "lr": 0.3}, 7)
    assert row["test_accuracy"] == 0.5 and 0 <= row["train_mode_accuracy"] <= 1
    assert seen["images"] == (S.IMAGES, 7, True)
    more = seen["more"]
    assert (more["steps"], more["batch_size"], more["lr"]) == (24, 128, 0.3)
    assert (more["momentum"], more["schedule"], more["seed"]) == (0.9, "cosine", 7)


def test_the_figures_draw_means_and_seeds():
    rows = confirmed()
    (ax,) = S.figure(rows).axes
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in S.NORMS.values()}
    assert set(lines) == set(S.NORMS.values())
    assert list(lines["no normalization"].get_xdata()) == list(S.RATES)
    assert lines["no normalization"].get_ydata() == pytest.approx([HEIGHT["none"] + 0.0003] * 5, abs=2e-4)
    for panel in batch_renorm.figure(rows).axes:
        evaluation, training = (line for line in panel.lines if line.get_label().endswith("mode"))
        assert evaluation.get_ydata() - training.get_ydata() == pytest.approx([0.1] * 5)
