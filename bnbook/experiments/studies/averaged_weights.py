"""Averaged weights with four kinds of running statistics, after one epoch and after six; chapter 20 reads the rows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from ... import data
from ...models.torch_cnn import cnn
from ..protocol import evaluate, subset, updates

QUESTION = "Which running statistics belong to averaged weights?"
CHAPTER, VERSION, SEEDS = 20, 1, 10
DATASET = "Fashion-MNIST, 4,000 training images of 14x14 pixels, drawn anew for each seed; 4,000 test images"
NETWORK = "the convolutional network of the book"
METRIC = "test_accuracy"

IMAGES, BATCH, LR = 4000, 50, 0.1
EPOCH = IMAGES // BATCH  # updates
EPOCHS = (1, 6)  # after which the averages are scored
DECAYS = (0.9, 0.99, 0.999, None)  # of exponential averages, after every update; None: the mean of the epochs' ends
WAYS = ("initial", "copied", "averaged", "recomputed")


def grid(quick: bool = False) -> list[dict]:
    """Every decay; quick: the slowest alone."""
    return [{"decay": decay} for decay in ((0.999,) if quick else DECAYS)]


def averaged(model: nn.Module, decay: float | None) -> AveragedModel:
    """The average of weights and statistics, to be updated; the mean of all where there is no decay."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay) if decay else None, use_buffers=True)


def with_statistics_of(source: nn.Module, weights: nn.Module) -> nn.Module:
    """A copy of one network with the buffers of another."""
    model = copy.deepcopy(weights)
    model.load_state_dict(dict(source.named_buffers()), strict=False)
    return model


def recomputed(weights: nn.Module, images: Tensor) -> nn.Module:
    """A copy with statistics of the training images, collected by `update_bn`."""
    model = copy.deepcopy(weights)
    update_bn(images.split(100), model)
    return model


def run(setting: dict, seed: int) -> dict:
    """Train one network and its average, SGD at a constant rate.

    Returns:
        live: test accuracy of the network itself after `EPOCHS`, a list; and likewise of the averaged weights with the
        statistics `initial` (0 and 1), `copied` from the network, `averaged` as the weights are, `recomputed`.
        test_accuracy: the last of `recomputed`.
    """
    torch.manual_seed(seed)
    live, untrained = cnn(image_size=14), cnn(image_size=14)
    average = averaged(live, setting["decay"])
    images, labels = subset(IMAGES, seed, half=True)
    pixels, classes = data.load("test", subset=True)
    test = nn.functional.avg_pool2d(torch.from_numpy(data.to_input(pixels)), 2), torch.from_numpy(classes)
    row: dict = {name: [] for name in ("live", *WAYS)}
    steps = EPOCHS[-1] * EPOCH
    for step, _ in updates(live, images, labels, steps=steps, lr=LR, seed=seed, batch_size=BATCH):
        if setting["decay"] or step % EPOCH == 0:
            average.update_parameters(live)
        if step in [epochs * EPOCH for epochs in EPOCHS]:
            models = {
                "live": live,
                "initial": with_statistics_of(untrained, average.module),
                "copied": with_statistics_of(live, average.module),
                "averaged": average.module,
                "recomputed": recomputed(average.module, images),
            }
            for name, model in models.items():
                row[name].append(evaluate(model, *test).accuracy)
    return row | {"test_accuracy": row["recomputed"][-1]}
