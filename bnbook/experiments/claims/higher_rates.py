"""Whether batch normalization allows higher learning rates: the highest that work, from the rows of `learning_rate`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import log10
from typing import TYPE_CHECKING

from .. import Comparison, select
from ..policy import RATE
from .learning_rate import NORMS, at_best_rate, conditions, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How much higher is the highest learning rate that works with batch normalization than without?"
CLAIM = "Batch Normalization allows us to use much higher learning rates and be less careful about initialization."
SOURCE = "ioffe2015batch"
FOLKLORE = "With batch normalization you can raise the learning rate."
CHAPTER, ROWS = 11, "learning_rate"
METRIC = "log10_of_the_highest_usable_rate"
EFFECT = "times higher a learning rate"
DELTA = RATE.delta
SIZE, NEEDS_MORE = log10(5), True  # "much higher": the smaller of the two increases in the paper was five times
SCOPE = "SGD, without momentum or with: the paper used no Adam"
FACTOR = "the optimizer", "the initialization"

TOLERANCE = 0.02  # of validation accuracy, below the arm's mean at its best rate


def usable(
    rows: Sequence[Mapping], optimizer: str, init: str, norm: str, tolerance: float = TOLERANCE
) -> dict[int, list[float]]:
    """The usable rates of an arm, by seed: validation accuracy at most `tolerance` below the mean at the best rate."""
    choice = at_best_rate(rows, optimizer, init, norm)
    least = max(choice.means.values()) - tolerance
    found: dict[int, list[float]] = {row["seed"]: [] for row in choice.rows}
    for row in select(rows, optimizer=optimizer, init=init, norm=norm):
        if not row["diverged"] and row["val_accuracy"] >= least:
            found[row["seed"]].append(row["setting"]["lr"])
    return found


def highest(rates: Sequence[float], tried: Collection[float]) -> float:
    """The decimal logarithm of the highest usable rate; where there is none, half a decade below all tried."""
    return log10(max(rates)) if rates else log10(min(tried)) - 0.5


def width(rates: Sequence[float], tried: Collection[float]) -> float:
    """How many powers of ten lie between the lowest and the highest of the usable rates; 0 where there is none."""
    return log10(max(rates) / min(rates)) if rates else 0.0


def comparisons(
    rows: list[dict], measure: Callable = highest, metric: str = METRIC, tolerance: float = TOLERANCE
) -> list[Comparison]:
    """A measure of the usable rates, by seed, with BN minus without."""
    result = []
    for optimizer, init in conditions(rows):
        tried = {row["setting"]["lr"] for row in select(rows, optimizer=optimizer)}
        a, b = (usable(rows, optimizer, init, norm, tolerance) for norm in NORMS.values())
        # Where the grid hides rates of BN its advantage is at least this large. Of the other arm it must hide none.
        hidden = {min(tried), max(tried)} & {lr for rates in b.values() for lr in rates}
        result.append(
            Comparison(
                words(optimizer, init),
                *({seed: measure(rates, tried) for seed, rates in arm.items()} for arm in (a, b)),
                arms=tuple(NORMS),
                metric=metric,
                edges=("usable rate of 'without BN'",) if hidden else (),
                levels=(optimizer, init),
            )
        )
    return result


def in_scope(comparison: Comparison) -> bool:
    """The paper trained by SGD."""
    return comparison.levels[0] != "Adam"


def figure(rows: list[dict]) -> Figure:
    """The usable rates of every arm: a line for each seed, from the lowest to the highest."""
    import matplotlib.pyplot as plt
    import numpy as np

    from ... import plotting

    places = conditions(rows)
    picture, ax = plt.subplots(figsize=(6.4, 0.55 * len(places) + 1.1))
    for (arm, norm), color, side in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), (-1, 1), strict=True):
        for i, (optimizer, init) in enumerate(places):
            of_seeds = list(usable(rows, optimizer, init, norm).values())
            for k, rates in enumerate(of_seeds):
                y = i + side * (0.06 + 0.3 * k / len(of_seeds))
                label = arm if i == k == 0 else None
                ends = [min(rates), max(rates)] if rates else [np.nan, np.nan]  # a seed may have no usable rate
                ax.plot(ends, [y, y], "|-", ms=4, lw=1.5, color=color, label=label)
    ax.set(xscale="log", xlabel="learning rate", ylim=(len(places) - 0.5, -0.5))
    ax.set_yticks(range(len(places)), [words(*place) for place in places])
    ax.grid(axis="y", visible=False)
    picture.legend(loc="outside upper center", ncols=2)
    return picture
