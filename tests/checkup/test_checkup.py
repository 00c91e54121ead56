"""The check-up: what it finds where a fault was planted, what it says of healthy models, and what it leaves alone."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnbook.checkup import RULES, ModelError, checkup
from bnbook.checkup.__main__ import main
from bnbook.checkup.check import limit
from bnbook.checkup.findings import ORDER
from tests.checkup import models
from tests.checkup.faults import FAULTS, network

ROOT = Path(__file__).parents[2]


def codes(report) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.fixture(scope="module", params=models.HEALTHY)
def healthy(request) -> tuple[nn.Module, list]:
    torch.manual_seed(0)
    model = models.HEALTHY[request.param]()
    return model, models.batches(8, 2) if "two" in request.param.split() else models.batches()


# --- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.long(seconds=40)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    code, make = FAULTS[name]
    model, batches, optimizer = make()
    report = checkup(model, batches, optimizer=optimizer)
    assert code in codes(report), report.text()
    found = next(f for f in report.findings if f.code == code)
    assert ORDER.index(found.severity) >= ORDER.index(RULES[code].severity)
    assert code not in codes(checkup(model, batches, optimizer=optimizer, ignore=[code]))


def test_every_kind_of_finding_is_planted():
    assert {code for code, _ in FAULTS.values()} | {"BN402"} == set(RULES)  # which a test below has, in two processes


@pytest.mark.long(seconds=25)
def test_a_healthy_model_is_called_so(healthy):
    """And stays as it was, to the last bit of its state, modes, gradients, hooks and random numbers."""
    model, batches = healthy
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    learns = [p.requires_grad for p in model.parameters()]
    places, random = [id(p) for p in model.parameters()], torch.get_rng_state()
    report = checkup(model, batches)
    assert report.worst in (None, "info"), report.text()
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
    assert [m.training for m in model.modules()] == modes and [p.requires_grad for p in model.parameters()] == learns
    assert [id(p) for p in model.parameters()] == places and torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is g or torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_distance_is_that_of_the_values_that_arrive():
    """Running mean 0 and variance 1; what arrives has mean 5 and variance 4: 5/2 standard deviations, a factor 4."""
    x = torch.tensor([[3.0], [7.0]] * 50)  # as batches of 2 and more, merged
    norm = nn.BatchNorm1d(1, eps=1e-12)
    (distance,) = checkup(nn.Sequential(norm), list(x.split([2, 38, 60]))).distances
    assert distance.mean == pytest.approx(2.5, rel=1e-6) and distance.variance == pytest.approx(1.38629436, rel=1e-6)


@pytest.mark.parametrize("shift, found", [(0.9, False), (1.1, True)])
def test_the_limit_of_the_distance(shift, found):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 8, generator=generator)
    norm = nn.BatchNorm1d(8)
    norm(x)
    norm.running_mean.copy_(x.mean(0) + shift * limit(100) * x.std(0))
    norm.running_var.copy_(x.var(0))
    assert ("BN105" in codes(checkup(nn.Sequential(norm), x.split(50)))) == found


def test_without_batches_only_the_state_is_looked_at():
    model = network()
    model.bn1.running_mean[0] = torch.nan
    assert codes(checkup(model)) == {"BN102"}


def test_batches_of_every_form():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x, *, scale=1.0):
            return {"logits": self.norm(x) * scale, "names": ["a"]}

    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, torch.zeros(64)), batch_size=32)  # gives [inputs, targets]
    forms = [
        x.split(32),
        loader,
        [(part,) for part in x.split(32)],
        [{"x": part, "scale": 2.0} for part in x.split(32)],
    ]
    reports = [checkup(Two(), form) for form in forms]
    assert [report.examples for report in reports] == [64] * 4
    assert len({report.distances for report in reports}) == 1


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_report_in_every_form():
    model = network()
    model.bn2.reset_running_stats()
    report = checkup(model, models.batches(2), ignore=["BN501"])
    assert [f.severity for f in report.findings] == sorted((f.severity for f in report.findings), key=ORDER.index)
    worst = report.findings[0]
    assert (worst.code, worst.layer, report.worst) == ("BN101", "bn2", "error")
    text = str(report)
    assert text.startswith("✗ BN101 error") and worst.mend[:40] in " ".join(text.split()) and worst.link in text
    assert text.endswith("(silenced: BN501)") and max(map(len, text.splitlines()[:-1])) <= 100
    read = json.loads(report.json())
    assert read["findings"][0] | {"value": 0} == {
        "code": "BN101",
        "severity": "error",
        "layer": "bn2",
        "value": 0,
        "message": worst.message,
        "mend": worst.mend,
        "link": worst.link,
    }
    assert repr(report) == f"<Report: {report.summary()}>"
    page = report._repr_html_()
    assert "<svg" in page and page.count("<rect") == 4 and "<td>BN101</td>" in page


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_leads_to_a_section_of_the_book(rule):
    place, _, anchor = rule.link.partition("#")
    cells = json.loads((ROOT / place).with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert anchor in [re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading in headings]


# --- what it refuses -------------------------------------------------------------------------------------------------


class Quantized(nn.Sequential):
    __module__ = "torch.ao.nn.quantized.modules"


@pytest.mark.parametrize(
    ("model", "batches", "said"),
    [
        ("a string", [], "must be a torch.nn.Module, got str"),
        (nn.BatchNorm1d(3), torch.zeros(4, 3), "got one tensor: give [tensor]"),
        (nn.BatchNorm1d(3), {"x": torch.zeros(4, 3)}, "got one mapping: give [mapping]"),
        (nn.BatchNorm1d(3), 5, "batches must be an iterable of batches, got int"),
        (nn.BatchNorm1d(3, device="meta"), [torch.zeros(4, 3)], "on the device meta, without values"),
        (nn.BatchNorm1d(3), [torch.zeros(4, 5)], "the model raises"),
        (nn.BatchNorm1d(3), [torch.zeros(0, 3)], "no examples"),
        (nn.Sequential(nn.LazyBatchNorm1d()), [torch.zeros(4, 5)], "without values"),
        (torch.jit.script(nn.BatchNorm1d(3)), [], "scripted"),
        (torch.compile(nn.BatchNorm1d(3), backend="eager"), [], "compiled"),
        (Quantized(), [], "quantized"),
        (nn.ModuleDict({"a": nn.BatchNorm1d(3)}), [torch.zeros(4, 3)], "NotImplementedError"),
    ],
    ids=[
        "type",
        "tensor",
        "mapping",
        "number",
        "meta",
        "shape",
        "empty",
        "lazy",
        "scripted",
        "compiled",
        "quantized",
        "no forward",
    ],
)
def test_what_cannot_be_checked(model, batches, said):
    with pytest.raises((TypeError, ValueError), match=re.escape(said)) as caught:
        checkup(model, batches)
    assert "\n" not in str(caught.value)


@dataclass
class Answer:
    names: list
    logits: torch.Tensor


@pytest.mark.parametrize("wrap", [lambda y: (None, y), lambda y: {"a": [y]}, lambda y: Answer(["a"], y)])
def test_outputs_of_every_form(wrap):
    class Wrapped(nn.BatchNorm1d):
        def forward(self, x):
            return wrap(super().forward(x))

    assert "BN101" in codes(checkup(Wrapped(3), [torch.randn(32, 3)]))


class Changing(nn.Module):
    """Changes its inputs, returns a loss beside its answer, and takes batches of 16 rows alone."""

    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)

    def forward(self, x):
        y = self.bn(self.fc(x.sub_(0.5).view(-1, 16, 3).flatten(0, 1)))
        return y.mean(), y


def test_a_model_that_changes_its_inputs_or_takes_no_part_of_a_batch():
    batches = [torch.randn(32, 3) for _ in range(2)]
    kept = [batch.clone() for batch in batches]
    model = Changing()
    for _ in range(60):
        model(torch.randn(64, 3))
    assert codes(checkup(model, batches)) == {"BN501"}
    assert all(map(torch.equal, batches, kept))


def test_a_model_that_draws_random_numbers_in_evaluation():
    class Sampled(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x) + torch.randn_like(x)

    model = Sampled(3, momentum=None)
    model(x := torch.randn(64, 3))
    assert codes(checkup(model, [x])) == {"BN104"}


def test_tied_weights_are_put_back():
    model = nn.Sequential(*(layer for _ in range(2) for layer in (nn.Linear(3, 3), nn.BatchNorm1d(3))))
    model[2].weight = model[0].weight
    for _ in range(60):
        model(torch.randn(64, 3))
    before = model[0].weight.clone()
    checkup(model, [torch.randn(64, 3)])
    assert torch.equal(model[0].weight, before)


def test_a_model_that_returns_no_tensor():
    class Words(nn.BatchNorm1d):
        def forward(self, x):
            return "words"

    with pytest.raises(ModelError, match="no tensor of real numbers, but a str"):
        checkup(Words(2), [torch.zeros(4, 2)])
    with pytest.raises(ValueError, match="BN999"):
        checkup(network(), ignore=["BN999"])


# --- the command -----------------------------------------------------------------------------------------------------

MODELS = """
import torch
from torch import nn

