"""Whether the higher learning rates are the reason, from `learning_rate_cosine`.

The gain of batch normalization, each network at its own best rate, is the sum of two: what it gains at the rate of the
network without, and what it gains further from there to its own rate. Where both have the same best rate there is
nothing to tell apart: that is no test of the claim, and these conditions are not among the comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import Comparison, compare, fresh, select
from . import rate_is_the_reason as first
from .learning_rate import NORMS, conditions, words
from .learning_rate import in_scope as in_scope
from .learning_rate_cosine import ALL_RATES, at_best_rate
from .rate_is_the_reason import PARTS, Gains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does batch normalization gain by its own best rate, where that is another, or already at the same rate?"
CLAIM, SOURCE, FOLKLORE = first.CLAIM, first.SOURCE, first.FOLKLORE
CHAPTER, ROWS = 11, "learning_rate_cosine"
METRIC, DELTA = first.METRIC, first.DELTA
SCOPE, FACTOR = first.SCOPE, first.FACTOR


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
    """The two parts of the gain in every condition, with their 95 % intervals over seeds."""
    return first.figure(rows, gains)
