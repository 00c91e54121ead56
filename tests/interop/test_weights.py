"""One network in three frameworks: the same outputs, gradients, statistics and training.

The networks of `networks` have random γ, β, running statistics and weights; every one is built by hand in every
framework, so that `interop` has to find out what belongs where.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

import numpy as np
import pytest

from bnbook import interop, nn, optim
from bnbook.data import load, to_input
from tests.references import assert_agrees, generator, torch

pytest.importorskip("torch")
pytest.importorskip("bnbook.models.keras_cnn", reason="TensorFlow is not installed")

from bnbook.models import keras_cnn, numpy_cnn, torch_cnn
from bnbook.models.keras_cnn import keras, tf
from tests.interop.networks import EPS, MOMENTUM, NETWORKS, SMALL, Network, assert_same_state, randomize

L = keras.layers


class Three:
    """The same network in the three frameworks, converted one to the next, behind one interface."""

    def __init__(self, network: Network, dtype) -> None:
        self.dtype = np.dtype(dtype)
        self.numpy = randomize(network.numpy(dtype), network.name)
        self.torch, self.keras = network.torch(dtype), network.keras(dtype)
        interop.convert(self.numpy, self.torch)
        interop.convert(self.torch, self.keras)
        rng = generator(f"{network}x")
        self.x = (rng.normal(size=(11, *network.shape)) + rng.normal(size=(1, *network.shape))).astype(dtype)
        self.g = rng.normal(0.2, 1, (11, *self.numpy.eval()(self.x).shape[1:])).astype(dtype)

    def outputs(self, training: bool) -> dict[str, np.ndarray]:
        """The logits of one batch; statistics move in training."""
        y = self.torch.train(training)(torch.tensor(self.x))
        z = self.keras(np.moveaxis(self.x, 1, -1), training=training)
        return {"NumPy": self.numpy.train(training)(self.x), "torch": y.detach().numpy(), "Keras": z.numpy()}

    def gradients(self, training: bool) -> dict[str, dict[str, np.ndarray]]:
        """Those of Σ g·y, for all parameters and the input (N, C, H, W), by framework."""
        self.numpy.train(training).zero_grad()
        self.numpy(self.x)
        grad_x = self.numpy.backward(self.g)
        ours = {key: p.grad for key, p in self.numpy.named_parameters()}
        t = torch.tensor(self.x, requires_grad=True)
        self.torch.train(training).zero_grad()
        self.torch(t).backward(torch.tensor(self.g))
        theirs = {key: p.grad.numpy() for key, p in self.torch.named_parameters()}
        k = tf.Variable(np.moveaxis(self.x, 1, -1))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.keras(k, training=training) * self.g)
        *grads, grad_k = tape.gradient(loss, [*(v.value for v in self.keras.trainable_variables), k])
        holder = keras.models.clone_model(self.keras)  # its variables hold the gradients, so that state() can read them
        for variable, grad in zip(holder.trainable_variables, grads, strict=True):
            variable.assign(grad)
        read = interop.state(holder)
        return {
            "NumPy": ours | {"x": grad_x},
            "torch": theirs | {"x": t.grad.numpy()},
            "Keras": {key: read[key] for key in ours} | {"x": np.moveaxis(grad_k.numpy(), -1, 1)},
        }

    def steps(self, count: int, lr: float, momentum: float) -> None:
        """SGD on Σ g·y / 11 over shuffled batches of 8."""
        ours = optim.SGD(self.numpy.train().parameters(), lr, momentum)
        theirs = torch.optim.SGD(self.torch.train().parameters(), lr, momentum)
        keras_sgd = keras.optimizers.SGD(lr, momentum)
        order = generator("order")
        for _ in range(count):
            chosen = order.permutation(11)[:8]
            x, g = self.x[chosen], self.g[chosen] / 11
            ours.zero_grad(), theirs.zero_grad()
            self.numpy(x), self.numpy.backward(g)
            self.torch(torch.tensor(x)).backward(torch.tensor(g))
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self.keras(np.moveaxis(x, 1, -1), training=True) * g)
            variables = self.keras.trainable_variables
            ours.step(), theirs.step()
            keras_sgd.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def values(self, batch: int) -> dict[str, int]:
        """Name of a BN layer → m, the number of values in one of its statistics, for a batch of that size."""
        m = {}
        x = torch.tensor(self.x[:batch])
        for name, layer in self.torch.eval().named_children():
            if name.startswith("bn"):
                m[name] = x.numel() // x.shape[1]
            x = layer(x)
        return m


def without_counts(state: dict) -> dict:
    """Keras does not count batches."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


