r"""Rows with few ratings: the system of size n (ratings) instead of D (unknowns).

Where the prior is diagonal and positive, with :math:`\Phi` the n gathered rows :math:`\sqrt{\omega}\,v` and
:math:`\tau = \sqrt{\omega}\,t`, the same solution is (the matrix inversion lemma)

.. math::
    x = \Lambda^{-1}\left(\Lambda m + \Phi^\top\beta\right), \qquad
    \left(I + \Phi\Lambda^{-1}\Phi^\top\right)\beta = \tau - \Phi\Lambda^{-1}\Lambda m .

It costs n²D/2 + n³/6 multiplications, where the direct one costs nD²/2 + D³/6.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.sweep.gather import gather, prepare_roots
from gramian.kernels.sweep.lane_solve import transpose
from gramian.kernels.sweep.row_layout import padded_columns
from gramian.kernels.sweep.system_solve import solve_system, update_rows
from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import lanes, vadd, vfma, vload, vmul, vsplat, vstore
from gramian.kernels.vector.tiles import tile_rows

__all__ = ["SMALLEST", "begin_dual", "dual_lengths", "dual_limit", "solve_dual"]

SMALLEST = 97  # unknowns; smaller systems are solved side by side in the lanes, as fast as by their duals


def dual_limit(precision: Any, shared: Any, drawing: bool) -> int:
    """Up to how many ratings a row's dual system is solved; −1 where there is none, or it is not faster."""
    size = len(precision)
    if drawing or shared is not None or size < SMALLEST:
        return -1
    diagonal = np.diag(precision)
    return size // 2 if (diagonal > 0).all() and np.count_nonzero(precision) == size else -1


@borrowing
def dual_lengths(like: Any, size: int, columns: int, limit: int) -> Any:
    """Lengths of 1 / √λ, slot, panel, turned, scales, roots, work, small, sums, zeros; for up to ``limit`` ratings."""
    height, room, unit = tile_rows(like), padded_columns(like, max(limit, 0)), lanes(like)
    tall = -(-size // unit) * unit
    return (
        tall, room * (room + 2), room * columns, (columns + 1) * room, tall, 2 * room, 5 * room + unit,
        height**2, 2 * columns + unit, room,
    )  # fmt: skip


@borrowing
def begin_dual(workspace: Any, edges: Any, precision: Any) -> None:
    """Fill in what all rows share: 1 / √λ."""
    roots_of_prior = workspace[edges[0] : edges[1]]
    for k in range(precision.shape[0]):
        roots_of_prior[k] = 1 / np.sqrt(precision[k, k])


@borrowing
def _turn(turned: Any, panel: Any, columns: int, room: int, count: int) -> None:
    """turned[k·room + e] = panel[e·columns + k], zero for e ≥ ``count``."""
    for k in range(count * columns, room * columns):
        panel[k] = 0.0
    for e in range(0, room, lanes(panel)):
        for k in range(0, columns, lanes(panel)):
            transpose(turned, k * room + e, room, panel, e * columns + k, columns)


@borrowing
def _scale(turned: Any, room: int, size: int, scales: Any, scale: float, linear: Any, slot: Any) -> None:
    """turned_k becomes scales_k · turned_k; y, in the slot, loses Φ m."""
    width, y = lanes(turned), room * room
    for k in range(size):
        factor = vsplat(scales, k)
        for e in range(k * room, (k + 1) * room, width):
            vstore(turned, e, vmul(factor, vload(turned, e)))
        if linear[k] != 0:
            mean = scale * linear[k] * scales[k]
            for e in range(room):
                slot[y + e] -= mean * turned[k * room + e]


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
    x: Any, workspace: Any, edges: Any, columns: int, biased: bool, size: int,
    linear: Any, scale: float, tolerance: float, other: Any,
    indices: Any, values: Any, offset: float, weights: Any, start: int, stop: int,
) -> bool:  # fmt: skip
    """x, (D,), of the row of the ratings ``start`` … ``stop``; whether its system is not positive definite."""
    roots_of_prior, slot = workspace[edges[0] : edges[1]], workspace[edges[1] : edges[2]]
    panel, turned, scales = (
        workspace[edges[2] : edges[3]],
        workspace[edges[3] : edges[4]],
        workspace[edges[4] : edges[5]],
    )
    roots, work, small = workspace[edges[5] : edges[6]], workspace[edges[6] : edges[7]], workspace[edges[7] : edges[8]]
    sums, zeros = workspace[edges[8] : edges[9]], workspace[edges[9] : edges[10]]
    count = stop - start
    factors = size - 1 if biased else size
    room = padded_columns(slot, count)
    prepare_roots(
        roots, sums[2 * columns :], other, factors if biased else -1, indices, values, offset, weights, start, count
    )
    gather(panel, columns, sums, roots, other, factors, indices, start, count)
    _turn(turned, panel, columns, room, count)
    slot[: room * (room + 1)] = 0.0
    for e in range(room):
        slot[e * room + e] = 1.0
        there = e < count
        slot[room * room + e] = roots[2 * e + 1] if there else 0.0
        if biased:
            turned[factors * room + e] = roots[2 * e] if there else 0.0
    smaller = slot.dtype.type(1.0) / np.sqrt(scale)
    for k in range(size):
        scales[k] = smaller * roots_of_prior[k]
    _scale(turned, room, size, scales, scale, linear, slot)
    for row in range(0, room, tile_rows(slot)):
        update_rows(slot, room, row, 1.0, turned, size)
    work[2 * room : 3 * room] = 0.0  # the bias column of a system without one
    bordered = stop < start  # no; but a literal would compile the solver a second time
    wrong = solve_system(slot, sums, room, count, tolerance, bordered, zeros, work, small)
    beta = work[4 * room : 5 * room]
    _combine(sums, beta, panel, columns, count)
    for k in range(factors):
        x[k] = scales[k] ** 2 * (scale * linear[k] + sums[k])
    if biased:
        total = scale * linear[factors]
        for e in range(count):
            total += beta[e] * roots[2 * e]
        x[factors] = scales[factors] ** 2 * total
    return wrong != 0
