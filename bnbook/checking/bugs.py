"""Fourteen wrong pieces of batch normalization, each in a few lines: the listings of "Find the bug" in chapter 6.

They are printed there as they stand here, which `tests/checking/test_bugs.py` compares. `BUGS[3].wrong` is the third,
`BUGS[3].right` what it should have been; the layers of 12 and 13 are those of `textbook` but for what is shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import textbook
from ..textbook import BatchNorm
from . import wrong as tables


def bug1(x, eps=1e-5):
    mean, var = x.mean(axis=0), x.var(axis=0)
    return (x - mean) / np.sqrt(var + eps)


def bug2(x, eps=1e-5):
    xc = x - x.mean(axis=0)
    var = (xc**2).sum(axis=0) / (len(x) - 1)
    return xc / np.sqrt(var + eps)


def bug3(x, eps=1e-5):
    xc = x - x.mean(axis=0)
    std = np.sqrt((xc**2).mean(axis=0))
    return xc / (std + eps)


def bug4(x, weight, bias, eps=1e-5):
    mean, var = x.mean(axis=0), x.var(axis=0)
    x_hat = (x - mean) / np.sqrt(var + eps)
    return (x_hat + bias) * weight


def bug5(x, eps=1e-5):
    x = x.astype(np.float32)
    mean = x.mean(axis=0)
    var = (x**2).mean(axis=0) - mean**2
    return (x - mean) / np.sqrt(var + eps)


def bug6(running_mean, running_var, mean, var, m, momentum):
    unbiased = var * m / (m - 1)
    running_mean = momentum * running_mean + (1 - momentum) * mean
    running_var = momentum * running_var + (1 - momentum) * unbiased
    return running_mean, running_var


def bug7(running_mean, running_var, mean, var, m, momentum):
    running_mean = running_mean + momentum * (mean - running_mean)
    running_var = running_var + momentum * (var - running_var)
    return running_mean, running_var


def bug8(g, x, weight, eps=1e-5):
    mean, var = x.mean(axis=0), x.var(axis=0)
    x_hat = (x - mean) / np.sqrt(var + eps)
    grad_weight, grad_bias = (g * x_hat).sum(axis=0), g.sum(axis=0)
    grad_x = weight * g / np.sqrt(var + eps)
    return grad_x, grad_weight, grad_bias


def bug9(g, x, weight, bias, eps=1e-5):
    mean, var = x.mean(axis=0), x.var(axis=0)
    y = weight * (x - mean) / np.sqrt(var + eps) + bias
    grad_weight = (g * y).sum(axis=0)
    grad_bias = g.sum(axis=0)
    return grad_weight, grad_bias


def bug10(g, x, weight, eps=1e-5):
    inv_std = 1 / np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) * inv_std
    through_mean = g.mean(axis=0)
    through_var = x_hat * (g * x_hat).mean(axis=0)
    return inv_std * (weight * g - through_mean - through_var)


def bug11(g, x, eps=1e-5):
    x_hat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)
    grad_weight = (g * x_hat).sum(axis=0)
    grad_bias = g.mean(axis=0)
    return grad_weight, grad_bias


class Bug12(BatchNorm):
    def forward(self, x):
        mean, var = x.mean(axis=0), x.var(axis=0)
        self.update(mean, var, len(x))
        if not self.training:
            mean, var = self.running_mean, self.running_var
        return self.weight * (x - mean) / np.sqrt(var + self.eps) + self.bias


class Bug13(BatchNorm):
    def save(self):
        return {"mean": self.running_mean, "var": self.running_var}

    def load(self, state):
        self.running_mean = state["mean"].copy()
        self.running_var = state["var"].copy()


def bug14(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    a = gamma / np.sqrt(running_var + eps)
    new_weight = a[:, None] * weight
    new_bias = bias + beta - a * running_mean
    return new_weight, new_bias


# --- what they should have been --------------------------------------------------------------------------------------


class Saved(BatchNorm):
    """The layer of chapter 5 with its running statistics saved and loaded, as copies."""

    def save(self) -> dict[str, np.ndarray]:
        return {"mean": self.running_mean.copy(), "var": self.running_var.copy()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        self.running_mean, self.running_var = state["mean"].copy(), state["var"].copy()


def run(layer: BatchNorm, script: list[tuple]) -> list[np.ndarray]:
    """The outputs of a new layer of two channels that is led through a script: what the reader gives for 12 and 13.

    `("train", x)` and `("eval", x)` send a table through it, `("save",)` keeps its state, `("load",)` loads what was
    kept last.

    Raises:
        ValueError: there is no such step, or nothing was saved before it is loaded.
    """
    outputs, kept = [], None
    for step, *x in script:
        if step in ("train", "eval") and len(x) == 1:
            layer.training = step == "train"
            outputs.append(layer.forward(np.asarray(x[0], dtype=float)))
        elif step == "save":
            kept = layer.save()
        elif step == "load" and kept is not None:
            layer.load(kept)
        else:
            raise ValueError(f'{(step, *x)} is no step: ("train", x), ("eval", x), ("save",), ("load",) after a save')
    return outputs


def _normalize(x, eps=1e-5):
    mean, var = (textbook.per_channel(values, x) for values in textbook.statistics(x))
    return textbook.normalize(x, mean, var, eps)


def _in_float64(x, eps=1e-5):
    return _normalize(x.astype(np.float32).astype(np.float64), eps)


def _forward(x, weight, bias, eps=1e-5):
    return textbook.forward(x, *textbook.statistics(x), weight, bias, eps)[0]


def _backward(g, x, weight, eps=1e-5):
    return tables.backward(g, x, weight, np.zeros_like(weight), eps)


def _of_parameters(g, x, weight=None, bias=None, eps=1e-5):
    return tables.backward(g, x, np.ones(x.shape[1]), np.zeros(x.shape[1]), eps)[1:]


def _fold(weight, bias, running_mean, running_var, gamma, beta, eps=1e-5):
    return tables.fold(weight, bias, running_mean, running_var, gamma, beta, eps)


class Bug(NamedTuple):
    """A wrong piece and the right one. Of a layer both take a script."""

    wrong: Callable
    right: Callable
    listing: object

    @property
    def source(self) -> str:
        """The listing as it is printed."""
        return inspect.getsource(self.listing).rstrip()


def _function(wrong: Callable, right: Callable) -> Bug:
    return Bug(wrong, right, wrong)


def _layer(wrong: type) -> Bug:
    return Bug(lambda script: run(wrong(2), script), lambda script: run(Saved(2), script), wrong)


class _Evaluated(Bug12, Saved):
    """So that a script for 12 may save and load."""


BUGS: dict[int, Bug] = {
    1: _function(bug1, _normalize),
    2: _function(bug2, _normalize),
    3: _function(bug3, _normalize),
    4: _function(bug4, _forward),
    5: _function(bug5, _in_float64),
    6: _function(bug6, textbook.updated),
    7: _function(bug7, textbook.updated),
    8: _function(bug8, _backward),
    9: _function(bug9, _of_parameters),
    10: _function(bug10, lambda *arguments, **named: _backward(*arguments, **named)[0]),
    11: _function(bug11, _of_parameters),
    12: _layer(_Evaluated)._replace(listing=Bug12),
    13: _layer(Bug13),
    14: _function(bug14, _fold),
}
