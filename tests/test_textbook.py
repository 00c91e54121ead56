"""The clear batch normalization, with which everything else is compared, is right itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bnbook import textbook
from bnbook.checking.numeric import numeric_gradient
from tests.references import GRADIENT, OUTPUT, assert_agrees, generator, torch

ROOT = Path(__file__).parents[1]
SHAPES = [(7, 3), (5, 2, 4), (4, 3, 5, 6), (2, 3, 4, 2, 5)]
F64 = np.dtype(np.float64)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def batch(shape):
    """x with another mean and spread in every channel, an upstream gradient, and a random state."""
    rng = generator(str(shape))
    state = {name: rng.uniform(0.5, 2, shape[1]) for name in ("weight", "bias", "running_mean", "running_var")}
    state["weight"] *= rng.choice([-1, 1], shape[1])
    x = rng.normal(size=shape) * textbook.per_channel(rng.uniform(0.5, 2, shape[1]), np.empty(shape))
    return x + textbook.per_channel(rng.normal(size=shape[1]), x), rng.normal(size=shape) + 0.3, state


def layer_of(state, kind=textbook.BatchNorm, **options):
    layer = kind(len(state["weight"]), **options)
    for name, values in state.items():
        getattr(layer, name)[...] = values
    return layer


def test_the_one_batch_of_the_book():
    layer = textbook.BatchNorm(1, eps=0)
    y = layer.forward(np.array([2.0, 4, 5, 6, 8])[:, None])
    grad_x = layer.backward(np.eye(5)[:, :1])
    np.testing.assert_allclose(y.ravel(), [-1.5, -0.5, 0, 0.5, 1.5], rtol=1e-15)
    np.testing.assert_allclose([*layer.running_mean, *layer.running_var], [0.5, 1.4], rtol=1e-15)
    np.testing.assert_allclose(grad_x.ravel(), [0.175, -0.175, -0.1, -0.025, 0.125], rtol=1e-14)
    np.testing.assert_allclose([*layer.grad_weight, *layer.grad_bias], [-1.5, 1], rtol=1e-15)


@every_shape
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients_are_the_numeric_ones(shape, training):
    x, g, state = batch(shape)
    layer = layer_of(state, eps=0.1)
    layer.training = training
    layer.forward(x)
    gradients = layer.backward(g), layer.grad_weight, layer.grad_bias
    for name, gradient in zip(("x", "weight", "bias"), gradients, strict=True):

        def forward(value, name=name):
            given = layer_of(state | ({name: value} if name != "x" else {}), eps=0.1)
            given.training = training
            return given.forward(value if name == "x" else x)

        expected = numeric_gradient(forward, x if name == "x" else state[name], g)
        assert_agrees(gradient, expected, 1e-8, f"gradient of {name}")


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@every_shape
@pytest.mark.parametrize("momentum", [0.1, 0.37, None])
def test_the_layer_agrees_with_torch_over_several_steps(shape, momentum):
    x, g, state = batch(shape)
    ours = layer_of(state, momentum=momentum)
    theirs = getattr(torch.nn, f"BatchNorm{max(len(shape) - 2, 1)}d")(shape[1], momentum=momentum, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(values) for name, values in state.items()}, strict=False)
    for step, training in enumerate((True, True, False, True)):
        ours.training = training
        t = torch.tensor(x + step * g, requires_grad=True)
        theirs.train(training).zero_grad()
        expected = theirs(t)
        expected.backward(torch.tensor(g))
        assert_agrees(ours.forward(x + step * g), expected, OUTPUT[F64], f"y of step {step}")
        scale = float(np.abs(state["weight"] * ours.cache[1]).max() * np.abs(g).max())
        assert_agrees(ours.backward(g), t.grad, GRADIENT[F64], f"grad_x of step {step}", scale)
        assert_agrees(ours.grad_weight, theirs.weight.grad, GRADIENT[F64], f"grad_weight of step {step}")
        assert_agrees(ours.grad_bias, theirs.bias.grad, GRADIENT[F64], f"grad_bias of step {step}")
        for name in ("running_mean", "running_var"):
            assert_agrees(getattr(ours, name), getattr(theirs, name), OUTPUT[F64], f"{name} after step {step}")


@every_shape
def test_it_is_the_layer_that_chapter_5_writes(shape):
    cells = json.loads((ROOT / "book" / "05_layer.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = [
        "".join(cell["source"])
        for cell in cells
        if not {"solution", "exercise"} & set(cell["metadata"].get("tags", []))
    ]
    chapter = {"np": np}
    for name in ("def per_channel", "def statistics", "def backward", "class State", "class BatchNorm(State)"):
        (source,) = (text for text in sources if text.startswith(name))
        exec(source, chapter)
    x, g, state = batch(shape)
    layers = [layer_of(state, kind, momentum=0.3) for kind in (textbook.BatchNorm, chapter["BatchNorm"])]
    for training in (True, False):
        results = []
        for layer in layers:
            layer.training = training
            y, grad_x = layer.forward(x), layer.backward(g)
            results.append([y, grad_x, layer.grad_weight, layer.grad_bias, layer.running_mean, layer.running_var])
        for ours, theirs in zip(*results, strict=True):
            assert_agrees(ours, theirs, 1e-13, "the package's and the chapter's")


def test_it_shares_nothing_with_what_is_compared_with_it():
    """Of the package it imports nothing, so its mistakes are its own."""
    source = Path(textbook.__file__).read_text(encoding="utf-8")
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["from __future__ import annotations", "import numpy as np"]
