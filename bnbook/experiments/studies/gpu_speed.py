"""Batch normalization with what stands around it, on a card: the fused kernels beside PyTorch's ways to the same.

The ways take turns, a few calls each, so that what slows the card for a while slows all. A time is that of the card,
between two events, over calls that are queued one behind the other; on maps too small to fill the card it is the
launching that is timed, as it is in a training. Beside each stands a copy of the same map, one reading and one writing,
in the same round: bytes a second of a way, divided by those of the copy, is the share of the bandwidth that it uses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...kernels import batch_norm_triton
from ...train import report

QUESTION = "How much of a card's bandwidth does the fused kernel use, and how much faster is it than cuDNN?"
CHAPTER, VERSION, SEEDS = 25, 1, 1
METRIC = "of_copy"
CHANCE = None  # a share of the bandwidth has no worst value

SHAPES = {  # what a batch of 64 images has behind the stages of a ResNet-50, and of the book's own network
    "stage 1": (64, 256, 56, 56),
    "stage 2": (64, 512, 28, 28),
    "stage 3": (64, 1024, 14, 14),
    "stage 4": (64, 2048, 7, 7),
    "book": (64, 32, 26, 26),
    "table": (256, 128),
}
DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
# Maps that are read or written, forward and backward, without a residual and with one.
MAPS = {False: (3, 5), True: (4, 7)}  # by the fused kernels
SEPARATE = {False: (5, 8), True: (8, 8)}  # by batch normalization, addition and ReLU, one after the other
FLOPS = (9, 17)  # operations of the fused kernels on each value; one multiplication with an addition is two
WAYS = ("fused", "eager", "compiled", "copy")
ROUNDS, CALLS = 20, 10
# Largest error over the largest value of the exact array, of outputs and of gradients that are rounded to the dtype.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}


def grid(quick: bool = False) -> list[dict]:
    """Shapes, number formats and memory orders on a CUDA card, with a residual and without; quick: two of the shapes.

    float64 is there for its correctness, on the small shapes alone.
    """
    settings = []
    for shape, size in SHAPES.items():
        if quick and shape not in ("stage 2", "table"):
            continue
        for dtype in DTYPES:
            if dtype == "float64" and size[0] * math.prod(size[1:]) > 2**21:
                continue
            for layout in LAYOUTS if len(size) == 4 else ("contiguous",):
                for residual in (False, True):
                    settings.append(
                        {"device": "cuda", "shape": shape, "dtype": dtype, "layout": layout, "residual": residual}
                    )
    return settings


def run(setting: dict, seed: int) -> dict:
    """Errors against float64, seconds of every way and round, share of the copy's bandwidth, peak memory."""
    device = setting["device"]
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device here; the study measures a card")
    given = tensors(setting, seed)
    if reason := batch_norm_triton.unavailable(given["x"]):
        raise RuntimeError(f"the fused kernels cannot run here: {reason}")
    found = {"error": errors(given), "tolerance": TOLERANCES[setting["dtype"]]}
    found["correct"] = max(found["error"].values()) <= found["tolerance"]
    ways = calls(given)
    seconds = {}
    for part in ("forward", "both"):
        seconds[part] = measure({way: pair[part == "both"] for way, pair in ways.items()}, ROUNDS, device)
    found |= {"step_seconds": seconds, **summary(seconds, setting["residual"])}
    found["peak_bytes"] = {way: peak(pair[1], device) for way, pair in ways.items() if way != "copy"}
    found["map_bytes"] = given["x"].numel() * given["x"].element_size()
    return found | {"device": report.device(device)}


class Roof(NamedTuple):
    """What a card needs at least, from two numbers of its data sheet."""

    bytes: float
    memory_seconds: float
    flop_seconds: float
    seconds: float
    intensity: float  # flops a byte
    flops: float  # a second, at most


def roofline(bandwidth: float, peak: float, values: int, size: int, maps: int, flops: float) -> Roof:
    """The roofline of a kernel that reads or writes so many maps: max(bytes/bandwidth, flops/peak).

    Args:
        bandwidth, peak: bytes and flops a second.
        values, size: of a map, and bytes of a value.
        maps, flops: read or written; operations on each value.
    """
    moved, work = values * size * maps, values * flops
    memory, arithmetic = moved / bandwidth, work / peak
    seconds = max(memory, arithmetic)
    return Roof(moved, memory, arithmetic, seconds, work / moved, work / seconds)


