"""A second claim on the rows of `tiny`: the best rate is higher with batch normalization."""

from __future__ import annotations

import matplotlib.figure

from bnbook.experiments import Comparison, best, select

QUESTION = "Is the best rate of softmax regression higher with batch normalization?"
CLAIM = "Batch Normalization allows us to use much higher learning rates and be less careful about initialization."
FOLKLORE = "With batch normalization you can raise the learning rate."
SOURCE = "ioffe2015batch"
CHAPTER, ROWS = 11, "tiny"
METRIC, DELTA = "best_rate", 0.5


def comparisons(rows: list[dict]) -> list:
    seeds = {row["seed"] for row in rows}
    of_seeds = {seed: [row for row in rows if row["seed"] == seed] for seed in seeds}
    batch, none = (
        {seed: best(select(those, norm=norm), "lr").values["lr"] for seed, those in of_seeds.items()}
        for norm in ("batch", "none")
    )
    return [Comparison("by seed", batch, none, arms=("with BN", "without BN"), metric=METRIC)]


def figure(rows: list[dict]) -> matplotlib.figure.Figure:
    return matplotlib.figure.Figure()
