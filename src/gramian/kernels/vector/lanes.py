"""Explicit vector values for Numba: one `Vec` is one hardware register.

Numba's own loops leave the choice of registers to the auto-vectorizer. Here a
vector is a value of its own (LLVM's `<W x float>`), so that a kernel says which
numbers stay in registers. The width W comes from the target the code is
compiled for; nothing else in the package depends on the processor.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import make_array

INT = ir.IntType(64)
BIT = ir.IntType(1)


def _target_features() -> set[str]:
    """Features of the processor that Numba compiles for (its environment variables win)."""
    if config.CPU_FEATURES is not None:
        return {f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+")}
    if config.CPU_NAME == "generic":
        return set()
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


FEATURES = _target_features()
IS_ARM = platform.machine().lower() in ("arm64", "aarch64")
VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx2" in FEATURES else 16
REGISTERS = 32 if "avx512f" in FEATURES or IS_ARM else 16
HAS_FMA = IS_ARM or "fma" in FEATURES or "avx512f" in FEATURES


def lanes_of(scalar: Any) -> int:
    """Numbers of type `scalar` in one register."""
    return VECTOR_BYTES * 8 // scalar.bitwidth


def float_ir(scalar: Any) -> ir.Type:
    """LLVM's type of one number."""
    return ir.FloatType() if scalar == types.float32 else ir.DoubleType()


def vector_ir(scalar: Any) -> ir.VectorType:
    """LLVM's type of one register."""
    return ir.VectorType(float_ir(scalar), lanes_of(scalar))


class Vec(types.Type):
    """Numba type of one register full of `scalar`s, or of another number of them."""

    def __init__(self, scalar: Any, count: int | None = None) -> None:
        self.scalar, self.count = scalar, count or lanes_of(scalar)
        super().__init__(f"Vec({scalar}, {self.count})")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vec: Vec) -> None:
        super().__init__(manager, vec, ir.VectorType(float_ir(vec.scalar), vec.count))


# ------------------------------------------------------------ building blocks of IR


