"""Four numbers side by side: the scalars of four rows at once, as one vector of four lanes on every processor.

Sums over registers, and the numbers that stand beside a row, go in by four and come out by four: what a kernel does
with one number for each row then costs a quarter of it. ``+ - * /`` work lane by lane.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic, overload

from gramian.kernels.vector.lanes import Emit, Vec, float_ir

__all__ = ["four_codes", "prefetch", "qfill", "qload", "qsqrt", "qstore", "qsum", "qtotal", "spread", "transpose",
           "widen", "widen_to"]  # fmt: skip

FOUR = 4


def _pick(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
    """The lanes of a and, counted on, of b in an order."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order)))


def _fold_pair(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, first: Sequence[int], second: Sequence[int]) -> Any:
    """In every four lanes the sum of two choices out of eight, those of a and of b."""
    n = a.type.count

    def chosen(order: Sequence[int]) -> ir.Value:
        return _pick(builder, a, b, [g + k % FOUR + n * (k // FOUR) for g in range(0, n, FOUR) for k in order])

    return builder.fadd(chosen(first), chosen(second))


def _sums(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value, d: ir.Value) -> ir.Value:
    """The sums of four registers in four lanes, by halves."""
    if a.type.count < FOUR:  # two lanes
        ab, cd = (builder.fadd(_pick(builder, x, y, (0, 2)), _pick(builder, x, y, (1, 3))) for x, y in ((a, b), (c, d)))
        return _pick(builder, ab, cd, range(FOUR))
    ab, cd = (_fold_pair(builder, x, y, (0, 4, 1, 5), (2, 6, 3, 7)) for x, y in ((a, b), (c, d)))
    made = _fold_pair(builder, ab, cd, (0, 1, 4, 5), (2, 3, 6, 7))
    while (half := made.type.count // 2) >= FOUR:
        made = builder.fadd(_pick(builder, made, made, range(half)), _pick(builder, made, made, range(half, 2 * half)))
    return made


@intrinsic
def qsum(typingctx: Any, a: Vec, b: Vec, c: Vec, d: Vec) -> Any:
    """The sums of four registers."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return _sums(builder, *args)

    return Vec(a.scalar, FOUR)(a, b, c, d), lower


@intrinsic
def transpose(typingctx: Any, a: Vec, b: Vec, c: Vec, d: Vec) -> Any:
    """Four rows of four as four columns."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        w, x, y, z = args
        columns = []
        for k in (0, 2):
            even, odd = (_pick(builder, p, q, (k, k + 4, k + 1, k + 5)) for p, q in ((w, y), (x, z)))
            columns += [_pick(builder, even, odd, (half, half + 4, half + 1, half + 5)) for half in (0, 2)]
        return context.make_tuple(builder, signature.return_type, columns)

    return UniTuple(a, FOUR)(a, b, c, d), lower


@intrinsic
def spread(typingctx: Any, array: types.Array, four: Vec) -> Any:
    """Each of the four numbers in every lane of a register of `array`'s type."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        lanes = Vec(array.dtype).count
        made = [_pick(builder, args[1], args[1], [k] * lanes) for k in range(FOUR)]
        return context.make_tuple(builder, signature.return_type, made)

    return UniTuple(Vec(array.dtype), FOUR)(array, four), lower


@intrinsic
def qload(typingctx: Any, array: types.Array, index: types.Integer) -> Any:
    """array[index : index + 4]."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        kind = ir.VectorType(emit.element, FOUR).as_pointer()
        return builder.load(builder.bitcast(emit.at(emit.data(array, args[0]), args[1]), kind), align=emit.align)

    return Vec(array.dtype, FOUR)(array, types.intp), lower


@intrinsic
def qstore(typingctx: Any, array: types.Array, index: types.Integer, value: Vec) -> Any:
    """array[index : index + 4] = value."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        kind = args[2].type.as_pointer()
        place = builder.bitcast(emit.at(emit.data(array, args[0]), args[1]), kind)
        builder.store(args[2], place, align=emit.align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), lower


@intrinsic
def qfill(typingctx: Any, array: types.Array, value: types.Number) -> Any:
    """A number in every lane, of `array`'s type."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        return emit.splat_as(args[1], ir.VectorType(emit.element, FOUR))

    return Vec(array.dtype, FOUR)(array, array.dtype), lower


@intrinsic
def qsqrt(typingctx: Any, a: Vec) -> Any:
    """√a."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return Emit(context, builder, a.scalar).sqrt(args[0])

    return a(a), lower


def _widened(builder: ir.IRBuilder, value: ir.Value, element: ir.Type) -> ir.Value:
    return value if value.type.element == element else builder.fpext(value, ir.VectorType(element, FOUR))


@intrinsic
def widen(typingctx: Any, a: Vec) -> Any:
    """The same numbers in double precision."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return _widened(builder, args[0], ir.DoubleType())

    return Vec(types.float64, FOUR)(a), lower


@intrinsic
def widen_to(typingctx: Any, array: types.Array, a: Vec) -> Any:
    """The same numbers in the type of `array`, or as they are."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return _widened(builder, args[1], float_ir(array.dtype))

    return Vec(array.dtype, FOUR)(array, a), lower


@intrinsic
def qtotal(typingctx: Any, a: Vec) -> Any:
    """The sum of the four numbers."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        lanes = [builder.extract_element(args[0], ir.Constant(ir.IntType(32), k)) for k in range(FOUR)]
        return builder.fadd(builder.fadd(lanes[0], lanes[2]), builder.fadd(lanes[1], lanes[3]))

    return a.scalar(a), lower


@intrinsic
def four_codes(typingctx: Any, codes: types.Array, index: types.Integer) -> Any:
    """codes[index : index + 4] as whole numbers; an index is not checked for counting from the end."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, types.float32)
        first = emit.at(emit.data(codes, args[0]), args[1])
        made = [builder.load(emit.at(first, ir.Constant(args[1].type, k))) for k in range(FOUR)]
        wide = [context.cast(builder, code, codes.dtype, types.intp) for code in made]
        return context.make_tuple(builder, signature.return_type, wide)

    return UniTuple(types.intp, FOUR)(codes, types.intp), lower


@intrinsic
def prefetch(typingctx: Any, array: types.Array, index: types.Integer) -> Any:
    """Ask for the cache line of array[index] without waiting for it."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        emit.prefetch(emit.at(emit.data(array, args[0]), args[1]), 3)
        return context.get_dummy_value()

    return types.void(array, types.intp), lower


def _lane_by_lane(operation: Any, instruction: str) -> None:
    """Let Python's operator work on vectors."""

    @intrinsic
    def apply(typingctx: Any, a: Vec, b: Vec) -> Any:
        def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
            return getattr(builder, instruction)(*args)

        return a(a, b), lower

    @overload(operation, strict=False)
    def choose(a: Any, b: Any) -> Any:
        return (lambda a, b: apply(a, b)) if isinstance(a, Vec) and a == b else None


for _operation, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    _lane_by_lane(_operation, _instruction)
