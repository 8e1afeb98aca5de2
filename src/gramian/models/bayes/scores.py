r"""A factor model that is a posterior: not one W and U, but S draws of them, each as probable as the next.

Draw *s* predicts :math:`m_s = \mu + b_i + c_j + w_i^\top u_j` and says that a rating is :math:`N(m_s,
\alpha_s^{-1})`. Averages over the draws are the posterior predictive distribution: its mean is the prediction, its
spread says how sure that is. A prediction is the mean of the draws' predictions *clipped to the scale*
(``clip=True``), or of the free ones; scores for recommending are free.

Where the model knows of time, m has the offsets of the time asked for as well, or, where none is, the user's, the
item's and everybody's mean of them (see :mod:`gramian.models.bayes.terms.time_offsets`).

Whoever is unknown has the prior of the side, per draw (:mod:`gramian.models.bayes.unseen`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.engine import entries
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes import gibbs
from gramian.models.bayes.encoding import Scales
from gramian.models.bayes.fold_in_draws import Newcomer, fold_hidden, told_of
from gramian.models.bayes.state import Draw, knowing, packed, rows_of
from gramian.models.bayes.terms.ordinal import expected
from gramian.models.bayes.unseen import KnownByFeatures
from gramian.models.distributions.normal_mixture import NormalMixture
from gramian.models.distributions.ordinal_mixture import StepMixture
from gramian.models.fold_in import one_row
from gramian.models.model import Times, pair_times
from gramian.models.predictive import Mixture

__all__ = ["Posterior"]

FOLDING = 2**31  # draws of new rows have counters of their own: no sweep of a training has these numbers


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(KnownByFeatures):
    """Draws from the posterior of a Bayesian factor model, and the scores that they give.

    Attributes (beside those of :class:`KnownByFeatures`):
        traces: (sweeps, chains, number of :attr:`trace_names`), what each sweep of each chain was at, burn-in
            included.
        burn_in: How many of these sweeps were burn-in.
        scales: The cells in time and the steps of the ratings, where the model knows of them.
    """

    traces: Array
    burn_in: int
    scales: Scales

    def arrays(self) -> Arrays:
        """The parameters by name."""
        made: Arrays = {"traces": self.traces, "offset": np.array([self.global_mean])}
        made |= self.scales.arrays()
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

    @property
    def levels(self) -> Array:
        """As of :class:`UncertainModel`; of a model of steps, its levels."""
        return super().levels if self.scales.levels is None else self.scales.levels

    def _edge_below(self, least: float) -> float:
        if self.scales.levels is None:
            return super()._edge_below(least)
        k = int(np.searchsorted(self.scales.levels, least - 1e-6))
        return float(self.scales.levels[k - 1 : k + 1].mean())

    # ---- scoring --------------------------------------------------------------------------------

    def _each_draw(self, users: Codes, items: Codes, times: Times | None = None) -> Iterator[Array]:
        """What every draw predicts for pairs of codes, pair by pair."""
        cells = self._cells(users, items, times)
        for draw in self.draws:
            yield self._of_draw(draw, users, items, cells)

    def _of_draw(self, draw: Draw, users: Codes, items: Codes, cells: Sequence[Array] | None) -> Array:
        """The mean rating of pairs: of steps, that of their probabilities."""
        mean = self._mean(draw, users, items, cells)
        if draw.cuts is None or self.scales.levels is None:
            return mean
        std = np.sqrt(self._variance(draw, users, items, cells))
        return expected(mean, draw.cuts.values, self.scales.levels, std)

    def _mean(self, draw: Draw, users: Codes, items: Codes, cells: Sequence[Array] | None) -> Array:
        """The mean of the normal distribution of pairs, float32."""
        rows = self._rows(draw, users, items)
        scores = self._products(*rows)
        if draw.time is not None:
            scores += draw.time.usual(users, items) if cells is None else draw.time.at(cells)
            if cells is not None and draw.time.drift is not None:
                scores += draw.time.drift.at(cells[0], rows[1])
        return scores

    def _variance(self, draw: Draw, users: Codes, items: Codes, cells: Sequence[Array] | None) -> Array:
        """The variance of pairs given a draw: the noise, and what is not known of strangers and of times."""
        variance = np.broadcast_to(_noise(draw, users), len(users)) + self._unknown_variance(draw, users, items, cells)
        return variance if draw.time is None else variance + draw.time.variance(cells, len(users))

    def _cells(self, users: Codes, items: Codes, times: Times | None) -> Sequence[Array] | None:
        """The cells of pairs in time; None where no time is told, or the model does not know of time."""
        calendar = None if times is None else self.scales.calendar(self.ratings)
        return None if calendar is None or times is None else calendar.find(users, items, times)

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
            predicted[(users == -1) | (items == -1)] = np.nan
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
        if draw.cuts is not None:
            self._expect(draw, scores, np.broadcast_to(_noise(draw, users), len(users)))
            items = np.arange(scores.shape[1], dtype=np.int32)
            for row in np.flatnonzero(users < 0):  # their variance differs by item
                scores[row] = self._of_draw(draw, np.full(len(items), users[row]), items, None)
        return scores

    def _all_items(self, draw: Draw, rows: Array, among: Codes | slice = slice(None)) -> Array:
        """(rows, M): the mean of the normal distribution of every item, or of those among some."""
        K, items = self.n_factors, draw.item_rows[among].astype(np.float32)
        scores: Array = rows[:, :K] @ items[:, :K].T + np.float32(self.global_mean)
        if draw.time is not None:
            scores += (draw.time.levels[1] + draw.time.levels[2])[among].astype(np.float32)
        return scores + rows[:, K:] + items[:, K] if self.biased else scores

    def _of_row(self, draw: Draw, row: Array) -> Array:
        """(M,): what a draw predicts of every item for the row of somebody new, (1, D)."""
        scores = self._all_items(draw, row)
        self._expect(draw, scores, np.array([1 / draw.noise_precision]))
        return np.asarray(scores[0])

    def _expect(self, draw: Draw, scores: Array, variance: Array) -> None:
        """Means of the normal distribution become expected ratings, where these are steps; to 1e-5."""
        levels = self.scales.levels
        if draw.cuts is None or levels is None:
            return
        if len(levels) == 1:
            scores[:] = levels[0]
            return
        known = variance if draw.time is None else variance + draw.time.variance(None, len(variance))
        entries.expect_block(scores, draw.cuts.values, levels, np.sqrt(known), self._setting("n_jobs"))

    def predictive_codes(self, users: Codes, items: Codes, times: Times | None = None) -> Mixture:
        """One normal, or one ladder, per draw; a pair with an unknown side has that side's prior covariance as well."""
        cells = self._cells(users, items, times)
        means = np.stack([self._mean(draw, users, items, cells) for draw in self.draws])
        plain = self.scales.clock is None and not ((users < 0) | (items < 0)).any()
        variance = np.stack([
            _noise(draw, users) if plain else self._variance(draw, users, items, cells) for draw in self.draws
        ])  # fmt: skip
        if self.scales.levels is None:
            return NormalMixture(means, np.sqrt(variance))
        cuts = np.stack([draw.cuts.values for draw in self.draws if draw.cuts is not None])
        return StepMixture(means, np.sqrt(variance), cuts, self.scales.levels)

    def believed_codes(self, users: Codes, items: Codes, times: Times | None = None) -> Array:
        """As of :class:`UncertainModel`; of strangers with quantiles of the normal shared out to the draws, ± both."""
        from scipy.special import ndtri

        if not ((users < 0) | (items < 0)).any():
            return super().believed_codes(users, items, times)
        cells, S = self._cells(users, items, times), self.n_draws
        places = np.random.default_rng(self._setting("seed")).permutation(S)
        made = []
        for draw, z in zip(self.draws, ndtri((places + 0.5) / S), strict=True):
            mean = self._mean(draw, users, items, cells)
            away = z * np.sqrt(self._unknown_variance(draw, users, items, cells))
            if draw.cuts is None or self.scales.levels is None:
                made += [mean - away, mean + away]
                continue
            variance = _noise(draw, users) + (0.0 if draw.time is None else draw.time.variance(cells, len(users)))
            stds = np.broadcast_to(np.sqrt(variance), len(users))
            made += [expected(mean + side, draw.cuts.values, self.scales.levels, stds) for side in (-away, away)]
        return np.stack(made)

    def predictive_of_row(self, row: Array, items: Codes) -> Mixture:
        """The predictive distributions of some items for somebody folded in, whose row (S, D) is given."""
        means = np.stack([self._all_items(draw, row[s : s + 1], items)[0] for s, draw in enumerate(self.draws)])
        variance = np.array([
            1 / draw.noise_precision + (0.0 if draw.time is None else float(draw.time.variance(None, 1)[0]))
            for draw in self.draws
        ])  # fmt: skip
        stds = np.sqrt(variance)[:, None]
        if self.scales.levels is None:
            return NormalMixture(means, stds)
        cuts = np.stack([draw.cuts.values for draw in self.draws if draw.cuts is not None])
        return StepMixture(means, stds, cuts, self.scales.levels)

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in(
        self, ratings: Mapping[Any, float], *, features: Any = None, times: Any = None,
        unknown: str = "fallback",
    ) -> Array:  # fmt: skip
        """(S, D): the row of a user with these ratings, drawn given each kept draw; without ratings, the prior's.

        The same ratings give the same draws. ``features`` are what is known of the user, by the columns of
        ``user_features`` (a column left out counts as missing), or the user's id in that table. ``times``, one for all
        or one for each rating, in their order, are looked at by models that know of time.
        """
        items, values = self._given(ratings, unknown)
        if not self._hiding:
            return self._fold(one_row(np.arange(len(items), dtype=np.int32), values), items, features)
        when = pair_times(times, len(ratings))
        if when is not None:
            when = when[self.item_ids.codes(list(ratings), "item") >= 0]
        return self._fold_hidden(Newcomer(items, values, when), features)[0]

    @property
    def _hiding(self) -> bool:
        """Whether a part of the ratings is hidden, so that a row given them is not simply normal."""
        return self.scales.clock is not None or self.scales.levels is not None

    def _fold_hidden(self, who: Newcomer, features: Any = None) -> tuple[Array, list[Array]]:
        how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": 1}
        key = (self._setting("seed"), FOLDING)
        return fold_hidden(self._draws_knowing(who.items, features=features), who, self.scales, self.ratings, key, how)

    def _told(self, items: Codes, values: Array, user: int | None) -> list[Array]:
        """What ratings tell the row of a user, or of somebody new, in each draw: latent, without what time adds."""
        if not self._hiding:
            return [values] * self.n_draws
        if user is None:
            return self._fold_hidden(Newcomer(items, values))[1]
        part = self.ratings.by_user.take(np.array([user]))
        places = self.ratings.by_user.places(np.array([user]))
        how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": 1}
        return [
            told_of(draw, part, draw.user_rows[user : user + 1], places, self.scales, self.ratings,
                    np.sqrt(_noise(draw, np.array([user]))), (self._setting("seed"), FOLDING + s, gibbs.USERS), how)
            for s, draw in enumerate(self.draws)
        ]  # fmt: skip

    def _fold(self, row: CSR, items: Codes, features: Any = None) -> Array:
        out = np.empty((self.n_draws, self.draws[0].item_rows.shape[1]), np.float32)
        for s, draw in enumerate(self._draws_knowing(items, features=features)):
            key = (self._setting("seed"), FOLDING + s, gibbs.USERS)
            other = draw.item_rows[items].astype(np.float32)
            how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": 1}
            out[s] = gibbs.draw_rows(row, other, draw.users, draw.noise_precision, key, **how)[0][0]
        return out

    def _draws_knowing(self, items: Codes, user: int | None = None, features: Any = None) -> tuple[Draw, ...]:
        """The draws, each with the prior of a known user, or of a new one who rated these items."""
        known = self._features[0]
        if user is None:
            return self._draws_of_new(items, features)
        draws = tuple(draw._replace(noise_precision=_precision(draw, user)) for draw in self.draws)
        if known is None:
            return draws
        row = known.matrix.take(np.array([user]))
        return tuple(knowing(draw, row) for draw in draws)

    def _scores_of(self, row: Array) -> Array:
        parts = [self._of_row(draw, row[s : s + 1]) for s, draw in enumerate(self.draws)]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64))


def _noise(draw: Draw, users: Codes) -> Array:
    """The variance of a rating by each user, or the one of all, (1,)."""
    if draw.user_noise is None:
        return np.array([1 / draw.noise_precision])
    return np.asarray(1 / (draw.noise_precision * draw.user_noise.of(users)))


def _precision(draw: Draw, user: int) -> float:
    return float(1 / _noise(draw, np.array([user], np.int32))[0])
