"""The check-up: every rule of `rules`, tried on the model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..kernels.sync_batch_norm import SyncBatchNorm
from ..probes.untouched import on_copies
from .alike import unlike
from .findings import Distance, Finding, Report, in_order
from .folding import folded, is_transposed, why_not
from .rules import RULES, Severity
from .trials import (
    SAME,
    Batch,
    FunctionCalls,
    ModelError,
    Trials,
    Watched,
    apart,
    arriving,
    batch_of,
    hooked,
    moments,
    numbers,
    unchanged,
    wide,
)

SYNCHRONIZED = (nn.SyncBatchNorm, SyncBatchNorm)
MANY = 32  # batches, of which no more are taken
FEW_VALUES, MANY_VALUES = 16, 32  # per channel: below the first a warning, below the second worth knowing
INFORMED = 4  # examples, without which the variance of a channel is not known
DEAD = 1e-3  # of the largest |γ| of a layer
ROUNDING_IN_HALF = 0.3  # standard deviations of the outputs: a pair that is folded in half precision changes less
DROPOUT = math.log(1.15)  # of the variance that arrives, training over evaluation


class Handed(NamedTuple):
    """A module as it was given: its mode, and which of its parameters learn."""

    training: bool
    learns: tuple[bool, ...]


def checkup(
    model: nn.Module,
    batches: Iterable[Any] | None = (),
    *,
    optimizer: torch.optim.Optimizer | None = None,
    ignore: str | Collection[str] = (),
) -> Report:
    """Look for what is wrong with the batch normalization of a model. The model stays exactly as it was.

    A running mean counts as far from that of the batches where the root mean square over the channels of
    (running mean − mean)/σ exceeds 0.3 + 2/√n for n examples, a running variance where that of the logarithm of the
    factor exceeds twice as much; the same limit, with n the examples of one batch, holds for the distance of the
    outputs in training and in evaluation, in standard deviations of the outputs. Where few examples make the variance
    of a channel, as of a column that is rarely not 0, only these count. A single channel may be off by more,
    1.5 + (1 + √(2 ln C))/√n for n of them and C channels.

    Batches are alike unless a one-way analysis of variance of their examples' means says otherwise: F over all
    channels, or of one, is more than 3 + √(2 ln t) normal deviations beyond chance, for t such tests, and the batches
    are more than 0.1 standard deviations of the values apart. Where they are more than 0.3 apart, none of the distances
    above is judged. One batch of four or more stands apart where it is more than 0.3 away from the others, and 6
    standard deviations farther than the farthest of batches that are drawn at random from the same examples.

    Args:
        model: any torch model, in the mode in which it is trained: a layer that is in evaluation mode within a model in
            training mode counts as frozen.
        batches: inputs of the model, made as in training: tensors, tuples or lists of arguments (what is beyond the
            arguments of forward(), as the targets of a DataLoader, is left out), mappings of keyword arguments. Two
            batches or more of 32 examples or more say most; of more than 32 batches, as from an endless loader, the
            first 32 are taken. Without any only what needs no run is checked.
        optimizer: then weight decay is looked at, too.
        ignore: codes of findings that are not to be reported, as a list or as in "BN202,BN501".

    Raises:
        TypeError: a model that is no torch module, batches that are one tensor, an optimizer that is none.
        ModelError: a ValueError: a compiled model (one by `model.compile()` is looked into), a scripted, quantized or
            lazy one; one that returns no tensor; the error that the model raises on a batch.
        ValueError: an unknown code to ignore, a batch without examples.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(batches, Tensor):
        raise TypeError("batches must be an iterable of batches, got one tensor: give [tensor]")
    if isinstance(batches, Mapping):
        raise TypeError("batches must be an iterable of batches, got one mapping: give [mapping]")
    if batches is not None and not isinstance(batches, Iterable | Sequence) and not hasattr(batches, "__getitem__"):
        raise TypeError(f"batches must be an iterable of batches, got {type(batches).__name__}")
    if optimizer is not None and not isinstance(getattr(optimizer, "param_groups", None), list):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    ignore = codes_of(ignore)
    _refuse(model)
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) else model
    taken = [batch_of(value, inner) for value in islice(() if batches is None else batches, MANY)]
    if any(batch.agreed == 0 for batch in taken):
        raise ValueError("a batch has no examples")
    handed = {
        name: Handed(module.training, tuple(p.requires_grad for p in module.parameters(recurse=False)))
        for name, module in inner.named_modules()
    }
    try:
        copies = on_copies(inner)
        with torch.inference_mode(False), torch.no_grad(), copies, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings, layers, distances, examples = _findings(inner, taken, handed)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(" ".join(str(error).split())) from error
    findings += _of_wrappers(model, inner, layers, distances)
    if optimizer is not None:
        findings += _decay(layers, optimizer)
        findings += _left_out(inner, layers, handed, optimizer)
    names = dict.fromkeys([*layers, *(d.layer for d in distances)])
    return Report(
        in_order((f for f in findings if f.code not in ignore), names),
        tuple(names),
        examples,
        tuple(distances),
        tuple(sorted(ignore)),
    )


