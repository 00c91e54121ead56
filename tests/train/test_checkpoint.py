"""Checkpoints of `bnbook.train`: what a resumed run is compared with, and what is refused."""

from __future__ import annotations

import functools
import io
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bnbook.models.torch_cnn import cnn
from bnbook.train import CheckpointError, Result, batches, checkpoint, loop, update
from tests.train.training import SMALL, TINY, equal, few_images_are_scored, quiet, run, scores, tensors  # noqa: F401

# --- checkpoints ------------------------------------------------------------------------------------------------------

RUNS = {
    "dropout": replace(SMALL, model="mlp_dropout", evaluations=2),
    "adam": replace(SMALL, model="mlp_dropout", optimizer="adam", lr=1e-3, schedule="constant"),
    "cnn": replace(SMALL, model="cnn", train_images=160),
    "dataloader": replace(SMALL, loader="dataloader", workers=0, model="mlp_dropout"),
    "bfloat16": replace(SMALL, precision="bfloat16"),
}


@functools.cache
def uninterrupted(name: str) -> Result:
    return quiet(RUNS[name])


class Killed(Exception):
    """Ends a run at once, wherever it is."""


def end_after(monkeypatch, updates: int) -> None:
    """The process dies at the beginning of the update after so many."""
    run, made = update.Update._run, []

    def dying(self, batch):
        if len(made) == updates:
            raise Killed
        made.append(batch)
        run(self, batch)

    monkeypatch.setattr(update.Update, "_run", dying)


def interrupted(name: str, folder: Path, at: list[int], monkeypatch) -> Result:
    """A run that was killed after so many updates, again and again, and resumed."""
    for updates in at:
        with monkeypatch.context() as patch:
            end_after(patch, updates)
            with pytest.raises(Killed):
                quiet(RUNS[name], checkpoint=folder, checkpoint_every=0, resume=True)
    return quiet(RUNS[name], checkpoint=folder, resume=True)


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(name, tmp_path, monkeypatch):
    """Within an epoch, at an evaluation, at the end of an epoch, and again right after."""
    whole = uninterrupted(name)
    half = whole.steps // 2
    result = interrupted(name, tmp_path, [2, half - 2, 1, half - 3], monkeypatch)
    assert equal(tensors(result), tensors(whole))
    assert scores(result) == scores(whole) and result.final == whole.final


def test_a_run_that_diverges_ends_with_its_epoch_also_when_it_was_killed_in_between(tmp_path, monkeypatch):
    monkeypatch.setitem(RUNS, "diverging", replace(SMALL, norm="none", lr=1e10, epochs=4, evaluations=2))
    whole = quiet(RUNS["diverging"])
    result = interrupted("diverging", tmp_path, [7], monkeypatch)  # after the first evaluation, which noticed it
    assert whole.diverged and result.diverged and result.steps == whole.steps == 10
    assert str(scores(result)) == str(scores(whole))  # NaN is not equal to NaN


def _forget(name: str):
    """A mistake in what is restored: name → what is done after a restore that is right."""
    return {
        "the state of the optimizer": lambda run, state: run.optimizer.state.clear(),
        "the random numbers": lambda run, state: torch.manual_seed(0),
        "the running statistics": lambda run, state: [
            layer.reset_running_stats() for layer in run.model.modules() if hasattr(layer, "running_mean")
        ],
        "the sums of loss and right answers": lambda run, state: run.update.clear(),
        "the number of images in them": lambda run, state: setattr(run, "images", 0),
        "the place in the epoch": lambda run, state: setattr(run, "batch", 0),
        "the epoch": lambda run, state: setattr(run, "epoch", 0),
        "the history": lambda run, state: run.history.clear(),
        "the weights": lambda run, state: run.model.load_state_dict(run.settings.network().state_dict()),
    }[name]


@pytest.mark.parametrize(
    "what",
    "the state of the optimizer|the random numbers|the running statistics|the sums of loss and right answers"
    "|the number of images in them|the place in the epoch|the epoch|the history|the weights".split("|"),
)
def test_the_comparison_notices_what_is_not_restored(what, tmp_path, monkeypatch):
    whole, restore = uninterrupted("dropout"), loop.Run.restore

    def forgetful(self, state):
        restore(self, state)
        _forget(what)(self, state)

    monkeypatch.setattr(loop.Run, "restore", forgetful)
    result = interrupted("dropout", tmp_path, [13], monkeypatch)  # in the second epoch, between two evaluations
    assert not equal(tensors(result), tensors(whole)) or scores(result) != scores(whole)


