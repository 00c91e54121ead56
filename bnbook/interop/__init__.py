"""From one framework to another: weights, and what each means by eps, momentum and the running variance; folding."""

from .conventions import conventions, convert_momentum, half_life, momentum_of_half_life
from .folding import FoldReport, fold, into_next, into_previous, scale_and_shift
from .layers import Layer
from .weights import COUNTER, State, convert, load, state

__all__ = [
    "COUNTER",
    "FoldReport",
    "Layer",
    "State",
    "conventions",
    "convert",
    "convert_momentum",
    "fold",
    "half_life",
    "into_next",
    "into_previous",
    "load",
    "momentum_of_half_life",
    "scale_and_shift",
    "state",
]
