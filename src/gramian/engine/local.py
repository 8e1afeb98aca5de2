"""The engine of one machine: blocks of rows on a pool of threads.

Every row is solved by itself, and a heavy row is summed in pieces that depend on the row alone, so the answer has
the same bits for any number of threads and any cut into blocks. The threads run compiled code that calls no BLAS;
what does (the minimum-norm rescue) comes when they are idle, so BLAS's own threads never multiply with these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gramian.engine import pool
from gramian.engine.pool import RATING_WORK, ROW_WORK, Task, over_blocks, runner, thread_count
from gramian.engine.remote import RemoteRows
from gramian.kernels import reference
from gramian.kernels.arrays import Array, aligned_rows, readonly
from gramian.kernels.csr import CSR, PIECE_RATINGS, pieces_of, readonly_csr

__all__ = [
    "Penalty",
    "block_update",
    "cg_update",
    "converted",
    "dense_product",
    "half_sweep",
    "moments",
    "separate_update",
    "sparse_product",
    "squared_errors",
    "squared_errors_by_row",
    "update",
]

CONVERSION_WORK = 40  # per number
REGISTERS_FULL = 16  # numbers: a multiple of the lanes of any processor
MOMENT_ROWS = 4096  # rows whose moments are summed by one thread
DENSE_ROWS = 8192  # of a dense product in one task
PARTS_BYTES = 64 * 2**20  # sums of pieces of heavy rows that are held at a time


Step = TypeVar("Step", bound=Callable[..., Any])


class Penalty(NamedTuple):
    """The prior of a row: its precision Λ (D × D), and whether it grows with the row's number of ratings."""

    precision: Array
    by_count: bool = False


def _anywhere(step: Step) -> Step:
    """Let a step run where its rows are: those of another engine run it on each of their blocks."""

    @wraps(step)
    def run(rows: Any, *arguments: Any, **settings: Any) -> Any:
        if isinstance(rows, RemoteRows):
            return rows.run(step.__name__, *arguments, **settings)
        return step(rows, *arguments, **settings)

    return run  # type: ignore[return-value]


@_anywhere
def half_sweep(
    rows: CSR,
    other: Array,
    penalty: Penalty,
    *,
    biased: bool,
    offset: float,
    n_jobs: int | None = None,
    **more: Any,
) -> tuple[Array, int]:
    """Solve every row of one side, given the other side's rows.

    Args:
        rows: The ratings of the side to be solved.
        other: The fixed side, (rows, D), float32 or float64.
        penalty: The rows' prior.
        biased: Whether the last of the D columns is a bias.
        offset: μ, subtracted from every rating.
        n_jobs: Threads; see :func:`thread_count`.
        **more: ``linear``, ``weights``, ``shared``, ``draw``, ``spread`` and ``first_row`` of
            :func:`gramian.kernels.sweep.half_sweep.prepared`.

    Returns:
        The solved rows, (rows, D), of the dtype of ``other``; and how many of them had a singular system and
        got the minimum-norm solution. A row without ratings and prior is zero.
    """
    from gramian.kernels.sweep.half_sweep import part_length, piece_sums, prepared

    out = aligned_rows(rows.n_rows, other.shape[1], other.dtype)
    if out.size == 0:
        return out, 0
    status = np.zeros(rows.n_rows, np.uint8)
    row_settings: dict[str, Any] = {"biased": biased, "offset": offset, "by_count": penalty.by_count}
    solve = prepared(out, status, rows, other, penalty.precision, **row_settings, **more)

    def sum_pieces(parts: Array, row: int, first: int) -> None:
        piece_sums(parts, rows, other, row, first, biased=biased, offset=offset, weights=more.get("weights"))

    _solve_all(solve, sum_pieces, rows, other, part_length(other, biased), thread_count(n_jobs))
    singular = np.flatnonzero((status != 0) & (rows.counts > 0)).tolist()
    for i in singular:
        indices, values = rows.row(i)
        system = {**row_settings, **_of_row(rows, i, more), "precision": penalty.precision}
        out[i] = reference.minimum_norm_row(indices, values, other, **system)
    return out, len(singular)


class _Part(NamedTuple):
    """Some pieces of a heavy row, and whether they are its last."""

    row: int
    first: int
    pieces: int
    last: bool


