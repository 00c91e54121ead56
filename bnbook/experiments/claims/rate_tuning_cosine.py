"""`rate_tuning` again, from the rows of `noise_cosine`."""

from __future__ import annotations

from . import rate_tuning
from .rate_tuning import comparisons as comparisons
from .rate_tuning import figure as figure

QUESTION, CLAIM, SOURCE, FOLKLORE = rate_tuning.QUESTION, rate_tuning.CLAIM, rate_tuning.SOURCE, rate_tuning.FOLKLORE
CHAPTER, ROWS = 17, "noise_cosine"
METRIC, EFFECT, DELTA, FACTOR = rate_tuning.METRIC, rate_tuning.EFFECT, rate_tuning.DELTA, rate_tuning.FACTOR
