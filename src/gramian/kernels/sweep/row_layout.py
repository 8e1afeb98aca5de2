"""One row's normal equations, from the prior and its ratings."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.sweep.gather import gather, prepare_roots
from gramian.kernels.sweep.gram import add_gramian
from gramian.kernels.vector.compiled import borrowing, compiled
from gramian.kernels.vector.tiles import padding

PANEL_BYTES = 16 * 1024  # a gathered block, a tile of A and what comes next share L1


@compiled
def aligned(count: int, like: Any) -> Any:
    """Zeros that begin on a cache line."""
    size = like.itemsize
    room = np.zeros(count + 64 // size, like.dtype)
    skip = (-room.ctypes.data % 64) // size
    return room[skip : skip + count]


@borrowing
def padded_columns(like: Any, factors: int) -> int:
    """Columns of a row's matrix, padded to whole registers."""
    unit = padding(like)
    return max(1, -(-factors // unit)) * unit


@borrowing
def block_ratings(columns: int, itemsize: int) -> int:
    """Ratings gathered at a time: fixed by K, so every row is summed in the same pieces."""
    return min(256, max(64, PANEL_BYTES // (columns * itemsize)))


@borrowing
def pad_prior(prior: Any, precision: Any, shared: Any, by_count: bool, factors: int, columns: int) -> None:
    """Prior = [Λ padded to columns × columns with ones on the diagonal | Λ's bias row].

    What all rows share is added here, unless Λ is still to be scaled by each row's count.
    """
    for k in range(columns * (columns + 1)):
        prior[k] = 0.0
    for c in range(columns):
        prior[c * columns + c] = 1.0
    for c in range(factors):
        for j in range(factors):
            prior[c * columns + j] = precision[c, j]
            if shared.shape[0] > 0 and not by_count:
                prior[c * columns + j] += shared[c, j]
    if precision.shape[0] > factors:
        for j in range(factors):
            prior[columns * columns + j] = precision[factors, j]


@borrowing
def begin_row(
    slot: Any,
    totals: Any,
    columns: int,
    factors: int,
    prior: Any,
    linear: Any,
    scale: float,
    shared: Any,
) -> None:
    """The prior's part of y, of the bias column, and of their corner.

    slot = [matrix, columns² | y | bias column]; totals = (A_KK, y_K).
    """
    square = columns * columns
    for j in range(columns):
        slot[square + j] = 0.0
        slot[square + columns + j] = scale * prior[square + j]
    for j in range(factors):
        slot[square + j] = scale * linear[j]
    totals[0] = 0.0
    totals[1] = 0.0
    if linear.shape[0] > factors:
        totals[1] = scale * linear[factors]
    if shared.shape[0] > factors:
        for j in range(factors):
            slot[square + columns + j] += shared[factors, j]
        totals[0] = shared[factors, factors]


@borrowing
def add_ratings(
    slot: Any,
    totals: Any,
    panel: Any,
    roots: Any,
    columns: int,
    factors: int,
    bias: int,
    src: Any,
    scale: float,
    other: Any,
    indices: Any,
    values: Any,
    offset: float,
    weights: Any,
    start: int,
    stop: int,
) -> None:
    """Slot's matrix = scale · src + Σ w v vᵀ; y, bias column and totals gain their sums."""
    square = columns * columns
    piece = block_ratings(columns, slot.itemsize)
    sums = slot[square:]
    while True:
        count = min(piece, stop - start)
        prepare_roots(roots, totals, other, bias, indices, values, offset, weights, start, count)
        gather(panel, columns, sums, roots, other, factors, indices, start, count)
        add_gramian(slot, columns, src, scale, panel, count, other, indices, start + piece)
        src, scale = slot, slot.dtype.type(1.0)
        start += count
        if start >= stop:
            break
