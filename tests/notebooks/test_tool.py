"""The notebook tool: text and back, execution, the version for learners."""

from __future__ import annotations

import os
from pathlib import Path

import nb as tool
import nb_guards as guards
import pytest
from nbformat import NotebookNode

from tests.notebooks.trial import cell_with, nb_command, order, pytest_in


@pytest.mark.long
def test_text_and_back_is_lossless(repo: Path, chapter: NotebookNode) -> None:
    path = repo / "again.ipynb"
    path.write_bytes((repo / "book" / "01_trial.ipynb").read_bytes())
    before = path.read_bytes()
    text = tool.to_text(chapter)
    assert [tool.signature(cell) for cell in tool.from_text(text).cells] == [tool.signature(c) for c in chapter.cells]
    figure = cell_with(tool.from_text(text), "bins").metadata.mystnb
    assert figure.image.alt.endswith("like α̂.") and figure.figure.name == "fig-trial"
    tool.apply(text, path, keep_outputs=True)
    assert path.read_bytes() == before
    path.unlink()


@pytest.mark.long
def test_execution_is_reproducible(repo: Path) -> None:
    """Exporting a notebook and applying its own text executes it again and changes no byte."""
    path = repo / "book" / "01_trial.ipynb"
    before = path.read_bytes()
    assert nb_command(repo, "text", "book/01_trial.ipynb", "-o", "again.md").returncode == 0
    assert nb_command(repo, "apply", "again.md", "book/01_trial.ipynb").returncode == 0
    assert path.read_bytes() == before


def test_ids_stay_with_their_cells(chapter: NotebookNode) -> None:
    changed = tool.from_text(tool.to_text(chapter).replace("All of it.", "Nearly all of it.\n\n+++\n\nAnd this."))
    tool.set_ids(changed, chapter)
    new = {cell.id for cell in changed.cells} - {cell.id for cell in chapter.cells}
    assert len(changed.cells) == len(chapter.cells) + 1
    assert new == {cell_with(changed, "And this.").id}
    again = tool.from_text(tool.to_text(changed))
    tool.set_ids(again, chapter)
    assert [cell.id for cell in again.cells] == [cell.id for cell in changed.cells]


@pytest.mark.parametrize(
    ("kind", "source", "kept"),
    [
        ("code", 'print("""\n```\n""")', True),
        ("code", "%%time\n1", True),
        ("code", "# +\n1\n# -", True),
        ("code", ":tags: [a]\n1", True),
        ("code", "\n\nx = 1\n\n\ny = 2\n", True),
        ("markdown", "---\nrule", True),
        ("markdown", "```{note}\n+++\n```", True),
        ("markdown", "  indented  \nbroken\n\n\na", True),
        ("markdown", "+++\nmore", False),
        ("markdown", "```{code-cell}\n1\n```", False),
    ],
)
def test_awkward_cells_survive_or_are_refused(kind: str, source: str, kept: bool) -> None:
    nb = tool.nbformat.v4.new_notebook(cells=[getattr(tool.nbformat.v4, f"new_{kind}_cell")(source)])
    if kept:
        back = tool.from_text(tool.to_text(nb))
        assert [tool.signature(cell) for cell in back.cells] == [
            tool.signature(cell) for cell in tool.normalise(nb).cells
        ]
        assert back.cells[0].source == source.strip("\n")
    else:
        with pytest.raises(tool.NotebookError):
            tool.to_text(nb)


@pytest.mark.long
def test_a_failing_cell_leaves_the_notebook(repo: Path) -> None:
    path = repo / "book" / "01_trial.ipynb"
    before = path.read_bytes()
    (repo / "bad.md").write_text("```{code-cell}\n1 / 0  # fails\n```\n", encoding="utf-8")
    done = nb_command(repo, "apply", "bad.md", "book/01_trial.ipynb")
    assert done.returncode == 1
    assert "1 / 0  # fails" in done.stderr and "ZeroDivisionError" in done.stderr
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".01_trial*"))


def test_keep_outputs_wants_the_same_code(repo: Path, chapter: NotebookNode) -> None:
    text = tool.to_text(chapter).replace("bins=30", "bins=5")
    with pytest.raises(tool.NotebookError, match="the code differs"):
        tool.apply(text, repo / "book" / "01_trial.ipynb", keep_outputs=True)


