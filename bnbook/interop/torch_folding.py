"""Fold the batch normalization of a torch model; see `folding.fold`."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..kernels.sync_batch_norm import SyncBatchNorm
from ..probes.untouched import on_copies, tensors
from .folding import (
    PADDED,
    FoldReport,
    compared,
    finished,
    into_next,
    into_previous,
    rounding,
    scale_and_shift,
    why_not_linear,
    why_not_norm,
)
from .layers import kind_of

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = {nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, **dict(zip(TRANSPOSED, (3, 4, 5), strict=True))}
NORMS = {
    kind: "BatchNorm" for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SyncBatchNorm)
}
WEIGHTED = {kind: "weighted" for kind in (*CONVOLUTIONS, nn.Linear)}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fold_torch(model: nn.Module, example: Any) -> tuple[nn.Module, FoldReport]:
    args, kwargs = _arguments(example)
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"the model cannot be copied: {error}") from error
    modules = dict(copied.named_modules())
    norms = [name for name, module in modules.items() if _is_norm(module)]
    kept = {name: _own_reason(modules[name]) for name in norms if _own_reason(modules[name])}
    if len(kept) == len(norms):
        return copied, finished({}, kept, None)
    seen = None if example is None else _watched(model, args, kwargs)
    links = _traced(model, args, kwargs, needed=seen is None) or seen
    before = [] if seen is None else _outputs(model, args, kwargs)
    dtypes = {str(t.dtype).removeprefix("torch.") for t in model.parameters()} | {str(a.dtype) for a in before}
    tolerance = rounding(dtype for dtype in dtypes if "float" in dtype)

    def difference(changed: nn.Module) -> float:
        return compared(before, _outputs(changed, args, kwargs), tolerance)

    plans = {}
    for name in norms:
        if name in kept:
            continue
        into, backwards, reason = _place(name, modules, links, {} if seen is None else seen.axes)
        if not (reason or links.proved or _tried(copied, name, into, backwards, difference)):
            reason = f"the output of {into[0] if backwards else name} is used elsewhere as well"
        if reason:
            kept[name] = reason
        else:
            plans[name] = into, backwards
    for name, (into, backwards) in plans.items():
        constants = _constants(modules[name])
        for weights in into:
            _absorb(modules[weights], *constants, backwards)
    for name in plans:
        _replace(copied, modules[name], nn.Identity())
    away = None if seen is None or not plans else difference(copied)
    return copied, finished({name: into for name, (into, _) in plans.items()}, kept, away)


def _is_norm(module: nn.Module) -> bool:
    """Batch normalization of torch, or another class that keeps a running mean and variance as it does."""
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return False
    kept = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    return isinstance(module, tuple(NORMS)) or all(isinstance(tensor, Tensor) for tensor in kept)


# --- who calls whom --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Links:
    """Between layers of weights and of batch normalization, over all calls; None stands for anything else."""

    sources: dict[str, list[str | None]] = dataclasses.field(default_factory=dict)  # whose output arrives
    users: dict[str, list[str | None]] = dataclasses.field(default_factory=dict)  # where the output goes
    axes: dict[str, set[int]] = dataclasses.field(default_factory=dict)  # of what arrives
    proved: bool = False  # whether `users` is all there is, or only what the hooks could see


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return _known(module) or super().is_leaf_module(module, name)


def _known(module: nn.Module) -> bool:
    return _is_norm(module) or isinstance(module, tuple(WEIGHTED))


def _traced(model: nn.Module, args: tuple, kwargs: dict, *, needed: bool) -> Links | None:
    """By `torch.fx`; None, or with `needed` an error, for what it cannot follow."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    given = {p.name for p in parameters[: len(args)]} | set(kwargs)
    # With a placeholder for an argument that has a default, `if mask is None` would be decided wrongly.
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in given}
    try:
        graph = _Tracer().trace(copy.deepcopy(model), concrete_args=defaults)  # a model may keep what it is called with
        names = {name for name, module in model.named_modules() if _known(module)}
    except Exception as error:
        if needed:
            raise ValueError(f"torch.fx cannot follow the model ({error}): pass an example") from error
        return None
    found = Links(proved=True)
    for node in graph.nodes:
        if node.op == "get_attr" and (owner := node.target.rpartition(".")[0]) in names:
            found.users.setdefault(owner, []).append(None)  # its weights are used by hand
            found.sources.setdefault(owner, []).append(None)
        if node.op != "call_module" or node.target not in names:
            continue
        arrived = node.args[0] if node.args else None
        made = isinstance(arrived, fx.Node) and arrived.op == "call_module" and arrived.target in names
        found.sources.setdefault(node.target, []).append(arrived.target if made else None)
        for user in node.users:
            takes = user.op == "call_module" and user.target in names and user.args[:1] == (node,)
            found.users.setdefault(node.target, []).append(user.target if takes else None)
    return found


