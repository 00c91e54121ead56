"""What the experiments share: the data as tensors, the updates, and the scores.

Arms are paired: two runs with the same seed start from the same weights (set `torch.manual_seed(seed)` before the model
is made) and see the same batches in the same order, which comes from a generator of its own. Where an experiment draws
the training set of a seed, or shifts and flips its images, each of these has a generator of its own, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .. import data
from ..optim import cosine

LAST_LOSSES = 78  # an epoch of 10,000 images in batches of 128
EVALUATION_BATCH = 100  # larger ones leave the processor's cache and take longer
EMBEDDED = {"train": 10_000, "val": 2_000}
WEIGHTS = {  # initial weights in words: PyTorch's, those of He et al. (2015) and of Glorot & Bengio (2010)
    "default": "default weights", "he": "He weights", "xavier": "Xavier weights",
}  # fmt: skip
BACKGROUND = float(data.to_input(np.zeros((1, 28, 28), np.uint8))[0, 0, 0, 0])  # the standardized value of pixel 0


@lru_cache(maxsize=8)
def split(name: str, count: int | None = None, half: bool = False) -> tuple[Tensor, Tensor]:
    """Standardized images (N, 1, 28, 28) in float32 and labels (N,) of a split, shared: do not change them.

    Args:
        name: "train", "val" or "test" (all 10,000 official images).
        count: the first so many; by default the embedded ones, 10,000 to train on and 2,000 to validate. More training
            images than those are the first of the official ones, which hold no validation image up to 50,000; more
            validation images are the first of the official training images 50,000 to 59,999.
        half: 14x14 images, the means of 2x2 pixels: a quarter of the cost.

    Raises:
        ValueError: fewer images than `count`, or a training set with validation images in it.
    """
    if name == "train" and count is not None and 50_000 < count < 60_000:
        raise ValueError(f"count must be at most 50000, or 60000 for all of them, got {count}")
    images, labels = data.load(name, subset=name in EMBEDDED and (count or 0) <= EMBEDDED[name])
    if count is not None and count > len(images):
        raise ValueError(f"count must be at most {len(images)}, the images of {name!r}, got {count}")
    x = torch.from_numpy(data.to_input(images[:count]))
    if half:
        x = nn.functional.avg_pool2d(x, 2)
    return x, torch.from_numpy(labels[:count])


def subset(count: int, seed: int, half: bool = False) -> tuple[Tensor, Tensor]:
    """The training set of a seed: `count` images and labels, drawn without replacement.

    With one set for all seeds an interval covers the weights and the batches; with one per seed it covers the choice of
    images as well. The smaller of two sets of a seed is the beginning of the larger, up to 9,999 and from 10,000 on.

    Args:
        count: fewer than 10,000 are drawn from the 10,000 embedded images; from 10,000 on, where those would be the
            same set for every seed, from the first 50,000 official ones.
        half: 14x14 images, as in `split`.

    Raises:
        ValueError: a count that is not from 1 to 50000.
    """
    if not 1 <= count <= 50_000:
        raise ValueError(f"count must be from 1 to 50000, the training images that never validate, got {count}")
    x, y = split("train", None if count < EMBEDDED["train"] else 50_000, half)
    chosen = torch.from_numpy(np.random.default_rng([seed, 15]).permutation(len(x))[:count])
    return x[chosen], y[chosen]


def shift_and_flip(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Every image moved by up to a 14th of its width in each direction, and mirrored with probability 1/2.

    It is the augmentation of He et al. (2016, section 4.2), who pad by 4 of 32 pixels: pad with the background, crop
    at random, flip at random; here by 1 pixel of 14 or 2 of 28.

    Args:
        x: standardized images (N, C, 14, 14) or (N, C, 28, 28).
        rng: draws for each image the corner of the crop and the flip.

    Returns:
        new images of the same shape; `x` stays.

    Raises:
        ValueError: another shape.
    """
    if x.shape[2:] not in ((14, 14), (28, 28)):
        raise ValueError(f"x must be images (N, C, 14, 14) or (N, C, 28, 28), got the shape {tuple(x.shape)}")
    images, size, pad = len(x), x.shape[-1], x.shape[-1] // 14
    top, left = torch.from_numpy(rng.integers(2 * pad + 1, size=(2, images)))
    flip = torch.from_numpy(rng.random(images) < 0.5)
    padded = nn.functional.pad(x, (pad,) * 4, value=BACKGROUND)
    crops = padded.unfold(2, size, 1).unfold(3, size, 1)  # (N, C, top, left, size, size), a view
    moved = crops[torch.arange(images), :, top, left]
    return torch.where(flip[:, None, None, None], moved.flip(-1), moved)


