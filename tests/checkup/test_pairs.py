"""Which pairs are called foldable, and why another is not."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from bnbook.checkup import checkup
from tests.checkup.models import FrozenBatchNorm


class NormAct(nn.BatchNorm2d):
    """A layer with its activation inside, as libraries of image models have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x))


class Plain(nn.BatchNorm2d):
    """Another class, and nothing more."""


class Autocast(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


def image(number: int, seed: int) -> torch.Tensor:
    return torch.randn(number, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def network(conv=lambda conv: conv, norm=nn.BatchNorm2d, kind=nn.Sequential, after=None) -> nn.Module:
    torch.manual_seed(0)
    layers = [conv(nn.Conv2d(3, 8, 3, bias=False)), norm(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = kind(*layers, nn.Linear(8, 4))
    nn.init.uniform_(model[1].weight, 0.5, 2)
    nn.init.normal_(model[1].bias)
    for _ in range(60):
        model(image(64, 0))
    if after:
        model[1] = after(model[1])
    return model


def said(model: nn.Module, batches=None) -> tuple[str, str]:
    """The code of what is said of the one pair, and what."""
    report = checkup(model, batches or image(128, 1).split(64))
    (finding,) = (f for f in report.findings if f.code in ("BN501", "BN502", "BN503"))
    return finding.code, finding.message


def test_pairs_that_fold():
    assert said(network())[0] == said(network(norm=Plain))[0] == "BN501"
    assert said(network(after=FrozenBatchNorm))[0] == "BN501"  # which has no eps that could be read


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        torch.nn.utils.weight_norm,
        lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
    ],
    ids=["weight", "spectral", "weight, by hooks", "pruning"],
)
def test_weights_that_are_computed_from_others(change):
    code, message = said(network(conv=change))
    assert code == "BN502" and "computed from others" in message


def test_a_layer_with_its_activation_inside():
    code, message = said(network(norm=NormAct))
    assert code == "BN502" and "NormAct, does" in message and "does more than normalize" in message


def test_half_precision_is_not_called_a_use_elsewhere():
    code, message = said(network(kind=Autocast))
    assert code == "BN502" and "in bfloat16 rounding" in message
    code, message = said(network().to(torch.bfloat16), [image(64, 1).bfloat16()])
    assert code == "BN502" and "in bfloat16 rounding" in message
