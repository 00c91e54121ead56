"""Healthy models of many kinds, trained for a moment on Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnbook import data
from bnbook.models import torch_cnn

BATCH, STEPS = 64, 60


@cache
def images(split: str, number: int) -> tuple[Tensor, Tensor]:
    """Standardized images at half the size, (N, 1, 14, 14), and their classes."""
    x, y = data.load(split, subset=True)
    x = torch.from_numpy(data.to_input(x[:number]))
    return F.avg_pool2d(x.reshape(-1, 1, 28, 28).float(), 2), torch.from_numpy(y[:number].astype("int64"))


def batches(number: int = 3, size: int = BATCH) -> list[Tensor]:
    """Of images that no model was trained on."""
    return list(images("val", number * size)[0].split(size))


def trained(
    model: nn.Module,
    steps: int = STEPS,
    *,
    size: int = BATCH,
    lr: float = 0.05,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda output, x, y: F.cross_entropy(output, y),
) -> nn.Module:
    """The model after some steps of SGD."""
    x, y = images("train", BATCH * STEPS)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr, momentum=0.9)
    for step in range(steps):
        at = torch.arange(step * size, (step + 1) * size) % len(x)
        optimizer.zero_grad()
        loss(model(x[at]), x[at], y[at]).backward()
        optimizer.step()
    return model


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def stem(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]


def residual() -> nn.Module:
    return nn.Sequential(*stem(16), Block(16), Block(16), *head(16))


def mobile() -> nn.Module:
    depthwise = [nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    pointwise = [nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    return nn.Sequential(*stem(16), *depthwise, *pointwise, *head(32))


class Transformer(nn.Module):
    """Rows of the image are the tokens; one batch normalization of the embeddings, (N, C, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(14, 32), nn.BatchNorm1d(32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x.squeeze(1)).transpose(1, 2)).transpose(1, 2)
        return self.out(self.layer(tokens).mean(1))


class Dense(nn.Module):
    """Pre-activation, with concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (8, 16, 24))
        self.convs = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1, bias=False) for c in (8, 16))
        self.out = nn.Sequential(*head(24))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.out(F.relu(self.norms[2](x)))


def one_dimensional() -> nn.Module:
    body = [nn.Flatten(2), nn.Conv1d(1, 16, 9, stride=2, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(64, 10))


def three_dimensional() -> nn.Module:
    body = [nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 8, (1, 3, 3), bias=False), nn.BatchNorm3d(8), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(64, 10))


def autoencoder() -> nn.Module:
    down = [nn.Conv2d(1, 16, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    up = [nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Upsample(scale_factor=2)]
    return nn.Sequential(*down, *up, nn.Conv2d(16, 1, 3, padding=1))


def rebuilt(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(output, x)


class UNet(nn.Module):
    """Down, up by a transposed convolution, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Sequential(*stem(8)), nn.Sequential(nn.MaxPool2d(2), *twice(8, 16))
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.out = nn.Sequential(*twice(16, 8), nn.Conv2d(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        across = self.down(x)
        return self.out(torch.cat([across, self.up(self.deep(across))], 1))


def twice(channels: int, wider: int) -> list[nn.Module]:
    first = [nn.Conv2d(channels, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]
    return [*first, nn.Conv2d(wider, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]


def foreground(output: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, (x > x.min()).float())


class Recurrent(nn.Module):
    """A convolution, then an LSTM along the width; one layer for its outputs, (N, C, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*stem(8), nn.MaxPool2d((2, 1)))
        self.lstm, self.norm, self.out = nn.LSTM(56, 24, batch_first=True), nn.BatchNorm1d(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.body(x).flatten(1, 2).transpose(1, 2)
        return self.out(self.norm(self.lstm(columns)[0].transpose(1, 2)).mean(2))


class Segmentation(nn.Module):
    """Which pixels are no background: two images a batch, normalized by statistics that are frozen on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*stem(16), *Block(16).children())
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        stem, block = self.body[:3], list(self.body[3:])
        x = stem(x)
        return {"mask": self.out(F.relu(x + block[3](block[1](F.relu(block[2](block[0](x)))))))}


def segmented(output: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output["mask"], (x > x.min()).float())


def segmentation() -> nn.Module:
    model = trained(Segmentation(), loss=segmented)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return trained(model, 5, size=2, lr=0.01, loss=segmented)


def dropout_at_the_end() -> nn.Module:
    layers = [*stem(16), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 64, bias=False), nn.BatchNorm1d(64)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))


class FrozenBatchNorm(nn.Module):
    """As in detection: four buffers, no parameters, one mode."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def detector() -> nn.Module:
    model = trained(residual())
    model[1] = FrozenBatchNorm(model[1])
    return model


def normalized_by_groups() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), *head(16))


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "the book's network": lambda: trained(torch_cnn.cnn(image_size=14)),
    "fully connected": lambda: trained(mlp()),
    "residual": lambda: trained(residual()),
    "mobile": lambda: trained(mobile()),
    "transformer with one": lambda: trained(Transformer()),
    "dense": lambda: trained(Dense()),
    "one-dimensional": lambda: trained(one_dimensional()),
    "three-dimensional": lambda: trained(three_dimensional()),
    "autoencoder": lambda: trained(autoencoder(), loss=rebuilt),
    "U-Net": lambda: trained(UNet(), lr=0.02, loss=foreground),
    "convolution and LSTM": lambda: trained(Recurrent()),
    "segmentation, frozen, batch of two": segmentation,
    "dropout at the end": lambda: trained(dropout_at_the_end()),
    "detector with frozen constants": detector,
    "group normalization": lambda: trained(normalized_by_groups()),
}