# --- parity -----------------------------------------------------------------------------------------------------------

TOLERANCE = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-5}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_same_logits_and_gradients(network, dtype, training):
    three = Three(network, dtype)
    outputs = three.outputs(training)
    assert {y.dtype for y in outputs.values()} == {three.dtype}
    for name in ("torch", "Keras"):
        assert_agrees(outputs[name], outputs["NumPy"], TOLERANCE[three.dtype], f"logits in {name}")
    gradients = three.gradients(training)
    # In front of a BN in training the gradients of a bias are zero and those of x cancel: the scale is the upstream's.
    scale = float(np.abs(three.g).sum(0).max())
    for name in ("torch", "Keras"):
        assert gradients[name].keys() == gradients["NumPy"].keys()
        for key, grad in gradients[name].items():
            assert grad.dtype == three.dtype
            assert_agrees(grad, gradients["NumPy"][key], TOLERANCE[three.dtype], f"∂{key} in {name}", scale)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_same_states_after_ten_steps(network, dtype):
    """Weights, γ, β and running means alike; running variances in Keras as the missing m/(m−1) predicts.

    Rate and momentum are powers of two: Keras keeps them in float32 whatever the network computes in.
    """
    three = Three(network, dtype)
    before = interop.state(three.numpy)
    three.steps(10, lr=2.0**-5 if three.dtype == np.float64 else 2.0**-9, momentum=0.5)
    ours, theirs, in_keras = (interop.state(model) for model in (three.numpy, three.torch, three.keras))
    m = three.values(batch=8)
    for key, value in ours.items():
        assert_agrees(theirs[key], value, TOLERANCE[three.dtype], f"{key} in torch", scale=1.0)
        if key.endswith("num_batches_tracked"):
            assert theirs[key] == value == before[key] + 10 and key not in in_keras
            continue
        if key.startswith("bn") or key.endswith("weight"):  # the gradient of a bias in front of a BN is zero
            assert not np.array_equal(value, before[key]), f"{key} has not moved"
        expected = value.astype(np.float64)
        if key.endswith("running_var"):
            kept = (1 - MOMENTUM) ** 10 * before[key].astype(np.float64)
            assert np.abs(in_keras[key] - expected).max() > 1e-4  # they differ, and by this much:
            expected = kept + (expected - kept) * (m[key[:3]] - 1) / m[key[:3]]
        assert_agrees(in_keras[key], expected, TOLERANCE[three.dtype], f"{key} in Keras", scale=1.0)


def test_the_book_s_network_on_real_images():
    """Through all three, in both modes; the weights are trained ones, and the logits those of real images."""
    images, labels = load("train")
    x, target = to_input(images[:96]), labels[:96]
    ours, loss = numpy_cnn.cnn(rng=0), nn.CrossEntropyLoss()
    optimizer = optim.SGD(ours.parameters(), 0.05, 0.9)
    for step in range(6):
        optimizer.zero_grad()
        chosen = generator(str(step)).permutation(96)[:32]
        loss(ours(x[chosen]), target[chosen])
        ours.backward(loss.backward())
        optimizer.step()
    theirs, in_keras = torch_cnn.cnn(), keras_cnn.cnn("before_activation", logits=True, epsilon=1e-5, momentum=0.9)
    interop.convert(ours, theirs), interop.convert(theirs, in_keras)
    for training in (False, True):
        expected = ours.train(training)(x)
        assert_agrees(theirs.train(training)(torch.tensor(x)), expected, 1e-5, "torch")
        assert_agrees(in_keras(np.moveaxis(x, 1, -1), training=training), expected, 1e-5, "Keras")


