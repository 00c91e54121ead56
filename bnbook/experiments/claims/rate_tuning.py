"""Whether free lengths of the weights are why batch normalization bears high learning rates, from the rows of `noise`.

Behind batch normalization the length of a row of weights does nothing but divide its learning rate: steps make it
grow, and growing it turns the rate down (chapter 12). Where rows are held at their first length this cannot happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import Comparison, fresh, select
from ..policy import RATE
from .higher_rates import TOLERANCE, highest
from .noise import BN, HELD, INITS, RATES, STANDARD, at_best_rate, starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is the highest learning rate that works lower when the weights behind it are held at their first lengths?"
CLAIM = (
    "Here theoretical support is provided for one of its conjectured properties, namely, the ability to allow gradient"
    " descent to succeed with less tuning of learning rates."
)
SOURCE = "arora2019theoretical"
FOLKLORE = "It lets the learning rate tune itself."
CHAPTER, ROWS = 17, "noise"
METRIC = "log10_of_the_highest_usable_rate"
EFFECT = "times higher a learning rate"
DELTA = RATE.delta
SCOPE = "a constant rate; ours fall to zero, so that none is within"
FACTOR = "the initialization"

TURNS = (0.1, 0.3, 1.0)  # the rates over which the turns of the weights are compared


def usable(rows: Sequence[Mapping], init: str, arm: str) -> dict[int, list[float]]:
    """The usable rates of an arm, by seed: validation accuracy at most two points below the pilot's at its best."""
    least = max(at_best_rate(rows, init, arm).means.values()) - TOLERANCE
    found: dict[int, list[float]] = {}
    for row in select(fresh(rows), init=init, arm=arm):
        rates = found.setdefault(row["seed"], [])
        if not row["diverged"] and row["val_accuracy"] >= least:
            rates.append(row["setting"]["lr"])
    return found


def comparisons(rows: list[dict], arms: tuple[str, str] = (BN, HELD)) -> list[Comparison]:
    """The highest usable rate with free lengths minus that with lengths held, in powers of ten."""
    result = []
    for init in starts(rows):
        rates = [{row["setting"]["lr"] for row in select(fresh(rows), init=init, arm=arm)} for arm in arms]
        a, b = (usable(rows, init, arm) for arm in arms)
        hidden = any(
            max(rates[1]) in found for found in b.values()
        )  # of A it may: its advantage is at least this large
        result.append(
            Comparison(
                INITS[init],
                *(
                    {seed: highest(found, tried) for seed, found in arm.items()}
                    for arm, tried in zip((a, b), rates, strict=True)
                ),
                arms=arms,
                metric=METRIC,
                edges=(f"usable rate of {arms[1]!r}",) if hidden else (),
                settings=confirmed(init),
            )
        )
    return result


def in_scope(comparison: Comparison) -> bool:
    """None: they prove it for rates that stay."""
    return False


def confirmed(init: str) -> tuple[dict, ...]:
    """What fresh seeds run for this claim: with free lengths and without BN all rates, with lengths held the higher."""
    rates = {BN: RATES, STANDARD: RATES[:-1], HELD: RATES[2:]}
    return tuple({"arm": arm, "init": init, "lr": lr} for arm, of_arm in rates.items() for lr in of_arm)


def slopes(rows: Sequence[Mapping], init: str, arm: str) -> dict[int, float | None]:
    """By seed: how many powers of ten more the weights turn for each power of ten in the rate, over TURNS."""
    found: dict[int, dict[float, float | None]] = {}
    for row in select(fresh(rows), init=init, arm=arm):
        found.setdefault(row["seed"], {})[row["setting"]["lr"]] = row["log10_turn"]
    result = {}
    for seed, turns in found.items():
        values = [turns.get(lr) for lr in TURNS]
        result[seed] = None if None in values else float(np.polyfit(np.log10(TURNS), values, 1)[0])
    return result


def figure(rows: list[dict]) -> Figure:
    """How far an update turns the weights over the learning rate, with free lengths and with lengths held."""
    import matplotlib.pyplot as plt

    from ... import plotting

    picture, axes = plt.subplots(1, len(starts(rows)), figsize=(6.4, 3.2), sharey=True, squeeze=False)
    for ax, init in zip(axes[0], starts(rows), strict=True):
        for arm, color in ((BN, plotting.WITH_BN), (HELD, plotting.GREEN)):
            runs = [row for row in select(fresh(rows), init=init, arm=arm) if row["log10_turn"] is not None]
            failed = {row["setting"]["lr"] for row in runs if row["val_accuracy"] <= 0.5}
            rates = sorted({row["setting"]["lr"] for row in runs} - failed)
            turns = [[10 ** row["log10_turn"] for row in select(runs, lr=lr)] for lr in rates]
            ax.plot(rates, [np.exp(np.mean(np.log(values))) for values in turns], color=color, label=arm)
            for lr, values in zip(rates, turns, strict=True):
                ax.plot([lr] * len(values), values, ".", ms=4, color=color, alpha=0.6)
        ax.set(xscale="log", yscale="log", xlabel="learning rate", title=INITS[init])
    axes[0, 0].set_ylabel("turn per update (radians)")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
