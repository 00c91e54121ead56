"""Choosing settings and comparing arms: what every experiment's numbers go through before the verdict.

Two arms are compared seed by seed: run i of either starts from the same random numbers and sees the same batches, so
the difference of each pair is one observation. Its 95 % t-interval covers seeds; the bootstrap beside it covers the
choice of the test images.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .bits import unpack_bits
from .words import as_text, name_seeds, pairs

CHOOSE, CONFIRM = "choose", "confirm"  # the phase of a row
CONFIDENCE = 0.95
RESAMPLES = 2000  # of the bootstrap


class Incomplete(ValueError):
    """Rows are missing that a choice or a comparison needs; the message says which."""


def select(rows: Iterable[Mapping], **setting: object) -> list[Mapping]:
    """The rows whose setting has these values.

    Raises:
        ValueError: a name that no setting has.
    """
    rows = list(rows)
    known = {name for row in rows for name in row["setting"]}
    if rows and not known >= setting.keys():
        unknown = ", ".join(sorted(setting.keys() - known))
        raise ValueError(f"setting must have names among {', '.join(sorted(known))}, got {unknown}")
    return [row for row in rows if all(row["setting"].get(name) == value for name, value in setting.items())]


def fresh(rows: Iterable[Mapping]) -> list[Mapping]:
    """The rows that confirm, of fresh seeds; while there are none, or where nothing is chosen, all."""
    rows = list(rows)
    return [row for row in rows if row.get("phase") == CONFIRM] or rows


def pilot(rows: Iterable[Mapping]) -> list[Mapping]:
    """The rows that choose."""
    return [row for row in rows if row.get("phase") != CONFIRM]


def measured(row: Mapping, metric: str, chance: float | None) -> float | None:
    """A row's value of a metric; that of a diverged run is `chance`."""
    if metric not in row:
        raise ValueError(f"metric must be one of a row's measurements, got {metric!r}")
    value = None if row["diverged"] else row[metric]
    return chance if value is None else value


# The choice of a setting


@dataclass(frozen=True)
class Choice:
    """The best setting of an arm, chosen by its mean over the seeds in a validation metric."""

    rows: list[Mapping]  # of the best setting, one a seed: the fresh ones if there are any, else those it is chosen by
    over: tuple[str, ...]
    means: dict[tuple, float]  # values of `over` → mean over the seeds
    edge: tuple[str, ...]  # those of `over` whose best value is the first or last of its grid

    @property
    def values(self) -> dict[str, object]:
        """The values that were chosen."""
        return {name: self.rows[0]["setting"][name] for name in self.over}

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} {as_text(value)}" for name, value in self.values.items())
        edge = f" (AT THE EDGE of its grid: {', '.join(self.edge)})" if self.edge else ""
        return chosen + edge


