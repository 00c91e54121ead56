"""The table of conventions against what the book says, and the momentum converter.

When a test of the table fails, a framework has changed its mind: the page to look at is book/conventions.ipynb, and
chapter 9 for the reasons. The table itself is measured; that it can see a change is tested with frameworks that differ.
"""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbook import interop, nn

torch, onnx = pytest.importorskip("torch"), pytest.importorskip("onnx")
_conventions = importlib.import_module("bnbook.interop.conventions")  # the package has a function of that name
tf = pytest.importorskip("bnbook.models.keras_cnn", reason="TensorFlow is not installed").tf

BIASED, UNBIASED = "biased, 1/m", "unbiased, 1/(m−1)"
STAY = "running statistics normalize, running ones stay"
MOVE = "batch statistics normalize, running ones move"

BUFFERS = "running_mean, running_var, num_batches_tracked"

# eps, momentum, what it weighs, running variance, initial statistics, one value per channel, channel axis, names of
# what is learned and of the statistics, mode, freezing
SAID = {
    "bnbook": (
        *("1e-05", "0.1", "new", UNBIASED, "0 and 1", "ValueError", "1", "weight, bias", BUFFERS, "train(), eval()"),
        f"eval(): {STAY}",
    ),
    "PyTorch": (
        *("1e-05", "0.1", "new", UNBIASED, "0 and 1", "ValueError", "1", "weight, bias", BUFFERS, "train(), eval()"),
        f"requires_grad_(False): {MOVE}; eval(): {STAY}",
    ),
    "Keras layer": (
        *("0.001", "0.99", "old", BIASED, "0 and 1", "zeros", "3 (the last)"),
        *("gamma, beta", "moving_mean, moving_variance", "training=", f"trainable=False: {STAY}"),
    ),
    "TensorFlow's fused operation": (
        *("0.0001", "1", "new", UNBIASED, "the caller's", "zeros", "3 (the last)"),
        *("scale, offset", "mean, variance", "is_training=", f"is_training=False: {STAY}"),
    ),
    "ONNX's reference": (
        *("1e-05", "0.9", "old", BIASED, "the caller's", "zeros", "1"),
        *("scale, B", "input_mean, input_var", "training_mode=", f"training_mode=0: {STAY}"),
    ),
}


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return {row["framework"]: row for row in interop.conventions()}


@pytest.mark.parametrize("framework", SAID)
def test_the_frameworks_are_as_the_book_says(table, framework):
    row = table[framework]
    assert tuple(row) == _conventions.COLUMNS
    for column, said in zip(_conventions.COLUMNS[2:], SAID[framework], strict=True):
        assert row[column] == said, (
            f"{framework} {row['version']} has changed its mind: {column} is {row[column]!r}, the book says {said!r}; "
            "look at book/conventions.ipynb and chapter 9"
        )


def test_every_framework_is_there_with_its_version(table):
    assert list(table) == list(SAID)
    assert table["PyTorch"]["version"] == torch.__version__.partition("+")[0]
    assert table["Keras layer"]["version"] == tf.keras.__version__
    assert table["TensorFlow's fused operation"]["version"] == tf.__version__
    assert table["ONNX's reference"]["version"] == onnx.__version__


def test_what_momentum_weighs_is_what_the_converter_believes(table):
    for name, (title, _) in _conventions.FRAMEWORKS.items():
        assert table[title]["momentum weighs"] == _conventions.WEIGHS[name]


# --- the measurement sees a change ------------------------------------------------------------------------------------


class Other(nn.BatchNorm2d):
    """A framework of another mind: a biased variance, the old value weighed, the last axis, and eval() forgotten."""

    ndims, layout = (2, 4), "(N, *, C)"

    def __init__(self, num_features, eps=0.5, momentum=0.25):
        super().__init__(num_features, eps, momentum, dtype=np.float32)
        self.running_mean[...] = 2

    def forward(self, x):
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        self.running_mean[...] = self.momentum * self.running_mean + (1 - self.momentum) * mean
        self.running_var[...] = self.momentum * self.running_var + (1 - self.momentum) * var
        with np.errstate(invalid="ignore"):
            return (x - mean) / np.sqrt(var) if len(x) == 1 else (x - mean) / np.sqrt(var + self.eps)


class OtherModule:
    BatchNorm1d = BatchNorm2d = Other


def test_a_framework_of_another_mind_gets_another_row(monkeypatch):
    def other():
        return _conventions._modules(OtherModule, "9", np.asarray, np.copy, {"eval()": lambda layer: layer.eval()})

    monkeypatch.setattr(_conventions, "FRAMEWORKS", {"other": ("Other", other)})
    (row,) = interop.conventions()
    assert tuple(row.values()) == (
        *("Other", "9", "0.5", "0.25", "old", BIASED, "2 and 1", "nan", "3 (the last)"),
        *("weight, bias", BUFFERS, "train(), eval()"),
        f"eval(): {MOVE}",
    )


