"""When all planned runs are there: the bits of right answers that comparisons read are kept, all others dropped."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnbook import experiments
from bnbook.experiments import __main__ as command
from bnbook.experiments import claims
from bnbook.experiments.engine import bits, completion, experiment
from bnbook.experiments.engine.rows import ResultsError

EXAMPLES = Path(__file__).parent / "example_experiments"


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(EXAMPLES)])
    monkeypatch.setenv("BNBOOK_EXPERIMENTS", str(EXAMPLES))
    for name in [name for name in os.environ if name.startswith("TINY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def whole(tmp_path, monkeypatch) -> list[dict]:
    """All planned rows of the example, each with its bits."""
    with monkeypatch.context() as patch:
        patch.setattr("bnbook.experiments.engine.runs.keep_chosen_bits", lambda *_: False)
        assert experiments.run("tiny", results=tmp_path, progress=False) == []
    return experiments.load("tiny", tmp_path)


def over_images(rows: list[dict]) -> tuple[float, float]:
    (comparison,) = experiments.find("tiny").comparisons(rows)
    return comparison.over_images()


def without_bits(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "correct"} for row in rows]


def kept(rows: list[dict]) -> set[str]:
    return {experiment.row_key(row) for row in rows if row["correct"]}


def test_the_chosen_rows_keep_their_bits_and_the_verdict_is_the_same(whole, tmp_path):
    before = experiments.judge(whole), over_images(whole), (tmp_path / "tiny.jsonl").stat().st_size
    assert completion.keep_chosen_bits("tiny", tmp_path)
    rows = experiments.load("tiny", tmp_path)
    chosen = completion.chosen_rows("tiny", whole)
    assert kept(rows) == chosen and len(chosen) == 6  # two settings, three seeds
    assert all(row["correct"] == old["correct"] for row, old in zip(rows, whole, strict=True) if row["correct"])
    assert without_bits(rows) == without_bits(whole)
    assert (experiments.judge(rows), over_images(rows)) == before[:2]
    assert (tmp_path / "tiny.jsonl").stat().st_size < before[2] and b":" in (tmp_path / "tiny.jsonl").read_bytes()
    assert set(np.load(tmp_path / "tiny.correct.npz", allow_pickle=False)["keys"].tolist()) == chosen


def test_the_rows_of_every_claim_on_them_are_chosen(whole, tmp_path, monkeypatch):
    """A second claim reads another rate than the best one."""
    other = importlib.import_module("bnbook.experiments.claims.tiny_rate")

    def comparisons(rows):
        arms = (experiments.select(rows, norm=norm, lr=0.01) for norm in ("batch", "none"))
        return [experiments.compare("at the lowest rate", *arms)]

    monkeypatch.setattr(other, "comparisons", comparisons)
    completion.keep_chosen_bits("tiny", tmp_path)
    rows = experiments.load("tiny", tmp_path)
    (first,), (second,) = comparisons(rows), comparisons(whole)
    assert first.over_images() == second.over_images() and over_images(rows) == over_images(whole)


def test_a_second_time_there_is_nothing_to_do(whole, tmp_path):
    assert completion.keep_chosen_bits("tiny", tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert not completion.keep_chosen_bits("tiny", tmp_path)
    assert experiments.run("tiny", results=tmp_path, progress=False) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_the_command_does_it_when_the_last_planned_run_is_made(tmp_path, monkeypatch):
    folder = ["--results", str(tmp_path)]
    assert command.main(["run", "tiny", "--seeds", "2", *folder]) == 0
    assert len(kept(experiments.load("tiny", tmp_path))) == 12  # a third seed is planned
    assert command.main(["run", "tiny", *folder]) == 0
    assert len(kept(experiments.load("tiny", tmp_path))) == 6
    assert command.main(["run", "tiny", "--seeds", "4", *folder]) == 0  # one more than planned
    rows = experiment.inventory(experiment.find("tiny"), tmp_path / "tiny.jsonl").rows
    assert len(rows) == 24 and over_images(rows) and len(kept(rows)) == 6 + 6  # of the planned seeds two arms


KILLED = """
import os, signal, sys
from pathlib import Path
from bnbook.experiments.engine import completion, rows

