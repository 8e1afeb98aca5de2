r"""When a rating was given: offsets of each user's days, each item's periods, and stretches of the calendar.

.. math::
    r_{ij}(t) \sim N\big(\mu + b_i + c_j + w_i^\top u_j + p_{i\,d(t)} + q_{j\,e(t)} + s_{f(t)},\ \alpha^{-1}\big)

    p_{id} \sim N(0, \lambda_p^{-1}), \quad q_{je} \sim N(0, \lambda_q^{-1}), \quad s_f \sim N(0, \lambda_s^{-1}),
    \qquad \lambda \sim \text{Gamma}(1, s^2/100)

with d the day, e the item's period and f the stretch of the calendar that *t* lies in, and s the standard deviation of
the ratings. What the factors leave of a rating is e; the offsets o of one kind are drawn given the two other kinds,
from the ratings of their cells g, with weights ω:

.. math::
    o_g \mid \cdot &\sim N\Big(\frac{\alpha\sum_{g} \omega e}{\lambda + \alpha\sum_{g} \omega},\
        \frac{1}{\lambda + \alpha\sum_{g} \omega}\Big) \\
    \lambda \mid o &\sim \text{Gamma}\big(1 + \tfrac12 G,\ \tfrac{s^2}{100} + \tfrac12\textstyle\sum_g o_g^2\big)

A time that is asked for and lies in no cell has the mean of the prior, 0, and its variance 1/λ. Where no time is asked
for, the mean over the training ratings of the user, of the item and of all stands in (the *levels*). A user's factors
may deviate by day, too (:mod:`gramian.models.bayes.terms.time_factors`).

Sources: Koren 2009, *Collaborative filtering with temporal dynamics* (which offsets help); the draws are those of any
normal hierarchy (Gelman et al., *Bayesian Data Analysis*).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.ids import Codes
from gramian.data.ratings import Ratings
from gramian.errors import DataError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes.terms.time_factors import Drift, by_cell

__all__ = [
    "KINDS", "Calendar", "Clock", "TimeOffsets", "calendar_of", "clock_of", "draw_times", "drawn_cells",
    "levelled", "no_times", "redrawn_cells", "regrown",
]  # fmt: skip

KINDS = ("user_day", "item_period", "stretch")
DAY = 86_400  # seconds
MILLISECONDS = 10**11  # times beyond are no seconds: as such they would lie after the year 5000
PERIODS = 15  # that "auto" cuts the span of the ratings into, for the items; and stretches to a period
RATE = 0.01  # of the prior of λ, times the variance of the ratings


class Clock(NamedTuple):
    """The lengths of a day, of an item's period and of a stretch of the calendar, in units of the times."""

    day: float
    period: float
    stretch: float


def clock_of(setting: float | str, ratings: Ratings) -> Clock:
    """The lengths that a recipe's ``time`` means: periods of so many days, or ``"auto"``.

    Raises:
        DataError: The ratings have no times.
    """
    if ratings.times is None:
        raise DataError(
            "The 'time' parameter of BPMF needs ratings with times: found none; give them, or leave it out."
        )
    times, day = ratings.times, float(DAY)
    while np.median(np.abs(times)) > MILLISECONDS * (day / DAY):
        day *= 1000
    span = (int(times.max()) - int(times.min())) / day
    days = max(1.0, span / PERIODS) if isinstance(setting, str) else setting
    return Clock(day, days * day, max(1.0, days / PERIODS) * day)


