"""How even the gradients of a deep network are before training, from its first layer to its last.

Of every network the sizes of the gradients with respect to the outputs of its activations are compared: first layer
over last, in powers of ten ("decades"). Nothing is trained: weights are drawn, and one batch goes through.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...models.torch_mlp import mlp
from ...probes import record, spread
from .. import Comparison, compare, select
from ..policy import GRADIENT
from ..protocol import WEIGHTS, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does batch normalization keep the gradients of a deep network from vanishing and exploding?"
CLAIM = (
    "In traditional deep networks, too-high learning rate may result in the gradients that explode or vanish, as well"
    " as getting stuck in poor local minima. Batch Normalization helps address these issues."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "It keeps gradients from vanishing and exploding."
CHAPTER, VERSION, SEEDS = 13, 1, 10
DATASET = "Fashion-MNIST, a batch of 128 training images"
NETWORK = "fully connected, hidden layers of 128, no skip connections"
BATCH_SIZE, STEPS = 128, 0
METRIC, EFFECT, DELTA = "evenness_in_decades", "times more even gradients", GRADIENT.delta
SCOPE = "training at too high a learning rate; measured is the start, so no run here tests it"
CHANCE = None  # what is not finite has no value
FACTOR = "the initialization", "the depth"

WIDTH = 128
DEPTHS = (10, 20, 40, 80)
DEEP = DEPTHS[1:]  # those that the claim is judged on
ARMS = {"with BN": "batch", "without BN": "none"}
TWICE_HE = 0.25  # standard deviation of the weights between layers of 128; He's is 0.125
STARTS = {
    "relu": ("default", "he", TWICE_HE),
    "tanh": ("default", "xavier"),
    "sigmoid": ("default", "xavier"),
}


def grid(quick: bool = False) -> list[dict]:
    """Every activation and start at every depth, with and without; quick: ReLU, two depths."""
    return [
        {"activation": activation, "init": init, "depth": depth, "norm": norm}
        for activation, inits in STARTS.items()
        for init in inits
        for depth in (DEPTHS[:2] if quick else DEPTHS)
        for norm in ARMS.values()
        if activation == "relu" or not quick
    ]


def run(setting: dict, seed: int) -> dict:
    """Draw the weights of one network and measure its gradients."""
    x, y = split("train")
    torch.manual_seed(seed)
    model = mlp(
        setting["norm"],
        widths=(WIDTH,) * setting["depth"],
        activation=setting["activation"],
        init=setting["init"],
    )
    found = {name: round(value, 3) for name, value in decades(model, x[:BATCH_SIZE], y[:BATCH_SIZE]).items()}
    return {**{f"{name}_decades": value for name, value in found.items()}, METRIC: -abs(found["gradient"])}


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
    start = "twice He's weights" if init == TWICE_HE else WEIGHTS[init]
    return f"{'' if activation == 'relu' else f'{activation}, '}{start}, {depth} layers"


def comparisons(rows: list[dict], activation: str = "relu") -> list[Comparison]:
    """With BN minus without: the evenness is 0 at best, and below it both ways."""
    there = {row["setting"]["depth"] for row in rows}  # quick runs leave depths out
    return [
        compare(
            words(activation, init, depth),
            *(select(rows, activation=activation, init=init, depth=depth, norm=norm) for norm in ARMS.values()),
            arms=tuple(ARMS),
            metric=METRIC,
            chance=None,
            levels=(init, depth),
        )
        for init in STARTS[activation]
        for depth in DEEP
        if depth in there
    ]


def in_scope(comparison: Comparison) -> bool:
    """None: the sentence, the claim's origin, is about training at too high a rate."""
    return False


def figure(rows: list[dict]) -> Figure:
    """The decades between first and last layer against the depth, one panel an activation."""
    import matplotlib.pyplot as plt

    from ... import plotting

    figure, axes = plt.subplots(1, len(STARTS), figsize=(6.4, 3.6), sharey=True)
    depths = sorted({row["setting"]["depth"] for row in rows})
    styles = {"default": "--", "he": "-", "xavier": "-", TWICE_HE: ":"}
    names = {"default": "default weights", "he": "He or Xavier weights", TWICE_HE: "twice He's"}
    for ax, (activation, inits) in zip(axes, STARTS.items(), strict=True):
        for arm, color in zip(ARMS.values(), (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
            for init in inits:
                found = select(rows, activation=activation, init=init, norm=arm)
                seeds = [[row["gradient_decades"] for row in select(found, depth=depth)] for depth in depths]
                for depth, values in zip(depths, seeds, strict=True):
                    ax.plot([depth] * len(values), values, ".", ms=4, color=color, alpha=0.6)
                label = f"{'with' if arm == 'batch' else 'no'} BN, {names[init]}" if init in names else None
                ax.plot(depths, [np.mean(values) for values in seeds], styles[init], color=color, label=label)
        ax.axhline(0, color="k", lw=0.8)
        ax.set(title=activation, xlabel="layers", xscale="log", xticks=depths, xticklabels=map(str, depths))
        ax.minorticks_off()
    axes[0].set_ylabel("powers of ten")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def growth(row: Mapping) -> float:
    """By how much the gradient of a row's network grows per layer, backward."""
    return 10 ** (row["gradient_decades"] / (row["setting"]["depth"] - 1))
