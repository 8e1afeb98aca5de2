"""Heavy rows in fixed pieces: a row with very many ratings is many pieces of work, added up in their order.

Where a piece begins depends on the row alone, so its sums have the same bits whether one thread computes them one
after the other or several threads at once. A part = [matrix | y | bias column | A_KK, y_K, zeros], without the prior.
"""

from __future__ import annotations

from typing import Any

from gramian.kernels.csr import PIECE_RATINGS
from gramian.kernels.sweep.given import Buffers, Observed, RowSystem, Shape
from gramian.kernels.sweep.row_layout import add_ratings, aligned, block_ratings
from gramian.kernels.vector.compiled import borrowing, compiled, inlined
from gramian.kernels.vector.tiles import padding

__all__ = ["add_row_ratings", "part_size", "sum_pieces"]


@borrowing
def part_size(columns: int, like: Any) -> int:
    """Numbers in one part."""
    return columns * columns + 2 * columns + padding(like)


@compiled
def sum_pieces(parts: Any, observed: Observed, shape: Shape, start: int, stop: int) -> None:
    """parts[p] = the sums of piece p of the ratings ``start`` … ``stop``."""
    fixed = observed.fixed
    piece = block_ratings(shape.columns, fixed.itemsize)
    panel = aligned(piece * shape.columns, fixed)
    buffers = Buffers(panel, aligned(2 * piece, fixed), panel[:0])
    for p in range(len(parts)):
        first, part = start + p * PIECE_RATINGS, parts[p]
        part[:] = 0
        system = RowSystem(part, part[shape.columns * (shape.columns + 2) :])
        last = min(stop, first + PIECE_RATINGS)
        add_ratings(system, buffers, part, part.dtype.type(1.0), observed, shape, first, last)


@borrowing
def _add_sums(system: RowSystem, columns: int, src: Any, scale: float, sums: Any) -> None:
    """The system's matrix = scale · src + that of ``sums``; y, bias column and totals gain theirs."""
    slot, totals, square = system.slot, system.totals, columns * columns
    for k in range(square):
        slot[k] = scale * src[k] + sums[k]
    for k in range(square, square + 2 * columns):
        slot[k] += sums[k]
    totals[0] += sums[square + 2 * columns]
    totals[1] += sums[square + 2 * columns + 1]


@inlined
def add_row_ratings(
    system: RowSystem, buffers: Buffers, sums: Any, src: Any, scale: float, observed: Observed, shape: Shape,
    start: int, stop: int,
) -> None:  # fmt: skip
    """The system's matrix = scale · src + Σ w v vᵀ; y, bias column and totals gain their sums; in pieces if many.

    ``sums`` is the sum of all parts where that is known already, else empty.
    """
    if stop - start <= PIECE_RATINGS:
        add_ratings(system, buffers, src, scale, observed, shape, start, stop)
        return
    if sums.shape[0] > 0:
        _add_sums(system, shape.columns, src, scale, sums)
        return
    half = buffers.two_parts.shape[0] // 2
    total, part = buffers.two_parts[:half], buffers.two_parts[half:]
    one_piece = RowSystem(part, part[shape.columns * (shape.columns + 2) :])
    total[:] = 0
    for first in range(start, stop, PIECE_RATINGS):
        part[:] = 0
        last = min(stop, first + PIECE_RATINGS)
        add_ratings(one_piece, buffers, part, part.dtype.type(1.0), observed, shape, first, last)
        for k in range(half):
            total[k] += part[k]
    _add_sums(system, shape.columns, src, scale, total)
