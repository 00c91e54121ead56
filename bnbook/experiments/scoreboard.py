"""The scoreboard: every measured claim, the effect in each of its conditions, and the verdict, made from the results.

Chapter 18 shows it. `CLAIMS` is the list of chapter 1, word for word, with the experiments that answer each line; an
experiment that is not in it fails a test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING

from . import RESULTS, Comparison, Experiment, Verdict, find, judge
from .engine.experiment import BOOK, inventory
from .engine.rows import ResultsError
from .engine.words import CONTRADICTED, INCONCLUSIVE, SUPPORTED, amount, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLAIMS = {  # line of chapter 1: {experiment: title of its row}
    "It makes training faster.": {
        "faster": "Fewer updates to the same accuracy",
        "learning_rate": "A better network in the end",
        "full_size": "A better network at full size",
        "sigmoid": "The first experiment of the paper",
    },
    "It allows higher learning rates.": {
        "higher_rates": "Higher learning rates",
        "rate_tuning": "Free lengths tune the rate",
    },
    "The higher rates are *the reason* why it is faster.": {
        "rate_is_the_reason": "The rate is the reason",
    },
    "It lets you be less careful about the start, the scale of the weights.": {
        "init_scale": "Less care about the initial weights",
    },
    "It keeps gradients from vanishing and exploding.": {
        "gradients": "Even gradients",
    },
    "It makes deeper networks trainable.": {
        "depth": "Deeper networks",
        "conv_depth": "Deeper convolutional networks",
    },
    "It regularizes, so that other means become unnecessary.": {
        "regularization": "A regularizer",
        "noise_helps": "The noise of the statistics helps",
        "need_for_dropout": "Less need for dropout",
    },
    "It belongs before the activation.": {
        "placement": "Before the activation",
        "dropout_before_norm": "Dropout before it does harm",
    },
    "It works because it reduces internal covariate shift.": {
        "covariate_shift": "Less internal covariate shift",
        "noise": "Stable distributions are the reason",
    },
    "It works because it makes the loss smoother.": {
        "landscape": "A smoother loss",
    },
}
NO_VERDICT = "no verdict yet"


@dataclass(frozen=True)
class Row:
    """A row of the scoreboard: an experiment and what its results say so far."""

    name: str
    title: str
    line: str  # of chapter 1
    experiment: Experiment
    done: int  # of the planned runs
    planned: int
    judged: Verdict | None  # None while planned runs are missing
    comparisons: Sequence[Comparison]  # the conditions that were judged

    @property
    def anchor(self) -> str:
        """What the row is cited by: its label on the page."""
        return f"scoreboard-{self.name.replace('_', '-')}"

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return self.judged.word if self.judged else NO_VERDICT

    @property
    def sentence(self) -> str:
        """The verdict in the sentence of `experiments.judge`, or how many runs there are."""
        if self.judged:
            return self.judged.sentence
        return f"No verdict yet: {self.done:,} of {self.planned:,} planned runs."


def row(name: str, results: str | Path = RESULTS) -> Row:
    """The row of one experiment.

    Raises:
        ValueError: there is no experiment of this name, or it is not in `CLAIMS`.
        ResultsError: a damaged line in its results.
    """
    experiment = find(name)
    line = next((line for line, titles in CLAIMS.items() if name in titles), None)
    if line is None:
        raise ValueError(f"the experiment {name!r} must stand in bnbook.experiments.scoreboard.CLAIMS")
    source = find(experiment.rows_of)
    path = source.file(results)
    found, plan = inventory(source, path), source.plan(path)
    if found.damage:
        raise ResultsError(found.damage[0])
    planned = len(source.settings()) * source.seeds + (len(plan.settings) * plan.seeds if plan else 0)
    done = planned - len(found.missing)
    judged = judge(found.rows, name) if done == planned and (plan or not source.confirm) else None
    comparisons = experiment.comparisons(found.rows) if judged and judged.outcomes else ()
    return Row(name, CLAIMS[line][name], line, experiment, done, planned, judged, tuple(comparisons))


def board(results: str | Path = RESULTS) -> list[Row]:
    """All rows, in the order of chapter 1."""
    return [row(name, results) for titles in CLAIMS.values() for name in titles]


# In Markdown


def table(rows: Sequence[Row]) -> str:
    """The list of chapter 1 with the rows that answer each line, and their verdicts."""
    lines = [("claim, as in chapter 1", "measured as", "verdict")]
    for claim in CLAIMS:
        answers = [row for row in rows if row.line == claim]
        lines += [
            (claim if i == 0 else "", f"[{row.title}](#{row.anchor}) ({_chapter(row)})", f"**{row.word}**{_count(row)}")
            for i, row in enumerate(answers)
        ]
        if not answers:
            lines.append((claim, "not measured yet", NO_VERDICT))
    return _table(lines)


def details(row: Row) -> str:
    """Claim, setting, effects with intervals, and verdict of a row."""
    measured = row.experiment
    updates = f"{measured.steps:,}" if measured.steps else "no"
    delta = f"{_amount(measured.delta, measured.metric, sign=False)}, {measured.metric.replace('_', ' ')}"
    seeds = f"{measured.seeds} paired seeds"
    if measured.confirm:
        seeds = f"settings chosen on {measured.seeds} seeds, and the verdict from fresh ones"
    less = "less contradicts the claim" if measured.needs_more else "below −δ the claim is contradicted"
    parts = [
        f"> “{measured.claim}”",
        f"**Question.** {measured.question} See {_chapter(row)}.",
        f"**Our setting.** {measured.dataset}; {measured.network}; {updates} updates; {seeds};"
        f" smallest effect of interest δ = {delta}; {less}.",
    ]
    if row.comparisons:
        first = row.comparisons[0]
        parts += [
            f"**Effect**, {first.metric.replace('_', ' ')} of “{first.arms[0]}” minus that of “{first.arms[1]}”:",
            _table(
                [("condition", "effect", "95 % interval", "outcome"), *map(_effect, row.comparisons, _outcomes(row))]
            ),
        ]
    parts += [f"**Verdict.** {row.sentence}", f"Cite this row as [#{row.anchor}](#{row.anchor})."]
    return "\n\n".join(parts)


def _effect(comparison: Comparison, outcome: str) -> tuple[str, str, str, str]:
    difference, metric = comparison.difference, comparison.metric
    word = outcome.removesuffix(" here")
    if difference is None or difference.low is None:
        return comparison.name, "–", "–", word
    return comparison.name, _amount(difference.mean, metric), interval(difference.low, difference.high, metric), word


def _amount(value: float, metric: str, sign: bool = True) -> str:
    """As the verdict has it; powers of ten also as the factor that they are."""
    factor = f" ({10**value:.2g} times)" if "log10" in metric or "decades" in metric else ""
    return amount(value, metric, sign) + factor


def _outcomes(row: Row) -> list[str]:
    return [row.judged.outcomes[comparison.name] for comparison in row.comparisons]


def _count(row: Row) -> str:
    return "" if row.judged else f" ({row.done:,} of {row.planned:,} runs)"


def _chapter(row: Row) -> str:
    """The chapter that measures a row, as a link where the book's contents list it."""
    title, toc = f"chapter {row.experiment.chapter}", BOOK.parent / "_toc.yml"
    found = re.search(
        rf"/({row.experiment.chapter:02}_\w+)$", toc.read_text(encoding="utf-8") if toc.exists() else "", flags=re.M
    )
    return f"[{title}]({found[1]}.ipynb)" if found else title


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])


