"""False alarms and missed faults of the check-up, counted; `pytest -s` shows the tables, and chapter 20 does."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from tests.checkup import tables

pytestmark = pytest.mark.long(seconds=60)
AGAIN = "make the tables of chapter 20 again: python -m tests.checkup.tables, and execute the chapter"


def test_planted_faults_are_found() -> None:
    rows = tables.faults()
    print(tables.text(rows))
    found = sum(row["found"] for row in rows)
    assert len(rows) >= 30 and found >= max(28, len(rows) - 2)
    assert rows == tables.recorded()["faults"], AGAIN


def test_healthy_models_pass() -> None:
    rows = tables.all_healthy()
    print(tables.text(rows))
    assert len(rows) >= 12
    assert sum(row["errors"] for row in rows) == 0 and sum(row["warnings"] for row in rows) <= 1
    assert rows == tables.recorded()["healthy"], AGAIN
