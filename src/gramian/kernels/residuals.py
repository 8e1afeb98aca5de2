"""What a factor model says of its ratings, and the squared residuals, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gramian.kernels.compiled import compiled

__all__ = ["dot", "predictions", "squared_errors"]


@njit(nogil=True, fastmath={"contract", "reassoc"})
def dot(a: Any, b: Any, count: int) -> float:
    """Σ a_k b_k for k < ``count``, in whatever order is fastest; the same for the same arguments."""
    total = a.dtype.type(0)
    for k in range(count):
        total += a[k] * b[k]
    return total


@compiled
def squared_errors(
    indptr: Any, indices: Any, values: Any, rows: Any, other: Any, biased: bool, offset: float,
    start: int, stop: int, out: Any,
) -> None:  # fmt: skip
    """Write the sum of squared residuals of each row ``start`` … ``stop`` into ``out`` (float64)."""
    width = other.shape[1]
    factors = width - 1 if biased else width
    for i in range(start, stop):
        total = 0.0
        bias = np.float64(rows[i, factors]) if biased else 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            predicted = offset + bias + dot(rows[i], other[j], factors)
            if biased:
                predicted += other[j, factors]
            total += (values[e] - predicted) ** 2
        out[i] = total


@compiled
def predictions(
    indptr: Any, indices: Any, rows: Any, other: Any, biased: bool, offset: float, start: int, stop: int, out: Any
) -> None:
    """Write μ + b + c + wᵀu of each rating of the rows ``start`` … ``stop`` into ``out`` (float64)."""
    width = other.shape[1]
    factors = width - 1 if biased else width
    for i in range(start, stop):
        bias = offset + (np.float64(rows[i, factors]) if biased else 0.0)
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            out[e] = bias + dot(rows[i], other[j], factors) + (np.float64(other[j, factors]) if biased else 0.0)
