"""Convolutional networks in PyTorch, plain and residual, for grey images of 14x14 or 28x28 pixels and ten classes.

The vocabulary is that of `torch_mlp`: two arms of a comparison differ in one argument. After `torch.manual_seed(s)` two
networks that differ in `norm` alone start from the same weights, except where Fixup's rules change them.

A convolution has a bias unless a norm stands before its activation: batch normalization would subtract it again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..functional._checks import check_one_of
from .torch_mlp import SCHEMES, arranged, fixup, initialize, sequence, shift

# What follows a convolution; groups of one channel would be instance normalization.
NORMS: dict[str, Callable[[int], nn.Module | None]] = {
    "none": lambda channels: None,
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(min(8, channels // 2), channels),
}


def vgg(
    norm: str = "batch",
    *,
    width: int = 16,
    init: str | float = "he",
    placement: str = "before",
    dropout: float = 0.0,
    dropout_at: str = "end",
) -> nn.Sequential:
    """Six convolutions of 3x3 with w, w, 2w, 2w, 4w, 4w channels, and Linear from the means of the last to the logits.

    After each convolution norm - ReLU (- dropout), after the second and the fourth max-pooling: (N, 1, 28, 28) becomes
    28, 14 and 7 pixels wide, (N, 1, 14, 14) becomes 14, 7 and 3. A small relative of Simonyan & Zisserman's networks
    (2015, table 1), with global average pooling instead of their fully connected layers.

    Args:
        norm: "batch", "none", "layer" (one mean and variance an image) or "group" (8 groups, 4 of 8 channels).
        width: the number of channels w.
        init: of the weights, see `initialize`.
        placement: the norm "before" or "after" the activation.
        dropout: share of values set to zero after each convolution.
        dropout_at: the "end" of the hidden layer, or right before the "norm".

    Returns:
        layers named conv1, bn1, act1, drop1, conv2, …, pool1, …, pool, flatten, out; the names stay where a layer is
        left out.

    Raises:
        ValueError: an unknown name, or a width that does not fit the norm.
    """
    check_one_of("norm", norm, NORMS)
    _check_width(width, norm)
    channels = (1, width, width, 2 * width, 2 * width, 4 * width, 4 * width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (before, after) in enumerate(pairwise(channels), start=1):
        layers[f"conv{i}"] = _conv(before, after, bias=_biased(norm, placement))
        layers |= arranged(i, NORMS[norm](after), nn.ReLU(), placement, dropout, dropout_at)
        if i in (2, 4):
            layers[f"pool{i // 2}"] = nn.MaxPool2d(2)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "out": nn.Linear(4 * width, 10)}
    return initialize(nn.Sequential(layers), init)


def resnet(
    norm: str = "batch",
    *,
    depth: int = 20,
    width: int = 16,
    init: str | float = "he",
    placement: str = "before",
    dropout: float = 0.0,
    dropout_at: str = "end",
) -> nn.Sequential:
    """The residual network of He et al. (2016, section 4.2): depth - 1 convolutions of 3x3, and Linear to the logits.

    Convolution - norm - ReLU, then three stages of n blocks with w, 2w and 4w channels (see `ResidualBlock`), the mean
    of every channel, and Linear. The second and third stage begin with stride 2: (N, 1, 28, 28) becomes 28, 14 and 7
    pixels wide, (N, 1, 14, 14) becomes 14, 7 and 4.

    Args:
        norm: as in `vgg`; or without normalization, "skipinit", a learned factor on every branch that starts at 0
            (De & Smith 2020), and "fixup", the rules of Zhang et al. (2019, section 3): see `ResidualBlock`.
        depth: 6n + 2 layers, two a block.
        width: the number of channels w.
        init: of the weights, see `initialize`; Fixup's rules come after it.
        placement: the norm "before" or "after" the activation, in the stem and between the convolutions of a block.
        dropout: share of values set to zero between the convolutions of a block, as in Wide ResNets (Zagoruyko &
            Komodakis 2016, section 2.4).
        dropout_at: the "end" of what stands between them, or right before its "norm".

    Returns:
        layers named stem, bn, act, block1, …, pool, flatten, out, and with Fixup shift1, shift2, shift3 before the
        stem, act and out.

    Raises:
        ValueError: an unknown name, a depth that is not 6n + 2, or a width that does not fit the norm.
    """
    check_one_of("norm", norm, (*NORMS, *SCHEMES))
    _check_width(width, norm)
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2 with n from 1, as 8, 14, 20 or 56, got {depth}")
    widths = [width * factor for factor in (1, 2, 4) for _ in range(depth // 6)]
    blocks = {
        f"block{i}": ResidualBlock(before, after, norm, placement, dropout, dropout_at)
        for i, (before, after) in enumerate(pairwise([width, *widths]), start=1)
    }
    model = sequence(
        shift1=shift(norm),
        stem=_conv(1, width, bias=_biased(norm, placement)),
        shift2=shift(norm),
        **arranged("", _norm(norm, width), nn.ReLU(), placement, 0.0, "end"),
        **blocks,
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        shift3=shift(norm),
        out=nn.Linear(4 * width, 10),
    )
    initialize(model, init)
    branches = [block.branch for block in model if isinstance(block, ResidualBlock)]
    return fixup(model, branches) if norm == "fixup" else model


class ResidualBlock(nn.Module):
    r"""ReLU(shortcut(h) + branch(h)), the basic block of He et al. (2016, equation 1 and figure 5, left).

    The branch is convolution - norm - ReLU (- dropout) - convolution - norm, and the first norm may stand behind the
    ReLU. With "skipinit" it is convolution - ReLU -
    convolution - scale, where the scale starts at 0. With "fixup" it is shift - convolution - shift - ReLU - shift -
    convolution - scale - shift: a number that is added before each convolution and activation, and starts at 0, and one
    factor, which starts at 1. In a network of $L$ blocks, $m = 2$ weight layers in each, Fixup then multiplies the
    first weights of a branch by $L^{-1/(2m-2)} = 1/\sqrt{L}$ and sets its last, and those of the classifier, to 0.

    Where the channels become twice as many, the first convolution has stride 2, and so has the shortcut: every second
    pixel, and zeros for the channels that are new. It has no parameters (He et al., section 3.3, option A, which they
    and Zhang et al. use for small images).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        norm: str,
        placement: str = "before",
        dropout: float = 0.0,
        dropout_at: str = "end",
    ) -> None:
        super().__init__()
        stride = 1 if channels == out_channels else 2
        self.branch = sequence(
            shift1=shift(norm),
            conv1=_conv(channels, out_channels, stride, bias=_biased(norm, placement)),
            shift2=shift(norm),
            **arranged(1, _norm(norm, out_channels), nn.ReLU(), placement, dropout, dropout_at),
            shift3=shift(norm),
            conv2=_conv(out_channels, out_channels, bias=_biased(norm, "before")),
            bn2=_norm(norm, out_channels),
            scale=Scale(SCHEMES[norm]) if norm in SCHEMES else None,
            shift4=shift(norm),
        )
        self.shortcut = nn.Identity() if stride == 1 else Shortcut(out_channels - channels)
        self.act = nn.ReLU()

    def forward(self, h: Tensor) -> Tensor:
        return self.act(self.shortcut(h) + self.branch(h))


class Shortcut(nn.Module):
    """(N, C, H, W) to (N, C + new_channels, ⌈H/2⌉, ⌈W/2⌉): every second pixel, then channels of zeros."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, h: Tensor) -> Tensor:
        return nn.functional.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new_channels))


class Scale(nn.Module):
    """y = a x with one learned number a for all values."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def _conv(channels: int, out_channels: int, stride: int = 1, *, bias: bool) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out_channels, 3, stride, padding=1)  # draws a bias for all norms alike
    if not bias:
        layer.bias = None
    return layer


def _biased(norm: str, placement: str) -> bool:
    """Whether a convolution has a bias: not where a norm follows it at once, or Fixup's shifts."""
    return norm in ("none", "skipinit") or (placement == "after" and norm in NORMS)


def _norm(norm: str, channels: int) -> nn.Module | None:
    return NORMS[norm](channels) if norm in NORMS else None


def _check_width(width: int, norm: str) -> None:
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if norm == "group" and width % 8:
        raise ValueError(f"width must be a multiple of 8 with norm group, got {width}")
