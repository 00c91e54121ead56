"""Whether batch normalization makes training faster: updates to the same accuracy, from the rows of `learning_rate`.

As in the paper, the mark is set by the network without: how many updates does either need to come where it ends? Each
budget is a training of its own, at its own best rate; between two of them the accuracy is interpolated along the
logarithm of the updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from statistics import median
from typing import TYPE_CHECKING

from .. import Choice, Comparison
from ..policy import COST
from .conv_faster import CHANCE, MARGIN, compare_speeds
from .learning_rate import BUDGETS, INITS, NORMS, at_best_rate, conditions, words
from .learning_rate import in_scope as in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How many times fewer updates, all of them planned, does the same accuracy need with batch normalization?"
CLAIM = (
    "Applied to a state-of-the-art image classification model, Batch Normalization achieves the same accuracy with 14"
    " times fewer training steps, and beats the original model by a significant margin."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "It makes training faster."
CHAPTER, ROWS, STEPS = 11, "learning_rate", BUDGETS[-1]
METRIC = "log10_of_the_speed"  # speed: one over the number of updates
EFFECT = "times fewer updates"
DELTA = COST.delta
SIZE, NEEDS_MORE = log10(14), True  # "14 times fewer training steps"
SCOPE = "SGD with momentum, as in the paper"
FACTOR = "the optimizer", "the initialization"


def curves(choices: Sequence[Choice]) -> dict[int, list[float]]:
    """By seed, the validation accuracy after each budget, from an arm's choice for every budget."""
    found: dict[int, list[float]] = {}
    for choice in choices:
        for row in choice.rows:
            found.setdefault(row["seed"], []).append(CHANCE if row["diverged"] else row["val_accuracy"])
    return found


def at_budgets(rows: Sequence[dict], optimizer: str, init: str, norm: str) -> list[Choice]:
    """An arm after each budget, at its best rate for it."""
    return [at_best_rate(rows, optimizer, init, norm, steps) for steps in BUDGETS]


def mark(rows: Sequence[dict], optimizer: str, init: str) -> float:
    """The accuracy to be reached: that of the network without BN after the pilot's longest training, less a margin."""
    longest = at_budgets(rows, optimizer, init, NORMS["without BN"])[-1]
    return max(longest.means.values()) - MARGIN


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Speed with BN minus without in powers of ten, each at its own best rate for every budget."""
    return [
        compare_speeds(
            words(*place),
            {arm: at_budgets(rows, *place, norm) for arm, norm in NORMS.items()},
            BUDGETS,
            mark(rows, *place),
            levels=place,
        )
        for place in conditions(rows)
    ]


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the budgets, each at its own best rate; lines are medians, dots seeds, dotted the mark.

    Seeds below 0.7 are not in the frame.
    """
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
            of_seeds = list(curves(at_budgets(rows, optimizer, init, norm)).values())
            for curve in of_seeds:
                ax.plot(BUDGETS, curve, "o", color=color, ms=3, alpha=0.4)
            ax.plot(BUDGETS, [median(values) for values in zip(*of_seeds, strict=True)], color=color, label=arm)
        ax.axhline(mark(rows, optimizer, init), color="k", ls=":", lw=1)
        ax.set(title=f"{optimizer}\n{INITS[init]}", xscale="log", ylim=(0.7, 0.9))
        ax.set_xticks(BUDGETS, BUDGETS)
        ax.minorticks_off()
    for ax in axes[-1]:
        ax.set_xlabel("updates in all")
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
