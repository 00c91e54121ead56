"""What batch normalization adds to the test accuracy when training images are few, beside dropout and weight decay.

A fully connected network that can fit its training set. The noise of the statistics is varied by itself: ghost batches
of several sizes, the statistics of the whole training set, and frozen ones, at one batch size of the optimizer. Two
more claims are read from the same rows: `noise_helps` and `need_for_dropout`; and the first one is asked of two more
scores, by `regularized_loss` and `regularized_calibration`. All strengths and rates are chosen on the seeds of the
pilot; fresh seeds confirm those, and what is compared at equal rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...models.torch_mlp import mlp
from ...models.torch_statistics import (
    FrozenBatchNorm1d,
    GhostBatchNorm1d,
    WholeSet,
    WholeSetBatchNorm1d,
    exact_statistics,
)
from .. import Choice, Comparison, best, compare, fresh, select
from ..policy import POINTS
from ..protocol import WEIGHTS, evaluate, split, subset, updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "With few training images, does batch normalization raise the test accuracy, as a regularizer would?"
CLAIM = "It also acts as a regularizer, in some cases eliminating the need for Dropout."
SOURCE = "ioffe2015batch"
FOLKLORE = "Batch normalization is a regularizer."
CHAPTER, VERSION, SEEDS, CONFIRM = 15, 2, 5, True
CONFIRMATION = 2
DATASET = "Fashion-MNIST, 256 or 1,024 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "fully connected, 196-256-256-10, ReLU"
BATCH_SIZE, STEPS = 128, 300
METRIC, DELTA = "test_accuracy", POINTS.delta
FACTOR = "the number of images", "the initialization"

IMAGES = (256, 1024)
NORMS = {"with BN": "batch", "without BN": "none"}
SCORES = {"test_accuracy": "accuracy", "test_loss": "loss (nats)", "test_calibration_error": "calibration error"}
INITS = {init: WEIGHTS[init] for init in ("default", "he")}
GHOSTS = (4, 8, 16, 32)  # smaller than the batch
DROPOUT = (0.2, 0.35, 0.5, 0.7)
DECAY = (0.001, 0.003, 0.01, 0.03)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
EQUAL = (0.03, 0.1)  # the rates at which arms are also compared
VALIDATION = 10_000  # images, none of which any run trains on


def arms() -> list[tuple[dict, tuple[float, ...]]]:
    """What an arm changes in `setting`, and its rates: half decades on both sides of where its best rate may lie."""
    middle, high = RATES[1:5], RATES[1:]
    return [
        *(({"norm": "none", "init": init}, middle) for init in INITS),
        ({"norm": "batch", "init": "default"}, RATES[:4]),
        ({"norm": "batch", "init": "he"}, RATES[:5]),
        *(({"norm": "batch", "ghost": size}, RATES[:5] if size == GHOSTS[0] else high) for size in GHOSTS),
        ({"norm": "whole"}, middle),
        ({"norm": "frozen"}, middle),
        *(({"norm": "none", "dropout": p}, middle) for p in DROPOUT),
        *(({"norm": "batch", "dropout": p}, RATES[2:]) for p in DROPOUT),
        *(({"norm": "none", "weight_decay": decay}, middle) for decay in DECAY),
    ]


def setting(images: int, norm: str, lr: float, **changes: object) -> dict:
    """A setting: He init, statistics of the whole batch, no dropout and no weight decay, unless `changes` says so."""
    plain = {"init": "he", "ghost": BATCH_SIZE if norm == "batch" else None, "dropout": 0.0, "weight_decay": 0.0}
    return {"images": images, "norm": norm, **plain, "lr": lr} | changes


def grid(quick: bool = False) -> list[dict]:
    """Every arm at all its rates. Quick: 256 images, two rates, and one ghost size and strength of each kind."""
    few = {"ghost": (8, BATCH_SIZE, None), "dropout": (0.0, DROPOUT[2]), "weight_decay": (0.0, DECAY[2])}
    settings = [
        setting(images, lr=lr, **arm)
        for images in (IMAGES[:1] if quick else IMAGES)
        for arm, rates in arms()
        for lr in (EQUAL if quick else rates)
    ]
    return [s for s in settings if not quick or all(s[name] in values for name, values in few.items())]


def network(setting: dict, x: torch.Tensor) -> nn.Sequential:
    """The network of a setting, from PyTorch's random numbers; statistics of frozen layers are those of `x` now."""
    norm, width = setting["norm"], 256
    model = mlp(
        "none" if norm == "none" else "batch",
        widths=(width, width),
        init=setting["init"],
        dropout=setting["dropout"],
        in_features=196,
    )
    for name in ("bn1", "bn2") if norm != "none" else ():
        layer = {
            "batch": lambda: GhostBatchNorm1d(width, setting["ghost"]),
            "whole": lambda: WholeSetBatchNorm1d(width, len(x)),
            "frozen": lambda: FrozenBatchNorm1d(width),
        }[norm]()
        setattr(model, name, layer)
    return exact_statistics(model, x) if norm == "frozen" else model