# As a picture

HEADING, CONDITION = 0.26, 0.1  # inches


def forest(rows: Sequence[Row]) -> Figure:
    """Every condition of every row with its 95 % interval, in units of the row's own δ; the band is from −δ to δ."""
    import matplotlib.pyplot as plt

    from .. import plotting

    styles = {
        SUPPORTED: ("o", plotting.GREEN),
        CONTRADICTED: ("s", plotting.PURPLE),
        INCONCLUSIVE: ("D", plotting.GREY),
    }
    height = sum(HEADING + CONDITION * (len(row.comparisons) + 1) for row in rows)
    figure, ax = plt.subplots(figsize=(6, height + 1.1))
    limit, y = 200.0, 0.0  # an accuracy cannot differ by more than 200 half points
    for row in rows:
        y += HEADING
        word = row.word.split(" on ")[0] if row.judged else f"{row.done:,} of {row.planned:,} runs"
        for side, text, weight in (("left", row.title, "bold"), ("right", word, "normal")):
            at = {"left": 0.005, "right": 0.995}[side]
            ax.text(at, y - 0.07, text, transform=ax.get_yaxis_transform(), ha=side, size=9, weight=weight)
        for comparison, outcome in zip(row.comparisons, _outcomes(row), strict=True):
            y += CONDITION
            if comparison.difference is None or comparison.difference.low is None:
                continue
            marker, color = styles[outcome]
            low, mean, high = (
                value / row.experiment.delta
                for value in (comparison.difference.low, comparison.difference.mean, comparison.difference.high)
            )
            ax.plot([low, high], [y, y], color=color, lw=1.5, solid_capstyle="butt")
            ax.plot(mean, y, marker, ms=4, color=color)
            limit = max(limit, 1.2 * abs(low), 1.2 * abs(high))
        y += CONDITION
    for outcome, (marker, color) in styles.items():
        ax.plot([], [], marker, ls="-", ms=4, lw=1.5, color=color, label=outcome)
    ax.axvspan(-1, 1, color="#ececec", zorder=0, lw=0)
    ax.axvline(0, color="k", lw=0.8, zorder=0.5)
    decades = [10**power for power in range(int(log10(limit)) + 1)]
    ax.set_xscale("symlog", linthresh=1)
    ticks = [-value for value in reversed(decades)] + [0] + decades
    ax.set_xticks(ticks, [f"{value:g}".replace("-", "−") for value in ticks])
    ax.minorticks_off()
    ax.set(xlim=(-limit, limit), ylim=(y, 0), yticks=[], xlabel="effect, in units of the claim's own δ")
    ax.spines["left"].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=10)
    return figure
