"""The notebook tool and the guards: each guard fails on the fault it is there for, and only then."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import nb as tool
import nb_guards as guards
import pytest
from nbformat import NotebookNode

ROOT = tool.ROOT

CHECKING = """
class Result:
    def __init__(self, text): self.text = text
    def __repr__(self): return self.text

def check(name, answer):
    value = answer()
    return Result(f"{name}: " + ("not attempted" if value is NotImplemented else "correct"))
"""

OPENING = """\
# A trial chapter

**You will do** something.
**You will learn** something.
**You need** nothing.
**Reading time** 5 minutes.

```{code-cell}
import matplotlib.pyplot as plt
import numpy as np
from trial_checking import check
```

## A figure

The batch is $x = 0.5$ and `momentum` is `0.1`.

```{code-cell}
---
mystnb:
  image:
    alt: The histogram has one hump and is highest in the middle, like α̂.
  figure:
    caption: |
      A sample of the standard normal distribution; see {term}`batch`.
    name: fig-trial
tags: [hide-input]
---
rng = np.random.default_rng(0)
fig, ax = plt.subplots(figsize=(4, 3))
ax.hist(rng.normal(size=1000), bins=30)
plt.show()
```

+++ {"tags": ["margin"]}

A trained cell is asserted about:

```{code-cell}
:tags: [nbval-ignore-output]

loss = rng.uniform()
print(loss)
```

```{code-cell}
assert 0 <= loss < 1
print(np.zeros(2))
```

## Remember

All of it.

## Exercises
"""

EXERCISE = """
```{{exercise}} Number {number}
:label: ex-trial-{number}

*{kind} · level {number}.* Return 1.
```

```{{code-cell}}
:tags: [exercise]

def answer_{number}():
    return NotImplemented
```

```{{code-cell}}
check("ch01.answer_{number}", answer_{number})
```

```{{code-cell}}
:tags: [hide-cell, solution]

def answer_{number}():
    return 1


check("ch01.answer_{number}", answer_{number})
```
"""

CHAPTER = "".join(
    [OPENING]
    + [EXERCISE.format(number=n, kind=kind.title()) for n, kind in enumerate(guards.KINDS, start=1)]
    + ["\n## Further reading\n\nNothing.\n"]
)

# Cells of a notebook with faults: name, source as executed and stored, source as found later (None: the same).
SCATTER = """\
x, y = np.random.default_rng(0).normal(size=(2, 40))
fig, ax = plt.subplots(figsize=(6, 4))
ax.scatter(x, y)
plt.show()"""
LINES = """\
fig, ax = plt.subplots(figsize=(6, 4))
ax.plot([0, 1, 2], color="{}", label="with")
ax.plot([2, 1, 3], color="{}", label="without")
ax.set_title("The spread of {} by layer")
plt.show()"""
CELLS: dict[str, tuple[str, str | None]] = {
    "imports": ("import matplotlib.pyplot as plt\nimport numpy as np", None),
    "threads": ("import os\nprint(os.environ['OMP_NUM_THREADS'])", None),
    "dot moved": (SCATTER, SCATTER.replace("fig,", "x[7] += 0.1\nfig,")),
    "rounding only": (SCATTER, SCATTER.replace("fig,", "x *= 1 + 1e-9\nfig,")),
    "dot not moved": (SCATTER, None),
    "word of the title": (LINES.format("C0", "C1", "gradients"), LINES.format("C0", "C1", "activity")),
    "colours swapped": (LINES.format("C0", "C1", "gradients"), LINES.format("C1", "C0", "gradients")),
    "bins": ("plt.hist(x, bins=30, range=(-3, 3))\nplt.show()", "plt.hist(x, bins=5, range=(-3, 3))\nplt.show()"),
    "another size": ("plt.figure(figsize=(4, 3))\nplt.plot(x)\nplt.show()", "plt.plot(x)\nplt.show()"),
    "a second picture": ("plt.plot(x)\nplt.show()", "plt.plot(x)\nplt.show()\nplt.plot(y)\nplt.show()"),
    "printed number": ("print(2 + 2)", "print(2 + 3)"),
    "last value": ("np.arange(3) / 2", "np.arange(3) / 4"),
    "stderr": ("x.shape", "import warnings; warnings.warn('new', stacklevel=1)\nx.shape"),
    "an error": ("y.shape", "y.shapes"),
    "outputs stripped": ("print('kept')", None),
    "output lost": ("print('kept')", None),
    "picture lost": (SCATTER, None),
    "trained": ("print(np.random.default_rng().uniform())\nassert True or x", None),
    "trained, output lost": ("print(np.random.default_rng().uniform())\nassert x.size", None),
    "trained, wrong": ("print(np.random.default_rng().uniform())\nassert x.size == 40", "assert x.size == 41"),
    "the end": ("print('the end')", None),
}
PASS = {"imports", "threads", "rounding only", "dot not moved", "trained", "the end"}


def repository(folder: Path) -> Path:
    """A small repository with this one's tool, settings and notebook tests, and no chapter."""
    for name in ("conftest.py", "pyproject.toml", "tests/nbval_sanitize.cfg", "tests/notebooks/test_notebooks.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "book").mkdir()
    (folder / "book" / "trial_checking.py").write_text(CHECKING, encoding="utf-8")
    return folder


def pytest_in(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"OMP_NUM_THREADS": "2", "MPLBACKEND": "agg"}  # a kernel must not take these over
    return subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, encoding="utf-8", timeout=240
    )


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose one chapter is as it should be."""
    folder = repository(tmp_path_factory.mktemp("repository"))
    (folder / "trial.md").write_text(CHAPTER, encoding="utf-8")
    made = nb_command(folder, "apply", "trial.md", "book/01_trial.ipynb")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    return folder


def nb_command(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/nb.py", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, encoding="utf-8", timeout=240
    )


@pytest.fixture
def chapter(repo: Path) -> NotebookNode:
    return tool.read(repo / "book" / "01_trial.ipynb")


# What nbval and conftest.py find


def test_a_good_repository_passes(repo: Path) -> None:
    done = pytest_in(repo, "-v")
    assert done.returncode == 0, done.stdout
    assert "tests/notebooks/test_notebooks.py::test_static_guards" in done.stdout
    assert re.search(r"book/01_trial.*::Cell 15 PASSED", done.stdout), done.stdout
    assert re.search(r"01_trial\.ipynb +1 of +16 code cells are not compared", done.stdout)


@pytest.mark.parametrize("home", ["with settings", "that cannot be written"])
def test_outputs_do_not_depend_on_the_home_of_the_reader(home: str, repo: Path, tmp_path: Path) -> None:
    """Neither what is compared nor what is stored; pytest's root is the folder above, as editors name it."""
    files = {
        ".ipython/profile_default/ipython_kernel_config.py": "c.InlineBackend.figure_formats = ['svg']\n",
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
    assert ["image/png", "text/plain"] in kinds and not any("image/svg+xml" in kind for kind in kinds)


def test_kernels_have_a_home_where_the_repository_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tool, "KERNEL_HOME", tmp_path / "file" / "kernel")
    home = tool._kernel_home.__wrapped__()
    assert home.is_dir() and (home / "ipython").is_dir() and list(home.glob("matplotlib/fontlist-*.json"))


