"""How careful one has to be about the size of the initial weights, with batch normalization and without.

All weights of a network are drawn as He et al. (2015) say, then multiplied by one number, from a hundredth to ten; each
network is trained by SGD and by Adam, with rates that fall to zero along half a cosine. Every start has rates of its
own, about where its best ones lie. Each seed draws its own training images, and 10,000 others validate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...models.torch_mlp import mlp
from .. import Choice, Comparison, Incomplete, best, compare, select
from ..policy import POINTS
from ..protocol import split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How far off may the size of the initial weights be, by plain SGD, with batch normalization and without?"
CLAIM = "Batch Normalization allows us to use much higher learning rates and be less careful about initialization."
SOURCE = "ioffe2015batch"
FOLKLORE = "With batch normalization the initial weights do not matter: it is better whatever their scale."
CHAPTER, VERSION, SEEDS, CONFIRM = 12, 2, 5, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK = "784-128-128-128-128-10, ReLU"
BATCH_SIZE, STEPS = 128, 780  # ten epochs of 78 updates
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "weights off the right scale: with care they would be on it"
FACTOR = "the scale of the weights"

ARMS = {"with BN": "batch", "without BN": "none"}
SCALES = (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0)
DEFAULT_NAME = "PyTorch's default"
DEFAULT_SCALE = 1 / sqrt(6)  # PyTorch's own standard deviation, 1/sqrt(3 n), beside He's sqrt(2/n)
VALIDATION = 10_000  # images, none of which any run trains on
HE = {"init": "he", "scale": 1.0}
AT_HE = (0.0316, 0.1, 0.316)  # without BN: about the best rate at He's scale, tried at every scale
RATES = {  # by optimizer and normalization; a rate of 0 is the untrained network: nothing lies beyond it
    ("SGD", "batch"): (0.001, 0.01, 0.1, 0.316, 1.0, 3.16, 10.0),
    ("Adam", "batch"): (1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.0316, 0.1),
    ("Adam", "none"): (0.000316, 0.001, 0.00316, 0.01, 0.0316),
}
WITHOUT = {  # SGD without BN, by scale: beside those of AT_HE
    0.01: (0.0, 1e-05, 1.0),
    0.0316: (0.0, 1e-05, 1.0),
    0.1: (0.0, 1.0, 3.16),
    0.316: (1.0, 3.16),
    1.0: (0.01, 1.0),
    3.16: (0.0001, 0.000316, 0.001, 0.00316, 0.01),
    10.0: (3.16e-06, 1e-05, 3.16e-05, 0.0001, 0.000316),
}
OPTIMIZERS = ("SGD", "Adam")


def starts(optimizer: str) -> list[dict]:
    """The initial weights: He's times each scale (with Adam whole decades only), and PyTorch's default."""
    scales = SCALES if optimizer == "SGD" else SCALES[::2]
    return [{"init": "he", "scale": scale} for scale in scales] + [{"init": "default", "scale": 1.0}]


def rates(optimizer: str, start: dict, norm: str) -> tuple[float, ...]:
    """The rates that are tried from a start."""
    if (optimizer, norm) != ("SGD", "none"):
        return RATES[optimizer, norm]
    scale = 0.316 if start["init"] == "default" else start["scale"]  # PyTorch's default is close to that
    return tuple(sorted({*AT_HE, *WITHOUT[scale]}))


def grid(quick: bool = False) -> list[dict]:
    """Every start at its rates, with and without, by both optimizers; quick: SGD, three scales and three rates."""
    return [
        {"optimizer": optimizer, **start, "norm": norm, "lr": lr}
        for optimizer in (OPTIMIZERS[:1] if quick else OPTIMIZERS)
        for start in (starts(optimizer)[:-1:3] if quick else starts(optimizer))
        for norm in ARMS.values()
        for lr in (rates(optimizer, start, norm)[-3:] if quick else rates(optimizer, start, norm))
    ]


def network(setting: Mapping) -> nn.Sequential:
    """The network of a setting, from PyTorch's random numbers; the last layer's weights are scaled as well."""
    model = mlp(setting["norm"], widths=(128,) * 4, init=setting["init"])
    with torch.no_grad():
        for layer in _linear(model):
            layer.weight *= setting["scale"]
    return model


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores after the last update, and the norm of each layer's weights before and after."""
    torch.manual_seed(seed)
    model = network(setting)
    before = _norms(model)
    row = train_and_score(
        model,
        subset(10_000, seed),
        split("val", VALIDATION),
        split("test"),
        steps=STEPS,
        lr=setting["lr"],
        optimizer=setting["optimizer"].lower(),
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )
    return row | {"weight_norms": [before, _norms(model)]}


