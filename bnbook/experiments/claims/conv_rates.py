"""How high the learning rate of convolutional networks may be, with batch normalization and without, and what it costs.

The networks of `conv_speed` by SGD with momentum, whose rates fall to zero within 195 updates: whether a network learns
shows early. All arms have the same grid of rates in half decades, which reaches from the slow to beyond the last that
learns. A rate works where the network ends above a validation accuracy of 0.6; `lost` is what it costs to take the
highest of them instead of the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from .. import Comparison, best, fresh, select
from ..protocol import split, subset, train_and_score
from . import higher_rates
from .conv_speed import DATASET as DATASET
from .conv_speed import NETWORKS, NORMS, network
from .higher_rates import METRIC as METRIC
from .higher_rates import compare_highest, usable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How much higher is the highest rate at which a convolutional network learns with batch normalization?"
CLAIM, SOURCE = higher_rates.CLAIM, higher_rates.SOURCE
FOLKLORE = "With batch normalization you can raise the learning rate of convolutional networks."
CHAPTER, VERSION, SEEDS, CONFIRM = 11, 1, 5, True
CONFIRMATION = 2
MEASURED = "test_accuracy"  # by every row
NETWORK = "six convolutions as VGG, width 16, and a residual network of 8 layers, width 8"
BATCH_SIZE, STEPS = 128, 195  # two and a half epochs of 78 updates
EFFECT, DELTA, SIZE, NEEDS_MORE = higher_rates.EFFECT, higher_rates.DELTA, higher_rates.SIZE, higher_rates.NEEDS_MORE
SCOPE = "against the same network without normalization"
FACTOR = "the network", "the opponent"

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def grid(quick: bool = False) -> list[dict]:
    """Every network and normalization at every rate. Quick: VGG-6, every other rate."""
    return [
        {"network": name, "norm": norm, "lr": lr}
        for name in (NETWORKS[:1] if quick else NETWORKS)
        for norm in NORMS
        for lr in RATES[:: 2 if quick else 1]
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; validation and test scores after the last update."""
    torch.manual_seed(seed)
    return train_and_score(
        network(setting),
        subset(10_000, seed, half=True),
        split("val", 10_000, half=True),
        split("test", half=True),
        steps=STEPS,
        lr=setting["lr"],
        momentum=0.9,
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )


def conditions(rows: Sequence[Mapping]) -> list[tuple[str, str]]:
    """The pairs (network, what it is compared with); a quick grid has one network."""
    networks = dict.fromkeys(row["setting"]["network"] for row in rows)
    return [(name, norm) for name in NETWORKS if name in networks for norm in NORMS if norm != "batch"]


def comparisons(rows: list[dict], tolerance: float | None = None) -> list[Comparison]:
    """The highest rate that learns with batch normalization minus that with another or none, in powers of ten."""
    return [
        compare_highest(
            f"{name}, against {NORMS[norm]}",
            *(select(rows, network=name, norm=arm) for arm in ("batch", norm)),
            levels=(name, norm),
            tolerance=tolerance,
        )
        for name, norm in conditions(rows)
    ]


def in_scope(comparison: Comparison) -> bool:
    """The paper compares with the network without normalization."""
    return comparison.levels[1] == "none"


def lost(rows: Sequence[Mapping], network: str, norm: str) -> dict[int, float]:
    """By seed, the test accuracy of an arm at its best rate minus that at the highest at which this seed learns."""
    arm = select(rows, network=network, norm=norm)
    at_best = {row["seed"]: row["test_accuracy"] for row in best(arm, over="lr").rows}
    found = {}
    for seed, rates in usable(arm, norm != "batch").items():
        if rates:
            (row,) = (row for row in fresh(select(arm, lr=max(rates))) if row["seed"] == seed)
            found[seed] = at_best[seed] - row["test_accuracy"]
    return found


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the learning rate in the pilot, a panel for each network; rings are the best rates."""
    import matplotlib.pyplot as plt

    from ... import plotting

    colors = {"batch": plotting.WITH_BN, "none": plotting.WITHOUT_BN, "group": plotting.SKY}
    networks = list(dict.fromkeys(name for name, _ in conditions(rows)))
    picture, axes = plt.subplots(1, len(networks), figsize=(6.4, 3.4), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], networks, strict=True):
        for norm, color in colors.items():
            choice = best(select(rows, network=name, norm=norm), over="lr")
            ax.plot([lr for (lr,) in choice.means], list(choice.means.values()), color=color, label=NORMS[norm])
            lr = choice.values["lr"]
            ax.plot(lr, choice.means[lr,], "o", ms=10, mfc="none", mew=1.5, color=color)
        ax.axhline(0.1, color="k", ls=":", lw=1)
        ax.set(title=name, xlabel="learning rate", xscale="log", ylim=(0, 1))
    axes[0, 0].set_ylabel("validation accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return picture
