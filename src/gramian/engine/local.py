"""The engine of one machine: blocks of rows on a pool of threads.

Every row is solved by itself, and a heavy row is summed in pieces that depend on the row alone, so the answer has
the same bits for any number of threads and any cut into blocks. The threads run compiled code that calls no BLAS;
what does (the minimum-norm rescue) comes when they are idle, so BLAS's own threads never multiply with these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import numpy as np

from gramian.engine import pool
from gramian.engine.pool import RATING_WORK, ROW_WORK, Task, over_blocks, runner, thread_count
from gramian.engine.rows import NO_INTERCEPTS, Intercepts, Penalty, Rows, Step, Weights, run
from gramian.kernels import reference
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, PIECE_RATINGS, pieces_of, readonly_csr

__all__ = [
    "BlockUpdate",
    "ConjugateGradient",
    "HalfSweep",
    "SeparateUpdate",
    "half_sweep",
    "squared_errors",
    "squared_errors_by_row",
    "update",
]

PARTS_BYTES = 64 * 2**20  # sums of pieces of heavy rows that are held at a time


# ---- the half-sweep --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class HalfSweep(Step):
    """Solve every row of one side, or draw it: see :func:`gramian.kernels.sweep.half_sweep.prepared`.

    Attributes:
        penalty: The rows' prior.
        linear: Λm, (D,), or (rows, D) with a prior mean for each row; zero if not given.
        shared: A Gramian added to every A, (D, D).
        draw: ``(seed, sweep, side)``: add a draw from N(0, σ²A⁻¹), whose normals depend on these, the row and the
            column alone.
        spread: σ.
        first_row: The number of the first of these rows among all: the normals depend on it.
    """

    penalty: Penalty
    linear: Array | None = None
    shared: Array | None = None
    draw: tuple[int, int, int] | None = None
    spread: float = 1.0
    first_row: int = 0

    def run(self, rows: CSR, n_jobs: int | None = None) -> tuple[Array, int]:
        """The solved rows, and how many were singular: these get the minimum-norm solution."""
        from gramian.kernels.sweep.half_sweep import part_length, piece_sums, prepared

        out, biased = self.room(rows.n_rows), self.intercepts.biased
        if out.size == 0:
            return out, 0
        status, weights = np.zeros(rows.n_rows, np.uint8), _resolved(self.weights, rows)
        solve = prepared(
            out, status, rows, self.fixed, self.penalty.precision, **self.intercepts._asdict(),
            by_count=self.penalty.by_count, linear=self.linear, weights=weights, shared=self.shared, draw=self.draw,
            spread=self.spread, first_row=self.first_row,
        )  # fmt: skip

        def sum_pieces(parts: Array, row: int, first: int) -> None:
            piece_sums(parts, rows, self.fixed, row, first, **self.intercepts._asdict(), weights=weights)

        _solve_all(solve, sum_pieces, rows, self.fixed, part_length(self.fixed, biased), thread_count(n_jobs))
        singular = np.flatnonzero((status != 0) & (rows.counts > 0)).tolist()
        for i in singular:
            out[i] = self._rescued(rows, i, weights)
        return out, len(singular)

    def _rescued(self, rows: CSR, i: int, weights: Array | None) -> Array:
        """The minimum-norm solution of a row."""
        linear = self.linear if self.linear is None or self.linear.ndim == 1 else self.linear[i]
        indices, values = rows.row(i)
        return reference.minimum_norm_row(
            indices, values, self.fixed, **self.intercepts._asdict(), **self.penalty._asdict(), linear=linear,
            weights=None if weights is None else weights[rows.indptr[i] : rows.indptr[i + 1]], shared=self.shared,
        )  # fmt: skip

    def of_block(self, first: int, n_rows: int) -> Self:
        """As of :class:`Step`."""
        linear = self.linear
        if linear is not None and linear.ndim == 2:
            linear = linear[first : first + n_rows]
        return replace(self, linear=linear, first_row=first)


def half_sweep(
    rows: Rows, fixed: Array, penalty: Penalty, intercepts: Intercepts, n_jobs: int | None = None
) -> tuple[Array, int]:
    """Solve every row of one side, given the other side's rows.

    Args:
        rows: The ratings of the side to be solved.
        fixed: The other side, (rows, D), float32 or float64.
        penalty: The rows' prior.
        intercepts: Whether the last of the D columns is a bias; and μ, subtracted from every rating.
        n_jobs: Threads; see :func:`thread_count`.

    Returns:
        The solved rows, (rows, D), of the dtype of ``fixed``; and how many of them had a singular system and
        got the minimum-norm solution. A row without ratings and prior is zero.
    """
    return run(rows, HalfSweep(fixed, intercepts, penalty), n_jobs)


def _resolved(weights: Array | Weights | None, rows: CSR) -> Array | None:
    return weights.of(0, rows) if isinstance(weights, Weights) else weights


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


# ---- approximate and separate updates --------------------------------------------------------------


def update(solver: str, rows: Rows, factors: Array, fixed: Array, penalty: Penalty, intercepts: Intercepts,
           n_jobs: int | None = None) -> tuple[Array, int]:  # fmt: skip
    """New rows of one side, from ``factors`` where the solver is not ``"exact"``: what :func:`half_sweep` returns."""
    if solver == "exact":
        return half_sweep(rows, fixed, penalty, intercepts, n_jobs)
    kind = ConjugateGradient if solver == "cg" else BlockUpdate
    return run(rows, kind(fixed, intercepts, penalty, factors=factors), n_jobs)


@dataclass(frozen=True, eq=False)
class SeparateUpdate(Step):
    """One separate update of every row: the factors given the old bias, then the bias given the new factors.

    Two half-sweeps: the first over the other side's factors with all offsets taken from the ratings, the second
    over the constant 1 alone. Returns what :func:`half_sweep` returns.
    """

    penalty: Penalty
    solver: str = "exact"

    def run(self, rows: CSR, n_jobs: int | None = None) -> tuple[Array, int]:
        """The updated rows."""
        fixed, before = self.fixed, self.begun_at()
        (precision, by_count), K, who = self.penalty, fixed.shape[1] - 1, rows.row_codes()
        factors = np.ascontiguousarray(fixed[:, :K])
        rest = (rows.values - fixed.dtype.type(self.intercepts.offset) - fixed[rows.indices, K]).astype(fixed.dtype)
        solved, singular = update(
            self.solver, rows._replace(values=rest - before[who, K]), np.ascontiguousarray(before[:, :K]), factors,
            Penalty(precision[:K, :K], by_count), NO_INTERCEPTS, n_jobs,
        )  # fmt: skip
        rest -= np.einsum("ek,ek->e", solved[who], factors[rows.indices])
        ones, alone = np.zeros((len(fixed), 1), fixed.dtype), Penalty(precision[K:, K:], by_count)
        biases, _ = half_sweep(rows._replace(values=rest), ones, alone, Intercepts(biased=True, offset=0.0), n_jobs)
        return np.concatenate([solved, biases], axis=1), singular


@dataclass(frozen=True, eq=False)
class ConjugateGradient(Step):
    """A few steps of conjugate gradient on every row, from ``factors``, which are not changed; Λ must be diagonal."""

    penalty: Penalty

    def run(self, rows: CSR, n_jobs: int | None = None) -> tuple[Array, int]:
        """The rows after these steps."""
        from gramian.kernels.sweep import cg
        from gramian.kernels.sweep.given import observed_of

        out, (biased, offset) = self.begun_at().copy(), self.intercepts
        observed = observed_of(rows, self.fixed, offset)
        prior = np.diag(self.penalty.precision).astype(self.fixed.dtype)

        def block(first: int, last: int) -> None:
            cg.cg_rows(out, observed, biased, prior, self.penalty.by_count, cg.STEPS, first, last)

        over_blocks(block, rows, 8 * self.fixed.shape[1], thread_count(n_jobs))
        return out, 0


@dataclass(frozen=True, eq=False)
class BlockUpdate(Step):
    """Every row's columns solved block by block, each given the rest; the bias goes with the last block.

    A block is a half-sweep over its columns alone, whose ratings are the residuals without it. Λ must be
    diagonal. Memory: one number per rating. Returns what :func:`half_sweep` returns.
    """

    penalty: Penalty

    def run(self, rows: CSR, n_jobs: int | None = None) -> tuple[Array, int]:
        """The updated rows."""
        from gramian.kernels.sweep.subspace import BLOCK_COLUMNS

        before, fixed, (biased, offset) = self.begun_at(), self.fixed, self.intercepts
        size, (precision, by_count), singular = fixed.shape[1], self.penalty, 0
        factors = size - 1 if biased else size
        rest = rows.values - fixed.dtype.type(offset)
        if biased:
            rest = rest - fixed[rows.indices, factors]
        _add_products(rest, -1.0, rows, before, fixed, biased, n_jobs)
        out = np.zeros_like(before)
        for first in range(0, factors, BLOCK_COLUMNS):
            last = min(factors, first + BLOCK_COLUMNS)
            with_bias = biased and last == factors
            part = slice(first, size if with_bias else last)
            mine, theirs = before[:, part].copy(), fixed[:, part].copy()
            if with_bias:
                theirs[:, -1] = 0  # the other side's bias is out of the ratings already
            _add_products(rest, 1.0, rows, mine, theirs, with_bias, n_jobs)
            left, alone = rows._replace(values=rest), Penalty(precision[part, part], by_count)
            out[:, part], count = half_sweep(left, theirs, alone, Intercepts(with_bias, 0.0), n_jobs)
            singular = max(singular, count)
            if last < factors:
                _add_products(rest, -1.0, rows, np.ascontiguousarray(out[:, part]), theirs, with_bias, n_jobs)
        return out, singular


def _add_products(
    rest: Array, sign: float, rows: CSR, factors: Array, fixed: Array, with_bias: bool, n_jobs: int | None
) -> None:
    """Add or subtract wᵀu, and the row's bias with it, of every rating."""
    from gramian.kernels.sweep import subspace

    def block(first: int, last: int) -> None:
        subspace.add_products(rest, sign, rows.indptr, rows.indices, factors, fixed, with_bias, first, last)

    over_blocks(block, rows, fixed.shape[1], thread_count(n_jobs))


