"""Whether batch normalization makes the training of convolutional networks faster, from the rows of `conv_speed`.

As in the paper, the mark is set by the network without: how many updates does either need to come where it ends?
Between two budgets the accuracy is interpolated along the logarithm of the updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from statistics import fmean
from typing import TYPE_CHECKING

from .. import Choice, Comparison
from ..policy import COST
from . import conv_speed
from .conv_speed import NORMS, at_best_rate, budgets, places
from .conv_speed import in_scope as in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How many times fewer updates does a convolutional network need for the same accuracy with BN?"
CLAIM, SOURCE = conv_speed.CLAIM, conv_speed.SOURCE
FOLKLORE = "It makes the training of convolutional networks faster."
CHAPTER, ROWS = 11, "conv_speed"
METRIC = "log10_of_the_speed"  # speed: one over the number of updates
EFFECT = "times fewer updates"
DELTA = COST.delta
SIZE, NEEDS_MORE = log10(14), True  # "14 times fewer training steps"
SCOPE = conv_speed.SCOPE
FACTOR = conv_speed.FACTOR


MARGIN = 0.01  # of the mark below the mean final accuracy without BN, so that noise seldom keeps a seed from it
CHANCE = 0.1


def needed(accuracy: Sequence[float], steps: Sequence[int], mark: float) -> float:
    """Updates until the accuracy reaches the mark: at least the least budget; if it never does, twice the largest.

    Args:
        accuracy: after each budget.
        steps: the budgets, the least first.
    """
    if accuracy[0] >= mark:
        return float(steps[0])
    for i in range(1, len(steps)):
        if accuracy[i] >= mark:
            share = (mark - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
            return float(steps[i - 1] * (steps[i] / steps[i - 1]) ** share)
    return 2.0 * steps[-1]


def mark(rows: Sequence[dict], network: str, optimizer: str, norm: str) -> float:
    """The accuracy to be reached: where that network ends after the longest training in the pilot, less a margin."""
    return max(at_best_rate(rows, network, optimizer, norm, budgets(rows)[-1]).means.values()) - MARGIN


def speeds(choices: Sequence[Choice], steps: Sequence[int], goal: float) -> dict[int, float]:
    """By seed, the decimal logarithm of one over the updates that are needed, from an arm's choice for every budget."""
    curves: dict[int, list[float]] = {}
    for choice in choices:
        for row in choice.rows:
            curves.setdefault(row["seed"], []).append(CHANCE if row["diverged"] else row["val_accuracy"])
    return {seed: -log10(needed(curve, steps, goal)) for seed, curve in curves.items()}


def compare_speeds(
    name: str, choices: Mapping[str, Sequence[Choice]], steps: Sequence[int], goal: float, levels: tuple
) -> Comparison:
    """The speeds of two arms, the first minus the second, from their choices for every budget.

    Args:
        name, levels: of the condition.
        choices: by arm, for each of `steps`.
    """
    return Comparison(
        name,
        *(speeds(of_arm, steps, goal) for of_arm in choices.values()),
        arms=tuple(choices),
        metric=METRIC,
        edges=tuple(
            f"lr of {arm!r} after {choice.rows[0]['setting']['steps']} updates"
            for arm, of_arm in choices.items()
            for choice in of_arm
            if choice.edge
        ),
        diverged=tuple(sum(r["diverged"] for c in of_arm for r in c.rows) for of_arm in choices.values()),
        levels=levels,
        settings=tuple(choice.rows[0]["setting"] for of_arm in choices.values() for choice in of_arm),
    )


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Speed with BN minus without in powers of ten, each at its own best rate for every budget."""
    steps = budgets(rows)
    return [
        compare_speeds(
            f"{place[0]}, {place[1]}, against {NORMS[norm]}",
            {
                arm: [at_best_rate(rows, *place, of_arm, budget) for budget in steps]
                for arm, of_arm in (("with BN", "batch"), ("without BN", norm))
            },
            steps,
            mark(rows, *place, norm),
            levels=(*place, norm),
        )
        for place in places(rows)
        for norm in NORMS
        if norm != "batch"
    ]


def figure(rows: list[dict]) -> Figure:
    """How many times fewer updates are needed with BN, in every condition; dots are seeds, bars 95 % intervals."""
    import matplotlib.pyplot as plt

    from ... import plotting

    found = comparisons(rows)
    picture, ax = plt.subplots(figsize=(6.4, 0.4 * len(found) + 1.0))
    for at, comparison in enumerate(found):
        factors = [10 ** (comparison.a[seed] - comparison.b[seed]) for seed in comparison.seeds]
        ax.plot(factors, [at - 0.15] * len(factors), "o", ms=3.5, alpha=0.6, color=plotting.GREEN)
        if comparison.difference.low is not None:
            ax.plot([10**comparison.difference.low, 10**comparison.difference.high], [at + 0.15] * 2, color="k", lw=2)
        ax.plot(10 ** fmean(map(log10, factors)), at + 0.15, "D", ms=5, color="k")
    ax.axvline(1, color="k", lw=0.8)
    ax.set(xscale="log", xlabel="times fewer updates")
    ax.set_yticks(range(len(found)), [comparison.name for comparison in found])
    ax.invert_yaxis()
    return picture
