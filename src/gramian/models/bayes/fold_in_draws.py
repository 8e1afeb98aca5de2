"""A user's ratings of which a part is hidden: what the time of each added, and where between its cuts a step lies.

Of somebody new, the row and the hidden parts are drawn in turn, given each kept draw of everything else. The chain goes
on from draw to draw (what is hidden is in units of the rating, and means the same in all of them), so a few turns for
each will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gramian.data.ids import Codes
from gramian.data.ratings import Ratings
from gramian.engine import entries
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes import gibbs
from gramian.models.bayes.encoding import Scales
from gramian.models.bayes.state import Draw
from gramian.models.bayes.terms.ordinal import steps_of
from gramian.models.bayes.terms.time_factors import Drift, by_cell, deviations
from gramian.models.bayes.terms.time_offsets import Calendar, drawn_cells
from gramian.models.fold_in import one_row
from gramian.models.model import Times

__all__ = ["Newcomer", "fold_hidden", "told_of"]

FIRST, TURNS = 10, 2  # turns for the first draw, and for each other


class Newcomer(NamedTuple):
    """Somebody's ratings: codes of the items, values, and times where they are known."""

    items: Codes
    values: Array
    times: Times | None = None

    def sorted(self) -> Newcomer:
        """In the order of the items."""
        order = np.argsort(self.items)
        return Newcomer(self.items[order], self.values[order], None if self.times is None else self.times[order])


class _Turns:
    """The chain of somebody's row and of what is hidden of their ratings.

    ``latent`` are the ratings as numbers, ``by_day`` what each of their days added, ``drifted`` what the deviations of
    the factors on these days did, and ``usual`` the mean of these.
    """

    def __init__(
        self, who: Newcomer, scales: Scales, calendar: Calendar | None, key: tuple[int, int], how: dict[str, Any]
    ) -> None:
        self.who, self.levels, self.calendar, self.how = who, scales.levels, calendar, how
        self.seed, self.number = key
        self.rng = np.random.default_rng([*key])
        self.row = one_row(np.arange(len(who.items), dtype=np.int32), who.values)
        self.latent = who.values.astype(np.float64)
        self.day_of = np.zeros(len(who.items), np.int64)
        if calendar is not None and who.times is not None:
            self.day_of = np.unique(np.floor(who.times / calendar.clock.day), return_inverse=True)[1]
        self.by_day = np.zeros(int(self.day_of.max(initial=-1)) + 1)
        self.drifted, self.usual = np.zeros(len(who.items)), np.zeros(0)

    def turn(self, draw: Draw) -> tuple[Array, Array]:
        """The row, (1, D), what it was told, and then the hidden parts."""
        who, added = self.who, self._added(draw)
        other = draw.item_rows[who.items].astype(np.float32)
        told = (self.latent - added - self.by_day[self.day_of] - self.drifted).astype(np.float32)
        key = (self.seed, self.number, gibbs.USERS)
        x = gibbs.draw_rows(
            self.row._replace(values=told), other, draw.users, draw.noise_precision, key, **self.how
        )[0]  # fmt: skip
        self.number += 1
        mean = entries.predictions(self.row, x, other, **self.how) + added
        if draw.time is not None and self.calendar is not None and who.times is not None:
            alpha, precision = draw.noise_precision, float(draw.time.precisions[0])
            if draw.time.drift is not None:
                left = self.latent - mean - self.by_day[self.day_of]
                self.drifted = self._drifted(draw.time.drift, left, other, alpha, key)
                mean = mean + self.drifted
            days = len(self.by_day)
            self.by_day = drawn_cells(self.day_of, days, self.latent - mean, None, alpha, precision, self.rng)
        if draw.cuts is not None and self.levels is not None:
            mean += self.by_day[self.day_of]
            std = np.array([draw.noise_precision**-0.5])
            steps = steps_of(who.values, self.levels)
            self.latent = entries.latent(self.row, steps, mean, draw.cuts.values, std, key, 1)
        return x, told

    def _drifted(self, drift: Drift, left: Array, other: Array, alpha: float, key: tuple[int, int, int]) -> Array:
        """What the deviations of the days add to the ratings, drawn given what is left of these."""
        factors = drift.factors(other)
        cells = by_cell(self.day_of, len(self.by_day), np.arange(len(factors)))
        drawn = deviations(cells, left, factors, None, drift.precision, alpha, key, 1)[self.day_of]
        self.usual = drawn.sum(axis=0) / max(1, len(drawn))
        return np.einsum("pk,pk->p", drawn, factors).astype(np.float64)

    def _added(self, draw: Draw) -> Array:
        """What time adds by the item and the calendar; their levels where no times are known."""
        who, nobody = self.who, np.full(len(self.who.items), -1, np.int32)
        if draw.time is None:
            return np.zeros(len(who.items))
        if self.calendar is None or who.times is None:
            return draw.time.usual(nobody, who.items)
        return draw.time.at(self.calendar.find(nobody, who.items, who.times))


def fold_hidden(
    draws: Sequence[Draw], who: Newcomer, scales: Scales, ratings: Ratings, key: tuple[int, int], how: dict[str, Any]
) -> tuple[Array, list[Array]]:
    """The row in each draw, (S, D), with the mean of its days; and what the ratings told each draw's row.

    Args:
        draws: Each with the prior of this user.
        who: The ratings.
        scales: Of the model.
        ratings: Of the training.
        key: Seed, and the first number of a sweep that no other draw has.
        how: ``biased``, ``offset`` and ``n_jobs``.
    """
    chain = _Turns(who.sorted(), scales, scales.calendar(ratings), key, how)
    back = np.argsort(np.argsort(who.items))
    out, each = np.empty((len(draws), draws[0].item_rows.shape[1]), np.float32), []
    for s, draw in enumerate(draws):
        for _ in range(TURNS if s else FIRST):
            x, told = chain.turn(draw)
        out[s] = x[0]
        each.append(told[back])
        out[s, : len(chain.usual)] += chain.usual
        if how["biased"] and len(who.items):
            out[s, -1] += chain.by_day[chain.day_of].mean()
    return out, each


def told_of(
    draw: Draw, part: CSR, rows: Array, places: Array, scales: Scales, ratings: Ratings, stds: Array,
    key: tuple[int, int, int], how: dict[str, Any],
) -> Array:  # fmt: skip
    """What training ratings tell their rows in a draw: the latent ratings of steps, without what time adds.

    Args:
        draw: The draw.
        part: The ratings of some users.
        rows: The rows of these users.
        places: Where the ratings stand in the order of the users.
        scales: Of the model.
        ratings: Of the training.
        stds: The noise of each of the users.
        key: The counters of the latent ratings.
        how: ``biased``, ``offset`` and ``n_jobs``.
    """
    calendar, ladder = scales.calendar(ratings), scales.ladder(ratings)
    values = part.values.astype(np.float64)
    added = np.zeros(len(values))
    if calendar is not None and draw.time is not None:
        added = draw.time.of(calendar, places)
        if draw.time.drift is not None:
            added += draw.time.drift.at(calendar.kinds[0].codes[places], draw.item_rows[part.indices])
    if ladder is not None and draw.cuts is not None:
        mean = entries.predictions(part, rows.astype(np.float32), draw.item_rows.astype(np.float32), **how) + added
        values = entries.latent(part, ladder.steps[places], mean, draw.cuts.values, stds, key, how["n_jobs"])
    return values - added
