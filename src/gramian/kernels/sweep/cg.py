r"""A few steps of conjugate gradient on every row, from the row so far, without ever forming its matrix.

With :math:`V` the gathered rows of the fixed side (a constant 1 appended for the bias) and a diagonal prior,

.. math:: A p = V^\top (V p) + s\Lambda p, \qquad M = \operatorname{diag}(A),

a step costs 2·n·D multiplications, where the exact solve needs n·D²/2 + D³/6. The residual
:math:`y - Ax = V^\top(t - Vx) - s\Lambda x` costs one step more. No row is handed to the exact solver: both costs
grow with n alike, so a heavy row gains as much as a light one, and at a D where exact is cheaper it is so for
every row. A row is gathered once; one that exceeds the workspace is gathered anew, piece by piece, at each step.
The plain twin is :func:`gramian.kernels.reference.cg_half_sweep`.
"""

from __future__ import annotations

from typing import Any

from gramian.kernels.sweep.given import Observed
from gramian.kernels.sweep.row_layout import aligned
from gramian.kernels.vector.compiled import compiled
from gramian.kernels.vector.lanes import lanes, vadd, vfma, vload, vmul, vsplat, vstore, vsum

__all__ = ["STEPS", "cg_rows"]

STEPS = 3  # on the bundled set at K = 256, the RMSE of each epoch is within 1e-4 of that of 2, 4 or 5 steps
WORKSPACE_BYTES = 512 * 1024  # gathered rows that stay in the second-level cache
TOGETHER = 8  # gathered rows that pass through the registers at once


@compiled
def _dot(a: Any, b: Any) -> float:
    total = vmul(vload(a, 0), vload(b, 0))
    for c in range(lanes(a), a.shape[0], lanes(a)):
        total = vfma(vload(a, c), vload(b, c), total)
    return vsum(total)