@dataclass(frozen=True, eq=False)
class Cells:
    """One kind of cells: which there are, and which one each rating lies in.

    ``keys`` (G,) are row · width + slot − first, ascending; ``codes`` (n,) the cell of each rating.
    """

    keys: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]
    first: int
    width: int

    @classmethod
    def made(cls, rows: Array, slots: npt.NDArray[np.int64]) -> Cells:
        """The cells of ratings by their rows and slots."""
        first = int(slots.min())
        width = int(slots.max()) - first + 1
        keys, codes = np.unique(rows.astype(np.int64) * width + (slots - first), return_inverse=True)
        return cls(keys, codes, first, width)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of each cell."""
        return self.keys // self.width

    @property
    def slots(self) -> npt.NDArray[np.int64]:
        """The slot of each cell."""
        return self.keys % self.width + self.first

    @cached_property
    def counts(self) -> Array:
        """The number of ratings in each cell."""
        return np.bincount(self.codes, minlength=len(self.keys)).astype(np.float64)

    def find(self, rows: Array, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The cells of rows and slots, −1 where there is none."""
        keys = rows.astype(np.int64) * self.width + (slots - self.first)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        inside = (rows >= 0) & (slots >= self.first) & (slots < self.first + self.width)
        return np.where(inside & (self.keys[places] == keys), places, -1)

    def levels(self, offsets: Array, n_rows: int) -> Array:
        """The mean offset over the ratings of each row."""
        totals = np.bincount(self.rows, self.counts * offsets, minlength=n_rows)
        return totals / np.maximum(np.bincount(self.rows, self.counts, minlength=n_rows), 1)


@dataclass(frozen=True, eq=False)
class Calendar:
    """The cells of some ratings: of users by day, of items by period, and of the calendar by stretch."""

    clock: Clock
    kinds: tuple[Cells, Cells, Cells]
    sizes: tuple[int, int, int]

    @cached_property
    def turned(self) -> npt.NDArray[np.int64]:
        """The place of each rating, in the order of the items."""
        return np.argsort(self.kinds[1].rows[self.kinds[1].codes], kind="stable")

    @cached_property
    def turned_days(self) -> npt.NDArray[np.int32]:
        """The cell of a user and a day that each rating lies in, in the order of the items."""
        return self.kinds[0].codes[self.turned].astype(np.int32)

    @cached_property
    def by_day(self) -> tuple[CSR, npt.NDArray[np.int64]]:
        """The items that each user rated on each day, without values; and the places of these ratings."""
        days, periods = self.kinds[:2]
        return by_cell(days.codes, len(days.keys), periods.rows[periods.codes])

    def find(self, users: Codes, items: Codes, times: npt.NDArray[np.int64]) -> tuple[Array, ...]:
        """The cells of each kind for pairs of codes at these times, −1 for none."""
        rows: tuple[Array, ...] = (users, items, np.zeros(len(times), np.int64))
        return tuple(
            cells.find(row, _slots(times, length))
            for cells, row, length in zip(self.kinds, rows, self.clock, strict=True)
        )


def _slots(times: npt.NDArray[np.int64], length: float) -> npt.NDArray[np.int64]:
    return np.floor(times / length).astype(np.int64)


def calendar_of(ratings: Ratings, clock: Clock) -> Calendar:
    """The cells of ratings with times, made once for them."""
    made = _MADE.setdefault(ratings, {})
    if clock not in made:
        assert ratings.times is not None
        rows: tuple[Array, ...] = (ratings.user_codes, ratings.item_codes, np.zeros(len(ratings), np.int64))
        a, b, c = (Cells.made(row, _slots(ratings.times, length)) for row, length in zip(rows, clock, strict=True))
        made[clock] = Calendar(clock, (a, b, c), (ratings.n_users, ratings.n_items, 1))
    return made[clock]


_MADE: WeakKeyDictionary[Ratings, dict[Clock, Calendar]] = WeakKeyDictionary()


