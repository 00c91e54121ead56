"""Synchronized batch normalization: two and four real processes are one with the whole batch."""

from __future__ import annotations

import copy
import pickle
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from torch import nn

from bnbook.kernels import sync_batch_norm
from bnbook.kernels.sync_batch_norm import SyncBatchNorm, convert, merge, moments, revert
from tests.kernels import together
from tests.kernels.together import OPTIONS, SHAPES, SHARDS, Net, batch, kind, passed, prepared, state

pytestmark = pytest.mark.long(seconds=30)

CUTS = [(size, name) for size in SHARDS for name in SHARDS[size]]


class Seen(dict):
    """The results by the number of processes, which are started when they are asked for."""

    def __missing__(self, size: int) -> dict[str, list]:
        self[size] = together.run(size)
        return self[size]


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


def near(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-12) -> None:
    assert a.shape == b.shape and a.dtype == b.dtype
    assert b.numel() == 0 or (a - b).abs().max() <= tol * max(b.abs().max().item(), 1e-3), (a, b)


def near_states(a: dict, b: dict, tol: float = 1e-12) -> None:
    assert a.keys() == b.keys()
    for name, value in b.items():
        near(a[name], value, tol)


def one_of_all(parts: list[dict], whole: dict, sizes: tuple[int, ...], tol: float = 1e-12) -> None:
    """The processes' parts are those of the whole batch; γ and β have the gradients of the shards."""
    for name in ("y", "x"):
        assert [len(p[name]) for p in parts] == list(sizes)
        near(torch.cat([p[name] for p in parts]), whole[name], tol)
    for name in whole.keys() - {"y", "x", "state"}:
        near(sum(p[name] for p in parts), whole[name], tol)
    for p in parts:
        near_states(p["state"], whole["state"], tol)
        assert all(torch.equal(p["state"][k], v) for k, v in parts[0]["state"].items())  # to the last bit


# --- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1, 1, 1), (5, 0, 17, 2), (0, 0, 9), (1, 40)])
def test_merged_moments_are_those_of_all_values(sizes):
    x = torch.randn(sum(sizes), 3, 2, dtype=torch.float64) * 2 + 5
    parts = [moments(t) for t in x.split(list(sizes))]
    m, mean, M2 = merge(torch.tensor([p[0] for p in parts]), *(torch.stack([p[i] for p in parts]) for i in (1, 2)))
    assert int(m) == 2 * sum(sizes)
    near(mean, x.mean((0, 2)))
    near(M2, x.var((0, 2), correction=0) * m)


def test_the_one_batch():
    parts = [moments(torch.tensor(values, dtype=torch.float64)[:, None]) for values in ([2.0, 4, 5], [6.0, 8])]
    m, mean, M2 = merge(torch.tensor([3, 2]), *(torch.stack([p[i] for p in parts]) for i in (1, 2)))
    assert (int(m), mean.item(), M2.item()) == pytest.approx((5, 5, 20), abs=1e-14)


def test_merge_far_from_zero():
    """The differences of the means decide, whatever the means are."""
    x = torch.randn(64, 2, dtype=torch.float64) + torch.arange(64)[:, None] / 16
    far = (x + 2.0**40) - 2.0**40  # what float64 holds of it there
    parts = [moments(t + 2.0**40) for t in far.chunk(8)]
    _, mean, M2 = merge(torch.full((8,), 8), *(torch.stack([p[i] for p in parts]) for i in (1, 2)))
    near(M2 / 64, far.var(0, correction=0), 1e-3)
    near(mean - 2.0**40, far.mean(0), 1e-3)
    squares = ((far + 2.0**40) ** 2).mean(0) - (far + 2.0**40).mean(0) ** 2
    assert ((squares - far.var(0, correction=0)).abs() > 10).any()  # the other way is lost there


