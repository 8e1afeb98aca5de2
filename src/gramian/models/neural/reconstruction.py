r"""A trained autoencoder. It predicts, recommends and folds in without Keras.

The hidden code :math:`h_s` of a sample is computed once from its training ratings; a prediction is then
:math:`\mu + h_s^\top V_j + c_j`. A sample that is not known has an empty row; a column that is not known has the mean
row of V; where neither is known, μ stands in.

Somebody new, with users as samples, gets a code by one forward pass. With items as samples a user is a column: its
row of V and its bias are the best ones for the items' codes, a ridge regression with the penalty of training, which is
where gradient steps on that row alone would end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gramian.data.ids import Codes
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.fold_in import one_row
from gramian.models.neural.layers import activate
from gramian.models.neural.network_model import PIECE, NetworkModel

if TYPE_CHECKING:
    from gramian.models.neural.autorec import AutoRec

__all__ = ["AutoRecModel"]

TINY = 1e-6  # keeps the ridge regression of somebody new solvable without a penalty


@dataclass(frozen=True, eq=False, repr=False)
class AutoRecModel(NetworkModel):
    """A trained AutoRec: its network goes from rows of centred ratings to rows."""

    @property
    def _autorec(self) -> AutoRec:
        return cast("AutoRec", self.recipe)

    def encode(self, rows: CSR) -> Array:
        """The codes h of rows of centred ratings, float32."""
        from scipy.sparse import csr_array

        recipe, first = self._autorec, self.weights["hidden0/kernel"]
        matrix = csr_array((rows.values, rows.indices, rows.indptr), shape=(rows.n_rows, len(first)))
        h = activate(recipe.activation, np.asarray(matrix @ first, np.float64) + self.weights["hidden0/bias"])
        for n in range(1, len(recipe.sizes)):
            z = h @ self.weights[f"hidden{n}/kernel"].astype(np.float64) + self.weights[f"hidden{n}/bias"]
            h = activate(recipe.activation, z)
        return h.astype(np.float32)

    @cached_property
    def _codes_table(self) -> Array:
        """Codes of the samples; the last is that of an empty row, for a sample that is not known."""
        empty = CSR(np.zeros(2, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        return np.vstack([self.encode(self._autorec.rows(self.ratings)), self.encode(empty)])

    @cached_property
    def _columns_table(self) -> Array:
        """Rows [V, c] of the columns; the last is their mean, for a column that is not known."""
        rows = np.concatenate([self.weights["output/kernel"].T, self.weights["output/bias"][:, None]], axis=1)
        return np.vstack([rows, rows.mean(axis=0, dtype=np.float64).astype(np.float32)])

    def _values(self, codes: Array, columns: Array) -> Array:
        codes, columns = codes.astype(np.float64), columns.astype(np.float64)
        H = codes.shape[1]
        return self.global_mean + np.einsum("pk,pk->p", codes, columns[:, :H]) + columns[:, H]

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """μ + hᵀV + c of pairs of codes, in float64 until the end."""
        samples, columns = (users, items) if self._autorec.side == "user" else (items, users)
        out = np.empty(len(users), np.float32)
        for low in range(0, len(users), PIECE):
            piece = slice(low, low + PIECE)
            out[piece] = self._values(self._codes_table[samples[piece]], self._columns_table[columns[piece]])
        out[(users < 0) & (items < 0)] = self.global_mean
        return out

    def score_block(self, users: Codes) -> Array:
        """All items for some users, by one matrix product."""
        H = self._codes_table.shape[1]
        if self._autorec.side == "user":
            items = self._columns_table[:-1]
            return self._codes_table[users] @ items[:, :H].T + (items[:, H] + np.float32(self.global_mean))
        rows = self._columns_table[users]
        return rows[:, :H] @ self._codes_table[:-1].T + (rows[:, H:] + np.float32(self.global_mean))

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in(self, ratings: Mapping[Any, float], *, unknown: str = "fallback") -> Array:
        """The row of a user with these ratings: its code, or with items as samples [v, c]."""
        items, values = self._given(ratings, unknown)
        centred = one_row(items, values - np.float32(self.global_mean))
        if self._autorec.side == "user":
            return self.encode(centred)[0]
        if len(items) == 0:
            return self._columns_table[-1].copy()
        codes = self._codes_table[centred.indices].astype(np.float64)
        X = np.column_stack([codes, np.ones(len(codes))])
        penalty = np.full(X.shape[1], max(self._autorec.regularization, TINY))
        penalty[-1] = TINY
        return np.linalg.solve(X.T @ X + np.diag(penalty), X.T @ centred.values).astype(np.float32)

    def _scores_of(self, row: Array) -> Array:
        if self._autorec.side == "user":
            columns = self._columns_table[:-1]
            return self._values(np.broadcast_to(row, (len(columns), len(row))), columns).astype(np.float32)
        codes = self._codes_table[:-1]
        return self._values(codes, np.broadcast_to(row, (len(codes), len(row)))).astype(np.float32)