@compiled
def _gather(panel: Any, targets: Any, width: int, observed: Observed, biased: bool, start: int, stop: int) -> None:
    """Rows v (1 for the fixed row's bias, zeros after) and targets t of some ratings, zeros up to a whole group."""
    fixed = observed.fixed
    factors = fixed.shape[1] - 1 if biased else fixed.shape[1]
    for e in range(stop - start):
        j = observed.indices[start + e]
        row = panel[e * width : (e + 1) * width]
        for c in range(factors):
            row[c] = fixed[j, c]
        targets[e] = fixed.dtype.type(observed.values[start + e]) - observed.offset
        if biased:
            row[factors] = 1.0
            targets[e] -= fixed[j, factors]
    for e in range(stop - start, -(-(stop - start) // TOGETHER) * TOGETHER):
        targets[e] = 0.0
        for c in range(width):
            panel[e * width + c] = 0.0


@compiled
def _add_squares(total: Any, panel: Any, count: int) -> None:
    """Total += Σ v², column by column."""
    width = total.shape[0]
    for c in range(0, width, lanes(panel)):
        run = vload(total, c)
        for e in range(count):
            value = vload(panel, e * width + c)
            run = vfma(value, value, run)
        vstore(total, c, run)


@compiled
def _add_products(out: Any, panel: Any, count: int, x: Any, targets: Any, residual: bool, parts: Any) -> None:
    """Out += Σ (v·x) v, or Σ (t − v·x) v; `parts` holds one number for each row of a group."""
    width, step = x.shape[0], lanes(x)
    for first in range(0, count, TOGETHER):
        v0 = first * width
        v1, v2, v3, v4 = v0 + width, v0 + 2 * width, v0 + 3 * width, v0 + 4 * width
        v5, v6, v7 = v0 + 5 * width, v0 + 6 * width, v0 + 7 * width
        x_c = vload(x, 0)
        s0, s1 = vmul(vload(panel, v0), x_c), vmul(vload(panel, v1), x_c)
        s2, s3 = vmul(vload(panel, v2), x_c), vmul(vload(panel, v3), x_c)
        s4, s5 = vmul(vload(panel, v4), x_c), vmul(vload(panel, v5), x_c)
        s6, s7 = vmul(vload(panel, v6), x_c), vmul(vload(panel, v7), x_c)
        for c in range(step, width, step):
            x_c = vload(x, c)
            s0 = vfma(vload(panel, v0 + c), x_c, s0)
            s1 = vfma(vload(panel, v1 + c), x_c, s1)
            s2 = vfma(vload(panel, v2 + c), x_c, s2)
            s3 = vfma(vload(panel, v3 + c), x_c, s3)
            s4 = vfma(vload(panel, v4 + c), x_c, s4)
            s5 = vfma(vload(panel, v5 + c), x_c, s5)
            s6 = vfma(vload(panel, v6 + c), x_c, s6)
            s7 = vfma(vload(panel, v7 + c), x_c, s7)
        parts[0], parts[1], parts[2], parts[3] = vsum(s0), vsum(s1), vsum(s2), vsum(s3)
        parts[4], parts[5], parts[6], parts[7] = vsum(s4), vsum(s5), vsum(s6), vsum(s7)
        if residual:
            for k in range(TOGETHER):
                parts[k] = targets[first + k] - parts[k]
        p0, p1, p2, p3 = vsplat(parts, 0), vsplat(parts, 1), vsplat(parts, 2), vsplat(parts, 3)
        p4, p5, p6, p7 = vsplat(parts, 4), vsplat(parts, 5), vsplat(parts, 6), vsplat(parts, 7)
        for c in range(0, width, step):
            low = vfma(p0, vload(panel, v0 + c), vload(out, c))
            low = vfma(p1, vload(panel, v1 + c), low)
            low = vfma(p2, vload(panel, v2 + c), low)
            low = vfma(p3, vload(panel, v3 + c), low)
            high = vmul(p4, vload(panel, v4 + c))
            high = vfma(p5, vload(panel, v5 + c), high)
            high = vfma(p6, vload(panel, v6 + c), high)
            high = vfma(p7, vload(panel, v7 + c), high)
            vstore(out, c, vadd(low, high))


@compiled
def cg_rows(
    out: Any, observed: Observed, biased: bool, penalty: Any, by_count: bool, steps: int, start: int, stop: int
) -> None:
    """Take ``steps`` steps on rows ``start`` … ``stop`` of ``out``, in place; ``penalty`` is Λ's diagonal, (D,).

    A row without ratings becomes zero; all ratings count the same. ``biased`` and ``by_count`` are those of
    :func:`gramian.kernels.sweep.half_sweep.prepared`.
    """
    indptr, size, one = observed.indptr, out.shape[1], out.dtype.type(1.0)
    width = -(-size // lanes(out)) * lanes(out)
    room = max(64, WORKSPACE_BYTES // (width * out.itemsize) // TOGETHER * TOGETHER)
    panel, targets, parts = aligned(room * width, out), aligned(room, out), aligned(TOGETHER, out)
    x, r, z, p = aligned(width, out), aligned(width, out), aligned(width, out), aligned(width, out)
    q, prior, diagonal = aligned(width, out), aligned(width, out), aligned(width, out)

    for i in range(start, stop):
        lo, hi = indptr[i], indptr[i + 1]
        if lo == hi:
            out[i] = 0.0
            continue
        scale = out.dtype.type(hi - lo) if by_count else one
        for c in range(size):
            x[c] = out[i, c]
            prior[c] = scale * penalty[c]
            diagonal[c] = prior[c]
            r[c] = -prior[c] * x[c]
        whole = hi - lo <= room
        for first in range(lo, hi, room):
            last = min(hi, first + room)
            _gather(panel, targets, width, observed, biased, first, last)
            _add_squares(diagonal, panel, last - first)
            _add_products(r, panel, last - first, x, targets, True, parts)
        for c in range(size):
            diagonal[c] = one / diagonal[c] if diagonal[c] > 0 else out.dtype.type(0.0)
            z[c] = diagonal[c] * r[c]
            p[c] = z[c]
        length = _dot(r, z)
        for _ in range(steps):
            for c in range(size):
                q[c] = prior[c] * p[c]
            for first in range(lo, hi, room):
                last = min(hi, first + room)
                if not whole:
                    _gather(panel, targets, width, observed, biased, first, last)
                _add_products(q, panel, last - first, p, targets, False, parts)
            curvature = _dot(p, q)
            if not (length > 0 and curvature > 0):  # the row is solved
                break
            along = length / curvature
            for c in range(size):
                x[c] += along * p[c]
                r[c] -= along * q[c]
                z[c] = diagonal[c] * r[c]
            longer = _dot(r, z)
            turn = longer / length
            length = longer
            for c in range(size):
                p[c] = z[c] + turn * p[c]
        for c in range(size):
            out[i, c] = x[c]
