"""The checkers of chapter 21 accept the solutions and reject what only looks like one."""

import numpy as np
import pytest

from bnbook.checking import check
from bnbook.checking.chapters.ch21 import FAULTS, layer, rounded


def merge(a, b, add=lambda m_a, m_b, m, d: d * d * (m_a * m_b / m)):
    (m_a, mean_a, M_a), (m_b, mean_b, M_b) = a, b
    m, d = m_a + m_b, mean_b - mean_a
    return m, mean_a + d * (m_b / m), M_a + M_b + add(m_a, m_b, m, d)


def merge_by_squares(a, b):
    """Right on paper: Σx² and Σx of both."""
    m = a[0] + b[0]
    mean = (a[0] * a[1] + b[0] * b[1]) / m
    squares = sum(M + m_ * mean_**2 for m_, mean_, M in (a, b))
    return m, mean, squares - m * mean**2


def merge_means_alike(a, b):
    m, _, M = merge(a, b)
    return m, (a[1] + b[1]) / 2, M


def stop(alpha, digits, store=rounded, factor=1.0):
    average = 0.0
    for _ in range(100_000):
        moved = float(store(average + factor * alpha * (1 - average), digits))
        if moved == average:
            break
        average = moved
    return average


def stop_closed(alpha, digits):
    """The first number on the grid from which a move is at most half of the distance to the next."""
    for exponent in range(-60, 0):
        half = 2.0 ** (exponent - digits)
        grid = np.arange(2.0**exponent, 2.0 ** (exponent + 1), 2 * half)
        still = grid[alpha * (1 - grid) <= half]
        if len(still):
            return still[0]
    return 1.0


def cut(x, digits):
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.floor(np.ldexp(fraction, digits)), exponent - digits)


def diagnose(layer, *, far=1e4, large=1e5, constant=10000.1):
    x = np.random.default_rng(0).normal(size=(1000, 1)).astype(np.float32)
    with np.errstate(all="ignore"):
        if not np.isfinite(layer(0 * x)).all():
            return "eps in float16"
        if not np.isfinite(layer(np.float32(large) * x)).all():
            return "stored in float16"
        if not abs(layer(x + np.float32(far)).std() - 1) < 0.1:
            return "one pass"
        made_up = np.abs(layer(np.full_like(x, constant))).max()
    return "rounded mean" if made_up > 0.01 else "correct"


RIGHT = {
    "ch21.farthest": [lambda p, error: np.sqrt(error * 2.0**p - 1), lambda p, error: np.sqrt(error * 2.0**p)],
    "ch21.worst": [lambda m: m, lambda m: 1 + np.sqrt(m - 1) ** 2],
    "ch21.merge": merge,
    "ch21.stop": [stop, stop_closed],
    "ch21.diagnose": diagnose,
}

WRONG = {
    "ch21.farthest": {
        "the square": lambda p, error: error * 2.0**p,
        "eps for u": lambda p, error: np.sqrt(error * 2.0 ** (p - 1)),
        "all digits": lambda p, error: np.sqrt(2.0**p),
        "as if once": lambda p, error: error * 2.0**p / 2,
        "float32 alone": lambda p, error: np.sqrt(error * 2.0**24),
    },
    "ch21.worst": {
        "without 1": lambda m: m - 1,
        "the bound itself": lambda m: np.sqrt(m - 1),
        "not squared": lambda m: np.sqrt(m),
        "one too many": lambda m: m + 1,
        "constant": lambda m: 2.0,
    },
    "ch21.merge": {
        "nothing between": lambda a, b: merge(a, b, lambda m_a, m_b, m, d: 0),
        "no factor": lambda a, b: merge(a, b, lambda m_a, m_b, m, d: d * d),
        "divided twice": lambda a, b: merge(a, b, lambda m_a, m_b, m, d: d * d * m_a * m_b / m**2),
        "one side": lambda a, b: merge(a, b, lambda m_a, m_b, m, d: d * d * m_b),
        "squares": merge_by_squares,
        "means alike": merge_means_alike,
        "two things": lambda a, b: merge(a, b)[:2],
        "a variance": lambda a, b: (*merge(a, b)[:2], merge(a, b)[2] / (a[0] + b[0])),
    },
    "ch21.stop": {
        "exact": lambda alpha, digits: 1.0,
        "towards zero": lambda alpha, digits: stop(alpha, digits, cut),
        "bfloat16 alone": lambda alpha, digits: stop(alpha, 8),
        "one digit more": lambda alpha, digits: stop(alpha, digits + 1),
        "half a step": lambda alpha, digits: stop(alpha, digits, factor=0.5),
        "one step": lambda alpha, digits: float(rounded(alpha, digits)),
        "one power of two": lambda alpha, digits: 1 - 2.0**-digits / 2 / alpha,
    },
    "ch21.diagnose": {
        **{f"always {fault}": lambda given, fault=fault: fault for fault in FAULTS},
        "too near": lambda given: diagnose(given, far=10),
        "too small": lambda given: diagnose(given, large=10),
        "a constant that is exact": lambda given: diagnose(given, constant=1.0),
        "no name": lambda given: "float16",
    },
}


def test_the_layers_differ_where_they_should_and_nowhere_else():
    x = np.random.default_rng(0).normal(2, 3, (500, 4)).astype(np.float32)
    for fault in FAULTS:
        np.testing.assert_allclose(layer(fault, x), layer("correct", x), atol=0.01)


@pytest.mark.parametrize("digits", [8, 11, 24])
def test_rounding_is_that_of_the_formats(digits):
    x = np.random.default_rng(0).uniform(0.01, 100, 1000).astype(np.float32)
    x = np.concatenate([x, -x, [0.0, 1.0, 1 + 3 * 2.0**-9, 1 + 2.0**-9, 1 + 2.0**-8]])  # and ties
    if digits == 24:
        expected = x.astype(np.float32)
    elif digits == 11:
        expected = x.astype(np.float16)
    else:
        torch = pytest.importorskip("torch")
        expected = torch.tensor(x.astype(np.float32)).bfloat16().double().numpy()
    np.testing.assert_array_equal(rounded(x, digits), expected)


def test_mistakes_are_named():
    message = check("ch21.merge", WRONG["ch21.merge"]["squares"]).message
    assert "only the difference of the means may be squared" in message
    assert "distance of the means is missing" in check("ch21.merge", WRONG["ch21.merge"]["nothing between"]).message
    assert "not towards zero" in check("ch21.stop", WRONG["ch21.stop"]["towards zero"]).message
