"""The first experiment of Ioffe & Szegedy: three hidden layers of 100 sigmoid units, 50,000 steps of 60 examples.

Theirs was on MNIST; this one is on Fashion-MNIST. Their weights began as "small random Gaussian values"; here from a
Gaussian of standard deviation 0.01, and beside it from that of Glorot & Bengio, the standard choice for sigmoids.
Rates fall to zero along half a cosine (the paper does not say how its own did). Each seed draws its own training
images, and 10,000 others validate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...models.torch_mlp import mlp
from .. import Choice, Comparison, best, compare, fresh, select
from ..policy import POINTS
from ..protocol import WEIGHTS, evaluate, logits, split, subset, updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "Does the sigmoid network of the paper end up better with batch normalization, and from which initial weights?"
)
CLAIM = "The batch-normalized network enjoys the higher test accuracy."
SOURCE = "ioffe2015batch"
FOLKLORE = "With sigmoids you need batch normalization."
CHAPTER, VERSION, SEEDS, CONFIRM = 11, 2, 5, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK = "784-100-100-100-10, sigmoid"
BATCH_SIZE, STEPS = 60, 50_000
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "small Gaussian weights, as in the paper"
FACTOR = "the initial weights"

NORMS = {"with BN": "batch", "without BN": "none"}
INITS = {0.01: "small Gaussian weights", "xavier": WEIGHTS["xavier"]}
RATES = {  # beyond the best one on both sides
    "none": (0.1, 0.3, 1.0, 3.0, 10.0),
    "batch": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
}
EQUAL = 0.1  # the rate of both networks in the picture of the paper's start
VALIDATION = 10_000  # images, none of which any run trains on
MARKS = (0, 100, 250, 500, 1_000, 2_000, 4_000, 8_000, 12_000, 18_000, 25_000, 33_000, 41_000, 50_000)
PERCENTILES = (15, 50, 85)  # those of the paper's figure 1(b, c)


def grid(quick: bool = False) -> list[dict]:
    """Both initializations at every rate, with and without; quick: two rates, a twentieth of the steps."""
    return [
        {"init": init, "lr": lr, "norm": norm, "steps": STEPS // 20 if quick else STEPS}
        for init in INITS
        for norm, rates in RATES.items()
        for lr in rates
        if not quick or lr in (0.1, 1.0)
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; at the marks validation accuracy, and the input of one sigmoid of the last hidden layer."""
    val, test = split("val", VALIDATION), split("test")
    torch.manual_seed(seed)
    model = mlp(setting["norm"], widths=(100,) * 3, activation="sigmoid", init=setting["init"])
    inputs_of_the_last_sigmoid = model[: list(dict(model.named_children())).index("act3")]
    marks, curve, percentiles, losses, train_loss = [], [], [], [], []

    def look(step: int) -> None:
        marks.append(step)
        curve.append(evaluate(model, *val).accuracy)
        unit = logits(inputs_of_the_last_sigmoid, val[0][:500])[:, 0].numpy()
        percentiles.append(np.percentile(unit, PERCENTILES).tolist())
        train_loss.append(float(np.mean(losses)) if losses else None)
        losses.clear()

    look(step := 0)
    how = {"steps": setting["steps"], "lr": setting["lr"], "schedule": "cosine", "batch_size": BATCH_SIZE}
    for step, loss in updates(model, *subset(10_000, seed), seed=seed, **how):
        losses.append(loss)
        if step in MARKS:
            look(step)
    if marks[-1] != step:
        look(step)
    tested = evaluate(model, *test)
    return {
        "marks": marks,
        "val_curve": curve,
        "train_loss": train_loss,
        "percentiles": percentiles,
        "diverged": step < setting["steps"] or not math.isfinite(tested.loss),
        "val_accuracy": curve[-1],
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
    }


def at_best_rate(rows: Sequence[dict], init: str | float, norm: str) -> Choice:
    """An arm at the rate with the highest mean validation accuracy after the last update."""
    return best(select(rows, init=init, norm=norm), over="lr")


def needed(row: Mapping, mark: float) -> float:
    """Updates until the validation accuracy first reaches the mark, straight lines between; if never, all."""
    steps, curve = row["marks"], row["val_curve"]
    for i in range(1, len(curve)):
        if curve[i] >= mark:
            share = (mark - curve[i - 1]) / (curve[i] - curve[i - 1])
            return steps[i - 1] + share * (steps[i] - steps[i - 1])
    return float(STEPS)


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy after the last update, with BN minus without, each arm at its own best rate."""
    return [
        compare(name, *(at_best_rate(rows, init, norm) for norm in NORMS.values()), arms=tuple(NORMS))
        for init, name in INITS.items()
    ]


def at_equal_rate(rows: Sequence[dict], init: str | float, norm: str) -> list[dict]:
    """An arm at the rate `EQUAL`, on the seeds that confirm."""
    return select(fresh(rows), init=init, norm=norm, lr=EQUAL)


def beside(rows: list[dict]) -> list[dict]:
    """From small Gaussian weights, both networks at one rate."""
    small, _ = INITS
    return [at_equal_rate(rows, small, norm)[0]["setting"] for norm in NORMS.values()]


def in_scope(comparison: Comparison) -> bool:
    """The paper began with small random Gaussian values."""
    return comparison.name == INITS[0.01]


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over updates: small Gaussian weights at the rate 0.1, and Xavier's, each at its best rate."""
    import matplotlib.pyplot as plt

    from ... import plotting

    small, xavier = INITS
    panels = {
        f"{INITS[small]},\nboth at the rate {EQUAL:g}": [at_equal_rate(rows, small, n) for n in NORMS.values()],
        f"{INITS[xavier]},\neach at its best rate": [at_best_rate(rows, xavier, n).rows for n in NORMS.values()],
    }
    picture, axes = plt.subplots(1, 2, figsize=(6.4, 3.3), sharey=True)
    for ax, (title, arms) in zip(axes, panels.items(), strict=True):
        for arm, runs, color in zip(NORMS, arms, (plotting.WITH_BN, plotting.WITHOUT_BN), strict=True):
            curves = np.array([row["val_curve"] for row in runs])
            thousands = np.array(runs[0]["marks"]) / 1000
            ax.plot(thousands, curves.T, color=color, lw=0.7, alpha=0.5)
            ax.plot(thousands, curves.mean(axis=0), color=color, label=arm)
        ax.axhline(0.1, color="k", ls=":", lw=1)
        ax.set(title=title, xlabel="thousand updates", ylim=(0, 1))
    axes[0].set_ylabel("validation accuracy")
    axes[0].legend(loc="center right")
    return picture
