"""The scoreboard: every measured claim, the effect in each of its conditions, and the verdict, made from the results.

Chapter 18 shows it. `CLAIMS` is the list of chapter 1, word for word, with the experiments that answer each line; an
experiment that is not in it fails a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from . import RESULTS, Comparison, Experiment, Verdict, find, fresh, judge, pilot, policy, verdict
from .engine.experiment import BOOK, inventory, of_planned_seeds
from .engine.multiple import ALPHA, benjamini_hochberg, holm, p_of, survivors
from .engine.plan import Earlier, Plan, width
from .engine.plan import load as load_plan
from .engine.rows import ResultsError
from .engine.verdict import beside
from .engine.words import (
    DIRECTION,
    NEGLIGIBLE,
    OPEN,
    OUTCOMES,
    REVERSED,
    SMALLER,
    SUPPORTED,
    amount,
    interval,
    is_factor,
    measured_as,
    summary,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLAIMS = {  # line of chapter 1: {experiment: title of its row}
    "It makes training faster.": {
        "faster": "Fewer updates to the same accuracy",
        "conv_faster": "Fewer updates of convolutional networks",
        "learning_rate": "A better network in the end",
        "conv_speed": "A better convolutional network in the end",
        "full_size": "A better network at full size",
        "sigmoid": "The first experiment of the paper",
    },
    "It allows higher learning rates.": {
        "higher_rates": "Higher learning rates",
        "conv_rates": "Higher rates of convolutional networks",
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
        "regularized_loss": "A regularizer of the loss",
        "regularized_calibration": "A regularizer of confidence",
        "noise_helps": "The noise of the statistics helps",
        "need_for_dropout": "Less need for dropout",
        "conv_regularization": "A regularizer of convolutional networks",
        "conv_regularized_loss": "The loss of convolutional networks",
        "conv_regularized_calibration": "The confidence of convolutional networks",
    },
    "It belongs before the activation.": {
        "placement": "Before the activation",
        "dropout_before_norm": "Dropout before it does harm",
        "conv_order": "Before the activation in convolutional networks",
        "conv_dropout_order": "Dropout before it in convolutional networks",
    },
    "It works because it reduces internal covariate shift.": {
        "covariate_shift": "Less internal covariate shift",
        "noise": "Stable distributions are the reason",
        "conv_why": "Stable distributions in convolutional networks",
    },
    "It works because it makes the loss smoother.": {
        "landscape": "A smoother loss",
        "conv_smoothness": "A smoother loss of convolutional networks",
    },
    "It fails in small batches.": {
        "small_batches": "Better without the batch",
        "batch_renorm": "Batch Renormalization",
    },
}
NO_VERDICT = "no verdict yet"


class Situation(NamedTuple):
    """A row of the first tables: what somebody has, or changes, and the conditions that answer for it."""

    words: str  # the number of updates follows
    experiment: str
    holds: Callable[[Comparison], bool]
    change: bool = False  # another network with batch normalization, or another normalization, is asked about


CHANGES = "**you change**", "**the change gives**", ""  # the head of the rows that say so


def _level(*values: object) -> Callable[[Comparison], bool]:
    """Whether a condition has one of these levels, or names."""
    return lambda comparison: comparison.name in values or any(level in values for level in comparison.levels)


def _against_none(depths: tuple[int, ...], *starts: str) -> Callable[[Comparison], bool]:
    """Whether a condition is one of a ResNet of these depths, against none from these initial weights."""
    return lambda c: c.levels[0] in depths and c.levels[1] in {f"no BN, {start}" for start in starts}


FIRST = (  # what most people have
    Situation("ResNet-8, momentum", "conv_depth", _against_none((8,), "He", "default init")),
    Situation("the same, He weights", "conv_speed", lambda c: c.levels == ("ResNet-8", "SGD, momentum 0.9", "none")),
    Situation("ResNet-20 or -56, default weights", "conv_depth", _against_none((20, 56), "default init")),
    Situation("the same, He weights", "conv_depth", _against_none((20, 56), "He")),
    Situation("VGG-6, 1,024 images", "conv_regularization", _level("none")),
    Situation(
        "the same, unregularized",
        "conv_regularized_loss",
        lambda c: c.levels == ("no other regularizer", "none"),
    ),
    Situation("a CNN, 50,000 images", "full_size", lambda c: True),
    Situation("a small CNN, plain SGD", "faster", _level("SGD")),
    Situation("the same, momentum or Adam", "faster", _level("SGD, momentum 0.9", "Adam")),
    Situation("40 fully connected layers, default weights", "depth", _level("plain network, default weights")),
    Situation("the same, He weights", "depth", _level("plain network, He weights")),
    Situation(
        "weights 3–100 times too small or 3–10 too large, plain SGD",
        "init_scale",
        _level("He × 0.01", "He × 0.0316", "He × 0.1", "He × 0.316", "He × 3.16", "He × 10"),
    ),
    Situation(
        "group norm instead, batches of 2, CNN with a fully connected layer",
        "small_batches",
        lambda c: c.levels == (2, "group"),
        change=True,
    ),
)
MORE = (  # folded below them
    Situation("ResNet-8, Adam", "conv_speed", lambda c: c.levels == ("ResNet-8", "Adam", "none")),
    Situation("VGG-6, momentum or Adam", "conv_speed", lambda c: c.levels[0] == "VGG-6" and c.levels[2] == "none"),
    Situation("ResNet-8 or VGG-6, momentum or Adam", "conv_faster", lambda c: c.levels[2] == "none"),
    Situation("the same, momentum: the highest rate that learns", "conv_rates", lambda c: c.levels[1] == "none"),
    Situation(
        "a ResNet, against SkipInit, Fixup or group norm",
        "conv_depth",
        lambda c: not str(c.levels[1]).startswith("no BN"),
    ),
    Situation("a fully connected network, 256 or 1,024 images", "regularization", lambda c: True),
    Situation("weights of the right size, plain SGD", "init_scale", _level("He × 1", "PyTorch's default")),
    Situation(
        "40 residual fully connected layers, default weights", "depth", _level("residual network, default weights")
    ),
    Situation("the same, He weights", "depth", _level("residual network, He weights")),
    Situation("a small CNN, plain SGD", "learning_rate", _level("SGD")),
    Situation("the same, momentum or Adam", "learning_rate", _level("SGD, momentum 0.9", "Adam")),
    Situation(
        "group norm instead, batches of 4, the same CNN",
        "small_batches",
        lambda c: c.levels == (4, "group"),
        change=True,
    ),
    Situation(
        "the same, batches of 8 to 128",
        "small_batches",
        lambda c: c.levels[0] >= 8 and c.levels[1] == "group",
        change=True,
    ),
    Situation("before ReLU instead of behind, fully connected", "placement", _level("relu"), change=True),
    Situation("before sigmoid or tanh instead of behind", "placement", _level("sigmoid", "tanh"), change=True),
    Situation("before ReLU, VGG-6 or ResNet-8, no dropout", "conv_order", _level("no dropout"), change=True),
    Situation(
        "the same, VGG-6 with dropout",
        "conv_order",
        lambda c: c.levels[0] == "VGG-6" and c.levels[1] != "no dropout",
        change=True,
    ),
    Situation(
        "the same, ResNet-8 with dropout",
        "conv_order",
        lambda c: c.levels[0] == "ResNet-8" and c.levels[1] != "no dropout",
        change=True,
    ),
)
TOPICS = "other networks, normalizations and weights, before or behind the activation, dropout"


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
        """The verdict on what people repeat, in a word."""
        return self.judged.word if self.judged else NO_VERDICT

    @property
    def quoted_word(self) -> str:
        """The verdict on the source's own sentence, in a word."""
        if not self.judged:
            return NO_VERDICT
        return self.judged.quoted.word if self.judged.quoted else "not measured"

    @property
    def repeated(self) -> str:
        """The verdict on what people repeat, and how many conditions it is made of; or how many runs there are."""
        if not self.judged:
            return f"{NO_VERDICT}, {self.done:,} of {self.planned:,} planned runs"
        return _said(self.judged) if self.judged.outcomes else self.judged.sentence.removesuffix(".").lower()

    @property
    def quoted(self) -> str:
        """The same of the source's own sentence."""
        if not self.judged or not self.judged.outcomes:
            return self.repeated
        if not self.judged.quoted:
            return self.quoted_word
        said, sides = _said(self.judged.quoted), self._beside_the_size()
        if not sides:
            return said
        return (
            f"{said}; the size that it names, {self._size}, is reached in {sides.count('above')} and excluded in"
            f" {sides.count('below')} of {len(sides)}"
        )

    @property
    def quoted_in_short(self) -> str:
        """The same in a cell of the list: against the verdict on what people repeat, and with the size it names."""
        said = "the same" if self.quoted_word == self.word else _short(self.quoted_word)
        if said == _short(self.word):
            said += ", on other things"
        sides = self._beside_the_size()
        return f"{said}; its {self._size} in {sides.count('above')} of {len(sides)}" if sides else said

    @property
    def _size(self) -> str:
        return amount(self.experiment.size, self.experiment.metric)

    def _beside_the_size(self) -> list[str]:
        """Where the intervals within the source's setting lie beside the size that it names, if it names one."""
        if not (self.experiment.size and self.judged and self.judged.quoted):
            return []
        within = [c for c in self.comparisons if c.name in self.judged.quoted.outcomes and c.difference]
        return [beside(c, self.experiment.size) for c in within]


