"""What is read from an ONNX file, and which files are none."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from bnbook.checkup import NotReadable, checkup_onnx
from bnbook.checkup.__main__ import main

ROOT = Path(__file__).parents[2]


def trained() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3)]
    model = nn.Sequential(*layers, nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(384, 5), nn.BatchNorm1d(5))
    for module in model:
        if hasattr(module, "running_mean"):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(5):
        model(torch.randn(32, 1, 8, 8))
    return model


def exported(model: nn.Module, path: Path, training: bool = False) -> Path:
    """Unfused, as exporters hand a model to a tool that optimizes it."""
    modes = torch.onnx.TrainingMode
    options = {"training": modes.TRAINING if training else modes.PRESERVE, "do_constant_folding": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(training)
        torch.onnx.export(model, (torch.randn(2, 1, 8, 8),), path, dynamo=False, **options)
    return path


def found(path: Path) -> dict[str, list[str]]:
    codes: dict[str, list[str]] = {}
    for finding in checkup_onnx(path).findings:
        codes.setdefault(finding.code, []).append(finding.layer)
    return codes


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.onnx"


def test_a_healthy_model_of_torch(path, capsys):
    exported(trained(), path)
    report = checkup_onnx(path)
    assert len(report.layers) == 3 and {f.code: f.value for f in report.findings} == {"BN501": 2, "BN503": 1}
    assert main([str(path), "--json"]) == 0
    assert [f["code"] for f in json.loads(capsys.readouterr().out)["findings"]] == ["BN501", "BN503"]
    assert main([str(path), "--ignore", "BN501,BN503"]) == 0 and "nothing found" in capsys.readouterr().out


FAULTS = {
    "BN101": lambda model: model[4].reset_running_stats(),
    "BN102": lambda model: model[4].running_var[2:4].copy_(torch.tensor([torch.nan, -1.0])),
    "BN303": lambda model: model[4].weight.data[:4].zero_(),
}


@pytest.mark.parametrize("code", FAULTS)
def test_what_is_planted_is_found(path, capsys, code):
    model = trained()
    FAULTS[code](model)
    layers = checkup_onnx(exported(model, path)).layers
    assert found(path)[code] == [layers[1]]
    assert main([str(path)]) == 1 and code in capsys.readouterr().out


def test_the_mode_of_training_baked_in(path):
    assert len(found(exported(trained(), path, training=True))["BN107"]) == 3


def graph(path: Path, change: str = "", external: bool = False, opset: int | None = 15, **attributes) -> Path:
    """A convolution, a node of batch normalization, and what `change` says."""
    random = np.random.default_rng(0)
    shapes = {"w": (4, 1, 3, 3), "scale": 4, "shift": 4, "mean": 4, "var": 4}
    values = {name: 0.5 + random.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    if change == "zero":
        values["var"][1] = 0
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    arguments = {"epsilon": 0.0 if change == "zero" else 1e-5, "name": "norm"} | attributes
    made = ["y", *["m", "v", "saved_m", "saved_v"][: {"training": 4, "training, named": 2}.get(change, 0)]]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], made, **arguments),
    ]
    outputs = ["y"]
    if change == "output":
        outputs.append("a")
    if change == "weights":
        nodes.append(helper.make_node("Conv", ["x", "w"], ["z"], name="other"))
        outputs.append("z")
    floats = onnx.TensorProto.FLOAT
    infos = [helper.make_tensor_value_info(name, floats, [None] * 4) for name in ("x", *outputs)]
    opsets = [helper.make_opsetid("ai.onnx.ml", 3), *([helper.make_opsetid("", opset)] if opset else [])]
    model = helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors), opset_imports=opsets)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if external else {}
    onnx.save(model, path, **options)
    return path


@pytest.mark.parametrize(
    ("change", "codes"), [("", {"BN501"}), ("zero", {"BN102", "BN501"}), ("output", {"BN502"}), ("weights", {"BN502"})]
)
def test_pairs_and_epsilon(path, change, codes):
    assert found(graph(path, change)).keys() == codes


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, onnx.defs.onnx_opset_version()])
def test_every_opset_is_read_by_its_own_rules(path, opset):
    """Until 13 a node trains where it has several outputs; from 14 on where it says so."""
    assert found(graph(path, opset=opset)).keys() == {"BN501"}
    if opset < 14:
        graph(path, "training", opset=opset)
        onnx.checker.check_model(path)
        (message,) = (f.message for f in checkup_onnx(path).findings if f.code == "BN107")
        assert message.startswith(f"5 outputs, in opset {opset} the sign of training")
    else:
        graph(path, "training, named", opset=opset, training_mode=1)
        onnx.checker.check_model(path)
    assert found(path) == {"BN107": ["norm"], "BN502": ["norm"]}
    if opset < 9:
        assert found(graph(path, opset=opset, spatial=0)) == {"BN502": ["norm"]}


@pytest.mark.parametrize(
    ("opset", "said"),
    [
        (6, "has opset 6, in which batch normalization had other attributes: those from 7 on are read"),
        (1, "has opset 1, in which"),
        (999, f"has opset 999, and onnx {onnx.__version__} knows those up to {onnx.defs.onnx_opset_version()}"),
        (None, "names no opset"),
    ],
)
def test_another_opset_is_one_line_that_names_it(path, capsys, opset, said):
    graph(path, opset=opset)
    before = path.read_bytes()
    with pytest.raises(NotReadable, match=said):
        checkup_onnx(path)
    assert main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1 and path.read_bytes() == before


def test_a_file_that_cannot_be_read_is_one_line(path, tmp_path, capsys):
    whole = graph(path).read_bytes()
    (tmp_path / "part.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("this is a text, no model", encoding="utf-8")
    graph(tmp_path / "external.onnx", external=True)
    assert found(tmp_path / "external.onnx").keys() == {"BN501"}
    (tmp_path / "weights.bin").unlink()
    for name, said in {
        "part": "no ONNX model",
        "empty": "no ONNX model",
        "text": "no ONNX model",
        "external": "external data",
        "missing": "there is no file",
    }.items():
        assert main([str(tmp_path / f"{name}.onnx")]) == 2, name
        out, err = capsys.readouterr()
        assert out == "" and said in err and len(err.splitlines()) == 1, (name, err)


def test_without_the_package_onnx(path, monkeypatch, capsys):
    graph(path)
    code = "import sys, bnbook.checkup.__main__; print('onnx' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert ran.stdout == "False\n", ran.stderr
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err == "error: to read model.onnx install the package onnx\n"


def test_an_extreme_channel_is_no_finding_and_codes_are_ignored_as_in_the_checkup(path):
    model = trained()
    model[1].running_var[2], model[1].running_mean[1] = 1e-9, 1e4
    exported(model, path)
    assert {f.code for f in checkup_onnx(path).findings} == {"BN501", "BN503"}
    report = checkup_onnx(path, ignore="bn503, BN501")
    assert report.findings == () and report.silenced == ("BN501", "BN503")
    with pytest.raises(ValueError, match="BN999"):
        checkup_onnx(path, ignore=["BN999"])
