"""What each explanation of batch normalization predicts, fixed before the first row, and whether the rows keep it.

Every prediction is a comparison with a smallest effect of interest, judged by `verdict` for each initialization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10

from . import Comparison, find, fresh, select, verdict
from .claims import covariate_shift, landscape, noise, rate_tuning
from .claims.landscape import SAME_LOSS
from .claims.noise import BN, HELD, INITS, STANDARD
from .engine.plan import FEWEST
from .engine.words import CONTRADICTED, SUPPORTED

SLOPE_DELTA = 0.1  # of the turn's power of the rate: less damping is not what tames a high rate

WORDS = {SUPPORTED: "kept", CONTRADICTED: "broken"}  # else open


@dataclass(frozen=True)
class Prediction:
    """What an explanation says that a comparison will show: A above B by δ."""

    explanation: str
    sentence: str
    experiment: str  # whose rows it is judged on
    comparisons: Callable[[list[dict]], list[Comparison]]  # one for each initialization, named by it
    delta: float
    needs_more: bool = True

    def outcomes(self, rows: Mapping[str, list[dict]]) -> dict[str, str]:
        """By initialization: "kept", "broken" or "open"; one in which there is nothing to tell apart is left out.

        Args:
            rows: of the experiments, by name.
        """
        study, found = find(self.experiment), {}
        planned = study.seeds
        if study.confirm:
            planned = next((row["planned"] for row in fresh(rows[self.experiment]) if "planned" in row), FEWEST)
        for comparison in self.comparisons(rows[self.experiment]):
            judged = verdict([comparison], self.delta, planned=planned, needs_more=self.needs_more)
            found[comparison.name.split(", ")[0]] = WORDS.get(judged.word, "open")
        return found


def at_the_same_loss(measure: str) -> Callable[[list[dict]], list[Comparison]]:
    """The comparison of a measure along the step, both networks at one rate and at the same losses."""
    return lambda rows: landscape.comparisons(rows, measure, held=(SAME_LOSS,))


def slope_of_turn(rows: list[dict]) -> list[Comparison]:
    """How steeply the turn of the weights rises with the rate: lengths held minus lengths free."""
    return [
        Comparison(
            INITS[init],
            *(rate_tuning.slopes(rows, init, arm) for arm in (HELD, BN)),
            arms=(HELD, BN),
            metric="slope of the turn",
        )
        for init in noise.starts(rows)
    ]


def best_rate(rows: list[dict]) -> list[Comparison]:
    """The decimal logarithm of each seed's best rate on validation, BN minus standard."""
    result = []
    for init in noise.starts(rows):
        arms, edges = [], []
        for arm in (BN, STANDARD):
            of_arm = select(fresh(rows), init=init, arm=arm)
            runs = [row for row in of_arm if not row["diverged"]]
            seeds = sorted({row["seed"] for row in runs})
            top = {s: max((r for r in runs if r["seed"] == s), key=lambda row: row["val_accuracy"]) for s in seeds}
            arms.append({seed: log10(row["setting"]["lr"]) for seed, row in top.items()})
            tried = {row["setting"]["lr"] for row in of_arm}
            ends = {row["setting"]["lr"] for row in top.values()} & {min(tried), max(tried)}
            edges += [f"lr of {arm!r}"] if ends else []
        result.append(
            Comparison(INITS[init], *arms, arms=(BN, STANDARD), metric="log10 of the best rate", edges=tuple(edges))
        )
    return result


def gain_by_the_rate(rows: list[dict]) -> list[Comparison]:
    """What BN gains from the standard network's best rate to its own, minus what it gains at the standard network's.

    Where both have the same best rate there is nothing to tell apart, as in `rate_is_the_reason`.
    """
    result = []
    for init in noise.starts(rows):
        own, standard = (noise.at_best_rate(rows, init, arm) for arm in (BN, STANDARD))
        if own.values["lr"] == standard.values["lr"]:
            continue
        there = noise.at_rate(rows, init, BN, standard.values["lr"])
        score = [
            {row["seed"]: 0.1 if row["diverged"] else row["test_accuracy"] for row in runs}
            for runs in (own.rows, there, standard.rows)
        ]
        parts = [{seed: a[seed] - b[seed] for seed in a} for a, b in pairwise(score)]
        edges = tuple(f"lr of {arm!r}" for arm, choice in ((BN, own), (STANDARD, standard)) if choice.edge)
        names = ("the change of rate", "BN at the same rate")
        result.append(Comparison(INITS[init], *parts, arms=names, metric=noise.GAIN, edges=edges))
    return result


def higher_rate(rows: list[dict]) -> list[Comparison]:
    """The highest usable rate, BN minus standard."""
    return rate_tuning.comparisons(rows, (BN, STANDARD))


SHIFT, SMOOTH = "less covariate shift", "a smoother loss"
LENGTH, RATE = "lengths that tune the rate", "higher rates"
SHIFTS, TWICE = covariate_shift.DELTA, rate_tuning.DELTA

PREDICTIONS = (
    Prediction(
        SHIFT, "an update moves distributions less far", "landscape", at_the_same_loss("distribution_shift"), SHIFTS
    ),
    Prediction(
        SHIFT, "it changes later layers' gradients less", "landscape", at_the_same_loss("gradient_shift"), SHIFTS
    ),
    Prediction(
        SHIFT, "noise takes more of the gain than it leaves", "noise", noise.comparisons, noise.DELTA, needs_more=False
    ),
    Prediction(
        SMOOTH, "the loss changes less along a step", "landscape", at_the_same_loss("loss_range"), landscape.DELTA
    ),
    Prediction(SMOOTH, "the curvature along a step is lower", "landscape", at_the_same_loss("beta"), landscape.DELTA),
    Prediction(SMOOTH, "the highest usable rate is higher", "noise", higher_rate, TWICE),
    Prediction(LENGTH, "free lengths damp a rising rate", "noise", slope_of_turn, SLOPE_DELTA),
    Prediction(LENGTH, "held lengths bear only lower rates", "noise", rate_tuning.comparisons, TWICE),
    Prediction(
        LENGTH,
        "holding takes more of the gain than it leaves",
        "noise",
        lambda rows: noise.comparisons(rows, without=HELD),
        noise.DELTA,
        needs_more=False,
    ),
    Prediction(RATE, "the highest usable rate is higher", "noise", higher_rate, TWICE),
    Prediction(RATE, "the best rate is higher", "noise", best_rate, TWICE),
    Prediction(
        RATE, "the gain comes with the change of rate", "noise", gain_by_the_rate, noise.DELTA, needs_more=False
    ),
)


def table(rows: Mapping[str, list[dict]], predictions: Sequence[Prediction] = PREDICTIONS) -> list[dict]:
    """For every prediction its explanation, its sentence and, by initialization, whether it was kept."""
    return [{"explanation": p.explanation, "prediction": p.sentence, "outcomes": p.outcomes(rows)} for p in predictions]
