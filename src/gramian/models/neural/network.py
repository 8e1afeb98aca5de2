r"""A trained network of two embeddings. It predicts, recommends and folds in without Keras.

An id that is not known stands for the middle of its side: NeuralMF has no bias and no factors for it, the networks
with hidden layers take the mean row of the side; where neither id is known, μ stands in.

Somebody new gets the row x that gradient descent on that row alone finds, all else as trained: with n ratings it goes
down

.. math:: \frac1n \left(\sum_{j} (r_j - \mu - \hat y(x, u_j))^2 + \lambda\|x\|^2\right)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from gramian.core.parameters import check_number
from gramian.data.ids import Codes, Id, Ids
from gramian.kernels.arrays import Array
from gramian.models.neural.layers import Layer, forward, input_gradient, layers_of
from gramian.models.neural.network_model import PIECE, NetworkModel
from gramian.models.selection import item_table, top_n

__all__ = ["PairModel"]

FOLD_STEPS, FOLD_RATE = 300, 0.05


@dataclass(frozen=True, eq=False, repr=False)
class PairModel(NetworkModel):
    """A trained NeuralMF, MLP or ResidualMF: its network takes codes and gives the rating less μ."""

    @property
    def user_factors(self) -> Array:
        """W, (N, K)."""
        return self.weights["user_factors/embeddings"]

    @property
    def item_factors(self) -> Array:
        """U, (M, K)."""
        return self.weights["item_factors/embeddings"]

    @cached_property
    def _layers(self) -> list[Layer]:
        recipe = self.network_recipe
        return layers_of(self.weights, len(recipe.sizes)) if recipe.has_layers else []

    @cached_property
    def _user_table(self) -> Array:
        return self._table("user")

    @cached_property
    def _item_table(self) -> Array:
        return self._table("item")

    def _table(self, side: str) -> Array:
        """Rows [factors, bias] of a side in float64; the last is that of an unknown id, whose code is −1."""
        factors = self.weights[f"{side}_factors/embeddings"]
        biases = self.weights.get(f"{side}_biases/embeddings", np.zeros((len(factors), 1)))
        rows = np.concatenate([factors, biases], axis=1).astype(np.float64)
        unknown = rows.mean(axis=0) if self._layers else np.zeros(rows.shape[1])
        return np.vstack([rows, unknown])

    def _outputs(self, users: Array, items: Array) -> tuple[Array, list[Array]]:
        """Predictions of pairs of rows less μ, and what the layers gave."""
        recipe, K = self.network_recipe, users.shape[1] - 1
        made, outputs = np.zeros(len(users)), []
        if recipe.has_biases:
            made += np.einsum("pk,pk->p", users[:, :K], items[:, :K]) + users[:, K] + items[:, K]
        if self._layers:
            x = np.concatenate([users[:, :K], items[:, :K]], axis=1)
            outputs = forward(x, self._layers, recipe.activation)
            made += outputs[-1][:, 0]
        return made, outputs

    def branches(self, users: Ids, items: Ids) -> tuple[Array, Array]:
        """What the factorization and what the layers add to μ for pairs of ids; 0 from a branch that is not there."""
        pairs = self._pairs_of(users, items, None, "fallback")
        made, outputs = self._outputs(self._user_table[pairs.users], self._item_table[pairs.items])
        layers = outputs[-1][:, 0] if outputs else np.zeros(len(made))
        return made - layers, layers

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """What the network says of pairs of codes, in float64 until the end."""
        out = np.empty(len(users), np.float32)
        for low in range(0, len(users), PIECE):
            piece = slice(low, low + PIECE)
            made, _ = self._outputs(self._user_table[users[piece]], self._item_table[items[piece]])
            out[piece] = made + self.global_mean
        out[(users < 0) & (items < 0)] = self.global_mean
        return out

    def score_block(self, users: Codes) -> Array:
        """All items for some users, one user after the other."""
        items = np.arange(self.ratings.n_items, dtype=np.int32)
        return np.stack([self.score_pairs(np.full(len(items), user, np.int32), items) for user in users])

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in_codes(self, items: Codes, values: Array) -> Array:
        """The row (K + 1,) [factors, bias] of a user with these ratings, by gradient steps (Adam) on it alone.

        With no known item it is the row of an unknown user.
        """
        row = self._user_table[-1].copy()
        if len(items) == 0:
            return row
        order = np.argsort(items)
        rows, target = self._item_table[items[order]], values[order].astype(np.float64) - self.global_mean
        first, second = np.zeros_like(row), np.zeros_like(row)
        shrink = self.network_recipe.regularization / len(rows)
        for t in range(1, FOLD_STEPS + 1):
            gradient = self._row_gradient(row, rows, target) + 2 * shrink * row
            first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
            rate = FOLD_RATE * (1 - (t - 1) / FOLD_STEPS)
            row -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.99**t)) + 1e-8)
        return row

    def _row_gradient(self, row: Array, items: Array, target: Array) -> Array:
        """The gradient of the mean squared error for one user's row."""
        recipe, K = self.network_recipe, len(row) - 1
        made, outputs = self._outputs(np.broadcast_to(row, items.shape), items)
        slopes = np.zeros_like(items)
        if recipe.has_biases:
            slopes[:, :K] += items[:, :K]
            slopes[:, K] = 1
        if self._layers:
            slopes[:, :K] += input_gradient(outputs, self._layers, recipe.activation)[:, :K]
        return 2 * ((made - target) @ slopes) / len(items)

    def score_row(self, row: Array) -> Array:
        """As of :class:`FoldingModel`."""
        items = self._item_table[:-1]
        made, _ = self._outputs(np.broadcast_to(row, items.shape), items)
        return (made + self.global_mean).astype(np.float32)

    def similar_items(self, item: Id, n: int = 10) -> pl.DataFrame:
        """The items whose embeddings point the same way: ``item``, ``similarity`` (cosine), ``rank``, ``title``."""
        code = self._one_code(self.item_ids, item, "item")
        check_number("n", n, low=1, whole=True, owner="similar")
        U = self.item_factors.astype(np.float64)
        lengths = np.linalg.norm(U, axis=1)
        cosine = np.divide(U @ U[code], lengths * lengths[code], out=np.zeros(len(U)), where=lengths > 0)
        cosine[code] = -np.inf
        best = top_n(cosine, n)
        rank = np.arange(1, len(best) + 1, dtype=np.int32)
        return item_table(self.item_ids, best, self.ratings.titles, similarity=cosine[best], rank=rank)
