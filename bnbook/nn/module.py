"""What every layer has: parameters, buffers, a mode, and a state dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


class Parameter:
    """An array that is learned, `data`, and the gradient of the loss for it, `grad` (None before backward)."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self.grad: Array | None = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"


class IncompatibleKeys(NamedTuple):
    """What did not fit in a state dict: keys of the module that were not given, and given ones that it has not."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base of every layer, as `torch.nn.Module`.

    A layer computes `forward(x)` and keeps what its backward pass needs; `backward(grad_y)` then returns the gradient
    of its input and adds those of its parameters to their `grad`. Attributes that are a `Parameter` or a `Module` are
    found by themselves; arrays that belong to the state without being learned are named by `register_buffer`. What
    stands in several places (tied weights) is found once, under its first name; the state dict has all names.
    """

    training: bool = True
    _added_later: tuple[str, ...] = ()  # buffers that old state dicts do not have: without them they keep their value

    def __init__(self) -> None:
        self._buffer_names: list[str] = []
        self._cache = None

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, grad_y: Array) -> Array:
        raise NotImplementedError

    def __call__(self, x: Array) -> Array:
        return self.forward(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    # --- parameters, buffers, children -------------------------------------------------------------------------------

    def register_buffer(self, name: str, value: Array | None) -> None:
        """Name an array that is saved with the module but not learned (None: the module goes without it)."""
        if name not in self._buffer_names:
            self._buffer_names.append(name)
        setattr(self, name, value)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        yield from _once((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module, under the name "", and all modules below it under their dotted names, each once."""
        yield from _once(self._places(prefix))

    def _places(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Every place that holds a module, also where several hold the same one."""
        yield prefix, self
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value._places(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once: tied ones under the first of their names."""
        yield from _once(
            (f"{prefix}.{name}" if prefix else name, value)
            for prefix, module in self.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, Parameter)
        )

    def parameters(self) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        yield from _once(
            (f"{prefix}.{name}" if prefix else name, getattr(module, name))
            for prefix, module in self.named_modules()
            for name in module._buffer_names
            if getattr(module, name) is not None
        )

    def buffers(self) -> Iterator[Array]:
        for _, buffer in self.named_buffers():
            yield buffer

    # --- modes and gradients -----------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Put this module and all below it into training mode (or, with False, into evaluation mode)."""
        for _, module in self.named_modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Module:
        """Put this module and all below it into evaluation mode."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def _saved(self):
        """What forward kept for backward."""
        if self._cache is None:
            raise RuntimeError(f"{type(self).__name__}.backward was called before forward")
        return self._cache

    # --- the state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers under their dotted names, in the order in which torch lists them."""
        return {name: value.copy() for name, value in self._state()}

    def load_state_dict(self, state_dict: Mapping[str, Array], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers, keeping the dtype of this module.

        As in torch, `num_batches_tracked` may be missing, which old state dicts do not have: the count stays.

        Args:
            state_dict: name → array, or a tensor of torch.
            strict: whether keys that are missing or unexpected are an error.

        Returns:
            The missing and the unexpected keys.

        Raises:
            KeyError: with `strict`, keys that are missing or unexpected; all of them are named.
            ValueError: shapes that differ, or arrays of this module that are read-only; all of them are named.
            TypeError: values that are no arrays of numbers of that kind. Nothing has been changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must map names to arrays, got {type(state_dict).__name__}")
        own = dict(self._state())
        may_be_missing = {
            f"{prefix}.{name}" if prefix else name for prefix, m in self._places() for name in m._added_later
        }
        missing = [key for key in own if key not in state_dict and key not in may_be_missing]
        unexpected = [key for key in state_dict if key not in own]
        if strict and (missing or unexpected):
            raise KeyError(f"the state dict does not fit: missing keys {missing}, unexpected keys {unexpected}")
        given = {key: to_array(key, value) for key, value in state_dict.items() if key in own}
        wrong = [
            f"{key}: {given[key].shape}, expected {own[key].shape}"
            for key in given
            if given[key].shape != own[key].shape
        ]
        if wrong:
            raise ValueError(f"the state dict has arrays of other shapes: {'; '.join(wrong)}")
        kinds = [
            f"{key}: {given[key].dtype}"
            for key in given
            if not np.can_cast(given[key].dtype, own[key].dtype, "same_kind")
        ]
        if kinds:
            raise TypeError(f"the state dict has arrays of another kind: {'; '.join(kinds)}")
        if fixed := [key for key in given if not own[key].flags.writeable]:
            raise ValueError(f"the module has arrays that are read-only: {', '.join(fixed)}")
        for key, value in given.items():
            own[key][...] = value
        return IncompatibleKeys(missing, unexpected)

    def _state(self) -> Iterator[tuple[str, Array]]:
        for prefix, module in self._places():
            dot = f"{prefix}." if prefix else ""
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield dot + name, value.data
            for name in module._buffer_names:
                if getattr(module, name) is not None:
                    yield dot + name, getattr(module, name)


def _once(named: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Every object under the first of its names."""
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def to_array(key: str, value: Any) -> Array:
    """A NumPy array with a copy of an array or of a torch tensor, on any device and with or without a gradient.

    Raises:
        TypeError: nothing that NumPy can hold (bfloat16), or a masked array, whose mask would be lost; by its key.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{key} is a masked array, whose mask would be lost: pass {key}.filled(...)")
    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value).copy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{key} cannot be turned into a NumPy array: {error}") from None


def accumulate(parameter: Parameter | None, grad: Array | None) -> None:
    """Add a gradient to a parameter's `grad`, as torch does; a layer without that parameter has None for both."""
    if parameter is not None:
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def value(parameter: Parameter | None) -> Array | None:
    return None if parameter is None else parameter.data


def uniform(rng: np.random.Generator | int | None, bound: float, shape: tuple[int, ...], dtype) -> Parameter:
    """A parameter drawn from U(−bound, bound)."""
    return Parameter(np.random.default_rng(rng).uniform(-bound, bound, shape).astype(dtype))
