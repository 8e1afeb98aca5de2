"""One larger system at a time: left-looking Cholesky by blocks of tile rows.

    U_c = √pivot⁻¹ (A_c - Σ_{p<c} U_pc U_p)

The sum over the rows above is the Gramian's own tile; what is left per block is
a small triangle kept in scalar registers. `slot` holds the matrix row by row,
then y, then the bias column; the bias, when solved for, borders the matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.sweep.given import RowSystem, Shape
from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import INT, Emit, lanes, vfma, vfnma, vload, vmul, vsplat, vstore, vsum
from gramian.kernels.vector.tiles import TILE_ROWS, tile_1, tile_2, tile_3, tile_rows


@intrinsic
def _triangle(
    typingctx: Any,
    slot: types.Array,
    at: types.Integer,
    stride: types.Integer,
    limits: types.Array,
    row: types.Integer,
    small: types.Array,
    inverse: types.Array,
) -> Any:
    """Factor the TILE_ROWS² triangle at slot[at]: `small` = its U, `inverse` = 1 / diagonal.

    Returns how many pivots were not above limits[row + r]. Pivots are divided by,
    not by their roots: the roots are off the chain of dependent operations.
    """
    scalar, n = slot.dtype, TILE_ROWS

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, scalar)
        b, one = builder, ir.Constant(emit.element, 1.0)
        origin = emit.at(emit.data(slot, args[0]), args[1])
        limit_p = emit.at(emit.data(limits, args[3]), args[4])
        small_p, inverse_p = (
            emit.data(small, args[5]),
            emit.at(emit.data(inverse, args[6]), args[4]),
        )

        def spot(pointer: ir.Value, index: int) -> ir.Value:
            return emit.at(pointer, ir.Constant(INT, index))

        a: dict[tuple[int, int], ir.Value] = {}
        for r in range(n):
            line = emit.at(origin, b.mul(args[2], ir.Constant(INT, r)))
            for s in range(r, n):
                a[r, s] = b.load(spot(line, s))
        wrong = ir.Constant(INT, 0)
        for r in range(n):
            sound = b.fcmp_ordered(">", a[r, r], b.load(spot(limit_p, r)))
            wrong = b.add(wrong, b.zext(b.not_(sound), INT))
            reciprocal = b.fdiv(one, b.select(sound, a[r, r], one))
            root = emit.sqrt(reciprocal)
            b.store(root, spot(inverse_p, r))
            for q in range(r + 1, n):
                factor = b.fneg(b.fmul(a[r, q], reciprocal))
                for s in range(q, n):
                    a[q, s] = emit.fma(factor, a[r, s], a[q, s])
                b.store(b.fmul(a[r, q], root), spot(small_p, r * n + q))
        return wrong

    number = types.intp
    return number(slot, number, number, limits, number, small, inverse), lower


@intrinsic
def _finish(
    typingctx: Any,
    slot: types.Array,
    at: types.Integer,
    stride: types.Integer,
    small: types.Array,
    inverse: types.Array,
    row: types.Integer,
) -> Any:
    """One register column of a block of rows: divide by the block's triangle."""
    scalar = slot.dtype

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, scalar)
        origin = emit.at(emit.data(slot, args[0]), args[1])
        small_p, inverse_p = (
            emit.data(small, args[3]),
            emit.at(emit.data(inverse, args[4]), args[5]),
        )
        places = [emit.at(origin, builder.mul(args[2], ir.Constant(INT, r))) for r in range(TILE_ROWS)]
        x = [emit.load(place) for place in places]
        for r in range(TILE_ROWS):
            x[r] = builder.fmul(x[r], emit.broadcast(emit.at(inverse_p, ir.Constant(INT, r))))
            for q in range(r + 1, TILE_ROWS):
                factor = emit.at(small_p, ir.Constant(INT, r * TILE_ROWS + q))
                x[q] = emit.fnma(emit.broadcast(factor), x[r], x[q])
        for place, value in zip(places, x, strict=True):
            emit.store(value, place)
        return context.get_dummy_value()

    number = types.intp
    return types.void(slot, number, number, small, inverse, number), lower


