"""Checkers of chapter 15, regularization."""

from __future__ import annotations

import math

import numpy as np

from ..exercises import Wrong, checker, one_change, positive, recognized, repeatable, same

Array = np.ndarray


@checker("ch15.noise")
def noise(answer, rng) -> None:
    """`answer(z, m)` is the standard deviation of x̂ over the company of an example, to leading order."""
    for z in (0.0, *rng.uniform(0.3, 1, 2), *-rng.uniform(1, 2.5, 2)):
        m = int(rng.integers(50, 1000))
        got, expected = answer(float(z), m), math.sqrt((1 + z**2 / 2) / m)
        if not isinstance(got, int | float | np.number) or not abs(got - expected) <= 0.03 * expected:
            mistakes = {
                "σ is noisy as well, which moves x̂ where z is not zero.": math.sqrt(1 / m),
                "μ is noisy as well.": abs(z) / math.sqrt(2 * m),
                "Independent noises: their variances add, not their standard deviations.": (1 + abs(z) / math.sqrt(2))
                / math.sqrt(m),
                "That is the variance.": expected**2,
                "The root of a noisy variance is relatively half as noisy.": math.sqrt((1 + 2 * z**2) / m),
                "The variance of normal values is noisier than their mean: by a factor of 2.": math.sqrt(
                    (1 + z**2 / 4) / m
                ),
            }
            hint = recognized(got, mistakes, "Two noises, of μ and of σ: how far does each move x̂?", tol=2e-3)
            raise Wrong(f"For z = {z:.2f} and m = {m} the answer is {got!r}, expected {expected:.4f}. {hint}")


