"""`python -m bnbook.checking`: what is right in a file or a notebook of answers, and the list of the exercises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bnbook.checking import answers, exercises, report
from bnbook.checking.__main__ import main
from bnbook.checking.catalogue import BOOK
from bnbook.checking.catalogue import exercises as catalogue

ANSWERS = """\
import os
from math import factorial as factor  # imported: no answer
from bnbook.textbook import statistics  # neither is this
import numpy as np

print("some noise")
COUNT = []


def output_variance(var, weight, eps):
    print("more noise")
    COUNT.append(1)
    return weight**2 * var / (var + eps)


def normalize(x, eps):
    assert not COUNT, "another answer has run in this process"
    return np.log(x[0]) @ undefined


def largest(m):
    while True:
        pass


def ch02_diagnose(layer):
    return "correct"


def center_backward(g):
    return NotImplemented


def scaled(g, x, eps):
    os._exit(3)


def invisible(x):
    import no_such_package


kernel_blind_to_slopes = np.ones((3, 3))
ANSWERS = {"ch04.scale": scaled}
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells; those that begin with "# tag" are tagged so."""
    made = []
    for source in cells:
        tags = re.findall(r"\A# (exercise|solution)$", source, re.MULTILINE)
        made.append({"cell_type": "code", "metadata": {"tags": tags}, "source": source.splitlines(keepends=True)})
    return written(path, json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def outcomes(found: dict) -> dict[str, str]:
    return {row["exercise"]: row["outcome"] for row in found["exercises"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    return report.report(written(tmp_path_factory.mktemp("answers") / "mine.py", ANSWERS), timeout=8)


@pytest.mark.long
def test_every_answer_is_judged_by_itself(found):
    said = outcomes(found)
    assert {id: outcome for id, outcome in said.items() if outcome != "not attempted"} == {
        "ch02.output_variance": "right",
        "ch02.normalize": "raised",
        "ch02.largest": "raised",
        "ch02.diagnose": "wrong",
        "ch04.scale": "raised",
        "ch04.invisible": "not checked",
        "ch07.blind": "wrong",
    }
    assert {id[:4] for id in said} == {"ch02", "ch04", "ch07"}  # all exercises of the chapters that are answered
    assert said["ch04.center"] == said["ch04.dx"] == "not attempted"
    assert report.summary(found) == "1 right, 5 wrong, 7 not attempted, 1 not checked"


@pytest.mark.long
def test_a_table_says_why_and_where(found):
    text = report.text(found)
    assert "\n\nChapter 2, The forward transform\n  ch02." in text
    assert "\n  ch02.output_variance  level 1  right\n" in text
    assert re.search(r"ch02\.normalize .* raised \(mine\.py, line 18\)\n +NameError: name 'undefined'", text)
    assert re.search(r"ch02\.largest .* raised \(mine\.py, line 2[23]\)\n +no end within 8 s", text)
    assert re.search(r"ch02\.diagnose .* wrong\n +A layer that is '.*' was called 'correct'\.", text)
    assert "the process was ended (exit status 3)" in text and "no_such_package is not installed" in text
    assert "noise" not in text and text.endswith(report.summary(found))


@pytest.mark.long
def test_the_exit_status_and_json(tmp_path, capfd):
    right = written(tmp_path / "right.py", "def factor_2(): ...\n\n\ndef largest(m):\n    return [0] * (m - 1) + [1]\n")
    wrong = written(tmp_path / "wrong.py", "ANSWERS = {'ch02.largest': lambda m: [1.0] * m}\n")
    assert main(["report", str(right)]) == 0
    assert main(["report", str(right), str(wrong), "--json"]) == 1
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == "]" and err == ""
    a, b = json.loads(out[out.index("[\n") :])
    assert (a["right"], a["wrong"], b["right"], b["wrong"]) == (1, 0, 0, 1)
    (row,) = (row for row in b["exercises"] if row["exercise"] == "ch02.largest")
    assert row["message"] == "For m = 2 all values are equal: there is nothing to normalize." and row["level"] == 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.py", None, "there is no such file"),
        ("words.txt", "words", "neither a file of Python (.py) nor a notebook (.ipynb)"),
        ("syntax.py", "x = 1\ndef f(:\n", "line 2: invalid syntax"),
        ("broken.ipynb", "{", "this is no notebook"),
        ("old.ipynb", '{"worksheets": []}', "this is no notebook"),
        ("bare.ipynb", '{"cells": []}', "no cell checks an exercise"),
    ],
)
def test_a_bad_file_gets_one_line(name, text, said, tmp_path, capfd):
    path = tmp_path / name
    if text is not None:
        written(path, text)
    assert main(["report", str(path)]) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith(f"{path}: ") and said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\0", "source code string cannot contain null bytes"),
        ("x = 1\n\ny = z\n", "line 3: NameError: name 'z' is not defined"),
        ("import sys\nsys.exit()\n", "line 2: SystemExit"),
        ("while True:\n    pass\n", "it does not end within 0.2 s"),
        ("x = 1\n", "no exercise is answered here"),
        ("from bnbook.textbook import statistics\n", "no exercise is answered here"),
        ("ANSWERS = {'ch02.normalise': 1}\n", "ANSWERS names 'ch02.normalise', which is no exercise"),
        ("ANSWERS = [1]\n", "ANSWERS should be a dictionary"),
        ("def ch02_normalise(x, eps): ...\n", "ch02_normalise names no exercise of its chapter"),
        (
            "def factor(n): ...\n",
            "factor may be the answer to ch01.factor, ch14.factor, ch24.factor: call it ch01_factor, or",
        ),
    ],
)
def test_a_file_that_names_no_answers_says_why(text, said, tmp_path):
    lines = []
    answers.check_file(written(tmp_path / "mine.py", text), lambda **line: lines.append(line), 0.2)
    (line,) = lines
    assert said in line["bad"] and "\n" not in line["bad"]


def test_names_of_answers(tmp_path):
    text = """
