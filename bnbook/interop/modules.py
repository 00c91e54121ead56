"""A `Sequential` of `bnbook.nn` or torch as a chain of layers: the arrays have the same names in both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import nn
from ..nn.container import is_row
from ..nn.module import to_array
from .layers import OPTIONS, Layer, filled, kind_of, refusal

Array = np.ndarray
Settings = list[tuple[Any, str, Any]]


class Modules:
    """A Sequential of `bnbook.nn` or torch."""

    def __init__(self, model: Any) -> None:
        self.model, self.library = model, _library(model)
        kinds = {kind: kind for kind in (*OPTIONS, "Identity")}
        kinds |= {f"BatchNorm{axes}d": "BatchNorm" for axes in (1, 2, 3)}
        library = self.library  # what `bnbook.nn` does not have is not known there
        self.known = {getattr(library, name): kind for name, kind in kinds.items() if hasattr(library, name)}
        self.modules = dict(self._leaves(model))
        self.layers: list[Layer] = []
        flat = False  # whether there are two axes, (N, features)
        for name, module in self.modules.items():
            layer = self._layer(name, module)
            if layer.kind == "Softmax" and flat and layer.options["dim"] in (None, -1):
                layer.options["dim"] = 1
            flat = flat or (layer.kind == "Flatten" and layer.options == filled("Flatten", {}))
            self.layers.append(layer)

    def _leaves(self, model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        if not is_row(model, self.library.Sequential):
            raise ValueError(
                f"{type(model).__name__} is not a Sequential, so the order of its layers cannot be seen: put them into "
                "a Sequential under the same names (the keys stay the same) and load the state dict there first"
            )
        children = list(model.named_children())
        if len(children) != len(model):
            raise ValueError("a layer stands in two places of the Sequential: make a second one")
        for name, child in children:
            if is_row(child, self.library.Sequential):
                yield from self._leaves(child, f"{prefix}{name}.")
            elif kind_of(child, self.known, "forward") != "Identity":
                yield prefix + name, child

    def _layer(self, name: str, module: Any) -> Layer:
        kind = kind_of(module, self.known, "forward")
        if kind is None:
            raise refusal(name, module, self.known, ", ".join(OPTIONS))
        values = {option: getattr(module, option) for option in OPTIONS[kind] if hasattr(module, option)}
        return Layer(name, kind, filled(kind, values))

    def arrays(self) -> dict[str, Array]:
        return {key: to_array(key, value) for key, value in self.model.state_dict().items()}

    def tied(self) -> list[list[str]]:
        """The names of every array that has several."""
        torch = self.library is not nn
        places = self.model.state_dict(keep_vars=True) if torch else dict(self.model._state())
        names: dict[int, list[str]] = {}
        for name, value in places.items():
            names.setdefault(id(value), []).append(name)
        return [group for group in names.values() if len(group) > 1]

    def write(self, arrays: Mapping[str, Array]) -> None:
        if self.library is nn:
            self.model.load_state_dict(arrays, strict=False)
        else:
            import torch

            self.model.load_state_dict({k: torch.from_numpy(a) for k, a in arrays.items()}, strict=False)

    def set(self, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
        """Give layers other settings; what they were is returned."""
        attributes = [(self.modules[name], key, v) for name, values in changes.items() for key, v in values.items()]
        before = [(module, key, getattr(module, key)) for module, key, _ in attributes]
        for module, key, value in attributes:
            setattr(module, key, value)
        return before


def _library(model: Any) -> Any:
    """`bnbook.nn`, or `torch.nn`."""
    if isinstance(model, nn.Module):
        return nn
    import torch

    return torch.nn
