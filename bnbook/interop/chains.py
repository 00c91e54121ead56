"""Networks as chains of layers in torch's words, one interface over `bnbook.nn`, torch and Keras; see `interop`.

Nothing here imports a framework: whoever has a model of one has imported it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..functional._checks import pair
from .conventions import convert_momentum

Array = np.ndarray


class Layer(NamedTuple):
    """A layer in torch's words: its name, its kind, and the numbers that decide what it computes."""

    name: str
    kind: str
    options: dict[str, Any]


def open_model(model: Any) -> Modules | Keras:
    """The model behind the one interface of `Modules` and `Keras`."""
    modules = [kind.__module__ for kind in type(model).__mro__]
    if any(name.startswith("keras.") for name in modules):  # first: with another backend it may be a torch module too
        return Keras(model)
    if isinstance(model, nn.Module) or "torch.nn.modules.module" in modules:
        return Modules(model)
    raise TypeError(f"model must be a network of bnbook.nn, torch or Keras, got {type(model).__name__}")


def to_array(key: str, value: Any) -> Array:
    """A NumPy array of an array or a torch tensor on any device."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        return np.asarray(value).copy()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{key} cannot be turned into a NumPy array: {error}") from None


# --- NumPy and torch: the same names ---------------------------------------------------------------------------------

LAYOUTS = {4: "(out, in, height, width)", 2: "(out, in)"}
WITH_ARRAYS = ("Conv2d", "Linear", "BatchNorm", "LayerNorm", "GroupNorm")

# kind → the attributes that decide what it computes, with the value of a layer that has no such attribute
OPTIONS: dict[str, dict[str, Any]] = {
    "Conv2d": {"kernel_size": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"},
    "Linear": {},
    "BatchNorm": {"eps": None, "momentum": None},
    "LayerNorm": {"normalized_shape": None, "eps": None},
    "GroupNorm": {"num_groups": None, "eps": None},
    "MaxPool2d": {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False},
    "Flatten": {"start_dim": 1, "end_dim": -1},
    "Dropout": {"p": None},
    **{activation: {} for activation in ("ReLU", "Sigmoid", "Tanh", "Softmax")},
}
PAIRS = ("kernel_size", "stride", "padding", "dilation")


def _options(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
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


class Modules:
    """A Sequential of `bnbook.nn` or torch."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.modules = dict(self._leaves(model))
        self.layers = [self._layer(name, module) for name, module in self.modules.items()]

    def _leaves(self, model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        if not _is_sequential(model):
            raise ValueError(
                f"{type(model).__name__} is not a Sequential, so the order of its layers cannot be seen: put them into "
                "a Sequential under the same names (the keys stay the same) and load the state dict there first"
            )
        children = list(model.named_children())
        if len(children) != len(model):
            raise ValueError("a layer stands in two places of the Sequential: make a second one")
        for name, child in children:
            if _is_sequential(child):
                yield from self._leaves(child, f"{prefix}{name}.")
            elif type(child).__name__ != "Identity":
                yield prefix + name, child

    def _layer(self, name: str, module: Any) -> Layer:
        kind = type(module).__name__
        kind = "BatchNorm" if kind in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d") else kind
        if kind not in OPTIONS:
            raise ValueError(f"layer {name!r} is a {kind}, which is not moved; accepted: {', '.join(OPTIONS)}")
        values = {option: getattr(module, option) for option in OPTIONS[kind] if hasattr(module, option)}
        return Layer(name, kind, _options(kind, values))

    def arrays(self) -> dict[str, Array]:
        return {key: to_array(key, value) for key, value in self.model.state_dict().items()}

    def write(self, arrays: Mapping[str, Array]) -> None:
        if isinstance(self.model, nn.Module):
            self.model.load_state_dict(arrays, strict=False)
        else:
            import torch

            self.model.load_state_dict({k: torch.from_numpy(a) for k, a in arrays.items()}, strict=False)

    def set(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        for name, values in changes.items():
            for setting, value in values.items():
                setattr(self.modules[name], setting, value)


def _is_sequential(model: Any) -> bool:
    """A Sequential, or a class made of it that calls its layers in the same way."""
    return any(kind.__name__ == "Sequential" and type(model).forward is kind.forward for kind in type(model).__mro__)


# --- Keras -----------------------------------------------------------------------------------------------------------

KERAS_LAYERS = "Conv2D, Dense, BatchNormalization, MaxPooling2D, Flatten, Dropout, Activation, ReLU, Softmax"
KERAS_ACTIVATIONS = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}


class Variable(NamedTuple):
    """A variable of a Keras layer, and how its values are turned into torch's layout and back."""

    variable: Any
    to_torch: Callable[[Array], Array]
    from_torch: Callable[[Array], Array]


class Keras:
    """A chain of Keras layers, walked along with the shape of what passes between them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers: list[Layer] = []
        self.variables: dict[str, Variable] = {}
        self.modules: dict[str, Any] = {}
        leaves = list(_keras_leaves(model))
        formats = {layer.data_format for _, layer in leaves if type(layer).__name__ in ("Conv2D", "MaxPooling2D")}
        if len(formats) > 1:
            raise ValueError("the Keras model mixes channels_first and channels_last")
        self.channels_first = formats == {"channels_first"}
        self.order: Array | None = None  # after Flatten: the position in torch of every feature of Keras
        shape = tuple(model.input_shape)
        for name, layer in leaves:
            self._add(name, layer, shape)
            shape = tuple(layer.compute_output_shape(shape))
        if self.order is not None and (np.diff(self.order) < 0).any():
            raise ValueError("the Keras model ends flattened: torch would have its outputs in another order")

    def _add(self, name: str, layer: Any, shape: tuple) -> None:
        kind = type(layer).__name__
        add = getattr(self, f"_{kind}", None)
        if add is None:
            raise ValueError(f"layer {name!r} is a {kind}, which is not moved; accepted: {KERAS_LAYERS}")
        self.modules[name] = layer
        add(name, layer, shape)
        if kind in ("Conv2D", "Dense"):
            self._Activation(f"{name}.activation", layer, shape)

    def _append(self, name: str, kind: str, **values: Any) -> None:
        self.layers.append(Layer(name, kind, _options(kind, values)))

    def _vector(self, key: str, variable: Any) -> None:
        """One value a feature."""
        if variable is not None:
            order = self.order
            here = slice(None) if order is None else order
            back = slice(None) if order is None else np.argsort(order)
            self.variables[key] = Variable(variable, lambda a: a[back], lambda a: a[here])

    def _Conv2D(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(
            name, "Conv2d", kernel_size=layer.kernel_size,
            stride=layer.strides, padding=layer.padding, dilation=layer.dilation_rate, groups=layer.groups,
        )  # fmt: skip
        self.variables[f"{name}.weight"] = Variable(
            layer.kernel, lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0)
        )
        self._vector(f"{name}.bias", layer.bias)

    def _Dense(self, name: str, layer: Any, shape: tuple) -> None:
        if len(shape) != 2:
            raise ValueError(f"layer {name!r} is a Dense layer on {shape}; accepted: (N, features), after Flatten")
        self._append(name, "Linear")
        order = np.arange(shape[1]) if self.order is None else self.order
        back = np.argsort(order)
        self.variables[f"{name}.weight"] = Variable(layer.kernel, lambda a: a[back].T, lambda a: a.T[order])
        self.order = None
        self._vector(f"{name}.bias", layer.bias)

    def _BatchNormalization(self, name: str, layer: Any, shape: tuple) -> None:
        axis = 1 if self.channels_first or len(shape) == 2 else len(shape) - 1
        if layer.axis % len(shape) != axis or len(shape) == 3 or getattr(layer, "renorm", False):
            raise ValueError(
                f"layer {name!r} normalizes axis {layer.axis} of {shape}; accepted: the channels of (N, features) or "
                "of images, without renorm"
            )
        momentum = convert_momentum(layer.momentum, "keras", "torch")
        self._append(name, "BatchNorm", eps=layer.epsilon, momentum=momentum)
        for array, attribute in (
            ("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance")
        ):  # fmt: skip
            self._vector(f"{name}.{array}", getattr(layer, attribute))

    def _MaxPooling2D(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(name, "MaxPool2d", kernel_size=layer.pool_size, stride=layer.strides, padding=layer.padding)

    def _Flatten(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(name, "Flatten")
        if len(shape) > 3:  # (N, H, W) has no channels: nothing changes places
            *positions, channels = shape[1:] if not self.channels_first else (*shape[2:], shape[1])
            order = np.arange(math.prod(shape[1:])).reshape(channels, *positions)
            # Whatever comes in, Keras puts the axis that it takes for the channels last.
            if not self.channels_first:
                order = np.moveaxis(order, 0, -1)
            if layer.data_format == "channels_first":
                order = np.moveaxis(order, 0, -1)
            self.order = order.ravel()

    def _Activation(self, name: str, layer: Any, shape: tuple) -> None:
        function = getattr(layer.activation, "__name__", str(layer.activation))
        if function in KERAS_ACTIVATIONS:
            self._append(name, KERAS_ACTIVATIONS[function])
        elif function != "linear":
            raise ValueError(f"{name!r} is {function}; accepted: linear, {', '.join(KERAS_ACTIVATIONS)}")

    def _ReLU(self, name: str, layer: Any, shape: tuple) -> None:
        if layer.max_value is not None or layer.negative_slope or layer.threshold:
            raise ValueError(f"layer {name!r} is a ReLU with max_value, negative_slope or threshold; accepted: without")
        self._append(name, "ReLU")

    def _Softmax(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(name, "Softmax")

    def _Dropout(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(name, "Dropout", p=layer.rate)

    def arrays(self) -> dict[str, Array]:
        return {key: v.to_torch(np.asarray(v.variable).copy()) for key, v in self.variables.items()}

    def write(self, arrays: Mapping[str, Array]) -> None:
        for key, array in arrays.items():
            variable, _, from_torch = self.variables[key]
            variable.assign(np.ascontiguousarray(from_torch(array)))

    def set(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        attributes = [
            (name, "epsilon", value) if setting == "eps" else (name, "momentum", _keras_momentum(name, value))
            for name, values in changes.items()
            for setting, value in values.items()
        ]
        for name, attribute, value in attributes:
            setattr(self.modules[name], attribute, value)
        if attributes:  # they are constants in what has been traced
            self.model.train_function = self.model.test_function = self.model.predict_function = None


def _keras_momentum(name: str, momentum: float | None) -> float:
    if momentum is None:
        raise ValueError(f"{name}: momentum None, the average of all batches, does not exist in Keras")
    return convert_momentum(momentum, "torch", "keras")


def _keras_leaves(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The layers of a Sequential or of a functional model without branches, under their names."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if not kinds & {"Sequential", "Functional"}:
        raise ValueError(
            f"{type(model).__name__} is not a Sequential or functional model: the order of its layers cannot be seen"
        )
    if not model.built or not hasattr(model, "input_shape"):
        raise ValueError("the Keras model has no weights yet: begin it with keras.Input(shape)")
    if "Sequential" not in kinds and not _is_chain(model):
        raise ValueError(f"{model.name!r} is not a chain of layers: it branches, uses one twice or holds a model")
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _keras_leaves(layer, f"{prefix}{layer.name}.")
        elif type(layer).__name__ != "InputLayer":
            yield prefix + layer.name, layer


def _is_chain(model: Any) -> bool:
    layers = model.layers[1:]  # behind the input
    try:
        tensors = [model.inputs[0], *(layer.output for layer in layers)]
        fits = [layer.input is tensor for layer, tensor in zip(layers, tensors, strict=False)]
    except AttributeError:  # a layer that is called in several places has no single input
        return False
    return len(model.inputs) == len(model.outputs) == 1 and all(fits) and tensors[-1] is model.outputs[0]