def gaps(probabilities: Array, labels: Array, bins: int, certain: bool = True) -> tuple[Array, Array]:
    """Of the bins that are not empty, shares of the examples, and accuracy less confidence; or `certain` left out."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    shares, found = [], []
    for k in range(bins):
        inside = (confidence >= k / bins) & ((confidence < (k + 1) / bins) | (k == bins - 1))
        inside &= certain | (confidence < 1)
        if inside.any():
            shares.append(inside.mean())
            found.append(right[inside].mean() - confidence[inside].mean())
    return np.array(shares), np.array(found)


def error(probabilities: Array, labels: Array, bins: int) -> float:
    """The expected calibration error."""
    shares, gap = gaps(probabilities, labels, bins)
    return float(shares @ abs(gap))


@checker("ch15.calibration_error")
def calibration_error(answer, rng) -> None:
    """`answer(probabilities, labels, bins)` is the expected calibration error."""
    for case in range(6):
        examples, classes, bins = int(rng.integers(20, 200)), int(rng.integers(2, 8)), int(rng.integers(4, 16))
        logits = rng.normal(size=(examples, classes)) * rng.uniform(0.5, 4)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        if case % 2:
            probabilities[:3] = np.eye(classes)[[0, 1, 0]]  # certain
        likely = rng.random(examples) < rng.uniform(0.3, 0.9)
        labels = np.where(likely, probabilities.argmax(axis=1), rng.integers(0, classes, examples))
        if case % 2:
            labels[0] = 1  # certain, and wrong
        shares, gap = gaps(probabilities, labels, bins)
        fewer, gap_of_fewer = gaps(probabilities, labels, bins, certain=False)
        right, likeliest = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
        same(
            np.float64(answer(probabilities.copy(), labels.copy(), bins)),
            np.float64(error(probabilities, labels, bins)),
            f"The error of {examples} examples in {bins} bins" + (", some of them with confidence 1," * (case % 2)),
            hint="In every bin: how far the share of right answers is from the mean confidence.",
            mistakes={
                "The gap of a bin counts with the share of the examples in it.": abs(gap).mean(),
                "The gap of a bin counts with the share of the examples in it, and empty bins with nothing.": abs(
                    gap
                ).sum()
                / bins,
                "That is the largest gap.": abs(gap).max(),
                "A gap has no sign: take its size, in every bin.": shares @ gap,
                "That is the gap of all examples together: take its size in every bin.": abs(shares @ gap),
                "A confidence of exactly 1 belongs into the last bin.": fewer @ abs(gap_of_fewer),
                "Take the means of a bin first, then their difference.": abs(right - likeliest).mean(),
                "It is a share, not a percentage.": 100 * error(probabilities, labels, bins),
            },
        )


BASE = {"lr": 0.1, "dropout": 0.0, "weight_decay": 0.0}
AT_LEAST, AT_MOST = 0.1, 0.03  # lower loss in nats, and lower accuracy


def scores(norm: str, seed: int, lr: float = 0.1, dropout: float = 0.0, weight_decay: float = 0.0):
    """Validation `loss` and `accuracy` of the chapter's network, trained on 256 images from He's weights."""

    from ...experiments.claims import regularization
    from ...experiments.protocol import evaluate, split

    with repeatable(seed):
        setting = regularization.setting(256, norm, lr, dropout=dropout, weight_decay=weight_decay)
        return evaluate(regularization.train(setting, seed)[0], *split("val", half=True))


@checker("ch15.overturn")
def overturn(answer, rng) -> None:
    """`answer()` is the one setting to change in the network without batch normalization, such as {"lr": 0.3}."""
    name, value = one_change(answer, BASE, lr=0.3)
    positive(name, value)
    if name == "dropout" and value >= 1:
        raise Wrong(f"dropout must be below 1, got {value!r}.")
    for seed in map(int, rng.integers(0, 1000, 2)):
        with_bn, without = scores("batch", seed), scores("none", seed, **{name: value})
        found = f"With {name} = {value:g} and seed {seed} the network without BN has"
        if not without.loss < with_bn.loss - AT_LEAST:
            raise Wrong(f"{found} a loss of {without.loss:.3f}, that with BN {with_bn.loss:.3f}: still too high.")
        if without.accuracy < with_bn.accuracy - AT_MOST:
            raise Wrong(
                f"{found} an accuracy of {without.accuracy:.3f}, that with BN {with_bn.accuracy:.3f}: it lost too much."
            )


REASONS = ("no gain", "fits better", "regularizes")
DELTA = 0.005


def report(rng: np.random.Generator, reason: str) -> dict[str, dict[str, np.ndarray]]:
    """Made-up accuracies of two networks, over five paired seeds, whose difference has this reason.

    Returns:
        for "with BN" and "without BN", `train` and `test`.
    """
    if reason == "no gain":
        test, train = rng.uniform(-0.04, 0.003), rng.choice([-0.03, 0.0, 0.03]) + rng.uniform(-0.003, 0.003)
    else:
        test = rng.uniform(0.01, 0.04)
        train = test + rng.uniform(-0.005, 0.05) if reason == "fits better" else rng.uniform(-0.05, 0.003)
    made = {}
    level = {"train": rng.uniform(0.85, 0.94), "test": rng.uniform(0.7, 0.8)}
    differences = {"train": train, "test": test}
    without = {part: value + rng.normal(0, 0.01, 5) for part, value in level.items()}
    jitter = {part: rng.normal(0, 0.002, 5) for part in level}
    made["with BN"] = {part: without[part] + differences[part] + jitter[part] - jitter[part].mean() for part in without}
    made["without BN"] = without
    return made


@checker("ch15.reason")
def reason(answer, rng) -> None:
    """`answer(report)` is why a network is ahead, one of `REASONS`."""
    for _ in range(60):
        expected = str(rng.choice(REASONS))
        case = report(rng, expected)
        got = answer(case)
        if not isinstance(got, str) or got not in REASONS:
            raise Wrong(f"Return one of {', '.join(map(repr, REASONS))}, got {got!r}.")
        if got != expected:
            means = {part: case["with BN"][part].mean() - case["without BN"][part].mean() for part in ("train", "test")}
            raise Wrong(
                f"With BN minus without, the accuracy differs by {means['train']:+.3f} in training and by "
                f"{means['test']:+.3f} on the test: that is {expected!r}, got {got!r}."
            )