def test_merge_takes_no_notice_of_parts_without_values():
    nan = torch.full((1, 2), torch.nan)
    m, mean, M2 = merge(torch.tensor([0, 3]), torch.cat([nan, 0 * nan + 1]).nan_to_num(nan=7.0), torch.ones(2, 2))
    assert int(m) == 3 and torch.equal(mean, torch.tensor([7.0, 7.0])) and torch.equal(M2, torch.ones(2))
    m, mean, M2 = merge(torch.tensor([0, 3]), torch.cat([nan, torch.ones(1, 2)]), torch.cat([nan, torch.ones(1, 2)]))
    assert int(m) == 3 and torch.equal(mean, torch.ones(2)) and torch.equal(M2, torch.ones(2))
    m, mean, M2 = merge(torch.zeros(2), nan.expand(2, 2), nan.expand(2, 2))
    assert int(m) == 0 and not mean.any() and not M2.any()


@pytest.mark.parametrize(
    ("m", "mean", "M2"),
    [((2,), (2, 3), (3, 2)), ((3,), (2, 3), (2, 3)), ((2, 1), (2, 3), (2, 3)), ((0,), (0, 3), (0, 3))],
)
def test_merge_refuses_shapes(m, mean, M2):
    with pytest.raises(ValueError, match="shapes"):
        merge(torch.ones(m), torch.ones(mean), torch.ones(M2))
    with pytest.raises(ValueError, match="negative"):
        merge(torch.tensor([2, -1]), torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_moments_far_from_zero(dtype):
    x = (torch.randn(500, 4) + torch.tensor([0.0, 3, 30, 100])).to(dtype)
    m, mean, M2 = moments(x)
    near(mean, x.double().mean(0), 1e-7)
    near(M2 / m, x.double().var(0, correction=0), 1e-6)


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "name"), CUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_processes_are_one_large_batch(seen, size, name, shape):
    whole = passed(prepared(kind(shape)(3)), *batch(shape))
    one_of_all([part[f"{name}{len(shape)}"] for part in seen[size]["exact"]], whole, SHARDS[size][name])


