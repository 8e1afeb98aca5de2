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
from itertools import accumulate
from typing import Any

import numpy as np

from gramian.kernels.arrays import Array, aligned_rows, readonly
from gramian.kernels.csr import CSR, PIECE_RATINGS
from gramian.kernels.sampling.normals import fill_normals
from gramian.kernels.sweep.dual import begin_dual, dual_lengths, dual_limit, solve_dual
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
def _build_row(
    slot: Any, totals: Any, sums: Any, two_parts: Any, panel: Any, roots: Any,
    columns: int, factors: int, biased: bool, prior: Any, row: int,
    indptr: Any, indices: Any, values: Any, offset: float,
    weights: Any, other: Any, precision: Any, linear: Any,
    shared: Any, by_count: bool,
) -> None:  # fmt: skip
    """A_i and y_i of one row: slot = [matrix | y | bias column], totals = (A_KK, y_K)."""
    one = slot.dtype.type(1.0)
    lo, hi = indptr[row], indptr[row + 1]
    scale = slot.dtype.type(max(hi - lo, 1)) if by_count else one
    lin = linear[row if linear.shape[0] > 1 else 0]
    begin_row(slot, totals, columns, factors, prior, lin, scale, shared)
    if biased:
        totals[0] += scale * precision[factors, factors]
    src = prior
    if by_count and shared.shape[0] > 0:
        for k in range(columns * columns):
            slot[k] = scale * prior[k]
        for c in range(factors):
            for j in range(factors):
                slot[c * columns + j] += shared[c, j]
        src, scale = slot, one
    add_row_ratings(
        slot, totals, sums, two_parts, panel, roots, columns, factors, factors if biased else -1, src, scale,
        other, indices, values, offset, weights, lo, hi,
    )  # fmt: skip


@borrowing
def _free_unknowns(precision: Any, shared: Any) -> int:
    """Unknowns without a prior: a row with fewer ratings than these is singular."""
    free = 0
    for c in range(precision.shape[0]):
        free += precision[c, c] == 0 and (shared.shape[0] == 0 or shared[c, c] == 0)
    return free