def images_of(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The training set of a seed: `count` of the 10,000 images, so that the intervals cover the choice of images."""
    return subset(count, seed, half=True)


def train(setting: dict, seed: int) -> tuple[nn.Sequential, bool]:
    """Train the network of a setting on the images of a seed, ready for evaluation; and whether it diverged."""
    x, y = images_of(setting["images"], seed)
    torch.manual_seed(seed)
    model = network(setting, x)
    trained = WholeSet(model, x) if setting["norm"] == "whole" else model
    for step, _ in updates(  # noqa: B007
        trained,
        x,
        y,
        steps=STEPS,
        lr=setting["lr"],
        seed=seed,
        batch_size=BATCH_SIZE,
        momentum=0.9,
        weight_decay=setting["weight_decay"],
        schedule="cosine",
    ):
        pass
    if setting["norm"] in ("batch", "whole"):
        exact_statistics(model, x)
    return model.eval(), step < STEPS


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores on its few images, on validation and on test images, after the last update."""
    model, diverged = train(setting, seed)
    few = images_of(setting["images"], seed)
    train_scores, val, test = (
        evaluate(model, *images) for images in (few, split("val", VALIDATION, half=True), split("test", half=True))
    )
    return {
        "diverged": diverged or not math.isfinite(test.loss),
        "train_accuracy": train_scores.accuracy,
        "train_loss": train_scores.loss,
        "val_accuracy": val.accuracy,
        "val_log_likelihood": -val.loss,
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_calibration_error": test.calibration_error,
        "correct": test.correct,
    }


def arm(rows: Sequence[dict], images: int, norm: str, over: Sequence[str] = (), **values: object) -> Choice:
    """An arm at its best rate, and at its best value of each name in `over`.

    No dropout, no weight decay and the statistics of the whole batch are no edges of a grid: nothing lies beyond.
    """
    fixed = setting(images, norm, lr=0.0, **values)
    free = (*over, "lr")
    rows = select(rows, **{name: value for name, value in fixed.items() if name not in free})
    return best(rows, over=free, ends=(0.0, BATCH_SIZE))


def at_equal_rate(
    rows: Sequence[dict], images: int, init: str, lr: float, metric: str = METRIC, worst: float = 0.1
) -> Comparison:
    """A score with BN minus without, at one rate, on the seeds that confirm."""
    rows = fresh(rows)
    arms = (select(rows, **setting(images, norm, lr, init=init)) for norm in NORMS.values())
    name = f"{images:,} images, {INITS[init]}, rate {lr:g}"
    return compare(name, *arms, arms=tuple(NORMS), metric=metric, chance=worst)


def sizes(rows: Sequence[dict]) -> list[int]:
    """The numbers of training images; a quick grid has one."""
    return sorted({row["setting"]["images"] for row in rows})


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Without dropout and weight decay: with BN minus without, each arm at its own best rate.

    Confirmed are as well both arms at the rates in `EQUAL`, and every other regularizer.
    """
    result = []
    for comparison in scores(rows):
        images, init = comparison.levels
        beside = [setting(images, norm, lr, init=init) for norm in NORMS.values() for lr in EQUAL]
        if init == "he":
            beside += [choice.rows[0]["setting"] for choice in regularized(rows, images).values()]
        result.append(replace(comparison, settings=(*comparison.settings, *beside)))
    return result


def scores(
    rows: Sequence[dict], arms: Sequence[str] = tuple(NORMS), metric: str = METRIC, worst: float = 0.1
) -> list[Comparison]:
    """The comparison of the two arms in any score; where lower is better, without BN minus with.

    Args:
        arms: A and B.
        worst: what a diverged run counts as.
    """
    return [
        compare(
            f"{images:,} images, {words}",
            *(arm(rows, images, NORMS[name], init=init) for name in arms),
            arms=tuple(arms),
            metric=metric,
            chance=worst,
            levels=(images, init),
        )
        for images in sizes(rows)
        for init, words in INITS.items()
    ]


def regularized(rows: Sequence[dict], images: int) -> dict[str, Choice]:
    """From He's weights: nothing, batch normalization, dropout, weight decay, and BN with dropout, each at its best."""
    return {
        "nothing": arm(rows, images, "none"),
        "BN": arm(rows, images, "batch"),
        "dropout": arm(rows, images, "none", over=["dropout"]),
        "weight decay": arm(rows, images, "none", over=["weight_decay"]),
        "BN and dropout": arm(rows, images, "batch", over=["dropout"]),
    }


def figure(rows: list[dict]) -> Figure:
    """Test accuracy, loss and calibration error of each regularizer at its best strength and rate: dots are seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    colors = (plotting.WITHOUT_BN, plotting.WITH_BN, plotting.GREEN, plotting.PURPLE, plotting.SKY)
    picture, axes = plt.subplots(
        len(sizes(rows)), len(SCORES), figsize=(6.4, 0.4 + 1.7 * len(sizes(rows))), sharey=True, squeeze=False
    )
    for row, images in zip(axes, sizes(rows), strict=True):
        arms = regularized(rows, images)
        for ax, (metric, words) in zip(row, SCORES.items(), strict=True):
            for i, (choice, color) in enumerate(zip(arms.values(), colors, strict=True)):
                values = [r[metric] for r in choice.rows if r[metric] is not None]
                ax.plot(values, [i] * len(values), ".", ms=5, color=color, alpha=0.6)
                ax.plot(sum(values) / len(values), i, "|", ms=16, mew=2.5, color=color)
            if ax in axes[-1]:
                ax.set_xlabel(words)
            ax.set_yticks(range(len(arms)), arms)
            ax.set_ylim(len(arms) - 0.5, -0.5)
        row[1].set_title(f"{images:,} training images")
    return picture
