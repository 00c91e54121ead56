"""Batch normalization, in evaluation, put into the weights before or behind it: the same outputs with fewer layers.

In evaluation the layer is one multiplication and one addition per channel,

    y = a x + t,        a = γ/√(σ̄² + ε),        t = β − a μ̄,

and a convolution or a fully connected layer is linear, so that the two together are again one such layer:

    into the one before:  W′ = a W (its output channels),  b′ = a b + t
    into the one behind:  W′ = W a (its input channels),   b′ = b + Σ W t, as long as it pads nothing with zeros
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..functional._checks import check_number
from ..nn.container import is_row
from ..nn.module import value
from .layers import kind_of

Array = np.ndarray


def scale_and_shift(
    running_mean: Array, running_var: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, Array]:
    """What batch normalization does in evaluation, y = a x + t: (a, t), one of each per channel, in float64.

    Args:
        running_mean, running_var: μ̄ and σ̄², (C,).
        weight, bias: γ and β, (C,); None: 1 and 0.
        eps: ε.

    Raises:
        ValueError: shapes that differ; σ̄² + ε that is not positive, NaN or infinity among the results.
    """
    check_number("eps", eps)
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    arrays = {name: np.asarray(a, np.float64) for name, a in given.items() if a is not None}
    shapes = {name: a.shape for name, a in arrays.items()}
    if len(set(shapes.values())) > 1 or np.ndim(running_mean) != 1:
        raise ValueError(f"all must have one shape (C,), got {shapes}")
    if not np.all(arrays["running_var"] + eps > 0):
        raise ValueError("running_var + eps must be positive in every channel")
    scale = arrays.get("weight", 1.0) / np.sqrt(arrays["running_var"] + eps)
    shift = arrays.get("bias", 0.0) - scale * arrays["running_mean"]
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise ValueError("running_mean, running_var, weight and bias must be finite")
    return scale, shift


def into_previous(
    weight: Array, bias: Array | None, scale: Array, shift: Array, *, transposed: bool = False, groups: int = 1
) -> tuple[Array, Array]:
    """W′ and b′ of a layer that computes a (W x + b) + t.

    Args:
        weight: (out, in) or (out, in/groups, sizes); transposed, (in, out/groups, sizes).
        bias: (out,), or None.
        scale, shift: a and t, (out,).
        transposed: whether it is a transposed convolution, which has its output channels on axis 1, group by group.
        groups: of a transposed convolution; of others they make no difference.

    Raises:
        ValueError: another number of output channels.
    """
    weight = np.asarray(weight)
    out = weight.shape[1] * groups if transposed else weight.shape[0]
    _check_channels(scale, shift, out, "output")
    if transposed:
        by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        folded = (by_group * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    else:
        folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return folded, shift if bias is None else scale * bias + shift


def into_next(weight: Array, bias: Array | None, scale: Array, shift: Array, *, groups: int = 1) -> tuple[Array, Array]:
    """W′ and b′ of a layer that computes W (a x + t) + b, without padding by zeros.

    Args:
        weight: (out, in) or (out, in/groups, sizes).
        bias: (out,), or None.
        scale, shift: a and t, (in,).
        groups: of a convolution.

    Raises:
        ValueError: another number of input channels.
    """
    weight = np.asarray(weight)
    _check_channels(scale, shift, weight.shape[1] * groups, "input")
    by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    per_input = (groups, 1, -1, *[1] * (weight.ndim - 2))
    added = (by_group * shift.reshape(per_input)).reshape(weight.shape[0], -1).sum(axis=1)
    return (by_group * scale.reshape(per_input)).reshape(weight.shape), added if bias is None else bias + added


def _check_channels(scale: Array, shift: Array, channels: int, which: str) -> None:
    if np.shape(scale) != (channels,) or np.shape(shift) != (channels,):
        raise ValueError(
            f"the weights have {channels} {which} channels, scale and shift have the shapes {np.shape(scale)} and "
            f"{np.shape(shift)}"
        )


class FoldReport(NamedTuple):
    """What `fold` did with every layer of batch normalization."""

    folded: dict[str, tuple[str, ...]]
    """Layer → the layers whose weights it went into: one before it, or those behind it."""
    kept: dict[str, str]
    """Layer → why it was left where it is."""
    difference: float | None
    """The largest difference of the outputs on the example, over the largest output; None without an example."""

    def __str__(self) -> str:
        lines = [f"{layer}: folded into {', '.join(into)}" for layer, into in self.folded.items()]
        return "\n".join(lines + [f"{layer}: kept, {why}" for layer, why in self.kept.items()])


def fold(model: Any, example: Any = None) -> tuple[Any, FoldReport]:
    """A copy of a model in which batch normalization is part of the weights; the model itself stays as it was.

    A layer goes into the convolution or fully connected layer whose output goes to it alone; else into those behind it
    that get its output and pad nothing with zeros. Who calls whom is read from `torch.fx`; where that cannot follow a
    model, from a run on the example, and then every pair is tried with another scale and shift before it is folded.
    So are layers of other classes: a convolution with a forward of its own, a layer with running statistics whose scale
    and shift are measured. What hands its input on unchanged, as a dropout does in evaluation, may stand between.
    What cannot be folded is kept, and the report says why. In the copy of a torch model `Identity` stands where a
    folded layer was; from that of a `Sequential` of `bnbook.nn` the layer is gone.

    Args:
        model: a torch model, or a `Sequential` of `bnbook.nn`, in evaluation.
        example: an input (a tuple: several; a dictionary: by their names) on which the outputs are compared. Needed
            where a fully connected layer is followed by batch normalization, since (N, C) and (N, C, L) differ in what
            is a channel, for layers of other classes, and where `torch.fx` cannot follow the model.

    Returns:
        the copy, and a `FoldReport`.

    Raises:
        TypeError: not such a model.
        ValueError: nothing of it can be folded, all layers are named; it cannot be copied, not be run on the example,
            or not be followed without one; statistics that are no numbers, channels that do not fit; or the outputs
            differ by more than rounding.

    Source: Jacob et al. (2018), section 3.2, for convolutions.
    """
    if isinstance(model, nn.Module):
        return _fold_row(model, example)
    rooms = {kind.__module__ for kind in type(model).__mro__}
    if "torch.nn.modules.module" in rooms and not any(room.startswith("keras.") for room in rooms):
        from .torch_folding import fold_torch

        return fold_torch(model, example)
    raise TypeError(f"model must be a torch model or a Sequential of bnbook.nn, got {type(model).__name__}")


@contextlib.contextmanager
def naming(layer: str) -> Iterator[None]:
    """A ValueError of the arithmetic says of which layer it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{layer}: {error}") from error


