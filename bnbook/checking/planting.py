"""Mistakes planted in the package on purpose: a test that lets one live does not test.

A `Mutant` replaces a piece of source text in one module; `planted` lets it live for a while, everywhere; `run` asks the
test that should notice. Those of the package stand in `tests/mutants.py`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import linecache
import os
import runpy
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """One mistake: `old`, which occurs exactly once in the module's source, becomes `new`.

    Attributes:
        name: what is wrong, in a few words.
        module: below `bnbook`, for example "functional.batch_norm".
        old, new: source text.
        killed_by: the test that fails with it, as pytest names it; of a parametrized test any case may fail.
        why: how the mistake is made, or what it would do.
        environment: variables, (name, value) each, that must be set before the test is imported; where they are not,
            `run` asks it in a process of its own.
    """

    name: str
    module: str
    old: str
    new: str
    killed_by: str
    why: str
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name

    def source(self) -> str:
        """The module's source with the mistake in it.

        Raises:
            ValueError: `old` does not occur exactly once; the module has changed and the mutant must follow.
        """
        text = Path(self._module().__file__).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"mutant {self.name!r}: {self.old!r} must occur once in bnbook.{self.module}, got {count}")
        return text.replace(self.old, self.new)

    def _module(self) -> types.ModuleType:
        return importlib.import_module(f"bnbook.{self.module}")


class Result(NamedTuple):
    """What became of a mutant.

    "killed", "survived", "skipped" where its test cannot run here (no torch), or "could not run": there is no such
    test, it fails without the mistake, or the mistake no longer fits the module. `output` says more.
    """

    mutant: Mutant
    outcome: str
    output: str = ""


def of_the_package() -> tuple[Mutant, ...]:
    """The mistakes of `tests/mutants.py`, for whoever may not import the tests.

    Raises:
        FileNotFoundError: the package is installed without its tests.
    """
    return runpy.run_path(str(ROOT / "tests" / "mutants.py"))["MUTANTS"]


# --- planting --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Let the mistake live in the running package, and take it out again.

    The changed source is executed aside, and its functions lend their code to the living ones: these keep their
    identity, so that everyone who imported them, under whatever name, sees the mistake. Kernels of Triton, which are
    made from their text, are exchanged in their module.
    """
    module = mutant._module()
    path = f"{module.__file__} with {mutant.name!r}"
    changed = {"__name__": module.__name__, "__package__": module.__package__, "__file__": module.__file__}
    source = mutant.source()
    code = compile(source, path, "exec")
    undo: list[Callable[[], None]] = [functools.partial(linecache.cache.pop, path, None)]
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)  # where Triton finds the text
    try:
        exec(code, changed)
        for name, value in changed.items():
            if name.startswith("__") or name not in vars(module):
                continue
            _lend(module, name, vars(module)[name], value, module.__name__, undo)
        yield
    finally:
        for step in reversed(undo):
            step()


def _lend(owner: object, name: str, living: object, changed: object, module: str, undo: list) -> None:
    """Give `living`, the attribute `name` of a module or class, the behaviour of `changed`."""
    if isinstance(living, type):
        if living.__module__ == module:
            for key, value in vars(changed).items():
                if key in vars(living) and not key.startswith(("__dict", "__weak", "__doc", "__module")):
                    _lend(living, key, vars(living)[key], value, module, undo)
    elif isinstance(living, property):
        _lend(owner, name, living.fget, changed.fget, module, undo)
    elif type(living).__module__.startswith("triton."):
        undo.append(functools.partial(setattr, owner, name, living))
        setattr(owner, name, changed)
    elif callable(living):
        for function, other in zip(_unwrapped(living), _unwrapped(changed), strict=True):
            if hasattr(function, "cache_clear"):  # what was computed without the mistake, and later with it
                function.cache_clear()
                undo.append(function.cache_clear)
            if isinstance(function, types.FunctionType) and function.__module__ == module:
                _swap(function, other, undo)
    elif isinstance(living, bool | int | float | str | tuple) and living != changed:
        undo.append(functools.partial(setattr, owner, name, living))
        setattr(owner, name, changed)


def _swap(function: types.FunctionType, other: types.FunctionType, undo: list) -> None:
    for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
        undo.append(functools.partial(setattr, function, attribute, getattr(function, attribute)))
        setattr(function, attribute, getattr(other, attribute))
    for cell, new in zip(function.__closure__ or (), other.__closure__ or (), strict=True):
        if isinstance(cell.cell_contents, tuple | str) and cell.cell_contents != new.cell_contents:  # of a decorator
            undo.append(functools.partial(setattr, cell, "cell_contents", cell.cell_contents))
            cell.cell_contents = new.cell_contents


