"""The products and steps that draw the coefficients of features, on strips.

A *strip* is some columns of all rows: as many as a register holds, (rows, W), or one alone, (rows,). Columns are
independent of each other, so a strip is drawn by itself: what is gathered or added to by index then stays near, and
no sum depends on the number of threads. Every kernel is compiled for both; its values are registers or numbers.
The sparse matrix T (tall × short) is read by its tall rows, in their order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.kernels.vector.compiled import borrowing, inlined
from gramian.kernels.vector.lanes import INT, Emit, Vec, lanes_of

__all__ = ["GROUP", "Iterate", "Noise", "Preconditioner", "Tall", "gather", "lean", "normal", "scatter", "step"]

GROUP = 8  # columns of the basis that are multiplied at a time


# ---- values: registers of a wide strip, numbers of a narrow one ------------------------------------


def _kind(array: types.Array) -> Any:
    return Vec(array.dtype) if array.ndim == 2 else array.dtype


@intrinsic
def _at(typingctx: Any, array: types.Array, row: types.Integer) -> Any:
    """The row of a strip."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        place = _place(context, builder, array, args)
        return Emit(context, builder, array.dtype).load(place) if array.ndim == 2 else builder.load(place)

    return _kind(array)(array, types.intp), lower


def _place(context: Any, builder: Any, array: types.Array, args: Any) -> ir.Value:
    width = lanes_of(array.dtype) if array.ndim == 2 else 1
    data = make_array(array)(context, builder, args[0]).data
    return builder.gep(data, [builder.mul(args[1], ir.Constant(args[1].type, width))])


@intrinsic
def _put(typingctx: Any, array: types.Array, row: types.Integer, value: Any) -> Any:
    """The row of a strip becomes a value."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        place = _place(context, builder, array, args)
        if array.ndim == 2:
            Emit(context, builder, array.dtype).store(args[2], place)
        else:
            builder.store(args[2], place)
        return context.get_dummy_value()

    return types.void(array, types.intp, _kind(array)), lower


@intrinsic
def _all(typingctx: Any, strip: types.Array, array: types.Array, k: types.Integer) -> Any:
    """The number array[k] in every column of the strip."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, array.dtype)
        number = emit.at(emit.data(array, args[1]), args[2])
        return emit.broadcast(number) if strip.ndim == 2 else builder.load(number)

    return _kind(strip)(strip, array, types.intp), lower


@intrinsic
def _zero(typingctx: Any, strip: types.Array) -> Any:
    """Zero in every column of the strip."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, strip.dtype)
        return emit.constant(0.0) if strip.ndim == 2 else ir.Constant(emit.element, 0.0)

    return _kind(strip)(strip), lower


def _operation(lowered: Any, count: int) -> Any:
    """An intrinsic on values of one kind."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        scalar = sig.return_type.scalar if isinstance(sig.return_type, Vec) else sig.return_type
        return lowered(Emit(context, builder, scalar), *args)

    if count == 2:

        @intrinsic
        def two(typingctx: Any, a: Any, b: Any) -> Any:
            return a(a, a), lower

        return two

    @intrinsic
    def three(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, a, a), lower

    return three


def _divided(emit: Emit, a: ir.Value, b: ir.Value) -> ir.Value:
    zero = emit.constant(0.0) if a.type == emit.vector else ir.Constant(emit.element, 0.0)
    build = emit.builder
    return build.select(build.fcmp_ordered(">", b, zero), build.fdiv(a, b), zero)


_fma = _operation(lambda emit, a, b, c: emit.fma(a, b, c), 3)
_fnma = _operation(lambda emit, a, b, c: emit.fnma(a, b, c), 3)
_add = _operation(lambda emit, a, b: emit.builder.fadd(a, b), 2)
_mul = _operation(lambda emit, a, b: emit.builder.fmul(a, b), 2)
_ratio = _operation(_divided, 2)  # a / b, or 0 where b is not positive


@intrinsic
def _part(typingctx: Any, strip: types.Array, rows: types.Array, place: types.Integer, count: types.Integer) -> Any:
    """The columns of a strip in flat rows, ``count`` of them from ``place`` on."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, rows.dtype)
        pointer = emit.at(emit.data(rows, args[1]), args[2])
        return emit.load_first(pointer, args[3]) if strip.ndim == 2 else builder.load(pointer)

    return _kind(strip)(strip, rows, types.intp, types.intp), lower


@intrinsic
def _put_part(
    typingctx: Any, strip: types.Array, rows: types.Array, place: types.Integer, count: types.Integer, value: Any
) -> Any:
    """They become a value."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit = Emit(context, builder, rows.dtype)
        pointer = emit.at(emit.data(rows, args[1]), args[2])
        if strip.ndim == 2:
            emit.store_first(args[4], pointer, args[3])
        else:
            builder.store(args[4], pointer)
        return context.get_dummy_value()

    return types.void(strip, rows, types.intp, types.intp, _kind(strip)), lower