def codes_of(words: str | Collection[str]) -> list[str]:
    """Codes of findings, in a list or in one string between commas, in any case.

    Raises:
        ValueError: a code that there is not.
    """
    codes = [word.strip().upper() for word in (words.split(",") if isinstance(words, str) else words) if word.strip()]
    if unknown := sorted(set(codes) - RULES.keys()):
        raise ValueError(f"there are no findings {unknown}: the codes are {', '.join(RULES)}")
    return codes


def _refuse(model: nn.Module) -> None:
    for module in model.modules():
        kind = type(module)
        if kind.__name__ == "OptimizedModule":
            raise ModelError("the model is compiled, and hides its layers: give the one that torch.compile was given")
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError("the model is scripted or traced, and hides its layers: give the one it was made from")
        if any(t.is_meta for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            raise ModelError("the model has tensors on the device meta, without values: load its weights first")
        if ".quantized" in kind.__module__ and kind.__module__.startswith("torch"):
            raise ModelError("the model is quantized: check it before quantization, when its layers still stand apart")


def _findings(
    model: nn.Module, batches: list[Batch], handed: dict[str, Handed]
) -> tuple[list[Finding], dict[str, nn.Module], list[Distance], int]:
    trials = Trials(model, batches)
    for module in model.modules():
        module._compiled_call_impl = None  # hooks would compile each of them anew
    model.train()
    stay = {name for name, layer in trials.layers.items() if not layer.training}
    frozen = {name for name in trials.layers if handed[""].training and not handed[name].training} | stay
    trials.frozen = frozen
    found = list(_of_state(trials, handed))
    found += _as_new(trials.layers, {f.layer for f in found if f.code == "BN101"})
    if not batches:
        return found, trials.layers, [], _examples(batches)
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    trials.batches = _tried(lambda: [batch.to(device) for batch in batches])
    with trials.evaluating(), FunctionCalls(model, trials.layers) as functions:
        seen, outputs = _watched(trials)
    trials.frozen = frozen | {name for name in trials.layers.keys() - frozen if _never_normalizes(seen[name])}
    examples = _examples(trials.batches)
    idle = {name for name, layer in seen.items() if not layer.calls}
    found += _calls(seen, examples, in_training=trials.called_in_training() if idle else set())
    differ = unlike(seen, trials.batches)
    too_far = differ is not None and differ.too_far
    if differ:
        found.append(_finding("BN401", differ.layer, differ.ratio, differ.message))
    for name, call in functions.seen.items():
        found += _of_statistics(name, call.module.running_mean, call.module.running_var)
    distances = [d for layer in seen.values() if (d := _distance(layer, examples))]
    for call in functions.seen.values():
        heard = sum(len(one.means) for one in call.seen)  # of statistics that no module keeps, the first batch alone
        distances += filter(None, [_distance(call, min(examples, heard))])
    known = {f.layer for f in found if f.code == "BN101"}  # of these the distance says nothing new
    if not too_far:
        found += _far([d for d in distances if d.layer not in known], examples)
    healthy = all(bool(output.isfinite().all()) for output in outputs) or _masked(trials, outputs)
    with trials.evaluating():  # a model that draws random numbers in evaluation says something else every time
        steady = healthy and apart(trials.run(trials.batches[0]), outputs[0]) < SAME
    if steady:
        found += _companions(trials)
    elif not healthy and not any(f.code == "BN102" for f in found):
        broken = sum(not output.isfinite().all() for output in outputs)
        found.append(_finding("BN109", "", broken, f"NaN or infinite outputs for {broken} of {len(outputs)} batches"))
    found += _in_training(trials, seen, outputs, judged=steady and not too_far)
    found += _unreached(trials, handed)
    if steady:
        found += _pairs(trials)
    return found, trials.layers, distances, examples


def _masked(trials: Trials, outputs: list[Tensor]) -> bool:
    """Whether outputs are infinite on purpose: in the same places in both modes, of finite parameters and inputs."""
    given = [*trials.model.parameters(), *(tensor for batch in trials.batches for tensor in batch.tensors())]
    if any(output.isnan().any() for output in outputs) or not all(tensor.isfinite().all() for tensor in given):
        return False
    with trials.normalizing():
        try:
            others = [trials.run(batch) for batch in trials.batches]
        except Exception:  # one value per channel, as is said elsewhere
            return True
    places = [[torch.where(output.isinf(), output.sign(), 0) for output in side] for side in (outputs, others)]
    return all(map(torch.equal, *places))


def _tried(run: Any) -> Any:
    try:
        return run()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the model raises {type(error).__name__} on a batch: {_first_line(error)}") from error


def _watched(trials: Trials) -> tuple[dict[str, Watched], list[Tensor]]:
    """What arrives at the layers; where forward() takes no targets in its optional places, without them."""
    try:
        return _tried(lambda: trials.watch(trials.batches))
    except ModelError as error:
        if isinstance(error.__cause__, RuntimeError) and "grad" in str(error.__cause__):  # torch.autograd.grad, within
            trials.grad = True
            return _tried(lambda: trials.watch(trials.batches))
        short = [batch.short() for batch in trials.batches]
        if all(len(a.args) == len(b.args) for a, b in zip(short, trials.batches, strict=True)):
            raise
        with suppress(Exception):
            answer = trials.watch(short)
            trials.batches = short
            return answer
        raise


def _examples(batches: list[Batch]) -> int:
    return sum(batch.size or 1 for batch in batches)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _finding(code: str, layer: str, value: float, message: str, severity: Severity | None = None) -> Finding:
    number = float(value)
    return Finding(code, severity or RULES[code].severity, layer, number if math.isfinite(number) else 0.0, message)


# --- what needs no run -----------------------------------------------------------------------------------------------


def _of_state(trials: Trials, handed: dict[str, Handed]) -> Iterator[Finding]:
    for name, layer in trials.layers.items():
        weight = getattr(layer, "weight", None)
        if layer.running_mean is not None and layer.running_var is not None:
            counted = int(getattr(layer, "num_batches_tracked", None) or 0)
            yield from _of_statistics(name, layer.running_mean, layer.running_var, counted)
            momentum = getattr(layer, "momentum", 0.1)
            if momentum is None:
                yield _finding(
                    "BN104", name, 0, "momentum=None: all batches since the beginning weigh the same", "info"
                )
            elif momentum < 0 or momentum > 1:
                message = f"momentum={momentum:g}: the running statistics move away from those of the batches"
                yield _finding("BN104", name, momentum, message, "warning")
            elif momentum >= 0.5:
                message = f"momentum={momentum:g}: the last batch alone makes {momentum:.0%} of the statistics"
                yield _finding("BN104", name, momentum, message, "info")
        training, learns = handed[name]
        if handed[""].training and learns:
            if not training and any(learns):
                message = "in evaluation mode within a model in training mode, while γ or β learns"
                yield _finding("BN301", name, sum(learns), message)
            elif training and not any(learns) and name not in trials.frozen:
                message = "γ and β have requires_grad=False, and the statistics still move"
                yield _finding("BN302", name, len(learns), message)
        if training and not handed[""].training:
            message = "in training mode within a model in evaluation mode: it takes the statistics of the batch"
            yield _finding("BN107", name, 1, message, "warning")
        if isinstance(layer, nn.SyncBatchNorm) and weight is not None and weight.device.type == "cpu":
            grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
            message = "on the CPU, " + (
                "in a process group: in training it raises"
                if grouped
                else "without a process group: harmless, here it is an ordinary layer"
            )
            yield _finding("BN403", name, 1, message)
        if weight is not None and weight.numel() > 1:
            dead = weight.abs() <= DEAD * weight.abs().max()
            if dead.any():
                severity: Severity = "warning" if dead.float().mean() > 0.5 else "info"
                yield _finding("BN303", name, dead.sum(), f"{_of(dead)} channels have a γ of (nearly) 0", severity)


def _as_new(layers: dict[str, nn.Module], never_updated: set[str]) -> Iterator[Finding]:
    """Layers whose γ and β are those of a new layer, to the last bit, while those of others have learned."""
    new, learned = [], 0
    for name, layer in layers.items():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, Tensor) and isinstance(bias, Tensor) and weight.numel():
            if bool((weight == 1).all() and (bias == 0).all()):
                new.append(name)
            else:  # begun with zeros, as the last ones of residual blocks are, is not yet learned
                learned += bool((weight != weight[0]).any())
    for name in new if learned else ():
        if name not in never_updated:
            message = f"every γ is 1 and every β is 0, while those of {_layers(learned)} have learned"
            yield _finding("BN305", name, learned, message)


