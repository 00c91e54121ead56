"""`placement` again, under a rate that falls to zero: settings are chosen on a pilot and confirmed on fresh seeds.

Each seed draws its own training images, and 10,000 others validate. Dropout is tried weak and strong, as in the paper
that warns of it: `dropout_before_norm_cosine` reads its claim from the same rows. When all rows are there, this takes
the place of `placement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ...models.torch_mlp import mlp
from .. import Choice, Comparison, best, compare, select
from ..protocol import evaluate, split, subset, train_and_score
from . import placement
from .placement import AFTER, BATCH_SIZE, BEFORE, FIT, PLACES, STEPS, WIDTHS, WITHOUT, WORDS, estimated_again
from .placement import figure as figure
from .placement import in_scope as in_scope

QUESTION, CLAIM, SOURCE, FOLKLORE = placement.QUESTION, placement.CLAIM, placement.SOURCE, placement.FOLKLORE
CHAPTER, VERSION, SEEDS, CONFIRM = 16, 1, 2, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK, METRIC, DELTA = placement.NETWORK, placement.METRIC, placement.DELTA
SCOPE, FACTOR = placement.SCOPE, placement.FACTOR

STRENGTHS = (0.2, 0.5)  # of dropout: a weak dose, and the usual one
SPOTS = {"end": "dropout last", "norm": "dropout right before BN"}
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
LOWEST = 0.0001  # for the default weights, whose best rates are lower
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
    return [
        {**arm, "lr": lr} for arm in plain + dropped for lr in ((LOWEST, *RATES) if arm["init"] == "default" else RATES)
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


def comparisons(rows: list[dict]) -> list[Comparison]:
    """Test accuracy without dropout, before minus after, each at its own best rate.

    Confirmed are as well the network without batch normalization, and both places at one rate.
    """
    result = []
    for comparison in placement.comparisons(rows):
        before, after = comparison.settings
        without = placement.at_best_rate(rows, before["activation"], before["init"], WITHOUT).rows[0]["setting"]
        equal = tuple(setting | {"lr": EQUAL} for setting in (before, after))
        result.append(replace(comparison, settings=(before, after, without, *equal)))
    return result


def with_dropout(rows: list[dict], strength: float) -> list[Comparison]:
    """The same with dropout, at the end of the layers and right before the normalization; no part of the verdict."""
    return [
        compare(
            f"{WORDS[activation]}, {words} of {strength:g}",
            *(at_best_rate(rows, activation, fit, place, spot, strength) for place in (BEFORE, AFTER)),
            arms=(BEFORE, AFTER),
        )
        for activation, fit in FIT.items()
        for spot, words in SPOTS.items()
    ]
