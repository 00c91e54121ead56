"""Run a torch model and leave it as it was: on copies of its tensors, and with everything it holds put back."""

from __future__ import annotations

import dataclasses
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
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
    """The model and what it holds: attributes of it and of other objects, what is in containers and closures of them.

    Not what classes, modules of Python, files and iterators hold, nor the objects of CLOSED.
    """
    found: dict[int, Any] = {}
    to_do = [model]
    while to_do:
        value = to_do.pop()
        if id(value) not in found and (parts := _parts(value)) is not None:
            found[id(value)] = value
            to_do += parts
    return list(found.values())


CLOSED = ("torch._", "torch.fx.", "torch.export.", "torch.utils.data.", "logging", "threading")
"""Modules of Python: an object of their classes, or of one that inherits from them, is none of a model's own state."""

HEAP_TYPE = 1 << 9  # among the flags of a class: it was made by a class statement


def _parts(value: Any) -> list[Any] | None:
    """What is in a value; None for one that holds nothing and cannot change, or into which is not looked."""
    import torch

    if isinstance(value, torch.Tensor | np.ndarray | torch.Generator | np.random.BitGenerator | np.random.RandomState):
        return []
    if isinstance(value, np.random.Generator):
        return [value.bit_generator]
    if isinstance(value, CellType):
        return [value.cell_contents] if _filled(value) else []
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    parts, attributes, slots = _content(value), _attributes(value), _slots(value)
    if parts is None and attributes is None and not slots:
        return None
    kept = [slot.__get__(value) for slot in slots if _is_set(slot, value)]
    return [*(parts or ()), *kept, *([] if attributes is None else [attributes])]


def _content(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    return None


def _attributes(value: Any) -> dict[str, Any] | None:
    """The dictionary of the attributes of an object or a function."""
    if isinstance(value, FunctionType | SimpleNamespace):
        return vars(value)
    if not _is_open(value):
        return None
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return attributes if type(attributes) is dict else None


def _slots(value: Any) -> list[Any]:
    """The descriptors of what an object keeps in `__slots__`."""
    classes = [kind for kind in type(value).__mro__ if "__slots__" in vars(kind)] if _is_open(value) else []
    return [slot for kind in classes for slot in vars(kind).values() if isinstance(slot, MemberDescriptorType)]


def _is_set(slot: Any, value: Any) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def _is_open(value: Any) -> bool:
    """Whether the class of an object was written in Python and may hold the state of a model."""
    import torch

    if isinstance(value, torch.nn.Module):
        return True
    kind = type(value)
    if not kind.__flags__ & HEAP_TYPE or isinstance(value, type | ModuleType):
        return False
    return not any(parent.__module__.startswith(CLOSED) for parent in kind.__mro__)


def _restorer(value: Any) -> Callable[[], None] | None:
    """What puts the content of a value back as it is now."""
    import torch

    if isinstance(value, np.ndarray):
        before = value.copy()
        return lambda: None if not value.flags.writeable else np.copyto(value, before)
    if isinstance(value, torch.Generator):
        before = value.get_state()
        return lambda: value.set_state(before)
    if isinstance(value, np.random.BitGenerator):
        before = value.state
        return lambda: setattr(value, "state", before)
    if isinstance(value, np.random.RandomState):
        before = value.get_state()
        return lambda: value.set_state(before)
    if isinstance(value, CellType) and _filled(value):
        before = value.cell_contents
        return lambda: setattr(value, "cell_contents", before)
    parts = [_content_restorer(value), _slots_restorer(value)]
    if isinstance(value, random.Random):
        state = value.getstate()
        parts.append(lambda: value.setstate(state))
    parts = [part for part in parts if part]
    return (lambda: [put_back() for put_back in parts]) if parts else None


def _content_restorer(value: Any) -> Callable[[], None] | None:
    """Only what changed is written again: other threads may read it."""
    if isinstance(value, dict):
        entries = list(value.items())

        def put_back() -> None:
            now = list(value.items())
            if len(now) != len(entries) or any(
                a is not c or b is not d for (a, b), (c, d) in zip(now, entries, strict=True)
            ):
                value.clear()
                for key, entry in entries:  # one by one: the `update` of a Counter counts
                    value[key] = entry

        return put_back
    if isinstance(value, set | deque):
        before = list(value)
        add = value.extend if isinstance(value, deque) else value.update
        return lambda: (value.clear(), add(before))
    if isinstance(value, list):
        before = list(value)
        return lambda: value.__setitem__(slice(None), before)
    return None


def _slots_restorer(value: Any) -> Callable[[], None] | None:
    slots = _slots(value)
    before = [(slot, slot.__get__(value)) for slot in slots if _is_set(slot, value)]
    empty = [slot for slot in slots if not _is_set(slot, value)]

    def put_back() -> None:
        for slot, content in before:
            slot.__set__(value, content)
        for slot in empty:
            if _is_set(slot, value):
                slot.__delete__(value)

    return put_back if slots else None


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name of the enclosing function that has no value yet
        return False
    return True
