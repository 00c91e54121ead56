"""What nbval lacks: kernels that do not depend on who starts them, and pictures compared as pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
collect_ignore_glob = ["*.student.ipynb"]


def _is_cell(item: pytest.Item) -> bool:
    return type(item).__name__ == "IPyNbCell"  # by name, so that unit tests run where nbval is not installed


def pytest_configure(config: pytest.Config) -> None:
    # nbval takes the path relative to the working directory; the tests may be started in any folder, and editors name
    # one that holds this repository as pytest's root.
    if path := getattr(config.option, "nbval_sanitize_with", None):
        config.option.nbval_sanitize_with = str(ROOT / path)


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
    from nb_guards import compare_pictures, pictures

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
    return result


def _keep(item: pytest.Item, number: int, stored: bytes, made: bytes) -> str:
    """Write both pictures where they can be looked at; a line that says where."""
    folder = ROOT / "_build" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{item.path.stem}-cell{item.cell_num}-{number}"
    for kind, png in (("stored", stored), ("made", made)):
        (folder / f"{name}-{kind}.png").write_bytes(png)
    return f"Compare {folder / name}-stored.png and …-made.png."
