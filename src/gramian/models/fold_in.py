"""Somebody who is not in the training ratings, taken in by what they rated: predictions, lists, reasons."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import polars as pl

from gramian.core.parameters import check_level, check_number
from gramian.data.ids import Codes, Id, Ids
from gramian.errors import DataError, DataWarning, ParameterError
from gramian.kernels.arrays import Array
from gramian.models.capabilities import Capabilities
from gramian.models.model import Best, Model, TimesGiven
from gramian.models.selection import contribution_table, top_n

__all__ = ["FoldingIn", "FoldingModel", "Given", "NewUser"]

Given = Mapping[Any, float]  # what somebody rated: {item: rating}


@dataclass(frozen=True, eq=False, repr=False)
class FoldingModel(Model):
    """A model that gives a new user a row from that user's ratings alone."""

    # ---- what a family gives --------------------------------------------------------------------

    @abstractmethod
    def fold_in_codes(self, items: Codes, values: Array) -> Array:
        """The row of a user with these ratings of item codes, in any order."""

    @abstractmethod
    def score_row(self, row: Array) -> Array:
        """Unclipped predictions of every item for a row that :meth:`fold_in` made, (M,)."""

    def reasons_for(self, rated: Codes, values: Array, item: int) -> Array:
        """What each rating of somebody new adds to the prediction of an item code.

        Raises:
            ParameterError: The model cannot say.
        """
        raise ParameterError("This model cannot say why; take one with factors, ALS say.")

    @property
    def capabilities(self) -> Capabilities:
        """What can be asked of it."""
        return Capabilities(fold_in=True)

    # ---- the verbs ------------------------------------------------------------------------------

    def fold_in(self, ratings: Given, *, unknown: str = "fallback") -> Array:
        """The row of a user with these ratings, as the family of the model has it.

        Args:
            ratings: What this person rated: ``{item: rating}``. It may be empty.
            unknown: Unknown items are left out, with a warning, or raise.
        """
        return self.fold_in_codes(*self._given(ratings, unknown))

    def new_user(
        self, ratings: Given, *, times: TimesGiven = None, who: Id | None = None, unknown: str = "fallback"
    ) -> NewUser[FoldingModel]:
        """Somebody with these ratings, folded in once, to be asked about many times.

        Args:
            ratings: What this person rated: ``{item: rating}``. It may be empty.
            times: When, one for all or one for each; only models that know of time look at it.
            who: The person's id, for models that have a table of users in which it may stand.
            unknown: Unknown items are left out, with a warning, or raise.
        """
        items, values = self._given(ratings, unknown)
        return NewUser(self, items, values, self.fold_in_codes(items, values))

    def _given(self, ratings: Given, unknown: str, depth: int = 4) -> tuple[Codes, Array]:
        """Codes and values of a dictionary of ratings, without the unknown items; ``depth`` frames below who asked."""
        if not isinstance(ratings, Mapping):
            raise DataError(f"Ratings must be a dictionary of item: rating; got {type(ratings).__name__}.")
        for item, value in ratings.items():
            check_number(f"rating of item {item!r}", value, owner="recommend_for")
        values = np.array(list(ratings.values()), np.float32)
        low, high = self.scale
        if len(values) and (values.min() < low or values.max() > high):
            item = list(ratings)[int(np.argmax((values < low) | (values > high)))]
            text = f"The rating {ratings[item]!r} of item {item!r} is off the scale {low:g} to {high:g}."
            warnings.warn(text, DataWarning, stacklevel=depth)
        codes = self._codes(self.item_ids, list(ratings), "item", unknown)
        return codes[codes >= 0], values[codes >= 0]

    def recommend_for(
        self,
        ratings: Given,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        among: Ids | None = None,
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
        scores = self.score_row(self.fold_in(ratings, unknown=unknown))
        return self.best_scored(
            scores, n, leave_out=list(ratings) if exclude_seen else [], among=among, unknown=unknown
        )

    def best_scored(
        self, scores: Array, n: int, *, leave_out: Ids = (), among: Ids | None = None, unknown: str = "fallback"
    ) -> pl.DataFrame:
        """The table of the best scores of one person, (M,); ``scores`` is written to."""
        codes = self.item_ids.codes(leave_out, "item")
        scores[codes[codes >= 0]] = -np.inf
        candidates = self._candidates(among, unknown)
        if candidates is not None:
            left_out = np.ones(len(scores), bool)
            left_out[candidates] = False
            scores[left_out] = -np.inf
        best = top_n(scores, n)
        return self._ranked(Best(np.zeros(len(best), np.int64), best, scores[best]))


ModelT = TypeVar("ModelT", bound=FoldingModel, covariant=True)


class FoldingIn(Protocol):
    """A model that takes in somebody new; its capabilities say ``fold_in``."""

    def new_user(
        self, ratings: Given, *, times: TimesGiven = None, who: Id | None = None, unknown: str = "fallback"
    ) -> NewUser[FoldingModel]:
        """Somebody with these ratings; arguments as of :class:`FoldingModel`."""


class NewUser(Generic[ModelT]):
    """Somebody folded into a model, whose row is found: predictions, intervals, lists and reasons follow from it.

    Attributes:
        model: The model.
        items: The codes of the items that they rated.
        values: Their ratings of these.
        row: What :meth:`FoldingModel.fold_in` made of them.
    """

    def __init__(self, model: ModelT, items: Codes, values: Array, row: Array) -> None:
        self.model, self.items, self.values, self.row = model, items, values, row

    def scores(self) -> Array:
        """The scores of all items, (M,): predictions before clipping."""
        return self.model.score_row(self.row)

    def predict(self, items: Codes) -> Array:
        """Predictions of item codes, clipped to the scale."""
        return np.clip(np.asarray(self.scores()[items], np.float64), *self.model.scale)

    def stds(self, items: Codes) -> Array:
        """The predictive standard deviation of item codes; ones where the model knows of none."""
        return np.ones(len(items))

    def interval(self, items: Codes, level: float) -> Array | None:
        """Intervals (n, 2) of what this person would give, or None of a model that has none."""
        check_level("level", level, "predict_interval")
        return None

    def recommend(
        self, n: int, *, order: str = "mean", level: float = 0.9, seed: int = 0, exclude: Ids = (),
        among: Ids | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """The best items: ``item``, ``score``, ``rank``, and ``title`` where known."""
        scores = self.ordered(order, level, seed)
        return self.model.best_scored(scores, n, leave_out=exclude, among=among, unknown="raise")

    def ordered(self, order: str, level: float, seed: int) -> Array:
        """The scores that a list is ordered by."""
        if order != "mean":
            raise ParameterError(
                "This model keeps no draws, so it can order by 'mean' only; take one of BPMF for others."
            )
        return self.scores()

    def reasons(self, item: int) -> pl.DataFrame:
        """What each rated item adds to or takes from the prediction of an item code, strongest first.

        Raises:
            ParameterError: The model cannot say.
        """
        return self.reasons_table(self.model.reasons_for(self.items, self.values, item))

    def reasons_table(self, parts: Array) -> pl.DataFrame:
        """What each rated item adds, (ratings,), as a table, strongest first."""
        rating, parts = self.values.astype(np.float64), np.asarray(parts, np.float64)
        return contribution_table(self.model.item_ids, self.items, self.model.ratings.titles, rating, parts)
