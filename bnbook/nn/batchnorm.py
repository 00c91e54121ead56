"""Batch normalization layers: they hold γ, β and the running statistics of `functional.batch_norm`."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..functional._checks import check_integer, check_ndim, check_number
from .module import Array, Module, Parameter, accumulate, value


class _RunningStatistics(Module):
    """γ, β and running statistics: what batch and instance normalization have in common."""

    ndims: tuple[int, ...] = ()
    layout: str = ""
    _added_later = ("num_batches_tracked",)

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: type = np.float32,
    ) -> None:
        super().__init__()
        self.num_features = check_integer("num_features", num_features, at_least=1)
        check_number("eps", eps, above=0)
        if momentum is not None:
            check_number("momentum", momentum)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        track = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if track else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if track else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track else None)

    def reset_running_stats(self) -> None:
        """Back to mean 0, variance 1 and no batch seen."""
        if self.track_running_stats:
            self.running_mean[...], self.running_var[...], self.num_batches_tracked[...] = 0, 1, 0

    def _check_input(self, x: Array) -> None:
        name = type(self).__name__
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{name}: x must be a NumPy array, got {type(x).__name__}")
        check_ndim(f"{name}: x", x, self.ndims, self.layout)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats})"
        )


class _BatchNorm(_RunningStatistics):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: type = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Array) -> Array:
        self._check_input(x)
        track = self.training and self.track_running_stats and self.running_mean is not None
        momentum = self.momentum
        if momentum is None:  # the cumulative average: every batch so far has the same weight
            momentum = 1 / (int(self.num_batches_tracked) + 1) if track else 0.0
        used = track or not self.training  # those that are there serve in evaluation, kept up or not, as in torch
        y, self._cache = F.batch_norm(
            x,
            self.running_mean if used else None,
            self.running_var if used else None,
            value(self.weight),
            value(self.bias),
            training=self.training or self.running_mean is None,
            momentum=momentum,
            eps=self.eps,
        )
        if track and x.size > 0:
            self.num_batches_tracked += 1
        return y

    def backward(self, grad_y: Array) -> Array:
        grad_x, grad_weight, grad_bias = F.batch_norm_backward(grad_y, self._saved())
        accumulate(self.weight, grad_weight)
        accumulate(self.bias, grad_bias)
        return grad_x


class BatchNorm1d(_BatchNorm):
    r"""Batch normalization of (N, C) or (N, C, L): one mean and one variance per channel.

    $$ y = \gamma\,\frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}} + \beta $$

    Args:
        num_features: C.
        eps: ε, added to the variance inside the root.
        momentum: weight of the new value in the running statistics; None: the cumulative average of all batches.
        affine: whether γ (`weight`, initially 1) and β (`bias`, initially 0) are learned.
        track_running_stats: whether running statistics are kept; without them evaluation uses the batch as well. Set to
            False later it stops them where they are: training leaves them alone, evaluation uses them.
        dtype: of parameters and statistics.

    Raises:
        ValueError: x has another number of axes or channels, or one value per channel in training. The channels of a
            layer without parameters and statistics are not counted, as in torch.

    Source: Ioffe & Szegedy (2015); names and conventions of `torch.nn.BatchNorm1d`.
    """

    ndims, layout = (2, 3), "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Batch normalization of images (N, C, H, W); the arguments of `BatchNorm1d`."""

    ndims, layout = (4,), "(N, C, H, W)"


class BatchNorm3d(_BatchNorm):
    """Batch normalization of volumes (N, C, D, H, W); the arguments of `BatchNorm1d`."""

    ndims, layout = (5,), "(N, C, D, H, W)"
