"""Whether batch normalization allows higher learning rates, from the rows of `learning_rate`.

A rate works where the network still learns: it ends above a validation accuracy of 0.6. A second, narrower measure
counts the rates that are at most two points worse than the best (`usable` with `TOLERANCE`); the verdict is by the
first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import log10
from typing import TYPE_CHECKING

from .. import Comparison, best, fresh, pilot, select
from ..engine.verdict import outcome
from ..policy import LEARNS, RATE
from .learning_rate import ALL_RATES, NORMS, conditions, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How much higher is the highest learning rate that still learns with batch normalization than without?"
CLAIM = "Batch Normalization allows us to use much higher learning rates and be less careful about initialization."
SOURCE = "ioffe2015batch"
FOLKLORE = "With batch normalization you can raise the learning rate."
CHAPTER, ROWS = 11, "learning_rate"
METRIC = "log10_of_the_highest_rate_that_learns"
EFFECT = "times higher a learning rate"
DELTA = RATE.delta
SIZE, NEEDS_MORE = log10(5), True  # "much higher": the smaller of the two increases in the paper was five times
SCOPE = "SGD, without momentum or with: the paper used no Adam"
FACTOR = "the optimizer", "the initialization"

TOLERANCE = 0.02  # of validation accuracy, of the second measure


def learns(row: Mapping) -> bool:
    """Whether a run did not diverge and ended above `LEARNS`."""
    return not row["diverged"] and row["val_accuracy"] > LEARNS


def tried(arm: Sequence[Mapping], beyond: int = 0) -> list[float]:
    """The rates among which the highest of an arm is looked for, those that are confirmed.

    From the best rate to the first above it at which no seed of the pilot learns, and `beyond` more: of the network
    without BN one, as its highest rate must not be underestimated.
    """
    choice = best(arm, over="lr")
    rates = sorted(lr for (lr,) in choice.means if lr >= choice.values["lr"])
    dead = [lr for lr in rates if not any(learns(row) for row in select(pilot(arm), lr=lr))]
    return rates[: rates.index(dead[0]) + 1 + beyond] if dead else rates


def usable(arm: Sequence[Mapping], beyond: int = 0, tolerance: float | None = None) -> dict[int, list[float]]:
    """The usable rates of an arm among those that are `tried`, by seed.

    Args:
        tolerance: how far below the mean of the pilot at the best rate the validation accuracy may lie; None: what
            still learns is usable.
    """
    least = max(best(arm, over="lr").means.values()) - (tolerance or 0)
    found: dict[int, list[float]] = {}
    for lr in tried(arm, beyond):
        for row in fresh(select(arm, lr=lr)):
            rates = found.setdefault(row["seed"], [])
            if learns(row) and (tolerance is None or row["val_accuracy"] >= least):
                rates.append(lr)
    return found


def highest(rates: Sequence[float], tried: Collection[float]) -> float:
    """The decimal logarithm of the highest usable rate; where there is none, half a decade below all tried."""
    return log10(max(rates)) if rates else log10(min(tried)) - 0.5


def compare_highest(
    name: str,
    with_bn: Sequence[Mapping],
    without: Sequence[Mapping],
    *,
    levels: tuple,
    tolerance: float | None = None,
) -> Comparison:
    """The highest usable rate, by seed, of the rows of one arm minus that of the other, in powers of ten.

    What was not run counts against the claim: with BN `bounds` are taken at the least, without at the most. Where
    taking them the other way round gives another outcome, the condition is left open.
    """
    arms = {"with BN": (with_bn, 0), "without BN": (without, 1)}
    choices = {arm: best(rows, over="lr") for arm, (rows, _) in arms.items()}
    edges = [f"lr of {arm!r}" for arm, choice in choices.items() if choice.edge]
    found = {}
    for (arm, (rows, beyond)), choice in zip(arms.items(), choices.values(), strict=True):
        run, grid = tried(rows, beyond), sorted(lr for (lr,) in choice.means)
        found[arm] = {seed: bounds(rates, run, grid) for seed, rates in usable(rows, beyond, tolerance).items()}
        if arm == "without BN" and any(most > log10(grid[-1]) for _, most in found[arm].values()):
            edges.append(f"usable rate of {arm!r}")
    against, for_it = (
        Comparison(
            name,
            *({seed: ends[end] for seed, ends in found[arm].items()} for arm, end in zip(arms, which, strict=True)),
            arms=tuple(arms),
            metric=METRIC,
            levels=levels,
        )
        for which in ((0, 1), (1, 0))
    )
    outcomes = {
        outcome(d.low, d.high, DELTA)
        for d in (against.difference, for_it.difference)
        if d is not None and d.low is not None
    }
    if len(outcomes) > 1 and not edges:
        edges.append("usable rate")
    settings = tuple(select(rows, lr=lr)[0]["setting"] for rows, beyond in arms.values() for lr in tried(rows, beyond))
    most = for_it.difference.high if for_it.difference else None
    reaches = {} if most is None else {"reaches": most}
    return replace(against, edges=tuple(edges), settings=settings, **reaches)


def bounds(rates: Sequence[float], run: Sequence[float], grid: Sequence[float]) -> tuple[float, float]:
    """What the highest usable rate of a seed is at least, and at most, in powers of ten.

    They differ where it lies outside the rates that were run. Where none of these is usable, it is the one below the
    first of them, or lower than all of the grid; where the last is usable, that, or the highest of the grid; half a
    decade above the grid where the last is its highest. Above a rate that fails none is taken to work.

    Args:
        rates: that are usable.
        run, grid: the rates that the seed ran, and all, in order.
    """
    if not rates:
        return highest([], grid), log10(max((lr for lr in grid if lr < run[0]), default=run[0]))
    if run[-1] not in rates:
        return (log10(max(rates)),) * 2
    return log10(run[-1]), log10(grid[-1]) + (0.5 if run[-1] == grid[-1] else 0.0)


def of_arm(rows: Sequence[Mapping], optimizer: str, init: str, norm: str) -> list[Mapping]:
    """The rows of an arm at all its rates."""
    return select(rows, optimizer=optimizer, init=init, norm=norm, steps=ALL_RATES)


def comparisons(rows: list[dict], tolerance: float | None = None) -> list[Comparison]:
    """The highest usable rate with BN minus that without, in every condition. For `tolerance` see `usable`."""
    return [
        compare_highest(
            words(*place),
            *(of_arm(rows, *place, norm) for norm in NORMS.values()),
            levels=place,
            tolerance=tolerance,
        )
        for place in conditions(rows)
    ]


def in_scope(comparison: Comparison) -> bool:
    """The paper trained by SGD."""
    return comparison.levels[0] != "Adam"


def figure(rows: list[dict]) -> Figure:
    """The highest rate of every arm that learns (filled), and that is within two points of its best (hollow)."""
    import matplotlib.pyplot as plt
    import numpy as np

    from ... import plotting

    places = conditions(rows)
    picture, ax = plt.subplots(figsize=(6.4, 0.75 * len(places) + 1.4))
    for (arm, norm), color, side in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), (-1, 1), strict=True):
        for i, place in enumerate(places):
            for row, (tolerance, face, what) in enumerate(
                ((None, color, "learns"), (TOLERANCE, "none", "within two points"))
            ):
                of_seeds = list(usable(of_arm(rows, *place, norm), norm == "none", tolerance).values())
                tops = [max(rates) if rates else np.nan for rates in of_seeds]  # a seed may have no usable rate
                y = i + side * (0.05 + 0.21 * row + np.linspace(0, 0.15, len(tops)))
                label = f"{arm}, {what}" if i == 0 else None
                ax.plot(tops, y, "o", ms=3.5, mew=0.9, mfc=face, color=color, label=label)
    ax.set(xscale="log", xlabel="highest learning rate", ylim=(len(places) - 0.5, -0.5))
    ax.set_yticks(range(len(places)), [words(*place) for place in places])
    ax.grid(axis="y", visible=False)
    picture.legend(loc="outside upper center", ncols=2)
    return picture
