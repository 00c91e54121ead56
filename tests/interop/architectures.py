"""Small networks of the kinds that people deploy; every one has its layers of batch normalization folded away."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnbook.models import torch_cnn, torch_conv, torch_mlp


def conv(ins: int, outs: int, size: int = 3, **options) -> nn.Sequential:
    """Convolution, batch normalization, ReLU, as libraries write it."""
    options = {"padding": size // 2, "bias": False, **options}
    return nn.Sequential(nn.Conv2d(ins, outs, size, **options), nn.BatchNorm2d(outs), nn.ReLU(inplace=True))


def up(ins: int, outs: int, **options) -> nn.Sequential:
    """A transposed convolution that doubles the size."""
    layer = nn.ConvTranspose2d(ins, outs, 4, stride=2, padding=1, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outs), nn.ReLU())


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, 10)]


class Inverted(nn.Module):
    """MobileNetV2's block: wide, depthwise, narrow, with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 3 * channels
        narrow = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.body = nn.Sequential(conv(channels, wide, 1), conv(wide, wide, groups=wide), narrow)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Shuffle(nn.Module):
    """ShuffleNet's: grouped convolutions, and channels that change places between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(8, 12, groups=4), conv(12, 8, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.channel_shuffle(self.first(x), 4))


class Inception(nn.Module):
    """Branches that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv(8, 4, 1), nn.Sequential(conv(8, 4, 1), conv(4, 6)), conv(8, 4, 5)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.low, self.up, self.out = conv(1, 4), conv(4, 8, stride=2), up(8, 4), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        return self.out(torch.cat([fine, self.up(self.low(fine))], 1))


class Siamese(nn.Module):
    """One trunk for two images: its convolutions and its layers are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv(1, 4), conv(4, 4, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x) - self.trunk(x.flip(-1))


class SqueezeExcite(nn.Module):
    """The output of a layer in two places, which is no obstacle: that of the convolution is in one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(8, 8)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x * torch.sigmoid(self.gate(x))


class Pyramid(nn.Module):
    """As in detection: heads with shared convolutions, a layer of their own on each scale would be refused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.head = conv(1, 8), conv(8, 8, stride=2), conv(8, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        return [self.head(fine), self.head(self.down(fine))]


def generator() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Unflatten(1, (16, 1, 1)),
                         up(16, 8), up(8, 8, groups=4), nn.ConvTranspose2d(8, 1, 4, 2, 1))  # fmt: skip


def video() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3)), nn.BatchNorm3d(4), nn.ReLU(),
                         nn.ConvTranspose3d(4, 2, (2, 2, 2), bias=False), nn.BatchNorm3d(2))  # fmt: skip


def speech() -> nn.Module:
    layers = [nn.Conv1d(14, 14, 3, groups=14), nn.Conv1d(14, 8, 1, bias=False), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(nn.Flatten(1, 2), *layers, nn.ConvTranspose1d(8, 4, 2), nn.BatchNorm1d(4))


def depthwise_multiplied() -> nn.Module:
    return nn.Sequential(conv(1, 4), conv(4, 12, groups=4), nn.ConvTranspose2d(12, 12, 2, 2, groups=12),
                         nn.BatchNorm2d(12), *head(12))  # fmt: skip


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "the book's network": lambda: torch_cnn.cnn(image_size=14),
    "fully connected": lambda: torch_mlp.mlp(widths=(16, 12), in_features=196),
    "VGG": lambda: torch_conv.vgg(width=4),
    "ResNet": lambda: torch_conv.resnet(depth=8, width=4),
    "MobileNetV2": lambda: nn.Sequential(conv(1, 8, stride=2), Inverted(8), Inverted(8), *head(8)),
    "ShuffleNet": lambda: nn.Sequential(conv(1, 8), Shuffle(), *head(8)),
    "Inception": lambda: nn.Sequential(conv(1, 8), Inception(), *head(14)),
    "U-Net": UNet,
    "generator": generator,
    "Siamese": Siamese,
    "squeeze and excite": lambda: nn.Sequential(conv(1, 8), SqueezeExcite(), *head(8)),
    "feature pyramid": Pyramid,
    "video": video,
    "speech": speech,
    "depthwise, transposed": depthwise_multiplied,
}
