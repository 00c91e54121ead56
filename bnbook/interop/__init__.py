"""From one framework to another: weights, and what each means by eps, momentum and the running variance."""

from .conventions import conventions, convert_momentum, half_life, momentum_of_half_life
from .layers import Layer
from .weights import COUNTER, State, convert, load, state

__all__ = [
    "COUNTER",
    "Layer",
    "State",
    "conventions",
    "convert",
    "convert_momentum",
    "half_life",
    "load",
    "momentum_of_half_life",
    "state",
]
