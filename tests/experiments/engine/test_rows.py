"""Results files: what is written stays, whoever else writes or dies; damage is named; bits come back."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from bnbook.experiments.engine import rows as results

WRITER = """
import sys
from bnbook.experiments.engine import rows as results
for i in range(150):
    results.append(sys.argv[1], {"writer": sys.argv[2], "i": i, "filler": "x" * (37 * i % 5000)})
"""
SAME_RUNS = """
import sys
from bnbook.experiments.engine import rows as results
written = sum(results.append(sys.argv[1], {"i": i, "by": sys.argv[2]}, lambda row: row["i"]) for i in range(60))
print(written)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, encoding="utf-8"
    )


def test_rows_come_back_in_order(tmp_path):
    path = tmp_path / "new folder" / "rows.jsonl"
    assert results.read(path) == ([], [], False)
    rows = [{"seed": seed, "name": "ε = 0", "values": [0.1, None, True]} for seed in range(3)]
    assert all(results.append(path, row) for row in rows)
    assert results.read(path) == (rows, [], False)
    assert "ε" in path.read_text(encoding="utf-8") and path.read_bytes().count(b"\n") == 3


def test_two_processes_write_every_row_whole(tmp_path):
    """Long and short rows, at once: without the lock lines are lost, or one runs into another."""
    path = tmp_path / "rows.jsonl"
    writers = [start(WRITER, path, name) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    rows, damage, truncated = results.read(path)
    assert not damage and not truncated
    assert [[row["i"] for row in rows if row["writer"] == name] for name in "ab"] == [list(range(150))] * 2


def test_of_two_processes_one_writes_a_run(tmp_path):
    path = tmp_path / "rows.jsonl"
    writers = [start(SAME_RUNS, path, name) for name in "ab"]
    written = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    rows = results.read(path).rows
    assert sorted(row["i"] for row in rows) == list(range(60)) and sum(written) == 60
    assert not results.append(path, {"i": 7, "by": "c"}, lambda row: row["i"])
    assert results.append(path, {"i": 60, "by": "c"}, lambda row: row["i"])


def test_only_an_incomplete_last_line_is_cut(tmp_path):
    """Rows that another process wrote since this one read the file are among what stays."""
    path = tmp_path / "rows.jsonl"
    results.append(path, {"i": 0})
    with path.open("ab") as other:
        other.write(b'{"i": 1}\n{"i": 2, "half of a long row": "' + b"x" * 10_000)
    assert results.read(path) == ([{"i": 0}, {"i": 1}], [], True)
    results.append(path, {"i": 3})
    assert path.read_bytes() == b'{"i": 0}\n{"i": 1}\n{"i": 3}\n'


def test_a_first_line_that_is_incomplete_is_cut_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"i": 0, "x')
    assert results.read(path) == ([], [], True)
    results.append(path, {"i": 1})
    assert path.read_bytes() == b'{"i": 1}\n'


def test_damage_is_named_by_its_line_and_intact_rows_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [b'{"i": 0}', b'{"i": 1', b"[1]", b'{"i": NaN}', b"", b'{"j": 1}', b'{"i": 0}', b"\xff\xfe", b'{"i": 8}']
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows, damage, truncated = results.read(path, lambda row: None if "i" in row else "has no i", lambda row: row["i"])
    assert rows == [{"i": 0}, {"i": 8}] and not truncated
    assert [text.removeprefix(f"{path}, ").split(" ")[1] for text in damage] == list("2345678")
    assert "line 2 is not JSON" in damage[0] and "line 3 is not a row" in damage[1]
    assert "line 6 has no i: delete the line or restore it" in damage[4]
    assert "line 7 repeats the run of an earlier line, 1: delete one of them" in damage[5]
    assert all(str(path) in text for text in damage)


def test_a_row_that_json_cannot_hold_leaves_the_file_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    results.append(path, {"i": 0})
    for row in ({"i": math.nan}, {"i": np.float32(1)}):
        with pytest.raises((ValueError, TypeError)):
            results.append(path, row)
    assert path.read_bytes() == b'{"i": 0}\n'


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 10_000])
def test_bits_come_back(count):
    bits = np.random.default_rng(count).random(count) < 0.8
    text = results.pack_bits(bits)
    again = results.unpack_bits(text)
    assert again.dtype == bool and np.array_equal(again, bits)
    assert len(text) <= count / 6 + 16


@pytest.mark.parametrize("bits", [np.ones(3), np.ones((2, 2), bool), [0, 1]])
def test_only_vectors_of_booleans_are_packed(bits):
    with pytest.raises(ValueError, match="bits must be a vector of booleans"):
        results.pack_bits(bits)


@pytest.mark.parametrize("text", ["", "8", "9:/w==", "8:/w=", "x:/w==", "8:/w==!", None, 3, "-1:"])
def test_a_text_that_is_no_bits_is_refused(text):
    with pytest.raises(ValueError, match="text must be what pack_bits returns"):
        results.unpack_bits(text)


def test_reading_needs_no_numpy():
    """Workers set their number of threads before NumPy is imported."""
    code = "import sys, bnbook.experiments.engine.rows as r; r.read('nowhere')"
    code += "; print({'numpy', 'torch'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
        == "set()\n"
    )
