"""The Gramian Σ_e v_e v_eᵀ of one block of gathered rows, tile by tile."""

from __future__ import annotations

from typing import Any

from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import lanes
from gramian.kernels.vector.tiles import asking_1, asking_2, asking_3, asking_tall, tile_rows

CACHE_LINE = 64


@borrowing
def add_gramian(
    slot: Any, columns: int, src: Any, scale: float, panel: Any, count: int, fixed: Any, hints: Any, ahead: int
) -> None:
    """Slot = scale · src + Σ_{e < count} v_e v_eᵀ, on and above the diagonal.

    `slot` and `src` are flat, `columns` × `columns`; v_e = panel[e·columns :].
    Meanwhile the rows fixed[hints[ahead : ahead + count]] are prefetched, one
    line of each per tile; tiles outnumber lines.
    """
    one = slot.dtype.type(1.0)
    width, height = lanes(slot), tile_rows(slot)
    step, line, last = fixed.shape[1], CACHE_LINE // fixed.itemsize, fixed.shape[1] - 1
    ahead = max(0, min(ahead, hints.shape[0] - count))
    want, row = 0, 0
    while row < columns:
        column = row // width * width
        left = (columns - column) // width
        if left == 1 and width >= 2 * height:
            at = row * columns + column
            asking_tall(
                slot, at, src, at, columns, scale, one, panel, row, column, columns, count,
                fixed, step, want, hints, ahead,
            )  # fmt: skip
            want = min(want + line, last)
            row += 2 * height
            continue
        while left > 0:
            at = row * columns + column
            taken = 1 if left == 1 else 2 if left == 2 or left == 4 else 3
            if taken == 1:
                asking_1(
                    slot, at, src, at, columns, scale, one, panel, row, column, columns, count,
                    fixed, step, want, hints, ahead,
                )  # fmt: skip
            elif taken == 2:
                asking_2(
                    slot, at, src, at, columns, scale, one, panel, row, column, columns, count,
                    fixed, step, want, hints, ahead,
                )  # fmt: skip
            else:
                asking_3(
                    slot, at, src, at, columns, scale, one, panel, row, column, columns, count,
                    fixed, step, want, hints, ahead,
                )  # fmt: skip
            want = min(want + line, last)
            left -= taken
            column += taken * width
        row += height
