"""Counter-based normals: a number depends on (seed, sweep, side, row, k) alone.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) turns a 128-bit counter and a
64-bit key into four random words. The key is the seed; the counter is
(k // 4, row, sweep, side), the row's upper bits sharing the last word with the
side. Two words make one pair of normals by Box-Muller.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gramian.kernels.vector.compiled import borrowing, inlined

_MASK = np.uint64(0xFFFFFFFF)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_32 = np.uint64(32)
_TO_UNIT = 2.0**-32
_ROOT_2, _LOG_2, _QUARTER = math.sqrt(2.0), math.log(2.0), math.pi / 2


@inlined
def philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Ten rounds of Philox4x32; every argument and result is a 32-bit word in a uint64."""
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@intrinsic
def _bits(typingctx: Any, x: types.Float) -> Any:
    """The 64 bits of a float64 as an integer."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), lower


@intrinsic
def _from_bits(typingctx: Any, x: types.Integer) -> Any:
    """The float64 of 64 bits."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), lower


@intrinsic
def _sqrt(typingctx: Any, x: types.Float) -> Any:
    """The square root as one instruction; a library's would keep the loop around it from being vectorized."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.call(builder.module.declare_intrinsic("llvm.sqrt", [ir.DoubleType()]), args)

    return types.float64(types.float64), lower


@inlined
def _log(x: float) -> float:
    """Log x of a normal number: x = 2ᵉm, m near 1, log m = 2 artanh s with s = (m - 1)/(m + 1)."""
    bits = _bits(x)
    m = _from_bits((bits & np.int64(0x000FFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000))
    e = np.float64((bits >> np.int64(52)) - np.int64(1023))
    large = m > _ROOT_2
    m = 0.5 * m if large else m
    e = e + 1.0 if large else e
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = 1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * (1 / 13 + z * (1 / 15 + z / 17))))))
    return e * _LOG_2 + 2.0 * s * (1.0 + z * series)


@inlined
def _cos_sin(turn: float) -> tuple[float, float]:
    """Cosine and sine of a turn in [0, 1) of a full circle, from the series of the angle to the nearest quarter."""
    quarter = np.int64(4.0 * turn + 0.5)
    a = (4.0 * turn - np.float64(quarter)) * _QUARTER
    z = a * a
    c = 1.0 + z * (-1 / 2 + z * (1 / 24 + z * (-1 / 720 + z * (1 / 40320 + z * (-1 / 3628800 + z * (
        1 / 479001600 + z * (-1 / 87178291200)))))))  # fmt: skip
    s = a + a * z * (-1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z * (1 / 362880 + z * (-1 / 39916800 + z * (
        1 / 6227020800 + z * (-1 / 1307674368000)))))))  # fmt: skip
    cosine, sine = (s, c) if quarter & 1 else (c, s)
    return (-cosine if (quarter + 1) & 2 else cosine), (-sine if quarter & 2 else sine)


@borrowing
def fill_normals(normals: Any, rows: int, size: int, seed: int, sweep: int, side: int, row: int) -> None:
    """normals[k·rows + i] = normal k of row ``row + i``, for k < size and i < rows.

    The array has room for the next multiple of four of `size`. The inner loop is over the rows and calls no
    library function, so that it is compiled to vector instructions, with the same bits on every processor.
    """
    key, c2 = np.uint64(seed), np.uint64(sweep) & _MASK
    k0, k1 = key & _MASK, key >> _32
    for block in range((size + 3) // 4):
        at = 4 * block * rows
        for i in range(rows):
            place = np.uint64(row + i)
            c3 = np.uint64(side) ^ ((place >> _32) << np.uint64(8))
            a, b, c, d = philox(np.uint64(block), place & _MASK, c2, c3, k0, k1)
            # a + 1/2 is never zero, so the logarithm is finite
            radius = _sqrt(-2.0 * _log((np.float64(np.int64(a)) + 0.5) * _TO_UNIT))
            cosine, sine = _cos_sin((np.float64(np.int64(b)) + 0.5) * _TO_UNIT)
            normals[np.uint64(at + i)] = radius * cosine
            normals[np.uint64(at + rows + i)] = radius * sine
            radius = _sqrt(-2.0 * _log((np.float64(np.int64(c)) + 0.5) * _TO_UNIT))
            cosine, sine = _cos_sin((np.float64(np.int64(d)) + 0.5) * _TO_UNIT)
            normals[np.uint64(at + 2 * rows + i)] = radius * cosine
            normals[np.uint64(at + 3 * rows + i)] = radius * sine
