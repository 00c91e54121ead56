"""How far two results are apart, by one rule, and a table of it.

The rule: the largest difference of two arrays, divided by the largest value of the expected one. Element by element a
relative difference says nothing here, since gradients and normalized values pass through zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

Array = np.ndarray

TOLERANCES = {
    "float64": {"output": 1e-12, "gradient": 1e-10},
    "float32": {"output": 2e-6, "gradient": 1e-5},
}
"""What counts as agreement, for outputs (and statistics) and for gradients."""


class Difference(NamedTuple):
    """One row of a table: what was compared, how far apart it is, and what is tolerated (None: nothing is said)."""

    name: str
    difference: float
    tolerance: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; never for nan."""
        return self.tolerance is None or self.difference <= self.tolerance


def max_difference(actual: Array, expected: Array, scale: float | None = None) -> float:
    r"""$\max|a-b|\,/\,s$ with $s=\max|b|$, or `scale` where that is larger.

    Args:
        actual, expected: arrays (or tensors on the CPU) of one shape.
        scale: the natural size of the result, for results that may cancel. For the input gradient of a normalization:
            max|γ/√(σ²+ε)| · max|upstream|.

    Returns:
        0 for equal arrays (also empty ones); nan where only one of the two is nan.

    Raises:
        ValueError: the shapes differ. Nothing is broadcast.
    """
    a, b = _array(actual), _array(expected)
    if a.shape != b.shape:
        raise ValueError(f"actual has shape {a.shape}, expected {b.shape}")
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    s = max(float(np.abs(b).max()), scale or 0.0)
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(a - b).max())
    return largest / s if s != 0 else float("inf")


def differences(
    pairs: Mapping[str, tuple] | Iterable[tuple], tolerance: float | Mapping[str, float] | None = None
) -> list[Difference]:
    """Compare named pairs of arrays.

    Args:
        pairs: {name: (actual, expected)} or [(name, actual, expected), ...]; a scale for `max_difference` may follow.
        tolerance: one for all, or {name: tolerance}.
    """
    rows = [(name, *pair) for name, pair in pairs.items()] if isinstance(pairs, Mapping) else pairs
    return [
        Difference(name, max_difference(*arrays), tolerance.get(name) if isinstance(tolerance, Mapping) else tolerance)
        for name, *arrays in rows
    ]


def largest(rows: Iterable[Difference]) -> list[Difference]:
    """The row with the largest difference of every name, in the order in which the names first appear."""
    worst: dict[str, Difference] = {}
    for row in rows:
        known = worst.setdefault(row.name, row)
        if _rank(row) > _rank(known):
            worst[row.name] = row
    return list(worst.values())


def table(rows: Iterable[Difference]) -> str:
    """The rows as plain text in columns; a row out of tolerance ends in "differs"."""
    header = ("array", "largest difference", "tolerance", "")
    cells = [
        (
            row.name,
            f"{row.difference:.1e}",
            "" if row.tolerance is None else f"{row.tolerance:.0e}",
            "" if row.tolerance is None else "agrees" if row.agrees else "differs",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _array(value: object) -> Array:
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    return np.asarray(value, dtype=np.float64)


def _rank(row: Difference) -> tuple[bool, float]:
    """nan counts as the largest difference."""
    return (bool(np.isnan(row.difference)), row.difference)