def _said(verdict: Verdict) -> str:
    """A verdict in bold, and its conditions where they say more."""
    counts = summary(verdict.outcomes.values())
    return f"**{verdict.word}**" if counts == verdict.word else f"**{verdict.word}**: {counts}"


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
    confirming = sum(len(each.settings) * each.seeds for each in plan.confirmations) if plan else 0
    planned = len(source.settings()) * source.seeds + confirming
    done = planned - len(found.missing)
    judged = judge(found.rows, name) if done == planned and (plan or not source.confirm) else None
    rows = of_planned_seeds(source, found.rows)
    comparisons = experiment.comparisons(rows) if judged and judged.outcomes else ()
    return Row(name, CLAIMS[line][name], line, experiment, done, planned, judged, tuple(comparisons))


def board(results: str | Path = RESULTS) -> list[Row]:
    """All rows, in the order of chapter 1."""
    return [row(name, results) for titles in CLAIMS.values() for name in titles]


# In Markdown


def answers(rows: Mapping[str, Row]) -> str:
    """What batch normalization gives in the situations of `FIRST`, and, folded, in `MORE`: the first thing that a
    reader looks for.

    Those that have no verdict yet are named below the tables.
    """
    folded = f"<details><summary>{len(MORE)} more: {TOPICS}</summary>\n\n{_situations(MORE, rows)}\n\n</details>"
    parts = [_situations(FIRST, rows), folded]
    waiting = [row for row in (rows[s.experiment] for s in FIRST + MORE) if not row.judged]
    if waiting:
        named = dict.fromkeys(f"[{row.title}](#{row.anchor}){_count(row)}" for row in waiting)
        parts.append(f"Runs are missing, and there is {NO_VERDICT}, for: {'; '.join(named)}.")
    return "\n\n".join(parts)


