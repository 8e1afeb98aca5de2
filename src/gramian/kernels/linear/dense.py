"""Small dense algebra in a fixed order of additions.

A threaded BLAS rounds differently with the number of its threads, and LAPACK calls it; these do not. Sizes are a
side's rows by some tens or hundreds of columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gramian.kernels.vector.compiled import borrowing, compiled
from gramian.kernels.vector.lanes import lanes, vfma, vload, vsplat, vstore, vstore_first

__all__ = ["combine", "dot", "eigen", "gram", "rows_times", "times"]

COLUMNS = 256  # of a basis taken at a time: 2 KiB of each row


@njit(nogil=True, fastmath={"contract", "reassoc"})
def dot(a: Any, b: Any) -> float:
    """Σ a b, summed in vector lanes."""
    total = 0.0
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@compiled
def gram(rows: Any) -> Any:
    """XᵀX of (rows, K), in float64."""
    width = rows.shape[1]
    out, row = np.zeros((width, width)), np.zeros(width)
    for i in range(len(rows)):
        for k in range(width):
            row[k] = rows[i, k]
        for k in range(width):
            left = row[k]
            for m in range(width):
                out[k, m] += left * row[m]
    return out


@compiled
def times(rows: Any, square: Any) -> Any:
    """X T of (rows, K) and (K, K), summed in float64, of the dtype of the rows."""
    width = square.shape[1]
    out, total = np.empty((len(rows), width), rows.dtype), np.zeros(width)
    for i in range(len(rows)):
        total[:] = 0.0
        for k in range(rows.shape[1]):
            left = np.float64(rows[i, k])
            for m in range(width):
                total[m] += left * square[k, m]
        for m in range(width):
            out[i, m] = total[m]
    return out


@compiled
def combine(weights: Any, basis: Any) -> Any:
    """Weights (k, m) times a wide basis (m, columns), float64."""
    columns = basis.shape[1]
    out = np.zeros((len(weights), columns))
    for first in range(0, columns, COLUMNS):
        last = min(columns, first + COLUMNS)
        for k in range(len(weights)):
            for m in range(len(basis)):
                weight = weights[k, m]
                for c in range(first, last):
                    out[k, c] += weight * basis[m, c]
    return out


@compiled
def _jacobi(G: Any, R: Any) -> None:
    """Turn pairs of rows of G, and of R with them, until the rows of G are orthogonal (one-sided Jacobi)."""
    size, tiny = len(G), 0.0
    for p in range(size):
        tiny = max(tiny, dot(G[p], G[p]))
    tiny *= (np.finfo(np.float64).eps * size) ** 2
    for _ in range(60):
        rotated = False
        for p in range(size - 1):
            for q in range(p + 1, size):
                a, b, c = dot(G[p], G[p]), dot(G[q], G[q]), dot(G[p], G[q])
                if c * c <= 1e-30 * a * b or max(a, b) <= tiny or abs(c) <= tiny:
                    continue
                rotated = True
                slope = (b - a) / (2 * c)
                t = (1.0 if slope >= 0 else -1.0) / (abs(slope) + np.sqrt(1 + slope * slope))
                cosine = 1 / np.sqrt(1 + t * t)
                sine = cosine * t
                for k in range(size):
                    x, y = G[p, k], G[q, k]
                    G[p, k], G[q, k] = cosine * x - sine * y, sine * x + cosine * y
                for k in range(size):
                    x, y = R[p, k], R[q, k]
                    R[p, k], R[q, k] = cosine * x - sine * y, sine * x + cosine * y
        if not rotated:
            break


def eigen(A: Any) -> tuple[Any, Any]:
    """Eigenvalues (largest first) and eigenvectors (as rows) of a symmetric A ⪰ 0, float64."""
    G, R = np.array(A, np.float64), np.eye(len(A))
    _jacobi(G, R)
    values = np.einsum("ij,ij->i", G, R)
    order = np.argsort(-values, kind="stable")
    return np.maximum(values[order], 0.0), R[order]


@borrowing
def rows_times(rows: Any, matrix: Any, size: int, width: int, start: int, stop: int, out: Any) -> None:
    """Rows ``start`` … ``stop`` of b + X M, (n, size) and (size, width), into ``out``; in the dtype of all three.

    All are flat; ``matrix`` has b above M, its rows padded to whole registers.
    """
    unit = lanes(matrix)
    stride = (width + unit - 1) // unit * unit
    for i in range(start, stop):
        at, place = i * size, i * width
        c = 0
        while c + 3 * unit <= stride:  # three sums at once, so that none waits for another
            a, b, d = vload(matrix, c), vload(matrix, c + unit), vload(matrix, c + 2 * unit)
            for k in range(size):
                x, row = vsplat(rows, at + k), (k + 1) * stride + c
                a = vfma(x, vload(matrix, row), a)
                b = vfma(x, vload(matrix, row + unit), b)
                d = vfma(x, vload(matrix, row + 2 * unit), d)
            vstore(out, place + c, a)
            vstore(out, place + c + unit, b)
            vstore_first(out, place + c + 2 * unit, width - c - 2 * unit, d)
            c += 3 * unit
        while c < stride:
            a = vload(matrix, c)
            for k in range(size):
                a = vfma(vsplat(rows, at + k), vload(matrix, (k + 1) * stride + c), a)
            vstore_first(out, place + c, width - c, a)
            c += unit