def finished(folded: Mapping[str, tuple[str, ...]], kept: Mapping[str, str], difference: float | None) -> FoldReport:
    """The report, or an error where nothing was folded."""
    report = FoldReport(dict(folded), dict(kept), difference)
    if not folded:
        reasons = "; ".join(f"{layer or 'the model itself'}: {why}" for layer, why in kept.items())
        raise ValueError(f"nothing can be folded: {reasons or 'no such layer'}")
    return report


# --- networks of bnbook.nn -------------------------------------------------------------------------------------------

NORMS = {kind: "BatchNorm" for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)}
WEIGHTED = {nn.Conv2d: "Conv2d", nn.Linear: "Linear"}


def _fold_row(model: nn.Module, example: Any) -> tuple[nn.Sequential, FoldReport]:
    if not is_row(model):
        raise TypeError(f"{type(model).__name__} is not a Sequential, so the order of its layers cannot be seen")
    copied = copy.deepcopy(model)
    row = list(_leaves(copied, ""))
    axes = None if example is None else _axes([layer for _, _, layer in row], example)
    before = None if example is None else copy.deepcopy(model)(example)
    folded, kept = {}, {}
    gone: set[str] = set()
    for i, (place, _, norm) in enumerate(row):
        if not isinstance(norm, tuple(NORMS)):
            continue
        if reason := why_not_norm(norm, kind_of(norm, NORMS, "forward")):
            kept[place] = reason
            continue
        left, right = (row[j] if 0 <= j < len(row) else None for j in (i - 1, i + 1))
        arrives, leaves = (None, None) if axes is None else (axes[i], axes[i + 1])
        into, reason = None, "no convolution or fully connected layer stands before or behind it"
        for backwards, neighbour, number in ((True, left, arrives), (False, right, leaves)):
            if into is None and neighbour and kind_of(neighbour[2], WEIGHTED, "forward"):
                reason = _why_not_beside(neighbour[2], number, backwards)
                into = None if reason else (backwards, neighbour)
        if into is None:
            kept[place] = reason
            continue
        backwards, (name, _, weights) = into
        rule = into_previous if backwards else into_next
        old, statistics = weights.weight.data, (norm.running_mean, norm.running_var)
        with naming(f"{place} into {name}"):
            constants = scale_and_shift(*statistics, value(norm.weight), value(norm.bias), norm.eps)
            w, b = rule(old.astype(np.float64), value(weights.bias), *constants)
        weights.weight, weights.bias = (nn.Parameter(a.astype(old.dtype)) for a in (w, b))
        folded[place] = (name,)
        gone.add(place)
    for place, parent, _ in row:
        if place in gone:
            delattr(parent, place.rpartition(".")[2])
    difference = None
    if before is not None and folded:
        dtypes = {str(a.dtype) for a in (before, *(p.data for p in model.parameters()))}
        difference = compared([before], [copy.deepcopy(copied)(example)], rounding(dtypes))
    return copied, finished(folded, kept, difference)


