r"""Draws from the posterior of a ridge regression on a sparse matrix, of many columns at once.

With G (n × F), rows Y (n × D) and a ridge c > 0, each column of t (F × D) is drawn from
:math:`N(H^{-1}G^\top y,\ H^{-1})`, :math:`H = G^\top G + cI`, by noise injection with standard normal E₁ and E₂:

.. math::
    (G^\top G + cI)\,t &= G^\top(Y + E_1) + c^{1/2}E_2 \qquad\text{where } F \le n \\
    (GG^\top + cI)\,s &= Y + E_1 - c^{-1/2}GE_2, \quad t = c^{-1/2}E_2 + G^\top s \qquad\text{where } n < F

which are the same t (Bhattacharya, Chakraborty & Mallick 2016, *Fast sampling with Gaussian scale mixture priors*),
so that the vectors are always of the shorter side. Solved by conjugate gradient, preconditioned by the diagonal; the
products of G are never formed. Dense rows are padded to whole registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gramian.engine import local
from gramian.kernels.csr import CSR

__all__ = ["Sparse", "draw", "noisy", "padded", "product"]

Array = npt.NDArray[Any]
PIECE_ROWS = 4096  # rows of the dense side in one task, and in one partial sum


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse matrix, and the same by column."""

    matrix: CSR
    turned: CSR

    @cached_property
    def squares(self) -> tuple[Array, Array]:
        """The sums of the squares of its rows, and of its columns."""
        rows, columns = (
            np.bincount(part.row_codes(), np.square(part.values, dtype=np.float64), minlength=part.n_rows)
            for part in (self.matrix, self.turned)
        )
        return rows, columns

    def cast(self, dtype: npt.DTypeLike) -> Sparse:
        """The same in another precision; itself where it has that."""
        if self.matrix.values.dtype == dtype:
            return self
        return Sparse(_cast(self.matrix, dtype), _cast(self.turned, dtype))


def padded(rows: Array) -> Array:
    """A copy with zero columns up to whole registers, on a cache line."""
    out = _room(len(rows), rows.shape[1], rows.dtype)
    out[:, : rows.shape[1]] = rows
    return out


def _room(count: int, width: int, dtype: npt.DTypeLike) -> Array:
    from gramian.kernels.lanes import VECTOR_BYTES
    from gramian.kernels.sweep import aligned_rows

    unit = VECTOR_BYTES // np.dtype(dtype).itemsize
    return aligned_rows(count, -(-width // unit) * unit, dtype)


def noisy(rows: Array, mean: Array, root: Array, seed: int, side: int, *, n_jobs: int | None = None) -> Array:
    """(X − 1mᵀ)L + E, padded: E are normals that depend on (seed, side, row, column) alone; without X, E."""
    from gramian.kernels import links

    size = root.shape[1]
    out = _room(len(rows), size, rows.dtype)
    mean, root = mean.astype(rows.dtype), root.astype(rows.dtype)

    def fill(first: int, last: int) -> None:
        room = _room(1, (size + 4) * out.shape[1], rows.dtype)[0]
        links.noisy_rows(out, rows, mean, root, room, np.uint64(seed), side, first, last)

    _over(fill, len(rows), rows.size * size, n_jobs)
    return out


def _over(work: Any, count: int, cost: int, n_jobs: int | None) -> None:
    tasks: list[local.Task] = [partial(work, *piece) for piece in _pieces(count)]
    with local.runner(local.thread_count(n_jobs), len(tasks), cost) as run:
        run(tasks)


def _pieces(count: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, count, PIECE_ROWS), count])) if count else []


def product(rows: CSR, other: Array, *, n_jobs: int | None = None) -> Array:
    """The sparse matrix times the padded ``other``, padded."""
    out = _room(rows.n_rows, other.shape[1], other.dtype)
    tasks, work = _product_tasks(_cast(rows, other.dtype), other, out)
    with local.runner(local.thread_count(n_jobs), len(tasks), work) as run:
        run(tasks)
    return out


def _cast(rows: CSR, dtype: npt.DTypeLike) -> CSR:
    return rows if rows.values.dtype == dtype else rows._replace(values=rows.values.astype(dtype))


