r"""A factor model that is a posterior: not one W and U, but S draws of them, each as probable as the next.

Draw *s* predicts :math:`m_s = \mu + b_i + c_j + w_i^\top u_j` and says that a rating is :math:`N(m_s,
\alpha_s^{-1})`. Averages over the draws are the posterior predictive distribution: its mean is the prediction, its
spread says how sure that is. A prediction is the mean of the draws' predictions *clipped to the scale*
(``clip=True``), or of the free ones; scores for recommending are free.

Where the model knows of time, m has the offsets of the time asked for as well, or, where none is, the user's, the
item's and everybody's mean of them (see :mod:`gramian.models.times`).

Whoever is unknown has the prior of the side: mean row :math:`m`, covariance :math:`\Lambda^{-1}`, per draw; where a
side has features, the mean is :math:`m + \beta^\top f` of those that a table gives, or of the mean features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from gramian.ids import Codes
from gramian.kernels.csr import CSR
from gramian.mixture import NormalMixture
from gramian.models import gibbs
from gramian.models.base import Array, Times, pair_times
from gramian.models.draws import Draw, knowing, packed, prior_variance, rows_of
from gramian.models.features import implicit_sets, side_features
from gramian.models.folding import FoldingModel, one_row
from gramian.models.links import Features, Strangers
from gramian.models.newcomers import Newcomer, fold_hidden
from gramian.models.times import Clock, calendar_of
from gramian.models.uncertain import UncertainModel
from gramian.parameters import check_choice, check_level, check_number
from gramian.persist import Arrays
from gramian.ratings import Ratings

__all__ = ["Posterior", "ordered"]

ORDERS = ("mean", "lower", "thompson")
FOLDING = 2**31  # draws of new rows have counters of their own: no sweep of a training has these numbers


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(FoldingModel, UncertainModel):
    """Draws from the posterior of a Bayesian factor model, and the scores that they give.

    Attributes:
        draws: The kept draws, oldest first.
        global_mean: μ, subtracted from every rating.
        biased: Whether the last of the D columns of a row is a bias.
        traces: (sweeps, chains, number of :attr:`trace_names`), what each sweep of each chain was at, burn-in
            included.
        burn_in: How many of these sweeps were burn-in.
        clock: The lengths of the cells in time, where the model knows of time.
    """

    draws: tuple[Draw, ...]
    global_mean: float
    biased: bool
    traces: Array
    burn_in: int
    clock: Clock | None

    def arrays(self) -> Arrays:
        """The parameters by name."""
        made: Arrays = {"traces": self.traces, "offset": np.array([self.global_mean])}
        made |= {} if self.clock is None else {"clock": np.array(self.clock)}
        for s, draw in enumerate(self.draws):
            made |= {f"draw{s:05d}.{part}": array for part, array in packed(draw).items()}
        for name in ("user_features", "item_features"):
            table = getattr(self.recipe, name, None)
            made |= {} if table is None else table.to_arrays(name)
        return made

    @property
    def n_draws(self) -> int:
        """S, how many draws are kept."""
        return len(self.draws)

    @property
    def n_factors(self) -> int:
        """K."""
        return self.draws[0].item_rows.shape[1] - self.biased

    @property
    def noise_std(self) -> float:
        """The posterior mean of σ = α^-½, the noise of one rating, in units of the rating."""
        return float(np.mean([draw.noise_precision**-0.5 for draw in self.draws]))

    # ---- scoring --------------------------------------------------------------------------------

    def _each_draw(self, users: Codes, items: Codes, times: Times | None = None) -> Iterator[Array]:
        """What every draw predicts for pairs of codes, float32, pair by pair."""
        cells = self._cells(users, items, times)
        for draw in self.draws:
            yield self._of_draw(draw, users, items, cells)

    def _of_draw(self, draw: Draw, users: Codes, items: Codes, cells: Sequence[Array] | None) -> Array:
        scores = self._products(*self._rows(draw, users, items))
        if draw.time is not None:
            scores += draw.time.usual(users, items) if cells is None else draw.time.at(cells)
        return scores

    def _cells(self, users: Codes, items: Codes, times: Times | None) -> Sequence[Array] | None:
        """The cells of pairs in time; None where no time is told, or the model does not know of time."""
        if times is None or self.clock is None:
            return None
        return calendar_of(self.ratings, self.clock).find(users, items, times)

    def _rows(self, draw: Draw, users: Codes, items: Codes) -> tuple[Array, Array]:
        """The rows of pairs of codes."""
        of_users, of_items = self._strangers
        return (
            rows_of(draw.user_rows, users, draw.users, of_users),
            rows_of(draw.item_rows, items, draw.items, of_items),
        )

    @cached_property
    def _strangers(self) -> list[Strangers | None]:
        """What is known of users and of items that were not in training."""
        tables = [getattr(self.recipe, f"{side}_features", None) for side in ("user", "item")]
        return [
            None if known is None else Strangers(
                known.mean, known.count - (0 if table is None else len(table.names)),
                None if table is None else table.matrix,
            )
            for known, table in zip(self._features, tables, strict=True)
        ]  # fmt: skip

    @property
    def _features(self) -> tuple[Features | None, Features | None]:
        return side_features(self.recipe, self.ratings) if hasattr(self.recipe, "implicit") else (None, None)

    # Codes of ids that only a table of features knows are −2 − their place in it: new to the ratings, not unknown.

    def _pair_codes(self, users: Any, items: Any, unknown: str, depth: int = 4) -> tuple[Codes, Codes]:
        user_codes, item_codes = super()._pair_codes(users, items, unknown, depth + 1)
        return self._known_by_table("user", users, user_codes), self._known_by_table("item", items, item_codes)

    def codes_of(self, test: Ratings, unknown: str = "fallback") -> tuple[Codes, Codes]:
        """As of :class:`Model`."""
        users, items = super().codes_of(test, unknown)
        return self._known_by_table("user", test.users, users), self._known_by_table("item", test.items, items)

    def _known_by_table(self, side: str, ids: Any, codes: Codes) -> Codes:
        table = getattr(self.recipe, f"{side}_features", None)
        if table is None or table.ids is None or not len(codes) or int(codes.min()) >= 0:
            return codes
        places = np.broadcast_to(table.ids.codes(ids, side), codes.shape)
        return np.where((codes < 0) & (places >= 0), -2 - places, codes).astype(np.int32)

    def _products(self, users: Array, items: Array) -> Array:
        """μ + b + c + wᵀu of pairs of rows: a sum over K whose rounding does not depend on the other pairs."""
        K = self.n_factors
        scores: Array = np.einsum("pk,pk->p", users[:, :K], items[:, :K])
        if self.biased:
            scores += users[:, K] + items[:, K]
        return scores + np.float32(self.global_mean)

    def _pairs(self, users: Codes, items: Codes, clip: bool, times: Times | None = None) -> Array:
        """Mean of the draws' predictions of pairs of codes, in pieces of bounded memory."""
        out = np.zeros(len(users))
        for low in range(0, len(users), 1 << 16):
            piece = slice(low, low + (1 << 16))
            when = None if times is None else times[piece]
            for scores in self._each_draw(users[piece], items[piece], when):
                out[piece] += np.clip(scores, *self.scale) if clip else scores
        return out / self.n_draws

    def _predict_codes(self, users: Codes, items: Codes, unknown: str, clip: bool, times: Times | None = None) -> Array:
        predicted = self._pairs(users, items, clip, times)
        if clip:  # the mean of numbers on the scale may leave it by a rounding error
            np.clip(predicted, *self.scale, out=predicted)
        if unknown == "nan":
            predicted[(users < 0) | (items < 0)] = np.nan
        return predicted

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """Posterior means of pairs of codes, free; an unknown side counts as the mean of its prior."""
        return self._pairs(users, items, clip=False)

    def score_block(self, users: Codes) -> Array:
        """The same for all items of some users, by one matrix product per draw."""
        total = np.zeros((len(users), self.ratings.n_items), np.float32)
        for draw in self.draws:
            total += self._block(draw, users)
        return total / np.float32(self.n_draws)

    def _block(self, draw: Draw, users: Codes) -> Array:
        scores = self._all_items(draw, rows_of(draw.user_rows, users, draw.users, self._strangers[0]))
        if draw.time is not None:
            own = draw.time.levels[0].astype(np.float32)
            scores += np.where(users < 0, np.float32(0), own[np.maximum(users, 0)])[:, None]
        return scores

    def _all_items(self, draw: Draw, rows: Array) -> Array:
        """(rows, M): what a draw predicts for every item."""
        K, items = self.n_factors, draw.item_rows.astype(np.float32)
        scores: Array = rows[:, :K] @ items[:, :K].T + np.float32(self.global_mean)
        if draw.time is not None:
            scores += (draw.time.levels[1] + draw.time.levels[2]).astype(np.float32)
        return scores + rows[:, K:] + items[:, K] if self.biased else scores

    def predictive_codes(self, users: Codes, items: Codes, times: Times | None = None) -> NormalMixture:
        """One normal per draw; a pair with an unknown side has that side's prior covariance as well."""
        means = np.stack(list(self._each_draw(users, items, times)))
        noise = np.stack([_noise(draw, users) for draw in self.draws])
        strange = np.flatnonzero((users < 0) | (items < 0))
        if len(strange) == 0 and self.clock is None:
            return NormalMixture(means, np.sqrt(noise))
        variance = np.broadcast_to(noise, means.shape).copy()
        cells = self._cells(users, items, times)
        for s, draw in enumerate(self.draws):
            pairs = users[strange], items[strange]
            variance[s, strange] += prior_variance(draw, *pairs, self.biased, self._rows(draw, *pairs))
            if draw.time is not None:
                variance[s] += draw.time.variance(cells, len(users))
        return NormalMixture(means, np.sqrt(variance))

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in(self, ratings: Mapping[Any, float], *, times: Any = None, unknown: str = "fallback") -> Array:
        """(S, D): the row of a user with these ratings, drawn given each kept draw; without ratings, the prior's.

        The same ratings give the same draws. ``times``, one for all or one for each rating, in their order, are
        looked at by models that know of time.
        """
        items, values = self._given(ratings, unknown)
        if self.clock is None:
            return self._fold(one_row(np.arange(len(items), dtype=np.int32), values), items)
        return self._fold_hidden(self._newcomer(ratings, items, values, times))[0]

    def _newcomer(self, ratings: Mapping[Any, float], items: Codes, values: Array, times: Any) -> Newcomer:
        """Somebody's ratings, with their times."""
        when = pair_times(times, len(ratings))
        if when is not None:
            when = when[self.item_ids.codes(list(ratings), "item") >= 0]
        return Newcomer(items, values, when)

    def _fold_hidden(self, who: Newcomer, user: int | None = None) -> tuple[Array, list[Array]]:
        calendar = None if self.clock is None else calendar_of(self.ratings, self.clock)
        how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": 1}
        key = (self._setting("seed"), FOLDING)
        return fold_hidden(self._draws_knowing(who.items, user), who, calendar, key, how)

    def _told(self, items: Codes, values: Array, user: int | None, who: Newcomer | None = None) -> list[Array]:
        """What ratings tell the row of a user in each draw: without what time adds."""
        if self.clock is None:
            return [values] * self.n_draws
        if user is None:
            return self._fold_hidden(who or Newcomer(items, values))[1]
        calendar = calendar_of(self.ratings, self.clock)
        places = self.ratings.by_user.places(np.array([user]))
        return [values if draw.time is None else values - draw.time.of(calendar, places) for draw in self.draws]

    def _fold(self, row: CSR, items: Codes) -> Array:
        out = np.empty((self.n_draws, self.draws[0].item_rows.shape[1]), np.float32)
        for s, draw in enumerate(self._draws_knowing(items)):
            key = (self._setting("seed"), FOLDING + s, gibbs.USERS)
            other = draw.item_rows[items].astype(np.float32)
            how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": 1}
            out[s] = gibbs.draw_rows(row, other, draw.users, draw.noise_precision, key, **how)[0][0]
        return out

    def _draws_knowing(self, items: Codes, user: int | None = None) -> tuple[Draw, ...]:
        """The draws, each with the prior of a known user, or of a new one who rated these items."""
        known = self._features[0]
        if known is None and user is None:
            return self.draws
        if user is not None:
            draws = tuple(draw._replace(noise_precision=_precision(draw, user)) for draw in self.draws)
            if known is None:
                return draws
            row = known.matrix.take(np.array([user]))
            return tuple(knowing(draw, row) for draw in draws)
        assert known is not None
        places, values = np.arange(known.count, dtype=np.int32), known.mean.astype(np.float32)
        if getattr(self.recipe, "implicit", "none") in ("users", "both") and len(items):
            own = implicit_sets(one_row(items, np.ones(len(items), np.float32)), self.ratings.n_items)
            sets = self._strangers[0].first if self._strangers[0] is not None else known.count
            places = np.concatenate([own.indices, places[sets:]])
            values = np.concatenate([own.values, values[sets:]])
        return tuple(knowing(draw, one_row(places, values)) for draw in self.draws)

    def _scores_of(self, row: Array) -> Array:
        parts = [self._all_items(draw, row[s : s + 1])[0] for s, draw in enumerate(self.draws)]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64))

    def _setting(self, name: str) -> Any:
        return getattr(self.recipe, name, 0 if name == "seed" else None)


