"""Run a torch model and leave it as it was: on copies of its tensors, and with everything it holds put back."""

from __future__ import annotations

import dataclasses
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a model takes or returns, however it is nested: mappings, lists, tuples, dataclasses."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from tensors(getattr(value, entry.name))


@contextmanager
def on_copies(model: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Give the modules copies of their tensors; afterwards all that `held` finds and the random states are as before.

    Yields:
        the copies of the parameters: leaves that require gradients, also where the parameters are frozen.

    Raises:
        ValueError: parameters of lazy modules, which have no values yet.
    """
    import torch

    if lazy := [name for name, parameter in model.named_parameters() if torch.nn.parameter.is_lazy(parameter)]:
        raise ValueError(f"the model has parameters without values, {lazy}: call it once on a batch first")
    everything = held(model)
    modules = [vars(value) for value in everything if isinstance(value, torch.nn.Module)]
    tables = modules + [v for table in modules for v in table.values() if type(v) in (dict, OrderedDict)]
    tensors = {id(v): v for table in tables for v in table.values() if isinstance(v, torch.Tensor)}
    copies = {key: tensor.detach().clone() for key, tensor in tensors.items()}  # one each: tied weights remain tied
    leaves = [copies[key] for key, v in tensors.items() if isinstance(v, torch.nn.Parameter) and v.is_floating_point()]
    # Tensors elsewhere (in a list, a tuple, a closure) are used as they are, and get their values back.
    elsewhere = [v for v in everything if isinstance(v, torch.Tensor) and id(v) not in tensors]
    values = [(tensor, tensor.detach().clone()) for tensor in elsewhere if not tensor.is_inference()]
    restore = [_restorer(value) for value in everything]
    cuda = {v.device.index for v in [*tensors.values(), *elsewhere] if v.is_cuda}
    mps = torch.mps.get_rng_state() if any(v.is_mps for v in [*tensors.values(), *elsewhere]) else None
    with torch.random.fork_rng(cuda, device_type="cuda"), random_states():
        try:
            for table in tables:
                table.update({name: copies[id(v)] for name, v in table.items() if id(v) in copies})
            yield [leaf.requires_grad_() for leaf in leaves]
        finally:
            for put_back in filter(None, restore):
                put_back()
            for tensor, before in values:
                if not torch.equal(tensor.detach(), before):
                    tensor.data.copy_(before)
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def random_states() -> Iterator[None]:
    """The random numbers of Python and NumPy go on afterwards as if none had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def held(model: Any) -> list[Any]:
    """The model and what it holds: attributes, and what is in lists, dictionaries, dataclasses and closures of them."""
    found: dict[int, Any] = {}
    to_do = [model]
    while to_do:
        value = to_do.pop()
        if id(value) not in found and (parts := _parts(value)) is not None:
            found[id(value)] = value
            to_do += parts
    return list(found.values())


def _parts(value: Any) -> list[Any] | None:
    """What is in a value; None for one that holds nothing and cannot change, or into which is not looked."""
    import torch

    if isinstance(value, torch.Tensor | np.ndarray):
        return []
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, CellType):
        return [value.cell_contents] if _filled(value) else []
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, torch.nn.Module | SimpleNamespace):
        return [vars(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, name, None) for name in _fields(value)] + [getattr(value, "__dict__", None)]
    return None


def _restorer(value: Any) -> Callable[[], None] | None:
    """What puts the content of a container back as it is now."""
    if isinstance(value, np.ndarray):
        before = value.copy()
        return lambda: None if not value.flags.writeable else np.copyto(value, before)
    if isinstance(value, dict):
        entries = list(value.items())  # one by one: the `update` of a Counter counts
        return lambda: (value.clear(), [value.__setitem__(key, entry) for key, entry in entries])
    if isinstance(value, set | deque):
        before = list(value)
        put_back = value.extend if isinstance(value, deque) else value.update
        return lambda: (value.clear(), put_back(before))
    if isinstance(value, list):
        before = list(value)
        return lambda: value.__setitem__(slice(None), before)
    if isinstance(value, CellType) and _filled(value):
        before = value.cell_contents
        return lambda: setattr(value, "cell_contents", before)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "__dict__"):
        before = {name: getattr(value, name) for name in _fields(value) if hasattr(value, name)}
        return lambda: [object.__setattr__(value, name, content) for name, content in before.items()]
    return None


def _fields(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name of the enclosing function that has no value yet
        return False
    return True
