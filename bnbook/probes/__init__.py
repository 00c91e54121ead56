"""Look inside a network: how large its activations and gradients are, layer by layer, and what it does to its weights::

    figure, recorded = xray(model, (inputs, targets))       # any torch model, or one of `bnbook.nn`; it stays as it is

    with Recorder(model, what=("activations", "update_ratios"), reduce=spread) as recorder:
        ...                                                 # train as ever
    recorder.update_ratios["fc1.weight"]                    # one value per step

What is seen is what modules return. A function between modules (`F.relu`, the `+` of a residual connection) is none:
such a sum is seen where a module returns it, as the output of its block.
"""

from .record import Recorded, record
from .recorder import WHAT, Recorder, Statistics
from .xray import XRay, draw_xray, spread, xray

__all__ = ["WHAT", "Recorded", "Recorder", "Statistics", "XRay", "draw_xray", "record", "spread", "xray"]
