"""Arrays as kernels want them: read-only views of one kind, and rows that begin on a cache line; and sums of some."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "aligned_rows", "readonly", "summed"]

Array = npt.NDArray[Any]


def readonly(array: Array, dtype: Any = None) -> Array:
    """A read-only contiguous view: one compiled variant for writable and read-only inputs."""
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


def aligned_rows(rows: int, width: int, dtype: Any, make: Callable[..., Array] = np.zeros) -> Array:
    """Zeros that begin on a cache line: gathered rows then touch as few lines as possible; or what else is made."""
    count, each = rows * width, np.dtype(dtype).itemsize
    room = make(count + 64 // each, dtype)
    skip = (-room.ctypes.data % 64) // each
    return room[skip : skip + count].reshape(rows, width)


def summed(parts: Iterable[Array | None]) -> Array | None:
    """The sum of those that are there, in their order; None where none is."""
    there = [part for part in parts if part is not None]
    return sum(there[1:], start=there[0]) if there else None
