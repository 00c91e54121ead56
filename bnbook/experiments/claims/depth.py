"""How deep a network still learns: plain and residual, with and without batch normalization, and with what replaces it.

Rates fall to zero along half a cosine. Each seed draws its own training images, and 10,000 others validate. Rates are
chosen on the seeds of the pilot; fresh seeds run every arm at every depth at the rate that was chosen for it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ...models.torch_mlp import mlp, residual_mlp, scalars
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import WEIGHTS, split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "How deep can a network be and still learn, with batch normalization and without?"
CLAIM = (
    "Batch normalization dramatically increases the largest trainable depth of residual networks, and this benefit has"
    " been crucial to the empirical success of deep residual networks on a wide range of benchmarks."
)
SOURCE = "de2020batch"
FOLKLORE = "It makes deeper networks trainable."
CHAPTER, VERSION, SEEDS, CONFIRM = 14, 2, 5, True
DATASET = "Fashion-MNIST, 20,000 training images, drawn anew for each seed"
NETWORK = "fully connected, ReLU, hidden layers of 128"
BATCH_SIZE, STEPS = 128, 312  # two epochs of 156 updates
WIDTH = 128
METRIC, DELTA, CHANCE = "test_accuracy", POINTS.delta, 0.1
NEEDS_MORE = True  # "dramatically"
SCOPE = "residual networks"
FACTOR = "the network", "the initialization"
PRIMARY_DEPTH = 40
GUESSING = 0.15  # an arm whose validation accuracy is below this at every rate has learned nothing at any

DEPTHS = (5, 10, 20, 40, 80)
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
LOWER = (0.00003,)  # for plain He networks without BN, whose best rate was the lowest of the others in a first seed
VALIDATION = 10_000  # images, none of which any run trains on
ARMS = [
    {"network": "plain", "norm": "none", "init": "default"},
    {"network": "plain", "norm": "batch", "init": "default"},
    {"network": "plain", "norm": "none", "init": "he"},
    {"network": "plain", "norm": "batch", "init": "he"},
    {"network": "residual", "norm": "none", "init": "default"},
    {"network": "residual", "norm": "batch", "init": "default"},
    {"network": "residual", "norm": "none", "init": "he"},
    {"network": "residual", "norm": "batch", "init": "he"},
    {"network": "residual", "norm": "skipinit", "init": "he"},
    {"network": "residual", "norm": "fixup", "init": "he"},
]
WITHOUT_BN = {"skipinit": "SkipInit", "fixup": "Fixup"}  # what replaces it


def rates(arm: dict) -> tuple[float, ...]:
    """The rates that an arm is tried at."""
    lower = arm["network"] == "plain" and arm["init"] == "he" and arm["norm"] == "none"
    return LOWER + RATES if lower else RATES


def depths(arm: dict) -> tuple[int, ...]:
    """The depths that an arm has: two layers a residual block."""
    return tuple(depth for depth in DEPTHS if arm["network"] == "plain" or depth % 2 == 0)


def grid(quick: bool = False) -> list[dict]:
    """Every arm at every depth and rate of Adam; residual networks have an even depth. Quick: depth 20, two rates."""
    return [
        {**arm, "depth": depth, "lr": lr}
        for arm in ARMS
        for depth in ((20,) if quick else depths(arm))
        for lr in (RATES[1:4:2] if quick else rates(arm))
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
    return train_and_score(
        model,
        subset(20_000, seed),
        split("val", VALIDATION),
        split("test"),
        steps=STEPS,
        lr=setting["lr"],
        optimizer="adam",
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
        slow=scalars(model) if setting["norm"] == "fixup" else (),
    )


def chosen(rows: Sequence[dict], depth: int, **arm: str) -> Choice:
    """An arm at its best rate. One that guesses at every rate has none: the first stands for all, and is no edge."""
    choice = best(select(rows, depth=depth, **arm), over="lr")
    return replace(choice, edge=()) if max(choice.means.values()) < GUESSING else choice


def comparisons(rows: list[dict]) -> list[Comparison]:
    """At depth 40, each arm at its best rate: with batch normalization minus without, from the same weights."""
    return [
        compare(
            f"{kind} network, {WEIGHTS[init]}",
            *(chosen(rows, PRIMARY_DEPTH, network=kind, init=init, norm=norm) for norm in ("batch", "none")),
            arms=("with BN", "without BN"),
            levels=(kind, init),
        )
        for kind in ("plain", "residual")
        for init in ("default", "he")
    ]


def beside(rows: list[dict]) -> list[dict]:
    """Every arm at every depth, at its best rate."""
    return [chosen(rows, depth, **arm).rows[0]["setting"] for arm in ARMS for depth in depths(arm)]


def without_bn(rows: list[dict], depth: int, norm: str = "skipinit") -> Comparison:
    """Beside the claim, in residual networks at their best rates: SkipInit or Fixup, which have no BN, minus BN."""
    arms = [chosen(rows, depth, network="residual", norm=arm, init="he") for arm in (norm, "batch")]
    return compare(f"{depth} layers", *arms, arms=(WITHOUT_BN[norm], "with BN"))


def in_scope(comparison: Comparison) -> bool:
    """The sentence speaks of residual networks."""
    return comparison.levels[0] == "residual"


def figure(rows: list[dict]) -> Figure:
    """Test accuracy over depth, a column for each network; dots are seeds, lines their means, rings best at an edge."""
    import matplotlib.pyplot as plt

    from ... import plotting

    colors = {
        "none": plotting.WITHOUT_BN,
        "batch": plotting.WITH_BN,
        "skipinit": plotting.GREEN,
        "fixup": plotting.PURPLE,
    }
    names = {"none": "no BN", "batch": "BN"} | WITHOUT_BN
    columns = list(dict.fromkeys((arm["network"], arm["norm"]) for arm in ARMS))
    picture, axes = plt.subplots(1, len(columns), figsize=(6.4, 3.4), sharex=True, sharey=True)
    for ax, (network, norm) in zip(axes, columns, strict=True):
        for arm in ARMS:
            if (arm["network"], arm["norm"]) != (network, norm):
                continue
            choices = [chosen(rows, depth, **arm) for depth in depths(arm)]
            scores = [
                [CHANCE if row["diverged"] else row["test_accuracy"] for row in choice.rows] for choice in choices
            ]
            style, label = "--" if arm["init"] == "default" else "-", WEIGHTS[arm["init"]]
            ax.plot(depths(arm), [sum(s) / len(s) for s in scores], style, color=colors[norm], label=label)
            for depth, choice, values in zip(depths(arm), choices, scores, strict=True):
                ax.plot([depth] * len(values), values, "o", color=colors[norm], ms=3, alpha=0.5)
                if choice.edge:
                    ax.plot(depth, sum(values) / len(values), "o", ms=10, mfc="none", color="k", mew=1)
        ax.axhline(CHANCE, color="k", ls=":", lw=1)
        ax.set(xscale="log", xlim=(4, 100), ylim=(0, 0.9), title=f"{network}\n{names[norm]}")
        ax.set_xticks((5, 20, 80), (5, 20, 80))
        ax.minorticks_off()
    axes[0].set_ylabel("test accuracy")
    picture.supxlabel("hidden layers")
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
