"""Fold a layer of batch normalization into the weights before it, for a trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .trials import Trials, arriving


def is_transposed(weights: nn.Module) -> bool:
    """Whether the output channels of these weights are on their axis 1, group by group."""
    return isinstance(weights, nn.modules.conv._ConvTransposeNd)


def why_not(trials: Trials, name: str, weights: nn.Module, layer: str) -> str:
    """Why a layer cannot be folded into the weights before it, as far as that can be known without a trial."""
    norm = trials.layers[layer]
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return "it has no running statistics"
    if trials.uses[name] > 1:
        return f"{name} is called {trials.uses[name]} times"
    calls, axes = trials.arrived[layer]
    if calls > 1:
        return f"{layer} is called {calls} times"
    if isinstance(weights, nn.Linear) and axes > 2:
        return "the linear layer makes the last axis, the channels are on axis 1"
    return ""


@contextmanager
def folded(trials: Trials, pairs: Sequence[tuple[str, nn.Module, str]]) -> Iterator[None]:
    """W′ = a W and b′ = a b, and of the layer only the shift β − a μ is left; a = γ/√(σ² + ε), per channel."""
    before: list[tuple[Tensor, Tensor]] = []
    handles = []
    try:
        for _, weights, layer in pairs:
            scale, shift = affine(trials.layers[layer])
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


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What the layer does in evaluation: (scale, shift), per channel."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -scale * norm.running_mean
    return scale, shift if norm.bias is None else shift + norm.bias


def _scaled(weights: nn.Module, scale: Tensor) -> Tensor:
    w = weights.weight
    if not is_transposed(weights):
        return w * scale.reshape(-1, *[1] * (w.ndim - 1))
    groups = weights.groups
    by_group = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    return (by_group * scale.reshape(groups, 1, -1, *[1] * (w.ndim - 2))).reshape(w.shape)
