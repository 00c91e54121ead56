"""How good every learning rate is with and without batch normalization, and how good each network is at its best one.

The book's CNN on 14x14 images, three optimizers, two initializations, rates that fall to zero along half a cosine. At
390 updates there is a grid of rates in half decades, the same for all arms, which reaches from the slow to beyond the
last that learns. Speed is measured by budgets: 98, 195 and 780 updates are trainings of their own, each at its own best
rate among those around the best of 390 updates in the pilot; where that was the lowest or highest of them, another
was added beyond it before the choice was confirmed. Three more claims are read from the same rows: `faster`,
`higher_rates` and `rate_is_the_reason`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...models.torch_cnn import cnn
from ...models.torch_mlp import initialize
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import WEIGHTS, split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "How good is every learning rate that falls to zero with batch normalization and without, and which network is"
    " better at its best?"
)
CLAIM = (
    "Applied to a state-of-the-art image classification model, Batch Normalization achieves the same accuracy with 14"
    " times fewer training steps, and beats the original model by a significant margin."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "A network with batch normalization ends up better."
CHAPTER, VERSION, SEEDS, CONFIRM = 11, 2, 5, True
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "CNN of chapter 8"
BATCH_SIZE, BUDGETS = 128, (98, 195, 390, 780)  # of updates; 78 are an epoch
ALL_RATES = 390  # the budget at which there is a grid of rates
STEPS = ALL_RATES
METRIC, DELTA = "test_accuracy", POINTS.delta
NEEDS_MORE = True  # "by a significant margin"
SCOPE = "SGD with momentum, as in the paper"
FACTOR = "the optimizer", "the initialization"

NORMS = {"with BN": "batch", "without BN": "none"}
INITS = {init: WEIGHTS[init] for init in ("default", "he")}
ARMS = [{"norm": norm, "init": init} for norm in ("none", "batch") for init in INITS]
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
    ("Adam", "none", "he"): (0.0003, 0.001, 0.003, 0.01, 0.03),
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


def conditions(rows: Sequence[dict]) -> list[tuple[str, str]]:
    """The pairs (optimizer, init) in which the arms are compared; a quick grid has fewer."""
    optimizers = {row["setting"]["optimizer"] for row in rows}
    return [(optimizer, init) for optimizer in OPTIMIZERS if optimizer in optimizers for init in INITS]


def words(optimizer: str, init: str) -> str:
    """A condition in words."""
    return f"{optimizer}, {INITS[init]}"


def at_best_rate(rows: Sequence[dict], optimizer: str, init: str, norm: str, steps: int = ALL_RATES) -> Choice:
    """An arm after so many updates, at the rate with the highest mean validation accuracy for them."""
    return best(select(rows, optimizer=optimizer, init=init, norm=norm, steps=steps), over="lr")


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy after 390 updates, with BN minus without, each arm at its own best rate."""
    return [
        compare(
            words(optimizer, init),
            *(at_best_rate(rows, optimizer, init, norm) for norm in NORMS.values()),
            arms=tuple(NORMS),
            levels=(optimizer, init),
        )
        for optimizer, init in conditions(rows)
    ]


def in_scope(comparison: Comparison) -> bool:
    """The paper trained by SGD with momentum."""
    return comparison.levels[0] == "SGD, momentum 0.9"


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the learning rate in the pilot, a panel for each optimizer; rings are the best rates."""
    import matplotlib.pyplot as plt

    from ... import plotting

    optimizers = list(dict.fromkeys(optimizer for optimizer, _ in conditions(rows)))
    picture, axes = plt.subplots(1, len(optimizers), figsize=(6.4, 3.4), sharey=True, squeeze=False)
    for ax, optimizer in zip(axes[0], optimizers, strict=True):
        for (arm, norm), color in zip(NORMS.items(), (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
            for init, style in zip(INITS, ("--", "-"), strict=True):
                choice = at_best_rate(rows, optimizer, init, norm)
                rates, means = [rate for (rate,) in choice.means], list(choice.means.values())
                ax.plot(rates, means, style, color=color, label=f"{arm}, {INITS[init]}")
                lr = choice.values["lr"]
                ax.plot(lr, choice.means[lr,], "o", ms=10, mfc="none", mew=1.5, color=color)
        ax.axhline(0.1, color="k", ls=":", lw=1)
        ax.set(title=optimizer, xlabel="learning rate", xscale="log", ylim=(0, 1))
    axes[0, 0].set_ylabel("validation accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
