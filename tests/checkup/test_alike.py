"""One batch that stands apart among many: what is seen, and what chance does."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from bnbook.checkup import checkup
from tests.checkup import models


def unlike(model: nn.Module, batches) -> list[str]:
    return [f.message for f in checkup(model, batches).findings if f.code == "BN401"]


def normal(number: int, channels: int, seed: int) -> torch.Tensor:
    return torch.randn(number, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("place", [0, 7, 31])
def test_the_batch_that_stands_apart_is_named(place):
    batches = list(normal(512, 16, seed=0).split(16))
    model = nn.Sequential(nn.BatchNorm1d(16))
    assert not unlike(model, batches)
    batches[place] = batches[place] + 0.8 * torch.ones(16).mul(torch.arange(16) % 2)
    (message,) = unlike(model, batches)
    assert message.startswith(f"batch {place} of 32, counted from 0, stands apart")


def test_a_difference_that_is_certain_and_trifling_is_none():
    batches = list(normal(8 * 4000, 16, seed=0).split(4000))
    batches[2] = batches[2] + 0.25
    assert not unlike(nn.Sequential(nn.BatchNorm1d(16)), batches)
    batches[2] = batches[2] + 0.1
    assert unlike(nn.Sequential(nn.BatchNorm1d(16)), batches)


def test_where_several_are_apart_none_is_named():
    batches = list(normal(512, 16, seed=0).split(16))
    for place in (3, 8, 20, 21):
        batches[place] = batches[place] + 1
    (message,) = unlike(nn.Sequential(nn.BatchNorm1d(16)), batches)
    assert message.startswith("the means of the batches vary")


def normal_t(seed: int) -> torch.Tensor:
    """Of a distribution with a tail so heavy that it has no variance."""
    return normal(512, 16, seed) / normal(512, 2, seed + 100).norm(dim=1, keepdim=True)


HEAVY = {
    "lognormal": lambda seed: (1.5 * normal(512, 16, seed)).exp(),
    "rarely not 0": lambda seed: (normal(512, 16, seed) > 2.3).float(),
    "no variance": normal_t,
}


@pytest.mark.parametrize("kind", HEAVY)
def test_heavy_tails_are_no_batch_that_stands_apart(kind):
    for seed in range(12):
        batches = HEAVY[kind](seed).split(16)
        model = nn.Sequential(nn.BatchNorm1d(16))
        assert not any("stands apart" in message for message in unlike(model, batches)), seed


@pytest.mark.long(seconds=20)
def test_batches_in_mixed_order_are_alike():
    torch.manual_seed(0)
    x = models.images("val", 2000)[0]
    for model in (
        models.trained(models.residual()),
        models.trained(models.mlp()),
        models.trained(models.Transformer()),
    ):
        for seed in range(8):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            assert not unlike(model, x[order[:512]].split(16)), seed
            assert not unlike(model, x[order[:403]].split(50)), seed  # and a last one of three


def test_rows_of_one_example_do_not_make_a_batch_stand_apart():
    """Each example has thirty rows, which are alike: the batch of the layer is all of them."""

    class Rows(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x.flatten(0, 1)).reshape(x.shape).mean(1)

    for seed in range(5):
        x = normal(64, 8, seed)[:, None] + 0.3 * normal(64 * 30, 8, seed + 100).reshape(64, 30, 8)
        assert not unlike(nn.Sequential(Rows(8)), x.split(4)), seed
