"""Folding: the same outputs with fewer layers, or an error that names the layer and a model as it was."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.nn import functional as TF

import bnbook.nn
from bnbook import interop
from bnbook.interop.folding import compared, fold, into_next, into_previous, scale_and_shift
from bnbook.kernels.sync_batch_norm import SyncBatchNorm


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and evaluation, every number of batch normalization random, also negative γ and small variances."""
    torch.manual_seed(seed)
    for parameter in model.double().parameters():
        parameter.data *= 0.5 + torch.rand_like(parameter)  # float32 could not hold them
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            if module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.01, 2)
    return model.eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


# --- models ----------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return TF.relu(x + self.bn2(self.conv2(TF.relu(self.bn1(self.conv1(x)), inplace=True))))


class SharedNorm(nn.Module):
    """One layer of batch normalization behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.bn = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.left(x)) * self.bn(self.right(x))


class Recurrent(nn.Module):
    """The same convolution and the same layer, three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.bn(self.conv(x)))
        return x


class Tied(nn.Module):
    """Two convolutions with one weight, only one of them with batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv.weight = self.plain.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + self.bn(self.conv(x))


class Undecided(nn.Module):
    """Its way depends on the values, which `torch.fx` cannot follow."""

    def __init__(self, skip: bool = False) -> None:
        super().__init__()
        self.conv, self.bn, self.skip = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x if x.sum() > 0 else -x)
        return self.bn(y) + y if self.skip else self.bn(y)


class Optional(nn.Module):
    """A branch for an argument that is most often left out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y if more is None else self.bn(y) + more


IMAGES, ROWS = (5, 3, 8, 7), (5, 6)
FOLDABLE = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), IMAGES, {"1": ("0",)}),
    "conv without bias": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
        IMAGES,
        {"1": ("0",)},
    ),
    "without affine": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
        IMAGES,
        {"1": ("0",)},
    ),
    "padded": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)), IMAGES, {"1": ("0",)}),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), IMAGES, {"1": ("0",)}),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3)), IMAGES, {"1": ("0",)}),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2), nn.BatchNorm2d(4)), IMAGES, {"1": ("0",)}),
    "transposed square": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 3), nn.BatchNorm2d(3)), IMAGES, {"1": ("0",)}),
    "transposed grouped": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
        IMAGES,
        {"1": ("0",)},
    ),
    "one-dimensional": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (5, 3, 9), {"1": ("0",)}),
    "three-dimensional": (lambda: nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4)), (2, 3, 4, 5, 3), {"1": ("0",)}),
    "synchronized": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), IMAGES, {"1": ("0",)}),
    "synchronized, ours": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), SyncBatchNorm(4)), IMAGES, {"1": ("0",)}),
    "fully connected": (
        lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
        ROWS,
        {"1": ("0",)},
    ),
    "residual": (
        lambda: nn.Sequential(Residual(), Residual()),
        IMAGES,
        {"0.bn1": ("0.conv1",), "0.bn2": ("0.conv2",), "1.bn1": ("1.conv1",), "1.bn2": ("1.conv2",)},
    ),
    "shared normalization": (SharedNorm, IMAGES, {"bn": ("left", "right")}),
    "recurrent": (Recurrent, IMAGES, {"bn": ("conv",)}),
    "tied": (Tied, IMAGES, {"bn": ("conv",)}),
    "cannot be traced": (Undecided, IMAGES, {"bn": ("conv",)}),
    "forward": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), IMAGES, {"0": ("1",)}),
    "forward grouped": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, groups=3)), IMAGES, {"0": ("1",)}),
    "forward reflected": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
        IMAGES,
        {"0": ("1",)},
    ),
    "forward linear": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 2)), ROWS, {"1": ("2",)}),
    "both ways": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        IMAGES,
        {"0": ("1",), "2": ("1",)},
    ),
}


