"""Batch normalization whose statistics come from fewer images than the batch, from more, or from none of them.

The output is the same function of mean and variance in all of them; what differs is how noisy those two are in
training. With `exact_statistics` all of them end in the same evaluation mode. Chapter 15 trains them side by side.
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
