"""The experiments that there are, and their results files: a schema, reading, and what the pages make of the rows."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from . import rows as files
from .rows import ResultsError
from .statistics import INCONCLUSIVE, Incomplete, Verdict, verdict

CLAIMS = "bnbook.experiments.claims"
BOOK = Path(__file__).parents[3] / "book"
RESULTS = (BOOK if BOOK.is_dir() else Path("book")) / "results"

NEEDED = "QUESTION CLAIM SOURCE CHAPTER VERSION DATASET NETWORK STEPS grid run comparisons figure".split()
DEFAULTS = {
    "METRIC": "test_accuracy",
    "DELTA": 0.005,
    "SEEDS": 5,
    "CHANCE": 0.1,
    "NEEDS_MORE": True,
    "FACTOR": "the condition",
}
OF_THE_ROWS = "VERSION SEEDS CHANCE DATASET NETWORK STEPS grid run".split()  # what a module with ROWS takes from there
FIELDS = {
    "experiment": str,
    "version": int,
    "setting": dict,
    "seed": int,
    "diverged": bool,
    "seconds": int | float,
    "provenance": dict,
}

Task = tuple[dict, int]  # a setting and a seed


# The experiments


def names() -> list[str]:
    """The names of all experiments, in the order of the alphabet."""
    path = importlib.import_module(CLAIMS).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def find(name: str) -> ModuleType:
    """The module of an experiment, with the constants that it leaves out.

    Raises:
        ValueError: there is none of this name, or something of its interface is missing.
    """
    if name not in names():
        raise ValueError(f"NAME must be one of {', '.join(names()) or '(there are none)'}, got {name!r}")
    module = importlib.import_module(f"{CLAIMS}.{name}")
    if (source := rows_of(module)) != name:
        for word in OF_THE_ROWS:
            module.__dict__.setdefault(word, getattr(find(source), word))
    if absent := [word for word in NEEDED if not hasattr(module, word)]:
        raise ValueError(f"the experiment {name!r} must define {', '.join(absent)} (see bnbook.experiments)")
    for word, value in DEFAULTS.items():
        module.__dict__.setdefault(word, value)
    return module


def rows_of(module: ModuleType) -> str:
    """The name of the experiment whose rows a module reads: its own, or what ROWS says."""
    return getattr(module, "ROWS", name_of(module))


def name_of(module: ModuleType) -> str:
    """The name of an experiment, from its module."""
    return module.__name__.rpartition(".")[2]


def settings(module: ModuleType, quick: bool = False) -> list[dict]:
    """The settings of an experiment's grid.

    Raises:
        ValueError: a setting that is not flat, has other names than the first, or comes twice.
    """
    grid = module.grid(quick=quick)
    seen = set()
    for setting in grid:
        for name, value in setting.items():
            if not (value is None or isinstance(value, str | int | float)) or value != value:
                raise ValueError(f"grid() must hold strings, numbers, booleans and None, got {name!r}: {value!r}")
        if setting.keys() != grid[0].keys():
            raise ValueError(f"grid() must give every setting the same names, got {setting} after {grid[0]}")
        if key(module.VERSION, setting, 0) in seen:
            raise ValueError(f"grid() must give every setting once, got {setting} twice")
        seen.add(key(module.VERSION, setting, 0))
    return grid


# The rows


class Contents(NamedTuple):
    """An experiment's results beside its grid."""

    rows: list[dict]  # of this version and of the grid, in its order and then that of the seeds
    missing: list[Task]  # of the seeds asked for: all settings with the first seed, then with the next
    stale: dict[int, int]  # other version → number of rows
    outside: int  # rows of this version whose setting the grid does not have
    damage: list[str]
    truncated: bool

    def warnings(self, module: ModuleType, path: Path) -> list[str]:
        """What somebody who works with the file should know."""
        lines = list(self.damage)
        if self.truncated:
            lines.append(f"{path}: the last line is incomplete; it is dropped and its run repeated")
        for version, count in self.stale.items():
            lines.append(f"{path}: {count} rows are stale, of version {version}; the experiment is {module.VERSION}")
        if self.outside:
            lines.append(f"{path}: {self.outside} rows have settings that the grid does not have; they are not used")
        return lines


def file(name: str, results: str | Path = RESULTS, quick: bool = False) -> Path:
    """The results file of an experiment; those of quick runs lie in a folder of their own."""
    return Path(results) / ("quick" if quick else "") / f"{name}.jsonl"


