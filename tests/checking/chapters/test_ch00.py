"""The checkers of chapter 0: what they accept, what they refuse, and what they say of a stub."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook.checking import check
from bnbook.checking.chapters.ch00 import gradients


def _softmax(z):
    p = np.exp(z - z.max())
    return p / p.sum()


def _layer_backward(g, x, weight, bias):
    g = g * (x @ weight.T + bias > 0)
    return g @ weight, g.T @ x, g.sum(axis=0)


def _in_place(g, x, weight, bias):
    g *= x @ weight.T + bias > 0
    return g @ weight, g.T @ x, g.sum(axis=0)


ANSWERS = {
    "correct": [-0.5, 0.5],
    "sum": [-2, 2],
    "uphill": [0.5, -0.5],
    "wrong axis": [-0.75, 0.25],
    "no truth": [0.5, 0.5],
}


def _diagnose(gradient):
    got = gradient(np.ones((4, 1)), np.zeros(4, dtype=int), np.zeros((2, 1)))[:, 0]
    return next(name for name, expected in ANSWERS.items() if np.allclose(got, expected))


def _one_example(gradient):
    """With one example a mean and a sum are the same."""
    got = gradient(np.ones((1, 1)), np.zeros(1, dtype=int), np.zeros((2, 1)))[:, 0]
    return "correct" if np.allclose(got, [-0.5, 0.5]) else _diagnose(gradient)


RIGHT = {
    "ch00.grad_logits": [lambda z, q: _softmax(z) - q],
    "ch00.layer_backward": [_layer_backward, lambda *arrays: list(_layer_backward(*arrays))],
    "ch00.largest_rate": [lambda a: 2 / np.max(a), lambda a: 2 / np.array(max(a))],
    "ch00.diagnose": [_diagnose],
}

WRONG = {
    "ch00.grad_logits": [
        lambda z, q: q - _softmax(z),
        lambda z, q: _softmax(z) - np.eye(len(q))[q.argmax()],
        lambda z, q: _softmax(z),
        lambda z, q: (_softmax(z) - q) / len(z),
        lambda z, q: 0,
    ],
    "ch00.layer_backward": [
        lambda g, x, weight, bias: (g @ weight, g.T @ x, g.sum(axis=0)),  # no ReLU
        lambda g, x, weight, bias: _layer_backward(g, x, weight, 0 * bias),  # a mask without the bias
        lambda g, x, weight, bias: _layer_backward(g, x, weight, bias)[::-1],
        lambda g, x, weight, bias: (*_layer_backward(g, x, weight, bias)[:2], g.mean(axis=0)),
        lambda g, x, weight, bias: _layer_backward(g, x, weight, bias)[:2],
        _in_place,
    ],
    "ch00.largest_rate": [
        lambda a: 1 / np.max(a),
        lambda a: 2 / np.min(a),
        lambda a: 2 / np.mean(a),
        lambda a: 2 / np.linalg.norm(a),
        lambda a: 2.0,
        lambda a: -1.0,
        lambda a: "small",
    ],
    "ch00.diagnose": [lambda gradient: "correct", _one_example, lambda gradient: None, lambda gradient: "wrong"],
}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda *arrays: _layer_backward(*arrays)[::-1], "in this order"),
        (lambda *arrays: [array.T for array in _layer_backward(*arrays)], "It is transposed."),
        (lambda g, x, weight, bias: (g @ weight, g.T @ x, g.sum(axis=0)), "The ReLU is missing"),
    ],
)
def test_layer_backward_says_what_is_wrong(answer, told: str) -> None:
    assert told in check("ch00.layer_backward", answer).message


def test_gradients_differ() -> None:
    rng = np.random.default_rng(0)
    x, target, weight = rng.normal(size=(6, 4)), rng.integers(3, size=6), rng.normal(size=(3, 4))
    found = [gradient(x, target, weight) for gradient in gradients().values()]
    assert all(not np.allclose(a, b) for i, a in enumerate(found) for b in found[:i])