def test_notebooks_are_collected_from_the_root_only(repo: Path) -> None:
    (repo / "_build").mkdir(exist_ok=True)
    shutil.copy(repo / "book" / "01_trial.ipynb", repo / "_build" / "copy.ipynb")
    shutil.copy(repo / "book" / "01_trial.ipynb", repo / "book" / "01_trial.student.ipynb")
    everything = pytest_in(repo, "--collect-only", "-q").stdout
    assert "book/01_trial.ipynb::Cell 15" in everything and "tests/notebooks/test_notebooks.py" in everything
    assert "_build" not in everything and "student.ipynb" not in everything
    (repo / "book" / "01_trial.student.ipynb").unlink()
    assert ".ipynb::Cell" not in pytest_in(repo, "tests", "--collect-only", "-q").stdout


def test_stale_outputs_fail(tmp_path: Path) -> None:
    """Sources that changed after the execution, and outputs that were removed: each cell fails by itself."""
    folder = repository(tmp_path)
    tags = {name: [guards.TRAINED] if name.startswith("trained") else [] for name in CELLS}
    cells = (f"```{{code-cell}}\n:tags: {tags[name]}\n\n{source}\n```\n" for name, (source, _) in CELLS.items())
    path = folder / "book" / "faults.ipynb"
    nb = tool.apply("\n".join(cells), path)
    for cell, (name, (_, later)) in zip(nb.cells, CELLS.items(), strict=True):
        cell.source = later or cell.source
        if name == "outputs stripped":
            cell.execution_count, cell.outputs = None, []
        if name.endswith("lost"):
            cell.outputs = []
    tool.write(nb, path)

    done = pytest_in(folder, "book", "--junitxml=report.xml")
    assert done.returncode == 1, done.stdout
    names = list(CELLS)
    results = {
        names[int(case.get("name").removeprefix("Cell "))]: case.find("failure") is None
        for case in ElementTree.parse(folder / "report.xml").iter("testcase")
    }
    assert results == {name: name in PASS for name in CELLS}, done.stdout
    assert re.search(r"Pictures differ \(number 0\): \d+ of \d+ pixels differ clearly", done.stdout)
    assert list(folder.glob("_build/pictures/faults-cell2-0-*.png"))


