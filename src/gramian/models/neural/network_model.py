"""What trained networks share: their weights, by which they predict without Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from gramian.core.file_format import Arrays
from gramian.models.fold_in import FoldingModel
from gramian.models.neural.backend import KerasModel

__all__ = ["PIECE", "NetworkModel", "NetworkSettings"]

PIECE = 1 << 14  # pairs in one pass through the layers


class NetworkSettings(Protocol):
    """What a trained network asks of its recipe: biases, hidden layers and their sizes, φ, λ, and the network."""

    has_biases: bool
    has_layers: bool
    sizes: tuple[int, ...]
    activation: str
    regularization: float

    def build(self, n_users: int, n_items: int, n_ratings: int | None = None) -> KerasModel:
        """The network."""


@dataclass(frozen=True, eq=False, repr=False)
class NetworkModel(FoldingModel):
    """A model of the weights of a Keras network.

    Attributes:
        weights: The weights of the network by their Keras paths.
    """

    weights: Arrays

    def __post_init__(self) -> None:
        for array in self.weights.values():
            array.flags.writeable = False

    def arrays(self) -> Arrays:
        """The weights by name."""
        return dict(self.weights)

    def network(self) -> KerasModel:
        """The ``keras.Model`` with these weights; what goes in and comes out stands at the recipe's ``build``."""
        network = self.network_recipe.build(self.ratings.n_users, self.ratings.n_items)
        for variable in network.weights:
            variable.assign(self.weights[variable.path])
        return network

    @property
    def network_recipe(self) -> NetworkSettings:
        """The recipe, which says what the network is made of."""
        return cast(NetworkSettings, self.recipe)

    @property
    def global_mean(self) -> float:
        """μ of the training ratings."""
        return self.ratings.global_mean
