"""The checkers of chapter 15 accept the solutions and refuse wrong answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnbook.checking.chapters import ch15
from bnbook.checking.chapters.ch15 import REASONS, report
from bnbook.experiments.protocol import scores


def binned(probabilities, labels, bins):
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, right - confidence, minlength=bins)
    return np.abs(gaps).sum() / len(labels)


def bins_alike(probabilities, labels, bins):
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return np.mean([abs((right - confidence)[which == k].mean()) for k in set(which)])


def without_the_last_edge(probabilities, labels, bins):
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    gaps = np.bincount((confidence * bins).astype(int), right - confidence, minlength=bins)
    return np.abs(gaps[:bins]).sum() / len(labels)


def of_the_right_class(probabilities, labels, bins):
    p = probabilities[np.arange(len(labels)), labels]
    which = np.minimum((p * bins).astype(int), bins - 1)
    return np.abs(np.bincount(which, (probabilities.argmax(axis=1) == labels) - p)).sum() / len(labels)


def differences(report):
    return {part: np.mean(report["with BN"][part] - report["without BN"][part]) for part in ("train", "test")}


def reason(report):
    difference = differences(report)
    if difference["test"] <= 0.005:
        return "no gain"
    return "fits better" if difference["train"] > 0.005 else "regularizes"


def by_the_gap(report):
    """Calls it regularization wherever training and test lie closer together."""
    difference = differences(report)
    if difference["test"] > difference["train"]:
        return "regularizes"
    return "fits better" if difference["test"] > 0.005 else "no gain"


RIGHT = {
    "ch15.noise": lambda z, m: np.sqrt((1 + z**2 / 2) / m),
    "ch15.calibration_error": binned,
    "ch15.overturn": lambda: {"weight_decay": 0.01},
    "ch15.reason": reason,
}
WRONG = {
    "ch15.noise": {
        "the mean alone": lambda z, m: 1 / np.sqrt(m),
        "a variance": lambda z, m: (1 + z**2 / 2) / m,
        "deviations added": lambda z, m: (1 + abs(z) / np.sqrt(2)) / np.sqrt(m),
        "the variance's noise": lambda z, m: np.sqrt((1 + 2 * z**2) / m),
        "half of the noise": lambda z, m: np.sqrt((1 + z**2) / m),
        "a text": lambda z, m: "1/√m",
    },
    "ch15.calibration_error": {
        "bins count alike": bins_alike,
        "the last edge lost": without_the_last_edge,
        "of the right class": of_the_right_class,
        "no bins": lambda p, y, bins: abs((p.argmax(axis=1) == y).mean() - p.max(axis=1).mean()),
        "every example": lambda p, y, bins: np.abs((p.argmax(axis=1) == y) - p.max(axis=1)).mean(),
        "another number of bins": lambda p, y, bins: binned(p, y, 3),
    },
    "ch15.overturn": {
        "nothing changed": lambda: {"lr": 0.1},
        "a higher rate": lambda: {"lr": 0.3},
        "decay without end": lambda: {"weight_decay": 1.0},
        "two settings": lambda: {"lr": 0.01, "weight_decay": 0.01},
        "another setting": lambda: {"ghost": 4},
        "all dropped": lambda: {"dropout": 1.0},
        "negative": lambda: {"weight_decay": -0.01},
        "no dictionary": lambda: 0.01,
    },
    "ch15.reason": {
        **{f"always {word}": lambda report, word=word: word for word in REASONS},
        "by the gap": by_the_gap,
        "test alone": lambda report: "regularizes" if differences(report)["test"] > 0.005 else "no gain",
        "training alone": lambda report: "fits better" if differences(report)["train"] > 0.005 else "regularizes",
        "other words": lambda report: "noise",
    },
}


@pytest.mark.parametrize("word", REASONS)
def test_a_report_has_the_reason_that_was_asked_for(word):
    assert {reason(report(np.random.default_rng(seed), word)) for seed in range(200)} == {word}


def test_the_calibration_error_is_that_of_the_experiments():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 5)) * 2, rng.integers(0, 5, 300)
    probabilities = torch.softmax(torch.from_numpy(logits), 1).numpy()
    expected = scores(torch.from_numpy(logits), torch.from_numpy(labels), bins=15).calibration_error
    assert ch15.error(probabilities, labels, 15) == pytest.approx(expected)


def test_the_formula_is_what_a_simulation_gives():
    rng = np.random.default_rng(0)
    for z in (0.0, 2.0):
        x = rng.normal(size=(20_000, 100))
        x[:, 0] = z
        spread = ((z - x.mean(axis=1)) / x.std(axis=1)).std()
        assert spread == pytest.approx(RIGHT["ch15.noise"](z, 100), rel=0.03)


@pytest.mark.long
def test_the_verdict_on_the_loss_stands_before_the_change():
    with_bn, without = ch15.scores("batch", 7), ch15.scores("none", 7)
    assert with_bn.loss < without.loss - 0.05