def test_as_it_circulates_keras_is_the_torch_network_in_the_other_order():
    """With its softmax, which torch has in the loss."""
    source = keras_cnn.cnn(seed=0)
    for variable in source.variables:
        rng = generator(variable.path)
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.5, 2, variable.shape))
    model = torch_cnn.cnn(order="after_activation")
    interop.convert(source, model, settings="copy")
    assert model.bn1.eps == model.bn2.eps == 1e-3 and model.bn1.momentum == model.bn2.momentum == 0.01
    x = to_input(load("val")[0][:20])
    probabilities = torch.softmax(model.eval()(torch.tensor(x)), 1)
    assert_agrees(probabilities, source(np.moveaxis(x, 1, -1)), 1e-5, "probabilities")


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_round_trips_change_no_bit(network, dtype):
    first = randomize(network.numpy(dtype), network.name)
    expected = interop.state(first)
    assert_same_state(expected, first.state_dict(), "read")
    for path in itertools.permutations((network.torch(dtype), network.keras(dtype))):
        for source, target in itertools.pairwise((first, *path, network.numpy(dtype))):
            interop.convert(source, target)
            assert_same_state(without_counts(interop.state(target)), without_counts(expected), type(target).__module__)


def test_the_count_of_batches_goes_where_there_is_one():
    source, target = randomize(SMALL.numpy(), "counts"), SMALL.torch()
    interop.convert(source, target)
    assert target.bn1.num_batches_tracked == target.bn2.num_batches_tracked == 17
    interop.convert(SMALL.keras(), target)  # has none: the model keeps its own
    assert target.bn1.num_batches_tracked == 17 and target.bn1.running_var[0] == 1


def test_a_state_is_what_load_state_dict_takes():
    ours, theirs = randomize(SMALL.numpy(), "state"), SMALL.torch()
    state = interop.state(ours)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    other = SMALL.numpy()
    other.load_state_dict(interop.state(theirs))
    assert_same_state(other.state_dict(), ours.state_dict(), "by load_state_dict")


def test_a_state_is_a_copy():
    for model in (SMALL.numpy(), SMALL.torch(), SMALL.keras()):
        state = interop.state(model)
        before = interop.state(model)
        for value in state.values():
            value[...] = 99
        assert_same_state(interop.state(model), before, type(model).__module__)
        interop.load(model, before)
        for value in before.values():
            value[...] = 98
        assert all((value != 98).all() for value in interop.state(model).values())


def test_layers_with_other_names_belong_together_in_order():
    source = randomize(SMALL.numpy(), "names")
    target = keras.Sequential([keras.Input((8, 11, 2), dtype="float64")])
    for layer in SMALL.made_of():
        config = layer.get_config()
        config["name"] = f"renamed_{layer.name}"
        target.add(type(layer).from_config(config))
    before = interop.state(target)
    with pytest.raises(ValueError, match=r"'conv' and 'renamed_conv'.*match='order'"):
        interop.convert(source, target)
    assert_same_state(interop.state(target), before, "after the error")
    interop.convert(source, target, match="order")
    unnamed = nn.Sequential(*SMALL.numpy())
    interop.convert(target, unnamed, match="order")
    for ours, back in zip(source.state_dict().values(), unnamed.state_dict().values(), strict=True):
        if ours.ndim:
            np.testing.assert_array_equal(back, ours)


class Part(torch.nn.Sequential):
    """A named part of a network: as many models have it."""


