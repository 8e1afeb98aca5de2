"""Rows in half precision: one instruction for a register full, where the processor has it; NumPy's loop has none."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.vector.compiled import borrowing
from gramian.kernels.vector.lanes import FEATURES, IS_ARM, Emit, lanes

__all__ = ["AVAILABLE", "narrow"]

AVAILABLE = IS_ARM or bool({"f16c", "avx512f"} & FEATURES)


@intrinsic
def _narrow(typingctx: Any, out: types.Array, rows: types.Array, at: types.Integer) -> Any:
    """out[at : at + W] = the bits of rows[at : at + W] rounded to float16."""

    def lower(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, rows.dtype)
        value = emit.load(emit.at(emit.data(rows, args[1]), args[2]))
        half = builder.fptrunc(value, ir.VectorType(ir.HalfType(), emit.lanes))
        place = emit.at(emit.data(out, args[0]), args[2])
        builder.store(half, builder.bitcast(place, half.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(out, rows, types.intp), lower


@borrowing
def narrow(out: Any, rows: Any, start: int, stop: int) -> None:
    """Out (uint16, flat) = the bits of ``rows`` (float32, flat) as float16, from ``start`` in whole registers."""
    for at in range(start, stop, lanes(rows)):
        _narrow(out, rows, at)