@intrinsic
def _project(
    typingctx: Any, room: types.Array, k: types.Integer, basis: types.Array, at: types.Integer, y: types.Array,
    n: types.Integer,
) -> Any:  # fmt: skip
    """room_k = v_k · y for a group of columns of the basis, which begin at ``at``: as many sums in registers."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit, some = _Group(context, builder, sig, args), range(GROUP)

        def body(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            row = emit.row(i)
            return [emit.fma(emit.number(i, m), row, sums[m]) for m in some]

        zero = emit.constant(0.0) if y.ndim == 2 else ir.Constant(emit.element, 0.0)
        for m, value in enumerate(emit.loop(args[5], [zero] * GROUP, body)):
            emit.keep(value, emit.coefficient(m))
        return context.get_dummy_value()

    return types.void(room, types.intp, basis, types.intp, y, types.intp), lower


@intrinsic
def _correct(
    typingctx: Any, room: types.Array, k: types.Integer, basis: types.Array, at: types.Integer, y: types.Array,
    n: types.Integer,
) -> Any:  # fmt: skip
    """Y += Σ_k v_k room_k over a group of columns of the basis."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        emit = _Group(context, builder, sig, args)
        factors = [emit.get(emit.coefficient(m)) for m in range(GROUP)]

        def body(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            value = emit.row(i)
            for m, factor in enumerate(factors):
                value = emit.fma(emit.number(i, m), factor, value)
            emit.keep(value, emit.place(y, args[4], i))
            return []

        emit.loop(args[5], [], body)
        return context.get_dummy_value()

    return types.void(room, types.intp, basis, types.intp, y, types.intp), lower


class _Group(Emit):
    """Writes what :func:`_project` and :func:`_correct` have in common."""

    def __init__(self, context: Any, builder: Any, sig: Any, args: Any) -> None:
        self.room, self.basis, self.y = sig.args[0], sig.args[2], sig.args[4]
        self.args = args
        super().__init__(context, builder, self.y.dtype)

    def place(self, array: types.Array, value: ir.Value, row: ir.Value) -> ir.Value:
        return _place(self.context, self.builder, array, (value, row))

    def get(self, pointer: ir.Value) -> ir.Value:
        return self.load(pointer) if self.y.ndim == 2 else self.builder.load(pointer)

    def keep(self, value: ir.Value, pointer: ir.Value) -> None:
        if self.y.ndim == 2:
            self.store(value, pointer)
        else:
            self.builder.store(value, pointer)

    def row(self, i: ir.Value) -> ir.Value:
        return self.get(self.place(self.y, self.args[4], i))

    def coefficient(self, m: int) -> ir.Value:
        return self.place(self.room, self.args[0], self.builder.add(self.args[1], ir.Constant(INT, m)))

    def number(self, i: ir.Value, m: int) -> ir.Value:
        build = self.builder
        index = build.add(self.args[3], build.add(build.mul(i, ir.Constant(INT, GROUP)), ir.Constant(INT, m)))
        pointer = self.place(self.basis, self.args[2], index)
        return self.broadcast(pointer) if self.y.ndim == 2 else build.load(pointer)


# ---- products --------------------------------------------------------------------------------------


@inlined
def _row_sum(indices: Any, values: Any, short: Any, e: int, stop: int) -> Any:
    """Σ_j T_ij short_j over the entries ``e`` … ``stop`` of a tall row."""
    even, odd = _zero(short), _zero(short)  # two sums, so that one addition need not wait for the last
    while e + 1 < stop:
        even = _fma(_all(short, values, e), _at(short, _at(indices, e)), even)
        odd = _fma(_all(short, values, e + 1), _at(short, _at(indices, e + 1)), odd)
        e += 2
    if e < stop:
        even = _fma(_all(short, values, e), _at(short, _at(indices, e)), even)
    return _add(even, odd)


class Tall(NamedTuple):
    """The columns of a strip in the flat rows of the tall side.

    Attributes:
        rows: (rows, stride), flat, of the dtype of the strip.
        stride: The numbers of a row.
        column: The first column of the strip.
        width: How many columns the strip has there.
    """

    rows: Array
    stride: int
    column: int
    width: int


class Noise(NamedTuple):
    """What is drawn beside a product.

    Attributes:
        scale: a, (tall rows,), of the dtype of the strip.
        normals: A strip of the tall rows.
    """

    scale: Array
    normals: Array


@borrowing
def gather(matrix: CSR, short: Any, noise: Noise | None, tall: Tall, first: int, last: int) -> None:
    """tall_i = Σ_j T_ij short_j for the tall rows ``first`` … ``last``; with noise z, a_i (z_i + a_i Σ …)."""
    indptr = matrix.indptr
    for i in range(first, last):
        total = _row_sum(matrix.indices, matrix.values, short, indptr[i], indptr[i + 1])
        if noise is not None:
            a = _all(short, noise.scale, i)
            total = _mul(a, _fma(a, total, _at(noise.normals, i)))
        _put_part(short, tall.rows, i * tall.stride + tall.column, tall.width, total)


@borrowing
def scatter(matrix: CSR, short: Any, scale: Any, tall: Tall, first: int, last: int) -> None:
    """short_j += Σ_i T_ij a_i tall_i over the tall rows ``first`` … ``last``; a is ``scale``, or 1."""
    indptr, indices, values = matrix.indptr, matrix.indices, matrix.values
    for i in range(first, last):
        row = _part(short, tall.rows, i * tall.stride + tall.column, tall.width)
        if scale is not None:
            row = _mul(_all(short, scale, i), row)
        for e in range(indptr[i], indptr[i + 1]):
            j = _at(indices, e)
            _put(short, j, _fma(_all(short, values, e), row, _at(short, j)))


@borrowing
def normal(matrix: CSR, weights: Any, p: Any, q: Any, base: int, first: int, last: int) -> None:
    """q[base + j] = Σ_i T_ij w_i Σ_k T_ik p_k over the tall rows ``first`` … ``last``: a part of TᵀWT p.

    A tall row's sum never leaves its register.
    """
    indptr, indices, values = matrix.indptr, matrix.indices, matrix.values
    for j in range(len(p)):
        _put(q, base + j, _zero(q))
    for i in range(first, last):
        start, stop = indptr[i], indptr[i + 1]
        row = _mul(_all(p, weights, i), _row_sum(indices, values, p, start, stop))
        for e in range(start, stop):
            j = base + _at(indices, e)
            _put(q, j, _fma(_all(p, values, e), row, _at(q, j)))


@borrowing
def lean(strip: Any, rows: Any, matrix: Any, base: Any, size: int, first: int, last: int) -> None:
    """strip_i += b + Σ_k x_ik M_k for the rows ``first`` … ``last``; ``rows`` is flat, with rows of ``size``.

    ``matrix`` is the strip of M, (size rows), and ``base`` that of b, one row.
    """
    for i in range(first, last):
        total = _add(_at(strip, i), _at(base, 0))
        for k in range(size):
            total = _fma(_all(strip, rows, i * size + k), _at(matrix, k), total)
        _put(strip, i, total)


# ---- conjugate gradient ----------------------------------------------------------------------------
# For (TᵀWT + diag(c)) x = b with the preconditioner S(I + V G Vᵀ)S: S is a diagonal, V has orthonormal columns.


class Iterate(NamedTuple):
    """Where conjugate gradient is, on one strip of n rows.

    Attributes:
        x: The solution so far.
        r: The residual b − (TᵀWT + diag(c))x.
        p: The direction.
        q: The parts of TᵀWT p, n rows each.
        room: As many rows as V has columns.
        sums: The length r · M⁻¹r, one row.
    """

    x: Array
    r: Array
    p: Array
    q: Array
    room: Array
    sums: Array


class Preconditioner(NamedTuple):
    """M⁻¹ = S(I + V G Vᵀ)S; all of the dtype of the strips.

    Attributes:
        scale: S, (n,).
        basis: V flat, as (rank / GROUP, n, GROUP).
        gains: G, (rank,).
    """

    scale: Array
    basis: Array
    gains: Array


@borrowing
def step(iterate: Iterate, parts: int, ridge: Any, preconditioner: Preconditioner) -> None:
    """One step along p, then the next p; q has so many ``parts``, and ``ridge`` is c.

    Where p and the length are zero, this is the beginning.
    """
    x, r, p, q, room, sums = iterate
    scale, basis, gains = preconditioner
    n, total = len(p), _zero(p)
    for i in range(n):
        direction, value = _at(p, i), _at(q, i)
        for k in range(1, parts):
            value = _add(value, _at(q, k * n + i))
        value = _fma(_all(p, ridge, i), direction, value)
        _put(q, i, value)
        total = _fma(value, direction, total)
    along, length = _ratio(_at(sums, 0), total), _zero(p)
    for i in range(n):
        _put(x, i, _fma(along, _at(p, i), _at(x, i)))
        rest = _fnma(along, _at(q, i), _at(r, i))
        _put(r, i, rest)
        rest = _mul(_all(p, scale, i), rest)
        _put(q, i, rest)
        length = _fma(rest, rest, length)
    for k in range(0, len(gains), GROUP):
        _project(room, k, basis, k * n, q, n)
    for k in range(len(gains)):
        moved = _mul(_all(p, gains, k), _at(room, k))
        length = _fma(moved, _at(room, k), length)
        _put(room, k, moved)
    further = _ratio(length, _at(sums, 0))
    _put(sums, 0, length)
    for k in range(0, len(gains), GROUP):
        _correct(room, k, basis, k * n, q, n)
    for i in range(n):
        _put(p, i, _fma(further, _at(p, i), _mul(_all(p, scale, i), _at(q, i))))
