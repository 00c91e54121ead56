"""Results files: one row of JSON a line, appended when its run is finished.

A file is only ever appended to, under a lock: commands that run at once, or are killed, lose no finished row. What a
killed command leaves is at most an incomplete last line; readers skip it, and the next row takes its place.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # this module needs NumPy only where bits are packed: workers set their threads before it is imported
    import numpy as np


class ResultsError(ValueError):
    """A results file that cannot be trusted; the message says which line, and why."""


class Contents(NamedTuple):
    """What a results file holds."""

    rows: list[dict]  # the intact ones, in the file's order
    damage: list[str]  # one message a damaged line: which, why, and what to do
    truncated: bool  # whether the last line is incomplete; it is not among the rows, nor among the damage


def read(
    path: str | Path,
    problem: Callable[[dict], str | None] = lambda row: None,
    key: Callable[[dict], Hashable] | None = None,
) -> Contents:
    """Read a results file; one that does not exist has no rows.

    Args:
        problem: what is wrong with a row ("has no seed"), or None.
        key: what a row is known by; a second row of one key is damage.
    """
    raw = Path(path).read_bytes() if Path(path).exists() else b""
    complete = raw[: raw.rfind(b"\n") + 1]
    rows, damage, seen = [], [], {}
    for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            wrong = f"is not JSON ({error})"
        else:
            wrong = problem(row) if isinstance(row, dict) else "is not a row"
        if wrong:
            damage.append(f"{path}, line {number} {wrong}: delete the line or restore it")
            continue
        if key and (first := seen.setdefault(key(row), number)) != number:
            damage.append(f"{path}, line {number} repeats the run of an earlier line, {first}: delete one of them")
            continue
        rows.append(row)
    return Contents(rows, damage, len(raw) > len(complete))


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a word of JSON")


def append(path: str | Path, row: dict, key: Callable[[dict], Hashable] | None = None) -> bool:
    """Add a row to a results file, on the disk before this returns; an incomplete last line is dropped.

    Args:
        key: what a row is known by, of any row in the file. A row whose key the file holds already, perhaps since a
            moment ago and by another command, is not written.

    Returns:
        whether the row was written.

    Raises:
        ValueError: the row holds a number that JSON has no word for (see `bnbook.provenance.plain`).
    """
    import fcntl  # not in a browser, where results are only read

    line = json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, or its process dies
        complete = file.read().rfind(b"\n") + 1
        if key and any(key(other) == key(row) for other in read(path).rows):
            return False
        file.truncate(complete)
        file.seek(complete)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return True


def pack_bits(bits: np.ndarray) -> str:
    """A vector of booleans as text, "number of bits:base64"; 10,000 of them take 1.7 kB."""
    import numpy as np

    bits = np.asarray(bits)
    if bits.ndim != 1 or bits.dtype != bool:
        raise ValueError(f"bits must be a vector of booleans, got shape {bits.shape} of {bits.dtype}")
    return f"{len(bits)}:{base64.b64encode(np.packbits(bits)).decode()}"


def unpack_bits(text: str) -> np.ndarray:
    """The booleans that `pack_bits` made a text of.

    Raises:
        ValueError: a text that it did not make.
    """
    import numpy as np

    try:
        count, _, encoded = text.partition(":")
        packed = np.frombuffer(base64.b64decode(encoded, validate=True), np.uint8)
        if len(packed) != -(-int(count) // 8):
            raise ValueError(f"{count} bits do not take {len(packed)} bytes")
        return np.unpackbits(packed, count=int(count)).astype(bool)
    except (AttributeError, ValueError) as error:
        raise ValueError(f"text must be what pack_bits returns, got {str(text)[:40]!r} ({error})") from None