def test_the_order_of_the_images_is_part_of_the_comparison(tmp_path, monkeypatch):
    whole = uninterrupted("dropout")
    stream = np.random.default_rng(0)  # one that begins anew in every process
    monkeypatch.setattr(
        batches,
        "order",
        lambda n, size, seed, epoch: torch.from_numpy(stream.permutation(n)[: n - n % size].reshape(-1, size)),
    )
    assert not equal(tensors(interrupted("dropout", tmp_path, [5], monkeypatch)), tensors(whole))


def test_a_finished_run_is_not_run_again(tmp_path, monkeypatch):
    first = quiet(checkpoint=tmp_path)
    end_after(monkeypatch, 0)
    again = quiet(checkpoint=tmp_path, resume=True)
    assert equal(tensors(first), tensors(again)) and again.final == first.final
    assert again.history == first.history and again.seconds["training"] >= first.history[-1]["seconds"]


def test_a_checkpoint_is_written_every_so_many_seconds(tmp_path, monkeypatch):
    written = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda folder, state: (written.append(state["batch"]), save(folder, state)))
    quiet(checkpoint=tmp_path / "a", checkpoint_every=1e6)
    assert written == [0, 0]  # after every epoch
    now = [0.0]
    run = update.Update._run
    monkeypatch.setattr(
        update.Update, "_run", lambda self, batch: (now.__setitem__(0, now[0] + 10), run(self, batch))[1]
    )
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    written.clear()
    quiet(checkpoint=tmp_path / "b", checkpoint_every=30)
    assert written == [3, 6, 9, 0, 2, 5, 8, 0]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what a file is called is asked of Linux")
def test_the_file_is_replaced_only_when_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path, events = tmp_path / "file", []
    fsync, replace_file = os.fsync, os.replace

    def synced(number):
        events.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    def replaced(source, target):
        assert Path(source).read_bytes() == b"new" and events == [str(source)]  # whole, and on the disk
        assert path.read_bytes() == b"old"
        events.append("replaced")
        replace_file(source, target)

    checkpoint.write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and events[1:] == ["replaced", str(tmp_path)]
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    quiet(checkpoint=tmp_path)
    before = (tmp_path / checkpoint.NAME).read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"checkpoint\.pt could not be written \(No space left on device\)"):
            checkpoint.save(tmp_path, {"epoch": 9})
    assert (tmp_path / checkpoint.NAME).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [checkpoint.NAME, "lock"]


def test_a_limit_of_file_sizes_names_the_file_and_leaves_the_last_checkpoint(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / checkpoint.NAME).write_bytes(b"last")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint\.pt could not be written \(File too large\)"):
            checkpoint.save(tmp_path, {"weights": np.zeros(1000).tolist()})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / checkpoint.NAME).read_bytes() == b"last" and os.listdir(tmp_path) == [checkpoint.NAME]


def test_a_checkpoint_needs_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="checkpoint must name a folder, got ''"):
        quiet(checkpoint="")
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    """The bytes of a checkpoint."""
    folder = tmp_path_factory.mktemp("sound")
    quiet(replace(SMALL, epochs=1), checkpoint=folder)
    return (folder / checkpoint.NAME).read_bytes()


