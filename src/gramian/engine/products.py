"""Sums and products over many rows on the threads of :mod:`gramian.engine.pool`: none of them calls BLAS.

Every sum is of pieces that do not depend on the threads, in their order, so the bits are the same for any number of
them.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gramian.engine.pool import Task, over_blocks, runner, thread_count
from gramian.kernels.arrays import Array, readonly
from gramian.kernels.csr import CSR, readonly_csr

__all__ = ["converted", "dense_product", "moments", "sparse_product"]

CONVERSION_WORK = 40  # per number
REGISTERS_FULL = 16  # numbers: a multiple of the lanes of any processor
MOMENT_ROWS = 4096  # rows whose moments are summed by one thread
DENSE_ROWS = 8192  # of a dense product in one task


def moments(rows: Array, means: Array | None = None, *, n_jobs: int | None = None) -> tuple[Array, Array]:
    """Σ x, (D,), and the lower triangle of Σ x xᵀ, (D, D), over rows less their means (n, D), in float64."""
    from gramian.kernels.sampling import wishart

    size = rows.shape[1]
    pieces = range(0, len(rows), MOMENT_ROWS)
    totals, crosses = np.zeros((len(pieces), size)), np.zeros((len(pieces), size, size))

    def add(place: int, first: int) -> None:
        part = rows[first : first + MOMENT_ROWS]
        part = part if means is None else part - means[first : first + MOMENT_ROWS]
        wishart.moments(part, totals[place], crosses[place])

    with runner(thread_count(n_jobs), len(pieces), rows.size * size) as run:
        run([partial(add, *piece) for piece in enumerate(pieces)])
    return np.add.reduce(totals, axis=0, initial=0.0), np.add.reduce(crosses, axis=0, initial=0.0)


def converted(rows: Array, dtype: npt.DTypeLike, *, n_jobs: int | None = None) -> Array:
    """A copy of the rows in ``dtype``, rounded as NumPy does."""
    from gramian.kernels.vector import halves

    out, threads = np.empty(rows.shape, dtype), thread_count(n_jobs)
    flat, source = out.reshape(-1), rows.reshape(-1)
    tasks: list[Task] = []
    done = 0
    if halves.AVAILABLE and rows.dtype == np.float32 and out.dtype == np.float16:
        done = rows.size // REGISTERS_FULL * REGISTERS_FULL
        bits, source = flat.view(np.uint16), readonly(source)
        cuts = np.arange(0, threads + 1) * (done // REGISTERS_FULL) // threads * REGISTERS_FULL
        tasks = [partial(halves.narrow, bits, source, *piece) for piece in pairwise(cuts.tolist())]
    cuts = np.linspace(done, rows.size, threads + 1).astype(int)
    tasks += [partial(np.copyto, flat[a:b], source[a:b], "same_kind") for a, b in pairwise(cuts.tolist()) if b > a]
    with runner(threads, len(tasks), CONVERSION_WORK * rows.size) as run:
        run(tasks)
    return out


def sparse_product(rows: CSR, other: Array, *, n_jobs: int | None = None) -> Array:
    """The sparse matrix times ``other``, (columns, K) or (columns,), in its dtype; summed in float64."""
    from gramian.kernels.linear import lanczos

    out = np.empty((rows.n_rows, *other.shape[1:]), other.dtype)
    matrix, other = readonly_csr(rows), readonly(other)
    multiply = lanczos.sparse_times if other.ndim == 2 else lanczos.sparse_times_vector

    def block(first: int, last: int) -> None:
        multiply(matrix, other, first, last, out)

    over_blocks(block, rows, max(1, int(np.prod(other.shape[1:]))), thread_count(n_jobs))
    return out


def dense_product(rows: Array, matrix: Array, base: Array | None = None, *, n_jobs: int | None = None) -> Array:
    """``base`` and many rows times a small matrix, of the dtype of the rows; with no BLAS to round by threads."""
    from gramian.kernels.linear import dense
    from gramian.kernels.vector import lanes

    size, width = matrix.shape
    out = np.empty((len(rows), width), rows.dtype)
    unit = lanes.VECTOR_BYTES // out.itemsize
    padded = np.zeros((1 + size, -(-width // unit) * unit), out.dtype)
    padded[0, :width] = 0 if base is None else base
    padded[1:, :width] = matrix
    fixed = readonly(rows).reshape(-1), readonly(padded).reshape(-1), size, width
    edges = [*range(0, len(rows), DENSE_ROWS), len(rows)]
    tasks: list[Task] = [
        partial(dense.rows_times, *fixed, first, last, out.reshape(-1))
        for first, last in pairwise(edges)
        if last > first
    ]
    with runner(thread_count(n_jobs), len(tasks), rows.size * width) as run:
        run(tasks)
    return out
