"""What can be asked of a model beside predictions and lists; models say so themselves."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import polars as pl

from gramian.data.ids import Id, Ids
from gramian.kernels.arrays import Array

__all__ = ["Asking", "Capabilities", "Featured"]


class Capabilities(NamedTuple):
    """What can be asked of a model.

    Attributes:
        fold_in: Whether it takes in somebody new (``new_user``).
        intervals: Whether it says how far a rating may lie from its prediction (``predict_interval``).
        orders: By what its lists can be ordered (``recommend(by=…)``).
        explain: Whether it says why (``explain``).
        ask: Whether it says which item to ask for (:class:`Asking`).
        features: How many latent features it shows (:class:`Featured`).
        scores_predict: Whether a score is the prediction but for the scale.
    """

    fold_in: bool = False
    intervals: bool = False
    orders: tuple[str, ...] = ("mean",)
    explain: bool = False
    ask: bool = False
    features: int = 0
    scores_predict: bool = False


class Featured(Protocol):
    """A model that shows its latent features."""

    @property
    def feature_positions(self) -> Array:
        """The items' weights in the latent features, (M, K)."""

    def similar_items(self, item: Id, n: int = 10) -> pl.DataFrame:
        """The items whose factors point the same way."""

    def top_items(self, feature: int, n: int = 10, *, lowest: bool = False) -> pl.DataFrame:
        """The strongest items of a latent feature."""


class Asking(Protocol):
    """A model that knows which item to ask for."""

    def ask_next(self, user: object, n: int = 10, *, among: Ids | None = None) -> pl.DataFrame:
        """The items whose rating would tell most about a user: ``item``, ``gain``, ``rank`` and maybe ``title``."""
