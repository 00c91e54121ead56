"""Whether batch normalization allows higher learning rates, from `learning_rate_cosine`.

A rate works where the network still learns: it ends above a validation accuracy of 0.6. A second, narrower measure
counts the rates that are at most two points worse than the best (`usable` with `TOLERANCE`); the verdict is by the
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import Comparison, best, fresh, select
from ..engine.statistics import CONFIRM
from . import higher_rates
from .higher_rates import TOLERANCE, highest
from .higher_rates import in_scope as in_scope
from .learning_rate import NORMS, conditions, words
from .learning_rate_cosine import ALL_RATES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How much higher is the highest learning rate that still learns with batch normalization than without?"
CLAIM, SOURCE, FOLKLORE = higher_rates.CLAIM, higher_rates.SOURCE, higher_rates.FOLKLORE
CHAPTER, ROWS = 11, "learning_rate_cosine"
METRIC = "log10_of_the_highest_rate_that_learns"
EFFECT, DELTA, SIZE, NEEDS_MORE = higher_rates.EFFECT, higher_rates.DELTA, higher_rates.SIZE, higher_rates.NEEDS_MORE
SCOPE, FACTOR = higher_rates.SCOPE, higher_rates.FACTOR

LEARNS = 0.6  # a network whose validation accuracy is above this has learned


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
    pilot = [row for row in arm if row.get("phase") != CONFIRM]
    dead = [lr for lr in rates if not any(learns(row) for row in select(pilot, lr=lr))]
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


def compare_highest(
    name: str,
    with_bn: Sequence[Mapping],
    without: Sequence[Mapping],
    *,
    levels: tuple,
    tolerance: float | None = None,
) -> Comparison:
    """The highest usable rate, by seed, of the rows of one arm minus that of the other, in powers of ten."""
    arms = {"with BN": (with_bn, 0), "without BN": (without, 1)}
    choices = {arm: best(rows, over="lr") for arm, (rows, _) in arms.items()}
    found = [usable(rows, beyond, tolerance) for rows, beyond in arms.values()]
    grids = [[lr for (lr,) in choice.means] for choice in choices.values()]
    edges = [f"lr of {arm!r}" for arm, choice in choices.items() if choice.edge]
    # Where the grid hides rates of BN its advantage is at least this large. Of the other arm it must hide none.
    if any(tried(without, 1)[-1] in rates for rates in found[1].values()):
        edges.append("usable rate of 'without BN'")
    return Comparison(
        name,
        *(
            {seed: highest(rates, grid) for seed, rates in of_arm.items()}
            for of_arm, grid in zip(found, grids, strict=True)
        ),
        arms=tuple(arms),
        metric=METRIC,
        edges=tuple(edges),
        levels=levels,
        settings=tuple(
            select(rows, lr=lr)[0]["setting"] for rows, beyond in arms.values() for lr in tried(rows, beyond)
        ),
    )


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


def figure(rows: list[dict]) -> Figure:
    """The highest rate of every arm that learns (filled), and that is within two points of its best (hollow)."""
    import matplotlib.pyplot as plt
    import numpy as np

    from ... import plotting

    places = conditions(rows)
    picture, ax = plt.subplots(figsize=(6.4, 0.55 * len(places) + 1.4))
    for (arm, norm), color, side in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), (-1, 1), strict=True):
        for i, place in enumerate(places):
            for tolerance, face, what in ((None, color, "learns"), (TOLERANCE, "none", "within two points")):
                of_seeds = list(usable(of_arm(rows, *place, norm), norm == "none", tolerance).values())
                tops = [max(rates) if rates else np.nan for rates in of_seeds]  # a seed may have no usable rate
                y = i + side * np.linspace(0.08, 0.38, len(tops))
                label = f"{arm}, {what}" if i == 0 else None
                ax.plot(tops, y, "o", ms=3.5, mew=0.9, mfc=face, color=color, label=label)
    ax.set(xscale="log", xlabel="highest learning rate", ylim=(len(places) - 0.5, -0.5))
    ax.set_yticks(range(len(places)), [words(*place) for place in places])
    ax.grid(axis="y", visible=False)
    picture.legend(loc="outside upper center", ncols=2)
    return picture