def fresh():
    return nn.Sequential(nn.BatchNorm1d(3)), [torch.randn(32, 3) + 4]

def good():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=None))
    x = torch.arange(96.0).reshape(32, 3)
    model(x)
    return model, [x], torch.optim.SGD(model.parameters(), 0.1)

def state_only():
    return nn.Sequential(nn.Linear(3, 3))

def broken():
    raise FileNotFoundError("no such file: weights.pt")

def shape():
    return nn.Sequential(nn.BatchNorm1d(3)), [torch.randn(32, 4)]

def words():
    return "words"

def four():
    return 1, 2, 3, 4

def lost():
    def batches():
        yield torch.randn(32, 3)
        raise OSError("the disk is gone")
    return nn.Sequential(nn.BatchNorm1d(3)), batches()

def leaves():
    raise SystemExit(0)
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(MODELS, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "status"), [("fresh", 1), ("good", 0), ("state_only", 0)])
def test_the_command_and_its_exit_status(file, capsys, name, status):
    assert main([f"{file}:{name}", "--json"]) == status
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [f["code"] for f in found if f["severity"] != "info"] == (["BN101", "BN106"] if status else [])
    assert main([f"{file}:{name}", "--ignore", "bn101,BN106"]) == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("{file}", "is no MODULE:FUNCTION"),
        ("{file}x.py:good", "there is no file"),
        ("no_such_package.models:good", "No module named 'no_such_package'"),
        ("{file}:missing", "has no missing"),
        ("{file}:broken", "FileNotFoundError: no such file: weights.pt"),
        ("{file}:shape", "the model raises"),
        ("{file}:words", "returns no torch.nn.Module, but a str"),
        ("{file}:four", "returns 4 values"),
        ("{file}:lost", "raise OSError: the disk is gone"),
        ("{file}:leaves", "raises SystemExit: 0"),
    ],
)
def test_what_the_command_cannot_load(file, capsys, target, said):
    assert main([target.format(file=file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1


def test_the_command_explains(capsys):
    assert main(["--explain", "bn105"]) == 0
    assert RULES["BN105"].title in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == list(RULES)


# --- several processes -----------------------------------------------------------------------------------------------

DEVICES = """
import sys, torch
from torch import nn
from bnbook.checkup import checkup
if __name__ == "__main__":
    store = torch.distributed.FileStore(sys.argv[1], 2)
    torch.distributed.init_process_group("gloo", store=store, rank=int(sys.argv[2]), world_size=2)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    (found,) = (f for f in checkup(model, [torch.randn(32, 3) for _ in range(2)]).findings if f.code == "BN402")
    print(found.value)
    torch.distributed.destroy_process_group()
"""


@pytest.mark.long
def test_statistics_of_one_device_under_data_parallelism(tmp_path):
    (tmp_path / "devices.py").write_text(DEVICES, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "devices.py"), str(tmp_path / "store")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "cwd": ROOT}
    both = [subprocess.Popen([*command, str(rank)], **pipes) for rank in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert out == "2.0\n", err
