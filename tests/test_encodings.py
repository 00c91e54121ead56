"""Files and programs are read as UTF-8, whatever the locale: every call says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bnbook", "tests", "tools", "book/_ext")
FILES = [ROOT / "conftest.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


def without_encoding(source: str) -> Iterator[int]:
    """The lines of calls that take the locale's encoding."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        module = getattr(getattr(call.func, "value", None), "id", "")
        words = {word.arg: word.value for word in call.keywords}
        text = {word: getattr(words.get(word), "value", None) for word in ("text", "universal_newlines")}
        # Path.open("r") and open(path, "r"); the openers of archives and os.open are other functions
        place = 0 if isinstance(call.func, ast.Attribute) else 1
        mode = words.get("mode", call.args[place] if len(call.args) > place else ast.Constant("r"))
        opens = name in ("open", "fdopen") and module not in ("os", "gzip", "lzma", "tarfile", "zipfile", "Image")
        opens = opens and "b" not in str(getattr(mode, "value", "b"))
        needs = opens or name == "read_text" or name == "write_text" or any(text.values())
        given = len(call.args) > {"read_text": 0, "write_text": 1}.get(name, 9)
        if needs and not given and not words.keys() & {"encoding", None}:
            yield call.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_call_names_its_encoding(path: Path) -> None:
    assert list(without_encoding(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "path.write_text('é')",
        "open(path)",
        "open(path, 'w')",
        "path.open()",
        "path.open('a')",
        "subprocess.run(command, text=True)",
        "Popen(command, universal_newlines=True)",
    ],
)
def test_a_call_without_is_found(call: str) -> None:
    assert list(without_encoding(f"\n{call}")) == [2]


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text('utf-8')",
        "path.read_text(encoding='utf-8')",
        "path.write_text('é', encoding='utf-8')",
        "open(path, 'rb')",
        "path.open('ab')",
        "path.read_bytes()",
        "subprocess.run(command, capture_output=True)",
        "subprocess.run(command, encoding='utf-8')",
        "open(path, **how)",
        "os.open(path, flags)",
    ],
)
def test_other_calls_are_not(call: str) -> None:
    assert list(without_encoding(call)) == []
