"""The ladder: what its rungs change, its runs, and what is recorded."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest

from bnbook import experiments
from bnbook.experiments.studies import ladder
from bnbook.train import Settings, report
from tests.train.training import few_images_are_scored  # noqa: F401

SIZE = {"epochs": ladder.EPOCHS, "images": ladder.IMAGES}


def test_each_rung_changes_what_it_says_and_nothing_else():
    made = {
        rung: ladder.settings({"device": "cuda", "rung": rung, "norm": "batch", **SIZE}, 1) for rung in ladder.RUNGS
    }
    assert (made["baseline"].loader, made["baseline"].batch_size, made["baseline"].workers) == ("dataloader", 64, 4)
    assert (made["baseline"].data, made["baseline"].evaluate, made["baseline"].seed) == ("full", "test", 1)
    changed = [
        {f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)}
        for a, b in itertools.pairwise(made.values())
    ]
    assert changed == [{"loader"}, {"capture"}, {"precision", "memory_format"}, {"compile"}, {"batch_size", "lr"}]


@pytest.fixture
def small(monkeypatch):
    """The small network and few images."""
    monkeypatch.setattr(ladder, "BASE", ladder.BASE | {"model": "mlp"})
    monkeypatch.setattr(ladder, "grid", lambda quick, grid=ladder.grid: [s | {"images": 640} for s in grid(quick)])


def test_the_runs_of_the_cpu_alone(tmp_path, small):
    only = {"device": "cpu"}
    assert experiments.run("ladder", results=tmp_path, quick=True, seeds=(0,), only=only, progress=False) == []
    rows = experiments.load("ladder", tmp_path, quick=True)
    assert [(row["setting"]["rung"], row["setting"]["norm"]) for row in rows] == [
        ("device", "batch"),
        ("device", "none"),
    ]
    for row in rows:
        assert report.problem(row | {"seconds": row["seconds_of"]}) is None
        assert len(row["history"]) == 4 and row["seconds_to"]["split"] == "test"
        assert row["settings"]["norm"] == row["setting"]["norm"] and row["device"]["type"] == "cpu"


def test_a_rung_that_fails_leaves_no_row_and_the_others_go_on(tmp_path, small, capsys, monkeypatch):
    def failing(wanted, train=ladder.train, **options):
        if wanted.device == "cuda":
            raise RuntimeError("CUDA error: an illegal memory access")
        return train(wanted, **options)

    monkeypatch.setattr(ladder, "train", failing)
    only = {"rung": "device"}
    failed = experiments.run("ladder", results=tmp_path, quick=True, seeds=(0,), only=only, progress=False)
    assert [setting["device"] for setting, _ in failed] == ["cuda", "cuda"]
    assert capsys.readouterr().err.count("\nRuntimeError: CUDA error: an illegal memory access") == 2
    assert {row["setting"]["device"] for row in experiments.load("ladder", tmp_path, quick=True)} == {"cpu"}


@pytest.mark.parametrize("device, runs", [("cuda", 60), ("cpu", 10)])
def test_the_committed_rows_are_those_of_the_grid(device, runs):
    rows = experiments.select(experiments.load("ladder"), device=device)
    assert len(rows) == runs and len({row["device"]["name"] for row in rows}) == 1
    for row in rows:
        made = Settings(**row["settings"])
        wanted = ladder.settings(row["setting"], row["seed"])
        open_ = {"threads", "evaluate"}
        assert {f.name for f in fields(made) if getattr(made, f.name) != getattr(wanted, f.name)} <= open_
        assert report.problem(row | {"seconds": row["seconds_of"]}) is None
