"""The row of somebody new, drawn given each kept draw of everything else.

Where nothing is hidden and nothing added, a row given its ratings is simply normal. Else the row and what is known of
the ratings are drawn in turn. The chain goes on from draw to draw (what is hidden or added is in units of the rating,
and means the same in all of them), so a few turns for each will do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gramian.engine import entries
from gramian.engine.rows import Intercepts
from gramian.kernels.arrays import Array
from gramian.kernels.csr import one_row
from gramian.models.bayes.bundles import Chance, FoldInRatings, Rest, Setup, Some
from gramian.models.bayes.gibbs import RowDraw, draw_rows
from gramian.models.bayes.state import USERS, State
from gramian.models.bayes.terms.collection import Terms

__all__ = ["fold_in", "targets_of"]

FIRST, TURNS = 10, 2  # turns for the first draw, and for each other


def fold_in(
    draws: Sequence[State], who: FoldInRatings, terms: Terms, numbers: tuple[int, int], intercepts: Intercepts
) -> tuple[Array, list[Array]]:
    """The row in each draw, (S, D), with what is usually added to the ratings; and what these are to explain.

    Args:
        draws: Each with the prior of this person.
        who: The ratings.
        terms: Of the model.
        numbers: The seed, and the first number of a sweep that no other draw has.
        intercepts: Of the model.
    """
    setup = Setup(intercepts, 1)
    return _in_turns(draws, who, terms, numbers, setup) if terms.by_rating else _alone(draws, who, numbers, setup)


def _alone(
    draws: Sequence[State], who: FoldInRatings, numbers: tuple[int, int], setup: Setup
) -> tuple[Array, list[Array]]:
    """One draw of the row for each."""
    row = one_row(np.arange(len(who.items), dtype=np.int32), who.values)
    out = np.empty((len(draws), draws[0].item_rows.shape[1]), np.float32)
    for s, draw in enumerate(draws):
        fixed = draw.item_rows[who.items].astype(np.float32)
        how = RowDraw(draw.users, draw.noise_precision, (numbers[0], numbers[1] + s, USERS))
        out[s] = draw_rows(row, fixed, how, setup)[0][0]
    return out, [who.values] * len(draws)


def _in_turns(
    draws: Sequence[State], who: FoldInRatings, terms: Terms, numbers: tuple[int, int], setup: Setup
) -> tuple[Array, list[Array]]:
    chain = _Turns(who.sorted(), terms, numbers, setup)
    back = np.argsort(np.argsort(who.items))
    out, each = np.empty((len(draws), draws[0].item_rows.shape[1]), np.float32), []
    for s, draw in enumerate(draws):
        for _ in range(TURNS if s else FIRST):
            x, targets = chain.turn(draw)
        out[s] = x[0]
        each.append(targets[back])
        for part in chain.parts:
            part.finish(out[s], setup.intercepts.biased)
    return out, each


class _Turns:
    """The chain of somebody's row, of what their ratings hide, and of what is added to them.

    ``numbers`` are the ratings as they are to be explained: hidden ones, where steps are observed.
    """

    def __init__(self, who: FoldInRatings, terms: Terms, numbers: tuple[int, int], setup: Setup) -> None:
        self.who, self.observation, self.setup = who, terms.observation, setup
        self.parts = [term.fold_in(who) for term in terms.additions]
        self.seed, self.number = numbers
        self.rng = np.random.default_rng([*numbers])
        self.row = one_row(np.arange(len(who.items), dtype=np.int32), who.values)
        self.numbers = who.values.astype(np.float64)

    def turn(self, draw: State) -> tuple[Array, Array]:
        """The row, (1, D), what it was to explain, and then all the rest."""
        chance = Chance(self.rng, (self.seed, self.number, USERS), self.setup.n_jobs)
        fixed, known = draw.item_rows[self.who.items].astype(np.float32), self._known(draw)
        left = self.numbers - known
        for part in self.parts:
            left = left - part.own
        targets = left.astype(np.float32)
        how = RowDraw(draw.users, draw.noise_precision, chance.counters)
        x = draw_rows(self.row._replace(values=targets), fixed, how, self.setup)[0]
        self.number += 1
        mean = entries.predictions(self.row, x, fixed, *self.setup) + known
        mean = self._added(draw, mean, Rest(fixed, None, draw.noise_precision), chance)
        if self.observation is not None:
            value, std = self.observation.of(draw), np.array([draw.noise_precision**-0.5])
            observed = self.observation.observed(self.who.values)
            self.numbers = self.observation.hidden(value, self.row, observed, mean, std, chance)
        return x, targets

    def _known(self, draw: State) -> Array:
        """What is added that does not depend on the person."""
        known = np.zeros(len(self.who.items))
        for part in self.parts:
            own = part.known(part.term.of(draw), draw.item_rows[self.who.items])
            known = known if own is None else known + own
        return known

    def _added(self, draw: State, mean: Array, rest: Rest, chance: Chance) -> Array:
        """What is added for the person drawn anew, last term first; and the means of the ratings with it."""
        for place, part in reversed(list(enumerate(self.parts))):
            left = self.numbers - mean
            for other in self.parts[:place]:
                left = left - other.own
            part.draw(part.term.of(draw), left, rest, chance)
            mean = mean + part.own
        return mean


def targets_of(
    draw: State, user: int, some: Some, terms: Terms, std: float, chance: Chance, intercepts: Intercepts
) -> Array:
    """What a user's training ratings are to explain in a draw: what they hide, without what is added.

    Args:
        draw: The draw.
        user: The user's code.
        some: The ratings, with the rows of all items.
        terms: Of the model.
        std: The noise of the user's ratings.
        chance: Of what they hide.
        intercepts: Of the model.
    """
    values, added, part = some.rows.values.astype(np.float64), np.zeros(some.rows.n_entries), some.rows
    for addition in terms.additions:
        added += addition.added_to(addition.of(draw), some)
    term = terms.observation
    if term is not None:
        row, fixed = draw.user_rows[user : user + 1].astype(np.float32), some.fixed.astype(np.float32)
        mean = entries.predictions(part, row, fixed, intercepts, 1) + added
        values = term.hidden(term.of(draw), part, term.observed_at(some.places), mean, np.array([std]), chance)
    return values - added
