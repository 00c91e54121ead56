"""Checkpoints: whole or not there, whatever happens while they are written; and never code."""

from __future__ import annotations

import fcntl
import io
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..provenance import unfinished, write_atomically

FORMAT = 1  # of what `save` writes; another one is refused
NAME = "checkpoint.pt"
KEYS = set("settings processes epoch batch model optimizer random sums images history seconds".split())


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, why, and what to do."""


def make_sure_of(folder: Path, name: str = NAME) -> None:
    """Make a folder where it is missing, and see that a file of this name can be written there; OSError where not."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(folder / name)
    left = temporary.exists()  # by a run that was killed, or is writing
    with open(temporary, "ab"):
        pass
    if not left:
        temporary.unlink(missing_ok=True)


@contextmanager
def reserved(folder: Path | None) -> Iterator[None]:
    """The folder, made where it is missing, for this process alone.

    Raises:
        CheckpointError: it cannot be written, or another run is using it.
    """
    if folder is None:
        yield
        return
    refused = f"{folder} cannot be used for checkpoints ({{}}): name a folder that can be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "wb")
    except OSError as error:
        raise CheckpointError(refused.format(error.strerror)) from None
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone when the process is, and not handed on to workers
        except OSError:
            raise CheckpointError(f"{folder} is used by another run that has not ended: name another folder") from None
        try:
            make_sure_of(folder)  # now that no other run is writing there
        except OSError as error:
            raise CheckpointError(refused.format(error.strerror)) from None
        yield


def save(folder: Path, state: dict) -> None:
    """Write the checkpoint of a folder: numbers, words, lists, dicts and tensors."""
    content = io.BytesIO()
    torch.save({"format": FORMAT} | state, content)
    write_atomically(folder / NAME, content.getvalue())


def load(folder: Path) -> dict | None:
    """The checkpoint of a folder, on the CPU; None where there is none.

    Raises:
        CheckpointError: the file is damaged, is something else, or of another format.
    """
    path = folder / NAME
    again = "delete it to begin anew, or restore it"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    try:
        # PyTorch's archive is a ZIP file with a checksum of every part, which PyTorch itself does not look at.
        damaged = zipfile.ZipFile(io.BytesIO(content)).testzip()
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or cut short ({first_line(error)}): {again}") from None
    if damaged:
        raise CheckpointError(f"{path} is damaged (the checksum of {damaged} is wrong): {again}")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path} holds something other than numbers and words, and is not loaded") from None
    except Exception as error:
        raise CheckpointError(f"{path} is no checkpoint of bnbook.train ({first_line(error)}): {again}") from None
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is no checkpoint of bnbook.train: {again}")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path} has the format {state['format']!r}, this version reads {FORMAT}: {again}")
    if missing := KEYS - state.keys():
        raise CheckpointError(f"{path} has no {', '.join(sorted(missing))}: {again}")
    return state


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
