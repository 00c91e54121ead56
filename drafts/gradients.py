"""How even the gradients of a deep network are, from its first layer to its last, before training and in it.

Of every network the sizes of the gradients for the outputs of its activations are compared: first layer over last, in
powers of ten ("decades"). A rate of 0 is the network before its first update: the claim is judged there, on all three
starts, and the trained rows say what the gradients meant for learning.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..models.torch_mlp import mlp
from ..probes import record, spread
from . import Comparison, best, compare, select
from ._training import evaluate, split, updates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUESTION = "Does batch normalization keep the gradients of a deep network from vanishing and exploding?"
CLAIM = (
    "In traditional deep networks, too-high learning rate may result in the gradients that explode or vanish, as well"
    " as getting stuck in poor local minima. Batch Normalization helps address these issues."
)
SOURCE = "ioffe2015batch"
CHAPTER, VERSION, SEEDS = 13, 1, 5
DATASET = "Fashion-MNIST, 20,000 training images"
NETWORK = "fully connected, hidden layers of 128, no skip connections"
BATCH_SIZE, STEPS = 128, 312  # two epochs of 156 updates
METRIC, DELTA = "evenness_in_decades", 0.5  # a factor of about three: what would ask for another learning rate
CHANCE = None  # a diverged run has no gradients
FACTOR = "the initialization"

WIDTH = 128
DEPTHS = (10, 20, 40, 80)
DEEP = DEPTHS[1:]  # those that the claim is judged on
ARMS = {"with BN": "batch", "without BN": "none"}
RATES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
MARKS = (0, 1, 10, 100, STEPS)
TWICE_HE = 0.25  # standard deviation of the weights between layers of 128; He's is 0.125
STARTS = {
    "relu": ("default", "he", TWICE_HE),
    "tanh": ("default", "xavier"),
    "sigmoid": ("default", "xavier"),
}
TRAINED = STARTS["relu"][:2]  # by plain SGD, where the size of a gradient is the size of a step


def grid(quick: bool = False) -> list[dict]:
    """Every start at every depth; ReLU from the two usual ones at every rate. Quick: ReLU, two depths, three rates."""
    return [
        {"activation": activation, "init": init, "depth": depth, "norm": norm, "lr": lr}
        for activation, inits in STARTS.items()
        for init in inits
        for depth in (DEPTHS[:2] if quick else DEPTHS)
        for norm in ARMS.values()
        for lr in ((0.0, 0.01, 0.1) if quick else RATES)
        if (lr == 0 or (activation == "relu" and init in TRAINED)) and not (quick and activation != "relu")
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network with SGD, or not at all; its gradients at the marks, its scores after the last update."""
    x, y = split("train", 20_000)
    batch = x[:BATCH_SIZE], y[:BATCH_SIZE]
    torch.manual_seed(seed)
    model = mlp(
        setting["norm"],
        widths=(WIDTH,) * setting["depth"],
        activation=setting["activation"],
        init=setting["init"],
    )
    steps = STEPS if setting["lr"] > 0 else 0
    marks, seen, losses = [0], [decades(model, *batch)], []
    for step, loss in updates(model, x, y, steps=steps, lr=setting["lr"], seed=seed, batch_size=BATCH_SIZE):
        losses.append(loss)
        if step in MARKS:
            marks.append(step)
            seen.append(decades(model, *batch))
    last, tested = seen[-1], evaluate(model, *split("test"))
    return {
        "marks": marks,
        **{f"{name}_decades": [round(at[name], 3) for at in seen] for name in last},
        METRIC: -abs(last["gradient"]),
        "train_loss": float(np.mean(losses[-78:])) if losses else None,
        "diverged": len(losses) < steps or not np.isfinite([*last.values(), tested.loss]).all(),
        "val_accuracy": evaluate(model, *split("val")).accuracy,
        "test_accuracy": tested.accuracy,
    }


