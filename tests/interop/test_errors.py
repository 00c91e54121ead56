"""What does not fit is refused by name, before anything has changed."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from bnbook import interop, nn
from tests.references import assert_agrees, generator, torch

pytest.importorskip("torch")
pytest.importorskip("bnbook.models.keras_cnn", reason="TensorFlow is not installed")

from bnbook.interop import COUNTER
from bnbook.models import keras_cnn, torch_cnn
from bnbook.models.keras_cnn import keras
from tests.interop.networks import EPS, MOMENTUM, SMALL, assert_same_state, randomize

L = keras.layers
FRAMEWORKS = ["numpy", "torch", "keras"]


@pytest.fixture(scope="module")
def models() -> dict:
    """The small network in every framework, with values, eps and momentum of its own: all of it could change."""
    made = {name: other_settings(name) for name in FRAMEWORKS}
    for name, model in made.items():
        interop.convert(randomize(SMALL.numpy(), f"before in {name}"), model, settings="keep")
    made["numpy"].bn1.eval(), made["torch"].bn1.eval()
    made["torch"].conv.weight.requires_grad_(False)
    made["keras"].get_layer("bn1").trainable = False
    return made


SETTINGS = ("check", "copy", "keep")


def whole(model) -> list:
    """All that `load` could change in a model of any framework: arrays, eps, momentum, modes, what is frozen."""
    if isinstance(model, keras.Model):
        arrays = [(variable.path, np.asarray(variable).tobytes()) for variable in model.variables]
        layers = list(model._flatten_layers())
    else:
        arrays = [(key, interop.weights.to_array(key, a).tobytes()) for key, a in model.state_dict().items()]
        arrays += [(key, id(p), getattr(p, "requires_grad", None)) for key, p in model.named_parameters()]
        layers = [layer for _, layer in model.named_modules()]
    flags = ("eps", "epsilon", "momentum", "training", "trainable", "track_running_stats", "predict_function")
    return arrays + [(type(layer).__name__, [(f, getattr(layer, f, None)) for f in flags]) for layer in layers]


def refused(model, state, error: type[Exception], words: str, settings=SETTINGS, **options) -> None:
    """`load` says so, with every of the `settings`, and nothing of the model is another afterwards."""
    before = whole(model)
    for setting in (settings,) if isinstance(settings, str | bool) else settings:
        with pytest.raises(error, match=words):
            interop.load(model, state, settings=setting, **options)
        assert whole(model) == before, f"{words} with settings={setting!r}"


# --- arrays -----------------------------------------------------------------------------------------------------------


def replaced(key: str, change):
    def apply(state):
        state[key] = change(state[key])

    return apply


WRONG_ARRAYS = [
    (
        "a missing key",
        lambda s: s.pop("bn1.running_mean"),
        KeyError,
        r"missing keys \['bn1.running_mean'\], unexpected",
    ),
    (
        "a key too many",
        lambda s: s.update({"bn3.weight": 1.0}),
        KeyError,
        r"missing keys \[\], unexpected.*'bn3.weight'",
    ),
    (
        "a misspelled key",
        lambda s: s.update({"bn2.gamma": s.pop("bn2.weight")}),
        KeyError,
        r"missing keys \['bn2.weight'\], unexpected keys \['bn2.gamma'\]",
    ),
    (
        "a kernel in Keras's layout",
        replaced("conv.weight", lambda a: a.transpose(2, 3, 1, 0)),
        ValueError,
        r"conv.weight: \(3, 2, 2, 5\), expected \(5, 2, 3, 2\) as \(out, in, height, width\)",
    ),
    (
        "a dense kernel in Keras's layout",
        replaced("fc1.weight", np.transpose),
        ValueError,
        r"fc1.weight: \(75, 7\), expected \(7, 75\) as \(out, in\)",
    ),
    (
        "two arrays of other lengths",
        lambda s: s.update({"fc2.bias": np.zeros(4), "bn2.bias": np.zeros((7, 1))}),
        ValueError,
        r"bn2.bias: \(7, 1\), expected \(7,\); fc2.bias: \(4,\), expected \(3,\)",
    ),
    (
        "complex numbers",
        replaced("fc2.bias", lambda a: a + 0j),
        TypeError,
        "fc2.bias: complex128, the model holds float64",
    ),
    ("text", replaced("fc2.bias", lambda a: np.array(["a", "b", "c"])), TypeError, "fc2.bias: <U1"),
    (
        "mean and variance swapped",
        lambda s: s.update({"bn1.running_mean": s["bn1.running_var"], "bn1.running_var": s["bn1.running_mean"]}),
        ValueError,
        "a variance cannot be negative: bn1.running_var; is it swapped with running_mean",
    ),
    (
        "a run that diverged",
        lambda s: s.update({"bn1.running_var": s["bn1.running_var"] * np.nan, "fc2.bias": np.full(3, np.inf)}),
        ValueError,
        "NaN or infinity: bn1.running_var, fc2.bias; has its training diverged",
    ),
    (
        "a variance a little below zero",
        replaced("bn2.running_var", lambda a: np.where(np.arange(7) == 3, -1e-12, a)),
        ValueError,
        "a variance cannot be negative: bn2.running_var",
    ),
    (
        "a masked array",
        replaced("fc1.bias", lambda a: np.ma.masked_array(a, np.arange(7) == 2)),
        TypeError,
        "fc1.bias is a masked array, whose mask would be lost",
    ),
    ("a name without a layer", lambda s: s.update({"weight": 1.0}), KeyError, r"unexpected keys \['weight'\]"),
    ("the count of no layer", lambda s: s.update({f"bn3.{COUNTER}": 1}), KeyError, r"unexpected keys \['bn3.num_b"),
    ("rows of two lengths", lambda s: s.update({"fc2.bias": [[1.0], [2.0, 3.0]]}), TypeError, "fc2.bias cannot be"),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("change", "error", "words"), [row[1:] for row in WRONG_ARRAYS], ids=[r[0] for r in WRONG_ARRAYS]
)
def test_wrong_arrays(models, framework, change, error, words):
    state = interop.state(randomize(SMALL.numpy(), "wrong arrays"))
    change(state)
    refused(models[framework], state, error, words)
    refused(models[framework], dict(state), error, words, settings="keep")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_order_of_bytes_is_turned(framework):
    """As arrays of big-endian files are; torch has no such tensors, and would refuse them after eps was written."""
    source = randomize(SMALL.numpy(), "bytes")
    state = interop.state(source)
    for key, array in state.items():
        state[key] = array.astype(array.dtype.newbyteorder(">"))
    model = other_settings(framework)
    interop.load(model, state, settings="copy")
    np.testing.assert_array_equal(interop.state(model)["fc1.weight"], source.fc1.weight.data)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_values_are_not_rounded_in_silence(framework):
    wide, narrow = randomize(SMALL.numpy(), "wide"), getattr(SMALL, framework)(np.float32)
    refused(narrow, interop.state(wide), TypeError, r"conv.weight: float64, the model holds float32.*astype")
    interop.load(narrow, interop.state(wide).astype(np.float32))
    wider = SMALL.numpy()
    interop.convert(narrow, wider)  # float32 in float64 is exact
    np.testing.assert_array_equal(wider.conv.weight.data, wide.conv.weight.data.astype(np.float32))


def test_a_dtype_that_numpy_has_not():
    with pytest.raises(TypeError, match=r"conv.weight cannot be turned into a NumPy array.*BFloat16"):
        interop.state(SMALL.torch().to(torch.bfloat16))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_mapping_without_layers_does_not_know_its_eps(models, framework):
    """Tensors of a torch checkpoint, for example."""
    source = randomize(SMALL.numpy(), "mapping")
    checkpoint = {key: torch.tensor(value) for key, value in source.state_dict().items()}
    words = "does not say which eps and momentum"
    refused(models[framework], checkpoint, ValueError, words, settings=("check", "copy"))
    refused(models[framework], checkpoint, ValueError, "cannot be matched by order", match="order", settings="keep")
    model = getattr(SMALL, framework)()
    interop.load(model, checkpoint, settings="keep")
    np.testing.assert_array_equal(interop.state(model)["fc1.weight"], source.fc1.weight.data)


# --- layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_another_order_of_the_layers(models, framework):
    """Every array fits, and the network would compute something else."""
    layers = dict(SMALL.numpy().named_children())
    names = "conv relu1 bn1 pool flatten fc1 relu2 bn2 fc2".split()
    source = nn.Sequential({name: layers[name] for name in names})
    refused(models[framework], interop.state(source), ValueError, r"(?s)not in the same order.*ReLU → BatchNorm → Max")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_with_other_names(models, framework):
    layers = dict(SMALL.numpy().named_children())
    source = nn.Sequential({f"my_{name}" if name in ("conv", "fc2") else name: layers[name] for name in layers})
    words = "other names .*: 'my_conv' and 'conv', 'my_fc2' and 'fc2'; .* pass match='order'"
    refused(models[framework], interop.state(source), ValueError, words)


def test_as_it_circulates_keras_is_not_the_torch_network():
    before = interop.state(model := torch_cnn.cnn())
    with pytest.raises(ValueError, match=r"(?s)state: Conv2d → ReLU → BatchNorm.*model: Conv2d → BatchNorm → ReLU"):
        interop.convert(keras_cnn.cnn(), model)
    assert_same_state(interop.state(model), before, "torch")
    with pytest.raises(ValueError, match=r"(?s)state: Conv2d → BatchNorm.*model: Conv2d → ReLU"):
        interop.convert(model, keras_cnn.cnn())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"conv": nn.Conv2d(2, 5, (2, 3))}, r"conv: kernel_size is \(2, 3\) in the state and \(3, 2\) in the model"),
        ({"conv": nn.Conv2d(2, 5, (3, 2), stride=(1, 2))}, r"conv: stride is \(1, 2\) in the state and \(1, 1\)"),
        ({"conv": nn.Conv2d(2, 5, (3, 2), padding=1)}, r"conv: padding is \(1, 1\) in the state and \(0, 0\)"),
        ({"pool": nn.MaxPool2d(2, 1)}, r"pool: stride is \(1, 1\) in the state and \(2, 2\)"),
        ({"pool": nn.MaxPool2d((2, 3), 2)}, r"pool: kernel_size is \(2, 3\) in the state and \(2, 2\)"),
        ({"relu1": nn.Tanh()}, "(?s)state: Conv2d → BatchNorm → Tanh.*model: Conv2d → BatchNorm → ReLU"),
    ],
    ids=str,
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_layers_of_another_kind_or_with_other_options(models, framework, layer, words):
    source = nn.Sequential(dict(SMALL.numpy().named_children()) | layer)
    refused(models[framework], interop.state(source).astype(np.float64), ValueError, words)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 1, 0), (2, 1, 1), (3, 1, 0), ((3, 4), 1, (1, 1)), (3, 2, 1), (3, 2, 0)]
)
def test_same_padding_is_not_any_padding(kernel, stride, padding):
    """With even kernels the two sides differ, with strides it depends on the size of the image."""
    source = torch.nn.Sequential(OrderedDict(c=torch.nn.Conv2d(2, 4, kernel, stride, padding)))
    target = chain(L.Conv2D(4, kernel, stride, padding="same", name="c"))
    with pytest.raises(ValueError, match=r"c: padding is .* in the state and .* in the model"):
        interop.convert(source, target)


def chain(*layers, shape=(5, 7, 2)):
    return keras.Sequential([keras.Input(shape), *layers])


def branching():
    x = keras.Input((5, 7, 2))
    y = L.Conv2D(2, 1)(x)
    return keras.Model(x, L.Add()([x, y]))


def twice():
    x, layer = keras.Input((4,)), L.Dense(4)
    return keras.Model(x, layer(layer(x)))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)


class Subclassed(keras.Model):
    def call(self, x):
        return x


class OfItsOwn(torch.nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


shared = torch.nn.ReLU()
UNREADABLE = [
    (lambda: 3, TypeError, "model must be a network of bnbook.nn, torch or Keras, got int"),
    (Net, ValueError, "Net is not a Sequential"),
    (OfItsOwn, ValueError, "OfItsOwn is not a Sequential"),
    (lambda: torch.nn.Sequential(torch.nn.ConvTranspose2d(1, 1, 1)), ValueError, "'0' is a ConvTranspose2d.*not moved"),
    (lambda: torch.nn.Sequential(shared, shared), ValueError, "in two places"),
    (lambda: nn.Sequential(nn.RMSNorm(3)), ValueError, "'0' is a RMSNorm.*not moved; accepted: Conv2d"),
    (lambda: keras.Sequential([L.Dense(3)]), ValueError, "no weights yet: begin it with keras.Input"),
    (Subclassed, ValueError, "Subclassed is not a Sequential or functional"),
    (branching, ValueError, "not a chain"),
    (twice, ValueError, "not a chain"),
    (
        lambda: chain(L.DepthwiseConv2D(2, name="d")),
        ValueError,
        "'d' is a DepthwiseConv2D.*not moved; accepted: Conv2D",
    ),
    (lambda: chain(L.BatchNormalization(axis=1, name="b")), ValueError, r"'b' normalizes axis 1 of \(None, 5, 7, 2\)"),
    (lambda: chain(L.BatchNormalization(renorm=True)), ValueError, "without renorm"),
    (lambda: chain(L.BatchNormalization(), shape=(5, 7)), ValueError, r"axis -1 of \(None, 5, 7\)"),
    (lambda: chain(L.Dense(3, name="d")), ValueError, r"'d' is a Dense layer on \(None, 5, 7, 2\).*after Flatten"),
    (lambda: chain(L.Conv2D(2, 2), L.Flatten()), ValueError, "ends flattened"),
    (lambda: chain(L.Dense(3, "gelu", name="d"), shape=(4,)), ValueError, "'d.activation' is gelu; accepted: linear"),
    (lambda: chain(L.ReLU(max_value=6, name="r")), ValueError, "'r' is a ReLU with max_value"),
    (
        lambda: chain(L.Conv2D(2, 2), L.MaxPooling2D(data_format="channels_first")),
        ValueError,
        "mixes channels_first and channels_last",
    ),
]


@pytest.mark.parametrize(("make", "error", "words"), UNREADABLE, ids=[row[2][:30] for row in UNREADABLE])
def test_what_is_not_a_chain_of_known_layers(make, error, words):
    """Neither as the source nor as the target of a state."""
    with pytest.raises(error, match=words):
        interop.state(make())
    model = make()
    if isinstance(model, nn.Module | torch.nn.Module | keras.Model):
        refused(model, interop.state(SMALL.numpy()), error, words)


def test_a_sequential_of_the_layers_of_a_class_has_its_keys():
    """What the message about a class of torch tells the reader to do."""
    net = Net()
    again = torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(2, 2)))
    again.load_state_dict(net.state_dict())
    target = keras.Sequential([keras.Input((2,)), L.Dense(2, name="fc")])
    interop.convert(again, target)
    x = generator("net").normal(size=(4, 2)).astype(np.float32)
    assert_agrees(target(x), net.fc(torch.tensor(x)), 1e-6, "outputs")


def test_unknown_words():
    model = SMALL.numpy()
    refused(model, interop.state(model), ValueError, "match must be one of 'name', 'order', got 'size'", match="size")
    refused(model, interop.state(model), ValueError, "settings must be one of 'check', .* got True", settings=True)
    for wrong in (3, [], "model.npz"):
        refused(model, wrong, TypeError, f"state must be .* or a mapping, got {type(wrong).__name__}")


# --- eps and momentum -------------------------------------------------------------------------------------------------


def other_settings(framework: str):
    """The small network with the defaults of its framework."""
    if framework == "keras":
        c, h, w = SMALL.shape
        layers = SMALL.keras_layers({"dtype": "float64"}, {"dtype": "float64"})
        return keras.Sequential([keras.Input((h, w, c), dtype="float64"), *layers])
    model = getattr(SMALL, framework)()
    for layer in (model.bn1, model.bn2):
        layer.eps, layer.momentum = 1e-5, 0.1
    return model


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_difference_is_refused_copied_or_kept(framework):
    source = randomize(SMALL.numpy(), "settings")
    state, model = interop.state(source), other_settings(framework)
    eps, momentum = ("0.001", "0.01") if framework == "keras" else ("1e-05", "0.1")
    words = (
        rf"bn1: eps is 0.02 in the state and {eps} in the model; bn1: momentum is 0.15 .* and {momentum} in .*bn2: eps"
    )
    refused(model, state, ValueError, words, settings="check")
    x = generator("settings x").normal(size=(9, *SMALL.shape))

    def outputs(model, training):
        if framework == "keras":
            return model(np.moveaxis(x, 1, -1), training=training).numpy()
        y = model.train(training)(x if framework == "numpy" else torch.tensor(x))
        return y if framework == "numpy" else y.detach().numpy()

    def logits(training):
        return source.train(training)(x)

    interop.load(model, state, settings="keep")
    assert np.abs(outputs(model, False) - logits(False)).max() > 1e-3
    interop.load(model, state, settings="copy")
    assert_agrees(outputs(model, False), logits(False), 1e-10, "evaluation")
    assert_agrees(outputs(model, True), logits(True), 1e-10, "training")
    moved = interop.state(model)["bn2.running_mean"]  # by a step with the momentum
    assert_agrees(moved, source.bn2.running_mean, 1e-10, "running mean")


def test_copied_settings_reach_functions_that_keras_has_traced():
    """`fit`, `evaluate` and `predict` keep ε as a constant of the graph they have made."""
    source, model = randomize(SMALL.numpy(), "traced"), other_settings("keras")
    x = generator("traced x").normal(size=(9, *SMALL.shape))
    x = x.astype(np.float32).astype(np.float64)  # `predict` rounds its input to float32
    model.predict(np.moveaxis(x, 1, -1), verbose=0)
    interop.convert(source, model, settings="copy")
    assert_agrees(model.predict(np.moveaxis(x, 1, -1), verbose=0), source.eval()(x), 1e-10, "predict")


def test_copied_settings_reach_models_in_the_model():
    """Also what Keras has traced of a model that is a part of this one: its own `predict`, and that of one in it."""
    source = randomize(SMALL.numpy(), "nested")
    c, h, w = SMALL.shape
    made = SMALL.keras_layers({"dtype": "float64"}, {"dtype": "float64"})
    inner = keras.Sequential([keras.Input((h, w, c), dtype="float64"), *made[:2]], name="inner")
    middle = keras.Sequential([keras.Input((h, w, c), dtype="float64"), inner, made[2]], name="middle")
    model = keras.Sequential([keras.Input((h, w, c), dtype="float64"), middle, *made[3:]])
    x = generator("nested x").normal(size=(9, *SMALL.shape)).astype(np.float32).astype(np.float64)
    z = np.moveaxis(x, 1, -1)
    for part in (inner, middle, model):
        part.predict(z, verbose=0)
    interop.convert(source, model, match="order", settings="copy")
    source.eval()
    for part, layers in ((inner, 2), (middle, 3)):
        expected = np.moveaxis(source[:layers](x), 1, -1)
        assert_agrees(part.predict(z, verbose=0), expected, 1e-10, part.name)
    assert_agrees(model.predict(z, verbose=0), source(x), 1e-10, "the whole")


def test_the_average_of_all_batches_does_not_exist_in_keras():
    source = SMALL.torch()
    source.bn2.momentum = None
    refused(SMALL.keras(), interop.state(source), ValueError, "bn2: momentum is None in .* and 0.15", "check")
    refused(
        other_settings("keras"),
        interop.state(source),
        ValueError,
        "bn2: momentum None.*not exist in Keras",
        settings="copy",
    )
    target = SMALL.numpy()
    interop.convert(source, target, settings="copy")
    for momentum in (1.5, -0.1):
        source.bn2.momentum = momentum
        words = rf"bn2: momentum must be .*, got {momentum}"
        refused(other_settings("keras"), interop.state(source), ValueError, words, "copy")
    assert target.bn2.momentum is None and target.bn1.momentum == MOMENTUM and target.bn2.eps == EPS


# --- what is imported -------------------------------------------------------------------------------------------------


def test_the_module_needs_numpy_alone():
    code = (
        "import sys, bnbook.interop\n"
        "print(sorted({'torch', 'tensorflow', 'keras', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout.strip() == "[]"
