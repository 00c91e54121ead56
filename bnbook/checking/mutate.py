"""Which of a reader's own tests see which mistake in the reader's own layer: `python -m bnbook.checking mutate`."""

from __future__ import annotations

import os
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import trials
from .answers import BadFile
from .mutations import Mistake, mistakes, source
from .report import lines_of
from .trials import ENDLESS, FAILED, PASSED

ALLOWANCE, FACTOR = 5, 20  # a mistake may make the tests this much slower: seconds, and times


def mutate(
    path: Path, tests: Path | None = None, timeout: float = 60, progress: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Plant every mistake of `mutations` in the layer of one file, and ask its tests, each time in a new process.

    Args:
        tests: the file with the functions `test_*`, if it is not the layer's own; it imports the layer by its name.
        timeout: seconds for a test.
        progress: called after each mistake.

    Returns:
        `file`, `tests` (names), `mistakes` (each with `line`, `mistake`, `was`, `became`, `seen_by`, `hint`), `seen`
        and `unseen`, their numbers.

    Raises:
        BadFile: a file is missing or is not Python, there are no tests, one fails before there is a mistake, or there
            is nothing in which a mistake could be planted.
    """
    tests = tests or path
    for file in dict.fromkeys((path, tests)):
        _readable(file)
    known = mistakes(source(path))
    if not known:
        raise BadFile(f"{path.name}: there is no arithmetic in its functions: no mistake can be planted")
    began = time.monotonic()
    names = _before(path, tests, timeout)
    _before(path, tests, timeout)  # again: a test that passes now and then sees nothing
    limit = min(timeout, ALLOWANCE + FACTOR * (time.monotonic() - began))
    stop = threading.Event()

    def seen_by(number: int) -> list[str]:
        found, _ = _asked(path, tests, limit, number, stop)
        progress()
        if "bad" in found:  # the file itself cannot be executed: every test would say so
            return names
        return [name for name in names if found["outcomes"].get(name, ENDLESS) != PASSED]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            seen = list(pool.map(seen_by, range(len(known))))
        finally:
            stop.set()
    rows = [_row(mistake, by) for mistake, by in zip(known, seen, strict=True)]
    unseen = sum(not row["seen_by"] for row in rows)
    return {
        "file": str(path),
        "tests": names,
        "mistakes": rows,
        "seen": len(rows) - unseen,
        "unseen": unseen,
    }


def _row(mistake: Mistake, seen_by: list[str]) -> dict[str, Any]:
    return {
        "line": mistake.line,
        "mistake": mistake.words,
        "was": mistake.was,
        "became": mistake.became,
        "seen_by": seen_by,
        "hint": mistake.hint,
    }


def _readable(path: Path) -> None:
    if not path.is_file():
        name = path.name or path  # "." has none
        raise BadFile(f"{name}: there is no such file" if not path.exists() else f"{name}: this is no file")
    if path.suffix != ".py":
        raise BadFile(f"{path.name}: not a file of Python (.py)")
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise BadFile(f"{path.name}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise BadFile(f"{path.name}: this is not Python: {error}") from None


def _before(path: Path, tests: Path, timeout: float) -> list[str]:
    """The names of the tests, all of which pass before there is a mistake."""
    found, ended = _asked(path, tests, timeout, -1)
    if "bad" in found:
        raise BadFile(found["bad"])
    for name, result in found["outcomes"].items():
        said = found["lines"][name]
        if result == ENDLESS:
            raise BadFile(f"{tests.name}: {name} does not end within {timeout:g} s, before any mistake is planted")
        if result != PASSED:
            why = f" (line {said['line']})" if said["line"] else ""
            why += f": {said['message']}" if said["message"] else ""
            how = "fails" if result == FAILED else "raises"
            raise BadFile(f"{tests.name}: {name} {how} before any mistake is planted{why}".splitlines()[0])
    if ended:
        missing = [name for name in found["tests"] if name not in found["outcomes"]]
        raise BadFile(f"{tests.name}: {missing[0] if missing else 'it'} cannot be run: {ended}")
    return found["tests"]


def _asked(
    path: Path, tests: Path, timeout: float, number: int, stop: threading.Event | None = None
) -> tuple[dict[str, Any], str]:
    """The names of the tests and how each ended, with one mistake; and why their process ended too early, or ""."""
    lines, ended = lines_of(trials.__name__, path, timeout, str(tests), str(number), stop=stop)
    if lines and "bad" in lines[0]:
        return lines[0], ended
    said = {line["test"]: line for line in lines if "test" in line}
    if not lines:
        return {"bad": f"{path.name}: {ended}"}, ended
    return {
        "tests": lines[0]["tests"],
        "outcomes": {name: line["outcome"] for name, line in said.items()},
        "lines": said,
    }, ended


# --- words -----------------------------------------------------------------------------------------------------------


def text(found: dict[str, Any], width: int) -> str:
    """The table: every mistake with the tests that see it; then those that none sees, and what each test is worth."""
    names, rows = found["tests"], found["mistakes"]
    words = max(len(row["mistake"]) for row in rows)
    lines = [f"{found['file']}: {len(rows)} mistakes, planted one by one; {_count(len(names), 'test')}", ""]
    lines.append(f"{'line':>4}  {'mistake':{words}}  seen by")
    for row in rows:
        by = "every test" if 1 < len(names) == len(row["seen_by"]) else ", ".join(row["seen_by"])
        lines.append(f"{row['line']:4}  {row['mistake']:{words}}  {by or 'no test'}")
    unseen = [row for row in rows if not row["seen_by"]]
    for n, hint in enumerate(dict.fromkeys(row["hint"] for row in unseen)):
        lines += ["", "What no test sees, and what would:", ""][bool(n) * 2 :]
        lines += textwrap.wrap(f"{hint[0].upper()}{hint[1:]}.", width, initial_indent="  ", subsequent_indent="  ")
        for row in unseen:
            if row["hint"] == hint:
                lead = f"    line {row['line']:<4} "
                lines += textwrap.wrap(row["became"], width, initial_indent=lead, subsequent_indent=" " * len(lead))
    lines += ["", "What each test sees:"]
    alone = Counter(row["seen_by"][0] for row in rows if len(row["seen_by"]) == 1)
    longest = max(map(len, names))
    for name in names:
        sees = sum(name in row["seen_by"] for row in rows)
        more = f", {alone[name]} of them alone" if alone[name] and len(names) > 1 else ""
        lines.append(f"  {name:{longest}}  {sees} of {len(rows)}{more}{'' if sees else ': it cannot fail'}")
    return "\n".join([*lines, "", *textwrap.wrap(summary(found), width)])


def summary(found: dict[str, Any]) -> str:
    total = found["seen"] + found["unseen"]
    if not found["unseen"]:
        return f"All {total} mistakes are seen."
    return (
        f"{found['seen']} of {total} mistakes are seen. Where a change is no mistake, end its line in "
        "# pragma: no mutate."
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
