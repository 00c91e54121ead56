"""`noise` again, under a rate that falls to zero: settings are chosen on a pilot and confirmed on fresh seeds.

Each seed draws its own training images, and 10,000 others validate. Rates are chosen on the seeds of the pilot; fresh
seeds run what the claims and the predictions of `explanations` compare. When all rows are there, this takes the place
of `noise`.
"""

from __future__ import annotations

import math

from ...optim import cosine
from ..protocol import LAST_LOSSES, evaluate, split, subset, updates
from . import noise
from .noise import ARMS, BATCH_SIZE, BN, HELD, INITS, RATES, STEPS, hidden_weights, hold_lengths, log10_turn, network
from .noise import comparisons as comparisons
from .noise import figure as figure

QUESTION, CLAIM, SOURCE, FOLKLORE = noise.QUESTION, noise.CLAIM, noise.SOURCE, noise.FOLKLORE
CHAPTER, VERSION, SEEDS, CONFIRM = 17, 1, 2, True
DATASET = "Fashion-MNIST, 10,000 training images, drawn anew for each seed"
NETWORK, METRIC, DELTA, FACTOR = noise.NETWORK, noise.METRIC, noise.DELTA, noise.FACTOR

HIGHEST = (BN, HELD)  # the arms that are tried at the highest rate as well
VALIDATION = 10_000  # images, none of which any run trains on


def grid(quick: bool = False) -> list[dict]:
    """Every arm and start at every rate, the highest with batch normalization alone; quick: every other rate."""
    return [
        {"arm": arm, "init": init, "lr": lr}
        for init in INITS
        for lr in RATES[:: 2 if quick else 1]
        for arm in ARMS
        if lr < RATES[-1] or arm in HIGHEST
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network; scores after the last update, training loss over the last epoch, mean turn of all updates."""
    arm, lr = setting["arm"], setting["lr"]
    model = network(arm, setting["init"], seed)
    weights = hidden_weights(model)
    lengths = [weight.detach().norm(dim=1, keepdim=True) for weight in weights]
    losses, turned = [], []
    for step, loss in updates(
        model, *subset(10_000, seed), steps=STEPS, lr=lr, schedule="cosine", seed=seed, batch_size=BATCH_SIZE
    ):
        losses.append(loss)
        turned.append(log10_turn(model, cosine(step - 1, STEPS, lr)))
        if ARMS[arm][2]:
            hold_lengths(weights, lengths)
    tested = evaluate(model, *split("test"))
    diverged = step < STEPS or not math.isfinite(tested.loss)
    return {
        "diverged": diverged,
        "val_accuracy": evaluate(model, *split("val", VALIDATION)).accuracy,
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "train_loss": None if diverged else sum(losses[-LAST_LOSSES:]) / len(losses[-LAST_LOSSES:]),
        "log10_turn": None if diverged else sum(turned) / len(turned),
        "correct": tested.correct,
    }
