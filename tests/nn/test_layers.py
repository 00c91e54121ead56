"""The layers one by one, next to torch where it is installed: sequences of calls, options, unbatched input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bnbook import functional as F
from bnbook import nn
from tests.references import assert_agrees, generator, torch

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

BATCH_NORMS = [
    ("BatchNorm1d", (7, 3)),
    ("BatchNorm1d", (4, 3, 5)),
    ("BatchNorm2d", (4, 3, 2, 5)),
    ("BatchNorm3d", (4, 3, 2, 5, 2)),
]
INSTANCE_NORMS = [
    *(("InstanceNorm1d", (4, 3, 5)), ("InstanceNorm1d", (3, 5))),
    *(("InstanceNorm2d", (4, 3, 2, 5)), ("InstanceNorm2d", (3, 2, 5))),
]


def randomize_both(layer, other, name):
    """The same random state in both."""
    rng = generator(name)
    state = {
        key: rng.uniform(0.5, 2, value.shape).astype(value.dtype) if value.dtype.kind == "f" else value
        for key, value in layer.state_dict().items()
    }
    layer.load_state_dict(state)
    other.load_state_dict({key: torch.tensor(value) for key, value in state.items()})


def compare(layer, other, shape, name, tolerance=1e-12):
    """Five steps of forward and backward in changing modes, with different batches."""
    rng = generator(name)
    for step, training in enumerate((True, True, False, True, False)):
        layer.train(training), other.train(training)
        x, g = rng.normal(rng.normal(), rng.uniform(0.5, 2), shape), rng.normal(0.3, 1, shape)
        t = torch.tensor(x, requires_grad=True)
        y, expected = layer(x), other(t)
        expected.backward(torch.tensor(g))
        assert_agrees(y, expected, tolerance, f"y of step {step}")
        assert_agrees(layer.backward(g), t.grad, tolerance * 100, f"grad_x of step {step}", float(np.abs(g).max()))
        ours, theirs = dict(layer.named_parameters()), dict(other.named_parameters())
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_agrees(ours[key].grad, theirs[key].grad, tolerance * 100, f"{key} of step {step}")
        ours, theirs = layer.state_dict(), other.state_dict()
        assert list(ours) == list(theirs)
        for key in ours:
            assert_agrees(ours[key], theirs[key], tolerance, f"{key} of step {step}")


@needs_torch
@pytest.mark.parametrize(
    "options", list(itertools.product((0.1, 0.0, 1.0, 0.37, None), (True, False), (True, False))), ids=str
)
@pytest.mark.parametrize(("name", "shape"), BATCH_NORMS, ids=str)
def test_batch_norm_layers_step_by_step(name, shape, options):
    momentum, affine, track = options
    arguments = {"eps": 1e-3, "momentum": momentum, "affine": affine, "track_running_stats": track}
    layer, other = getattr(nn, name)(3, **arguments, dtype=np.float64), getattr(torch.nn, name)(3, **arguments).double()
    randomize_both(layer, other, f"{name}{shape}{options}")
    compare(layer, other, shape, f"{name}{shape}{options}")


@needs_torch
@pytest.mark.parametrize("options", list(itertools.product((0.1, 0.37, None), (True, False), (True, False))), ids=str)
@pytest.mark.parametrize(("name", "shape"), INSTANCE_NORMS, ids=str)
def test_instance_norm_layers_step_by_step(name, shape, options):
    momentum, affine, track = options
    arguments = {"eps": 1e-3, "momentum": momentum, "affine": affine, "track_running_stats": track}
    layer, other = getattr(nn, name)(3, **arguments, dtype=np.float64), getattr(torch.nn, name)(3, **arguments).double()
    randomize_both(layer, other, f"{name}{shape}{options}")
    compare(layer, other, shape, f"{name}{shape}{options}")


@needs_torch
@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("LayerNorm", (6,), {}),
        ("LayerNorm", ((5, 6),), {"eps": 1e-2}),
        ("LayerNorm", ([5, 6],), {"bias": False}),
        ("LayerNorm", (6,), {"elementwise_affine": False}),
        ("RMSNorm", (6,), {}),
        ("RMSNorm", ((5, 6),), {"eps": 1e-2}),
        ("RMSNorm", (6,), {"elementwise_affine": False}),
        ("GroupNorm", (2, 4), {}),
        ("GroupNorm", (4, 4), {"eps": 1e-2}),
        ("GroupNorm", (1, 4), {"affine": False}),
        ("Linear", (6, 3), {}),
        ("Linear", (6, 3), {"bias": False}),
    ],
    ids=str,
)
def test_other_layers_step_by_step(name, arguments, options):
    shape = (3, 4, 5, 6)
    layer, other = (
        getattr(nn, name)(*arguments, **options, dtype=np.float64),
        getattr(torch.nn, name)(*arguments, **options),
    )
    other = other.double()
    randomize_both(layer, other, f"{name}{arguments}{options}")
    if name != "Linear":
        compare(layer, other, shape, f"{name}{arguments}{options}")
        return
    x, g = generator("x").normal(size=shape), generator("g").normal(0.3, 1, (*shape[:-1], 3))
    t = torch.tensor(x, requires_grad=True)
    expected = other(t)
    expected.backward(torch.tensor(g))
    assert_agrees(layer(x), expected, 1e-12, "y")
    assert_agrees(layer.backward(g), t.grad, 1e-10, "grad_x")
    for ours, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        assert_agrees(ours.grad, theirs.grad, 1e-10, "a parameter's gradient")


@needs_torch
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"stride": (1, 3), "padding": (2, 0)}, {"bias": False}], ids=str
)
def test_conv2d_layer(options):
    layer, other = (
        nn.Conv2d(2, 3, (3, 2), **options, dtype=np.float64),
        torch.nn.Conv2d(2, 3, (3, 2), **options).double(),
    )
    other.load_state_dict({key: torch.tensor(value) for key, value in layer.state_dict().items()})
    x = generator("x").normal(size=(4, 2, 7, 8))
    t = torch.tensor(x, requires_grad=True)
    y, expected = layer(x), other(t)
    g = generator("g").normal(0.3, 1, y.shape)
    expected.backward(torch.tensor(g))
    assert_agrees(y, expected, 1e-12, "y")
    assert_agrees(layer.backward(g), t.grad, 1e-10, "grad_x")
    for ours, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        assert_agrees(ours.grad, theirs.grad, 1e-10, "a parameter's gradient")
    layer.needs_input_grad = False
    assert layer.backward(g) is None


@pytest.mark.parametrize("options", [(2,), (3, 2, 1), ((2, 3), None, (1, 0)), ((1, 2), 2)], ids=str)
def test_max_pool2d_layer(options):
    x = generator("x").normal(size=(4, 2, 7, 8))
    layer = nn.MaxPool2d(*options)
    y, cache = F.max_pool2d(x, *options)
    np.testing.assert_array_equal(layer(x), y)
    g = generator("g").normal(0.3, 1, y.shape)
    np.testing.assert_array_equal(layer.backward(g), F.max_pool2d_backward(g, cache))


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_activation_layers(name):
    x, g = generator("x").normal(size=(4, 5)), generator("g").normal(0.3, 1, (4, 5))
    layer = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}[name]()
    y, cache = getattr(F, name)(x)
    np.testing.assert_array_equal(layer(x), y)
    np.testing.assert_array_equal(layer.backward(g), getattr(F, f"{name}_backward")(g, cache))


@needs_torch
@pytest.mark.parametrize("momentum", [0.37, None])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("track", [True, False], ids=["stopped later", "asked for later"])
@pytest.mark.parametrize(("name", "shape"), [*BATCH_NORMS, ("InstanceNorm1d", (4, 3, 5))], ids=str)
def test_tracking_is_changed_later_as_in_torch(name, shape, track, mode, momentum):
    options = {"momentum": momentum, "affine": True, "track_running_stats": track}
    layer, other = getattr(nn, name)(3, **options, dtype=np.float64), getattr(torch.nn, name)(3, **options).double()
    randomize_both(layer, other, f"{name}{shape}")
    x = generator(f"{name}{shape}x").normal(0.5, 2, shape)
    layer(x), other(torch.tensor(x))  # a step as it was made
    layer.track_running_stats = other.track_running_stats = not track
    layer.train(mode), other.train(mode)
    if name == "InstanceNorm1d" and not track and not mode:
        with pytest.raises(ValueError, match="running_mean is None, but evaluation"):
            layer(x)
        with pytest.raises(RuntimeError, match="running_mean and running_var"):
            other(torch.tensor(x))
        return
    for factor in (2, 3):
        assert_agrees(layer(factor * x), other(torch.tensor(factor * x)), 1e-12, "y")
    ours, theirs = layer.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for key in ours:
        assert_agrees(ours[key], theirs[key], 1e-12, key)


@needs_torch
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_channels_of_a_batch_norm_without_anything_are_not_counted(training):
    """Torch normalizes them all the same; with parameters or statistics both refuse them."""
    x = generator("x").normal(3, 2, (8, 5)).astype(np.float32)
    for affine, track in ((False, False), (True, False), (False, True)):
        layer, other = (module.BatchNorm1d(3, affine=affine, track_running_stats=track) for module in (nn, torch.nn))
        layer.train(training), other.train(training)
        if affine or track:
            with pytest.raises(ValueError, match=r"has shape \(3,\), expected \(5,\)"):
                layer(x)
            with pytest.raises(RuntimeError, match="should contain 5 elements not 3"):
                other(torch.tensor(x))
        else:
            assert_agrees(layer(x), other(torch.tensor(x)), 2e-6, "y")


# --- running statistics of the layers (without torch) -----------------------------------------------------------------


def test_a_batch_norm_that_stopped_leaves_its_statistics_alone():
    layer = nn.BatchNorm1d(3, dtype=np.float64)
    layer.track_running_stats = False
    x = generator("x").normal(3, 2, (8, 3))
    layer(x)
    np.testing.assert_array_equal(layer.running_mean, [0, 0, 0])
    np.testing.assert_array_equal(layer.running_var, [1, 1, 1])
    assert layer.num_batches_tracked == 0
    np.testing.assert_allclose(layer.eval()(x), x / np.sqrt(1 + 1e-5), rtol=1e-12)


@pytest.mark.parametrize(("name", "shape"), BATCH_NORMS, ids=str)
def test_momentum_none_is_the_plain_average_of_all_batches(name, shape):
    layer = getattr(nn, name)(3, momentum=None, dtype=np.float64)
    rng = generator(name)
    batches = [rng.normal(i, i + 1, shape) for i in range(4)]
    axes = (0, *range(2, len(shape)))
    for count, x in enumerate(batches, start=1):
        layer(x)
        assert layer.num_batches_tracked == count
        seen = batches[:count]
        np.testing.assert_allclose(layer.running_mean, np.mean([x.mean(axes) for x in seen], 0), rtol=1e-12)
        np.testing.assert_allclose(layer.running_var, np.mean([x.var(axes, ddof=1) for x in seen], 0), rtol=1e-12)
    held = list(layer.buffers())
    layer.reset_running_stats()
    assert all(a is b for a, b in zip(held, layer.buffers(), strict=True))  # in place
    assert layer.num_batches_tracked == 0 and not layer.running_mean.any() and (layer.running_var == 1).all()
    layer(batches[0])
    np.testing.assert_allclose(layer.running_mean, batches[0].mean(axes), rtol=1e-12)


def test_batches_are_counted_in_training_only():
    layer = nn.BatchNorm1d(3)
    x = generator("x").normal(size=(4, 3)).astype(np.float32)
    for training, count in ((True, 1), (True, 2), (False, 2), (True, 3)):
        layer.train(training)(x)
        assert layer.num_batches_tracked == count
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(x[:1])
    layer(x[:0])
    assert layer.num_batches_tracked == 3
    instance = nn.InstanceNorm1d(3, track_running_stats=True)  # which never counts, as in torch
    instance(np.ones((2, 3, 4), np.float32))
    assert instance.num_batches_tracked == 0


def test_initial_values_keep_the_weight_one_minus_momentum_to_the_k():
    layer = nn.BatchNorm1d(1, momentum=0.25, dtype=np.float64)
    x = np.array([[-1.0], [1.0], [3.0]])
    for k in range(1, 6):
        layer(x)
        np.testing.assert_allclose(layer.running_mean, [1 - 0.75**k], rtol=1e-12)
        np.testing.assert_allclose(layer.running_var, [4 - 3 * 0.75**k], rtol=1e-12)


def test_without_running_statistics_evaluation_uses_the_batch():
    layer = nn.BatchNorm1d(3, track_running_stats=False, dtype=np.float64)
    x = generator("x").normal(2, 3, (5, 3))
    trained = layer(x)
    np.testing.assert_array_equal(layer.eval()(x), trained)
    assert layer.running_mean is None and list(layer.buffers()) == []
    layer.reset_running_stats()  # nothing to reset
    g = generator("g").normal(size=(5, 3))
    np.testing.assert_allclose(layer.backward(g).sum(0), 0, atol=1e-12)  # the training formula


@pytest.mark.parametrize(("name", "shape"), [("InstanceNorm1d", (3, 5)), ("InstanceNorm2d", (3, 2, 5))])
def test_unbatched_instance_norm_is_a_batch_of_one(name, shape):
    x, g = generator(name).normal(1, 2, shape), generator("g").normal(0.3, 1, shape)
    options = {"affine": True, "track_running_stats": True, "dtype": np.float64}
    one, batch = getattr(nn, name)(3, **options), getattr(nn, name)(3, **options)
    for layer in (one, batch):
        layer.weight.data = np.array([0.5, -2.0, 3.0])
        layer.bias.data = np.array([1.0, 2.0, -1.0])
    for training in (True, False):
        y = one.train(training)(x)
        assert y.shape == shape
        np.testing.assert_array_equal(y, batch.train(training)(x[None])[0])
        np.testing.assert_array_equal(one.backward(g), batch.backward(g[None])[0])
        positions = tuple(range(1, x.ndim))
        if training:
            np.testing.assert_allclose(y.mean(positions), one.bias.data, atol=1e-12)
    for key, value in batch.state_dict().items():
        np.testing.assert_array_equal(one.state_dict()[key], value)
    for ours, theirs in zip(one.parameters(), batch.parameters(), strict=True):
        np.testing.assert_array_equal(ours.grad, theirs.grad)


# --- what the layers refuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: nn.BatchNorm1d(0), ValueError, "num_features must be at least 1, got 0"),
        (lambda: nn.BatchNorm2d(-1), ValueError, "num_features must be at least 1, got -1"),
        (lambda: nn.BatchNorm2d(2.0), TypeError, "num_features must be an integer, got 2.0"),
        (lambda: nn.BatchNorm2d(3, eps=0), ValueError, "eps must be greater than 0, got 0"),
        (lambda: nn.BatchNorm2d(3, eps="a"), TypeError, "eps must be a number, got str"),
        (lambda: nn.BatchNorm2d(3, momentum="a"), TypeError, "momentum must be a number, got str"),
        (lambda: nn.BatchNorm2d(3, momentum=np.nan), ValueError, "momentum must be finite, got nan"),
        (lambda: nn.InstanceNorm1d(0), ValueError, "num_features must be at least 1, got 0"),
        (lambda: nn.InstanceNorm1d(3, eps=-1), ValueError, "eps must be greater than 0, got -1"),
        (lambda: nn.LayerNorm(0), ValueError, "normalized_shape must be at least 1, got 0"),
        (lambda: nn.LayerNorm(2.5), TypeError, "normalized_shape must be an integer, got 2.5"),
        (lambda: nn.LayerNorm(3, eps=-1), ValueError, "eps must be at least 0, got -1"),
        (lambda: nn.RMSNorm((3, -1)), ValueError, "normalized_shape must be at least 1, got -1"),
        (lambda: nn.RMSNorm(3, eps="a"), TypeError, "eps must be a number, got str"),
        (lambda: nn.GroupNorm(2, 3), ValueError, "num_groups must divide num_channels=3, got 2"),
        (lambda: nn.GroupNorm(0, 3), ValueError, "num_groups must be at least 1, got 0"),
        (lambda: nn.GroupNorm(1, 0), ValueError, "num_channels must be at least 1, got 0"),
        (lambda: nn.GroupNorm(1, 3, eps=-1), ValueError, "eps must be at least 0, got -1"),
        (lambda: nn.Conv2d(0, 1, 3), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 0, 3), ValueError, "out_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, 0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), ValueError, "padding must be at least 0, got -1"),
        (lambda: nn.Conv2d(1, 1, 3, padding="same"), TypeError, "padding must be an integer, got 'same'"),
        (lambda: nn.Linear(0, 1), ValueError, "in_features must be at least 1, got 0"),
        (lambda: nn.Linear(1, 1.5), TypeError, "out_features must be an integer, got 1.5"),
        (lambda: nn.MaxPool2d(0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, 0), ValueError, "stride must be at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, padding=-1), ValueError, "padding must be at least 0, got -1"),
    ],
)
def test_bad_options(make, error, says):
    with pytest.raises(error) as raised:
        make()
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("layer", "shape", "says"),
    [
        (nn.BatchNorm1d(3), (4, 3, 5, 5), "BatchNorm1d: x has shape (4, 3, 5, 5), expected (N, C) or (N, C, L)"),
        (nn.BatchNorm1d(3), (3,), "BatchNorm1d: x has shape (3,), expected (N, C) or (N, C, L)"),
        (nn.BatchNorm2d(3), (4, 3, 5), "BatchNorm2d: x has shape (4, 3, 5), expected (N, C, H, W)"),
        (nn.BatchNorm3d(3), (4, 3, 5, 5), "BatchNorm3d: x has shape (4, 3, 5, 5), expected (N, C, D, H, W)"),
        (nn.BatchNorm2d(3), (4, 2, 5, 5), "has shape (3,), expected (2,): one value per channel of x"),
        (nn.BatchNorm1d(3), (1, 3), "expected more than one value per channel in training, got x of shape (1, 3)"),
        (nn.InstanceNorm1d(3), (2, 3, 1), "expected more than one value per image and channel"),
        (nn.InstanceNorm1d(3), (2, 4, 5), "InstanceNorm1d: x has shape (2, 4, 5), expected 3 channels, got 4"),
        (nn.InstanceNorm1d(3), (4, 5), "InstanceNorm1d: x has shape (4, 5), expected 3 channels, got 4"),
        (nn.InstanceNorm2d(3), (4, 5), "InstanceNorm2d: x has shape (4, 5), expected (N, C, H, W) or (C, H, W)"),
        (nn.LayerNorm(3), (4, 5), "x has shape (4, 5), expected one that ends in normalized_shape=(3,)"),
        (nn.RMSNorm(3), (4, 5), "x has shape (4, 5), expected one that ends in normalized_shape=(3,)"),
        (nn.GroupNorm(1, 3), (4, 5), "GroupNorm: x has shape (4, 5), expected 3 channels"),
        (nn.Linear(3, 2), (4, 5), "x has shape (4, 5), expected (*, 3)"),
        (nn.Conv2d(3, 2, 3), (4, 2, 5, 5), "x of shape (4, 2, 5, 5) has 2 channels"),
        (nn.MaxPool2d(3), (4, 2, 2, 5), "kernel_size is 3×3, x with its padding is 2×5"),
    ],
)
def test_input_that_does_not_fit(layer, shape, says):
    before = layer.state_dict()
    with pytest.raises(ValueError) as raised:
        layer(np.ones(shape, np.float32))
    assert says in str(raised.value)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
