"""Whether batch normalization calibrates a convolutional network better when images are few.

From the rows of `conv_regularization`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison
from ..policy import CALIBRATION
from . import conv_regularization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Is a convolutional network better calibrated with batch normalization when images are few?"
CLAIM, FOLKLORE, SOURCE = conv_regularization.CLAIM, conv_regularization.FOLKLORE, conv_regularization.SOURCE
CHAPTER, ROWS = 15, "conv_regularization"
METRIC, EFFECT, DELTA = "test_calibration_error", "less calibration error", CALIBRATION.delta
SCOPE, FACTOR = conv_regularization.SCOPE, conv_regularization.FACTOR
in_scope = conv_regularization.in_scope


def comparisons(rows: list[dict]) -> list[Comparison]:
    """The calibration error, without BN minus with: each arm at the rate that is best for its accuracy."""
    return conv_regularization.scores(rows, METRIC, worst=1.0, lower=True)


def figure(rows: list[dict]) -> Figure:
    """Accuracy, loss and calibration error of each regularizer."""
    return conv_regularization.figure(rows)
