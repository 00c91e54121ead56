"""Whole networks are folded: the outputs stay the same, and the model as it was."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from bnbook.interop import fold
from bnbook.probes.untouched import tensors
from tests.interop.architectures import ARCHITECTURES
from tests.interop.test_folding import lively, state, unchanged


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_folded_whole(name):
    torch.manual_seed(0)
    model = lively(ARCHITECTURES[name]())
    x = torch.randn(3, 1, 14, 14, dtype=torch.float64)
    before = state(model)
    whole = list(tensors(model(x)))
    folded, report = fold(model, x)
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert sorted(report.folded) == sorted(norms) and not report.kept and report.difference < 1e-11
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    assert unchanged(model, before)
    other = torch.randn_like(x)
    for given, expected in ((x, whole), (other, list(tensors(model(other))))):
        for ours, theirs in zip(tensors(folded(given)), expected, strict=True):
            assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_error_leaves_the_network_as_it_was(name, monkeypatch):
    """The last comparison fails; nothing of the network given has changed, its hooks and modes included."""
    model = lively(ARCHITECTURES[name]())
    before, modes = state(model), [m.training for m in model.modules()]
    monkeypatch.setattr("bnbook.interop.torch_folding._replace", lambda *args: None)  # the layer acts twice
    with pytest.raises(ValueError, match="more than rounding"):
        fold(model, torch.randn(3, 1, 14, 14, dtype=torch.float64))
    assert unchanged(model, before) and modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_model_may_still_learn():
    model = ARCHITECTURES["ResNet"]().eval()
    copied = copy.deepcopy(model)
    fold(model, torch.randn(2, 1, 14, 14))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert [type(m) for m in model.modules()] == [type(m) for m in copied.modules()]