def updates(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    lr: float,
    seed: int,
    batch_size: int = 128,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    augment: bool = False,
    slow: Collection[nn.Parameter] = (),
) -> Iterator[tuple[int, float]]:
    """Train `model` in place and yield (step, loss of its batch) after every update, step 1 first.

    Every epoch is a new permutation of the examples; what does not fill a batch is left out. The iterator ends early,
    after yielding it, at a loss that is not finite: the run has diverged.

    Args:
        lr: the step η; with schedule "cosine" it falls along half a cosine to 0 after the last step.
        optimizer: "sgd" or "adam".
        seed: of the order of the examples, and of their augmentation.
        augment: shift and flip the images of every batch anew, see `shift_and_flip`.
        slow: parameters that take a tenth of the step, as Fixup's scalars in its authors' code.

    Raises:
        ValueError: an unknown optimizer or schedule, a batch larger than the training set, or `augment` for what are no
            images of 14x14 or 28x28.
    """
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"schedule must be constant or cosine, got {schedule!r}")
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size must be from 1 to the {len(x)} training images, got {batch_size}")
    slow_ones = {id(parameter) for parameter in slow}
    groups: dict[float, list[nn.Parameter]] = {}  # by their share of the step
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault(0.1 if id(parameter) in slow_ones else 1.0, []).append(parameter)
    parameters = [{"params": of_group, "lr": share * lr, "share": share} for share, of_group in groups.items()]
    if optimizer == "sgd":
        optimize = torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, fused=True)
    elif optimizer == "adam":
        optimize = torch.optim.Adam(parameters, lr, weight_decay=weight_decay, fused=True)
    else:
        raise ValueError(f"optimizer must be sgd or adam, got {optimizer!r}")
    batches = _batches(len(x), batch_size, seed)
    shifts = np.random.default_rng([seed, 2])  # a stream of its own: with and without it the batches are the same
    for step in range(1, steps + 1):
        if schedule == "cosine":
            for group in optimize.param_groups:
                group["lr"] = cosine(step - 1, steps, group["share"] * lr)
        batch = next(batches)
        images = shift_and_flip(x[batch], shifts) if augment else x[batch]
        model.train()
        loss = nn.functional.cross_entropy(model(images), y[batch])
        optimize.zero_grad()
        loss.backward()
        optimize.step()
        value = loss.item()
        yield step, value
        if not math.isfinite(value):
            return


def train_and_score(
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    steps: int,
    **how: object,
) -> dict:
    """Train `model` in place and score it after the last update: what a row of an experiment holds.

    Args:
        images, val, test: images and labels.
        steps: the number of updates.
        how: what `updates` takes.

    Returns:
        train_loss: the mean over the last `LAST_LOSSES` updates; diverged: whether a loss, also that on the test
        images, was not finite; val_accuracy, test_accuracy, test_loss, and correct: who was right.
    """
    losses = [loss for _, loss in updates(model, *images, steps=steps, **how)]
    tested = evaluate(model, *test)
    last = losses[-LAST_LOSSES:]
    return {
        "train_loss": sum(last) / len(last),
        "diverged": not (math.isfinite(losses[-1]) and math.isfinite(tested.loss)),
        "val_accuracy": evaluate(model, *val).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
    }


def _batches(examples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    rng = np.random.default_rng([seed, 1])  # a stream of its own, as in the study `numpy_cnn`
    while True:
        order = torch.from_numpy(rng.permutation(examples))
        yield from order[: examples - examples % batch_size].split(batch_size)


class Scores(NamedTuple):
    """How good logits are: mean cross entropy (nats), share of right answers, calibration error, who was right."""

    loss: float
    accuracy: float
    calibration_error: float
    correct: np.ndarray


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, batch_size: int = EVALUATION_BATCH) -> Tensor:
    """The logits (N, K) in evaluation mode; the mode of every layer is put back."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        return torch.cat([model(part) for part in x.split(batch_size)])
    finally:
        for layer, training in modes:
            layer.training = training


def scores(logits: Tensor, y: Tensor, bins: int = 15) -> Scores:
    """Compare logits (N, K) with labels (N,). Logits that are not finite count as wrong, with an infinite loss.

    The calibration error is the expected calibration error of Guo et al. (2017), equation 3: the examples in `bins`
    equal bins by confidence, |accuracy − confidence| of each averaged over the examples.
    """
    if not torch.isfinite(logits).all():
        return Scores(math.inf, *_accuracy_and_calibration(torch.softmax(logits.double(), 1).nan_to_num(0), y, bins))
    logits = logits.double()
    loss = nn.functional.cross_entropy(logits, y).item()
    return Scores(loss, *_accuracy_and_calibration(torch.softmax(logits, 1), y, bins))


def _accuracy_and_calibration(probability: Tensor, y: Tensor, bins: int) -> tuple[float, float, np.ndarray]:
    confidence, predicted = probability.max(1)
    correct = ((predicted == y) & (confidence > 0)).numpy()
    confidence = confidence.numpy()
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(correct.mean()), float(np.abs(gaps).sum() / len(y)), correct


def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> Scores:
    """The scores of a model on images and labels, in evaluation mode."""
    return scores(logits(model, x), y)