def _product_tasks(rows: CSR, other: Array, out: Array) -> tuple[list[local.Task], int]:
    from gramian.kernels import links
    from gramian.kernels.sweep import fixed

    parts = [fixed(array) for array in rows]
    blocks = local.blocks_of(rows, other.shape[1])
    flat, into, width = fixed(other.reshape(-1)), out.reshape(-1), other.shape[1]
    return [partial(links.sparse_times, *parts, flat, width, into, *block) for block in blocks], len(
        rows.indices
    ) * width


def draw(
    G: Sparse, ridge: float, Y: Array, E: Array, *, tolerance: float, steps: int, n_jobs: int | None = None
) -> Array | None:
    """T, (F, padded D); None where the residual of a column is not small after so many steps.

    Args:
        G: The matrix, n × F.
        ridge: c.
        Y: Y + E₁, (n, padded D).
        E: E₂, (F, padded D).
        tolerance: Of the residual, relative to the right side, both in the norm of the preconditioner.
        steps: Of conjugate gradient at most.
        n_jobs: Threads; the result does not depend on them.
    """
    by_rows, by_columns = G.squares
    G = G.cast(Y.dtype)
    root = Y.dtype.type(ridge**0.5)
    if len(E) <= len(Y):
        b = product(G.turned, Y, n_jobs=n_jobs)
        b += root * E
        return _conjugate_gradient(G.turned, G.matrix, by_columns + ridge, ridge, b, tolerance, steps, n_jobs)
    E = E / root
    b = Y - product(G.matrix, E, n_jobs=n_jobs)
    s = _conjugate_gradient(G.matrix, G.turned, by_rows + ridge, ridge, b, tolerance, steps, n_jobs)
    if s is None:
        return None
    t: Array = E + product(G.turned, s, n_jobs=n_jobs)
    return t


def _conjugate_gradient(
    A: CSR, turned: CSR, diagonal: Array, ridge: float, b: Array, tolerance: float, steps: int, n_jobs: int | None
) -> Array | None:
    """(AAᵀ + cI)⁻¹ b, for each column at once; ``diagonal`` is that of the matrix in brackets."""
    from gramian.kernels import links

    dtype, pieces, width = b.dtype, _pieces(len(b)), b.shape[1]
    inverse = (1 / diagonal).astype(dtype)
    x, r, p, q, there = np.zeros_like(b), b.copy(), _like(b), _like(b), _room(turned.n_rows, width, dtype)
    flat_x, flat_r, flat_p, flat_q = (array.reshape(-1) for array in (x, r, p, q))
    forth, work = _product_tasks(turned, p, there)
    back, _ = _product_tasks(A, there, q)
    sums = np.zeros((len(pieces), width), dtype)
    total = partial(np.add.reduce, sums, axis=0, dtype=np.float64)
    shift = np.array([ridge, 0], dtype)

    def ratio(a: Array, b: Array) -> Array:  # and a zero after it
        return np.append(np.where(b > 0, a / np.where(b > 0, b, 1), 0), 0).astype(dtype)

    with local.runner(local.thread_count(n_jobs), len(forth) + len(pieces), steps * work) as run:

        def over(kernel: Any, *arguments: Any, summing: bool) -> None:
            run([
                partial(kernel, *arguments, width, *piece, *([sums[k]] if summing else []))
                for k, piece in enumerate(pieces)
            ])  # fmt: skip

        none = np.zeros(width + 1, dtype)
        over(links.advance, flat_x, flat_r, flat_r, flat_r, none, inverse, summing=True)
        length, further = total(), none
        small = tolerance**2 * length
        for _ in range(steps):
            if (length <= small).all():
                return x
            over(links.turn, flat_p, flat_r, further, inverse, summing=False)
            run(forth)
            run(back)
            over(links.bend, flat_q, flat_p, shift, summing=True)
            along = ratio(length, total())
            over(links.advance, flat_x, flat_r, flat_p, flat_q, along, inverse, summing=True)
            longer = total()
            further, length = ratio(longer, length), longer
    return None


def _like(b: Array) -> Array:
    return _room(len(b), b.shape[1], b.dtype)
