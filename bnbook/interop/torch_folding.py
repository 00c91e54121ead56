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
    naming,
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
REACHES = (3, 100)  # standard deviations: how far a layer of another class is tried; an activation may bend far out
SAME = 1e-3  # of the largest: how far a layer of another class may be from a scale and a shift
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fold_torch(model: nn.Module, example: Any) -> tuple[nn.Module, FoldReport]:
    args, kwargs = _arguments(example)
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"the model cannot be copied: {error}") from error
    modules = dict(copied.named_modules())
    norms = [name for name, module in modules.items() if is_batch_norm(module)]
    kept = {name: reason for name in norms if (reason := _own_reason(modules[name], example is None))}
    if len(kept) == len(norms):
        return copied, finished({}, kept, None)
    try:
        seen = None if example is None else _watched(model, args, kwargs)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model cannot be run on the example: {first}") from error
    constants = {}
    for name in norms:
        if name not in kept and seen and name not in seen.arrived:
            kept[name] = "it is never called"
        elif name not in kept:
            with naming(name):
                constants[name] = _constants(modules[name], *seen.arrived[name] if seen else ())
            if constants[name] is None:
                kept[name] = why_not_norm(modules[name], None)
    links = _traced(model, args, kwargs, seen) or seen
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
        own = next((w for w in into if kind_of(modules[w], WEIGHTED, "forward") is None), None)
        if own and seen is None:
            reason = f"{_as_own(own, modules[own])}: pass an example"
        elif not reason and (own or not links.proved) and not _tried(copied, name, into, backwards, difference):
            used = f"the output of {into[0] if backwards else name} is used elsewhere as well"
            reason = _as_own(own, modules[own]) if own else used
        if reason:
            kept[name] = reason
        else:
            plans[name] = into, backwards
    for name, (into, backwards) in plans.items():
        for weights in into:
            with naming(f"{name} into {weights}"):
                _absorb(modules[weights], *constants[name], backwards)
    for name in plans:
        _replace(copied, modules[name], nn.Identity())
    away = None if seen is None or not plans else difference(copied)
    return copied, finished({name: into for name, (into, _) in plans.items()}, kept, away)


def is_batch_norm(module: nn.Module) -> bool:
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
    arrived: dict[str, tuple[int, torch.dtype]] = dataclasses.field(default_factory=dict)  # axes and dtype of the last
    proved: bool = False  # whether `users` is all there is, or only what the hooks could see


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return _known(module) or super().is_leaf_module(module, name)


def _known(module: nn.Module) -> bool:
    scripted = isinstance(module, torch.jit.ScriptModule)
    return not scripted and (is_batch_norm(module) or isinstance(module, tuple(WEIGHTED)))


def _traced(model: nn.Module, args: tuple, kwargs: dict, seen: Links | None) -> Links | None:
    """By `torch.fx`; None for what it cannot follow, or without `seen` an error.

    What stands between two layers, as a dropout does, counts as nothing where the run has `seen` the output of the one
    arrive at the other as it was.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    given = {p.name for p in parameters[: len(args)]} | set(kwargs)
    # With a placeholder for an argument that has a default, `if mask is None` would be decided wrongly.
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in given}
    try:
        graph = _Tracer().trace(copy.deepcopy(model), concrete_args=defaults)  # a model may keep what it is called with
        names = {name for name, module in model.named_modules() if _known(module)}
    except Exception as error:
        if seen is None:
            raise ValueError(f"torch.fx cannot follow the model ({error}): pass an example") from error
        return None

    def known(node: Any) -> bool:
        return isinstance(node, fx.Node) and node.op == "call_module" and node.target in names

    def source(node: Any, layer: str) -> str | None:
        direct = known(node)
        while isinstance(node, fx.Node) and not known(node) and len(node.all_input_nodes) == len(node.users) == 1:
            node = node.all_input_nodes[0]
        unchanged = direct or (known(node) and seen is not None and set(seen.sources[layer]) == {node.target})
        return node.target if unchanged and known(node) else None

    found = Links(proved=True)
    for node in graph.nodes:
        if node.op == "get_attr" and (owner := node.target.rpartition(".")[0]) in names:
            found.users.setdefault(owner, []).append(None)  # its weights are used by hand
            found.sources.setdefault(owner, []).append(None)
        if not known(node):
            continue
        found.sources.setdefault(node.target, []).append(source(node.args[0] if node.args else None, node.target))
        for user in node.users:
            arrived = node
            while not known(user) and len(user.users) == len(user.all_input_nodes) == 1:
                arrived, user = user, next(iter(user.users))
            takes = known(user) and user.args[:1] == (arrived,) and source(arrived, user.target) == node.target
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
            found.arrived[name] = (0, torch.float32) if x is None else (x.ndim, x.dtype)
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


def _own_reason(norm: nn.Module, without_example: bool) -> str:
    if isinstance(norm, torch.jit.ScriptModule):
        return "it is scripted, fold the model before that"
    if type(norm).forward is nn.Module.forward:
        return "it only keeps numbers, as in an exported model: fold the one that was exported"
    if norm.running_mean is not None and norm.running_mean.is_meta:
        return "its numbers are on the meta device, which keeps none"
    kind = kind_of(norm, NORMS, "forward")
    if kind is None and without_example:
        return f"{why_not_norm(norm, None)}: pass an example"
    return why_not_norm(norm, kind or "to be tried") or why_hooked(norm)


def _as_own(name: str, module: nn.Module) -> str:
    return f"{name}, a {type(module).__name__}, computes in a way of its own"


def _is_weights(modules: Mapping[str, nn.Module], name: str | None) -> bool:
    return name is not None and isinstance(modules[name], tuple(WEIGHTED))


def _why_not(
    name: str, norm: str, modules: Mapping[str, nn.Module], links: Links, axes: Mapping[str, set[int]], backwards: bool
) -> str:
    """Why a layer cannot be folded into these weights, before or behind it."""
    weights = modules[name]
    own = kind_of(weights, WEIGHTED, "forward") is None
    if {"weight", "bias"} - weights._parameters.keys() or (own and not backwards):  # behind it, it may pad
        return _as_own(name, weights)
    if reason := why_hooked(weights):
        return f"{name}: {reason}"
    others = set(links.users[name] if backwards else links.sources[name]) - {norm}
    if others:
        where = next(filter(None, others), None)
        used = f"goes to {where} as well" if where else "is used elsewhere as well"
        return f"the output of {name} {used}" if backwards else f"{name} has another input as well"
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


def why_hooked(module: nn.Module) -> str:
    """Why a layer with hooks is left as it is: they would see, or change, something else; else ""."""
    return "it has hooks of its own" if any(getattr(module, name) for name in HOOKS) else ""


# --- folding ---------------------------------------------------------------------------------------------------------


def _constants(
    norm: nn.Module, axes: int = 0, dtype: torch.dtype | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of a layer; of another class None, if it has none."""
    if kind_of(norm, NORMS, "forward") is None:
        found = affine(norm, axes, dtype)
        return None if found is None else (_array(found[0]), _array(found[1]))
    arrays = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return scale_and_shift(*(None if a is None else _array(a) for a in arrays), norm.eps)