def best(
    rows: Sequence[Mapping],
    over: str | Sequence[str],
    metric: str = "val_accuracy",
    chance: float | None = 0.1,
    ends: Collection = (),
) -> Choice:
    """The setting of one arm with the highest mean of a validation metric; of equals the first in the grid.

    It is chosen by the rows of the phase "choose", where rows tell phases.

    Args:
        rows: those of the arm: their settings differ in `over` alone.
        over: what is chosen, such as "lr", or several names.
        chance: what a diverged run counts as; None: a setting with a diverged run is never chosen before another.
        ends: values that nothing lies beyond (a dropout of 0), so that they are no edge of a grid.

    Raises:
        Incomplete: no rows, settings with different seeds, or rows that confirm another setting than is chosen.
        ValueError: settings that differ in something else, or a metric that sees the test images.
    """
    over = (over,) if isinstance(over, str) else tuple(over)
    if metric.startswith("test"):
        raise ValueError(f"metric must be one of validation, nothing is chosen on the test images: got {metric!r}")
    if not rows:
        raise Incomplete("there are no rows to choose from")
    for name in rows[0]["setting"].keys() - set(over):
        if len({row["setting"][name] for row in rows}) > 1:
            raise ValueError(f"rows must be those of one arm, but their settings differ in {name!r}")
    groups: dict[tuple, dict[int, Mapping]] = {}
    confirming: dict[tuple, dict[int, Mapping]] = {}
    for row in rows:
        phase = confirming if row.get("phase") == CONFIRM else groups
        phase.setdefault(tuple(row["setting"][name] for name in over), {})[row["seed"]] = row
    if not groups:
        raise Incomplete("there are no rows to choose from, only rows that confirm")
    seeds = set().union(*groups.values())
    for value, group in groups.items():
        if absent := seeds - group.keys():
            raise Incomplete(f"{pairs(over, value)} has no row of {name_seeds(absent)}")
    worst = -math.inf if chance is None else chance
    means = {
        value: statistics.fmean(measured(row, metric, worst) for row in group.values())
        for value, group in groups.items()
    }
    chosen = max(means, key=means.get)
    edge = tuple(name for i, name in enumerate(over) if _at_the_edge(i, chosen, groups, ends))
    if confirming and chosen not in confirming:
        raise Incomplete(f"{pairs(over, chosen)} was chosen, but not confirmed")
    found = confirming.get(chosen, groups[chosen])
    return Choice([found[seed] for seed in sorted(found)], over, means, edge)


def _at_the_edge(i: int, chosen: tuple, values: Iterable[tuple], ends: Collection) -> bool:
    """Whether the number `chosen[i]` is the least or greatest that was tried along with the other chosen values."""
    others = [value[i] for value in values if value[:i] + value[i + 1 :] == chosen[:i] + chosen[i + 1 :]]
    if isinstance(chosen[i], bool | str | None) or chosen[i] in ends:
        return False
    numbers = [other for other in others if isinstance(other, int | float)]
    return chosen[i] in (min(numbers), max(numbers))


# The comparison of two arms


