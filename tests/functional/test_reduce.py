"""A normalization of large arrays in parts, each in a thread: the same numbers wherever the parts are cut."""

from __future__ import annotations

import copy
import multiprocessing
import os
import threading

import numpy as np
import pytest

from bnbook.functional import _reduce, batch_norm, batch_norm_backward
from bnbook.functional._reduce import in_parts
from tests.references import NORMALIZATIONS, layouts

CHANNELS_APART = (0, 2, 3)  # the averaged axes of batch normalization


@pytest.fixture
def parts(monkeypatch):
    """A function that says how many parts an array is divided into, however small it is."""
    monkeypatch.setattr(_reduce, "PART", 1)
    return lambda count: monkeypatch.setattr(_reduce, "COUNT", count)


def assert_same_bits(run, x, grad_y, parts):
    """`run(x, grad_y)`, a list of arrays, is the same in one part and in several, whatever memory x lies in."""
    for (name, x_there), (_, grad_there) in zip(layouts(x), layouts(grad_y), strict=True):
        parts(1)
        whole = run(x_there, grad_there)
        for count in (2, 3, 64):
            parts(count)
            for one, other in zip(whole, run(x_there, grad_there), strict=True):
                np.testing.assert_array_equal(other, one, err_msg=f"{count} parts of memory: {name}")


@pytest.mark.parametrize("norm", [n for n in NORMALIZATIONS if len(n.shape) > 1], ids=str)
def test_parts_of_every_normalization_give_the_bits_of_the_whole(norm, parts):
    a = norm.arguments(np.float32, shape=(9, *norm.shape[1:]))  # only the batch can be long

    def run(x, grad_y):
        b = copy.deepcopy(a)
        b.x = x
        y, saved = norm.forward(b)
        return [y, *norm.backward(grad_y, saved), *((b.mean, b.var) if norm.tracks else ())]

    assert_same_bits(run, a.x, a.grad_y, parts)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("mean", [0, 1e4], ids=["small mean", "large mean"])  # of one channel: it needs float64
@pytest.mark.parametrize("shape", [(9, 7), (300, 7, 5, 5), (5, 7, 70, 90), (2, 7, 3, 1), (3, 7, 2, 3, 2)], ids=str)
def test_parts_of_the_channels_give_the_bits_of_the_whole(shape, mean, training, parts):
    rng = np.random.default_rng(0)
    x, grad_y = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    x[:, 5] += np.float32(mean)
    weight, bias, running_mean, running_var = rng.uniform(0.5, 2, size=(4, 7)).astype(np.float32)

    def run(x, grad_y):
        running = running_mean.copy(), running_var.copy()
        y, cache = batch_norm(x, *running, weight, bias, training=training)
        return [y, *batch_norm_backward(grad_y, cache), *running]

    assert_same_bits(run, x, grad_y, parts)


def names_of_threads(x, function=lambda *arrays: None) -> list[str]:
    names = []

    def noted(*arrays):
        names.append(threading.current_thread().name)
        return function(*arrays)

    in_parts(noted, CHANNELS_APART, x)
    return names


def test_only_a_large_array_is_divided(monkeypatch):
    monkeypatch.setattr(_reduce, "COUNT", 2)
    main = threading.current_thread().name
    assert names_of_threads(np.zeros((8, 4, 100, 100), np.float32)) == [main]  # 1.3 MB
    assert len(set(names_of_threads(np.zeros((16, 4, 100, 100), np.float32)))) == 2  # 2.6 MB
    assert names_of_threads(np.zeros((64, 1, 100, 100), np.float32)) == [main]  # one channel
    monkeypatch.setattr(_reduce, "COUNT", 1)
    assert names_of_threads(np.zeros((16, 4, 100, 100), np.float32)) == [main]


def test_channels_lie_in_parts_in_order_and_what_broadcasts_is_whole(parts):
    parts(3)
    x, small, few = np.arange(7.0).reshape(1, 7, 1, 1), np.ones((1, 1, 1, 1)), np.ones(7)
    seen = []

    def function(x, small, few, none):
        seen.append((x.size, small.size, few.size, none))
        return x + small, x * 10

    plus, times = in_parts(function, CHANNELS_APART, x, small, few, None)
    np.testing.assert_array_equal(plus, x + 1)
    np.testing.assert_array_equal(times, x * 10)
    assert sorted(seen) == [(2, 1, 7, None), (2, 1, 7, None), (3, 1, 7, None)]


@pytest.mark.parametrize("at", [0, 5], ids=["first part", "last part"])
def test_an_error_in_a_part_is_an_error(parts, at):
    parts(3)
    x = np.zeros((2, 6, 1, 1))
    x[:, at] = 1

    def function(x):
        if x.any():
            raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        in_parts(function, CHANNELS_APART, x)


@pytest.mark.filterwarnings("error")
def test_every_thread_treats_floating_point_errors_as_its_caller(parts):
    parts(3)
    x = np.ones((2, 6, 1, 1), np.float32)
    x[:, 5] = 1e30

    def square(x):
        return (x * x,)

    with np.errstate(over="ignore"):
        (y,) = in_parts(square, CHANNELS_APART, x)
    assert np.isinf(y[:, 5]).all()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        in_parts(square, CHANNELS_APART, x)


def _normalize_and_exit(x, expected):
    os._exit(0 if (batch_norm(x, None, None, training=True)[0] == expected).all() else 1)


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process")  # that a process with threads forks
def test_a_forked_process_has_threads_of_its_own(parts):
    parts(2)
    x = np.random.default_rng(0).normal(size=(4, 6, 3, 3))
    y, _ = batch_norm(x, None, None, training=True)
    child = multiprocessing.get_context("fork").Process(target=_normalize_and_exit, args=(x, y))
    child.start()
    child.join(600)
    child.kill()
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize("said, threads", [("3", 3), (" 4,2", 4), ("0", None), ("many", None), (None, None)])
def test_the_environment_says_how_many_threads(said, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    default = _reduce._allowed()
    assert 1 <= default <= os.cpu_count()
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert _reduce._allowed() == (threads or default)
