"""W small systems solved at once, one in every lane of the registers.

The arithmetic of a lane never looks at another lane, so a row's bits do not
depend on which rows share its registers. Layout of `mat`: element (c, j) of all
systems is the register at (c·ncol + j)·W, for j ≥ c; column `size` is y.

    A = UᵀU row by row:  U_c = (A_c - Σ_{p<c} U_pc U_p) / √pivot
    the column y becomes z = U⁻ᵀ y on the way;  x = U⁻¹ (z + normals)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.sweep.given import Shape
from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import INT, REGISTERS, Emit, lanes, lanes_of, vfnma, vload, vmul, vstore

BLOCK = 4 if REGISTERS == 32 else 2  # a tile is BLOCK × BLOCK registers


@intrinsic
def block(typingctx: Any, array: types.Array) -> Any:
    """BLOCK as a constant of the compiled code."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return ir.Constant(INT, BLOCK)

    return types.intp(array), lower


class _LaneTile:
    """Emits one BLOCK × `wide` tile: update by the rows above, then finish it."""

    def __init__(self, emit: Emit, wide: int, args: Any, arrays: Any) -> None:
        self.emit, self.wide = emit, wide
        mat, ncol, self.row, self.column, inverse = args[:5]
        self.ncol = ncol
        self.mat = emit.data(arrays[0], mat)
        self.inverse = emit.at(emit.data(arrays[1], inverse), self.times_lanes(self.row))

    def times_lanes(self, value: ir.Value) -> ir.Value:
        return self.emit.builder.mul(value, ir.Constant(INT, self.emit.lanes))

    def element(self, row: ir.Value, column: ir.Value) -> ir.Value:
        b = self.emit.builder
        return self.emit.at(self.mat, self.times_lanes(b.add(b.mul(row, self.ncol), column)))

    def ahead(self, pointer: ir.Value, registers: int) -> ir.Value:
        return self.emit.at(pointer, ir.Constant(INT, registers * self.emit.lanes))

    def own(self, r: int, s: int) -> ir.Value:
        row = self.emit.builder.add(self.row, ir.Constant(INT, r))
        return self.ahead(self.element(row, self.column), s)

    def updated(self) -> list[list[ir.Value]]:
        """The tile less Σ_{p < row} U_pc U_pj."""
        emit, wide = self.emit, self.wide
        start = [emit.load(self.own(r, s)) for r in range(BLOCK) for s in range(wide)]

        def body(p: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
            left, right = self.element(p, self.row), self.element(p, self.column)
            columns = [emit.load(self.ahead(right, s)) for s in range(wide)]
            result = []
            for r in range(BLOCK):
                factor = emit.load(self.ahead(left, r))
                for s in range(wide):
                    result.append(emit.fnma(factor, columns[s], acc[r * wide + s]))
            return result

        done = emit.loop(self.row, start, body)
        return [done[r * wide : (r + 1) * wide] for r in range(BLOCK)]

    def keep(self, acc: list[list[ir.Value]]) -> None:
        for r in range(BLOCK):
            for s in range(self.wide):
                self.emit.store(acc[r][s], self.own(r, s))

    def substitute(self, acc: list[list[ir.Value]]) -> None:
        """Rows of the tile right of the diagonal, given the diagonal tile's U."""
        emit = self.emit
        for r in range(BLOCK):
            scale = emit.load(self.ahead(self.inverse, r))
            for s in range(self.wide):
                for q in range(r):
                    row = emit.builder.add(self.row, ir.Constant(INT, q))
                    factor = emit.load(self.ahead(self.element(row, self.row), r))
                    acc[r][s] = emit.fnma(factor, acc[q][s], acc[r][s])
                acc[r][s] = emit.builder.fmul(acc[r][s], scale)

    def factor(self, acc: list[list[ir.Value]], limits: list[ir.Value], size: ir.Value, bad: ir.Value) -> ir.Value:
        """Cholesky of the diagonal tile; a lane with a pivot ≤ limit is marked in `bad`.

        Rows from `size` on are padding: computed, never marked.
        """
        emit, b = self.emit, self.emit.builder
        one = emit.constant(1.0)
        for r in range(BLOCK):
            sound = b.fcmp_ordered(">", acc[r][r], limits[r])
            row = b.add(self.row, ir.Constant(INT, r))
            padding = emit.splat_bit(b.icmp_signed(">=", row, size))
            bad = b.select(b.or_(sound, padding), bad, one)
            root = emit.sqrt(b.select(sound, acc[r][r], one))
            scale = b.fdiv(one, root)
            emit.store(scale, self.ahead(self.inverse, r))
            for s in range(r + 1, BLOCK):
                acc[r][s] = b.fmul(acc[r][s], scale)
            for q in range(r + 1, BLOCK):
                for s in range(q, BLOCK):
                    acc[q][s] = emit.fnma(acc[r][q], acc[r][s], acc[q][s])
        return bad


def _right_tile(wide: int) -> Any:
    @intrinsic
    def right(
        typingctx: Any,
        mat: types.Array,
        ncol: types.Integer,
        row: types.Integer,
        column: types.Integer,
        inverse: types.Array,
    ) -> Any:
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            tile = _LaneTile(Emit(context, builder, mat.dtype), wide, args, (mat, inverse))
            acc = tile.updated()
            tile.substitute(acc)
            tile.keep(acc)
            return context.get_dummy_value()

        return types.void(mat, types.intp, types.intp, types.intp, inverse), lower

    return right


_right_full = _right_tile(BLOCK)
_right_one = _right_tile(1)


@intrinsic
def _diagonal(
    typingctx: Any,
    mat: types.Array,
    ncol: types.Integer,
    row: types.Integer,
    size: types.Integer,
    tolerance: types.Float,
    inverse: types.Array,
    bad: types.Array,
) -> Any:
    """Factor the diagonal tile at `row`; a pivot at most tolerance · A_cc marks its lane."""
    scalar = mat.dtype

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, scalar)
        order = [args[0], args[1], args[2], args[2], args[5]]
        tile = _LaneTile(emit, BLOCK, order, (mat, inverse))
        tolerance_v, bad_p = emit.splat(args[4]), emit.data(bad, args[6])
        limits = [builder.fmul(tolerance_v, emit.load(tile.own(r, r))) for r in range(BLOCK)]
        acc = tile.updated()
        emit.store(tile.factor(acc, limits, args[3], emit.load(bad_p)), bad_p)
        tile.keep(acc)
        return context.get_dummy_value()

    number = types.intp
    return types.void(mat, number, number, number, scalar, inverse, bad), lower


