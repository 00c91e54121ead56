"""Checkers of chapter 7, convolution and pooling as matrices."""

from __future__ import annotations

import numpy as np

from ...functional import conv2d, max_pool2d, max_pool2d_backward
from ..exercises import Wrong, checker, recognized, same


@checker("ch07.covering")
def covering(answer, rng) -> None:
    """`answer(i, length, kernel, stride, padding)` is the number of windows that cover pixel i along one axis."""

    def count(i, length, kernel, stride, padding):
        starts = range(-padding, length + padding - kernel + 1, stride)
        return sum(start <= i < start + kernel for start in starts)

    def endless(i, length, kernel, stride, padding, first=None, last=None):
        """The number as if windows went on, before the first one or behind the last one."""
        begin, end = -(-(i + padding - kernel + 1) // stride), (i + padding) // stride
        return max(min(end, end if last is None else last) - max(begin, begin if first is None else first) + 1, 0)

    cases = []
    for _ in range(60):
        kernel = int(rng.integers(1, 7))
        length = int(rng.integers(kernel, 20))
        i = int(rng.choice([0, length - 1, rng.integers(length)]))
        cases.append((i, length, kernel, int(rng.integers(1, 6)), int(rng.integers(0, 4))))
    answers, expected = [answer(*case) for case in cases], [count(*case) for case in cases]
    mistakes = {
        "There are only H' windows: none before the first, none behind the last.": [endless(*case) for case in cases],
        "No window stands behind the last one.": [endless(*case, first=0) for case in cases],
        "No window stands before the first one.": [
            endless(i, n, k, s, p, last=(n + 2 * p - k) // s) for i, n, k, s, p in cases
        ],
        "Pixel i stands at i + p once the border is there.": [count(*case[:4], 0) for case in cases],
        "That is the number of all windows.": [(n + 2 * p - k) // s + 1 for _, n, k, s, p in cases],
        "Near the ends there are fewer, and where k is no multiple of s sometimes.": [
            -(-k // s) for _, _, k, s, _ in cases
        ],
    }
    for got, right, (i, length, kernel, stride, padding) in zip(answers, expected, cases, strict=True):
        if got != right:
            hint = recognized(
                answers,
                mistakes,
                "The last window starts at or before i + p, the first one no more than k − 1 pixels before it; "
                "and there are only H' windows.",
            )
            raise Wrong(
                f"For i = {i}, length = {length}, kernel = {kernel}, stride = {stride}, padding = {padding} the answer "
                f"is {got}, expected {right}. {hint}"
            )


@checker("ch07.shifted", name="conv2d_shifted")
def shifted(answer, rng) -> None:
    """`answer(x, weight)` is the convolution for stride 1 and no padding."""
    for n, c, f, h, w, kh, kw in ((2, 3, 4, 6, 5, 3, 2), (1, 1, 2, 4, 7, 1, 3), (3, 2, 1, 5, 5, 5, 5)):
        x, weight = rng.normal(size=(n, c, h, w)), rng.normal(size=(f, c, kh, kw))
        others = convolutions()
        same(
            answer(x, weight),
            conv2d(x, weight)[0],
            f"The output for x of shape {x.shape} and weight of shape {weight.shape}",
            tol=1e-10,
            hint="The kernel's weight (u, v) multiplies the image shifted up by u and left by v.",
            mistakes={
                "The kernel is flipped: shift the image the other way.": others["flipped"](x, weight, 1, 0),
                "u and v are exchanged.": others["transposed"](x, weight, 1, 0),
                "Add up all channels of the input.": others["one channel"](x, weight, 1, 0),
                "That is the output for a padded image.": others["correct"](x, weight, 1, (kh // 2, kw // 2)),
            },
        )


@checker("ch07.blind", name="kernel_blind_to_slopes", value=True)
def blind(answer, rng) -> None:
    """`answer` is a 3×3 kernel that answers zero to planes, and not to a spot or to an edge."""
    try:
        kernel = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        raise Wrong(f"The answer should be a 3×3 array of numbers, got {type(answer).__name__}.") from None
    if kernel.shape != (3, 3) or not np.isfinite(kernel).all():
        raise Wrong(f"The answer should be a 3×3 array of finite numbers, got shape {kernel.shape}.")
    size = np.abs(kernel).max()
    if size == 0:
        raise Wrong("This kernel is blind to everything.")

    def response(image):
        return conv2d(image[None, None], kernel[None, None] / size)[0]

    i, j = np.mgrid[:7, :7]
    for _ in range(5):
        a, b, c = rng.normal(size=3)
        if np.abs(response(a + b * i + c * j)).max() > 1e-9 * (1 + 6 * abs(b) + 6 * abs(c) + abs(a)):
            raise Wrong(f"It does not answer zero to the slope {a:.2f} + {b:.2f} i + {c:.2f} j.")
    for name, edge in (("an upright", j > 3), ("a level", i > 3)):
        if np.abs(response(edge.astype(float))).max() < 1e-6:
            raise Wrong(f"It is blind to {name} edge between dark and bright as well.")
    spot = np.zeros((7, 7))
    spot[3, 3] = 1
    if abs(response(spot)[0, 0, 2, 2]) < 1e-6:
        raise Wrong("Centred on a single bright pixel it answers zero.")


def convolutions() -> dict:
    """The convolution that is right, and four that are not."""

    def edge(x, weight, stride, padding):
        p = padding
        return conv2d(np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), mode="edge"), weight, None, stride)[0]

    return {
        "correct": lambda x, weight, stride, padding: conv2d(x, weight, None, stride, padding)[0],
        "flipped": lambda x, weight, stride, padding: conv2d(x, weight[:, :, ::-1, ::-1], None, stride, padding)[0],
        "transposed": lambda x, weight, stride, padding: conv2d(x, weight.swapaxes(2, 3), None, stride, padding)[0],
        "one channel": lambda x, weight, stride, padding: conv2d(x[:, :1], weight[:, :1], None, stride, padding)[0],
        "edge": edge,
    }


@checker("ch07.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(conv)` names what a convolution (x, weight, stride, padding) → y does."""
    _named(answer, convolutions(), rng, "convolution")


def _first(x, grad_y):
    return max_pool2d_backward(grad_y, max_pool2d(x, 2)[1])


def _first_column(x, grad_y):
    return _first(x.swapaxes(2, 3), grad_y.swapaxes(2, 3)).swapaxes(2, 3)


def _winners(x):
    spread = max_pool2d(x, 2)[0].repeat(2, axis=2).repeat(2, axis=3)
    return (x == spread).astype(x.dtype)


def _all(x, grad_y):
    return _winners(x) * grad_y.repeat(2, axis=2).repeat(2, axis=3)


def _split(x, grad_y):
    n, c, h, w = x.shape
    counts = _winners(x).reshape(n, c, h // 2, 2, w // 2, 2).sum(axis=(3, 5))
    return _all(x, grad_y / counts)


def tie_rules() -> dict:
    """Four backward passes of 2×2 max pooling, which differ at ties only."""
    return {"first": _first, "first column": _first_column, "all": _all, "split": _split}


@checker("ch07.tie_rule")
def tie_rule(answer, rng) -> None:
    """`answer(pool_backward)` names the rule of a backward pass (x, grad_y) → grad_x of 2×2 max pooling."""
    _named(answer, tie_rules(), rng, "backward pass")


def _named(answer, known: dict, rng, kind: str) -> None:
    """Raise `Wrong` unless `answer` gives every black box its name, in an order of which nothing can be learned."""
    for name in rng.permutation(list(known) * 3):
        got = answer(known[str(name)])
        if not isinstance(got, str) or got not in known:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, known))}.")
        if got != name:
            raise Wrong(f"A {kind} that is {str(name)!r} was called {got!r}.")