def _watched(model: nn.Module, args: tuple, kwargs: dict) -> Links:
    """By hooks in a run on the example: an output that arrives as it was made, the same tensor, not changed since."""
    found, made, handles = Links(), [], ExitStack()

    def arrive(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, named: dict) -> None:
            x = next((v for v in (*inputs, *named.values()) if isinstance(v, Tensor)), None)
            source = next((at for at, (_, y, version) in enumerate(made) if y is x and y._version == version), None)
            found.sources.setdefault(name, []).append(None if source is None else made[source][0])
            found.axes.setdefault(name, set()).add(0 if x is None else x.ndim)
            if source is not None:
                taken.setdefault(source, []).append(name)

        return hook

    def leave(name: str) -> Callable:
        return lambda module, inputs, output: made.append((name, output, getattr(output, "_version", 0)))

    taken: dict[int, list[str]] = {}
    with on_copies(model), handles:
        for name, module in model.named_modules():
            if _known(module):
                handles.callback(module.register_forward_pre_hook(arrive(name), with_kwargs=True).remove)
                handles.callback(module.register_forward_hook(leave(name)).remove)
        _run(model, args, kwargs)
    for at, (name, _, _) in enumerate(made):
        found.users.setdefault(name, []).extend(taken.get(at, [None]))
    return found


def _place(
    name: str, modules: Mapping[str, nn.Module], links: Links, axes: Mapping[str, set[int]]
) -> tuple[tuple[str, ...], bool, str]:
    """(into which layers, whether they stand before it, "") or ((), False, why not)."""
    sources, users = links.sources.get(name), links.users.get(name, [])
    if not sources:
        return (), False, "it is never called"
    before = tuple(dict.fromkeys(sources))
    reason = "no convolution or fully connected layer stands before or behind it"
    if all(_is_weights(modules, w) for w in before):
        reason = next(filter(None, (_why_not(w, name, modules, links, axes, True) for w in before)), "")
        if not reason:
            return before, True, ""
    behind = tuple(dict.fromkeys(users))
    if behind and all(_is_weights(modules, w) for w in behind):
        reason = next(filter(None, (_why_not(w, name, modules, links, axes, False) for w in behind)), "")
        if not reason:
            return behind, False, ""
    return (), False, reason


def _own_reason(norm: nn.Module) -> str:
    return why_not_norm(norm, kind_of(norm, NORMS, "forward")) or _hooked(norm)


def _is_weights(modules: Mapping[str, nn.Module], name: str | None) -> bool:
    return name is not None and isinstance(modules[name], tuple(WEIGHTED))


def _why_not(
    name: str, norm: str, modules: Mapping[str, nn.Module], links: Links, axes: Mapping[str, set[int]], backwards: bool
) -> str:
    """Why a layer cannot be folded into these weights, before or behind it."""
    weights = modules[name]
    if kind_of(weights, WEIGHTED, "forward") is None:
        return f"{name}, a {type(weights).__name__}, computes in a way of its own"
    if reason := _hooked(weights):
        return f"{name}: {reason}"
    others = set(links.users[name] if backwards else links.sources[name]) - {norm}
    if others:
        where = next(filter(None, others), "elsewhere")
        return f"the output of {name} goes to {where} as well" if backwards else f"{name} has another input as well"
    if not backwards and isinstance(weights, TRANSPOSED):
        return f"{name} is transposed: at its borders fewer inputs are added up"
    if not backwards and weights_pad(weights):
        return PADDED
    seen = axes.get(norm, set())
    if isinstance(weights, nn.Linear):
        return next(filter(None, map(why_not_linear, seen or {None})), "")
    expected = next(number for kind, number in CONVOLUTIONS.items() if isinstance(weights, kind))
    return f"{name} has no axis of examples, the layer takes another for it" if seen - {expected} else ""


