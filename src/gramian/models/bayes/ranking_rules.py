"""Orders of recommendations: by the expected rating, by what is safe, or by one draw of the posterior for each user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gramian.core.parameters import check_choice, check_level, check_number
from gramian.data.ids import Codes
from gramian.kernels.arrays import Array
from gramian.models.bayes.scores import Posterior

__all__ = ["ordered"]

ORDERS = ("mean", "lower", "thompson")


def ordered(model: Posterior, by: str, level: float, seed: int, owner: str) -> Posterior:
    """The same draws with the scores that ``by`` asks for; ``owner`` is named in errors."""
    check_choice("by", by, ORDERS, owner)
    own = {field.name: getattr(model, field.name) for field in fields(Posterior)}
    if by == "lower":
        return _ByLowerBound(**own, level=check_level("level", level, owner))
    if by == "thompson":
        check_number("seed", seed, low=0, whole=True, owner=owner)
        rng = np.random.default_rng(seed)
        return _ByOneDraw(**own, which=rng.integers(model.n_draws, size=model.ratings.n_users + 1))
    return Posterior(**own)


@dataclass(frozen=True, eq=False, repr=False)
class _ByLowerBound(Posterior):
    """Scores are lower ends of the interval of the mean, by its normal approximation."""

    level: float

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        strange = bool(((users < 0) | (items < 0)).any())
        return self._lower(self.believed_codes(users, items) if strange else self._each_draw(users, items))

    def score_block(self, users: Codes) -> Array:
        scores = self._lower(self._block(draw, users) for draw in self.draws)
        items = np.arange(scores.shape[1], dtype=np.int32)
        for row in np.flatnonzero(users < 0):
            scores[row] = self.score_pairs(np.full(len(items), users[row]), items)
        return scores

    def _scores_of(self, row: Array) -> Array:
        return self._lower(self._of_row(draw, row[s : s + 1]) for s, draw in enumerate(self.draws))

    def _lower(self, scores: Iterable[Array]) -> Array:
        from scipy.special import ndtri

        total: Any = 0.0
        squares: Any = 0.0
        count = 0
        for score in scores:  # about the mean rating, so that squares lose no digits
            away = score.astype(np.float64) - self.global_mean
            total, squares, count = total + away, squares + away * away, count + 1
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean * mean, 0))
        return np.asarray(self.global_mean + mean - ndtri((1 + self.level) / 2) * std)


@dataclass(frozen=True, eq=False, repr=False)
class _ByOneDraw(Posterior):
    """Scores of each user are those of one draw; ``which`` has one for every user and, last, for anybody else."""

    which: Array

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        out, which = np.empty(len(users)), self.which[np.maximum(users, -1)]
        for s in np.unique(which):
            own = which == s
            out[own] = self._of_draw(self.draws[s], users[own], items[own], None)
        return out

    def score_block(self, users: Codes) -> Array:
        out, which = np.empty((len(users), self.ratings.n_items), np.float32), self.which[np.maximum(users, -1)]
        for s in np.unique(which):
            own = which == s
            out[own] = self._block(self.draws[s], users[own])
        return out

    def _scores_of(self, row: Array) -> Array:
        s = self.which[-1]
        return self._of_row(self.draws[s], row[s : s + 1]).astype(np.float64)