class TimeOffsets(NamedTuple):
    """What time adds.

    The offsets of each kind, (G,); λ, (3,); the levels of the users (N,), of the items (M,) and of all (1,); and how
    the factors of the users deviate on their days, if they do.
    """

    offsets: tuple[Array, Array, Array]
    precisions: Array
    levels: tuple[Array, Array, Array]
    drift: Drift | None = None

    def of(self, calendar: Calendar, places: Any = slice(None)) -> Array:
        """What time adds to each rating of the training, or to those at some places, float64."""
        out = np.zeros(len(calendar.kinds[0].codes[places]))
        for offsets, cells in zip(self.offsets, calendar.kinds, strict=True):
            out += offsets[cells.codes[places]]
        return out

    def at(self, cells: Sequence[Array]) -> Array:
        """What time adds at cells, (n,): 0 in those that are not there (−1)."""
        out = np.zeros(len(cells[0]))
        for offsets, places in zip(self.offsets, cells, strict=True):
            out += np.where(places < 0, 0, offsets[np.maximum(places, 0)])
        return out

    def usual(self, users: Codes, items: Codes) -> Array:
        """What time adds where none is asked for, (n,): the levels; those of all for unknown ones."""
        out = np.full(len(users), float(self.levels[2][0]))
        for levels, codes in zip(self.levels, (users, items), strict=False):
            out += np.where(codes < 0, 0, levels[np.maximum(codes, 0)])
        return out

    def variance(self, cells: Sequence[Array] | None, n: int) -> Array:
        """The variance of what is not known of it, (n,): 1/λ for each kind without a cell; v̄ of the drift."""
        unknown = 1 / self.precisions
        if self.drift is not None:
            unknown[0] += self.drift.spread
        if cells is None:
            return np.full(n, float(unknown.sum()))
        return np.sum([np.where(c < 0, v, 0.0) for c, v in zip(cells, unknown, strict=True)], axis=0)

    def mapped(self, change: Callable[[Array], Array]) -> TimeOffsets:
        """With all offsets and levels changed by a function, to another precision say."""
        (a, b, c), (d, e, f) = map(change, self.offsets), map(change, self.levels)
        return TimeOffsets(
            (a, b, c), self.precisions, (d, e, f), None if self.drift is None else self.drift.mapped(change)
        )

    def packed(self) -> Arrays:
        """As named arrays, which :meth:`unpacked` takes."""
        made = {f"time_{name}": part for name, part in zip(KINDS, self.offsets, strict=True)}
        made |= {f"time_{name}_level": part for name, part in zip(KINDS, self.levels, strict=True)}
        if self.drift is not None:
            made |= {"drift": self.drift.rows, "drift_scale": np.array([self.drift.precision, self.drift.spread])}
        return made | {"time_precisions": self.precisions}

    @classmethod
    def unpacked(cls, arrays: Arrays) -> TimeOffsets:
        """From named arrays."""
        offsets, levels = [arrays[f"time_{k}"] for k in KINDS], [arrays[f"time_{k}_level"] for k in KINDS]
        drift = Drift(arrays["drift"], *arrays["drift_scale"].tolist()) if "drift" in arrays else None
        made = (offsets[0], offsets[1], offsets[2]), arrays["time_precisions"], (levels[0], levels[1], levels[2])
        return cls(*made, drift)

    @staticmethod
    def shapes(calendar: Calendar, drifting: int = 0) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of :meth:`packed`, so many factors drifting."""
        made: dict[str, tuple[int, ...]] = {"time_precisions": (3,)}
        made |= {"drift": (len(calendar.kinds[0].keys), drifting), "drift_scale": (2,)} if drifting else {}
        for name, cells, size in zip(KINDS, calendar.kinds, calendar.sizes, strict=True):
            made |= {f"time_{name}": (len(cells.keys),), f"time_{name}_level": (size,)}
        return made


def levelled(
    calendar: Calendar, offsets: Sequence[Array], precisions: Array, drift: Drift | None = None
) -> TimeOffsets:
    """Offsets with their levels."""
    levels = [
        cells.levels(part, size) for cells, part, size in zip(calendar.kinds, offsets, calendar.sizes, strict=True)
    ]
    return TimeOffsets((offsets[0], offsets[1], offsets[2]), precisions, (levels[0], levels[1], levels[2]), drift)


def no_times(calendar: Calendar, variance: float, drift: Drift | None = None) -> TimeOffsets:
    """What a chain starts at: no offset, and precisions of offsets of a fifth of the ratings' deviation."""
    offsets = [np.zeros(len(cells.keys)) for cells in calendar.kinds]
    return levelled(calendar, offsets, np.full(3, 25 / variance), drift)