# What the static guards find


def cell_with(nb: NotebookNode, part: str) -> NotebookNode:
    (cell,) = (cell for cell in nb.cells if part in cell.source)
    return cell


def edit(part: str, old: str, new: str) -> Callable[[NotebookNode], None]:
    def plant(nb: NotebookNode) -> None:
        cell = cell_with(nb, part)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return plant


def tag(part: str, *tags: str) -> Callable[[NotebookNode], None]:
    return lambda nb: cell_with(nb, part).metadata.update(tags=list(tags))


def output(part: str, text: str, name: str = "stdout") -> Callable[[NotebookNode], None]:
    new = NotebookNode(output_type="stream", name=name, text=text)
    return lambda nb: cell_with(nb, part).outputs.append(new)


def alt(text: str) -> Callable[[NotebookNode], None]:
    return lambda nb: cell_with(nb, "bins").metadata.mystnb.image.update(alt=text)


def remove(part: str) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells.remove(cell_with(nb, part))


def picture(dpi: int, width: float, noise: bool = False) -> Callable[[NotebookNode], None]:
    """Put another picture into the figure cell."""

    def plant(nb: NotebookNode) -> None:
        import base64
        import io

        import numpy as np
        from PIL import Image

        size = (100, round(width * dpi))
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)) if noise else np.zeros((*size, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.astype("uint8")).save(file, "png", dpi=(dpi, dpi))
        cell_with(nb, "bins").outputs[0].data["image/png"] = base64.b64encode(file.getvalue()).decode()

    return plant


def order(nb: NotebookNode) -> None:
    first, second = cell_with(nb, "bins"), cell_with(nb, "print(loss)")
    first.execution_count, second.execution_count = second.execution_count, first.execution_count


def strip(nb: NotebookNode) -> None:
    cell = cell_with(nb, "bins")
    cell.execution_count, cell.outputs = None, []


def error(nb: NotebookNode) -> None:
    cell_with(nb, "bins").outputs.append(NotebookNode(output_type="error", ename="E", evalue="no", traceback=["E: no"]))


def twice(nb: NotebookNode) -> None:
    cell = cell_with(nb, "bins")
    cell.outputs.append(copy.deepcopy(cell.outputs[0]))


STUB, SOLUTION = "def answer_1():\n    return NotImplemented", "def answer_1():\n    return 1"
CHECK = 'check("ch01.answer_1", answer_1)'


def only_check(nb: NotebookNode) -> NotebookNode:
    return next(cell for cell in nb.cells if cell.source == CHECK)


def check_output(nb: NotebookNode) -> None:
    only_check(nb).outputs[0].data["text/plain"] = "ch01.answer_1: not yet"


FAULTS: dict[str, tuple[Callable[[NotebookNode], object], str]] = {
    "order of counts": (order, "execution counts"),
    "outputs stripped": (strip, "execution counts"),
    "kernel": (lambda nb: nb.metadata.kernelspec.update(name="mine"), "the kernel is 'mine'"),
    "metadata": (lambda nb: nb.cells[1].metadata.update(collapsed=True), "metadata ['collapsed']"),
    "comparison off": (tag("bins", "nbval-skip"), "'nbval-skip'"),
    "comment marker": (edit("bins", "rng =", "# NBVAL_IGNORE_OUTPUT\nrng ="), "NBVAL_IGNORE_OUTPUT"),
    "error stored": (error, "stored error E: no"),
    "stderr stored": (output("bins", "a warning", "stderr"), "stored stderr"),
    "address": (output("bins", "<object at 0x7f31b2c0>"), "memory address"),
    "path in an output": (output("bins", "in /home/me/x.py"), "path of this machine '/home/me/x.py' in the output"),
    "path in a source": (edit("bins", "rng =", "p = '/home/me/x'\nrng ="), "in the source"),
    "second picture": (twice, "2 pictures"),
    "large picture": (picture(100, 9, noise=True), "bytes, at most"),
    "wide picture": (picture(100, 11), "1100 pixels wide"),
    "fine picture": (picture(200, 2), "200 dots per inch"),
    "no alternative text": (lambda nb: cell_with(nb, "bins").metadata.mystnb.pop("image"), "alternative text"),
    "short alternative text": (alt("A histogram"), "alternative text"),
    "number in the alternative text": (alt("The histogram is highest at 0.5, in the middle."), "'0.5' in the alternat"),
    "number in the caption": (
        lambda nb: cell_with(nb, "bins").metadata.mystnb.figure.update(caption="The mean is 0.25."),
        "'0.25' in the caption",
    ),
    "first cell": (edit("import numpy", "import numpy as np", "import numpy as np\nrng = 1"), "first code cell"),
    "path trick": (edit("import numpy", "import numpy", "import sys\nsys.path.append('..')\nimport numpy"), "sys.path"),
    "magic": (edit("bins", "rng =", "%matplotlib inline\nrng ="), "'%matplotlib inline' is a magic"),
    "shell": (edit("bins", "rng =", "files = !ls\nrng ="), "is a magic"),
    "not Python": (edit("bins", "rng =", "rng = ="), "is not Python"),
    "assertion removed": (edit("assert 0", "assert 0 <= loss < 1\n", ""), "asserts anything"),
    "assertion of nothing": (edit("assert 0", "assert 0 <= loss < 1\n", "assert True\n"), "asserts anything"),
    "assertion never run": (edit("assert 0", "assert", "def f():\n    assert"), "asserts anything"),
    "prose": (edit("All of it", "All of it", "The accuracy is 0.91"), "'0.91'"),
    "no opening": (edit("**You need**", "**You need**", "You need"), "no **You need**"),
    "long": (edit("**You need**", "5 minutes", "45 minutes"), "reading time is 45"),
    "no section": (edit("All of it", "## Remember", "## Keep"), "'## Remember'"),
    "three exercises": (remove("ex-trial-4"), "3 exercises"),
    "kind": (edit("ex-trial-3", "Experiment", "Derive"), "no exercise to experiment"),
    "no level": (edit("ex-trial-3", "level 3", ""), "no kind and level"),
    "level 5": (edit("ex-trial-3", "level 3", "level 5"), "no kind and level"),
    "no label": (edit("ex-trial-3", ":label: ex-trial-3", ""), "no :label:"),
    "no stub": (tag(STUB), "no stub"),
    "stub gives it away": (edit(STUB, "NotImplemented", "2"), "does not return NotImplemented"),
    "no check": (lambda nb: nb.cells.remove(only_check(nb)), "no cell after the stub"),
    "name of the check": (
        lambda nb: setattr(only_check(nb), "source", 'check("ch02.answer_1", answer_1)'),
        "should begin with 'ch01.'",
    ),
    "check of the stub": (check_output, "not attempted'"),
    "no solution": (remove(SOLUTION), "no solution cell"),
    "solution shown": (tag(SOLUTION, "solution"), "not tagged 'hide-cell'"),
    "solution not checked": (edit(SOLUTION, CHECK, "None"), "end in the same check"),
    "solution fails": (
        lambda nb: cell_with(nb, SOLUTION).outputs[0].data.update({"text/plain": "ch01.answer_1: not yet"}),
        "does not say 'ch01.answer_1: correct'",
    ),
    "only a solution defines": (
        lambda nb: (
            edit(SOLUTION, "def answer_1", "helper = 1\n\n\ndef answer_1")(nb),
            edit("def answer_2():\n    return NotImplemented", "return", "helper\n    return")(nb),
        ),
        "needs 'helper'",
    ),
    "gated directive": (edit("All of it", "All of it", "```{exercise-start}\n```"), "Jupyter Book 2"),
}


def test_static_guards_accept_the_good_chapter(chapter: NotebookNode) -> None:
    assert guards.check_notebook(chapter, "01_trial.ipynb", 1000) == []
    assert guards.count_trained(chapter) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_static_guards_fail(fault: str, chapter: NotebookNode) -> None:
    plant, message = FAULTS[fault]
    plant(chapter)
    problems = guards.check_notebook(chapter, "01_trial.ipynb", 1000)
    assert any(message in problem for problem in problems), problems


def test_a_large_file_fails(chapter: NotebookNode) -> None:
    assert guards.check_notebook(chapter, "01_trial.ipynb", 1_000_000) != []


def test_chapter_rules_are_for_chapters(chapter: NotebookNode) -> None:
    remove("ex-trial-4")(chapter)
    assert guards.check_notebook(chapter, "notation.ipynb", 1000) == []


# The tool


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


def test_student_version(repo: Path) -> None:
    done = nb_command(repo, "student", "book/01_trial.ipynb", "-o", "mine.ipynb")
    assert done.returncode == 0, done.stderr
    nb = tool.read(repo / "mine.ipynb")
    assert all("solution" not in guards.tags(cell) for cell in nb.cells)
    assert "return 1" not in "".join(cell.source for cell in nb.cells)
    assert not any(cell.outputs for cell in nb.cells if cell.cell_type == "code")
    assert nb_command(repo, "student", "book/01_trial.ipynb", "-o", "book/01_trial.ipynb").returncode == 1


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
