"""Killing `python -m bnbook.train`: real processes, SIGKILL, and weights that are the same bit for bit in the end."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnbook import data
from bnbook.train import CheckpointError, checkpoint
from bnbook.train import __main__ as command
from tests.train.training import equal

pytestmark = pytest.mark.long(seconds=40)

# Dropout draws random numbers, Adam counts steps, batch normalization has statistics: all of it is in a checkpoint.
RUN = (
    "--model mlp_dropout --optimizer adam --lr 0.001 --epochs 3 --train-images 800 --batch-size 16 --threads 1".split()
)
OFTEN = ["--checkpoint-every", "0.03"]
IMAGES = "images.npz"  # of the tests' folder: unpacking all images would take longer than the training
KILLS = 20

# Children are forked from a server that has imported everything: they start at once, as fresh processes all the same.
fresh = multiprocessing.get_context("forkserver")
fresh.set_forkserver_preload(["bnbook.train.__main__", "torch._dynamo"])  # the second is what optimizers import


def work(folder: Path, prepare: Callable[[], None] | None) -> None:
    """What a child does: the command, as it is typed."""
    sys.stdout = sys.stderr = io.StringIO()
    with np.load(folder.parent / IMAGES) as arrays:
        few = {split: (arrays[split], arrays[split + "_labels"]) for split in data.SPLITS}
    data.load = lambda split, subset: few[split]
    if prepare:
        prepare()
    os._exit(command.main([*RUN, "--device", "cpu", "--checkpoint", str(folder), "--resume", *OFTEN]))


def start(folder: Path, prepare: Callable[[], None] | None = None) -> multiprocessing.Process:
    process = fresh.Process(target=work, args=(folder, prepare))
    process.start()
    return process


def finish(process: multiprocessing.Process) -> int:
    process.join(600)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def ends_as(folder: Path, whole: dict) -> bool:
    """Whether the last checkpoint of a folder has the weights, statistics and history of an uninterrupted run."""
    state = checkpoint.load(folder)
    without_times = [[{**row, "seconds": None} for row in made["history"]] for made in (state, whole)]
    return equal(state["model"], whole["model"]) and without_times[0] == without_times[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """The images of all runs, in a file."""
    arrays = {}
    for split in data.SPLITS:
        arrays[split], arrays[split + "_labels"] = (array[:800] for array in data.load(split))
    path = tmp_path_factory.mktemp("images") / IMAGES
    np.savez(path, **arrays)
    return path


@pytest.fixture
def runs(tmp_path, images) -> Path:
    """A folder for the folders of runs."""
    (tmp_path / IMAGES).symlink_to(images)
    return tmp_path


@pytest.fixture(scope="module")
def whole(images) -> tuple[dict, float]:
    """The last checkpoint of a run that was left alone, and how many seconds it took."""
    for name in ("first", "second"):  # the first one starts the server
        folder = images.parent / name
        began = time.monotonic()
        assert finish(start(folder)) == 0
        seconds = time.monotonic() - began
    return checkpoint.load(folder), seconds


def test_killed_at_random_moments_it_ends_with_the_same_weights(whole, runs):
    """Every run is killed again and again, at any moment from its start on, until it has come to its end.

    How fast the machine is may change in between: kills come later where runs get no further, and go on until they came
    at five places, also within epochs.
    """
    expected, seconds = whole
    random = np.random.default_rng(0)
    kills, ends, places = 0, 0, set()
    folder = runs / "0"
    enough = False
    while not enough or ends < 2:
        process = start(folder)
        if not enough:
            process.join(random.uniform(0, seconds))
            process.kill()
        code = finish(process)
        if code == 0:
            assert ends_as(folder, expected)
            ends, seconds = ends + 1, whole[1]
            folder = runs / str(ends)
            continue
        assert code == -signal.SIGKILL
        kills += 1
        state = checkpoint.load(folder)  # whole, or not there yet
        place = (state["epoch"], state["batch"]) if state else None
        if place in places:
            seconds *= 1.2
        places.add(place)
        enough = kills >= KILLS and len(places) >= 5 and any(place and place[1] for place in places)
        assert enough or kills < 10 * KILLS, f"it gets no further than {places}"


class Dies:
    """The process dies at a call of a function of `os` by which checkpoints are written."""

    def __init__(self, call: int, name: str) -> None:
        self.call, self.name = call, name

    def __call__(self) -> None:
        function, calls = getattr(os, self.name), []

        def dying(*arguments):
            calls.append(arguments)
            if len(calls) == self.call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        setattr(os, self.name, dying)


@pytest.mark.parametrize(
    "call, name, kept",
    [
        (1, "replace", None),  # the first checkpoint is written, and has not got its name
        (1, "fsync", None),
        (4, "replace", "before"),
        (7, "fsync", "before"),  # two to a checkpoint: the file, and after the renaming the folder
        (8, "fsync", "after"),
    ],
)
def test_killed_between_writing_and_renaming(call, name, kept, whole, runs):
    folder = runs / "run"
    assert finish(start(folder, Dies(call, name))) == -signal.SIGKILL
    state = checkpoint.load(folder)
    assert (state is None) == (kept is None)
    partial = folder / "checkpoint.pt.partial"
    assert partial.exists() == (kept != "after")
    assert finish(start(folder)) == 0
    assert ends_as(folder, whole[0]) and not partial.exists()


def in_place() -> None:
    """A mistake: the checkpoint is written into the file that holds the last one, and the process dies half-way."""
    writes = []

    def write(path: Path, content: bytes) -> None:
        writes.append(path)
        half = len(content) if len(writes) < 4 else len(content) // 2
        path.write_bytes(content[:half])
        if half < len(content):
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.write_atomically = write


def test_the_kills_would_notice_a_file_that_is_not_replaced_at_once(whole, runs):
    folder = runs / "run"
    assert finish(start(folder, in_place)) == -signal.SIGKILL
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        checkpoint.load(folder)
    assert finish(start(folder)) == 1
