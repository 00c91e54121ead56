"""A layer in torch's words, and when a layer of a framework is one: one form for `bnbook.nn`, torch and Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..functional._checks import pair


class Layer(NamedTuple):
    """A layer in torch's words: its name, its kind, and the numbers that decide what it computes."""

    name: str
    kind: str
    options: dict[str, Any]


LAYOUTS = {4: "(out, in, height, width)", 2: "(out, in)"}
WITH_ARRAYS = ("Conv2d", "Linear", "BatchNorm", "LayerNorm", "GroupNorm")

# kind → the attributes that decide what it computes, with the value of a layer that has no such attribute
OPTIONS: dict[str, dict[str, Any]] = {
    "Conv2d": {"kernel_size": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"},
    "Linear": {},
    "BatchNorm": {"eps": None, "momentum": None, "track_running_stats": True},
    "LayerNorm": {"normalized_shape": None, "eps": None},
    "GroupNorm": {"num_groups": None, "eps": None},
    "MaxPool2d": {
        "kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False
    },
    "Flatten": {"start_dim": 1, "end_dim": -1},
    "Dropout": {"p": None},
    "Softmax": {"dim": None},
    **{activation: {} for activation in ("ReLU", "Sigmoid", "Tanh")},
}  # fmt: skip
PAIRS = ("kernel_size", "stride", "padding", "dilation")


def filled(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a kind, defaults filled in, one number for both axes of an image written twice."""
    options = {**OPTIONS[kind], **values}
    for name in options.keys() & set(PAIRS):
        if not isinstance(options[name], str):
            options[name] = pair(name, options[name], at_least=0)
    if options.get("padding") == "valid":
        options["padding"] = (0, 0)
    elif options.get("padding") == "same" and options["stride"] == (1, 1):
        total = [d * (k - 1) for d, k in zip(options["dilation"], options["kernel_size"], strict=True)]
        if not any(t % 2 for t in total):  # else the two sides differ, and no pair of numbers says it
            options["padding"] = tuple(t // 2 for t in total)
    return options


# What a class may have of its own and still compute what the class computes that it is made of: how it is made, named
# and saved. Python's own names (`__init__`, `__doc__`) are of that kind, too, but for those that answer a call.
HARMLESS = ("reset_parameters", "extra_repr", "get_config", "from_config", "_api_export_path", "_api_export_symbol_id")
CALLS = ("__call__", "__getattr__", "__getattribute__")


def kind_of(layer: Any, known: Mapping[type, str], call: str) -> str | None:
    """The kind of a layer of a known class, or of one made of it that changes nothing that is computed; else None.

    A class is known by what it is and not by its name: another one of that name may compute anything.

    Args:
        layer: of any class.
        known: class → kind.
        call: the name of the method that computes: "forward", or in Keras "call".
    """
    mro = type(layer).__mro__
    base = next((kind for kind in mro if kind in known), None)
    if base is None or call in vars(layer):
        return None
    own = {name for kind in mro[: mro.index(base)] for name in vars(kind)} - set(HARMLESS)
    changed = any(name in CALLS or not (name.startswith("__") and name.endswith("__")) for name in own)
    return None if changed else known[base]


def refusal(name: str, layer: Any, known: Mapping[type, str], accepted: str) -> ValueError:
    """The error for a layer of no known kind; in full where its class has the name of a known one, or is made of it."""
    kind = type(layer)
    words = kind.__name__
    if words in {other.__name__ for other in known}:
        words = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(layer, tuple(known)):
        words += ", which computes in a way of its own"
    return ValueError(f"layer {name!r} is a {words}, which is not moved; accepted: {accepted}")
