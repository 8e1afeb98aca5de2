"""Somebody the model never saw: folded in once, then predictions, intervals, recommendations and reasons from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from gramian.core.parameters import check_level
from gramian.data.ids import Codes
from gramian.errors import ParameterError
from gramian.kernels.arrays import Array
from gramian.models.bayes.posterior import BayesianModel
from gramian.models.bayes.ranking_rules import ordered
from gramian.models.bayes.scores import Posterior
from gramian.models.bayes.state import contributions
from gramian.models.conformal import Conformal
from gramian.models.factor_model import FactorModel
from gramian.models.fold_in import FoldingModel
from gramian.models.model import Model
from gramian.models.predictive import Mixture
from gramian.models.selection import item_table

__all__ = ["Newcomer", "half_widths", "known_interval"]


class Newcomer:
    """Somebody with these ratings, whose row is solved at once.

    Args:
        model: A model that can fold in.
        ratings: What this person rated, by item; every item must be known. It may be empty.

    Raises:
        ParameterError: The model cannot fold in.
        UnknownIdError: An item is unknown.
    """

    def __init__(self, model: Model, ratings: Mapping[Any, float]) -> None:
        inner = model.model if isinstance(model, Conformal) else model
        if not isinstance(inner, FoldingModel):
            name = getattr(inner.recipe, "name", "")
            raise ParameterError(f"A model of {name!r} cannot take in somebody new; serve one that can, ALS say.")
        self.model, self.inner, self.ratings = model, inner, dict(ratings)
        self.items, self.values = inner._given(self.ratings, "raise")
        self.row = inner.fold_in(self.ratings)

    def recommend(
        self, n: int, *, order: str = "mean", level: float = 0.9, seed: int = 0, exclude: Iterable[Any] = (),
        among: Iterable[Any] | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """The best items: ``item``, ``score``, ``rank``, and ``title`` where known."""
        inner = self.inner
        if order != "mean":
            inner = ordered(_bayesian(inner), order, level, seed, "recommend")
        return inner._best_of(inner._scores_of(self.row), n, list(exclude), among, "raise")

    def predict(self, items: Codes) -> Array:
        """Predictions for item codes, clipped to the scale."""
        if isinstance(self.inner, Posterior):
            clipped = np.clip(self._mixture(items).means, *self.inner.scale)
            return np.asarray(clipped.mean(axis=0))
        return np.clip(np.asarray(self.inner._scores_of(self.row)[items], np.float64), *self.inner.scale)

    def interval(self, items: Codes, level: float) -> Array | None:
        """Intervals (n, 2) of what this person would give, or None of a model that has none."""
        check_level("level", level, "predict_interval")
        if isinstance(self.model, Conformal):
            stds = self._mixture(items).std() if isinstance(self.inner, Posterior) else np.ones(len(items))
            half = half_widths(self.model, np.full(len(items), -1, np.int32), items, level) * stds
            ends = np.column_stack([self.predict(items) - half, self.predict(items) + half])
        elif isinstance(self.inner, Posterior):
            ends = _central(self._mixture(items), level)
        else:
            return None
        return np.clip(ends, *self.inner.scale)

    def _mixture(self, items: Codes) -> Mixture:
        """What each draw predicts for some items, with the noise of a rating."""
        assert isinstance(self.inner, Posterior)
        return self.inner.predictive_of_row(self.row, items)

    def reasons(self, item: int) -> pl.DataFrame:
        """What each rated item adds to or takes from the prediction of an item code, strongest first.

        Raises:
            ParameterError: The model cannot say.
        """
        inner = self.inner
        if isinstance(inner, BayesianModel):
            draws = inner._draws_knowing(self.items)
            told = inner._told(self.items, self.values, None)
            parts = [
                contributions(d, self.items, values, item, inner.biased, inner.global_mean)
                for d, values in zip(draws, told, strict=True)
            ]
            terms = np.mean(parts, axis=0)
        elif isinstance(inner, FactorModel):
            terms = inner._terms(self.items, self.values, item)
        else:
            raise ParameterError("This model cannot say why: serve one with factors, ALS say.")
        order = np.argsort(-np.abs(terms), kind="stable")
        return item_table(
            inner.item_ids, self.items[order], inner.ratings.titles,
            rating=self.values[order].astype(np.float64), contribution=np.asarray(terms[order], np.float64),
        )  # fmt: skip


def known_interval(model: Model, users: Codes, items: Codes, level: float) -> Array | None:
    """Intervals (n, 2) of pairs of codes, or None of a model that has none; −1 is somebody or something unknown."""
    check_level("level", level, "predict_interval")
    if isinstance(model, Conformal):
        centre, (half,) = model.half_widths(users, items, [level])
        return np.clip(np.column_stack([centre - half, centre + half]), *model.scale)
    if not isinstance(model, Posterior):
        return None
    parts = [_central(mixture, level) for _, mixture in model.pieces(users, items)]
    return np.clip(np.concatenate(parts) if parts else np.empty((0, 2)), *model.scale)


def half_widths(model: Conformal, users: Codes, items: Codes, level: float) -> Array:
    """The conformal quantile of each pair's group, in units of the scale of its score."""
    return np.asarray(model._quantiles(level, 4)[model.groups(users, items)])


def _central(mixture: Mixture, level: float) -> Array:
    tail = (1 - level) / 2
    return np.column_stack([mixture.quantile(tail), mixture.quantile(1 - tail)])


def _bayesian(model: FoldingModel) -> Posterior:
    if not isinstance(model, Posterior):
        raise ParameterError("This model keeps no draws, so it can order by 'mean' only; serve one of bpmf for others.")
    return model
