"""Results files: one row of JSON a line, appended when its run is finished.

A row is appended under a lock and never half: commands that run at once, or are killed, lose no finished row. What a
killed command leaves is at most an incomplete last line; readers skip it, and the next row takes its place.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...provenance import write_atomically


class ResultsError(ValueError):
    """A results file that cannot be trusted; the message says which line, and why."""


class Snapshot(NamedTuple):
    """What a results file holds at one moment."""

    rows: list[dict]  # the intact ones of the present version, in the file's order
    stale: dict[int, int]  # other version → number of its rows
    damage: list[str]  # one message a damaged line: which, why, and what to do
    truncated: bool  # whether the last line is incomplete; it is not among the rows, nor among the damage


def _nothing_wrong(row: dict) -> None:
    return None


@dataclass(frozen=True)
class Rows:
    """The rows of one results file, which need not exist yet.

    Args:
        path: of the file.
        key: what a row is known by; a second row of one key is damage, and is not appended.
        problem: what is wrong with a row ("has no seed"), or None.
        version: of the rows that count, their field "version"; those of another are stale. None: all rows count.
    """

    path: str | Path
    key: Callable[[dict], Hashable] | None = None
    problem: Callable[[dict], str | None] = _nothing_wrong
    version: int | None = None

    def read(self) -> Snapshot:
        """What the file holds now; one that does not exist has no rows."""
        path = Path(self.path)
        raw = path.read_bytes() if path.exists() else b""
        complete = raw[: raw.rfind(b"\n") + 1]
        rows, stale, damage, seen = [], Counter(), [], {}
        for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
            row, wrong = self._parse(line)
            if wrong:
                damage.append(f"{path}, line {number} {wrong}: delete the line or restore it")
            elif self.key and (first := seen.setdefault(self.key(row), number)) != number:
                damage.append(f"{path}, line {number} repeats the run of an earlier line, {first}: delete one of them")
            elif self.version is not None and row["version"] != self.version:
                stale[row["version"]] += 1
            else:
                rows.append(row)
        return Snapshot(rows, dict(stale), damage, len(raw) > len(complete))

    def append(self, row: dict) -> bool:
        """Add a row, on the disk before this returns; an incomplete last line is dropped.

        Returns:
            whether it was written: a row whose key the file holds already, perhaps since a moment ago and by another
            command, is not.

        Raises:
            ValueError: the row holds a number that JSON has no word for (see `bnbook.provenance.plain`).
        """
        line = _line(row)
        with self._locked() as file:
            content = file.read()
            complete = content.rfind(b"\n") + 1
            if self.key and self.key(row) in self._keys(content[:complete]):
                return False
            file.truncate(complete)
            file.seek(complete)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return True

    def rewrite(self, plan: Callable[[], Callable[[dict], dict] | None]) -> bool:
        """Put `change(row)` in the place of every intact row: of all at once, or of none if this process dies.

        Lines that are damaged or incomplete stay as they are.

        Args:
            plan: returns `change`, or None if there is nothing to do; while it is called no row can be appended.

        Returns:
            whether there was something to do.
        """
        with self._locked() as file:
            if (change := plan()) is None:
                return False
            lines = file.read().split(b"\n")
            for number, line in enumerate(lines[:-1]):
                row, wrong = self._parse(line)
                if not wrong and (changed := change(row)) != row:
                    lines[number] = _line(changed)[:-1]
            write_atomically(Path(self.path), b"\n".join(lines))
        return True

    def _parse(self, line: bytes) -> tuple[dict, str | None]:
        try:
            row = json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            return {}, f"is not JSON ({error})"
        return (row, self.problem(row)) if isinstance(row, dict) else ({}, "is not a row")

    def _keys(self, complete: bytes) -> Iterator[Hashable]:
        """Of the intact rows: a damaged one stands for no run."""
        for row, wrong in map(self._parse, complete.split(b"\n")[:-1]):
            if not wrong:
                yield self.key(row)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, made where it is missing, for this process alone until it is closed or its process dies."""
        import fcntl  # not in a browser, where results are only read

        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(file, path):  # and was not replaced while this one waited
                    yield file
                    return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _line(row: dict) -> bytes:
    return json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a word of JSON")
