"""The optimizers: by hand, and next to torch.optim over many steps."""

from __future__ import annotations

import numpy as np
import pytest

from bnbook import nn, optim
from tests.references import assert_agrees, generator, torch

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

RECIPES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.7, "weight_decay": 0.03}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.03, "betas": (0.5, 0.8), "eps": 1e-2}),
    ("Adam", {"lr": 0.03, "betas": (0.0, 0.9), "weight_decay": 0.1}),
]


def parameters(dtype):
    rng = generator("parameters")
    return [nn.Parameter(rng.normal(size=shape).astype(dtype)) for shape in ((3, 4), (4,), (), (2, 3, 1, 2))]


@needs_torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), RECIPES, ids=str)
def test_fifty_steps_next_to_torch(name, options, dtype):
    """Random gradients, a step size that changes, and parameters that have no gradient in some steps."""
    ours = parameters(dtype)
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    optimizer, other = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    rng = generator(name)
    for step in range(50):
        optimizer.zero_grad(), other.zero_grad()
        for i, (p, t) in enumerate(zip(ours, theirs, strict=True)):
            if step % 5 == i:
                continue
            p.grad = np.asarray(rng.normal(0.2, 1, p.data.shape), dtype)
            t.grad = torch.tensor(p.grad)
        if step == 25:
            optimizer.lr = other.param_groups[0]["lr"] = options["lr"] / 3
        kept = [None if p.grad is None else p.grad.copy() for p in ours]
        optimizer.step(), other.step()
        for p, grad in zip(ours, kept, strict=True):
            assert p.data.dtype == dtype
            np.testing.assert_array_equal(p.grad, grad, err_msg="the step changed a gradient")
    for i, (p, t) in enumerate(zip(ours, theirs, strict=True)):
        assert_agrees(p.data, t, 1e-12 if dtype == np.float64 else 1e-5, f"parameter {i}")


def test_sgd_by_hand():
    p = nn.Parameter(np.array([1.0, -2.0]))
    data = p.data
    optimizer = optim.SGD([p], lr=0.1, momentum=0.5, weight_decay=0.2)
    p.grad = np.array([1.0, 3.0])
    optimizer.step()  # v = g + λθ = (1.2, 2.6)
    np.testing.assert_allclose(p.data, [0.88, -2.26], rtol=1e-14)
    p.grad = np.array([0.0, 1.0])
    optimizer.step()  # v = 0.5 v + g + λθ = (0.776, 1.848)
    np.testing.assert_allclose(p.data, [0.8024, -2.4448], rtol=1e-14)
    assert p.data is data, "the array is updated in place"


def test_the_first_steps_of_adam_have_the_length_lr():
    p = nn.Parameter(np.array([1.0, -2.0, 3.0]))
    optimizer = optim.Adam([p], lr=0.01)
    for step in range(1, 4):
        p.grad = np.array([1e-3, -5.0, 1e4])
        optimizer.step()
        np.testing.assert_allclose(p.data, [1 - 0.01 * step, -2 + 0.01 * step, 3 - 0.01 * step], rtol=1e-6)


def test_adam_by_hand():
    p = nn.Parameter(np.array([2.0]))
    optimizer = optim.Adam([p], lr=0.1, betas=(0.5, 0.75), eps=1.0)
    p.grad = np.array([3.0])
    optimizer.step()  # both averages corrected: 3 and 9
    np.testing.assert_allclose(p.data, [2 - 0.1 * 3 / (3 + 1)], rtol=1e-14)
    p.grad = np.array([1.0])
    optimizer.step()  # u = 0.5 · 1.5 + 0.5 = 1.25, of 0.75; v = 0.75 · 2.25 + 0.25 = 1.9375, of 0.4375
    np.testing.assert_allclose(p.data, [1.925 - 0.1 * (1.25 / 0.75) / (np.sqrt(1.9375 / 0.4375) + 1)], rtol=1e-14)


def test_zero_grad_and_parameters_without_gradient():
    p, q = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    optimizer = optim.SGD([p, q], lr=0.1, weight_decay=0.5)
    p.grad = np.ones(2)
    optimizer.step()
    np.testing.assert_array_equal(q.data, np.ones(2))
    assert (p.data < 1).all()
    optimizer.zero_grad()
    assert p.grad is None and q.grad is None


@pytest.mark.parametrize("make", [optim.SGD, lambda p, **k: optim.SGD(p, momentum=0.9, **k), optim.Adam])
def test_gradients_are_left_alone(make):
    p, grad = nn.Parameter(np.ones(2)), np.array([1.0, -2.0])
    optimizer = make([p], lr=0.1, weight_decay=0)
    for _ in range(3):
        p.grad = grad
        optimizer.step()
    np.testing.assert_array_equal(grad, [1, -2])


def test_an_iterator_of_parameters_is_kept():
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    assert [id(p) for p in optimizer.params] == [id(layer.weight), id(layer.bias)]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda p: optim.SGD([]), ValueError, "params is empty: nothing to optimize"),
        (lambda p: optim.SGD([p.data]), TypeError, "params must be Parameters, got ndarray"),
        (lambda p: optim.SGD([p], lr=-0.1), ValueError, "lr must be at least 0, got -0.1"),
        (lambda p: optim.SGD([p], lr="a"), TypeError, "lr must be a number, got str"),
        (lambda p: optim.SGD([p], lr=np.nan), ValueError, "lr must be finite, got nan"),
        (lambda p: optim.SGD([p], momentum=-1), ValueError, "momentum must be at least 0, got -1"),
        (lambda p: optim.SGD([p], weight_decay=-1), ValueError, "weight_decay must be at least 0, got -1"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "betas must be less than 1, got (0.9, 1.0)"),
        (lambda p: optim.Adam([p], betas=(0.9,)), ValueError, "betas must be a pair (β₁, β₂), got (0.9,)"),
        (lambda p: optim.Adam([p], betas=(-0.1, 0.9)), ValueError, "betas must be at least 0, got -0.1"),
        (lambda p: optim.Adam([p], eps=-1), ValueError, "eps must be at least 0, got -1"),
        (lambda p: optim.Adam([p], weight_decay=None), TypeError, "weight_decay must be a number, got NoneType"),
        (lambda p: optim.cosine(0, 0, 0.1), ValueError, "steps must be greater than 0, got 0"),
        (lambda p: optim.cosine(-1, 5, 0.1), ValueError, "step must be at least 0, got -1"),
        (lambda p: optim.cosine(6, 5, 0.1), ValueError, "step must be at most steps, 5, got 6"),
    ],
)
def test_bad_options(make, error, says):
    with pytest.raises(error) as raised:
        make(nn.Parameter(np.ones(2)))
    assert says in str(raised.value)