@borrowing
def _lane_lengths(like: Any, size: int, columns: int) -> Any:
    """Lengths of the prior, slots, totals, two parts, panel, roots, normals, matrices, inverse, bad."""
    together, piece = lanes(like), block_ratings(columns, like.itemsize)
    tall = -(-size // block(like)) * block(like)
    ncol, room = max(tall, size + 1), max(columns, tall) + 1
    return (
        columns * (columns + 1), together * columns * (columns + 2), 2 * together, 2 * part_size(columns, like),
        piece * columns, 2 * piece, (size + 4) * together, (room * ncol + columns) * together,
        room * together, together,
    )  # fmt: skip


@borrowing
def _lane_sweep(
    out: Any, status: Any, workspace: Any, edges: Any, tolerance: float,
    indptr: Any, indices: Any, values: Any, offset: float,
    weights: Any, other: Any, biased: bool,
    precision: Any, linear: Any, shared: Any, by_count: bool,
    drawing: bool, seed: int, sweep: int, side: int, spread: float, first_row: int,
    sums: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Rows ``start`` … ``stop``, as many side by side as a register has lanes; :func:`prepared` has the arguments."""
    size, together = precision.shape[0], lanes(out)
    factors = size - 1 if biased else size
    columns = padded_columns(out, factors)
    slot_size, ncol = columns * (columns + 2), max(-(-size // block(out)) * block(out), size + 1)
    free = _free_unknowns(precision, shared)
    prior, slots, totals = (
        workspace[edges[0] : edges[1]],
        workspace[edges[1] : edges[2]],
        workspace[edges[2] : edges[3]],
    )
    two_parts, panel, roots = (
        workspace[edges[3] : edges[4]],
        workspace[edges[4] : edges[5]],
        workspace[edges[5] : edges[6]],
    )
    normals, mat = workspace[edges[6] : edges[7]], workspace[edges[7] : edges[8]]
    inverse, bad = workspace[edges[8] : edges[9]], workspace[edges[9] : edges[10]]
    pad_prior(prior, precision, shared, by_count, factors, columns)
    for first in range(start, stop, together):
        group = min(together, stop - first)
        for lane in range(group):
            _build_row(
                slots[lane * slot_size : (lane + 1) * slot_size], totals[2 * lane : 2 * lane + 2],
                sums, two_parts, panel, roots, columns, factors, biased, prior, first + lane, indptr, indices,
                values, offset, weights, other, precision, linear, shared, by_count,
            )  # fmt: skip
        interleave(mat, ncol, slots, totals, slot_size, columns, factors, size, group)
        factor_lanes(mat, ncol, size, tolerance, inverse, bad)
        if drawing:
            fill_normals(normals, together, size, seed, sweep, side, first_row + first)
            for c in range(size):
                for lane in range(together):
                    mat[(c * ncol + size) * together + lane] += spread * normals[c * together + lane]
        back_lanes(mat, ncol, size, inverse)
        for lane in range(group):
            row = first + lane
            status[row] = bad[lane] != 0 or indptr[row + 1] - indptr[row] < free
            if status[row] == 0:
                for c in range(size):
                    out[row, c] = mat[(c * ncol + size) * together + lane]


@borrowing
def _system_lengths(like: Any, size: int, columns: int) -> Any:
    """Lengths of the prior, slot, totals, two parts, panel, roots, normals, work, small, x."""
    piece, unit = block_ratings(columns, like.itemsize), lanes(like)
    return (
        columns * (columns + 1), columns * (columns + 2), unit, 2 * part_size(columns, like), piece * columns,
        2 * piece, columns + 2 * unit, 5 * columns + unit, tile_rows(like) ** 2, columns + unit,
    )  # fmt: skip


@borrowing
def _system_sweep(
    out: Any, status: Any, workspace: Any, edges: Any, dual: Any, dual_edges: Any, few: int, tolerance: float,
    indptr: Any, indices: Any, values: Any, offset: float,
    weights: Any, other: Any, biased: bool,
    precision: Any, linear: Any, shared: Any, by_count: bool,
    drawing: bool, seed: int, sweep: int, side: int, spread: float, first_row: int,
    sums: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Rows ``start`` … ``stop``, one system at a time; rows of at most ``few`` ratings by their duals."""
    size = precision.shape[0]
    factors = size - 1 if biased else size
    columns = padded_columns(out, factors)
    free = _free_unknowns(precision, shared)
    prior, slot, totals = workspace[edges[0] : edges[1]], workspace[edges[1] : edges[2]], workspace[edges[2] : edges[3]]
    two_parts, panel, roots = (
        workspace[edges[3] : edges[4]],
        workspace[edges[4] : edges[5]],
        workspace[edges[5] : edges[6]],
    )
    normals, work = workspace[edges[6] : edges[7]], workspace[edges[7] : edges[8]]
    small, x = workspace[edges[8] : edges[9]], workspace[edges[9] : edges[10]]
    pad_prior(prior, precision, shared, by_count, factors, columns)
    if few >= 0:
        begin_dual(dual, dual_edges, precision)
    for row in range(start, stop):
        count = indptr[row + 1] - indptr[row]
        if count <= few:
            status[row] = solve_dual(
                x, dual, dual_edges, columns, biased, size, linear[row if linear.shape[0] > 1 else 0],
                out.dtype.type(max(count, 1) if by_count else 1), tolerance,
                other, indices, values, offset, weights, indptr[row], indptr[row + 1],
            )  # fmt: skip
            if status[row] == 0:
                for c in range(size):  # assigning arrays would compile the text of a message about their shapes
                    out[row, c] = x[c]
            continue
        _build_row(
            slot, totals, sums, two_parts, panel, roots, columns, factors, biased, prior, row, indptr, indices,
            values, offset, weights, other, precision, linear, shared, by_count,
        )  # fmt: skip
        if drawing:
            fill_normals(normals, 1, size, seed, sweep, side, first_row + row)
            for c in range(size):
                normals[c] *= spread
        wrong = solve_system(slot, totals, columns, factors, tolerance, biased, normals, work, small)
        status[row] = wrong != 0 or count < free
        if status[row] == 0:
            for c in range(size):
                out[row, c] = work[4 * columns + c]


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
    few = dual_limit(precision, shared, draw is not None)
    seed, sweep, side = draw if draw is not None else (0, 0, 0)
    fixed_rows = [readonly(array) for array in rows]
    offset, other, precision = dtype.type(offset), readonly(other), readonly(precision, dtype)
    weights = readonly(np.empty(0, dtype) if weights is None else weights, dtype)
    linear = readonly(np.atleast_2d(np.zeros(size) if linear is None else linear), dtype)
    common = (
        dtype.type(2 * np.finfo(dtype).eps * (size + 8)), *fixed_rows, offset, weights, other, biased, precision,
        linear, readonly(np.empty((0, 0), dtype) if shared is None else shared, dtype),
        by_count, draw is not None, np.uint64(seed), sweep, side, dtype.type(spread), first_row,
    )  # fmt: skip
    none, columns = readonly(np.empty(0, dtype)), padded_columns(other, size - biased)
    kernel: Callable[..., None] = _lane_sweep
    lengths: list[tuple[int, ...]] = [_lane_lengths(other, size, columns)]
    if size > LANE_LIMIT:
        kernel, common = _system_sweep, (few, *common)
        lengths = [_system_lengths(other, size, columns), dual_lengths(other, size, columns, few)]

    def solve(start: int, stop: int, sums: Array | None = None) -> None:
        room = [part for each in lengths for part in _workspace(each, dtype)]
        kernel(out, status, *room, *common, none if sums is None else readonly(sums), start, stop)

    return solve


def _workspace(lengths: tuple[int, ...], dtype: Any) -> tuple[Array, tuple[int, ...]]:
    """One array for parts of these lengths, and where they begin and end."""
    return aligned_rows(1, sum(lengths), dtype)[0], (0, *accumulate(lengths))


def part_length(other: Array, biased: bool) -> int:
    """Numbers in the sums of one piece."""
    return int(part_size(padded_columns(other, other.shape[1] - biased), other))


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
    dtype = other.dtype
    sum_pieces(
        parts, biased, readonly(other), readonly(rows.indices), readonly(rows.values), dtype.type(offset),
        readonly(np.empty(0, dtype) if weights is None else weights, dtype),
        rows.indptr[row] + first * PIECE_RATINGS, rows.indptr[row + 1],
    )  # fmt: skip
