"""Weights of one network in NumPy, PyTorch and Keras: read them from one, write them into another.

    convert(torch_model, keras_model)      # all parameters and running statistics, or an error and no change

It goes through one form, the *state*: a dict of NumPy arrays under the names and in the layouts of torch, which
`load_state_dict` of the NumPy network takes as it is. What lies in another order in Keras:

=================== ============================== ==============================
array               torch, NumPy                   Keras
=================== ============================== ==============================
convolution         (out, in, height, width)       (height, width, in, out)
fully connected     (out, in)                      (in, out)
rows after flatten  channel, height, width         height, width, channel
momentum            weight of the new value        weight of the old value
=================== ============================== ==============================

Images go in as (N, C, H, W) here and (N, H, W, C) there: ``np.moveaxis(x, 1, -1)``.

Networks are chains: a `Sequential` of either kind, or a functional Keras model without branches, of convolutions, fully
connected layers, batch normalizations, activations, max-pooling, flatten and dropout. `bnbook.nn` and torch also
exchange layer and group normalization. Anything else is refused by name, and so is a class made of one of these that
computes in its own way. Hooks are not seen. The mode (training or evaluation) and what is
frozen (`requires_grad`, `trainable`) stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from ..functional._checks import check_one_of
from ..nn.module import to_array
from .chains import Keras, Modules, open_model
from .layers import LAYOUTS, WITH_ARRAYS, Layer

Array = np.ndarray

SETTINGS = ("eps", "momentum")
"""Numbers that live on a layer, not among its arrays, and may be changed on a finished model."""

COUNTER = "num_batches_tracked"
"""Keras does not count batches: the count is not carried there, and a model that counts keeps its own."""


class State(dict):
    """name → array, in the names and layouts of torch, and in `layers` the chain of layers they belong to."""

    def __init__(self, arrays: Mapping[str, Array], layers: tuple[Layer, ...]) -> None:
        super().__init__(arrays)
        self.layers = layers

    def astype(self, dtype: type) -> State:
        """The same state with its floats in another dtype."""
        # bfloat16, which Keras has and NumPy does not, is of the kind V
        return State({k: v.astype(dtype) if v.dtype.kind in "fV" else v for k, v in self.items()}, self.layers)


def state(model: Any) -> State:
    """Copies of all parameters and running statistics of a model of any of the three frameworks.

    Raises:
        TypeError: not a model, or an array in a dtype that NumPy does not have.
        ValueError: not a chain, or a layer that has no counterpart; it is named.
    """
    opened = open_model(model)
    return State(opened.arrays(), tuple(opened.layers))


def load(model: Any, state: Mapping[str, Array], *, match: str = "name", settings: str = "check") -> None:
    """Write a state into a model of any of the three frameworks: all of it, or an error and no change.

    A softmax over the classes at the end of one of the two is left out: torch has it in the loss. A Keras model has
    no count of batches: it goes without, and `num_batches_tracked` of a model that has one stays as it was.

    Args:
        model: built; a Keras model needs its input shape.
        state: what `state` returns; or any mapping of torch's names to arrays, which says nothing about the order of
            the layers nor about eps and momentum.
        match: "name", the layers with arrays have the same names; or "order", the first belongs to the first.
        settings: what happens where eps or momentum of a layer differ: "check" is an error, "copy" sets those of the
            model (and drops the functions that Keras has traced of it and of models in it; one of which it is itself a
            part must be compiled again), "keep" leaves the model as it is.

    Raises:
        KeyError: arrays that are missing or unexpected.
        ValueError: layers of another kind, in another order or with other options; shapes; eps or momentum; NaN or
            infinity; a negative variance; two arrays for one of the model. All of a kind are named.
        TypeError: an array whose values the dtype of the model cannot hold, or a masked one.
    """
    check_one_of("match", match, ("name", "order"))
    check_one_of("settings", settings, ("check", "copy", "keep"))
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be what bnbook.interop.state returns or a mapping, got {type(state).__name__}")
    target = open_model(model)
    layers = getattr(state, "layers", None)
    if layers is None:
        if match == "order" or settings != "keep":
            raise ValueError(
                f"a {type(state).__name__} without layers cannot be matched by order, and does not say which eps and "
                "momentum belong to it: pass what bnbook.interop.state returns, or match='name', settings='keep'"
            )
        arrays, pairs = dict(state), []
    else:
        pairs = _pairs(layers, target.layers, match)
        names = {a.name: b.name for a, b in pairs}
        arrays = {_renamed(key, names): array for key, array in state.items()}
    before = target.arrays()
    arrays = _fitting(arrays, before, target.tied())
    changes = {} if settings == "keep" else _settings(pairs, target.layers, settings == "copy")
    _write(target, changes, arrays, before)


def convert(source: Any, target: Any, *, match: str = "name", settings: str = "check") -> None:
    """Give a model the parameters and running statistics of another: `load(target, state(source))`."""
    load(target, state(source), match=match, settings=settings)


def _write(target: Modules | Keras, changes: dict, arrays: dict[str, Array], before: dict[str, Array]) -> None:
    """All of it, or, where the framework refuses one of its arrays, what was there before."""
    settings = target.set(changes)
    try:
        target.write(arrays)
    except Exception:
        for layer, name, value in settings:
            setattr(layer, name, value)
        for key, array in before.items():
            with suppress(Exception):  # the one that cannot be written has not changed
                target.write({key: array})
        raise


# --- does the state fit the model? -----------------------------------------------------------------------------------


def _pairs(source: tuple[Layer, ...], target: list[Layer], match: str) -> list[tuple[Layer, Layer]]:
    """The layers that belong together, or an error that says what differs in kind, order, options or name."""
    source, target = _without_softmax(list(source), list(target))
    if [layer.kind for layer in source] != [layer.kind for layer in target]:
        raise ValueError(
            "the layers are not the same or not in the same order, so that the model would compute something else "
            "even if every array fitted:\n"
            f"  state: {' → '.join(layer.kind for layer in source)}\n"
            f"  model: {' → '.join(layer.kind for layer in target)}\n"
            "Build the model with the layers of the state, in their order."
        )
    pairs = list(zip(source, target, strict=True))
    differ = [
        f"{b.name}: {option} is {a.options[option]} in the state and {b.options[option]} in the model"
        for a, b in pairs
        for option in a.options
        if option not in SETTINGS and a.options[option] != b.options[option]
    ]
    if differ:
        raise ValueError(f"the layers differ: {'; '.join(differ)}")
    renamed = [f"{a.name!r} and {b.name!r}" for a, b in pairs if a.kind in WITH_ARRAYS and a.name != b.name]
    if renamed and match == "name":
        raise ValueError(
            f"layers have other names in the state and in the model: {', '.join(renamed)}; if they belong together in "
            "this order, pass match='order'"
        )
    return pairs


def _without_softmax(*chains: list[Layer]) -> list[list[Layer]]:
    """The chains; where one of them ends in a softmax that the other has in its loss, without it."""
    ends = [bool(chain) and chain[-1].kind == "Softmax" for chain in chains]
    if all(ends) or not any(ends):
        return list(chains)
    last = chains[ends.index(True)][-1]
    if last.options["dim"] not in (None, -1, 1):
        raise ValueError(
            f"{last.name}: the softmax at the end has dim={last.options['dim']}; accepted: over the classes, dim=1"
        )
    return [chain[:-1] if end else chain for chain, end in zip(chains, ends, strict=True)]


def _renamed(key: str, names: Mapping[str, str]) -> str:
    layer, dot, array = str(key).rpartition(".")
    return f"{names.get(layer, layer)}{dot}{array}"


def _fitting(given: Mapping[str, Any], own: Mapping[str, Array], tied: list[list[str]]) -> dict[str, Array]:
    """The arrays that are to be written, or an error that names all keys that are wrong in one way."""
    may_differ = {key.removesuffix("running_mean") + COUNTER for key in own if key.endswith(".running_mean")}
    missing = [key for key in own if key not in given and key not in may_differ]
    unexpected = [key for key in given if key not in own and key not in may_differ]
    if missing or unexpected:
        raise KeyError(f"the state does not fit the model: missing keys {missing}, unexpected keys {unexpected}")
    arrays = {key: to_array(key, value) for key, value in given.items() if key in own}
    wrong = [
        f"{key}: {a.shape}, expected {own[key].shape}" + _layout_hint(a.shape, own[key].shape)
        for key, a in arrays.items()
        if a.shape != own[key].shape
    ]
    if wrong:
        raise ValueError(f"the state has arrays of other shapes: {'; '.join(wrong)}")
    kinds = [
        f"{key}: {a.dtype}, the model holds {own[key].dtype}"
        for key, a in arrays.items()
        if not np.can_cast(a.dtype, own[key].dtype, "safe")
    ]
    if kinds:
        raise TypeError(
            f"the state has arrays that the model would round: {'; '.join(kinds)}; "
            "convert one of them first, for example by state.astype(np.float32)"
        )
    broken = [key for key, a in arrays.items() if not np.isfinite(a).all()]
    if broken:
        raise ValueError(f"the state has arrays with NaN or infinity: {', '.join(broken)}; has its training diverged?")
    negative = [key for key, a in arrays.items() if key.endswith("running_var") and (a < 0).any()]
    if negative:
        raise ValueError(f"a variance cannot be negative: {', '.join(negative)}; is it swapped with running_mean?")
    groups = [[name for name in names if name in arrays] for names in tied]
    torn = [g for g in groups if any(not np.array_equal(arrays[g[0]], arrays[name]) for name in g[1:])]
    if torn:
        raise ValueError(f"one array of the model, several in the state: {'; '.join(map(' and '.join, torn))}")
    return {key: a.astype(own[key].dtype) for key, a in arrays.items()}  # the order of bytes, too, may be another one


def _layout_hint(given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if sorted(given) != sorted(expected):
        return ""
    return f" as {LAYOUTS[len(expected)]}" if len(expected) in LAYOUTS else ""


def _settings(pairs: list[tuple[Layer, Layer]], target: list[Layer], copy: bool) -> dict[str, dict[str, Any]]:
    """Layer of the model → the settings of the state that differ from its own; an error unless they are copied."""
    changes: dict[str, dict[str, Any]] = {}
    for a, b in pairs:
        for name in SETTINGS:
            if name in a.options and not _same(a.options[name], b.options[name]):
                changes.setdefault(b.name, {})[name] = a.options[name]
    own = {layer.name: layer.options for layer in target}
    words = [
        f"{layer}: {name} is {value} in the state and {own[layer][name]} in the model"
        for layer, values in changes.items()
        for name, value in values.items()
    ]
    if words and not copy:
        raise ValueError(
            f"{'; '.join(words)} (momentum as the weight of the new value); make the model with the same ones, "
            "or pass settings='copy' to change them in the model, or settings='keep' to leave them different"
        )
    return changes


def _same(a: float | None, b: float | None) -> bool:
    """Equal but for the rounding of 1 − momentum."""
    return a is b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9, abs_tol=2e-15)
