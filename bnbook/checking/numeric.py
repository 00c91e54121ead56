"""Gradients by finite differences: a reference for every backward pass that knows nothing of its derivation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def numeric_gradient(
    f: Callable[[Array], Array | float], x: Array, grad_y: Array | None = None, *, step: float = 1e-5
) -> Array:
    r"""The gradient of $L=\sum_j g_j\,f(x)_j$ for x by central differences in float64.

    $$ \frac{\partial L}{\partial x_i} \approx \sum_j g_j\,\frac{f(x+h e_i)_j-f(x-h e_i)_j}{2h} $$

    The error is of order h² times the third derivative, plus rounding of order 1e-16 · |f| / h. At a kink of f
    (ReLU at 0, a tie in a maximum) the result is the mean of the two one-sided derivatives.

    Args:
        f: a function of one array, which returns an array or a number; it is called 2 · x.size times.
        x: where, of any shape; it is not modified.
        grad_y: the upstream gradient g, of f(x)'s shape. Without it f must return a number, and g = 1. There is no
            default for arrays: with an upstream gradient of ones a normalization's gradient is zero, and a wrong
            backward pass goes unnoticed.
        step: h.

    Returns:
        A float64 array of x's shape.

    Raises:
        ValueError: grad_y has not the shape of f(x), or is missing where f(x) is not a number.
    """
    x = np.array(x, dtype=np.float64)
    y_shape = np.shape(f(x.copy()))
    if grad_y is None and y_shape != ():
        raise ValueError(f"grad_y is None, but f(x) has shape {y_shape}: give an upstream gradient of that shape")
    g = np.float64(1) if grad_y is None else np.asarray(grad_y, dtype=np.float64)
    if g.shape != y_shape:
        raise ValueError(f"grad_y has shape {g.shape}, expected {y_shape}: the shape of f(x)")
    grad_x = np.empty_like(x)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += step
        below[i] -= step
        width = above[i] - below[i]  # 2h as it was rounded
        difference = np.asarray(f(above), dtype=np.float64) - np.asarray(f(below), dtype=np.float64)
        grad_x[i] = np.sum(g * difference) / width
    return grad_x
