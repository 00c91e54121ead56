"""Cases that several processes run together, over gloo; what each saw comes back by rank.

Started by `run(size)`; a process that hangs is ended after LIMIT seconds, and the test fails.
"""

from __future__ import annotations

import copy
import datetime
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from bnbook.kernels import sync_batch_norm

LIMIT = 240  # seconds; loaded machines need 10 of them to start
CASES: dict[str, Any] = {}
SHARDS = {  # how the batch is cut, by the number of processes
    2: {"equal": (12, 12), "unequal": (19, 5), "empty": (24, 0), "single": (1, 23)},
    4: {"unequal": (5, 0, 17, 2), "first": (0, 0, 0, 24)},
}
SHAPES = ((24, 3), (24, 3, 4), (24, 3, 4, 2), (24, 3, 2, 3, 2))


def case(function: Any) -> Any:
    CASES[function.__name__] = function
    return function


def run(size: int) -> dict[str, list[Any]]:
    """The results of all cases, {name: [that of process 0, …]}."""
    with tempfile.TemporaryDirectory() as folder:
        mp.get_context("forkserver").set_forkserver_preload([__name__])  # PyTorch is imported once for all of them
        context = mp.start_processes(_work, (size, folder), size, join=False, start_method="forkserver")
        end = time.monotonic() + LIMIT
        try:
            while not context.join(timeout=1):
                assert time.monotonic() < end, f"{size} processes have not ended after {LIMIT} s"
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
        results = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(size)]
    return {name: [result[name] for result in results] for name in results[0]}


def _work(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=LIMIT / 2),
    )
    results = {name: function(rank, size) for name, function in CASES.items()}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


# --- what is given ---------------------------------------------------------------------------------------------------


def batch(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """(x, g), the whole batch and its upstream gradient."""
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    spread = torch.rand(shape[1], generator=generator, dtype=torch.float64) * 3 + 0.5
    along = (1, -1, *[1] * (len(shape) - 2))
    return x * spread.view(along) + torch.arange(shape[1]).view(along) * 3 + x**2, g


def prepared(layer: nn.Module, seed: int = 0) -> nn.Module:
    """The layer in float64, with parameters and statistics at random."""
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layer.double()


def kind(shape: tuple[int, ...]) -> type[nn.Module]:
    return {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]


def part(x: Tensor, sizes: tuple[int, ...], rank: int) -> Tensor:
    return x.split(list(sizes))[rank].clone()


def state(layer: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def passed(layer: nn.Module, x: Tensor, g: Tensor) -> dict[str, Any]:
    """Output, gradients and statistics of one pass with the upstream gradient g."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(g)
    grads = {name: p.grad.clone() for name, p in layer.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "state": state(layer), **grads}


def refused(layer: nn.Module, x: Any) -> dict[str, Any]:
    """The error of a forward pass, and whether it left the layer as it was."""
    before = state(layer)
    try:
        layer(x)
    except Exception as error:
        kept = all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
        return {"error": f"{type(error).__name__}: {error}", "kept": kept}
    return {"error": "", "kept": True}


class Messages:
    """Counts the collectives that are called within it, and the numbers that each process sends."""

    def __enter__(self) -> Messages:
        self.calls: list[tuple[str, int]] = []
        self.kept = dist.all_gather, dist.all_reduce

        def counted(name: str, original: Any, place: int) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.calls.append((name, args[place].numel()))
                return original(*args, **kwargs)

            return call

        dist.all_gather, dist.all_reduce = (
            counted(f.__name__, f, place) for f, place in zip(self.kept, (1, 0), strict=True)
        )
        return self

    def __exit__(self, *_: Any) -> None:
        dist.all_gather, dist.all_reduce = self.kept


# --- the cases -------------------------------------------------------------------------------------------------------


@case
def exact(rank: int, size: int) -> Any:
    found = {}
    for name, sizes in SHARDS[size].items():
        for shape in SHAPES:
            x, g = batch(shape)
            layer = sync_batch_norm.convert(prepared(kind(shape)(3)))
            found[f"{name}{len(shape)}"] = passed(layer, part(x, sizes, rank), part(g, sizes, rank))
    return found


@case
def options(rank: int, size: int) -> Any:
    """Three steps with each of the layer's options."""
    found = {}
    sizes = SHARDS[size]["unequal"]
    for name, options in OPTIONS.items():
        layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3, **options)))
        for step in range(3):
            x, g = batch(SHAPES[2], step)
            found[f"{name}{step}"] = passed(layer, part(x, sizes, rank), part(g, sizes, rank))
    return found


