"""How deep a network still learns: plain and residual, with and without batch normalization, and with SkipInit."""

from __future__ import annotations

import torch

from ..models.torch_mlp import mlp, residual_mlp
from . import Comparison, best, compare, select
from ._training import evaluate, split, updates

QUESTION = "How deep can a network be and still learn, with batch normalization and without?"
CLAIM = (
    "Batch normalization dramatically increases the largest trainable depth of residual networks, and this benefit has"
    " driven the empirical success of deep residual networks."
)
SOURCE = "de2020batch"
CHAPTER, VERSION, SEEDS = 14, 1, 5
DATASET = "Fashion-MNIST, 20,000 training images"
NETWORK = "fully connected, ReLU, hidden layers of 128"
BATCH_SIZE, STEPS = 128, 312  # two epochs of 156 updates
WIDTH = 128
METRIC, DELTA = "test_accuracy", 0.005
FACTOR = "the network and its initialization"
PRIMARY_DEPTH = 40

DEPTHS = (5, 10, 20, 40, 80)
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
ARMS = [
    {"network": "plain", "norm": "none", "init": "default"},
    {"network": "plain", "norm": "batch", "init": "default"},
    {"network": "plain", "norm": "none", "init": "he"},
    {"network": "plain", "norm": "batch", "init": "he"},
    {"network": "residual", "norm": "none", "init": "he"},
    {"network": "residual", "norm": "batch", "init": "he"},
    {"network": "residual", "norm": "skipinit", "init": "he"},
]


def grid(quick: bool = False) -> list[dict]:
    """Every arm at every depth and rate of Adam; residual networks have an even depth. Quick: depth 20, two rates."""
    return [
        {**arm, "depth": depth, "lr": lr}
        for depth in ((20,) if quick else DEPTHS)
        for arm in ARMS
        if arm["network"] == "plain" or depth % 2 == 0
        for lr in (RATES[1:4:2] if quick else RATES)
    ]


def network(setting: dict) -> torch.nn.Module:
    """The network of a setting, from PyTorch's random numbers."""
    if setting["network"] == "residual":
        return residual_mlp(setting["norm"], depth=setting["depth"], width=WIDTH, init=setting["init"])
    return mlp(setting["norm"], widths=(WIDTH,) * setting["depth"], init=setting["init"])


def run(setting: dict, seed: int) -> dict:
    """Train one network with Adam; validation and test scores after the last update."""
    torch.manual_seed(seed)
    model = network(setting)
    losses = []
    for step, loss in updates(  # noqa: B007
        model,
        *split("train", 20_000),
        steps=STEPS,
        lr=setting["lr"],
        optimizer="adam",
        seed=seed,
        batch_size=BATCH_SIZE,
    ):
        losses.append(loss)
    tested = evaluate(model, *split("test"))
    return {
        "train_loss": sum(losses[-78:]) / len(losses[-78:]),
        "diverged": step < STEPS,
        "val_accuracy": evaluate(model, *split("val")).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
    }


def chosen(rows: list[dict], depth: int, **arm: str):
    """The rows of an arm at its best rate."""
    return best(select(rows, depth=depth, **arm), over="lr")


def comparisons(rows: list[dict]) -> list[Comparison]:
    """At depth 40, each arm at its best rate: with batch normalization minus without."""
    conditions = (("plain", "default"), ("plain", "he"), ("residual", "he"))
    return [
        compare(
            f"{kind}, {init} init",
            chosen(rows, PRIMARY_DEPTH, network=kind, init=init, norm="batch"),
            chosen(rows, PRIMARY_DEPTH, network=kind, init=init, norm="none"),
            arms=("with BN", "without BN"),
        )
        for kind, init in conditions
    ]


def figure(rows: list[dict]):
    """Test accuracy over depth, a panel for each kind of network; dots are seeds, lines their means."""
    import matplotlib.pyplot as plt

    from .. import plotting

    colors = {"none": plotting.WITHOUT_BN, "batch": plotting.WITH_BN, "skipinit": plotting.GREEN}
    labels = {"none": "without BN", "batch": "with BN", "skipinit": "SkipInit, without BN"}
    panels = {
        ("plain", "default"): "plain, default init",
        ("plain", "he"): "plain, He",
        ("residual", "he"): "residual, He",
    }
    picture, axes = plt.subplots(1, 3, figsize=(6, 3), sharey=True)
    for ax, (kind, title) in zip(axes, panels.items(), strict=True):
        for arm in ARMS:
            if (arm["network"], arm["init"]) != kind:
                continue
            depths = sorted({row["setting"]["depth"] for row in select(rows, **arm)})
            scores = [[row["test_accuracy"] for row in chosen(rows, depth, **arm).rows] for depth in depths]
            color = colors[arm["norm"]]
            ax.plot(depths, [sum(s) / len(s) for s in scores], color=color, label=labels[arm["norm"]])
            for depth, values in zip(depths, scores, strict=True):
                ax.plot([depth] * len(values), values, "o", color=color, ms=3, alpha=0.6)
        ax.set(xscale="log", xticks=DEPTHS, xticklabels=DEPTHS, title=title, xlabel="hidden layers")
        ax.minorticks_off()
    axes[0].set_ylabel("test accuracy")
    axes[-1].legend(fontsize=8, loc="lower left")
    return picture
