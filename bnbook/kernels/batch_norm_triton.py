"""Batch normalization, ReLU and a residual connection in one, forward and backward, as Triton kernels.

    y = batch_norm(x, running_mean, running_var, weight, bias, training=True, relu=True, residual=None)

What it reads and writes, in maps of the size of x (PyTorch's own operations, one after the other, in brackets)::

                            forward           backward          together      saved for backward
    batch normalization     2 read, 1 written  4 read, 1 written   8  (8)       x                   (x)
    … + ReLU                2 read, 1 written  4 read, 1 written   8 (13)       x                   (x, y)
    … + residual + ReLU     3 read, 1 written  5 read, 2 written  11 (16)       x, y                (x, y)
    the first, evaluation, γ and β frozen
                            1 read, 1 written  1 read, 1 written   4            nothing             (x)

Without a residual the backward pass finds the mask of the ReLU again from x, which it has to read anyway, by the same
roundings as the forward pass; with one it takes it from y, which the next convolution keeps anyway. Sums are added up
in a fixed order, without atomic operations: the same input gives the same bits. Three launches forward, three back.

The kernels run on CUDA tensors, where Triton is installed; on the CPU in Triton's interpreter, slowly, when the
environment variable TRITON_INTERPRET=1 is set before this file is imported. Everywhere else PyTorch's own operations
do the same, and a warning says why. Beside the arguments of `torch.nn.functional.batch_norm` there are two more.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import numbers
import struct
import warnings
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as TF

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TILE = 2048  # values that a program takes at a time
CHANNELS = 32  # of a tile where the channels lie next to each other
WAVES, MOST_ROWS = 8, 512  # programs for every multiprocessor; rows of partial sums at most


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """relu(γ x̂ + β + residual), with x̂ = (x − μ)/√(σ² + ε) over all axes but the second.

    Args:
        input: (N, C) to (N, C, D, H, W), in any memory order; contiguous and channels-last are read as they lie.
        running_mean, running_var: (C,) or both None; in training updated in place with the unbiased variance.
        weight, bias: γ and β, (C,) or None; like the statistics of input's dtype, or float32 for 16-bit inputs.
        relu: whether negative outputs become zero.
        residual: what is added before that, like input.

    Raises:
        TypeError: something that is no tensor, of another dtype, or no number; nothing has changed.
        ValueError: shapes, devices or settings that do not fit, as PyTorch's own function has it, and one value per
            channel in training; nothing has changed.
        UserWarning: (once for each place that calls) the kernels cannot run, and why; PyTorch computes the same.

    An empty batch returns empty output and leaves the statistics alone.
    """
    _check(input, running_mean, running_var, weight, bias, training, momentum, eps, relu, residual)
    reason = unavailable(input)
    if reason is None and input.numel():
        settings = _Settings(training, momentum, eps, relu)
        return _BatchNorm.apply(input, running_mean, running_var, weight, bias, residual, settings)
    if reason is not None:
        warnings.warn(f"batch_norm_triton: {reason}; PyTorch's own operations are used", stacklevel=2)
    return reference(
        input, running_mean, running_var, weight, bias, training, momentum, eps, relu=relu, residual=residual
    )


def reference(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5,
    *, relu=False, residual=None,
):  # fmt: skip
    """The same by PyTorch's own operations, one after the other: what the kernels are compared with."""
    if input.numel():
        y = TF.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    else:
        y = input * 1
        for factor in (weight, bias):  # so that their gradients are zeros, not None
            y = y if factor is None else y * factor.to(y.dtype).view(-1, *[1] * (y.dim() - 2))
    y = y if residual is None else y + residual
    return TF.relu(y) if relu else y


