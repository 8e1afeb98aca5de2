r"""AutoRec: the ratings of a user (or of an item) reconstructed through hidden layers.

A sample is the row r of a user's centred ratings, 0 where there is none (``side="item"``: an item's, with the
users as columns; the paper found it the better one). The network gives every cell of the row a value,

.. math:: \hat r = \mu + V\,\phi(\dots\phi(A\tilde r + a)\dots) + c

where :math:`\tilde r` is r with a share of its inputs left out (a denoising autoencoder: what is missing is what it has
to learn to fill). Only observed cells count, so that it does not learn to reproduce the zeros:

.. math::
    J = \frac1{|\Omega|}\Big(\sum_{i,j} m_{ij}(r_{ij} - \hat r_{ij})^2
        + \lambda\left(\|A\|^2 + \dots + \|V\|^2\right)\Big)

The ratings of a test are predicted from the reconstruction of the *training* rows.

A trained model predicts, recommends and folds in without Keras. The hidden code :math:`h_s` of a sample is computed
once from its training ratings; a prediction is then :math:`\mu + h_s^\top V_j + c_j`. A sample that is not known has an
empty row; a column that is not known has the mean row of V; where neither is known, μ stands in. Somebody new, with
users as samples, gets a code by one forward pass. With items as samples a user is a column: its row of V and its bias
are the best ones for the items' codes, a ridge regression with the penalty of training, which is where gradient steps
on that row alone would end.

``path="dense"`` is the Keras network, fed with rows made dense a batch at a time. ``path="sparse"`` computes the
same loss and gradients from the observed cells alone (:mod:`gramian.kernels.gradient.autoencoder`).

Source: Sedhain, Menon, Sanner & Xie 2015.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np

from gramian.core.file_format import Arrays, checked_arrays
from gramian.core.history import History
from gramian.core.parameters import Range, param
from gramian.data.ids import Codes
from gramian.data.table import RatingsTable
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, empty_rows, one_row
from gramian.models.neural import backend, sparse
from gramian.models.neural.layers import ACTIVATIONS, activate
from gramian.models.neural.network_model import PIECE, NetworkModel
from gramian.models.recipe import Epoch, Recipe
from gramian.models.training import check_finite

__all__ = ["AutoRec", "AutoRecModel"]

TINY = 1e-6  # keeps the ridge regression of somebody new solvable without a penalty
SPARSE_BELOW = 0.1  # share of observed cells below which the sparse path is the faster one


@dataclass(frozen=True, kw_only=True)
class AutoRec(Recipe["AutoRecModel"]):
    """An autoencoder over rows of ratings; see the head of this module.

    Raises:
        ParameterError: A field is outside its range; or Keras is not installed where the dense path needs it.
    """

    name: ClassVar[str] = "autorec"
    extra: ClassVar[str] = "deep"
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "hidden": (64, 128, 256),
        "regularization": Range(1, 100, power=1),
        "dropout": Range(0.4, 0.9, log=False),
        "learning_rate": Range(0.001, 0.01),
    }

    side: str = param("item", "whose rows are reconstructed", choices=("item", "user"))
    hidden: int | tuple[int, ...] = param(128, "units of each hidden layer, one number or several", low=1, high=4096,
                                          most=3)  # fmt: skip
    activation: str = param("sigmoid", "φ of the hidden layers", choices=ACTIVATIONS)
    dropout: float = param(0.8, "share of the inputs left out in a training step", low=0, high=0.95)
    regularization: float = param(5.0, "λ on the layers' weights; raise it when validation error rises", low=0)
    optimizer: str = param("adam", "adam, or momentum: gradient descent with momentum", choices=("adam", "momentum"))
    learning_rate: float = param(0.003, "η; lower it when the loss jumps about", low=1e-8, high=1)
    decay: float = param(0.05, "δ: the rate of epoch t from 0 is η/(1 + δt)", low=0)
    momentum: float = param(0.9, "β of momentum; β₁ of Adam", low=0, high=0.999)
    batch_size: int | None = param(None, "rows in a step; a 64th of them, but 8 to 512, if not given", low=1,
                                   optional=True)  # fmt: skip
    path: str = param("auto", "sparse: observed cells only; dense: the Keras network; auto: the faster",
                      choices=("auto", "sparse", "dense"))  # fmt: skip
    epochs: int = param(60, "passes over the rows", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    seed: int = param(0, "of the random start, the order of the rows, and dropout", low=0)
    n_jobs: int | None = param(None, "threads of the sparse path; all cores if not given", low=1, optional=True)

    # ---- the network ------------------------------------------------------------------------------

    @property
    def sizes(self) -> tuple[int, ...]:
        """The units of each hidden layer."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)

    def build(self, n_users: int, n_items: int, n_ratings: int | None = None) -> backend.KerasModel:
        """The network, a ``keras.Model`` from rows of centred ratings to rows: take it away and change it.

        Args:
            n_users: N, the width of an item's row.
            n_items: M, that of a user's.
            n_ratings: The ratings that the penalty is shared out to; without it there is no penalty.
        """
        keras = backend.keras()
        width = n_items if self.side == "user" else n_users
        penalty = None if n_ratings is None else keras.regularizers.L2(self.regularization / n_ratings)
        row = x = keras.layers.Input((width,), name="row")
        if self.dropout > 0:
            x = keras.layers.Dropout(self.dropout, seed=self.seed, name="dropout")(x)
        for n, size in enumerate(self.sizes):
            x = keras.layers.Dense(size, kernel_regularizer=penalty, name=f"hidden{n}")(x)
            x = keras.layers.Activation("linear" if self.activation == "identity" else self.activation)(x)
        return keras.Model(row, keras.layers.Dense(width, kernel_regularizer=penalty, name="output")(x))

    def weight_shapes(self, n_users: int, n_items: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's weights."""
        width = n_items if self.side == "user" else n_users
        sizes = [width, *self.sizes]
        shapes: dict[str, tuple[int, ...]] = {}
        for n, (a, b) in enumerate(pairwise(sizes)):
            shapes |= {f"hidden{n}/kernel": (a, b), f"hidden{n}/bias": (b,)}
        return shapes | {"output/kernel": (sizes[-1], width), "output/bias": (width,)}

    def rows(self, ratings: RatingsTable) -> CSR:
        """The samples: centred ratings."""
        table = ratings.to_local()
        rows = table.by_user if self.side == "user" else table.by_item
        return rows._replace(values=rows.values - np.float32(ratings.global_mean))

    def is_sparse(self, ratings: RatingsTable) -> bool:
        """Which path is taken."""
        return self.path == "sparse" or (
            self.path == "auto" and len(ratings) < SPARSE_BELOW * ratings.n_users * ratings.n_items
        )

    # ---- training ---------------------------------------------------------------------------------

    def batches(self, rows: CSR, number: int) -> list[Array]:
        """The samples of each step of an epoch."""
        count = int((rows.counts > 0).sum())
        size = backend.batch_size(
            self.batch_size, count, min(max(count // 64, 8), 512), type(self).__name__, f"{self.side}s with ratings"
        )
        return list(sparse.batches(rows, size, self.seed, number))

    def start(self, ratings: RatingsTable) -> Arrays:
        """Weights uniform in ±√(6 / (inputs + outputs)) (Glorot & Bengio 2010), biases 0."""
        self.batches(self.rows(ratings), 0)
        rng = np.random.Generator(np.random.Philox(self.seed))
        weights = {}
        for name, shape in self.weight_shapes(ratings.n_users, ratings.n_items).items():
            most = np.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0
            weights[name] = (most * rng.uniform(-1, 1, shape)).astype(np.float32)
        if self.is_sparse(ratings):
            arrays = to_rows(weights)
            return arrays | sparse.first_state(arrays, self.optimizer)
        network = dense_network(self, ratings)
        for variable in network.weights:
            variable.assign(weights[variable.path])
        return backend.get_state(network)

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """One pass over all rows in a random order; the history has the error as it was met on the way."""
        rate = backend.rate(self.learning_rate, self.decay, number)
        go = self._sparse_epoch if self.is_sparse(ratings) else self._dense_epoch
        mean, made = go(ratings, arrays, number, rate)
        check_finite(mean, made, number, rate)
        return Epoch(made, {"train_rmse": float(np.sqrt(mean))})

    def _sparse_epoch(self, ratings: RatingsTable, arrays: Arrays, number: int, rate: float) -> tuple[float, Arrays]:
        made = {name: array.copy() for name, array in arrays.items()}
        rows = self.rows(ratings)
        others = ratings.by_item if self.side == "user" else ratings.by_user
        picks, penalty = self.batches(rows, number), self.regularization / len(ratings)
        steps = sparse.Steps(
            self.activation, len(self.sizes), penalty, self.optimizer, rate, self.momentum, self.n_jobs
        )
        total, n = sparse.epoch(
            rows, sparse.dropped(rows.values, self.dropout, self.seed, number), made, steps, picks,
            sparse.column_shrink(others.counts, len(picks), penalty),
        )  # fmt: skip
        return total / n, made

    def _dense_epoch(self, ratings: RatingsTable, arrays: Arrays, number: int, rate: float) -> tuple[float, Arrays]:
        sizes = (ratings.n_users, ratings.n_items, len(ratings))
        network = backend.compiled((self._key(), sizes), lambda: dense_network(self, ratings))
        backend.set_state(network, arrays)
        network.optimizer.learning_rate.assign(rate)
        rows = self.rows(ratings)
        width = ratings.n_items if self.side == "user" else ratings.n_users
        said = network.fit(
            dense_batches(rows, width, self.batches(rows, number)), epochs=1, shuffle=False, verbose=0
        ).history
        return float(said["squared_error"][0]), backend.get_state(network)

    def _key(self) -> AutoRec:
        """The recipe less what a compiled network does not depend on, once its variables are set."""
        free: dict[str, Any] = {"epochs": 1, "patience": None, "seed": 0, "batch_size": None, "n_jobs": None}
        return dataclasses.replace(self, **free, learning_rate=0.1, decay=0.0, path="dense")

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """The network's weights by their Keras paths, without what only training needs."""
        if self.is_sparse(ratings):
            return from_rows(arrays, len(self.sizes))
        return {name: arrays[f"network.{name}"] for name in self.weight_shapes(ratings.n_users, ratings.n_items)}

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> AutoRecModel:
        """The model of these weights."""
        shapes = self.weight_shapes(ratings.n_users, ratings.n_items)
        return AutoRecModel(self, ratings, history, checked_arrays(self.name, arrays, shapes, (np.float32,)))


@dataclass(frozen=True, eq=False, repr=False)
class AutoRecModel(NetworkModel):
    """A trained AutoRec: its network goes from rows of centred ratings to rows."""

    @property
    def _autorec(self) -> AutoRec:
        return cast(AutoRec, self.recipe)

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
        return np.vstack([self.encode(self._autorec.rows(self.ratings)), self.encode(empty_rows(1))])

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

    def fold_in_codes(self, items: Codes, values: Array) -> Array:
        """The row of a user with these ratings: its code, or with items as samples [v, c]."""
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

    def score_row(self, row: Array) -> Array:
        """As of :class:`FoldingModel`."""
        if self._autorec.side == "user":
            columns = self._columns_table[:-1]
            return self._values(np.broadcast_to(row, (len(columns), len(row))), columns).astype(np.float32)
        codes = self._codes_table[:-1]
        return self._values(codes, np.broadcast_to(row, (len(codes), len(row)))).astype(np.float32)


def to_rows(weights: Arrays) -> Arrays:
    """The arrays of the sparse path: rows of the first layer, and of the output layer with their bias."""
    made = {"in": weights["hidden0/kernel"], "bias0": weights["hidden0/bias"]}
    n = 1
    while f"hidden{n}/kernel" in weights:
        made |= {f"kernel{n}": weights[f"hidden{n}/kernel"], f"bias{n}": weights[f"hidden{n}/bias"]}
        n += 1
    out = np.concatenate([weights["output/kernel"].T, weights["output/bias"][:, None]], axis=1)
    return {name: np.ascontiguousarray(array).copy() for name, array in (made | {"out": out}).items()}


def from_rows(arrays: Arrays, layers: int) -> Arrays:
    """The weights by their Keras paths."""
    made = {"hidden0/kernel": arrays["in"], "hidden0/bias": arrays["bias0"]}
    for n in range(1, layers):
        made |= {f"hidden{n}/kernel": arrays[f"kernel{n}"], f"hidden{n}/bias": arrays[f"bias{n}"]}
    out = arrays["out"]
    return made | {"output/kernel": np.ascontiguousarray(out[:, :-1].T), "output/bias": out[:, -1].copy()}


def dense_batches(rows: CSR, width: int, picks: list[Array]) -> backend.KerasObject:
    """A ``keras.utils.PyDataset``: batches made dense one at a time; cells without a rating are NaN in the target."""
    keras = backend.keras()

    class Batches(keras.utils.PyDataset):  # type: ignore[misc,name-defined]
        def __len__(self) -> int:
            return len(picks)

        def __getitem__(self, index: int) -> tuple[Array, Array]:
            batch = rows.take(picks[index])
            x, y = np.zeros((batch.n_rows, width), np.float32), np.full((batch.n_rows, width), np.nan, np.float32)
            x[batch.row_codes(), batch.indices] = y[batch.row_codes(), batch.indices] = batch.values
            return x, y

    return Batches()


def masked_error(target: backend.KerasObject, made: backend.KerasObject) -> backend.KerasObject:
    """Σ m (r - r̂)² / Σ m of a batch, with the mask m where the target is a number."""
    ops = backend.keras().ops
    mask = ops.isfinite(target)
    squared = ops.where(mask, ops.square(made - ops.where(mask, target, 0.0)), 0.0)
    return ops.sum(squared) / ops.maximum(ops.sum(ops.cast(mask, "float32")), 1.0)


def dense_network(recipe: AutoRec, ratings: RatingsTable) -> backend.KerasModel:
    """The network ready to be trained, its weights at random."""
    network = recipe.build(ratings.n_users, ratings.n_items, len(ratings))

    def squared_error(target: backend.KerasObject, made: backend.KerasObject) -> backend.KerasObject:
        return masked_error(target, made)

    steps = backend.optimizer(recipe.optimizer, recipe.learning_rate, recipe.momentum)
    network.compile(optimizer=steps, loss=masked_error, metrics=[squared_error])
    steps.build(network.trainable_variables)
    return network
