"""Fully connected networks in PyTorch, plain and residual: what the experiments of Part III train.

One vocabulary for all of them, so that two arms of a comparison differ in one argument. Layers that normalize draw no
random numbers: after `torch.manual_seed(s)` two networks that differ in `norm` alone start from the same weights.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..functional._checks import check_one_of

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "linear": nn.Identity}
NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "group": lambda width: nn.GroupNorm(8, width),
}
SCHEMES = {"skipinit": 0.0, "fixup": 1.0}  # what residual networks may have instead of a norm: α starts there
INITS = ("default", "he", "xavier", "orthogonal")
PLACEMENTS = ("before", "after")
DROPOUT_PLACES = ("end", "norm")


def mlp(
    norm: str = "batch",
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    init: str | float = "default",
    placement: str = "before",
    dropout: float = 0.0,
    dropout_at: str = "end",
    in_features: int = 784,
    out_features: int = 10,
) -> nn.Sequential:
    """Flatten, then per width Linear - norm - activation (- dropout), then Linear to the logits.

    Args:
        norm: "batch", "none", "layer" or "group" (8 groups).
        widths: of the hidden layers.
        activation: "relu", "tanh", "sigmoid" or "linear".
        init: of the weights, see `initialize`.
        placement: the norm "before" or "after" the activation.
        dropout: share of values set to zero in each hidden layer.
        dropout_at: the "end" of the hidden layer, or right before the "norm".

    Returns:
        layers named flatten, fc1, bn1, act1, drop1, fc2, …, out; the names stay where a layer is left out.

    Raises:
        ValueError: an unknown name.
    """
    check_one_of("norm", norm, NORMS)
    check_one_of("activation", activation, ACTIVATIONS)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (before, width) in enumerate(zip((in_features, *widths), widths, strict=False), start=1):
        layers[f"fc{i}"] = nn.Linear(before, width)
        layers |= arranged(i, _norm(norm, width), ACTIVATIONS[activation](), placement, dropout, dropout_at)
    layers["out"] = nn.Linear((in_features, *widths)[-1], out_features)
    return initialize(nn.Sequential(layers), init)


def arranged(
    i: int | str, norm: nn.Module | None, activation: nn.Module, placement: str, dropout: float, dropout_at: str
) -> dict[str, nn.Module]:
    """What follows the weights of hidden layer i, in order: bn, act and drop; no norm and no dropout are left out.

    Raises:
        ValueError: an unknown placement or dropout_at.
    """
    check_one_of("placement", placement, PLACEMENTS)
    check_one_of("dropout_at", dropout_at, DROPOUT_PLACES)
    normalize = [(f"bn{i}", norm)] if norm is not None else []
    act = [(f"act{i}", activation)]
    drop = [(f"drop{i}", nn.Dropout(dropout))] if dropout else []
    if dropout_at == "norm":
        normalize, drop = drop + normalize, []
    return dict((normalize + act if placement == "before" else act + normalize) + drop)


class Shift(nn.Module):
    """y = x + b with one learned number b for all values, which starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bias


def shift(norm: str) -> Shift | None:
    """What Fixup adds before a layer of weights or an activation; other arms have nothing there."""
    return Shift() if norm == "fixup" else None


def sequence(**layers: nn.Module | None) -> nn.Sequential:
    """The layers under their names, without those that are None."""
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


