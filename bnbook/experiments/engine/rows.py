"""Results files: one row of JSON a line, appended when its run is finished.

A row is appended under a lock and never half: commands that run at once, or are killed, lose no finished row. What a
killed command leaves is at most an incomplete last line; readers skip it, and the next row takes its place.

Where a row comes from is the same for hundreds of them, and would be two fifths of the file. So its "provenance" is
kept once, in NAME.provenance.json beside NAME.jsonl, by the first digits of its SHA-256. These stand in the line, and
readers put the whole in their place; a line may as well hold it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
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
        sources = _sources(path)
        for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
            row, wrong = self._parse(line, sources)
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
            ResultsError: the file of the provenances cannot be read.
        """
        _line(row)  # raises before anything is written
        with self._locked() as file:
            content, sources = file.read(), _sources(Path(self.path))
            complete = content.rfind(b"\n") + 1
            if self.key and self.key(row) in self._keys(content[:complete], sources):
                return False
            line = self._kept(row, sources)
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
            lines, sources = file.read().split(b"\n"), _sources(Path(self.path))
            for number, line in enumerate(lines[:-1]):
                row, wrong = self._parse(line, sources)
                if not wrong and (changed := change(row)) != row:
                    lines[number] = self._kept(changed, sources)[:-1]
            write_atomically(Path(self.path), b"\n".join(lines))
        return True

    def _parse(self, line: bytes, sources: Mapping[str, dict]) -> tuple[dict, str | None]:
        try:
            row = json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            return {}, f"is not JSON ({error})"
        if not isinstance(row, dict):
            return {}, "is not a row"
        if isinstance(source := row.get("provenance"), str):
            if source not in sources:
                return {}, f"has the provenance {source!r}, which {sources_file(Path(self.path)).name} does not hold"
            row["provenance"] = dict(sources[source])
        return row, self.problem(row)

    def _keys(self, complete: bytes, sources: Mapping[str, dict]) -> Iterator[Hashable]:
        """Of the intact rows: a damaged one stands for no run."""
        for line in complete.split(b"\n")[:-1]:
            row, wrong = self._parse(line, sources)
            if not wrong:
                yield self.key(row)

    def _kept(self, row: Mapping, sources: dict[str, dict]) -> bytes:
        """The line of a row, whose provenance is kept beside the rows before this returns, if it is a new one."""
        if not isinstance(source := row.get("provenance"), dict):
            return _line(row)
        name = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:8]
        if name not in sources:
            sources[name] = dict(source)
            entries = (f"{json.dumps(n)}: {json.dumps(s, ensure_ascii=False)}" for n, s in sources.items())
            write_atomically(sources_file(Path(self.path)), ("{\n" + ",\n".join(entries) + "\n}\n").encode())
        return _line({**row, "provenance": name})

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


def sources_file(path: Path) -> Path:
    """Where the provenances of the rows of a results file are kept."""
    return path.with_suffix(".provenance.json")


def _sources(path: Path) -> dict[str, dict]:
    """The provenances that are kept beside a results file, by the names that its lines call them by."""
    kept = sources_file(path)
    try:
        sources = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        if not (isinstance(sources, dict) and all(isinstance(source, dict) for source in sources.values())):
            raise ValueError("it must hold objects by name")
    except ValueError as error:
        raise ResultsError(f"{kept} cannot be read ({error}): restore it") from None
    return sources


def _line(row: Mapping) -> bytes:
    return json.dumps(row, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a word of JSON")
