"""The ladder: the same training made faster rung by rung, each with and without batch normalization, over seeds.

Every rung makes the same updates with the same batches as the one below and is scored on the same images; what differs
is how the work reaches the device. Larger batches change the updates themselves and stand apart.
"""

from __future__ import annotations

from typing import NamedTuple

from ...train import report
from ...train.loop import train
from ...train.settings import Settings

QUESTION = "How much faster is a training when the device waits for less, with batch normalization and without?"
CHAPTER, VERSION, SEEDS = 10, report.VERSION, 5
DATASET = "Fashion-MNIST, 60,000 training images"
NETWORK = "CNN of chapter 8, with 28x28 images"
METRIC = "seconds_per_epoch"
CHANCE = None  # a time has no worst value


class Rung(NamedTuple):
    """One rung: what it adds to the one below, and the settings that it changes from the baseline."""

    adds: str
    changes: dict


_CARD = {"loader": "device"}
_CAPTURED = _CARD | {"capture": "graph"}
_BFLOAT16 = _CAPTURED | {"precision": "bfloat16", "memory_format": "channels_last"}
_COMPILED = _BFLOAT16 | {"compile": "default"}

RUNGS = {
    "baseline": Rung("TensorDataset, DataLoader with 4 workers and pinned memory, float32", {"loader": "dataloader"}),
    "device": Rung("all images on the device", _CARD),
    "captured": Rung("the update recorded as a CUDA graph", _CAPTURED),
    "bfloat16": Rung("bfloat16 and channels-last", _BFLOAT16),
    "compiled": Rung("the network compiled by torch.compile", _COMPILED),
    "large": Rung("batches of 512, with another rate: other updates, not comparable", _COMPILED | {"batch_size": 512}),
}
NORMS = ("batch", "none")
RATES = {"batch": 0.1, "none": 0.03}
LARGE_RATE = 2.0  # times the rate for batches of 64
BASE = {"evaluate": "test", "evaluations": 4, "batch_size": 64, "workers": 4}
EPOCHS, IMAGES = 5, 60_000


def grid(quick: bool = False) -> list[dict]:
    """Every rung on a CUDA card, and of the CPU, which waits for nothing, the second; quick: an epoch of 6,400 images.

    `--only device=cpu` makes those of a machine without a card.
    """
    size = {"epochs": 1, "images": 6_400} if quick else {"epochs": EPOCHS, "images": IMAGES}
    places = [("cuda", rung) for rung in RUNGS] + [("cpu", "device")]
    return [{"device": device, "rung": rung, "norm": norm, **size} for device, rung in places for norm in NORMS]


def run(setting: dict, seed: int) -> dict:
    """Train once; what `bnbook.train.describe` says of it."""
    result = report.describe(train(settings(setting, seed), progress=False), "")
    seconds = result.pop("seconds")
    return {name: value for name, value in result.items() if name not in ("version", "provenance")} | {
        "seconds_of": seconds
    }


def settings(setting: dict, seed: int) -> Settings:
    """The settings of one run of the ladder."""
    rung, norm, images = setting["rung"], setting["norm"], setting["images"]
    return Settings(
        **BASE
        | {"data": "full" if images > 10_000 else "subset", "train_images": images, "epochs": setting["epochs"]}
        | {"lr": RATES[norm] * (LARGE_RATE if rung == "large" else 1)}
        | RUNGS[rung].changes
        | {"device": setting["device"], "norm": norm, "seed": seed}
    )