OPTIONS = {
    "cumulative": {"momentum": None},
    "momentum": {"momentum": 0.3, "eps": 1e-2},
    "no affine": {"affine": False},
    "no statistics": {"track_running_stats": False},
    "neither": {"affine": False, "track_running_stats": False},
}


@case
def far(rank: int, size: int) -> Any:
    """float32, far from zero, and shards whose means differ."""
    found = {}
    for k in (1e3, 1e5):
        x, g = far_batch(k)
        sizes = SHARDS[size]["unequal"]
        layer = sync_batch_norm.SyncBatchNorm(3)
        found[str(k)] = passed(layer, part(x, sizes, rank), part(g, sizes, rank))
    return found


def far_batch(k: float) -> tuple[Tensor, Tensor]:
    x, g = batch(SHAPES[2])
    x = x + torch.arange(len(x)).view(-1, 1, 1, 1) / 8 + k
    return x.float(), g.float()


@case
def half(rank: int, size: int) -> Any:
    """16 bits in and out, parameters in float32 or in 16 bits."""
    found = {}
    sizes = SHARDS[size]["unequal"]
    for dtype in (torch.float16, torch.bfloat16):
        for own in (torch.float32, dtype):
            x, g = (part(t.to(dtype), sizes, rank) for t in batch(SHAPES[2]))
            layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3)).to(own))
            found[f"{dtype} in {own}"] = passed(layer, x, g)
    return found


@case
def last(rank: int, size: int) -> Any:
    """Channels last in memory, in and out and backward."""
    x, g = (part(t, SHARDS[size]["unequal"], rank) for t in batch((24, 3, 4, 2)))
    found = passed(sync_batch_norm.convert(prepared(nn.BatchNorm2d(3))), x, g)
    x, g = (t.contiguous(memory_format=torch.channels_last) for t in (x, g))
    other = passed(sync_batch_norm.convert(prepared(nn.BatchNorm2d(3))), x, g)
    same = all(torch.allclose(found[k], other[k], rtol=0, atol=1e-12) for k in ("y", "x", "weight", "bias"))
    order = [other[k].is_contiguous(memory_format=torch.channels_last) for k in ("y", "x")]
    return {"same": same, "order": order}


@case
def twice(rank: int, size: int) -> Any:
    """The layer two times in one graph: the gradient of both."""
    x, g = (part(t, SHARDS[size]["unequal"], rank) for t in batch(SHAPES[2]))
    layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3)))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.relu(self.layer(x)))

    return passed(Twice(), x, g)


@case
def messages(rank: int, size: int) -> Any:
    """Which collectives a training pass, one without gradient for the input, and evaluation call."""
    x, g = (part(t, SHARDS[size]["unequal"], rank) for t in batch(SHAPES[2]))
    layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3)))
    found = {}
    with Messages() as sent:
        passed(layer, x, g)
        found["training"] = sent.calls[:]
        sent.calls.clear()
        layer(x).backward(g)
        found["input without gradient"] = sent.calls[:]
        sent.calls.clear()
        found["evaluated"] = passed(layer.eval(), x, g)
        if rank == 0:  # alone: nobody waits
            layer(x)
        found["evaluation"] = sent.calls[:]
    return found