class Block(nn.Module):
    r"""A pre-activation residual block of two layers: h + α · Linear(ReLU(norm(Linear(ReLU(norm(h)))))).

    α is 1, or with norm "skipinit" a learned number that starts at 0 (De & Smith 2020), with "fixup" one that starts at
    1; a `Shift` then stands before each Linear and each ReLU, and no Linear has a bias (Zhang et al. 2019).
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.branch = sequence(
            bn1=_norm(norm, width), shift1=shift(norm), act1=nn.ReLU(),
            shift2=shift(norm), fc1=_linear(width, width, norm),
            bn2=_norm(norm, width), shift3=shift(norm), act2=nn.ReLU(),
            shift4=shift(norm), fc2=_linear(width, width, norm),
        )  # fmt: skip
        self.alpha = nn.Parameter(torch.tensor(SCHEMES[norm])) if norm in SCHEMES else None

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        branch = self.branch(h)
        return h + (branch if self.alpha is None else self.alpha * branch)


def _norm(norm: str, width: int) -> nn.Module | None:
    return NORMS[norm](width) if NORMS.get(norm) else None


def _linear(before: int, width: int, norm: str) -> nn.Linear:
    layer = nn.Linear(before, width)  # draws a bias for all norms alike
    if norm == "fixup":
        layer.bias = None
    return layer


def residual_mlp(
    norm: str = "batch",
    *,
    depth: int = 20,
    width: int = 128,
    init: str | float = "he",
    in_features: int = 784,
    out_features: int = 10,
) -> nn.Sequential:
    """Flatten - Linear - depth/2 residual blocks of two layers - norm - ReLU - Linear to the logits.

    Args:
        norm: as in `mlp`; or, without normalization, "skipinit" or "fixup": see `Block` and `fixup`.
        depth: number of hidden layers inside the blocks, even.
        init: of the weights, see `initialize`; Fixup's rules come after it.

    Raises:
        ValueError: an unknown name, or an odd depth.
    """
    check_one_of("norm", norm, (*NORMS, *SCHEMES))
    if depth < 2 or depth % 2:
        raise ValueError(f"depth must be even and at least 2, two layers a block, got {depth}")
    model = sequence(
        flatten=nn.Flatten(),
        shift1=shift(norm),
        stem=_linear(in_features, width, norm),
        **{f"block{i}": Block(width, norm) for i in range(1, depth // 2 + 1)},
        bn=_norm(norm, width),
        shift2=shift(norm),
        act=nn.ReLU(),
        shift3=shift(norm),
        out=nn.Linear(width, out_features),
    )
    initialize(model, init)
    return fixup(model, [block.branch for block in model if isinstance(block, Block)]) if norm == "fixup" else model


@torch.no_grad()
def fixup(model: nn.Sequential, branches: Sequence[nn.Sequential]) -> nn.Sequential:
    r"""The first two rules of Zhang et al. (2019, section 3), on initialized weights; the third is `Shift` and α.

    With $L$ branches of $m$ layers of weights each, those but a branch's last are multiplied by $L^{-1/(2m-2)}$; its
    last, and `model.out`, become 0.

    Returns:
        the same model.
    """
    for branch in branches:
        *weights, last = [layer.weight for layer in branch if isinstance(layer, nn.Linear | nn.Conv2d)]
        for weight in weights:
            weight *= len(branches) ** (-1 / (2 * len(weights)))  # m - 1 of its m weight layers are not the last
        nn.init.zeros_(last)
    nn.init.zeros_(model.out.weight)
    nn.init.zeros_(model.out.bias)
    return model


def scalars(model: nn.Module) -> list[nn.Parameter]:
    """The learned numbers that stand for all values: those of `Shift`, and the factors of branches."""
    return [parameter for parameter in model.parameters() if parameter.ndim == 0]


@torch.no_grad()
def initialize(model: nn.Module, init: str | float) -> nn.Module:
    r"""Draw the weights of every Linear and Conv2d layer anew, biases 0; "default" keeps PyTorch's own.

    Args:
        init: "he" ($\sigma^2 = 2/n_{in}$, He et al. 2015), "xavier" ($2/(n_{in}+n_{out})$, Glorot & Bengio 2010), both
            Gaussian; "orthogonal"; or a number, the standard deviation of a Gaussian; "default" is uniform with
            $\sigma^2 = 1/(3 n_{in})$, biases too.

    Returns:
        the same model.

    Raises:
        ValueError: an unknown name, or a number that is not positive.
    """
    if isinstance(init, str):
        check_one_of("init", init, INITS)
    elif not (math.isfinite(init) and init > 0):
        raise ValueError(
            f"init must be one of {', '.join(map(repr, INITS))} or a positive standard deviation, got {init!r}"
        )
    if init == "default":
        return model
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if init == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            elif init == "xavier":
                nn.init.xavier_normal_(layer.weight)
            elif init == "orthogonal":
                nn.init.orthogonal_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=init)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model