def test_nested_chains_and_functional_models():
    source = randomize(SMALL.numpy(), "nested")
    layers = list(SMALL.layers(torch.nn).items())
    nested = torch.nn.Sequential(
        OrderedDict(
            features=Part(OrderedDict(layers[:4])),
            nothing=torch.nn.Identity(),
            head=torch.nn.Sequential(OrderedDict(layers[4:])),
        )
    ).double()
    interop.convert(source, nested, match="order")
    assert "features.conv.weight" in interop.state(nested)
    made = SMALL.made_of()
    inputs = keras.Input((8, 11, 2), dtype="float64")
    y = inputs
    for layer in made:
        y = layer(y)
    functional = keras.Model(inputs, y)
    interop.convert(source, functional)
    inside = keras.Sequential(
        [keras.Input((8, 11, 2), dtype="float64"), keras.Sequential(made[:4], name="a"), *made[4:]]
    )
    assert "a.conv.weight" in interop.state(inside)
    x = generator("nested x").normal(size=(6, *SMALL.shape))
    expected = source.eval()(x)
    assert_agrees(nested.eval()(torch.tensor(x)), expected, 1e-10, "nested torch")
    for model in (functional, inside):
        assert_agrees(model(np.moveaxis(x, 1, -1)), expected, 1e-10, model.name)


@pytest.mark.parametrize("flatten", ["channels_first", "channels_last"])
@pytest.mark.parametrize("images", ["channels_first", "channels_last"])
def test_keras_with_channels_first(images, flatten):
    """Convolutions of such images exist on a CPU only as compiled code."""
    source = nn.Sequential(
        {
            "conv": nn.Conv2d(2, 3, (2, 3)),
            "bn1": nn.BatchNorm2d(3),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),
            "bn2": nn.BatchNorm1d(60),
            "fc1": nn.Linear(60, 4),
        }
    )
    randomize(source, "channels first")
    first = images == "channels_first"
    model = keras.Sequential(
        [
            keras.Input((2, 5, 7) if first else (5, 7, 2)),
            L.Conv2D(3, (2, 3), data_format=images, name="conv"),
            L.BatchNormalization(axis=1 if first else -1, name="bn1"),
            L.ReLU(),
            L.Flatten(data_format=flatten),
            L.BatchNormalization(name="bn2"),
            L.Dense(4, name="fc1"),
        ]
    )
    interop.convert(source, model, settings="copy")
    x = generator("channels").normal(size=(6, 2, 5, 7)).astype(np.float32)
    y = tf.function(model, jit_compile=True)(x if first else np.moveaxis(x, 1, -1))
    assert_agrees(y, source.eval()(x), 1e-5, "logits")


def test_groups_dilation_and_even_same_padding_between_torch_and_keras():
    """What `bnbook.nn` has not."""
    T = torch.nn
    source = T.Sequential(
        T.Conv2d(4, 6, (2, 3), padding="same", dilation=(1, 2), groups=2), T.BatchNorm2d(6), T.Dropout(0.3),
        T.Flatten(), T.Linear(6 * 7 * 5, 3),
    )  # fmt: skip
    model = keras.Sequential(
        [
            keras.Input((7, 5, 4)),
            L.Conv2D(6, (2, 3), padding="same", dilation_rate=(1, 2), groups=2),
            L.BatchNormalization(epsilon=1e-5, momentum=0.9),
            L.Dropout(0.3),
            L.Flatten(),
            L.Dense(3),
        ]
    )
    interop.convert(source, model, match="order")
    x = generator("groups").normal(size=(5, 4, 7, 5)).astype(np.float32)
    y = tf.function(model, jit_compile=True)(np.moveaxis(x, 1, -1))
    assert_agrees(y, source.eval()(torch.tensor(x)), 1e-5, "logits")


def test_layer_and_group_normalization_between_numpy_and_torch():
    source = torch_cnn.cnn("layer")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.tensor(generator("layer").normal(0, 0.1, parameter.shape), dtype=torch.float32))
    layers = dict(numpy_cnn.cnn().named_children())
    ours = nn.Sequential(layers | {"bn1": nn.GroupNorm(1, 32), "bn2": nn.LayerNorm(128)})
    interop.convert(source, ours)
    x = to_input(load("val")[0][:7])
    assert_agrees(ours(x), source(torch.tensor(x)), 1e-5, "logits")
    ours = nn.Sequential(layers | {"bn1": nn.GroupNorm(8, 32), "bn2": nn.LayerNorm(128)})
    with pytest.raises(ValueError, match="bn1: num_groups is 1 in the state and 8 in the model"):
        interop.convert(source, ours)


# --- where they must differ: the size, and the cause ------------------------------------------------------------------


