"""What the check-up finds and what it lets pass, counted: chapter 20 shows the two tables.

``python -m tests.checkup.tables`` makes them anew and writes them to book/results/checkup.json, which a test compares
with what it finds itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bnbook.checkup import checkup

from . import models
from .faults import FAULTS

RECORD = Path(__file__).parents[2] / "book" / "results" / "checkup.json"
Row = dict[str, Any]


def fault(name: str) -> Row:
    """Whether a planted fault is found under its own code."""
    code, make = FAULTS[name]
    model, batches, optimizer = make()
    found = any(finding.code == code for finding in checkup(model, batches, optimizer=optimizer).findings)
    return {"planted": name, "code": code, "found": found}


def healthy(name: str) -> Row:
    """How many errors and warnings a healthy model gets."""
    torch.manual_seed(0)
    model = models.HEALTHY[name]()
    batches = models.batches(8, 2) if "two" in name.split() else models.batches()
    severities = [finding.severity for finding in checkup(model, batches).findings]
    return {"model": name, "errors": severities.count("error"), "warnings": severities.count("warning")}


def faults() -> list[Row]:
    return [fault(name) for name in FAULTS]


def all_healthy() -> list[Row]:
    return [healthy(name) for name in models.HEALTHY]


def recorded() -> dict[str, list[Row]]:
    """The committed tables, "faults" and "healthy"."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def text(rows: Iterable[Row]) -> str:
    """A table to read in a terminal, without its header."""
    words = {True: "found", False: "MISSED"}
    lines = []
    for row in rows:
        cells = [words.get(value, value) if isinstance(value, bool) else f"{value}" for value in row.values()]
        lines.append("  ".join([f"{cells[0]:<50}", *(f"{cell:>6}" for cell in cells[1:])]))
    return "\n".join(lines)


def main() -> None:
    tables = {"faults": faults(), "healthy": all_healthy()}
    for name, rows in tables.items():
        print(f"{name}\n{text(rows)}\n")
    parts = [f' "{name}": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]" for name, rows in tables.items()]
    RECORD.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    print(f"written to {RECORD.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
