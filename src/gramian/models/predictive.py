r"""Models that know how sure they are: from one predictive distribution per pair, everything that is asked of it.

A family that keeps S draws of its parameters derives from :class:`UncertainModel` and gives
:meth:`~UncertainModel.predictive_codes` and :attr:`~UncertainModel.n_draws`. Two questions are kept apart:

- ``of="rating"``: what will this user *give*? The predictive distribution, with the noise of a single rating.
- ``of="mean"``: what does the model *believe* of this pair? The draws' means alone, of somebody unknown those of
  whoever it may be. It narrows with more ratings of the user and the item; the noise does not.
"""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.parameters import check_choice, check_level, check_number
from gramian.data.ids import Id, Ids
from gramian.data.pairs import Pairs
from gramian.data.summary import grid_step
from gramian.data.table import RatingsTable
from gramian.errors import ParameterError
from gramian.kernels.arrays import Array
from gramian.metrics.prediction import log_loss, ranked_probability_score
from gramian.models.distributions.normal_mixture import NormalMixture
from gramian.models.distributions.ordinal_mixture import OrdinalMixture
from gramian.models.interval_model import Forecast, IntervalModel
from gramian.models.model import TimesGiven

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Mixture", "UncertainModel", "central"]

Mixture = NormalMixture | OrdinalMixture
OF = ("rating", "mean")
MOST_LEVELS = 100  # of which predict_proba gives the probabilities
# Draws × pairs of one piece: 4 MiB in float64, so that a piece at work stays near the caches.
PIECE_CELLS = 1 << 19


