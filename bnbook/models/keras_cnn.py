"""The convolutional network of the book in tf.keras.

Import `tf` and `keras` from here rather than from tensorflow, and TensorFlow's own log lines stay out of a notebook.
"""

from __future__ import annotations

import contextlib
import os
import sys

# They are read once, when TensorFlow is loaded. Level 3 keeps all lines of its C++ code but fatal ones; the one about
# oneDNN is written before the level is known and goes only with oneDNN, whose results depend on the processor anyway.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# PyTorch loads Triton when it first needs it; loaded behind TensorFlow, the process dies of their two copies of LLVM.
if "tensorflow" not in sys.modules:
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401

import numpy as np
import tensorflow as tf

from .. import data
from ..functional._checks import check_one_of

keras = tf.keras
tf.get_logger().setLevel("ERROR")  # or every fifth new network warns that a function was traced again

ORDERS = ("after_activation", "before_activation")

EPOCHS, BATCH_SIZE, MOMENTUM = 5, 64, 0.9


def cnn(
    order: str = "after_activation",
    *,
    logits: bool = False,
    epsilon: float = 1e-3,
    momentum: float = 0.99,
    dtype: str = "float32",
    seed: int | None = None,
) -> keras.Sequential:
    """The network as it circulates, or the one of the other frameworks; images (N, 28, 28, 1) to probabilities (N, 10).

    ================= ==================================================================================
    order             layers
    ================= ==================================================================================
    after_activation  conv (with its ReLU), bn1, pool, flatten, fc1 (with its ReLU), bn2, fc2
    before_activation conv, bn1, relu1, pool, flatten, fc1, bn2, relu2, fc2: as in torch_cnn and numpy_cnn
    ================= ==================================================================================

    Args:
        order: the normalization "after_activation", as it circulates, or "before_activation".
        logits: without the softmax of the last layer, as in the other frameworks.
        epsilon, momentum: of the batch normalizations, Keras's own by default; momentum weighs the *old* value.
        dtype: "float32" or "float64", of the weights and of everything computed.
        seed: of the initial weights.

    Raises:
        ValueError: an unknown order.
    """
    check_one_of("order", order, ORDERS)
    layers = keras.layers
    glorot = keras.initializers.GlorotUniform(None if seed is None else keras.random.SeedGenerator(seed))
    weights = {"kernel_initializer": glorot, "dtype": dtype}
    norm = {"epsilon": epsilon, "momentum": momentum, "dtype": dtype}
    after = order == "after_activation"
    activation = "relu" if after else None
    network = [
        keras.Input((28, 28, 1), dtype=dtype),
        layers.Conv2D(32, 3, activation=activation, name="conv", **weights),
        layers.BatchNormalization(name="bn1", **norm),
        None if after else layers.ReLU(name="relu1", dtype=dtype),
        layers.MaxPooling2D(name="pool", dtype=dtype),
        layers.Flatten(name="flatten", dtype=dtype),
        layers.Dense(128, activation=activation, name="fc1", **weights),
        layers.BatchNormalization(name="bn2", **norm),
        None if after else layers.ReLU(name="relu2", dtype=dtype),
        layers.Dense(10, activation=None if logits else "softmax", name="fc2", **weights),
    ]
    return keras.Sequential([layer for layer in network if layer is not None])


def to_input(images: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """What the network sees: `data.to_input` with the channel as the last axis, (N, 28, 28, 1)."""
    return np.moveaxis(data.to_input(images, dtype), 1, -1)


def fit(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    lr: float,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, list[float]]:
    """Train by the recipe of the book: SGD with momentum 0.9 and a cosine schedule, the order shuffled every epoch.

    Args:
        model: as `cnn` makes it, with or without a softmax at its end.
        images, labels: as `data.load` returns them; what does not fill a last batch is dropped, others every epoch.
        seed: of the order of the images.
        validation: images and labels to be scored after every epoch.

    Returns:
        what Keras calls the history: lists of one value an epoch, named loss, accuracy, val_loss, val_accuracy.

    Raises:
        ValueError: images and labels of different lengths; a batch that is larger than the data, or a batch of one.
    """
    if len(images) != len(labels):
        raise ValueError(f"images and labels must have the same length, got {len(images)} and {len(labels)}")
    if not 2 <= batch_size <= len(images):
        raise ValueError(f"batch_size must be from 2 to {len(images)}, the number of images, got {batch_size}")
    batches = tf.data.Dataset.from_tensor_slices((to_input(images), labels))
    batches = batches.shuffle(len(images), seed=seed).batch(batch_size, drop_remainder=True)
    steps = epochs * (len(images) // batch_size)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(lr, steps), momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=model.layers[-1].activation is not keras.activations.softmax
        ),
        metrics=["accuracy"],
    )
    if validation is not None:
        validation = (to_input(validation[0]), validation[1])
    return model.fit(batches, epochs=epochs, validation_data=validation, shuffle=False, verbose=0).history
