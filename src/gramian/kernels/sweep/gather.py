"""Rows of the fixed side, gathered into a contiguous panel that stays in cache.

While a row passes through the registers its share of the right-hand side is
added up too, so those sums cost no second pass:

    panel_e = √w_e v_e        y += (√w_e t_e) panel_e        s += √w_e panel_e

with t_e the rating less the offsets that apply. y is Σ w t v; s = Σ w v is the
column of the Gramian that belongs to the constant 1 (the row's bias).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.sweep.given import Observed, Shape
from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import INT, Emit, lanes

GROUP = 4  # registers of one row that are moved at a time


def _mover(vectors: int, partial: bool) -> Any:
    """Make the intrinsic that moves `vectors` registers of every row of a block."""

    @intrinsic
    def move(
        typingctx: Any,
        fixed: types.Array,
        stride: types.Integer,  # of `fixed`
        indices: types.Array,
        start: types.Integer,  # first rating
        count: types.Integer,
        column: types.Integer,  # first column moved
        valid: types.Integer,  # columns of the last register that exist
        panel: types.Array,
        step: types.Integer,  # row stride of the panel
        roots: types.Array,  # √w_e, then √w_e t_e, `count` apart in pairs
        sums: types.Array,  # y in its first `step` places, then s
    ) -> Any:
        scalar = fixed.dtype
        number = types.intp
        signature = types.void(fixed, number, indices, number, number, number, number, panel, number, roots, sums)

        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            emit = Emit(context, builder, scalar)
            column_v, valid_v, step_v = args[5], args[6], args[8]
            fixed_p = emit.at(emit.data(fixed, args[0]), column_v)
            index_p = emit.at(emit.data(indices, args[2]), args[3])
            panel_p = emit.at(emit.data(panel, args[7]), column_v)
            root_p = emit.data(roots, args[9])
            y_p = emit.at(emit.data(sums, args[10]), column_v)
            s_p = emit.at(y_p, step_v)

            def offset(v: int) -> ir.Value:
                return ir.Constant(INT, v * emit.lanes)

            start = [emit.load(emit.at(p, offset(v))) for p in (y_p, s_p) for v in range(vectors)]

            def body(e: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
                j = builder.sext(builder.load(emit.at(index_p, e)), INT)
                row = emit.at(fixed_p, builder.mul(j, args[1]))
                pair = emit.at(root_p, builder.shl(e, ir.Constant(INT, 1)))
                root = emit.broadcast(pair)
                target = emit.broadcast(emit.at(pair, ir.Constant(INT, 1)))
                result = list(acc)
                for v in range(vectors):
                    place = emit.at(row, offset(v))
                    last = partial and v == vectors - 1
                    value = emit.load_first(place, valid_v) if last else emit.load(place)
                    value = builder.fmul(value, root)
                    emit.store(value, emit.at(emit.at(panel_p, builder.mul(e, step_v)), offset(v)))
                    result[v] = emit.fma(target, value, acc[v])
                    result[vectors + v] = emit.fma(root, value, acc[vectors + v])
                return result

            done = emit.loop(args[4], start, body)
            for position, value in enumerate(done):
                base = y_p if position < vectors else s_p
                emit.store(value, emit.at(base, offset(position % vectors)))
            return context.get_dummy_value()

        return signature, lower

    return move


_move_group = _mover(GROUP, partial=False)
_move_one = _mover(1, partial=False)
_move_last = _mover(1, partial=True)


@borrowing
def prepare_roots(roots: Any, totals: Any, observed: Observed, shape: Shape, start: int, count: int) -> None:
    """Roots = pairs (√w_e, √w_e t_e) of the ratings from ``start`` on; totals += (Σ w, Σ w t).

    t_e = values[e] - offset - (the fixed row's bias).
    """
    fixed, weights = observed.fixed, observed.weights
    kind = fixed.dtype.type
    offset = kind(observed.offset)
    mass, moment = kind(0.0), kind(0.0)
    if not shape.biased and weights.shape[0] == 0:  # nothing to add up: a loop that vectorizes
        for k in range(count):
            roots[2 * k] = 1.0
            roots[2 * k + 1] = kind(observed.values[start + k]) - offset
        return
    for k in range(count):
        e = start + k
        target = kind(observed.values[e]) - offset
        if shape.biased:
            target -= fixed[observed.indices[e], shape.factors]
        weight = weights[e] if weights.shape[0] > 0 else kind(1.0)
        roots[2 * k] = np.sqrt(weight)
        roots[2 * k + 1] = roots[2 * k] * target
        mass += weight
        moment += weight * target
    totals[0] += mass
    totals[1] += moment


@borrowing
def gather(panel: Any, sums: Any, roots: Any, observed: Observed, shape: Shape, start: int, count: int) -> None:
    """Panel = √w v of the ratings from ``start`` on, zero from K to the last column; sums gains y and s."""
    fixed, indices, columns = observed.fixed, observed.indices, shape.columns
    width, stride = lanes(panel), fixed.shape[1]
    column = 0
    while column + 4 * width <= shape.factors:
        _move_group(fixed, stride, indices, start, count, column, width, panel, columns, roots, sums)
        column += 4 * width
    while column + width <= shape.factors:
        _move_one(fixed, stride, indices, start, count, column, width, panel, columns, roots, sums)
        column += width
    if column < shape.factors:
        left = shape.factors - column
        _move_last(fixed, stride, indices, start, count, column, left, panel, columns, roots, sums)
