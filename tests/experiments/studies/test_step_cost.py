"""The command that times a step with batch normalization and without: what it writes, not how long it takes."""

from __future__ import annotations

import json
from functools import partial

import pytest

from bnbook.experiments.studies import step_cost
from bnbook.models.torch_mlp import mlp


@pytest.fixture(autouse=True)
def one_small_network(monkeypatch):
    network = (partial(mlp, widths=(8,)), True, 16)
    make = lambda norm: network[0](norm, in_features=196)  # noqa: E731
    monkeypatch.setattr(step_cost, "NETWORKS", {"small": (make, *network[1:])})


def test_the_arms_take_turns_in_going_first(monkeypatch):
    order = []

    def updates(model, *args, **kwargs):
        arm = "with BN" if hasattr(model, "bn1") else "without BN"
        while True:
            order.append(arm)
            yield 1, 0.0

    monkeypatch.setattr(step_cost, "updates", updates)
    seconds = step_cost.measure(step_cost.NETWORKS["small"][0], None, None, 16, rounds=3, count=2)
    assert {arm: len(values) for arm, values in seconds.items()} == {"with BN": 3, "without BN": 3}
    assert [order[i] for i in range(0, 16, 4)] == ["without BN", "with BN"] * 2  # who begins, warm-up first
    assert all(order[i] == order[i + 1] for i in range(0, 16, 2)) and len(order) == 16


def test_the_command_writes_times_and_where_they_come_from(tmp_path, capsys):
    path = tmp_path / "new" / "cost.json"
    assert step_cost.main(["--results", str(path), "--rounds", "3"]) == 0
    written = json.loads(path.read_text(encoding="utf-8"))
    times = written["seconds"]["small"]
    assert set(times) == {"with BN", "without BN"} and all(len(v) == 3 and min(v) > 0 for v in times.values())
    assert written["provenance"]["command"] == "python -m bnbook.experiments.studies.step_cost --rounds 3"
    assert {"processor", "date", "load", "torch", "commit"} <= written["provenance"].keys()
    assert capsys.readouterr().out.startswith("small: ") and list(path.parent.iterdir()) == [path]


def test_rounds_are_at_least_one(tmp_path, capsys):
    with pytest.raises(SystemExit):
        step_cost.main(["--results", str(tmp_path / "cost.json"), "--rounds", "0"])
    assert "--rounds must be at least 1, got 0" in capsys.readouterr().err and not list(tmp_path.iterdir())