def decades(model: nn.Sequential, x: Tensor, y: Tensor) -> dict[str, float]:
    r"""How much larger sizes are at the first hidden layer than at the last, in powers of ten: 0 is even.

    Measured in float64, where a gradient of $10^{-30}$ is none of rounding; not finite where a size is 0 or not finite.

    Args:
        model: from `bnbook.models.torch_mlp.mlp`; it stays as it is.
        x, y: a batch.

    Returns:
        gradient: of those for the outputs of the activations, root mean square; positive: they grow backward.
        activation: of the outputs, root mean square over the units of their deviation over the batch.
        update: of $\lVert\partial L/\partial W\rVert/\lVert W\rVert$, how far a step turns the weights, from the second
            layer: the first has another shape.
    """
    model, x = copy.deepcopy(model).double().train(), x.double()
    recorded = record(model, x, y, layers=type(model.act1)).values()
    weights = [layer.weight for name, layer in model.named_children() if name.startswith("fc")][1:]
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights)
    sizes = {
        "gradient": [spread(gradient, center=False)[0] for _, gradient in recorded],
        "activation": [spread(activation)[0] for activation, _ in recorded],
        "update": [(g.norm() / w.norm()).item() for g, w in zip(gradients, weights, strict=True)],
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: float(np.log10(size[0]) - np.log10(size[-1])) for name, size in sizes.items()}


def words(activation: str, init: str | float, depth: int) -> str:
    """A start in words."""
    start = "twice He's weights" if init == TWICE_HE else f"{'He' if init == 'he' else init} init"
    return f"{'' if activation == 'relu' else f'{activation}, '}{start}, {depth} layers"


def comparisons(rows: list[dict], activation: str = "relu") -> list[Comparison]:
    """With BN minus without, before the first update: the evenness is 0 at best, below it both ways."""
    chosen = {row["setting"]["depth"] for row in rows}
    return [
        compare(
            words(activation, init, depth),
            *(select(rows, activation=activation, init=init, depth=depth, norm=norm, lr=0.0) for norm in ARMS.values()),
            arms=tuple(ARMS),
            metric=METRIC,
            chance=None,
        )
        for init in STARTS[activation]
        for depth in DEEP
        if depth in chosen  # quick runs leave depths out
    ]


def trained(rows: list[dict], metric: str = "test_accuracy", lr: float | None = None) -> list[Comparison]:
    """With BN minus without after the last update, each arm at the rate that validation chose, or both at `lr`.

    Beside the verdict: whether the arm with the more even gradients is the one that learns.
    """
    chance = 0.1 if metric.endswith("accuracy") else None
    result = []
    for init in TRAINED:
        for depth in DEPTHS:
            those = [select(rows, activation="relu", init=init, depth=depth, norm=norm) for norm in ARMS.values()]
            arms = [best(arm, over="lr", ends=(0.0,)) if lr is None else select(arm, lr=lr) for arm in those]
            name = words("relu", init, depth)
            result.append(compare(name, *arms, arms=tuple(ARMS), metric=metric, chance=chance))
    return result


def figure(rows: list[dict]) -> Figure:
    """Left, gradients before the first update against the depth; right, what the networks learned."""
    import matplotlib.pyplot as plt

    from .. import plotting

    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.6))
    styles = {"default": "--", "he": "-", TWICE_HE: ":"}
    names = {"default": "default", "he": "He", TWICE_HE: "twice He"}
    depths = sorted({row["setting"]["depth"] for row in rows})
    for arm, color in zip(ARMS.values(), (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
        for init, style in styles.items():
            of_arm = select(rows, activation="relu", init=init, norm=arm)
            label = f"{'with' if arm == 'batch' else 'no'} BN, {names[init]}"
            before = [[row["gradient_decades"][0] for row in select(of_arm, depth=d, lr=0.0)] for d in depths]
            _draw(left, depths, before, color, style, label)
            if init in TRAINED:
                at_best = [best(select(of_arm, depth=d), over="lr", ends=(0.0,)).rows for d in depths]
                _draw(right, depths, [[row["test_accuracy"] for row in those] for those in at_best], color, style)
    for ax in (left, right):
        ax.set(xlabel="layers", xscale="log", xticks=depths, xticklabels=map(str, depths))
        ax.minorticks_off()
    left.axhline(0, color="k", lw=0.8)
    left.set(title="gradient, first / last layer", ylabel="powers of ten")
    right.axhline(0.1, color="k", ls=":", lw=1)
    right.set(title="after training, own best rate", ylabel="test accuracy", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _draw(
    ax: Axes, depths: Sequence[int], values: Sequence[Sequence[float]], color: str, style: str, label: str | None = None
) -> None:
    """The seeds as dots and a line through their means."""
    for depth, seeds in zip(depths, values, strict=True):
        ax.plot([depth] * len(seeds), seeds, ".", ms=4, color=color, alpha=0.6)
    ax.plot(depths, [np.mean(seeds) for seeds in values], style, color=color, label=label)


def growth(row: Mapping) -> float:
    """By how much the gradient of a row's network grows per layer, backward, before the first update."""
    return 10 ** (row["gradient_decades"][0] / (row["setting"]["depth"] - 1))
