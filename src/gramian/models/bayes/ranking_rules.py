"""Orders of recommendations: by the expected rating, by what is safe, or by one draw of the posterior for each user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from gramian.core.parameters import check_choice, check_level, check_number
from gramian.data.ids import Codes
from gramian.data.pairs import Pairs
from gramian.kernels.arrays import Array
from gramian.models.bayes.scores import Posterior

__all__ = ["ORDERS", "ordered"]

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
        pairs = Pairs(users, items)
        return self._lower(self.believed_codes(pairs) if pairs.unseen.any() else self.each_draw(pairs))

    def score_block(self, users: Codes) -> Array:
        scores = self._lower(self.block_of_draw(s, users) for s in range(self.n_draws))
        for row in np.flatnonzero(users < 0):
            pairs = Pairs.of_user(int(users[row]), scores.shape[1])
            scores[row] = self.score_pairs(pairs.users, pairs.items)
        return scores

    def score_row(self, row: Array) -> Array:
        return self._lower(self.row_of_draw(s, row) for s in range(self.n_draws))

    def _lower(self, scores: Iterable[Array]) -> Array:
        from scipy.special import ndtri

        total, squares, count = np.zeros(1), np.zeros(1), 0
        for score in scores:  # about the mean rating, so that squares lose no digits
            distance = score.astype(np.float64) - self.global_mean
            total, squares, count = total + distance, squares + distance * distance, count + 1
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean * mean, 0))
        return np.asarray(self.global_mean + mean - ndtri((1 + self.level) / 2) * std)


@dataclass(frozen=True, eq=False, repr=False)
class _ByOneDraw(Posterior):
    """Scores of each user are those of one draw; ``which`` has one for every user and, last, for anybody else."""

    which: Array

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        pairs, out, which = Pairs(users, items), np.empty(len(users)), self.which[np.maximum(users, -1)]
        for s in np.unique(which):
            own = which == s
            out[own] = self.of_draw(s, pairs.take(own))
        return out

    def score_block(self, users: Codes) -> Array:
        out, which = np.empty((len(users), self.ratings.n_items), np.float32), self.which[np.maximum(users, -1)]
        for s in np.unique(which):
            own = which == s
            out[own] = self.block_of_draw(s, users[own])
        return out

    def score_row(self, row: Array) -> Array:
        return self.row_of_draw(self.which[-1], row).astype(np.float64)