@intrinsic
def transpose(
    typingctx: Any,
    dst: types.Array,
    dst_at: types.Integer,
    dst_stride: types.Integer,
    src: types.Array,
    src_at: types.Integer,
    src_stride: types.Integer,
) -> Any:
    """dst[dst_at + b·dst_stride + a] = src[src_at + a·src_stride + b], a, b < W."""
    scalar = dst.dtype

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, scalar)
        n = lanes_of(scalar)
        out = emit.at(emit.data(dst, args[0]), args[1])
        inp = emit.at(emit.data(src, args[3]), args[4])
        rows = [emit.load(emit.at(inp, builder.mul(args[5], ir.Constant(INT, a)))) for a in range(n)]
        kind = ir.VectorType(ir.IntType(32), n)
        half = 1
        while half < n:  # swap the off-diagonal half-blocks of every 2·half × 2·half block
            low = [k if not k & half else n + k - half for k in range(n)]
            high = [k + half if not k & half else n + k for k in range(n)]
            for a in range(n):
                if not a & half:
                    x, y = rows[a], rows[a + half]
                    rows[a] = builder.shuffle_vector(x, y, ir.Constant(kind, low))
                    rows[a + half] = builder.shuffle_vector(x, y, ir.Constant(kind, high))
            half *= 2
        for b in range(n):
            emit.store(rows[b], emit.at(out, builder.mul(args[2], ir.Constant(INT, b))))
        return context.get_dummy_value()

    number = types.intp
    return types.void(dst, number, number, src, number, number), lower


@borrowing
def interleave(mat: Any, ncol: int, slots: Any, totals: Any, shape: Shape, group: int) -> None:
    """Slots one after the other → one register per element, y in column `size`.

    A transpose may spill past what it should write; the next write mends that.
    """
    columns, factors, size = shape.columns, shape.factors, shape.size
    width, square, slot_size = lanes(mat), columns * columns, columns * (columns + 2)
    for c in range(factors):
        for j in range(c // width * width, columns, width):
            transpose(mat, (c * ncol + j) * width, width, slots, c * columns + j, slot_size)
    for j in range(0, columns, width):
        if size > factors:
            at = (j * ncol + factors) * width
            transpose(mat, at, ncol * width, slots, square + columns + j, slot_size)
        at = (j * ncol + size) * width
        transpose(mat, at, ncol * width, slots, square + j, slot_size)
    if size > factors:
        at = (factors * ncol + factors) * width
        for lane in range(group):
            mat[at + lane] = totals[2 * lane]
            mat[at + width + lane] = totals[2 * lane + 1]


@borrowing
def factor_lanes(mat: Any, ncol: int, size: int, tolerance: float, inverse: Any, bad: Any) -> None:
    """A → U in place with y → z; `inverse` = 1 / diagonal; bad = 1 where not definite."""
    side = block(mat)
    bad[:] = 0
    for row in range(0, size, side):
        _diagonal(mat, ncol, row, size, tolerance, inverse, bad)
        column = row + side
        while column + side <= ncol:
            _right_full(mat, ncol, row, column, inverse)
            column += side
        while column <= size:
            _right_one(mat, ncol, row, column, inverse)
            column += 1


@borrowing
def back_lanes(mat: Any, ncol: int, size: int, inverse: Any) -> None:
    """X = U⁻¹ z in column `size`, in place."""
    width = lanes(mat)
    for c in range(size - 1, -1, -1):
        place = (c * ncol + size) * width
        x = vmul(vload(mat, place), vload(inverse, c * width))
        vstore(mat, place, x)
        for p in range(c):
            at = (p * ncol + size) * width
            vstore(mat, at, vfnma(vload(mat, (p * ncol + c) * width), x, vload(mat, at)))
