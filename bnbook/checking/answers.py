"""The answers of one file, checked: what `report` starts in a process of its own.

    python -m bnbook.checking.answers answers.py OUT TIMEOUT               which exercises the file answers
    python -m bnbook.checking.answers answers.py OUT TIMEOUT ch02.largest largest     the check of one of them
    python -m bnbook.checking.answers chapter.ipynb OUT TIMEOUT            all checks of a notebook, in one process

OUT receives lines of JSON, as soon as each is known, so that what was found outlives this process.
"""

from __future__ import annotations

import ast
import inspect
import json
import linecache
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import bnbook.checking

from . import exercises
from .catalogue import Exercise, checks
from .catalogue import exercises as all_exercises

RIGHT, WRONG, RAISED, STUB, UNKNOWN = "right", "wrong", "raised", "not attempted", "not checked"

_EXPLICIT = re.compile(r"(ch\d\d)_(\w+)")
_MAGIC = re.compile(r"^(\s*)([%!])", re.MULTILINE)
_TABLE = "ANSWERS"

Say = Callable[..., None]
"""`say(key=value, ...)` writes one line of JSON."""


class BadFile(Exception):
    """A file that cannot be judged; the message is one line that says why."""


class TimedOut(BaseException):
    """Not an Exception: answers catch those."""


# --- a file of functions ---------------------------------------------------------------------------------------------


def load(path: Path, name: str = "answers", tree: ast.Module | None = None) -> ModuleType:
    """The module that a file is, or its changed syntax tree, executed; others may import it by `name`."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        code = compile(tree or path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise BadFile(f"line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise BadFile(f"this is not Python: {error}") from None
    try:
        exec(code, module.__dict__)
    except TimedOut:
        raise
    except BaseException as error:
        where = f"line {line}: " if (line := line_of(error, str(path))) else ""
        raise BadFile(f"{where}{words_of(error)}") from None
    return module


def answers(module: ModuleType, known: list[Exercise]) -> dict[str, str]:
    """By exercise, the name under which a module answers it; `report --help` says the rule."""
    found: dict[str, str] = {}
    table = getattr(module, _TABLE, {})
    if not isinstance(table, dict):
        raise BadFile(f"{_TABLE} should be a dictionary such as {{'ch02.normalize': normalize}}, got {table!r}")
    for id in table:
        if id not in {exercise.id for exercise in known}:
            raise BadFile(f"{_TABLE} names {id!r}, which is no exercise: see python -m bnbook.checking list")
        found[id] = _TABLE
    for name, value in vars(module).items():
        match = _EXPLICIT.fullmatch(name)
        if match and not isinstance(value, ModuleType):
            mine = [e.id for e in known if e.id.startswith(match[1]) and match[2] in (e.name, e.id.partition(".")[2])]
            if not mine:
                raise BadFile(f"{name} names no exercise of its chapter: see python -m bnbook.checking list")
            found.setdefault(mine[0], name)
    named = [answer(module, *item) for item in found.items()]
    for name, value in vars(module).items():
        mine = [e for e in known if e.name == name and (e.value or _is_function_of(value, module))]
        if not mine or any(value is other for other in named):
            continue
        if len(mine) > 1:
            candidates = ", ".join(e.id for e in mine)
            raise BadFile(
                f"{name} may be the answer to {candidates}: call it {mine[0].id[:4]}_{name}, or put it into {_TABLE}"
            )
        found.setdefault(mine[0].id, name)
    if not found:
        raise BadFile("no exercise is answered here: see python -m bnbook.checking list for the names of the functions")
    return found


def answer(module: ModuleType, id: str, name: str) -> Any:
    return module.ANSWERS[id] if name == _TABLE else getattr(module, name)


def _is_function_of(value: Any, module: ModuleType) -> bool:
    """Whether a module defines a function, and has not imported it."""
    return callable(value) and (isinstance(value, partial) or getattr(value, "__module__", None) == module.__name__)


def check_file(path: Path, say: Say, timeout: float, *exercise: str) -> None:
    """Say which exercises a file answers, or check the answer to one, of this id and name."""
    try:
        with limited(timeout):
            module = load(path)
        if not exercise:
            say(answers=answers(module, all_exercises(None)))
            return
    except BadFile as error:
        say(bad=str(error))
        return
    except TimedOut:
        say(bad=f"it does not end within {timeout:g} s: keep what is not an answer out of it")
        return
    id, function = exercise[0], answer(module, *exercise)
    say(begins=id)
    say(**_judged(id, lambda: exercises.check(id, function), timeout, [str(path)], _first_line(function)))


# --- a notebook ------------------------------------------------------------------------------------------------------


def cells(path: Path) -> list[tuple[int, str, list[str]]]:
    """Number, code and tags of the code cells of a notebook, without the solutions."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [
            (n, "".join(cell["source"]), cell.get("metadata", {}).get("tags", []))
            for n, cell in enumerate(found, start=1)
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError):
        raise BadFile("this is no notebook (of format 4)") from None
    code = [(n, source, tags) for n, source, tags in code if "solution" not in tags]
    if not any(checks(source) for _, source, _ in code):
        raise BadFile("no cell checks an exercise")
    return code