def _unwrapped(function: object) -> Iterator[object]:
    """A function, and what its decorators wrap."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


# --- running ---------------------------------------------------------------------------------------------------------


def run(mutants: Iterable[Mutant], progress: Callable[[Result], object] = lambda result: None) -> list[Result]:
    """Plant mutants one by one and ask the test of each; `progress` hears of every result.

    The tests are collected once, in this process and without the settings of the project; those of mutants that need
    another environment once in a process for each. A test that fails runs again without the mistake: one that fails
    then, too, has noticed nothing.
    """
    mutants = list(mutants)
    rooms: dict[tuple, list[int]] = {}
    for at, mutant in enumerate(mutants):
        here = all(os.environ.get(name) == value for name, value in mutant.environment)
        rooms.setdefault(() if here else mutant.environment, []).append(at)
    found: dict[int, Result] = {}
    for environment, places in rooms.items():
        chosen = [mutants[at] for at in places]
        results = _elsewhere(chosen, environment, progress) if environment else _here(chosen, progress)
        found.update(zip(places, results, strict=True))
    return [found[at] for at in range(len(mutants))]


def _elsewhere(mutants: list[Mutant], environment: tuple, progress: Callable[[Result], object]) -> list[Result]:
    """In a process that starts with these variables."""
    done = subprocess.run(
        [sys.executable, "-c", "from bnbook.checking.planting import _answer; _answer()"],
        input=json.dumps([asdict(mutant) for mutant in mutants]),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=ROOT,  # where `-c` looks for packages first
        env={**os.environ, **dict(environment)},
    )
    if done.returncode:
        raise RuntimeError(f"the process with {dict(environment)} ended with {done.returncode}:\n{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    results = [Result(mutant, *words) for mutant, words in zip(mutants, told, strict=True)]
    for result in results:
        progress(result)
    return results


def _answer() -> None:
    """What such a process does: it reads mutants, and prints their outcomes as its last line."""
    given = json.load(sys.stdin)
    mutants = [Mutant(**{**one, "environment": tuple(map(tuple, one["environment"]))}) for one in given]
    print("\n" + json.dumps([result[1:] for result in _here(mutants, lambda result: None)]))


def _here(mutants: list[Mutant], progress: Callable[[Result], object]) -> list[Result]:
    import pytest

    asking = _Asking(tuple(mutants), progress)
    files = dict.fromkeys(str(ROOT / mutant.killed_by.partition("::")[0]) for mutant in asking.mutants)
    options = [
        "-q",
        "--tb=line",
        "-c",
        os.devnull,
        f"--rootdir={ROOT}",
        "--noconftest",
        "--continue-on-collection-errors",
    ]
    options += ["-p", "no:cacheprovider", "-p", "no:logging", "-W", "ignore"]
    options += ["--capture=no", "--import-mode=importlib"]
    output = io.StringIO()
    imported = {name: module for name, module in sys.modules.items() if getattr(module, "__file__", None) in files}
    for name in imported:  # one that was skipped on its import would now pass for an empty file
        del sys.modules[name]
    with _environment("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"), contextlib.redirect_stdout(output):
        pytest.main([*options, *(file for file in files if Path(file).is_file())], plugins=[asking])
    sys.modules.update(imported)
    if asking.results is None:
        raise RuntimeError(f"the tests that notice mistakes could not be collected:\n{output.getvalue()}")
    return asking.results


class _Asking:
    """The plugin of a run of pytest that asks the tests it has collected about mutants, instead of running them all."""

    def __init__(self, mutants: tuple[Mutant, ...], progress: Callable[[Result], object]) -> None:
        self.mutants, self.progress = mutants, progress
        self.results: list[Result] | None = None
        self._reports: list = []
        self._without: dict[object, tuple[str, str]] = {}  # what tests do without a mistake
        self._uncollected: list[str] = []
        self._skipped_files: set[str] = set()  # for want of a package

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self._uncollected.append(report.longreprtext)
        elif report.skipped:
            self._skipped_files.add(report.nodeid)

    def pytest_runtest_logreport(self, report) -> None:
        self._reports.append(report)

    def pytest_runtestloop(self, session) -> bool:
        self.results = []
        for mutant in self.mutants:
            self.results.append(self._ask(mutant, session.items))
            self.progress(self.results[-1])
        return True

    def _ask(self, mutant: Mutant, items: list) -> Result:
        test = mutant.killed_by
        chosen = [item for item in items if item.nodeid == test or item.nodeid.startswith((f"{test}[", f"{test}::"))]
        if not chosen and test.partition("::")[0] in self._skipped_files:
            return Result(mutant, "skipped")
        if not chosen:
            return Result(mutant, "could not run", "\n".join([f"no test is named {test}", *self._uncollected]))
        noticed, outcomes = "", set()
        try:
            with planted(mutant):
                for item in chosen:
                    outcome, noticed = self._call(item)
                    outcomes.add(outcome)
                    if outcome == "failed":
                        break
        except Exception as error:  # by planting: what a test raises is in its report
            return Result(mutant, "could not run", f"{type(error).__name__}: {error}")
        if outcome != "failed":
            return Result(mutant, "survived" if "passed" in outcomes else "skipped")
        if item not in self._without:
            self._without[item] = self._call(item)
        outcome, output = self._without[item]
        if outcome == "failed":
            return Result(mutant, "could not run", f"{item.nodeid} fails without a mistake:\n{output}")
        return Result(mutant, "killed", noticed)

    def _call(self, item) -> tuple[str, str]:
        """Run one test with fixtures of its own: "passed", "failed" or "skipped", and what it says where it fails."""
        self._reports.clear()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if failed := [report.longreprtext for report in self._reports if report.failed]:
            return "failed", failed[0]
        return "skipped" if any(report.skipped for report in self._reports) else "passed", ""


def table(results: Iterable[Result]) -> str:
    """The results as plain text: name, where, killed by, result."""
    rows = [("planted mistake", "where", "killed by", "result")]
    for mutant, outcome, _ in results:
        test = mutant.killed_by.removeprefix("tests/").partition("[")[0]  # without the case
        rows.append((mutant.name, mutant.module, test, outcome))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
