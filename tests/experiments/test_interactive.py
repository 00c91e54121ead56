"""The data of the live figures of Part III: they say what the rows say."""

from __future__ import annotations

import json

import pytest

from bnbook.experiments import interactive, scoreboard
from bnbook.experiments.engine.verdict import Verdict


def row(norm: str, lr: float, seed: int, accuracy: float | None, **more) -> dict:
    setting = {"optimizer": "SGD", "norm": norm, "lr": lr}
    return {"setting": setting, "seed": seed, "val_accuracy": accuracy, "diverged": accuracy is None, **more}


def test_the_table_of_rates_counts_what_diverged_as_guessing():
    rows = [row("none", 0.1, 0, 0.7), row("none", 0.1, 1, None), row("batch", 0.1, 0, 0.8)]
    rows.append(row("batch", 0.1, 100, 0.2, phase="confirm"))  # of fresh seeds, at chosen rates only
    setting = {"optimizer": "SGD", "lr": 0.1}
    assert interactive.rates(rows).data["rows"] == [
        {**setting, "norm": "none", "accuracy": 0.4, "low": 0.1, "high": 0.7, "failed": 1, "runs": 2},
        {**setting, "norm": "batch", "accuracy": 0.8, "low": 0.8, "high": 0.8, "failed": 0, "runs": 1},
    ]


@pytest.mark.parametrize("rows", [[], [{"setting": {"norm": "none"}}]])
def test_what_is_no_table_of_rates_is_refused(rows):
    with pytest.raises(ValueError, match=r"rows must .*(none|lr)"):
        interactive.rates(rows)


@pytest.fixture(scope="module")
def of_depth() -> tuple[scoreboard.Row, dict]:
    return scoreboard.row("depth"), interactive.bet("depth").data


def test_a_bet_is_on_the_verdict_of_the_rows(of_depth):
    of_board, data = of_depth
    assert of_board.word.startswith("depends") and data["verdict"] == "depends"
    assert data["verdict"] in dict(data["options"])
    assert of_board.experiment.folklore in data["question"]
    drawn = {condition["name"]: condition for condition in data["conditions"]}
    assert list(drawn) == list(of_board.judged.outcomes)
    for comparison in of_board.comparisons:
        for end in ("mean", "low", "high"):
            assert drawn[comparison.name][end] == pytest.approx(getattr(comparison.difference, end), rel=1e-3)
    assert "NaN" not in json.dumps(data)


def test_a_bet_can_be_on_one_condition(of_depth):
    found = {name: interactive.bet("depth", name).data for name in of_depth[0].judged.outcomes}
    assert [data["verdict"] for data in found.values()] == ["supported", "reversed", "supported", "supported"]
    for name, data in found.items():
        assert [condition["name"] for condition in data["conditions"]] == [name]
        assert name in data["question"] and "depends" not in dict(data["options"])
    assert len({data["id"] for data in found.values()}) == len(found)
    with pytest.raises(ValueError, match=r"plain network, He weights.*got 'a deep one'"):
        interactive.bet("depth", "a deep one")


def test_without_a_verdict_there_is_none_to_bet_on(tmp_path):
    assert interactive.bet("depth", results=tmp_path).data["verdict"] is None


@pytest.mark.parametrize(
    ("word", "outcomes", "option"),
    [
        ("contradicted", ["reversed", "reversed"], "reversed"),
        ("contradicted", ["negligible", "smaller than claimed"], "little"),
        ("smaller than claimed", ["smaller than claimed"], "little"),
        ("direction known, size open", ["supported", "direction known, size open"], "open"),
        ("depends on the optimizer", ["supported", "open"], "depends"),
    ],
)
def test_every_verdict_is_one_of_the_options(word, outcomes, option):
    assert interactive._option(Verdict(word, "", dict(enumerate(outcomes))), None) == option


def test_a_curve_is_a_bet_on_its_points():
    ends = {"low": 0, "high": 1, "xname": "layers", "yname": "gain"}
    data = interactive.curve_bet("by-depth", "By depth", "How much?", [5, 10], [0.12344, 1], **ends).data
    assert (data["x"], data["y"]) == ([5, 10], [0.1234, 1]) and data["title"] == "By depth"
    for wrong, message in (
        ({"id": "By depth"}, "id must"),
        ({"x": [5]}, "one length from 2 to 12, got 1 and 2"),
        ({"y": [0.5, 1.5]}, "between low = 0 and high = 1, got 1.5"),
        ({"y": [0.5, float("nan")]}, "got nan"),
        ({"low": 1}, "low must be below high"),
    ):
        arguments = {"id": "by-depth", "title": "", "question": "", "x": [5, 10], "y": [0.1, 1], **ends, **wrong}
        with pytest.raises(ValueError, match=message):
            interactive.curve_bet(**arguments)


def test_the_board_of_bets_has_no_data():
    assert interactive.bets()._repr_html_() == '<live-bets class="live"></live-bets>'
