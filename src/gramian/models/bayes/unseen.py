r"""The rows of pairs, of which a side may have no ratings: what a posterior knows of it is the prior of its side.

Per draw it has the mean row :math:`m` and the covariance :math:`\Lambda^{-1}`. Where terms move the mean of the side
(features, say), the mean is what they know of the row, and the covariance has what they do not know of it as well.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from gramian.data.ids import Codes, Id, Ids
from gramian.data.pairs import Pairs
from gramian.engine.rows import Intercepts
from gramian.errors import ParameterError
from gramian.kernels.arrays import Array, summed
from gramian.models.bayes.state import ITEMS, SIDES, USERS, RowPrior, State
from gramian.models.bayes.terms.collection import Terms
from gramian.models.bayes.terms.term import Knowledge, PriorMean
from gramian.models.fold_in import FoldingModel
from gramian.models.predictive import UncertainModel

__all__ = ["Draws", "Found"]

Found = list[object]  # what each addition has looked up for pairs


@dataclass(frozen=True, eq=False, repr=False)
class Draws(FoldingModel, UncertainModel):
    """Draws of a factor model, and the rows of pairs, of which a side may have no ratings.

    Codes of ids that only a term knows (a table of features, say) are below −1: known, though without ratings.

    Attributes:
        draws: The kept draws, oldest first.
        global_mean: μ, subtracted from every rating.
        biased: Whether the last of the D columns of a row is a bias.
        terms: What is known beside the ratings, made for those of the training.
    """

    draws: tuple[State, ...]
    global_mean: float
    biased: bool
    terms: Terms

    @property
    def n_draws(self) -> int:
        """S, how many draws are kept."""
        return len(self.draws)

    @property
    def n_factors(self) -> int:
        """K."""
        return self.draws[0].item_rows.shape[1] - self.biased

    @property
    def intercepts(self) -> Intercepts:
        """What a prediction has beside wᵀu and what terms add."""
        return Intercepts(self.biased, self.global_mean)

    @property
    def seed(self) -> int:
        """Of every random number that the model draws."""
        return int(getattr(self.recipe, "seed", 0))

    @property
    def n_jobs(self) -> int | None:
        """Threads; all cores if not given."""
        jobs: int | None = getattr(self.recipe, "n_jobs", None)
        return jobs

    def without_ratings(self) -> Self:
        """As of :class:`Model`; the terms keep what they need for rows that were not in training."""
        return replace(super().without_ratings(), terms=self.terms.light())

    # ---- rows -----------------------------------------------------------------------------------

    def _rows(self, draw: State, pairs: Pairs) -> tuple[Array, Array]:
        """The rows of pairs of codes, float32."""
        return self._side_rows(draw, USERS, pairs.users), self._side_rows(draw, ITEMS, pairs.items)

    def _side_rows(self, draw: State, side: int, codes: Codes) -> Array:
        """The rows of codes in float32; for negative ones, the mean of the prior, with what is known of them."""
        taken: Array = draw.rows(side)[np.maximum(codes, 0)].astype(np.float32)
        if len(codes) and int(codes.min()) < 0:
            new = codes < 0
            taken[new] = draw.prior(side).mean
            for term in self.terms.priors[side]:
                taken[new] += term.means_unseen(term.of(draw), codes[new])
        return taken

    def _unknown_variance(self, s: int, pairs: Pairs, found: Found) -> Array:
        """Of the mean of pairs given draw *s*: what is not known of the rows of a side without ratings."""
        variance, draw = np.zeros(len(pairs)), self.draws[s]
        kinds = 3 * pairs.users.clip(-2, 0) + pairs.items.clip(-2, 0)
        for kind in np.unique(kinds[kinds < 0]):
            which = np.flatnonzero(kinds == kind)
            some = pairs.take(which)
            rows = self._rows(draw, some)
            for term, own in zip(self.terms.additions, found, strict=True):
                term.move(term.of(draw), rows[0], own, which)
            spreads = self._spread(s, USERS, int(some.users[0])), self._spread(s, ITEMS, int(some.items[0]))
            variance[which] = prior_variance(draw, some, self.biased, rows, spreads)
        return variance

    # ---- what terms do not know ------------------------------------------------------------------

    def _spread(self, s: int, side: int, code: int) -> Array | None:
        """Of draw *s*, the variance of what the terms do not know of the row of a code; None of nothing."""
        return summed(self._spread_of(s, term, term.lacking(code)) for term in self.terms.priors[side])

    def _spread_of(self, s: int, term: PriorMean[Any], lacking: Hashable) -> Array | None:
        if lacking is None:
            return None
        key = s, term.name, lacking
        if key not in self._spreads:
            self._spreads[key] = term.spread(term.of(self.draws[s]), lacking)
        return self._spreads[key]

    @cached_property
    def _spreads(self) -> dict[tuple[int, str, Hashable], Array]:
        return {}

    # ---- ids without ratings ---------------------------------------------------------------------

    def _found(self, values: Ids, what: str) -> Codes:
        codes = super()._found(values, what)
        for term in self.terms.priors[SIDES.index(what)]:
            if not len(codes) or int(codes.min()) >= 0:
                break
            places = term.found(values)
            codes = codes if places is None else np.where((codes < 0) & (places < -1), places, codes).astype(np.int32)
        return codes

    def knows(self, user: Id | None) -> bool:
        """Whether something is known of the id of a user beside ratings, in a table say."""
        return user is not None and any(term.knows(user) for term in self.terms.priors[USERS])

    # ---- one person ------------------------------------------------------------------------------

    def draws_of_user(self, user: int) -> tuple[State, ...]:
        """The draws, each with the prior and the noise of a user of the training."""
        known = [(term, term.knowledge(user)) for term in self.terms.priors[USERS]]
        made = []
        for s, draw in enumerate(self.draws):
            noise = float(1 / self.terms.variance(draw, np.array([user], np.int32))[0])
            made.append(self._knowing(s, draw._replace(noise_precision=noise), known))
        return tuple(made)

    def draws_of_new(self, items: Codes, about: object) -> tuple[State, ...]:
        """The draws, each with the prior of somebody new who rated these items, and of whom this is known."""
        movers = self.terms.priors[USERS]
        if about is not None and not movers:
            raise ParameterError("Features of somebody new need a model with user_features; this one has none.")
        known = [(term, term.fold_in(items, about)) for term in movers]
        return tuple(self._knowing(s, draw, known) for s, draw in enumerate(self.draws))

    def _knowing(self, s: int, draw: State, known: list[tuple[PriorMean[Any], Knowledge[Any]]]) -> State:
        """The draw as it is for one person: the mean of the prior is theirs, and wider by what is not known of them."""
        for term, own in known:
            (mean, precision), spread = draw.users, self._spread_of(s, term, own.lacking)
            if spread is not None:
                precision = np.linalg.inv(np.linalg.inv(precision) + spread)
            draw = draw._replace(users=RowPrior(mean + own.mean(term.of(self.draws[s])), precision))
        return draw


def prior_variance(
    draw: State, pairs: Pairs, biased: bool, rows: tuple[Array, Array], spreads: tuple[Array | None, Array | None]
) -> Array:
    r"""Variance of :math:`w^\top u + b + c` of pairs of which a side (negative) is only known by its prior.

    With v = (u, 1): :math:`v^\top\Sigma_u v` for an unknown user, the mirror image for an unknown item, and for
    both also the trace of the product of the factors' covariances. ``rows`` are those of the pairs; ``spreads`` what is
    not known of either side's row, and adds to its covariance.
    """
    user_wide, item_wide = (
        np.linalg.inv(prior.precision) + (0.0 if spread is None else spread)
        for prior, spread in zip((draw.users, draw.items), spreads, strict=True)
    )
    user_rows, item_rows = (part.copy() for part in rows)
    K = len(user_wide) - biased
    if biased:
        user_rows[:, K] = item_rows[:, K] = 1.0
    users, items = pairs.users < 0, pairs.items < 0
    total: Array = np.einsum("pc,cd,pd->p", item_rows, user_wide, item_rows, optimize=True) * users
    total += np.einsum("pc,cd,pd->p", user_rows, item_wide, user_rows, optimize=True) * items
    return total + float(np.sum(user_wide[:K, :K] * item_wide[:K, :K])) * (users & items)