@pytest.mark.parametrize("case", FOLDABLE)
def test_the_outputs_are_the_same_and_the_model_as_it_was(case):
    make, shape, expected = FOLDABLE[case]
    model = lively(make())
    x = torch.randn(shape, dtype=torch.float64)
    before, kept = model(x), state(model)
    folded, report = fold(model, x)
    assert report.folded == expected and report.kept == {}
    assert unchanged(model, kept) and torch.equal(model(x), before)
    # The first image is the example; another one, another size.
    other = torch.randn_like(x)[:3]
    for given in (x, other):
        with torch.no_grad():
            whole, now = model(given), folded(given)
        assert (now - whole).abs().max() <= 1e-12 * whole.abs().max()
    names = {type(module).__name__ for module in folded.modules()}
    assert not any("BatchNorm" in name for name in names)
    assert not any(module.training for module in folded.modules())
    assert [p.requires_grad for p in folded.parameters()] == [True] * len(list(folded.parameters()))


@pytest.mark.parametrize("case", [case for case in FOLDABLE if case != "cannot be traced"])
def test_without_an_example(case):
    make, shape, expected = FOLDABLE[case]
    model = lively(make())
    if "linear" in case or "fully" in case:
        with pytest.raises(ValueError, match="pass an example"):
            fold(model)
        return
    folded, report = fold(model)
    assert report.folded == expected and report.difference is None
    x = torch.randn(shape, dtype=torch.float64)
    assert (folded(x) - model(x)).abs().max() <= 1e-12 * model(x).abs().max()


class TwoConsumers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class TwoNorms(nn.Module):
    """torch.fx's own fuse folds it and is wrong: https://github.com/pytorch/pytorch/issues/104593."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.conv(x)) * self.second(self.conv(x + 1))


class ByHand(nn.Module):
    """The weights are used once more, without the layer that holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + TF.conv2d(x, self.conv.weight)


class Halved(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


class Tripled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def with_hook() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda module, inputs, output: output.abs())
    return model


def parametrized() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4))


def in_training() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()


REFUSED = {
    "second consumer": (TwoConsumers, IMAGES, "conv is used elsewhere as well"),
    "second consumer, not traced": (lambda: Undecided(skip=True), IMAGES, "is used elsewhere as well"),
    "one convolution, two layers": (TwoNorms, IMAGES, "the output of conv goes to second as well"),
    "optional branch": (Optional, IMAGES, "conv is used elsewhere as well"),
    "weights by hand": (ByHand, IMAGES, "the output of conv is used elsewhere"),
    "another axis": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)),
        (5, 6, 6),
        "the channels are on axis 1",
    ),
    "activation between": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        IMAGES,
        "no convolution or fully",
    ),
    "zero padding behind": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)),
        IMAGES,
        "pads with zeros",
    ),
    "same padding behind": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding="same")),
        IMAGES,
        "pads with zeros",
    ),
    "transposed behind": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 3)), IMAGES, "transposed"),
    "no statistics": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        IMAGES,
        "no running statistics",
    ),
    "another convolution": (lambda: nn.Sequential(Halved(3, 4, 3), nn.BatchNorm2d(4)), IMAGES, "a Halved, computes in"),
    "another normalization": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Tripled(4)), IMAGES, "a Tripled computes in"),
    "hooks": (with_hook, IMAGES, "hooks"),
    "parametrized": (parametrized, IMAGES, "computes in a way of its own"),
    "no batch normalization": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), IMAGES, "no such layer"),
    "no axis of examples": (
        lambda: nn.Sequential(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5)),
        (3, 7),
        "no axis of examples",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_is_refused_by_name(case):
    make, shape, words = REFUSED[case]
    model = lively(make())
    x, before = torch.randn(shape, dtype=torch.float64), state(model)
    output = model(x)
    with pytest.raises(ValueError, match="nothing can be folded") as error:
        fold(model, x)
    assert words in str(error.value)
    assert unchanged(model, before) and torch.equal(model(x), output)


def test_a_layer_in_training_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = state(model)
    with pytest.raises(ValueError, match=r"1: it is in training mode, call eval\(\) first"):
        fold(model, torch.randn(IMAGES))
    assert unchanged(model, before) and model.training