class Emit:
    """Writes vector instructions for one scalar type into one function."""

    def __init__(self, context: Any, builder: ir.IRBuilder, scalar: Any) -> None:
        self.context, self.builder, self.scalar = context, builder, scalar
        self.lanes = lanes_of(scalar)
        self.element = float_ir(scalar)
        self.vector = vector_ir(scalar)
        self.suffix = f"v{self.lanes}f{scalar.bitwidth}"
        self.align = scalar.bitwidth // 8

    def data(self, array_type: types.Array, array: ir.Value) -> ir.Value:
        """Pointer to the first element of an array."""
        return make_array(array_type)(self.context, self.builder, array).data

    def at(self, pointer: ir.Value, index: ir.Value) -> ir.Value:
        """Pointer to the element ``index`` after a pointer."""
        return self.builder.gep(pointer, [index])

    def _call(self, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
        signature = ir.FunctionType(result, [a.type for a in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)

    def load(self, pointer: ir.Value) -> ir.Value:
        """One register from memory."""
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.align)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """One register to memory."""
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.align)

    def load_first(self, pointer: ir.Value, count: ir.Value) -> ir.Value:
        """The first `count` elements, zeros after them; never reads past them."""
        return self._call(
            f"llvm.masked.load.{self.suffix}.p0",
            self.vector,
            [
                self.builder.bitcast(pointer, self.vector.as_pointer()),
                ir.Constant(ir.IntType(32), self.align),
                self._first(count),
                self.constant(0.0),
            ],
        )

    def store_first(self, value: ir.Value, pointer: ir.Value, count: ir.Value) -> None:
        """The first `count` elements to memory; never writes past them."""
        place = self.builder.bitcast(pointer, self.vector.as_pointer())
        align = ir.Constant(ir.IntType(32), self.align)
        self._call(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), [value, place, align, self._first(count)])

    def _first(self, count: ir.Value) -> ir.Value:
        position = ir.Constant(ir.VectorType(INT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", position, self.splat_int(count))

    def splat_int(self, value: ir.Value) -> ir.Value:
        """An integer in every lane."""
        return self.splat_as(value, ir.VectorType(INT, self.lanes))

    def splat_bit(self, value: ir.Value) -> ir.Value:
        """A truth value in every lane."""
        return self.splat_as(value, ir.VectorType(BIT, self.lanes))

    def splat(self, value: ir.Value) -> ir.Value:
        """A number in every lane."""
        return self.splat_as(value, self.vector)

    def splat_as(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        """A number in every lane of a vector of this type."""
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def broadcast(self, pointer: ir.Value) -> ir.Value:
        """One number from memory in every lane."""
        return self.splat(self.builder.load(pointer, align=self.align))

    def constant(self, value: float) -> ir.Value:
        """A constant in every lane."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a·b + c, in one rounding where the processor has it; vectors or single numbers."""
        name = "llvm.fma" if HAS_FMA else "llvm.fmuladd"
        return self._call(f"{name}.{self.kind_of(a)}", a.type, [a, b, c])

    def fnma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """C - a·b."""
        return self.fma(self.builder.fneg(a), b, c)

    def sqrt(self, a: ir.Value) -> ir.Value:
        """Square root, of a vector or of a single number."""
        return self._call(f"llvm.sqrt.{self.kind_of(a)}", a.type, [a])

    def kind_of(self, value: ir.Value) -> str:
        """The ending of the names of LLVM's functions on such values."""
        lanes = f"v{value.type.count}" if isinstance(value.type, ir.VectorType) else ""
        return f"{lanes}f{self.scalar.bitwidth}"

    def prefetch(self, pointer: ir.Value, locality: int) -> None:
        """Ask for a cache line without waiting for it."""
        small = ir.IntType(32)
        flags = [ir.Constant(small, 0), ir.Constant(small, locality), ir.Constant(small, 1)]
        self._call("llvm.prefetch.p0", ir.VoidType(), [pointer, *flags])

    def loop(
        self,
        count: ir.Value,
        carried: list[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """`for e in range(count): carried = body(e, carried)`, `carried` in registers."""
        b = self.builder
        before, head = b.block, b.append_basic_block("head")
        inside, after = b.append_basic_block("body"), b.append_basic_block("after")
        b.branch(head)
        b.position_at_end(head)
        counter = b.phi(INT)
        counter.add_incoming(ir.Constant(INT, 0), before)
        values = [b.phi(v.type) for v in carried]
        for phi, start in zip(values, carried, strict=True):
            phi.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", counter, count), inside, after)
        b.position_at_end(inside)
        for phi, result in zip(values, body(counter, values), strict=True):
            phi.add_incoming(result, b.block)
        counter.add_incoming(b.add(counter, ir.Constant(INT, 1)), b.block)
        b.branch(head)
        b.position_at_end(after)
        return values


# ------------------------------------------------------- the values as seen from Python


@intrinsic
def lanes(typingctx: Any, array: types.Array) -> Any:
    """Lanes of a register of `array`'s type: a constant of the compiled code."""
    width = lanes_of(array.dtype)

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return ir.Constant(INT, width)

    return types.intp(array), lower


@intrinsic
def vload(typingctx: Any, array: types.Array, index: types.Integer) -> Any:
    """The register at array[index : index + W]."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        return emit.load(emit.at(emit.data(array, args[0]), args[1]))

    return Vec(array.dtype)(array, types.intp), lower


@intrinsic
def vload_first(typingctx: Any, array: types.Array, index: types.Integer, count: types.Integer) -> Any:
    """array[index : index + count], zeros after them; never reads past them."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        return emit.load_first(emit.at(emit.data(array, args[0]), args[1]), args[2])

    return Vec(array.dtype)(array, types.intp, types.intp), lower


@intrinsic
def vsplat(typingctx: Any, array: types.Array, index: types.Integer) -> Any:
    """array[index] in every lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        return emit.broadcast(emit.at(emit.data(array, args[0]), args[1]))

    return Vec(array.dtype)(array, types.intp), lower


@intrinsic
def vfill(typingctx: Any, array: types.Array, value: types.Float) -> Any:
    """A number in every lane of a register of `array`'s type."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return Emit(context, builder, array.dtype).splat(args[1])

    return Vec(array.dtype)(array, array.dtype), lower


@intrinsic
def vstore(typingctx: Any, array: types.Array, index: types.Integer, value: Vec) -> Any:
    """array[index : index + W] = value."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        emit.store(args[2], emit.at(emit.data(array, args[0]), args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), lower


@intrinsic
def vstore_first(typingctx: Any, array: types.Array, index: types.Integer, count: types.Integer, value: Vec) -> Any:
    """array[index : index + count] = the first of the lanes; never writes past them."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        emit.store_first(args[3], emit.at(emit.data(array, args[0]), args[1]), args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), lower


@intrinsic
def vfma(typingctx: Any, a: Vec, b: Vec, c: Vec) -> Any:
    """a·b + c."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return Emit(context, builder, a.scalar).fma(*args)

    return a(a, b, c), lower


@intrinsic
def vfnma(typingctx: Any, a: Vec, b: Vec, c: Vec) -> Any:
    """C - a·b."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return Emit(context, builder, a.scalar).fnma(*args)

    return a(a, b, c), lower


@intrinsic
def vadd(typingctx: Any, a: Vec, b: Vec) -> Any:
    """A + b."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.fadd(*args)

    return a(a, b), lower


@intrinsic
def vmul(typingctx: Any, a: Vec, b: Vec) -> Any:
    """a·b."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.fmul(*args)

    return a(a, b), lower


@intrinsic
def vsum(typingctx: Any, a: Vec) -> Any:
    """Sum of the lanes, halves onto halves."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        width, value = lanes_of(a.scalar), args[0]
        kind = ir.VectorType(ir.IntType(32), width)
        half = width // 2
        while half:
            order = ir.Constant(kind, [(k + half) % width for k in range(width)])
            value = builder.fadd(value, builder.shuffle_vector(value, value, order))
            half //= 2
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return a.scalar(a), lower