def draw_times(
    calendar: Calendar, before: TimeOffsets, away: Array, weights: Array | None, noise_precision: float, rate: float,
    rng: np.random.Generator,
) -> tuple[TimeOffsets, Array]:  # fmt: skip
    """The offsets of each kind in turn, and λ; and what they leave of ``away``, what the factors left of each rating.

    Args:
        calendar: The cells of the ratings.
        before: The offsets before; their drift is taken over.
        away: (n,), float64.
        weights: ω of each rating, or None.
        noise_precision: α.
        rate: Of the prior of λ, s²/100.
        rng: Of the draws.
    """
    left = away - before.of(calendar)
    drawn, precisions = [], np.empty(3)
    for k, cells in enumerate(calendar.kinds):
        left += before.offsets[k][cells.codes]
        drawn.append(
            drawn_cells(cells.codes, len(cells.keys), left, weights, noise_precision, before.precisions[k], rng)
        )
        left -= drawn[k][cells.codes]
        precisions[k] = rng.gamma(1 + len(cells.keys) / 2) / (rate + np.sum(drawn[k] ** 2) / 2)
    return levelled(calendar, drawn, precisions, before.drift), left


def drawn_cells(
    codes: Array, count: int, left: Array, weights: Array | None, noise_precision: float, precision: float,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """The offsets of ``count`` cells, given what is left of their ratings."""
    sums = np.bincount(codes, left if weights is None else left * weights, minlength=count)
    known = precision + noise_precision * np.bincount(codes, weights, minlength=count)
    return np.asarray(noise_precision * sums / known + rng.standard_normal(count) / np.sqrt(known))


# ---- new ratings -------------------------------------------------------------------------------------


def regrown(before: TimeOffsets, old: Calendar, new: Calendar) -> TimeOffsets:
    """The offsets, float64, and the drift, float32, for the cells of more ratings: 0 in new cells."""
    every = [known.find(cells.rows, cells.slots) for known, cells in zip(old.kinds, new.kinds, strict=True)]
    drawn = [
        np.where(places < 0, 0.0, offsets[np.maximum(places, 0)].astype(np.float64))
        for places, offsets in zip(every, before.offsets, strict=True)
    ]
    drift = None if before.drift is None else before.drift._replace(rows=before.drift.of(every[0]))
    return levelled(new, drawn, before.precisions, drift)


def redrawn_cells(
    calendars: tuple[Calendar, Calendar], which: int, before: TimeOffsets, places: Array, away: Array,
    weights: Array | None, noise_precision: float, rng: np.random.Generator,
) -> TimeOffsets:  # fmt: skip
    """The offsets of the cells of one side (0: users, 1: items) drawn given all ratings of some of its rows.

    With those of users, stretches of the calendar in which the old ratings have none.

    Args:
        calendars: Of the old ratings, and of all.
        which: The side.
        before: The offsets before.
        places: Where the ratings of the rows stand in the order of the users.
        away: What the factors leave of these ratings.
        weights: ω of these ratings, or None.
        noise_precision: α.
        rng: Of the draws.
    """
    offsets, (old, new) = list(before.offsets), calendars
    for k in (0, 2) if which == 0 else (1,):
        cells = new.kinds[k]
        codes, wanted = cells.codes[places], np.ones(len(places), bool)
        if k == 2:
            wanted = (old.kinds[k].find(cells.rows, cells.slots) < 0)[codes]
        there, local = np.unique(codes[wanted], return_inverse=True)
        left = away - before._replace(offsets=(offsets[0], offsets[1], offsets[2])).of(new, places) + offsets[k][codes]
        mine = None if weights is None else weights[wanted]
        offsets[k] = offsets[k].copy()
        offsets[k][there] = drawn_cells(
            local, len(there), left[wanted], mine, noise_precision, before.precisions[k], rng
        )  # fmt: skip
    return before._replace(offsets=(offsets[0], offsets[1], offsets[2]))
