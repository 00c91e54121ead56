"""One thread a process, the longest files first, what was left out; and what nbval lacks: kernels that do not depend on
who starts them, and pictures compared as pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

# Set before NumPy is imported; programs that tests start inherit it. Several workers with several threads each wait for
# one another. A test that is about threads says how many it wants.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.update(dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"))

MAX_WORKERS = 8  # a worker with PyTorch, TensorFlow and a kernel takes 2 GB; the longest file ends no sooner with more

collect_ignore_glob = ["*.student.ipynb"]


def _is_cell(item: pytest.Item) -> bool:
    return type(item).__name__ == "IPyNbCell"  # by name, so that unit tests run where nbval is not installed


def pytest_configure(config: pytest.Config) -> None:
    # nbval takes the path relative to the working directory; the tests may be started in any folder, and editors name
    # one that holds this repository as pytest's root.
    if path := getattr(config.option, "nbval_sanitize_with", None):
        config.option.nbval_sanitize_with = str(ROOT / path)


# --- the order, and what is left out ---------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many workers as this process may use processors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For several workers: files that say how long they take, then notebooks, then the rest: none comes last."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    weights: dict[Path, float] = {}
    for item in items:
        marks = [mark.kwargs["seconds"] for mark in item.iter_markers("long") if "seconds" in mark.kwargs]
        weights[item.path] = max(weights.get(item.path, 0), *marks, 1 if _is_cell(item) else 0)
    items.sort(key=lambda item: -weights[item.path])  # stable: within a file the order stays


LEFT_OUT = pytest.StashKey[Counter]()


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    """Count what `-m` and `-k` leave out; of workers, tell it to the process that reports."""
    items = list(items)
    config = items[0].config
    counts = config.stash.setdefault(LEFT_OUT, Counter())
    counts.update("long" if item.get_closest_marker("long") else "not chosen" for item in items)
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    if counts := getattr(node, "workeroutput", {}).get("left_out"):  # the same of every worker: each collects all tests
        node.config.stash[LEFT_OUT] = Counter(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line about what a run over all folders left out: not chosen, or impossible on this machine."""
    asked = [(config.invocation_params.dir / word).resolve() for word in config.args]
    if ROOT / "tests" not in asked or config.option.collectonly:
        return
    counts = Counter(config.stash.get(LEFT_OUT, {}))
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            counts[report.longrepr[2].removeprefix("Skipped: ")] += 1
    parts = [f"{number} tests ({reason})" for reason, number in counts.most_common()]
    groups = (group for kind, group in terminalreporter.stats.items() if kind != "deselected")
    reports = (report for group in groups for report in group)
    executed = {report.nodeid.partition("::")[0] for report in reports if "::Cell" in getattr(report, "nodeid", "")}
    notebooks = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("book/*.ipynb")}
    if missing := {name for name in notebooks if not name.endswith(".student.ipynb")} - executed:
        parts.append(f"the outputs of {len(missing)} notebooks")
    terminalreporter.write_line(f"Left out: {', '.join(parts) or 'nothing'}.")


# --- notebooks -------------------------------------------------------------------------------------------------------


def pytest_collectstart(collector: pytest.Collector) -> None:
    """nbval compares drawings letter by letter; here they are compared as drawings."""
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += ("image/svg+xml",)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):
    """Start kernels with the environment the stored outputs were made in; the process of the tests keeps its own."""
    if not _is_cell(item):
        return (yield)
    from nb import kernel_environment

    with kernel_environment():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """After nbval executed a cell: the stored outputs exist, and its pictures are those that were made."""
    result = yield
    if not _is_cell(item):
        return result
    from nb_pictures import compare_drawings, compare_pictures, drawings, pictures

    if item.cell.execution_count is None:
        item.raise_cell_error("The stored cell was never executed: run tools/nb.py")
    if bool(item.cell.outputs) != bool(item.test_outputs):
        item.raise_cell_error(f"{len(item.cell.outputs)} outputs are stored, {len(item.test_outputs)} were made")
    stored, made = pictures(item.cell.outputs), pictures(item.test_outputs)
    if len(stored) != len(made):
        item.raise_cell_error(f"{len(stored)} pictures are stored, {len(made)} were made")
    if item.options["check"]:
        for number, pair in enumerate(zip(stored, made, strict=True)):
            if difference := compare_pictures(*pair):
                item.raise_cell_error(f"Pictures differ (number {number}): {difference}", _keep(item, number, *pair))
        drawn = drawings(item.cell.outputs), drawings(item.test_outputs)
        if len(drawn[0]) != len(drawn[1]):
            item.raise_cell_error(f"{len(drawn[0])} drawings are stored, {len(drawn[1])} were made")
        for pair in zip(*drawn, strict=True):
            if difference := compare_drawings(*pair):
                item.raise_cell_error(f"Drawings differ: {difference}")
    return result


def _keep(item: pytest.Item, number: int, stored: bytes, made: bytes) -> str:
    """Write both pictures where they can be looked at; a line that says where."""
    folder = ROOT / "_build" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{item.path.stem}-cell{item.cell_num}-{number}"
    for kind, png in (("stored", stored), ("made", made)):
        (folder / f"{name}-{kind}.png").write_bytes(png)
    return f"Compare {folder / name}-stored.png and …-made.png."
