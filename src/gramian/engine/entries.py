"""The engine for what is asked of every rating by itself, on the threads of :mod:`gramian.engine.local`."""

from __future__ import annotations

import numpy as np

from gramian.engine.local import RATING_WORK, Array, _over_blocks, thread_count
from gramian.kernels.csr import CSR

__all__ = ["predictions"]


def predictions(
    rows: CSR, here: Array, other: Array, *, biased: bool, offset: float, n_jobs: int | None = None
) -> Array:
    """What a model says of every rating, float64, in their order; the arguments are those of ``squared_errors``."""
    from gramian.kernels import residuals, sweep

    out = np.empty(len(rows.indices))
    indptr, indices = sweep.fixed(rows.indptr), sweep.fixed(rows.indices)
    here, other = sweep.fixed(here), sweep.fixed(other)

    def block(first: int, last: int) -> None:
        residuals.predictions(indptr, indices, here, other, biased, offset, first, last, out)

    _over_blocks(block, rows, RATING_WORK + other.shape[1], thread_count(n_jobs))
    return out
