r"""The leading eigenvectors of a symmetric matrix :math:`A \succeq 0` that is only ever multiplied with a vector.

The Lanczos method with full orthogonalization: from unit vectors :math:`q_1, q_2, \dots` with

.. math:: \beta_j q_{j+1} = A q_j - \sum_{i \le j} (q_i^\top A q_j)\, q_i

the small matrix :math:`T = Q A Q^\top` has eigenpairs :math:`(\theta, s)` whose :math:`Q^\top s` are close to
eigenvectors of A, the outer ones first, with the residual :math:`\|A v - \theta v\| = \beta |s_{last}|`. A *cycle*
fills a basis of fixed size, and keeps the leading pairs to go on from (thick restart: Wu & Simon 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.kernels.csr import CSR
from gramian.kernels.linear.dense import combine, dot, eigen
from gramian.kernels.vector.compiled import compiled

__all__ = ["EigenPairs", "begin", "cycle", "sparse_times", "sparse_times_vector"]

Floats = npt.NDArray[np.float64]


@compiled
def sparse_times(matrix: CSR, dense: Any, start: int, stop: int, out: Any) -> None:
    """Rows ``start`` … ``stop`` of a sparse matrix times a dense one: out_i = Σ_j s_ij v_j, summed in float64."""
    indptr, indices, values = matrix.indptr, matrix.indices, matrix.values
    width = dense.shape[1]
    total = np.zeros(width)
    for i in range(start, stop):
        total[:] = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            value, j = np.float64(values[e]), indices[e]
            for k in range(width):
                total[k] += value * dense[j, k]
        for k in range(width):
            out[i, k] = total[k]


@compiled
def sparse_times_vector(matrix: CSR, vector: Any, start: int, stop: int, out: Any) -> None:
    """The same for one vector."""
    indptr, indices, values = matrix.indptr, matrix.indices, matrix.values
    for i in range(start, stop):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            total += values[e] * vector[indices[e]]
        out[i] = total


@compiled
def _orthogonalize(basis: Any, count: int, vector: Any, products: Any) -> float:
    """Take the first ``count`` basis vectors out of a vector, twice; add what was taken to ``products``."""
    for _ in range(2):
        for k in range(count):
            part = dot(basis[k], vector)
            products[k] += part
            for c in range(len(vector)):
                vector[c] -= part * basis[k, c]
    return np.sqrt(dot(vector, vector))


class EigenPairs(NamedTuple):
    """Approximate eigenpairs, largest first, and the vector that the next cycle goes on with.

    ``values`` (k,), ``vectors`` (k, n) orthonormal, ``residuals`` (k,), ``following`` (n,).
    """

    values: Floats
    vectors: Floats
    residuals: Floats
    following: Floats


def begin(length: int) -> EigenPairs:
    """Nothing yet, and a fixed direction to begin with: what is found in the end does not depend on it."""
    start = _direction(length, 0)
    return EigenPairs(np.empty(0), np.empty((0, length)), np.empty(0), start / np.sqrt(dot(start, start)))


def _direction(length: int, number: int) -> Floats:
    return np.random.Generator(np.random.Philox(number)).standard_normal(length)


def cycle(apply: Callable[[Floats], Floats], pairs: EigenPairs, size: int, keep: int) -> EigenPairs:
    """One cycle from ``pairs``: a basis of ``size`` vectors, of whose pairs the ``keep`` leading ones are kept.

    Args:
        apply: Gives A v as a new array.
        pairs: What the cycle before kept, or :func:`begin`.
        size: Vectors in the basis, at most n; a basis of n vectors gives all pairs exactly.
        keep: Pairs to be kept, less than ``size`` (or n).
    """
    kept, length = pairs.vectors.shape
    basis, T = np.empty((size, length)), np.zeros((size, size))
    basis[:kept] = pairs.vectors
    np.fill_diagonal(T[:kept, :kept], pairs.values)
    following, beta = pairs.following, 0.0
    for j in range(kept, size):
        basis[j] = following
        vector, products = apply(following), np.zeros(j + 1)
        beta = _orthogonalize(basis, j + 1, vector, products)
        T[j, : j + 1] = T[: j + 1, j] = products
        if beta <= 1e-14 * T.diagonal().max():  # A maps the basis into itself: go on anywhere outside it
            beta = 0.0
            vector = _direction(length, j + 1)
            _orthogonalize(basis, j + 1, vector, products)
        following = vector / max(np.sqrt(dot(vector, vector)), np.finfo(float).tiny)
    values, small = eigen(T)
    vectors = combine(small[:keep], basis)
    return EigenPairs(values[:keep], vectors, beta * np.abs(small[:keep, -1]), following)