@pytest.mark.parametrize("size", SHARDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_the_layer_options(seen, size, name):
    layer = prepared(nn.BatchNorm2d(3, **OPTIONS[name]))
    for step in range(3):
        whole = passed(layer, *batch(SHAPES[2], step))
        one_of_all([part[f"{name}{step}"] for part in seen[size]["options"]], whole, SHARDS[size]["unequal"])


@pytest.mark.parametrize("size", SHARDS)
@pytest.mark.parametrize("k", [1e3, 1e5])
def test_float32_far_from_zero(seen, size, k):
    x, g = together.far_batch(k)
    layer = nn.BatchNorm2d(3).double()
    whole = passed(layer, x.double(), g.double())
    parts = [part[str(k)] for part in seen[size]["far"]]
    sizes = SHARDS[size]["unequal"]
    near(torch.cat([p["y"] for p in parts]).double(), whole["y"], 1e-6)
    near(torch.cat([p["x"] for p in parts]).double(), whole["x"], 1e-5)
    near(sum(p["weight"] for p in parts).double(), whole["weight"], 1e-5)
    near(parts[0]["state"]["running_var"].double(), whole["state"]["running_var"], 1e-6)
    assert [len(p["y"]) for p in parts] == list(sizes) and parts[0]["y"].dtype == torch.float32


@pytest.mark.parametrize("size", SHARDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("own", [True, False])
def test_sixteen_bits_have_statistics_in_float32(seen, size, dtype, own):
    own = dtype if own else torch.float32
    x, g = (t.to(dtype) for t in batch(SHAPES[2]))
    layer = prepared(nn.BatchNorm2d(3)).to(own).double()
    whole = passed(layer, x.double(), g.double())
    parts = [part[f"{dtype} in {own}"] for part in seen[size]["half"]]
    u = torch.finfo(dtype).eps
    for name in ("y", "x"):
        assert all(p[name].dtype == dtype for p in parts)
        near(torch.cat([p[name] for p in parts]).double(), whole[name], u)
    for name in ("weight", "bias"):
        assert all(p[name].dtype == own for p in parts)
        near(sum(p[name].double() for p in parts), whole[name], 1e-5 if own == torch.float32 else 2 * u)
    for name in ("running_mean", "running_var"):
        found = parts[0]["state"][name]
        assert found.dtype == own
        near(found.double(), whole["state"][name], 1e-6 if own == torch.float32 else u)


@pytest.mark.parametrize("size", SHARDS)
def test_channels_last_stay_last(seen, size):
    assert all(part == {"same": True, "order": [True, True]} for part in seen[size]["last"])


@pytest.mark.parametrize("size", SHARDS)
def test_twice_in_one_graph(seen, size):
    layer = prepared(nn.BatchNorm2d(3))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    one_of_all(seen[size]["twice"], passed(Twice(), *batch(SHAPES[2])), SHARDS[size]["unequal"])


@pytest.mark.parametrize("size", SHARDS)
def test_messages(seen, size):
    """One of 2C + 5 numbers forward, one of 2C backward; none in evaluation, which is that of the layer alone."""
    C, sizes = 3, SHARDS[size]["unequal"]
    gather, reduce = ("all_gather", 2 * C + 5), ("all_reduce", 2 * C)
    for rank, found in enumerate(seen[size]["messages"]):
        assert [*map(tuple, found["training"])] == [gather, reduce]
        assert [*map(tuple, found["input without gradient"])] == [gather]
        assert found["evaluation"] == []
        layer = prepared(nn.BatchNorm2d(3)).eval()
        layer.load_state_dict(found["evaluated"]["state"])
        alone = passed(layer, *(together.part(t, sizes, rank) for t in batch(SHAPES[2])))
        near_states(found["evaluated"].pop("state"), alone.pop("state"))
        near_states(found["evaluated"], alone)


FAULTS = {
    "no tensor": ("TypeError: the input must be a tensor, got ndarray", "its input is no tensor"),
    "dimensions": ("ValueError: the input must have 2 to 5 dimensions", "its input has not 2 to 5 dimensions"),
    "channels": ("ValueError: the input must have 3 channels", "another number of channels than the layer"),
    "integers": ("TypeError: the input must be float64", "a dtype that the layer does not take"),
    "float32": ("TypeError: the input must be float64", "a dtype that the layer does not take"),
    "float16": ("TypeError: the input must be float64", "a dtype that the layer does not take"),
    "device": ("ValueError: the input must be where the layer is, on cpu", "on another device than the layer"),
    "gradient": ("ValueError: the inputs of all processes must have the same requires_grad, got False in process",) * 2,
    "dtypes": ("ValueError: the inputs of all processes must have the same dtype, got torch.float64 in process",) * 2,
    "one value": ("ValueError: training needs more than one value per channel",) * 2,
    "no grad": ("", ""),
}


@pytest.mark.parametrize("size", SHARDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_all_raise_where_one_must(seen, size, fault):
    own, others = FAULTS[fault]
    *healthy, bad = (part[fault] for part in seen[size]["faults"])
    assert bad["error"].startswith(own) and bool(bad["error"]) == bool(own)
    if own != others:
        assert {part["error"].partition(":")[0] for part in healthy} == {"ValueError"}
        assert all(f"process {size - 1} cannot take part" in p["error"] and others in p["error"] for p in healthy)
    else:
        assert all(part["error"] == bad["error"] for part in healthy)
    assert all(part["kept"] for part in (*healthy, bad)) or fault == "no grad"


@pytest.mark.parametrize("size", SHARDS)
def test_the_next_batch_works(seen, size):
    whole = passed(prepared(nn.BatchNorm2d(3)), *batch(SHAPES[2]))
    one_of_all([part["afterwards"] for part in seen[size]["faults"]], whole, SHARDS[size]["unequal"])


@pytest.mark.parametrize("size", SHARDS)
def test_no_values_at_all(seen, size):
    for part in seen[size]["nothing"]:
        assert part["kept"] and part["y"].shape == part["x"].shape == (0, *SHAPES[2][1:])
        assert not part["weight"].any() and not part["bias"].any()


@pytest.mark.parametrize("size", SHARDS)
def test_groups(seen, size):
    x, g = batch(SHAPES[2])
    found = seen[size]["groups"]
    for first in range(0, size, 2):
        whole = passed(prepared(nn.BatchNorm2d(3)), *(torch.cat(t.chunk(size)[first : first + 2]) for t in (x, g)))
        one_of_all([part["pairs"] for part in found[first : first + 2]], whole, (24 // size,) * 2)
    for part in found:
        assert part["copy keeps it"] and part["pickle drops it"] and part["alone"]
        assert part["not a member"].startswith("ValueError: process_group must be a group of this process")


@pytest.mark.parametrize(("size", "name"), CUTS)
def test_a_network_under_ddp(seen, size, name):
    """With the loss scaled by K/N, three updates are those of the whole batch; with means and unequal shards, not."""
    whole = together.trained(prepared(Net()), *together.task(), nn.functional.cross_entropy)
    largest = max(value.abs().max() for key, value in whole.items() if key.endswith("grad"))

    def off(part: dict) -> float:
        """Of the first step, before anything has followed from it."""
        found = {key.removeprefix("module."): value for key, value in part.items() if key.endswith("grad")}
        return float(max((value - whole[key]).abs().max() for key, value in found.items()) / largest)

    for part in seen[size]["parallel"]:
        for key, value in part[f"{name}, scaled"].items():
            near(value, whole[key.removeprefix("module.")], 1e-11)
        assert off(part[f"{name}, scaled"]) < 1e-13
        if f"{name}, mean" in part:
            assert (off(part[f"{name}, mean"]) < 1e-13) == (name == "equal") and (name == "equal") ^ (
                off(part[f"{name}, mean"]) > 0.05
            )
        if f"{name}, plain" in part:
            assert off(part[f"{name}, plain"]) > 0.01


# --- the same in threads ---------------------------------------------------------------------------------------------


class Threads:
    """In the place of `torch.distributed`: threads of this process, so that planted mistakes live in all of them."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.sent = size, threading.Barrier(size, timeout=60), [torch.empty(0)] * size
        self.rank = threading.local()
        self.group = types.SimpleNamespace(WORLD="all")

    def run(self, function) -> list:
        def work(rank: int):
            self.rank.value = rank
            return function(rank, self.size)

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, range(self.size)))

    def exchanged(self, message: torch.Tensor) -> list[torch.Tensor]:
        self.sent[self.rank.value] = message.clone()
        self.barrier.wait()
        all_of_them = list(self.sent)
        self.barrier.wait()
        return all_of_them

    def all_gather(self, parts, message, group):
        for part, sent in zip(parts, self.exchanged(message), strict=True):
            part.copy_(sent)

    def all_reduce(self, message, group):
        message.copy_(sum(self.exchanged(message)))

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def get_world_size(self, group) -> int:
        return self.size

    def get_process_group_ranks(self, group) -> list[int]:
        return list(range(self.size))


@pytest.fixture
def threads(monkeypatch) -> Threads:
    threads = Threads(4)
    monkeypatch.setattr(sync_batch_norm, "dist", threads)
    return threads


@pytest.mark.parametrize("sizes", SHARDS[4].values(), ids=SHARDS[4])
def test_threads_are_one_large_batch(threads, sizes):
    def work(rank: int, size: int) -> dict:
        layer = convert(prepared(nn.BatchNorm2d(3)))
        return passed(layer, *(together.part(t, sizes, rank) for t in batch(SHAPES[2])))

    one_of_all(threads.run(work), passed(prepared(nn.BatchNorm2d(3)), *batch(SHAPES[2])), sizes)


def test_all_threads_raise_where_one_must(threads):
    def work(rank: int, size: int) -> dict:
        layer = convert(prepared(nn.BatchNorm2d(3)))
        return together.refused(layer, torch.ones(5, 2 if rank == 1 else 3).double())

    found = threads.run(work)
    assert all(part["kept"] and part["error"] for part in found)
    assert found[1]["error"].startswith("ValueError: the input must have 3 channels")
    assert "process 1 cannot take part" in found[3]["error"]


# --- one process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, *OPTIONS.values()], ids=["default", *OPTIONS])
@pytest.mark.parametrize("training", [True, False])
def test_without_a_group_it_is_the_ordinary_layer(options, training):
    plain, layer = (prepared(kind(SHAPES[2])(3, **options)).train(training) for _ in range(2))
    layer = convert(layer)
    for step in range(2):
        a, b = (passed(one, *batch(SHAPES[2], step)) for one in (layer, plain))
        near_states(a.pop("state"), b.pop("state"), 0)
        near_states(a, b, 0)


def test_one_value_and_none():
    layer = convert(prepared(nn.BatchNorm1d(3)))
    before = state(layer)
    with pytest.raises(ValueError, match=r"more than one value per channel, got an input of \(1, 3\)"):
        layer(torch.ones(1, 3).double())
    found = passed(layer, torch.ones(0, 3).double(), torch.ones(0, 3).double())
    assert found["y"].shape == (0, 3) and not found["weight"].any()
    near_states(found["state"], before, 0)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        ([1.0], TypeError),
        (torch.ones(3), ValueError),
        (torch.ones(2, 4), ValueError),
        (torch.ones(2, 3).double(), TypeError),
        (torch.ones(2, 3).half(), None),
        (torch.ones(2, 3, 1, 1, 1, 1), ValueError),
        (torch.ones(2, 3, device="meta"), ValueError),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_bad_input(x, error, training):
    layer = SyncBatchNorm(3).train(training)
    before = state(layer)
    if error is None:
        assert layer(x).dtype == x.dtype
        return
    with pytest.raises(error, match="the input must"):
        layer(x)
    near_states(state(layer), before, 0)


def test_torchrun_without_a_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    layer = SyncBatchNorm(3)
    with pytest.raises(RuntimeError, match="torchrun started 4 processes, but there is no process group"):
        layer(torch.randn(5, 3))
    assert int(layer.num_batches_tracked) == 0
    layer.eval()(torch.randn(5, 3))


def test_bad_groups():
    for group in ("gloo", 3, object()):
        with pytest.raises(TypeError, match=r"process_group must be a torch\.distributed\.ProcessGroup or None"):
            SyncBatchNorm(3, process_group=group)
        model = nn.Sequential(nn.BatchNorm1d(3))
        with pytest.raises(TypeError, match="process_group"):
            convert(model, group)
        assert type(model[0]) is nn.BatchNorm1d


def test_a_group_that_was_destroyed(tmp_path):
    """Alone, and after all others too: it would train by the statistics of one shard."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        group = dist.new_group([0])
        layer, x = SyncBatchNorm(3, process_group=group), torch.randn(5, 3)
        layer(x)
        before = state(layer)
        dist.destroy_process_group(group)
        with pytest.raises(RuntimeError, match="process_group has been destroyed"):
            layer(x)
    finally:
        dist.destroy_process_group()
    with pytest.raises(RuntimeError, match="process_group has been destroyed"):
        layer(x)
    near_states(state(layer), before, 0)
    layer.eval()(x)


def normalize(x, total=24, **options):
    """The function behind the layer, without messages."""
    _, mean, M2 = moments(x.detach())
    inv = (M2 / total + 1e-5).rsqrt()
    return sync_batch_norm._Normalize.apply(x, options.get("weight"), options.get("bias"), mean, inv, total, None)


def test_backward_is_that_of_numeric_gradients():
    """Against autograd through the formula, on an upstream gradient at random."""
    x, g = batch((24, 3))
    weight, bias = torch.rand(3).double().requires_grad_(), torch.rand(3).double().requires_grad_()
    x.requires_grad_()
    mean, var = x.mean(0), x.var(0, correction=0)
    y = (x - mean) / (var + 1e-5).sqrt() * weight + bias
    expected = torch.autograd.grad(y, (x, weight, bias), g)
    found = torch.autograd.grad(normalize(x, weight=weight, bias=bias), (x, weight, bias), g)
    for a, b in zip(found, expected, strict=True):
        near(a, b, 1e-11)


def test_a_second_derivative_is_refused():
    x = batch((24, 3))[0].requires_grad_()
    (grad,) = torch.autograd.grad(normalize(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_copies():
    layer = convert(prepared(nn.BatchNorm2d(3)))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is SyncBatchNorm and other.converted_from is nn.BatchNorm2d
        assert other.weight is not layer.weight
        near_states(state(other), state(layer), 0)
        near(passed(other, *batch(SHAPES[2]))["y"], passed(copy.deepcopy(layer), *batch(SHAPES[2]))["y"], 0)


@pytest.mark.parametrize("options", [{}, *OPTIONS.values()], ids=["default", *OPTIONS])
def test_state_dict_is_that_of_the_ordinary_layer(options):
    plain, layer = prepared(nn.BatchNorm2d(3, **options)), SyncBatchNorm(3, **options).double()
    layer.load_state_dict(plain.state_dict())
    near_states(state(layer), state(plain), 0)
    nn.BatchNorm3d(3, **options).double().load_state_dict(layer.state_dict())


# --- whole models ----------------------------------------------------------------------------------------------------


def test_convert_and_revert():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(3, momentum=None)), Net())
    model[1].eval()
    model[1].note = "mine"
    shared = model.append(model[1])[1]
    tensors = {name: t for name, t in (*model.named_parameters(), *model.named_buffers())}
    called = []
    model[1].register_forward_hook(lambda *_: called.append(1))
    before = [(name, type(m), m.training) for name, m in model.named_modules(remove_duplicate=False)]

    assert convert(model) is model
    norms = [m for m in model.modules() if isinstance(m, SyncBatchNorm)]
    assert len(norms) == 4 and not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules())
    assert model[1] is model[4] and not model[1].training and model[1].note == "mine"
    assert model[2][0].momentum is None and model[2][0].training
    model[1](torch.ones(2, 4, 3, 3))
    assert called == [1] and type(shared) is nn.BatchNorm2d
    assert convert(model) is model and [m for m in model.modules() if isinstance(m, SyncBatchNorm)] == norms

    assert revert(model) is model
    assert [(name, type(m), m.training) for name, m in model.named_modules(remove_duplicate=False)] == before
    assert not hasattr(model[1], "process_group") and not hasattr(model[1], "converted_from")
    after = {name: t for name, t in (*model.named_parameters(), *model.named_buffers())}
    assert after.keys() == tensors.keys() and all(after[name] is t for name, t in tensors.items())
    assert "BatchNorm2d(4, eps=1e-05" in repr(model)


def test_convert_one_layer():
    layer = nn.BatchNorm3d(2, affine=False, track_running_stats=False).eval()
    new = convert(layer)
    assert type(new) is SyncBatchNorm and type(layer) is nn.BatchNorm3d and not new.training
    assert type(revert(new)) is nn.BatchNorm3d
    theirs = nn.SyncBatchNorm(2)
    assert type(convert(theirs)) is SyncBatchNorm and type(revert(convert(theirs))) is nn.SyncBatchNorm
    linear = nn.Linear(2, 2)
    assert convert(linear) is linear and revert(linear) is linear


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return torch.relu(super().forward(x))


@pytest.mark.parametrize("layer", [Activated(3), nn.LazyBatchNorm2d()], ids=["forward of its own", "lazy"])
def test_convert_refuses_before_it_changes(layer):
    model = nn.Sequential(nn.BatchNorm2d(3), layer)
    with pytest.raises(ValueError, match=f"{type(layer).__name__} '1'"):
        convert(model)
    assert type(model[0]) is nn.BatchNorm2d


def test_revert_refuses_before_it_changes():
    model = nn.Sequential(convert(nn.BatchNorm2d(3)), SyncBatchNorm(3))
    with pytest.raises(ValueError, match="SyncBatchNorm '1' was not made by convert"):
        revert(model)
    assert type(model[0]) is SyncBatchNorm
    for function in (convert, revert):
        with pytest.raises(TypeError, match=r"module must be a torch.nn.Module, got dict"):
            function({})


def test_the_check_up_knows_the_layer():
    """It finds in a converted model what it finds in the model; and no SyncBatchNorm that cannot train on a CPU."""
    from bnbook.checkup import checkup

    def found(model: nn.Module) -> list[str]:
        torch.manual_seed(0)
        batches = [torch.randn(32, 2, 4, 4).double() for _ in range(3)]
        with torch.no_grad():
            for x in batches * 20:
                model(x)
        return [finding.code for finding in checkup(model, batches).findings]

    plain = found(prepared(Net()))
    assert found(convert(prepared(Net()))) == plain and "BN501" in plain and "BN403" not in plain
    assert "BN403" in found(nn.SyncBatchNorm.convert_sync_batchnorm(prepared(Net())))
