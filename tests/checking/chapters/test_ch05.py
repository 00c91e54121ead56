"""The checkers of chapter 5 accept the solutions and reject what only looks like one."""

from __future__ import annotations

import numpy as np

from bnbook.checking import check
from bnbook.checking.chapters.ch05 import FAULTS, STATE, Layer


def per_channel(values, x):
    return values.reshape((1, -1) + (1,) * (x.ndim - 2))


def statistics(x, ddof=0):
    axes = (0, *range(2, x.ndim))
    return x.mean(axes), x.var(axes, ddof=ddof)


def forward(x, mean, var, weight, bias, eps, *, outside=False):
    inv_std = 1 / (np.sqrt(var) + eps) if outside else 1 / np.sqrt(var + eps)
    x_hat = (x - per_channel(mean, x)) * per_channel(inv_std, x)
    return per_channel(weight, x) * x_hat + per_channel(bias, x), x_hat, inv_std


def own_statistics(x, mean, var, weight, bias, eps):
    return forward(x, *statistics(x), weight, bias, eps)


def update(running_mean, running_var, mean, var, m, momentum, count, *, bessel=True, reverse=False, first=1):
    a = 1 / (count + first) if momentum is None else momentum
    a = 1 - a if reverse else a
    new = var * m / (m - 1) if bessel else var
    return (1 - a) * running_mean + a * mean, (1 - a) * running_var + a * new


def update_in_place(running_mean, running_var, *rest):
    running_mean[...], running_var[...] = update(running_mean, running_var, *rest)
    return running_mean, running_var


def backward(g, x_hat, inv_std, weight, training, *, mean=True, var=True, gamma=True):
    axes = (0, *range(2, g.ndim))
    grad_x = g
    if training:
        grad_x = g - mean * g.mean(axes, keepdims=True) - var * x_hat * (g * x_hat).mean(axes, keepdims=True)
    return per_channel(weight * inv_std if gamma else inv_std, g) * grad_x, (g * x_hat).sum(axes), g.sum(axes)


def from_output(g, y, weight, bias, inv_std):
    x_hat = (y - bias) / weight
    return weight * inv_std * (g - g.mean(0) - x_hat * (g * x_hat).mean(0))


def offset(mean, count=100, sign=-1):
    rng = np.random.default_rng(0)
    while True:
        x = (rng.normal(size=count) + mean).astype(np.float32)
        if sign * ((x * x).mean() - x.mean() ** 2) > 0:
            return x


def diagnose(layer):
    x = np.random.default_rng(0).normal(3, 2, (4, 3))
    kept = x.mean(0), x.var(0)
    if len(layer.state_dict()) < 5:
        return "buffers not saved"
    layer.forward(x)
    if not np.allclose(layer.running_mean, 0.1 * kept[0]):
        return "momentum reversed"
    if np.allclose(layer.running_var, 0.9 + 0.1 * kept[1]):
        return "biased variance"
    layer.training = False
    before = layer.running_mean.copy()
    layer.forward(x)
    if not np.array_equal(before, layer.running_mean):
        return "updates in evaluation"
    g = np.random.default_rng(1).normal(size=x.shape)
    g[0] = 0
    return "correct" if np.allclose(layer.backward(g)[0], 0) else "backward ignores the mode"


class ModeOfNow(Layer):
    """Backward reads the mode when it is called, not that of its forward pass."""

    def backward(self, g):
        self.cache = *self.cache[:2], self.training
        return super().backward(g)


class ReadsRunning(Layer):
    """Normalizes by the running statistics in training as well."""

    def forward(self, x):
        mode, self.training = self.training, False
        y = super().forward(x)
        self.training = mode
        return y


class NoneIsDefault(Layer):
    """Takes momentum=None for the default."""

    def __init__(self, num_features, eps, momentum):
        super().__init__(num_features, eps, 0.1 if momentum is None else momentum)


class InPlace(Layer):
    """Destroys the batch."""

    def forward(self, x):
        y = super().forward(x)
        x[...] = y
        return y


class NoBackward:
    weight = bias = running_mean = running_var = training = forward = None


class References(Layer):
    """Saves the arrays themselves."""

    def state_dict(self):
        return {name: getattr(self, name) for name in STATE}


class KeepsWhatItLoads(Layer):
    """Takes the arrays of the state over instead of copying them."""

    def load_state_dict(self, state):
        for name, values in state.items():
            setattr(self, name, values)


class ParametersOnly(Layer):
    """Loads the parameters, and leaves the buffers as they are."""

    def load_state_dict(self, state):
        super().load_state_dict({name: state[name] for name in STATE[:2]})


class ForgetsTheCount(Layer):
    """Loads everything but the number of batches."""

    def load_state_dict(self, state):
        super().load_state_dict({name: state[name] for name in STATE[:4]})


def faulty(fault):
    return lambda num_features, eps, momentum: Layer(num_features, eps, momentum, fault=fault)


