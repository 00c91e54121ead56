"""The checkers of chapter 7: what they accept, what they refuse, and what they say of a stub."""

from __future__ import annotations

import numpy as np

from bnbook.checking.chapters.ch07 import convolutions, tie_rules
from bnbook.functional import conv2d


def _covering(i, length, kernel, stride, padding):
    count = (length + 2 * padding - kernel) // stride + 1
    first = max(-((kernel - 1 - i - padding) // stride), 0)
    return max(min((i + padding) // stride, count - 1) - first + 1, 0)


def _covering_beyond_the_end(i, length, kernel, stride, padding):
    first = max(-((kernel - 1 - i - padding) // stride), 0)
    return max((i + padding) // stride - first + 1, 0)


def _shifted(x, weight):
    kh, kw = weight.shape[2:]
    h, w = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    return sum(
        np.einsum("fc,nchw->nfhw", weight[:, :, u, v], x[:, :, u : u + h, v : v + w]) for u, v in np.ndindex(kh, kw)
    )


def _in_place(x, weight):
    y = _shifted(x, weight)
    x *= 0
    return y


def _diagnose(conv):
    x = np.zeros((1, 2, 5, 5))
    x[0, 0, 2, 2] = 1
    weight = np.arange(1.0, 19.0).reshape(1, 2, 3, 3)
    turned = weight[0, 0, ::-1, ::-1]
    y = conv(x, weight, 1, 0)[0, 0]
    if np.array_equal(y, turned[::-1, ::-1]):
        return "flipped"
    if np.array_equal(y, turned.T):
        return "transposed"
    if not conv(x[:, ::-1].copy(), weight, 1, 0).any():
        return "one channel"
    border = conv(np.ones_like(x), weight, 1, 1)[0, 0]
    return "edge" if border[0, 0] == border[2, 2] else "correct"


def _without_padding(conv):
    return "correct" if (name := _diagnose(conv)) == "edge" else name


def _symmetric_kernel(conv):
    """A kernel that looks the same turned and transposed cannot tell."""
    name = _diagnose(conv)
    return "correct" if name in ("flipped", "transposed") else name


def _tie_rule(pool_backward):
    grad = pool_backward(np.array([[[[0.0, 5.0], [5.0, 0.0]]]]), np.ones((1, 1, 1, 1)))[0, 0]
    if grad.sum() == 2:
        return "all"
    if grad[0, 1] == grad[1, 0]:
        return "split"
    return "first" if grad[0, 1] == 1 else "first column"


def _corner_tie(pool_backward):
    """A tie along a row is the same for both orders."""
    grad = pool_backward(np.array([[[[5.0, 5.0], [0.0, 0.0]]]]), np.ones((1, 1, 1, 1)))[0, 0]
    if grad.sum() == 2:
        return "all"
    return "split" if grad[0, 0] == 0.5 else "first"


RIGHT = {
    "ch07.covering": [_covering],
    "ch07.shifted": [_shifted, lambda x, weight: conv2d(x, weight)[0]],
    "ch07.blind": [
        np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
        [[1, 1, 1], [1, -8, 1], [1, 1, 1]],
        1e6 * np.array([[1, 2, 1], [2, -12, 2], [1, 2, 1]]),
    ],
    "ch07.diagnose": [_diagnose],
    "ch07.tie_rule": [_tie_rule],
}

WRONG = {
    "ch07.covering": [
        _covering_beyond_the_end,
        lambda i, length, kernel, stride, padding: -(-kernel // stride),
        lambda i, length, kernel, stride, padding: _covering(i, length, kernel, stride, 0),
        lambda i, length, kernel, stride, padding: _covering(i, length, kernel, 1, padding),
    ],
    "ch07.shifted": [
        lambda x, weight: _shifted(x, weight[:, :, ::-1, ::-1]),
        lambda x, weight: _shifted(x[:, :1], weight[:, :1]),
        lambda x, weight: _shifted(x, weight) + 1e-6,
        lambda x, weight: _shifted(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), weight),
        _in_place,
    ],
    "ch07.blind": [
        np.zeros((3, 3)),
        np.eye(3),
        [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],  # sees slopes
        [[0, 0, 0], [1, -2, 1], [0, 0, 0]],  # blind to level edges
        [[1, -2, 1], [-2, 4, -2], [1, -2, 1]],  # blind to both edges
        [[1, 0, -1], [0, 0, 0], [-1, 0, 1]],
        np.ones((2, 2)),
        "a Laplacian",
    ],
    "ch07.diagnose": [lambda conv: "correct", _without_padding, _symmetric_kernel, lambda conv: 1],
    "ch07.tie_rule": [lambda pool: "first", _corner_tie, lambda pool: "last", lambda pool: ["first"]],
}


def test_black_boxes_differ() -> None:
    """On one input with padding and a stride every convolution, and on ties every backward pass, is another."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 3, 6, 6)), rng.normal(size=(2, 3, 3, 3))
    outputs = [conv(x, weight, 2, 1) for conv in convolutions().values()]
    x, g = rng.integers(0, 2, size=(2, 3, 6, 8)).astype(float), rng.normal(size=(2, 3, 3, 4))
    gradients = [backward(x, g) for backward in tie_rules().values()]
    for boxes in (outputs, gradients):
        assert all(not np.allclose(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
