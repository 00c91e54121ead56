"""The fully connected residual networks, and the rules of Fixup, without training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnbook.models.torch_mlp import SCHEMES, Block, residual_mlp, scalars


def seeded(norm: str, **more) -> nn.Sequential:
    torch.manual_seed(0)
    return residual_mlp(norm, width=16, **more)


def weights(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def images() -> torch.Tensor:
    return torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("init", ["default", "he"])
@pytest.mark.parametrize("norm", ["batch", *SCHEMES])
def test_arms_of_one_seed_start_from_the_same_weights_but_for_fixups_rules(norm, init):
    plain, other = (weights(seeded(n, depth=18, init=init)) for n in ("none", norm))
    assert len(plain) == len(other) == 20
    for i, (a, b) in enumerate(zip(plain, other, strict=True)):
        scale = 1.0
        if norm == "fixup":  # stem, then two in each of the nine blocks, then the classifier
            scale = 1.0 if i == 0 else 0.0 if i % 2 == 0 or i == 19 else 1 / 3
        torch.testing.assert_close(b.weight, scale * a.weight, rtol=1e-6, atol=0)
        if norm != "fixup":
            assert torch.equal(a.bias, b.bias)


@pytest.mark.parametrize("norm", SCHEMES)
def test_blocks_that_begin_as_the_identity_learn_from_the_first_gradient(norm):
    model = seeded(norm, depth=6)
    blocks = [layer for layer in model if isinstance(layer, Block)]
    h = torch.randn(5, 16)
    assert len(blocks) == 3 and all(torch.equal(block(h), h) for block in blocks)
    for block in blocks:
        loss = (block(h) * torch.arange(16.0)).sum()
        loss.backward()
        learns = block.alpha if norm == "skipinit" else block.branch.fc2.weight
        assert learns.grad.abs().max() > 0


def test_fixup_adds_a_number_before_every_layer_of_weights_and_every_activation():
    model = seeded("fixup", depth=4)
    names = [name.rpartition(".")[2] for name, layer in model.named_modules() if not list(layer.children())]
    block = "shift1 act1 shift2 fc1 shift3 act2 shift4 fc2".split()
    assert names == ["flatten", "shift1", "stem", *block * 2, "shift2", "act", "shift3", "out"]
    assert [layer.bias is None for layer in weights(model)] == [True] * 5 + [False]
    assert not model(images()).any() and seeded("skipinit", depth=4)(images()).any()
    assert sorted(p.item() for p in scalars(model)) == [0.0] * (3 + 2 * 4) + [1.0] * 2


def test_scalars_are_the_factors_and_shifts_and_nothing_else():
    assert [p.item() for p in scalars(seeded("skipinit", depth=4))] == [0.0, 0.0]
    assert scalars(seeded("batch", depth=4)) == scalars(seeded("none", depth=4)) == []


def test_an_unknown_norm_and_an_odd_depth_are_named():
    with pytest.raises(ValueError, match=r"norm must be one of .*'fixup'.*got 'fix'"):
        residual_mlp("fix")
    with pytest.raises(ValueError, match="depth must be even and at least 2, two layers a block, got 3"):
        residual_mlp(depth=3)
