"""Whether batch normalization allows higher learning rates, from `learning_rate_cosine`.

A rate works where the network still learns: it ends above a validation accuracy of 0.6. A second, narrower measure
counts the rates that are at most two points worse than the best (`usable` with `TOLERANCE`); the verdict is by the
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import Comparison, fresh, select
from ..engine.statistics import CONFIRM
from . import higher_rates
from .higher_rates import TOLERANCE, highest
from .higher_rates import in_scope as in_scope
from .learning_rate import NORMS, conditions, words
from .learning_rate_cosine import ALL_RATES, at_best_rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION, CLAIM, SOURCE = higher_rates.QUESTION, higher_rates.CLAIM, higher_rates.SOURCE
FOLKLORE = higher_rates.FOLKLORE
CHAPTER, ROWS = 11, "learning_rate_cosine"
METRIC = "log10_of_the_highest_rate_that_learns"
EFFECT, DELTA, SIZE, NEEDS_MORE = higher_rates.EFFECT, higher_rates.DELTA, higher_rates.SIZE, higher_rates.NEEDS_MORE
SCOPE, FACTOR = higher_rates.SCOPE, higher_rates.FACTOR

LEARNS = 0.6  # a network whose validation accuracy is above this has learned


def tried(rows: Sequence[Mapping], optimizer: str, init: str, norm: str) -> list[float]:
    """The rates of an arm among which the highest is looked for, those that are confirmed.

    From the best rate to the first above it at which no seed of the pilot learns; without BN to the one after that, as
    its highest must not be underestimated.
    """
    choice = at_best_rate(rows, optimizer, init, norm)
    pilot = [r for r in _of(rows, optimizer, init, norm) if r.get("phase") != CONFIRM]
    rates = sorted(lr for (lr,) in choice.means if lr >= choice.values["lr"])
    dead = [lr for lr in rates if not any(learns(row) for row in select(pilot, lr=lr))]
    last = rates.index(dead[0]) if dead else len(rates)
    return rates[: last + (1 if norm == NORMS["with BN"] else 2)]


def _of(rows: Sequence[Mapping], optimizer: str, init: str, norm: str) -> list[Mapping]:
    return select(rows, optimizer=optimizer, init=init, norm=norm, steps=ALL_RATES)


def learns(row: Mapping) -> bool:
    """Whether a run did not diverge and ended above `LEARNS`."""
    return not row["diverged"] and row["val_accuracy"] > LEARNS


def usable(
    rows: Sequence[Mapping], optimizer: str, init: str, norm: str, tolerance: float | None = None
) -> dict[int, list[float]]:
    """The usable rates of an arm among those that are `tried`, by seed.

    Args:
        tolerance: how far below the mean of the pilot at the best rate the validation accuracy may lie; None: what
            still learns is usable.
    """
    least = max(at_best_rate(rows, optimizer, init, norm).means.values()) - (tolerance or 0)
    found: dict[int, list[float]] = {}
    arm = _of(rows, optimizer, init, norm)
    for lr in tried(rows, optimizer, init, norm):
        for row in fresh(select(arm, lr=lr)):
            rates = found.setdefault(row["seed"], [])
            if learns(row) and (tolerance is None or row["val_accuracy"] >= least):
                rates.append(lr)
    return found


def comparisons(rows: list[dict], tolerance: float | None = None) -> list[Comparison]:
    """The highest usable rate, by seed, with BN minus without, in powers of ten. For `tolerance` see `usable`."""
    result = []
    for place in conditions(rows):
        grid = {lr for norm in NORMS.values() for (lr,) in at_best_rate(rows, *place, norm).means}
        a, b = (usable(rows, *place, norm, tolerance) for norm in NORMS.values())
        # Where the grid hides rates of BN its advantage is at least this large. Of the other arm it must hide none.
        last = tried(rows, *place, NORMS["without BN"])[-1]
        edges = ["usable rate of 'without BN'"] if any(last in rates for rates in b.values()) else []
        edges += [f"lr of {arm!r}" for arm, norm in NORMS.items() if at_best_rate(rows, *place, norm).edge]
        result.append(
            Comparison(
                words(*place),
                *({seed: highest(rates, grid) for seed, rates in arm.items()} for arm in (a, b)),
                arms=tuple(NORMS),
                metric=METRIC,
                edges=tuple(edges),
                levels=place,
                settings=tuple(
                    select(_of(rows, *place, norm), lr=lr)[0]["setting"]
                    for norm in NORMS.values()
                    for lr in tried(rows, *place, norm)
                ),
            )
        )
    return result


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
                of_seeds = list(usable(rows, *place, norm, tolerance).values())
                tops = [max(rates) if rates else np.nan for rates in of_seeds]  # a seed may have no usable rate
                y = i + side * np.linspace(0.08, 0.38, len(tops))
                label = f"{arm}, {what}" if i == 0 else None
                ax.plot(tops, y, "o", ms=3.5, mew=0.9, mfc=face, color=color, label=label)
    ax.set(xscale="log", xlabel="highest learning rate", ylim=(len(places) - 0.5, -0.5))
    ax.set_yticks(range(len(places)), [words(*place) for place in places])
    ax.grid(axis="y", visible=False)
    picture.legend(loc="outside upper center", ncols=2)
    return picture
