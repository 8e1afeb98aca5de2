r"""Rows with few ratings: the system of size n (ratings) instead of D (unknowns).

Where the prior is diagonal and positive, with :math:`\Phi` the n gathered rows :math:`\sqrt{\omega}\,v` and
:math:`\tau = \sqrt{\omega}\,t`, the same solution is (the matrix inversion lemma)

.. math::
    x = \Lambda^{-1}\left(\Lambda m + \Phi^\top\beta\right), \qquad
    \left(I + \Phi\Lambda^{-1}\Phi^\top\right)\beta = \tau - \Phi\Lambda^{-1}\Lambda m .

It costs n²D/2 + n³/6 multiplications, where the direct one costs nD²/2 + D³/6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gramian.kernels.arrays import Array
from gramian.kernels.sweep.gather import gather, prepare_roots
from gramian.kernels.sweep.given import Observed, RowSystem, Shape
from gramian.kernels.sweep.lane_solve import transpose
from gramian.kernels.sweep.row_layout import padded_columns
from gramian.kernels.sweep.system_solve import solve_system, update_rows
from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import lanes, vadd, vfma, vload, vmul, vsplat, vstore
from gramian.kernels.vector.tiles import tile_rows

__all__ = ["SMALLEST", "DualRoom", "begin_dual", "dual_lengths", "dual_limit", "solve_dual"]

SMALLEST = 97  # unknowns; smaller systems are solved side by side in the lanes, as fast as by their duals


def dual_limit(precision: Any, shared: Any, drawing: bool) -> int:
    """Up to how many ratings a row's dual system is solved; −1 where there is none, or it is not faster."""
    size = len(precision)
    if drawing or shared is not None or size < SMALLEST:
        return -1
    diagonal = np.diag(precision)
    return size // 2 if (diagonal > 0).all() and np.count_nonzero(precision) == size else -1


class DualRoom(NamedTuple):
    """The workspace of a dual system of at most *room* padded ratings; flat, of the dtype of the rows.

    Attributes:
        roots_of_prior: 1 / √λ, (D,).
        slot: [I + ΦΛ⁻¹Φᵀ, room² | y, room | the column of a bias that there is not, room].
        panel: Φ, (room, columns).
        transposed: Φᵀ, the bias's row the last, (columns + 1, room).
        scales: 1 / √(sλ), (D,).
        roots: (room, 2).
        work, small: What :func:`gramian.kernels.sweep.system_solve.solve_system` needs.
        sums: Σ β v, (2 columns), and two totals.
        zeros: (room,).
    """

    roots_of_prior: Array
    slot: Array
    panel: Array
    transposed: Array
    scales: Array
    roots: Array
    work: Array
    small: Array
    sums: Array
    zeros: Array


