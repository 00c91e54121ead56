"""Whether batch normalization makes training faster: updates to the same accuracy, from the rows of `learning_rate`.

As in the paper, the mark is set by the network without: how many updates does either need to come where it ends?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import TYPE_CHECKING

import numpy as np

from .. import Comparison
from ..policy import COST
from .learning_rate import INITS, NORMS, STEPS, at_best_rate, conditions, words
from .learning_rate import in_scope as in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How many times fewer updates does the network need for the same accuracy with batch normalization?"
CLAIM = (
    "Applied to a state-of-the-art image classification model, Batch Normalization achieves the same accuracy with 14"
    " times fewer training steps, and beats the original model by a significant margin."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "It makes training faster."
CHAPTER, ROWS = 11, "learning_rate"
METRIC = "log10_of_the_speed"  # speed: one over the number of updates
EFFECT = "times fewer updates"
DELTA = COST.delta
SIZE, NEEDS_MORE = log10(14), True  # "14 times fewer training steps"
SCOPE = "SGD with momentum, as in the paper"
FACTOR = "the optimizer", "the initialization"

MARGIN = 0.01  # of the mark below the mean final accuracy without BN, so that noise seldom keeps a seed from it
CHANCE = 0.1


def needed(row: Mapping, mark: float, budget: int = STEPS) -> float:
    """Updates until the validation accuracy first reaches the mark, straight lines between; if never, the budget."""
    steps, curve = [0, *row["marks"]], [CHANCE, *row["val_curve"]]
    for i in range(1, len(curve)):
        if curve[i] >= mark:
            share = (mark - curve[i - 1]) / (curve[i] - curve[i - 1])
            return steps[i - 1] + share * (steps[i] - steps[i - 1])
    return float(budget)


def mark(rows: Sequence[Mapping], optimizer: str, init: str) -> float:
    """The accuracy to be reached: what the network without BN ends with at its best rate, less a margin."""
    return max(at_best_rate(rows, optimizer, init, NORMS["without BN"]).means.values()) - MARGIN


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Speed with BN minus without in powers of ten, each arm at its own best rate."""
    result = []
    for place in conditions(rows):
        goal = mark(rows, *place)
        choices = [at_best_rate(rows, *place, norm) for norm in NORMS.values()]
        a, b = ({row["seed"]: -log10(needed(row, goal)) for row in choice.rows} for choice in choices)
        edges = tuple(f"lr of {arm!r}" for arm, choice in zip(NORMS, choices, strict=True) if choice.edge)
        result.append(Comparison(words(*place), a, b, arms=tuple(NORMS), metric=METRIC, edges=edges, levels=place))
    return result


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over updates, each arm at its own best rate; the dotted line is the mark."""
    import matplotlib.pyplot as plt

    from ... import plotting

    places = conditions(rows)
    optimizers = list(dict.fromkeys(optimizer for optimizer, _ in places))
    picture, axes = plt.subplots(
        len(INITS), len(optimizers), figsize=(6.4, 4.6), dpi=80, sharex=True, sharey=True, squeeze=False
    )
    for optimizer, init in places:
        ax = axes[list(INITS).index(init), optimizers.index(optimizer)]
        for (arm, norm), color in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
            runs = at_best_rate(rows, optimizer, init, norm).rows
            curves = np.array([[CHANCE, *row["val_curve"]] for row in runs])
            steps = [0, *runs[0]["marks"]]
            ax.plot(steps, curves.T, color=color, lw=0.7, alpha=0.5)
            ax.plot(steps, curves.mean(axis=0), color=color, label=arm)
        ax.axhline(mark(rows, optimizer, init), color="k", ls=":", lw=1)
        ax.set(title=f"{optimizer}\n{INITS[init]}", ylim=(0.6, 0.9))
    for ax in axes[-1]:
        ax.set_xlabel("updates")
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
