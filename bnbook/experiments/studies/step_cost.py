"""What an update costs with batch normalization and without it; chapter 11 turns updates into seconds with it.

The networks take turns, a few updates each, so that what slows the machine for a while slows both. Counted is the time
of the processor in one thread, so waiting for other programs costs nothing; but they share its caches: run it alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ...models.torch_cnn import cnn
from ...models.torch_mlp import mlp
from ..protocol import split, updates

QUESTION = "How many times as long does an update of plain SGD take with batch normalization?"
CHAPTER, VERSION, SEEDS = 11, 1, 1
METRIC = "times"
CHANCE = None  # a time has no worst value

ARMS = {"with BN": "batch", "without BN": "none"}
NETWORKS: dict[str, tuple[Callable[[str], nn.Module], bool, int]] = {  # name: (network, images of 14x14, batch size)
    "CNN, 128 images of 14x14": (partial(cnn, image_size=14), True, 128),
    "CNN, 64 images of 28x28": (cnn, False, 64),
    "sigmoids, 60 images of 28x28": (partial(mlp, widths=(100,) * 3, activation="sigmoid"), False, 60),
}
ROUNDS, UPDATES = 40, 25  # updates of an arm in a round


def grid(quick: bool = False) -> list[dict]:
    """The networks; quick: with fewer rounds, less certain."""
    return [{"network": name, "rounds": 3 if quick else ROUNDS} for name in NETWORKS]


def run(setting: dict, seed: int) -> dict:
    """Processor seconds of an update by arm, one value a round, and the median of their quotients."""
    make, half, batch_size = NETWORKS[setting["network"]]
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    seconds = measure(make, *split("train", half=half), batch_size, setting["rounds"])
    a, b = (np.array(seconds[arm]) for arm in ARMS)
    return {"updates": UPDATES, "step_seconds": seconds, "times": float(np.median(a / b)), "load": round(load, 1)}


def measure(
    make: Callable[[str], nn.Module],
    x: Tensor,
    y: Tensor,
    batch_size: int,
    rounds: int,
    count: int = UPDATES,
) -> dict[str, list[float]]:
    """Processor seconds of an update of plain SGD, by arm, one value a round; the arms take turns in going first."""

    def updating(norm: str) -> Iterator:
        torch.manual_seed(0)
        return updates(make(norm), x, y, steps=(rounds + 1) * count, lr=0.01, seed=0, batch_size=batch_size)

    arms = {arm: updating(norm) for arm, norm in ARMS.items()}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):  # the first is a warm-up
        for arm in list(arms)[:: 1 if number % 2 else -1]:
            started = time.process_time()
            for _ in range(count):
                next(arms[arm])
            if number:
                seconds[arm].append(round((time.process_time() - started) / count, 7))
    return seconds
