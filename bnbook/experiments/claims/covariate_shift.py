"""Whether batch normalization reduces internal covariate shift, by two definitions, from the rows of `landscape`.

By that of Ioffe & Szegedy (2015) it is the change of the distributions of activations; by that of Santurkar et al.
(2018) the change of a layer's gradient when the layers before it are updated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import Comparison
from ..policy import COST
from . import landscape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does an update move the distributions of activations, and the gradients of later layers, less far with BN?"
CLAIM = (
    "We propose a new mechanism, which we call Batch Normalization, that takes a step towards reducing internal"
    " covariate shift, and in doing so dramatically accelerates the training of deep neural nets."
)
SOURCE = "ioffe2015batch"
FOLKLORE = "It works because it reduces internal covariate shift."
CHAPTER, ROWS = 17, "landscape"
METRIC = "stability_in_decades"
EFFECT = "times less shift"
DELTA = COST.delta
SCOPE = "their own definition, the change of the distributions of activations"
FACTOR = "the initialization", "the definition", "what is held equal"

DEFINITIONS = {"distribution_shift": "distributions", "gradient_shift": "gradients"}


def comparisons(rows: list[dict], own_rate: bool = False) -> list[Comparison]:
    """By how many powers of ten the shift is smaller with BN, by either definition."""
    return [
        comparison
        for measure, words in DEFINITIONS.items()
        for comparison in landscape.comparisons(rows, measure, metric=METRIC, words=words, own_rate=own_rate)
    ]


def in_scope(comparison: Comparison) -> bool:
    """Ioffe & Szegedy define it by distributions."""
    return DEFINITIONS["distribution_shift"] in comparison.levels


def figure(rows: list[dict]) -> Figure:
    """Both shifts over the updates, at equal rate."""
    return landscape.over_time(rows, {measure: f"shift of {words}" for measure, words in DEFINITIONS.items()})
