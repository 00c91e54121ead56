"""The Keras network in both orders over a grid of learning rates; chapter 9 reads the rows."""

from __future__ import annotations

from ... import data
from ...provenance import plain

QUESTION = "Does the Keras network reach the accuracy of the others, in either order of its layers?"
CHAPTER, VERSION, SEEDS = 9, 1, 3
DATASET = "Fashion-MNIST, 10,000 images"
NETWORK = "CNN of chapter 8 in Keras"
METRIC = "test_accuracy"

ORDERS = ("after_activation", "before_activation")  # as in models.keras_cnn, which needs TensorFlow
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
EPOCHS = 5


def grid(quick: bool = False) -> list[dict]:
    """Both orders at every rate; quick: an epoch at one."""
    return [
        {"arm": order, "lr": lr, "epochs": 1 if quick else EPOCHS}
        for order in ORDERS
        for lr in RATES
        if not quick or lr == 0.03
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; the test images are scored at its end."""
    from ...models import keras_cnn

    model, (images, labels) = keras_cnn.cnn(setting["arm"], seed=seed), data.load("train")
    history = keras_cnn.fit(
        model, images, labels, lr=setting["lr"], epochs=setting["epochs"], seed=seed, validation=data.load("val")
    )
    test_images, test_labels = data.load("test")
    _, accuracy = model.evaluate(keras_cnn.to_input(test_images), test_labels, batch_size=100, verbose=0)
    return {
        "batch_size": keras_cnn.BATCH_SIZE,
        "momentum": keras_cnn.MOMENTUM,
        "train_images": len(images),
        "train_loss": plain([round(value, 6) for value in history["loss"]]),
        "val_accuracy": [round(value, 6) for value in history["val_accuracy"]],  # Keras counts in float32
        "test_accuracy": round(accuracy, 6),
    }
