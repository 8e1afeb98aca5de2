"""A stable order of rows by small whole numbers, in time that grows with the rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gramian.kernels.vector.compiled import compiled

__all__ = ["order_of"]

Codes = npt.NDArray[np.int32]


@compiled
def _place(keys: Any, before: Any, starts: Any, out: Any) -> None:
    """Out = ``before`` in the order of their keys; ``starts`` says where each key begins, and is used up."""
    for row in before:
        key = keys[row]
        out[starts[key]] = row
        starts[key] += 1


def order_of(keys: Codes, n_keys: int, before: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """The rows, in the order ``before`` (as they come if not given), sorted by their keys 0 … ``n_keys`` − 1."""
    if before is None:
        before = np.arange(len(keys))
    starts = np.zeros(n_keys + 1, np.int64)
    np.cumsum(np.bincount(keys, minlength=n_keys), out=starts[1:])
    out = np.empty(len(keys), np.int64)
    _place(keys, before, starts, out)
    return out
