"""Checkers of chapter 18, the scoreboard."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from ...experiments import Comparison, load, verdict
from ...experiments.engine.words import OUTCOMES
from ...experiments.scoreboard import row
from ..exercises import Wrong, checker, finds_faults, same


def _quantile(share: float, freedom: int) -> float:
    """Of Student's t."""
    from scipy import stats

    return float(stats.t.ppf(share, freedom))


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % t-interval of the mean of these differences."""
    k = len(values)
    half = _quantile(0.975, k - 1) * np.std(values, ddof=1) / math.sqrt(k)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _around(mean: float, half: float) -> np.ndarray:
    return np.array([mean - half, mean + half])


@checker("ch18.interval")
def interval(answer, rng) -> None:
    """`answer(a, b)` is the 95 % t-interval of the mean of a - b over paired seeds."""
    for k in (5, 2, 3, int(rng.integers(6, 30))):
        a = rng.uniform(0.7, 0.9) + rng.normal(0, 0.01, k)
        b = a - rng.normal(0.005, rng.uniform(0.001, 0.01), k)
        d, root = a - b, math.sqrt(k)
        mean, half = d.mean(), np.diff(t_interval(d))[0] / 2
        same(
            np.asarray(answer(a, b), dtype=float),
            _around(mean, half),
            f"For {k} seeds the interval",
            tol=1e-3,
            mistakes={
                "With few seeds the spread is not known well: the normal quantile is too small.": _around(
                    mean, 1.959964 * np.std(d, ddof=1) / root
                ),
                "The spread of few values is estimated with one less than their number.": _around(
                    mean, half * np.std(d) / np.std(d, ddof=1)
                ),
                "There is one degree of freedom less than there are seeds.": _around(
                    mean, _quantile(0.975, k) / _quantile(0.975, k - 1) * half
                ),
                "It has two ends, with half of the five percent beyond each.": _around(
                    mean, _quantile(0.95, k - 1) / _quantile(0.975, k - 1) * half
                ),
                "That is where one difference lies; their mean is known better.": _around(mean, half * root),
                "The seeds are paired: the spread is that of the differences.": _around(
                    mean, _quantile(0.975, 2 * k - 2) * np.hypot(np.std(a, ddof=1), np.std(b, ddof=1)) / root
                ),
                "The differences are a − b.": _around(-d.mean(), half),
            },
        )


def comparisons(rng: np.random.Generator, delta: float, planned: int) -> list[Comparison]:
    """Made-up conditions of one comparison; now and then something is missing, or a rate lies at the edge."""
    result = []
    level = rng.choice([-4, -0.5, 0.5, 1, 4])
    of_seeds = rng.normal(0, rng.choice([0, 2]), planned)  # in all conditions alike
    for i in range(int(rng.integers(3, 10))):
        center = level if rng.random() < 0.5 else rng.choice([-4, -2, -0.5, 0.5, 2, 4])
        k = planned - (rng.random() < 0.04)
        a = 0.8 + (of_seeds[:k] + rng.normal(0, 0.3, k) + center) * delta
        b = 0.8 + rng.normal(0, rng.choice([0.2, 1, 2]), k) * delta
        result.append(
            Comparison(
                f"condition {i + 1}",
                {seed: None if rng.random() < 0.01 else float(value) for seed, value in enumerate(a)},
                {seed + (seed == k - 1 and rng.random() < 0.05): float(value) for seed, value in enumerate(b)},
                arms=("with BN", "without BN"),
                edges=("lr of 'with BN'",) if rng.random() < 0.04 else (),
            )
        )
    return result


@checker("ch18.judge")
def judge(answer, rng) -> None:
    """`answer(comparisons, delta, planned)` is the outcome of every condition, and whether two of them are apart."""
    for _ in range(200):  # some rules decide few of the cases
        delta, planned = float(rng.uniform(0.002, 0.02)), int(rng.integers(3, 9))
        made = comparisons(rng, delta, planned)
        got = answer(made, delta, planned)
        if not isinstance(got, tuple) or len(got) != 2 or not isinstance(got[0], Mapping):
            raise Wrong(f"Return a dict, name → outcome, and whether two conditions are apart; got {got!r}.")
        expected = verdict(made, delta, planned=planned)
        outcomes, apart = got
        for c in made:
            if outcomes.get(c.name) != expected.outcomes[c.name]:
                raise Wrong(
                    f"With δ = {delta:.4f} and {planned} planned seeds the outcome of {c.name} is {_said(outcomes, c)}."
                    f" The book: {expected.sentence}"
                )
        if bool(apart) != expected.word.startswith("depends"):
            raise Wrong(
                f"You say {apart} where two conditions are {'' if not apart else 'not '}apart: {expected.sentence}"
            )


def _said(outcomes: Mapping, comparison: Comparison) -> str:
    said = outcomes.get(comparison.name)
    return f"not {said!r}" if said in OUTCOMES else f"one of {', '.join(map(repr, OUTCOMES))}, not {said!r}"


FARTHEST = 100  # by what factor δ may be changed


@checker("ch18.overturn")
def overturn(answer, rng) -> None:
    """`answer()` names a row and one change, such as {"name": "gradients", "delta": 1.0}."""
    change = answer() if callable(answer) else answer
    keys = set(change) if isinstance(change, Mapping) else set()
    if keys not in ({"name", "delta"}, {"name", "seeds"}):
        raise Wrong(f"Return a name and one change, such as {{'name': 'gradients', 'delta': 1.0}}, got {change!r}.")
    try:
        here = row(change["name"])
    except ValueError as error:
        raise Wrong(f"{error}.") from None
    if not here.comparisons:
        raise Wrong(f"There is no verdict to overturn: {here.sentence}")
    experiment, conditions, delta, planned = (
        here.experiment,
        here.comparisons,
        here.experiment.delta,
        here.experiment.seeds,
    )
    value = change["delta" if "delta" in keys else "seeds"]
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise Wrong(f"The change must be a number, got {value!r}.")
    if "delta" in keys:
        if not experiment.delta / FARTHEST <= value <= experiment.delta * FARTHEST or value == experiment.delta:
            raise Wrong(
                f"δ must be another one than {experiment.delta:g}, at most {FARTHEST} times larger or smaller,"
                f" got {value:g}."
            )
        delta = float(value)
    else:
        if value != int(value) or not 2 <= value < experiment.seeds:
            raise Wrong(f"seeds must be a whole number from 2 to {experiment.seeds - 1}, got {value:g}.")
        rows, planned = load(change["name"]), int(value)
        kept = sorted({row["seed"] for row in rows})[:planned]
        conditions = experiment.comparisons([row for row in rows if row["seed"] in kept])
    other = verdict(conditions, delta, planned=planned, needs_more=experiment.needs_more, factor=experiment.factor)
    if other.word == here.word:
        raise Wrong(f"The verdict is still {other.word!r}.")


FAULTS = ("conditions left out", "seeds left out", "another δ", "no 95 % interval", "word does not follow")


def report(rng: np.random.Generator, faults: Collection[str] = ()) -> dict:
    """A made-up entry of a scoreboard, with these faults.

    Returns:
        plan: `conditions`, `seeds` and `delta`, written down before the first run;
        runs: condition → the accuracies `a` and `b`, each by seed: everything that was run;
        table: what is printed: `delta`, `word`, and `effects`: condition → `seeds`, `mean`, `low`, `high`.
    """
    names = [str(name) for name in rng.choice(["SGD", "Adam", "small batches", "deep", "wide"], 3, replace=False)]
    seeds, delta = list(range(int(rng.integers(6, 9)))), float(rng.choice([0.005, 0.01]))
    center, noise = rng.choice([-1, 1, 3]), rng.uniform(0.1, 1)
    runs = {}
    for name in names:
        b = 0.8 + rng.normal(0, 0.01, len(seeds))
        a = b + (center + rng.normal(0, noise, len(seeds))) * delta
        runs[name] = {arm: dict(zip(seeds, map(float, v), strict=True)) for arm, v in (("a", a), ("b", b))}
    gain = {name: np.array([runs[name]["a"][seed] - runs[name]["b"][seed] for seed in seeds]) for name in names}
    shown, printed = list(names), delta
    if "conditions left out" in faults:
        shown.remove(min(names, key=lambda name: gain[name].mean()))
    if "another δ" in faults:
        printed = delta / 2
    one = str(rng.choice(shown))  # where seeds are left out, if they are
    effects = {}
    for name in shown:
        kept = list(seeds)
        if "seeds left out" in faults and name == one:
            kept.remove(int(np.argmin(gain[name])))
        values = gain[name][kept]
        low, high = t_interval(values)
        if "no 95 % interval" in faults:
            half = np.std(values, ddof=1) / math.sqrt(len(values))
            low, high = float(values.mean() - half), float(values.mean() + half)
        effects[name] = {"seeds": kept, "mean": float(values.mean()), "low": low, "high": high}
    supported = all(effect["low"] > printed for effect in effects.values())
    if "word does not follow" in faults:
        supported = not supported
    return {
        "plan": {"conditions": names, "seeds": seeds, "delta": delta},
        "runs": runs,
        "table": {"delta": printed, "word": "supported" if supported else "not supported", "effects": effects},
    }


@checker("ch18.audit")
def audit(answer, rng) -> None:
    """`answer(report)` is the set of faults of an entry."""
    finds_faults(answer, rng, report, FAULTS, share=0.3, reports=100)