@pytest.mark.long
def test_student_version(repo: Path) -> None:
    done = nb_command(repo, "student", "book/01_trial.ipynb", "-o", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    nb = tool.read(repo / "mine.ipynb")
    assert all("solution" not in guards.tags(cell) for cell in nb.cells)
    assert "return 1" not in "".join(cell.source for cell in nb.cells)
    assert not any(cell.outputs for cell in nb.cells if cell.cell_type == "code")
    assert nb_command(repo, "student", "book/01_trial.ipynb", "-o", "book/01_trial.ipynb").returncode == 1
    assert "say with -o where" in nb_command(repo, "student", "book/01_trial.ipynb").stderr


def test_all_student_versions(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the results that chapters read; what a learner typed stays."""
    for name, folder in {"ROOT": "", "BOOK": "book", "STUDENT": "_build/student"}.items():
        monkeypatch.setattr(tool, name, repo / folder)
    (repo / "book" / "results").mkdir()
    (repo / "book" / "results" / "a.json").touch()
    for _ in range(2):
        assert tool.main(["student"]) == 0
        path = repo / "_build" / "student" / "01_trial.ipynb"
        assert (path.parent / "results" / "a.json").is_file()
    assert tool.read(path) == tool.student(tool.read(repo / "book" / "01_trial.ipynb"))
    path.write_text("answers", encoding="utf-8")
    tool.main(["student"])
    assert path.read_text(encoding="utf-8") == "answers"


@pytest.mark.long
def test_check_reports(repo: Path, chapter: NotebookNode) -> None:
    assert nb_command(repo, "check").returncode == 0
    order(chapter)
    tool.write(chapter, repo / "bad.ipynb")
    done = nb_command(repo, "check", "bad.ipynb")
    assert done.returncode == 1 and "execution counts" in done.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_text_goes_into_a_pipe_and_does_not_replace_it(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    tool.write_text("a chapter", pipe)
    assert os.read(reader, 99) == b"a chapter" and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]
    os.close(reader)


@pytest.mark.long
@pytest.mark.parametrize("home", ["with settings", "that cannot be written"])
def test_outputs_do_not_depend_on_the_home_of_the_reader(home: str, repo: Path, tmp_path: Path) -> None:
    """Neither what is compared nor what is stored; pytest's root is the folder above, as editors name it."""
    files = {
        ".ipython/profile_default/ipython_kernel_config.py": "c.InlineBackend.figure_formats = ['jpeg']\n",
        ".ipython/profile_default/startup/a.py": "import numpy; numpy.set_printoptions(precision=1)\n",
        "matplotlib/matplotlibrc": "lines.linewidth: 9\npatch.facecolor: red\n",
        "startup.py": "print('startup')\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    hostile = {
        "HOME": str(tmp_path),
        "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
        "MATPLOTLIBRC": str(tmp_path / "matplotlib"),
        "PYTHONSTARTUP": str(tmp_path / "startup.py"),
    }
    if home == "that cannot be written":
        hostile = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "XDG_CONFIG_HOME": "/dev/null"}
    before = (repo / "book" / "01_trial.ipynb").read_bytes()
    done = pytest_in(repo, "book", "--rootdir", str(repo.parent), **hostile)
    assert done.returncode == 0, done.stdout
    done = nb_command(repo, "run", "book/01_trial.ipynb", **hostile)
    assert done.returncode == 0, done.stderr
    stored = tool.read(repo / "book" / "01_trial.ipynb")
    (repo / "book" / "01_trial.ipynb").write_bytes(before)
    kinds = [sorted(output.get("data", output)) for cell in stored.cells for output in cell.get("outputs", [])]
    assert ["image/png", "image/svg+xml", "text/plain"] in kinds


def test_kernels_have_a_home_where_the_repository_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tool, "KERNEL_HOME", tmp_path / "file" / "kernel")
    home = tool._kernel_home.__wrapped__()
    assert home.is_dir() and (home / "ipython").is_dir() and list(home.glob("matplotlib/fontlist-*.json"))