def _layers(number: int) -> str:
    return "another layer" if number == 1 else f"{number} other layers"


def _of_statistics(name: str, mean: Tensor, var: Tensor, counted: int | None = None) -> Iterator[Finding]:
    """What is wrong with running statistics whatever arrives; None: nobody counts the batches."""
    broken = ~(mean.isfinite() & var.isfinite() & (var >= 0))
    if broken.any():
        message = f"{_of(broken)} channels have a running mean or variance that is NaN, infinite or negative"
        yield _finding("BN102", name, broken.sum(), message)
    elif bool((mean == 0).all() and (var == 1).all()):
        batches = f", after {counted:,} batches" if counted else ", with no batch counted" if counted == 0 else ""
        yield _finding("BN101", name, counted or 0, f"all running means are 0 and all variances 1{batches}")
    if mean.dtype in (torch.float16, torch.bfloat16):
        kind = str(mean.dtype).removeprefix("torch.")
        yield _finding("BN108", name, torch.finfo(mean.dtype).bits, f"running statistics in {kind}")


def _of(mask: Tensor) -> str:
    return f"{int(mask.sum()):,} of {mask.numel():,}"


def _decay(layers: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> Iterator[Finding]:
    own = {id(p) for layer in layers.values() for p in layer.parameters(recurse=False)}
    for group in optimizer.param_groups:
        caught = sum(id(p) in own for p in group["params"])
        if caught and group.get("weight_decay", 0):
            message = f"{caught} tensors γ and β have weight decay {group['weight_decay']:g} in the optimizer"
            yield _finding("BN304", "", group["weight_decay"], message)


def _left_out(
    model: nn.Module, layers: dict[str, nn.Module], handed: dict[str, Handed], optimizer: torch.optim.Optimizer
) -> Iterator[Finding]:
    """Layers whose statistics move while the optimizer does not have their γ and β, though it has other parameters."""
    kept = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not handed[""].training or not any(id(p) in kept for p in model.parameters()):
        return
    for name, layer in layers.items():
        own = list(layer.parameters(recurse=False))
        if handed[name].training and any(handed[name].learns) and not any(id(p) in kept for p in own):
            message = "the optimizer does not have γ and β, and the statistics still move"
            yield _finding("BN302", name, len(own), message)


def _of_wrappers(
    model: nn.Module, inner: nn.Module, layers: dict[str, nn.Module], distances: list[Distance]
) -> Iterator[Finding]:
    if isinstance(model, nn.parallel.DistributedDataParallel) and (size := torch.distributed.get_world_size()) > 1:
        alone = [name for name, layer in layers.items() if not isinstance(layer, SYNCHRONIZED)]
        if alone:
            message = f"{len(alone)} layers normalize with the part of one of {size} processes"
            yield _finding("BN402", "", size, message)
    if isinstance(inner, torch.optim.swa_utils.AveragedModel) and layers and not inner.use_buffers:
        if int(inner.n_averaged) > 1:
            worst = max((max(d.mean, d.variance / 2) for d in distances), default=0.0)
            known = f"; they are up to {worst:.2f} off on these batches" if distances else ""
            message = f"the average of {int(inner.n_averaged):,} models has the statistics of the last one{known}"
            severity: Severity = "warning" if not distances or worst > 0.3 else "info"
            yield _finding("BN404", "", worst, message, severity)


# --- what arrives ----------------------------------------------------------------------------------------------------


def _calls(seen: dict[str, Watched], examples: int, in_training: set[str]) -> Iterator[Finding]:
    for name, layer in seen.items():
        if not layer.calls and name in in_training:
            message = "called in training alone, as in a head whose answers only the loss wants"
            yield _finding("BN204", name, 0, message, "info")
        elif not layer.calls:
            yield _finding("BN204", name, 0, "none of these batches reaches it")
        elif layer.calls > 1:
            alike = _alike(layer, examples)
            message = f"{layer.calls} calls in one forward pass"
            message += ", of inputs so alike that one mixture fits all" if alike else ""
            yield _finding("BN203", name, layer.calls, message, "info" if alike else "warning")


def _alike(layer: Watched, examples: int) -> bool:
    """Whether every call brings the same statistics, as with two images of one kind: then sharing them is right."""
    if not layer.seen or len(layer.seen) % layer.calls:
        return False
    together = layer.moments
    for call in range(layer.calls):
        one = moments(layer.seen[call :: layer.calls])
        shift = (one.mean - together.mean) / (together.variance + 1e-5).sqrt()
        factor = ((one.variance + 1e-5) / (together.variance + 1e-5)).log()
        allowed = limit(examples)
        if not (shift.square().mean().sqrt() < allowed and factor.square().mean().sqrt() < 2 * allowed):
            return False
    return True


def _distance(layer: Watched, examples: int) -> Distance | None:
    """Channels whose variance comes from fewer than INFORMED examples (columns that are rarely not 0) say too little.

    There the running variance is not compared, and the means are in units of the larger standard deviation.
    """
    mean, var = layer.module.running_mean, layer.module.running_var
    if mean is None or var is None or not layer.moments or layer.moments.mean.shape != mean.shape:
        return None
    eps = getattr(layer.module, "eps", 1e-5)
    seen, var = layer.moments, wide(var)
    known = seen.informed >= INFORMED
    shift = (wide(mean) - seen.mean) / (torch.where(known, seen.variance, seen.variance.maximum(var)) + eps).sqrt()
    factor = torch.where(known, ((var + eps) / (seen.variance + eps)).log(), 0.0)
    if not (shift.isfinite().all() and factor.isfinite().all()):
        return None
    size = shift.abs().maximum(factor.abs() / 2)
    allowed = _worst_limit(seen.informed.clamp(INFORMED, max(examples, INFORMED)), len(mean))
    worst = int((size / allowed).argmax())
    rms = (float(values.square().mean().sqrt()) for values in (shift, factor))
    return Distance(
        layer.name,
        *rms,
        limit(examples),
        2 * limit(_carriers(layer, examples)),
        worst,
        float(size[worst]),
        float(allowed[worst]),
    )


def _carriers(layer: Watched, examples: int) -> float:
    """How many examples the variances come from, at most all; a normal variable counts whole, of which 1/3 informs."""
    informed = layer.moments.informed
    return max(1.0, min(float(examples), 3 * float(informed[informed > 0].median()) if (informed > 0).any() else 1.0))


def limit(examples: float) -> float:
    """How far apart statistics may be by chance, in standard deviations: pixels of one image are no new examples."""
    return 0.3 + 2 / math.sqrt(examples)


def _worst_limit(informed: Tensor, channels: int) -> Tensor:
    """The same for the worst of many channels: the largest of C normal errors is about √(2 ln C) of them."""
    return 1.5 + (1 + math.sqrt(2 * math.log(channels))) / informed.sqrt()


def _far(distances: list[Distance], examples: int) -> Iterator[Finding]:
    for d in distances:
        if d.mean > d.allowed_mean or d.variance > d.allowed_variance:
            message = (
                f"running means {d.mean:.2f} standard deviations off (allowed {d.allowed_mean:.2f} for {examples:,}"
                f" examples), running variances by a factor of {_factor(d.variance)}"
                f" (allowed {_factor(d.allowed_variance)})"
            )
            yield _finding("BN105", d.layer, max(d.mean, d.variance / 2), message)
        elif d.worst > d.allowed_worst:
            message = (
                f"channel {d.channel} alone: its running mean is {d.worst:.2f} standard deviations off, or its running"
                f" variance by a factor of {_factor(2 * d.worst)} (allowed {d.allowed_worst:.2f} and"
                f" {_factor(2 * d.allowed_worst)} for the worst of all channels)"
            )
            yield _finding("BN105", d.layer, d.worst, message)


def _factor(logarithm: float) -> str:
    """Of a variance, from its logarithm."""
    factor = math.exp(min(logarithm, 700))
    return f"{factor:.2f}" if factor < 1000 else f"{factor:.1e}"


# --- trials ----------------------------------------------------------------------------------------------------------


def _never_normalizes(watched: Watched) -> bool:
    """Whether a layer says the same in training and in evaluation of values that it has never seen."""
    layer, mean = watched.module, watched.module.running_mean
    if mean is None or not watched.axes:
        return False
    values = 7 + 3 * torch.arange(4.0 * len(mean), device=mean.device).sin().to(mean.dtype)
    x = values.reshape(4, len(mean), *[1] * (watched.axes - 2))
    before = [buffer.clone() for buffer in layer.buffers(recurse=False)]
    try:
        answers = [(layer.train(mode), layer(x))[1] for mode in (False, True)]
        return bool(torch.equal(*answers))
    except Exception:
        return False
    finally:
        for buffer, value in zip(layer.buffers(recurse=False), before, strict=True):
            buffer.copy_(value)


def _companions(trials: Trials) -> Iterator[Finding]:
    """Half of a batch alone and with the others, in evaluation."""
    batch = trials.batches[0]
    if not batch.size or batch.size < 2:
        return
    half = batch.size // 2
    kept: list[dict[str, tuple[Tensor, Tensor]]] = []
    outputs = []
    for part in (batch.first(half), batch):
        calls: dict[str, tuple[Tensor, Tensor]] = {}

        def keep(name: str, calls: dict = calls) -> Any:
            def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
                x = arriving(args, kwargs)
                if x is not None and isinstance(output, Tensor) and name not in calls:
                    calls[name] = (x[:half].clone(), output[:half].clone())

            return hook

        handles = [layer.register_forward_hook(keep(name), with_kwargs=True) for name, layer in trials.layers.items()]
        try:
            with trials.evaluating(), hooked(handles):
                outputs.append(trials.run(part))
        except Exception:  # half of this batch is no batch
            return
        kept.append(calls)
    alone, among = kept
    guilty = [
        name
        for name in alone.keys() & among.keys()
        if apart(alone[name][0], among[name][0]) <= SAME < apart(alone[name][1], among[name][1])
    ]
    layer = next((name for name in trials.layers if name in guilty), "")
    if [len(output) for output in outputs] == [half, batch.size] and outputs[0].shape[1:] == outputs[1].shape[1:]:
        change, of = apart(outputs[0], outputs[1][:half]), "outputs"
        if not layer and batch.agreed != batch.size:
            return  # of tensors of several lengths (a graph's nodes and edges) a part may be no part of the batch
    elif layer:  # not one answer for each example
        change, of = apart(alone[layer][1], among[layer][1]), "outputs of the layer"
    else:
        return
    if change > SAME:
        message = f"with other examples beside them, {of} change by {change:.2g} of their standard deviation"
        yield _finding("BN107", layer, change, message)


def _in_training(trials: Trials, seen: dict[str, Watched], outputs: list[Tensor], judged: bool) -> Iterator[Finding]:
    """What happens to outputs and statistics where the layers take those of the batch."""
    active = {name: seen[name] for name in trials.layers if name not in trials.frozen and seen[name].smallest}
    for name, layer in active.items():
        m = layer.smallest
        if m < MANY_VALUES:
            message = f"{m} values per channel in a batch"
            if m > 1:
                mean, var = 1 / math.sqrt(m), math.sqrt(2 / (m - 1))
                message += f": the mean is uncertain by {mean:.2f} standard deviations, the variance by {var:.0%}"
            else:
                message += ": in training PyTorch refuses"
            yield _finding("BN201", name, m, message, "error" if m < 2 else "warning" if m < FEW_VALUES else "info")
    if not active or min(layer.smallest for layer in active.values()) < 2:
        return
    before = {name: _statistics(layer.module) for name, layer in active.items()}
    with trials.normalizing():
        try:
            plain, with_batch = trials.watch(trials.batches)
        except Exception as error:
            message = f"in training the model raises {type(error).__name__}: {_first_line(error)}"
            yield _finding("BN201" if "more than 1 value" in str(error) else "BN206", "", 1, message)
            return
        after = {name: _statistics(layer.module) for name, layer in active.items()}
    for name, layer in active.items():
        momentum = getattr(layer.module, "momentum", None)
        if momentum is not None and before[name] and all(map(torch.equal, before[name], after[name])):
            message = f"momentum={momentum:g}: batches in training moved no statistic"
            yield _finding("BN103", name, momentum, message)
    if judged and not any(isinstance(layer.module, SYNCHRONIZED) for layer in active.values()):
        smallest = min(batch.size or 1 for batch in trials.batches)
        carried = (_carriers(layer, 10**9) / len(trials.batches) for layer in active.values() if layer.moments)
        yield from _gap(outputs, with_batch, max(1.0, min(smallest, *carried)))
    yield from _dropout(trials, plain)


def _unreached(trials: Trials, handed: dict[str, Handed]) -> Iterator[Finding]:
    """Layers whose statistics move while no gradient of the outputs reaches their γ and β, though it reaches others."""
    if not handed[""].training:
        return
    try:
        reached = trials.gradients()
    except Exception:  # a model that takes no such part of a batch, or no backward pass without its loss
        return
    for name, reaches in reached.items():
        if not reaches and name not in trials.frozen and any(handed[name].learns):
            message = "no gradient of the outputs reaches γ and β (torch.no_grad() or detach() in forward(), perhaps),"
            yield _finding("BN302", name, 0, f"{message} and the statistics still move")


def _statistics(layer: nn.Module) -> list[Tensor]:
    return [t.clone() for t in (layer.running_mean, layer.running_var) if t is not None]


def _gap(evaluated: list[Tensor], with_batch: list[Tensor], examples: float) -> Iterator[Finding]:
    try:
        one, other = torch.cat(evaluated), torch.cat(with_batch)
    except RuntimeError:  # outputs of different shapes
        return
    gap = apart(other, one) if one.shape == other.shape else 0.0
    if gap > limit(examples):
        labels = ""
        if one.ndim == 2 and one.shape[1] > 1:
            changed = float((one.argmax(1) != other.argmax(1)).float().mean())
            labels = f"; for {changed:.0%} of the examples another output is the largest"
        message = f"outputs with the statistics of the batch are {gap:.2f} standard deviations away from those with"
        yield _finding("BN106", "", gap, f"{message} the running ones (allowed {limit(examples):.2f}){labels}")


def _dropout(trials: Trials, plain: dict[str, Watched]) -> Iterator[Finding]:
    """The variance that arrives with all that training switches on, over that without."""
    few, answers = trials.few(), []
    try:
        for everything in (False, True):
            with trials.normalizing(everything):
                answers.append(trials.run(few))
        if torch.equal(*answers):
            return  # training switches nothing on
        with trials.normalizing(everything=True):
            noisy, _ = trials.watch(trials.batches)
    except Exception:  # what a model does in training alone, as taking targets, is not asked for here
        return
    for name, layer in plain.items():
        quiet, loud = layer.moments, noisy[name].moments
        if not quiet or not loud or loud.mean.shape != quiet.mean.shape:
            continue
        live = quiet.variance > 1e-6 * quiet.variance.max()
        larger = float((loud.variance / quiet.variance)[live].log().mean()) if live.any() else 0.0
        if larger > DROPOUT:
            factor = math.exp(larger)
            yield _finding(
                "BN205", name, factor, f"in training the variance that arrives is {factor:.2f} times as large"
            )


def _pairs(trials: Trials) -> Iterator[Finding]:
    """Biases that do nothing, and pairs that can be folded, each moved or folded to see."""
    batch = trials.few()
    pairs = trials.pairs()
    active = {name for name in trials.layers if name not in trials.frozen}
    biased = [p for p in pairs if p[2] in active and getattr(p[1], "bias", None) is not None]
    if biased and (not batch.size or batch.size > 1):
        for name, _, layer in _without_effect(trials, batch, biased):
            yield _finding("BN202", name, 1, f"its bias has no effect: {layer} subtracts it again")
    candidates, reasons = [], {}
    for pair in pairs:
        reason = why_not(trials, *pair)
        if reason:
            reasons[pair[0], pair[2]] = reason
        else:
            candidates.append(pair)
    with trials.evaluating():
        whole = numbers(trials.outputs(batch))

        def change(group: list) -> float:
            with trials.evaluating(), folded(trials, group):  # again: forward() itself may call train()
                return max(map(apart, numbers(trials.outputs(batch)), whole))

        good = unchanged(candidates, lambda group: change(group) < SAME)
        for pair in candidates:
            if pair not in good:
                reasons[pair[0], pair[2]] = _why_changed(change([pair]), trials.arrived[pair[2]][2])
    plain = [pair for pair in good if not is_transposed(pair[1])]
    if plain:
        shown = ", ".join(f"{name} and {layer}" for name, _, layer in plain[:3]) + (
            " and so on" if len(plain) > 3 else ""
        )
        yield _finding("BN501", plain[0][2], len(plain), f"{len(plain)} pairs: {shown}")
    for name, _, layer in (pair for pair in good if pair not in plain):
        yield _finding("BN503", layer, 1, f"after {name}, a transposed convolution")
    for (name, layer), reason in reasons.items():
        yield _finding("BN502", layer, 1, f"after {name}: {reason}")


def _why_changed(change: float, dtype: torch.dtype) -> str:
    """Why a trial changed the outputs by so many standard deviations, though nothing spoke against it."""
    if dtype in (torch.float16, torch.bfloat16) and change < ROUNDING_IN_HALF:
        kind = str(dtype).removeprefix("torch.")
        return f"in {kind} rounding changes the outputs by {change:.2g} standard deviations; in float32 it may fold"
    return "its output is used elsewhere, too"


def _without_effect(trials: Trials, batch: Batch, biased: list) -> list:
    def same(group: list) -> bool:
        before = [(weights.bias, weights.bias.clone()) for _, weights, _ in group]
        try:
            for bias, _ in before:
                bias += 1 + bias.abs().max() * torch.linspace(-1, 1, len(bias), device=bias.device).to(bias.dtype)
            with trials.normalizing():
                return apart(trials.run(batch), whole) < SAME
        finally:
            for bias, value in before:
                bias.copy_(value)

    try:
        with trials.normalizing():
            whole = trials.run(batch)
        return unchanged(biased, same)
    except ValueError:  # one value per channel, of so few examples
        return []
