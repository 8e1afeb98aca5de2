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

from gramian.kernels.compiled import compiled

_MASK = np.uint64(0xFFFFFFFF)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_32 = np.uint64(32)
_TO_UNIT = 2.0**-32
_TURN = 2.0 * math.pi


@compiled
def philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Ten rounds of Philox4x32; every argument and result is a 32-bit word in a uint64."""
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@compiled
def fill_normals(normals: Any, size: int, seed: int, sweep: int, side: int, row: int) -> None:
    """normals[k] for k < size (the array has room for the next multiple of four)."""
    key, place = np.uint64(seed), np.uint64(row)
    c1, c2 = place & _MASK, np.uint64(sweep) & _MASK
    c3 = np.uint64(side) ^ ((place >> _32) << np.uint64(8))
    for first in range(0, size, 4):
        a, b, c, d = philox(np.uint64(first // 4), c1, c2, c3, key & _MASK, key >> _32)
        # a + 1/2 is never zero, so the logarithm is finite
        radius = math.sqrt(-2.0 * math.log((np.float64(a) + 0.5) * _TO_UNIT))
        angle = _TURN * ((np.float64(b) + 0.5) * _TO_UNIT)
        normals[first] = radius * math.cos(angle)
        normals[first + 1] = radius * math.sin(angle)
        radius = math.sqrt(-2.0 * math.log((np.float64(c) + 0.5) * _TO_UNIT))
        angle = _TURN * ((np.float64(d) + 0.5) * _TO_UNIT)
        normals[first + 2] = radius * math.cos(angle)
        normals[first + 3] = radius * math.sin(angle)