def _situations(situations: Sequence[Situation], rows: Mapping[str, Row]) -> str:
    """The table of those that have a verdict; what is had comes before what is changed."""
    lines = [("you have", "batch normalization gives", "outcome")]
    for situation in sorted(situations, key=lambda situation: situation.change):
        row = rows[situation.experiment]
        if row.judged is None:
            continue
        found = [c for c in row.comparisons if situation.holds(c)]
        effect = gives(row, found) if found else "–"
        word = counts([row.judged.outcomes[c.name] for c in found]) if found else row.word
        if situation.change and CHANGES not in lines:
            lines.append(CHANGES)
        trained = "" if is_factor(row.experiment.metric) else f", {_updates(row, found)}"
        lines.append((f"{situation.words}{trained}", effect, f"[{word}](#{row.anchor})"))
    return _table(lines)


def _updates(row: Row, comparisons: Sequence[Comparison]) -> str:
    """How many updates the runs behind some conditions make: "390 updates", "24 to 384 updates"."""
    of = row.experiment
    steps = {of.updates(setting) for c in comparisons for setting in c.settings} or {of.steps}
    ends = dict.fromkeys(f"{n:,}" if n else "no" for n in (min(steps), max(steps)))
    return f"{' to '.join(ends)} updates"


def counts(outcomes: Sequence[str]) -> str:
    """The outcomes of a line: "supported", or "1 direction known, 2 open"."""
    found = {outcome.split(",")[0]: outcomes.count(outcome) for outcome in OUTCOMES if outcome in outcomes}
    return next(iter(found)) if len(found) == 1 else ", ".join(f"{count} {o}" for o, count in found.items())


