"""Checkers of chapter 8, the network trained in NumPy."""

from __future__ import annotations

import copy
import itertools
from functools import cache

import numpy as np

from ... import data, nn, optim
from ... import functional as F
from ..exercises import Wrong, checker, same


def network(size: int = 28, channels: int = 6, kernel: int = 3, hidden: int = 24, rng=None) -> nn.Sequential:
    """The network of the book with other numbers of channels and units, for images of size × size pixels."""
    pooled = (size - kernel + 1) // 2
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel, rng=rng),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(channels * pooled**2, hidden, rng=rng),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10, rng=rng),
    )


@cache
def some_images() -> tuple[np.ndarray, np.ndarray]:
    return data.load("val")


@checker("ch08.counts")
def counts(answer, rng) -> None:
    """`answer(batch_size, size, channels, kernel, hidden)` is (parameters, m of the first BN, m of the second)."""
    names = ("number of parameters", "m of the first batch normalization", "m of the second batch normalization")
    for _ in range(8):
        batch_size, size, channels, kernel, hidden = (
            int(rng.integers(*r)) for r in ((2, 9), (9, 20), (2, 7), (2, 5), (3, 30))
        )
        model = network(size, channels, kernel, hidden)
        x, m = np.zeros((batch_size, 1, size, size), np.float32), []
        for layer in model:
            x = layer(x)
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                m.append(x.size // x.shape[1])
        expected = (sum(p.data.size for p in model.parameters()), *m)
        norms, wide = 2 * (channels + hidden), (size - kernel + 1) ** 2
        after, larger = (size - kernel + 1) // 2, (size - kernel + 2) // 2  # the pool without, and with an odd row
        mistakes = (
            {
                "Running statistics are no parameters.": expected[0] + norms,
                "γ and β are parameters as well.": expected[0] - norms,
                "Every layer has a bias.": expected[0] - channels - hidden - 10,
                "The pool drops an odd row.": expected[0] + channels * hidden * (larger**2 - after**2),
                "The pool makes the map smaller.": expected[0] + channels * hidden * (wide - after**2),
            },
            {
                "The positions count as well.": batch_size,
                "The convolution makes the map smaller.": batch_size * size**2,
                "It stands before the pool.": batch_size * after**2,
                "m is the number of values of one channel.": batch_size * channels * wide,
                "m counts the whole batch.": wide,
            },
            {"m is the number of values of one unit.": batch_size * hidden, "m counts the batch.": 1},
        )
        got = answer(batch_size, size, channels, kernel, hidden)
        if not isinstance(got, (tuple, list, np.ndarray)) or len(got) != 3:
            raise Wrong(f"Return three numbers (parameters, m, m), got {got!r}.")
        case = f"{batch_size} images of {size}×{size}, {channels} kernels of {kernel}×{kernel}, {hidden} units"
        for name, a, b, wrong in zip(names, got, expected, mistakes, strict=True):
            same(a, b, f"For {case}: the {name}", mistakes=wrong)


@checker("ch08.evaluate")
def evaluate(answer, rng) -> None:
    """`answer(model, images, labels, batch_size)` is (mean loss, accuracy) and leaves the model as it was."""
    images, labels = some_images()
    for count, batch_size, training in ((150, 64, True), (97, 20, False), (40, 64, True)):
        model = network(rng=rng)
        for layer in model:
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.running_mean[:] = rng.normal(size=layer.num_features)
                layer.running_var[:] = rng.uniform(0.5, 2, layer.num_features)
                layer.weight.data[:] = rng.normal(1, 0.5, layer.num_features)
        list(model)[-1].weight.data *= 8  # logits of a confident network: the losses differ between batches
        chosen = rng.permutation(len(images))[:count]
        model.eval()
        logits = model(data.to_input(images[chosen]))
        expected = F.cross_entropy(logits, labels[chosen])[0], (logits.argmax(axis=1) == labels[chosen]).mean()
        model.train(training)
        before = model.state_dict()
        got = answer(model, images[chosen], labels[chosen], batch_size)
        case = f"of {count} images in batches of {batch_size}"
        changed = [key for key, value in model.state_dict().items() if not np.array_equal(value, before[key])]
        if changed:
            raise Wrong(f"Evaluating changed {changed[0]}: was the model in training mode?")
        if any(layer.training != training for layer in model):
            raise Wrong(f"The model came in with training = {training} and did not go out so.")
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f"Return (mean loss, accuracy), got {got!r}.")
        parts = [slice(k, k + batch_size) for k in range(0, count, batch_size)]
        losses = [F.cross_entropy(logits[part], labels[chosen][part])[0] for part in parts]
        rights = [(logits[part].argmax(axis=1) == labels[chosen][part]).mean() for part in parts]
        for name, a, b, of_batches in zip(("loss", "accuracy"), got, expected, (losses, rights), strict=True):
            mistakes = {
                "The last batch may be shorter: weigh it by its length.": np.mean(of_batches),
                "That is the last batch alone.": of_batches[-1],
                "That is the sum over the batches.": np.sum(of_batches),
                "That is the sum over the images: a mean is asked for.": b * count,
                "It is a share, not a percentage.": 100 * b,
            }
            same(np.float64(a), np.float64(b), f"The {name} {case}", tol=1e-4, mistakes=mistakes)


