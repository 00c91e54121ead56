"""The experiments and studies that there are, and their rows: the schema, reading, and what the pages make of them."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import policy
from . import bits, plan
from .rows import ResultsError, Rows
from .statistics import CHOOSE, CONFIRM, Comparison, Incomplete
from .verdict import Verdict, verdict
from .words import OPEN, duration, no_verdict_sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLAIMS = "bnbook.experiments.claims"
STUDIES = "bnbook.experiments.studies"
BOOK = Path(__file__).parents[3] / "book"
RESULTS = (BOOK if BOOK.is_dir() else Path("book")) / "results"

FIELDS = {
    "experiment": str,
    "version": int,
    "setting": dict,
    "seed": int,
    "diverged": bool,
    "seconds": int | float | None,  # None where it was not recorded
    "provenance": dict,
}

Task = tuple[dict, int]  # a setting and a seed


# The experiments


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is measured but answers no claim: the constants and functions of its module, under their names."""

    name: str
    rows_of: str  # the name of that whose rows it reads: its own, or what ROWS says
    question: str
    chapter: int
    version: int
    grid: Callable[..., list[dict]]
    run: Callable[[dict, int], dict]
    dataset: str = ""
    network: str = ""
    steps: int | None = None
    steps_of: Callable[[Mapping], int] | None = None  # of a setting, where a run's number of updates is not STEPS
    metric: str | None = None
    measured: str | None = None  # what every row holds: the metric, or what MEASURED says
    seeds: int = 5
    chance: float | None = 0.1
    confirm: bool = False  # whether settings are chosen on these seeds, and the verdict is from fresh ones
    confirmation: int = 1  # which of the confirmations the verdict is from

    def updates(self, setting: Mapping) -> int | None:
        """How many updates a run of a setting makes."""
        return setting.get("steps") or (self.steps_of(setting) if self.steps_of else self.steps)

    def settings(self, quick: bool = False) -> list[dict]:
        """The settings of the grid.

        Raises:
            ValueError: a setting that is not flat, has other names than the first, or comes twice.
        """
        grid = self.grid(quick=quick)
        seen = set()
        for setting in grid:
            for name, value in setting.items():
                if not (value is None or isinstance(value, str | int | float)) or value != value:
                    raise ValueError(f"grid() must hold strings, numbers, booleans and None, got {name!r}: {value!r}")
            if setting.keys() != grid[0].keys():
                raise ValueError(f"grid() must give every setting the same names, got {setting} after {grid[0]}")
            if key(self.version, setting, 0) in seen:
                raise ValueError(f"grid() must give every setting once, got {setting} twice")
            seen.add(key(self.version, setting, 0))
        return grid

    def problem(self, row: Mapping) -> str | None:
        """What is wrong with a row, or None: the schema of results files."""
        for field, kind in FIELDS.items():
            if field not in row:
                return f"has no {field}"
            if not isinstance(row[field], kind) or (isinstance(row[field], bool) and kind is not bool):
                return f"has a {field} of the wrong kind: {row[field]!r}"
        if row["experiment"] != self.name:
            return f"is a row of the experiment {row['experiment']!r}, not of {self.name!r}"
        if row["version"] != self.version:
            return None  # what it measured is that version's affair
        if any(isinstance(value, list | dict) for value in row["setting"].values()):
            return "has a setting that is not flat"
        if absent := {"command", "commit", "date"} - row["provenance"].keys():
            return f"has a provenance without {', '.join(sorted(absent))}"
        return self._problem_of_phase(row) or _problem_of_metric(row, self.measured) or _problem_of_bits(row)

    def _problem_of_phase(self, row: Mapping) -> str | None:
        if not self.confirm:
            return None
        if (phase := row.get("phase")) not in (CHOOSE, CONFIRM):
            return f"has a phase that is neither {CHOOSE} nor {CONFIRM}: {phase!r}"
        if (row["seed"] >= plan.FIRST) != (phase == CONFIRM):
            return f"has the phase {phase!r}, but fresh seeds begin at {plan.FIRST}: {row['seed']}"
        if phase == CONFIRM and not isinstance(row.get("planned"), int):
            return "confirms, but does not say how many seeds were planned"
        return None

    def plan(self, path: Path, quick: bool = False) -> plan.Plan | None:
        """The plan of the confirmation beside a results file, if there is one; a quick grid confirms nothing.

        One of a confirmation that the verdict is not from yet is passed over.
        """
        found = plan.load(path, self.version) if self.confirm and not quick else None
        return found and found.confirmations[: self.confirmation][-1]

    def file(self, results: str | Path = RESULTS, quick: bool = False) -> Path:
        """The results file; that of quick runs lies in a folder of its own."""
        return Path(results) / ("quick" if quick else "") / f"{self.rows_of}.jsonl"

    def rows(self, path: Path) -> Rows:
        """The rows of a results file of this study."""
        return Rows(path, row_key, self.problem, self.version)