def test_what_is_kept_is_named_beside_what_is_folded():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good, self.bad = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)), TwoConsumers()

        def forward(self, x: Tensor) -> Tensor:
            return self.bad(torch.relu(self.good(x)))

    model, x = lively(Both()), torch.randn(IMAGES, dtype=torch.float64)
    folded, report = fold(model, x)
    assert report.folded == {"good.1": ("good.0",)} and list(report.kept) == ["bad.bn"]
    assert "good.1: folded into good.0" in str(report) and "bad.bn: kept, the output of bad.conv" in str(report)
    assert isinstance(folded.bad.bn, nn.BatchNorm2d) and torch.allclose(folded(x), model(x), rtol=0, atol=1e-12)


def test_an_untrained_network_shows_a_second_consumer_too():
    """γ = 1, β = 0, μ̄ = 0, σ̄² = 1: folded or not, the outputs are nearly the same; the trial draws its own."""
    x = torch.randn(IMAGES)
    with pytest.raises(ValueError, match="used elsewhere"):
        fold(Undecided(skip=True).eval(), x)


def test_arguments_by_name_and_several():
    model = lively(Optional())
    x, more = torch.randn(2, *IMAGES, dtype=torch.float64)
    for example in ((x, more), {"x": x, "more": more}):
        folded, report = fold(model, example)
        assert report.folded == {"bn": ("conv",)}
        assert torch.allclose(folded(x, more), model(x, more), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept(dtype):
    model = lively(FOLDABLE["conv"][0]()).to(dtype)
    folded, report = fold(model, torch.randn(IMAGES, dtype=dtype))
    assert {p.dtype for p in folded.parameters()} == {dtype}
    assert report.difference < {torch.float32: 1e-5}.get(dtype, 0.05)


def test_memory_order_and_frozen_weights_are_kept():
    model = lively(FOLDABLE["conv"][0]()).to(memory_format=torch.channels_last).requires_grad_(False)
    folded, _ = fold(model)
    assert folded[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(p.requires_grad for p in folded.parameters())


class Constants(nn.Module):
    """As in detection: no class of torch's, no eps, far from zero; its scale and shift have to be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", 1e3 + torch.arange(4.0))
        self.register_buffer("running_var", torch.tensor([0.01, 0.1, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return 3 - (x - self.running_mean.reshape(shape)) / (self.running_var.reshape(shape) + 1e-3).sqrt()


class Activated(Constants):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class PadsItself(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return TF.conv2d(TF.pad(x, [0, 1, 0, 1]), self.weight, self.bias)


class PadsOddSizes(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return TF.conv2d(TF.pad(x, [0, x.shape[-1] % 2, 0, 0]), self.weight, self.bias)


@pytest.mark.parametrize(("first", "shape"), [(nn.Conv2d(3, 4, 3), IMAGES), (nn.Linear(6, 4), ROWS)])
def test_a_layer_of_another_class_is_measured(first, shape):
    model = lively(nn.Sequential(first, Constants()))
    x = torch.randn(shape, dtype=torch.float64)
    folded, report = fold(model, x)
    assert report.folded == {"1": ("0",)}
    other = torch.randn_like(x)
    assert (folded(other) - model(other)).abs().max() <= 1e-10 * model(other).abs().max()
    with pytest.raises(ValueError, match="1: a Constants computes in a way of its own: pass an example"):
        fold(model)
    with pytest.raises(ValueError, match="1: a Activated computes in a way of its own"):
        fold(lively(nn.Sequential(first, Activated())), x)


def test_weights_of_another_class_are_tried():
    model, x = lively(nn.Sequential(PadsItself(3, 4, 3), nn.BatchNorm2d(4))), torch.randn(IMAGES, dtype=torch.float64)
    folded, report = fold(model, x)
    assert report.folded == {"1": ("0",)} and torch.allclose(folded(x), model(x), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="0, a PadsItself, computes in a way of its own: pass an example"):
        fold(model)
    behind = lively(nn.Sequential(nn.BatchNorm2d(3), PadsOddSizes(3, 4, 3)))
    with pytest.raises(ValueError, match="1, a PadsOddSizes, computes in a way of its own"):
        fold(behind, torch.randn(2, 3, 8, 8, dtype=torch.float64))  # of another size it would be wrong


class Between(nn.Module):
    """What a convolution makes is handed on unchanged, by something that also goes elsewhere or not."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.conv, self.bn, self.twice = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), twice

    def forward(self, x: Tensor) -> Tensor:
        y = TF.dropout(self.conv(x), training=self.training)
        return self.bn(y) + TF.relu(y - 1e9) if self.twice else self.bn(y)


def test_what_hands_on_its_input_may_stand_between():
    x = torch.randn(IMAGES, dtype=torch.float64)
    model = lively(Between(twice=False))
    folded, report = fold(model, x)
    assert report.folded == {"bn": ("conv",)} and torch.allclose(folded(x), model(x), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="bn: no convolution"):
        fold(model)  # nobody has looked whether it does nothing
    with pytest.raises(ValueError, match="bn: "):  # the outputs of the example do not show the second use
        fold(lively(Between(twice=True)), x)


def test_outputs_that_differ_are_an_error(monkeypatch):
    """A fold that is wrong for whatever reason: here the arithmetic."""
    model, x = lively(FOLDABLE["conv"][0]()), torch.randn(IMAGES, dtype=torch.float64)
    before = state(model)
    wrong = lambda *args, **named: tuple(1.001 * a for a in into_previous(*args, **named))  # noqa: E731
    monkeypatch.setattr("bnbook.interop.torch_folding.into_previous", wrong)
    with pytest.raises(ValueError, match="more than rounding"):
        fold(model, x)
    assert unchanged(model, before)


def test_what_is_no_model():
    with pytest.raises(TypeError, match="got dict"):
        fold({})
    with pytest.raises(ValueError, match=r"torch.fx cannot follow .* pass an example"):
        fold(lively(Undecided()))
    with pytest.raises(ValueError, match="no real numbers"):
        compared([np.arange(3)], [np.arange(3)], 1e-9)


# --- torch's own utilities, today ------------------------------------------------------------------------------------


def test_where_the_utilities_of_torch_are_wrong():
    """A change here is a change of the page: chapter 23 shows the same."""
    from torch.fx.experimental.optimization import fuse
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    x = torch.randn(IMAGES, dtype=torch.float64)
    square = lively(FOLDABLE["transposed square"][0]())
    assert not torch.allclose(fuse_conv_bn_eval(*square)(x), square(x))
    grouped = lively(FOLDABLE["transposed grouped"][0]())
    for transpose in (False, True):
        with pytest.raises(RuntimeError):
            fuse_conv_bn_eval(*grouped, transpose=transpose)
    sequence = lively(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    rows = torch.randn(5, 6, 6, dtype=torch.float64)
    assert not torch.allclose(fuse_linear_bn_eval(*sequence)(rows), sequence(rows))
    twice = lively(TwoNorms())
    assert not torch.allclose(fuse(copy.deepcopy(twice))(x), twice(x))


# --- networks of bnbook.nn -------------------------------------------------------------------------------------------


def numpy_model(rng: np.random.Generator) -> bnbook.nn.Sequential:
    n = bnbook.nn
    model = n.Sequential({
        "conv": n.Conv2d(3, 4, 3, padding=1, rng=rng, dtype=np.float64), "bn1": n.BatchNorm2d(4, dtype=np.float64),
        "relu": n.ReLU(), "inner": n.Sequential(n.BatchNorm2d(4, dtype=np.float64),
                                                n.Conv2d(4, 2, 3, bias=False, rng=rng, dtype=np.float64)),
        "flatten": n.Flatten(), "fc": n.Linear(2 * 6 * 5, 5, rng=rng, dtype=np.float64),
        "bn2": n.BatchNorm1d(5, dtype=np.float64), "out": n.Linear(5, 3, rng=rng, dtype=np.float64),
    })  # fmt: skip
    for _, module in model.named_modules():
        if isinstance(module, n.BatchNorm1d | n.BatchNorm2d):
            module.weight.data[...] = rng.normal(size=module.num_features)
            module.bias.data[...] = rng.normal(size=module.num_features)
            module.running_mean[...] = rng.normal(size=module.num_features)
            module.running_var[...] = rng.uniform(0.01, 2, module.num_features)
    return model.eval()


def test_a_numpy_network():
    rng = np.random.default_rng()
    model, x = numpy_model(rng), rng.normal(size=IMAGES)
    before, y = model.state_dict(), model(x)
    folded, report = fold(model, x)
    assert report.folded == {"bn1": ("conv",), "inner.0": ("inner.1",), "bn2": ("fc",)} and report.difference < 1e-12
    assert [name for name, _ in folded.named_children()] == ["conv", "relu", "inner", "flatten", "fc", "out"]
    np.testing.assert_allclose(folded(x), y, rtol=0, atol=1e-12 * np.abs(y).max())
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert folded.inner[0].bias is not None and folded.inner[0].weight.data.dtype == np.float64


def test_the_books_network_in_both_frameworks_is_folded_alike():
    from bnbook.models import numpy_cnn, torch_cnn

    torch.manual_seed(0)
    theirs = torch_cnn.cnn()
    x = torch.randn(4, 1, 28, 28)
    theirs(x)  # moves the statistics
    theirs.eval()
    ours = numpy_cnn.cnn(rng=0).eval()
    interop.convert(theirs, ours)
    (ours_folded, one), (theirs_folded, two) = fold(ours, x.numpy()), fold(theirs, x)
    assert one.folded == two.folded == {"bn1": ("conv",), "bn2": ("fc1",)}
    for name, value in ours_folded.state_dict().items():
        np.testing.assert_allclose(value, theirs_folded.state_dict()[name].numpy(), rtol=1e-6, atol=1e-7)


def test_what_a_numpy_network_refuses():
    n = bnbook.nn
    with pytest.raises(TypeError, match="Conv2d is not a Sequential"):
        fold(n.Conv2d(1, 2, 3))
    for model, words in (
        (n.Sequential(n.Conv2d(1, 2, 3), n.ReLU(), n.BatchNorm2d(2)), "2: no convolution"),
        (n.Sequential(n.BatchNorm2d(2), n.Conv2d(2, 2, 3, padding=1)), "0: the convolution behind it pads"),
        (n.Sequential(n.Linear(3, 2), n.BatchNorm1d(2)), "1: a fully connected layer .* pass an example"),
        (n.Sequential(n.Conv2d(1, 2, 3), n.BatchNorm2d(2, track_running_stats=False)), "1: it has no running"),
    ):
        with pytest.raises(ValueError, match=words):
            fold(model.eval())
    with pytest.raises(ValueError, match="call eval"):
        fold(n.Sequential(n.Conv2d(1, 2, 3), n.BatchNorm2d(2)))
    sequence = n.Sequential(n.Linear(3, 3), n.BatchNorm1d(3)).eval()
    with pytest.raises(ValueError, match="axis 1"):
        fold(sequence, np.zeros((2, 3, 3), np.float32))


# --- the arithmetic --------------------------------------------------------------------------------------------------


def test_scale_and_shift_are_the_layer_in_evaluation():
    rng = np.random.default_rng()
    mean, var, weight, bias = rng.normal(size=4), rng.uniform(1e-6, 1e-4, 4), rng.normal(size=4), rng.normal(size=4)
    x = rng.normal(size=(6, 4))
    for eps in (1e-5, 1e-3):  # variances near ε: outside of the root it would be seen
        scale, shift = scale_and_shift(mean, var, weight, bias, eps)
        expected = TF.batch_norm(*map(torch.from_numpy, (x, mean, var, weight, bias)), eps=eps).numpy()
        np.testing.assert_allclose(scale * x + shift, expected, rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(scale_and_shift(mean, var)[0], 1 / np.sqrt(var + 1e-5))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((np.zeros(2), np.ones(3)), "one shape"),
        ((np.zeros((2, 1)), np.ones((2, 1))), "one shape"),
        ((np.zeros(2), np.array([1, -1.0])), "positive"),
        ((np.zeros(2), np.array([1, np.nan])), "positive"),
        ((np.array([0, np.inf]), np.ones(2)), "finite"),
    ],
)
def test_constants_that_are_none(given, words):
    with pytest.raises(ValueError, match=words):
        scale_and_shift(*given)


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="4 output channels"):
        into_previous(np.zeros((4, 3)), None, np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="3 input channels"):
        into_next(np.zeros((4, 3)), None, np.ones(4), np.zeros(4))


def test_poisoned_statistics_of_another_class_are_refused():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 3), Constants()))
    model[1].running_mean[1] = torch.nan
    with pytest.raises(ValueError, match="1: a Constants computes in a way of its own"):
        fold(model, torch.randn(IMAGES, dtype=torch.float64))


