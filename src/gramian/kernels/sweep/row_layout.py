"""One row's normal equations, from the prior and its ratings."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.sweep.gather import gather, prepare_roots
from gramian.kernels.sweep.given import Buffers, Observed, Prior, RowSystem, Shape
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
def pad_prior(padded: Any, prior: Prior, shape: Shape) -> None:
    """Padded = [Λ as columns × columns with ones on the rest of the diagonal | Λ's bias row].

    What all rows share is added here, unless Λ is still to be scaled by each row's count.
    """
    columns, factors = shape.columns, shape.factors
    precision, shared = prior.precision, prior.shared
    for k in range(columns * (columns + 1)):
        padded[k] = 0.0
    for c in range(columns):
        padded[c * columns + c] = 1.0
    for c in range(factors):
        for j in range(factors):
            padded[c * columns + j] = precision[c, j]
            if shared.shape[0] > 0 and not prior.by_count:
                padded[c * columns + j] += shared[c, j]
    if shape.biased:
        for j in range(factors):
            padded[columns * columns + j] = precision[factors, j]


@borrowing
def begin_row(system: RowSystem, padded: Any, shared: Any, linear: Any, scale: float, shape: Shape) -> None:
    """The prior's part of y, of the bias column, and of their corner; ``linear`` is Λm of the row."""
    slot, totals, factors = system.slot, system.totals, shape.factors
    square = shape.columns * shape.columns
    for j in range(shape.columns):
        slot[square + j] = 0.0
        slot[square + shape.columns + j] = scale * padded[square + j]
    for j in range(factors):
        slot[square + j] = scale * linear[j]
    totals[0] = 0.0
    totals[1] = 0.0
    if shape.biased:
        totals[1] = scale * linear[factors]
    if shared.shape[0] > factors:
        for j in range(factors):
            slot[square + shape.columns + j] += shared[factors, j]
        totals[0] = shared[factors, factors]


@borrowing
def add_ratings(
    system: RowSystem, buffers: Buffers, src: Any, scale: float, observed: Observed, shape: Shape, start: int, stop: int
) -> None:
    """The system's matrix = scale · src + Σ w v vᵀ; y, bias column and totals gain their sums."""
    slot, columns = system.slot, shape.columns
    panel, roots = buffers.panel, buffers.roots
    piece = block_ratings(columns, slot.itemsize)
    sums = slot[columns * columns :]
    while True:
        count = min(piece, stop - start)
        prepare_roots(roots, system.totals, observed, shape, start, count)
        gather(panel, sums, roots, observed, shape, start, count)
        add_gramian(slot, columns, src, scale, panel, count, observed.fixed, observed.indices, start + piece)
        src, scale = slot, slot.dtype.type(1.0)
        start += count
        if start >= stop:
            break
