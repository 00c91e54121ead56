"""The runs of chapter 8: their rows, and a results file that survives whatever happens to it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnbook import data
from bnbook.experiments.studies import numpy_cnn as t
from bnbook.models.numpy_cnn import cnn
from bnbook.probes import record

SMALL = {"epochs": 2, "batch_size": 20, "train_images": 60}


@pytest.fixture(scope="module")
def splits() -> dict:
    return {split: tuple(array[:60] for array in data.load(split)) for split in data.SPLITS}


@pytest.fixture(scope="module")
def row(splits) -> dict:
    return t.train(t.Run("with BN", 0.03, 0, **SMALL), splits)


def fake(run: t.Run, best: dict[str, float]) -> dict:
    """A row as `train` makes it, at once; validation accuracy falls with the distance from the best rate."""
    distance = abs(math.log10(run.lr / best[run.arm]))
    fields = {"version": t.VERSION, **vars(run), "steps": 6, "train_loss": [1.0], "diverged": False}
    return fields | {"val_accuracy": [0.9 - 0.1 * distance + 0.001 * run.seed], "test_accuracy": 0.8}


@pytest.fixture
def trained(monkeypatch) -> list[t.Run]:
    """Replace the training by `fake`; the list of what was trained."""
    calls: list[t.Run] = []

    def train(run, splits, after_step=None):
        calls.append(run)
        return fake(run, {"with BN": 0.03, "without BN": 0.1})

    monkeypatch.setattr(t, "train", train)
    return calls


def run_all(path: Path, splits, **settings) -> list[dict]:
    return t.run_all(
        path, splits=splits, progress=False, **({"rates": (0.01, 0.03, 0.1, 0.3), "seeds": (0, 1)} | settings)
    )


# --- one run ----------------------------------------------------------------------------------------------------------


def test_a_row_repeats_exactly_and_is_json(splits, row):
    again = t.train(t.Run("with BN", 0.03, 0, **SMALL), splits)
    assert again == row == json.loads(json.dumps(row, allow_nan=False))
    assert t.train(t.Run("with BN", 0.03, 1, **SMALL), splits)["train_loss"] != row["train_loss"]


def test_a_row_holds_what_the_chapter_draws(splits, row):
    assert set(t.FIELDS) - set(row) == {"provenance"}
    assert row["steps"] == 6 and len(row["train_loss"]) == len(row["val_accuracy"]) == 2
    assert row["train_loss"][1] < row["train_loss"][0]
    assert set(row["xray"]) == {"0", "3", "6"}  # there is no step 10 in six
    assert list(row["xray"]["0"]) == ["conv", "bn1", "relu1", "pool", "flatten", "fc1", "bn2", "relu2", "fc2"]
    assert row["xray"]["0"]["bn1"][0] == pytest.approx(1, abs=1e-3)
    assert np.array_equal(np.sum(row["confusion"], axis=1), np.bincount(splits["test"][1], minlength=10))  # row: truth
    assert np.trace(row["confusion"]) / 60 == pytest.approx(row["test_accuracy"])
    assert {name: len(v) for name, v in row["learned"].items()} == {
        "bn1.weight": 32,
        "bn1.bias": 32,
        "bn2.weight": 128,
        "bn2.bias": 128,
    }
    assert np.shape(row["filters"]["initial"]) == np.shape(row["filters"]["final"]) == (32, 9)


def test_both_arms_start_from_the_same_weights_and_see_the_same_batches(splits, monkeypatch):
    started, seen = [], []
    make, batches = t.cnn, data.batches

    def watched_cnn(batch_norm, rng):
        model = make(batch_norm, rng=rng)
        started.append(model.state_dict())
        seen.append([])
        return model

    def watched_batches(images, labels, size, **options):
        for x, target in batches(images, labels, size, **options):
            if "rng" in options:  # training, not evaluation
                seen[-1].append(x)
            yield x, target

    monkeypatch.setattr(t, "cnn", watched_cnn)
    monkeypatch.setattr(t.data, "batches", watched_batches)
    for arm in t.ARMS:
        row = t.train(t.Run(arm, 0.01, 1, **SMALL), splits)
        assert "xray" not in row  # only the detailed seed has it
    with_bn, without = started
    assert len(with_bn) > len(without)
    assert all(np.array_equal(with_bn[name], without[name]) for name in without)
    assert len(seen[0]) == 6 and np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0][0], seen[0][3])  # another order in the second epoch


def test_a_run_that_diverges_is_a_row(splits):
    row = t.train(t.Run("without BN", 1e4, 0, **SMALL), splits)
    assert row["diverged"] and row["train_loss"][-1] is None
    assert row["test_accuracy"] <= 0.3
    json.dumps(row, allow_nan=False)


def test_the_schedule_starts_at_the_rate_and_ends_at_zero():
    rates = [t.cosine(step, 40, 0.2) for step in range(41)]
    assert rates[0] == 0.2 and rates[20] == pytest.approx(0.1) and rates[40] == pytest.approx(0)
    assert np.all(np.diff(rates) < 0)


def test_evaluation_changes_nothing_and_counts_the_last_batch(splits):
    model = cnn(rng=0)
    before = model.state_dict()
    whole = t.predict(model, splits["val"][0], batch_size=60)
    assert np.allclose(t.predict(model, splits["val"][0], batch_size=25), whole, atol=1e-5)
    assert t.accuracy(model, *splits["val"]) == (whole.argmax(axis=1) == splits["val"][1]).mean()
    record(model, *(array[:16] for array in splits["val"]))
    assert model.training
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_recorded_gradient_is_that_of_the_loss(splits):
    """Checked where it is known in closed form: for the logits it is (softmax − one-hot)/N."""
    images, labels = (array[:16] for array in splits["val"])
    logits, grad = record(cnn(rng=0), images, labels)["fc2"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(grad, (p - np.eye(10)[labels]) / 16, atol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"arm": "BN"}, "arm must be one of 'with BN', 'without BN', got 'BN'"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1}, "batch_size from 2 to 10000, got 5 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        t.Run(**({"arm": "with BN", "lr": 0.1, "seed": 0} | settings))


# --- the grid and the choice of the rate ------------------------------------------------------------------------------


def test_every_run_is_made_once(tmp_path, splits, trained):
    path = tmp_path / "new folder" / "rows.jsonl"
    rows = run_all(path, splits)
    assert len(trained) == len(set(trained)) == len(rows) == 16
    before = path.read_bytes()
    assert run_all(path, splits) == rows
    assert len(trained) == 16 and path.read_bytes() == before
    run_all(path, splits, seeds=(0, 1, 2))
    assert [run.seed for run in trained[16:]] == [2] * 8


def test_a_best_rate_at_the_edge_widens_the_grid_of_both_arms(tmp_path, splits, trained):
    rows = run_all(tmp_path / "rows.jsonl", splits, rates=(0.03, 0.1))
    rates = {arm: sorted({row["lr"] for row in rows if row["arm"] == arm}) for arm in t.ARMS}
    assert rates["with BN"] == rates["without BN"] == [0.01, 0.03, 0.1, 0.3]
    assert t.best_rate(rows, "with BN") == 0.03 and t.best_rate(rows, "without BN") == 0.1


def test_the_test_images_do_not_choose():
    rows = [fake(t.Run("with BN", lr, 0), {"with BN": 0.03}) for lr in (0.01, 0.03, 0.1)]
    rows[2]["test_accuracy"] = 1.0
    assert t.best_rate(rows, "with BN") == 0.03
    with pytest.raises(ValueError, match="no row of the arm 'without BN'"):
        t.best_rate(rows, "without BN")


def test_widening_stops_somewhere(tmp_path, splits, monkeypatch):
    monkeypatch.setattr(t, "train", lambda run, splits, after_step=None: fake(run, dict.fromkeys(t.ARMS, 1e9)))
    with pytest.raises(ValueError, match="no best rate inside the grid"):
        run_all(tmp_path / "rows.jsonl", splits)


@pytest.mark.parametrize(
    "rates, best, further",
    [((0.01, 0.03), 0.03, 0.1), ((0.01, 0.03, 0.1), 0.03, None), ((0.03, 0.1), 0.03, 0.01), ((0.3, 1), 1, 3)],
)
def test_the_next_rate(rates, best, further):
    assert t.widened(rates, best) == further


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_killed_command_goes_on(tmp_path, splits, trained, monkeypatch):
    path, whole = tmp_path / "rows.jsonl", t.train

    def killed(run, splits, after_step=None):
        if len(trained) == 5:
            raise KeyboardInterrupt
        return whole(run, splits, after_step)

    monkeypatch.setattr(t, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_all(path, splits)
    assert len(t.results(path)) == 5
    monkeypatch.setattr(t, "train", whole)
    assert len(run_all(path, splits)) == len(set(trained)) == len(trained) == 16


@pytest.mark.parametrize("cut", [1, 20])
def test_a_truncated_last_line_is_reported_dropped_and_repeated(tmp_path, splits, trained, capsys, cut):
    path = tmp_path / "rows.jsonl"
    rows = run_all(path, splits)
    lost = json.loads(path.read_bytes().splitlines()[-1])
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(t.results(path)) == 15
    del trained[:]
    again = run_all(path, splits)
    assert "the last line is truncated; it is dropped and its run repeated" in capsys.readouterr().err
    assert [(run.arm, run.lr, run.seed) for run in trained] == [(lost["arm"], lost["lr"], lost["seed"])]
    assert sorted(map(str, again)) == sorted(map(str, rows))
    assert len(path.read_bytes().splitlines()) == 16


def test_nothing_of_a_long_truncated_line_stays(tmp_path, splits, trained):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"version": 1, "xray": [' + "0.1, " * 10_000, encoding="utf-8")
    assert len(run_all(path, splits)) == len(path.read_bytes().splitlines()) == len(t.results(path)) == 16


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda lines: [lines[0], lines[1][:50], *lines[2:]], "line 2 is not JSON"),
        (lambda lines: [*lines, "[1]"], "line 17 is not a row"),
        (lambda lines: [lines[0].replace('"seed"', '"sed"'), *lines[1:]], "line 1 has no seed"),
        (lambda lines: [*lines, lines[3]], "line 17 repeats the run of an earlier line"),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, splits, trained, damage, message):
    path = tmp_path / "rows.jsonl"
    run_all(path, splits)
    path.write_text("\n".join(damage(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")
    before = path.read_bytes()
    for read in (t.results, lambda path: run_all(path, splits)):
        with pytest.raises(t.ResultsError, match=message):
            read(path)
    assert path.read_bytes() == before


def test_rows_of_another_version_are_kept_but_not_used(tmp_path, splits, trained, capsys, monkeypatch):
    path = tmp_path / "rows.jsonl"
    run_all(path, splits)
    monkeypatch.setattr(t, "VERSION", t.VERSION + 1)
    assert t.results(path) == []
    assert len(run_all(path, splits)) == 16 and len(trained) == 32
    assert "16 rows are of another version" in capsys.readouterr().err
    assert len(t.results(path)) == 16 and len(t.read(path).rows) == 32


def test_provenance_names_no_place(tmp_path, splits, trained):
    row = run_all(tmp_path / "rows.jsonl", splits)[0]
    assert set(row["provenance"]) == {"command", "bnbook", "numpy", "python", "processor", "threads", "date", "commit"}
    assert str(tmp_path) not in json.dumps(row) and str(Path.home()) not in json.dumps(row["provenance"])


def test_the_command_trains_and_says_what_it_needs(tmp_path, trained, splits, monkeypatch, capsys):
    monkeypatch.setattr(t.data, "load", lambda split: splits[split])
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr(t, "_bar", lambda *arguments: t._Silent())
    assert t.main(["--results", str(path), "--rates", "0.01", "0.03", "0.1", "0.3", "--seeds", "0"]) == 0
    assert "with BN     best rate 0.03" in capsys.readouterr().out
    assert t.results(path)[0]["provenance"]["command"] == (
        "python -m bnbook.experiments.studies.numpy_cnn --rates 0.01 0.03 0.1 0.3 --seeds 0"
    )
    path.write_text("{}\n", encoding="utf-8")
    assert t.main(["--results", str(path)]) == 1
    assert "line 1 has no version" in capsys.readouterr().err


def test_it_needs_numpy_alone():
    code = "import sys, bnbook.experiments.studies.numpy_cnn"
    code += "; print({'torch', 'tqdm', 'matplotlib', 'scipy'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
        == "set()\n"
    )


def test_the_committed_rows_are_complete():
    """Both arms at the same rates with the same seeds, each best rate inside the grid, whole runs of five epochs."""
    rows = t.results(Path(__file__).parents[3] / t.RESULTS)
    assert rows, "there are no committed rows of this version"
    grids = {arm: {(row["lr"], row["seed"]) for row in rows if row["arm"] == arm} for arm in t.ARMS}
    assert grids["with BN"] == grids["without BN"]
    rates = sorted({lr for lr, _ in grids["with BN"]})
    assert grids["with BN"] == {(lr, seed) for lr in rates for seed in t.SEEDS}
    assert all((row["epochs"], row["batch_size"], row["train_images"]) == (5, 64, 10_000) for row in rows)
    for arm in t.ARMS:
        assert min(rates) < t.best_rate(rows, arm) < max(rates)
    best = t.best_rate(rows, "with BN")
    assert np.mean([row["test_accuracy"] for row in rows if row["arm"] == "with BN" and row["lr"] == best]) >= 0.86
