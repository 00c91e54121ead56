"""The network of the book in PyTorch and in Keras: its layers, its orders, and that it learns in silence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bnbook import data
from bnbook.models import numpy_cnn
from tests.references import generator, torch

torch_cnn = pytest.importorskip("bnbook.models.torch_cnn", reason="torch is not installed")
keras_cnn = pytest.importorskip("bnbook.models.keras_cnn", reason="TensorFlow is not installed")

keras = keras_cnn.keras

BEFORE = "conv bn1 relu1 pool flatten fc1 bn2 relu2 fc2".split()
AFTER = "conv relu1 bn1 pool flatten fc1 relu2 bn2 fc2".split()


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def test_torch_has_the_keys_and_shapes_of_numpy():
    ours, theirs = numpy_cnn.cnn().state_dict(), torch_cnn.cnn().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}
    assert list(ours) == list(theirs)


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        ("batch", ["BatchNorm2d", "BatchNorm1d"]),
        ("none", []),
        ("layer", ["GroupNorm", "LayerNorm"]),
        ("group", ["GroupNorm", "GroupNorm"]),
    ],
)
@pytest.mark.parametrize("order", torch_cnn.ORDERS)
def test_torch_norms_and_orders(norm, kinds, order):
    torch.manual_seed(3)
    model = torch_cnn.cnn(norm, order=order)
    names = [name for name, _ in model.named_children()]
    expected = BEFORE if order == "before_activation" else AFTER
    assert names == [name for name in expected if norm != "none" or not name.startswith("bn")]
    assert [type(layer).__name__ for name, layer in model.named_children() if name.startswith("bn")] == kinds
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    torch.manual_seed(3)
    for name, value in torch_cnn.cnn("batch").state_dict().items():
        if not name.startswith("bn"):
            assert torch.equal(value, model.state_dict()[name]), f"{name} starts from other values"


def test_torch_group_sizes():
    """Layer normalization is one group; `group` takes eight, of 4 and of 16 channels."""
    assert torch_cnn.cnn("layer").bn1.num_groups == 1
    assert [torch_cnn.cnn("group").bn1.num_groups, torch_cnn.cnn("group").bn2.num_groups] == [8, 8]


def test_torch_unknown_words():
    with pytest.raises(ValueError, match="norm must be one of 'batch', 'none', 'layer', 'group', got 'batchnorm'"):
        torch_cnn.cnn("batchnorm")
    with pytest.raises(ValueError, match="order must be one of 'before_activation', 'after_activation', got 'after'"):
        torch_cnn.cnn(order="after")


@pytest.mark.parametrize("size", [4, 5, np.int64(6), 14])
def test_torch_images_of_other_sizes(size):
    x = torch.zeros(2, 1, int(size), int(size))
    assert torch_cnn.cnn(image_size=size)(x).shape == (2, 10)


@pytest.mark.parametrize("size", [3, 2, 1, 0, -1])
def test_torch_images_too_small_to_pool(size):
    with pytest.raises(ValueError, match=f"image_size must be at least 4, got {size}"):
        torch_cnn.cnn(image_size=size)
    with pytest.raises(TypeError, match=r"image_size must be an integer, got 14\.0"):
        torch_cnn.cnn(image_size=14.0)


# --- Keras ------------------------------------------------------------------------------------------------------------


def test_keras_as_it_circulates_normalizes_after_the_activation():
    model = keras_cnn.cnn()
    assert [layer.name for layer in model.layers] == [name for name in AFTER if not name.startswith("relu")]
    assert [model.get_layer(name).activation.__name__ for name in ("conv", "fc1", "fc2")] == ["relu", "relu", "softmax"]
    assert model.input_shape == (None, 28, 28, 1) and model.output_shape == (None, 10)
    assert [(bn.epsilon, bn.momentum) for bn in (model.get_layer("bn1"), model.get_layer("bn2"))] == [(1e-3, 0.99)] * 2
    default = keras.layers.BatchNormalization()
    assert (default.epsilon, default.momentum) == (1e-3, 0.99)
    x = generator("keras").normal(size=(4, 28, 28, 1))
    np.testing.assert_allclose(model(x).numpy().sum(1), 1, rtol=1e-6)


def test_keras_in_the_order_of_the_others():
    model = keras_cnn.cnn("before_activation", logits=True, epsilon=0.01, momentum=0.5, dtype="float64")
    assert [layer.name for layer in model.layers] == BEFORE
    assert {model.get_layer(name).activation.__name__ for name in ("conv", "fc1", "fc2")} == {"linear"}
    assert {(model.get_layer(name).epsilon, model.get_layer(name).momentum) for name in ("bn1", "bn2")} == {(0.01, 0.5)}
    assert {variable.dtype for variable in model.variables} == {"float64"}
    assert model(np.zeros((1, 28, 28, 1))).numpy().dtype == np.float64
    count = sum(p.data.size for p in numpy_cnn.cnn().parameters())
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == count


def test_keras_seeds():
    def kernels(seed):
        return [v.numpy() for v in keras_cnn.cnn(seed=seed).variables if v.path.endswith("kernel")]

    for a, b, c in zip(kernels(0), kernels(0), kernels(1), strict=True):
        assert np.array_equal(a, b) and not np.array_equal(a, c)
    conv, fc1, fc2 = (
        kernel.ravel()[:288] for kernel in kernels(0)
    )  # drawn one after the other, not all from the start
    assert np.abs(np.corrcoef([conv, fc1, fc2]) - np.eye(3)).max() < 0.3


def test_keras_unknown_words():
    with pytest.raises(ValueError, match="order must be one of 'after_activation', 'before_activation', got 'before'"):
        keras_cnn.cnn("before")


def test_keras_images_have_their_channel_last():
    images = data.load("val")[0][:3]
    np.testing.assert_array_equal(keras_cnn.to_input(images)[..., 0], data.to_input(images)[:, 0])
    assert keras_cnn.to_input(images, np.float64).dtype == np.float64


# --- fit --------------------------------------------------------------------------------------------------------------


class Seen(keras.callbacks.Callback):
    """What reaches a model in training."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