def check_notebook(path: Path, say: Say, timeout: float) -> None:
    """Run the cells in order and say what every check of an exercise said.

    A cell that fails does not end the run. Where it is the answer to an exercise, or the check fails because of it,
    that is what is said of the exercise.
    """
    code = cells(path)
    module = ModuleType("__main__")
    module.__dict__["display"] = print
    sys.modules["__main__"] = module
    files = {n: f"<cell {n}>" for n, *_ in code}
    said: dict[str, dict] = {}  # of the checks in the cell that runs
    broken: dict | None = None  # what the last cell that failed said, until the next check
    stub = False  # whether that cell was the answer
    with _recorded(said, files.values()):
        for n, source, tags in code:
            say(begins=f"cell {n}")
            said.clear()
            result = _judged("", lambda source=source, n=n: _run(source, files[n], module), timeout, files.values())
            failed = result if result["outcome"] != RIGHT else None
            asked = checks(source)
            for id in asked:
                if (id in said and broken and stub) or (id not in said and failed):
                    said[id] = (broken or failed) | {"exercise": id}
            for result in said.values():
                say(**result)
            if asked:
                broken = None
            elif failed:
                broken, stub = failed, "exercise" in tags


def _run(source: str, name: str, module: ModuleType) -> None:
    """One cell, without the lines that only IPython understands."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except SyntaxError:
        code = compile(_MAGIC.sub(r"\1pass  # \2", source), name, "exec", dont_inherit=True)
    exec(code, module.__dict__)


@contextmanager
def _recorded(said: dict[str, dict], files: Collection[str]) -> Iterator[None]:
    """Meanwhile every check of an exercise is put down; the last one counts."""
    real = exercises.check

    def check(exercise: str, answer: Any) -> exercises.Checked:
        checked = real(exercise, answer)
        said[exercise] = _outcome(exercise, checked, files, _first_line(answer))
        return checked

    bnbook.checking.check = exercises.check = check
    try:
        yield
    finally:
        bnbook.checking.check = exercises.check = real


# --- both ------------------------------------------------------------------------------------------------------------


def _judged(exercise: str, run: Callable[[], Any], timeout: float, files: Collection[str], line: str = "") -> dict:
    """What `run` says of an exercise; it may raise anything and take any time."""
    try:
        with limited(timeout):
            return _outcome(exercise, run(), files, line)
    except TimedOut as error:
        return _result(exercise, RAISED, f"no end within {timeout:g} s", _where(error, files))
    except ModuleNotFoundError as error:
        return _result(exercise, UNKNOWN, f"{error.name} is not installed", "")
    except BaseException as error:  # SystemExit, too
        return _result(exercise, RAISED, words_of(error), _where(error, files) or line)


def _outcome(exercise: str, checked: exercises.Checked | None, files: Collection[str], line: str) -> dict:
    if checked is None or checked.passed:
        return _result(exercise, RIGHT, "", "")
    if checked.passed is None:
        return _result(exercise, STUB, "", "")
    if checked.error is not None:
        return _result(exercise, RAISED, words_of(checked.error), _where(checked.error, files) or line)
    return _result(exercise, WRONG, checked.message.removeprefix("not yet. "), "")


def _result(exercise: str, outcome: str, message: str, where: str) -> dict:
    return {"exercise": exercise, "outcome": outcome, "message": message, "where": where}


def words_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _where(error: BaseException, files: Collection[str]) -> str:
    """The last line of the learner's code on the way to an error, in words."""
    for name in [frame.filename for frame in reversed(traceback.extract_tb(error.__traceback__))]:
        if name in files:
            return _place(name, line_of(error, name))
    if isinstance(error, SyntaxError) and error.filename in files:
        return _place(error.filename, error.lineno)
    return ""


def line_of(error: BaseException, name: str) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return lines[-1] if lines else None


def _first_line(answer: Any) -> str:
    """Where a function begins: for errors that are raised in the call itself."""
    code = getattr(inspect.unwrap(answer) if callable(answer) else None, "__code__", None)
    return _place(code.co_filename, code.co_firstlineno) if isinstance(code, CodeType) else ""


def _place(name: str, line: int | None) -> str:
    return f"{name.strip('<>') if name.startswith('<') else Path(name).name}, line {line}"


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TimedOut` in what takes longer; what cannot be interrupted is ended by the process that waits."""

    def ring(signum: int, frame: object) -> None:
        raise TimedOut

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main(file: str, out: str, timeout: str, *exercise: str) -> None:
    path = Path(file).resolve()
    with open(out, "a", encoding="utf-8") as lines:

        def say(**line: Any) -> None:
            lines.write(json.dumps(line) + "\n")
            lines.flush()

        os.chdir(path.parent)
        sys.path.insert(0, str(path.parent))
        if path.suffix == ".ipynb":
            check_notebook(path, say, float(timeout))
        else:
            check_file(path, say, float(timeout), *exercise)
        say(done=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