# ---- errors ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _SquaredErrors(Step):
    """The sum of squared residuals of each row, (rows,), float64, in a fixed order."""

    def run(self, rows: CSR, n_jobs: int | None = None) -> tuple[Array, int]:
        from gramian.kernels import residuals

        out, ratings = self.room(rows.n_rows), readonly_csr(rows)
        model = residuals.predictor(self.begun_at(), self.fixed, *self.intercepts)

        def block(first: int, last: int) -> None:
            residuals.squared_errors(ratings, model, first, last, out)

        over_blocks(block, rows, RATING_WORK + model.width, thread_count(n_jobs))
        return out, 0

    def room(self, n_rows: int) -> Array:
        return np.empty(n_rows)


def squared_errors_by_row(
    rows: Rows, factors: Array, fixed: Array, intercepts: Intercepts, n_jobs: int | None = None
) -> Array:
    """The sum of squared residuals of each row, (rows,), accumulated in float64 in a fixed order."""
    return run(rows, _SquaredErrors(fixed, intercepts, factors=factors), n_jobs)[0]


def squared_errors(
    rows: Rows, factors: Array, fixed: Array, intercepts: Intercepts, n_jobs: int | None = None
) -> float:
    """The same over all rows."""
    return float(squared_errors_by_row(rows, factors, fixed, intercepts, n_jobs).sum())