def _leaves(model: nn.Sequential, prefix: str):
    for name, child in model.named_children():
        if is_row(child):
            yield from _leaves(child, f"{prefix}{name}.")
        else:
            yield prefix + name, model, child


def _axes(layers: list[nn.Module], example: Array) -> list[int]:
    """How many axes arrive at each layer of a copy of them, and leave the last."""
    x, numbers = example, []
    for layer in copy.deepcopy(layers):
        numbers.append(np.ndim(x))
        x = layer(x)
    return [*numbers, np.ndim(x)]


def _why_not_beside(weights: nn.Module, axes: int | None, backwards: bool) -> str:
    if isinstance(weights, nn.Linear):
        return why_not_linear(axes)
    return "" if backwards or not any(weights.padding) else PADDED


# --- what both frameworks ask ----------------------------------------------------------------------------------------

PADDED = "the convolution behind it pads with zeros, where the layer would have put its shift"


def why_not_norm(norm: Any, kind: str | None) -> str:
    """Why a layer of batch normalization is no constant scale and shift; else ""."""
    if kind is None:
        return f"a {type(norm).__name__} computes in a way of its own"
    if norm.running_mean is None or norm.running_var is None:
        return "it has no running statistics"
    return "it is in training mode, call eval() first" if norm.training else ""


def why_not_linear(axes: int | None) -> str:
    if axes is None:
        return "a fully connected layer is beside it, and the number of axes is not known: pass an example"
    return (
        "" if axes == 2 else "the fully connected layer has its features on the last axis, the channels are on axis 1"
    )


def rounding(dtypes: Iterable[str]) -> float:
    """How far outputs that are the same may be apart, relative to the largest, after a deep network of these dtypes."""
    return max({"float64": 1e-9, "float32": 1e-3}.get(dtype, 0.05) for dtype in dtypes)


def compared(before: list[Array], after: list[Array], tolerance: float) -> float:
    """The largest difference of outputs, over the largest of them.

    Raises:
        ValueError: more than `tolerance`, other shapes, or no real numbers among the outputs.
    """
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old.dtype.kind in "fc" and old.size]
    if not pairs:
        raise ValueError("the model returns no real numbers, by which the outputs could be compared")
    worst = 0.0
    for old, new in pairs:
        if old.shape != new.shape:
            raise ValueError(f"an output has the shape {new.shape} after folding, {old.shape} before")
        finite = np.isfinite(old)
        scale = np.abs(old[finite]).max(initial=0.0) or 1.0
        away = float(np.abs(new[finite].astype(np.float64) - old[finite]).max(initial=0.0) / scale)
        if not away <= tolerance or not np.array_equal(old[~finite], new[~finite], equal_nan=True):
            raise ValueError(f"after folding the outputs differ by {away:.1e} of the largest, more than rounding")
        worst = max(worst, away)
    return worst
