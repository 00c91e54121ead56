"""What the tests compare with: the textbook formulas in float64, torch, and random arguments that hide nothing.

Weights, biases, running statistics and upstream gradients are always random, and all axes of an array have different
lengths: with ones, zeros or equal lengths many mistakes cannot be seen.
"""

from __future__ import annotations

import copy
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from bnbook import functional as F
from bnbook import nn, textbook
from bnbook.checking.compare import TOLERANCES, max_difference

try:
    import torch
except ImportError:  # torch cannot be had for every Python; the textbook formulas and numeric gradients remain
    torch = None

OUTPUT = {np.dtype(name): tolerance["output"] for name, tolerance in TOLERANCES.items()}
GRADIENT = {np.dtype(name): tolerance["gradient"] for name, tolerance in TOLERANCES.items()}
DTYPES = (np.float64, np.float32)


def generator(name: str) -> np.random.Generator:
    """Random numbers that depend on the name of a case alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def assert_agrees(actual, expected, tolerance: float, what: str, scale: float | None = None) -> None:
    difference = max_difference(actual, expected, scale)
    assert difference <= tolerance, f"{what}: largest difference {difference:.2e}, tolerated {tolerance:.0e}"


def tensor(array):
    """A leaf tensor with the values of an array; None stays None."""
    return None if array is None else torch.tensor(np.ascontiguousarray(array), requires_grad=True)


def memory_order(array: np.ndarray) -> tuple[int, ...]:
    """The axes from the outermost in memory to the innermost, without those of length 1."""
    axes = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    return tuple(sorted(axes, key=lambda axis: -abs(array.strides[axis])))


def as_pair(value):
    """An integer for both image axes, or a pair of them."""
    return value if isinstance(value, tuple) else (value, value)


def layouts(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same values in every kind of memory."""
    yield "contiguous", x.copy()
    yield "Fortran order", np.asfortranarray(x)
    spaced = np.full(tuple(2 * n for n in x.shape), np.nan, x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    spaced[...] = x
    yield "every second value", spaced
    flip = (slice(None, None, -1),) * x.ndim
    yield "negative strides", x[flip].copy()[flip]
    if x.ndim > 1:
        yield "channels outermost", np.ascontiguousarray(np.moveaxis(x, 1, 0)).swapaxes(0, 1)
        yield "batch innermost", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
        yield "channels innermost", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only


# --- every normalization, function or layer, behind one interface -----------------------------------------------------


@dataclass(frozen=True)
class Normalization:
    """A normalization with a shape of x; `forward` and `torch_forward` take their arguments from one namespace."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]  # the averaged axes of x; with groups, of x as (N, groups, C / groups, *)
    parameter_shape: tuple[int, ...]
    forward: Callable
    backward: Callable
    torch_forward: Callable
    groups: int | None = None
    per_channel: bool = True
    centered: bool = True
    tracks: bool = False  # running statistics
    training: bool = True  # whether it normalizes by x's own statistics
    affine: tuple[tuple[bool, bool], ...] = tuple(itertools.product((True, False), repeat=2))
    eps: tuple[float, ...] = (1e-5, 0.3)
    layer: bool = False
    options: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def arguments(self, dtype=np.float64, *, affine=None, eps=1e-5, momentum=0.37, shape=None):
        """x with another mean and spread in every channel, parameters, statistics and an upstream gradient."""
        rng = generator(self.name)
        affine = self.affine[0] if affine is None else affine
        shape = self.shape if shape is None else shape
        x = rng.normal(size=shape)
        if self.per_channel:
            channels = (1, shape[1]) + (1,) * (len(shape) - 2)
            x = x * rng.uniform(0.5, 2, channels) + rng.normal(size=channels)
        else:
            x = x * rng.uniform(0.5, 2, shape[-1]) + rng.normal(size=shape[-1])
        weight, bias = (
            rng.uniform(0.5, 2, self.parameter_shape) * rng.choice([-1, 1]),
            rng.normal(size=self.parameter_shape),
        )
        mean, var = rng.normal(size=self.parameter_shape), rng.uniform(0.5, 2, self.parameter_shape)
        grad_y = rng.normal(size=shape) + 0.3
        return SimpleNamespace(
            x=x.astype(dtype),
            weight=weight.astype(dtype) if affine[0] else None,
            bias=bias.astype(dtype) if affine[1] else None,
            mean=mean.astype(dtype) if self.tracks else None,
            var=var.astype(dtype) if self.tracks else None,
            grad_y=grad_y.astype(dtype),
            eps=eps,
            momentum=momentum,
        )

    def combinations(self) -> Iterator[dict]:
        for affine, eps in itertools.product(self.affine, self.eps):
            yield {"affine": affine, "eps": eps}

    def statistics(self, a) -> tuple[np.ndarray, np.ndarray]:
        """μ and σ² of x (0 and the mean square for RMS normalization), which broadcast against the split x."""
        x = self._split(a.x.astype(np.float64))
        if not self.training:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            return a.mean.astype(np.float64).reshape(shape), a.var.astype(np.float64).reshape(shape)
        if not self.centered:
            return np.zeros(1), (x * x).mean(self.axes, keepdims=True)
        return x.mean(self.axes, keepdims=True), x.var(self.axes, keepdims=True)

    def textbook(self, a) -> np.ndarray:
        """y = γ (x − μ) / √(σ² + ε) + β in float64, with NumPy's own mean and variance."""
        mean, var = self.statistics(a)
        x_hat = textbook.normalize(self._split(a.x.astype(np.float64)), mean, var, a.eps).reshape(a.x.shape)
        return x_hat * self._spread(a.weight, 1.0) + self._spread(a.bias, 0.0)

    def gradient_scale(self, a) -> float:
        """max|γ/√(σ²+ε)| · max|upstream|, the size of the input gradient before the projection cancels."""
        _, var = self.statistics(a)
        gamma = 1.0 if a.weight is None else float(np.abs(a.weight).max())
        return gamma / float(np.sqrt(var.min() + a.eps)) * float(np.abs(a.grad_y).max())

    def updated(self, a) -> tuple[np.ndarray, np.ndarray]:
        """The running statistics after a training step, with the unbiased variance of NumPy."""
        x, positions = a.x.astype(np.float64), tuple(range(2, a.x.ndim))
        if 0 in self.axes:  # batch normalization
            mean, var = x.mean(self.axes), x.var(self.axes, ddof=1)
        else:  # instance normalization: the average over the images
            mean, var = x.mean(positions).mean(0), x.var(positions, ddof=1).mean(0)
        return tuple((1 - a.momentum) * old + a.momentum * new for old, new in ((a.mean, mean), (a.var, var)))

    def _split(self, x):
        return x if self.groups is None else x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])

    def _spread(self, parameter, default):
        if parameter is None:
            return default
        return parameter.reshape((1, -1) + (1,) * (len(self.shape) - 2)) if self.per_channel else parameter


