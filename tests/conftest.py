"""Random numbers that depend on a test alone, the table of planted mistakes, skips where a package is missing."""

from __future__ import annotations

import random
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.missing import missing

ROOT = Path(__file__).parents[1]

# Programs that tests start must be able to receive it, also where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)


try:
    from hypothesis import settings
except ImportError:  # as for nbval: what needs no such package runs without
    pass
else:  # the same examples each time, wherever the tests run, and no clock
    settings.register_profile("bnbook", deadline=None, derandomize=True, database=None, max_examples=25)
    settings.load_profile("bnbook")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A file that cannot be imported without a package that may be missing is skipped, and the report names it."""
    report = yield
    error = report.call.excinfo.value if report.failed and report.call.excinfo else None
    if package := missing(error):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {package} is not installed")
        # The half that was executed would be what another test imports.
        sys.modules.pop(".".join(collector.path.relative_to(ROOT).with_suffix("").parts), None)
    return report


def _skip_what_is_missing():
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if package := missing(error):
            pytest.skip(f"{package} is not installed")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):
    return (yield from _skip_what_is_missing())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    return (yield from _skip_what_is_missing())


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What is drawn depends on the name of the test: not on the day, nor on the tests before it.

    That includes `default_rng()` without a seed, of which every call draws other numbers.
    """
    number = zlib.crc32(request.node.nodeid.encode())
    random.seed(number)
    np.random.seed(number)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(number)
    root, default_rng = np.random.SeedSequence(number), np.random.default_rng

    def seeded(seed: object = None) -> np.random.Generator:
        return default_rng(root.spawn(1)[0] if seed is None else seed)

    monkeypatch.setattr(np.random, "default_rng", seeded)
    return number


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = (report for group in terminalreporter.stats.values() for report in group)
    results = [dict(report.user_properties)["planted"] for report in reports if _planted(report)]
    if results:
        from bnbook.checking.planting import Result, table
        from tests.mutants import MUTANTS

        mutants = {mutant.name: mutant for mutant in MUTANTS}
        survivors = sum(outcome == "survived" for _, outcome in results)
        terminalreporter.section(f"{len(results)} planted mistakes, {survivors} survive")
        terminalreporter.write_line(table(Result(mutants[name], outcome) for name, outcome in results))


def _planted(report: object) -> bool:
    return getattr(report, "when", "") == "call" and "planted" in dict(report.user_properties)