def _noise(draw: Draw, users: Codes) -> Array:
    """The variance of a rating by each user, or the one of all, (1,)."""
    if draw.user_noise is None:
        return np.array([1 / draw.noise_precision])
    return np.asarray(1 / (draw.noise_precision * draw.user_noise.of(users)))


def _precision(draw: Draw, user: int) -> float:
    return float(1 / _noise(draw, np.array([user], np.int32))[0])


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
        return self._lower(self._each_draw(users, items))

    def score_block(self, users: Codes) -> Array:
        return self._lower(self._block(draw, users) for draw in self.draws)

    def _scores_of(self, row: Array) -> Array:
        return self._lower(self._all_items(draw, row[s : s + 1])[0] for s, draw in enumerate(self.draws))

    def _lower(self, scores: Iterable[Array]) -> Array:
        from scipy.special import ndtri

        total: Any = 0.0
        squares: Any = 0.0
        for score in scores:  # about the mean rating, so that squares lose no digits
            away = score.astype(np.float64) - self.global_mean
            total, squares = total + away, squares + away * away
        mean = total / self.n_draws
        std = np.sqrt(np.maximum(squares / self.n_draws - mean * mean, 0))
        return np.asarray(self.global_mean + mean - ndtri((1 + self.level) / 2) * std)


@dataclass(frozen=True, eq=False, repr=False)
class _ByOneDraw(Posterior):
    """Scores of each user are those of one draw; ``which`` has one for every user and, last, for anybody else."""

    which: Array

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        out = np.empty(len(users))
        for s in np.unique(self.which[users]):
            own = self.which[users] == s
            out[own] = self._of_draw(self.draws[s], users[own], items[own], None)
        return out

    def score_block(self, users: Codes) -> Array:
        out = np.empty((len(users), self.ratings.n_items), np.float32)
        for s in np.unique(self.which[users]):
            own = self.which[users] == s
            out[own] = self._block(self.draws[s], users[own])
        return out

    def _scores_of(self, row: Array) -> Array:
        s = self.which[-1]
        return self._all_items(self.draws[s], row[s : s + 1])[0].astype(np.float64)