def gives(row: Row, comparisons: Sequence[Comparison]) -> str:
    """The effect, in Markdown, from the least to the largest mean, and an interval that holds those of all conditions.

    Where some runs of an arm fail, and not all, the effect is that of the middle pair: the mean of pairs that fail and
    of pairs that do not is an effect that none of them has. A single condition has its two accuracies beside it, if
    they are more than a point apart.
    """
    metric, found = comparisons[0].metric, [c.difference for c in comparisons]
    effects = sorted(_middle(c) if _mixed(c) else c.difference.mean for c in comparisons)
    low, high = min(d.low for d in found), max(d.high for d in found)
    words = row.experiment.effect.removesuffix(" of test accuracy")
    if " less " in words and effects[-1] < 0:
        effects, low, high = [-effect for effect in reversed(effects)], -high, -low
        words = words.replace(" less ", " more ")
    ends = " to ".join(dict.fromkeys(_bare(effect, metric) for effect in (effects[0], effects[-1])))
    effect = f"**{ends}** {words}"
    if any(map(_mixed, comparisons)):
        failed = {comparisons[0].arms[side]: [run for c in comparisons for run in _failed(c, side)] for side in (1, 0)}
        said = [f"{sum(runs)} of {len(runs)} {arm}" for arm, runs in failed.items() if any(runs)]
        effect += f" (middle pairs; {' and '.join(said)} below {100 * policy.LEARNS:g}{NO_BREAK}%)"
    elif len(comparisons) == 1 and metric == "test_accuracy" and abs(effects[0]) > 0.01:
        before, after = (100 * fmean(scores.values()) for scores in (comparisons[0].b, comparisons[0].a))
        effect += f", from {before:.1f} to {after:.1f}{NO_BREAK}%"
    return f"{effect} {interval(low, high, metric).replace(' ', NO_BREAK)}"


NO_BREAK = "\u00a0"  # a space at which no line ends


def _failed(comparison: Comparison, side: int) -> list[bool]:
    """Which runs of arm 0 or 1 have learned nothing to speak of, where the metric tells."""
    scores = (comparison.a, comparison.b)[side].values()
    return [comparison.metric == "test_accuracy" and score is not None and score <= policy.LEARNS for score in scores]


def _mixed(comparison: Comparison) -> bool:
    """Whether some runs of an arm fail, and not all."""
    return any(len(set(_failed(comparison, side))) > 1 for side in (0, 1))


def _middle(comparison: Comparison) -> float:
    """The median of the paired differences."""
    return median(comparison.a[seed] - comparison.b[seed] for seed in comparison.seeds)


def _bare(value: float, metric: str) -> str:
    """`amount` without its unit."""
    return amount(value, metric).removesuffix(" points").removesuffix(" times")


def table(rows: Sequence[Row]) -> str:
    """The list of chapter 1, each claim with the rows that answer it, and both their verdicts in short."""
    lines = [("claim of chapter 1, and how it is measured", "as it is repeated", "as its source says it")]
    for claim in CLAIMS:
        own = [row for row in rows if row.line == claim]
        lines.append((f"**{claim}**", "" if own else NO_VERDICT, ""))
        for row in own:
            verdict = f"**{_short(row.word)}**{_count(row)}"
            lines.append((f"[{row.title}](#{row.anchor})", verdict, row.quoted_in_short))
    return _table(lines)


def _short(word: str) -> str:
    """A verdict without what it depends on."""
    return word.partition(" on ")[0]


def policy_table() -> str:
    """The smallest effects worth having, by unit, and why; folded."""
    sizes = [(size.unit, _delta(size), size.why) for size in policy.POLICY.values()]
    table = _table([("effect in", "δ", "why"), *sizes])
    return f"<details><summary>δ by unit, and why</summary>\n\n{table}\n\n</details>"


def _delta(size: policy.Size) -> str:
    if size in (policy.LOSS, policy.CALIBRATION):
        return f"{size.delta:g}"
    return f"{100 * size.delta:g}" if size is policy.POINTS else f"{10**size.delta:.3g}"