class BatchNormReLU(nn.modules.batchnorm._BatchNorm):
    """`BatchNorm1d`, `2d` or `3d` with the ReLU, and what is added before it, inside; parameters and names are theirs.

    It loads the `state_dict` of `torch.nn.BatchNorm2d`, and knows `momentum=None`, the plain average.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # `batch_norm` does

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        counted, momentum = self.num_batches_tracked, self.momentum
        kept = not self.training or self.track_running_stats
        statistics = (self.running_mean, self.running_var) if kept else (None, None)
        training = self.training or statistics[0] is None
        if momentum is None:  # the plain average over all batches so far
            momentum = 1.0 / (int(counted) + 1) if self.training and counted is not None else 0.0
        affine = self.weight, self.bias
        y = batch_norm(input, *statistics, *affine, training, momentum, self.eps, relu=True, residual=residual)
        if self.training and self.track_running_stats and counted is not None:
            counted.add_(1)
        return y


def unavailable(input: Tensor) -> str | None:
    """Why the kernels cannot take a tensor, in a few words; None where they can."""
    kernels = _kernels()
    if isinstance(kernels, str):
        return kernels
    if type(kernels.normalize).__name__ == "InterpretedFunction":
        return None if input.device.type == "cpu" else f"Triton's interpreter is on, and input is on {input.device}"
    if input.device.type != "cuda":
        return f"input is on {input.device}, and the kernels need a CUDA device"
    return None


# --- behind it -------------------------------------------------------------------------------------------------------


@functools.cache
def _kernels() -> ModuleType | str:
    """The kernels, or why there are none."""
    try:
        return importlib.import_module("._triton", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "triton":
            raise
        return "Triton is not installed (pip install triton, on Linux)"


class _Settings(NamedTuple):
    training: bool
    momentum: float
    eps: float
    relu: bool


class _Layout(NamedTuple):
    """A map as (N, C, P), cut into tiles, and the programs that take them."""

    N: int
    C: int
    P: int
    stride_n: int
    stride_c: int
    stride_p: int
    tiles: int
    each: int
    rows: int
    blocks: dict[str, int]

    @property
    def m(self) -> int:
        return self.N * self.P

    @property
    def grid(self) -> tuple[int, int]:
        return (_cdiv(self.C, self.blocks["BC"]), self.rows)

    @property
    def arguments(self) -> tuple[int, ...]:
        return self[:8]


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power(n: int) -> int:
    """The power of two from n on."""
    return 1 << (n - 1).bit_length()


def _layout(x: Tensor, processors: int) -> _Layout:
    """How a map is read that lies contiguous or channels-last."""
    N, C, P = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if x.movedim(1, -1).is_contiguous():
        N, P, strides = N * P, 1, (C, 1, 1)
        BC = min(_power(C), CHANNELS)
        blocks = {"BN": min(_power(N), TILE // BC), "BC": BC, "BP": 1}
    else:
        strides = (C * P, P, 1)
        BP = min(_power(P), TILE)
        blocks = {"BN": min(_power(N), TILE // BP), "BC": 1, "BP": BP}
    tiles = _cdiv(N, blocks["BN"]) * _cdiv(P, blocks["BP"])
    wanted = _cdiv(WAVES * processors, _cdiv(C, blocks["BC"]))
    each = _cdiv(tiles, max(1, min(tiles, MOST_ROWS, wanted)))
    return _Layout(N, C, P, *strides, tiles, each, _cdiv(tiles, each), blocks)


def _as(t: Tensor, x: Tensor) -> Tensor:
    """t in the memory order of x."""
    same = all(a == b for a, b, size in zip(t.stride(), x.stride(), x.shape, strict=True) if size > 1)
    return t if same else torch.empty_like(x, dtype=t.dtype).copy_(t)


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def _split(value: float) -> tuple[float, float]:
    """A number in float32, and what that cuts off: scalars reach a kernel as float32."""
    near = struct.unpack("f", struct.pack("f", value))[0]
    return near, value - near


class _Run:
    """The launches for one map."""

    def __init__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        import triton.language as tl

        self.kernels = _kernels()
        self.x, self.weight, self.bias = x, weight, bias
        processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
        self.layout = _layout(x, processors)
        wide = x.dtype == torch.float64
        self.acc = {"ACC": tl.float64 if wide else tl.float32}
        self.affine = {"HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
        self.sums_like = {"dtype": torch.float64 if wide else torch.float32, "device": x.device}
        self.final = {"ROWS": _power(self.layout.rows), "BC": 8, **self.acc}
        self.final_grid = (_cdiv(self.layout.C, 8),)

    def on_device(self) -> contextlib.AbstractContextManager:
        return torch.cuda.device(self.x.device) if self.x.is_cuda else contextlib.nullcontext()

    def statistics(self, running_mean, running_var, momentum: float, eps: float) -> tuple[Tensor, Tensor]:
        layout = self.layout
        parts = torch.empty((3, layout.rows, layout.C), **self.sums_like)
        mean, inv_std = torch.empty((2, layout.C), **self.sums_like)
        self.kernels.statistics[layout.grid](self.x, parts, *layout.arguments, **self.acc, **layout.blocks)
        update = running_mean is not None
        kept = [t.contiguous() for t in (running_mean, running_var)] if update else (mean, inv_std)
        self.kernels.statistics_total[self.final_grid](
            *(self.x, parts, mean, inv_std, *kept),
            *(layout.C, layout.stride_c, layout.rows, layout.m, *_split(momentum), *_split(eps)),
            UPDATE=update,
            **self.final,
        )
        for t, new in zip((running_mean, running_var), kept, strict=True):
            if update:
                torch.autograd.graph.increment_version(t)
                if new is not t:
                    t.copy_(new)
        return mean, inv_std

    def normalize(self, residual: Tensor | None, mean: Tensor, inv_std: Tensor, relu: bool) -> Tensor:
        y = torch.empty_like(self.x)
        self.kernels.normalize[self.layout.grid](
            *(self.x, self.x if residual is None else residual, y, mean, inv_std, *self._affine(mean)),
            *self.layout.arguments,
            HAS_RESIDUAL=residual is not None,
            RELU=relu,
            **self._options(),
        )
        return y

    def sums(self, grad_y, y, mean, inv_std, mask: str, store: bool, wanted: tuple[bool, bool]):
        """(Σg/m and Σg(x − μ)/(mσ²), grad_weight, grad_bias, the masked gradient)."""
        layout, x = self.layout, self.x
        parts = torch.empty((2, layout.rows, layout.C), **self.sums_like)
        sums = torch.empty((2, layout.C), **self.sums_like)
        behind = torch.empty_like(x) if store else None
        self.kernels.gradient_sums[layout.grid](
            *(grad_y, x if y is None else y, x, behind if store else x, parts, mean, inv_std, *self._affine(mean)),
            *layout.arguments,
            STORE=store,
            MASK=mask,
            **self._options(),
        )
        grads = [torch.empty_like(p) if w else None for p, w in zip((self.weight, self.bias), wanted, strict=True)]
        self.kernels.gradient_total[self.final_grid](
            *(parts, inv_std, sums, *(mean if g is None else g for g in grads), layout.C, layout.rows, layout.m),
            WEIGHT=wanted[0],
            BIAS=wanted[1],
            **self.final,
        )
        return sums, *grads, behind

    def gradient(self, grad_y, y, sums, mean, inv_std, mask: str) -> Tensor:
        grad_x = torch.empty_like(self.x)
        self.kernels.gradient[self.layout.grid](
            *(grad_y, grad_y if y is None else y, self.x, grad_x, mean if sums is None else sums),
            *(mean, inv_std, *self._affine(mean)),
            *self.layout.arguments,
            TRAINING=sums is not None,
            MASK=mask,
            **self._options(),
        )
        return grad_x

    def _affine(self, stand_in: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(stand_in if p is None else p for p in (self.weight, self.bias))

    def _options(self) -> dict:
        return {**self.acc, **self.affine, **self.layout.blocks}


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, running_mean, running_var, weight, bias, residual, settings: _Settings):
        x = _dense(x)
        weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
        run = _Run(x, weight, bias)
        with run.on_device():
            if settings.training:
                mean, inv_std = run.statistics(running_mean, running_var, settings.momentum, settings.eps)
            else:
                mean = running_mean.to(run.sums_like["dtype"], copy=True)
                inv_std = (running_var.to(mean.dtype) + settings.eps).rsqrt()
            y = run.normalize(None if residual is None else _as(residual, x), mean, inv_std, settings.relu)
        needs_x = settings.training or ctx.needs_input_grad[3]  # for x̂, of which ∂γ is made
        ctx.mask = "none" if not settings.relu else "input" if needs_x and residual is None else "output"
        ctx.training = settings.training
        ctx.save_for_backward(x if needs_x else None, y if ctx.mask == "output" else None, mean, inv_std, weight, bias)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y):
        x, y, mean, inv_std, weight, bias = ctx.saved_tensors
        of_x, _, _, of_weight, of_bias, of_residual, _ = ctx.needs_input_grad
        like = next((t for t in (x, y) if t is not None), None)
        grad_residual = grad_y
        grad_y = _dense(grad_y) if like is None else _as(grad_y, like)
        run = _Run(grad_y if like is None else like, weight, bias)
        mask, sums, grad_weight, grad_bias, grad_x = ctx.mask, None, None, None, None
        with run.on_device():
            behind = mask == "output" and (ctx.training or of_residual)  # the gradient behind the ReLU is kept
            if ctx.training or of_weight or of_bias or behind:
                wanted = (of_weight, of_bias)
                sums, grad_weight, grad_bias, kept = run.sums(grad_y, y, mean, inv_std, mask, behind, wanted)
                if behind:
                    grad_y, mask = kept, "none"
            if of_x:
                grad_x = run.gradient(grad_y, y, sums if ctx.training else None, mean, inv_std, mask)
        if of_residual and ctx.mask != "none":
            grad_residual = grad_y
        return grad_x, None, None, grad_weight, grad_bias, grad_residual if of_residual else None, None


# --- the arguments ---------------------------------------------------------------------------------------------------


def _check(x, running_mean, running_var, weight, bias, training, momentum, eps, relu, residual) -> None:
    _check_tensor("input", x)
    if x.dtype not in DTYPES:
        raise TypeError(f"input must be of {', '.join(map(_name, DTYPES))}, got {_name(x.dtype)}")
    if not 2 <= x.dim() <= 5:
        raise ValueError(f"input has shape {_shape(x)}, expected (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W)")
    for name, value in (("training", training), ("relu", relu)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    for name, value in (("momentum", momentum), ("eps", eps)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    if training and not eps > 0:
        raise ValueError(f"eps must be greater than 0, got {eps}")
    if (running_mean is None) != (running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{missing} is None: give both running statistics or neither")
    if running_mean is None and not training:
        raise ValueError("running_mean is None, but evaluation normalizes by the running statistics")
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        _check_tensor(name, value)
        _check_channels(name, value, x)
    kinds = {name: _name(value.dtype) for name, value in given.items()}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        raise TypeError(f"weight, bias and the running statistics must be of one dtype, got {said}")
    if residual is not None:
        _check_residual(residual, x)
    if training and x.numel() and x.numel() == x.shape[1]:
        raise ValueError(f"expected more than one value per channel in training, got input of shape {_shape(x)}")


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__module__}.{type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {value.layout}")


def _check_channels(name: str, value: Tensor, x: Tensor) -> None:
    if value.shape != x.shape[1:2]:
        raise ValueError(
            f"{name} has shape {_shape(value)}, expected ({x.shape[1]},): one value per channel of input,"
            f" which has shape {_shape(x)}"
        )
    _check_device(name, value, x)
    accepted = {x.dtype} | ({torch.float32} if x.dtype.itemsize == 2 else set())
    if value.dtype not in accepted:
        names = " or ".join(sorted(map(_name, accepted)))
        raise TypeError(f"{name} must be {names} for an input of {_name(x.dtype)}, got {_name(value.dtype)}")


def _check_residual(residual: object, x: Tensor) -> None:
    _check_tensor("residual", residual)
    if residual.shape != x.shape:
        raise ValueError(f"residual has shape {_shape(residual)}, expected that of input, {_shape(x)}")
    _check_device("residual", residual, x)
    if residual.dtype != x.dtype:
        raise TypeError(f"residual must be {_name(x.dtype)} like input, got {_name(residual.dtype)}")


def _check_device(name: str, value: Tensor, x: Tensor) -> None:
    if value.device != x.device:
        raise ValueError(f"{name} must be on {x.device} like input, got {value.device}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(t: Tensor) -> tuple[int, ...]:
    return tuple(t.shape)