def everywhere(comparison: Comparison) -> bool:
    """Every condition is within what the source speaks of: it names no setting."""
    return True


def nothing(rows: list[dict]) -> list[dict]:
    """Fresh seeds run no more settings than the verdict reads."""
    return []


@dataclass(frozen=True, kw_only=True)
class Experiment(Study):
    """A measured claim: `bnbook.experiments` says what its constants and functions mean."""

    claim: str
    source: str
    folklore: str
    comparisons: Callable[[list[dict]], list[Comparison]]
    figure: Callable[[list[dict]], Figure]
    metric: str = "test_accuracy"
    effect: str = "points of test accuracy"
    delta: float = policy.POINTS.delta
    size: float = 0.0
    needs_more: bool = False
    factor: str | tuple[str, ...] = "the condition"
    scope: str = ""
    in_scope: Callable[[Comparison], bool] = everywhere
    beside: Callable[[list[dict]], list[dict]] = nothing


NEEDED = {
    Experiment: (
        "QUESTION CLAIM FOLKLORE SOURCE CHAPTER VERSION DATASET NETWORK STEPS grid run comparisons figure"
    ).split(),
    Study: "QUESTION CHAPTER VERSION grid run".split(),
}
# What a claim on other rows takes from there.
OF_THE_ROWS = "version seeds chance confirm confirmation dataset network steps steps_of measured grid run".split()


def names() -> list[str]:
    """The names of all experiments that answer a claim, in the order of the alphabet."""
    return _names(CLAIMS)


def study_names() -> list[str]:
    """The names of all studies, in the order of the alphabet."""
    return _names(STUDIES)


def _names(package: str) -> list[str]:
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def find(name: str) -> Experiment | Study:
    """An experiment or a study, from the constants and functions of its module.

    Raises:
        ValueError: there is none of this name, something of its interface is missing, or CONFIRM is no truth value.
    """
    kind, package = (Experiment, CLAIMS) if name in names() else (Study, STUDIES)
    if name not in _names(package):
        raise ValueError(
            f"NAME must be one of {', '.join(names() + study_names()) or '(there are none)'}, got {name!r}"
        )
    module = importlib.import_module(f"{package}.{name}")
    rows_of = getattr(module, "ROWS", name)
    found: dict[str, object] = {"name": name, "rows_of": rows_of}
    if rows_of != name:
        source = find(rows_of)
        found |= {word: getattr(source, word) for word in OF_THE_ROWS}
    constants = {_constant(field.name): field.name for field in fields(kind)}
    found |= {field: getattr(module, word) for word, field in constants.items() if hasattr(module, word)}
    found.setdefault("measured", found.get("metric", kind.metric))
    if absent := [word for word in NEEDED[kind] if constants[word] not in found]:
        raise ValueError(f"the experiment {name!r} must define {', '.join(absent)} (see bnbook.experiments)")
    if not isinstance(found.get("confirm", False), bool):  # an imported name, say
        raise ValueError(f"CONFIRM of the experiment {name!r} must be True or False, got {found['confirm']!r}")
    return kind(**found)


def _constant(field: str) -> str:
    """What a module calls a field of `Experiment`."""
    functions = ("grid", "run", "steps_of", "comparisons", "in_scope", "beside", "figure")
    return field if field in functions else field.upper()


# The rows


class Inventory(NamedTuple):
    """A study's results beside its grid."""

    rows: list[dict]  # of this version and of the grid, in its order and then that of the seeds
    missing: list[Task]  # of the seeds asked for: all settings with the first seed, then with the next; then of a plan
    stale: dict[int, int]  # other version → number of rows
    outside: int  # rows of this version whose setting the grid does not have
    damage: list[str]
    truncated: bool

    def warnings(self, study: Study, path: Path) -> list[str]:
        """What somebody who works with the file should know."""
        lines = list(self.damage)
        if self.truncated:
            lines.append(f"{path}: the last line is incomplete; it is dropped and its run repeated")
        for version, count in self.stale.items():
            lines.append(f"{path}: {count} rows are stale, of version {version}; the experiment is {study.version}")
        if self.outside:
            lines.append(f"{path}: {self.outside} rows have settings that the grid does not have; they are not used")
        return lines


