"""What trained networks share: their weights, by which they predict without Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gramian.core.file_format import Arrays
from gramian.models.fold_in import FoldingModel

__all__ = ["PIECE", "NetworkModel"]

PIECE = 1 << 14  # pairs in one pass through the layers


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

    def network(self) -> Any:
        """The ``keras.Model`` with these weights; what goes in and comes out stands at the recipe's ``build``."""
        network = self._network_recipe.build(self.ratings.n_users, self.ratings.n_items)
        for variable in network.weights:
            variable.assign(self.weights[variable.path])
        return network

    @property
    def _network_recipe(self) -> Any:
        return self.recipe

    @property
    def global_mean(self) -> float:
        """μ of the training ratings."""
        return self.ratings.global_mean
