"""Networks of the three frameworks as chains of layers in torch's words, behind one interface; see `interop`.

Nothing here imports a framework: whoever has a model of one has imported it.
"""

from __future__ import annotations

from typing import Any

from .. import nn
from .keras_models import Keras
from .modules import Modules


def open_model(model: Any) -> Modules | Keras:
    """The model behind the one interface of `Modules` and `Keras`."""
    modules = [kind.__module__ for kind in type(model).__mro__]
    if any(name.startswith("keras.") for name in modules):  # first: with another backend it may be a torch module too
        return Keras(model)
    if isinstance(model, nn.Module) or "torch.nn.modules.module" in modules:
        return Modules(model)
    raise TypeError(f"model must be a network of bnbook.nn, torch or Keras, got {type(model).__name__}")
