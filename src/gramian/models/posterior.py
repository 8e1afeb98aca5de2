r"""A factor model that is a posterior: not one W and U, but S draws of them, each as probable as the next.

Draw *s* predicts :math:`m_s = \mu + b_i + c_j + w_i^\top u_j` and says that a rating is :math:`N(m_s,
\alpha_s^{-1})`. Averages over the draws are the posterior predictive distribution: its mean is the prediction, its
spread says how sure that is. A prediction is the mean of the draws' predictions *clipped to the scale*
(``clip=True``), or of the free ones; scores for recommending are free.

Whoever is unknown has the prior of the side: mean row :math:`m`, covariance :math:`\Lambda^{-1}`, per draw.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from gramian.engine import local
from gramian.ids import Codes
from gramian.kernels.csr import CSR
from gramian.mixture import NormalMixture
from gramian.models import gibbs
from gramian.models.base import Array, check_ratings_given
from gramian.models.diagnostics import as_datatree, diagnostics
from gramian.models.draws import (
    TRACED_PAIRS,
    Draw,
    contributions,
    expected_drops,
    mean_directions,
    packed,
    prior_variance,
    redrawn,
    rows_of,
    trace_names,
)
from gramian.models.factor import Explanation, FactorModel, SideSettings
from gramian.models.folding import FoldingModel, one_row
from gramian.models.tables import item_table
from gramian.models.uncertain import UncertainModel
from gramian.parameters import check_choice, check_level, check_number
from gramian.persist import Arrays
from gramian.ratings import Ratings

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["BayesianModel"]

ORDERS = ("mean", "lower", "thompson")
# Draws of new rows have counters of their own: no sweep of a training has these numbers.
FOLDING, UPDATING = 2**31, 2**31 + 2**30
ABOUT_ITEMS = 100  # whose variance counts in ask_next


@dataclass(frozen=True, eq=False, repr=False)
class BayesianModel(FoldingModel, UncertainModel):
    """The posterior of a Bayesian factor model, as draws from it.

    Attributes:
        draws: The kept draws, oldest first.
        global_mean: μ, subtracted from every rating.
        biased: Whether the last of the D columns of a row is a bias.
        traces: (sweeps, chains, number of :attr:`trace_names`), what each sweep of each chain was at, burn-in
            included.
        burn_in: How many of these sweeps were burn-in.
    """

    draws: tuple[Draw, ...]
    global_mean: float
    biased: bool
    traces: Array
    burn_in: int

    def arrays(self) -> Arrays:
        """The parameters by name."""
        made: Arrays = {"traces": self.traces, "offset": np.array([self.global_mean])}
        for s, draw in enumerate(self.draws):
            names = (f"draw{s:05d}.{part}" for part in ("user_rows", "item_rows", "rest"))
            made |= dict(zip(names, packed(draw), strict=True))
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

    def _each_draw(self, users: Codes, items: Codes) -> Iterator[Array]:
        """What every draw predicts for pairs of codes, float32, pair by pair."""
        for draw in self.draws:
            u, v = rows_of(draw.user_rows, users, draw.users), rows_of(draw.item_rows, items, draw.items)
            yield self._products(u, v)

    def _products(self, users: Array, items: Array) -> Array:
        """μ + b + c + wᵀu of pairs of rows: a sum over K whose rounding does not depend on the other pairs."""
        K = self.n_factors
        scores: Array = np.einsum("pk,pk->p", users[:, :K], items[:, :K])
        if self.biased:
            scores += users[:, K] + items[:, K]
        return scores + np.float32(self.global_mean)

    def _pairs(self, users: Codes, items: Codes, clip: bool) -> Array:
        """Mean of the draws' predictions of pairs of codes, in pieces of bounded memory."""
        out = np.zeros(len(users))
        for low in range(0, len(users), 1 << 16):
            piece = slice(low, low + (1 << 16))
            for scores in self._each_draw(users[piece], items[piece]):
                out[piece] += np.clip(scores, *self.scale) if clip else scores
        return out / self.n_draws

    def _predict_codes(self, users: Codes, items: Codes, unknown: str, clip: bool) -> Array:
        predicted = self._pairs(users, items, clip)
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
        return self._all_items(draw, rows_of(draw.user_rows, users, draw.users))

    def _all_items(self, draw: Draw, rows: Array) -> Array:
        """(rows, M): what a draw predicts for every item."""
        K, items = self.n_factors, draw.item_rows.astype(np.float32)
        scores: Array = rows[:, :K] @ items[:, :K].T + np.float32(self.global_mean)
        return scores + rows[:, K:] + items[:, K] if self.biased else scores

    def predictive_codes(self, users: Codes, items: Codes) -> NormalMixture:
        """One normal per draw; a pair with an unknown side has that side's prior covariance as well."""
        means = np.stack(list(self._each_draw(users, items)))
        noise = np.array([draw.noise_precision for draw in self.draws])[:, None] ** -1
        strange = np.flatnonzero((users < 0) | (items < 0))
        if len(strange) == 0:
            return NormalMixture(means, np.sqrt(noise))
        variance = np.broadcast_to(noise, means.shape).copy()
        for s, draw in enumerate(self.draws):
            variance[s, strange] += prior_variance(draw, users[strange], items[strange], self.biased)
        return NormalMixture(means, np.sqrt(variance))

    # ---- recommending ---------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        *,
        by: str = "mean",
        level: float = 0.9,
        seed: int = 0,
        exclude_seen: bool = True,
        among: Any = None,
        unknown: str = "fallback",
    ) -> pl.DataFrame:
        """The best items for one user, many, or (by default) all; see :meth:`Model.recommend` for the rest.

        Args:
            users: A user id, several, or None for every user.
            n: How many items per user.
            by: ``"mean"``: the highest expected rating. ``"lower"``: the highest lower end of the interval of
                the mean: what is safe. ``"thompson"``: each user's list is the best of one posterior draw, so
                that what is uncertain is tried as often as it may be best (Thompson 1933).
            level: Of the interval, for ``"lower"``.
            seed: Which draw a user gets, for ``"thompson"``.
            exclude_seen: Leave out the items that the user rated in training.
            among: Candidate items.
            unknown: The policy for unknown ids.

        Returns:
            A table as of :meth:`Model.recommend`; the score is what was asked for by ``by``.
        """
        check_choice("by", by, ORDERS, "recommend")
        model = self if by == "mean" else self._ordered(by, level, seed)
        rest: dict[str, Any] = {"exclude_seen": exclude_seen, "among": among, "unknown": unknown}
        return super(BayesianModel, model).recommend(users, n, **rest)

    def _ordered(self, by: str, level: float, seed: int) -> BayesianModel:
        own = {field.name: getattr(self, field.name) for field in fields(BayesianModel)}
        if by == "lower":
            check_level("level", level, "recommend")
            return _ByLowerBound(**own, level=level)
        check_number("seed", seed, low=0, whole=True, owner="recommend")
        rng = np.random.default_rng(seed)
        return _ByOneDraw(**own, which=rng.integers(self.n_draws, size=self.ratings.n_users + 1))

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in(self, ratings: Mapping[Any, float], *, unknown: str = "fallback") -> Array:
        """(S, D): the row of a user with these ratings, drawn given each kept draw; without ratings, the prior's.

        The same ratings give the same draws.
        """
        items, values = self._given(ratings, unknown)
        return self._fold(one_row(np.arange(len(items), dtype=np.int32), values), items)

    def _fold(self, row: CSR, items: Codes) -> Array:
        out = np.empty((self.n_draws, self.draws[0].item_rows.shape[1]), np.float32)
        for s, draw in enumerate(self.draws):
            key = (self._setting("seed"), FOLDING + s, gibbs.USERS)
            other = draw.item_rows[items].astype(np.float32)
            how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": 1}
            out[s] = gibbs.draw_rows(row, other, draw.users, draw.noise_precision, key, **how)[0][0]
        return out

    def _scores_of(self, row: Array) -> Array:
        parts = [self._all_items(draw, row[s : s + 1])[0] for s, draw in enumerate(self.draws)]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64))

    def ask_next(self, user: Any, n: int = 10, *, among: Any = None) -> pl.DataFrame:
        r"""The items whose rating would tell most about a user: largest expected drop in predictive variance.

        With :math:`\Sigma_s` the covariance of the user's row given draw *s* of everything else and v = (u, 1), the
        user's predictions of the items *j* and *k* have the covariance :math:`C_{jk} = \frac1S\sum_s v_j^\top\Sigma_s
        v_k` for what is not known of the user. A rating of *j*, whatever it turns out to be, lowers the variance of
        the prediction of *k* by

        .. math:: \frac{C_{jk}^2}{\sigma^2 + \operatorname{Var}(\hat r_j)},

        where the variance in the denominator is all that is not known of the prediction of *j*: little can be
        learned about a user from an item that is itself unknown. The mean over 100 other items *k* is the gain.

        Args:
            user: A user id, or a dictionary of ratings of somebody new (may be empty).
            n: How many items.
            among: Candidate items.

        Returns:
            A table: ``item``, ``gain`` (in squared units of the rating), ``rank``, and ``title`` where known.
        """
        check_number("n", n, low=1, whole=True, owner="ask_next")
        if isinstance(user, Mapping):
            items, values = self._given(user, "fallback")
        else:
            items, values = self.ratings.by_user.row(self._one_code(self.user_ids, user, "user"))
        unrated = np.setdiff1d(np.arange(self.ratings.n_items), items)
        about = np.random.default_rng(self._setting("seed")).permutation(unrated)[:ABOUT_ITEMS]
        gain = expected_drops(self.draws, items, values, about, self.biased, self.global_mean)
        table = self._best_of(gain, n, self.item_ids.take(items).to_list(), among, "fallback")
        return table.rename({"score": "gain"})

    # ---- looking inside -------------------------------------------------------------------------

    @cached_property
    def point(self) -> FactorModel:
        """The one factor model of rank K that is nearest to the posterior mean, for looking at features.

        Draws cannot be averaged column by column: the columns of W and U mean nothing by themselves and
        wander. WUᵀ does mean something; this is the best approximation of rank K to its mean over up to 50
        draws, found by subspace iteration, with the mean biases.
        """
        users, items = mean_directions(self.draws, self.n_factors)
        pairs = [(draw.user_rows, draw.item_rows) for draw in self.draws]
        if self.biased:
            b, c = (np.mean([d[side][:, -1] for d in pairs], axis=0, dtype=np.float32) for side in (0, 1))
            users, items = np.column_stack([users, b]), np.column_stack([items, c])
        settings = SideSettings(self.biased, local.Penalty(self.draws[-1].users.precision), centred=True)
        return FactorModel(self.recipe, self.ratings, self.history, users, items, self.global_mean, settings)

    @property
    def trace_names(self) -> list[str]:
        """What :attr:`traces` follows: see :func:`gramian.models.draws.trace_names`."""
        return trace_names(self.biased)

    def diagnostics(self) -> pl.DataFrame:
        """R-hat and effective sample sizes of noise, priors and predictions: has the chain converged?

        See :func:`gramian.models.diagnostics.diagnostics`. Needs the extra ``bayes``.
        """
        return diagnostics(self.traces[self.burn_in :], self.trace_names)

    def to_arviz(self) -> xr.DataTree:
        """The traces after burn-in as ArviZ's DataTree. Needs the extra ``bayes``."""
        return as_datatree(self.traces[self.burn_in :], self.trace_names)

    def plot_traces(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw what every sweep was at, burn-in shaded: noise, priors, and two of the predictions."""
        from gramian.plots import traces

        shown = len(self.trace_names) - TRACED_PAIRS + 2
        return traces(self.traces[:, :, :shown], self.trace_names[:shown], self.burn_in, path)

    def similar_items(self, item: Any, n: int = 10) -> pl.DataFrame:
        """As :meth:`FactorModel.similar_items`, of :attr:`point`."""
        return self.point.similar_items(item, n)

    def similar_users(self, user: Any, n: int = 10) -> pl.DataFrame:
        """As :meth:`FactorModel.similar_users`, of :attr:`point`."""
        return self.point.similar_users(user, n)

    def top_items(self, feature: int, n: int = 10, *, lowest: bool = False) -> pl.DataFrame:
        """As :meth:`FactorModel.top_items`, of :attr:`point`."""
        return self.point.top_items(feature, n, lowest=lowest)

    def plot_item_map(self, path: Any = None, *, labels: int = 60) -> Figure:
        """As :meth:`FactorModel.plot_item_map`, of :attr:`point`."""
        return self.point.plot_item_map(path, labels=labels)

    def explain(self, user: Any, item: Any) -> Explanation:
        r"""Take a prediction apart: what each rating of the user adds, averaged over the draws.

        Given the items of a draw, the user's expected row is :math:`A^{-1}(\Lambda m + \alpha\sum_j v_j t_j)`: one
        term for each item that the user rated. What the mean of the prior adds, and what a finite number of
        draws leaves, is :attr:`Explanation.rest`; the parts sum to the prediction.

        Raises:
            UnknownIdError: The user or the item is not in the training ratings.
        """
        i, j = self._one_code(self.user_ids, user, "user"), self._one_code(self.item_ids, item, "item")
        rated, values = self.ratings.by_user.row(i)
        terms = np.mean([contributions(d, rated, values, j, self.biased, self.global_mean) for d in self.draws], axis=0)
        order = np.argsort(-np.abs(terms), kind="stable")
        table = item_table(
            self.item_ids, rated[order], self.ratings.titles, rating=values[order], contribution=terms[order]
        )
        b = float(np.mean([d.user_rows[i, -1] for d in self.draws], dtype=np.float64)) if self.biased else 0.0
        c = float(np.mean([d.item_rows[j, -1] for d in self.draws], dtype=np.float64)) if self.biased else 0.0
        codes = np.array([i], np.int32), np.array([j], np.int32)
        prediction = float(self.score_pairs(*codes)[0])
        rest = prediction - self.global_mean - b - c - float(terms.sum())
        return Explanation(user, item, prediction, self.global_mean, b, c, table, rest)

    # ---- new ratings ----------------------------------------------------------------------------

    def update(self, new: Ratings) -> BayesianModel:
        """A new model that has also learned from ``new`` ratings, without starting again.

        In every kept draw, the rows of the users and items that have new ratings are drawn anew, given the
        rest of the draw: users, items, and users once more. Everything else, priors and noise too, stays as
        it was; after many new ratings a fresh fit is better. Known ids keep their codes; a pair rated again
        takes the new rating (the later one where both tables have times).
        """
        check_ratings_given(new, "update")
        ratings = self.ratings.merge(new)
        users = np.unique(ratings.user_ids.codes(new.user_ids.ids, "user"))
        items = np.unique(ratings.item_ids.codes(new.item_ids.ids, "item"))
        how: dict[str, Any] = {"biased": self.biased, "offset": self.global_mean, "n_jobs": self._setting("n_jobs")}
        sides, changed, seed = (ratings.by_user, ratings.by_item), (users, items), self._setting("seed")
        draws = tuple(
            redrawn(draw, sides, changed, (seed, UPDATING + 3 * s), **how) for s, draw in enumerate(self.draws)
        )
        return dataclasses.replace(self, ratings=ratings, draws=draws)

    def _setting(self, name: str) -> Any:
        return getattr(self.recipe, name, 0 if name == "seed" else None)


@dataclass(frozen=True, eq=False, repr=False)
class _ByLowerBound(BayesianModel):
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
class _ByOneDraw(BayesianModel):
    """Scores of each user are those of one draw; ``which`` has one for every user and, last, for anybody else."""

    which: Array

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        out = np.empty(len(users))
        for s in np.unique(self.which[users]):
            own, draw = self.which[users] == s, self.draws[s]
            out[own] = self._products(
                rows_of(draw.user_rows, users[own], draw.users), rows_of(draw.item_rows, items[own], draw.items)
            )
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
