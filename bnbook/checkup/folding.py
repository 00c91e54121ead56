"""Fold a layer of batch normalization into the weights before it, for a trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ..interop.torch_folding import TRANSPOSED, absorbed, affine, why_hooked
from .trials import Trials, arriving


def is_transposed(weights: nn.Module) -> bool:
    """Whether the output channels of these weights are on their axis 1, group by group."""
    return isinstance(weights, TRANSPOSED)


def why_not(trials: Trials, name: str, weights: nn.Module, layer: str) -> str:
    """Why a layer cannot be folded into the weights before it, as far as that can be known without a trial."""
    norm = trials.layers[layer]
    if norm.running_mean is None:
        return "it has no running statistics"
    if {"weight", "bias"} - weights._parameters.keys():
        return f"the weights of {name} are computed from others (weight or spectral normalization, pruning)"
    if reason := next(filter(None, map(why_hooked, (weights, norm))), ""):
        return reason
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
    """The weights take up what the layers do, by `bnbook.interop`, and the layers hand on what arrives."""
    before: list[tuple[Tensor, Tensor]] = []
    biases: list[tuple[nn.Module, Tensor | None]] = []
    handles = []
    try:
        for _, weights, layer in pairs:
            _, axes, dtype = trials.arrived[layer]
            constants = affine(trials.layers[layer], axes, dtype)
            w, b = absorbed(weights, *(tensor.detach().double().cpu().numpy() for tensor in constants), backwards=True)
            before.append((weights.weight, weights.weight.clone()))
            biases.append((weights, weights.bias))
            weights.weight.copy_(w)
            weights._parameters["bias"] = b  # which may be a plain copy of a parameter

            def handed_on(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
                return arriving(args, kwargs)

            handles.append(trials.layers[layer].register_forward_hook(handed_on, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for tensor, value in reversed(before):  # tied weights stand in it twice
            tensor.copy_(value)
        for weights, bias in reversed(biases):
            weights._parameters["bias"] = bias
