"""Checkers of chapter 14, depth."""

from __future__ import annotations

import math

import numpy as np

from ... import functional as F
from ..exercises import Wrong, checker, one_change, repeatable, same

Array = np.ndarray


@checker("ch14.factor")
def factor(answer, rng) -> None:
    """`answer(blocks, growth)` is the factor on every branch with which the mean square of the skip grows that much."""
    for blocks in (1, 20, *rng.integers(2, 500, 6).tolist()):
        growth = float(rng.uniform(1.1, 50))
        same(
            answer(blocks, growth),
            math.sqrt(growth ** (1 / blocks) - 1),
            f"The factor for {blocks} blocks and a growth of {growth:.3g}",
            hint="A branch with the factor α adds α² times the mean square that it is given.",
            mistakes={
                "That is α²: a factor on values is squared in their mean square.": growth ** (1 / blocks) - 1,
                "The blocks multiply; their growths do not add up.": math.sqrt((growth - 1) / blocks),
                "That is what the branches of all blocks add together.": math.sqrt(growth - 1),
                "That is the growth of one block: what does its branch add?": growth ** (1 / blocks),
                "That is so for very many blocks.": math.sqrt(math.log(growth) / blocks),
            },
        )


def branch(h: Array, W1: Array, W2: Array) -> Array:
    """What the branch of a block without normalization makes of h (N, C): ReLU, linear, ReLU, linear."""
    return np.maximum(np.maximum(h, 0) @ W1.T, 0) @ W2.T


@checker("ch14.skipinit")
def skipinit(answer, rng) -> None:
    """`answer(h, W1, W2, alpha, grad_y)` returns the block's output and the gradients for h and for alpha."""
    for alpha in (*rng.normal(size=3), 0.0, 1.0):
        n, c, hidden = (int(size) for size in rng.integers(3, 12, 3))
        h, grad_y = rng.normal(size=(2, n, c))
        W1, W2 = rng.normal(size=(hidden, c)), rng.normal(size=(c, hidden))
        got = answer(h, W1, W2, float(alpha), grad_y)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong("Return three values: the output, the gradient for h and the gradient for alpha.")
        z = np.maximum(h, 0) @ W1.T
        f = np.maximum(z, 0) @ W2.T
        grad_h = grad_y + alpha * ((grad_y @ W2 * (z > 0)) @ W1 * (h > 0))
        case, through, alone = f"for alpha = {alpha:.3g}", (grad_y @ W2 * (z > 0)) @ W1, np.sum(grad_y * f)
        same(
            got[0],
            h + alpha * f,
            f"The output {case}",
            mistakes={
                "The skip is missing.": alpha * f,
                "alpha is missing.": h + f,
                "alpha is a factor on the branch, not on the skip.": alpha * h + f,
                "The branch begins with a ReLU.": h + alpha * np.maximum(h @ W1.T, 0) @ W2.T,
                "A second ReLU stands between the two matrices.": h + alpha * z @ W2.T,
            },
        )
        same(
            got[1],
            grad_h,
            f"The gradient for h {case}",
            hint="It takes both ways back: the skip and the branch.",
            mistakes={
                "The way through the branch is missing.": grad_y,
                "The way through the skip is missing.": grad_h - grad_y,
                "alpha is missing on the way through the branch.": grad_y + through * (h > 0),
                "The first ReLU lets a gradient through only where h is positive.": grad_y + alpha * through,
                "The second ReLU lets a gradient through only where its input is positive.": grad_y
                + alpha * (grad_y @ W2 @ W1) * (h > 0),
            },
        )
        same(
            got[2],
            alone,
            f"The gradient for alpha {case}",
            mistakes={
                "The derivative for alpha does not contain alpha.": alpha * alone,
                "alpha is one number: add up over all values.": grad_y * f,
                "alpha is the same for all examples: add up over them as well.": np.sum(grad_y * f, axis=1),
                "alpha is the same for all units: add up over them as well.": np.sum(grad_y * f, axis=0),
                "Add up, do not average.": np.mean(grad_y * f),
                "alpha multiplies the branch, not the output.": np.sum(grad_y * (h + alpha * f)),
            },
        )


# --- the same two networks, one setting changed ----------------------------------------------------------------------