replacements, replace = int(sys.argv[2]), os.replace
def dying(source, target):
    global replacements
    if replacements == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replacements -= 1
    replace(source, target)
    if replacements == 0 and sys.argv[3] == "after":
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
completion.keep_chosen_bits("tiny", Path(sys.argv[1]))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "replaced, when, files",
    [
        (0, "before", {"tiny.jsonl", "tiny.correct.npz.partial"}),
        (1, "after", {"tiny.jsonl", "tiny.correct.npz"}),
        (1, "before", {"tiny.jsonl", "tiny.correct.npz", "tiny.jsonl.partial"}),
        (2, "after", {"tiny.jsonl", "tiny.correct.npz"}),
    ],
)
def test_a_kill_between_the_steps_loses_nothing(whole, tmp_path, replaced, when, files):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(replaced), when], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == files | {"tiny.provenance.json"}
    rows = experiments.load("tiny", tmp_path)
    assert without_bits(rows) == without_bits(whole) and over_images(rows) == over_images(whole)
    if replaced < 2:
        assert rows == whole
    assert experiments.run("tiny", results=tmp_path, progress=False) == []  # the next command does what is left
    assert {path.name for path in tmp_path.iterdir()} >= {"tiny.jsonl", "tiny.correct.npz"}
    rows = experiments.load("tiny", tmp_path)
    assert len(kept(rows)) == 6 and over_images(rows) == over_images(whole)


def test_bits_that_were_dropped_are_made_again_by_the_command_that_the_message_names(whole, tmp_path):
    completion.keep_chosen_bits("tiny", tmp_path)
    rows = experiments.load("tiny", tmp_path)
    left_out = next(row for row in rows if not row["correct"])
    arms = [experiments.select(found, **left_out["setting"])[:1] for found in (rows, whole)]
    dropped = experiments.compare("dropped", arms[0], arms[0])
    assert dropped.difference.mean == 0  # all else is there
    with pytest.raises(experiments.Incomplete, match="dropped: which images were right is kept only for") as error:
        dropped.over_images()
    words = shlex.split(str(error.value).rpartition(": ")[2])
    assert words[:5] == ["python", "-m", "bnbook.experiments", "run", "tiny"] and words[-1] == "elsewhere"
    subprocess.run([sys.executable, *words[1:]], check=True, cwd=tmp_path, capture_output=True, timeout=120)
    (again,) = experiments.load("tiny", tmp_path / "elsewhere")
    assert experiment.row_key(again) == experiment.row_key(left_out)
    assert again["correct"] == next(
        row["correct"] for row in whole if experiment.row_key(row) == experiment.row_key(left_out)
    )


def test_bits_of_another_row_are_refused(whole, tmp_path):
    completion.keep_chosen_bits("tiny", tmp_path)
    packed = bits.load(tmp_path / "tiny.jsonl")
    bits.save(tmp_path / "tiny.jsonl", packed | {next(iter(packed)): bits.pack_bits(np.zeros(200, bool))})
    with pytest.raises(ResultsError, match=r"tiny\.correct\.npz: the row .* of its images are correct: restore"):
        experiments.load("tiny", tmp_path)


def test_while_an_experiment_is_broken_all_bits_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        importlib.import_module("bnbook.experiments.claims.tiny_rate"), "comparisons", lambda rows: 1 / 0
    )
    assert experiments.run("tiny", results=tmp_path, progress=False) == []
    assert "tiny: the rows keep which images were right, because an experiment is broken" in capsys.readouterr().err
    assert len(kept(experiments.load("tiny", tmp_path))) == 18


@pytest.mark.parametrize("name", [n for n in experiments.names() if experiments.find(n).rows_of == n])
def test_the_committed_rows_keep_no_bits_but_those_that_are_read(name):
    """And all of these: every comparison has its interval over the images. While runs are missing, all keep theirs.

    So do those of a pilot that goes on.
    """
    study = experiment.find(name)
    found = experiment.inventory(study, study.file(), ()).rows
    rows = experiment.of_planned_seeds(study, found)
    if not rows or "correct" not in rows[0]:
        return
    kept = {experiment.row_key(row) for row in rows if row["correct"]}
    if experiment.inventory(study, study.file()).missing or (study.confirm and not study.plan(study.file())):
        assert kept == {experiment.row_key(row) for row in rows}
        return
    assert kept == completion.chosen_rows(name, rows)
    in_rows = experiments.find(name).file().read_text(encoding="utf-8").count('"correct":"')
    assert in_rows == sum(bool(row["correct"]) for row in found) - len(kept)


def test_a_damaged_file_of_bits_is_named_whatever_is_damaged(tmp_path):
    """One byte after another: of the archive's names and headers as well as of what is packed."""
    path = tmp_path / "tiny.jsonl"
    bits.save(path, {f"key {i}": bits.pack_bits(np.arange(40) % (i + 2) == 0) for i in range(3)})
    whole = bits.file(path).read_bytes()
    named = 0
    for place in range(0, len(whole), 3):
        bits.file(path).write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            bits.load(path)  # some bytes say nothing
        except ResultsError as error:
            named += "tiny.correct.npz cannot be read" in str(error)
    assert named > len(whole) // 6