def contents(module: ModuleType, path: Path, seeds: Iterable[int], quick: bool = False) -> Contents:
    """Read an experiment's results and lay them beside its grid."""
    held = files.read(path, lambda row: problem(row, module), row_key)
    grid = settings(module, quick)
    order = {key(module.VERSION, setting, 0): i for i, setting in enumerate(grid)}
    here, stale, outside = [], Counter(), 0
    for row in held.rows:
        place = order.get(key(row["version"], row["setting"], 0))
        if row["version"] != module.VERSION:
            stale[row["version"]] += 1
        elif place is None:
            outside += 1
        else:
            here.append((place, row["seed"], row))
    rows = [row for *_, row in sorted(here, key=lambda item: item[:2])]
    done = {row_key(row) for row in rows}
    missing = [(s, seed) for seed in seeds for s in grid if key(module.VERSION, s, seed) not in done]
    return Contents(rows, missing, dict(stale), outside, held.damage, held.truncated)


def load(name: str, results: str | Path = RESULTS, quick: bool = False) -> list[dict]:
    """The rows of an experiment, of its present version, in the order of its grid and then of the seeds.

    Raises:
        ResultsError: a damaged line, or no rows yet.
    """
    name = rows_of(find(name))
    module, path = find(name), file(name, results, quick)
    held = contents(module, path, (), quick)
    if held.damage:
        raise ResultsError(held.damage[0])
    if not held.rows:
        raise ResultsError(f"there are no rows of {name!r} yet: python -m bnbook.experiments run {name}")
    return held.rows


def problem(row: Mapping, module: ModuleType) -> str | None:
    """What is wrong with a row of an experiment, or None: the schema of results files."""
    for field, kind in FIELDS.items():
        if field not in row:
            return f"has no {field}"
        if not isinstance(row[field], kind) or (isinstance(row[field], bool) and kind is not bool):
            return f"has a {field} of the wrong kind: {row[field]!r}"
    if row["experiment"] != name_of(module):
        return f"is a row of the experiment {row['experiment']!r}, not of {name_of(module)!r}"
    if row["version"] != module.VERSION:
        return None  # what it measured is that version's affair
    if any(isinstance(value, list | dict) for value in row["setting"].values()):
        return "has a setting that is not flat"
    if absent := {"command", "commit", "date"} - row["provenance"].keys():
        return f"has a provenance without {', '.join(sorted(absent))}"
    return _problem_of_measurements(row, module.METRIC)


def _problem_of_measurements(row: Mapping, metric: str) -> str | None:
    if metric not in row:
        return f"has no {metric}"
    if type(row[metric]) not in (int, float) and not (row[metric] is None and row["diverged"]):
        return f"has a {metric} that is no number: {row[metric]!r}"
    if "correct" not in row:
        return None
    try:
        right = files.unpack_bits(row["correct"]).mean()
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

    It is "inconclusive" while planned runs are missing.

    Args:
        name: of the experiment; the one that made the rows if left out.

    Raises:
        ValueError: rows of another experiment than this one reads.
    """
    module = find(name or rows[0]["experiment"])
    if (source := rows_of(module)) != rows[0]["experiment"]:
        raise ValueError(f"rows must be those of {source!r} for {name!r}, got rows of {rows[0]['experiment']!r}")
    counts = Counter(key(0, row["setting"], 0) for row in rows)
    planned = [key(0, setting, 0) for setting in settings(module)]
    absent = sum(max(0, module.SEEDS - counts[setting]) for setting in planned)
    try:
        if absent:
            raise Incomplete(f"{absent} of the {len(planned) * module.SEEDS} planned runs are missing")
        comparisons = module.comparisons(rows)
    except Incomplete as error:
        return Verdict(INCONCLUSIVE, f"Inconclusive: {error}.", {})
    return verdict(comparisons, module.DELTA, planned=module.SEEDS, needs_more=module.NEEDS_MORE, factor=module.FACTOR)


def provenance_line(rows: Sequence[Mapping]) -> str:
    """Where a figure's rows come from, in one line: data, network, updates, seeds, versions, days."""
    module = find(rows[0]["experiment"])
    steps = [row.get("steps") or row["setting"].get("steps") or module.STEPS for row in rows]
    seeds = len({row["seed"] for row in rows})
    parts = [module.DATASET, module.NETWORK, f"{_range(steps)} updates", f"{seeds} seed{'s' if seeds > 1 else ''}"]
    sources = [row["provenance"] for row in rows]
    for field, name in {"torch": "PyTorch", "numpy": "NumPy"}.items():
        versions = {source[field] for source in sources if field in source}
        parts += [f"{name} {' and '.join(sorted(versions))}"] if versions else []
    return "; ".join([*parts, _range([source["date"] for source in sources])])


def cost(rows: Sequence[Mapping]) -> str:
    """How long the runs of these rows took, one after the other: "about 40 minutes on one core"."""
    return f"about {duration(sum(row['seconds'] for row in rows))} on one core"


def duration(seconds: float) -> str:
    """Seconds in words, to a reasonable digit."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _range(values: Sequence) -> str:
    ends = dict.fromkeys(f"{value:,}" if isinstance(value, int) else value for value in (min(values), max(values)))
    return " to ".join(ends)
