"""The wrong pieces of chapter 6 are wrong in what they say alone, and the page prints them as they are."""

from __future__ import annotations

import ast
import json
import re

import numpy as np
import pytest

from bnbook import textbook
from bnbook.checking import bugs, wrong
from bnbook.checking.bugs import BUGS
from bnbook.checking.catalogue import BOOK
from bnbook.checking.compare import max_difference
from bnbook.checking.numeric import numeric_gradient


@pytest.fixture
def rng():
    return np.random.default_rng()


def arguments(rng, shape=(7, 3)):
    x = rng.normal(1, 2, size=shape)
    return rng.normal(size=shape) + 0.3, x, *rng.uniform(0.5, 2, size=(2, shape[1])), 0.01


def test_without_a_mistake_they_are_the_textbook_formulas(rng):
    g, x, weight, bias, eps = arguments(rng)
    _, x_hat, inv_std = textbook.forward(x, *textbook.statistics(x), weight, bias, eps)
    expected = textbook.backward(g, x_hat, inv_std, weight, True)
    for got, right in zip(wrong.backward(g, x, weight, bias, eps), expected, strict=True):
        assert max_difference(got, right) < 1e-13
    images = rng.normal(1, 2, size=(4, 3, 2, 5))
    right = textbook.forward(images, *textbook.statistics(images), weight, bias, eps)[0]
    assert max_difference(wrong.forward(images, weight, bias, eps), right) < 1e-13
    W, b, mean, var = rng.normal(size=(3, 5)), rng.normal(size=3), rng.normal(size=3), rng.uniform(0.5, 2, 3)
    inputs = rng.normal(size=(6, 5))
    folded, folded_bias = wrong.fold(W, b, mean, var, weight, bias, eps)
    right = textbook.forward(inputs @ W.T + b, mean, var, weight, bias, eps)[0]
    assert max_difference(inputs @ folded.T + folded_bias, right) < 1e-13


@pytest.mark.parametrize("mistake", wrong.BACKWARD)
def test_a_mistake_of_the_backward_pass_changes_one_gradient(mistake, rng):
    given = arguments(rng)
    got = wrong.backward(*given, mistake)
    right = wrong.backward(*given)
    differing = [n for n in range(3) if max_difference(got[n], right[n]) > 1e-3]
    assert differing == [{"grad γ": 1, "grad β": 2}.get(mistake[:6], 0)]


@pytest.mark.parametrize("mistake", wrong.FORWARD)
def test_a_mistake_of_the_forward_pass_is_one(mistake, rng):
    _, x, weight, bias, eps = arguments(rng, (4, 3, 2, 5))
    assert max_difference(wrong.forward(x, weight, bias, eps, mistake), wrong.forward(x, weight, bias, eps)) > 1e-4


@pytest.mark.parametrize("mistake", wrong.FOLDS)
def test_a_mistake_of_folding_is_one(mistake, rng):
    given = (rng.normal(size=(3, 5)), *rng.uniform(0.5, 2, size=(5, 3)), 0.01)
    pairs = zip(wrong.fold(*given, mistake), wrong.fold(*given), strict=True)
    assert max(max_difference(a, b) for a, b in pairs) > 1e-4


def test_an_unknown_mistake_is_named(rng):
    with pytest.raises(ValueError, match="mistake is 'none', expected '' or one of 'no path"):
        wrong.backward(*arguments(rng), "none")


def test_what_a_bug_should_have_been_is_right(rng):
    g, x, weight, bias, _ = arguments(rng)

    def loss(part):
        return lambda value: (g * BUGS[4].right(**({"x": x, "weight": weight, "bias": bias} | {part: value}))).sum()

    grad_x, grad_weight, grad_bias = BUGS[8].right(g, x, weight)
    assert max_difference(grad_x, numeric_gradient(loss("x"), x)) < 1e-6
    assert max_difference(grad_weight, numeric_gradient(loss("weight"), weight)) < 1e-7
    assert max_difference(grad_bias, numeric_gradient(loss("bias"), bias)) < 1e-7
    assert max_difference(BUGS[10].right(g, x, weight), grad_x) == 0
    for number in (9, 11):
        got = BUGS[number].right(g, x, *((weight, bias) if number == 9 else ()))
        assert max_difference(got[0], grad_weight) < 1e-13 and max_difference(got[1], grad_bias) < 1e-13
    train, other = rng.normal(3, 2, size=(5, 2)), rng.normal(-1, 3, size=(5, 2))
    script = [("train", train), ("save",), ("train", other), ("load",), ("eval", other), ("eval", other)]
    mean, var = textbook.updated(0, 1, train.mean(axis=0), train.var(axis=0), 5, 0.1)
    for got in BUGS[13].right(script)[2:]:
        assert max_difference(got, (other - mean) / np.sqrt(var + 1e-5)) < 1e-12


def test_a_script_names_a_step_that_there_is_not():
    for script in ([("load",)], [("test", np.eye(2))], [("train",)]):
        with pytest.raises(ValueError, match="is no step"):
            bugs.run(bugs.Saved(2), script)


def test_the_page_prints_them_as_they_are():
    cells = json.loads((BOOK / "06_tests.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    listings = re.findall(r"^```python\n((?:def bug|class Bug).*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert listings == [bug.source for bug in BUGS.values()]
    assert all(len(line) <= 78 for listing in listings for line in listing.splitlines())
    for listing in listings:
        assert len(ast.parse(listing).body[0].body) <= 6
