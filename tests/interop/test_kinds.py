"""A layer is known by what it is, not by its name; two layers are the same if all that decides what they compute is."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from bnbook import interop, nn
from tests.references import assert_agrees, generator, torch

pytest.importorskip("torch")
pytest.importorskip("bnbook.models.keras_cnn", reason="TensorFlow is not installed")

import keras

from bnbook.models.keras_cnn import tf
from tests.interop.networks import SMALL, randomize
from tests.interop.test_errors import other_settings, refused, whole

L, T = keras.layers, torch.nn


def chain(*layers, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *layers])


def called(name: str, kind: type, **members) -> type:
    """A class of that name, made of another one."""
    return type(name, (kind,), members)


def standardized(self, x):
    weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
    return torch.nn.functional.conv2d(x, weight, self.bias)


def patched(layer, name, method):
    setattr(layer, name, method)
    return layer


# --- classes that only have the name ----------------------------------------------------------------------------------

double = lambda self, x: 2 * x  # noqa: E731
FOREIGN = {
    "a convolution that standardizes": (
        lambda: T.Sequential(called("Conv2d", T.Conv2d, forward=standardized)(1, 1, 1)),
        "Conv2d, which computes in a way of its own",
    ),
    "a convolution with its own inner call": (
        lambda: T.Sequential(called("Conv2d", T.Conv2d, _conv_forward=lambda s, x, w, b: x)(1, 1, 1)),
        "Conv2d, which computes",
    ),
    "a ReLU that clamps": (
        lambda: T.Sequential(called("ReLU", T.Module, forward=lambda s, x: x.clamp(0, 1))()),
        "tests.*ReLU, which is not moved",
    ),
    "a Linear of its own": (
        lambda: T.Sequential(called("Linear", T.Module, forward=double)()),
        "Linear, which is not moved",
    ),
    "an Identity that doubles": (
        lambda: T.Sequential(called("Identity", T.Module, forward=double)()),
        "Identity, which is not moved",
    ),
    "an Identity made of torch's": (
        lambda: T.Sequential(called("Identity", T.Identity, forward=double)()),
        "Identity, which computes",
    ),
    "a call of its own": (
        lambda: T.Sequential(called("Linear", T.Linear, __call__=double)(2, 2)),
        "Linear, which computes",
    ),
    "a forward on the object": (
        lambda: T.Sequential(patched(T.Linear(2, 2), "forward", lambda x: 2 * x)),
        "Linear, which computes",
    ),
    "a batch normalization that freezes": (
        lambda: T.Sequential(called("BatchNorm2d", T.BatchNorm2d, forward=double)(2)),
        "BatchNorm2d, which computes",
    ),
    "weights that are computed": (
        lambda: T.Sequential(T.utils.parametrizations.weight_norm(T.Linear(2, 2))),
        "ParametrizedLinear, which computes",
    ),
    "weights that are codes": (
        lambda: torch.ao.quantization.quantize_dynamic(T.Sequential(T.Linear(2, 2)), {T.Linear}),
        "quantized.*Linear, which is not moved",
    ),
    "a Sequential of its own": (
        lambda: called("Sequential", T.Module, forward=double, __len__=lambda s: 0)(),
        "not a Sequential",
    ),
    "a Sequential inside, of its own": (
        lambda: T.Sequential(called("Sequential", T.Sequential, forward=double)()),
        "Sequential, which is not moved",
    ),
    "a Sequential in another order": (
        lambda: called("Rows", T.Sequential, __iter__=lambda s: reversed(s._modules.values()))(),
        "Rows is not a Sequential",
    ),
    "a Sequential with a forward on it": (
        lambda: patched(T.Sequential(T.ReLU()), "forward", lambda x: 2 * x),
        "is not a Sequential",
    ),
    "bnbook: Linear": (
        lambda: nn.Sequential(called("Linear", nn.Linear, forward=double)(2, 2)),
        "Linear, which computes",
    ),
    "bnbook: ReLU": (lambda: nn.Sequential(called("ReLU", nn.Module, forward=double)()), "ReLU, which is not moved"),
    "bnbook: another backward": (
        lambda: nn.Sequential(called("ReLU", nn.ReLU, backward=double)()),
        "ReLU, which computes",
    ),
    "bnbook: a Sequential": (
        lambda: called("Sequential", nn.Sequential, forward=double)(nn.ReLU()),
        "not a Sequential",
    ),
    "Keras: Dense": (
        lambda: chain(called("Dense", L.Dense, call=double)(4, name="d")),
        "'d' is a .*Dense, which computes",
    ),
    "Keras: a layer named Dense": (
        lambda: chain(called("Dense", L.Layer, call=double)(name="d")),
        "'d' is a .*Dense, which is not moved",
    ),
    "Keras: ReLU": (lambda: chain(called("ReLU", L.ReLU, call=double)(name="r")), "'r' is a .*ReLU, which computes"),
    "Keras: a name of our own": (
        lambda: chain(called("append", L.Layer, call=double)(name="a")),
        "'a' is a append, which is not moved",
    ),
    "Keras: InputLayer": (
        lambda: chain(called("InputLayer", L.Layer, call=double)(name="i")),
        "'i' is a .*InputLayer, which is not moved",
    ),
    "Keras: a call on the object": (lambda: patched_keras(), "'d' is a .*Dense, which computes"),
    "Keras: a function named relu": (
        lambda: chain(L.Dense(3, activation=called_function("relu"), name="d")),
        "'d.activation' is a relu of .*, not that of Keras",
    ),
    "Keras: a function named linear": (
        lambda: chain(L.Activation(called_function("linear"), name="a")),
        "'a' is a linear of .*, not that of Keras",
    ),
    "Keras: a Sequential of its own": (
        lambda: own_keras(called("Sequential", keras.Sequential, call=lambda s, x, **k: 2 * x)),
        "Sequential is not a Sequential or",
    ),
    "Keras: a functional one of its own": (lambda: own_functional(), "Mine is not a Sequential or functional"),
    "Keras: int8": (lambda: quantized("int8"), "'d' is quantized .int8."),
    "Keras: int4": (lambda: quantized("int4"), "'d' is quantized .int4."),
    "Keras: float8": (lambda: quantized("float8"), "'d' is quantized .float8."),
    "Keras: made as int8": (lambda: chain(L.Dense(3, dtype="int8_from_float32", name="d")), "'d' is quantized .int8."),
    "Keras: LoRA": (lambda: with_lora(L.Dense(3, name="d")), "'d' has LoRA"),
    "Keras: LoRA of a convolution": (lambda: with_lora(L.Conv2D(3, 1, name="d"), (5, 5, 4)), "'d' has LoRA"),
}


def called_function(name):
    def function(x):
        return 2 * x

    function.__name__ = name
    return function


def patched_keras():
    model = chain(L.Dense(4, name="d"))
    model.layers[0].call = lambda x: 2 * x
    return model


def own_keras(kind):
    return kind([keras.Input((4,)), L.Dense(2)])


def own_functional():
    class Mine(keras.Model):
        def call(self, x, **options):
            return 2 * super().call(x, **options)

    x = keras.Input((4,))
    return Mine(x, L.Dense(3)(x))


def quantized(mode):
    model = chain(L.Dense(3, name="d"))
    model.layers[0].quantize(mode)
    return model


def with_lora(layer, shape=(4,)):
    model = chain(layer, shape=shape)
    layer.enable_lora(2)
    return model


@pytest.mark.parametrize("case", FOREIGN)
def test_what_only_has_the_name_is_refused(case):
    """As a source, and as a target of any state: by the name of the layer, before anything changes."""
    make, words = FOREIGN[case]
    model = make()
    with pytest.raises(ValueError, match=words):
        interop.state(model)
    if case != "weights that are codes":  # which are no arrays
        refused(model, interop.state(randomize(SMALL.numpy(), "foreign")), ValueError, words)


def test_a_class_that_is_only_made_in_another_way_is_moved():
    """Its own `__init__` and initial values change nothing that is computed."""

    class Conv2d(T.Conv2d):
        def __init__(self, *sizes):
            super().__init__(*sizes, bias=False)

        def reset_parameters(self):
            torch.nn.init.ones_(self.weight)

    class Narrow(L.Dense):
        def __init__(self, **options):
            super().__init__(3, **options)

        def get_config(self):
            return {}

    class Rows(nn.Sequential):
        def first(self):
            return self[0]

    source = T.Sequential(OrderedDict(c=Conv2d(2, 3, 2)))
    target = Rows({"c": nn.Conv2d(2, 3, 2, bias=False)})
    interop.convert(source, target)
    np.testing.assert_array_equal(target.first().weight.data, np.ones((3, 2, 2, 2)))
    source, target = chain(Narrow(name="d")), T.Sequential(OrderedDict(d=T.Linear(4, 3)))
    interop.convert(source, target)
    x = generator("narrow").normal(size=(5, 4)).astype(np.float32)
    assert_agrees(target(torch.tensor(x)), source(x), 1e-6, "outputs")


def test_functions_of_keras_and_tensorflow_are_known():
    source = T.Sequential(OrderedDict(a=T.Linear(4, 3), r=T.ReLU(), b=T.Linear(3, 2), s=T.Sigmoid()))
    x = generator("functions").normal(size=(5, 4)).astype(np.float32)
    for relu, sigmoid in ((tf.nn.relu, tf.nn.sigmoid), (keras.ops.relu, keras.ops.sigmoid), ("relu", "sigmoid")):
        target = chain(L.Dense(3, relu, name="a"), L.Dense(2, name="b"), L.Activation(sigmoid))
        interop.convert(source, target)
        assert_agrees(target(x), source(torch.tensor(x)), 1e-6, "outputs")


# --- all that decides what a layer computes ---------------------------------------------------------------------------

IMAGES = (3, 5, 5)
DIFFERENT = {
    "stride": ({"stride": 2}, T.Conv2d, (2, 2, 3)),
    "padding": ({"padding": 1}, T.Conv2d, (2, 2, 3)),
    "padding_mode": ({"padding": 1, "padding_mode": "reflect"}, T.Conv2d, (2, 2, 3)),
    "dilation": ({"dilation": 2}, T.Conv2d, (2, 2, 3)),
    "groups": ({"groups": 2}, T.Conv2d, (4, 4, 3)),
    "track_running_stats": ({}, T.BatchNorm2d, (3,)),
    "ceil_mode": ({"ceil_mode": True}, T.MaxPool2d, (2,)),
    "return_indices": ({"return_indices": True}, T.MaxPool2d, (2,)),
    "pool dilation": ({"dilation": 2}, T.MaxPool2d, (2,)),
    "start_dim": ({"start_dim": 2}, T.Flatten, ()),
    "end_dim": ({"end_dim": 2}, T.Flatten, ()),
    "p": ({"p": 0.25}, T.Dropout, ()),
    "num_groups": ({}, T.GroupNorm, (3, 6)),
    "dim": ({"dim": 0}, T.Softmax, (1,)),
}


@pytest.mark.parametrize("option", DIFFERENT)
def test_an_option_that_differs_is_refused(option):
    """Also at the end, where a softmax that only one of them has is left out."""
    options, kind, sizes = DIFFERENT[option]
    plain = kind(*sizes)
    if option == "dim":
        other = T.Softmax(dim=0)
    elif option == "num_groups":
        other = T.GroupNorm(2, 6)
    elif option == "track_running_stats":
        other = kind(*sizes)
        other.track_running_stats = False
    else:
        other = kind(*sizes, **options)
    option = option.split()[-1]
    words = {"groups": "groups is 1 in the state and 2", "padding_mode": "padding is"}.get(option, f"x: {option} is")
    for source, target in ((plain, other), (other, plain)):
        words = "groups is" if option == "groups" else words
        state = interop.state(T.Sequential(OrderedDict(x=source)))
        refused(T.Sequential(OrderedDict(x=target)), state, ValueError, words)
        interop.load(T.Sequential(OrderedDict(x=source)), state)


def softmax_of_torch(dim, flat=False):
    layers = {"flatten": T.Flatten()} if flat else {}
    return T.Sequential(OrderedDict(layers | {"fc": T.Linear(4, 3), "softmax": T.Softmax(dim)}))


def test_a_softmax_over_another_axis():
    plain = T.Sequential(OrderedDict(fc=T.Linear(4, 3)))
    in_keras = chain(L.Dense(3, "softmax", name="fc"))
    refused(softmax_of_torch(1), interop.state(softmax_of_torch(0)), ValueError, "dim is 0 in the state and 1")
    refused(softmax_of_torch(0), interop.state(in_keras), ValueError, "softmax: dim is 1 in the state and 0")
    refused(in_keras, interop.state(softmax_of_torch(0)), ValueError, "dim is 0 in the state and 1")
    # −1 is the class axis of (N, classes), and another one of (N, positions, classes)
    refused(softmax_of_torch(-1), interop.state(softmax_of_torch(1)), ValueError, "dim is 1 in the state and -1")
    interop.convert(softmax_of_torch(-1, flat=True), softmax_of_torch(1, flat=True))
    # left out where only one of them has it, if it is over the classes, as that of the loss is
    for dim in (1, -1):
        interop.convert(softmax_of_torch(dim), plain)
        interop.convert(plain, softmax_of_torch(dim))
    for a, b in ((softmax_of_torch(0), plain), (plain, softmax_of_torch(0))):
        refused(
            b, interop.state(a), ValueError, "softmax: the softmax at the end has dim=0; accepted: over the classes"
        )


@pytest.mark.parametrize(("axis", "dim"), [(-1, 1), (3, 1), (1, 2), (2, 3), (0, 0)])
def test_the_axis_of_a_softmax_of_images(axis, dim):
    """Channels are last in Keras: its axes have other numbers in torch."""
    source = T.Sequential(OrderedDict(c=T.Conv2d(2, 3, 2), s=T.Softmax(dim), d=T.Conv2d(3, 2, 1)))
    target = chain(L.Conv2D(3, 2, name="c"), L.Softmax(axis), L.Conv2D(2, 1, name="d"), shape=(6, 5, 2))
    interop.convert(source, target)
    x = generator("axes").normal(size=(4, 2, 6, 5)).astype(np.float32)
    assert_agrees(np.moveaxis(target(np.moveaxis(x, 1, -1)).numpy(), -1, 1), source(torch.tensor(x)), 1e-5, "outputs")
    other = T.Sequential(OrderedDict(c=T.Conv2d(2, 3, 2), s=T.Softmax((dim + 1) % 4), d=T.Conv2d(3, 2, 1)))
    refused(target, interop.state(other), ValueError, f"dim is {(dim + 1) % 4} in the state and {dim} in the model")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: chain(L.Softmax(axis=[1, 2], name="s"), shape=(5, 7, 2)), "'s' is a softmax over the axes"),
        (lambda: chain(L.Dropout(0.5, noise_shape=(None, 1), name="d")), "'d' is a Dropout with noise_shape"),
        (lambda: chain(L.Conv2D(2, 2), L.Flatten(name="f"), shape=(None, None, 2)), "'f' flattens .*sizes are not all"),
        (lambda: chain(L.Conv2D(2, 2), L.Flatten(name="f"), shape=(5, None, 2)), "'f' flattens .*sizes are not all"),
    ],
)
def test_what_keras_has_and_torch_has_not(make, words):
    refused(make(), interop.state(SMALL.numpy()), ValueError, words)


def test_an_array_that_is_no_variable():
    model = chain(L.Dense(3, name="d"))
    model.layers[0].bias = tf.ones(3)
    refused(model, interop.state(SMALL.numpy()), ValueError, "d.bias is computed, not a variable of Keras")


# --- an error and no change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["numpy", "torch", "keras"])
def test_what_the_framework_refuses_half_way(framework, monkeypatch):
    """The last array cannot be written: what was written before is put back, eps and momentum as well."""
    model, state = other_settings(framework), interop.state(randomize(SMALL.numpy(), "half way"))
    if framework == "numpy":
        model.fc2.bias.data.flags.writeable = False
        error, words = ValueError, "read-only: fc2.bias"
    elif framework == "torch":
        with torch.inference_mode():
            model.fc2.bias = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        error, words = RuntimeError, "fc2.bias"
    else:
        bias = model.get_layer("fc2").bias

        def assign(value):
            raise AttributeError("no assign")

        monkeypatch.setattr(bias, "assign", assign)
        error, words = AttributeError, "no assign"
    refused(model, state, error, words, settings=("copy", "keep"))


@pytest.mark.parametrize("library", ["bnbook", "torch"])
def test_one_array_of_the_model_cannot_be_two(library):
    def make(tied):
        m = nn if library == "bnbook" else T
        layers = {"a": m.Linear(3, 3), "r": m.ReLU(), "b": m.Linear(3, 3)}
        if tied:
            layers["b"].weight = layers["a"].weight
        return m.Sequential(layers if m is nn else OrderedDict(layers))

    model = make(tied=True)
    refused(
        model, interop.state(make(tied=False)), ValueError, "one array of the model, several .*: a.weight and b.weight"
    )
    interop.convert(source := make(tied=True), model)
    assert whole(model)[0][1] == whole(source)[0][1]


def test_bfloat16_of_keras_in_a_dtype_that_numpy_has():
    model = chain(L.Dense(3, dtype="bfloat16", name="d"))
    state, target = interop.state(model), T.Sequential(OrderedDict(d=T.Linear(4, 3)))
    assert {array.dtype for array in state.astype(np.float32).values()} == {np.dtype(np.float32)}
    interop.load(target, state.astype(np.float32))
    expected = np.asarray(model.layers[0].kernel).astype(np.float32).T
    np.testing.assert_array_equal(target.d.weight.detach(), expected)
    refused(model, interop.state(target), TypeError, "d.weight: float32, the model holds bfloat16")