def _batch_norm(shape, training):
    return Normalization(
        name=f"batch_norm-{'training' if training else 'evaluation'}-{len(shape)}d",
        shape=shape,
        axes=(0, *range(2, len(shape))),
        parameter_shape=shape[1:2],
        forward=lambda a: F.batch_norm(a.x, a.mean, a.var, a.weight, a.bias, training, a.momentum, a.eps),
        backward=F.batch_norm_backward,
        torch_forward=lambda a: torch.nn.functional.batch_norm(
            a.x, a.mean, a.var, a.weight, a.bias, training, a.momentum, a.eps
        ),
        tracks=True,
        training=training,
    )


def _instance_norm(shape, training):
    return Normalization(
        name=f"instance_norm-{'training' if training else 'evaluation'}-{len(shape)}d",
        shape=shape,
        axes=tuple(range(2, len(shape))),
        parameter_shape=shape[1:2],
        forward=lambda a: F.instance_norm(a.x, a.mean, a.var, a.weight, a.bias, training, a.momentum, a.eps),
        backward=F.instance_norm_backward,
        torch_forward=lambda a: torch.nn.functional.instance_norm(
            a.x, a.mean, a.var, a.weight, a.bias, training, a.momentum, a.eps
        ),
        tracks=True,
        training=training,
    )


def _layer_norm(shape, normalized_shape):
    tail = normalized_shape if isinstance(normalized_shape, tuple) else (normalized_shape,)
    return Normalization(
        name=f"layer_norm-{len(shape)}d-{len(tail)}-{type(normalized_shape).__name__}",
        shape=shape,
        axes=tuple(range(len(shape) - len(tail), len(shape))),
        parameter_shape=tail,
        forward=lambda a: F.layer_norm(a.x, normalized_shape, a.weight, a.bias, a.eps),
        backward=F.layer_norm_backward,
        torch_forward=lambda a: torch.nn.functional.layer_norm(a.x, tail, a.weight, a.bias, a.eps),
        per_channel=False,
    )


def _rms_norm(shape, normalized_shape):
    tail = normalized_shape if isinstance(normalized_shape, tuple) else (normalized_shape,)
    return Normalization(
        name=f"rms_norm-{len(shape)}d-{len(tail)}-{type(normalized_shape).__name__}",
        shape=shape,
        axes=tuple(range(len(shape) - len(tail), len(shape))),
        parameter_shape=tail,
        forward=lambda a: F.rms_norm(a.x, normalized_shape, a.weight, a.eps),
        backward=lambda grad_y, cache: (*F.rms_norm_backward(grad_y, cache), None),
        torch_forward=lambda a: torch.nn.functional.rms_norm(a.x, tail, a.weight, a.eps),
        per_channel=False,
        centered=False,
        affine=((True, False), (False, False)),
    )


def _neither_or_both(a):
    """torch's own group_norm fails in backward where only one of weight and bias is given."""
    weight = torch.ones(a.x.shape[1], dtype=a.x.dtype) if a.weight is None and a.bias is not None else a.weight
    bias = torch.zeros(a.x.shape[1], dtype=a.x.dtype) if a.bias is None and a.weight is not None else a.bias
    return weight, bias