def weights_pad(weights: nn.Module) -> bool:
    """Whether a layer of weights puts zeros around what arrives; what repeats its input moves with it."""
    if isinstance(weights, nn.Linear) or weights.padding_mode != "zeros":
        return False
    padding = weights.padding
    return padding != "valid" if isinstance(padding, str) else any(padding)


def _hooked(module: nn.Module) -> str:
    return "it has hooks of its own" if any(getattr(module, name) for name in HOOKS) else ""


# --- folding ---------------------------------------------------------------------------------------------------------


def _constants(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    arrays = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return scale_and_shift(*(None if a is None else _array(a) for a in arrays), norm.eps)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _absorb(weights: nn.Module, scale: np.ndarray, shift: np.ndarray, backwards: bool) -> None:
    """New parameters for a layer; those it had stay as they were where others share them."""
    bias = None if weights.bias is None else _array(weights.bias)
    groups = getattr(weights, "groups", 1)
    if backwards:
        transposed = isinstance(weights, TRANSPOSED)
        w, b = into_previous(_array(weights.weight), bias, scale, shift, transposed=transposed, groups=groups)
    else:
        w, b = into_next(_array(weights.weight), bias, scale, shift, groups=groups)
    old = weights.weight
    for name, array in (("weight", w), ("bias", b)):
        new = torch.from_numpy(np.ascontiguousarray(array)).to(old.device, old.dtype)
        if name == "weight" and old.ndim == 4 and old.is_contiguous(memory_format=torch.channels_last):
            new = new.contiguous(memory_format=torch.channels_last)
        setattr(weights, name, nn.Parameter(new, requires_grad=old.requires_grad))


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Under all its names."""
    new.train(old.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` would name it once
            if child is old:
                setattr(parent, name, new)


def _tried(
    model: nn.Module, name: str, into: tuple[str, ...], backwards: bool, difference: Callable[[nn.Module], float]
) -> bool:
    """Whether another scale and shift in the weights, undone at the layer, leave the outputs as they were.

    Not those of the layer itself: in a network without training they are 1 and 0, and would show nothing.
    """
    trial = copy.deepcopy(model)
    modules = dict(trial.named_modules())
    norm = modules[name]
    rng = np.random.default_rng(0)
    scale, shift = rng.uniform(0.5, 2, norm.num_features), rng.normal(size=norm.num_features)
    for weights in into:
        _absorb(modules[weights], scale, shift, backwards)

    def undone(x: Tensor) -> Tensor:
        a, t = (torch.from_numpy(v).to(x).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, shift))
        return (x - t) / a

    if backwards:
        norm.register_forward_pre_hook(lambda module, inputs: (undone(inputs[0]), *inputs[1:]))
    else:
        norm.register_forward_hook(lambda module, inputs, output: undone(output))
    try:
        difference(trial)
    except Exception:  # another output, or none
        return False
    return True


# --- running ---------------------------------------------------------------------------------------------------------


def _arguments(example: Any) -> tuple[tuple, dict]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if type(example) in (tuple, list) else () if example is None else (example,)), {}


def _run(model: nn.Module, args: tuple, kwargs: dict) -> Any:
    """On copies of the inputs, which a model may change."""
    args, kwargs = copy.deepcopy((args, kwargs))
    with torch.no_grad():
        return model(*args, **kwargs)


def _outputs(model: nn.Module, args: tuple, kwargs: dict) -> list[np.ndarray]:
    with on_copies(model):
        found = [tensor.detach().cpu() for tensor in tensors(_run(model, args, kwargs))]
        return [(tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy() for tensor in found]
