"""The command: what it loads, what it prints, and where nothing can be checked."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from bnbook.checkup import checkup
from bnbook.checkup.__main__ import main

ROOT = Path(__file__).parents[2]

MODELS = """
import torch
from torch import nn

class K:
    class Inner:
        @staticmethod
        def make():
            return nn.Sequential(nn.BatchNorm1d(3)), [torch.randn(32, 3) + 4]

def without_batches():
    return nn.Sequential(nn.BatchNorm1d(3)), None

class Talks(nn.BatchNorm1d):
    def forward(self, x):
        print("in forward")
        return super().forward(x)

def talks():
    print("loading ...")
    return nn.Sequential(Talks(3)), [torch.randn(32, 3) + 4]

class Leaves(nn.BatchNorm1d):
    def forward(self, x):
        raise SystemExit("no licence")

def leaves():
    return nn.Sequential(Leaves(3)), [torch.randn(32, 3)]

def small():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU())
    with torch.no_grad():
        model[1].weight[:2] = 0
    return model, [torch.randn(8, 3)]

def scripted():
    return torch.jit.script(nn.Sequential(nn.BatchNorm1d(3))), [torch.randn(32, 3)]

def traced():
    return torch.jit.trace(nn.Sequential(nn.BatchNorm1d(3)), torch.randn(32, 3)), [torch.randn(32, 3)]

def compiled():
    return torch.compile(nn.Sequential(nn.BatchNorm1d(3)), backend="eager"), [torch.randn(32, 3)]

def lazy():
    return nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d()), [torch.randn(32, 3)]

def quantized():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8), [torch.randn(32, 3)]

def other_names():
    model = nn.Sequential(nn.BatchNorm1d(3))
    model.load_state_dict({"norm.weight": torch.ones(3)})
    return model

def optimizer():
    return nn.Sequential(nn.BatchNorm1d(3)), [torch.randn(32, 3)], "adam"
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(MODELS, encoding="utf-8")
    return path


def test_a_dotted_name_and_no_batches(file, capsys):
    assert main([f"{file}:K.Inner.make"]) == 1 and "BN101" in capsys.readouterr().out
    assert main([f"{file}:without_batches", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["examples"] == 0
    assert main([f"{file}:K.Other.make"]) == 2 and "has no K.Other.make" in capsys.readouterr().err


def test_standard_output_has_the_report_alone(file, capsys):
    assert main([f"{file}:talks", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["examples"] == 32 and "loading ..." in err and "in forward" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leaves", "the model raises SystemExit on a batch: no licence"),
        ("scripted", "the model is scripted or traced"),
        ("traced", "the model is scripted or traced"),
        ("compiled", "the model is compiled"),
        ("lazy", "parameters without values"),
        ("quantized", "the model is quantized"),
        ("other_names", "Error(s) in loading state_dict for Sequential: Missing key(s) in state_dict"),
        ("optimizer", "optimizer must be a torch.optim.Optimizer, got str"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_checked_is_one_line(file, capsys, tmp_path, name, said):
    assert main([f"{file}:{name}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"my_model.py", "__pycache__"}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("words", [["my_model.py:small"], ["--list"], ["--explain", "BN201"]])
def test_a_terminal_without_greek_letters(file, encoding, words):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "bnbook.checkup", *words]
    ran = subprocess.run(command, capture_output=True, encoding=encoding, cwd=file.parent, env=environment)
    assert ran.returncode == (1 if "small" in words[0] else 0) and ran.stderr == ""
    assert "?" not in ran.stdout and ("gamma" in ran.stdout or "sqrt" in ran.stdout)


def test_codes_to_ignore_in_any_form():
    model = nn.Sequential(nn.BatchNorm1d(3))
    for words in ("bn101", "BN101, BN202", ["bn101"], ("BN101",)):
        assert checkup(model, ignore=words).findings == ()
    with pytest.raises(ValueError, match=r"no findings \['BN999'\]"):
        checkup(model, ignore="BN101,bn999")


def test_an_endless_loader_is_read_as_far_as_it_is_used():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=None))
    model(x := torch.randn(32, 3))
    report = checkup(model, (x for _ in itertools.count()))
    assert report.examples == 32 * 32
    assert checkup(model, None).examples == 0


def test_findings_of_one_kind_are_one_paragraph_the_worst_first():
    layers = [nn.BatchNorm1d(4) for _ in range(12)]
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    for place, layer in enumerate(layers):
        layer.momentum = None
        layer(x)
        with torch.no_grad():
            layer.running_mean += (1 + place % 7) * (place > 0)
    model = nn.ModuleList(layers)
    model.forward = lambda x: torch.cat([layer(x) for layer in layers], 1)
    report = checkup(model, x.split(128))
    text = report.text()
    (paragraph,) = (part for part in text.split("\n\n") if part.startswith("! BN105"))
    told = " ".join(paragraph.split())
    assert "6: running means 6." in told and "and in 10 more layers, the worst first: 5, " in told
    assert len(json.loads(report.json())["findings"]) == len(report.findings) >= 11
    assert max(map(len, text.splitlines())) <= 100
