"""The convolutional network of the book, next to the same network in torch."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from bnbook import nn, optim
from bnbook.checking.compare import differences, table
from bnbook.data import load, to_input
from bnbook.models.numpy_cnn import cnn
from tests.references import assert_agrees, generator, torch

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


def torch_cnn(state, batch_norm=True):
    layers = OrderedDict(
        conv=torch.nn.Conv2d(1, 32, 3),
        bn1=torch.nn.BatchNorm2d(32),
        relu1=torch.nn.ReLU(),
        pool=torch.nn.MaxPool2d(2),
        flatten=torch.nn.Flatten(),
        fc1=torch.nn.Linear(32 * 13 * 13, 128),
        bn2=torch.nn.BatchNorm1d(128),
        relu2=torch.nn.ReLU(),
        fc2=torch.nn.Linear(128, 10),
    )
    if not batch_norm:
        del layers["bn1"], layers["bn2"]
    network = torch.nn.Sequential(layers)
    state = {key: torch.tensor(value) for key, value in state.items()}
    network = network.to(state["conv.weight"].dtype)
    assert list(network.state_dict()) == list(state)
    network.load_state_dict(state)
    return network


def twenty_steps(dtype, seed, *, batch_norm=True, batch_size=32, lr, **options):
    """Both networks after twenty steps from the same values on the same Fashion-MNIST batches, compared."""
    ours = cnn(batch_norm, rng=seed, dtype=dtype)
    theirs = torch_cnn(ours.state_dict(), batch_norm)
    optimizer = optim.SGD(ours.parameters(), lr=lr, **options)
    other = torch.optim.SGD(theirs.parameters(), lr=lr, **options)
    images, labels = load("train")
    loss = nn.CrossEntropyLoss()
    for step in range(seed * 20, seed * 20 + 20):
        chunk = slice(step * batch_size, (step + 1) * batch_size)
        x, target = to_input(images[chunk], dtype), labels[chunk]
        optimizer.zero_grad(), other.zero_grad()
        value = loss(ours(x), target)
        ours.backward(loss.backward())
        optimizer.step()
        expected = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(target))
        expected.backward()
        other.step()
        assert abs(value - expected.item()) < (1e-10 if dtype == np.float64 else 1e-3)
    state = theirs.state_dict()
    # the β of BN start at 0: their scale is 1, the spread of what they are added to
    return differences(
        {key: (a, state[key], 1.0 if key in ("bn1.bias", "bn2.bias") else None) for key, a in ours.state_dict().items()}
    )


@needs_torch
@pytest.mark.parametrize("batch_norm", [True, False], ids=["with BN", "without BN"])
def test_twenty_float64_steps_next_to_torch(batch_norm):
    rows = twenty_steps(np.float64, 0, batch_norm=batch_norm, batch_size=12, lr=0.05, momentum=0.9, weight_decay=1e-3)
    assert max(row.difference for row in rows) <= 1e-10, table(rows)


@pytest.mark.long
@needs_torch
def test_twenty_float32_steps_next_to_torch():
    """In float32 one unit whose input is within rounding of 0 may be on in one network and off in the other.

    Twenty steps take millions of such decisions, so about every second run has one or two, and each changes a
    gradient by one upstream value. Plain SGD with small steps does not amplify it; the median of three runs stands
    for a run without.
    """
    runs = [twenty_steps(np.float32, seed, lr=1e-3) for seed in range(3)]
    worst = sorted(max(row.difference for row in rows) for rows in runs)
    assert worst[1] <= 1e-5, "\n".join(table(rows) for rows in runs)


@needs_torch
def test_evaluation_agrees_with_torch():
    ours = cnn(rng=0, dtype=np.float64)
    rng = generator("cnn")
    state = {
        key: rng.uniform(0.5, 2, value.shape) if key.startswith("bn") and value.shape else value
        for key, value in ours.state_dict().items()
    }
    ours.load_state_dict(state)
    theirs = torch_cnn(ours.state_dict()).eval()
    x = to_input(load("val")[0][:9], np.float64)
    assert_agrees(ours.eval()(x), theirs(torch.tensor(x)), 1e-12, "logits")


def test_shapes_and_the_first_layer():
    network = cnn(rng=0)
    x = generator("x").normal(size=(5, 1, 28, 28)).astype(np.float32)
    y = network(x)
    assert y.shape == (5, 10) and y.dtype == np.float32
    assert network.backward(np.ones_like(y)) is None  # nothing asks for the gradient of the images
    assert all(parameter.grad.dtype == np.float32 for parameter in network.parameters())
    assert sum(parameter.data.size for parameter in network.parameters()) == 694_282


def test_without_batch_norm_the_initial_weights_are_the_same():
    with_bn, without = cnn(True, rng=3).state_dict(), cnn(False, rng=3).state_dict()
    assert [key for key in with_bn if not key.startswith("bn")] == list(without)
    for key, value in without.items():
        np.testing.assert_array_equal(with_bn[key], value)


def test_it_learns():
    """Thirty steps on a few images."""
    network, loss = cnn(rng=0), nn.CrossEntropyLoss()
    images, labels = load("train")
    x, target = to_input(images[:48]), labels[:48]
    optimizer = optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    first = loss(network(x), target)
    for _ in range(15):
        optimizer.zero_grad()
        last = loss(network(x), target)
        network.backward(loss.backward())
        optimizer.step()
    assert last < 0.1 * first
