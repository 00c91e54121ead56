"""Layers in a row, and what turns images into rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

import numpy as np

from ..functional._checks import check_dtype, check_shape
from .module import Array, Module


class Sequential(Module):
    """Layers one after the other, as `torch.nn.Sequential`: given as arguments, or in a dictionary with their names.

    A slice is a Sequential of the same layers. A layer that is assigned later (``model.head = ...``) comes last, or
    takes the place of the one of that name.

    Raises:
        TypeError: something that is not a `Module`.
        ValueError: a name that is taken or has a dot; one layer in two places: it remembers one forward pass only. An
            inner row does not know what is around it: a layer that is put into it later is looked for by `forward`.
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
            setattr(self, name, layer)

    def __setattr__(self, name: str, value: object) -> None:
        old = vars(self).get(name)
        if isinstance(value, Module):
            self._check_layer(name, value, old)
        elif isinstance(old, Module):
            raise TypeError(f"layer {name!r} must be a Module, got {type(value).__name__}; `del` takes a layer away")
        super().__setattr__(name, value)

    def _check_layer(self, name: str, layer: Module, old: object) -> None:
        if not name or "." in name or (hasattr(self, name) and not isinstance(old, Module)):
            raise ValueError(f"{name!r} cannot name a layer")
        replaced = set() if old is None else {id(module) for _, module in old._places()}
        check_once(layer._places(name), {id(module) for _, module in self._places()} - replaced)

    def __iter__(self) -> Iterator[Module]:
        return (layer for _, layer in self.named_children())

    def __reversed__(self) -> Iterator[Module]:
        return reversed([*self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: int | slice) -> Module:
        named = list(self.named_children())
        if isinstance(index, slice):
            return Sequential(dict(named[index]))
        if not -len(named) <= index < len(named):
            raise IndexError(f"index {index} is out of range: there are {len(named)} layers")
        return named[index][1]

    def forward(self, x: Array) -> Array:
        check_once(self._places(), set())
        for layer in self:
            x = layer(x)
        return x

    def backward(self, grad_y: Array) -> Array:
        for layer in reversed(self):
            grad_y = layer.backward(grad_y)
        return grad_y

    def __repr__(self) -> str:
        return "Sequential(\n" + "".join(f"  ({name}): {layer!r}\n" for name, layer in self.named_children()) + ")"


def is_row(model: object, kind: type = Sequential) -> bool:
    """A Sequential (or what is one elsewhere), or a class made of it that calls its layers in the same way."""
    same = ("forward", "backward", "__call__", "__iter__", "__reversed__")
    return (
        isinstance(model, kind)
        and not vars(model).keys() & {"forward", "backward"}
        and all(getattr(type(model), name, None) is getattr(kind, name, None) for name in same)
    )


def check_once(places: Iterable[tuple[str, Module]], seen: set[int]) -> None:
    """Refuse a layer that has been seen, by its place."""
    for place, module in places:
        if id(module) in seen:
            raise ValueError(
                f"layer {place!r} is used twice, but a layer remembers one forward pass: make a second one"
            )
        seen.add(id(module))


class Flatten(Module):
    """(N, C, H, W) to (N, C·H·W), in the order of torch (channel, row, column).

    The rows are a view: over memory in which the examples lie innermost nothing is moved, in either direction.
    """

    def forward(self, x: Array) -> Array:
        if not isinstance(x, np.ndarray) or x.ndim < 2:
            raise ValueError(f"x must be an array (N, *), got {getattr(x, 'shape', type(x).__name__)}")
        self._cache = x.shape, x.dtype
        return x.reshape(x.shape[0], prod(x.shape[1:]))

    def backward(self, grad_y: Array) -> Array:
        (n, *rest), dtype = self._saved()
        check_dtype("grad_y", grad_y, "the output", dtype)
        check_shape("grad_y", grad_y, (n, prod(rest)), "the shape of the output")
        return grad_y.reshape(n, *rest)
