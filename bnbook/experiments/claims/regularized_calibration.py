"""Whether batch normalization calibrates better when training images are few, from the rows of `regularization`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison
from ..policy import CALIBRATION
from . import regularization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is a network better calibrated with batch normalization when training images are few?"
CLAIM, FOLKLORE, SOURCE = regularization.CLAIM, regularization.FOLKLORE, regularization.SOURCE
CHAPTER, ROWS = 15, "regularization"
METRIC, EFFECT, DELTA = "test_calibration_error", "less calibration error", CALIBRATION.delta
FACTOR = regularization.FACTOR


def comparisons(rows: list[dict]) -> list[Comparison]:
    """The calibration error, without BN minus with: each arm at the rate that is best for its accuracy."""
    return regularization.scores(rows, tuple(reversed(regularization.NORMS)), METRIC, worst=1.0)


def figure(rows: list[dict]) -> Figure:
    """Accuracy, loss and calibration error of each regularizer."""
    return regularization.figure(rows)