RIGHT = {
    "ch05.statistics": statistics,
    "ch05.forward": forward,
    "ch05.update": update,
    "ch05.backward": backward,
    "ch05.layer": Layer,
    "ch05.state": Layer,
    "ch05.from_output": from_output,
    "ch05.negative": lambda: offset(1e5),
    "ch05.unseen": lambda: (64, 1, 100, 100),
    "ch05.diagnose": diagnose,
}

WRONG = {
    "ch05.statistics": {
        "unbiased": lambda x: statistics(x, ddof=1),
        "per pixel": lambda x: (x.mean(0), x.var(0)),
        "deviation": lambda x: (statistics(x)[0], np.sqrt(statistics(x)[1])),
        "the mean alone": lambda x: statistics(x)[0],
        "kept axes": lambda x: tuple(per_channel(s, x) for s in statistics(x)),
    },
    "ch05.forward": {
        "eps outside": lambda *a: forward(*a, outside=True),
        "the batch's own statistics": own_statistics,
        "no bias": lambda x, mean, var, weight, bias, eps: forward(x, mean, var, weight, 0 * bias, eps),
        "no weight": lambda x, mean, var, weight, bias, eps: forward(x, mean, var, 0 * weight + 1, bias, eps),
        "y alone": lambda *a: forward(*a)[0],
        "variance for deviation": lambda x, mean, var, *rest: forward(x, mean, var**2, *rest),
    },
    "ch05.update": {
        "biased": lambda *a: update(*a, bessel=False),
        "momentum reversed": lambda *a: update(*a, reverse=True),
        "does not count this batch": lambda *a: update(*a[:-1], a[-1] or 1, first=0),
        "counts one too many": lambda *a: update(*a, first=2),
        "in place": update_in_place,
        "mean alone": lambda *a: (update(*a)[0], a[1]),
    },
    "ch05.backward": {
        "no mean path": lambda *a: backward(*a, mean=False),
        "no variance path": lambda *a: backward(*a, var=False),
        "no gamma": lambda *a: backward(*a, gamma=False),
        "always training": lambda *a: backward(*a[:-1], True),
        "always evaluation": lambda *a: backward(*a[:-1], False),
        "means for sums": lambda *a: (backward(*a)[0], *(p / len(a[0]) for p in backward(*a)[1:])),
        "gradients swapped": lambda *a: tuple(backward(*a)[i] for i in (0, 2, 1)),
    },
    "ch05.layer": {
        **{fault: faulty(fault) for fault in FAULTS[1:5]},
        "the mode of now": ModeOfNow,
        "running statistics in training": ReadsRunning,
        "None is the default": NoneIsDefault,
        "in place": InPlace,
        "eps ignored": lambda num_features, eps, momentum: Layer(num_features, 1e-5, momentum),
        "methods missing": lambda *a: NoBackward(),
    },
    "ch05.state": {
        "buffers not saved": faulty("buffers not saved"),
        "references": References,
        "keeps what it loads": KeepsWhatItLoads,
        "parameters only": ParametersOnly,
        "the count forgotten": ForgetsTheCount,
    },
    "ch05.from_output": {
        "evaluation": lambda g, y, weight, bias, inv_std: weight * inv_std * g,
        "y for x_hat": lambda g, y, weight, bias, inv_std: weight * inv_std * (g - g.mean(0) - y * (g * y).mean(0)),
        "bias forgotten": lambda g, y, weight, bias, inv_std: from_output(g, y, weight, 0, inv_std),
        "gamma forgotten": lambda g, y, weight, bias, inv_std: from_output(g, y, weight, bias, inv_std) / weight,
    },
    "ch05.negative": {
        "a small mean": lambda: np.random.default_rng(0).normal(size=100).astype(np.float32),
        "positive": lambda: offset(1e5, sign=1),
        "float64": lambda: offset(1e5).astype(np.float64),
        "constant": lambda: np.full(100, 1e5 + 0.3, np.float32),
        "overflow": lambda: np.array([1e30, 2e30], np.float32),
        "nan": lambda: np.array([1, np.nan], np.float32),
        "one value": lambda: np.array([1e5], np.float32),
    },
    "ch05.unseen": {
        "few values": lambda: (9, 4),
        "many values in many channels": lambda: (64, 100, 10, 10),
        "too many values": lambda: (101, 1, 100, 100),
        "one value": lambda: (1, 1_000_000),
        "no shape": lambda: 640_000,
        "five axes": lambda: (2, 1, 80, 80, 80),
        "a fraction": lambda: (64, 1, 1e2, 1e2),
    },
    "ch05.diagnose": {
        **{f"always {fault}": lambda layer, fault=fault: fault for fault in FAULTS},
        "no name": lambda layer: "broken",
    },
}


def test_several_results():
    """An array of two rows is as good as a pair; a pair with one thing missing is named as such."""
    assert check("ch05.statistics", lambda x: np.stack(statistics(x))).passed
    verdict = check("ch05.backward", lambda *args: backward(*args)[:2])
    assert verdict.passed is False and verdict.message.endswith("got 2.")