def inventory(study: Study, path: Path, seeds: Iterable[int] | None = None, quick: bool = False) -> Inventory:
    """Read a study's results, put the bits that are kept beside them back, and lay them beside the grid.

    Args:
        seeds: whose runs are missing where they have no row; those that are planned if left out, and then also the
            runs of the plans of all confirmations.
    """
    planned = study.plan(path, quick) if seeds is None else None
    seeds = range(study.seeds) if seeds is None else seeds
    snapshot = study.rows(path).read()
    damage = snapshot.damage + _put_bits_back(snapshot.rows, path)
    grid = study.settings(quick)
    order = {key(study.version, setting, 0): i for i, setting in enumerate(grid)}
    placed = [(order.get(key(row["version"], row["setting"], 0)), row["seed"], row) for row in snapshot.rows]
    inside = [item for item in placed if item[0] is not None]
    rows = [row for *_, row in sorted(inside, key=lambda item: item[:2])]
    done = {row_key(row) for row in rows}
    asked = [(s, seed) for seed in seeds for s in grid]
    for confirmation in planned.confirmations if planned else ():
        asked += [(s, seed) for seed in confirmation.fresh for s in confirmation.settings]
    missing = [(s, seed) for s, seed in asked if key(study.version, s, seed) not in done]
    return Inventory(rows, missing, snapshot.stale, len(placed) - len(inside), damage, snapshot.truncated)


def _put_bits_back(rows: Iterable[dict], path: Path) -> list[str]:
    """Fill in which images were right, where it is kept beside the rows; what is wrong with it."""
    kept, wrong = bits.load(path), []
    for row in rows:
        if kept and row.get("correct", "") is None and (text := kept.get(row_key(row))):
            row["correct"] = text
            if problem := _problem_of_bits(row):
                wrong.append(f"{bits.file(path)}: the row {row_key(row)} {problem}: restore the file")
    return wrong


def load(name: str, results: str | Path = RESULTS, quick: bool = False) -> list[dict]:
    """The rows of an experiment or a study, of its present version, in the order of its grid and then of the seeds.

    Those of the planned seeds: rows of others, or a part of them, change no figure as they change no verdict.

    Raises:
        ResultsError: a damaged line, or no rows yet.
    """
    study = find(find(name).rows_of)
    found = inventory(study, study.file(results, quick), (), quick)
    if found.damage:
        raise ResultsError(found.damage[0])
    if not (rows := of_planned_seeds(study, found.rows)):
        raise ResultsError(f"there are no rows of {study.name!r} yet: python -m bnbook.experiments run {study.name}")
    return rows


def _problem_of_metric(row: Mapping, metric: str | None) -> str | None:
    if metric is None:
        return None
    if metric not in row:
        return f"has no {metric}"
    if type(row[metric]) not in (int, float) and not (row[metric] is None and row["diverged"]):
        return f"has a {metric} that is no number: {row[metric]!r}"
    return None


def _problem_of_bits(row: Mapping) -> str | None:
    if row.get("correct") is None:
        return None  # there are none, or they were dropped
    try:
        right = bits.unpack_bits(row["correct"]).mean()
    except ValueError as error:
        return f"has a correct that cannot be read ({error})"
    if not math.isclose(right, row.get("test_accuracy", right), abs_tol=1e-6):
        return f"has a test_accuracy of {row['test_accuracy']}, but {right} of its images are correct"
    return None


def key(version: int, setting: Mapping, seed: int) -> str:
    """What a row is known by."""
    return json.dumps([version, setting, seed], sort_keys=True)


def row_key(row: Mapping) -> str:
    """`key` of a row."""
    return key(row["version"], row["setting"], row["seed"])


# What the pages make of the rows


