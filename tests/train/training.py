"""What the tests of `bnbook.train` share: a small run, and how two runs are compared."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

import pytest
import torch

from bnbook import data
from bnbook.train import Result, Settings, train
from bnbook.train import __main__ as command

ROOT = Path(__file__).parents[2]
SMALL = Settings(model="mlp", train_images=320, batch_size=32, epochs=2, threads=1, device="cpu")
TINY = "--model mlp --train-images 320 --batch-size 32 --epochs 2 --threads 1 --device cpu"  # the same as a command

load_anew = data.load


@functools.cache
def load_few(split: str, subset: bool = True):
    """`data.load`, unpacked once, with 400 images to be scored."""
    count = None if split == "train" else 400
    return tuple(array[:count] for array in load_anew(split, subset))


@pytest.fixture(autouse=True)
def few_images_are_scored(monkeypatch):
    monkeypatch.setattr(data, "load", load_few)


def quiet(settings: Settings = SMALL, **options) -> Result:
    """Train without a word."""
    return train(settings, progress=False, **options)


def tensors(result: Result) -> dict[str, torch.Tensor]:
    """Weights and running statistics."""
    return result.model.state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scores(result: Result) -> list[tuple]:
    """The history without its times."""
    return [tuple(value for name, value in row.items() if name != "seconds") for row in result.history]


def run(arguments: str, capsys) -> tuple[int, str, str]:
    """The command in this process: (status, stdout, stderr)."""
    capsys.readouterr()
    try:
        status = command.main(shlex.split(arguments))
    except SystemExit as exit:
        status = exit.code
    return (status, *capsys.readouterr())
