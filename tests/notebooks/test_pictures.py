"""What nbval and `conftest.py` compare when a notebook is executed again: outputs as text, pictures as pictures."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nb as tool
import nb_guards as guards
import pytest

from tests.notebooks.trial import pytest_in, repository

pytestmark = pytest.mark.long(seconds=20)

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
    "imports": (
        "import matplotlib.pyplot as plt\nimport numpy as np\nfrom bnbook import plotting\nplotting.use_style()",
        None,
    ),
    "threads": ("import os\nprint(os.environ['OMP_NUM_THREADS'])", None),
    "dot moved": (SCATTER, SCATTER.replace("fig,", "x[7] += 0.1\nfig,")),
    "rounding only": (SCATTER, SCATTER.replace("fig,", "x *= 1 + 1e-9\nfig,")),
    "dot not moved": (SCATTER, None),
    "word of the title": (LINES.format("C0", "C1", "gradients"), LINES.format("C0", "C1", "activity")),
    "colours swapped": (LINES.format("C0", "C1", "gradients"), LINES.format("C1", "C0", "gradients")),
    "bins": ("plt.hist(x, bins=30, range=(-3, 3))\nplt.show()", "plt.hist(x, bins=5, range=(-3, 3))\nplt.show()"),
    "drawing shifted": (SCATTER, None),
    "drawing recoloured": (SCATTER, None),
    "drawing lost": (SCATTER, None),
    "drawing near": (SCATTER, None),
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
PASS = {"imports", "threads", "rounding only", "dot not moved", "drawing near", "trained", "the end"}


def test_a_good_repository_passes(repo: Path) -> None:
    done = pytest_in(repo, "-v")
    assert done.returncode == 0, done.stdout
    assert "tests/notebooks/test_notebooks.py::test_static_guards" in done.stdout
    assert re.search(r"book/01_trial.*::Cell 15 PASSED", done.stdout), done.stdout
    assert re.search(r"01_trial\.ipynb +1 of +16 code cells are not compared", done.stdout)


def test_notebooks_are_collected_from_the_root_only(repo: Path) -> None:
    (repo / "_build").mkdir(exist_ok=True)  # where the kernels keep their settings
    shutil.copy(repo / "book" / "01_trial.ipynb", repo / "_build" / "copy.ipynb")
    shutil.copy(repo / "book" / "01_trial.ipynb", repo / "book" / "01_trial.student.ipynb")
    everything = pytest_in(repo, "--collect-only", "-q").stdout
    assert "book/01_trial.ipynb::Cell 15" in everything and "tests/notebooks/test_notebooks.py" in everything
    assert "_build" not in everything and "student.ipynb" not in everything
    (repo / "book" / "01_trial.student.ipynb").unlink()
    assert ".ipynb::Cell" not in pytest_in(repo, "tests", "--collect-only", "-q").stdout


def _spoil_drawing(data: dict[str, str], how: str) -> None:
    """Leave the PNG as it is, and change the SVG."""
    svg = data.pop("image/svg+xml")
    place = re.compile(r'<use xlink:href="(#\w+)" x="([\d.]+)"')
    assert place.search(svg)
    spoilt = {
        "drawing shifted": place.sub(lambda m: f'<use xlink:href="{m[1]}" x="{float(m[2]) + 1}"', svg, count=1),
        "drawing near": place.sub(lambda m: f'<use xlink:href="{m[1]}" x="{float(m[2]) + 0.1}"', svg, count=1),
        "drawing recoloured": svg.replace("#009e73", "#d55e00"),
        "drawing lost": None,
    }[how]
    assert spoilt != svg
    if spoilt is not None:
        data["image/svg+xml"] = spoilt


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
        if name.startswith("drawing"):
            _spoil_drawing(cell.outputs[-1].data, name)
        elif name.endswith("lost"):
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
    assert "numbers of the drawing differ by up to 1" in done.stdout
    assert re.search(r"Pictures differ \(number 0\): \d+ of \d+ pixels differ clearly", done.stdout)
    assert list(folder.glob("_build/pictures/faults-cell2-0-*.png"))
