"""Whether batch normalization belongs before the activation or after it: ReLU, tanh, sigmoid, also with dropout.

Two hidden layers differ in the order of their parts alone. Dropout, weak or strong, stands at the end of each hidden
layer, or right before the normalization; `dropout_before_norm` reads its claim from the same rows. Rates fall to zero
along half a cosine. Each seed draws its own training images, and 10,000 others validate.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...models.torch_mlp import mlp
from .. import Choice, Comparison, best, compare, pilot, select
from ..policy import POINTS
from ..protocol import WEIGHTS, evaluate, split, subset, train_and_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is a network better with batch normalization before its activations, or after them?"
CLAIM = "We add the BN transform immediately before the nonlinearity, by normalizing x = Wu + b."
SOURCE = "ioffe2015batch"
FOLKLORE = "It belongs before the activation."
CHAPTER, VERSION, SEEDS, CONFIRM = 16, 2, 5, True
CONFIRMATION = 2
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK = "fully connected, five hidden layers of 128"
BATCH_SIZE, STEPS = 128, 312  # four epochs of 78 updates
WIDTHS = (128,) * 5
METRIC, DELTA = "test_accuracy", POINTS.delta
SCOPE = "what the paper does; it does not say that this is better, so that nothing is within"
FACTOR = "the activation", "the initialization"

FIT = {"relu": "he", "tanh": "xavier", "sigmoid": "xavier"}  # the initialization that is meant for each activation
WORDS = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid", **WEIGHTS}
BEFORE, AFTER, WITHOUT = "before", "after", "without BN"
PLACES = (BEFORE, AFTER, WITHOUT)
STRENGTHS = (0.2, 0.5)  # of dropout: a weak dose, and the usual one
SPOTS = {"end": "dropout last", "norm": "dropout right before BN"}
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
LOWEST = 0.0001  # for the default weights, whose best rates are lower
HIGHEST = (0.1, 0.3)  # with dropout, whose best rates are higher
EQUAL = 0.003  # the rate at which the two places are also compared
VALIDATION = 10_000  # images, none of which any run trains on


def grid(quick: bool = False) -> list[dict]:
    """Every activation, place and initialization at every rate; dropout with the fitting initialization.

    Quick: three rates, without dropout.
    """
    plain = [
        {"activation": activation, "init": init, "place": place, "dropout": "none", "strength": 0.0}
        for activation, fit in FIT.items()
        for init in ("default", fit)
        for place in PLACES
    ]
    dropped = [
        {"activation": activation, "init": fit, "place": place, "dropout": spot, "strength": strength}
        for activation, fit in FIT.items()
        for place in (BEFORE, AFTER)
        for spot in SPOTS
        for strength in STRENGTHS
    ]
    if quick:
        return [{**arm, "lr": lr} for arm in plain for lr in RATES[:3]]
    return [{**arm, "lr": lr} for arm in plain for lr in ((LOWEST, *RATES) if arm["init"] == "default" else RATES)] + [
        {**arm, "lr": lr} for arm in dropped for lr in (*RATES, *HIGHEST)
    ]


def network(setting: dict) -> nn.Sequential:
    """The network of a setting, from PyTorch's random numbers."""
    dropped = setting["dropout"] != "none"
    return mlp(
        "none" if setting["place"] == WITHOUT else "batch",
        widths=WIDTHS,
        activation=setting["activation"],
        init=setting["init"],
        placement=AFTER if setting["place"] == AFTER else BEFORE,
        dropout=setting["strength"],
        dropout_at=setting["dropout"] if dropped else "end",
    )


@torch.no_grad()
def estimated_again(model: nn.Module, x: Tensor, dropout: bool) -> nn.Module:
    """A copy of a network whose running statistics are the averages over the batches of `x`, with dropout on or off.

    With dropout on they are what training meant to collect; with dropout off, what the network meets in evaluation.
    """
    model = copy.deepcopy(model)
    for layer in model.modules():
        normalizes = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        if normalizes:
            layer.reset_running_stats()
            layer.momentum = None  # the plain average of all batches
        layer.training = normalizes or (dropout and isinstance(layer, nn.Dropout))
    for batch in x[: len(x) - len(x) % BATCH_SIZE].split(BATCH_SIZE):
        model(batch)
    return model.eval()