@cache
def trained_network() -> nn.Sequential:
    """A small network after two passes over the 2,000 validation images; it is copied before use."""
    images, labels = some_images()
    rng = np.random.default_rng(8)
    model, loss = network(rng=rng), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), 0.05, 0.9)
    for _ in range(2):
        for x, target in data.batches(images, labels, 40, rng=rng):
            optimizer.zero_grad()
            loss(model(x), target)
            model.backward(loss.backward())
            optimizer.step()
    return model.eval()


def together(image: np.ndarray, others: np.ndarray) -> int:
    """The class that the trained network names for `image` in one batch with `others`, in training mode."""
    model = copy.deepcopy(trained_network()).train()
    return int(model(data.to_input(np.concatenate([image[None], others]))).argmax(axis=1)[0])


@checker("ch08.company")
def company(answer, rng) -> None:
    """`answer(model, image, others)` is 15 indices of others that change the prediction in training mode."""
    images = some_images()[0][:500]
    alone = trained_network()(data.to_input(images)).argmax(axis=1)
    kinds = [images[alone == kind][:15] for kind in range(10)]
    possible = (i for i in rng.permutation(len(images)) if sum(together(images[i], k) != alone[i] for k in kinds) >= 3)
    chosen = list(itertools.islice(possible, 3))
    assert len(chosen) == 3
    for i in chosen:
        others = np.delete(images, i, axis=0)
        got = np.asarray(answer(copy.deepcopy(trained_network()), images[i], others))
        if got.shape != (15,) or got.dtype.kind not in "iu":
            raise Wrong(f"Return 15 indices, got an array of shape {got.shape} and type {got.dtype}.")
        if got.min() < 0 or got.max() >= len(others) or len(np.unique(got)) < 15:
            raise Wrong(f"The indices must be 15 different ones from 0 to {len(others) - 1}.")
        if together(images[i], others[got]) == alone[i]:
            raise Wrong(
                f"In this company an image is called {data.CLASSES[alone[i]]!r}, as it is in evaluation. "
                "Try batches that are unlike the average: 15 images of one kind."
            )


BUGS = ("correct", "no zero_grad", "evaluation mode", "schedule per epoch", "labels shuffled")


def record(bug: str, rng: np.random.Generator, epochs: int = 2, batch_size: int = 25) -> dict[str, np.ndarray]:
    """The log of a training loop with one mistake in it, or none.

    Returns:
        One value for each step: `loss`; `lr`; `grad_norm`, the norm of all gradients at the step; `running_mean_norm`,
        the norm of the running means of the first batch normalization after it.
    """
    images, labels = (array[:1000] for array in some_images())
    if bug == "labels shuffled":
        labels = rng.permutation(labels)
    model, loss = network(rng=rng), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), 1.0)
    model.train(bug != "evaluation mode")
    start, step = rng.uniform(0.015, 0.03), 0
    steps = epochs * (len(images) // batch_size)
    log: dict[str, list[float]] = {"loss": [], "lr": [], "grad_norm": [], "running_mean_norm": []}
    for epoch in range(epochs):
        for x, target in data.batches(images, labels, batch_size, rng=rng):
            progress = epoch if bug == "schedule per epoch" else step
            optimizer.lr = start / 2 * (1 + np.cos(np.pi * progress / steps))
            if bug != "no zero_grad":
                optimizer.zero_grad()
            log["loss"].append(float(loss(model(x), target)))
            model.backward(loss.backward())
            optimizer.step()
            log["lr"].append(optimizer.lr)
            log["grad_norm"].append(np.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters())))
            log["running_mean_norm"].append(float(np.linalg.norm(model[1].running_mean)))
            step += 1
    return {name: np.array(values) for name, values in log.items()}


@checker("ch08.diagnose")
def diagnose(answer, rng) -> None:
    """`answer(log)` names the mistake in the loop that wrote the log."""
    for bug in map(str, rng.permutation(BUGS * 2)):
        got = answer(record(bug, rng))
        if got not in BUGS:
            raise Wrong(f"The answer {got!r} is none of {', '.join(map(repr, BUGS))}.")
        if got != bug:
            raise Wrong(f"The log of a loop that is {bug!r} was called {got!r}.")