@borrowing
def dual_lengths(like: Any, shape: Shape, limit: int) -> Any:
    """Lengths of the fields of a :class:`DualRoom` for up to ``limit`` ratings."""
    size, columns = shape.size, shape.columns
    height, room, unit = tile_rows(like), padded_columns(like, max(limit, 0)), lanes(like)
    tall = -(-size // unit) * unit
    return (
        tall, room * (room + 2), room * columns, (columns + 1) * room, tall, 2 * room, 5 * room + unit,
        height**2, 2 * columns + unit, room,
    )  # fmt: skip


@borrowing
def begin_dual(room: DualRoom, precision: Any) -> None:
    """Fill in what all rows share: 1 / √λ."""
    for k in range(precision.shape[0]):
        room.roots_of_prior[k] = 1 / np.sqrt(precision[k, k])


@borrowing
def _transpose(transposed: Any, panel: Any, columns: int, padded: int, count: int) -> None:
    """transposed[k·padded + e] = panel[e·columns + k], zero for e ≥ ``count``."""
    for k in range(count * columns, padded * columns):
        panel[k] = 0.0
    for e in range(0, padded, lanes(panel)):
        for k in range(0, columns, lanes(panel)):
            transpose(transposed, k * padded + e, padded, panel, e * columns + k, columns)


@borrowing
def _scale(room: DualRoom, padded: int, size: int, scale: float, linear: Any) -> None:
    """transposed_k becomes scales_k · transposed_k; y, in the slot, loses Φ m."""
    transposed, scales = room.transposed, room.scales
    width, y = lanes(transposed), padded * padded
    for k in range(size):
        factor = vsplat(scales, k)
        for e in range(k * padded, (k + 1) * padded, width):
            vstore(transposed, e, vmul(factor, vload(transposed, e)))
        if linear[k] != 0:
            mean = scale * linear[k] * scales[k]
            for e in range(padded):
                room.slot[y + e] -= mean * transposed[k * padded + e]


@borrowing
def _combine(out: Any, beta: Any, panel: Any, columns: int, count: int) -> None:
    """Out = Σ β_e panel_e; both are zero from ``count`` up to the next multiple of four."""
    for k in range(0, columns, lanes(panel)):
        t0 = vmul(vsplat(beta, 0), vload(panel, k))
        t1 = vmul(vsplat(beta, 1), vload(panel, columns + k))
        t2 = vmul(vsplat(beta, 2), vload(panel, 2 * columns + k))
        t3 = vmul(vsplat(beta, 3), vload(panel, 3 * columns + k))
        for e in range(4, count, 4):
            t0 = vfma(vsplat(beta, e), vload(panel, e * columns + k), t0)
            t1 = vfma(vsplat(beta, e + 1), vload(panel, (e + 1) * columns + k), t1)
            t2 = vfma(vsplat(beta, e + 2), vload(panel, (e + 2) * columns + k), t2)
            t3 = vfma(vsplat(beta, e + 3), vload(panel, (e + 3) * columns + k), t3)
        vstore(out, k, vadd(vadd(t0, t1), vadd(t2, t3)))


@borrowing
def solve_dual(
    x: Any, room: DualRoom, observed: Observed, shape: Shape, linear: Any, scale: float, tolerance: float,
    start: int, stop: int,
) -> bool:  # fmt: skip
    """x, (D,), of the row of the ratings ``start`` … ``stop``; whether its system is not positive definite."""
    slot, transposed, scales, roots, sums = room.slot, room.transposed, room.scales, room.roots, room.sums
    columns, factors, count = shape.columns, shape.factors, stop - start
    padded = padded_columns(slot, count)
    prepare_roots(roots, sums[2 * columns :], observed, shape, start, count)
    gather(room.panel, sums, roots, observed, shape, start, count)
    _transpose(transposed, room.panel, columns, padded, count)
    slot[: padded * (padded + 1)] = 0.0
    for e in range(padded):
        slot[e * padded + e] = 1.0
        there = e < count
        slot[padded * padded + e] = roots[2 * e + 1] if there else 0.0
        if shape.biased:
            transposed[factors * padded + e] = roots[2 * e] if there else 0.0
    smaller = slot.dtype.type(1.0) / np.sqrt(scale)
    for k in range(shape.size):
        scales[k] = smaller * room.roots_of_prior[k]
    _scale(room, padded, shape.size, scale, linear)
    for row in range(0, padded, tile_rows(slot)):
        update_rows(slot, padded, row, 1.0, transposed, shape.size)
    room.work[2 * padded : 3 * padded] = 0.0  # the bias column of a system without one
    bordered = stop < start  # no; but a literal would compile the solver a second time
    small_shape = Shape(count, count, padded, bordered)
    wrong = solve_system(RowSystem(slot, sums), small_shape, tolerance, room.zeros, room.work, room.small)
    beta = room.work[4 * padded : 5 * padded]
    _combine(sums, beta, room.panel, columns, count)
    for k in range(factors):
        x[k] = scales[k] ** 2 * (scale * linear[k] + sums[k])
    if shape.biased:
        total = scale * linear[factors]
        for e in range(count):
            total += beta[e] * roots[2 * e]
        x[factors] = scales[factors] ** 2 * total
    return wrong != 0