def _group_norm(shape, groups):
    return Normalization(
        name=f"group_norm-{len(shape)}d-{groups}",
        shape=shape,
        axes=tuple(range(2, len(shape) + 1)),
        parameter_shape=shape[1:2],
        forward=lambda a: F.group_norm(a.x, groups, a.weight, a.bias, a.eps),
        backward=F.group_norm_backward,
        torch_forward=lambda a: torch.nn.functional.group_norm(a.x, groups, *_neither_or_both(a), a.eps),
        groups=groups,
    )


FUNCTIONS = [
    *(_batch_norm(s, mode) for mode in (True, False) for s in ((7, 5), (6, 4, 5), (5, 3, 4, 6), (3, 4, 2, 6, 5))),
    *(_instance_norm(s, mode) for mode in (True, False) for s in ((5, 4, 7), (4, 3, 5, 6), (2, 3, 6, 4, 5))),
    *(_layer_norm(s, t) for s, t in (((7,), 7), ((6, 9), 9), ((4, 3, 5), (5,)), ((4, 3, 5), (3, 5)))),
    _layer_norm((2, 3, 4, 5), (3, 4, 5)),
    *(_rms_norm(s, t) for s, t in (((7,), 7), ((6, 9), 9), ((4, 3, 5), (5,)), ((4, 3, 5), (3, 5)))),
    *(_group_norm((3, 6, 4, 5), groups) for groups in (1, 2, 3, 6)),
    *(_group_norm(s, 2) for s in ((5, 6), (4, 6, 5), (2, 4, 6, 3, 5))),
]


# --- layers: a layer is built, filled with the arguments, and asked --------------------------------------------------


def _layer(function: Normalization, name: str, make: Callable, torch_name: str, *args, **changes) -> Normalization:
    """The layer that belongs to a function: same shape and textbook formula, other calls."""

    def options(a, kind):
        if kind == "rms":
            return {"eps": a.eps, "elementwise_affine": a.weight is not None}
        if kind == "layer":
            return {"eps": a.eps, "elementwise_affine": a.weight is not None, "bias": a.bias is not None}
        if kind == "group":
            return {"eps": a.eps, "affine": a.weight is not None}
        return {"eps": a.eps, "momentum": a.momentum, "affine": a.weight is not None, "track_running_stats": True}

    kind = changes.pop("kind", "running")

    def forward(a):
        layer = make(*args, **options(a, kind), dtype=a.x.dtype).train(function.training)
        for attribute, values in (("weight", a.weight), ("bias", a.bias)):
            if values is not None:
                getattr(layer, attribute).data = values
        if a.mean is not None:
            layer.running_mean, layer.running_var = a.mean, a.var
        return layer(a.x), layer

    def backward(grad_y, layer):
        grad_x = layer.backward(grad_y)
        parameters = (getattr(layer, "weight", None), getattr(layer, "bias", None))
        return grad_x, *(None if p is None else p.grad for p in parameters)

    def torch_forward(a):
        layer = getattr(torch.nn, torch_name)(*args, **options(a, kind), dtype=a.x.dtype).train(function.training)
        for attribute, values in (("weight", a.weight), ("bias", a.bias)):
            if values is not None:
                del layer._parameters[attribute]
                setattr(layer, attribute, values)
        if a.mean is not None:
            layer.running_mean, layer.running_var = a.mean, a.var
        return layer(a.x)

    changed = copy.copy(function.__dict__) | changes
    changed |= {"name": f"{name}-{function.name}", "layer": True}
    return Normalization(**changed | {"forward": forward, "backward": backward, "torch_forward": torch_forward})


def _layers() -> Iterator[Normalization]:
    both = ((True, True), (False, False))
    for f in FUNCTIONS:
        kind, ndim = f.name.split("-")[0], len(f.shape)
        if kind == "batch_norm":
            name = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[ndim]
            yield _layer(f, name, getattr(nn, name), name, f.shape[1], affine=both)
        elif kind == "instance_norm" and ndim < 5:
            name = {3: "InstanceNorm1d", 4: "InstanceNorm2d"}[ndim]
            yield _layer(f, name, getattr(nn, name), name, f.shape[1], affine=both)
        elif kind == "group_norm":
            yield _layer(f, "GroupNorm", nn.GroupNorm, "GroupNorm", f.groups, f.shape[1], affine=both, kind="group")
        elif kind == "layer_norm":
            affine = (*both, (True, False))
            yield _layer(f, "LayerNorm", nn.LayerNorm, "LayerNorm", f.parameter_shape, affine=affine, kind="layer")
        elif kind == "rms_norm":
            yield _layer(f, "RMSNorm", nn.RMSNorm, "RMSNorm", f.parameter_shape, kind="rms")


LAYERS = list(_layers())
NORMALIZATIONS = FUNCTIONS + LAYERS
