"""Run a model once on a batch and keep what its layers return; the model stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import data, nn
from ..nn.container import check_once, is_row
from .recorder import Layers, Recorder, choose
from .untouched import on_copies, random_states

if TYPE_CHECKING:
    import torch

Recorded = dict[str, tuple[np.ndarray, np.ndarray | None]]


def record(
    model: nn.Sequential | torch.nn.Module,
    inputs: Any,
    targets: Any = None,
    *,
    loss: Callable | None = None,
    layers: Layers = None,
    training: bool | None = True,
) -> Recorded:
    """Per layer its output for one batch, and the gradient of the loss for that output (None where there is none).

    The model stays as it is: parameters and their gradients, statistics, modes, hooks, random states, also when its
    forward pass raises. Torch models are run on copies of their parameters and buffers, NumPy models are copied. What
    a torch model holds besides, modules that are not registered among it, is put back where it stands in attributes,
    lists, tuples, dictionaries, sets, dataclasses, functions and their closures. Into objects of other classes, class
    attributes and globals is not looked: what the forward pass changes there stays changed.

    Args:
        model: a torch model, of which every module that is called is recorded, under its name ("" is the model itself);
            the second call of a shared one adds "#2", a part of an output "[0]" (see `Recorder`), and one that only
            hands on the output of its last layer is left out, unless `layers` asks for it. Or a `bnbook.nn.Sequential`,
            whose layers are recorded, those of a row within it too. One with a forward or backward of its own is not
            opened: within a row it is one layer.
        inputs: an array or a tensor (images as `data.load` gives them, a uint8 array (N, 28, 28), are standardized, and
            none of another shape), or for torch a tuple or list of arguments or a mapping of keyword arguments; a named
            tuple is one argument, a PackedSequence too. Tensors go to the device of the model.
        targets: what the loss compares with. None: no gradients, unless `loss` is a function of the output alone.
        loss: (output, targets) → the number whose gradients are taken; for NumPy models a layer like
            `nn.CrossEntropyLoss`, which is the default for integer targets.
        layers: which of them, by name or by a class or several (`torch.nn.ReLU`); None means all.
        training: run in training mode, in evaluation mode, or with None every module in the mode it is in.

    Raises:
        TypeError: a model of another kind (a single layer of `bnbook.nn`: put it into a Sequential), a loss of another
            kind; without `loss`, targets that are no class labels or an output that is no tensor.
        ValueError: no such layer, or nothing that could be recorded; a loss that is not one number or has no gradient;
            a compiled or a lazy model; with a loss, a model with reentrant checkpoints.
    """
    if isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8 and inputs.shape[1:] == (28, 28):
        inputs = data.to_input(inputs)
    if isinstance(model, nn.Module):
        with random_states():
            recorded = _record_numpy(model, inputs, targets, loss, layers, training)
    else:
        recorded = _record_torch(model, inputs, targets, loss, layers, training)
    if not recorded:
        raise ValueError(
            f"layers={layers!r} of this {type(model).__name__} gave nothing to record: recorded are layers that are "
            "called and return arrays or tensors of real numbers; layers= takes names or classes, None for all"
        )
    return recorded


def _record_numpy(model, inputs, targets, loss, layers, training) -> Recorded:
    if not is_row(model):
        own = ", which has a forward or backward of its own" if isinstance(model, nn.Sequential) else ""
        raise TypeError(
            f"model must be a bnbook.nn.Sequential, whose layers are recorded, got {type(model).__name__}{own}: put it "
            "into a Sequential to record it as one layer"
        )
    check_once(model._places(), set())
    model = copy.deepcopy(model)
    if training is not None:
        model.train(training)
    named = dict(_rows(model))
    chosen = choose(named, layers)
    recorded, x = {}, inputs
    for name, layer in named.items():
        x = layer(x)
        recorded[name] = (x, None)
    if targets is not None or loss is not None:
        loss = nn.CrossEntropyLoss() if loss is None else copy.deepcopy(loss)
        if not isinstance(loss, nn.Module):
            raise TypeError(f"loss must be a layer of bnbook.nn like CrossEntropyLoss, got {type(loss).__name__}")
        loss(x) if targets is None else loss(x, targets)
        grad = loss.backward()
        for name, layer in reversed(named.items()):
            recorded[name] = (recorded[name][0], grad)
            grad = layer.backward(grad)
    return {name: recorded[name] for name in chosen}


def _rows(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers under their dotted names; a row within the row is opened."""
    for name, layer in model.named_children():
        yield from _rows(layer, f"{prefix}{name}.") if is_row(layer) else [(prefix + name, layer)]


def _record_torch(model, inputs, targets, loss, layers, training) -> Recorded:
    import torch

    recorder = Recorder(model, layers=layers)
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    args = [] if isinstance(inputs, Mapping) else inputs if type(inputs) in (tuple, list) else [inputs]
    kwargs = inputs if isinstance(inputs, Mapping) else {}
    with torch.inference_mode(False), on_copies(model) as leaves, recorder:  # (which turns gradients on, too)

        def leaf(value):
            if isinstance(value, torch.nn.utils.rnn.PackedSequence):
                value = value.to(device)
                return value._replace(data=leaf(value.data))
            value = _tensor(value, device)
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                return value
            leaves.append(value.requires_grad_())  # so that frozen layers have gradients of their outputs, too
            return value.clone()  # which a layer may change in place; a leaf it may not

        if training is not None:
            model.train(training)
        output = model(*map(leaf, args), **{name: leaf(value) for name, value in kwargs.items()})
        if targets is not None or loss is not None:
            _differentiate(_loss(output, targets, loss), leaves)
    return {name: (values[0], recorder.gradients[name][0]) for name, values in recorder.activations.items()}


def _differentiate(loss: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """Let the gradients flow, while the recorder listens: unlike `backward()` it adds nothing to `.grad`."""
    import torch

    try:
        torch.autograd.grad(loss, leaves, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ValueError(
            "the model has reentrant checkpoints, which allow for `backward()` alone: make them with "
            "use_reentrant=False, or give the inputs alone"
        ) from error


def _loss(output, targets, loss):
    """The number whose gradients are taken."""
    import torch

    if loss is None:
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"the model returns a {type(output).__name__}: give loss=, a function of it and targets")
        targets = torch.as_tensor(targets)
        if targets.is_floating_point() or targets.dtype in (torch.bool, torch.complex64, torch.complex128):
            raise TypeError(f"targets must be integer class labels, got {targets.dtype}; or give loss=")
        loss, targets = torch.nn.functional.cross_entropy, targets.long()
    if isinstance(output, torch.Tensor):
        targets = _tensor(targets, output.device)
    value = loss(output) if targets is None else loss(output, targets)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"loss must return a tensor with one number, got {got}")
    if not value.requires_grad:
        raise ValueError("the loss has no gradient (no_grad or detach in the model?): give the inputs alone")
    return value


def _tensor(value, device):
    """Copies of tensors and arrays, as tensors on the device; anything else as it is."""
    import torch

    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())  # of any strides
    return value.detach().to(device, copy=True) if isinstance(value, torch.Tensor) else value
