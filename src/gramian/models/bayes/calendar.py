"""Cells in time: the days of each user, the periods of each item, and stretches of the calendar."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.core.lean import Lean
from gramian.data.pairs import Pairs, Times
from gramian.data.table import RatingsTable
from gramian.errors import DataError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = ["Calendar", "Cells", "Clock", "by_cell", "clock_of", "slots"]

DAY = 86_400  # seconds
MILLISECONDS = 10**11  # times beyond are no seconds: as such they would lie after the year 5000
PERIODS = 15  # that "auto" cuts the span of the ratings into, for the items; and stretches to a period


class Clock(NamedTuple):
    """The lengths of a day, of an item's period and of a stretch of the calendar, in units of the times."""

    day: float
    period: float
    stretch: float


def clock_of(setting: float | str, ratings: RatingsTable) -> Clock:
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
class Cells(Lean):
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
class Calendar(Lean):
    """The cells of some ratings: of users by day, of items by period, and of the calendar by stretch."""

    clock: Clock
    kinds: tuple[Cells, Cells, Cells]
    sizes: tuple[int, int, int]

    @classmethod
    def of(cls, ratings: RatingsTable, clock: Clock) -> Calendar:
        """The cells of ratings with times."""
        assert ratings.times is not None
        rows: tuple[Array, ...] = (ratings.user_codes, ratings.item_codes, np.zeros(len(ratings), np.int64))
        a, b, c = (Cells.made(row, slots(ratings.times, length)) for row, length in zip(rows, clock, strict=True))
        return cls(clock, (a, b, c), (ratings.n_users, ratings.n_items, 1))

    @cached_property
    def transposed_days(self) -> npt.NDArray[np.int32]:
        """The cell of a user and a day that each rating lies in, in the order of the items."""
        items = self.kinds[1].rows[self.kinds[1].codes]
        return self.kinds[0].codes[np.argsort(items, kind="stable")].astype(np.int32)

    @cached_property
    def by_day(self) -> tuple[CSR, npt.NDArray[np.int64]]:
        """The items that each user rated on each day, without values; and the places of these ratings."""
        days, periods = self.kinds[:2]
        return by_cell(days.codes, len(days.keys), periods.rows[periods.codes])

    def days_of(self, pairs: Pairs) -> npt.NDArray[np.int64] | None:
        """The cells of users and days for pairs, −1 for none; None where no times are asked for."""
        return None if pairs.times is None else self.kinds[0].find(pairs.users, slots(pairs.times, self.clock.day))

    def find(self, pairs: Pairs) -> tuple[Array, ...] | None:
        """The cells of each kind for pairs, −1 for none; None where no times are asked for."""
        if pairs.times is None:
            return None
        rows: tuple[Array, ...] = (pairs.users, pairs.items, np.zeros(len(pairs), np.int64))
        return tuple(
            cells.find(row, slots(pairs.times, length))
            for cells, row, length in zip(self.kinds, rows, self.clock, strict=True)
        )


def slots(times: Times, length: float) -> npt.NDArray[np.int64]:
    """The slot of such a length that each time lies in."""
    return np.floor(times / length).astype(np.int64)


def by_cell(codes: Array, count: int, items: Array) -> tuple[CSR, npt.NDArray[np.int64]]:
    """Ratings of items by their ``count`` cells, without values; and the place that each had before."""
    order = np.argsort(codes, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=count))])
    return CSR(indptr, items[order].astype(np.int32), np.empty(len(items), np.float32)), order