def tensors(setting: dict, seed: int) -> dict[str, Tensor | None]:
    """What goes in: random values, parameters and upstream gradient."""
    shape, dtype, device = SHAPES[setting["shape"]], DTYPES[setting["dtype"]], setting["device"]
    rng = torch.Generator().manual_seed(seed)

    def draw(*size: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(size, generator=rng).to(device, dtype)

    wide = dtype if dtype.itemsize > 2 else torch.float32
    given = {
        "x": 2 * draw(*shape) + 1,
        "grad_y": draw(*shape),
        "residual": draw(*shape) if setting["residual"] else None,
    }
    if len(shape) == 4:
        layout = LAYOUTS[setting["layout"]]
        given = {name: t if t is None else t.contiguous(memory_format=layout) for name, t in given.items()}
    channels = shape[1]
    given |= {name: draw(channels, dtype=wide) for name in ("weight", "bias")}
    return given | {"running_mean": torch.zeros(channels).to(given["weight"]), "running_var": torch.ones(channels).to(
        given["weight"])}  # fmt: skip


def training_pass(function: Callable, given: dict[str, Tensor | None], backward: bool = True) -> dict[str, Tensor]:
    """One call of a function with the signature of the kernels', and its gradients."""
    names = [name for name in ("x", "weight", "bias", "residual") if given[name] is not None]
    leaves = {name: given[name].detach().requires_grad_(backward) for name in names}
    statistics = given["running_mean"], given["running_var"]
    y = function(
        *(leaves["x"], *statistics, leaves["weight"], leaves["bias"], True, 0.1, 1e-5),
        relu=True,
        residual=leaves.get("residual"),
    )
    if not backward:
        return {"y": y}
    grads = torch.autograd.grad(y, list(leaves.values()), given["grad_y"])
    return {"y": y.detach()} | {f"grad_{name}": grad for name, grad in zip(leaves, grads, strict=True)}


def errors(given: dict[str, Tensor | None]) -> dict[str, float]:
    """Largest error of every array over its largest value, against float64 on the CPU.

    Where the value before the ReLU is as small as a rounding, its sign is nobody's fault: the upstream gradient is
    zero there.
    """
    exact = {name: None if t is None else t.double().cpu() for name, t in given.items()}
    before = torch.nn.functional.batch_norm(exact["x"], None, None, exact["weight"], exact["bias"], training=True)
    before = before if exact["residual"] is None else before + exact["residual"]
    clear = before.abs() > 8 * torch.finfo(given["x"].dtype).eps
    exact["grad_y"] = exact["grad_y"] * clear
    mine = {name: None if t is None else t.clone() for name, t in given.items()}
    mine["grad_y"] = mine["grad_y"] * clear.to(mine["grad_y"])
    found = training_pass(batch_norm_triton.batch_norm, mine)
    wanted = training_pass(batch_norm_triton.reference, exact)
    for name in ("running_mean", "running_var"):
        found[name], wanted[name] = mine[name], exact[name]
    return {
        name: float((found[name].double().cpu() - wanted[name]).abs().max() / wanted[name].abs().max())
        for name in wanted
    }


def calls(given: dict[str, Tensor | None]) -> dict[str, tuple[Callable, Callable]]:
    """Every way, forward alone and with backward. cuDNN is PyTorch's own choice in "eager", where it takes it."""
    torch.compiler.reset()  # after some shapes of one function the compiler would give up, and run it as it is
    compiled = torch.compile(batch_norm_triton.reference, dynamic=False)
    functions = {"fused": batch_norm_triton.batch_norm, "eager": batch_norm_triton.reference, "compiled": compiled}
    ways = {
        way: tuple(lambda f=f, b=b: training_pass(f, given, b) for b in (False, True)) for way, f in functions.items()
    }
    target = torch.empty_like(given["x"])
    return ways | {"copy": (lambda: target.copy_(given["x"]),) * 2}


def measure(ways: dict[str, Callable], rounds: int, device: str, count: int = CALLS) -> dict[str, list[float]]:
    """Seconds of a call, by way, one value a round; the ways take turns in going first."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-2, rounds):  # the first two are warm-ups: kernels are compiled
        for way in list(ways)[:: 1 if number % 2 else -1]:
            value = _seconds(ways[way], count, device)
            if number >= 0:
                seconds[way].append(value)
    return seconds


def _seconds(call: Callable, count: int, device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / count


def summary(seconds: dict[str, dict[str, list[float]]], residual: bool) -> dict[str, float]:
    """The medians of the quotients of each round.

    Returns:
        of_copy, of_copy_forward: bytes a second of the fused kernels over those of a copy (2 maps).
        eager, compiled, and both with _forward: how many times the seconds of the fused kernels.
    """
    forward, backward = MAPS[residual]
    found = {}
    for part, maps, suffix in (("both", forward + backward, ""), ("forward", forward, "_forward")):
        times = {way: np.array(values) for way, values in seconds[part].items()}
        found[f"of_copy{suffix}"] = float(np.median(maps / 2 * times["copy"] / times["fused"]))
        for way in ("eager", "compiled"):
            found[way + suffix] = float(np.median(times[way] / times["fused"]))
    return found


def peak(call: Callable, device: str) -> int | None:
    """The most bytes that a call holds beyond what was there before; None where nobody counts them."""
    if device == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before
