"""Somebody new in a posterior: their row in each draw, and what follows from it."""

from __future__ import annotations

import numpy as np
import polars as pl

from gramian.core.parameters import check_level
from gramian.data.ids import Codes
from gramian.kernels.arrays import Array
from gramian.models.bayes.bundles import FoldInRatings
from gramian.models.bayes.conditionals import contributions
from gramian.models.bayes.ranking_rules import ordered
from gramian.models.bayes.scores import Posterior
from gramian.models.fold_in import NewUser
from gramian.models.predictive import Mixture, central

__all__ = ["PosteriorNewUser"]


class PosteriorNewUser(NewUser[Posterior]):
    """Somebody folded into each draw of a posterior.

    Args:
        model: The posterior.
        who: What they rated.
        about: What is known of them beside that, as of :meth:`gramian.models.bayes.scores.Posterior.fold_in`.
    """

    def __init__(self, model: Posterior, who: FoldInRatings, about: object) -> None:
        super().__init__(model, who.items, who.values, model.folded(who, about)[0])
        self.who, self.about = who, about

    def _distribution(self, items: Codes) -> Mixture:
        """What each draw predicts for some items, with the noise of a rating."""
        return self.model.predictive_of_row(self.row, items)

    def predict(self, items: Codes) -> Array:
        """The mean of the draws' predictions, each clipped to the scale."""
        return np.asarray(np.clip(self._distribution(items).means, *self.model.scale).mean(axis=0))

    def stds(self, items: Codes) -> Array:
        """The predictive standard deviation of item codes."""
        return self._distribution(items).std()

    def interval(self, items: Codes, level: float) -> Array:
        """Intervals (n, 2) of what this person would give."""
        check_level("level", level, "predict_interval")
        return np.clip(central(self._distribution(items), level), *self.model.scale)

    def ordered(self, order: str, level: float, seed: int) -> Array:
        """As of :class:`NewUser`; the orders are those of ``recommend``."""
        return ordered(self.model, order, level, seed, "recommend").score_row(self.row)

    def reasons(self, item: int) -> pl.DataFrame:
        """As of :class:`NewUser`: averaged over the draws."""
        draws = self.model.draws_of_new(self.items, self.about)
        targets = self.model.targets_of_new(self.who, self.about)
        parts = [
            contributions(draw, rated, item, self.model.intercepts) for draw, rated in zip(draws, targets, strict=True)
        ]
        return self.reasons_table(np.mean(parts, axis=0))