@dataclass(frozen=True, eq=False, repr=False)
class UncertainModel(IntervalModel):
    """A model that keeps draws of its parameters and gives a distribution for every pair."""

    @property
    @abstractmethod
    def n_draws(self) -> int:
        """S, how many draws are kept."""

    @abstractmethod
    def predictive_codes(self, pairs: Pairs) -> Mixture:
        """The predictive distributions of pairs of codes, unclipped; −1 is somebody or something unknown.

        The family says what an unknown side knows (its prior, say): its distribution must be a finite one.
        """

    def believed_codes(self, pairs: Pairs) -> Array:
        """(draws, n): what the mean rating of pairs of codes may be; of an unknown side, of anybody it may be."""
        return self.predictive_codes(pairs).means

    def forecast(self, pairs: Pairs, values: Array, levels: list[float]) -> Forecast:
        """As of :class:`IntervalModel`: quantiles of the distributions."""
        made, crps, (low, high) = Forecast.empty(len(levels), len(values)), np.empty(len(values)), self.scale
        half_step = (grid_step(np.unique(self.ratings.values)) or 0.0) / 2
        for piece, mixture in self.pieces(pairs):
            r = values[piece]
            for k, level in enumerate(levels):
                made.lower[k, piece] = mixture.quantile((1 - level) / 2)
                made.upper[k, piece] = mixture.quantile((1 + level) / 2)
            made.spread[piece], crps[piece] = mixture.std(), mixture.crps(r)
            # a rating is what the distribution rounds to, and at the ends of the scale all beyond
            made.below[piece] = np.where((half_step > 0) & (r <= low), 0.0, mixture.cdf(r - half_step))
            made.upto[piece] = np.where((half_step > 0) & (r >= high), 1.0, mixture.cdf(r + half_step))
        np.clip(made.lower, low, high, out=made.lower)
        np.clip(made.upper, low, high, out=made.upper)
        return made._replace(crps=crps)

    def predictive(self, users: Ids, items: Ids, *, times: TimesGiven = None, unknown: str = "fallback") -> Mixture:
        """The whole predictive distribution of (user, item) pairs: S × n numbers, so ask for pieces of many pairs.

        Args:
            users: User ids, one per pair; one id alone goes with every item.
            items: Item ids, one per pair; one id alone goes with every user.
            times: As in :meth:`predict`.
            unknown: Pairs with an unknown id: ``"fallback"`` gives what the model knows without them, and
                warns; ``"raise"`` raises. (A distribution cannot be NaN: ``"nan"`` is as ``"fallback"``.)
        """
        return self.predictive_codes(self._pairs_of(users, items, times, unknown))

    def predict_std(
        self, users: Ids, items: Ids, *, of: str = "rating", times: TimesGiven = None, unknown: str = "fallback"
    ) -> Array:
        r"""The standard deviation of each pair's rating, or of its mean.

        .. math::
            \sigma^2_{\text{rating}} = \tfrac1S\textstyle\sum_s \sigma_s^2 + \sigma^2_{\text{mean}}, \qquad
            \sigma^2_{\text{mean}} = \tfrac1S\sum_s (m_s - \bar m)^2

        Args:
            users: User ids, as in :meth:`predict`.
            items: Item ids, as in :meth:`predict`.
            of: ``"rating"``, with the noise, or ``"mean"``, without.
            times: As in :meth:`predict`.
            unknown: As in :meth:`predict`.

        Returns:
            A float array, one per pair; not clipped to the scale.
        """
        check_choice("of", of, OF, "predict_std")
        pairs = self._pairs_of(users, items, times, unknown)
        out = np.empty(len(pairs))
        for piece, some in self._cut(pairs):
            made = self.predictive_codes(some).std() if of == "rating" else self.believed_codes(some).std(axis=0)
            out[piece] = made
        return _without_unknown(out, pairs, unknown)

    def predict_interval(
        self,
        users: Ids,
        items: Ids,
        level: float = 0.9,
        *,
        of: str = "rating",
        clip: bool = True,
        times: TimesGiven = None,
        unknown: str = "fallback",
    ) -> Array:
        """The central interval that holds each pair's rating, or its mean, with probability ``level``.

        Args:
            users: User ids, as in :meth:`predict`.
            items: Item ids, as in :meth:`predict`.
            level: The probability, in (0, 1); as much is left out below as above.
            of: ``"rating"``: exact quantiles of the predictive distribution, noise included; test ratings
                should fall into it this often. ``"mean"``: quantiles of the draws' means; ratings will fall
                outside far more often.
            clip: Whether to clip both ends to the scale of the training ratings; no rating is lost by it.
            times: As in :meth:`predict`.
            unknown: As in :meth:`predict`.

        Returns:
            A float array (n, 2): lower and upper end.

        Raises:
            ParameterError: ``level`` is outside (0, 1), or ``of`` is another word.
        """
        check_choice("of", of, OF, "predict_interval")
        tail = (1 - check_level("level", level, "predict_interval")) / 2
        pairs = self._pairs_of(users, items, times, unknown)
        out = np.empty((len(pairs), 2))
        for piece, some in self._cut(pairs):
            if of == "rating":
                out[piece] = central(self.predictive_codes(some), level)
            else:
                out[piece] = np.quantile(self.believed_codes(some), [tail, 1 - tail], axis=0).T
        if clip:
            np.clip(out, *self.scale, out=out)
        return _without_unknown(out, pairs, unknown)

    def interval_codes(self, pairs: Pairs, level: float) -> Array:
        """As of :class:`IntervalModel`: of the ratings."""
        parts = [central(mixture, level) for _, mixture in self.pieces(pairs)]
        return np.clip(np.concatenate(parts) if parts else np.empty((0, 2)), *self.scale)

    def probability(
        self, users: Ids, items: Ids, *, at_least: float, times: TimesGiven = None, unknown: str = "fallback"
    ) -> Array:
        """P(rating ≥ ``at_least``) of each pair.

        Where the training ratings lie on a grid (whole or half stars, say), a rating is what the normal
        predictive rounds to: with steps of *h* and *t* the first grid value not below ``at_least``, the
        distribution is evaluated at *t* − *h*/2. Ratings of no grid are evaluated at ``at_least`` itself. At or
        below the smallest training rating the probability is 1, above the largest 0.

        Args:
            users: User ids, as in :meth:`predict`.
            items: Item ids, as in :meth:`predict`.
            at_least: A rating.
            times: As in :meth:`predict`.
            unknown: As in :meth:`predict`.

        Returns:
            A float array, one per pair, in [0, 1].
        """
        least = check_number("at_least", at_least, owner="probability")
        low, high = self.scale
        edge = self._edge_below(least)
        pairs = self._pairs_of(users, items, times, unknown)
        out = np.empty(len(pairs))
        if least <= low or least > high:
            out[:] = least <= low
        else:
            for piece, mixture in self.pieces(pairs):
                out[piece] = 1 - mixture.cdf(edge)
        return _without_unknown(out, pairs, unknown)

    def _edge_below(self, least: float) -> float:
        """From where on a number rounds to ``least`` or more."""
        low, step = self.scale[0], grid_step(np.unique(self.ratings.values))
        # the tolerance lets 3.7000001 on a grid of tenths be 3.7
        return least if step is None else low + (math.ceil((least - low) / step - 1e-6) - 0.5) * step

    @property
    def levels(self) -> Array:
        """The different ratings of the training, ascending: those whose probabilities :meth:`predict_proba` gives.

        Raises:
            ParameterError: They are more than a hundred.
        """
        levels = np.unique(self.ratings.values).astype(np.float64)
        if len(levels) > MOST_LEVELS:
            raise ParameterError(
                f"Probabilities of every rating need ratings on at most {MOST_LEVELS} levels: found {len(levels)}; "
                "use probability(at_least=…) or predict_interval."
            )
        return levels

    def predict_proba(self, users: Ids, items: Ids, *, times: TimesGiven = None, unknown: str = "fallback") -> Array:
        r"""The probability of every rating that there is: P(r = v) for each of the :attr:`levels` v.

        A model of ordinal ratings has these by itself. Of a normal distribution it is the part that is nearest to the
        level:

        .. math:: P(r = v_k) = F\big(\tfrac12(v_k + v_{k+1})\big) - F\big(\tfrac12(v_{k-1} + v_k)\big)

        Args:
            users: User ids, as in :meth:`predict`.
            items: Item ids, as in :meth:`predict`.
            times: As in :meth:`predict`.
            unknown: As in :meth:`predict`.

        Returns:
            A float array (n, L); each row sums to 1.

        Raises:
            ParameterError: There are more than a hundred levels.
        """
        pairs = self._pairs_of(users, items, times, unknown)
        return _without_unknown(self.probabilities_of(pairs), pairs, unknown)

    def probabilities_of(self, pairs: Pairs) -> Array:
        """The same of pairs of codes."""
        levels = self.levels
        out = np.empty((len(pairs), len(levels)))
        for piece, mixture in self.pieces(pairs):
            if isinstance(mixture, OrdinalMixture):
                out[piece] = mixture.probabilities
            else:
                below = [mixture.cdf(edge) for edge in (levels[1:] + levels[:-1]) / 2]
                ends = np.zeros(len(mixture)), np.ones(len(mixture))
                out[piece] = np.diff(np.stack([ends[0], *below, ends[1]]), axis=0).T
        return out

    def evaluate_probabilities(self, test: RatingsTable, *, unknown: str = "fallback") -> dict[str, float | int]:
        """``{"log_loss", "rps", "n"}`` of :meth:`predict_proba` on ``test``.

        Lower is better; a test rating that is no level counts as the nearest one. ``unknown`` is as in
        :meth:`evaluate`.

        Raises:
            ParameterError: There are more than a hundred levels.
        """
        pairs, levels = self.pairs_of(test, unknown), self.levels
        known = ~pairs.unknown if unknown == "nan" else np.ones(len(pairs), bool)
        chances = self.probabilities_of(pairs.take(known))
        steps = np.searchsorted((levels[1:] + levels[:-1]) / 2, test.values[known], side="right")
        return {
            "log_loss": log_loss(steps, chances),
            "rps": ranked_probability_score(steps, chances),
            "n": len(steps),
        }

    def sample_predictive(
        self,
        users: Ids,
        items: Ids,
        draws: int = 100,
        *,
        seed: int = 0,
        times: TimesGiven = None,
        unknown: str = "fallback",
    ) -> Array:
        """Draws of the ratings of each pair, noise included, not clipped; of ordinal ratings, levels all.

        One row is one world: its pairs share one draw of the parameters, so sums and rankings over pairs can
        be taken row by row.

        Args:
            users: User ids, as in :meth:`predict`.
            items: Item ids, as in :meth:`predict`.
            draws: How many rows.
            seed: The same seed gives the same draws.
            times: As in :meth:`predict`.
            unknown: As in :meth:`predict`.

        Returns:
            A float array (draws, n).
        """
        check_number("draws", draws, low=1, whole=True, owner="sample_predictive")
        check_number("seed", seed, low=0, whole=True, owner="sample_predictive")
        rng = np.random.default_rng(seed)
        which = rng.integers(self.n_draws, size=draws)
        pairs = self._pairs_of(users, items, times, unknown)
        out = np.empty((draws, len(pairs)))
        for piece, mixture in self.pieces(pairs):
            out[:, piece] = mixture.sample(draws, rng, which)
        return _without_unknown(out.T, pairs, unknown).T

    def plot_intervals(
        self,
        user: Id,
        items: Ids,
        path: str | os.PathLike[str] | None = None,
        *,
        level: float = 0.9,
        actual: npt.ArrayLike | None = None,
    ) -> Figure:
        """Draw a user's intervals for some items, that of the rating and within it that of the mean.

        Args:
            user: A known user.
            items: Known items, drawn from the top; their titles are shown where known.
            path: A file to write, by its ending PNG, SVG or PDF.
            level: The level of both intervals.
            actual: The ratings that the user gave, one per item, to be marked.

        Raises:
            UnknownIdError: The user or an item is unknown.
        """
        from gramian.visuals.figures import interval_bars

        codes = self._codes(self.item_ids, items, "item", "raise")
        names = self.item_ids.take(codes).cast(pl.String)
        if self.ratings.titles is not None:
            names = self.ratings.titles.gather(codes).fill_null(names)
        of_rating, of_mean = (self.predict_interval(user, items, level, of=of, unknown="raise") for of in OF)
        predicted = self.predict(user, items)
        given = None if actual is None else np.asarray(actual, np.float64)
        return interval_bars(names.to_list(), predicted, of_rating, of_mean, path, level=level, actual=given)

    def pieces(self, pairs: Pairs) -> Iterator[tuple[slice, Mixture]]:
        """The pairs in pieces of bounded memory, each with its distributions."""
        for piece, some in self._cut(pairs):
            yield piece, self.predictive_codes(some)

    def _cut(self, pairs: Pairs) -> Iterator[tuple[slice, Pairs]]:
        return pairs.cut(max(1, PIECE_CELLS // self.n_draws))


def central(mixture: Mixture, level: float) -> Array:
    """The central interval of each distribution, (n, 2)."""
    tail = (1 - level) / 2
    return np.column_stack([mixture.quantile(tail), mixture.quantile(1 - tail)])


def _without_unknown(out: Array, pairs: Pairs, unknown: str) -> Array:
    """NaN for the pairs with an unknown id, under that policy."""
    if unknown == "nan":
        out[pairs.unknown] = np.nan
    return out
