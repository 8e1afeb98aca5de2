"""What a factor model says of its ratings, and the squared residuals, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gramian.kernels.vector.compiled import borrowing, inlined
from gramian.kernels.vector.lanes import lanes, vfma, vload, vload_first, vmul, vsum

__all__ = ["dot", "predictions", "squared_errors"]


@njit(nogil=True, fastmath={"contract", "reassoc"})
def dot(a: Any, b: Any, count: int) -> float:
    """Σ a_k b_k for k < ``count``, in whatever order is fastest; the same for the same arguments."""
    total = a.dtype.type(0)
    for k in range(count):
        total += a[k] * b[k]
    return total


@inlined
def _product(a: Any, a_at: int, b: Any, b_at: int, count: int) -> float:
    """Σ a_k b_k of ``count`` numbers each, register by register."""
    width = lanes(a)
    whole = count // width * width
    rest = count - whole
    total = vmul(vload_first(a, a_at + whole, rest), vload_first(b, b_at + whole, rest))
    for k in range(0, whole, width):
        total = vfma(vload(a, a_at + k), vload(b, b_at + k), total)
    return vsum(total)


@borrowing
def squared_errors(
    indptr: Any, indices: Any, values: Any, rows: Any, other: Any, width: int, biased: bool, offset: float,
    start: int, stop: int, out: Any,
) -> None:  # fmt: skip
    """Write the sum of squared residuals of each row ``start`` … ``stop`` into ``out`` (float64).

    ``rows`` and ``other`` are flat, with ``width`` numbers a row.
    """
    factors = width - 1 if biased else width
    for i in range(start, stop):
        total = 0.0
        bias = np.float64(rows[i * width + factors]) if biased else 0.0
        for e in range(indptr[i], indptr[i + 1]):
            at = np.int64(indices[e]) * width
            predicted = offset + bias + _product(rows, i * width, other, at, factors)
            if biased:
                predicted += other[at + factors]
            total += (values[e] - predicted) ** 2
        out[i] = total


@borrowing
def predictions(
    indptr: Any, indices: Any, rows: Any, other: Any, width: int, biased: bool, offset: float,
    start: int, stop: int, out: Any,
) -> None:  # fmt: skip
    """Write μ + b + c + wᵀu of each rating of the rows ``start`` … ``stop`` into ``out`` (float64); flat rows, too."""
    factors = width - 1 if biased else width
    for i in range(start, stop):
        bias = offset + (np.float64(rows[i * width + factors]) if biased else 0.0)
        for e in range(indptr[i], indptr[i + 1]):
            at = np.int64(indices[e]) * width
            predicted = bias + _product(rows, i * width, other, at, factors)
            out[e] = predicted + (np.float64(other[at + factors]) if biased else 0.0)