@borrowing
def update_rows(slot: Any, columns: int, row: int, sign: float, panel: Any, count: int) -> None:
    """The rows row … row + TILE_ROWS of the matrix gain sign · Σ_{e < count} p_e p_eᵀ, p_e = panel[e·columns :]."""
    sign = slot.dtype.type(sign)
    width = lanes(slot)
    column = row // width * width
    left = (columns - column) // width
    while left > 0:
        at = row * columns + column
        if left == 1:
            tile_1(slot, at, slot, at, columns, sign, sign, panel, row, column, columns, count)
            taken = 1
        elif left == 2 or left == 4:
            tile_2(slot, at, slot, at, columns, sign, sign, panel, row, column, columns, count)
            taken = 2
        else:
            tile_3(slot, at, slot, at, columns, sign, sign, panel, row, column, columns, count)
            taken = 3
        left -= taken
        column += taken * width


@borrowing
def _forward(slot: Any, columns: int, start: int, stop: int, inverse: Any, rhs: int, solved: Any) -> None:
    """solved_p = y_p / U_pp; y -= solved_p U_p, for the rows start … stop; y = slot[rhs:]."""
    width = lanes(slot)
    for p in range(start, stop):
        solved[p] = slot[rhs + p] * inverse[p]
        factor = vsplat(solved, p)
        for j in range(p // width * width, columns, width):
            line = vload(slot, p * columns + j)
            vstore(slot, rhs + j, vfnma(factor, line, vload(slot, rhs + j)))


@borrowing
def factor_system(slot: Any, shape: Shape, tolerance: float, work: Any, small: Any) -> int:
    """A → U in place; y → z, bias column → u. Returns the number of bad pivots.

    work = [1 / diagonal | z | u | limits | x], each `columns` long.
    """
    columns = shape.columns
    height, square = tile_rows(slot), columns * columns
    inverse, z, u = work[:columns], work[columns : 2 * columns], work[2 * columns : 3 * columns]
    limits = work[3 * columns : 4 * columns]
    for c in range(columns):
        limits[c] = tolerance * slot[c * columns + c]
    for c in range(shape.factors, columns):
        limits[c] = 0.0
        slot[c * columns + c] = 1.0
    wrong = 0
    width = lanes(slot)
    for row in range(0, columns, height):
        update_rows(slot, columns, row, -1.0, slot, row)  # less what the rows above explain
        wrong += _triangle(slot, row * columns + row, columns, limits, row, small, inverse)
        for j in range(row // width * width, columns, width):
            _finish(slot, row * columns + j, columns, small, inverse, row)
        _forward(slot, columns, row, row + height, inverse, square, z)
        if shape.biased:
            _forward(slot, columns, row, row + height, inverse, square + columns, u)
    return wrong


@borrowing
def _dot(a: Any, a_at: int, b: Any, b_at: int, count: int) -> float:
    """Σ a_k b_k, `count` a multiple of the width."""
    width = lanes(a)
    total = vmul(vload(a, a_at), vload(b, b_at))
    for j in range(width, count, width):
        total = vfma(vload(a, a_at + j), vload(b, b_at + j), total)
    return vsum(total)


@borrowing
def back_system(slot: Any, columns: int, inverse: Any, z: Any, x: Any) -> None:
    """X = U⁻¹ z, by blocks of rows from the last."""
    height, width = tile_rows(slot), lanes(slot)
    x[:columns] = 0
    for row in range(columns - height, -1, -height):
        begin = row // width * width
        for c in range(row, row + height):
            z[c] -= _dot(slot, c * columns + begin, x, begin, columns - begin)
        for c in range(row + height - 1, row - 1, -1):
            value = z[c]
            for j in range(row + height - 1, c, -1):
                value -= slot[c * columns + j] * x[j]
            x[c] = value * inverse[c]


@borrowing
def solve_system(system: RowSystem, shape: Shape, tolerance: float, normals: Any, work: Any, small: Any) -> int:
    """X in work[4·columns:], the bias after it; returns how many pivots were bad."""
    slot, totals = system.slot, system.totals
    columns, factors = shape.columns, shape.factors
    inverse, z, u = work[:columns], work[columns : 2 * columns], work[2 * columns : 3 * columns]
    x = work[4 * columns :]
    wrong = factor_system(slot, shape, tolerance, work, small)
    bias = totals.dtype.type(0.0)
    if shape.biased:
        corner = totals[0] - _dot(u, 0, u, 0, columns)
        sound = corner > tolerance * totals[0]
        root = np.sqrt(corner) if sound else totals.dtype.type(1.0)
        wrong += 0 if sound else 1
        bias = ((totals[1] - _dot(u, 0, z, 0, columns)) / root + normals[factors]) / root
    for c in range(factors):
        z[c] += normals[c] - u[c] * bias
    back_system(slot, columns, inverse, z, x)
    if shape.biased:
        x[factors] = bias
    return wrong
