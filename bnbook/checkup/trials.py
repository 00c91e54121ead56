"""Run a model under observation: what arrives at its layers of batch normalization, and what its outputs are."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..interop.torch_folding import WEIGHTED, is_batch_norm
from ..probes.untouched import tensors

FEW = 4  # examples of the trials in which weights are changed
SAME = 1e-3  # outputs that differ by less, relative to their spread, are the same
FLAT = 1e-3  # of their size: outputs that vary by less are the same for all examples
ROUNDED = 1e-6  # of a mean: a standard deviation below is that of rounding


class ModelError(ValueError):
    """The model cannot be checked, or has raised an error on a batch."""


@dataclasses.dataclass
class Batch:
    """Arguments of one call; `needed` of those without a name have no default."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    needed: int = 1000
    examples: int | None = None  # as counted at the layers, where the tensors do not agree
    answers: int | None = None  # how many rows the model's output has

    @property
    def agreed(self) -> int | None:
        """Examples, where all tensors agree about their number."""
        sizes = {value.shape[0] if value.ndim else None for value in self.tensors()}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def size(self) -> int | None:
        """Examples, where that is known."""
        return self.examples or self.agreed

    def tensors(self) -> Iterator[Tensor]:
        return tensors([self.args, self.kwargs])

    def first(self, number: int) -> Batch:
        """The first examples alone; tensors and lists of another length are no examples."""
        args = tuple(_cut(value, self.size, number) for value in self.args)
        kwargs = {name: _cut(value, self.size, number) for name, value in self.kwargs.items()}
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    def to(self, device: torch.device) -> Batch:
        return _mapped(self, lambda tensor: tensor.to(device))

    def short(self) -> Batch:
        """Without the arguments that have a default: a DataLoader's targets are no masks."""
        return dataclasses.replace(self, args=self.args[: self.needed])

    def count(self, arrived: Collection[int]) -> None:
        """Count the examples by how many arrived at the layers, call by call.

        The tensors are believed where they agree and the layers see as many; else a list of as many, of images say;
        else tensors that agree where the layers see several of each (tokens, regions); else the first tensor that is as
        long as what arrives; else the least that arrives.
        """
        agreed = self.agreed
        if not arrived or agreed in arrived:
            return
        lists = [len(value) for value in (*self.args, *self.kwargs.values()) if type(value) in (tuple, list)]
        self.examples = next((length for length in lists if length in arrived), None)
        if self.examples or (agreed and all(number % agreed == 0 for number in arrived)):
            return
        lengths = [len(tensor) for tensor in self.tensors() if tensor.ndim]
        self.examples = next((length for length in lengths if length in arrived), min(arrived))


class Call(NamedTuple):
    """What arrived in one call: of each example and channel the mean and the variance, (N, C), over `size` values."""

    means: Tensor
    variances: Tensor
    size: int


class Moments(NamedTuple):
    """Of every channel, over all calls.

    informed: how many examples the variance comes from, (Σ s)²/Σ s² for examples that give s to the sum of squares: all
    of them where each gives the same, one where a single example does; 0 where the channel was constant.
    """

    mean: Tensor
    variance: Tensor
    informed: Tensor


@dataclasses.dataclass
class Watched:
    """One layer, and what arrived at it in evaluation."""

    name: str
    module: nn.Module
    calls: int = 0  # in one forward pass, the most
    axes: int = 0  # of what arrives
    smallest: int = 0  # values per channel in one call, the fewest; 0: none
    seen: list[Call] = dataclasses.field(default_factory=list)

    def add(self, x: Tensor) -> None:
        """Keep the moments of one call."""
        if x.ndim < 2 or not x.numel():
            return
        self.axes = x.ndim
        if x.ndim == 2:
            means, variances, size = wide(x), torch.zeros(x.shape, dtype=torch.float64), 1
        else:
            x = x.detach().flatten(2)
            variances, means = torch.var_mean(x if x.dtype == torch.float64 else x.float(), 2, correction=0)
            means, variances, size = wide(means), wide(variances), x.shape[2]
        self.smallest = min(self.smallest or len(x) * size, len(x) * size)
        self.seen.append(Call(means, variances, size))

    @cached_property
    def moments(self) -> Moments | None:
        """Of all calls; None where there was none. Not to be asked for before the last call."""
        return moments(self.seen) if self.seen else None


