"""What the live figures of Part III show, from the rows: `plotting.live` with data that nobody types.

The last line of the cell whose output it belongs to::

    interactive.rates(rows)         over the picture: every learning rate, the settings by control
    interactive.bet("depth")        in front of the picture, which is veiled until the reader has bet
    interactive.curve_bet(...)      the same, and the bet is a curve
    interactive.bets()              how the bets of all chapters did

Data are rounded, so that a page is the same on every processor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from . import RESULTS, scoreboard
from .engine.statistics import CONFIRM, PairedDifference, measured
from .engine.verdict import Verdict
from .engine.words import (
    CONTRADICTED,
    DIRECTION,
    NEGLIGIBLE,
    OPEN,
    REVERSED,
    SMALLER,
    SUPPORTED,
    amount,
    interval,
    summary,
)

if TYPE_CHECKING:
    from ..plotting import LiveFigure

OPTIONS = {  # what a reader can bet on: words on the page
    "supported": "it does, by a size worth having",
    "little": "too little to matter",
    "reversed": "the reverse",
    "depends": "it depends on the conditions",
    "open": "these runs cannot tell",
}
_OPTION_OF = {
    SUPPORTED: "supported",
    SMALLER: "little",
    NEGLIGIBLE: "little",
    REVERSED: "reversed",
    DIRECTION: "open",
    OPEN: "open",
}


def rates(rows: Sequence[Mapping], metric: str = "val_accuracy", chance: float = 0.1) -> LiveFigure:
    """Accuracy over the learning rate: mean, least and largest over the seeds of each setting.

    Args:
        rows: of settings that have "norm" and "lr"; of everything else that they vary the reader chooses.
        metric: what is drawn.
        chance: what a diverged run counts as.

    Raises:
        ValueError: there are no rows; settings without "norm" or "lr".
    """
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        if missing := {"norm", "lr"} - row["setting"].keys():
            raise ValueError(f"rows must have norm and lr in their settings, one lacks {' and '.join(sorted(missing))}")
        if row.get("phase") != CONFIRM:
            groups.setdefault(tuple(row["setting"].items()), []).append(row)
    if not groups:
        raise ValueError("rows must hold at least one run, got none")
    table = []
    for setting, runs in groups.items():
        values = [measured(run, metric, chance) for run in runs]
        statistics = {"accuracy": fmean(values), "low": min(values), "high": max(values)}
        table.append(
            {
                **dict(setting),
                **{name: round(value, 5) for name, value in statistics.items()},
                "failed": sum(run["diverged"] for run in runs),
                "runs": len(runs),
            }
        )
    return _live("rates", rows=table)


def bet(name: str, condition: str | None = None, results: str | Path = RESULTS) -> LiveFigure:
    """A bet on what the runs say about a claim.

    Args:
        name: of the experiment; the question is the claim as people repeat it.
        condition: one of its conditions; then the bet is on that alone. None: on all.

    Raises:
        ValueError: there is no such experiment, or no such condition.
    """
    row = scoreboard.row(name, results)
    measured_as, judged = row.experiment, row.judged
    found = {c.name: c for c in row.comparisons if c.difference and c.difference.low is not None}
    if condition is not None and judged and judged.outcomes and condition not in judged.outcomes:
        raise ValueError(f"condition must be one of {', '.join(judged.outcomes)}, got {condition!r}")
    names = list(found) if condition is None else [n for n in found if n == condition]
    options = {key: words for key, words in OPTIONS.items() if condition is None or key != "depends"}
    where = f" Here: {condition}." if condition else ""
    if condition is None:
        said = f"In the words of the scoreboard: {_full(judged)}." if judged else None
    else:
        said = "".join(_effect(c.difference, measured_as.metric) for n, c in found.items() if n == condition)
    return _live(
        "bet",
        id=name if condition is None else f"{name}: {condition}",
        title=row.title if condition is None else f"{row.title}: {condition}",
        question=f"“{measured_as.folklore}” What will our runs say?{where}",
        options=list(options.items()),
        verdict=_option(judged, condition) if judged else None,
        found=said,
        conditions=[
            {"name": n, **{end: _short(getattr(found[n].difference, end)) for end in ("mean", "low", "high")}}
            for n in names
        ],
        delta=_short(measured_as.delta),
        unit=f"{measured_as.effect}; δ: {amount(measured_as.delta, measured_as.metric, sign=False)}",
    )


def curve_bet(
    id: str,
    title: str,
    question: str,
    x: Sequence[float],
    y: Sequence[float],
    *,
    low: float,
    high: float,
    xname: str,
    yname: str,
) -> LiveFigure:
    """A bet that the reader draws: a value `y` for each `x`.

    Args:
        id: what it is kept by in the reader's browser: letters, digits and hyphens, the same for ever.
        title: in the list of chapter 18.
        x: at most 12 numbers.
        low, high: the ends of the axis, which must not give the answer away.

    Raises:
        ValueError: an argument that is out of range.
    """
    if not re.fullmatch(r"[a-z0-9-]+", id):
        raise ValueError(f"id must be of small letters, digits and hyphens, got {id!r}")
    if not 2 <= len(x) <= 12 or len(x) != len(y):
        raise ValueError(f"x and y must be of one length from 2 to 12, got {len(x)} and {len(y)}")
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    for value in y:
        if not low <= value <= high:  # nor a NaN
            raise ValueError(f"y must lie between low = {low} and high = {high}, got {value}")
    ends = {"low": low, "high": high, "xname": xname, "yname": yname}
    numbers = {"x": [_short(v) for v in x], "y": [_short(v) for v in y]}
    return _live("bet", id=id, title=title, question=question, **numbers, **ends)


def bets() -> LiveFigure:
    """How the reader's bets did. They are in the reader's browser, so this has no data."""
    return _live("bets")


def _live(name: str, **data: object) -> LiveFigure:
    from .. import plotting  # matplotlib is imported where it is needed

    return plotting.live(name, **data)


def _option(judged: Verdict, condition: str | None) -> str:
    """What a reader should have bet on."""
    if condition is not None:
        return _OPTION_OF[judged.outcomes.get(condition, OPEN)]
    if "depends on" in judged.word:  # or its size does
        return "depends"
    if judged.word == CONTRADICTED:  # all are reversed, or the claim asks for more than any of them has
        return "reversed" if set(judged.outcomes.values()) == {REVERSED} else "little"
    return _OPTION_OF[judged.word]


def _full(judged: Verdict) -> str:
    return ": ".join(dict.fromkeys([judged.word, summary(judged.outcomes.values()) or judged.word]))


def _effect(difference: PairedDifference, metric: str) -> str:
    ends = interval(difference.low, difference.high, metric)
    return f"The difference is {amount(difference.mean, metric)} {ends}."


def _short(value: float) -> float:
    """Four digits, more than a drawing shows."""
    return float(f"{value:.4g}") if math.isfinite(value) else value
