"""The static guards: each fails on the fault it is there for, and only then."""

from __future__ import annotations

import copy
from collections.abc import Callable

import nb_guards as guards
import pytest
from nbformat import NotebookNode

from tests.notebooks.trial import cell_with, order


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


def smaller(nb: NotebookNode) -> None:
    data = cell_with(nb, "bins").outputs[0].data
    data["image/svg+xml"] = data["image/svg+xml"].replace("scale(0.11 -0.11)", "scale(0.055 -0.055)")


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
    "drawing alone": (lambda nb: cell_with(nb, "bins").outputs[0].data.pop("image/png"), "0 PNG and 1 SVG"),
    "picture alone": (lambda nb: cell_with(nb, "bins").outputs[0].data.pop("image/svg+xml"), "1 PNG and 0 SVG"),
    "small letters": (smaller, "letters of 7.2 pixels on a phone"),
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
    "assertion of a pair": (edit("assert 0", "assert 0 <= loss < 1\n", "assert (loss, 1)\n"), "asserts anything"),
    "assertion or true": (edit("assert 0", "assert 0 <= loss < 1\n", "assert loss < 1 or True\n"), "asserts anything"),
    "assertion never run": (edit("assert 0", "assert", "def f():\n    assert"), "asserts anything"),
    "prose": (edit("All of it", "All of it", "The accuracy is 0.91"), "'0.91'"),
    "no opening": (edit("**You need**", "**You need**", "You need"), "no **You need**"),
    "times": (edit("**Time**", "1 minute to read", "2 minutes to read"), "the times are not those of the chapter"),
    "long to read": (edit("All of it", "All of it", "word " * 6000), "the words take 27 minutes"),
    "long with code": (
        lambda nb: (
            edit("All of it", "All of it", "word " * 5000)(nb),
            edit("assert 0", "print", "0\n" * 230 + "print")(nb),
        ),
        "take 23 + 24 minutes",
    ),
    "long cell": (edit("assert 0", "print", "0\n" * 24 + "print"), "shows 26 lines of code, at most 25"),
    "words first": (edit("# A trial", "Two lines", "Two lines " * 40), "not a title and a sentence of at most 60"),
    "box first": (edit("# A trial", "Two lines", ":::{note}\nTwo lines\n:::\n"), "not a title and a sentence"),
    "imports shown": (tag("import numpy"), "the imports are not folded"),
    "no figure first": (tag("bins"), "no figure whose code is folded"),
    "section first": (lambda nb: nb.cells.insert(1, copy.deepcopy(nb.cells[0])), "title and sentence, imports, figure"),
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
    assert guards.check_notebook(chapter, "01_trial.ipynb", 2_000_000) != []


def test_chapter_rules_are_for_chapters(chapter: NotebookNode) -> None:
    remove("ex-trial-4")(chapter)
    assert guards.check_notebook(chapter, "notation.ipynb", 1000) == []
