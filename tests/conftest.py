"""The table of planted mistakes at the end of a run; tests of a package that is not installed are skipped."""

from __future__ import annotations

import signal

import pytest

from tests.missing import missing

# Programs that tests start must be able to receive it, also where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)

RESULTS = pytest.StashKey[list]()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A file that cannot be imported without a package that may be missing is skipped, and the report names it."""
    report = yield
    error = report.call.excinfo.value if report.failed and report.call.excinfo else None
    if package := missing(error):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {package} is not installed")
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


@pytest.fixture
def mutant_results(request: pytest.FixtureRequest) -> list:
    """What became of the planted mistakes; printed at the end of the run."""
    return request.config.stash.setdefault(RESULTS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(RESULTS, [])
    if results:
        from bnbook.checking.planting import table

        survivors = sum(result.outcome == "survived" for result in results)
        terminalreporter.section(f"{len(results)} planted mistakes, {survivors} survive")
        terminalreporter.write_line(table(results))
