"""The verbs of a Bayesian factor model: recommending by what is safe or worth a try, asking, explaining, updating."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from gramian.core.parameters import check_number
from gramian.data.ids import Id, Ids
from gramian.data.table import RatingsTable
from gramian.engine.rows import Penalty
from gramian.kernels.arrays import Array
from gramian.models.bayes.bundles import FoldInRatings, Setup
from gramian.models.bayes.conditionals import contributions, expected_drops
from gramian.models.bayes.diagnostics import as_datatree, diagnostics
from gramian.models.bayes.gibbs import BothWays
from gramian.models.bayes.new_user import PosteriorNewUser
from gramian.models.bayes.point import mean_directions
from gramian.models.bayes.ranking_rules import ORDERS, ordered
from gramian.models.bayes.scores import FOLDING, Posterior
from gramian.models.bayes.state import ITEMS, SIDES, USERS
from gramian.models.bayes.traces import TRACED_PAIRS, trace_names
from gramian.models.bayes.update import Renewal, redrawn
from gramian.models.capabilities import Capabilities
from gramian.models.factor_model import Explanation, FactorModel, SideSettings
from gramian.models.fold_in import Given
from gramian.models.model import TimesGiven, check_ratings_given
from gramian.models.selection import contribution_table

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["BayesianModel"]

UPDATING = FOLDING + 2**30
ABOUT_ITEMS = 100  # whose variance counts in ask_next


@dataclass(frozen=True, eq=False, repr=False)
class BayesianModel(Posterior):
    """The posterior of a Bayesian factor model; its attributes are those of :class:`Posterior`."""

    # ---- recommending ---------------------------------------------------------------------------

    def recommend(
        self,
        users: Ids | None = None,
        n: int = 10,
        *,
        by: str = "mean",
        level: float = 0.9,
        seed: int = 0,
        exclude_seen: bool = True,
        among: Ids | None = None,
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
        model = ordered(self, by, level, seed, "recommend")
        return model.recommend(users, n, exclude_seen=exclude_seen, among=among, unknown=unknown)

    def recommend_for(  # noqa: PLR0913 - its options are the user's
        self,
        ratings: Given,
        n: int = 10,
        *,
        by: str = "mean",
        level: float = 0.9,
        seed: int = 0,
        exclude_seen: bool = True,
        among: Ids | None = None,
        features: object = None,
        times: TimesGiven = None,
        unknown: str = "fallback",
    ) -> pl.DataFrame:
        """The best items for somebody new: their row is drawn given each kept draw, then items are ranked.

        Args:
            ratings: What this person rated: ``{item: rating}``. It may be empty: the prior knows the rest.
            n: How many items.
            by: As in :meth:`recommend`.
            level: Of the interval, for ``"lower"``.
            seed: Which draw, for ``"thompson"``.
            exclude_seen: Leave out the items in ``ratings``.
            among: Candidate items.
            features: What is known of this person, as in :meth:`fold_in`.
            times: When the ratings were given, as in :meth:`fold_in`.
            unknown: The policy for unknown items.

        Returns:
            A table: ``item``, ``score``, ``rank``, and ``title`` where known.
        """
        check_number("n", n, low=1, whole=True, owner="recommend_for")
        model = ordered(self, by, level, seed, "recommend_for")
        scores = model.score_row(model.fold_in(ratings, features=features, times=times, unknown=unknown))
        return model.best_scored(
            scores, n, leave_out=list(ratings) if exclude_seen else [], among=among, unknown=unknown
        )

    def new_user(
        self, ratings: Given, *, times: TimesGiven = None, who: Id | None = None, unknown: str = "fallback"
    ) -> PosteriorNewUser:
        """As of :class:`FoldingModel`."""
        return PosteriorNewUser(self, self.fold_in_ratings(ratings, times, unknown), who if self.knows(who) else None)

    def ask_next(self, user: Id | Given, n: int = 10, *, among: Ids | None = None) -> pl.DataFrame:
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
            who = FoldInRatings(*self._given(user, "fallback"))
            items, draws, targets = who.items, self.draws_of_new(who.items, None), self.targets_of_new(who)
        else:
            code = self._one_code(self.user_ids, user, "user")
            items, draws = self.ratings.by_user.row(code)[0], self.draws_of_user(code)
            targets = self.targets_of_user(code)
        unrated = np.setdiff1d(np.arange(self.ratings.n_items), items)
        about = np.random.default_rng(self.seed).permutation(unrated)[:ABOUT_ITEMS]
        gain = expected_drops(draws, targets, about, self.intercepts)
        table = self.best_scored(gain, n, leave_out=self.item_ids.take(items).to_list(), among=among)
        return table.rename({"score": "gain"})

    def evaluate(self, test: RatingsTable, *, unknown: str = "fallback", clip: bool = True) -> dict[str, float | int]:
        """As of :class:`Model`; of ordinal ratings, with the ``log_loss`` and ``rps`` of their probabilities."""
        made = super().evaluate(test, unknown=unknown, clip=clip)
        return made if self.terms.observation is None else made | self.evaluate_probabilities(test, unknown=unknown)

    # ---- looking inside -------------------------------------------------------------------------

    @cached_property
    def point(self) -> FactorModel:
        """The one factor model of rank K that is nearest to the posterior mean, for looking at features.

        Draws cannot be averaged column by column: the columns of W and U mean nothing by themselves and
        wander. WUᵀ does mean something; this is the best approximation of rank K to its mean over up to 50
        draws, found by subspace iteration, with the mean biases.
        """
        users, items = mean_directions(self.draws, self.n_factors)
        if self.biased:
            b, c = (
                np.mean([draw.rows(side)[:, -1] for draw in self.draws], axis=0, dtype=np.float32)
                for side in (USERS, ITEMS)
            )
            users, items = np.column_stack([users, b]), np.column_stack([items, c])
        settings = SideSettings(self.biased, Penalty(self.draws[-1].users.precision), centred=True)
        return FactorModel(self.recipe, self.ratings, self.history, users, items, self.global_mean, settings)

    def feature_shares(self) -> pl.DataFrame:
        """How much of the variance of factors and biases the features explain, averaged over the draws.

        Returns:
            A table: ``side`` (user, item), ``of`` (factors, biases), ``by`` (sets, table, or both together), ``share``
            in [0, 1]; rows for each side that has features. Features that say nothing, permuted ones say, explain
            about none.
        """
        rows: list[tuple[str, str, str, float]] = []
        for place, side in enumerate(SIDES):
            for term in self.terms.priors[place]:
                for of, columns in (("factors", slice(self.n_factors)), ("biases", slice(self.n_factors, None))):
                    if of == "biases" and not self.biased:
                        continue
                    each = [term.explained(term.of(draw), draw.prior(place).precision, columns) for draw in self.draws]
                    shares = np.mean([[share for _, share in draw] for draw in each], axis=0)
                    rows += [(side, of, by, float(share)) for (by, _), share in zip(each[0], shares, strict=True)]
        schema = {"side": pl.String, "of": pl.String, "by": pl.String, "share": pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    @property
    def trace_names(self) -> list[str]:
        """What :attr:`traces` follows: see :func:`gramian.models.bayes.traces.trace_names`."""
        return trace_names(self.biased, self.terms)

    def diagnostics(self) -> pl.DataFrame:
        """R-hat and effective sample sizes of noise, priors and predictions: has the chain converged?

        See :func:`gramian.models.bayes.diagnostics.diagnostics`. Needs the extra ``bayes``.
        """
        return diagnostics(self.traces[self.burn_in :], self.trace_names)

    def to_arviz(self) -> xr.DataTree:
        """The traces after burn-in as ArviZ's DataTree. Needs the extra ``bayes``."""
        return as_datatree(self.traces[self.burn_in :], self.trace_names)

    def plot_traces(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw what every sweep was at, burn-in shaded: noise, priors, and two of the predictions."""
        from gramian.visuals.figures import traces

        shown = len(self.trace_names) - TRACED_PAIRS + 2
        return traces(self.traces[:, :, :shown], self.trace_names[:shown], self.burn_in, path)

    def similar_items(self, item: Id, n: int = 10) -> pl.DataFrame:
        """As :meth:`FactorModel.similar_items`, of :attr:`point`."""
        return self.point.similar_items(item, n)

    def similar_users(self, user: Id, n: int = 10) -> pl.DataFrame:
        """As :meth:`FactorModel.similar_users`, of :attr:`point`."""
        return self.point.similar_users(user, n)

    def top_items(self, feature: int, n: int = 10, *, lowest: bool = False) -> pl.DataFrame:
        """As :meth:`FactorModel.top_items`, of :attr:`point`."""
        return self.point.top_items(feature, n, lowest=lowest)

    def plot_item_map(self, path: str | os.PathLike[str] | None = None, *, labels: int = 60) -> Figure:
        """As :meth:`FactorModel.plot_item_map`, of :attr:`point`."""
        return self.point.plot_item_map(path, labels=labels)

    def explain(self, user: Id, item: Id) -> Explanation:
        r"""Take a prediction apart: what each rating of the user adds, averaged over the draws.

        Given the items of a draw, the user's expected row is :math:`A^{-1}(\Lambda m + \alpha\sum_j v_j t_j)`: one
        term for each item that the user rated. What the mean of the prior adds, and what a finite number of
        draws leaves, is :attr:`Explanation.rest`; the parts sum to the prediction.

        Raises:
            UnknownIdError: The user or the item is not in the training ratings.
        """
        i, j = self._one_code(self.user_ids, user, "user"), self._one_code(self.item_ids, item, "item")
        rated, values = self.ratings.by_user.row(i)
        draws, targets = self.draws_of_user(i), self.targets_of_user(i)
        parts = [contributions(draw, own, j, self.intercepts) for draw, own in zip(draws, targets, strict=True)]
        terms = np.mean(parts, axis=0)
        table = contribution_table(self.item_ids, rated, self.ratings.titles, values, terms)
        b, c = self._bias(USERS, i), self._bias(ITEMS, j)
        prediction = float(self.score_pairs(np.array([i], np.int32), np.array([j], np.int32))[0])
        rest = prediction - self.global_mean - b - c - float(terms.sum())
        return Explanation(user, item, prediction, self.global_mean, b, c, table, rest)

    def _bias(self, side: int, code: int) -> float:
        """The mean bias of a user (0) or an item (1), with what terms usually add to it."""
        made = float(np.mean([float(draw.rows(side)[code][-1]) if self.biased else 0.0 for draw in self.draws]))
        for term in self.terms.additions:
            levels = [term.levels(term.of(draw), side) for draw in self.draws]
            made += float(np.mean([0.0 if level is None else float(level[code]) for level in levels]))
        return made

    @property
    def capabilities(self) -> Capabilities:
        """What can be asked of it."""
        return Capabilities(
            fold_in=True, intervals=True, orders=ORDERS, explain=True, ask=True, features=self.n_factors
        )

    @property
    def feature_positions(self) -> Array:
        """The items' weights in the latent features of :attr:`point`, (M, K)."""
        return self.point.feature_positions

    # ---- new ratings ----------------------------------------------------------------------------

    def update(self, new: RatingsTable) -> BayesianModel:
        """A new model that has also learned from ``new`` ratings, without starting again.

        In every kept draw, the rows of the users and items that have new ratings are drawn anew, given the
        rest of the draw: users, items, and users once more. Everything else, priors and noise too, stays as
        it was; after many new ratings a fresh fit is better. Known ids keep their codes; a pair rated again
        takes the new rating (the later one where both tables have times).
        """
        check_ratings_given(new, "update")
        for term in self.terms:
            term.check_new(new)
        ratings = self.ratings.merge(new)
        users = np.unique(ratings.user_ids.codes(new.user_ids.ids, "user"))
        items = np.unique(ratings.item_ids.codes(new.item_ids.ids, "item"))
        terms, setup = self.terms.rebound(ratings), Setup(self.intercepts, self.n_jobs)
        renewal = Renewal(BothWays.of(ratings, terms), (users, items), self.terms, terms, setup)
        draws = tuple(redrawn(draw, renewal, (self.seed, UPDATING + 3 * s)) for s, draw in enumerate(self.draws))
        return dataclasses.replace(self, ratings=ratings, draws=draws, terms=terms)