BASE = {"alpha": 1.0, "lr": 0.001, "times_he": 1.0}
DEPTH, UPDATES = 40, 80
AT_MOST, AT_LEAST = 0.08, 0.75  # of the lead of BN, and of both accuracies, means of two seeds
CHANCE = 0.1  # what a diverged run counts as


def accuracy(norm: str, alpha: float, lr: float, times_he: float, seed: int) -> float:
    """Validation accuracy of a residual network of 40 layers, "batch" or "none", after 80 updates of Adam.

    `alpha` is what the learned factor on every branch starts from, `times_he` a factor on He's weights.
    """
    import torch

    from ...experiments.protocol import evaluate, split, updates
    from ...models.torch_mlp import Block, residual_mlp

    with repeatable(seed):
        model = residual_mlp(norm, depth=DEPTH)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight *= times_he
                if isinstance(layer, Block):
                    layer.alpha = torch.nn.Parameter(torch.tensor(float(alpha)))
        run = updates(model, *split("train"), steps=UPDATES, lr=lr, seed=seed, optimizer="adam")
        done = sum(1 for _ in run)
        return evaluate(model, *split("val")).accuracy if done == UPDATES else CHANCE


@checker("ch14.overturn")
def overturn(answer, rng) -> None:
    """`answer()` is the one setting to change, such as {"lr": 0.003}."""
    name, value = one_change(answer, BASE, lr=0.003)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Wrong(f"The value of {name!r} must be a number, got {value!r}.")
    if name != "alpha" and value <= 0:
        raise Wrong(f"The value of {name!r} must be positive, got {value:g}.")
    seeds = rng.integers(0, 1000, 2).tolist()  # one run scatters by some points
    with_bn, without = (
        float(np.mean([accuracy(norm, **(BASE | {name: value}), seed=seed) for seed in seeds]))
        for norm in ("batch", "none")
    )
    found = f"With {name} = {value:g} the accuracy is {with_bn:.3f} with BN and {without:.3f} without"
    if min(with_bn, without) < AT_LEAST:
        raise Wrong(f"{found}: both should learn, to {AT_LEAST} at least.")
    if with_bn - without > AT_MOST:
        raise Wrong(f"{found}: batch normalization is still ahead by more than {AT_MOST}.")


# --- residual networks before training -------------------------------------------------------------------------------

BLOCKS = ("BN in the branch", "BN after the addition", "no normalization", "scaled branch")


def profile(kind: str, rng: np.random.Generator, blocks: int, width: int = 128, n: int = 64) -> tuple[Array, Array]:
    """Of a random residual network: per block the mean squares of what enters it, and of what its branch adds.

    The scale of the inputs is random. A "scaled branch" is multiplied by one over the root of the number of blocks.
    """

    def normalize(x: Array) -> Array:
        return F.batch_norm(x, None, None, training=True)[0]

    h = rng.normal(0, 10 ** rng.uniform(-1, 1), (n, width))
    skip, added = [], []
    for _ in range(blocks):
        W1, W2 = rng.normal(0, math.sqrt(2 / width), (2, width, width))
        if kind == "BN in the branch":
            f = np.maximum(normalize(np.maximum(normalize(h), 0) @ W1.T), 0) @ W2.T
        else:
            f = branch(h, W1, W2) / (math.sqrt(blocks) if kind == "scaled branch" else 1)
        skip.append(np.mean(h**2))
        added.append(np.mean(f**2))
        h = normalize(h + f) if kind == "BN after the addition" else h + f
    return np.array(skip), np.array(added)


@checker("ch14.block", name="block_of")
def block(answer, rng) -> None:
    """`answer(skip, branch)` names the block that a residual network is made of."""
    for kind in rng.permutation(np.repeat(BLOCKS, 20)).tolist():
        skip, added = profile(kind, rng, blocks=int(rng.integers(12, 40)))
        got = answer(skip, added)
        if got not in BLOCKS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, BLOCKS))}.")
        if got != kind:
            raise Wrong(
                f"A network with {kind!r} was called {got!r}: over {len(skip)} blocks the skip goes from {skip[0]:.3g}"
                f" to {skip[-1]:.3g}, and what a branch adds from {added[0]:.3g} to {added[-1]:.3g}."
            )