def many(rows: Sequence[Row]) -> str:
    """How many conditions have which outcome, and what is left of them when it is corrected for their number."""
    found = [(c, row) for row in rows if row.judged for c in row.comparisons]
    outcomes = [row.judged.outcomes[c.name] for c, row in found]
    p_values = [p_of(o, c.difference, row.experiment.delta) for o, (c, row) in zip(outcomes, found, strict=True)]
    definite = sum(outcome != OPEN for outcome in outcomes)
    sure, false = f"{100 * (1 - ALPHA):g} %", f"one in {1 / ALPHA:g}"
    return (
        f"Of all conditions: {summary(outcomes)}. Of the {definite} that are not open, {survivors(holm(p_values))}"
        f" survive Holm's correction for all {len(found)} together (as far as Student's t holds far out, none of these"
        f" is false with a probability of {sure}), and {survivors(benjamini_hochberg(p_values))} that of Benjamini and"
        f" Hochberg ({false} of these may be false, on average)."
    )


def widths(rows: Sequence[Row]) -> str:
    """How many intervals are as narrow as plans ask for."""
    known = [(c, row.experiment.delta) for row in rows for c in row.comparisons if c.difference is not None]
    narrow = sum(_half(c) <= delta / 2 for c, delta in known)
    wide = [c for c, delta in known if _half(c) > width(c.difference.mean, delta)]
    fail = sum(map(_mixed, wide))
    return (
        f"Of {len(known)} intervals {narrow} reach at most δ/2 to either side, {len(known) - narrow - len(wide)} others"
        f" at most half-way from the effect to δ; {len(wide)} are wider ({fail} as some runs of an arm fail)."
    )


def _half(comparison: Comparison) -> float:
    """How far the interval reaches to either side."""
    return (comparison.difference.high - comparison.difference.low) / 2


NO_TEST = "no test"  # a condition that the settings of one of the choices do not have


def chosen_again(rows: Sequence[Row], results: str | Path = RESULTS) -> str:
    """What changed when more seeds chose the settings than at first: the effects that did, folded, and the outcomes."""
    few, more, names, conditions, others, larger = set(), set(), set(), 0, 0, 0
    lines = [("condition", "first choice", "choice of more seeds")]
    for row in rows:
        source = find(row.experiment.rows_of)
        plan = source.plan(source.file(results))
        plan = plan and plan.confirmations[0]
        if not (row.judged and plan and plan.earlier):
            continue
        first = plan.earlier[0]
        names.add(source.name)
        few.add(first.chosen_on)
        more.add(plan.chosen_on)
        found = inventory(source, source.file(results), ()).rows
        before, after = (_conditions(row, found, plan, chosen) for chosen in (first, plan))
        outcomes, outcomes_now = (verdict([*of.values()], row.experiment.delta).outcomes for of in (before, after))
        for name in {**before, **after}:
            then, now = before.get(name), after.get(name)
            conditions += 1
            if then and now and (then.a, then.b) == (now.a, now.b):
                continue
            if then and now and then.difference and now.difference:
                larger += now.difference.mean > then.difference.mean
            said = [_said_effect(then), _said_effect(now)]
            was, outcome = outcomes.get(name, NO_TEST), outcomes_now.get(name, NO_TEST)
            if was != outcome:
                said = [f"{said[0]}, {was}", f"{said[1]}, **{outcome}**"]
                others += 1
            lines.append((f"[{row.title}](#{row.anchor}), {name}", *said))
    if not names:
        return "Every experiment has the settings that it chose at first."
    at_first, again = (" or ".join(map(str, sorted(seeds))) for seeds in (few, more))
    said = (
        f"{len(names)} experiments chose on {at_first} seeds at first, and again on {again}. This changed"
        f" {len(lines) - 1} of {conditions} effects ({larger} moved in favour of their claim), and the outcome of"
        f" {others}"
    )
    if len(lines) == 1:
        said += "."
    else:
        note = "On the fresh seeds of the first confirmation: what was confirmed again is in the next section."
        said += f":\n\n<details><summary>which, and what they were</summary>\n\n{note}\n\n{_table(lines)}\n\n</details>"
    return said