def judge(rows: Sequence[Mapping], name: str | None = None) -> Verdict:
    """The verdict of an experiment on its claim, from its rows as `load` returns them.

    The claim is judged as people repeat it, in all conditions; `quoted` is the verdict on the source's own sentence, in
    the conditions that this speaks of. Both are "open" while planned runs are missing.

    Args:
        name: of the experiment; the one that made the rows if left out.

    Raises:
        ValueError: rows of another experiment than this one reads, or of a study, which has no claim.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    experiment = find(name or rows[0]["experiment"])
    if not isinstance(experiment, Experiment):
        raise ValueError(f"name must be that of an experiment with a claim, {experiment.name!r} is a study")
    if (source := experiment.rows_of) != rows[0]["experiment"]:
        raise ValueError(
            f"rows must be those of {source!r} for {experiment.name!r}, got rows of {rows[0]['experiment']!r}"
        )
    rows = of_planned_seeds(experiment, rows)
    choosing = [row for row in rows if row.get("phase") != CONFIRM]
    counts = Counter(key(0, row["setting"], 0) for row in choosing)
    grid = [key(0, setting, 0) for setting in experiment.settings()]
    absent = sum(experiment.seeds - counts[setting] for setting in grid)
    seeds = experiment.seeds
    try:
        if absent:
            raise Incomplete(f"{absent} of the {len(grid) * experiment.seeds} planned runs are missing")
        if experiment.confirm:
            seeds = _confirmed_seeds(rows)
        if not (comparisons := experiment.comparisons(rows)):
            raise Incomplete("no condition is a test of the claim")
    except Incomplete as error:
        return Verdict(OPEN, no_verdict_sentence(error), {})
    rule = {"planned": seeds, "needs_more": experiment.needs_more, "factor": experiment.factor}
    within = [comparison for comparison in comparisons if experiment.in_scope(comparison)]
    quoted = verdict(within, experiment.delta, **rule) if within else None
    return replace(verdict(comparisons, experiment.delta, **rule), quoted=quoted)


def of_planned_seeds(study: Study, rows: Sequence[Mapping], confirmation: int | None = None) -> list[Mapping]:
    """The rows of the seeds that were planned: whoever adds some, or a part of one, changes no verdict.

    Args:
        confirmation: that whose fresh seeds these are; the one that the verdict is from if left out.
    """
    first = plan.FIRST * (confirmation or study.confirmation)
    own = [row for row in rows if row.get("phase") == CONFIRM and first <= row["seed"] < first + plan.FIRST]
    fresh = range(first, first + own[0]["planned"] if own else first)  # what later rows say cannot change it
    return [row for row in rows if row["seed"] in (fresh if row.get("phase") == CONFIRM else range(study.seeds))]


def _confirmed_seeds(rows: Sequence[Mapping]) -> int:
    """How many fresh seeds there are of every setting that is confirmed.

    Raises:
        Incomplete: none, or not all that were planned.
    """
    confirming = [row for row in rows if row.get("phase") == CONFIRM]
    if not confirming:
        raise Incomplete("the chosen settings have not been confirmed on fresh seeds")
    seeds = confirming[0]["planned"]
    counts = Counter(key(0, row["setting"], 0) for row in confirming)
    if absent := sum(seeds - count for count in counts.values()):
        raise Incomplete(f"{absent} of the {len(counts) * seeds} runs that confirm are missing")
    return seeds


def provenance_line(rows: Sequence[Mapping]) -> str:
    """Where a figure's rows come from, in one line: data, network, updates, seeds, versions, days."""
    study = find(rows[0]["experiment"])
    steps = [row.get("steps") or study.updates(row["setting"]) for row in rows]
    seeds = len({row["seed"] for row in rows})
    updates = f"{_range(steps)} updates" if None not in steps else ""
    parts = [study.dataset, study.network, updates, f"{seeds} seed{'s' if seeds > 1 else ''}"]
    sources = [row["provenance"] for row in rows]
    for field, name in {"torch": "PyTorch", "numpy": "NumPy"}.items():
        versions = {source[field] for source in sources if field in source}
        parts += [f"{name} {' and '.join(sorted(versions))}"] if versions else []
    return "; ".join([*filter(None, parts), _range([source["date"] for source in sources])])


def cost(rows: Sequence[Mapping]) -> str:
    """How long the runs of these rows took, one after the other: "about 40 minutes on one core"."""
    recorded = [row["seconds"] for row in rows if row["seconds"] is not None]
    return f"about {duration(sum(recorded))} on one core" if recorded else "their time was not recorded"


def _range(values: Sequence) -> str:
    ends = dict.fromkeys(f"{value:,}" if isinstance(value, int) else value for value in (min(values), max(values)))
    return " to ".join(ends)
