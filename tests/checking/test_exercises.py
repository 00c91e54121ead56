"""Every checker accepts right answers, refuses wrong ones, and knows a stub when it sees one.

The answers are those of `chapters/test_chNN.py`: `RIGHT` maps an exercise to an answer or a list of them, `WRONG` to a
list or a dictionary of answers that must be refused. What a checker draws depends on the name of the test.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnbook.checking import check, exercises
from bnbook.checking.exercises import Wrong, same
from tests.missing import missing

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted(path.stem.rpartition("_")[2] for path in Path(__file__).parent.glob("chapters/test_ch*.py"))
RIGHT, WRONG = {}, {}
for chapter in CHAPTERS:
    importlib.import_module(f"bnbook.checking.chapters.{chapter}")
    try:
        answers = importlib.import_module(f"tests.checking.chapters.test_{chapter}")
    except ModuleNotFoundError as error:
        if missing(error):
            continue
        raise
    # {} where its import, begun by pytest, stopped at a package that is not installed
    RIGHT |= getattr(answers, "RIGHT", {})
    WRONG |= getattr(answers, "WRONG", {})


LONG = pytest.mark.long(seconds=120)
ALSO_LONG = (
    "ch01.weight_std",
    "ch08.company",
    "ch08.diagnose",
    "ch13.network",
    "ch13.setting",
    "ch14.block",
)  # by seconds


def trains(exercise: str) -> bool:
    """Whether the checker trains networks with what the answer says."""
    return exercise.endswith(".overturn")


def is_long(exercise: str) -> bool:
    return trains(exercise) or exercise in ALSO_LONG


def cases(table: dict, without: Callable[[str], bool] = lambda exercise: False) -> list:
    named = {name: group if isinstance(group, list | dict) else [group] for name, group in table.items()}
    return [
        pytest.param(exercise, answer, id=f"{exercise}-{name}", marks=LONG if is_long(exercise) else ())
        for exercise, group in named.items()
        if not without(exercise)
        for name, answer in (group.items() if isinstance(group, dict) else enumerate(group))
    ]


@pytest.mark.parametrize(("exercise", "answer"), cases(RIGHT, without=trains))
def test_a_right_answer_is_correct(exercise, answer):
    for _ in range(2):  # on other cases each time
        verdict = check(exercise, answer)
        assert verdict.passed is True, verdict
        assert repr(verdict) == f"{exercise}: correct"


@pytest.mark.parametrize("exercise", [name for name in RIGHT if trains(name)])
def test_a_right_answer_that_trains_networks_is_that_of_the_chapter(exercise):
    """nbval executes the solution there, and compares what the checker says: once is enough."""
    (path,) = BOOK.glob(f"{exercise[2:4]}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (solution,) = (
        cell
        for cell in cells
        if "solution" in cell["metadata"].get("tags", []) and f'check("{exercise}"' in "".join(cell["source"])
    )
    assert "nbval-ignore-output" not in solution["metadata"]["tags"]
    assert solution["outputs"][0]["data"]["text/plain"] == [f"{exercise}: correct"]


@pytest.mark.parametrize(("exercise", "answer"), cases(WRONG))
def test_a_wrong_answer_is_refused(exercise, answer):
    for _ in range(1 if trains(exercise) else 2):
        verdict = check(exercise, answer)
        assert verdict.passed is False, verdict
        assert repr(verdict).startswith(f"{exercise}: not yet. ")


@pytest.mark.parametrize(("exercise", "answer"), cases(RIGHT))
def test_a_stub_is_not_attempted(exercise, answer):
    for stub in (NotImplemented, lambda *arguments: NotImplemented)[: 1 + callable(answer)]:
        verdict = check(exercise, stub)
        assert verdict.passed is None
        assert repr(verdict) == f"{exercise}: not attempted"


def test_a_forgotten_return_is_called_so():
    assert "did you forget to return it?" in check("ch02.normalize", lambda *arguments: None).message


@pytest.mark.parametrize("expected", [[True, False, True], [1, 0, 1], [1.0, 0.0, 1.0]], ids=["bool", "int", "float"])
def test_truth_values_are_compared(expected):
    right, wrong = np.array([True, False, True]), np.array([True, True, True])
    same(right, expected, "The mask")
    same(right.tolist(), expected, "The mask")
    for answer in (wrong, wrong.tolist()):
        with pytest.raises(Wrong, match=r"The mask is \[.*\], expected \[.*\]\."):
            same(answer, expected, "The mask")
    same(np.ones((0, 2), bool), np.ones((0, 2), bool), "Nothing")


@pytest.mark.parametrize("answer", [np.array(["a", "b"]), np.array([None, 1]), ["a", "b"]], ids=repr)
def test_what_is_no_number_is_called_so(answer):
    with pytest.raises(Wrong, match=r"The labels should be an array of numbers, got dtype (<U1|object)"):
        same(answer, np.array([0, 1]), "The labels")


def test_every_checker_is_tested_with_three_wrong_answers_at_least():
    pytest.importorskip("torch")
    assert set(RIGHT) == set(WRONG) == set(exercises._CHECKERS)
    assert [name for name, group in WRONG.items() if len(group) < 3] == []
    assert {name.partition(".")[0] for name in RIGHT} == set(CHAPTERS)


def test_an_unknown_exercise_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no exercise 'ch02\.nothing'.*ch02\.normalize"):
        check("ch02.nothing", 1)


def test_a_package_that_is_not_installed_is_no_fault_of_the_answer():
    def answer(*arguments):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    with pytest.raises(ModuleNotFoundError, match="No module named 'torch'"):
        check("ch02.normalize", answer)
