"""The measures of `landscape` where the rate falls to zero along half a cosine; chapter 17 reads the rows.

The networks, the images, the updates and the schedule are those of two arms of the claim `noise`, the network with
batch normalization and the standard one. So the rates are the best ones of those arms, which the seeds 0 to 4 chose
there by validation; they run here, too, but what is compared are the other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from .. import Comparison
from ..claims import landscape
from ..engine import statistics

QUESTION = "What is left of the differences that `landscape` finds where the rate falls to zero?"
CHAPTER, VERSION = 17, 1
DATASET, NETWORK, STEPS, METRIC = landscape.DATASET, landscape.NETWORK, landscape.STEPS, "test_accuracy"

CHOSE = 5  # seeds, 0 and on
FRESH = 20  # from there on: where the differences of `landscape` scatter most, a half-width of δ/2 needs 18
SEEDS = CHOSE + FRESH
RATES = {"default": {"batch": 0.3, "none": 0.3}, "he": {"batch": 1.0, "none": 0.1}}  # the first of a schedule


def grid(quick: bool = False) -> list[dict]:
    """Both networks from both starts at the best rate of the one without, with BN also at its own; quick: He's."""
    return [
        {"norm": norm, "init": init, "lr": lr}
        for init, own in RATES.items()
        if init == "he" or not quick
        for norm in own
        for lr in sorted({own["none"], own[norm]})
    ]


def run(setting: dict, seed: int) -> dict:
    """Train one network and probe it on the way, as `landscape.run`."""
    row = landscape.run(setting, seed, schedule="cosine")
    del row["correct"]
    return row


def comparisons(claim: ModuleType, rows: Sequence[Mapping], *args: object, **more: object) -> list[Comparison]:
    """The comparisons that a claim makes of rows of `landscape`, made of these; no verdict.

    Args:
        claim: `landscape` or `covariate_shift`.
        args, more: of its `comparisons`.
    """
    phased = [{**row, "phase": statistics.CONFIRM} if row["seed"] >= CHOSE else row for row in rows]
    return [replace(found, edges=()) for found in claim.comparisons(phased, *args, **more)]  # no grid, so no edges