def random_image(m: int) -> np.ndarray:
    """(N, C, H, W) with m values a channel, every channel another mean and spread."""
    rng = generator(f"image {m}")
    return rng.normal(size=(2, 3, m // 2, 1)) * np.array([0.02, 0.4, 3.0])[:, None, None] + rng.normal(size=(3, 1, 1))


def test_default_eps_differs_by_what_the_formula_says():
    """The outputs are x̂ of another ε: their ratio is √((σ²+ε₁)/(σ²+ε₂)), largest where σ² is small."""
    x = random_image(32)
    rng = generator("eps")
    gamma, beta = rng.uniform(0.5, 2, (2, 3))
    theirs, in_keras = torch.nn.BatchNorm2d(3).double(), L.BatchNormalization(dtype="float64")
    in_keras.build((None, 16, 1, 3))
    in_keras.gamma.assign(gamma), in_keras.beta.assign(beta)
    with torch.no_grad():
        theirs.weight[:], theirs.bias[:] = torch.tensor(gamma), torch.tensor(beta)
    y = theirs(torch.tensor(x)).detach().numpy()
    z = np.moveaxis(in_keras(np.moveaxis(x, 1, -1), training=True).numpy(), -1, 1)
    assert in_keras.epsilon > theirs.eps
    gamma, beta = gamma[:, None, None], beta[:, None, None]
    var = x.var((0, 2, 3), keepdims=True)[0]
    ratio = np.sqrt((var + theirs.eps) / (var + in_keras.epsilon))
    assert ratio.min() < 0.7 and ratio.max() > 0.999
    assert_agrees(z, (y - beta) * ratio + beta, 1e-12, "Keras from torch")
    assert_agrees(np.abs(z - y).max(), np.abs((1 - ratio) * (y - beta)).max(), 1e-10, "the size of the difference")


@pytest.mark.parametrize("m", [2, 4, 16, 1024])
def test_running_variance_differs_by_bessel_s_factor(m):
    """After ten batches, what came from the batches is m/(m−1) times larger in torch and bnbook than in Keras."""
    start = np.array([0.3, 1.7, 4.0])
    in_keras = L.BatchNormalization(momentum=1 - MOMENTUM, dtype="float64")
    in_keras.build((None, 1, 1, 3))
    in_keras.moving_variance.assign(start)
    ours = nn.BatchNorm2d(3, momentum=MOMENTUM, dtype=np.float64)
    theirs = torch.nn.BatchNorm2d(3, momentum=MOMENTUM).double()
    ours.running_var[:], theirs.running_var[:] = start, torch.tensor(start)
    for step in range(10):
        x = random_image(m) * (1 + step)
        in_keras(np.moveaxis(x, 1, -1), training=True), ours(x), theirs(torch.tensor(x))
    kept = (1 - MOMENTUM) ** 10 * start
    biased, unbiased = in_keras.moving_variance.numpy() - kept, ours.running_var - kept
    assert_agrees(unbiased / biased, np.full(3, m / (m - 1)), 1e-10, "the ratio")
    assert_agrees(theirs.running_var, ours.running_var, 1e-12, "torch")


@pytest.mark.parametrize("m", [2, 4, 16, 1024])
def test_the_fused_kernel_differs_from_the_plain_one_in_the_variance_it_hands_out(m):
    """The outputs agree, so it normalizes by the biased variance; the one for the running average has m/(m−1)."""
    x = np.moveaxis(random_image(m), 1, -1).astype(np.float32)
    gamma, beta = generator("fused").uniform(0.5, 2, (2, 3)).astype(np.float32)
    fused = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=np.zeros(0, "f4"), variance=np.zeros(0, "f4"), epsilon=EPS
    )
    mean, var = tf.nn.moments(x, (0, 1, 2))
    plain = tf.nn.batch_normalization(x, mean, var, beta, gamma, EPS)
    assert_agrees(fused.y, plain, 1e-5, "outputs")
    assert_agrees(fused.batch_mean, mean, 1e-5, "means")
    assert_agrees(fused.batch_variance / var, np.full(3, m / (m - 1)), 1e-5, "the ratio of the variances")
