r"""The half-sweep: with one side's rows fixed, every row of the other side is a small ridge regression.

For row *i* with ratings :math:`r_{ij}`, weights :math:`\omega_{ij}`, and the other side's rows :math:`v_j` (with
a constant 1 appended where the row's bias is part of the solve):

.. math::
    A_i = s_i\Lambda + S + \sum_j \omega_{ij} v_j v_j^\top, \qquad
    y_i = s_i\Lambda m + \sum_j \omega_{ij} (r_{ij} - \mu - c_j)\, v_j

    x_i = A_i^{-1} y_i \quad\text{or, drawing,}\quad x_i = A_i^{-1} y_i + \sigma L_i^{-\top} z_i,
    \quad A_i = L_i L_i^\top,\ z_i \sim N(0, I)

with :math:`c_j` the other side's bias, S a Gramian that all rows share, and :math:`s_i` = 1, or the row's number of
ratings under count weighting. Where ratings have noise of variance :math:`\sigma^2` and a row's prior has precision
P, the posterior is drawn with :math:`\Lambda = \sigma^2 P`. A side is stored as one array of shape (rows, D): K
factors and, where there are biases, the bias as the last column, D = K + 1.

How it is done: :mod:`rows <gramian.kernels.sweep.row_layout>` (for heavy rows through
:mod:`pieces <gramian.kernels.sweep.pieces>`) builds A and y of a row from gathered blocks
(:mod:`gather <gramian.kernels.sweep.gather>`) by register tiles (:mod:`gram <gramian.kernels.sweep.gram>`,
:mod:`tiles <gramian.kernels.vector.tiles>`); small systems are solved side by side in the vector lanes
(:mod:`lane_solve <gramian.kernels.sweep.lane_solve>`), large ones one by one
(:mod:`system_solve <gramian.kernels.sweep.system_solve>`), or by their duals where ratings are few
(:mod:`dual <gramian.kernels.sweep.dual>`). A row's arithmetic does not depend on which rows are solved
with it. The plain twin of it all is in :mod:`gramian.kernels.reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from gramian.kernels.arrays import Array, aligned_rows, readonly
from gramian.kernels.csr import CSR, PIECE_RATINGS
from gramian.kernels.sampling.normals import fill_normals
from gramian.kernels.sweep.dual import DualRoom, begin_dual, dual_lengths, dual_limit, solve_dual
from gramian.kernels.sweep.given import (
    AddedDraw,
    Buffers,
    Prior,
    RowSystem,
    Shape,
    SweepProblem,
    nothing,
    observed_of,
)
from gramian.kernels.sweep.lane_solve import back_lanes, block, factor_lanes, interleave
from gramian.kernels.sweep.pieces import add_row_ratings, part_size, sum_pieces
from gramian.kernels.sweep.row_layout import begin_row, block_ratings, pad_prior, padded_columns
from gramian.kernels.sweep.system_solve import solve_system
from gramian.kernels.vector.compiled import borrowing, inlined
from gramian.kernels.vector.lanes import lanes
from gramian.kernels.vector.tiles import tile_rows

__all__ = ["part_length", "piece_sums", "prepared"]

# Systems up to this size are solved W at a time, larger ones one by one: W of them
# must share the second-level cache with their interleaved copy.
LANE_LIMIT = 96


@inlined
def _build_row(system: RowSystem, buffers: Buffers, sums: Any, padded: Any, problem: SweepProblem, row: int) -> None:
    """A_i and y_i of one row, from the padded prior and its ratings."""
    observed, prior, shape = problem.observed, problem.prior, problem.shape
    slot, one = system.slot, system.slot.dtype.type(1.0)
    columns, factors, shared = shape.columns, shape.factors, prior.shared
    lo, hi = observed.indptr[row], observed.indptr[row + 1]
    scale = slot.dtype.type(max(hi - lo, 1)) if prior.by_count else one
    begin_row(system, padded, shared, prior.linear[row if prior.linear.shape[0] > 1 else 0], scale, shape)
    if shape.biased:
        system.totals[0] += scale * prior.precision[factors, factors]
    src = padded
    if prior.by_count and shared.shape[0] > 0:
        for k in range(columns * columns):
            slot[k] = scale * padded[k]
        for c in range(factors):
            for j in range(factors):
                slot[c * columns + j] += shared[c, j]
        src, scale = slot, one
    add_row_ratings(system, buffers, sums, src, scale, observed, shape, lo, hi)


@borrowing
def _free_unknowns(prior: Prior) -> int:
    """Unknowns without a prior: a row with fewer ratings than these is singular."""
    free, shared = 0, prior.shared
    for c in range(prior.precision.shape[0]):
        free += prior.precision[c, c] == 0 and (shared.shape[0] == 0 or shared[c, c] == 0)
    return free


class LaneRoom(NamedTuple):
    """The workspace of W systems side by side; flat, of the dtype of the rows.

    Attributes:
        prior: [Λ padded, columns² | its bias row, columns].
        slots, totals: Those of W :class:`RowSystem`, one after the other.
        two_parts, panel, roots: :class:`Buffers`.
        normals: (D, W), and room for the next multiple of four of D.
        matrices: The W systems interleaved; see :mod:`gramian.kernels.sweep.lane_solve`.
        inverse: 1 / diagonal, (padded D, W).
        bad: 1 where a system is not positive definite, (W,).
    """

    prior: Array
    slots: Array
    totals: Array
    two_parts: Array
    panel: Array
    roots: Array
    normals: Array
    matrices: Array
    inverse: Array
    bad: Array


@borrowing
def _lane_lengths(like: Any, shape: Shape) -> Any:
    """Lengths of the fields of a :class:`LaneRoom`."""
    size, columns = shape.size, shape.columns
    together, piece = lanes(like), block_ratings(columns, like.itemsize)
    tall = -(-size // block(like)) * block(like)
    ncol, room = max(tall, size + 1), max(columns, tall) + 1
    return (
        columns * (columns + 1), together * columns * (columns + 2), 2 * together, 2 * part_size(columns, like),
        piece * columns, 2 * piece, (size + 4) * together, (room * ncol + columns) * together,
        room * together, together,
    )  # fmt: skip


@borrowing
def _lane_sweep(out: Any, status: Any, room: LaneRoom, problem: SweepProblem, sums: Any, start: int, stop: int) -> None:
    """Rows ``start`` … ``stop``, as many side by side as a register has lanes; :func:`prepared` has the arguments."""
    observed, prior, shape, draw = problem.observed, problem.prior, problem.shape, problem.draw
    size, columns, together = shape.size, shape.columns, lanes(out)
    slot_size, ncol = columns * (columns + 2), max(-(-size // block(out)) * block(out), size + 1)
    free, mat, normals = _free_unknowns(prior), room.matrices, room.normals
    buffers = Buffers(room.panel, room.roots, room.two_parts)
    pad_prior(room.prior, prior, shape)
    for first in range(start, stop, together):
        group = min(together, stop - first)
        for lane in range(group):
            system = RowSystem(
                room.slots[lane * slot_size : (lane + 1) * slot_size], room.totals[2 * lane : 2 * lane + 2]
            )
            _build_row(system, buffers, sums, room.prior, problem, first + lane)
        interleave(mat, ncol, room.slots, room.totals, shape, group)
        factor_lanes(mat, ncol, size, problem.tolerance, room.inverse, room.bad)
        if draw.drawing:
            fill_normals(normals, together, size, draw.seed, draw.sweep, draw.side, draw.first_row + first)
            for c in range(size):
                for lane in range(together):
                    mat[(c * ncol + size) * together + lane] += draw.spread * normals[c * together + lane]
        back_lanes(mat, ncol, size, room.inverse)
        for lane in range(group):
            row = first + lane
            count = observed.indptr[row + 1] - observed.indptr[row]
            status[row] = room.bad[lane] != 0 or count < free
            if status[row] == 0:
                for c in range(size):
                    out[row, c] = mat[(c * ncol + size) * together + lane]


class SystemRoom(NamedTuple):
    """The workspace of one system at a time; flat, of the dtype of the rows.

    Attributes:
        prior: [Λ padded, columns² | its bias row, columns].
        slot, totals: :class:`RowSystem`.
        two_parts, panel, roots: :class:`Buffers`.
        normals: (D,), and room for the next multiple of four.
        work, small: What :func:`gramian.kernels.sweep.system_solve.solve_system` needs.
        x: A solution, (D,).
    """

    prior: Array
    slot: Array
    totals: Array
    two_parts: Array
    panel: Array
    roots: Array
    normals: Array
    work: Array
    small: Array
    x: Array


@borrowing
def _system_lengths(like: Any, shape: Shape) -> Any:
    """Lengths of the fields of a :class:`SystemRoom`."""
    columns = shape.columns
    piece, unit = block_ratings(columns, like.itemsize), lanes(like)
    return (
        columns * (columns + 1), columns * (columns + 2), unit, 2 * part_size(columns, like), piece * columns,
        2 * piece, columns + 2 * unit, 5 * columns + unit, tile_rows(like) ** 2, columns + unit,
    )  # fmt: skip


@borrowing
def _system_sweep(
    out: Any, status: Any, room: SystemRoom, dual: DualRoom, problem: SweepProblem, sums: Any, start: int, stop: int
) -> None:
    """Rows ``start`` … ``stop``, one system at a time; rows of few ratings by their duals."""
    observed, prior, shape, draw = problem.observed, problem.prior, problem.shape, problem.draw
    indptr, size, normals, free = observed.indptr, shape.size, room.normals, _free_unknowns(prior)
    system, buffers = RowSystem(room.slot, room.totals), Buffers(room.panel, room.roots, room.two_parts)
    pad_prior(room.prior, prior, shape)
    if problem.few >= 0:
        begin_dual(dual, prior.precision)
    for row in range(start, stop):
        count = indptr[row + 1] - indptr[row]
        if count <= problem.few:
            linear = prior.linear[row if prior.linear.shape[0] > 1 else 0]
            scale = out.dtype.type(max(count, 1) if prior.by_count else 1)
            status[row] = solve_dual(
                room.x, dual, observed, shape, linear, scale, problem.tolerance, indptr[row], indptr[row + 1]
            )
            if status[row] == 0:
                for c in range(size):  # assigning arrays would compile the text of a message about their shapes
                    out[row, c] = room.x[c]
            continue
        _build_row(system, buffers, sums, room.prior, problem, row)
        if draw.drawing:
            fill_normals(normals, 1, size, draw.seed, draw.sweep, draw.side, draw.first_row + row)
            for c in range(size):
                normals[c] *= draw.spread
        wrong = solve_system(system, shape, problem.tolerance, normals, room.work, room.small)
        status[row] = wrong != 0 or count < free
        if status[row] == 0:
            for c in range(size):
                out[row, c] = room.work[4 * shape.columns + c]


def prepared(
    out: Array,
    status: Array,
    rows: CSR,
    other: Array,
    precision: Array,
    *,
    biased: bool,
    offset: float,
    by_count: bool = False,
    linear: Array | None = None,
    weights: Array | None = None,
    shared: Array | None = None,
    draw: tuple[int, int, int] | None = None,
    spread: float = 1.0,
    first_row: int = 0,
) -> Callable[..., None]:
    """``solve(start, stop, sums=None)``: solves these rows of one side into ``out``.

    Threads may call it at once on different rows. ``sums``, where the rows are one of more than ``PIECE_RATINGS``
    ratings, is the sum, in their order and beginning with zeros, of its :func:`piece_sums`, if they are known already.

    Args:
        out: The rows to be solved, (rows, D), of the dtype of ``other``.
        status: uint8 per row. 1 where A is not numerically positive definite (a pivot of at most
            2ε(D + 8) times its diagonal, or fewer ratings than unknowns without a prior): ``out`` is then left as
            it was.
        rows: The ratings of these rows.
        other: The fixed side, (rows of the other side, D), float32 or float64; contiguous.
        precision: Λ, (D, D).
        biased: Whether the last of the D columns is a bias: v = [factors, 1], and the other side's bias is
            subtracted from the rating.
        offset: μ, subtracted from every rating.
        by_count: Whether Λ (and Λm) is multiplied by the row's number of ratings, if it has any.
        linear: Λm, (D,), or (rows, D) with a prior mean for each row; zero if not given.
        weights: ω ≥ 0, one per rating; 1 if not given.
        shared: A Gramian added to every A, (D, D).
        draw: ``(seed, sweep, side)``: add a draw from N(0, σ²A⁻¹), whose normals depend on these, the row and
            the column alone.
        spread: σ ≥ 0.
        first_row: The number of the first of these rows among all: the normals depend on it.
    """
    dtype, size = other.dtype, len(precision)
    linear = np.zeros((1, size), dtype) if linear is None else np.atleast_2d(linear)
    given = nothing(dtype, 2) if shared is None else readonly(shared, dtype)
    shape, few = _shape(size, biased, dtype), dual_limit(precision, shared, draw is not None)
    seed, sweep, side = draw if draw is not None else (0, 0, 0)
    problem = SweepProblem(
        observed_of(rows, other, offset, weights),
        Prior(readonly(precision, dtype), readonly(linear, dtype), given, by_count),
        shape,
        AddedDraw(draw is not None, np.uint64(seed), sweep, side, dtype.type(spread), first_row),
        dtype.type(2 * np.finfo(dtype).eps * (size + 8)),
        few,
    )
    kernel, rooms = _lane_sweep if size <= LANE_LIMIT else _system_sweep, _rooms(shape, few, dtype)

    def solve(start: int, stop: int, sums: Array | None = None) -> None:
        made = [_room(*room, dtype) for room in rooms]
        kernel(out, status, *made, problem, nothing(dtype) if sums is None else readonly(sums), start, stop)

    return solve


@cache
def _shape(size: int, biased: bool, dtype: np.dtype[Any]) -> Shape:
    factors = size - 1 if biased else size
    return Shape(size, factors, padded_columns(nothing(dtype), factors), biased)


@cache
def _rooms(shape: Shape, few: int, dtype: np.dtype[Any]) -> list[tuple[type, list[slice]]]:
    """The workspaces that a block of rows needs, and where in one array each of their fields is."""
    like = nothing(dtype)
    if shape.size <= LANE_LIMIT:
        return [(LaneRoom, _places(_lane_lengths(like, shape)))]
    return [(SystemRoom, _places(_system_lengths(like, shape))), (DualRoom, _places(dual_lengths(like, shape, few)))]


def _places(lengths: tuple[int, ...]) -> list[slice]:
    return [slice(first, last) for first, last in pairwise(accumulate(lengths, initial=0))]


def _room(kind: type, places: list[slice], dtype: np.dtype[Any]) -> Any:
    whole = aligned_rows(1, places[-1].stop, dtype)[0]
    return kind(*[whole[place] for place in places])


def part_length(other: Array, biased: bool) -> int:
    """Numbers in the sums of one piece."""
    return int(part_size(_shape(other.shape[1], biased, other.dtype).columns, nothing(other.dtype)))


def piece_sums(
    parts: Array,
    rows: CSR,
    other: Array,
    row: int,
    first: int,
    *,
    biased: bool,
    offset: float,
    weights: Array | None = None,
) -> None:
    """Sum the pieces ``first``, ``first + 1``, … of one row into ``parts``, as many as it has rows.

    Args:
        parts: (pieces, :func:`part_length`), of the dtype of ``other``.
        rows, other, biased, offset, weights: As in :func:`prepared`.
        row: Which row.
        first: Its first piece wanted.
    """
    observed, shape = observed_of(rows, other, offset, weights), _shape(other.shape[1], biased, other.dtype)
    sum_pieces(parts, observed, shape, rows.indptr[row] + first * PIECE_RATINGS, rows.indptr[row + 1])
