"""The second version of `learning_rate`: under a schedule, in two phases, with images drawn anew for each seed.

The book's CNN on 14x14 images, three optimizers, two initializations, rates that fall to zero along half a cosine. At
390 updates there is a grid of rates in half decades, the same for all arms, which reaches from the slow to beyond the
last that learns. Speed is measured by budgets: 98, 195 and 780 updates are trainings of their own, each at its own best
rate among the three around the best of 390 updates in the pilot; where that was the lowest or highest of the three,
another was added beyond it before anything was confirmed. Three more claims are read from the same rows:
`faster_cosine`, `higher_rates_cosine` and `rate_is_the_reason_cosine`. When all are confirmed they take the place of
those without a schedule, on the pages as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...models.torch_cnn import cnn
from ...models.torch_mlp import initialize
from .. import Choice, Comparison, best, select
from ..policy import POINTS
from ..protocol import split, subset, train_and_score
from . import learning_rate as first
from .learning_rate import ARMS
from .learning_rate import NORMS as NORMS
from .learning_rate import conditions as conditions
from .learning_rate import in_scope as in_scope

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "How good is every learning rate that falls to zero with batch normalization and without, and which network is"
    " better at its best?"
)
CLAIM, SOURCE, FOLKLORE = first.CLAIM, first.SOURCE, first.FOLKLORE
CHAPTER, VERSION, SEEDS, CONFIRM = 11, 1, 2, True
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = first.NETWORK
BATCH_SIZE, BUDGETS = 128, (98, 195, 390, 780)  # of updates; 78 are an epoch
ALL_RATES = 390  # the budget at which there is a grid of rates
STEPS = BUDGETS[-1]
METRIC, DELTA = "test_accuracy", POINTS.delta
NEEDS_MORE = True  # "by a significant margin"
SCOPE, FACTOR = first.SCOPE, first.FACTOR

OPTIMIZERS = {  # name: (optimizer, momentum, rates)
    "SGD": ("sgd", 0.0, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)),
    "SGD, momentum 0.9": ("sgd", 0.9, (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "Adam": ("adam", 0.0, (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
}
AROUND = {  # (optimizer, norm, init): rates of the other budgets
    ("SGD", "none", "default"): (0.1, 0.3, 1.0, 3.0),
    ("SGD", "none", "he"): (0.03, 0.1, 0.3),
    ("SGD", "batch", "default"): (0.1, 0.3, 1.0, 3.0),
    ("SGD", "batch", "he"): (0.3, 1.0, 3.0),
    ("SGD, momentum 0.9", "none", "default"): (0.03, 0.1, 0.3, 1.0),
    ("SGD, momentum 0.9", "none", "he"): (0.01, 0.03, 0.1),
    ("SGD, momentum 0.9", "batch", "default"): (0.01, 0.03, 0.1, 0.3),
    ("SGD, momentum 0.9", "batch", "he"): (0.03, 0.1, 0.3, 1.0),
    ("Adam", "none", "default"): (0.003, 0.01, 0.03),
    ("Adam", "none", "he"): (0.001, 0.003, 0.01, 0.03),
    ("Adam", "batch", "default"): (0.003, 0.01, 0.03),
    ("Adam", "batch", "he"): (0.003, 0.01, 0.03, 0.1),
}


def grid(quick: bool = False) -> list[dict]:
    """Every arm with every optimizer: all rates of 390 updates, and those around the best of the other budgets.

    Quick: plain SGD, every other rate of 390 updates, one of the other budgets.
    """
    return [
        _setting(optimizer, arm, steps, lr)
        for steps in (ALL_RATES, *(steps for steps in BUDGETS if steps != ALL_RATES))
        for optimizer in list(OPTIMIZERS)[: 1 if quick else None]
        for arm in ARMS
        for lr in _rates(optimizer, arm, steps, quick)
    ]


def _rates(optimizer: str, arm: dict, steps: int, quick: bool) -> Sequence[float]:
    rates = OPTIMIZERS[optimizer][2]
    if steps == ALL_RATES:
        return rates[:: 2 if quick else 1]
    return (0.3,) if quick else AROUND.get((optimizer, arm["norm"], arm["init"]), ())


def _setting(optimizer: str, arm: dict, steps: int, lr: float) -> dict:
    return {"optimizer": optimizer, **arm, "steps": steps, "lr": lr}


def run(setting: dict, seed: int) -> dict:
    """Train one network; validation and test scores after the last update."""
    optimizer, momentum, _ = OPTIMIZERS[setting["optimizer"]]
    torch.manual_seed(seed)
    return train_and_score(
        initialize(cnn(setting["norm"], image_size=14), setting["init"]),
        subset(10_000, seed, half=True),
        split("val", 10_000, half=True),
        split("test", half=True),
        steps=setting["steps"],
        lr=setting["lr"],
        optimizer=optimizer,
        momentum=momentum,
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )


def at_best_rate(rows: Sequence[dict], optimizer: str, init: str, norm: str, steps: int = ALL_RATES) -> Choice:
    """An arm after so many updates, at the rate with the highest mean validation accuracy for them."""
    return best(select(rows, optimizer=optimizer, init=init, norm=norm, steps=steps), over="lr")


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy after 390 updates, with BN minus without, each arm at its own best rate."""
    return first.comparisons(select(rows, steps=ALL_RATES))


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the learning rate in the pilot, a panel for each optimizer; rings are the best rates."""
    return first.figure(select(rows, steps=ALL_RATES))
