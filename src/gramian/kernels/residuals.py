"""What a factor model says of its ratings, and the squared residuals, row by row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from gramian.kernels.arrays import Array, readonly
from gramian.kernels.csr import CSR
from gramian.kernels.vector.compiled import borrowing, inlined
from gramian.kernels.vector.lanes import lanes, vfma, vload, vload_first, vmul, vsum

__all__ = ["Predictor", "dot", "predictions", "predictor", "squared_errors"]


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


class Predictor(NamedTuple):
    """A factor model of the rows of one side, r̂ = μ + b + c + wᵀu, with the rows of the other side fixed.

    Attributes:
        rows, fixed: The rows w and u, flat, of the same floats; the bias, if there is one, is the last of a row.
        width: D, the numbers of a row.
        biased: Whether there are biases.
        offset: μ.
    """

    rows: Array
    fixed: Array
    width: int
    biased: bool
    offset: float


def predictor(rows: Array, fixed: Array, biased: bool, offset: float) -> Predictor:
    """The model of rows (n, D) and of fixed rows (m, D)."""
    return Predictor(readonly(rows).reshape(-1), readonly(fixed).reshape(-1), fixed.shape[1], biased, offset)


@borrowing
def squared_errors(ratings: CSR, model: Predictor, start: int, stop: int, out: Any) -> None:
    """Write the sum of squared residuals of each row ``start`` … ``stop`` into ``out`` (float64)."""
    indptr, indices, values = ratings.indptr, ratings.indices, ratings.values
    rows, fixed, width = model.rows, model.fixed, model.width
    factors = width - 1 if model.biased else width
    for i in range(start, stop):
        total = 0.0
        bias = np.float64(rows[i * width + factors]) if model.biased else 0.0
        for e in range(indptr[i], indptr[i + 1]):
            at = np.int64(indices[e]) * width
            predicted = model.offset + bias + _product(rows, i * width, fixed, at, factors)
            if model.biased:
                predicted += fixed[at + factors]
            total += (values[e] - predicted) ** 2
        out[i] = total


@borrowing
def predictions(indptr: Any, indices: Any, model: Predictor, start: int, stop: int, out: Any) -> None:
    """Write r̂ of each rating of the rows ``start`` … ``stop`` into ``out`` (float64)."""
    rows, fixed, width = model.rows, model.fixed, model.width
    factors = width - 1 if model.biased else width
    for i in range(start, stop):
        bias = model.offset + (np.float64(rows[i * width + factors]) if model.biased else 0.0)
        for e in range(indptr[i], indptr[i + 1]):
            at = np.int64(indices[e]) * width
            predicted = bias + _product(rows, i * width, fixed, at, factors)
            out[e] = predicted + (np.float64(fixed[at + factors]) if model.biased else 0.0)
