"""The products and steps that draw the coefficients of features, in the precision of the rows.

Rows of the dense side are padded to whole registers, so that a sum of them stays in registers: gathering them is
then all that a product costs. Every sum over rows is made in pieces that do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.compiled import borrowing
from gramian.kernels.draw import fill_normals
from gramian.kernels.lanes import INT, Emit, lanes, vfma, vfnma, vload, vmul, vsplat, vstore

__all__ = ["advance", "bend", "noisy_rows", "sparse_times", "turn"]

GROUP = 3  # registers of one row that are summed at a time: 48 columns of float32 where a register holds 16


def _summing(vectors: int) -> Any:
    """Make the intrinsic that sums `vectors` registers of the rows of one sparse row."""

    @intrinsic
    def add(
        typingctx: Any,
        out: types.Array,  # flat; out[at :] = Σ_e values[e] · other[indices[e] · stride + column :]
        at: types.Integer,
        values: types.Array,
        indices: types.Array,
        start: types.Integer,
        count: types.Integer,
        other: types.Array,
        stride: types.Integer,
        column: types.Integer,
    ) -> Any:
        number = types.intp

        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            emit = Emit(context, builder, other.dtype)
            value_p = emit.at(emit.data(values, args[2]), args[4])
            index_p = emit.at(emit.data(indices, args[3]), args[4])
            other_p = emit.at(emit.data(other, args[6]), args[8])

            def ahead(pointer: ir.Value, v: int) -> ir.Value:
                return emit.at(pointer, ir.Constant(INT, v * emit.lanes))

            def body(e: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
                j = builder.sext(builder.load(emit.at(index_p, e)), INT)
                row, value = emit.at(other_p, builder.mul(j, args[7])), emit.broadcast(emit.at(value_p, e))
                return [emit.fma(value, emit.load(ahead(row, v)), acc[v]) for v in range(vectors)]

            done = emit.loop(args[5], [emit.constant(0.0)] * vectors, body)
            out_p = emit.at(emit.data(out, args[0]), args[1])
            for v, value in enumerate(done):
                emit.store(value, ahead(out_p, v))
            return context.get_dummy_value()

        return types.void(out, number, values, indices, number, number, other, number, number), lower

    return add


_add_group, _add_one = _summing(GROUP), _summing(1)


@borrowing
def sparse_times(
    indptr: Any, indices: Any, values: Any, other: Any, width: int, out: Any, start: int, stop: int
) -> None:
    """Rows ``start`` … ``stop``: out_i = Σ_j s_ij v_j.

    ``other`` and ``out`` are flat, with rows of ``width``, a multiple of the lanes; ``values`` of their dtype.
    """
    step = lanes(other)
    for i in range(start, stop):
        lo, count, column = indptr[i], indptr[i + 1] - indptr[i], 0
        while column + GROUP * step <= width:
            _add_group(out, i * width + column, values, indices, lo, count, other, width, column)
            column += GROUP * step
        while column < width:
            _add_one(out, i * width + column, values, indices, lo, count, other, width, column)
            column += step


# Flat arrays of rows of ``width`` numbers, a multiple of the lanes, from here on. A column of registers at a time,
# so that what all rows share stays in registers.


@borrowing
def advance(
    x: Any, r: Any, p: Any, q: Any, along: Any, inverse: Any, width: int, first: int, last: int, length: Any
) -> None:
    """Make x += a p, r −= a q, and length = Σ r · r / d over the rows ``first`` … ``last``: one step.

    ``along`` has a zero after its ``width`` numbers.
    """
    for c in range(0, width, lanes(x)):
        a = vload(along, c)
        total = vmul(a, vsplat(along, width))
        for i in range(first, last):
            at = i * width + c
            vstore(x, at, vfma(a, vload(p, at), vload(x, at)))
            rest = vfnma(a, vload(q, at), vload(r, at))
            vstore(r, at, rest)
            total = vfma(vmul(vsplat(inverse, i), rest), rest, total)
        vstore(length, c, total)


@borrowing
def turn(p: Any, r: Any, ratio: Any, inverse: Any, width: int, first: int, last: int) -> None:
    """Make p = r / d + b p over the rows ``first`` … ``last``: the next direction."""
    for c in range(0, width, lanes(p)):
        b = vload(ratio, c)
        for i in range(first, last):
            at = i * width + c
            vstore(p, at, vfma(b, vload(p, at), vmul(vsplat(inverse, i), vload(r, at))))


@borrowing
def bend(q: Any, p: Any, ridge: Any, width: int, first: int, last: int, length: Any) -> None:
    """Make q += c p and length = Σ p · q over the rows ``first`` … ``last``; ``ridge`` holds c and a zero."""
    c_v = vsplat(ridge, 0)
    for c in range(0, width, lanes(q)):
        total = vmul(c_v, vsplat(ridge, 1))
        for i in range(first, last):
            at = i * width + c
            here = vload(p, at)
            value = vfma(c_v, here, vload(q, at))
            vstore(q, at, value)
            total = vfma(value, here, total)
        vstore(length, c, total)


@borrowing
def noisy_rows(
    out: Any, rows: Any, mean: Any, matrix: Any, room: Any, seed: int, side: int, first: int, last: int
) -> None:
    """Make out_i = (x_i − m) L + normals, which depend on (seed, side, i) alone; where L has no rows, there is no x."""
    together, size = lanes(out), matrix.shape[1]
    for begin in range(first, last, together):
        fill_normals(room, together, size, seed, 0, side, begin)
        for lane in range(min(together, last - begin)):
            for c in range(size):
                out[begin + lane, c] = room[c * together + lane]
            for k in range(matrix.shape[0]):
                value = rows[begin + lane, k] - mean[k]
                for c in range(size):
                    out[begin + lane, c] += value * matrix[k, c]
