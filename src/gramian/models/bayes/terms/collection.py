"""The terms of a recipe together: every loop over all of them that is not a part of the sweep itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.data.table import RatingsTable
from gramian.errors import ParameterError
from gramian.kernels.arrays import Array
from gramian.models.bayes.bundles import Beginning
from gramian.models.bayes.state import RowPrior, State, compact
from gramian.models.bayes.terms.term import Addition, Observation, PriorMean, Term, Weighting

__all__ = ["AnyTerm", "Terms"]

AnyTerm = Term[Any]


@dataclass(frozen=True, eq=False)
class Terms:
    """What a recipe knows beside the ratings, made for those of a training.

    Attributes:
        every: The terms, in the order in which additions are summed up.

    Raises:
        ParameterError: Two terms have one name, or one that every draw has; or more than one says what is observed or
            how much it counts.
    """

    every: tuple[AnyTerm, ...] = ()

    def __post_init__(self) -> None:
        names = [term.name for term in self.every]
        if len(set(names)) < len(names):
            raise ParameterError(f"Two terms have one name: found {names}; give each its own.")
        taken = sorted(set(names) & set(State._fields))
        if taken:
            raise ParameterError(f"A term's name must not be that of a part of a draw: found {taken}; take another.")
        for kind, what in ((Observation, "what is observed"), (Weighting, "how much a rating counts")):
            both = [term.name for term in self.every if isinstance(term, kind)]
            if len(both) > 1:
                raise ParameterError(f"More than one term says {what}: found {both}; leave one out.")

    def __iter__(self) -> Iterator[AnyTerm]:
        return iter(self.every)

    # ---- by what they change -------------------------------------------------------------------------

    @cached_property
    def observation(self) -> Observation[Any] | None:
        """The term that says what is observed, if there is one."""
        return next((term for term in self.every if isinstance(term, Observation)), None)

    @cached_property
    def weighting(self) -> Weighting[Any] | None:
        """The term that says how much a rating counts, if there is one."""
        return next((term for term in self.every if isinstance(term, Weighting)), None)

    @cached_property
    def additions(self) -> tuple[Addition[Any], ...]:
        """The terms that add to the mean of a rating, in their order."""
        return tuple(term for term in self.every if isinstance(term, Addition))

    @cached_property
    def priors(self) -> tuple[tuple[PriorMean[Any], ...], tuple[PriorMean[Any], ...]]:
        """The terms that move the means of the users' rows, and of the items'."""
        users, items = (
            tuple(term for term in self.every if isinstance(term, PriorMean) and term.side == side) for side in (0, 1)
        )
        return users, items

    def check_distributed(self, owner: str) -> None:
        """Raise ParameterError where a term needs all ratings here; ``owner`` is named."""
        for term in self.every:
            if not term.distributed:
                raise ParameterError(
                    f"What {owner} knows by its term {term.name!r} cannot be sampled on Spark; leave it out, or bring "
                    "the ratings here with to_local()."
                )

    @property
    def by_rating(self) -> bool:
        """Whether something is known of each rating by itself, so that all are needed here, in the users' order."""
        return self.observation is not None or len(self.additions) > 0

    # ---- the noise -----------------------------------------------------------------------------------

    def variance(self, state: State, users: Codes) -> Array:
        """The variance of a rating by each user; or, where all have the same, of one, (1,)."""
        if self.weighting is None:
            return np.array([1 / state.noise_precision])
        factors = self.weighting.factors(self.weighting.of(state), users)
        return np.asarray(1 / (state.noise_precision * factors))

    def stds(self, state: State) -> npt.NDArray[np.float64]:
        """The noise of each user's ratings, (N,)."""
        n, weighting = len(state.user_rows), self.weighting
        factors = (
            np.ones(n) if weighting is None else weighting.factors(weighting.of(state), np.arange(n, dtype=np.int32))
        )
        return np.asarray(1 / np.sqrt(state.noise_precision * factors))

    # ---- values --------------------------------------------------------------------------------------

    def started(self, state: State, begin: Beginning) -> State:
        """A chain with the values that it starts at."""
        return state._replace(terms={term.name: term.start(begin) for term in self.every})

    def shown(self, state: State) -> State:
        """A chain's state as a kept draw."""
        for term in self.every:
            value, users = term.shown(term.of(state), state.user_rows, state.item_rows)
            state = term.put(state._replace(user_rows=users), value)
        return state

    def compacted(self, state: State, dtype: npt.DTypeLike, n_jobs: int | None = None) -> State:
        """The draw in as little memory as it needs."""
        users, items = (compact(rows, dtype, n_jobs) for rows in (state.user_rows, state.item_rows))
        values = {term.name: term.compacted(term.of(state), dtype, n_jobs) for term in self.every}
        return state._replace(user_rows=users, item_rows=items, terms=values)

    def rebound(self, ratings: RatingsTable) -> Terms:
        """The same terms for more ratings."""
        return Terms(tuple(term.rebound(ratings) for term in self.every))

    def light(self) -> Terms:
        """The terms without what stands beside each rating."""
        return Terms(tuple(term.light() for term in self.every))

    # ---- what is followed ----------------------------------------------------------------------------

    @property
    def trace_names(self) -> list[str]:
        """What is followed of the terms."""
        return [name for term in self.every for name in term.trace_names()]

    def trace(self, state: State) -> list[float]:
        """The numbers that these are."""
        return [number for term in self.every for number in term.trace(term.of(state))]

    def record(self, states: Sequence[State]) -> dict[str, float]:
        """What goes into the history of a sweep of all chains."""
        made: dict[str, float] = {}
        for term in self.every:
            made |= term.record([term.of(state) for state in states])
        return made

    # ---- in a file -----------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """What the terms know beforehand."""
        made: Arrays = {}
        for term in self.every:
            made = _together(made, term.arrays(), term)
        return made

    def packed(self, state: State) -> Arrays:
        """A draw as named arrays: the rows, those of the terms, and everything else in one of float64."""
        made: Arrays = {"user_rows": state.user_rows, "item_rows": state.item_rows}
        for term in self.every:
            made = _together(made, term.packed(term.of(state)), term)
        priors = [part.ravel() for prior in (state.users, state.items) for part in prior]
        return {**made, "rest": np.concatenate([np.array([state.noise_precision]), *priors])}

    def unpacked(self, arrays: Arrays) -> State:
        """The draw that :meth:`packed` took apart."""
        D = arrays["user_rows"].shape[1]
        noise, *parts = np.split(arrays["rest"], np.cumsum([1, D, D * D, D]))
        users, items = (RowPrior(parts[k], parts[k + 1].reshape(D, D)) for k in (0, 2))
        values = {term.name: term.unpacked(arrays) for term in self.every}
        return State(arrays["user_rows"], arrays["item_rows"], users, items, float(noise[0]), values)

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of a draw of these sizes."""
        D = begin.size
        made: dict[str, tuple[int, ...]] = {"rest": (1 + 2 * D + 2 * D * D,)}
        made |= {"user_rows": (begin.n_users, D), "item_rows": (begin.n_items, D)}
        for term in self.every:
            made |= term.shapes(begin)
        return made

    def are_sound(self, states: Sequence[State]) -> bool:
        """Whether noise precisions of draws are positive, those of rows definite, and the values of terms sound."""
        sound = all(state.noise_precision > 0 for state in states)
        sound &= all(term.is_sound(term.of(state)) for state in states for term in self.every)
        try:  # a Cholesky factorization, unlike eigenvalues, does not mind columns of very different size
            for state in states:
                np.linalg.cholesky(np.array([state.users.precision, state.items.precision]))
        except np.linalg.LinAlgError:
            return False
        return sound


def _together(made: Arrays, own: Arrays, term: AnyTerm) -> Arrays:
    """The arrays with those of a term; ParameterError where one's name is taken."""
    both = sorted(made.keys() & own.keys())
    if both:
        raise ParameterError(f"The arrays of the term {term.name!r} have names that are taken: {both}; rename them.")
    return {**made, **own}
