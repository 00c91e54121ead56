"""What the check-up calls foldable, `bnbook.interop.fold` folds."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnbook.checkup import checkup
from bnbook.interop import fold
from bnbook.interop.torch_folding import why_hooked
from tests.checkup import models
from tests.checkup.faults import FAULTS
from tests.checkup.test_pairs import Plain, network
from tests.interop.architectures import ARCHITECTURES


class Same(nn.Conv2d):
    """A convolution of another class, as libraries of image models have it: it pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, [0, 1, 0, 1]), self.weight, self.bias, self.stride)


class Standardized(nn.Conv2d):
    """Weight standardization: a scale in the weights is lost."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / w.std((1, 2, 3), keepdim=True), self.bias)


class Auxiliary(nn.Module):
    """The convolution's output is a second output of the model."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.bn(y), y


def between(layer: nn.Module) -> nn.Module:
    """Something that does nothing in evaluation stands between the two."""
    body = [nn.Conv2d(1, 8, 3, bias=False), layer, nn.BatchNorm2d(8), nn.ReLU()]
    return models.trained(nn.Sequential(*body, *models.head(8)))


def own(conv: nn.Module) -> nn.Module:
    return models.trained(nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), *models.head(8)))


class Contiguous(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous().float()


SPECIAL: dict[str, Callable[[], nn.Module]] = {
    "a convolution of another class": lambda: own(Same(1, 8, 3)),
    "dropout between": lambda: between(nn.Dropout(0.5)),
    "the identity between": lambda: between(nn.Identity()),
    "methods between": lambda: between(Contiguous()),
}
NOT: dict[str, Callable[[], nn.Module]] = {
    "standardized weights": lambda: own(Standardized(1, 8, 3)),
    "a second output": lambda: models.trained(Auxiliary(), loss=lambda out, x, y: (out[0] ** 2).mean()),
    "a ReLU in place between": lambda: between(nn.ReLU(inplace=True)),
}


def called_foldable(model: nn.Module, given: list[Tensor]) -> tuple[int, set[str], str]:
    """(how many pairs, the layers that are named, the codes)."""
    found = [f for f in checkup(model, given).findings if f.code in ("BN501", "BN502", "BN503")]
    good = [f for f in found if f.code != "BN502"]
    named = {
        layer for f in good if f.code == "BN501" for layer in re.findall(r" and (\S+?)(?:,|$| and so on)", f.message)
    }
    return sum(int(f.value) for f in good), named | {f.layer for f in good}, " ".join(f.code for f in found)


def folds_all(model: nn.Module, given: list[Tensor]) -> int:
    number, named, _ = called_foldable(model, given)
    if number:
        _, report = fold(model.eval(), given[0])
        assert named <= set(report.folded) and number <= len(report.folded), report
    return number


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name):
    torch.manual_seed(0)
    model = ARCHITECTURES[name]()
    x = models.batches(2)
    for part in x * 3:
        model(part)  # moves the statistics
    number = folds_all(model, x)
    assert number or name in ("Siamese", "feature pyramid")  # layers called twice, of which the check-up says no more


@pytest.mark.long
@pytest.mark.parametrize("name", models.HEALTHY)
def test_healthy_models(name):
    folds_all(models.HEALTHY[name](), models.batches(2))


@pytest.mark.parametrize("name", [name for name, (code, _) in FAULTS.items() if code in ("BN501", "BN503")])
def test_pairs_that_the_catalogue_plants(name):
    model, given, _ = FAULTS[name][1]()
    assert folds_all(model, given)


@pytest.mark.parametrize("name", SPECIAL)
def test_what_stands_between_or_is_of_another_class(name):
    assert folds_all(SPECIAL[name](), models.batches(2)) == 1


@pytest.mark.parametrize("name", NOT)
def test_what_neither_calls_foldable(name):
    model = NOT[name]()
    assert "BN501" not in called_foldable(model, models.batches(2))[2]
    with pytest.raises(ValueError, match="nothing can be folded"):
        fold(model.eval(), models.batches(1)[0])


def test_one_that_folds_beside_one_that_does_not():
    """Both are tried together first; what that changed is put back before each is tried alone."""
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
    model = models.trained(nn.Sequential(*body, Auxiliary(4)), loss=lambda out, x, y: (out[0] ** 2).mean())
    assert called_foldable(model, models.batches(2)) == (1, {"1"}, "BN501 BN502")
    assert folds_all(model, models.batches(2)) == 1


def test_layers_of_another_class():
    x = [torch.randn(16, 3, 6, 6)]
    for model in (network(norm=Plain), network(after=models.FrozenBatchNorm)):
        assert folds_all(model, x) == 1


def test_hooks_keep_a_pair_apart():
    model = own(nn.Conv2d(1, 8, 3))
    model[0].register_forward_hook(lambda module, inputs, output: None)
    assert why_hooked(model[0]) and called_foldable(model, models.batches(2))[2] == "BN502"
    with pytest.raises(ValueError, match="has hooks"):
        fold(model.eval(), models.batches(1)[0])
