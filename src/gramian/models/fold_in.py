"""What every model that can take in somebody new offers: recommendations from a dictionary of ratings."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from gramian.core.parameters import check_number
from gramian.data.ids import Codes
from gramian.errors import DataError, DataWarning
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, csr_from_sorted
from gramian.models.model import Model
from gramian.models.selection import top_n

__all__ = ["FoldingModel", "one_row"]


@dataclass(frozen=True, eq=False, repr=False)
class FoldingModel(Model):
    """A model that gives a new user a row from that user's ratings alone."""

    @abstractmethod
    def fold_in(self, ratings: Mapping[Any, float], *, unknown: str = "fallback") -> Array:
        """The row of a user with these ratings."""

    @abstractmethod
    def _scores_of(self, row: Array) -> Array:
        """Unclipped predictions of every item for a row that :meth:`fold_in` made, (M,)."""

    def _given(self, ratings: Mapping[Any, float], unknown: str) -> tuple[Codes, Array]:
        """Codes and values of a dictionary of ratings, without the unknown items."""
        if not isinstance(ratings, Mapping):
            raise DataError(f"Ratings must be a dictionary of item: rating; got {type(ratings).__name__}.")
        for item, value in ratings.items():
            check_number(f"rating of item {item!r}", value, owner="recommend_for")
        values = np.array(list(ratings.values()), np.float32)
        low, high = self.scale
        if len(values) and (values.min() < low or values.max() > high):
            item = list(ratings)[int(np.argmax((values < low) | (values > high)))]
            text = f"The rating {ratings[item]!r} of item {item!r} is off the scale {low:g} to {high:g}."
            warnings.warn(text, DataWarning, stacklevel=4)
        codes = self._codes(self.item_ids, list(ratings), "item", unknown)
        return codes[codes >= 0], values[codes >= 0]

    def recommend_for(
        self,
        ratings: Mapping[Any, float],
        n: int = 10,
        *,
        exclude_seen: bool = True,
        among: Any = None,
        unknown: str = "fallback",
    ) -> pl.DataFrame:
        """The best items for somebody who is not in the training ratings: fold in, then rank.

        Args:
            ratings: What this person rated: ``{item: rating}``. It may be empty: the best biases come.
            n: How many items; exactly min(n, available) come.
            exclude_seen: Leave out the items in ``ratings``.
            among: Candidate items.
            unknown: Unknown items in ``ratings`` or ``among`` are left out, with a warning, or raise.

        Returns:
            A polars table: ``item``, ``score`` (before clipping), ``rank``, and ``title`` where known.
        """
        check_number("n", n, low=1, whole=True, owner="recommend_for")
        scores = self._scores_of(self.fold_in(ratings, unknown=unknown))
        return self._best_of(scores, n, list(ratings) if exclude_seen else [], among, unknown)

    def _best_of(self, scores: Array, n: int, seen: list[Any], among: Any, unknown: str) -> pl.DataFrame:
        """The table of the best scores of one person; ``scores`` is written to."""
        codes = self.item_ids.codes(seen, "item")
        scores[codes[codes >= 0]] = -np.inf
        candidates = self._candidates(among, unknown)
        if candidates is not None:
            left_out = np.ones(len(scores), bool)
            left_out[candidates] = False
            scores[left_out] = -np.inf
        best = top_n(scores, n)
        return self._ranked(None, np.zeros(len(best), np.int64), best, scores[best])


def one_row(items: Codes, values: Array) -> CSR:
    """The ratings of one user as a matrix of one row."""
    order = np.argsort(items)
    return csr_from_sorted(np.zeros(len(items), np.int64), items[order], values[order], 1)
