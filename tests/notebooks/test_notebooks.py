"""Static guards over the notebooks of the book, and the version for learners. nbval itself re-executes them."""

from __future__ import annotations

import copy
from pathlib import Path

import nb as tool
import nb_guards as guards
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = tool.notebooks()
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@every_notebook
def test_static_guards(path: Path) -> None:
    problems = guards.check_notebook(tool.read(path), path.name, path.stat().st_size)
    assert not problems, "\n".join([f"{path.name}:", *problems])


@every_notebook
def test_text_round_trip(path: Path) -> None:
    nb = tool.normalise(tool.read(path))
    back = tool.from_text(tool.to_text(nb))
    assert [tool.signature(cell) for cell in back.cells] == [tool.signature(cell) for cell in nb.cells]


@every_notebook
def test_is_normalised(path: Path) -> None:
    nb = tool.read(path)
    assert tool.normalise(copy.deepcopy(nb)) == nb, f"{path.name} was not written by tools/nb.py: run it again"


def test_list_of_cells_that_are_not_compared(capsys: pytest.CaptureFixture) -> None:
    """Print how many cells of each notebook nbval executes without comparing; `check_trained` wants an assertion."""
    lines = []
    for path in NOTEBOOKS:
        nb = tool.read(path)
        code = sum(cell.cell_type == "code" for cell in nb.cells)
        lines.append(f"{path.name:40} {guards.count_trained(nb):3} of {code:3} code cells are not compared")
    with capsys.disabled():
        print("", *lines, sep="\n")


@every_notebook
def test_learners_are_told_how_and_not_what(path: Path) -> None:
    """The version without solutions has no line that only a solution has, and the words for learners once."""
    nb = tool.read(path)
    if not (found := guards.exercises(nb)):
        return
    solutions = [cell for _, _, code in found for cell in code if "solution" in guards.tags(cell)]
    text = "\n".join(cell.source for cell in tool.student(nb).cells)
    elsewhere = "\n".join(cell.source for cell in nb.cells if cell not in solutions)
    lines = {line.strip() for cell in solutions for line in cell.source.splitlines()}
    assert [line for line in lines if line in text and line not in elsewhere] == []
    assert [text.count(line) for line in tool.FOR_LEARNERS] == [1, 1]
    again = "\n".join(cell.source for cell in tool.student(tool.student(nb)).cells)
    assert again == text


def cells_for_learners(path: Path) -> list[NotebookNode]:
    """The imports, stubs and checks of the version without solutions.

    An exercise does not need the chapter's trained cells, and the rest of the notebook is executed by nbval. That no
    cell needs what only a solution defines is a static guard.
    """
    nb = tool.student(tool.read(path))
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert all("solution" not in guards.tags(cell) and not cell.outputs for cell in code)
    imports, checks = guards.import_cells(nb), [cell for cell in code if guards.final_check(cell)]
    assert len(checks) == len(guards.exercises(nb)), f"{path.name}: an exercise without its check"
    return [cell for cell in code if checks and (cell in imports or "exercise" in guards.tags(cell) or cell in checks)]


@pytest.fixture(scope="module")
def executed() -> dict[str, list[NotebookNode]]:
    """By notebook, its cells for learners, executed in one kernel that forgets all names in between.

    Starting a kernel and importing the frameworks takes longer than the cells. Where something is wrong, nothing: each
    notebook is then executed by itself, and the one with the mistake says so.
    """
    cells = {path.name: cells_for_learners(path) for path in NOTEBOOKS}
    together = new_notebook(cells=[cell for of_one in cells.values() for cell in (new_code_cell("%reset -f"), *of_one)])
    for number, cell in enumerate(together.cells):  # one cell may stand in two notebooks
        cell.id = f"cell-{number}"
    try:
        tool.execute(together, "all notebooks without solutions")
    except tool.NotebookError:
        return {}
    return cells


@pytest.mark.long(seconds=30)
@every_notebook
def test_student_version(path: Path, executed: dict[str, list[NotebookNode]]) -> None:
    """Without solutions: nothing given away, and every check runs and says "not attempted"."""
    if path.name in executed:
        cells = executed[path.name]
    else:
        cells = cells_for_learners(path)
        tool.execute(new_notebook(cells=cells), f"{path.name} without solutions")
    for cell in cells:
        if name := guards.final_check(cell):
            said = "\n".join(guards.output_texts(cell))
            assert f"{name}: not attempted" in said, f"the check of {name} in {path.name}"
