"""Whether the higher learning rates are the reason, from the rows of `learning_rate`.

The gain of batch normalization, each network at its own best rate, is the sum of two: what it gains at the rate of the
network without, and what it gains further from there to its own rate. Where both have the same best rate there is
nothing to tell apart: that is no test of the claim, and these conditions are not among the comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import Comparison, compare, fresh, select
from ..policy import POINTS
from .learning_rate import ALL_RATES, NORMS, at_best_rate, conditions, words
from .learning_rate import in_scope as in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does batch normalization gain by its own best rate, where that is another, or already at the same rate?"
CLAIM = (
    "BN primarily enables training with larger learning rates, which is the cause for faster convergence and better"
    " generalization."
)
SOURCE = "bjorck2018understanding"
FOLKLORE = "It is faster and better because it allows higher learning rates."
CHAPTER, ROWS = 11, "learning_rate"
METRIC, DELTA = "gain_in_test_accuracy", POINTS.delta
SCOPE = "SGD with momentum, as in the paper"
FACTOR = "the optimizer", "the initialization"

PARTS = ("the change of rate", "BN at the same rate")


class Gains(NamedTuple):
    """The two parts of the gain in one condition; their sum is the gain at own best rates."""

    by_the_rate: Comparison
    at_the_same_rate: Comparison


def gains(rows: Sequence[Mapping], optimizer: str, init: str) -> Gains:
    """BN at its own rate minus BN at the best rate of the network without, and that minus the network without."""
    with_bn, without = (at_best_rate(rows, optimizer, init, norm) for norm in NORMS.values())
    between = select(rows, optimizer=optimizer, init=init, norm=NORMS["with BN"], steps=ALL_RATES, **without.values)
    names = ("with BN", "with BN at the other's rate", "without BN")
    return Gains(
        compare(words(optimizer, init), with_bn, fresh(between), arms=names[:2]),
        compare(words(optimizer, init), fresh(between), without, arms=names[1:]),
    )


def that_test(rows: Sequence[Mapping]) -> list[tuple[str, str]]:
    """The conditions in which the two networks have different best rates."""
    return [
        place
        for place in conditions(rows)
        if len({at_best_rate(rows, *place, norm).values["lr"] for norm in NORMS.values()}) > 1
    ]


def comparisons(rows: list[dict]) -> list[Comparison]:
    """The part of the gain that comes with the change of rate minus the part that is there without it."""
    result = []
    for place in that_test(rows):
        parts = gains(rows, *place)
        a, b = ({seed: part.a[seed] - part.b[seed] for seed in part.seeds} for part in parts)
        edges = tuple(edge for part in parts for edge in part.edges)
        settings = tuple(setting for part in parts for setting in part.settings)
        result.append(
            Comparison(words(*place), a, b, arms=PARTS, metric=METRIC, edges=edges, levels=place, settings=settings)
        )
    return result


def figure(rows: list[dict]) -> Figure:
    """The two parts of the gain in every condition, with 95 % intervals over seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    places = conditions(rows)
    picture, ax = plt.subplots(figsize=(6.4, 0.55 * len(places) + 1.1))
    for k, (label, color) in enumerate(zip(PARTS, (plotting.PURPLE, plotting.SKY), strict=True)):
        for i, place in enumerate(places):
            part, y = gains(rows, *place)[k], i + 0.28 * k - 0.14
            points = [100 * (part.a[seed] - part.b[seed]) for seed in part.seeds]
            ax.barh(y, sum(points) / len(points), 0.26, color=color, alpha=0.5, label=None if i else label)
            ax.plot(points, [y] * len(points), ".", ms=5, color=color)
            if part.difference.low is not None:
                ax.plot([100 * part.difference.low, 100 * part.difference.high], [y, y], color="k", lw=1)
    ax.axvline(0, color="k", lw=0.8)
    ax.set(xlabel="gain in test accuracy (points)", ylim=(len(places) - 0.5, -0.5))
    ax.set_yticks(range(len(places)), [words(*place) for place in places])
    ax.grid(axis="y", visible=False)
    picture.legend(loc="outside upper center", ncols=2)
    return picture
