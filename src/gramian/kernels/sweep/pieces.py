"""Heavy rows in fixed pieces: a row with very many ratings is many pieces of work, added up in their order.

Where a piece begins depends on the row alone, so its sums have the same bits whether one thread computes them one
after the other or several threads at once. A part = [matrix | y | bias column | A_KK, y_K, zeros], without the prior.
"""

from __future__ import annotations

from typing import Any

from gramian.kernels.csr import PIECE_RATINGS
from gramian.kernels.sweep.row_layout import add_ratings, aligned, block_ratings, padded_columns
from gramian.kernels.vector.compiled import borrowing, compiled, inlined
from gramian.kernels.vector.tiles import padding

__all__ = ["add_row_ratings", "part_size", "sum_pieces"]


@borrowing
def part_size(columns: int, like: Any) -> int:
    """Numbers in one part."""
    return columns * columns + 2 * columns + padding(like)


@compiled
def sum_pieces(
    parts: Any, biased: bool, other: Any, indices: Any, values: Any, offset: float, weights: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """parts[p] = the sums of piece p of the ratings ``start`` … ``stop``."""
    factors = other.shape[1] - 1 if biased else other.shape[1]
    columns = padded_columns(other, factors)
    panel = aligned(block_ratings(columns, other.itemsize) * columns, other)
    roots = aligned(2 * block_ratings(columns, other.itemsize), other)
    for p in range(len(parts)):
        first, part = start + p * PIECE_RATINGS, parts[p]
        part[:] = 0
        add_ratings(
            part, part[columns * columns + 2 * columns :], panel, roots, columns, factors, factors if biased else -1,
            part, part.dtype.type(1.0), other, indices, values, offset, weights,
            first, min(stop, first + PIECE_RATINGS),
        )  # fmt: skip


@borrowing
def _add_sums(slot: Any, totals: Any, columns: int, src: Any, scale: float, sums: Any) -> None:
    """Slot's matrix = scale · src + that of ``sums``; y, bias column and totals gain theirs."""
    square = columns * columns
    for k in range(square):
        slot[k] = scale * src[k] + sums[k]
    for k in range(square, square + 2 * columns):
        slot[k] += sums[k]
    totals[0] += sums[square + 2 * columns]
    totals[1] += sums[square + 2 * columns + 1]


@inlined
def add_row_ratings(
    slot: Any, totals: Any, sums: Any, two_parts: Any, panel: Any, roots: Any, columns: int, factors: int, bias: int,
    src: Any, scale: float, other: Any, indices: Any, values: Any, offset: float, weights: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Slot's matrix = scale · src + Σ w v vᵀ; y, bias column and totals gain their sums; in pieces if they are many.

    ``sums`` is the sum of all parts where that is known already, else empty; ``two_parts`` holds two parts.
    """
    if stop - start <= PIECE_RATINGS:
        add_ratings(
            slot, totals, panel, roots, columns, factors, bias, src, scale,
            other, indices, values, offset, weights, start, stop,
        )  # fmt: skip
        return
    if sums.shape[0] > 0:
        _add_sums(slot, totals, columns, src, scale, sums)
        return
    half = two_parts.shape[0] // 2
    total, part = two_parts[:half], two_parts[half:]
    total[:] = 0
    for first in range(start, stop, PIECE_RATINGS):
        part[:] = 0
        add_ratings(
            part, part[columns * columns + 2 * columns :], panel, roots, columns, factors, bias,
            part, part.dtype.type(1.0), other, indices, values, offset, weights,
            first, min(stop, first + PIECE_RATINGS),
        )  # fmt: skip
        for k in range(half):
            total[k] += part[k]
    _add_sums(slot, totals, columns, src, scale, total)
