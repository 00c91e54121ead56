"""The table of planted mistakes at the end of a run."""

from __future__ import annotations

import signal

import pytest

# Programs that tests start must be able to receive it, also where the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)

RESULTS = pytest.StashKey[list]()


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
