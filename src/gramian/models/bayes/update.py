"""New ratings in a draw: the rows that have some, and what the terms know of them, drawn anew given all the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gramian.data.ids import Codes
from gramian.engine import entries
from gramian.kernels.arrays import Array, summed
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Chance, Rest, Setup, Some
from gramian.models.bayes.gibbs import BothWays, RowDraw, draw_rows
from gramian.models.bayes.state import ITEMS, USERS, State, compact
from gramian.models.bayes.terms.collection import Terms

__all__ = ["Renewal", "redrawn"]


class Renewal(NamedTuple):
    """What a model has new: all of its ratings, the users and the items with new ones, and its terms before and now."""

    ratings: BothWays
    changed: tuple[Codes, Codes]
    before: Terms
    terms: Terms
    setup: Setup

    def rows(self, side: int) -> CSR:
        """The ratings of all rows of a side."""
        rows = self.ratings[side]
        assert isinstance(rows, CSR)
        return rows

    def places(self, side: int) -> Array:
        """Where the ratings of the changed rows of a side stand in the order of the users."""
        places, order = self.rows(side).places(self.changed[side]), self.ratings.order
        return places if side == USERS or order is None else order[places]


def redrawn(draw: State, new: Renewal, numbers: tuple[int, int]) -> State:
    """The draw with the changed users drawn anew, then the changed items given them, then the users once more.

    New rows start at the mean of their prior. Rows, priors and noise of the rest stay as they are; a new row of one
    side is a feature of the other side's sets, of which nothing is known: its β is zero. What the terms add to the
    ratings of the changed rows is drawn after them. ``numbers`` are the seed and the first number of a sweep that no
    other draw has.
    """
    state = _grown(draw, new)
    rng = np.random.default_rng([*numbers])
    for turn, side in enumerate((USERS, ITEMS, USERS)):
        chance = Chance(rng, (numbers[0], numbers[1] + turn, side), new.setup.n_jobs)
        state = _turn(state, new, side, chance)
    return _as_before(state, draw, new)


def _grown(draw: State, new: Renewal) -> State:
    """The draw in float32, with rows for new users and items, and values of the terms for all ratings."""
    sides = []
    for side in (USERS, ITEMS):
        rows, prior = draw.rows(side).astype(np.float32), draw.prior(side)
        started = np.tile(prior.mean.astype(np.float32), (new.rows(side).n_rows - len(rows), 1))
        sides.append(np.concatenate([rows, started]))
    values = {
        term.name: term.grown(before.of(draw), before) for term, before in zip(new.terms, new.before, strict=True)
    }
    return draw._replace(user_rows=sides[USERS], item_rows=sides[ITEMS], terms=values)


def _turn(state: State, new: Renewal, side: int, chance: Chance) -> State:
    """The changed rows of one side, and what the terms add to their ratings."""
    changed, terms, setup = new.changed[side], new.terms, new.setup
    part, places, fixed = new.rows(side).take(changed), new.places(side), state.rows(1 - side)
    weights = None
    if terms.weighting is not None:
        weights = terms.weighting.weights_of(terms.weighting.of(state), part, changed, side)
    added = np.zeros(len(places))
    for term in terms.additions:
        if side == ITEMS and term.in_rows:
            part, fixed = term.moved_rows(term.of(state), part, fixed, places)
        else:
            added = added + term.added_to(term.of(state), Some(places, part, fixed))
    some = Some(places, part, fixed)
    observed = _observed(state, some, state.rows(side)[changed], new, added, weights, chance)
    targets = part._replace(values=(observed - added).astype(np.float32))
    rows = state.rows(side)  # made in `_grown`, so that they may be written to
    rows[changed] = draw_rows(targets, fixed, _how(state, side, new, weights, chance), setup)[0]
    if not terms.additions:
        return state
    left = observed - entries.predictions(part, rows[changed], fixed, *setup)
    return _additions(state, new, side, some, left, weights, chance)


def _how(state: State, side: int, new: Renewal, weights: Array | None, chance: Chance) -> RowDraw:
    """How the changed rows are drawn."""
    changed, n_jobs = new.changed[side], new.setup.n_jobs
    means = summed(term.means_of(term.of(state), changed, n_jobs) for term in new.terms.priors[side])
    return RowDraw(state.prior(side), state.noise_precision, chance.counters, means, weights)


def _additions(
    state: State, new: Renewal, side: int, some: Some, left: Array, weights: Array | None, chance: Chance
) -> State:
    """What is added to some ratings drawn anew, last term first."""
    additions, rest = new.terms.additions, Rest(some.fixed, weights, state.noise_precision)
    before = {term.name: term for term in new.before.additions}
    for place, term in reversed(list(enumerate(additions))):
        # of items, what some add is in the moved rows
        others = [other for other in additions[:place] if not (side == ITEMS and other.in_rows)]
        beside = summed(other.added_to(other.of(state), some) for other in others)
        value, left = term.redrawn(term.of(state), before[term.name], side, some, left, beside, rest, chance)
        state = term.put(state, value)
    return state


def _observed(
    state: State, some: Some, rows: Array, new: Renewal, added: Array, weights: Array | None, chance: Chance
) -> Array:
    """The ratings of the changed rows; or what they hide, drawn given the rows so far."""
    term, part = new.terms.observation, some.rows
    if term is None:
        return part.values.astype(np.float64)
    mean = entries.predictions(part, rows, some.fixed, *new.setup) + added
    # by the rating: among an item's ratings the noise differs
    each = part._replace(indptr=np.arange(len(added) + 1))
    stds = np.broadcast_to(state.noise_precision**-0.5, len(added)) / np.sqrt(1.0 if weights is None else weights)
    return term.hidden(term.of(state), each, term.observed_at(some.places), mean, stds, chance)


def _as_before(state: State, draw: State, new: Renewal) -> State:
    """The draw as it is kept, each part in the precision that it had."""
    state, n_jobs = new.terms.shown(state), new.setup.n_jobs
    users, items = (compact(state.rows(side), draw.rows(side).dtype, n_jobs) for side in (USERS, ITEMS))
    values = {
        term.name: term.compacted(term.of(state), before.kept_dtype(before.of(draw), draw.user_rows.dtype), n_jobs)
        for term, before in zip(new.terms, new.before, strict=True)
    }
    return state._replace(user_rows=users, item_rows=items, terms=values)