from functools import partial
def normalize(x, eps): ...
def diagnose(layer): ...
def f(m): ...
noise = 0.1  # a value is no answer where a function is asked for
center_backward = partial(f)
ch04_grad_x = ch02_largest = f
ch05_negative = [1.0, 2.0]
kernel_blind_to_slopes = NotImplemented
ANSWERS = {"ch02.diagnose": diagnose}
"""
    lines = []
    answers.check_file(written(tmp_path / "mine.py", text), lambda **line: lines.append(line), 9)
    assert lines == [
        {
            "answers": {
                "ch02.diagnose": "ANSWERS",
                "ch04.dx": "ch04_grad_x",
                "ch02.largest": "ch02_largest",
                "ch05.negative": "ch05_negative",
                "ch02.normalize": "normalize",
                "ch04.center": "center_backward",
                "ch07.blind": "kernel_blind_to_slopes",
            }
        }
    ]


@pytest.mark.long
def test_a_notebook_is_run_from_top_to_bottom_in_one_process(tmp_path):
    path = notebook(
        tmp_path / "mine.ipynb",
        "%matplotlib inline\nfrom bnbook.checking import check\nimport numpy as np\nshare = 1",
        "# exercise\ndef output_variance(var, weight, eps):\n    return share * weight**2 * var / (var + eps)",
        'check("ch02.output_variance", output_variance)',
        "1 / 0",
        "# exercise\ndef normalize(x, eps):\n    return x.no_such_thing",
        'check("ch02.normalize", normalize)',
        "# solution\ndef normalize(x, eps):\n    return x\n\n\ncheck('ch02.normalize', normalize)",
        "def largest(m):\n    return np.eye(m)[0]",
        "# exercise\ndef largest(m):\n    return (",  # the function above is not the answer
        'check("ch02.largest", largest)',
        'check("ch02.diagnose", diagnose)',
        'while True:\n    try:\n        pass\n    finally:\n        check("ch04.center", 1)',
        "check('ch04.scale', NotImplemented)",
        "import os\nos._exit(0)",
        'check("ch04.dx", 1)',
    )
    found = report.report(path, timeout=4)
    rows = {row["exercise"]: (row["outcome"], row["message"], row["where"]) for row in found["exercises"]}
    assert rows["ch02.output_variance"] == ("right", "", "")
    outcome, message, where = rows["ch02.normalize"]
    assert (outcome, where) == ("raised", "cell 5, line 3") and message.startswith("AttributeError: ")
    assert rows["ch02.largest"] == ("raised", "SyntaxError: '(' was never closed (<cell 9>, line 3)", "cell 9, line 3")
    assert rows["ch02.diagnose"] == ("raised", "NameError: name 'diagnose' is not defined", "cell 11, line 1")
    assert rows["ch04.center"][0] == "raised" and rows["ch04.scale"][0] == "not attempted"
    assert rows["ch04.dx"][0] == "not checked" and rows["ch04.dx"][1].startswith("not reached: cell 14")


@pytest.mark.long
def test_the_notebook_of_a_learner(tmp_path):
    """A whole chapter without solutions, from top to bottom, with three of them typed into the stubs."""
    import nb as tool

    pytest.importorskip("torch")
    chapter = tool.read(BOOK / "02_forward.ipynb")
    student = tool.student(chapter)
    solutions = [cell.source for cell in chapter.cells if "solution" in cell.metadata.get("tags", [])]
    stubs = [cell for cell in student.cells if "exercise" in cell.metadata.get("tags", [])]
    for stub, solution in list(zip(stubs, solutions, strict=True))[:3]:
        stub.source = solution.rpartition("check(")[0]
    tool.write(student, tmp_path / "done.ipynb")
    found = report.report(tmp_path / "done.ipynb", timeout=300)
    assert report.summary(found) == "3 right, 0 wrong, 1 not attempted"


def test_the_list_is_that_of_the_book(capsys):
    """Ids, titles, levels; and the names in the package are those of the stubs."""
    pages = {exercise.page: exercise.chapter for exercise in catalogue()}
    assert set(pages) == {path.stem for path in BOOK.glob("[0-9]*_*.ipynb") if ".student" not in path.name}
    stubs = {}
    for page in pages:
        cells = json.loads((BOOK / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            source = "".join(cell["source"])
            if match := re.match(r'check\("(\S+)", (\w+)\)', source):
                stubs[match[1]] = match[2]
    assert [e.id for e in catalogue()] == list(stubs)
    assert {e.id: e.name for e in catalogue(None)} == stubs
    assert all(e.title and e.kind and e.label and 1 <= e.level <= 4 and e.chapter_title for e in catalogue())
    assert set(stubs) == set(exercises._CHECKERS)
    assert main(["list"]) == 0
    assert re.search(r"^  ch04\.dx +grad_x +level 2 +implement +The backward", capsys.readouterr().out, re.MULTILINE)


def test_without_the_book_the_exercises_are_known(tmp_path):
    assert {(e.id, e.name) for e in catalogue(tmp_path)} == {(e.id, e.name) for e in catalogue()}
    assert all(e.level is None for e in catalogue(tmp_path)) and "ch02.largest" in report.catalogue(catalogue(tmp_path))
