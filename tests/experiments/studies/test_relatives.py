"""The study of the relatives: what its networks are, that all begin alike, and what is recorded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnbook import experiments
from bnbook.experiments.claims import small_batches
from bnbook.experiments.studies import relatives


def made(norm, size=2):
    torch.manual_seed(3)
    return relatives.network(norm, size)


@pytest.mark.parametrize("norm", relatives.NORMS)
def test_all_draw_the_same_weights(norm):
    model, other = made(norm), made("batch")
    for name in ("conv", "fc1", "fc2"):
        weight, expected = getattr(model, name).weight, getattr(other, name).weight
        if norm == "standardized" and name != "fc2":
            expected = expected - expected.flatten(1).mean(1).reshape(-1, *(1,) * (expected.ndim - 1))
            expected = expected / expected.flatten(1).std(1, correction=0).reshape(-1, *(1,) * (expected.ndim - 1))
        torch.testing.assert_close(weight, expected)
        torch.testing.assert_close(getattr(model, name).bias, getattr(other, name).bias)


def test_what_is_averaged_over():
    """The statistics of what comes out, with γ = 1 and β = 0."""
    x = torch.randn(4, 32, 5, 6, dtype=torch.float64) * 3 + 2
    size = {norm: made(norm).double() for norm in relatives.NORMS}
    for norm, axes in {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}.items():
        y = size[norm].bn1(x)
        torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)))
        assert torch.allclose(y.var(axes, correction=0), torch.ones(1, dtype=y.dtype), atol=1e-4)
    y = size["rms"].bn1(x)
    torch.testing.assert_close(y.square().mean((1, 2, 3)), torch.ones(4, dtype=y.dtype))
    assert y.mean() > 0.3 and size["rms"].bn1.weight.shape == (32, 1, 1)
    for norm in ("group", "standardized"):
        assert isinstance(size[norm].bn1, nn.GroupNorm) and size[norm].bn2.num_groups == 8
    assert not any(isinstance(layer, nn.GroupNorm | nn.BatchNorm2d) for layer in size["weight"])
    assert isinstance(size["instance"].bn2, nn.Identity) and size["instance"].bn1.weight is not None
    assert isinstance(size["rms"].bn2, nn.RMSNorm)


def test_weights_are_what_their_names_say():
    model = made("standardized")
    for layer in (model.conv, model.fc1):
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(5).add_(3)
        rows = layer.weight.flatten(1)
        assert torch.allclose(rows.mean(1), torch.zeros(1), atol=1e-5)
        assert torch.allclose(rows.var(1, correction=0), torch.ones(1), atol=1e-3)
    model = made("weight")
    before = model.fc1.weight.detach().clone()
    with torch.no_grad():
        model.fc1.parametrizations.weight.original1.mul_(5)  # its length, which does not matter
    torch.testing.assert_close(model.fc1.weight, before)


def test_only_batch_normalization_looks_at_the_batch():
    images = torch.randn(6, 1, 14, 14)
    for norm in relatives.NORMS:
        model = made(norm)
        alone = torch.allclose(model(images)[:3], model(images[:3]), atol=1e-5)
        assert alone == (norm != "batch"), norm


def test_a_run(tmp_path):
    only = {"norm": "rms"}
    assert experiments.run("relatives", results=tmp_path, quick=True, seeds=(0,), only=only, progress=False) == []
    (row,) = experiments.load("relatives", tmp_path, quick=True)
    assert row["setting"] == {"batch_size": 64, "norm": "rms", "lr": 0.1} and "correct" not in row
    assert 0.3 < row["val_accuracy"] < 1 and 0.3 < row["test_accuracy"] < 1 and not row["diverged"]


def test_the_settings():
    grid = experiments.find("relatives").settings()
    assert {(s["batch_size"], s["norm"]) for s in grid} == {(n, norm) for n in (2, 64) for norm in relatives.NORMS}
    assert {"batch", "group", "none"} < set(small_batches.NORMS)  # the same arms there


def test_the_recorded_rows_choose_inside_the_grid():
    rows = experiments.load("relatives")
    for size in relatives.RATES:
        for norm in relatives.NORMS:
            choice = relatives.at_best_rate(rows, size, norm)
            assert len(choice.rows) == relatives.SEEDS and not choice.edge, (size, norm)
