"""An experiment that reads the rows of another: a second claim on the same runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnbook import experiments
from bnbook.experiments import __main__ as command
from bnbook.experiments import claims
from bnbook.experiments.engine import experiment

EXAMPLES = Path(__file__).parent / "example_experiments"


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(EXAMPLES)])
    for name in [name for name in os.environ if name.startswith("TINY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def rows(tmp_path):
    assert experiments.run("tiny", results=tmp_path, progress=False) == []
    return experiments.load("tiny", tmp_path)


def test_it_takes_from_there_what_belongs_to_the_rows_and_keeps_its_own():
    claim, source = experiment.find("tiny_rate"), experiment.find("tiny")
    for word in ("version", "seeds", "chance", "dataset", "network", "steps", "grid", "run"):
        assert getattr(claim, word) is getattr(source, word)
    assert (claim.metric, claim.delta) == ("best_rate", 0.5) and source.metric == "test_accuracy"
    assert (claim.name, claim.rows_of, source.rows_of) == ("tiny_rate", "tiny", "tiny")


def test_it_has_the_rows_of_the_other_and_a_verdict_of_its_own(rows, tmp_path):
    assert experiments.load("tiny_rate", tmp_path) == rows
    own, other = experiments.judge(rows, "tiny_rate"), experiments.judge(rows)
    assert "best rate of 'with BN'" in own.sentence and "test accuracy of 'with BN'" in other.sentence
    assert own.outcomes.keys() == {"by seed"}
    assert experiments.judge(rows[:-1], "tiny_rate").sentence == "Open: 1 of the 18 planned runs are missing."


def test_rows_of_a_third_experiment_are_refused(rows):
    with pytest.raises(ValueError, match="rows must be those of 'learning_rate' for 'faster', got rows of 'tiny'"):
        experiments.judge(rows, "faster")


def test_it_has_no_runs_of_its_own(rows, tmp_path, capsys):
    with pytest.raises(ValueError, match="tiny_rate has no runs of its own, it reads those of tiny: run tiny"):
        experiments.run("tiny_rate", results=tmp_path)
    assert command.main(["show", "tiny_rate", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert experiment.find("tiny_rate").question in shown and "test_accuracy" in shown  # the table is that of the rows
    assert experiments.judge(rows, "tiny_rate").sentence in shown
    pytest.importorskip("torch", reason="torch is not installed, and the claims, which are listed too, need it")
    assert command.main(["status", "--results", str(tmp_path)]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "tiny" in listed and "tiny_rate" not in listed
    assert command.main(["show", "tiny_rate", "--results", str(tmp_path / "empty")]) == 1
    assert "python -m bnbook.experiments run tiny\n" in capsys.readouterr().err
