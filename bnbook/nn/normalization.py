"""The relatives of batch normalization as layers: layer, group, instance and RMS normalization."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..functional._checks import check_integer, check_number
from .batchnorm import _RunningStatistics
from .module import Array, Module, Parameter, accumulate, value


class LayerNorm(Module):
    """Layer normalization over the last axes (`functional.layer_norm`).

    Args:
        normalized_shape: an integer or a tuple, the shape of the averaged axes and of γ and β.
        eps: ε ≥ 0, added to the variance inside the root.
        elementwise_affine: whether γ (`weight`) and β (`bias`) are learned.
        bias: whether β is.
        dtype: of the parameters.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: type = np.float32,
    ) -> None:
        super().__init__()
        check_number("eps", eps, at_least=0)
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = Parameter(np.ones(self.normalized_shape, dtype)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, dtype)) if elementwise_affine and bias else None

    def forward(self, x: Array) -> Array:
        y, self._cache = F.layer_norm(x, self.normalized_shape, value(self.weight), value(self.bias), self.eps)
        return y

    def backward(self, grad_y: Array) -> Array:
        grad_x, grad_weight, grad_bias = F.layer_norm_backward(grad_y, self._saved())
        accumulate(self.weight, grad_weight)
        accumulate(self.bias, grad_bias)
        return grad_x

    def __repr__(self) -> str:
        return (
            f"LayerNorm({self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}, "
            f"bias={self.bias is not None})"
        )


class RMSNorm(Module):
    """RMS normalization over the last axes (`functional.rms_norm`).

    Args:
        normalized_shape: an integer or a tuple.
        eps: ε ≥ 0; None means the machine epsilon of x's dtype, for float16 that of float32.
        elementwise_affine: whether γ (`weight`) is learned.
        dtype: of the parameter.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: type = np.float32,
    ) -> None:
        super().__init__()
        if eps is not None:
            check_number("eps", eps, at_least=0)
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = Parameter(np.ones(self.normalized_shape, dtype)) if elementwise_affine else None

    def forward(self, x: Array) -> Array:
        y, self._cache = F.rms_norm(x, self.normalized_shape, value(self.weight), self.eps)
        return y

    def backward(self, grad_y: Array) -> Array:
        grad_x, grad_weight = F.rms_norm_backward(grad_y, self._saved())
        accumulate(self.weight, grad_weight)
        return grad_x

    def __repr__(self) -> str:
        return f"RMSNorm({self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None})"


class GroupNorm(Module):
    """Group normalization of (N, C) or (N, C, *) (`functional.group_norm`).

    Args:
        num_groups: divides `num_channels`.
        num_channels: C.
        eps: ε ≥ 0, added to the variance inside the root.
        affine: whether γ (`weight`) and β (`bias`) are learned.
        dtype: of the parameters.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, dtype: type = np.float32
    ) -> None:
        super().__init__()
        self.num_groups = check_integer("num_groups", num_groups, at_least=1)
        self.num_channels = check_integer("num_channels", num_channels, at_least=1)
        if num_channels % num_groups:
            raise ValueError(f"num_groups must divide num_channels={num_channels}, got {num_groups}")
        check_number("eps", eps, at_least=0)
        self.eps = eps
        self.weight = Parameter(np.ones(num_channels, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, dtype)) if affine else None

    def forward(self, x: Array) -> Array:
        if isinstance(x, np.ndarray) and x.ndim >= 2 and x.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: x has shape {x.shape}, expected {self.num_channels} channels")
        y, self._cache = F.group_norm(x, self.num_groups, value(self.weight), value(self.bias), self.eps)
        return y

    def backward(self, grad_y: Array) -> Array:
        grad_x, grad_weight, grad_bias = F.group_norm_backward(grad_y, self._saved())
        accumulate(self.weight, grad_weight)
        accumulate(self.bias, grad_bias)
        return grad_x

    def __repr__(self) -> str:
        affine = self.weight is not None
        return f"GroupNorm({self.num_groups}, {self.num_channels}, eps={self.eps}, affine={affine})"


class _InstanceNorm(_RunningStatistics):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: type = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Array) -> Array:
        self._check_input(x)
        unbatched = x.ndim == self.ndims[0]
        channels = x.shape[0 if unbatched else 1]
        if channels != self.num_features:
            name = type(self).__name__
            raise ValueError(f"{name}: x has shape {x.shape}, expected {self.num_features} channels, got {channels}")
        y, self._cache = F.instance_norm(
            x[None] if unbatched else x,
            self.running_mean,
            self.running_var,
            value(self.weight),
            value(self.bias),
            use_input_stats=self.training or not self.track_running_stats,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
        )
        self._unbatched = unbatched
        return y[0] if unbatched else y

    def backward(self, grad_y: Array) -> Array:
        cache = self._saved()
        grad_x, grad_weight, grad_bias = F.instance_norm_backward(grad_y[None] if self._unbatched else grad_y, cache)
        accumulate(self.weight, grad_weight)
        accumulate(self.bias, grad_bias)
        return grad_x[0] if self._unbatched else grad_x


class InstanceNorm1d(_InstanceNorm):
    """Instance normalization of (N, C, L) or (C, L) (`functional.instance_norm`).

    Args:
        num_features: C.
        eps: as in `BatchNorm1d`.
        momentum: weight of the new value in the running statistics; None means 0, as in torch: they never move. There
            is no cumulative average, since batches are not counted.
        affine, track_running_stats: as in `BatchNorm1d`, but off by default, as in torch. Running statistics that are
            there move in training also where `track_running_stats` is set to False later, as in torch.
        dtype: of parameters and statistics.
    """

    ndims, layout = (2, 3), "(N, C, L) or (C, L)"


class InstanceNorm2d(_InstanceNorm):
    """Instance normalization of images (N, C, H, W) or (C, H, W); the arguments of `InstanceNorm1d`."""

    ndims, layout = (3, 4), "(N, C, H, W) or (C, H, W)"


def _shape(normalized_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    return tuple(check_integer("normalized_shape", n, at_least=1) for n in shape)
