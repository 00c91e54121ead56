"""Selection by a mask, as fast as multiplication and right for infinities."""

from __future__ import annotations

import numpy as np


def kept(g: np.ndarray, mask: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """g where the mask is True, else 0, in the memory order of the mask.

    ∞ · 0 is nan, so it is not g that is multiplied by the mask but its bits, read as integers: bits · 1 are the same
    bits, and bits · 0 are those of 0. (`np.where` takes eight times as long where the mask follows no pattern.)
    """
    out = np.empty_like(mask, dtype=g.dtype) if out is None else out
    integer = f"i{g.itemsize}"
    np.multiply(g.view(integer), mask, out=out.view(integer))
    return out
