"""What size of an effect is worth having: δ of every claim, by the unit of what it measures.

An effect below δ may be real, but is no reason to choose one network over another. Claims take their DELTA from here.
"""

from __future__ import annotations

from math import log10
from typing import NamedTuple

LEARNS = 0.6  # a network whose accuracy is above this has learned


class Size(NamedTuple):
    """A smallest effect worth having."""

    delta: float  # in the unit that rows are compared in: a share, nats, or a power of ten
    unit: str  # that people use
    why: str


POINTS = Size(
    0.005,
    "points of accuracy",
    "half a point, 50 of the 10,000 test images: another seed alone changes that many, so that nobody could count on"
    " less",
)
LOSS = Size(
    0.05,
    "nats of loss",
    "the right class is given a probability that is higher by a factor of 1.05, on geometric average",
)
CALIBRATION = Size(
    0.01,
    "calibration error",
    "a point of confidence: what somebody who reads percentages off a network would notice",
)
COST = Size(
    0.1,
    "times fewer updates, times less change along a step",
    "ten to the power of a tenth: an update with batch normalization takes about so much longer on one core, so that"
    " less is no gain in seconds (on a card it may take half as long again)",
)
RATE = Size(
    log10(2),
    "times higher a learning rate",
    "a factor of 2: rates are tried in half decades, and less than that is, on average, not one step of the grid",
)
GRADIENT = Size(
    0.5,
    "times more even gradients",
    "a factor of about 3, half a decade: what would ask for another learning rate, one step of the grid",
)
POLICY = {"POINTS": POINTS, "LOSS": LOSS, "CALIBRATION": CALIBRATION, "COST": COST, "RATE": RATE, "GRADIENT": GRADIENT}
