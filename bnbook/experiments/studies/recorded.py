"""The recorded runs: what the reports and the ladders in a folder hold."""

from __future__ import annotations

import json
from pathlib import Path

from ...train import report
from ..engine.rows import ResultsError
from . import ladder


def recorded(folder: str | Path) -> list[dict]:
    """The rows of all `ladder_*.jsonl` and reports `train_*.json` of this version, in the order of the files' names.

    Every row is what `describe` returns; those of a ladder have their rung as well. A folder without files has no rows.

    Raises:
        ResultsError: a file that cannot be trusted; the message says which, and why.
    """
    rows = [row for path in sorted(Path(folder).glob("ladder_*.jsonl")) for row in ladder.read(path)]
    for path in sorted(Path(folder).glob("train_*.json")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{path} is not JSON ({error}): make it anew or restore it") from None
        if wrong := report.problem(row) if isinstance(row, dict) else "is not a report":
            raise ResultsError(f"{path} {wrong}: make it anew or restore it")
        if row["version"] == report.VERSION:
            rows.append(row)
    return rows
