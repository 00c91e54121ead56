"""Batch normalization whose statistics come from fewer images than the batch, from more, or from none of them.

The output is the same function of mean and variance in all of them; what differs is how noisy those two are in
training. With `exact_statistics` all of them end in the same evaluation mode. Chapter 15 trains them side by side.
Batch Renormalization, which corrects the statistics of a batch by the running ones, is at work in chapter 19.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _OfRows(nn.BatchNorm1d):
    """Batch normalization whose training mode has statistics of `size` rows; those of evaluation stay as they are."""

    def __init__(self, num_features: int, size: int) -> None:
        super().__init__(num_features)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.normalized(x) if self.training else super().forward(x)

    def normalized(self, x: Tensor) -> Tensor:
        """The output in training."""
        raise NotImplementedError


class GhostBatchNorm1d(_OfRows):
    """Batch normalization with the statistics of every `size` rows by themselves (Hoffer et al. 2017).

    Running statistics are left alone in training: see `exact_statistics`.

    Raises:
        ValueError: in training, a batch that is not made of whole groups of `size`.
    """

    def normalized(self, x: Tensor) -> Tensor:
        if len(x) % self.size:
            raise ValueError(f"x must have a multiple of {self.size} rows in training, got {len(x)}")
        ghosts = len(x) // self.size
        rows = x.view(ghosts, self.size, -1).transpose(0, 1).reshape(self.size, -1)  # a column per ghost and feature
        scaled = F.batch_norm(
            rows, None, None, self.weight.repeat(ghosts), self.bias.repeat(ghosts), training=True, eps=self.eps
        )
        return scaled.view(self.size, ghosts, -1).transpose(0, 1).reshape(x.shape)


class FrozenBatchNorm1d(nn.BatchNorm1d):
    """The evaluation mode in training too: the running statistics are constants."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, eps=self.eps)


class WholeSetBatchNorm1d(_OfRows):
    """In training the mean and variance are those of the last `size` rows, for all rows; for `WholeSet`."""

    def normalized(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x[-self.size :], 0, correction=0)
        scale = self.weight * torch.rsqrt(var + self.eps)  # torch's own function has no gradient for given statistics
        return torch.addcmul(self.bias - mean * scale, x, scale)


class WholeSet(nn.Module):
    """A network of `WholeSetBatchNorm1d` layers whose statistics in training are those of the whole training set.

    They are computed anew at every step, and the gradient goes through them: batch normalization without its noise.
    The loss is still that of the batch. Every step costs a pass over the training set.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.network, self.images = network, images

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.cat([x, self.images]))[: len(x)] if self.training else self.network(x)


class BatchRenorm(nn.Module):
    r"""Batch Renormalization (Ioffe 2017, algorithm 1), of images or of rows.

    $y = \gamma\,(r\,\hat{x} + d) + \beta$ in training, with
    $r = \mathrm{clip}(\sigma/\bar\sigma,\ 1/r_{max},\ r_{max})$ and
    $d = \mathrm{clip}((\mu - \bar\mu)/\bar\sigma,\ -d_{max},\ d_{max})$. Unclipped, that is
    $\gamma\,(x - \bar\mu)/\bar\sigma + \beta$, the output of evaluation. No gradient goes through r and d: they are
    constants, so that the gradient is that of batch normalization, times r. As in the paper it is the standard
    deviation that is averaged, σ = √(biased variance + ε), not the variance.

    Args:
        num_features: channels C of (N, C) or (N, C, H, W).
        momentum: the weight α of the new value in both running statistics.
        r_max, d_max: the limits after the ramp.
        warmup: so many batches with r = 1 and d = 0: batch normalization, until the statistics have left their start.
        ramp: the limits then grow linearly, up to `r_max` and `d_max` after so many more batches.

    The paper ramps the two limits at different speeds.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.01,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup: int = 0,
        ramp: int = 0,
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_std", torch.ones(num_features))
        self.eps, self.momentum, self.r_max, self.d_max = eps, momentum, r_max, d_max
        self.warmup, self.ramp = warmup, ramp
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def limits(self) -> tuple[float, float]:
        """r_max and d_max for the next batch."""
        after = int(self.num_batches_tracked) - self.warmup
        share = 0.0 if after < 0 else min(1.0, (after + 1) / (self.ramp + 1))
        return 1 + share * (self.r_max - 1), share * self.d_max

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))  # of a value per channel
        if not self.training:
            scale = self.weight / self.running_std
            shift = self.bias - self.running_mean * scale
            return torch.addcmul(shift.view(shape), x, scale.view(shape))
        x_hat = F.batch_norm(x, None, None, training=True, eps=self.eps)
        with torch.no_grad():
            var, mean = torch.var_mean(x, (0, *range(2, x.ndim)), correction=0)
            std = torch.sqrt(var + self.eps)
            r_max, d_max = self.limits()
            r = (std / self.running_std).clamp(1 / r_max, r_max)
            d = ((mean - self.running_mean) / self.running_std).clamp(-d_max, d_max)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_std.lerp_(std, self.momentum)
            self.num_batches_tracked += 1
        scale, shift = self.weight * r, torch.addcmul(self.bias, self.weight, d)
        return torch.addcmul(shift.view(shape), x_hat, scale.view(shape))


@torch.no_grad()
def exact_statistics(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Set the running statistics of every normalization, first to last, to those of `x` in evaluation mode.

    Args:
        x: training images, all of them.

    Returns:
        the same model, in evaluation mode.
    """
    model.eval()
    for layer in model:
        if isinstance(layer, nn.BatchNorm1d):
            var, mean = torch.var_mean(x, 0, correction=0)
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(var)
        x = layer(x)
    return model