@case
def faults(rank: int, size: int) -> Any:
    """One process gives what cannot be taken: all raise, none waits, nothing changes, and the next batch works."""
    x, g = (part(t, SHARDS[size]["unequal"], rank) for t in batch(SHAPES[2]))
    layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3)))
    bad = rank == size - 1
    given = {
        "no tensor": x.numpy() if bad else x,
        "dimensions": x[0, 0, 0] if bad else x,
        "channels": x[:, :2] if bad else x,
        "integers": x.long() if bad else x,
        "float32": x.float() if bad else x,
        "float16": x.half() if bad else x,
        "device": x.to("meta") if bad else x,
        "gradient": x.clone().requires_grad_(bad),
        "one value": x[:1, :, :1, :1] if rank == 0 else x[:0],
    }
    found = {name: refused(layer, value) for name, value in given.items()}
    both = sync_batch_norm.SyncBatchNorm(3, affine=False, track_running_stats=False)  # takes any dtype
    found["dtypes"] = refused(both, x.float() if bad else x)
    with torch.no_grad():
        found["no grad"] = refused(layer, x.clone().requires_grad_(bad))
    found["afterwards"] = passed(sync_batch_norm.convert(prepared(nn.BatchNorm2d(3))), x, g)
    return found


@case
def nothing(rank: int, size: int) -> Any:
    """All shards are empty."""
    layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3)))
    before = state(layer)
    found = passed(layer, *(t[:0] for t in batch(SHAPES[2])))
    return {**found, "kept": all(torch.equal(before[k], v) for k, v in found["state"].items())}


@case
def groups(rank: int, size: int) -> Any:
    """Neighbours synchronize in pairs; a group of one is the ordinary layer; another's group is refused."""
    pairs = [dist.new_group([first, first + 1]) for first in range(0, size, 2)]
    alone = [dist.new_group([r]) for r in range(size)]
    x, g = (t.chunk(size)[rank] for t in batch(SHAPES[2]))
    layer = sync_batch_norm.convert(prepared(nn.BatchNorm2d(3)), pairs[rank // 2])
    found = {"pairs": passed(layer, x, g)}
    found["copy keeps it"] = copy.deepcopy(layer).process_group is layer.process_group
    found["pickle drops it"] = pickle.loads(pickle.dumps(layer)).process_group is None
    one, plain = (prepared(nn.BatchNorm2d(3)) for _ in range(2))
    one, plain = passed(sync_batch_norm.convert(one, alone[rank]), x, g), passed(plain, x, g)
    found["alone"] = all(torch.equal(one[k], plain[k]) for k in ("y", "x", "weight", "bias"))
    try:
        sync_batch_norm.convert(nn.BatchNorm2d(3), alone[(rank + 1) % size])
        found["not a member"] = ""
    except Exception as error:
        found["not a member"] = f"{type(error).__name__}: {error}"
    return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1, self.norm2 = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm1d(6)
        self.second, self.last = nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.first(x))).flatten(1)
        return self.last(torch.relu(self.norm2(self.second(x))))


def task() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(24, 2, 4, 4, generator=generator, dtype=torch.float64), torch.randint(
        0, 3, (24,), generator=generator
    )


def trained(model: nn.Module, x: Tensor, target: Tensor, loss: Any, steps: int = 3) -> dict[str, Tensor]:
    """The state after some steps of SGD, and the gradients of the first."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = {}
    for step in range(steps):
        optimizer.zero_grad()
        loss(model(x), target).backward()
        if not step:
            found = {f"{name}.grad": p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
    return found | state(model)


@case
def parallel(rank: int, size: int) -> Any:
    """DistributedDataParallel: scaled losses, mean losses and, without `convert`, statistics of each shard."""
    found = {}
    x, target = task()
    for name, sizes in SHARDS[size].items():
        mine, labels = part(x, sizes, rank), part(target, sizes, rank)

        def scaled(y: Tensor, t: Tensor) -> Tensor:
            return nn.functional.cross_entropy(y, t, reduction="sum") * size / len(x)

        def model(convert: bool) -> nn.Module:
            net = prepared(Net())
            net = sync_batch_norm.convert(net) if convert else net
            return nn.parallel.DistributedDataParallel(net)

        found[f"{name}, scaled"] = trained(model(True), mine, labels, scaled)
        if min(sizes):
            found[f"{name}, mean"] = trained(model(True), mine, labels, nn.functional.cross_entropy)
        if min(sizes) > 1:
            found[f"{name}, plain"] = trained(model(False), mine, labels, scaled)
    return found
