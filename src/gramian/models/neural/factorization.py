r"""Networks of two embeddings: a user's row and an item's row go in, a rating comes out.

With rows :math:`w_i, u_j` of K numbers, biases :math:`b_i, c_j`, and layers
:math:`f(x) = a^\top \phi(\dots\phi(A_1 x + a_1)) + a_0`, the target being :math:`r_{ij} - \mu`:

.. math::
    \text{NeuralMF:}&\quad w_i^\top u_j + b_i + c_j \\
    \text{MLP:}&\quad f([w_i, u_j]) \\
    \text{ResidualMF:}&\quad w_i^\top u_j + b_i + c_j + f([w_i, u_j])

NeuralMF is matrix factorization as a network. The MLP may learn any function of the two rows, not the inner product
alone. In ResidualMF that function learns what the factorization leaves: :math:`f \approx r - \mu - \text{MF}`.

The loss of a batch is its mean squared error plus :math:`\lambda / |\Omega|` times the sum of squares of all
embeddings, with the number of ratings :math:`|\Omega|`. So λ means what it means in :class:`gramian.ALS`: NeuralMF's
loss is the objective of ALS over :math:`|\Omega|`. The layers' weights, which all ratings share, have a λ of their own
beside the mean: without it they make small embeddings large and get round the penalty.

Sources: He et al. 2017 (networks over embeddings); He, Zhang, Ren & Sun 2016 (residual branches).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gramian.core.file_format import Arrays, checked_arrays
from gramian.core.history import History
from gramian.core.parameters import Range, param
from gramian.data.table import RatingsTable
from gramian.models.neural import backend
from gramian.models.neural.layers import ACTIVATIONS
from gramian.models.neural.network import PairModel
from gramian.models.recipe import Epoch, Recipe
from gramian.models.training import check_finite

__all__ = ["MLP", "NeuralMF", "ResidualMF"]


@dataclass(frozen=True, kw_only=True)
class PairRecipe(Recipe[PairModel]):
    """What the networks of two embeddings share."""

    extra: ClassVar[str] = "deep"
    has_biases: ClassVar[bool]
    has_layers: ClassVar[bool]
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "factors": Range(4, 64, whole=True),
        "regularization": Range(2, 60, power=1),
        "learning_rate": Range(0.002, 0.05),
    }

    factors: int = param(16, "numbers in an embedding, K", low=1, high=512)
    regularization: float = param(12.0, "λ on the embeddings; raise it when validation error rises", low=0)
    optimizer: str = param("adam", "adam, or momentum: gradient descent with momentum (rate near 0.1)",
                           choices=("adam", "momentum"))  # fmt: skip
    learning_rate: float = param(0.01, "η; a larger batch bears a higher one", low=1e-8, high=1)
    decay: float = param(0.1, "δ: the rate of epoch t from 0 is η/(1 + δt)", low=0)
    momentum: float = param(0.9, "β of momentum; β₁ of Adam", low=0, high=0.999)
    batch_size: int | None = param(None, "ratings in a step; a 128th of them, but 16 to 8192, if not given", low=1,
                                   optional=True)  # fmt: skip
    epochs: int = param(15, "passes over the ratings", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    seed: int = param(0, "of the random start, the order of the ratings, and dropout", low=0)

    def build(self, n_users: int, n_items: int, n_ratings: int | None = None) -> backend.KerasModel:
        """The network, a ``keras.Model`` of two inputs of codes: take it away and change it as you like.

        Args:
            n_users: N, the rows of the users' embeddings.
            n_items: M, those of the items'.
            n_ratings: The ratings, which the penalties are made for; without it the embeddings have none.
        """
        layers = backend.keras().layers
        user, item = (layers.Input((1,), dtype="int32", name=name) for name in ("user", "item"))
        w, u = (
            self._embed(*of, n_ratings) for of in ((user, n_users, "user_factors"), (item, n_items, "item_factors"))
        )
        parts = []
        if self.has_biases:
            dot = layers.Dot(axes=2)([w, u])
            b, c = (
                self._embed(*of, n_ratings) for of in ((user, n_users, "user_biases"), (item, n_items, "item_biases"))
            )
            parts.append(layers.Flatten()(layers.Add()([dot, b, c])))
        if self.has_layers:
            parts.append(self._layers(layers.Concatenate()([layers.Flatten()(w), layers.Flatten()(u)]), n_ratings))
        return backend.keras().Model([user, item], parts[0] if len(parts) == 1 else layers.Add()(parts))

    def _embed(self, codes: backend.KerasObject, count: int, name: str, n_ratings: int | None) -> backend.KerasObject:
        """Rows near 0 that differ, or biases of 0."""
        keras = backend.keras()
        seed = 2 * self.seed + name.startswith("item")
        start = keras.initializers.RandomNormal(stddev=0.1 / np.sqrt(self.factors), seed=seed)
        bias = name.endswith("biases")
        return keras.layers.Embedding(
            count,
            1 if bias else self.factors,
            embeddings_initializer="zeros" if bias else start,
            embeddings_regularizer=None
            if n_ratings is None
            else keras.regularizers.L2(self.regularization / n_ratings),
            name=name,
        )(codes)

    def _layers(self, x: backend.KerasObject, n_ratings: int | None) -> backend.KerasObject:
        raise NotImplementedError

    def weight_shapes(self, n_users: int, n_items: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's weights."""
        sides = {"user": n_users, "item": n_items}
        shapes: dict[str, tuple[int, ...]] = {
            f"{side}_factors/embeddings": (count, self.factors) for side, count in sides.items()
        }
        if self.has_biases:
            shapes |= {f"{side}_biases/embeddings": (count, 1) for side, count in sides.items()}
        return shapes

    def _batch(self, ratings: RatingsTable) -> int:
        n = len(ratings)
        usual = min(max(n // 128, 16), 8192)
        return backend.batch_size(self.batch_size, n, usual, type(self).__name__, "ratings")

    def _key(self) -> PairRecipe:
        """The recipe less what a compiled network does not depend on, once its variables are set."""
        return dataclasses.replace(self, epochs=1, patience=None, seed=0, batch_size=None, learning_rate=0.1)

    def start(self, ratings: RatingsTable) -> Arrays:
        """Small random embeddings, zero biases, random layers."""
        self._batch(ratings)
        return backend.get_state(_compile(self, ratings))

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """One pass over all ratings in a random order; the history has the loss as it was met on the way."""
        rate = backend.rate(self.learning_rate, self.decay, number)
        sizes = (ratings.n_users, ratings.n_items, len(ratings))
        network = backend.compiled((self._key(), sizes), lambda: _compile(self, ratings))
        backend.set_state(network, arrays)
        network.optimizer.learning_rate.assign(rate)
        order = np.random.Generator(np.random.Philox([self.seed, number])).permutation(len(ratings))
        users, items = ratings.user_codes[order][:, None], ratings.item_codes[order][:, None]
        target = (ratings.values[order] - np.float32(ratings.global_mean))[:, None]
        batch = self._batch(ratings)
        said = network.fit([users, items], target, batch_size=batch, epochs=1, shuffle=False, verbose=0).history
        loss, mean, made = float(said["loss"][0]), float(said["mean_squared_error"][0]), backend.get_state(network)
        check_finite(mean, made, number, rate)
        return Epoch(made, {"objective": loss, "train_rmse": float(np.sqrt(mean))})

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """The network's weights, without what only training needs."""
        return {name: arrays[f"network.{name}"] for name in self.weight_shapes(ratings.n_users, ratings.n_items)}

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> PairModel:
        """The model of these weights."""
        shapes = self.weight_shapes(ratings.n_users, ratings.n_items)
        return PairModel(self, ratings, history, checked_arrays(self.name, arrays, shapes, (np.float32,)))


def _compile(recipe: PairRecipe, ratings: RatingsTable) -> backend.KerasModel:
    network = recipe.build(ratings.n_users, ratings.n_items, len(ratings))
    steps = backend.optimizer(recipe.optimizer, recipe.learning_rate, recipe.momentum)
    network.compile(optimizer=steps, loss="mse", metrics=["mean_squared_error"])
    steps.build(network.trainable_variables)
    return network


@dataclass(frozen=True, kw_only=True)
class NeuralMF(PairRecipe):
    """Matrix factorization with biases as a Keras network; see the head of this module.

    Raises:
        ParameterError: A field is outside its range; or, in training, Keras is not installed.
    """

    name: ClassVar[str] = "neuralmf"
    has_biases: ClassVar[bool] = True
    has_layers: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class LayeredRecipe(PairRecipe):
    """What the networks with hidden layers share."""

    has_layers: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        **PairRecipe.search_space,
        "hidden": (16, 32, 64),
        "layer_regularization": Range(0.0003, 0.03, power=1),
    }

    hidden: int | tuple[int, ...] = param(32, "units of each hidden layer, one number or several", low=1, high=4096,
                                          most=8)  # fmt: skip
    layer_regularization: float | None = param(
        None, "λ on the layers' weights, beside the mean squared error; 1/√ratings if not given", low=0, optional=True
    )
    activation: str = param("relu", "φ of the hidden layers", choices=ACTIVATIONS[:4])
    batch_norm: bool = param(False, "normalize each hidden layer over the batch")
    dropout: float = param(0.0, "share of hidden units left out in a training step", low=0, high=0.95)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The units of each hidden layer."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)

    def _layers(self, x: backend.KerasObject, n_ratings: int | None) -> backend.KerasObject:
        keras = backend.keras()
        strength = self.layer_regularization
        if strength is None:
            strength = 0.0 if n_ratings is None else 1 / np.sqrt(n_ratings)
        penalty = keras.regularizers.L2(float(strength))
        for n, size in enumerate(self.sizes):
            start = keras.initializers.GlorotUniform(seed=2 * self.seed + n + 2)
            x = keras.layers.Dense(size, kernel_initializer=start, kernel_regularizer=penalty, name=f"hidden{n}")(x)
            if self.batch_norm:
                x = keras.layers.BatchNormalization(name=f"norm{n}")(x)
            x = keras.layers.Activation(self.activation)(x)
            if self.dropout > 0:
                x = keras.layers.Dropout(self.dropout, seed=self.seed + n, name=f"dropout{n}")(x)
        start = "zeros" if self.has_biases else keras.initializers.GlorotUniform(seed=2 * self.seed + 1)
        return keras.layers.Dense(1, kernel_initializer=start, kernel_regularizer=penalty, name="output")(x)

    def weight_shapes(self, n_users: int, n_items: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the network's weights."""
        shapes = super().weight_shapes(n_users, n_items)
        wide = 2 * self.factors
        for n, size in enumerate(self.sizes):
            shapes |= {f"hidden{n}/kernel": (wide, size), f"hidden{n}/bias": (size,)}
            if self.batch_norm:
                parts = ("gamma", "beta", "moving_mean", "moving_variance")
                shapes |= {f"norm{n}/{part}": (size,) for part in parts}
            wide = size
        return shapes | {"output/kernel": (wide, 1), "output/bias": (1,)}


@dataclass(frozen=True, kw_only=True)
class MLP(LayeredRecipe):
    """Hidden layers over the two embeddings side by side; see the head of this module.

    Raises:
        ParameterError: A field is outside its range; or, in training, Keras is not installed.
    """

    name: ClassVar[str] = "mlp"
    has_biases: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class ResidualMF(LayeredRecipe):
    """Matrix factorization plus hidden layers over the same embeddings; see the head of this module.

    Raises:
        ParameterError: A field is outside its range; or, in training, Keras is not installed.
    """

    name: ClassVar[str] = "residual"
    has_biases: ClassVar[bool] = True
