"""Results files: what is written stays, whoever else writes or dies; damage is named; bits come back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bnbook.experiments.engine import bits
from bnbook.experiments.engine.rows import ResultsError, Rows, sources_file

WRITER = """
import sys
from bnbook.experiments.engine.rows import Rows
for i in range(150):
    Rows(sys.argv[1]).append({"writer": sys.argv[2], "i": i, "filler": "x" * (37 * i % 5000)})
"""
SAME_RUNS = """
import sys
from bnbook.experiments.engine.rows import Rows
rows = Rows(sys.argv[1], lambda row: row["i"])
written = sum(rows.append({"i": i, "by": sys.argv[2]}) for i in range(60))
print(written)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, encoding="utf-8"
    )


def test_rows_come_back_in_order(tmp_path):
    path = tmp_path / "new folder" / "rows.jsonl"
    assert Rows(path).read() == ([], {}, [], False)
    rows = [{"seed": seed, "name": "ε = 0", "values": [0.1, None, True]} for seed in range(3)]
    assert all(Rows(path).append(row) for row in rows)
    assert Rows(path).read() == (rows, {}, [], False)
    assert "ε" in path.read_text(encoding="utf-8") and path.read_bytes().count(b"\n") == 3


def test_two_processes_write_every_row_whole(tmp_path):
    """Long and short rows, at once: without the lock lines are lost, or one runs into another."""
    path = tmp_path / "rows.jsonl"
    writers = [start(WRITER, path, name) for name in "ab"]
    assert [writer.wait(600) for writer in writers] == [0, 0]
    rows, _, damage, truncated = Rows(path).read()
    assert not damage and not truncated
    assert [[row["i"] for row in rows if row["writer"] == name] for name in "ab"] == [list(range(150))] * 2


def test_of_two_processes_one_writes_a_run(tmp_path):
    path = tmp_path / "rows.jsonl"
    writers = [start(SAME_RUNS, path, name) for name in "ab"]
    written = [int(writer.communicate(timeout=600)[0]) for writer in writers]
    rows = Rows(path).read().rows
    assert sorted(row["i"] for row in rows) == list(range(60)) and sum(written) == 60
    keyed = Rows(path, lambda row: row["i"])
    assert not keyed.append({"i": 7, "by": "c"}) and keyed.append({"i": 60, "by": "c"})


def test_only_an_incomplete_last_line_is_cut(tmp_path):
    """Rows that another process wrote since this one read the file are among what stays."""
    path = tmp_path / "rows.jsonl"
    Rows(path).append({"i": 0})
    with path.open("ab") as other:
        other.write(b'{"i": 1}\n{"i": 2, "half of a long row": "' + b"x" * 10_000)
    assert Rows(path).read() == ([{"i": 0}, {"i": 1}], {}, [], True)
    Rows(path).append({"i": 3})
    assert path.read_bytes() == b'{"i":0}\n{"i": 1}\n{"i":3}\n'


def test_a_first_line_that_is_incomplete_is_cut_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"i": 0, "x')
    assert Rows(path).read() == ([], {}, [], True)
    Rows(path).append({"i": 1})
    assert path.read_bytes() == b'{"i":1}\n'


def test_damage_is_named_by_its_line_and_intact_rows_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [b'{"i": 0}', b'{"i": 1', b"[1]", b'{"i": NaN}', b"", b'{"j": 1}', b'{"i": 0}', b"\xff\xfe", b'{"i": 8}']
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows, _, damage, truncated = Rows(path, lambda row: row["i"], lambda row: None if "i" in row else "has no i").read()
    assert rows == [{"i": 0}, {"i": 8}] and not truncated
    assert [text.removeprefix(f"{path}, ").split(" ")[1] for text in damage] == list("2345678")
    assert "line 2 is not JSON" in damage[0] and "line 3 is not a row" in damage[1]
    assert "line 6 has no i: delete the line or restore it" in damage[4]
    assert "line 7 repeats the run of an earlier line, 1: delete one of them" in damage[5]
    assert all(str(path) in text for text in damage)


def test_rows_of_another_version_are_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    for i, version in enumerate((1, 1, 2, 3)):
        Rows(path).append({"i": i, "version": version})
    assert Rows(path, version=2).read() == ([{"i": 2, "version": 2}], {1: 2, 3: 1}, [], False)