def _conditions(row: Row, found: Sequence[Mapping], plan: Plan, chosen: Plan | Earlier) -> dict[str, Comparison]:
    """The conditions of a row by name: on the fresh seeds of a plan, at the settings that some seeds chose."""
    rows = of_planned_seeds(find(row.experiment.rows_of), found, len(plan.confirmations))
    chose = [r for r in pilot(rows) if r["seed"] < chosen.chosen_on]
    confirmed = [r for r in fresh(rows) if r["setting"] in chosen.settings]
    return {c.name: c for c in row.experiment.comparisons(chose + confirmed)}


def confirmed_again(rows: Sequence[Row], results: str | Path = RESULTS) -> str:
    """How wide the intervals are, and what a second confirmation says beside the first that it replaces; folded."""
    from scipy import stats

    names, outcomes_moved, apart = set(), 0, 0
    lines = [("condition", "first confirmation", "second, which is judged")]
    for row in rows:
        source = find(row.experiment.rows_of)
        plan = source.plan(source.file(results))
        if not (row.judged and plan and plan.before):
            continue
        names.add(source.name)
        found = inventory(source, source.file(results), ()).rows
        before = _conditions(row, found, plan.before, plan.before)
        outcomes = verdict([*before.values()], row.experiment.delta).outcomes
        for now in row.comparisons:
            then = before[now.name]
            a, b = then.difference, now.difference
            of_both = (a.mean, a.sd, len(a.seeds), b.mean, b.sd, len(b.seeds))
            apart += stats.ttest_ind_from_stats(*of_both, equal_var=False).pvalue < ALPHA
            was, outcome = outcomes[now.name], row.judged.outcomes[now.name]
            outcomes_moved += was != outcome
            marked = f"**{outcome}**" if was != outcome else outcome
            said = f"{_said_effect(then)}, {was}", f"{_said_effect(now)}, {marked}"
            lines.append((f"[{row.title}](#{row.anchor}), {now.name}", *said))
    if len(lines) == 1:
        return f"{widths(rows)} No experiment has been confirmed again."
    said = (
        f"{widths(rows)} {len(names)} experiments were confirmed again: of {len(lines) - 1} effects {apart} moved by"
        f" more than chance does in {100 * (1 - ALPHA):g} % of cases, and the outcome of {outcomes_moved} is another"
    )
    notes = (
        f"Where all is chance, about {ALPHA * (len(lines) - 1):.0f} would move so. The rule goes by widths, not by"
        " outcomes; it is older than these rows, and younger than the verdicts that they replace. It leaves out"
        " intervals that are wide because some runs of an arm fail: more seeds do not make Student's t fit those."
    )
    if waiting := _planned_again(rows, results):
        notes += f" Planned, but not all run yet: {', '.join(f'`{name}`' for name in waiting)}."
    return f"{said}:\n\n<details><summary>all, and what they were</summary>\n\n{notes}\n\n{_table(lines)}\n\n</details>"


def _planned_again(rows: Sequence[Row], results: str | Path) -> list[str]:
    """The experiments that have the plan of a confirmation from which their verdict is not yet."""
    sources = {row.experiment.rows_of: find(row.experiment.rows_of) for row in rows if row.experiment.confirm}
    plans = {name: load_plan(source.file(results), source.version) for name, source in sources.items()}
    return [name for name, plan in plans.items() if plan and len(plan.confirmations) > sources[name].confirmation]


def _said_effect(comparison: Comparison | None) -> str:
    difference = comparison and comparison.difference
    if difference is None or difference.low is None:
        return "–"
    metric = comparison.metric
    return f"{amount(difference.mean, metric)} {interval(difference.low, difference.high, metric)}"


