"""How good every learning rate is with and without batch normalization, and how good each network is at its best one.

The book's CNN on 14x14 images, three optimizers, two initializations, a grid of rates in half decades that reaches
beyond the best rate of every arm on both sides. Three more claims are read from the same rows: `faster`, `higher_rates`
and `rate_is_the_reason`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ...models.torch_cnn import cnn
from ...models.torch_mlp import initialize
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import WEIGHTS, evaluate, split, updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "How good is every learning rate with batch normalization and without, and which network is better at its best?"
)
CLAIM = (
    "Applied to a state-of-the-art image classification model, Batch Normalization achieves the same accuracy with 14"
    " times fewer training steps, and beats the original model by a significant margin."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "A network with batch normalization ends up better."
CHAPTER, VERSION, SEEDS = 11, 1, 5
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels"
NETWORK = "CNN of chapter 8"
BATCH_SIZE, STEPS = 128, 390  # five epochs of 78 updates
MARKS = (20, 39, 78, 117, 156, 234, 312, 390)  # updates after which the validation accuracy is taken
METRIC, DELTA = "test_accuracy", POINTS.delta
NEEDS_MORE = True  # "by a significant margin"
SCOPE = "SGD with momentum, as in the paper"
FACTOR = "the optimizer", "the initialization"

NORMS = {"with BN": "batch", "without BN": "none"}
INITS = {init: WEIGHTS[init] for init in ("default", "he")}
ARMS = [{"norm": norm, "init": init} for norm in ("none", "batch") for init in INITS]
OPTIMIZERS = {  # name: (optimizer, momentum, rates)
    "SGD": ("sgd", 0.0, (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "SGD, momentum 0.9": ("sgd", 0.9, (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "Adam": ("adam", 0.0, (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
}


def grid(quick: bool = False) -> list[dict]:
    """One setting per optimizer, arm and rate; quick: plain SGD and every other rate."""
    return [
        {"optimizer": optimizer, **arm, "lr": lr}
        for optimizer, (_, _, rates) in list(OPTIMIZERS.items())[: 1 if quick else None]
        for lr in rates[:: 2 if quick else 1]
        for arm in ARMS
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; at the marks validation accuracy and the mean loss since the last; at the end, test scores."""
    x, y = split("train", half=True)
    val, test = split("val", half=True), split("test", half=True)
    torch.manual_seed(seed)
    model = initialize(cnn(setting["norm"], image_size=14), setting["init"])
    optimizer, momentum, _ = OPTIMIZERS[setting["optimizer"]]
    train = partial(updates, batch_size=BATCH_SIZE, optimizer=optimizer, momentum=momentum, seed=seed)
    marks, curve, losses, train_loss = [], [], [], []
    for step, loss in train(model, x, y, steps=STEPS, lr=setting["lr"]):
        losses.append(loss)
        if step in MARKS:
            marks.append(step)
            curve.append(evaluate(model, *val).accuracy)
            train_loss.append(sum(losses) / len(losses))
            losses.clear()
    tested = evaluate(model, *test)
    return {
        "marks": marks,
        "val_curve": curve,
        "train_loss": train_loss,
        "diverged": step < STEPS or not math.isfinite(tested.loss),
        "val_accuracy": evaluate(model, *val).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
    }


def conditions(rows: Sequence[dict]) -> list[tuple[str, str]]:
    """The pairs (optimizer, init) in which the arms are compared; a quick grid has fewer."""
    optimizers = {row["setting"]["optimizer"] for row in rows}
    return [(optimizer, init) for optimizer in OPTIMIZERS if optimizer in optimizers for init in INITS]


def words(optimizer: str, init: str) -> str:
    """A condition in words."""
    return f"{optimizer}, {INITS[init]}"


def at_best_rate(rows: Sequence[dict], optimizer: str, init: str, norm: str) -> Choice:
    """An arm at the rate with the highest mean validation accuracy."""
    return best(select(rows, optimizer=optimizer, init=init, norm=norm), over="lr")


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy after the last update, with BN minus without, each arm at its own best rate."""
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
    """Validation accuracy over the learning rate, a panel for each optimizer; the rings are the best rates."""
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
