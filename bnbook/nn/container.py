"""Layers in a row, and what turns images into rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np

from ..functional._checks import check_float_array, check_shape
from .module import Array, Module


class Sequential(Module):
    """Layers one after the other, as `torch.nn.Sequential`: given as arguments, or in a dictionary with their names.

    Raises:
        TypeError: something that is not a `Module`.
        ValueError: a name that is taken or has a dot; one layer in two places: it remembers one forward pass only.
    """

    def __init__(self, *layers: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = dict(layers[0])
        else:
            named = {str(i): layer for i, layer in enumerate(layers)}
        for name, layer in named.items():
            if not isinstance(layer, Module):
                raise TypeError(f"layer {name!r} must be a Module, got {type(layer).__name__}")
            if not name or "." in name or (hasattr(self, name)):
                raise ValueError(f"{name!r} cannot name a layer")
            setattr(self, name, layer)
        self._names = list(named)
        seen: set[Module] = set()
        for name, module in self.named_modules():
            if module in seen:
                raise ValueError(
                    f"layer {name!r} is used twice, but a layer remembers one forward pass: make a second one"
                )
            seen.add(module)

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in self._names)

    def __reversed__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in reversed(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Module:
        return getattr(self, self._names[index])

    def forward(self, x: Array) -> Array:
        for layer in self:
            x = layer(x)
        return x

    def backward(self, grad_y: Array) -> Array:
        for layer in reversed(self):
            grad_y = layer.backward(grad_y)
        return grad_y

    def __repr__(self) -> str:
        return "Sequential(\n" + "".join(f"  ({name}): {getattr(self, name)!r}\n" for name in self._names) + ")"


class Flatten(Module):
    """(N, C, H, W) to (N, C·H·W), in the order of torch (channel, row, column).

    The rows are a view: over memory in which the examples lie innermost nothing is moved, in either direction.
    """

    def forward(self, x: Array) -> Array:
        if not isinstance(x, np.ndarray) or x.ndim < 2:
            raise ValueError(f"x must be an array (N, *), got {getattr(x, 'shape', type(x).__name__)}")
        self._cache = x.shape
        return x.reshape(x.shape[0], prod(x.shape[1:]))

    def backward(self, grad_y: Array) -> Array:
        n, *rest = self._saved()
        check_float_array("grad_y", grad_y)
        check_shape("grad_y", grad_y, (n, prod(rest)), "the shape of the output")
        return grad_y.reshape(n, *rest)
