"""What Triton's interpreter makes of the kernels, beside PyTorch: `test_batch_norm_triton` runs this in a process.

TRITON_INTERPRET=1 must be set before Triton is imported, so none of it can run beside the other tests.
"""

from __future__ import annotations

import copy
import itertools
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from bnbook.kernels import batch_norm_triton as triton_bn
from bnbook.kernels.batch_norm_triton import BatchNormReLU, batch_norm, reference

TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
PLAIN = {"relu": False, "residual": False}
FUSED = {"relu": True, "residual": False}
ADDED = {"relu": True, "residual": True}


def drawn(shape: tuple[int, ...], dtype: torch.dtype, *, wide: bool = True, seed: int = 0, far: float = 1.0) -> dict:
    """Random everything; parameters in float32 for 16-bit inputs where `wide`."""
    rng = np.random.default_rng(seed)
    of = torch.float32 if wide and dtype.itemsize == 2 else dtype

    def draw(*size: int, as_: torch.dtype = dtype) -> Tensor:
        return torch.tensor(rng.normal(size=size)).to(as_)

    C = shape[1]
    return {
        "input": (2 * draw(*shape, as_=torch.float64) + far).to(dtype),
        "residual": draw(*shape),
        "grad_y": draw(*shape),
        "weight": draw(C, as_=of),
        "bias": draw(C, as_=of),
        "running_mean": draw(C, as_=of),
        "running_var": draw(C, as_=of).abs() + 0.5,
    }


def passed(function, given: dict, *, relu: bool, residual: bool, training: bool = True, momentum=0.3, eps=1e-3) -> dict:
    """Outputs, gradients and statistics of one call."""
    given = {name: None if t is None else t.detach().clone() for name, t in given.items()}
    if not residual:
        given["residual"] = None
    leaves = {n: given[n].requires_grad_() for n in ("input", "weight", "bias", "residual") if given[n] is not None}
    y = function(
        *(given[n] for n in ("input", "running_mean", "running_var", "weight", "bias")),
        training, momentum, eps, relu=relu, residual=given["residual"],
    )  # fmt: skip
    y.backward(given["grad_y"])
    found = {"y": y.detach()} | {f"grad_{name}": leaf.grad for name, leaf in leaves.items()}
    return found | {n: given[n] for n in ("running_mean", "running_var") if given[n] is not None}


def exact(given: dict) -> dict:
    return {name: None if t is None else t.double() for name, t in given.items()}


def compare(given: dict, *, relu: bool, residual: bool, **options) -> dict:
    """With float64 by PyTorch; no upstream gradient where rounding decides the sign before the ReLU."""
    wide = exact(given)
    if relu:
        before = passed(reference, wide, relu=False, residual=residual, **options)["y"]
        clear = before.abs() > 16 * torch.finfo(given["input"].dtype).eps
        assert clear.double().mean() > 0.5
        given = given | {"grad_y": given["grad_y"] * clear}
        wide = exact(given)
    found = passed(batch_norm, given, relu=relu, residual=residual, **options)
    wanted = passed(reference, wide, relu=relu, residual=residual, **options)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.dtype == (given["weight"] if "weight" in name or "bias" in name else value).dtype
        scale = wanted[name].abs().max()
        error = (value.double() - wanted[name]).abs().max() / scale
        assert error <= TOLERANCES[given["input"].dtype], f"{name} is off by {error:.1e} of {scale:.2g}"
    assert found["y"].dtype == found["grad_input"].dtype == given["input"].dtype
    return found


