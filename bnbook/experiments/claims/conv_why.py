"""What is left of the gain of batch normalization in a convolutional network when its distributions are made unstable.

The arms of `noise` on a VGG of six convolutions. Before chosen updates it is measured how far each of them moves the
distributions of the activations, and how smooth the loss is along the gradient, over the same steps in every arm.
`conv_smoothness` reads another claim from the same rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

import torch
from torch import nn

from ...models.torch_conv import vgg
from .. import Comparison
from ..policy import POINTS
from ..protocol import LAST_LOSSES, evaluate, split, subset, updates
from . import noise
from .landscape import activations, distribution_shift, log10, over_layers, over_updates, probe, smaller
from .noise import ARMS, BN, HELD, NOISY, STANDARD, at_best_rate, hold_lengths, with_noise
from .noise import figure as figure

QUESTION = "Does a convolutional network lose the gain of batch normalization when its distributions are made unstable?"
CLAIM, SOURCE = noise.CLAIM, noise.SOURCE
FOLKLORE = "Stable distributions are the reason why batch normalization helps convolutional networks."
CHAPTER, VERSION, SEEDS, CONFIRM = 17, 1, 5, True
DATASET = "Fashion-MNIST, 10,000 training images of 14x14 pixels, drawn anew for each seed"
NETWORK = "six convolutions as VGG, width 16, from He weights"
BATCH_SIZE, STEPS = 128, 390  # five epochs of 78 updates
METRIC, DELTA = "test_accuracy", POINTS.delta

INIT = "he"
LOW_RATES, RATES = (0.01, 0.03, 0.1, 0.3), (0.01, 0.03, 0.1, 0.3, 1.0)  # without batch normalization, and with it
PROBED = (1, 3, 10, 30, 60, 100, 150, 200, 270, 340)  # the updates before which it is looked
REFERENCE = 128  # training images whose activations and loss are followed: as many as in a batch
STEP = 0.1  # times the gradient: the loss is followed to so many and 0.5, 2 and 4 times as many
MEASURES = ("loss", "loss_range", "gradient_change", "beta", "gradient_shift", "cosine")  # of `landscape.probe`
SHIFT = "log10_of_the_shift"


def grid(quick: bool = False) -> list[dict]:
    """Every arm at every rate of its own; quick: two rates."""
    rates = {arm: LOW_RATES if norm == "none" else RATES for arm, (norm, _, _) in ARMS.items()}
    return [{"arm": arm, "init": INIT, "lr": lr} for arm in ARMS for lr in (rates[arm][1:3] if quick else rates[arm])]


def network(arm: str, seed: int) -> nn.Sequential:
    """The network of an arm; all arms of one seed start from the same weights."""
    norm, noisy, _ = ARMS[arm]
    torch.manual_seed(seed)
    model = vgg(norm, width=16, init=INIT)
    return with_noise(model, seed) if noisy else model


def run(setting: dict, seed: int) -> dict:
    """Train one network and look at it on the way.

    Scores are those after the last update, the training loss is that of the last epoch. Of each measure there are the
    values before the updates of PROBED: "shift" is the decimal logarithm of how far that update moves the distributions
    of the activations in training mode, the mean over layers, where the activations of noisy networks have their noise;
    the others are MEASURES, for a step of STEP times the gradient of a batch drawn for it, and None in noisy networks,
    whose loss is another at every call.
    """
    arm, lr = setting["arm"], setting["lr"]
    _, noisy, held = ARMS[arm]
    model, (x, y) = network(arm, seed), subset(10_000, seed, half=True)
    filters = [layer.weight.detach().flatten(1) for layer in model if isinstance(layer, nn.Conv2d)]  # views
    lengths = [weight.norm(dim=1, keepdim=True) for weight in filters]
    drawn = torch.Generator().manual_seed(seed)
    found: dict[str, list[float]] = {name: [] for name in ("shift", *MEASURES)}

    def seen() -> list[torch.Tensor]:
        return activations(copy.deepcopy(model).train(), x[:REFERENCE])[0]

    def look() -> list[torch.Tensor]:
        if not noisy:
            batch = torch.randint(len(x), (BATCH_SIZE,), generator=drawn)
            measured = probe(model, x[batch], y[batch], STEP, (x[:REFERENCE], y[:REFERENCE]))
            for name in MEASURES:
                found[name].append(round(measured[name], 4))
        return seen()

    before, losses = look(), []
    for step, loss in updates(
        model, x, y, steps=STEPS, lr=lr, momentum=0.9, schedule="cosine", seed=seed, batch_size=BATCH_SIZE
    ):
        losses.append(loss)
        if held:
            hold_lengths(filters, lengths)
        if step in PROBED:
            moved = [log10(distribution_shift(a, b)) for a, b in zip(before, seen(), strict=True)]
            found["shift"].append(round(over_layers(moved), 4))
        if step + 1 in PROBED:
            before = look()
    tested = evaluate(model, *split("test", half=True))
    diverged = step < STEPS or not math.isfinite(tested.loss)
    return {
        **{name: values or None for name, values in found.items()},
        "diverged": diverged,
        "val_accuracy": evaluate(model, *split("val", 10_000, half=True)).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "train_loss": None if diverged else fmean(losses[-LAST_LOSSES:]),
        "correct": tested.correct,
    }


def comparisons(rows: list[dict], without: str = NOISY, equal_rate: bool = False) -> list[Comparison]:
    """What the noise takes from the gain, in points of test accuracy, minus what it leaves of it: see `noise`."""
    found = noise.comparisons(rows, without, equal_rate)
    return [replace(comparison, settings=confirmed(rows)) for comparison in found]


def confirmed(rows: Sequence[Mapping]) -> tuple[dict, ...]:
    """What fresh seeds run: each arm at its best rate, with batch normalization also at that of the one without."""
    own = {arm: at_best_rate(rows, INIT, arm).values["lr"] for arm in ARMS}
    rates = {arm: (own[arm], own[STANDARD]) if arm in (BN, NOISY, HELD) else (own[arm],) for arm in ARMS}
    return tuple({"arm": arm, "init": INIT, "lr": lr} for arm in ARMS for lr in dict.fromkeys(rates[arm]))


def over_run(row: Mapping, measure: str) -> float | None:
    """A measure of a run, its mean over the updates; None where the run diverged or a value has no logarithm."""
    if row["diverged"] or None in row[measure]:
        return None
    return over_updates(row[measure], PROBED)


def shifts(rows: Sequence[Mapping]) -> list[Comparison]:
    """By how many powers of ten an update moves distributions less far than in the network without BN; no verdict.

    Each arm at its best rate: with batch normalization, and with noise behind it, where a negative number says that
    the noise does what it is there for.
    """
    chosen = {arm: at_best_rate(rows, INIT, arm) for arm in (BN, NOISY, STANDARD)}
    return [
        smaller(
            f"{arm} against {STANDARD}",
            {name: (chosen[name].rows, chosen[name]) for name in (arm, STANDARD)},
            partial(over_run, measure="shift"),
            metric=SHIFT,
        )
        for arm in (BN, NOISY)
    ]
