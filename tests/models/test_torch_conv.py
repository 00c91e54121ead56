"""The convolutional networks of the experiments: counted by hand, their starting values, their order of layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bnbook.models.torch_conv import NORMS, SCHEMES, ResidualBlock, Shortcut, resnet, vgg
from tests.references import generator

ARMS = [(make, norm) for make in (vgg, resnet) for norm in NORMS] + [(resnet, norm) for norm in SCHEMES]


def seeded(make, norm="batch", seed=0, **settings):
    torch.manual_seed(seed)
    return make(norm, **settings)


def images(count=8, size=14):
    return torch.from_numpy(generator("images").normal(size=(count, 1, size, size))).float()


def weights(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def walk(model, x):
    """The input, shortcut, branch and output of every block."""
    for layer in model:
        if isinstance(layer, ResidualBlock):
            yield x, layer.shortcut(x), layer.branch(x), layer(x)
        x = layer(x)


# --- counted by hand -------------------------------------------------------------------------------------------------


VGG = 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)  # the weights of its convolutions
RESNET20 = 9 * (16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
HEAD = 64 * 10 + 10


@pytest.mark.parametrize(
    ("make", "norm", "expected"),
    [
        (vgg, "none", VGG + (16 + 16 + 32 + 32 + 64 + 64) + HEAD),
        (vgg, "batch", VGG + 2 * (16 + 16 + 32 + 32 + 64 + 64) + HEAD),
        (resnet, "none", RESNET20 + (7 * 16 + 6 * 32 + 6 * 64) + HEAD),
        (resnet, "batch", 269_722 - 2 * 9 * 16),  # that of He et al. has three channels of input
        (resnet, "layer", 269_722 - 2 * 9 * 16),
        (resnet, "group", 269_722 - 2 * 9 * 16),
        (resnet, "skipinit", RESNET20 + (7 * 16 + 6 * 32 + 6 * 64) + 9 + HEAD),
        (resnet, "fixup", RESNET20 + 9 * (1 + 4) + 3 + HEAD),
    ],
)
def test_parameters(make, norm, expected):
    assert count(make(norm)) == expected


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_a_residual_network_has_the_layers_of_its_name(depth):
    model = resnet(depth=depth, width=8)
    *convolutions, out = weights(model)
    assert len(convolutions) == depth - 1 and {layer.kernel_size for layer in convolutions} == {(3, 3)}
    stage = (depth - 2) // 3  # layers
    assert [layer.out_channels for layer in convolutions] == [8] + [8] * stage + [16] * stage + [32] * stage
    assert [i for i, layer in enumerate(convolutions) if layer.stride == (2, 2)] == [1 + stage, 1 + 2 * stage]
    assert (out.in_features, out.out_features) == (32, 10)


@pytest.mark.parametrize("size", [14, 28])
@pytest.mark.parametrize(("make", "norm"), ARMS)
def test_shapes(make, norm, size):
    model = make(norm, width=8)
    seen = []
    for layer in model:
        layer.register_forward_hook(lambda layer, x, y: seen.append(tuple(y.shape[1:])))
    assert model(images(3, size)).shape == (3, 10)
    last = {(vgg, 14): 3, (resnet, 14): 4, (vgg, 28): 7, (resnet, 28): 7}[make, size]
    assert {(8, size, size), (16, size // 2, size // 2), (32, last, last)} <= set(seen)
    assert {shape[1] for shape in seen if len(shape) == 3} == {size, size // 2, last, 1}


def test_the_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros():
    h = torch.arange(2 * 3 * 5 * 5.0).view(2, 3, 5, 5)
    y = Shortcut(2)(h)
    assert y.shape == (2, 5, 3, 3)
    assert torch.equal(y[:, :3], h[:, :, [0, 2, 4]][..., [0, 2, 4]]) and not y[:, 3:].any()


# --- starting values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["default", "he"])
@pytest.mark.parametrize(("make", "norm"), ARMS)
def test_arms_of_one_seed_start_from_the_same_weights(make, norm, init):
    plain, other = (weights(seeded(make, n, init=init, width=8)) for n in ("none", norm))
    assert len(plain) == len(other) == (7 if make is vgg else 20)
    for i, (a, b) in enumerate(zip(plain, other, strict=True)):
        scale = 1.0
        if norm == "fixup":  # stem, then two in each of the nine blocks, then the classifier
            scale = 1.0 if i == 0 else 0.0 if i % 2 == 0 or i == 19 else 1 / 3
        torch.testing.assert_close(b.weight, scale * a.weight, rtol=1e-6, atol=0)
        if norm in ("none", "skipinit"):
            assert torch.equal(a.bias, b.bias)
    assert not torch.equal(plain[0].weight, weights(seeded(make, "none", 1, init=init, width=8))[0].weight)


@pytest.mark.parametrize("norm", SCHEMES)
@pytest.mark.parametrize("size", [14, 28])
def test_blocks_that_begin_as_their_shortcut(norm, size):
    model = seeded(resnet, norm, depth=14, width=8)
    blocks = list(walk(model, images(size=size)))
    assert len(blocks) == 6
    for x, shortcut, _, y in blocks:
        assert torch.equal(shortcut, y) and y.std() > 0.01
        assert shortcut.shape[1] != x.shape[1] or torch.equal(shortcut, x)
    with torch.no_grad():  # and only because of the factor, or of the last weights
        for block in (model.block1, model.block3):
            block.branch.scale.weight.fill_(1.0)
            nn.init.ones_(block.branch.conv2.weight)
    changed = [not torch.equal(shortcut, y) for _, shortcut, _, y in walk(model, images(size=size))]
    assert changed == [True, False, True, False, False, False]


@pytest.mark.parametrize(("depth", "factor"), [(8, 3**-0.5), (14, 6**-0.5), (56, 27**-0.5)])
def test_fixup_scales_the_first_weights_of_a_branch_by_one_over_the_root_of_the_blocks(depth, factor):
    he, fixup = (seeded(resnet, norm, depth=depth, width=8) for norm in ("none", "fixup"))
    for a, b in zip(he, [layer for name, layer in fixup.named_children() if "shift" not in name], strict=True):
        if hasattr(a, "branch"):
            torch.testing.assert_close(b.branch.conv1.weight, factor * a.branch.conv1.weight, rtol=1e-6, atol=0)
            assert not b.branch.conv2.weight.any() and b.branch.scale.weight == 1
    assert torch.equal(he.stem.weight, fixup.stem.weight)


def test_fixup_begins_with_logits_of_zero_whatever_the_init():
    for init in ("default", "he", 0.5):
        assert not resnet("fixup", depth=8, width=8, init=init)(images()).any()
    assert resnet("skipinit", depth=8, width=8)(images()).any()


def test_fixup_adds_a_number_before_every_convolution_activation_and_classifier():
    model = resnet("fixup", depth=8, width=8)
    names = [name.rpartition(".")[2] for name, layer in model.named_modules() if not list(layer.children())]
    block = "shift1 conv1 shift2 act1 shift3 conv2 scale shift4 shortcut act".split()
    assert names == ["shift1", "stem", "shift2", "act", *block * 3, "pool", "flatten", "shift3", "out"]


@torch.no_grad()
def test_branches_of_batch_normalization_have_variance_one_and_those_of_he_double_the_signal():
    """As De & Smith (2020) derive: with BN E[h²] grows by a constant a block, without it by a factor.

    ReLU(h + z)² - h² of a branch z with mean 0 and variance 1 is 1/2 at h = 0 and 1 at large h. He's weights keep
    E[h²] along the branch, but for the zeros around the image: h + z has twice that.
    """
    for scale in (1.0, 10.0):  # of the input
        grown = []
        for _, shortcut, branch, y in walk(seeded(resnet, "batch", depth=56), scale * images(64)):
            torch.testing.assert_close(branch.mean((0, 2, 3)), torch.zeros(branch.shape[1]), atol=1e-4, rtol=0)
            torch.testing.assert_close(branch.var((0, 2, 3)), torch.ones(branch.shape[1]), atol=2e-3, rtol=0)
            grown.append((y.square().mean() - shortcut.square().mean()).item())
        assert len(grown) == 27 and min(grown) > 0.4 and max(grown) < 1.3 and 0.6 < sum(grown) / 27 < 1
    factors = [
        y.square().mean() / s.square().mean() for _, s, _, y in walk(seeded(resnet, "none", depth=56), images(64))
    ]
    assert 1.5 < math.prod(factors) ** (1 / 27) < 2.7


@pytest.mark.parametrize(("make", "norm"), ARMS)
def test_a_convolution_has_a_bias_where_no_norm_takes_it_away(make, norm):
    *convolutions, _ = weights(make(norm, width=8))
    assert {layer.bias is not None for layer in convolutions} == {norm in ("none", "skipinit")}
    if make is vgg:
        assert all(layer.bias is not None for layer in weights(vgg(norm, width=8, placement="after")))


def test_groups():
    def groups(width):
        return {layer.num_groups for layer in vgg("group", width=width) if isinstance(layer, nn.GroupNorm)}

    assert groups(8) == {4, 8} and groups(16) == groups(64) == {8}
    assert {layer.num_groups for layer in vgg("layer") if isinstance(layer, nn.GroupNorm)} == {1}


# --- the order of layers ---------------------------------------------------------------------------------------------


ORDERS = pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({}, "conv bn act"),
        ({"norm": "none"}, "conv act"),
        ({"placement": "after"}, "conv act bn"),
        ({"dropout": 0.5}, "conv bn act drop"),
        ({"dropout": 0.5, "dropout_at": "norm"}, "conv drop bn act"),
        ({"dropout": 0.5, "placement": "after"}, "conv act bn drop"),
        ({"dropout": 0.5, "placement": "after", "dropout_at": "norm"}, "conv act drop bn"),
    ],
)


@ORDERS
def test_the_norm_and_dropout_stand_where_they_are_asked_for(settings, layers):
    model = vgg(**{"width": 8} | settings)
    expected = []
    for i in range(1, 7):
        expected += [f"{layer}{i}" for layer in layers.split()]
        expected += {2: ["pool1"], 4: ["pool2"]}.get(i, [])
    assert [name for name, _ in model.named_children()] == [*expected, "pool", "flatten", "out"]
    kinds = {"conv": nn.Conv2d, "bn": nn.BatchNorm2d, "act": nn.ReLU, "drop": nn.Dropout, "pool": nn.MaxPool2d}
    for name, layer in model[:-3].named_children():
        assert isinstance(layer, kinds[name.rstrip("123456")])
    assert all(layer.p == 0.5 for layer in model if isinstance(layer, nn.Dropout))


@ORDERS
def test_a_block_has_the_same_order_between_its_convolutions_and_a_stem_without_dropout(settings, layers):
    model = resnet(**{"width": 8, "depth": 8} | settings)
    middle = [f"{layer}1" for layer in layers.split()]
    last = [] if settings.get("norm") == "none" else ["bn2"]
    stem = [layer for layer in layers.replace("conv", "stem").split() if layer != "drop"]
    assert [name for name, _ in model.named_children()][: len(stem)] == stem
    for block in (model.block1, model.block2, model.block3):
        assert [name for name, _ in block.branch.named_children()] == [*middle, "conv2", *last]
        assert (block.branch.conv1.bias is None) == ("conv bn" in layers or "conv drop bn" in layers)
        assert (block.branch.conv2.bias is None) == (last == ["bn2"])
        assert all(layer.p == 0.5 for layer in block.branch if isinstance(layer, nn.Dropout))


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "norm"), ARMS)
def test_the_loss_reaches_every_parameter(make, norm):
    """With Fixup the first update moves the classifier alone, the second the last weights of a branch, too."""
    model = seeded(make, norm, width=8, **({"depth": 8} if make is resnet else {}))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    reached = []
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images(32)), torch.arange(32) % 10).backward()
        optimizer.step()
        reached.append({name for name, parameter in model.named_parameters() if parameter.grad.any()})
    names = {name for name, _ in model.named_parameters()}
    update = {"skipinit": 1, "fixup": 2}.get(norm, 0)
    assert reached[update] == names and all(before < names for before in reached[:update])
    if norm == "fixup":
        assert reached[0] == {"out.weight", "out.bias"}


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vgg("fixup"), "norm must be one of 'none', 'batch', 'layer', 'group', got 'fixup'"),
        (
            lambda: resnet("instance"),
            "norm must be one of 'none', 'batch', 'layer', 'group', 'skipinit', 'fixup', got 'instance'",
        ),
        (lambda: vgg(placement="inside"), "placement must be one of 'before', 'after', got 'inside'"),
        (lambda: vgg(dropout_at="start"), "dropout_at must be one of 'end', 'norm', got 'start'"),
        (lambda: vgg(init="zeros"), "init must be one of 'default', 'he', 'xavier', 'orthogonal', got 'zeros'"),
        (lambda: resnet(placement="inside"), "placement must be one of 'before', 'after', got 'inside'"),
        (lambda: resnet(init=0.0), "or a positive standard deviation, got 0.0"),
        (lambda: resnet(depth=10), r"depth must be 6n \+ 2 with n from 1, as 8, 14, 20 or 56, got 10"),
        (lambda: resnet(depth=2), "depth must be .*, got 2"),
        (lambda: vgg(width=0), "width must be at least 1, got 0"),
        (lambda: resnet("group", width=12), "width must be a multiple of 8 with norm group, got 12"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
