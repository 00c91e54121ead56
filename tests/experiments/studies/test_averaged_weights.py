"""Averaged weights and their statistics: what a run measures."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bnbook import experiments
from bnbook.experiments.studies import averaged_weights as study


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("decay", [0.9, None])
def test_copied_statistics_are_what_pytorch_does_by_default(decay):
    torch.manual_seed(0)
    live = small()
    rule = get_ema_multi_avg_fn(decay) if decay else None
    ours, default = study.averaged(live, decay), AveragedModel(live, multi_avg_fn=rule)
    for _ in range(5):
        live(torch.randn(20, 3) + 1)
        with torch.no_grad():
            live[0].weight += torch.randn(4, 3)
        ours.update_parameters(live)
        default.update_parameters(live)
    copied = study.with_statistics_of(live, ours.module)
    for key, value in default.module.state_dict().items():
        assert torch.equal(copied.state_dict()[key], value), key
    assert not torch.equal(ours.module[1].running_mean, live[1].running_mean)
    x = torch.randn(200, 3)
    means = [part.mean(0) for part in live[0](x).split(100)]
    assert torch.allclose(study.recomputed(live, x)[1].running_mean, sum(means) / 2, atol=1e-5)


def test_rows_are_complete_and_of_one_commit():
    rows = experiments.load("averaged_weights")
    assert {(row["setting"]["decay"], row["seed"]) for row in rows} == {
        (decay, seed) for decay in study.DECAYS for seed in range(study.SEEDS)
    }
    (commit,) = {row["provenance"]["commit"] for row in rows}
    assert not commit.endswith("+")
    for row in rows:
        assert all(len(row[name]) == len(study.EPOCHS) for name in ("live", *study.WAYS))


@pytest.mark.long
def test_the_small_grid_is_run_by_the_engine(tmp_path, monkeypatch):
    for name, value in {"IMAGES": 200, "EPOCH": 4, "EPOCHS": (1, 2)}.items():
        monkeypatch.setattr(study, name, value)
    assert experiments.run("averaged_weights", results=tmp_path, quick=True, seeds=(0,), progress=False) == []
    (row,) = experiments.load("averaged_weights", tmp_path, quick=True)
    assert all(len(row[name]) == 2 for name in ("live", *study.WAYS))
    assert row["test_accuracy"] == row["recomputed"][1] != row["copied"][1]
