"""Batch normalization over the batches of several processes, on CPUs and GPUs: a layer for PyTorch, chapter 24.

In training every process hands its shard's (m, μ, M₂) to all others, merges all of them (Chan, Golub and LeVeque 1983)
and normalizes its shard by the result; the backward pass adds up two numbers per channel. So K processes compute what
one process would with the whole batch.

    model = sync_batch_norm.convert(model)  # before DistributedDataParallel wraps it

What `torch.nn.SyncBatchNorm` does on GPUs, this does with every backend of `torch.distributed`, gloo on CPUs included.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SyncBatchNorm", "convert", "merge", "moments", "revert"]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
FAULTS = (  # what a process tells the others of a shard that it cannot take
    "",
    "its input is no tensor",
    "its input has not 2 to 5 dimensions",
    "its input has another number of channels than the layer",
    "its input has a dtype that the layer does not take",
    "its input is on another device than the layer",
)
DESTROYED = "process_group has been destroyed: give the layer one that exists, or None for all processes"
Group = dist.ProcessGroup if dist.is_available() else None


# --- statistics ------------------------------------------------------------------------------------------------------


def moments(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """(m, μ, M₂) of every channel of a shard (N, C, …): the number of its values, their mean, and Σ(x−μ)².

    Two passes and a correction by the mean of the differences (chapter 21), in float32 or more; the results are
    float64. A shard without values has (0, 0, 0).
    """
    axes, m = [0, *range(2, x.ndim)], x.numel() // max(x.shape[1], 1)
    if m == 0:
        zeros = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
        return 0, zeros, zeros.clone()
    x = x.to(_computed_in(x.dtype))
    center = x.mean(axes)
    x = x - _along(center, x)
    rest = x.mean(axes).double()
    return m, center.double() + rest, x.square_().sum(axes).double() - m * rest.square()


def merge(m: Tensor, mean: Tensor, M2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(m, μ, M₂) of all parts together, from those of K parts: m of shape (K,), mean and M2 of shape (K, C).

        m = Σₖmₖ,   μ = Σₖ mₖμₖ/m,   M₂ = Σₖ M₂ₖ + Σₖ mₖ(μₖ−μ)²

    Means are subtracted from one another before anything is squared, so that nothing is lost where they are far from
    zero. Parts without values (mₖ = 0) have no say, whatever their μₖ and M₂ₖ are; without any values all three are 0.
    Source: Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), for two parts.

    Raises:
        ValueError: other shapes; a negative mₖ; no part.
    """
    if m.ndim != 1 or mean.ndim != 2 or mean.shape != M2.shape or len(m) != len(mean) or len(m) == 0:
        shapes = ", ".join(str(tuple(t.shape)) for t in (m, mean, M2))
        raise ValueError(f"m, mean and M2 must have the shapes (K,), (K, C) and (K, C) with K ≥ 1, got {shapes}")
    if (m < 0).any():
        raise ValueError(f"m must not be negative, got {m.tolist()}")
    held = m > 0
    if not held.any():
        return m.sum(), torch.zeros_like(mean[0]), torch.zeros_like(M2[0])
    m, mean, M2 = m[held], mean[held], M2[held]
    total, start = m.sum(), mean[0]
    share = (m.to(mean.dtype) / total).unsqueeze(1)
    away = mean - start
    shift = (share * away).sum(0)
    between = (share * (away - shift).square()).sum(0) * total
    return total, start + shift, M2.sum(0) + between


# --- the layer -------------------------------------------------------------------------------------------------------