def _linear(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def _norms(model: nn.Module) -> list[float]:
    return [round(layer.weight.norm().item(), 4) for layer in _linear(model)]


def name(start: Mapping) -> str:
    """A start in words."""
    return DEFAULT_NAME if start["init"] == "default" else f"He × {start['scale']:g}"


def at_best_rate(rows: Sequence[Mapping], optimizer: str, start: Mapping, norm: str) -> Choice:
    """An arm at the rate that validation chooses for it at this start."""
    return best(select(rows, optimizer=optimizer, norm=norm, **start), over="lr", ends=(0.0,))


def comparisons(rows: list[dict], optimizer: str = "SGD") -> list[Comparison]:
    """With BN minus without, at every start, each arm at its own best rate there; by SGD, as in the paper.

    Confirmed are as well the same by Adam, and every scale at the rate that is best at He's.
    """
    found = [
        compare(name(start), *(at_best_rate(rows, optimizer, start, norm) for norm in ARMS.values()), arms=tuple(ARMS))
        for start in starts(optimizer)
        if select(rows, optimizer=optimizer, **start)  # quick runs leave starts out
    ]
    if optimizer != "SGD":
        return found
    adam = [s for c in comparisons(rows, "Adam") for s in c.settings]
    held = [
        {"optimizer": "SGD", "init": "he", "scale": scale, "norm": norm, **at_best_rate(rows, "SGD", HE, norm).values}
        for norm in ARMS.values()
        for scale in SCALES
        if any(row["setting"]["scale"] == 1.0 for row in rows)
    ]
    held = [setting for setting in held if setting in grid()]  # else the missing rows are named where they are read
    return [replace(found[0], settings=(*found[0].settings, *adam, *held)), *found[1:]]


def usable_scales(
    rows: list[dict], norm: str, optimizer: str = "SGD", tolerance: float = 0.02
) -> dict[int, tuple[float, float]]:
    """How far the scale may go when the rate stays: by seed, the least and the greatest that cost at most `tolerance`.

    The rate is the one that validation chooses at He's scale; what is lost is validation accuracy, beside that scale
    and the same seed. Only an unbroken range around He's scale counts. It may end where the scales that were tried do.

    Raises:
        Incomplete: a scale has no row of a seed.
    """
    chosen = at_best_rate(rows, optimizer, HE, norm)
    scales = [start["scale"] for start in starts(optimizer) if start["init"] == "he"]
    middle, usable = scales.index(1.0), {}
    for row in chosen.rows:
        accuracy = []
        for scale in scales:
            found = select(rows, optimizer=optimizer, norm=norm, init="he", scale=scale, **chosen.values)
            of_seed = [other for other in found if other["seed"] == row["seed"]]
            if not of_seed:
                raise Incomplete(f"scale {scale:g} has no row of seed {row['seed']}")
            accuracy.append(0.0 if of_seed[0]["diverged"] else of_seed[0]["val_accuracy"])
        good = [value >= row["val_accuracy"] - tolerance for value in accuracy]
        low = high = middle
        while low > 0 and good[low - 1]:
            low -= 1
        while high < len(scales) - 1 and good[high + 1]:
            high += 1
        usable[row["seed"]] = scales[low], scales[high]
    return usable


def in_scope(comparison: Comparison) -> bool:
    """All starts but those that somebody who is careful would choose: He's scale and PyTorch's default."""
    return comparison.name not in (name(HE), DEFAULT_NAME)


def figure(rows: list[dict]) -> Figure:
    """Test accuracy at the own best rate against the scale of the initial weights, by SGD and by Adam."""
    import matplotlib.pyplot as plt

    from ... import plotting

    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.4), sharey=True)
    for ax, optimizer in zip(axes, OPTIMIZERS, strict=True):
        conditions = comparisons(rows, optimizer)
        at = [DEFAULT_SCALE if c.name == DEFAULT_NAME else float(c.name.rpartition(" ")[2]) for c in conditions]
        scaled = [i for i, c in enumerate(conditions) if c.name != DEFAULT_NAME]
        for arm, color, side in zip(ARMS, (plotting.WITH_BN, plotting.WITHOUT_BN), "ab", strict=True):
            seeds = [list(getattr(c, side).values()) for c in conditions]
            means = [sum(values) / len(values) for values in seeds]
            for x, values in zip(at, seeds, strict=True):
                ax.plot([x] * len(values), values, ".", ms=4, color=color, alpha=0.6)
            ax.plot([at[i] for i in scaled], [means[i] for i in scaled], "o-", ms=4, color=color, label=arm)
            others = [i for i in range(len(at)) if i not in scaled]
            ax.plot([at[i] for i in others], [means[i] for i in others], "D", ms=8, mfc="none", mew=2, color=color)
        ax.axhline(0.1, color="k", ls=":", lw=1)
        ax.set(title=optimizer, xlabel="initial weights, times He's", xscale="log", ylim=(0, 1))
    axes[0].set_ylabel("test accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
