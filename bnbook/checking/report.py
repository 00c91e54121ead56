"""What is right in a file of answers, in a table: each answer is checked in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from . import answers
from .answers import RAISED, RIGHT, STUB, UNKNOWN, WRONG, BadFile
from .catalogue import Exercise
from .catalogue import exercises as all_exercises

GRACE = 10  # seconds after which a process that could not be interrupted is ended
PAUSE = 0.02
# One thread, as the notebooks of the book are executed: several wait for one another where other programs run.
ENVIRONMENT = {"MPLBACKEND": "agg"} | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def report(path: Path, timeout: float) -> dict[str, Any]:
    """What was found in one file: `file`, numbers by outcome, and `exercises`, those of the chapters that it answers.

    Raises:
        BadFile: there is no such file, it is not Python, or it answers no exercise.
    """
    if not path.is_file():
        raise BadFile("there is no such file" if not path.exists() else "this is no file")
    if path.suffix not in (".py", ".ipynb"):
        raise BadFile("neither a file of Python (.py) nor a notebook (.ipynb)")
    results = _of_notebook(path, timeout) if path.suffix == ".ipynb" else _of_file(path, timeout)
    chapters = {id.partition(".")[0] for id in results}
    rows = [_row(e, results.pop(e.id, {})) for e in all_exercises() if e.id.partition(".")[0] in chapters]
    rows += [{"exercise": id, "chapter": None, **result} for id, result in results.items()]  # ids that do not exist
    counts = [row["outcome"] for row in rows]
    return {
        "file": str(path),
        "right": counts.count(RIGHT),
        "wrong": counts.count(WRONG) + counts.count(RAISED),
        "not_attempted": counts.count(STUB),
        "not_checked": counts.count(UNKNOWN),
        "exercises": rows,
    }


def _row(exercise: Exercise, result: dict) -> dict[str, Any]:
    """An exercise that was never checked was not attempted."""
    said = {"outcome": STUB, "message": "", "where": ""} | result
    return {
        "exercise": exercise.id,
        "chapter": exercise.chapter,
        "chapter_title": exercise.chapter_title,
        "title": exercise.title,
        "kind": exercise.kind,
        "level": exercise.level,
        **{key: said[key] for key in ("outcome", "message", "where")},
    }


def _of_file(path: Path, timeout: float) -> dict[str, dict]:
    lines, ended = _process(path, timeout)
    found = lines[0] if lines else {"bad": ended}
    if "bad" in found:
        raise BadFile(found["bad"])
    results = {}
    for id, name in found["answers"].items():
        lines, ended = _process(path, timeout, id, name)
        mine = [line for line in lines if "outcome" in line]
        results[id] = mine[-1] if mine else _lost(ended)
    return results


def _of_notebook(path: Path, timeout: float) -> dict[str, dict]:
    asked = [id for _, source, _ in answers.cells(path) for id in answers.checks(source)]
    lines, ended = _process(path, timeout)
    results = {line["exercise"]: line for line in lines if "outcome" in line}
    reached = [line["begins"] for line in lines if "begins" in line]
    for id in asked if ended else ():
        results.setdefault(id, _lost(f"not reached: {reached[-1] if reached else 'before the first cell'}: {ended}"))
    return results


def _lost(why: str) -> dict:
    return {"outcome": UNKNOWN if why.startswith("not reached") else RAISED, "message": why, "where": ""}


def _process(path: Path, timeout: float, *exercise: str) -> tuple[list[dict], str]:
    """What the process of `answers` wrote; see `lines_of`."""
    return lines_of(answers.__name__, path, timeout, *exercise)


def lines_of(
    module: str, path: Path, timeout: float, *words: str, stop: threading.Event | None = None
) -> tuple[list[dict], str]:
    """The lines that a module wrote of a file in a process of its own, and why that ended before it should, or "".

    The process imports the same `bnbook` as this one. It is ended when `stop` is set.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lines"
        out.touch()
        command = [sys.executable, "-m", module, str(path), str(out), str(timeout), *words]
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            command,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            ended = _wait(process, out, timeout + GRACE, stop)
        finally:
            _end(process)
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    if lines and "done" in lines[-1]:
        return lines[:-1], ""
    return lines, ended.format(seconds=f"{timeout:g}")


def _wait(process: subprocess.Popen, out: Path, patience: float, stop: threading.Event | None = None) -> str:
    """Until the process ends, or has written nothing for so many seconds, or nobody waits any longer."""
    size, since = 0, time.monotonic()
    while process.poll() is None and not (stop and stop.is_set()):
        time.sleep(PAUSE)
        if (now := out.stat().st_size) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            return "no end within {seconds} s"
    return f"the process was ended (exit status {process.returncode})"


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.kill()
    process.wait()


# --- words -----------------------------------------------------------------------------------------------------------


def text(found: dict[str, Any]) -> str:
    """The table of one file and its summary."""
    lines = [found["file"]]
    rows = found["exercises"]
    names = max(len(row["exercise"]) for row in rows)
    for _, group in groupby(rows, key=lambda row: row["exercise"].partition(".")[0]):
        of_chapter = list(group)
        title = of_chapter[0].get("chapter_title")
        lines += ["", f"Chapter {int(of_chapter[0]['exercise'][2:4])}{f', {title}' if title else ''}"]
        for row in of_chapter:
            level = f"  level {row['level']}" if row.get("level") else ""
            where = f" ({row['where']})" if row["where"] else ""
            lines.append(f"  {row['exercise']:{names}}{level}  {row['outcome']}{where}")
            if row["message"]:
                lines += textwrap.wrap(row["message"], width(), initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, "", summary(found)])


def summary(found: dict[str, Any]) -> str:
    words = f"{found['right']} right, {found['wrong']} wrong, {found['not_attempted']} not attempted"
    return words + (f", {found['not_checked']} not checked" if found["not_checked"] else "")


def catalogue(found: list[Exercise]) -> str:
    """The list of exercises, as text."""
    lines: list[str] = []
    ids, names = (max(len(word) for word in column) for column in zip(*((e.id, e.name) for e in found), strict=True))
    for chapter, group in groupby(found, key=lambda exercise: exercise.chapter):
        of_chapter = list(group)
        title = of_chapter[0].chapter_title
        lines += ["", f"Chapter {chapter}{f', {title}' if title else ''}"]
        for e in of_chapter:
            words = f"  level {e.level}  {e.kind:10}  {e.title}" if e.title else ""
            lines.append(f"  {e.id:{ids}}  {e.name:{names}}{words}".rstrip())
    return "\n".join(lines[1:])


def width() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns))