@dataclass(frozen=True)
class PairedDifference:
    """A minus B over paired seeds."""

    seeds: tuple[int, ...]
    mean: float
    sd: float | None  # between seeds; None with one
    low: float | None  # the 95 % t-interval; None with one seed
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One condition of a comparison: the values of arm A and of arm B, by seed.

    A value is None where the run diverged and nothing stands for it. The claim is that A is above B.
    """

    name: str
    a: Mapping[int, float | None]
    b: Mapping[int, float | None]
    arms: tuple[str, str] = ("A", "B")
    metric: str = "test_accuracy"
    chosen: tuple[str, ...] = ()  # how the settings of the arms were chosen, in words
    edges: tuple[str, ...] = ()  # which of them lie at the edge of their grid
    diverged: tuple[int, int] = (0, 0)  # how many runs of either arm did
    correct: tuple[Mapping[int, str], Mapping[int, str]] | None = None  # which test images were right, packed
    dropped: tuple[str, ...] = ()  # the commands that make rows again whose bits were dropped
    levels: tuple = ()  # of the factors that the conditions vary, in their order
    settings: tuple[Mapping, ...] = ()  # those whose rows it is made of
    reaches: float = -math.inf  # the upper end of the interval if what was not run is counted for the claim

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that both arms have."""
        return tuple(sorted(self.a.keys() & self.b.keys()))

    @property
    def unpaired(self) -> tuple[int, ...]:
        """The seeds that only one arm has."""
        return tuple(sorted(self.a.keys() ^ self.b.keys()))

    @cached_property
    def difference(self) -> PairedDifference | None:
        """Mean, standard deviation and interval of A minus B; None where there is no pair or a value is missing."""
        pairs = [(self.a[seed], self.b[seed]) for seed in self.seeds]
        if not pairs or any(value is None or not math.isfinite(value) for pair in pairs for value in pair):
            return None
        differences = [a - b for a, b in pairs]
        mean = statistics.fmean(differences)
        if len(pairs) == 1:
            return PairedDifference(self.seeds, mean, None, None, None)
        sd = statistics.stdev(differences)
        if sd == 0:  # SciPy has no interval then
            return PairedDifference(self.seeds, mean, sd, mean, mean)
        from scipy import stats

        low, high = stats.t.interval(CONFIDENCE, len(pairs) - 1, loc=mean, scale=sd / math.sqrt(len(pairs)))
        return PairedDifference(self.seeds, mean, sd, float(low), float(high))

    def over_images(self) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of the mean difference over test images, drawn anew in pairs; seeds are fixed.

        None where the rows do not say which images were right, or where a run diverged.

        Raises:
            Incomplete: which images were right is no longer kept; the message names the command that finds it again.
        """
        if not self.seeds or any(self.diverged):
            return None
        if self.dropped:
            raise Incomplete(
                f"{self.name}: which images were right is kept only for the rows that the experiments compare; of "
                f"{len(self.dropped)} rows of this comparison it has to be found again, as by: {self.dropped[0]}"
            )
        if not self.correct:
            return None
        import numpy as np
        from scipy import stats

        a, b = (np.mean([unpack_bits(arm[seed]) for seed in self.seeds], axis=0) for arm in self.correct)
        drawn = stats.bootstrap(
            (a - b,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=100,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def compare(
    name: str,
    a: Sequence[Mapping] | Choice,
    b: Sequence[Mapping] | Choice,
    *,
    arms: tuple[str, str] = ("A", "B"),
    metric: str = "test_accuracy",
    chance: float | None = 0.1,
    levels: tuple = (),
) -> Comparison:
    """The comparison of two arms in one condition, from the rows of one setting each or from a `Choice`.

    Args:
        chance: what a diverged run counts as; with None the condition has no interval then.
        levels: of the factors that the conditions vary, in the order of FACTOR.

    Raises:
        Incomplete: an arm without rows.
        ValueError: rows of more than one setting in an arm.
    """
    rows = [arm.rows if isinstance(arm, Choice) else list(arm) for arm in (a, b)]
    for arm, of_arm in zip(arms, rows, strict=True):
        if not of_arm:
            raise Incomplete(f"{name}: there are no rows of {arm!r}")
        if len({row["seed"] for row in of_arm}) < len(of_arm):
            raise ValueError(f"{name}: the rows of {arm!r} must be of one setting, one a seed: choose with best()")
    choices = [(arm, choice) for arm, choice in zip(arms, (a, b), strict=True) if isinstance(choice, Choice)]
    packed = all(isinstance(row.get("correct"), str) for of_arm in rows for row in of_arm)
    return Comparison(
        name,
        *({row["seed"]: measured(row, metric, chance) for row in of_arm} for of_arm in rows),
        arms=arms,
        metric=metric,
        chosen=tuple(f"{arm}: {choice}" for arm, choice in choices),
        edges=tuple(f"{edge} of {arm!r}" for arm, choice in choices for edge in choice.edge),
        diverged=tuple(sum(row["diverged"] for row in of_arm) for of_arm in rows),
        correct=tuple({row["seed"]: row["correct"] for row in of_arm} for of_arm in rows) if packed else None,
        dropped=tuple(_command(row) for of_arm in rows for row in of_arm if row.get("correct", "") is None),
        levels=levels,
        settings=tuple(of_arm[0]["setting"] for of_arm in rows),
    )


def _command(row: Mapping) -> str:
    """What makes a row again, with all that it holds."""
    only = [f"{name}={as_text(value)}" for name, value in row["setting"].items()]
    options = ["--only", *only, "--seeds", f"{row['seed']}-{row['seed']}", "--results", "elsewhere"]
    return shlex.join(["python", "-m", "bnbook.experiments", "run", row["experiment"], *options])


def exceeds(value: float, limit: float) -> bool:
    """Whether `value` is above `limit` by more than rounding: 0.875 − 0.87 is 0.005, not above it."""
    return value > limit and not math.isclose(value, limit, rel_tol=1e-9, abs_tol=1e-12)
