r"""AutoRec: the ratings of a user (or of an item) reconstructed through hidden layers.

A sample is the row r of a user's centred ratings, 0 where there is none (``side="item"``: an item's, with the
users as columns; the paper found it the better one). The network gives every cell of the row a value,

.. math:: \hat r = \mu + V\,\phi(\dots\phi(A\tilde r + a)\dots) + c

where :math:`\tilde r` is r with a share of its inputs left out (a denoising autoencoder: what is missing is what it has
to learn to fill). Only observed cells count, so that it does not learn to reproduce the zeros:

.. math:: J = \frac1{|\Omega|}\sum_{i,j} m_{ij}(r_{ij} - \hat r_{ij})^2 + \lambda\left(\|A\|^2 + \dots + \|V\|^2\right)

The ratings of a test are predicted from the reconstruction of the *training* rows.

``path="dense"`` is the Keras network, fed with rows made dense a batch at a time. ``path="sparse"`` computes the
same loss and gradients from the observed cells alone (:mod:`gramian.kernels.autoencoder`).

Source: Sedhain, Menon, Sanner & Xie 2015.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from gramian.deep import backend, sparse
from gramian.deep.dense import ACTIVATIONS
from gramian.deep.network import checked_weights
from gramian.deep.reconstruction import AutoRecModel
from gramian.history import History
from gramian.kernels.csr import CSR
from gramian.models.base import Array, Epoch, Recipe
from gramian.parameters import param
from gramian.persist import Arrays
from gramian.ratings import Ratings

__all__ = ["AutoRec"]

SPARSE_BELOW = 0.1  # share of observed cells below which the sparse path is the faster one


@dataclass(frozen=True, kw_only=True)
class AutoRec(Recipe[AutoRecModel]):
    """An autoencoder over rows of ratings; see the head of this module.

    Raises:
        ParameterError: A field is outside its range; or Keras is not installed where the dense path needs it.
    """

    name: ClassVar[str] = "autorec"

    side: str = param("item", "whose rows are reconstructed", choices=("item", "user"))
    hidden: int = param(256, "units of each hidden layer", low=1, high=4096)
    layers: int = param(1, "hidden layers", low=1, high=3)
    activation: str = param("sigmoid", "φ of the hidden layers", choices=ACTIVATIONS)
    dropout: float = param(0.0, "share of the inputs left out in a training step", low=0, high=0.95)
    regularization: float = param(1e-3, "λ of the squares of the layers' weights", low=0)
    optimizer: str = param("adam", "adam, or momentum: gradient descent with momentum", choices=("adam", "momentum"))
    learning_rate: float = param(0.001, "η; lower it when the loss jumps about", low=1e-8, high=1)
    momentum: float = param(0.9, "β of momentum; β₁ of Adam", low=0, high=0.999)
    batch_size: int = param(128, "rows in a step; all of them where there are fewer", low=1)
    path: str = param("auto", "sparse: observed cells only; dense: the Keras network; auto: the faster",
                      choices=("auto", "sparse", "dense"))  # fmt: skip
    epochs: int = param(30, "passes over the rows", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    seed: int = param(0, "of the random start, the order of the rows, and dropout", low=0)
    n_jobs: int | None = param(None, "threads of the sparse path; all cores if not given", low=1, optional=True)

    # ---- the network ------------------------------------------------------------------------------

    def build(self, n_users: int, n_items: int) -> Any:
        """The network, a ``keras.Model`` from rows of centred ratings to rows: take it away and change it."""
        keras = backend.keras()
        width = n_items if self.side == "user" else n_users
        penalty = keras.regularizers.L2(self.regularization)
        row = x = keras.layers.Input((width,), name="row")
        if self.dropout > 0:
            x = keras.layers.Dropout(self.dropout, seed=self.seed, name="dropout")(x)
        for n in range(self.layers):
            x = keras.layers.Dense(self.hidden, kernel_regularizer=penalty, name=f"hidden{n}")(x)
            x = keras.layers.Activation("linear" if self.activation == "identity" else self.activation)(x)
        return keras.Model(row, keras.layers.Dense(width, kernel_regularizer=penalty, name="output")(x))

    def weight_shapes(self, n_users: int, n_items: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's weights."""
        width = n_items if self.side == "user" else n_users
        sizes = [width, *[self.hidden] * self.layers]
        shapes: dict[str, tuple[int, ...]] = {}
        for n, (a, b) in enumerate(pairwise(sizes)):
            shapes |= {f"hidden{n}/kernel": (a, b), f"hidden{n}/bias": (b,)}
        return shapes | {"output/kernel": (self.hidden, width), "output/bias": (width,)}

    def rows(self, ratings: Ratings) -> CSR:
        """The samples: centred ratings."""
        rows = ratings.by_user if self.side == "user" else ratings.by_item
        return rows._replace(values=rows.values - np.float32(ratings.global_mean))

    def is_sparse(self, ratings: Ratings) -> bool:
        """Which path is taken."""
        return self.path == "sparse" or (
            self.path == "auto" and len(ratings) < SPARSE_BELOW * ratings.n_users * ratings.n_items
        )

    # ---- training ---------------------------------------------------------------------------------

    def start(self, ratings: Ratings) -> Arrays:
        """Weights uniform in ±√(6 / (inputs + outputs)) (Glorot & Bengio 2010), biases 0."""
        rng = np.random.Generator(np.random.Philox(self.seed))
        weights = {}
        for name, shape in self.weight_shapes(ratings.n_users, ratings.n_items).items():
            most = np.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0
            weights[name] = (most * rng.uniform(-1, 1, shape)).astype(np.float32)
        if self.is_sparse(ratings):
            arrays = to_rows(weights)
            return arrays | sparse.first_state(arrays, self.optimizer)
        network = _compile(self, ratings.n_users, ratings.n_items)
        for variable in network.weights:
            variable.assign(weights[variable.path])
        return backend.get_state(network)

    def epoch(self, ratings: Ratings, arrays: Arrays, number: int) -> Epoch:
        """One pass over all rows in a random order; the history has the error as it was met on the way."""
        mean, made = (self._sparse_epoch if self.is_sparse(ratings) else self._dense_epoch)(ratings, arrays, number)
        backend.finite_loss(mean, number, self.learning_rate)
        return Epoch(made, {"train_rmse": float(np.sqrt(mean))})

    def _sparse_epoch(self, ratings: Ratings, arrays: Arrays, number: int) -> tuple[float, Arrays]:
        made = {name: array.copy() for name, array in arrays.items()}
        rows = self.rows(ratings)
        others = ratings.by_item if self.side == "user" else ratings.by_user
        n_batches = -(-int((rows.counts > 0).sum()) // self.batch_size)
        steps = sparse.Steps(
            self.activation, self.layers, self.regularization, self.optimizer, self.learning_rate, self.momentum,
            self.n_jobs,
        )  # fmt: skip
        total, n = sparse.epoch(
            rows, sparse.dropped(rows.values, self.dropout, self.seed, number), made, steps,
            sparse.batches(rows, self.batch_size, self.seed, number),
            sparse.column_shrink(others.counts, n_batches, self.regularization),
        )  # fmt: skip
        return total / n, made

    def _dense_epoch(self, ratings: Ratings, arrays: Arrays, number: int) -> tuple[float, Arrays]:
        network = _compiled(self._key(), ratings.n_users, ratings.n_items)
        backend.set_state(network, arrays)
        rows = self.rows(ratings)
        width = ratings.n_items if self.side == "user" else ratings.n_users
        picks = list(sparse.batches(rows, self.batch_size, self.seed, number))
        said = network.fit(dense_batches(rows, width, picks), epochs=1, shuffle=False, verbose=0).history
        return float(said["squared_error"][0]), backend.get_state(network)

    def _key(self) -> AutoRec:
        """The recipe less what a compiled network does not depend on, once its variables are set."""
        return dataclasses.replace(self, epochs=1, patience=None, seed=0, batch_size=1, path="dense", n_jobs=None)

    def finish(self, ratings: Ratings, arrays: Arrays) -> Arrays:
        """The network's weights by their Keras paths, without what only training needs."""
        if self.is_sparse(ratings):
            return from_rows(arrays, self.layers)
        return {name: arrays[f"network.{name}"] for name in self.weight_shapes(ratings.n_users, ratings.n_items)}

    def model(self, ratings: Ratings, arrays: Arrays, history: History) -> AutoRecModel:
        """The model of these weights."""
        shapes = self.weight_shapes(ratings.n_users, ratings.n_items)
        return AutoRecModel(self, ratings, history, checked_weights(self, arrays, shapes))


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


def dense_batches(rows: CSR, width: int, picks: list[Array]) -> Any:
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


def masked_error(target: Any, made: Any) -> Any:
    """Σ m (r - r̂)² / Σ m of a batch, with the mask m where the target is a number."""
    ops = backend.keras().ops
    mask = ops.isfinite(target)
    squared = ops.where(mask, ops.square(made - ops.where(mask, target, 0.0)), 0.0)
    return ops.sum(squared) / ops.maximum(ops.sum(ops.cast(mask, "float32")), 1.0)


def _compile(recipe: AutoRec, n_users: int, n_items: int) -> Any:
    network = recipe.build(n_users, n_items)

    def squared_error(target: Any, made: Any) -> Any:
        return masked_error(target, made)

    steps = backend.optimizer(recipe.optimizer, recipe.learning_rate, recipe.momentum)
    network.compile(optimizer=steps, loss=masked_error, metrics=[squared_error])
    steps.build(network.trainable_variables)
    return network


_compiled = functools.lru_cache(maxsize=8)(_compile)
