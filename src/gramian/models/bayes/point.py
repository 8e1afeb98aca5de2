"""The one pair of factors that is nearest to the mean of many draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gramian.kernels.arrays import Array
from gramian.models.bayes.state import State

__all__ = ["mean_directions"]

POINT_DRAWS = 50  # so many draws are enough to find the leading directions of their mean


def mean_directions(draws: Sequence[State], factors: int) -> tuple[Array, Array]:
    """W and U of the best rank-K approximation to the mean of WUᵀ over up to 50 of the draws, by subspace iteration."""
    some = draws[:: -(-len(draws) // POINT_DRAWS)]
    W = [draw.user_rows[:, :factors].astype(np.float32) for draw in some]
    U = [draw.item_rows[:, :factors].astype(np.float32) for draw in some]
    Q = np.linalg.qr(U[-1])[0]
    for _ in range(3):
        left = np.sum([w @ (u.T @ Q) for w, u in zip(W, U, strict=True)], axis=0)
        Q = np.linalg.qr(np.sum([u @ (w.T @ left) for w, u in zip(W, U, strict=True)], axis=0))[0]
    left = np.mean([w @ (u.T @ Q) for w, u in zip(W, U, strict=True)], axis=0)
    missing = ((0, 0), (0, factors - Q.shape[1]))  # fewer items than factors
    return np.pad(left, missing), np.pad(Q, missing)
