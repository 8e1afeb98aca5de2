r"""What block coordinate solves need beside the half-sweep: residuals of every rating, kept up to date.

With :math:`\tilde r = r - \mu - c - b - x^\top v`, the best columns B of a row, the others fixed, minimise

.. math:: \sum (\tilde r + x_B^\top v_B - x_B'^\top v_B)^2 + s\, x_B'^\top\Lambda_{BB}x_B'

which is a half-sweep over the columns B with the ratings :math:`\tilde r + x_B^\top v_B` (Rendle et al. 2021,
iALS++). The loop over the blocks is :func:`gramian.engine.local.block_update`; the plain twin is
:func:`gramian.kernels.reference.block_half_sweep`.
"""

from __future__ import annotations

from typing import Any

from gramian.kernels.residuals import dot
from gramian.kernels.vector.compiled import compiled

__all__ = ["BLOCK_COLUMNS", "add_products"]

BLOCK_COLUMNS = 64


@compiled
def add_products(
    residuals: Any, sign: float, indptr: Any, indices: Any, rows: Any, fixed: Any, biased: bool, start: int, stop: int
) -> None:
    """Residuals += sign · (x·v + b) for the ratings of rows ``start`` … ``stop``, b the last of the row's columns."""
    size, sign = fixed.shape[1], residuals.dtype.type(sign)
    factors = size - 1 if biased else size
    for i in range(start, stop):
        bias = rows[i, factors] if biased else rows.dtype.type(0)
        for e in range(indptr[i], indptr[i + 1]):
            residuals[e] += sign * (bias + dot(rows[i], fixed[indices[e]], factors))
