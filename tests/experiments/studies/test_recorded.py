"""Reading what was recorded: reports and ladders of a folder."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bnbook.experiments.engine.rows import ResultsError
from bnbook.experiments.studies.recorded import recorded
from bnbook.train import describe, report
from tests.train.training import SMALL, few_images_are_scored, quiet  # noqa: F401


@pytest.fixture(scope="module")
def row():
    return describe(quiet(replace(SMALL, train_images=64, epochs=1)), "python -m bnbook.train")


def test_reports_and_ladders_are_read_and_other_versions_left_out(row, tmp_path):
    assert recorded(tmp_path) == []
    (tmp_path / "train_a.json").write_text(json.dumps(row), encoding="utf-8")
    (tmp_path / "train_b.json").write_text(json.dumps(row | {"version": report.VERSION + 1}), encoding="utf-8")
    rung = row | {"rung": "device", "adds": ""}
    (tmp_path / "ladder_cpu.jsonl").write_text(json.dumps(rung) + "\n", encoding="utf-8")
    (tmp_path / "other.json").write_text("{", encoding="utf-8")
    assert recorded(tmp_path) == [rung, row]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_a.json", "{", r"train_a\.json is not JSON"),
        ("train_a.json", "[]", r"train_a\.json is not a report"),
        ("train_a.json", "{}", r"train_a\.json has no version, settings"),
        ("ladder_cpu.jsonl", "{}\n", r"ladder_cpu\.jsonl, line 1 has no rung"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ResultsError, match=message):
        recorded(tmp_path)
