"""Checkers of chapter 11, speed and learning rates."""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import NormalDist

import numpy as np

from ..exercises import Wrong, checker, finds_faults, one_change, positive, recognized, repeatable, same

CHANCE = 0.1  # what a diverged run counts as


def expected_maximum(k: int, sides: int = 1) -> float:
    r"""E of the largest of k independent standard normal values: $\int x\,k\,\varphi(x)\,\Phi(x)^{k-1}\,dx$.

    With two sides that of their absolute values.
    """
    x = np.linspace(-10 if sides == 1 else 0, 10, 20_001)
    density = sides * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([1 - sides * 0.5 * math.erfc(v / math.sqrt(2)) for v in x])
    return float((x * k * density * below ** (k - 1)).sum() * (x[1] - x[0]))


@checker("ch11.optimism")
def optimism(answer, rng) -> None:
    """`answer(k, sd)` is by how much the best of k measurements of the same accuracy is too high, on average."""
    for k in (1, 2, int(rng.integers(3, 6)), int(rng.integers(6, 20))):
        sd = float(rng.uniform(0.002, 0.02))
        expected = sd * expected_maximum(k)
        got = answer(k, sd)
        if not isinstance(got, int | float | np.number) or not abs(got - expected) <= 0.02 * sd:
            mistakes = {
                "That is its limit for very many rates.": sd * math.sqrt(2 * math.log(k)),
                "That is right for two rates.": sd / math.sqrt(math.pi),
                "Noise goes down as well: no absolute values.": sd * expected_maximum(k, sides=2),
                "A quantile of the largest is not its mean.": sd * NormalDist().inv_cdf(k / (k + 1)),
                "That is how far the mean of all is off, not the best.": sd / math.sqrt(k),
            }
            hint = "It grows with the number of rates, and is proportional to the noise."
            raise Wrong(
                f"For k = {k} and a noise of {sd:.4f} the answer is {got!r}, expected {expected:.5f}. "
                + recognized(got, mistakes, hint, tol=2e-3)
            )


@checker("ch11.updates_to")
def updates_to(answer, rng) -> None:
    """`answer(marks, curve, goal)` is when the curve first reaches the goal, or None."""
    for _ in range(400):  # few of the cases tell a line between the marks from a step
        size = int(rng.integers(2, 9))
        marks = np.sort(rng.choice(np.arange(1, 500), size, replace=False))
        curve = np.clip(rng.uniform(0.1, 0.9) + np.cumsum(rng.normal(0.03, 0.08, size)), 0.05, 0.95)
        goal = float(rng.choice([rng.choice(curve), curve.max() + 0.01, rng.uniform(0.1, 0.9), curve[0] - 0.02]))
        reached = np.flatnonzero(curve >= goal)
        case = f"marks {marks.tolist()}, curve {curve.round(3).tolist()} and goal {goal:.3f}"
        got = answer(marks, curve, goal)
        if not len(reached):
            if got is not None:
                raise Wrong(f"With {case} the goal is never reached: return None, got {got!r}.")
            continue
        first = reached[0]
        expected = (
            marks[0] if first == 0 else np.interp(goal, curve[first - 1 : first + 1], marks[first - 1 : first + 1])
        )
        if got is None:
            raise Wrong(f"With {case} the goal is reached, got None.")
        same(
            np.float64(got),
            np.float64(expected),
            f"With {case} the answer",
            hint="The first time counts.",
            mistakes={
                "The goal is reached between two marks: the curve is a line there.": marks[first],
                "That is its index: give the number of updates.": first,
                "That is the last time: the first one counts.": marks[reached[-1]],
            }
            | ({"That is the mark before.": marks[first - 1]} if first else {"Nothing is known before it.": 0}),
        )


BASE = {"std": 0.01, "lr": 0.1}  # of the picture that opens the chapter
UPDATES = 2000
AT_MOST, AT_LEAST = 0.03, 0.78  # of the difference, and of both accuracies