class SyncBatchNorm(_BatchNorm):
    """`torch.nn.BatchNorm1d`, `2d` or `3d` with the statistics of all processes of a group, on any backend.

        y = γ (x − μ)/√(σ² + ε) + β     with μ, σ² over the shards of all processes

    In training, forward is one all-gather of 2C + 5 float64 numbers and backward one all-reduce of 2C (none where the
    inputs need no gradient). The gradients of γ and β are those of this process's shard, which
    DistributedDataParallel averages as all others. Running statistics move by the global count, with Bessel's m/(m−1),
    and are the same in all processes. Evaluation does not communicate. Statistics of float16 and bfloat16 inputs are
    taken in float32 and merged in float64. Parameters, buffers and `state_dict` are those of `torch.nn.BatchNorm2d`.

    Shards may have different sizes and may be empty; then scale the loss by K/N (chapter 24), and let the loss of an
    empty shard depend on its outputs too (a sum over nothing does): backward waits for all processes.

    All processes of the group train together: as many forward and backward passes in each, with layers of the same
    `num_features` (which DistributedDataParallel checks); one that stays away is waited for.

    Without a process group, and in a group of one, it is the ordinary layer. A group is not copied into a pickle: the
    layer that is loaded synchronizes with all processes.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in `torch.nn.BatchNorm2d`;
            `momentum=None` is the cumulative average.
        process_group: with whom; None for all processes.

    Shape:
        (N, C) to (N, C, D, H, W) in and out; N may be 0. C and the dtype are the same in all processes.

    Raises:
        ValueError: in *all* processes, before anything has changed, where one shard cannot be taken (the message names
            its process and why); where processes differ in dtype, in the kind of device or in whether inputs need
            gradients; where there is one value per channel in all shards together.
        TypeError: in the process whose own input is no tensor or has the wrong dtype; a `process_group` that is none.
        RuntimeError: torchrun started several processes, and `init_process_group` was not called; `process_group` has
            been destroyed; a second derivative.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_group(process_group)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.process_group = process_group
        self.converted_from: type[nn.Module] | None = None

    def forward(self, x: Tensor) -> Tensor:
        error = self._fault(x)
        group = _group(self.process_group) if self.training else None
        if group is None:
            if error:
                raise error[1]
            return self._alone(x)
        total, mean, M2 = self._gather(x, error, group)
        if total == 0:  # of all: nothing to normalize, and nothing to learn
            return _Normalize.apply(x, self.weight, self.bias, mean, torch.ones_like(mean), 1, None)
        if total == 1:
            raise ValueError("training needs more than one value per channel, and all processes together have one")
        var = M2 / total
        self._track(mean, var * (total / (total - 1)))
        return _Normalize.apply(x, self.weight, self.bias, mean, (var + self.eps).rsqrt(), total, group)

    def _fault(self, x: Tensor) -> tuple[int, Exception] | None:
        """What is wrong with this process's own input: which of FAULTS, and the error that says it here."""
        if not isinstance(x, Tensor):
            return 1, TypeError(f"the input must be a tensor, got {type(x).__name__}")
        if not 2 <= x.ndim <= 5:
            return 2, ValueError(f"the input must have 2 to 5 dimensions, (N, C, …), got {tuple(x.shape)}")
        if x.shape[1] != self.num_features:
            given = f"{x.shape[1]} channels: {tuple(x.shape)}"
            return 3, ValueError(f"the input must have {self.num_features} channels, as the layer has, got {given}")
        own = self._own()
        taken = {x.dtype, _computed_in(x.dtype)}
        if x.dtype not in DTYPES or any(t.dtype not in taken for t in own):
            has = ", ".join(sorted({str(t.dtype) for t in own})) or "none"
            return 4, TypeError(
                "the input must be float64, float32, float16 or bfloat16, and parameters and statistics of the same "
                f"dtype (or float32 with the last two), got an input of {x.dtype} and a layer of {has}"
            )
        for t in own:
            if t.device != x.device:
                return 5, ValueError(f"the input must be where the layer is, on {t.device}, got one on {x.device}")
        return None

    def _own(self) -> list[Tensor]:
        return [t for t in (self.weight, self.bias, self.running_mean, self.running_var) if t is not None]

    def _gather(self, x: Tensor, error: tuple[int, Exception] | None, group: Any) -> tuple[int, Tensor, Tensor]:
        """The merged (m, μ, M₂) of all processes. Whatever is wrong with a shard, its process sends a message."""
        own = self._own()
        device = own[0].device if own else getattr(x, "device", "cpu")
        message = torch.zeros(5 + 2 * self.num_features, dtype=torch.float64, device=device)
        if error:
            message[0] = error[0]
        else:
            m, mean, M2 = moments(x.detach())
            learns = float(torch.is_grad_enabled() and x.requires_grad)
            about = [0, DTYPES.index(x.dtype), _kind(x.device), learns, m]
            message = torch.cat([torch.tensor(about, dtype=torch.float64, device=device), mean, M2])
        parts = [torch.empty_like(message) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, message, group=group)
        gathered = torch.stack(parts)
        if error:
            raise error[1]
        _check_agreement(gathered[:, :4].tolist(), group)
        total, mean, M2 = merge(gathered[:, 4], *gathered[:, 5:].split(self.num_features, dim=1))
        return int(total), mean, M2

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics; `var` is the unbiased one."""
        if not self.track_running_stats or self.running_mean is None:
            return
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            old = running.to(_computed_in(running.dtype))
            running.copy_(old + self._weight() * (new.to(old.dtype) - old))
        self.num_batches_tracked.add_(1)

    def _weight(self) -> float:
        """The weight of the batch that comes next."""
        return 1 / (int(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum

    def _alone(self, x: Tensor) -> Tensor:
        by_batch = self.training or self.running_mean is None
        if by_batch and x.numel() == 0:
            zeros = torch.zeros(self.num_features, dtype=torch.float64, device=x.device)
            return _Normalize.apply(x, self.weight, self.bias, zeros, zeros + 1, 1, None)
        if by_batch and x.numel() == x.shape[1]:
            raise ValueError(f"training needs more than one value per channel, got an input of {tuple(x.shape)}")
        tracks = self.training and self.track_running_stats and self.running_mean is not None
        weight = self._weight() if tracks else 0.0
        mean, var = (self.running_mean, self.running_var) if tracks or not self.training else (None, None)
        y = nn.functional.batch_norm(x, mean, var, self.weight, self.bias, by_batch, weight, self.eps)
        if tracks:
            self.num_batches_tracked.add_(1)
        return y

    def _check_input_dim(self, input: Tensor) -> None:  # what `_BatchNorm` asks of its heirs
        if error := self._fault(input):
            raise error[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"process_group": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncBatchNorm:
        """A copy within this process keeps the group."""
        new = memo[id(self)] = type(self).__new__(type(self))
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        new.process_group = self.process_group
        return new


class _Normalize(torch.autograd.Function):
    """y = γ(x−μ)r + β with r = 1/√(σ²+ε), given μ and r of all shards; backward through μ and r as well.

        S₁ = Σg,   S₂ = Σg·x̂   over all shards;      ∂L/∂x = γr (g − S₁/m − x̂ S₂/m)

    for the sum L of the losses of all processes. The gradients of γ and β are this shard's S₂ and S₁.
    μ comes in float64: what float32 does not hold of it goes into the constant, so that nothing is lost.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, inv, total, group):
        ctx.save_for_backward(x, weight, mean, inv)
        ctx.total, ctx.group = total, group
        center, rest = _split(mean, x.dtype)
        scale = inv if weight is None else inv * weight.double()
        shift = -rest * scale if bias is None else bias.double() - rest * scale
        y = x.to(center.dtype)
        y = y - _along(center, y)
        return y.mul_(_along(scale, y)).add_(_along(shift, y)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y):
        x, weight, mean, inv = ctx.saved_tensors
        center, rest = _split(mean, x.dtype)
        axes = [0, *range(2, x.ndim)]
        xc, g = x.to(center.dtype), grad_y.to(center.dtype)
        xc = xc - _along(center, xc)
        S1 = g.sum(axes).double()
        S2 = ((g * xc).sum(axes).double() - rest * S1) * inv  # of this shard
        grad_weight = S2.to(weight.dtype) if ctx.needs_input_grad[1] else None
        grad_bias = S1.to(weight.dtype) if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None, None, None
        if ctx.group is not None:
            sums = torch.cat([S1, S2])
            dist.all_reduce(sums, group=ctx.group)
            S1, S2 = sums.chunk(2)
        scale = inv if weight is None else inv * weight.double()
        slope = -scale * inv * S2 / ctx.total
        constant = -scale * S1 / ctx.total - slope * rest
        grad_x = xc.mul_(_along(slope, xc)).add_(g * _along(scale, g)).add_(_along(constant, xc))
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None, None


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _along(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, shaped to go with x, in its dtype."""
    return values.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))


def _split(mean: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean in the dtype that is computed with, and what that does not hold of it."""
    center = mean.to(_computed_in(dtype))
    return center, mean - center.double()


# --- processes -------------------------------------------------------------------------------------------------------


def _check_group(group: Any) -> None:
    if group is None:
        return
    if Group is None or not isinstance(group, Group):
        if Group is not None and group == dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError("process_group must be a group of this process, got one that it is no member of")
        raise TypeError(f"process_group must be a torch.distributed.ProcessGroup or None, got {type(group).__name__}")


def _group(group: Any) -> Any:
    """The group to talk to; None where there is nobody to talk to."""
    if not dist.is_available() or not dist.is_initialized():
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise RuntimeError(
                f"torchrun started {os.environ['WORLD_SIZE']} processes, but there is no process group: call "
                "torch.distributed.init_process_group before training, or the statistics would be those of one shard"
            )
        if group is not None:
            raise RuntimeError(DESTROYED)
        return None
    group = group or dist.group.WORLD
    try:
        members = dist.get_process_group_ranks(group)
    except KeyError:
        raise RuntimeError(DESTROYED) from None
    return group if len(members) > 1 else None


def _kind(device: torch.device) -> int:
    """A number for the kind of a device, the same in all processes."""
    return int.from_bytes(device.type.encode()[:6], "big")


def _check_agreement(about: list[list[float]], group: Any) -> None:
    """The same error in all processes, from (fault, dtype, device, learns) of each."""
    names = dist.get_process_group_ranks(group)
    for rank, (fault, *_) in zip(names, about, strict=True):
        if fault:
            raise ValueError(f"process {rank} cannot take part in this batch: {FAULTS[int(fault)]}")
    columns = (
        ("dtype", lambda v: str(DTYPES[int(v)])),
        ("kind of device", lambda v: int(v).to_bytes(6, "big").strip(b"\0").decode()),
        ("requires_grad", lambda v: str(bool(v))),
    )
    for place, (what, word) in enumerate(columns, start=1):
        values = [word(row[place]) for row in about]
        if len(set(values)) > 1:
            given = ", ".join(f"{value} in process {rank}" for rank, value in zip(names, values, strict=True))
            raise ValueError(f"the inputs of all processes must have the same {what}, got {given}")


# --- whole models ----------------------------------------------------------------------------------------------------


def convert(module: nn.Module, process_group: Any = None) -> nn.Module:
    """Put `SyncBatchNorm` in the place of every BatchNorm1d, 2d, 3d and `torch.nn.SyncBatchNorm` of a model.

    As `convert_sync_batchnorm` of PyTorch, for every backend: the model itself is changed and returned; if
    it is such a layer, a new one is returned. Parameters and buffers are the same objects, so that an optimizer made
    before keeps them; mode, hooks and attributes are kept, and a layer that stands in two places is one layer
    afterwards. Layers that are converted already stay. `revert` undoes it. Convert before DistributedDataParallel.

    Raises:
        TypeError: no module; a `process_group` that is none.
        ValueError: a layer that does more than normalize (a subclass with a `forward` of its own), or a lazy one that
            has seen no batch. Nothing is changed then.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    _check_group(process_group)

    def made(layer: nn.Module, name: str) -> nn.Module | None:
        if not isinstance(layer, _BatchNorm) or isinstance(layer, SyncBatchNorm):
            return None
        called = f"{type(layer).__name__}{f' {name!r}' if name else ''}"
        if type(layer).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
            raise ValueError(f"{called} has a forward of its own, which would be lost: convert it by hand")
        if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
            raise ValueError(f"{called} does not know its channels yet: call the model on a batch first")
        new = _twin(layer, SyncBatchNorm)
        new.process_group = process_group or getattr(layer, "process_group", None)
        new.converted_from = type(layer)
        return new

    return _replaced(module, made)


def revert(module: nn.Module) -> nn.Module:
    """Undo `convert`: every layer is again of the class that it was converted from, with the same tensors.

    Raises:
        TypeError: no module.
        ValueError: a `SyncBatchNorm` that was made as one: whether it stands for 1d, 2d or 3d is not known. Nothing is
            changed then.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")

    def made(layer: nn.Module, name: str) -> nn.Module | None:
        if not isinstance(layer, SyncBatchNorm):
            return None
        if layer.converted_from is None:
            raise ValueError(f"SyncBatchNorm {name!r} was not made by convert: it has no class to go back to")
        new = _twin(layer, layer.converted_from)
        del new.converted_from
        if not issubclass(layer.converted_from, nn.SyncBatchNorm):
            del new.process_group
        return new

    return _replaced(module, made)


def _twin(layer: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A layer of another class with the same tensors, mode, hooks and attributes."""
    new = kind.__new__(kind)
    for name, value in vars(layer).items():
        new.__dict__[name] = value.copy() if isinstance(value, dict | set) else value
    return new


def _replaced(module: nn.Module, made: Any) -> nn.Module:
    """The model with `made(layer, name)` in the place of its layers; all are made before the first is put there."""
    new = {id(layer): made(layer, name) for name, layer in module.named_modules()}
    for parent, name, layer in list(_places(module)):
        if new[id(layer)] is not None:
            parent._modules[name] = new[id(layer)]
    return new[id(module)] or module


def _places(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in module.modules():
        yield from ((parent, name, child) for name, child in parent._modules.items() if child is not None)
