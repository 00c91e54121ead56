"""Whether batch normalization lowers the test loss when training images are few, from the rows of `regularization`."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from .. import Comparison
from ..policy import LOSS
from . import regularization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is the test loss lower with batch normalization when training images are few?"
CLAIM, FOLKLORE, SOURCE = regularization.CLAIM, regularization.FOLKLORE, regularization.SOURCE
CHAPTER, ROWS = 15, "regularization"
METRIC, EFFECT, DELTA = "test_loss", "nats less test loss", LOSS.delta
FACTOR = regularization.FACTOR
CHANCE = log(10)  # of a network that guesses


def comparisons(rows: list[dict]) -> list[Comparison]:
    """The test loss, without BN minus with: each arm at the rate that is best for its accuracy."""
    return regularization.scores(rows, tuple(reversed(regularization.NORMS)), METRIC, CHANCE)


def figure(rows: list[dict]) -> Figure:
    """Accuracy, loss and calibration error of each regularizer."""
    return regularization.figure(rows)
