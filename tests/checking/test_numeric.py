"""The references themselves: numeric gradients and the measure of differences."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook.checking.compare import Difference, differences, largest, max_difference, table
from bnbook.checking.numeric import numeric_gradient
from tests.references import generator


def test_numeric_gradient_of_known_functions():
    x, g = generator("x").normal(size=(3, 4)), generator("g").normal(size=(2, 4))
    a = generator("a").normal(size=(2, 3))
    kept = x.copy()
    np.testing.assert_allclose(numeric_gradient(lambda v: a @ v, x, g), a.T @ g, rtol=1e-9)
    np.testing.assert_allclose(numeric_gradient(lambda v: (v**3).sum(), x), 3 * x**2, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(numeric_gradient(np.sin, x.astype(np.float32), x), x * np.cos(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(x, kept)


def test_numeric_gradient_gives_the_function_its_own_copy():
    def in_place(v):
        v *= 2
        return v.sum()

    np.testing.assert_allclose(numeric_gradient(in_place, np.ones(3)), 2 * np.ones(3), rtol=1e-9)


def test_numeric_gradient_asks_for_an_upstream_gradient():
    with pytest.raises(ValueError, match=r"grad_y is None, but f\(x\) has shape \(3,\)"):
        numeric_gradient(np.sin, np.ones(3))
    with pytest.raises(ValueError, match=r"grad_y has shape \(1,\), expected \(3,\)"):
        numeric_gradient(np.sin, np.ones(3), np.ones(1))


def test_max_difference():
    a, b = np.array([1.0, 2.0, 4.1]), np.array([1.0, -2.0, 4.0])
    assert max_difference(a, b) == 1.0
    assert max_difference(a, b, scale=8.0) == 0.5
    assert max_difference(a, b, scale=2.0) == 1.0  # never less than max|b|
    assert max_difference(a, a) == max_difference(np.empty(0), np.empty(0)) == max_difference(0 * a, 0 * a) == 0
    assert max_difference(a, 0 * a) == np.inf and max_difference(a, 0 * a, 4.1) == 1
    assert max_difference(np.float32(1), 1.5) == pytest.approx(1 / 3)
    assert np.isnan(max_difference(np.array([np.nan, 1]), np.array([0.0, 1])))
    assert np.isnan(max_difference(np.array([0.0, 1]), np.array([np.nan, 1])))
    with pytest.raises(ValueError, match=r"actual has shape \(3,\), expected \(1, 3\)"):
        max_difference(a, b[None])


def test_table_of_differences():
    a = np.array([1.0, 2.0])
    rows = differences({"y": (a, a), "grad_x": (a, a * 2, 8.0)}, {"y": 1e-12, "grad_x": 0.5})
    rows += differences([("y", a + 1e-6, a)], 1e-12)
    assert [row.agrees for row in rows] == [True, True, False]
    worst = largest(rows)
    assert [row.name for row in worst] == ["y", "grad_x"] and worst[0].difference == pytest.approx(5e-7)
    lines = table(worst).splitlines()
    assert lines[0].split() == ["array", "largest", "difference", "tolerance"]
    assert lines[1].split() == ["y", "5.0e-07", "1e-12", "differs"] and lines[2].split()[-1] == "agrees"
    assert not Difference("y", float("nan"), 1.0).agrees and Difference("y", 9.0).agrees
    assert largest([Difference("y", 1.0), Difference("y", float("nan")), Difference("y", 2.0)])[0].difference != 2.0
