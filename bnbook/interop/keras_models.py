"""A Keras model without branches as a chain of layers, walked along with the shape of what passes between them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .conventions import convert_momentum
from .layers import Layer, filled, kind_of, refusal

Array = np.ndarray

KERAS_LAYERS = "Conv2D, Dense, BatchNormalization, MaxPooling2D, Flatten, Dropout, Activation, ReLU, Softmax"
KERAS_ACTIVATIONS = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}


class Variable(NamedTuple):
    """A variable of a Keras layer, and how its values are turned into torch's layout and back."""

    variable: Any
    to_torch: Callable[[Array], Array]
    from_torch: Callable[[Array], Array]


class Keras:
    """A chain of Keras layers."""

    def __init__(self, model: Any) -> None:
        import keras  # whoever has a model of it has imported it

        self.model, self.keras = model, keras
        self.known = {getattr(keras.layers, name): name for name in (*KERAS_LAYERS.split(", "), "InputLayer")}
        self.layers: list[Layer] = []
        self.variables: dict[str, Variable] = {}
        self.modules: dict[str, Any] = {}
        self.models: list[Any] = []  # the model, and those in it
        leaves = list(self._leaves(model))
        formats = {layer.data_format for _, kind, layer in leaves if kind in ("Conv2D", "MaxPooling2D")}
        if len(formats) > 1:
            raise ValueError("the Keras model mixes channels_first and channels_last")
        self.channels_first = formats == {"channels_first"}
        self.order: Array | None = None  # after Flatten: the position in torch of every feature of Keras
        shape = tuple(model.input_shape)
        for name, kind, layer in leaves:
            self._add(name, kind, layer, shape)
            shape = tuple(layer.compute_output_shape(shape))
        if self.order is not None and (np.diff(self.order) < 0).any():
            raise ValueError("the Keras model ends flattened: torch would have its outputs in another order")

    def _leaves(self, model: Any, prefix: str = "") -> Iterator[tuple[str, str | None, Any]]:
        """Name, kind and layer of a Sequential or of a functional model without branches."""
        container = self._container(model)
        if container is None:
            raise ValueError(
                f"{type(model).__name__} is not a Sequential or functional model: the order of its layers cannot be "
                "seen"
            )
        if not model.built or not hasattr(model, "input_shape"):
            raise ValueError("the Keras model has no weights yet: begin it with keras.Input(shape)")
        if container is not self.keras.Sequential and not _is_chain(model):
            raise ValueError(f"{model.name!r} is not a chain of layers: it branches, uses one twice or holds a model")
        self.models.append(model)
        for layer in model.layers:
            kind = kind_of(layer, self.known, "call")
            if isinstance(layer, self.keras.Model):
                yield from self._leaves(layer, f"{prefix}{layer.name}.")
            elif kind != "InputLayer":
                yield prefix + layer.name, kind, layer

    def _container(self, model: Any) -> type | None:
        """Keras's Sequential or functional model, if the class of this one calls its layers in the same way."""
        for kind in type(model).__mro__:
            if kind is self.keras.Sequential or (kind.__name__ == "Functional" and kind.__module__[:6] == "keras."):
                same = all(getattr(type(model), name) is getattr(kind, name) for name in ("call", "__call__"))
                return kind if same and "call" not in vars(model) else None
        return None

    def _add(self, name: str, kind: str | None, layer: Any, shape: tuple) -> None:
        if kind is None:
            raise refusal(name, layer, self.known, KERAS_LAYERS)
        mode = getattr(layer, "quantization_mode", None) or getattr(layer.dtype_policy, "quantization_mode", None)
        if mode:
            raise ValueError(
                f"layer {name!r} is quantized ({mode}), so that its kernel alone is not its weights; accepted: a model "
                "before quantize()"
            )
        if getattr(layer, "lora_enabled", False):
            raise ValueError(
                f"layer {name!r} has LoRA, whose factors torch's layer does not have; accepted: a model before "
                "enable_lora()"
            )
        self.modules[name] = layer
        getattr(self, f"_{kind}")(name, layer, shape)
        if kind in ("Conv2D", "Dense"):
            self._Activation(f"{name}.activation", layer, shape)

    def _append(self, name: str, kind: str, **values: Any) -> None:
        self.layers.append(Layer(name, kind, filled(kind, values)))

    def _variable(self, key: str, variable: Any, to_torch: Callable, from_torch: Callable) -> None:
        if not isinstance(variable, self.keras.Variable):
            raise ValueError(f"{key} is computed, not a variable of Keras, got {type(variable).__name__}")
        self.variables[key] = Variable(variable, to_torch, from_torch)

    def _vector(self, key: str, variable: Any) -> None:
        """One value a feature."""
        if variable is not None:
            order = self.order
            here = slice(None) if order is None else order
            back = slice(None) if order is None else np.argsort(order)
            self._variable(key, variable, lambda a: a[back], lambda a: a[here])

    def _Conv2D(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(
            name, "Conv2d", kernel_size=layer.kernel_size,
            stride=layer.strides, padding=layer.padding, dilation=layer.dilation_rate, groups=layer.groups,
        )  # fmt: skip
        self._variable(
            f"{name}.weight", layer.kernel, lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0)
        )
        self._vector(f"{name}.bias", layer.bias)

    def _Dense(self, name: str, layer: Any, shape: tuple) -> None:
        if len(shape) != 2:
            raise ValueError(f"layer {name!r} is a Dense layer on {shape}; accepted: (N, features), after Flatten")
        self._append(name, "Linear")
        order = np.arange(shape[1]) if self.order is None else self.order
        back = np.argsort(order)
        self._variable(f"{name}.weight", layer.kernel, lambda a: a[back].T, lambda a: a.T[order])
        self.order = None
        self._vector(f"{name}.bias", layer.bias)

    def _BatchNormalization(self, name: str, layer: Any, shape: tuple) -> None:
        axis = 1 if self.channels_first or len(shape) == 2 else len(shape) - 1
        if layer.axis % len(shape) != axis or len(shape) == 3 or getattr(layer, "renorm", False):
            raise ValueError(
                f"layer {name!r} normalizes axis {layer.axis} of {shape}; accepted: the channels of (N, features) or "
                "of images, without renorm"
            )
        self._append(name, "BatchNorm", eps=layer.epsilon, momentum=_momentum(name, layer.momentum, "keras", "torch"))
        for array, attribute in (
            ("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance")
        ):  # fmt: skip
            self._vector(f"{name}.{array}", getattr(layer, attribute))

    def _MaxPooling2D(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(name, "MaxPool2d", kernel_size=layer.pool_size, stride=layer.strides, padding=layer.padding)

    def _Flatten(self, name: str, layer: Any, shape: tuple) -> None:
        self._append(name, "Flatten")
        if len(shape) <= 3:  # (N, H, W) has no channels: nothing changes places
            return
        if None in shape[1:]:
            raise ValueError(
                f"layer {name!r} flattens {shape}, whose sizes are not all known; accepted: a model that begins with "
                "keras.Input of a fixed height and width"
            )
        *positions, channels = shape[1:] if not self.channels_first else (*shape[2:], shape[1])
        order = np.arange(math.prod(shape[1:])).reshape(channels, *positions)
        # Whatever comes in, Keras puts the axis that it takes for the channels last.
        if not self.channels_first:
            order = np.moveaxis(order, 0, -1)
        if layer.data_format == "channels_first":
            order = np.moveaxis(order, 0, -1)
        self.order = order.ravel()

    def _Activation(self, name: str, layer: Any, shape: tuple) -> None:
        function = self._function(layer.activation)
        if function is None:
            given = getattr(layer.activation, "__name__", str(layer.activation))
            if given in (*KERAS_ACTIVATIONS, "linear"):
                given = f"a {given} of {getattr(layer.activation, '__module__', '?')}, not that of Keras"
            raise ValueError(f"{name!r} is {given}; accepted: linear, {', '.join(KERAS_ACTIVATIONS)}")
        if function == "softmax":
            self._softmax(name, -1, shape)
        elif function != "linear":
            self._append(name, KERAS_ACTIVATIONS[function])

    def _function(self, activation: Any) -> str | None:
        """The name of an activation function that is one of Keras or TensorFlow; a function of that name may be any."""
        rooms = [self.keras.activations, self.keras.ops, getattr(sys.modules.get("tensorflow"), "nn", None)]
        for name in (*KERAS_ACTIVATIONS, "linear"):
            if any(activation is getattr(room, name, self) for room in rooms):
                return name
        return None

    def _ReLU(self, name: str, layer: Any, shape: tuple) -> None:
        if layer.max_value is not None or layer.negative_slope or layer.threshold:
            raise ValueError(f"layer {name!r} is a ReLU with max_value, negative_slope or threshold; accepted: without")
        self._append(name, "ReLU")

    def _Softmax(self, name: str, layer: Any, shape: tuple) -> None:
        self._softmax(name, layer.axis, shape)

    def _softmax(self, name: str, axis: Any, shape: tuple) -> None:
        if not isinstance(axis, int):
            raise ValueError(f"layer {name!r} is a softmax over the axes {axis}; accepted: one axis")
        axes = [*range(len(shape))]  # of Keras, in the order of torch
        if len(shape) > 3 and not self.channels_first:
            axes = [0, axes[-1], *axes[1:-1]]
        self._append(name, "Softmax", dim=axes.index(axis % len(shape)))

    def _Dropout(self, name: str, layer: Any, shape: tuple) -> None:
        if layer.noise_shape is not None:
            raise ValueError(f"layer {name!r} is a Dropout with noise_shape {layer.noise_shape}; accepted: without")
        self._append(name, "Dropout", p=layer.rate)

    def arrays(self) -> dict[str, Array]:
        return {key: v.to_torch(np.asarray(v.variable).copy()) for key, v in self.variables.items()}

    def tied(self) -> list[list[str]]:
        return []  # a chain holds every layer once

    def write(self, arrays: Mapping[str, Array]) -> None:
        for key, array in arrays.items():
            variable, _, from_torch = self.variables[key]
            variable.assign(np.ascontiguousarray(from_torch(array)))

    def set(self, changes: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, str, Any]]:
        """Give layers other settings; what they were is returned."""
        attributes = [
            (self.modules[name], "epsilon", value)
            if setting == "eps"
            else (self.modules[name], "momentum", _momentum(name, value, "torch", "keras"))
            for name, values in changes.items()
            for setting, value in values.items()
        ]
        before = [(layer, attribute, getattr(layer, attribute)) for layer, attribute, _ in attributes]
        for layer, attribute, value in attributes:
            setattr(layer, attribute, value)
        if attributes:  # they are constants in what has been traced, of the model and of those in it
            for model in self.models:
                model.train_function = model.test_function = model.predict_function = None
        return before


def _momentum(name: str, momentum: float | None, source: str, target: str) -> float:
    if momentum is None:
        raise ValueError(f"{name}: momentum None, the average of all batches, does not exist in Keras")
    try:
        return convert_momentum(momentum, source, target)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def _is_chain(model: Any) -> bool:
    layers = model.layers[1:]  # behind the input
    try:
        tensors = [model.inputs[0], *(layer.output for layer in layers)]
        fits = [layer.input is tensor for layer, tensor in zip(layers, tensors, strict=False)]
    except AttributeError:  # a layer that is called in several places has no single input
        return False
    return len(model.inputs) == len(model.outputs) == 1 and all(fits) and tensors[-1] is model.outputs[0]
