"""Whether batch normalization belongs before the activation or after it: ReLU, tanh, sigmoid, also with dropout.

Two hidden layers differ in the order of their parts alone. Dropout stands at the end of each hidden layer, or right
before the normalization. `dropout_before_norm` reads its claim from the same rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...models.torch_mlp import mlp
from .. import Choice, Comparison, best, compare, select
from ..policy import POINTS
from ..protocol import WEIGHTS, evaluate, split, updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is a network better with batch normalization before its activations, or after them?"
CLAIM = "We add the BN transform immediately before the nonlinearity, by normalizing x = Wu + b."
SOURCE = "ioffe2015batch"
FOLKLORE = "It belongs before the activation."
CHAPTER, VERSION, SEEDS = 16, 1, 5
DATASET = "Fashion-MNIST, 10,000 training images"
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
DROPOUT = 0.2  # with half of the units these narrow networks learn too little to be compared
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
QUICK_RATES = (0.001, 0.003, 0.01)


def grid(quick: bool = False) -> list[dict]:
    """Every activation, place and initialization at every rate; dropout with the fitting initialization.

    Without batch normalization dropout stands at the end of the layer only. Quick: three rates, without dropout.
    """
    arms = [
        {"activation": activation, "init": init, "place": place, "dropout": "none"}
        for activation, fit in FIT.items()
        for init in ("default", fit)
        for place in PLACES
    ] + [
        {"activation": activation, "init": fit, "place": place, "dropout": dropout}
        for activation, fit in FIT.items()
        for place in PLACES
        for dropout in (("end",) if place == WITHOUT else ("end", "norm"))
    ]
    if quick:
        return [{**arm, "lr": lr} for arm in arms if arm["dropout"] == "none" for lr in QUICK_RATES]
    return [{**arm, "lr": lr} for arm in arms for lr in RATES[0 if arm["dropout"] == "none" else 1 :]]


def network(setting: dict) -> nn.Sequential:
    """The network of a setting, from PyTorch's random numbers."""
    dropped = setting["dropout"] != "none"
    return mlp(
        "none" if setting["place"] == WITHOUT else "batch",
        widths=WIDTHS,
        activation=setting["activation"],
        init=setting["init"],
        placement=AFTER if setting["place"] == AFTER else BEFORE,
        dropout=DROPOUT if dropped else 0.0,
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
    x, y = split("train")
    torch.manual_seed(seed)
    model = network(setting)
    losses = []
    for step, loss in updates(  # noqa: B007
        model, x, y, steps=STEPS, lr=setting["lr"], optimizer="adam", seed=seed, batch_size=BATCH_SIZE
    ):
        losses.append(loss)
    test = split("test")
    tested = evaluate(model, *test)
    result = {
        "train_loss": sum(losses[-78:]) / len(losses[-78:]),
        "diverged": step < STEPS or not math.isfinite(tested.loss),
        "val_accuracy": evaluate(model, *split("val")).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "correct": tested.correct,
        "accuracy_dropout_on": None,
        "accuracy_dropout_off": None,
    }
    if setting["dropout"] != "none" and setting["place"] != WITHOUT and not result["diverged"]:
        for name, on in {"on": True, "off": False}.items():
            result[f"accuracy_dropout_{name}"] = evaluate(estimated_again(model, x, dropout=on), *test).accuracy
    return result


def at_best_rate(rows: Sequence[dict], activation: str, init: str, place: str, dropout: str = "none") -> Choice:
    """An arm at the rate with the highest mean validation accuracy."""
    return best(select(rows, activation=activation, init=init, place=place, dropout=dropout), over="lr")


def words(activation: str, init: str) -> str:
    """A condition in words."""
    return f"{WORDS[activation]}, {WORDS[init]}"


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy without dropout, before minus after, each at its own best rate."""
    return [
        compare(
            words(activation, init),
            *(at_best_rate(rows, activation, init, place) for place in (BEFORE, AFTER)),
            arms=(BEFORE, AFTER),
            levels=(activation, "default" if init == "default" else "fitting"),
        )
        for activation, fit in FIT.items()
        for init in ("default", fit)
    ]


def with_dropout(rows: list[dict]) -> list[Comparison]:
    """The same with dropout, at the end of the layers and right before the normalization; no part of the verdict."""
    return [
        compare(
            f"{WORDS[activation]}, dropout {'last' if dropout == 'end' else 'right before BN'}",
            *(at_best_rate(rows, activation, fit, place, dropout) for place in (BEFORE, AFTER)),
            arms=(BEFORE, AFTER),
        )
        for activation, fit in FIT.items()
        for dropout in ("end", "norm")
    ]


def at_equal_rates(rows: list[dict], activation: str, init: str, dropout: str = "none") -> dict[float, Comparison]:
    """Before minus after at each rate of the grid."""
    arm = {"activation": activation, "init": init, "dropout": dropout}
    return {
        lr: compare(
            f"{words(activation, init)}, rate {lr:g}",
            *(select(rows, **arm, place=place, lr=lr) for place in (BEFORE, AFTER)),
            arms=(BEFORE, AFTER),
        )
        for lr in sorted({row["setting"]["lr"] for row in select(rows, **arm)})
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