def moments(calls: Sequence[Call]) -> Moments:
    """The moments of several calls together."""
    count = sum(len(call.means) * call.size for call in calls)
    mean = sum(call.size * call.means.sum(0) for call in calls) / count
    squares = torch.cat([call.size * (call.variances + (call.means - mean) ** 2) for call in calls])
    variance = squares.sum(0) / count
    informed = squares.sum(0) ** 2 / (squares**2).sum(0).clamp_min(1e-300)
    return Moments(mean, variance, torch.where(variance > (ROUNDED * mean) ** 2, informed, 0.0))


def wide(tensor: Tensor) -> Tensor:
    """In float64, on the CPU: not every device has it."""
    return tensor.detach().cpu().double()


class Function:
    """The statistics of a call of torch.nn.functional.batch_norm outside of any layer, in place of the layer's."""

    def __init__(self, running_mean: Tensor, running_var: Tensor, eps: float) -> None:
        self.running_mean, self.running_var, self.eps = running_mean, running_var, eps


class FunctionCalls(TorchFunctionMode):
    """Hears the calls of torch.nn.functional.batch_norm that no layer makes, in evaluation."""

    def __init__(self, model: nn.Module, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        kept = (layer.running_mean for layer in layers.values())
        self.of_layers = {mean.untyped_storage().data_ptr() for mean in kept if mean is not None}
        self.places = {id(b): name for name, m in model.named_modules() for b in m.buffers(recurse=False)}
        self.seen: dict[str, Watched] = {}

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.batch_norm:
            given = inspect.signature(function).bind(*args, **kwargs)
            given.apply_defaults()
            mean, var = (given.arguments[name] for name in ("running_mean", "running_var"))
            known = mean is None or mean.untyped_storage().data_ptr() in self.of_layers  # or a part of a layer's
            if not known and not given.arguments["training"]:
                self._hear(given.arguments["input"], Function(mean, var, given.arguments["eps"]))
        return function(*args, **kwargs)

    def _hear(self, x: Tensor, function: Function) -> None:
        """Calls with the same statistics are one; its name is that of the module that keeps them.

        Of statistics that no module keeps only the first are heard: they may be other tensors at every call.
        """
        for one in self.seen.values():
            if one.module.running_mean is function.running_mean:
                return one.add(x)
        place = self.places.get(id(function.running_mean))
        name = f"{place}.batch_norm()" if place else "batch_norm()"
        if name in self.seen and place is None:
            return None
        while name in self.seen:
            name += "'"
        self.seen[name] = Watched(name, function)
        return self.seen[name].add(x)


class Trials:
    """A model whose tensors may be changed, its layers of batch normalization, and batches."""

    def __init__(self, model: nn.Module, batches: Sequence[Batch]) -> None:
        self.model, self.batches = model, batches
        self.layers = {name: module for name, module in model.named_modules() if is_batch_norm(module)}
        self.frozen: set[str] = set()
        self.grad = False  # whether forward() itself takes gradients
        self.uses: dict[str, int] = {}  # of weights, and below (calls, axes, kind) of layers: what `pairs` has seen
        self.arrived: dict[str, tuple[int, int, torch.dtype]] = {}

    def run(self, batch: Batch) -> Tensor:
        """The output, or the first tensor of real numbers in it."""
        return output_of(self.outputs(batch))

    def outputs(self, batch: Batch) -> Any:
        """All that the model returns; it may change the inputs that it is given."""
        batch = _mapped(batch, torch.clone)
        try:
            with torch.set_grad_enabled(self.grad):
                return self.model(*batch.args, **batch.kwargs)
        except SystemExit as error:
            raise ModelError(f"the model raises SystemExit on a batch: {error}") from error

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Everything in evaluation."""
        self.model.eval()
        yield

    @contextmanager
    def normalizing(self, everything: bool = False) -> Iterator[None]:
        """Those layers that are not frozen with the statistics of the batch; all else in evaluation, or as in training.

        Running statistics are put back afterwards.
        """
        before = {name: [b.clone() for b in module.buffers(recurse=False)] for name, module in self.layers.items()}
        self.model.train(everything)
        for name, module in self.layers.items():
            module.train(name not in self.frozen)
        try:
            yield
        finally:
            self.model.eval()
            for name, module in self.layers.items():
                for buffer, value in zip(module.buffers(recurse=False), before[name], strict=True):
                    buffer.copy_(value)

    def watch(self, batches: Iterable[Batch]) -> tuple[dict[str, Watched], list[Tensor]]:
        """What arrives at every layer, and the outputs."""
        seen = {name: Watched(name, module) for name, module in self.layers.items()}
        outputs = []
        for batch in batches:
            calls = dict.fromkeys(seen, 0)

            def listen(name: str, calls: dict[str, int] = calls) -> Callable:
                def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
                    calls[name] += 1
                    if (x := arriving(args, kwargs)) is not None:
                        seen[name].add(x)

                return hook

            with hooked(
                module.register_forward_pre_hook(listen(name), with_kwargs=True) for name, module in self.layers.items()
            ):
                outputs.append(self.run(batch))
            batch.answers = len(outputs[-1])
            batch.count({len(layer.seen[-1].means) for name, layer in seen.items() if calls[name] and layer.seen})
            for name, number in calls.items():
                seen[name].calls = max(seen[name].calls, number)
        return seen, outputs

    def called_in_training(self) -> set[str]:
        """The layers that a few examples reach with all that training switches on; none where the model then raises."""
        few, called = self.few(), set()
        handles = [
            layer.register_forward_pre_hook(lambda *_, name=name: called.add(name))
            for name, layer in self.layers.items()
        ]
        with suppress(Exception), hooked(handles), self.normalizing(everything=True):
            self.run(few)
        return called

    def gradients(self) -> dict[str, bool]:
        """Whether gradients of the outputs in training reach γ or β of each layer that was called.

        {} where they reach nothing at all.

        Raises:
            Exception: what the model raises in a backward pass.
        """
        own = {name: [p for p in layer.parameters(recurse=False)] for name, layer in self.layers.items()}
        every = [p for p in self.model.parameters() if p.requires_grad]
        called: set[str] = set()

        def hear(name: str) -> Callable:
            return lambda *_: called.add(name)

        few = self.few()
        handles = [layer.register_forward_pre_hook(hear(name)) for name, layer in self.layers.items()]
        before, self.grad = self.grad, True
        try:
            with self.normalizing(everything=True), hooked(handles), torch.enable_grad():
                answers = [t for t in tensors(self.outputs(few)) if t.is_floating_point() and t.requires_grad]
                if not answers:
                    return {}
                loss = sum((answer * torch.randn_like(answer)).sum() for answer in answers)
                found = torch.autograd.grad(loss, every, allow_unused=True)
        finally:
            self.grad = before
        reached = {id(p) for p, gradient in zip(every, found, strict=True) if gradient is not None}
        return {name: any(id(p) in reached for p in own[name]) for name in called if own[name]} if reached else {}

    def few(self) -> Batch:
        """A few examples of the first batch, or the whole of one that cannot be cut."""
        batch = self.batches[0]
        if not batch.size:
            return batch
        try:
            with self.evaluating():
                self.run(batch.first(FEW))
        except Exception:  # a part of this batch is no batch
            return batch
        return batch.first(FEW)

    def pairs(self) -> list[tuple[str, nn.Module, str]]:
        """(name, weights, layer) where the output of a convolution or a linear layer goes into a layer as it is."""
        made: list[tuple[Tensor, int, str, nn.Module]] = []
        self.arrived = {}
        found: list[tuple[str, nn.Module, str]] = []

        def keep(name: str) -> Callable:
            def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
                made.append((output, output._version, name, module))

            return hook

        def look(layer: str) -> Callable:
            def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
                x = arriving(args, kwargs)
                calls, *_ = self.arrived.get(layer, (0,))
                self.arrived[layer] = (calls + 1, *((0, torch.float32) if x is None else (x.ndim, x.dtype)))
                for tensor, version, name, weights in made:
                    if x is tensor and tensor._version == version:
                        found.append((name, weights, layer))

            return hook

        def hooks() -> Iterator[Any]:
            for name, module in self.model.named_modules():
                if isinstance(module, tuple(WEIGHTED)):
                    yield module.register_forward_hook(keep(name))
            for name, module in self.layers.items():
                yield module.register_forward_pre_hook(look(name), with_kwargs=True)

        few = self.few()
        with self.evaluating(), hooked(hooks()):
            self.run(few)
        self.uses = {name: sum(name == made_by for _, _, made_by, _ in made) for _, _, name, _ in made}
        return found


def unchanged(group: Sequence[Any], same: Callable[[Sequence[Any]], bool]) -> list[Any]:
    """Those of a group whose change leaves the outputs the same: all at once where that holds, else by halves."""
    if not group or same(group):
        return list(group)
    if len(group) == 1:
        return []
    half = len(group) // 2
    return unchanged(group[:half], same) + unchanged(group[half:], same)


def apart(a: Tensor, b: Tensor) -> float:
    """Root mean square of the difference, in standard deviations of the second.

    Infinite values that both have in the same places, as masks put them there, are no difference. Where the second is
    flat, its standard deviation counts as FLAT of the larger root mean square: else rounding would be many of them.
    Of other shapes they are infinitely far apart.
    """
    if a.shape != b.shape:
        return math.inf
    a, b = wide(a), wide(b)
    if not b.ndim:
        a, b = a.reshape(1), b.reshape(1)
    masked = a.isinf() & (a == b)
    a, b = a.masked_fill(masked, 0.0), b.masked_fill(masked, 0.0)
    spread = _rms(b - b.mean(0, keepdim=True)) if len(b) > 1 else _rms(b)
    return float(_rms(a - b) / spread.maximum(FLAT * _rms(a).maximum(_rms(b))).clamp_min(1e-300))


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def batch_of(value: Any, model: nn.Module) -> Batch:
    """A tensor, a tuple or list of arguments, or a mapping of keyword arguments, as the arguments of one call.

    Of a tuple that is longer than forward() has places, as a DataLoader gives (inputs, targets), the rest is left out.
    """
    if isinstance(value, Mapping):
        return Batch((), dict(value))
    if type(value) not in (tuple, list):
        return Batch((value,), {})
    while isinstance(model, torch.optim.swa_utils.AveragedModel):  # its forward() takes anything, that within does not
        model = model.module
    kinds = inspect.Parameter
    parameters = inspect.signature(model.forward).parameters.values()
    places = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    everything = any(p.kind == kinds.VAR_POSITIONAL for p in parameters)
    needed = max(1, sum(p.default is kinds.empty for p in places)) if places else len(value)
    return Batch(tuple(value) if everything else tuple(value)[: len(places)], {}, needed)


def arriving(args: tuple, kwargs: dict) -> Tensor | None:
    """What a layer is called with: its first tensor, with a name or without."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def output_of(value: Any) -> Tensor:
    """The first tensor of real numbers in what a model returns; a loss that stands beside it only where it is alone."""
    for tensor in sorted(numbers(value), key=lambda tensor: tensor.ndim == 0):
        return tensor if tensor.ndim else tensor.reshape(1)
    raise ModelError(f"the model returns no tensor of real numbers, but a {type(value).__name__}")


def numbers(value: Any) -> list[Tensor]:
    """The tensors of real numbers in what a model returns."""
    return [tensor.detach().clone() for tensor in tensors(value) if tensor.is_floating_point()]


@contextmanager
def hooked(handles: Iterable[Any]) -> Iterator[None]:
    """Hooks that are removed at the end."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def _cut(value: Any, size: int | None, number: int) -> Any:
    """The first so many where there are as many as examples: rows of a tensor, or entries of a list of examples."""
    if isinstance(value, Tensor):
        return value[:number] if value.ndim and len(value) == size else value
    if isinstance(value, Mapping):
        return {name: _cut(part, size, number) for name, part in value.items()}
    if type(value) in (list, tuple):
        rows = any(tensor.ndim and len(tensor) == size for tensor in tensors(value))
        examples = len(value) == size and not rows and all(isinstance(part, Tensor | Mapping) for part in value)
        return value[:number] if examples else type(value)(_cut(part, size, number) for part in value)
    return value


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Batch):
        return dataclasses.replace(value, args=_mapped(value.args, change), kwargs=_mapped(value.kwargs, change))
    if isinstance(value, Mapping):
        return {name: _mapped(part, change) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(part, change) for part in value)
    return value
