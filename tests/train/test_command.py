"""`python -m bnbook.train`: the command and its report."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from bnbook import data
from bnbook.train import Settings, checkpoint, describe, report, settings, update
from bnbook.train import __main__ as command
from tests.train.training import ROOT, SMALL, TINY, equal, few_images_are_scored, load_anew, quiet, run, tensors  # noqa: F401

# --- the report -------------------------------------------------------------------------------------------------------


def test_a_report_says_what_the_run_was():
    result = quiet(replace(SMALL, train_images=6400, batch_size=64, evaluations=5, epochs=1))
    row = json.loads(json.dumps(describe(result, "python -m bnbook.train"), allow_nan=False))
    assert report.problem(row) is None and report.problem({}) == "has no " + ", ".join(report.FIELDS)
    assert Settings(**row["settings"]) == result.settings and row["history"] == result.history
    assert row["steps"] == 100 and row["images_per_second"] == pytest.approx(6400 / result.seconds["training"])
    assert row["seconds_per_epoch"] == result.seconds["training"] == row["seconds_to"]["final"]
    reached = [r["seconds"] for r in result.history if r["accuracy"] >= 0.85]
    assert row["seconds_to"]["0.85"] == (reached[0] if reached else None) and row["seconds_to"]["split"] == "val"
    assert row["provenance"]["torch"] == torch.__version__ and row["provenance"]["commit"]
    assert row["device"]["type"] == "cpu" and row["memory"]["bytes"] > 1e7 and row["parameters"] == 270_346
    text = report.summary(row)
    assert f"{row['final']['test_accuracy']:.4f}" in text and row["provenance"]["commit"] in text


def test_seconds_to_an_accuracy_are_those_of_the_first_row_that_reaches_it():
    rows = [{"accuracy": a, "seconds": s} for a, s in ((0.5, 1.0), (0.86, 2.0), (0.84, 3.0), (0.91, 4.0))]
    result = replace(quiet(replace(SMALL, epochs=1)), history=rows)
    assert report._seconds_to(result) == {"0.85": 2.0, "0.9": 4.0}
    assert report._seconds_to(replace(result, history=rows[:1])) == {"0.85": None, "0.9": None}


@pytest.mark.parametrize("path", sorted((ROOT / "book" / "results").glob("torch_*.json")), ids=lambda p: p.name)
def test_the_committed_reports_are_whole(path):
    assert report.problem(json.loads(path.read_text(encoding="utf-8"))) is None


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        ("--model resnet", 2, "model must be one of 'cnn', 'mlp', 'mlp_dropout', 'residual_mlp', got 'resnet'"),
        ("--norm instance", 2, "norm must be one of 'batch', 'none', 'layer', 'group', got 'instance'"),
        ("--batch-size 1", 2, "batch_size must be at least 2 with norm 'batch'"),
        ("--batch-size many", 2, "argument --batch-size: invalid int value: 'many'"),
        ("--lr -1", 2, "lr must be positive and finite, got -1.0"),
        ("--learning-rate 1", 2, "unrecognized arguments: --learning-rate 1"),
        ("--device tpu", 2, "device must be one of 'auto', 'cpu', 'cuda', 'mps', got 'tpu'"),
        ("--device cpu --capture graph", 2, "capture 'graph' needs device 'cuda'"),
        ("--resume", 2, "resume needs the folder of the checkpoint: give --checkpoint DIR with it"),
        ("--checkpoint-every 5", 2, "--checkpoint-every needs the folder of the checkpoint: give --checkpoint DIR"),
        ("--checkpoint {folder} --checkpoint-every -1", 2, "checkpoint_every must be at least 0 seconds, got -1.0"),
        ("--checkpoint {file}/x", 1, "/x cannot be used for checkpoints (Not a directory)"),
        ("--checkpoint {file}", 1, "cannot be used for checkpoints (File exists)"),
        ("--out {file}/x.json", 1, "x.json cannot be written (File exists): name another file with --out"),
        ("--out {file}", 1, "exists: delete it, or name another file with --out"),
        ("--out .", 1, "train: . is not a file: name another one with --out"),
        ("--out ''", 2, "argument --out: needs a name, got ''"),
        ("--checkpoint ''", 2, "argument --checkpoint: needs a name, got ''"),
        # with ".partial" behind it, while it is written, the second is too long as well
        ("--out {file}-" + 252 * "x" + ".json", 1, "cannot be written (File name too long): name another file"),
        ("--out {file}-" + 240 * "x" + ".json", 1, "cannot be written (File name too long): name another file"),
        ("--seed 99999999999999999999", 2, "seed must be less than 2**63, got 99999999999999999999"),
    ],
)
def test_a_bad_command_is_answered_in_one_line(arguments, status, message, tmp_path, capsys):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("{}", encoding="utf-8")
    got, out, error = run(arguments.format(file=file, folder=folder), capsys)
    assert got == status and message in error and error.startswith("train: ") and error.count("\n") == 1, error
    assert out == "" and file.read_text(encoding="utf-8") == "{}" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK"])
@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "²"])
def test_an_environment_that_torchrun_would_not_set_is_answered_in_one_line(name, value, capsys, monkeypatch):
    monkeypatch.setenv(name, value)
    status, out, error = run(TINY, capsys)
    assert (status, out) == (2, "") and error.count("\n") == 1, error
    assert f"{name} must be a whole number of at least {int(name == 'WORLD_SIZE')}, got {value!r}" in error


def test_no_process_is_no_number_of_processes(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "0")
    assert "WORLD_SIZE must be a whole number of at least 1, got '0'" in run(TINY, capsys)[2]


def test_a_bad_command_makes_no_folder(tmp_path, capsys):
    assert run(f"--norm what --checkpoint {tmp_path / 'a'} --out {tmp_path / 'b' / 'c.json'}", capsys)[0] == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_there_is_no_cuda_here(capsys):
    status, _, error = run("--device cuda", capsys)
    assert status == 2 and "finds none here; take 'cpu'" in error and error.count("\n") == 1


def test_data_that_is_not_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "load", load_anew)
    monkeypatch.setenv("BNBOOK_DATA", str(tmp_path))
    status, _, error = run("--data full", capsys)
    assert status == 1 and "BNBOOK_DATA" in error and error.count("\n") == 1


def test_the_command_writes_what_the_run_was(tmp_path, capsys):
    out = tmp_path / "new" / "run.json"
    status, shown, error = run(f"{TINY} --checkpoint {tmp_path / 'c'} --out {out} --report", capsys)
    row = json.loads(out.read_text(encoding="utf-8"))
    assert status == 0 and error == "" and report.problem(row) is None
    assert f"test accuracy  {row['final']['test_accuracy']:.4f}" in shown and "images/s" in shown and "commit" in shown
    assert row["provenance"]["command"].startswith("python -m bnbook.train --model mlp")
    assert run(f"{TINY} --out {out}", capsys)[0] == 1  # a finished run is not lost
    assert run(f"{TINY} --lr 0.3 --checkpoint {tmp_path / 'd'} --out {out} --resume", capsys)[0] == 1
    assert json.loads(out.read_text(encoding="utf-8")) == row
    status, shown, _ = run(f"{TINY} --checkpoint {tmp_path / 'c'} --out {out} --resume", capsys)
    assert status == 0 and json.loads(out.read_text(encoding="utf-8"))["final"] == row["final"]
    assert os.listdir(out.parent) == ["run.json"]


@pytest.mark.parametrize("name", ["café.json", "x\udce9.json"], ids=["another language", "no text"])
@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems know text alone")
def test_a_name_that_is_no_ascii_is_written_and_resumed(name, tmp_path, capsys):
    """The second is of bytes that are no text where this runs: those of another locale."""
    arguments = f"{TINY} --epochs 1 --checkpoint {tmp_path / 'c'} --out {tmp_path / name}"
    assert run(arguments, capsys)[0] == 0
    row = json.loads((tmp_path / name).read_bytes())
    assert row["provenance"]["command"] == shlex.join(["python", "-m", "bnbook.train", *shlex.split(arguments)])
    assert run(f"{arguments} --resume", capsys)[0] == 0


def test_a_result_that_cannot_be_written_is_shown(tmp_path, capsys, monkeypatch):
    def full(path, content):
        raise OSError(f"{path} could not be written (No space left on device)")

    monkeypatch.setattr(command, "write_atomically", full)
    status, shown, error = run(f"{TINY} --epochs 1 --out {tmp_path / 'a.json'}", capsys)
    assert status == 1 and "a.json could not be written (No space left on device)" in error
    assert "\ntest accuracy " in shown


@pytest.mark.long
@pytest.mark.parametrize("program", ["train", "experiments"])
def test_help_is_shown_on_a_terminal_without_the_letters(program):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-m", f"bnbook.{program}", "--help"], capture_output=True, env=environment, check=True
    )
    assert shown.stdout.isascii() and b"usage: " in shown.stdout


def test_a_report_without_a_name_goes_to_the_results(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(f"{TINY} --norm none --seed 2 --report", capsys)[0] == 0
    row = json.loads((tmp_path / "book/results/train_mlp_none_subset_cpu_seed2.json").read_text(encoding="utf-8"))
    assert row["settings"]["seed"] == 2


def test_resume_without_a_checkpoint_begins_and_says_so(tmp_path, capsys):
    status, out, _ = run(f"{TINY} --checkpoint {tmp_path} --resume", capsys)
    assert status == 0 and f"there is no {tmp_path / 'checkpoint.pt'} yet: the training begins" in out


def test_help_explains_every_setting(capsys):
    status, out, _ = run("--help", capsys)
    assert status == 0
    for option in [f.name.replace("_", "-") for f in fields(Settings)] + ["checkpoint", "resume", "out"]:
        assert f"--{option}" in out
    for name, words in settings.WORDS.items():
        assert all(word in out for word in words), name


def test_every_option_reaches_its_setting(monkeypatch, capsys):
    """One command with a value that is not the default for each, of the right kind."""
    given = dict(
        model="mlp", norm="none", data="full", train_images=640, evaluate="val", evaluations=2, epochs=3,
        batch_size=32, lr=0.2, schedule="constant", optimizer="adam", momentum=0.5, weight_decay=0.1,
        precision="bfloat16", device="cpu", memory_format="channels_last", loader="dataloader", workers=1,
        capture="none", compile="default", seed=4, split_seed=5, threads=2,
    )  # fmt: skip
    assert given.keys() == {f.name for f in fields(Settings)}
    seen = []
    monkeypatch.setattr(command, "train", lambda wanted, **how: seen.append((wanted, how)) or sys.exit(0))
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    run(options + " --checkpoint a --checkpoint-every 5 --resume", capsys)
    assert seen == [(Settings(**given), {"checkpoint": Path("a"), "checkpoint_every": 5.0, "resume": True})]
    run("--compile", capsys)
    assert seen[1][0].compile == "default"


@pytest.mark.long
def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(tmp_path):
    """A real process; its own words resume it, and the weights are those of a run that was left alone."""
    arguments = shlex.split(
        TINY.replace("--epochs 2", "--epochs 20") + f" --model mlp_dropout --checkpoint '{tmp_path}/a b'"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = [sys.executable, "-m", "bnbook.train"]
    process = subprocess.Popen(
        [*start, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment,
    )
    assert process.stdout.readline().startswith("epoch 1/20")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130 and error.count("\n") == 1
    words = error.strip().removeprefix("train: stopped; go on with: ")
    assert words == shlex.join(["python", "-m", "bnbook.train", *arguments, "--resume"])
    stopped = checkpoint.load(tmp_path / "a b")
    assert (0, 0) < (stopped["epoch"], stopped["batch"]) < (20, 0)
    done = subprocess.run(
        [sys.executable, *shlex.split(words)[1:]],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    whole = quiet(replace(SMALL, model="mlp_dropout", epochs=20))
    assert equal(checkpoint.load(tmp_path / "a b")["model"], tensors(whole))


def test_ctrl_c_without_a_checkpoint_says_that_nothing_is_kept(monkeypatch, capsys):
    run_once = update.Update._run
    monkeypatch.setattr(
        update.Update, "_run", lambda self, batch: (signal.raise_signal(signal.SIGINT), run_once(self, batch))[1]
    )
    status, _, error = run(TINY, capsys)
    assert status == 130 and error == "train: stopped; nothing is kept without --checkpoint DIR\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_waits_for_the_running_update(tmp_path, monkeypatch, capsys):
    """An update that is half done would be in the checkpoint otherwise; the second Ctrl-C does not wait."""
    run_once, made = update.Update._run, []

    def pressed(self, batch):
        if len(made) == 4:
            signal.raise_signal(signal.SIGINT)
        run_once(self, batch)
        made.append(batch)

    monkeypatch.setattr(update.Update, "_run", pressed)
    assert run(f"{TINY} --checkpoint {tmp_path}", capsys)[0] == 130
    assert len(made) == 5 and checkpoint.load(tmp_path)["batch"] == 5
    monkeypatch.setattr(update.Update, "_run", lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    assert run(f"{TINY} --checkpoint {tmp_path} --resume", capsys)[0] == 130
    assert checkpoint.load(tmp_path)["batch"] == 5
