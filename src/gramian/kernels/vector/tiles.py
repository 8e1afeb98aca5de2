"""Accumulator tiles held in registers: the inner loops of the Gramian and of Cholesky.

One generator serves both, because both are the same sum: with rows l_e, r_e

    dst[a, b] = out · (scale · src[a, b] + Σ_e l_e[a] · r_e[b])

the Gramian has l = r = the gathered rows; left-looking Cholesky has l = r = the
rows of U found so far, with scale = out = -1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.vector.lanes import INT, REGISTERS, Emit, lanes_of

# A tile of TILE_ROWS × (at most) 3 accumulators leaves registers for one row of
# vectors and one broadcast: 24 + 3 + 1 of 32, or 12 + 3 + 1 of 16.
TILE_ROWS = 8 if REGISTERS == 32 else 4
PREFETCH_LEVEL = 2  # into the second-level cache: the first holds the panel


def _emit_tile(emit: Emit, rows: int, vectors: int, arrays: Any, args: Any, each: Callable[[ir.Value], None]) -> None:
    """The tile's load, loop and store; `each(e)` may add instructions to step e."""
    builder = emit.builder
    dst, dst_at, src, src_at, stride, scale, out, panel, left, right, step, count = args[:12]
    dst_p = emit.at(emit.data(arrays[0], dst), dst_at)
    src_p = emit.at(emit.data(arrays[1], src), src_at)
    base = emit.data(arrays[2], panel)
    left_p, right_p = emit.at(base, left), emit.at(base, right)
    scale_v, out_v = emit.splat(scale), emit.splat(out)

    def ahead(pointer: ir.Value, elements: int) -> ir.Value:
        return emit.at(pointer, ir.Constant(INT, elements))

    def place(pointer: ir.Value, row: int, vector: int) -> ir.Value:
        line = emit.at(pointer, builder.mul(stride, ir.Constant(INT, row)))
        return ahead(line, vector * emit.lanes)

    def body(e: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
        each(e)
        at = builder.mul(e, step)
        left_e, right_e = emit.at(left_p, at), emit.at(right_p, at)
        columns = [emit.load(ahead(right_e, v * emit.lanes)) for v in range(vectors)]
        result = []
        for r in range(rows):
            factor = emit.broadcast(ahead(left_e, r))
            for v in range(vectors):
                result.append(emit.fma(factor, columns[v], acc[r * vectors + v]))
        return result

    cells = [(r, v) for r in range(rows) for v in range(vectors)]
    start = [builder.fmul(scale_v, emit.load(place(src_p, r, v))) for r, v in cells]
    done = emit.loop(count, start, body)
    for (r, v), value in zip(cells, done, strict=True):
        emit.store(builder.fmul(out_v, value), place(dst_p, r, v))


def _signature(dst: types.Array, src: types.Array, panel: types.Array, *more: Any) -> Any:
    number, scalar = types.intp, dst.dtype
    return types.void(
        dst, number, src, number, number, scalar, scalar, panel, number, number, number, number,
        *more,
    )  # fmt: skip


def _tile(rows: int, vectors: int) -> Any:
    """Make the intrinsic for a tile of `rows` × `vectors` registers."""

    @intrinsic
    def tile(
        typingctx: Any,
        dst: types.Array,  # result; first element at dst_at, row stride `stride`
        dst_at: types.Integer,
        src: types.Array,  # what is added to, same row stride
        src_at: types.Integer,
        stride: types.Integer,
        scale: types.Float,
        out: types.Float,
        panel: types.Array,  # rows l_e = panel[left + e·step :], r_e = panel[right + e·step :]
        left: types.Integer,
        right: types.Integer,
        step: types.Integer,
        count: types.Integer,
    ) -> Any:
        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            emit = Emit(context, builder, dst.dtype)
            _emit_tile(emit, rows, vectors, (dst, src, panel), args, lambda e: None)
            return context.get_dummy_value()

        return _signature(dst, src, panel), lower

    return tile


def _asking_tile(rows: int, vectors: int) -> Any:
    """The same tile; every step also asks for one cache line that a later block gathers.

    So memory works while the multipliers do.
    """

    @intrinsic
    def tile(
        typingctx: Any,
        dst: types.Array,
        dst_at: types.Integer,
        src: types.Array,
        src_at: types.Integer,
        stride: types.Integer,
        scale: types.Float,
        out: types.Float,
        panel: types.Array,
        left: types.Integer,
        right: types.Integer,
        step: types.Integer,
        count: types.Integer,
        coming: types.Array,  # step e asks for coming[hints[first + e]·coming_step + line]
        coming_step: types.Integer,
        line: types.Integer,
        hints: types.Array,
        first: types.Integer,
    ) -> Any:
        number = types.intp

        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            emit = Emit(context, builder, dst.dtype)
            coming_p = emit.at(emit.data(coming, args[12]), args[14])
            hint_p = emit.at(emit.data(hints, args[15]), args[16])

            def ask(e: ir.Value) -> None:
                j = builder.sext(builder.load(emit.at(hint_p, e)), INT)
                emit.prefetch(emit.at(coming_p, builder.mul(j, args[13])), PREFETCH_LEVEL)

            _emit_tile(emit, rows, vectors, (dst, src, panel), args, ask)
            return context.get_dummy_value()

        more = (coming, number, number, hints, number)
        return _signature(dst, src, panel, *more), lower

    return tile


tile_1, tile_2, tile_3 = (_tile(TILE_ROWS, vectors) for vectors in (1, 2, 3))
asking_1, asking_2, asking_3 = (_asking_tile(TILE_ROWS, vectors) for vectors in (1, 2, 3))
asking_tall = _asking_tile(2 * TILE_ROWS, 1)  # the last column: one vector feeds twice the rows


@intrinsic
def tile_rows(typingctx: Any, array: types.Array) -> Any:
    """Rows of a tile: a constant of the compiled code."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return ir.Constant(INT, TILE_ROWS)

    return types.intp(array), lower


def padding_of(scalar: types.Type) -> int:
    """K is padded to a multiple of this inside the kernels."""
    return max(lanes_of(scalar), TILE_ROWS)


@intrinsic
def padding(typingctx: Any, array: types.Array) -> Any:
    """`padding_of` as a constant of the compiled code."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return ir.Constant(INT, padding_of(array.dtype))

    return types.intp(array), lower