def test_poisoned_statistics_are_refused():
    model = lively(FOLDABLE["conv"][0]())
    model[1].running_mean[1] = torch.nan
    with pytest.raises(ValueError, match=r"^1: .* must be finite"):
        fold(model)
    ours = numpy_model(np.random.default_rng())
    ours.bn1.running_var[1] = -1
    with pytest.raises(ValueError, match=r"^bn1 into conv: running_var \+ eps must be positive"):
        fold(ours)


def test_channels_that_do_not_fit_are_named():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(5)))
    with pytest.raises(ValueError, match=r"^1 into 0: the weights have 4 output channels"):
        fold(model)
    with pytest.raises(ValueError, match="cannot be run on the example: running_mean should contain 4 elements not 5"):
        fold(model, torch.randn(IMAGES, dtype=torch.float64))


def test_an_example_that_the_model_cannot_take():
    model = lively(FOLDABLE["conv"][0]())
    before, image = state(model), torch.randn(IMAGES, dtype=torch.float64)
    for example in (image[:, :2], image.float(), image.to("meta"), image.numpy(), "image", (image, image)):
        with pytest.raises(ValueError, match=r"^the model cannot be run on the example: ") as error:
            fold(model, example)
        assert "\n" not in str(error.value)
    assert unchanged(model, before)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.script(lively(FOLDABLE["conv"][0]()))


