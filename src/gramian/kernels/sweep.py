r"""The half-sweep: with one side's rows fixed, every row of the other side is a small ridge regression.

For row *i* with ratings :math:`r_{ij}`, and :math:`v_j` the other side's row (with a constant 1 appended
where the row's bias is part of the solve):

.. math::
    A_i = s_i\Lambda + \sum_j v_j v_j^\top, \qquad
    y_i = \sum_j (r_{ij} - \mu - c_j)\, v_j, \qquad x_i = A_i^{-1} y_i

with :math:`c_j` the other side's bias, and :math:`s_i` = 1, or the number of ratings of row *i* under count
weighting. A side is stored as one array of shape (rows, D): K factors and, where there are biases, the bias
as the last column, D = K + 1.

The plain twin of everything here is in :mod:`gramian.kernels.reference`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["half_sweep", "squared_errors"]

# Work is done on blocks of this many gathered rows, which stay in the first-level cache.
BLOCK = 64


@njit(cache=True, nogil=True)
def _gather(
    indices: Any,
    values: Any,
    other: Any,
    biased: bool,
    offset: float,
    low: int,
    high: int,
    block: Any,
    targets: Any,
) -> None:
    """Copy the other side's rows of ratings low … high into ``block``, zero-padded to a multiple of 4."""
    width = other.shape[1]
    for e in range(low, high):
        j = indices[e]
        t = values[e] - offset
        for a in range(width):
            block[e - low, a] = other[j, a]
        if biased:
            t -= other[j, width - 1]
            block[e - low, width - 1] = 1.0
        targets[e - low] = t
    for e in range(high - low, (high - low + 3) // 4 * 4):
        block[e, :] = 0.0
        targets[e] = 0.0


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _accumulate(block: Any, targets: Any, n: int, gram: Any, right: Any) -> None:
    """Add the block's Gramian to the lower triangle of ``gram`` and its right-hand side to ``right``."""
    width = gram.shape[0]
    for e in range(0, n, 4):
        for a in range(width):
            v0, v1, v2, v3 = block[e, a], block[e + 1, a], block[e + 2, a], block[e + 3, a]
            for b in range(a + 1):
                gram[a, b] += v0 * block[e, b] + v1 * block[e + 1, b] + v2 * block[e + 2, b] + v3 * block[e + 3, b]
            right[a] += v0 * targets[e] + v1 * targets[e + 1] + v2 * targets[e + 2] + v3 * targets[e + 3]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _solve(gram: Any, right: Any, tolerance: float) -> bool:
    """Solve gram · x = right in place by Cholesky; False where gram is not positive definite."""
    width = gram.shape[0]
    for a in range(width):
        scale = gram[a, a]
        for b in range(a + 1):
            total = gram[a, b]
            for k in range(b):
                total -= gram[a, k] * gram[b, k]
            if a == b:
                if not total > tolerance * scale:
                    return False
                gram[a, a] = np.sqrt(total)
            else:
                gram[a, b] = total / gram[b, b]
        for k in range(a):
            right[a] -= gram[a, k] * right[k]
        right[a] /= gram[a, a]
    for a in range(width - 1, -1, -1):
        right[a] /= gram[a, a]
        for k in range(a):
            right[k] -= gram[a, k] * right[a]
    return True


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _solve_separately(gram: Any, right: Any, bias: Any, tolerance: float) -> bool:
    """The factors given the old bias, then the bias given the new factors: two block steps on one system."""
    last = gram.shape[0] - 1
    for a in range(last):
        right[a] -= gram[last, a] * bias
    if not _solve(gram[:last, :last], right[:last], tolerance):
        return False
    for a in range(last):
        right[last] -= gram[last, a] * right[a]
    right[last] /= gram[last, last]
    return True


@njit(cache=True, nogil=True)
def half_sweep(
    indptr: Any,
    indices: Any,
    values: Any,
    other: Any,
    biased: bool,
    offset: float,
    precision: Any,
    by_count: bool,
    separate: bool,
    start: int,
    stop: int,
    out: Any,
    failed: Any,
) -> None:
    """Solve rows ``start`` … ``stop`` of one side into ``out``; threads may call it on different rows at once.

    Args:
        indptr, indices, values: The ratings of this side's rows (int64, int32, float32).
        other: The fixed side, (rows, D), float32 or float64.
        biased: Whether the last column is a bias.
        offset: μ, subtracted from every rating.
        precision: Λ, (D, D), of the dtype of ``other``.
        by_count: Whether Λ is multiplied by the row's number of ratings.
        separate: One separate update of factors and bias, instead of the joint solution.
        start, stop: The rows to solve.
        out: (rows, D); a row without ratings becomes 0. With ``separate`` it holds the old rows on entry.
        failed: uint8 per row; 1 where A is not positive definite and ``out`` was left at 0.
    """
    width = other.shape[1]
    gram = np.empty((width, width), other.dtype)
    right = np.empty(width, other.dtype)
    block = np.empty((BLOCK, width), other.dtype)
    targets = np.empty(BLOCK, other.dtype)
    tolerance = width * 4 * (1.2e-7 if other.itemsize == 4 else 2.3e-16)
    for i in range(start, stop):
        low, high = indptr[i], indptr[i + 1]
        failed[i] = 0
        bias = out[i, width - 1] if separate else other.dtype.type(0)
        out[i, :] = 0.0
        if high == low:
            continue
        scale = other.dtype.type(high - low if by_count else 1)
        gram[:, :] = precision * scale
        right[:] = 0.0
        for piece in range(low, high, BLOCK):
            end = min(piece + BLOCK, high)
            _gather(indices, values, other, biased, offset, piece, end, block, targets)
            _accumulate(block, targets, end - piece, gram, right)
        solved = _solve_separately(gram, right, bias, tolerance) if separate else _solve(gram, right, tolerance)
        if solved:
            out[i, :] = right
        else:
            failed[i] = 1


@njit(cache=True, nogil=True)
def squared_errors(
    indptr: Any,
    indices: Any,
    values: Any,
    rows: Any,
    other: Any,
    biased: bool,
    offset: float,
    start: int,
    stop: int,
    out: Any,
) -> None:
    """Write the sum of squared residuals of each row ``start`` … ``stop`` into ``out`` (float64)."""
    width = other.shape[1]
    factors = width - 1 if biased else width
    for i in range(start, stop):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            predicted = 0.0
            for a in range(factors):
                predicted += rows[i, a] * other[j, a]
            if biased:
                predicted += rows[i, factors] + other[j, factors]
            residual = values[e] - offset - predicted
            total += residual * residual
        out[i] = total