class Evil:
    """A pickle that makes a folder where it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def parts(sound: bytes) -> dict:
    return torch.load(io.BytesIO(sound), weights_only=True)


BROKEN = {
    "empty": (lambda sound, folder: b"", "damaged or cut short"),
    "truncated": (lambda sound, folder: sound[: len(sound) // 2], "damaged or cut short"),
    "without its last byte": (lambda sound, folder: sound[:-1], "damaged or cut short"),
    "random": (lambda sound, folder: np.random.default_rng(0).bytes(len(sound)), "damaged or cut short"),
    "one bit of a weight": (lambda sound, folder: _flipped(sound), "is damaged (the checksum of"),
    "a pickle with code": (lambda sound, folder: pickle.dumps(Evil(folder / "evil")), "damaged or cut short"),
    "an archive with code": (
        lambda sound, folder: saved(parts(sound) | {"settings": Evil(folder / "evil")}),
        "holds something other than numbers and words, and is not loaded",
    ),
    "another archive": (lambda sound, folder: _zipped(), "is no checkpoint of bnbook.train"),
    "a list": (lambda sound, folder: saved([1, 2]), "is no checkpoint of bnbook.train"),
    "weights alone": (lambda sound, folder: saved(cnn("none").state_dict()), "is no checkpoint of bnbook.train"),
    "another format": (
        lambda sound, folder: saved(parts(sound) | {"format": 99}),
        f"has the format 99, this version reads {checkpoint.FORMAT}",
    ),
    "without history": (
        lambda sound, folder: saved({k: v for k, v in parts(sound).items() if k != "history"}),
        "has no history",
    ),
    "a setting of the future": (
        lambda sound, folder: saved(parts(sound) | {"settings": {**parts(sound)["settings"], "warmup": 3}}),
        "is of another version of bnbook",
    ),
    "sums of nothing": (lambda sound, folder: saved(parts(sound) | {"sums": []}), "does not fit the 'mlp'"),
    "random numbers of another generator": (
        lambda sound, folder: saved(parts(sound) | {"random": {"cpu": [torch.zeros(3, dtype=torch.uint8)]}}),
        "does not fit the 'mlp'",
    ),
    "a weight too few": (lambda sound, folder: saved(_without_a_weight(sound)), "does not fit the 'mlp'"),
}


def _flipped(sound: bytes) -> bytes:
    largest = max(zipfile.ZipFile(io.BytesIO(sound)).infolist(), key=lambda part: part.file_size)
    middle = largest.header_offset + largest.file_size // 2
    return sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return file.getvalue()


def _without_a_weight(sound: bytes) -> dict:
    state = parts(sound)
    del state["model"]["fc1.weight"]
    return state


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name(kind, sound, tmp_path, capsys):
    make, message = BROKEN[kind]
    path = tmp_path / checkpoint.NAME
    path.write_bytes(make(sound, tmp_path))
    before = path.read_bytes()
    status, out, error = run(f"{TINY} --epochs 1 --checkpoint {tmp_path} --resume", capsys)
    assert status == 1 and message in error and error.count("\n") == 1, error
    assert str(path) in error or "the checkpoint" in error
    assert path.read_bytes() == before and not (tmp_path / "evil").exists() and "accuracy" not in out


def test_a_byte_anywhere_is_noticed_or_does_not_matter(sound, tmp_path):
    """Between the parts of the archive there is padding that nothing reads."""
    path, noticed = tmp_path / checkpoint.NAME, 0
    expected = parts(sound)
    for position in np.random.default_rng(1).integers(0, len(sound), 60):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 0x40]) + sound[position + 1 :])
        try:
            state = checkpoint.load(tmp_path)
        except CheckpointError:
            noticed += 1
        else:
            assert equal(state["model"], expected["model"]) and state["history"] == expected["history"]
    assert noticed >= 50


def test_a_checkpoint_that_is_there_is_not_overwritten(tmp_path):
    quiet(checkpoint=tmp_path)
    before = (tmp_path / checkpoint.NAME).read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint.pt exists: resume it \(--resume\), or name another folder"):
        quiet(checkpoint=tmp_path)
    assert (tmp_path / checkpoint.NAME).read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "cnn"},
        {"norm": "none"},
        {"epochs": 3},
        {"batch_size": 16},
        {"lr": 0.2},
        {"schedule": "constant"},
        {"optimizer": "adam"},
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"precision": "bfloat16"},
        {"seed": 1},
        {"threads": 2},
        {"train_images": 256},
        {"evaluate": "test"},
        {"evaluations": 2},
        {"loader": "dataloader"},
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(changes, sound, tmp_path):
    (tmp_path / checkpoint.NAME).write_bytes(sound)
    name, value = next(iter(changes.items()))
    before = getattr(replace(SMALL, epochs=1).resolved(), name)
    with pytest.raises(CheckpointError, match=rf"other settings \({name}: {before!r} and {value!r} now\)"):
        quiet(replace(SMALL, **{"epochs": 1, **changes}), checkpoint=tmp_path, resume=True)


def test_a_run_of_other_processes_is_refused(sound, tmp_path):
    (tmp_path / checkpoint.NAME).write_bytes(saved(parts(sound) | {"processes": 2}))
    with pytest.raises(CheckpointError, match=r"other settings \(number of processes: 2 and 1 now\)"):
        quiet(replace(SMALL, epochs=1), checkpoint=tmp_path, resume=True)


def test_threads_that_are_not_given_are_those_of_the_checkpoint(tmp_path, monkeypatch):
    quiet(replace(SMALL, threads=torch.get_num_threads() + 1), checkpoint=tmp_path)
    result = quiet(replace(SMALL, threads=None), checkpoint=tmp_path, resume=True)
    assert result.settings.threads == torch.get_num_threads() + 1


@pytest.mark.long
def test_a_folder_serves_one_run_at_a_time(tmp_path):
    code = (
        "import sys, pathlib; from bnbook.train.checkpoint import reserved\n"
        "with reserved(pathlib.Path(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    try:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(CheckpointError, match="is used by another run that has not ended"):
            quiet(checkpoint=tmp_path)
    finally:
        other.kill()
        other.communicate()
    quiet(replace(SMALL, epochs=1), checkpoint=tmp_path)  # it died, and the folder is free