@pytest.mark.parametrize(
    ("step", "column", "expected"),
    [
        (lambda x, mean, var, momentum: (x, mean, var), "momentum weighs", "neither"),
        (lambda x, mean, var, momentum: (x, mean + 0.25 * (x.mean(0) - mean), 2 * var), "running variance", "neither"),
        (lambda x, mean, var, momentum: (x, mean, var), "one value per channel", "other values"),
        (lambda x, mean, var, momentum: (x, mean, var), "channel axis", ""),
    ],
)
def test_what_no_framework_does_is_said_too(monkeypatch, step, column, expected):
    made = _conventions.Framework("9", 1.0, 1.0, None, step, {})
    monkeypatch.setattr(_conventions, "FRAMEWORKS", {"odd": ("Odd", lambda: made)})
    with np.errstate(all="ignore"):
        assert interop.conventions()[0][column] == expected


@pytest.mark.long
@pytest.mark.parametrize("missing", ["torch", "tensorflow", "onnx"])
def test_what_is_not_installed_is_named(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from bnbook import interop
for row in interop.conventions():
    print(row["framework"], "|", row["version"], "|", row["eps"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    lines = [line.split(" | ") for line in run.stdout.splitlines()]
    absent = [name for name, version, eps in lines if version == f"not installed: {missing}" and eps == "–"]
    assert len(lines) == len(SAID)
    assert (
        absent
        == {
            "torch": ["PyTorch"],
            "tensorflow": ["Keras layer", "TensorFlow's fused operation"],
            "onnx": ["ONNX's reference"],
        }[missing]
    )


# --- momentum ---------------------------------------------------------------------------------------------------------

FRAMEWORK = st.sampled_from(sorted(_conventions.WEIGHS))
MOMENTUM = st.floats(0, 1)


@given(MOMENTUM, FRAMEWORK, FRAMEWORK)
def test_there_and_back(momentum, source, target):
    there = interop.convert_momentum(momentum, source, target)
    assert 0 <= there <= 1
    assert interop.convert_momentum(there, target, source) == pytest.approx(momentum, abs=2e-15)


@given(MOMENTUM, FRAMEWORK, FRAMEWORK)
def test_what_weighs_the_same_value_has_the_same_momentum(momentum, source, target):
    same = _conventions.WEIGHS[source] == _conventions.WEIGHS[target]
    expected = momentum if same else pytest.approx(1 - momentum, abs=1e-15)
    assert interop.convert_momentum(momentum, source, target) == expected


@given(st.integers(0, 10**6))
def test_decimals_come_back_as_they_were_written(millionths):
    momentum = millionths / 10**6
    there = interop.convert_momentum(momentum, "keras", "torch")
    assert there == (10**6 - millionths) / 10**6
    assert interop.convert_momentum(there, "torch", "keras") == momentum


@given(MOMENTUM, st.floats(-3, 3), st.floats(-3, 3))
def test_the_same_step_in_both_words(momentum, old, new):
    weight = interop.convert_momentum(momentum, "keras", "torch")
    assert (1 - weight) * old + weight * new == pytest.approx(momentum * old + (1 - momentum) * new, abs=1e-13)


@given(st.floats(1e-3, 1e6))
def test_half_life_there_and_back(steps):
    momentum = interop.momentum_of_half_life(steps)
    assert 0 < momentum <= 1
    if momentum < 1:
        assert interop.half_life(momentum) == pytest.approx(steps, rel=1e-6 if steps > 0.05 else 0.1)


@given(st.floats(1e-4, 0.999))
def test_after_its_half_life_half_is_left(momentum):
    assert (1 - momentum) ** interop.half_life(momentum) == pytest.approx(0.5, rel=1e-9)
    assert interop.half_life(momentum) == pytest.approx(math.log(0.5) / math.log(1 - momentum), rel=1e-9)


def test_half_life_by_counting():
    """A layer whose running mean starts at 1 and sees batches of mean 0."""
    steps = 10
    layer = nn.BatchNorm1d(1, momentum=interop.momentum_of_half_life(steps), dtype=np.float64)
    layer.running_mean[...] = 1
    for _ in range(steps):
        layer(np.array([[-1.0], [1.0]]))
    assert layer.running_mean[0] == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: interop.convert_momentum(1.5, "torch", "keras"), ValueError, "momentum must be from 0 to 1, got 1.5"),
        (lambda: interop.convert_momentum(-0.1, "torch", "torch"), ValueError, "momentum must be at least 0, got -0.1"),
        (lambda: interop.convert_momentum(math.nan, "torch", "keras"), ValueError, "momentum must be finite"),
        (lambda: interop.convert_momentum("0.9", "torch", "keras"), TypeError, "momentum must be a number, got str"),
        (
            lambda: interop.convert_momentum(None, "torch", "keras"),
            TypeError,
            "momentum must be a number, got NoneType",
        ),
        (
            lambda: interop.convert_momentum(0.1, "tensorflow", "torch"),
            ValueError,
            "source must be one of 'bnbook'.*'ten",
        ),
        (lambda: interop.convert_momentum(0.1, "torch", "flax"), ValueError, "target must be one of 'bnbook'.*'flax'"),
        (lambda: interop.half_life(0), ValueError, "momentum must be greater than 0, got 0"),
        (lambda: interop.half_life(1), ValueError, "momentum must be less than 1, got 1"),
        (lambda: interop.momentum_of_half_life(0), ValueError, "steps must be greater than 0, got 0"),
    ],
)
def test_what_is_no_momentum(call, error, words):
    with pytest.raises(error, match=words):
        call()
