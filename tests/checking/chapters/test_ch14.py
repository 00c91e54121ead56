"""The checkers of chapter 14 accept the solutions and refuse wrong answers."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook.checking.chapters import ch14
from bnbook.checking.chapters.ch14 import BLOCKS, branch, profile


def skipinit(h, W1, W2, alpha, grad_y):
    a1 = np.maximum(h, 0)
    z = a1 @ W1.T
    a2 = np.maximum(z, 0)
    f = a2 @ W2.T
    grad_a1 = (grad_y @ W2 * (z > 0)) @ W1
    return h + alpha * f, grad_y + alpha * grad_a1 * (h > 0), np.sum(grad_y * f)


def changed(**parts):
    """The solution with some of its three values replaced by functions of the arguments and of themselves."""

    def answer(h, W1, W2, alpha, grad_y):
        y, grad_h, grad_alpha = skipinit(h, W1, W2, alpha, grad_y)
        found = {"y": y, "grad_h": grad_h, "grad_alpha": grad_alpha}
        context = {"h": h, "W1": W1, "W2": W2, "alpha": alpha, "grad_y": grad_y, **found}
        return tuple(parts[name](context) if name in parts else value for name, value in found.items())

    return answer


def by_distance(skip, added):
    """What each block would do next, compared over all blocks."""
    blocks = len(skip)
    grown = np.log(skip[1:])
    follows = {
        "BN in the branch": skip[:-1] + 1,
        "BN after the addition": np.ones(blocks - 1),
        "no normalization": 2 * skip[:-1],
        "scaled branch": skip[:-1] * (1 + 1 / blocks),
    }
    adds = {
        "BN in the branch": np.ones(blocks),
        "BN after the addition": skip,
        "no normalization": skip,
        "scaled branch": skip / blocks,
    }
    error = {
        name: np.mean((grown - np.log(follows[name])) ** 2) + np.mean(np.log(added / adds[name]) ** 2) for name in adds
    }
    return min(error, key=error.get)


def by_rules(skip, added):
    blocks = len(skip)
    if np.mean(added[-5:] / skip[-5:]) > 0.5:
        return "no normalization" if skip[-1] > 100 * skip[1] else "BN after the addition"
    one = np.abs(np.log(added)).mean()
    share = np.abs(np.log(added * blocks / skip)).mean()
    return "BN in the branch" if one < share else "scaled branch"


RIGHT = {
    "ch14.factor": lambda blocks, growth: np.sqrt(np.expm1(np.log(growth) / blocks)),
    "ch14.skipinit": skipinit,
    "ch14.overturn": lambda: {"alpha": 0.0},
    "ch14.block": [by_distance, by_rules],
}
WRONG = {
    "ch14.factor": {
        "one over the root": lambda blocks, growth: 1 / np.sqrt(blocks),
        "many blocks only": lambda blocks, growth: np.sqrt(np.log(growth) / blocks),
        "not the root": lambda blocks, growth: growth ** (1 / blocks) - 1,
        "factor on the sum": lambda blocks, growth: np.sqrt(growth ** (1 / blocks)),
        "amplitudes added": lambda blocks, growth: growth ** (1 / (2 * blocks)) - 1,
        "a text": lambda blocks, growth: "small",
    },
    "ch14.skipinit": {
        "no skip in the output": changed(y=lambda c: c["y"] - c["h"]),
        "alpha on the skip": changed(y=lambda c: c["alpha"] * c["y"]),
        "no alpha": changed(y=lambda c: c["h"] + branch(c["h"], c["W1"], c["W2"])),
        "only the skip back": changed(grad_h=lambda c: c["grad_y"]),
        "only the branch back": changed(grad_h=lambda c: c["grad_h"] - c["grad_y"]),
        "no ReLU back": changed(grad_h=lambda c: c["grad_y"] + c["alpha"] * (c["grad_y"] @ c["W2"] @ c["W1"])),
        "alpha twice": changed(grad_alpha=lambda c: c["alpha"] * c["grad_alpha"]),
        "mean, not sum": changed(grad_alpha=lambda c: c["grad_alpha"] / c["h"].size),
        "one per example": changed(grad_alpha=lambda c: (c["grad_y"] * branch(c["h"], c["W1"], c["W2"])).sum(axis=1)),
        "two values": lambda *arguments: skipinit(*arguments)[:2],
    },
    "ch14.overturn": {
        "nothing changed": lambda: {"alpha": 1.0},
        "a lower rate": lambda: {"lr": 0.0001},
        "a larger factor": lambda: {"alpha": 2.0},
        "both fail": lambda: {"lr": 100.0},
        "two settings": lambda: {"alpha": 0.0, "lr": 0.003},
        "another setting": lambda: {"depth": 4},
        "negative": lambda: {"lr": -0.001},
        "a text": lambda: {"alpha": "small"},
        "no dictionary": lambda: 0.0,
    },
    "ch14.block": {
        **{f"always {name}": lambda skip, added, name=name: name for name in BLOCKS},
        "the skip alone": lambda skip, added: "no normalization" if skip[-1] > 100 * skip[0] else "BN in the branch",
        "the first block": lambda skip, added: by_distance(skip[:2], added[:2]),
        "the ratio alone": lambda skip, added: (
            "no normalization" if (added / skip)[-1] > 0.5 else by_distance(skip, added)
        ),
        "never scaled": lambda skip, added: by_distance(skip, added).replace("scaled branch", "BN in the branch"),
        "in other words": lambda skip, added: "batch norm",
    },
}


@pytest.mark.parametrize("alpha", [0.0, 0.7, -1.3])
def test_the_block_is_that_of_the_networks_with_its_gradients(alpha):
    import torch

    from bnbook.models.torch_mlp import Block

    torch.manual_seed(0)
    module = Block(6, "skipinit").double()
    rng = np.random.default_rng(0)
    h, grad_y = rng.normal(size=(2, 5, 6))
    with torch.no_grad():
        module.alpha.fill_(alpha)
        module.branch.fc1.bias.zero_()
        module.branch.fc2.bias.zero_()
    inputs = torch.tensor(h, requires_grad=True)
    output = module(inputs)
    output.backward(torch.tensor(grad_y))
    weights = [layer.weight.detach().numpy() for layer in (module.branch.fc1, module.branch.fc2)]
    y, grad_h, grad_alpha = skipinit(h, *weights, alpha, grad_y)
    np.testing.assert_allclose(output.detach().numpy(), y, atol=1e-12)
    np.testing.assert_allclose(inputs.grad.numpy(), grad_h, atol=1e-12)
    np.testing.assert_allclose(module.alpha.grad.item(), grad_alpha, atol=1e-12)
    assert (module.branch.fc2.weight.grad.abs().max().item() == 0) == (alpha == 0)


def test_the_mean_squares_are_those_of_the_derivation():
    rng = np.random.default_rng(0)
    skip, added = profile("BN in the branch", rng, blocks=40, width=256, n=128)
    np.testing.assert_allclose(added, 1, rtol=0.2)
    np.testing.assert_allclose(skip, skip[0] + np.arange(40), rtol=0.1)
    skip, added = profile("scaled branch", rng, blocks=40, width=256, n=128)
    np.testing.assert_allclose(skip[-1] / skip[0], (1 + 1 / 40) ** 39, rtol=0.1)
    skip, added = profile("no normalization", rng, blocks=20, width=256, n=128)
    assert 0.4 < skip[-1] / skip[0] / 2**19 < 2.5
    skip, added = profile("BN after the addition", rng, blocks=20, width=256, n=128)
    np.testing.assert_allclose(skip[1:], 1, rtol=0.01)


@pytest.mark.long
@pytest.mark.parametrize("answer", RIGHT["ch14.block"])
def test_no_network_is_mistaken_by_the_right_answer(answer):
    rng = np.random.default_rng(1)
    for kind in BLOCKS:
        for _ in range(60):
            skip, added = profile(kind, rng, blocks=int(rng.integers(12, 40)))
            assert answer(skip, added) == kind


@pytest.mark.long
def test_the_overturned_setting_holds_with_a_margin():
    base, solved = (
        [ch14.accuracy(norm, **{**ch14.BASE, **change}, seed=7) for norm in ("batch", "none")]
        for change in ({}, {"alpha": 0.0})
    )
    assert base[0] - base[1] > 2 * ch14.AT_MOST
    assert solved[0] - solved[1] < 0.8 * ch14.AT_MOST and min(solved) > ch14.AT_LEAST + 0.02