def affine(norm: nn.Module, axes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """What a layer does in evaluation, (scale, shift) per channel; None where it does something else besides.

    Of torch's layers they are computed, of other classes measured at the running mean and a standard deviation beside
    it; then both are tried on numbers near the running mean and far from it.

    Args:
        norm: a layer in evaluation, of any class that keeps running_mean and running_var.
        axes, dtype: of what arrives at it.
    """
    mean, std = norm.running_mean, (norm.running_var + getattr(norm, "eps", 1e-5)).sqrt()
    places = [1, -1, *[1] * (axes - 2)]

    def answer(x: Tensor) -> Tensor:
        return norm(x.to(dtype).expand(4, len(mean), *[2] * (axes - 2)))

    def at(x: Tensor) -> Tensor:
        return answer(x.reshape(places))[0].flatten(1)[:, 0] if axes > 2 else answer(x.reshape(places))[0]

    try:
        with torch.no_grad():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                scale = 1 / std if norm.weight is None else norm.weight / std
                shift = -scale * mean if norm.bias is None else norm.bias - scale * mean
            else:
                at_mean, beside = at(mean), at(mean + std)
                scale = (beside - at_mean) / std
                shift = at_mean - scale * mean
            spread = torch.arange(4.0 * len(mean), device=mean.device).sin().reshape(4, -1)
            for reach in REACHES:
                x = (mean + reach * std * spread).to(dtype).reshape(4, len(mean), *[1] * (axes - 2))
                expected = x * scale.reshape(places) + shift.reshape(places)
                away = (answer(x) - expected).abs().max() / expected.abs().max()
                if not away <= max(SAME, 16 * torch.finfo(dtype).eps):  # NaN neither
                    return None
    except Exception:  # a layer that takes no such numbers
        return (scale, shift) if type(norm).__module__.startswith("torch.") else None
    return scale, shift


def absorbed(weights: nn.Module, scale: np.ndarray, shift: np.ndarray, backwards: bool) -> tuple[Tensor, Tensor]:
    """W′ and b′ of a layer that takes up a scale and a shift behind it (`backwards`), or before it."""
    bias = None if weights.bias is None else _array(weights.bias)
    groups = getattr(weights, "groups", 1)
    if backwards:
        transposed = isinstance(weights, TRANSPOSED)
        w, b = into_previous(_array(weights.weight), bias, scale, shift, transposed=transposed, groups=groups)
    else:
        w, b = into_next(_array(weights.weight), bias, scale, shift, groups=groups)
    old = weights.weight
    w, b = (torch.from_numpy(np.ascontiguousarray(array)).to(old.device, old.dtype) for array in (w, b))
    if old.ndim == 4 and old.is_contiguous(memory_format=torch.channels_last):
        w = w.contiguous(memory_format=torch.channels_last)
    return w, b


def _absorb(weights: nn.Module, scale: np.ndarray, shift: np.ndarray, backwards: bool) -> None:
    """New parameters for a layer; those it had stay as they were where others share them."""
    trains = weights.weight.requires_grad
    for name, new in zip(("weight", "bias"), absorbed(weights, scale, shift, backwards), strict=True):
        setattr(weights, name, nn.Parameter(new, requires_grad=trains))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


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
    rng, channels = np.random.default_rng(0), len(norm.running_mean)
    scale, shift = rng.uniform(0.5, 2, channels), rng.normal(size=channels)
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