def details(row: Row) -> str:
    """Claim, setting, effects with intervals, and both verdicts of a row."""
    measured = row.experiment
    seeds = f"{measured.seeds} paired seeds"
    if measured.confirm:
        seeds = f"settings chosen on {measured.seeds} seeds, and the verdict from fresh ones"
    less = "; less contradicts the claim" if measured.needs_more else ""
    words = f"As said: <b>{row.quoted_word}</b>. As repeated: <b>{row.word}</b>"
    if row.quoted_word == row.word:
        words = f"As said and as repeated: <b>{row.word}</b>"
    parts = [
        f"<details><summary>{words}{_count(row)}.</summary>",
        f"> “{measured.claim}”",
        f"**As its source says it** ({measured.scope or 'no setting is named, so in all conditions'}): {row.quoted}.",
        f"**As it is repeated**, “{measured.folklore}”: {row.repeated}.",
        f"**Question.** {measured.question} See {_chapter(row)}.",
        f"**Our setting.** {measured.dataset}; {measured.network}; {_updates(row, row.comparisons)}; {seeds};"
        f" smallest effect worth having δ = {amount(measured.delta, measured.metric, sign=False)}{less}.",
    ]
    if row.comparisons:
        first, size = row.comparisons[0], amount(measured.size, measured.metric, sign=False)
        nothing = "1" if is_factor(measured.metric) else "0"
        than = "over" if is_factor(measured.metric) else "minus"
        head = ("condition", "effect", "95 % interval", "outcome", f"against {size if measured.size else nothing}")
        parts += [
            f"**Effect** in {measured.effect}; {measured_as(first.metric)} of “{first.arms[0]}” {than} that of"
            f" “{first.arms[1]}”:",
            _table([head, *(_effect(row, comparison) for comparison in row.comparisons)]),
        ]
    parts += [f"Cite this row as [#{row.anchor}](#{row.anchor}).", "</details>"]
    return "\n\n".join(parts)


def _effect(row: Row, comparison: Comparison) -> tuple[str, ...]:
    difference, metric = comparison.difference, comparison.metric
    outcome = row.judged.outcomes[comparison.name]
    if difference is None or difference.low is None:
        return comparison.name, "–", "–", outcome, "–"
    low_high = interval(difference.low, difference.high, metric)
    effect = _bare(difference.mean, metric)
    if _mixed(comparison):
        effect += f" (middle pair {_bare(_middle(comparison), metric)})"
    return comparison.name, effect, low_high, outcome, beside(comparison, row.experiment.size)


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

WIDTH, LINE = 3.75, 0.115  # inches: a phone, and two beside each other on a page
GAP = 0.5  # lines, below a claim
MANY = 8  # conditions of one claim; of more, some share a line for each outcome
STYLES = {  # marker and colour of an outcome
    SUPPORTED: ("o", "GREEN"),
    DIRECTION: ("^", "SKY"),
    SMALLER: ("v", "YELLOW"),
    NEGLIGIBLE: ("D", "GREY"),
    REVERSED: ("s", "PURPLE"),
    OPEN: ("x", "GREY"),
}


def forest(rows: Sequence[Row]) -> Figure:
    """Every condition with its name above its effect and 95 % interval; a panel for each unit.

    Behind each interval lies the band from −δ to δ. Of a claim with more than MANY conditions those that are too small
    to matter share a line, one for each outcome, that holds all their intervals; where it reads the rows of another
    experiment, those of every outcome do. Rows that have no verdict yet are left out.
    """
    import matplotlib.pyplot as plt
    from matplotlib.transforms import blended_transform_factory

    from .. import plotting

    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.comparisons:
            groups.setdefault(unit(row.experiment), []).append(row)
    panels = list(groups.values())
    lines = [sum(2 * len(_shown(row)) + 1 + GAP for row in group) for group in panels]
    picture, axes = plt.subplots(
        len(panels),
        1,
        figsize=(WIDTH, LINE * sum(lines) + 0.45 * len(panels) + 0.5),
        height_ratios=lines,
        squeeze=False,
    )
    for ax, group in zip(axes[:, 0], panels, strict=True):
        y, drawn = 0, []
        at = blended_transform_factory(picture.transFigure, ax.transData)
        words = {"transform": at, "va": "center", "size": 7.5, "in_layout": False}  # they may reach over the axes
        for row in group:
            shown = _shown(row)
            y += 1
            ax.text(0.01, y - 0.2, f"{row.title}: {_short(row.word)}", weight="bold", **words)
            ax.fill_betweenx([y + 0.5, y + 0.5 + 2 * len(shown)], *_band(row), color="#e9e9e9", lw=0, zorder=0)
            for together in shown:
                several = f"{len(together)} others, {_outcome(row, together)}"
                ax.text(0.01, y + 1, together[0].name if len(together) == 1 else several, **words)
                y += 2
                drawn.append((y - 0.2, row, together))
            y += GAP
        _lines(ax, drawn)
        ax.set(ylim=(y, 0), yticks=[])
        _scale(ax, unit(group[0].experiment))
    for outcome, (marker, color) in STYLES.items():
        axes[0, 0].plot([], [], marker, ls="-", ms=4, lw=1.5, color=getattr(plotting, color), label=outcome)
    picture.legend(loc="outside upper center", ncols=2, fontsize=7.5)
    return picture