def test_a_file_is_rewritten_at_once_and_what_is_no_row_stays(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [b'{"i": 0, "x": "big"}', b'{"i": 1', b'{"i": 2, "x": "big"}', b'{"half": ']
    path.write_bytes(b"\n".join(lines))
    assert not Rows(path).rewrite(lambda: None) and path.read_bytes() == b"\n".join(lines)
    assert Rows(path).rewrite(lambda: lambda row: row | {"x": None} if row["i"] else row)
    lines[2] = b'{"i":2,"x":null}'
    assert path.read_bytes() == b"\n".join(lines) and os.listdir(tmp_path) == ["rows.jsonl"]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux alone tells who waits for a lock")
def test_a_row_that_waited_while_the_file_was_rewritten_is_not_lost(tmp_path):
    """The other process holds the old file open, and writes to the new one."""
    path = tmp_path / "rows.jsonl"
    Rows(path).append({"i": 0})
    code = "import sys; from bnbook.experiments.engine.rows import Rows; Rows(sys.argv[1]).append({'i': 1})"
    waiting = []

    def plan():
        waiting.append(start(code, path))
        until_waiting(waiting[0].pid)
        return lambda row: row | {"changed": True}

    assert Rows(path).rewrite(plan)
    assert waiting[0].wait(600) == 0
    assert Rows(path).read().rows == [{"i": 0, "changed": True}, {"i": 1}]


def until_waiting(process: int) -> None:
    """Until a process has opened a file and waits for its lock."""
    end = time.monotonic() + 60
    while True:
        assert time.monotonic() < end, "it does not wait"
        if any(
            "->" in line and f" {process} " in line
            for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()
        ):
            return
        time.sleep(0.01)


def test_a_provenance_is_kept_once_and_comes_back(tmp_path):
    """Also where a line holds the whole, as one copied by hand; who changes that of a row changes no other."""
    path, sources = (
        tmp_path / "rows.jsonl",
        [{"command": "make ε", "date": day} for day in ("2026-11-28", "2026-11-29")],
    )
    rows = [{"i": i, "provenance": dict(sources[i % 2])} for i in range(6)]
    path.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    assert all(Rows(path).append(row) for row in rows[1:])
    found = Rows(path).read().rows
    assert found == rows and sorted(os.listdir(tmp_path)) == ["rows.jsonl", "rows.provenance.json"]
    kept = json.loads(sources_file(path).read_text(encoding="utf-8"))
    assert sorted(kept.values(), key=lambda source: source["date"]) == sources
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["provenance"] in kept for line in lines[1:]] == [True] * 5 and "make" in lines[0]
    found[1]["provenance"]["date"] = "today"
    assert found[3] == rows[3]
    assert Rows(path).rewrite(lambda: lambda row: row | {"x": 1})
    assert Rows(path).read().rows == [row | {"x": 1} for row in rows] and b"make" not in path.read_bytes()
    assert json.loads(sources_file(path).read_text(encoding="utf-8")) == kept


def test_a_provenance_that_is_gone_is_damage_and_a_file_that_cannot_be_read_is_an_error(tmp_path):
    path, row = tmp_path / "rows.jsonl", {"i": 0, "provenance": {"command": "make"}}
    Rows(path).append(row)
    whole, line = sources_file(path).read_bytes(), path.read_bytes()
    sources_file(path).write_text("{}", encoding="utf-8")
    (damage,) = Rows(path).read().damage
    name = json.loads(line)["provenance"]
    assert f"line 1 has the provenance '{name}', which rows.provenance.json does not hold: delete" in damage
    for content in (b"", b"[]", b'{"a": 1}', whole[:-4], b"\xff"):
        sources_file(path).write_bytes(content)
        for call in (Rows(path).read, lambda: Rows(path).append(row | {"i": 1}), lambda: Rows(path).rewrite(dict)):
            with pytest.raises(ResultsError, match=r"rows\.provenance\.json cannot be read .*: restore it"):
                call()
        assert path.read_bytes() == line
    sources_file(path).write_bytes(whole)
    assert Rows(path).read() == ([row], {}, [], False)


def test_bits_are_kept_beside_the_rows_and_a_damaged_file_is_named(tmp_path):
    path, rng = tmp_path / "rows.jsonl", np.random.default_rng(0)
    packed = {
        f'[1, {{"lr": {i}}}, 0]': bits.pack_bits(rng.random(count) < 0.8) for i, count in enumerate((200, 7, 200))
    }
    assert bits.load(path) == {}
    bits.save(path, packed)
    assert bits.load(path) == packed and os.listdir(tmp_path) == ["rows.correct.npz"]
    whole = bits.file(path).read_bytes()
    for damaged in (whole[:-40], b"", b"{}", whole[:60] + b"xx" + whole[62:]):
        bits.file(path).write_bytes(damaged)
        with pytest.raises(ResultsError, match=r"rows\.correct\.npz cannot be read .*: restore it"):
            bits.load(path)


def test_a_row_that_json_cannot_hold_leaves_the_file_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    Rows(path).append({"i": 0})
    for row in ({"i": math.nan}, {"i": np.float32(1)}):
        with pytest.raises((ValueError, TypeError)):
            Rows(path).append(row)
    assert path.read_bytes() == b'{"i":0}\n'


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 10_000])
def test_bits_come_back(count):
    right = np.random.default_rng(count).random(count) < 0.8
    text = bits.pack_bits(right)
    again = bits.unpack_bits(text)
    assert again.dtype == bool and np.array_equal(again, right)
    assert len(text) <= count / 6 + 16


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 2), bool), [0, 1]])
def test_only_vectors_of_booleans_are_packed(wrong):
    with pytest.raises(ValueError, match="bits must be a vector of booleans"):
        bits.pack_bits(wrong)


@pytest.mark.parametrize("text", ["", "8", "9:/w==", "8:/w=", "x:/w==", "8:/w==!", None, 3, "-1:"])
def test_a_text_that_is_no_bits_is_refused(text):
    with pytest.raises(ValueError, match="text must be what pack_bits returns"):
        bits.unpack_bits(text)


def test_reading_needs_no_numpy():
    """Workers set their number of threads before NumPy is imported."""
    code = "import sys, bnbook.experiments.engine.rows as r; r.Rows('nowhere').read()"
    code += "; print({'numpy', 'torch'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
        == "set()\n"
    )