@pytest.fixture(autouse=True)
def no_warning():
    """The kernels run: nothing falls back."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("dtype", triton_bn.DTYPES, ids=str)
@pytest.mark.parametrize("kind", [PLAIN, FUSED, ADDED], ids=["plain", "relu", "residual and relu"])
@pytest.mark.parametrize("training", [True, False])
def test_every_dtype_agrees_with_torch(dtype, kind, training):
    compare(drawn((5, 3, 4, 7), dtype), **kind, training=training)


@pytest.mark.parametrize("shape", [(9, 5), (2, 3), (4, 3, 11), (3, 4, 2, 3, 5), (1, 2, 3, 4), (2, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_every_shape(shape, training):
    if training and shape == (2, 1, 1, 1):
        shape = (3, 1, 1, 1)
    compare(drawn(shape, torch.float64), **ADDED, training=training)
    if shape != (2, 3) or not training:  # two values a channel: terms of order ε only
        compare(drawn(shape, torch.float32), **FUSED, training=training)


@pytest.mark.parametrize("kind", [FUSED, ADDED], ids=["relu", "residual and relu"])
def test_channels_last_is_read_and_kept(kind):
    given = drawn((3, 37, 5, 7), torch.float32)  # more channels than a block takes, and no multiple of it
    last = {n: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in given.items()}
    assert triton_bn._layout(last["input"], 1).stride_c == 1 != triton_bn._layout(given["input"], 1).stride_c
    y = batch_norm(last["input"], None, None, last["weight"], last["bias"], True, **({"relu": True}))
    assert y.is_contiguous(memory_format=torch.channels_last)
    compare(last, **kind)
    mixed = last | {"grad_y": given["grad_y"], "residual": given["residual"]}  # of another memory order
    compare(mixed, **kind)


@pytest.mark.parametrize("shape", [(7, 3, 5, 5), (101, 6)], ids=str)
def test_many_programs_share_a_channel(shape, monkeypatch):
    """Tiles that do not divide the map, merged within a program and between them; m is no multiple of anything."""
    monkeypatch.setattr(triton_bn, "TILE", 16)
    monkeypatch.setattr(triton_bn, "CHANNELS", 4)
    given = drawn(shape, torch.float64, far=1e3)
    layout = triton_bn._layout(given["input"], 1)
    assert layout.rows > 1 and layout.each > 1 and layout.tiles % layout.each
    compare(given, **ADDED)
    compare(given, **FUSED)


def test_many_channels():
    compare(drawn((3, 131), torch.float32), **FUSED)
    compare(drawn((2, 35, 3), torch.float64), **FUSED)


def test_views_that_are_not_dense():
    given = drawn((6, 8, 4, 5), torch.float64)
    for name in ("input", "residual", "grad_y"):
        given[name] = given[name][::2, 1::2, :, 1:]
    for name in ("weight", "bias", "running_mean", "running_var"):
        given[name] = given[name][1::2]
    assert not given["input"].is_contiguous() and not given["weight"].is_contiguous()
    views = {n: given[n] for n in ("running_mean", "running_var")}
    whole = {n: t.clone() for n, t in given.items()}
    y = batch_norm(given["input"], *views.values(), given["weight"], given["bias"], True, 0.3, relu=True)
    kept = [whole["running_mean"], whole["running_var"]]
    expected = reference(whole["input"], *kept, whole["weight"], whole["bias"], True, 0.3, relu=True)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for view, wanted in zip(views.values(), kept, strict=True):
        torch.testing.assert_close(view, wanted, rtol=0, atol=1e-12)
    grad_y = torch.ones((), dtype=torch.float64).expand(y.shape)  # strides of zero
    compare(whole | {"grad_y": grad_y * torch.linspace(1, 2, y.shape[-1])}, **FUSED)


@pytest.mark.parametrize(
    "absent", [("weight",), ("bias",), ("weight", "bias"), ("running_mean", "running_var")], ids=str
)
def test_what_may_be_left_out(absent):
    given = drawn((4, 3, 5), torch.float64) | dict.fromkeys(absent)
    wanted, found = (passed(f, given, **ADDED) for f in (reference, batch_norm))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-11)


def test_parameters_of_sixteen_bits():
    for dtype in (torch.float16, torch.bfloat16):
        compare(drawn((6, 3, 5), dtype, wide=False), **FUSED)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_to_the_last_digits(momentum):
    """Numbers reach a kernel as float32 and the rest; eps and momentum keep float64 exact."""
    given = drawn((6, 3, 5), torch.float64)
    found, wanted = (passed(f, given, **PLAIN, momentum=momentum, eps=0.1) for f in (batch_norm, reference))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-13)
    changed = any(not torch.equal(found[n], given[n]) for n in ("running_mean", "running_var"))
    assert changed == (momentum > 0)


def test_far_from_zero():
    """The one batch at 10⁴, in float32: the pivot is subtracted before anything is squared."""
    x = torch.tensor([2.0, 4, 5, 6, 8])[:, None] + 1e4
    mean, var = torch.zeros(1), torch.ones(1)
    y = batch_norm(x, mean, var, training=True, momentum=1.0)
    assert mean.item() == 10005 and var.item() == 5
    np.testing.assert_allclose(y[:, 0], [-1.5, -0.5, 0, 0.5, 1.5], atol=1e-5)
    noise = torch.tensor(np.random.default_rng(0).normal(size=(4096, 1)) + 1e4).float()
    batch_norm(noise, mean, var, training=True, momentum=1.0)
    assert abs(var.item() / noise.double().var().item() - 1) < 1e-6


def test_the_same_bits_again():
    given = drawn((9, 3, 6, 7), torch.float32)
    first, again = (passed(batch_norm, given, **ADDED) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_mask_found_again_is_that_of_the_output():
    """Every output of the same sign as its gradient's mask, zeros included: no upstream passes where y is 0."""
    for dtype in (torch.float32, torch.float16):
        given = drawn((64, 5, 16), dtype)
        given["weight"] *= 1e-4 if dtype == torch.float32 else 1e-7  # in float16 many positive values round to zero
        given["bias"] *= 0
        found = passed(batch_norm, given | {"grad_y": torch.ones_like(given["grad_y"])}, **FUSED)
        positive = (found["y"] > 0).sum((0, 2))
        assert torch.equal(found["grad_bias"].int(), positive.int())
        assert dtype == torch.float32 or (positive < 300).any()


