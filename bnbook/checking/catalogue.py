"""All exercises of the book: what they ask for, and, where the book is there, their titles, kinds and levels."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

from .exercises import _ASKED

BOOK = Path(__file__).parents[2] / "book"

_EXERCISE = re.compile(r"^`{3,}\{exercise\} *(?P<title>.*)\n:label: *(?P<label>\S+)", re.MULTILINE)
_LEVEL = re.compile(r"\*(?P<kind>\w+) · level (?P<level>\d)")
_CHECK = re.compile(r"""\bcheck\(\s*["'](\w+\.\w+)["']""")


class Exercise(NamedTuple):
    """One exercise. What only the notebooks say is None where they are not installed."""

    id: str
    name: str
    """Of the function that it asks for, or with `value` of the value."""
    value: bool
    chapter: int
    title: str | None = None
    kind: str | None = None
    level: int | None = None
    label: str | None = None
    page: str | None = None
    """The notebook, without its ending."""
    chapter_title: str | None = None


def exercises(book: Path | None = BOOK) -> list[Exercise]:
    """All exercises, in the order of the book; with None only what the package itself knows of them."""
    chapters = importlib.import_module(f"{__package__}.chapters")
    for module in pkgutil.iter_modules(chapters.__path__):
        importlib.import_module(f"{chapters.__name__}.{module.name}")
    found = {id: Exercise(id, *asked, int(id[2:4])) for id, asked in _ASKED.items()}
    for path in sorted(book.glob("[0-9][0-9]_*.ipynb")) if book else ():
        if not path.name.endswith(".student.ipynb"):
            for id, words in _of_notebook(path).items():
                found[id] = found.pop(id)._replace(page=path.stem, **words)  # at the end: in the order of the book
    return sorted(found.values(), key=lambda exercise: exercise.chapter)


def checks(source: str) -> list[str]:
    """The ids of the exercises that a piece of code checks."""
    return _CHECK.findall(source)


def _of_notebook(path: Path) -> dict[str, dict]:
    """By the id of an exercise, what the cell before its first check says of it."""
    found: dict[str, dict] = {}
    chapter_title, words = None, {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if chapter_title is None and (heading := re.search(r"^# +(?:\d+ · )?(.+)$", source, re.MULTILINE)):
                chapter_title = heading[1].strip()
            if match := _EXERCISE.search(source):
                words = match.groupdict() | {"chapter_title": chapter_title}
                if level := _LEVEL.search(source):
                    words |= {"kind": level["kind"].lower(), "level": int(level["level"])}
        elif words and (ids := checks(source)):
            found[ids[0]], words = words, {}
    return found