@pytest.mark.long
@pytest.mark.parametrize("order", keras_cnn.ORDERS)
@pytest.mark.parametrize("logits", [False, True], ids=["softmax", "logits"])
def test_fit_learns(order, logits):
    images, labels = (a[:400] for a in data.load("train"))
    model = keras_cnn.cnn(order, logits=logits, seed=0)
    history = keras_cnn.fit(model, images, labels, lr=0.03, epochs=4, batch_size=20, validation=(images, labels))
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"} and len(history["loss"]) == 4
    assert history["loss"][-1] < 0.5 * history["loss"][0] and history["accuracy"][-1] > 0.85
    assert model.loss.from_logits == logits


@pytest.mark.long
def test_fit_follows_the_recipe(monkeypatch):
    """Full batches only, every image at most once an epoch, another order every epoch, half a cosine, momentum 0.9."""
    images, labels = (a[:70] for a in data.load("train"))
    model = keras_cnn.cnn(seed=0)
    called, keras_fit = {}, model.fit

    def fit(batches, **options):
        called["epochs"] = [np.concatenate([np.asarray(x) for x, _ in batches]) for _ in range(2)]
        called["sizes"] = {len(x) for x, _ in batches}
        return keras_fit(batches, callbacks=[seen], **options)

    seen = Seen()
    monkeypatch.setattr(model, "fit", fit)
    keras_cnn.fit(model, images, labels, lr=0.25, epochs=3, batch_size=32, seed=1)
    assert called["sizes"] == {32}
    first, second = called["epochs"]
    assert len(first) == 64 and len(np.unique(first.reshape(64, -1), axis=0)) == 64
    assert not np.array_equal(first, second) and not np.array_equal(first, keras_cnn.to_input(images)[:64])
    expected = [0.25 * 0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(1, 7)]
    np.testing.assert_allclose(seen.rates, expected, atol=1e-6)
    assert model.optimizer.momentum == 0.9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 21}, "batch_size must be from 2 to 20, the number of images, got 21"),
        ({"batch_size": 1}, "batch_size must be from 2 to 20"),
        ({"labels": np.zeros(19, int)}, "images and labels must have the same length, got 20 and 19"),
    ],
)
def test_fit_refuses(arguments, words):
    images, labels = (a[:20] for a in data.load("train"))
    model = keras_cnn.cnn()
    with pytest.raises(ValueError, match=words):
        keras_cnn.fit(model, images, **{"labels": labels, "lr": 0.1} | arguments)
    assert not model.compiled


@pytest.mark.long
def test_triton_may_be_loaded_beside_tensorflow():
    """PyTorch loads it when it first needs it; behind TensorFlow alone, that ends the process."""
    pytest.importorskip("triton")
    code = "from bnbook.models.keras_cnn import tf; import triton; print(tf.reduce_sum(tf.ones(3)).numpy())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr


@pytest.mark.long
def test_tensorflow_is_silent():
    """At its import, building, training and prediction, in compiled code, and however many networks there are."""
    code = """
import torch
from bnbook.models.keras_cnn import cnn, fit, tf, to_input
from bnbook import data
images, labels = (a[:64] for a in data.load("train"))
for dtype in ("float32", "float64"):
    model = cnn("before_activation", dtype=dtype)
    fit(model, images, labels, lr=0.1, epochs=1, batch_size=32, validation=(images, labels))
    model.predict(to_input(images), verbose=0)
tf.function(cnn(), jit_compile=True)(to_input(images))
for _ in range(7):
    tf.function(lambda x: x + 1)(tf.ones(3))
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(2)])
    model.predict(tf.ones((4, 2)), verbose=0)  # a new network and a new trace every time: Python would warn
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=600)
    assert run.returncode == 0, run.stderr
    assert run.stderr == "" and run.stdout == ""