def test_not_a_number_goes_through_as_in_torch():
    given = drawn((4, 2, 3), torch.float32)
    given["input"][0, 0, 0] = float("nan")
    found, wanted = (passed(f, given, **FUSED) for f in (batch_norm, reference))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], equal_nan=True, rtol=1e-4, atol=1e-5)


def test_an_empty_batch():
    for shape in ((0, 3, 4), (2, 3, 0)):
        given = drawn(shape, torch.float32)
        found = passed(batch_norm, given, **ADDED)
        assert found["y"].shape == shape and torch.equal(found["running_var"], given["running_var"])
        assert not found["grad_weight"].any() and not found["grad_bias"].any()


@pytest.mark.parametrize(
    "needed", [("weight", "bias"), ("input",), ("bias",), ("residual",), ("weight", "residual")], ids=str
)
@pytest.mark.parametrize("training", [True, False])
def test_only_what_is_asked_for(needed, training):
    """Any set of gradients, alone."""
    given = drawn((4, 3, 5), torch.float64)
    for relu in (True, False):
        grads = []
        for function in (reference, batch_norm):
            leaves = {n: given[n].clone().requires_grad_(n in needed) for n in ("input", "weight", "bias", "residual")}
            y = function(
                *(leaves["input"], given["running_mean"].clone(), given["running_var"].clone()),
                *(leaves["weight"], leaves["bias"], training),
                relu=relu, residual=leaves["residual"],
            )  # fmt: skip
            grads.append(torch.autograd.grad(y, [leaves[n] for n in needed], given["grad_y"]))
        for wanted, found in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def saved(call) -> list[tuple[int, ...]]:
    """The shapes of the maps that a call keeps for its backward pass, each memory once."""
    kept = {}

    def note(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = tuple(t.shape)
        return t

    with saved_tensors_hooks(note, lambda t: t):
        call()
    return [shape for shape in kept.values() if len(shape) > 1]


def test_no_more_is_kept_than_the_table_says():
    given = drawn((4, 3, 5), torch.float32)
    x, r = (given[n].requires_grad_() for n in ("input", "residual"))
    w, b = (given[n].requires_grad_() for n in ("weight", "bias"))
    statistics = given["running_mean"], given["running_var"]

    def count(*affine, training=True, **kind):
        return len(saved(lambda: batch_norm(x, *statistics, *affine, training, **kind)))

    assert count(w, b) == count(w, b, relu=True) == 1
    assert count(w, b, relu=True, residual=r) == 2
    frozen = w.detach(), b.detach()
    assert count(*frozen, training=False) == 0 and count(*frozen, training=False, relu=True) == 1
    assert count(w, b, training=False) == 1


@pytest.mark.parametrize("residual", [False, True])
def test_as_many_maps_are_read_and_written_as_the_table_says(residual, monkeypatch):
    """Every value that the kernels load or store, but for those per channel, which are not three-dimensional."""
    from triton.runtime.interpreter import interpreter_builder

    from bnbook.experiments.studies import gpu_speed

    moved = []

    def counted(name: str, mask: int) -> None:
        plain = getattr(interpreter_builder, name)

        def counting(*args):
            if args[0].data.ndim == 3:
                moved.append(int(args[mask].data.sum()))
            return plain(*args)

        monkeypatch.setattr(interpreter_builder, name, counting)

    counted("create_masked_load", 1)
    counted("create_masked_store", 2)
    given = drawn((4, 3, 5), torch.float32)
    leaves = [given[n].requires_grad_() for n in ("input", "weight", "bias", "residual")]
    y = batch_norm(leaves[0], None, None, *leaves[1:3], True, relu=True, residual=leaves[3] if residual else None)
    forward = sum(moved)
    y.backward(given["grad_y"])
    maps = forward / y.numel(), (sum(moved) - forward) / y.numel()
    assert maps == gpu_speed.MAPS[residual]


@pytest.mark.parametrize("momentum", [0.2, None])
def test_the_layer_in_place_of_torchs_two(momentum):
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(3, momentum=momentum), BatchNormReLU(3, momentum=momentum)
    with torch.no_grad():
        theirs.weight.normal_()
        theirs.bias.normal_()
    ours.load_state_dict(theirs.state_dict())
    for step, training in itertools.product(range(3), (True, False)):
        x = torch.tensor(np.random.default_rng(step).normal(step, 2, (4, 3, 5, 6))).float()
        theirs.train(training)
        ours.train(training)
        torch.testing.assert_close(ours(x, x), torch.relu(theirs(x) + x), rtol=0, atol=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    plain = BatchNormReLU(3, affine=False, track_running_stats=False).eval()
    torch.testing.assert_close(plain(x), torch.relu(nn.BatchNorm2d(3, affine=False).train()(x)), rtol=0, atol=1e-5)


def test_a_second_backward_is_refused_and_a_copy_works():
    given = drawn((4, 3, 5), torch.float64)
    x = given["input"].requires_grad_()
    y = batch_norm(x, None, None, training=True, relu=True)
    (grad,) = torch.autograd.grad(y, x, given["grad_y"].requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
    assert isinstance(copy.deepcopy(BatchNormReLU(3)), BatchNormReLU)


def test_the_running_statistics_count_as_changed():
    """Whoever keeps them for a backward pass hears of it, as with PyTorch's own function."""
    mean, var = torch.zeros(3), torch.ones(3)
    before = mean._version
    batch_norm(torch.tensor(np.random.default_rng(0).normal(size=(4, 3))).float(), mean, var, training=True)
    assert mean._version > before and var._version > before


def test_the_study_measures_what_it_says(monkeypatch):
    """One small map, where there is no card: the same code, with the clock of the CPU and no peak."""
    from bnbook.experiments.studies import gpu_speed

    monkeypatch.setattr(gpu_speed, "SHAPES", {"small": (4, 3, 5, 6)})
    monkeypatch.setattr(gpu_speed, "ROUNDS", 1)
    monkeypatch.setattr(gpu_speed, "CALLS", 1)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for dtype, residual in (("float32", True), ("bfloat16", False)):
        setting = {"device": "cpu", "shape": "small", "dtype": dtype, "layout": "channels-last", "residual": residual}
        row = gpu_speed.run(setting, 0)
        assert row["correct"] is True and max(row["error"].values()) > 0
        assert len(row["error"]) == (7 if residual else 6)
        assert {way: len(v) for way, v in row["step_seconds"]["both"].items()} == dict.fromkeys(gpu_speed.WAYS, 1)
        assert row["peak_bytes"] == {"fused": None, "eager": None, "compiled": None}
        assert row["map_bytes"] == 360 * gpu_speed.DTYPES[dtype].itemsize
        assert row["of_copy"] > 0 and row["eager_forward"] > 0
    monkeypatch.setattr(gpu_speed.batch_norm_triton, "batch_norm", lambda *a, **k: reference(*a, **k) * 1.1)
    assert gpu_speed.run(setting, 0)["correct"] is False