def _outcome(row: Row, together: Sequence[Comparison]) -> str:
    return row.judged.outcomes.get(together[0].name, OPEN)


def _shown(row: Row) -> list[list[Comparison]]:
    """The conditions of a claim by the line of the picture that they stand on."""
    if len(row.comparisons) <= MANY:
        return [[c] for c in row.comparisons]
    folded = (SMALLER, NEGLIGIBLE) if row.experiment.rows_of == row.name else OUTCOMES
    groups = [[c for c in row.comparisons if _outcome(row, [c]) == outcome] for outcome in folded]
    groups = [together for together in groups if len(together) > 1]
    return [*([c] for c in row.comparisons if not any(c in together for together in groups)), *groups]


def _band(row: Row) -> tuple[float, float]:
    """From −δ to δ, in the unit of the axis."""
    delta = row.experiment.delta * (100 if row.experiment.metric.endswith("accuracy") else 1)
    return -delta, delta


def _lines(ax: Axes, drawn: Sequence[tuple[float, Row, Sequence[Comparison]]]) -> None:
    """Intervals, the means of conditions that stand alone, and the effects in numbers at the right.

    All of one outcome are drawn at once: hundreds of paths of their own would make the picture twice as heavy.
    """
    from .. import plotting

    by_outcome: dict[str, list[tuple[float, float, float, float | None]]] = {}
    for y, row, together in drawn:
        metric, found = together[0].metric, [c.difference for c in together]
        if any(d is None or d.low is None for d in found):
            continue
        scale = 100 if metric.endswith("accuracy") else 1
        low, high = min(d.low for d in found), max(d.high for d in found)
        mean = scale * found[0].mean if len(found) == 1 else None
        by_outcome.setdefault(_outcome(row, together), []).append((y, scale * low, scale * high, mean))
        said = interval(low, high, metric).replace("+", "")
        if mean is not None:
            said = f"{_bare(found[0].mean, metric)} {said}"
        ax.text(1.01, y + 0.15, said, transform=ax.get_yaxis_transform(), size=7.5, va="center")
    for outcome, lines in by_outcome.items():
        marker, color = STYLES[outcome]
        color = getattr(plotting, color)
        at, lows, highs, _ = zip(*lines, strict=True)
        ax.hlines(at, lows, highs, color=color, lw=1.5)
        single = [(mean, y) for y, _, _, mean in lines if mean is not None]
        if single:
            ax.plot(*zip(*single, strict=True), marker, ls="", ms=4, color=color)


POINTS, FACTOR = "points of accuracy", "as a factor"


def unit(experiment: Experiment) -> str:
    """What the axis of a panel of the picture says."""
    if is_factor(experiment.metric):
        return FACTOR
    return POINTS if experiment.metric.endswith("accuracy") else experiment.effect


def _scale(ax: Axes, said: str) -> None:
    """An axis of points or factors is linear around no effect, and logarithmic beyond one point or a factor of ten."""
    limit = max(map(abs, ax.dataLim.intervalx))
    if said in (POINTS, FACTOR):
        ax.set_xscale("symlog", linthresh=1)
        decades = [10**power for power in range(int(log10(max(limit, 1))) + 1)]
        ticks = [-value for value in reversed(decades)] + [0] + decades
        words = [_bare(value, "log10").removeprefix("1.0·") if said == FACTOR else f"{value:+g}" for value in ticks]
        ax.set_xticks(ticks, [word.replace("-", "−").replace("+0", "0") for word in words])
        ax.minorticks_off()
    ax.axvline(0, color="k", lw=0.8, zorder=0.5)
    ax.set(xlim=(-1.3 * limit, 1.3 * limit))
    ax.tick_params(axis="x", top=True, labeltop=True)  # its bottom may be screens away
    ax.set_xlabel(said, fontsize=8)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", labelsize=8)