def exported() -> nn.Module:
    return torch.export.export(lively(FOLDABLE["conv"][0]()), (torch.randn(IMAGES, dtype=torch.float64),)).module()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (scripted, "1: it is scripted, fold the model before that"),
        (exported, "1: it only keeps numbers, as in an exported model: fold the one that was exported"),
        (lambda: lively(FOLDABLE["conv"][0]()).to("meta"), "1: its numbers are on the meta device"),
    ],
)
def test_models_whose_layers_are_none_any_more(make, words):
    model = make()
    for example in (None, torch.randn(IMAGES, dtype=torch.float64)):
        with pytest.raises(ValueError, match=f"^nothing can be folded: {words}"):
            fold(model, example)


def test_a_layer_alone_is_the_model_itself():
    with pytest.raises(ValueError, match="nothing can be folded: the model itself: no convolution or fully connected"):
        fold(lively(nn.BatchNorm2d(3)), torch.randn(IMAGES, dtype=torch.float64))


def test_a_scripted_part_is_kept_and_the_others_are_folded():
    model = lively(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()))
    whole = nn.Sequential(model, nn.Sequential(scripted()))
    image = torch.randn(IMAGES, dtype=torch.float64)
    folded, report = fold(whole, image)
    assert report.folded == {"0.1": ("0.0",)} and report.kept == {"1.0.1": "it is scripted, fold the model before that"}
    assert torch.allclose(folded(image), whole(image), rtol=0, atol=1e-12)