def accuracy(norm: str, std: float, lr: float, seed: int) -> float:
    """Validation accuracy of the sigmoid network after 2,000 updates of 60 images; a diverged run counts as chance."""

    from ...experiments.protocol import evaluate, split, updates
    from ...models.torch_mlp import mlp

    with repeatable(seed):
        model = mlp(norm, widths=(100,) * 3, activation="sigmoid", init=std)
        done = sum(1 for _ in updates(model, *split("train"), steps=UPDATES, lr=lr, seed=seed, batch_size=60))
        return evaluate(model, *split("val")).accuracy if done == UPDATES else CHANCE


@checker("ch11.overturn")
def overturn(answer, rng) -> None:
    """`answer()` is the one setting to change, such as {"lr": 0.3}."""
    name, value = one_change(answer, BASE, lr=0.3)
    positive(name, value)
    for seed in map(int, rng.integers(0, 1000, 2)):
        case, scores = f"With {name} = {value:g} and seed {seed} the accuracy is", {}
        for norm, arm in (("none", "without BN"), ("batch", "with BN")):
            scores[norm] = accuracy(norm, **(BASE | {name: value}), seed=seed)
            if scores[norm] < AT_LEAST:
                raise Wrong(f"{case} {scores[norm]:.3f} {arm}: both should learn, to {AT_LEAST} at least.")
        if scores["batch"] - scores["none"] > AT_MOST:
            raise Wrong(
                f"{case} {scores['batch']:.3f} with BN and {scores['none']:.3f} without: batch normalization is still "
                f"ahead by more than {AT_MOST}."
            )


FAULTS = ("unequal updates", "chosen on test", "edge of the grid", "diverged runs left out")


def report(rng: np.random.Generator, faults: Collection[str] = ()) -> dict[str, dict]:
    """A made-up comparison of two arms over learning rates, with these faults in one of them.

    Returns:
        by arm: `rates`; `updates`, their number; `val` and `test`, accuracies (rates, seeds), NaN where a run diverged;
        `chosen`, the rate; `reported`, the test accuracy that is compared.
    """
    arms = ("with BN", "without BN")
    updates = int(rng.integers(2, 20)) * 100
    made: dict[str, dict] = {}
    at_fault = {fault: str(rng.choice(arms)) for fault in faults}
    for arm in arms:
        mine = {fault for fault, where in at_fault.items() if where == arm}
        size, seeds = int(rng.integers(6, 9)), 5
        rates = 10.0 ** (np.arange(size) / 2 - rng.integers(2, 7) / 2)
        chosen = int(rng.choice([0, size - 1]) if "edge of the grid" in mine else rng.integers(2, size - 2))
        inward = 1 if chosen < size / 2 else -1
        peak_val = chosen + inward if "chosen on test" in mine else chosen
        peak_test = chosen if "chosen on test" in mine or rng.random() < 0.5 else chosen + inward
        height = rng.uniform(0.82, 0.9)
        val, test = (
            np.maximum(height - 0.2 * np.abs(np.arange(size) - peak), CHANCE)[:, None]
            + rng.normal(0, 0.004, (size, seeds))
            for peak in (peak_val, peak_test)
        )
        if "diverged runs left out" in mine or rng.random() < 0.3:
            val[chosen, 0] = test[chosen, 0] = np.nan
        if chosen < size - 2:
            val[-1, 1:], test[-1, 1:] = np.nan, np.nan
        counted = test[chosen] if "diverged runs left out" in mine else np.nan_to_num(test[chosen], nan=CHANCE)
        made[arm] = {
            "rates": rates,
            "updates": updates + 100 * ("unequal updates" in mine),
            "val": val,
            "test": test,
            "chosen": float(rates[chosen]),
            "reported": float(np.nanmean(counted)),
        }
    return made


@checker("ch11.audit")
def audit(answer, rng) -> None:
    """`answer(report)` is the set of faults of a comparison."""
    finds_faults(answer, rng, report, FAULTS, share=0.35, reports=300)
