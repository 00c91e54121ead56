"""Training by several processes: real ones, started by torchrun, that talk over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnbook.train import checkpoint
from tests.train.training import ROOT, TINY, equal, few_images_are_scored, run  # noqa: F401

pytestmark = pytest.mark.long(seconds=30)

TOLERANCE = 1e-5  # of float32 weights after some updates: the gradient is the same sum in another order

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

# The command, several times by the same two processes (starting them takes longer than all of it), each with the exit
# status that it should have. Where that is 130, Ctrl-C reaches the second process alone.
SCRIPT = """
import os, shlex, signal, sys
from bnbook.train import update
from bnbook.train.__main__ import main

made, run = [], update.Update._run

def interrupted(self, batch):
    made.append(batch)
    if len(made) == 13 and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGINT)
    run(self, batch)

for line in sys.argv[1:]:
    expected, _, arguments = line.format(rank=os.environ["RANK"]).partition(" ")
    update.Update._run = interrupted if expected == "130" else run
    if (status := main(shlex.split(arguments))) != int(expected):
        sys.exit(f"{line} has the status {status}")
"""
DROPOUT = f"{TINY} --model mlp_dropout --train-images 480 --epochs 3"


def distance(a: Path, b: Path) -> float:
    """The largest difference of the weights (not the statistics) in two checkpoints."""
    one, other = (checkpoint.load(folder)["model"] for folder in (a, b))
    names = [name for name in one if name.endswith(("weight", "bias"))]
    assert one.keys() == other.keys() and len(names) >= 6
    return max((one[name] - other[name]).abs().max().item() for name in names)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """Runs of two processes: with and without batch normalization, left alone, and interrupted and resumed."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "script.py"]
    commands = (
        f"0 {TINY} --norm none --checkpoint none --out none.json",
        f"0 {TINY} --norm batch --checkpoint batch",
        f"0 {DROPOUT} --checkpoint whole",
        f"130 {DROPOUT} --checkpoint stopped",
        f"0 {DROPOUT} --checkpoint stopped --resume",
        f"0 {TINY} --checkpoint apart{{rank}}",
        f"1 {TINY} --checkpoint apart{{rank}} --resume",
    )
    done = subprocess.run(
        [*start, *commands], cwd=folder, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("test accuracy") == 5 and done.stderr.count("train: stopped") == 1  # the first one shows
    assert done.stderr.count("is not the same for all processes: name a folder that they share") == 2
    return folder


def test_two_processes_are_one_without_batch_normalization(both, tmp_path, capsys):
    assert run(f"{TINY} --norm none --checkpoint {tmp_path / 'none'} --out {tmp_path / 'none.json'}", capsys)[0] == 0
    assert distance(both / "none", tmp_path / "none") < TOLERANCE
    two, one = (json.loads((folder / "none.json").read_text(encoding="utf-8")) for folder in (both, tmp_path))
    assert (two["processes"], one["processes"]) == (2, 1)
    assert two["provenance"]["command"].startswith("torchrun --nproc_per_node 2 -m bnbook.train")
    for a, b in zip(two["history"], one["history"], strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)  # over the images of both
        assert a["train_accuracy"] == pytest.approx(b["train_accuracy"], abs=0.01)


def test_two_processes_are_not_one_with_batch_normalization(both, tmp_path, capsys):
    """Each normalizes its half of the batch by the statistics of that half."""
    assert run(f"{TINY} --norm batch --checkpoint {tmp_path / 'batch'}", capsys)[0] == 0
    assert distance(both / "batch", tmp_path / "batch") > 1000 * TOLERANCE


def test_two_processes_go_on_where_one_of_them_was_interrupted(both):
    """They stop together; and each has random numbers of its own, which go on."""
    whole, stopped = (checkpoint.load(both / name) for name in ("whole", "stopped"))
    assert equal(stopped["model"], whole["model"])
    assert [row["train_loss"] for row in stopped["history"]] == [row["train_loss"] for row in whole["history"]]
    assert stopped["processes"] == 2 and not torch.equal(*stopped["random"]["cpu"])


def test_one_process_does_not_resume_a_run_of_two(both, capsys):
    status, _, error = run(f"{TINY} --norm none --checkpoint {both / 'none'} --resume", capsys)
    assert status == 1 and "(number of processes: 2 and 1 now)" in error
