"""Where batch normalization and dropout belong in a convolutional network: before or after its activations.

A VGG of six convolutions and a residual network of eight layers, whose layers differ in the order of their parts alone.
Dropout of a fifth or of half of the values stands at the end of what follows a convolution, or right before the
normalization. `conv_dropout_order` reads another claim from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...models.torch_conv import resnet, vgg
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import evaluate, split, subset, train_and_score
from .placement import estimated_again

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is a convolutional network better with batch normalization before its activations, or after them?"
CLAIM = "We add the BN transform immediately before the nonlinearity, by normalizing x = Wu + b."
SOURCE = "ioffe2015batch"
FOLKLORE = "It belongs before the activation."
CHAPTER, VERSION, SEEDS, CONFIRM = 16, 1, 5, True
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "six convolutions as VGG, width 16, and a residual network of 8 layers, width 8"
BATCH_SIZE, STEPS = 128, 390  # five epochs of 78 updates
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "what the paper does; it does not say that this is better, so that nothing is within"
FACTOR = "the network", "the dropout"

NETWORKS = ("VGG-6", "ResNet-8")
PLACES = BEFORE, AFTER = "before", "after"
SHARES = (0.2, 0.5)
DROPOUTS = ((0.0, "end"), *((share, at) for share in SHARES for at in ("end", "norm")))
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)


def grid(quick: bool = False) -> list[dict]:
    """Every network and order, with every dropout, at every rate. Quick: VGG-6 without dropout at two rates."""
    return [
        {"network": network, "place": place, "dropout": dropout, "dropout_at": at, "lr": lr}
        for network in (NETWORKS[:1] if quick else NETWORKS)
        for dropout, at in DROPOUTS[: 1 if quick else None]
        for place in PLACES
        for lr in (RATES[1:3] if quick else RATES)
    ]


def network(setting: dict) -> nn.Sequential:
    """The network of a setting from He's weights, of PyTorch's random numbers."""
    order = {"placement": setting["place"], "dropout": setting["dropout"], "dropout_at": setting["dropout_at"]}
    if setting["network"] == "VGG-6":
        return vgg("batch", width=16, init="he", **order)
    return resnet("batch", depth=8, width=8, init="he", **order)


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores after the last update, and with statistics that were estimated again."""
    torch.manual_seed(seed)
    model, images, test = network(setting), subset(10_000, seed, half=True), split("test", half=True)
    row = train_and_score(
        model,
        images,
        split("val", 10_000, half=True),
        test,
        steps=STEPS,
        lr=setting["lr"],
        momentum=0.9,
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )
    again = dict.fromkeys(("accuracy_dropout_on", "accuracy_dropout_off"))
    if setting["dropout"] and not row["diverged"]:
        for name, on in {"on": True, "off": False}.items():
            statistics = estimated_again(model, images[0], dropout=on)
            again[f"accuracy_dropout_{name}"] = evaluate(statistics, *test).accuracy
    return row | again


def at_best_rate(rows: Sequence[dict], network: str, place: str, dropout: float, dropout_at: str) -> Choice:
    """An arm at the rate with the highest mean validation accuracy."""
    chosen = {"network": network, "place": place, "dropout": dropout, "dropout_at": dropout_at}
    return best(select(rows, **chosen), over="lr")


def kinds(rows: Sequence[dict]) -> list[tuple[str, float, str]]:
    """The triples (network, dropout, its place); a quick grid has one."""
    there = {(s["network"], s["dropout"], s["dropout_at"]) for s in (row["setting"] for row in rows)}
    return [(name, *kind) for name in NETWORKS for kind in DROPOUTS if (name, *kind) in there]


def words(network: str, dropout: float, dropout_at: str) -> str:
    """A condition in words."""
    where = {"end": "at the end of the layer", "norm": "right before BN"}[dropout_at]
    return f"{network}, dropout {dropout:g} {where}" if dropout else f"{network}, no dropout"


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy with BN before the activations minus after them, each at its own best rate."""
    return [
        compare(
            words(*kind),
            *(at_best_rate(rows, kind[0], place, *kind[1:]) for place in PLACES),
            arms=PLACES,
            levels=(kind[0], words(*kind).partition(", ")[2]),
        )
        for kind in kinds(rows)
    ]


def in_scope(comparison: Comparison) -> bool:
    """None: the sentence, the claim's origin, says what the paper does and claims no advantage."""
    return False


def figure(rows: list[dict]) -> Figure:
    """Test accuracy of both orders for every kind of dropout, a panel for each network; dots are seeds."""
    import matplotlib.pyplot as plt

    from ... import plotting

    names = list(dict.fromkeys(kind[0] for kind in kinds(rows)))
    picture, axes = plt.subplots(len(names), 1, figsize=(6.4, 2.4 * len(names) + 0.6), sharex=True, squeeze=False)
    for ax, name in zip(axes[:, 0], names, strict=True):
        own = [kind for kind in kinds(rows) if kind[0] == name]
        for place, color, up in zip(PLACES, (plotting.SKY, plotting.GREEN), (-0.15, 0.15), strict=True):
            for at, kind in enumerate(own):
                scores = [row["test_accuracy"] for row in at_best_rate(rows, name, place, *kind[1:]).rows]
                ax.plot(scores, [at + up] * len(scores), "o", color=color, ms=3, alpha=0.5)
                label = f"BN {place} the activation" if not at else None
                ax.plot(sum(scores) / len(scores), at + up, "D", color=color, ms=6, label=label)
        ax.set_yticks(range(len(own)), [words(*kind).partition(", ")[2] for kind in own])
        ax.invert_yaxis()
        ax.set_title(name)
    axes[-1, 0].set_xlabel("test accuracy")
    picture.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
