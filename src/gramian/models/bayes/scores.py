r"""A factor model that is a posterior: not one W and U, but S draws of them, each as probable as the next.

Draw *s* predicts :math:`m_s = \mu + b_i + c_j + w_i^\top u_j` and what its terms add, and says that a rating is
:math:`N(m_s, \alpha_s^{-1})`. Averages over the draws are the posterior predictive distribution: its mean is the
prediction, its spread says how sure that is. A prediction is the mean of the draws' predictions *clipped to the scale*
(``clip=True``), or of the free ones; scores for recommending are free.

Where terms know of time, m has what they add at the time asked for, or, where none is, what they usually add. Whoever
is unknown has the prior of the side, per draw (:mod:`gramian.models.bayes.unseen`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.data.pairs import Pairs
from gramian.kernels.arrays import Array, summed
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Chance, FoldInRatings, Some
from gramian.models.bayes.conditionals import Targets
from gramian.models.bayes.fold_in_draws import fold_in, targets_of
from gramian.models.bayes.state import ITEMS, USERS, State
from gramian.models.bayes.unseen import Draws, Found
from gramian.models.distributions.normal_mixture import NormalMixture
from gramian.models.distributions.ordinal_mixture import OrdinalMixture
from gramian.models.fold_in import Given
from gramian.models.model import TimesGiven, pair_times
from gramian.models.predictive import Mixture

__all__ = ["FOLDING", "Posterior"]

FOLDING = 2**31  # draws of new rows have counters of their own: no sweep of a training has these numbers
PIECE = 1 << 16  # pairs that are predicted at a time


@dataclass(frozen=True, eq=False, repr=False)
class Posterior(Draws):
    """Draws from the posterior of a Bayesian factor model, and the scores that they give.

    Attributes (beside those of :class:`gramian.models.bayes.unseen.Draws`):
        traces: (sweeps, chains, number of :attr:`trace_names`), what each sweep of each chain was at, burn-in
            included.
        burn_in: How many of these sweeps were burn-in.
    """

    traces: Array
    burn_in: int

    def arrays(self) -> Arrays:
        """The parameters by name."""
        made: Arrays = {"traces": self.traces, "offset": np.array([self.global_mean]), **self.terms.arrays()}
        for s, draw in enumerate(self.draws):
            made |= {f"draw{s:05d}.{part}": array for part, array in self.terms.packed(draw).items()}
        return made

    @property
    def noise_std(self) -> float:
        """The posterior mean of σ = α^-½, the noise of one rating, in units of the rating."""
        return float(np.mean([draw.noise_precision**-0.5 for draw in self.draws]))

    @property
    def levels(self) -> Array:
        """As of :class:`UncertainModel`; of a model of steps, its levels."""
        return super().levels if self.terms.observation is None else self.terms.observation.levels

    def _edge_below(self, least: float) -> float:
        if self.terms.observation is None:
            return super()._edge_below(least)
        levels = self.terms.observation.levels
        k = int(np.searchsorted(levels, least - 1e-6))
        return float(levels[k - 1 : k + 1].mean())

    # ---- pairs ----------------------------------------------------------------------------------

    def _find(self, pairs: Pairs) -> Found:
        """What the additions look up for pairs, once for all draws."""
        return [term.find(pairs) for term in self.terms.additions]

    def each_draw(self, pairs: Pairs) -> Iterator[Array]:
        """What every draw predicts for pairs of codes, pair by pair."""
        found = self._find(pairs)
        for s in range(self.n_draws):
            yield self._of_draw(s, pairs, found)

    def of_draw(self, s: int, pairs: Pairs) -> Array:
        """What draw *s* predicts for pairs of codes."""
        return self._of_draw(s, pairs, self._find(pairs))

    def _of_draw(self, s: int, pairs: Pairs, found: Found) -> Array:
        """The mean rating of pairs: of steps, that of their probabilities."""
        draw, term = self.draws[s], self.terms.observation
        mean = self._mean(draw, pairs, found)
        if term is None:
            return mean
        return term.expected(term.of(draw), mean, np.sqrt(self._variance(s, pairs, found)))

    def _mean(self, draw: State, pairs: Pairs, found: Found) -> Array:
        """The mean of the normal distribution of pairs, float32."""
        rows = self._rows(draw, pairs)
        scores = self._products(*rows)
        for term, own in zip(self.terms.additions, found, strict=True):
            added = term.at(term.of(draw), pairs, own, rows[1])
            if added is not None:
                scores += added
        return scores

    def _variance(self, s: int, pairs: Pairs, found: Found) -> Array:
        """The variance of pairs given draw *s*: the noise, and what is not known of rows and of what terms add."""
        draw = self.draws[s]
        variance = self._noise(draw, pairs.users) + self._unknown_variance(s, pairs, found)
        return self._wider(draw, variance, found)

    def _wider(self, draw: State, variance: Array, found: Found | None = None) -> Array:
        """A variance with that of what is not known of what terms add; of no pairs in particular without ``found``."""
        if not self.terms.additions:
            return variance
        total = np.zeros(len(variance))
        for place, term in reversed(list(enumerate(self.terms.additions))):
            term.add_variance(total, term.of(draw), None if found is None else found[place])
        return variance + total

    def _products(self, users: Array, items: Array) -> Array:
        """μ + b + c + wᵀu of pairs of rows: a sum over K whose rounding does not depend on the other pairs."""
        K = self.n_factors
        scores: Array = np.einsum("pk,pk->p", users[:, :K], items[:, :K])
        if self.biased:
            scores += users[:, K] + items[:, K]
        return scores + np.float32(self.global_mean)

    def _means(self, pairs: Pairs, clip: bool) -> Array:
        """Mean of the draws' predictions of pairs of codes, in pieces of bounded memory."""
        out = np.zeros(len(pairs))
        for piece, some in pairs.cut(PIECE):
            for scores in self.each_draw(some):
                out[piece] += np.clip(scores, *self.scale) if clip else scores
        return out / self.n_draws

    def predict_codes(self, pairs: Pairs, *, unknown: str = "fallback", clip: bool = True) -> Array:
        """As of :class:`Model`."""
        predicted = self._means(pairs, clip)
        if clip:  # the mean of numbers on the scale may leave it by a rounding error
            np.clip(predicted, *self.scale, out=predicted)
        if unknown == "nan":
            predicted[pairs.unknown] = np.nan
        return predicted

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """Posterior means of pairs of codes, free; an unknown side counts as the mean of its prior."""
        return self._means(Pairs(users, items), clip=False)

    # ---- all items ------------------------------------------------------------------------------

    def score_block(self, users: Codes) -> Array:
        """The same for all items of some users, by one matrix product per draw."""
        total = np.zeros((len(users), self.ratings.n_items), np.float32)
        for s in range(self.n_draws):
            total += self.block_of_draw(s, users)
        return total / np.float32(self.n_draws)

    def block_of_draw(self, s: int, users: Codes) -> Array:
        """What draw *s* predicts of all items for some users."""
        draw, term = self.draws[s], self.terms.observation
        scores = self._all_items(draw, self._side_rows(draw, USERS, users))
        for addition in self.terms.additions:
            levels = addition.levels(addition.of(draw), USERS)
            if levels is not None:
                own = levels.astype(np.float32)
                scores += np.where(users < 0, np.float32(0), own[np.maximum(users, 0)])[:, None]
        if term is not None:
            self._expect(draw, scores, self._noise(draw, users))
            for row in np.flatnonzero(users < 0):  # their variance differs by item
                scores[row] = self.of_draw(s, Pairs.of_user(users[row], scores.shape[1]))
        return scores

    def _all_items(self, draw: State, rows: Array, among: Codes | slice = slice(None)) -> Array:
        """(rows, M): the mean of the normal distribution of every item, or of those among some."""
        K, items = self.n_factors, draw.item_rows[among].astype(np.float32)
        scores: Array = rows[:, :K] @ items[:, :K].T + np.float32(self.global_mean)
        for term in self.terms.additions:
            value = term.of(draw)
            every = summed((term.levels(value, ITEMS), term.level(value)))
            if every is not None:
                scores += (every if len(every) == 1 else every[among]).astype(np.float32)
        return scores + rows[:, K:] + items[:, K] if self.biased else scores

    def _expect(self, draw: State, scores: Array, variance: Array) -> None:
        """Means of the normal distribution become expected ratings, where these are steps; to 1e-5."""
        term = self.terms.observation
        if term is not None:
            term.expect(term.of(draw), scores, np.sqrt(self._wider(draw, variance)), self.n_jobs)

    # ---- distributions ----------------------------------------------------------------------------

    def predictive_codes(self, pairs: Pairs) -> Mixture:
        """One normal, or one of steps, per draw; of an unknown side with the covariance of its prior."""
        found = self._find(pairs)
        means = np.stack([self._mean(draw, pairs, found) for draw in self.draws])
        plain = not self.terms.additions and not pairs.unseen.any()
        variance = np.stack([
            self.terms.variance(draw, pairs.users) if plain else self._variance(s, pairs, found)
            for s, draw in enumerate(self.draws)
        ])  # fmt: skip
        return self._mixture(means, np.sqrt(variance))

    def _mixture(self, means: Array, stds: Array) -> Mixture:
        term = self.terms.observation
        if term is None:
            return NormalMixture(means, stds)
        return OrdinalMixture(means, stds, np.stack([term.cuts(term.of(draw)) for draw in self.draws]), term.levels)

    def believed_codes(self, pairs: Pairs) -> Array:
        """As of :class:`UncertainModel`; of unknown sides, each draw has a quantile of the normal, ± both."""
        from scipy.special import ndtri

        if not pairs.unseen.any():
            return super().believed_codes(pairs)
        found, S, term = self._find(pairs), self.n_draws, self.terms.observation
        places = np.random.default_rng(self.seed).permutation(S)
        made = []
        for s, z in enumerate(ndtri((places + 0.5) / S)):
            draw = self.draws[s]
            mean = self._mean(draw, pairs, found)
            deviation = z * np.sqrt(self._unknown_variance(s, pairs, found))
            if term is None:
                made += [mean - deviation, mean + deviation]
                continue
            stds = np.sqrt(self._wider(draw, self._noise(draw, pairs.users), found))
            made += [term.expected(term.of(draw), mean + side, stds) for side in (-deviation, deviation)]
        return np.stack(made)

    def _noise(self, draw: State, users: Codes) -> Array:
        """The variance of a rating by each of these users."""
        return np.broadcast_to(self.terms.variance(draw, users), len(users))

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in(
        self, ratings: Given, *, features: object = None, times: TimesGiven = None, unknown: str = "fallback"
    ) -> Array:
        """(S, D): the row of a user with these ratings, drawn given each kept draw; without ratings, the prior's.

        The same ratings give the same draws. ``features`` are what is known of the user, by the columns of
        ``user_features`` (a column left out counts as missing), or the user's id in that table. ``times``, one for all
        or one for each rating, in their order, are looked at by models that know of time.
        """
        return self.folded(self.fold_in_ratings(ratings, times, unknown), features)[0]

    def fold_in_codes(self, items: Codes, values: Array) -> Array:
        """As of :class:`FoldingModel`: (S, D)."""
        return self.folded(FoldInRatings(items, values), None)[0]

    def fold_in_ratings(self, ratings: Given, times: TimesGiven, unknown: str) -> FoldInRatings:
        """Somebody's ratings by codes, without the unknown items; times where terms may look at them."""
        items, values = self._given(ratings, unknown, depth=5)
        when = pair_times(times, len(ratings)) if self.terms.by_rating else None
        if when is not None:
            when = when[self.item_ids.codes(list(ratings), "item") >= 0]
        return FoldInRatings(items, values, when)

    def folded(self, who: FoldInRatings, about: object) -> tuple[Array, list[Array]]:
        """The row in each draw, and what the ratings are to explain in it."""
        draws = self.draws_of_new(who.items, about)
        return fold_in(draws, who, self.terms, (self.seed, FOLDING), self.intercepts)

    def targets_of_new(self, who: FoldInRatings, about: object = None) -> list[Targets]:
        """The ratings of somebody new as each draw explains them."""
        if not self.terms.by_rating:
            return [Targets(who.items, who.values)] * self.n_draws
        return [Targets(who.items, targets) for targets in self.folded(who, about)[1]]

    def targets_of_user(self, user: int) -> list[Targets]:
        """The training ratings of a user as each draw explains them."""
        items, values = self.ratings.by_user.row(user)
        if not self.terms.by_rating:
            return [Targets(items, values)] * self.n_draws
        rows, one, made = self.ratings.by_user, np.array([user]), []
        assert isinstance(rows, CSR)
        for s, draw in enumerate(self.draws):
            some = Some(rows.places(one), rows.take(one), draw.item_rows)
            chance = Chance(np.random.default_rng(0), (self.seed, FOLDING + s, USERS), 1)
            std = float(np.sqrt(self.terms.variance(draw, one))[0])
            made.append(Targets(items, targets_of(draw, user, some, self.terms, std, chance, self.intercepts)))
        return made

    def score_row(self, row: Array) -> Array:
        """As of :class:`FoldingModel`: the mean over the draws for a row (S, D)."""
        parts = [self.row_of_draw(s, row) for s in range(self.n_draws)]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64))

    def row_of_draw(self, s: int, row: Array) -> Array:
        """(M,): what draw *s* predicts of every item for somebody folded in, whose row (S, D) is given."""
        draw = self.draws[s]
        scores = self._all_items(draw, row[s : s + 1])
        self._expect(draw, scores, np.array([1 / draw.noise_precision]))
        return np.asarray(scores[0])

    def predictive_of_row(self, row: Array, items: Codes) -> Mixture:
        """The predictive distributions of some items for somebody folded in, whose row (S, D) is given."""
        means = np.stack([self._all_items(draw, row[s : s + 1], items)[0] for s, draw in enumerate(self.draws)])
        variance = [self._wider(draw, np.array([1 / draw.noise_precision])) for draw in self.draws]
        return self._mixture(means, np.sqrt(np.concatenate(variance))[:, None])