def _solve_all(
    solve: Callable[..., None], sum_pieces: Callable[..., None], rows: CSR, other: Array, length: int, threads: int
) -> None:
    """Solve blocks of light rows; and heavy rows in waves: the sums of their pieces, then their solutions."""
    from gramian.kernels.sweep.dual import SMALLEST

    size = other.shape[1]
    per_rating, per_system = size**2 + RATING_WORK, size**3 // 3
    few = 2 * rows.counts <= size if size >= SMALLEST else np.False_  # mostly solved by their duals
    blocks, heavy = pool.cut(rows, per_rating, ROW_WORK + np.where(few, 0, per_system))
    tasks: list[Task] = [partial(solve, *block) for block in blocks]
    room = max(2, PARTS_BYTES // (length * other.itemsize))
    sums = np.empty((min(room, sum(map(pieces_of, rows.counts[heavy].tolist()))), length), other.dtype)
    together = max(1, int(pool.SMALL_BLOCK) // (per_rating * PIECE_RATINGS))  # pieces in a task
    unfinished: dict[int, Array] = {}

    def finish(part: _Part, sums: Array) -> None:
        total = unfinished.pop(part.row, None)
        total = np.zeros(length, other.dtype) if total is None else total
        for piece in sums:
            total += piece
        if part.last:
            solve(part.row, part.row + 1, total)
        else:
            unfinished[part.row] = total

    with runner(threads, len(blocks) + len(sums), per_rating * int(rows.indptr[-1])) as run:
        for wave in _waves(rows, heavy, len(sums)):
            finishing: list[Task] = []
            place = 0
            for part in wave:
                own = sums[place : place + part.pieces]
                for at in range(0, part.pieces, together):
                    tasks.append(partial(sum_pieces, own[at : at + together], part.row, part.first + at))
                finishing.append(partial(finish, part, own))
                place += part.pieces
            run(tasks)
            run(finishing)
            tasks = []
        run(tasks)


def _waves(rows: CSR, heavy: Array, room: int) -> Iterator[list[_Part]]:
    """The pieces of heavy rows in their order, at most ``room`` at a time."""
    wave: list[_Part] = []
    free = room
    for row in heavy.tolist():
        first, pieces = 0, pieces_of(int(rows.counts[row]))
        while first < pieces:
            count = min(free, pieces - first)
            first, free = first + count, free - count
            wave.append(_Part(row, first - count, count, first == pieces))
            if free == 0:
                yield wave
                wave, free = [], room
    if wave:
        yield wave


def _of_row(rows: CSR, i: int, more: dict[str, Any]) -> dict[str, Any]:
    """Those of the further settings that a row's system depends on, for this row."""
    own = {name: more[name] for name in ("linear", "weights", "shared") if more.get(name) is not None}
    if "weights" in own:
        own["weights"] = own["weights"][rows.indptr[i] : rows.indptr[i + 1]]
    if "linear" in own and own["linear"].ndim == 2:
        own["linear"] = own["linear"][i]
    return own


def update(
    solver: str, rows: CSR, here: Array, other: Array, penalty: Penalty, *, biased: bool, offset: float,
    n_jobs: int | None = None,
) -> tuple[Array, int]:  # fmt: skip
    """New rows of one side, from ``here`` where the solver is not ``"exact"``: what :func:`half_sweep` returns."""
    if solver == "cg":
        return cg_update(rows, here, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs), 0
    if solver == "block":
        return block_update(rows, here, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs)
    return half_sweep(rows, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs)


@_anywhere
def separate_update(
    rows: CSR, here: Array, other: Array, penalty: Penalty, *, offset: float, n_jobs: int | None = None,
    solver: str = "exact",
) -> tuple[Array, int]:  # fmt: skip
    """One separate update of every row: the factors given the old bias, then the bias given the new factors.

    Two half-sweeps: the first over the other side's factors with all offsets taken from the ratings, the second
    over the constant 1 alone. Returns what :func:`half_sweep` returns.
    """
    K = other.shape[1] - 1
    who = rows.row_codes()
    factors = np.ascontiguousarray(other[:, :K])
    rest = (rows.values - other.dtype.type(offset) - other[rows.indices, K]).astype(other.dtype)
    solved, singular = update(
        solver, rows._replace(values=rest - here[who, K]), np.ascontiguousarray(here[:, :K]), factors,
        Penalty(penalty.precision[:K, :K], penalty.by_count), biased=False, offset=0.0, n_jobs=n_jobs,
    )  # fmt: skip
    rest -= np.einsum("ek,ek->e", solved[who], factors[rows.indices])
    ones = np.zeros((len(other), 1), other.dtype)
    biases, _ = half_sweep(
        rows._replace(values=rest), ones, Penalty(penalty.precision[K:, K:], penalty.by_count),
        biased=True, offset=0.0, n_jobs=n_jobs,
    )  # fmt: skip
    return np.concatenate([solved, biases], axis=1), singular


@_anywhere
def cg_update(
    rows: CSR, here: Array, other: Array, penalty: Penalty, *, biased: bool, offset: float, n_jobs: int | None = None
) -> Array:
    """A few steps of conjugate gradient on every row, from ``here``, which is not changed; Λ must be diagonal."""
    from gramian.kernels.sweep import cg
    from gramian.kernels.sweep.arguments import observed_of

    out, observed = here.copy(), observed_of(rows, other, offset)
    prior = np.diag(penalty.precision).astype(other.dtype)

    def block(first: int, last: int) -> None:
        cg.cg_rows(out, observed, biased, prior, penalty.by_count, cg.STEPS, first, last)

    over_blocks(block, rows, 8 * other.shape[1], thread_count(n_jobs))
    return out


@_anywhere
def block_update(
    rows: CSR, here: Array, other: Array, penalty: Penalty, *, biased: bool, offset: float, n_jobs: int | None = None
) -> tuple[Array, int]:
    """Every row's columns solved block by block, each given the rest; the bias goes with the last block.

    A block is a half-sweep over its columns alone, whose ratings are the residuals without it. Λ must be
    diagonal. Memory: one number per rating. Returns what :func:`half_sweep` returns.
    """
    from gramian.kernels.sweep import subspace

    size, threads, singular = other.shape[1], thread_count(n_jobs), 0
    factors = size - 1 if biased else size
    rest = rows.values - other.dtype.type(offset)
    if biased:
        rest = rest - other[rows.indices, factors]

    def add(sign: float, mine: Array, theirs: Array, with_bias: bool) -> None:
        def block(first: int, last: int) -> None:
            subspace.add_products(rest, sign, rows.indptr, rows.indices, mine, theirs, with_bias, first, last)

        over_blocks(block, rows, theirs.shape[1], threads)

    add(-1.0, here, other, biased)
    out = np.zeros_like(here)
    for first in range(0, factors, subspace.BLOCK_COLUMNS):
        last = min(factors, first + subspace.BLOCK_COLUMNS)
        with_bias = biased and last == factors
        part = slice(first, size if with_bias else last)
        mine, theirs = here[:, part].copy(), other[:, part].copy()
        if with_bias:
            theirs[:, -1] = 0  # the other side's bias is out of the ratings already
        add(1.0, mine, theirs, with_bias)
        out[:, part], count = half_sweep(
            rows._replace(values=rest), theirs, Penalty(penalty.precision[part, part], penalty.by_count),
            biased=with_bias, offset=0.0, n_jobs=n_jobs,
        )  # fmt: skip
        singular = max(singular, count)
        if last < factors:
            add(-1.0, np.ascontiguousarray(out[:, part]), theirs, with_bias)
    return out, singular


def squared_errors(
    rows: CSR, here: Array, other: Array, *, biased: bool, offset: float, n_jobs: int | None = None
) -> float:
    """The sum of squared residuals over all ratings, accumulated in float64 in a fixed order."""
    return float(squared_errors_by_row(rows, here, other, biased=biased, offset=offset, n_jobs=n_jobs).sum())


@_anywhere
def squared_errors_by_row(
    rows: CSR, here: Array, other: Array, *, biased: bool, offset: float, n_jobs: int | None = None
) -> Array:
    """The same of each row, (rows,)."""
    from gramian.kernels import residuals

    out, model = np.empty(rows.n_rows), residuals.predictor(here, other, biased, offset)
    ratings = readonly_csr(rows)

    def block(first: int, last: int) -> None:
        residuals.squared_errors(ratings, model, first, last, out)

    over_blocks(block, rows, RATING_WORK + model.width, thread_count(n_jobs))
    return out


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