def run(setting: dict, seed: int) -> dict:
    """Train one network with Adam; scores after the last update, and with statistics that were estimated again."""
    images, test = subset(10_000, seed), split("test")
    torch.manual_seed(seed)
    model = network(setting)
    row = train_and_score(
        model,
        images,
        split("val", VALIDATION),
        test,
        steps=STEPS,
        lr=setting["lr"],
        optimizer="adam",
        schedule="cosine",
        seed=seed,
        batch_size=BATCH_SIZE,
    )
    row |= {"accuracy_dropout_on": None, "accuracy_dropout_off": None}
    if setting["dropout"] != "none" and not row["diverged"]:
        for name, on in {"on": True, "off": False}.items():
            again = estimated_again(model, images[0], dropout=on)
            row[f"accuracy_dropout_{name}"] = evaluate(again, *test).accuracy
    return row


def at_best_rate(
    rows: Sequence[dict], activation: str, init: str, place: str, dropout: str = "none", strength: float = 0.0
) -> Choice:
    """An arm at the rate with the highest mean validation accuracy."""
    arm = {"activation": activation, "init": init, "place": place, "dropout": dropout, "strength": strength}
    return best(select(rows, **arm), over="lr")


def words(activation: str, init: str) -> str:
    """A condition in words."""
    return f"{WORDS[activation]}, {WORDS[init]}"


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy without dropout, before minus after, each at its own best rate.

    Confirmed are as well the network without batch normalization, and both places at one rate.
    """
    result = []
    for activation, fit in FIT.items():
        for init in ("default", fit):
            choices = [at_best_rate(rows, activation, init, place) for place in PLACES]
            before, after, without = (choice.rows[0]["setting"] for choice in choices)
            comparison = compare(
                words(activation, init),
                *choices[:2],
                arms=(BEFORE, AFTER),
                levels=(activation, "default" if init == "default" else "fitting"),
            )
            equal = tuple(setting | {"lr": EQUAL} for setting in (before, after))
            result.append(replace(comparison, settings=(before, after, without, *equal)))
    return result


def with_dropout(rows: list[dict], strength: float, metric: str = METRIC) -> list[Comparison]:
    """The same with dropout, at the end of the layers and right before the normalization; no part of the verdict.

    Args:
        metric: "accuracy_dropout_off" is with statistics that fit.
    """
    return [
        compare(
            f"{WORDS[activation]}, {words} of {strength:g}",
            *(at_best_rate(rows, activation, fit, place, spot, strength) for place in (BEFORE, AFTER)),
            arms=(BEFORE, AFTER),
            metric=metric,
        )
        for activation, fit in FIT.items()
        for spot, words in SPOTS.items()
    ]


def at_equal_rates(rows: list[dict], activation: str, init: str) -> dict[float, Comparison]:
    """Before minus after at each rate of the grid, by the rows of the pilot; without dropout."""
    arm = select(pilot(rows), activation=activation, init=init, dropout="none")
    return {
        lr: compare(
            f"{words(activation, init)}, rate {lr:g}",
            *(select(arm, place=place, lr=lr) for place in (BEFORE, AFTER)),
            arms=(BEFORE, AFTER),
        )
        for lr in sorted({row["setting"]["lr"] for row in arm})
    }


def in_scope(comparison: Comparison) -> bool:
    """None: the sentence, the claim's origin, says what the paper does and claims no advantage."""
    return False


def figure(rows: list[dict]) -> Figure:
    """Validation accuracy over the learning rate, a panel for each activation; the rings are the best rates."""
    import matplotlib.pyplot as plt

    from ... import plotting

    colors = {BEFORE: plotting.WITH_BN, AFTER: plotting.GREEN, WITHOUT: plotting.WITHOUT_BN}
    labels = {BEFORE: "BN before", AFTER: "BN after", WITHOUT: WITHOUT}
    picture, axes = plt.subplots(1, 3, figsize=(6.4, 3.6), sharey=True)
    for ax, (activation, fit) in zip(axes, FIT.items(), strict=True):
        for place in PLACES:
            for init, style in (("default", "--"), (fit, "-")):
                choice = at_best_rate(rows, activation, init, place)
                rates, means = [rate for (rate,) in choice.means], list(choice.means.values())
                label = f"{labels[place]}, {'default weights' if init == 'default' else 'He or Xavier'}"
                ax.plot(rates, means, style, color=colors[place], label=label)
                lr = choice.values["lr"]
                ax.plot(lr, choice.means[lr,], "o", ms=10, mfc="none", mew=1.5, color=colors[place])
        ax.set(title=WORDS[activation], xlabel="learning rate", xscale="log", ylim=(0.5, 0.9))
    axes[0].set_ylabel("validation accuracy")
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return picture
