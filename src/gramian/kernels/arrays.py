"""Arrays as kernels want them: read-only views of one kind, and rows that begin on a cache line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "aligned_rows", "readonly"]

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
