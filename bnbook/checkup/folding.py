"""Fold a layer of batch normalization into the weights before it, for a trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .trials import SAME, Trials, apart, arriving


def is_transposed(weights: nn.Module) -> bool:
    """Whether the output channels of these weights are on their axis 1, group by group."""
    return isinstance(weights, nn.modules.conv._ConvTransposeNd)


def why_not(trials: Trials, name: str, weights: nn.Module, layer: str) -> str:
    """Why a layer cannot be folded into the weights before it, as far as that can be known without a trial."""
    norm = trials.layers[layer]
    if norm.running_mean is None:
        return "it has no running statistics"
    if {"weight", "bias"} - weights._parameters.keys():
        return f"the weights of {name} are computed from others (weight or spectral normalization, pruning)"
    if trials.uses[name] > 1:
        return f"{name} is called {trials.uses[name]} times"
    calls, axes, dtype = trials.arrived[layer]
    if calls > 1:
        return f"{layer} is called {calls} times"
    if isinstance(weights, nn.Linear) and axes > 2:
        return "the linear layer makes the last axis, the channels are on axis 1"
    with trials.evaluating():
        if affine(norm, axes, dtype) is None:
            return f"{layer} does more than normalize: what else its class, {type(norm).__name__}, does would be lost"
    return ""


@contextmanager
def folded(trials: Trials, pairs: Sequence[tuple[str, nn.Module, str]]) -> Iterator[None]:
    """W′ = a W and b′ = a b, and of the layer only the shift β − a μ is left; a = γ/√(σ² + ε), per channel."""
    before: list[tuple[Tensor, Tensor]] = []
    handles = []
    try:
        for _, weights, layer in pairs:
            _, axes, dtype = trials.arrived[layer]
            scale, shift = affine(trials.layers[layer], axes, dtype)
            for tensor in (weights.weight, weights.bias):
                if tensor is not None:
                    before.append((tensor, tensor.clone()))
            weights.weight.copy_(_scaled(weights, scale))
            if weights.bias is not None:
                weights.bias.mul_(scale)

            def shifted(module: nn.Module, args: tuple, kwargs: dict, output: Tensor, shift: Tensor = shift) -> Tensor:
                x = arriving(args, kwargs)
                return x + shift.reshape(-1, *[1] * (x.ndim - 2))

            handles.append(trials.layers[layer].register_forward_hook(shifted, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for tensor, value in reversed(before):  # tied weights stand in it twice
            tensor.copy_(value)


def affine(norm: nn.Module, axes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """What the layer does in evaluation, (scale, shift) per channel; None where it does something else besides.

    Of torch's layers they are computed, of other classes measured at 0 and 1; then both are tried on numbers around
    the running mean.
    """
    mean, std = norm.running_mean, (norm.running_var + getattr(norm, "eps", 1e-5)).sqrt()
    places = [1, -1, *[1] * (axes - 2)]

    def answer(x: Tensor) -> Tensor:
        return norm(x.to(dtype).expand(4, len(mean), *[2] * (axes - 2)))

    try:
        if isinstance(norm, _BatchNorm):
            scale = 1 / std if norm.weight is None else norm.weight / std
            shift = -scale * mean if norm.bias is None else norm.bias - scale * mean
        else:
            at_0, at_1 = (
                answer(mean.new_full([1, len(mean), *places[2:]], value))[0].flatten(1)[:, 0] for value in (0.0, 1.0)
            )
            scale, shift = at_1 - at_0, at_0
        x = (mean + 3 * std * torch.arange(4.0 * len(mean), device=mean.device).sin().reshape(4, -1)).to(dtype)
        x = x.reshape(4, len(mean), *[1] * (axes - 2))
        far = apart(answer(x), (x * scale.reshape(places) + shift.reshape(places)).expand_as(answer(x)))
    except Exception:  # a layer that takes no such numbers
        return (scale, shift) if type(norm).__module__.startswith("torch.") else None
    return (scale, shift) if far < max(SAME, 16 * torch.finfo(dtype).eps) else None


def _scaled(weights: nn.Module, scale: Tensor) -> Tensor:
    w = weights.weight
    if not is_transposed(weights):
        return w * scale.reshape(-1, *[1] * (w.ndim - 1))
    groups = weights.groups
    by_group = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    return (by_group * scale.reshape(groups, 1, -1, *[1] * (w.ndim - 2))).reshape(w.shape)
