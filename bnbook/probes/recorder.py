"""Record what happens inside a torch model while it runs and learns. `bnbook.probes` is where to import it from."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

Layers = type | tuple[type, ...] | Iterable[str] | None
WHAT = ("activations", "gradients", "update_ratios", "batch_statistics", "running_statistics", "dead_units")


class Statistics(NamedTuple):
    """Mean and variance of every channel, (C,) each."""

    mean: np.ndarray
    var: np.ndarray


class Recorder:
    r"""Record what happens in a torch model inside a ``with`` block; after it no hook is left.

    An attribute for each of `what`, a dictionary of lists. A list has one entry per pass, that is per call of the model
    (None where a layer was not reached), and for `update_ratios` one per step of the optimizer of that parameter:

    - `activations`: module → its output, as it was before anything changed it in place;
    - `gradients`: module → the gradient, for that output, of what ``backward()`` was called on. None where none came
      before the end of the block: under ``torch.no_grad`` or in a reentrant checkpoint, below frozen parameters,
      detached, not used by the loss. Of several the last;
    - `update_ratios`: parameter → $\lVert\Delta W\rVert/\lVert W\rVert$, over the norm before the step;
    - `batch_statistics`: batch normalization → μ and σ² (biased) of the batch it was given, in either mode;
    - `running_statistics`: batch normalization → its running statistics after the call;
    - `dead_units`: ReLU → the share of its units (axis 1) that are 0 for every example and position of the batch.

    The second call of a module in one pass is known as "name#2", and so on; the parts of an output that is no tensor as
    "name[0]", "name['key']" or "name.field" (of a dataclass); the model itself as "". A module that only hands on the
    output of its last layer is not recorded again, unless `layers` asks for it. A part of the model that is called by
    itself, outside of a pass, is not recorded: give it to a Recorder of its own. Activations and gradients are NumPy
    copies, bfloat16 as float32.

    Args:
        model: a torch model, on any device.
        what: some of the above.
        layers: names of modules, or a class or several (``torch.nn.ReLU``); None means all.
        reduce: what to keep of an activation or a gradient, `spread` for example; None keeps the array. The arrays of
            many passes fill the memory.

    Raises:
        TypeError: no torch model.
        ValueError: an unknown `what`; no such layer; a model compiled by torch.compile or torch.jit, into which hooks
            do not see.
    """

    activations: dict[str, list]
    gradients: dict[str, list]
    update_ratios: dict[str, list[float]]
    batch_statistics: dict[str, list[Statistics | None]]
    running_statistics: dict[str, list[Statistics | None]]
    dead_units: dict[str, list[float | None]]

    def __init__(
        self,
        model: torch.nn.Module,
        what: str | Sequence[str] = ("activations", "gradients"),
        *,
        layers: Layers = None,
        reduce: Callable[[np.ndarray], Any] | None = None,
    ) -> None:
        what = (what,) if isinstance(what, str) else tuple(what)
        if unknown := [name for name in what if name not in WHAT]:
            raise ValueError(f"what must be of {', '.join(WHAT)}, got {', '.join(map(repr, unknown))}")
        self._model = _uncompiled(model)
        named = {name: m for name, m in model.named_modules() if "parametrizations" not in name.split(".")}
        self._modules = choose(named, layers)  # (what is left out returns weights, not activations)
        self._all = layers is None
        self._keep = (lambda tensor: reduce(_array(tensor))) if reduce else _array
        self._stack: ExitStack | None = None  # removes the hooks; None while nothing is recorded
        self._passes, self._depth, self._calls = 0, 0, Counter()  # depth: in how many calls of the model we are
        vars(self).update({name: {} for name in what})

    def __getattr__(self, name: str) -> Any:
        reason = "was not asked for: name it in what=" if name in WHAT else "is no attribute of Recorder"
        raise AttributeError(f"{name!r} {reason}")

    def __enter__(self) -> Recorder:
        from torch.optim import optimizer
        from torch.utils.module_tracker import ModuleTracker

        if self._stack is not None:
            raise RuntimeError("this Recorder is recording already")
        with ExitStack() as stack:
            stack.enter_context(self._model.register_forward_pre_hook(self._before_pass))
            for name, module in self._modules.items():
                stack.enter_context(module.register_forward_hook(partial(self._after_call, name), with_kwargs=True))
            stack.enter_context(self._model.register_forward_hook(self._after_pass, always_call=True))
            if "update_ratios" in vars(self):  # the hooks of all optimizers, so that none need be given
                stack.enter_context(optimizer.register_optimizer_step_pre_hook(self._before_step))
                stack.enter_context(optimizer.register_optimizer_step_post_hook(self._after_step))
            self._stack = stack.pop_all()
        self._last = self._weights = None
        self._backward = ModuleTracker()  # is asked whether a backward pass is running, and tracks nothing
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self._stack = self._last = self._weights = None
        self._depth = 0
        self._fill()

    def _before_pass(self, *_: object) -> None:
        if self._backward.is_bw:  # a checkpoint computes its part again during the backward pass
            return
        self._fill()
        self._passes += 1
        self._depth += 1
        self._calls.clear()

    def _after_pass(self, *_: object) -> None:
        if self._backward.is_bw:
            return
        self._depth -= 1
        self._fill()

    def _fill(self) -> None:
        """Layers that were not reached have None for this pass, so that all lists are of one length."""
        for table in (vars(self)[name] for name in WHAT if name in vars(self) and name != "update_ratios"):
            for entries in table.values():
                entries += [None] * (self._passes - len(entries))

    def _after_call(self, name: str, module: torch.nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        import torch

        if self._backward.is_bw or not self._depth:  # a part that is called outside of a pass
            return
        self._calls[name] += 1
        call = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        for part, tensor in _parts(call, output) if not self._handed_on(module, output) else ():
            if "activations" in vars(self):
                self._put(self.activations, part, self._keep(tensor))
            if "gradients" in vars(self):
                entries = self._put(self.gradients, part, None)
                if tensor.requires_grad:  # a hook hears of the value that is now there, also if it is overwritten
                    tensor.register_hook(partial(self._on_gradient, entries, len(entries) - 1))
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            self._record_statistics(call, module, *args, **kwargs)
        is_relu = isinstance(module, torch.nn.ReLU | torch.nn.ReLU6) and isinstance(output, torch.Tensor)
        if is_relu and "dead_units" in vars(self) and output.ndim >= 2:
            dead = (output == 0).all(dim=_all_but_channels(output))
            self._put(self.dead_units, call, dead.float().mean().item())

    def _handed_on(self, module: torch.nn.Module, output: Any) -> bool:
        """Whether a module with modules in it returns, untouched, what the module before returned."""
        import torch

        counts = isinstance(output, torch.Tensor) and not output.is_inference()
        last, self._last = self._last, (output, output._version if counts else 0)
        same = last is not None and last[0] is output and last[1] == self._last[1]
        # (a child may have a length, or refuse to be asked for it: its truth says nothing)
        return same and self._all and next(module.children(), None) is not None

    def _on_gradient(self, entries: list, index: int, gradient: torch.Tensor | None) -> None:
        # torch calls it with None for an output that the loss does not use, one part of a `chunk` for example
        if self._stack is not None and gradient is not None:
            entries[index] = self._keep(gradient)

    def _record_statistics(self, call: str, module: torch.nn.Module, input: torch.Tensor) -> None:
        import torch

        if "batch_statistics" in vars(self):
            x = input.detach().to(torch.promote_types(input.dtype, torch.float32))
            var, mean = torch.var_mean(x, _all_but_channels(x), correction=0)
            self._put(self.batch_statistics, call, Statistics(_array(mean), _array(var)))
        if "running_statistics" in vars(self) and module.running_mean is not None:
            statistics = Statistics(_array(module.running_mean), _array(module.running_var))
            self._put(self.running_statistics, call, statistics)

    def _put(self, table: dict[str, list], name: str, value: Any) -> list:
        """Append the entry of this pass; those of passes in which the layer was not reached are None."""
        entries = table.setdefault(name, [])
        entries += [None] * (self._passes - 1 - len(entries))
        entries.append(value)
        return entries

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._weights = {n: p.detach().clone() for n, p in self._model.named_parameters() if id(p) in updated}

    def _after_step(self, *_: object) -> None:
        for name, parameter in self._model.named_parameters():
            if (before := self._weights.get(name)) is not None:
                ratio = _norm(parameter.detach() - before) / _norm(before)
                self.update_ratios.setdefault(name, []).append(ratio.item())


def choose(named: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
    """Of name → layer those that are named or of a class.

    Raises:
        ValueError: there is none, or not all.
    """
    if layers is None:
        return dict(named)
    if isinstance(layers, type | tuple):
        if chosen := {name: layer for name, layer in named.items() if isinstance(layer, layers)}:
            return chosen
        kinds = sorted({type(layer).__name__ for layer in named.values()})
        raise ValueError(f"layers: the model has none of {layers}; it has {', '.join(kinds)}")
    names = [layers] if isinstance(layers, str) else list(layers)
    if unknown := [name for name in names if name not in named]:
        raise ValueError(f"layers: the model has no {unknown}; it has {list(named)}")
    return {name: layer for name, layer in named.items() if name in names}


def _uncompiled(model: Any) -> torch.nn.Module:
    torch = sys.modules.get("torch")  # where it was never imported there is no model of it
    if torch is None or not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module (an X-ray: or bnbook.nn.Sequential), got {type(model).__name__}"
        )
    if scripted := [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]:
        raise ValueError(
            f"model is compiled by torch.jit (modules {scripted}), and its layers cannot be seen: give the model "
            "before torch.jit.script or trace"
        )
    if hasattr(model, "_orig_mod") or any(module._compiled_call_impl for module in model.modules()):
        raise ValueError("model is compiled, and its layers cannot be seen: give the model before torch.compile")
    return model


def _parts(name: str, output: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of real numbers in an output, however it is nested."""
    import torch

    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield name, output
    elif isinstance(output, torch.nn.utils.rnn.PackedSequence):
        yield from _parts(f"{name}.data", output.data)  # the rest of it are sizes and orders
    elif isinstance(output, Mapping | tuple | list):
        for key, value in output.items() if isinstance(output, Mapping) else enumerate(output):
            yield from _parts(f"{name}[{key!r}]", value)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from _parts(f"{name}.{field.name}", getattr(output, field.name, None))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A copy in NumPy, which has no bfloat16."""
    import torch

    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.array(tensor.numpy(force=True))


def _norm(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))


def _all_but_channels(tensor: torch.Tensor) -> list[int]:
    return [axis for axis in range(tensor.ndim) if axis != 1]
