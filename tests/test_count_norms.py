"""What tools/count_norms.py counts as a normalization, and the record that it made."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import count_norms  # noqa: E402


class BatchNormAct(nn.BatchNorm2d):
    """As timm derives it."""


class RmsNorm2d(nn.Module):
    """By its name alone."""


class NormMlpHead(nn.Module):
    """A name with "Norm" in it that normalizes nothing itself."""


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.BatchNorm1d(4), "batch"),
        (nn.SyncBatchNorm(4), "batch"),
        (BatchNormAct(4), "batch"),
        (nn.LayerNorm(4), "layer"),
        (nn.GroupNorm(2, 4), "group"),
        (nn.InstanceNorm2d(4), "instance"),
        (nn.RMSNorm(4), "RMS"),
        (RmsNorm2d(), "RMS"),
        (type("ScaledStdConv2d", (nn.Conv2d,), {})(4, 4, 1), "weights"),
        (type("EvoNorm2dS0", (nn.Module,), {})(), "other"),
        (NormMlpHead(), None),
        (nn.Conv2d(4, 4, 1), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_kind(layer, kind):
    assert count_norms.kind(layer) == kind


def test_a_family():
    models = {
        "broken": lambda: 1 / 0,
        "first": lambda: nn.Sequential(nn.Sequential(nn.BatchNorm2d(4)), BatchNormAct(4), nn.LayerNorm(4)),
        "plain": lambda: nn.Sequential(nn.Linear(4, 4)),
    }
    row, failed = count_norms.family(list(models), lambda name: models[name]())
    assert row == {
        "models": 2,
        "first": "first",
        "norms": {"batch": 2, "layer": 1},
        "containing": {"batch": 1, "layer": 1, "none": 1},
    }
    assert failed == ["broken: ZeroDivisionError: division by zero"]


def test_the_record_is_whole():
    record = json.loads(count_norms.OUT.read_text(encoding="utf-8"))
    kinds = {*count_norms.CLASSES, *count_norms.NAMES, "none"}
    assert record["failed"] == [] and record["provenance"]["timm"] and len(record["families"]) > 50
    for row in record["families"].values():
        assert row["models"] >= 1 and set(row["containing"]) <= kinds
        assert set(row["norms"] or ["none"]) <= set(row["containing"])
        assert max(row["containing"].values()) <= row["models"] <= sum(row["containing"].values())
