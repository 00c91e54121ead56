"""The rates of `full_size` on a card: a record beside it, which no verdict reads.

The first 50,000 images train and the other 10,000 validate, for every seed. Many updates of so small a network are
replayed from a CUDA graph, and a run takes seconds; its sums are taken in an order that the card finds convenient.
"""

from __future__ import annotations

import torch

from ..claims import full_size

QUESTION = "Do the rates of `full_size` come out alike on a card?"
CHAPTER, VERSION, SEEDS = 10, 1, 2
DATASET, NETWORK = "Fashion-MNIST, 50,000 training images", full_size.NETWORK
METRIC = "val_accuracy"

LOWEST = 0.01  # with batch normalization


def grid(quick: bool = False) -> list[dict]:
    """Both networks at the rates of `full_size`, without the lowest one with batch normalization."""
    return [s for s in full_size.grid(quick) if s["norm"] == "none" or s["lr"] >= LOWEST]


def run(setting: dict, seed: int) -> dict:
    """Train one network on a CUDA card."""
    if not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device here; `full_size` makes the same runs on the CPU, on other images")
    return full_size.train_and_score(setting, seed, device="cuda", capture="graph")
