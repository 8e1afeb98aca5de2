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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.pairs import Pairs
from gramian.data.table import RatingsTable
from gramian.errors import DataError, FormatError
from gramian.kernels.arrays import Array
from gramian.models.bayes.bundles import Beginning, Chance, FoldInRatings, Rest, Some
from gramian.models.bayes.calendar import Calendar, Clock, clock_of, slots
from gramian.models.bayes.state import ITEMS, USERS, compact
from gramian.models.bayes.terms.term import Addition, FoldInPart, V

__all__ = ["KINDS", "DaysOfOne", "InTime", "Offsets", "TimeOffsets", "drawn_cells", "levelled"]

KINDS = ("user_day", "item_period", "stretch")
RATE = 0.01  # of the prior of λ, times the variance of the ratings
Found = tuple[Array, ...] | None


class Offsets(NamedTuple):
    """What time adds: the offsets of each kind, (G,); λ, (3,); the levels of users (N,), items (M,) and all (1,)."""

    offsets: tuple[Array, Array, Array]
    precisions: Array
    levels: tuple[Array, Array, Array]

    def of(self, calendar: Calendar, places: Array | slice = slice(None)) -> Array:
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

    def usual(self, pairs: Pairs) -> Array:
        """What time adds where none is asked for, (n,): the levels; those of all for unknown ones."""
        out = np.full(len(pairs), float(self.levels[2][0]))
        for levels, codes in zip(self.levels, (pairs.users, pairs.items), strict=False):
            out += np.where(codes < 0, 0, levels[np.maximum(codes, 0)])
        return out

    def mapped(self, change: Callable[[Array], Array]) -> Offsets:
        """With all offsets and levels changed by a function, to another precision say."""
        (a, b, c), (d, e, f) = map(change, self.offsets), map(change, self.levels)
        return Offsets((a, b, c), self.precisions, (d, e, f))


def levelled(calendar: Calendar, offsets: Sequence[Array], precisions: Array) -> Offsets:
    """Offsets with their levels."""
    levels = [
        cells.levels(part, size) for cells, part, size in zip(calendar.kinds, offsets, calendar.sizes, strict=True)
    ]
    return Offsets((offsets[0], offsets[1], offsets[2]), precisions, (levels[0], levels[1], levels[2]))


def drawn_cells(
    codes: Array, count: int, left: Array, weights: Array | None, noise_precision: float, precision: float,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """The offsets of ``count`` cells, given what is left of their ratings."""
    sums = np.bincount(codes, left if weights is None else left * weights, minlength=count)
    known = precision + noise_precision * np.bincount(codes, weights, minlength=count)
    return np.asarray(noise_precision * sums / known + rng.standard_normal(count) / np.sqrt(known))


@dataclass(frozen=True, eq=False)
class InTime(Addition[V]):
    """What is added by when a rating was given.

    Attributes:
        clock: How long the cells are.
        calendar: The cells of the training ratings; None in a model that is without these.
        rate: Of the prior of λ.
    """

    clock: Clock
    calendar: Calendar | None
    rate: float

    @property
    def cells(self) -> Calendar:
        """The cells of the training ratings."""
        assert self.calendar is not None, "a model without ratings has no cells"
        return self.calendar

    def rebound(self, ratings: RatingsTable) -> Self:
        """With the cells of more ratings."""
        return replace(self, calendar=Calendar.of(ratings, self.clock))

    def light(self) -> Self:
        """Without cells: it knows of no time in particular then."""
        return replace(self, calendar=None)


@dataclass(frozen=True, eq=False)
class TimeOffsets(InTime[Offsets]):
    """Offsets by time; the rate of the prior of λ is s²/100."""

    name = "time"
    settings: ClassVar[Mapping[str, object]] = {"time": None}

    @classmethod
    def of_setting(cls, setting: float | str, ratings: RatingsTable, arrays: Arrays | None = None) -> TimeOffsets:
        """The term that a recipe's ``time`` asks for; with the clock of a file, where it is read from one.

        Raises:
            DataError: The ratings have no times.
            FormatError: The clock of the file is missing or not sound, or the ratings in it have no times.
        """
        clock = clock_of(setting, ratings) if arrays is None else _clock_in(arrays, ratings)
        return cls(clock, Calendar.of(ratings, clock), RATE * (ratings.variance or 1.0))

    # ---- while sampling -------------------------------------------------------------------------

    def start(self, begin: Beginning) -> Offsets:
        """No offset, and precisions of offsets of a fifth of the ratings' deviation."""
        return levelled(self.cells, [np.zeros(len(c.keys)) for c in self.cells.kinds], np.full(3, 25 / begin.variance))

    def added(self, value: Offsets, items: Array, n_jobs: int | None = None) -> Array:
        """As of :class:`Addition`."""
        return value.of(self.cells)

    def added_to(self, value: Offsets, some: Some) -> Array:
        """As of :class:`Addition`."""
        return value.of(self.cells, some.places)

    def drawn(
        self, value: Offsets, left: Array, beside: Array | None, rest: Rest, chance: Chance
    ) -> tuple[Offsets, Array]:
        """The offsets of each kind in turn, and λ."""
        left = (left if beside is None else left - beside) - value.of(self.cells)
        drawn, precisions, (_, weights, alpha) = [], np.empty(3), rest
        for k, cells in enumerate(self.cells.kinds):
            left += value.offsets[k][cells.codes]
            drawn.append(
                drawn_cells(cells.codes, len(cells.keys), left, weights, alpha, value.precisions[k], chance.rng)
            )
            left -= drawn[k][cells.codes]
            precisions[k] = chance.rng.gamma(1 + len(cells.keys) / 2) / (self.rate + np.sum(drawn[k] ** 2) / 2)
        return levelled(self.cells, drawn, precisions), left if beside is None else left + beside

    def compacted(self, value: Offsets, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Offsets:
        """As of :class:`Term`."""
        return value.mapped(lambda part: compact(part, dtype, n_jobs))

    def trace_names(self) -> list[str]:
        """λ^-½ of each kind."""
        return [f"{kind}_std" for kind in KINDS]

    def trace(self, value: Offsets) -> list[float]:
        """As of :class:`Term`."""
        return list((value.precisions**-0.5).tolist())

    # ---- new ratings ----------------------------------------------------------------------------

    def check_new(self, new: RatingsTable) -> None:
        """Raise DataError where new ratings have no times."""
        if new.times is None:
            raise DataError("New ratings need times, for the model knows of time: found none; give them.")

    def grown(self, value: Offsets, before: TimeOffsets) -> Offsets:
        """The offsets, float64: 0 in new cells."""
        drawn = []
        for known, cells, offsets in zip(before.cells.kinds, self.cells.kinds, value.offsets, strict=True):
            places = known.find(cells.rows, cells.slots)
            drawn.append(np.where(places < 0, 0.0, offsets[np.maximum(places, 0)].astype(np.float64)))
        return levelled(self.cells, drawn, value.precisions)

    def redrawn(
        self, value: Offsets, before: TimeOffsets, side: int, some: Some, left: Array, beside: Array | None,
        rest: Rest, chance: Chance,
    ) -> tuple[Offsets, Array]:  # fmt: skip
        """Of users, their days, and stretches of the calendar in which the old ratings have none; of items, periods."""
        given, places = left if beside is None else left - beside, some.places
        offsets, (_, weights, alpha) = list(value.offsets), rest
        for k in (0, 2) if side == USERS else (1,):
            cells = self.cells.kinds[k]
            codes, wanted = cells.codes[places], np.ones(len(places), bool)
            if k == 2:
                wanted = (before.cells.kinds[k].find(cells.rows, cells.slots) < 0)[codes]
            there, local = np.unique(codes[wanted], return_inverse=True)
            now = value._replace(offsets=(offsets[0], offsets[1], offsets[2]))
            rest_of = given - now.of(self.cells, places) + offsets[k][codes]
            mine, precision = None if weights is None else weights[wanted], value.precisions[k]
            offsets[k] = offsets[k].copy()
            offsets[k][there] = drawn_cells(
                local, len(there), rest_of[wanted], mine, alpha, precision, chance.rng
            )  # fmt: skip
        made = levelled(self.cells, offsets, value.precisions)
        return made, left - made.of(self.cells, places)

    # ---- pairs that are asked for ------------------------------------------------------------------

    def find(self, pairs: Pairs) -> Found:
        """The cells of pairs; None where no times are asked for."""
        return None if self.calendar is None else self.calendar.find(pairs)

    def at(self, value: Offsets, pairs: Pairs, found: object, items: Array) -> Array:
        """The offsets of the cells; the levels where no times are asked for."""
        cells = _cells(found)
        return value.usual(pairs) if cells is None else value.at(cells)

    def add_variance(self, total: Array, value: Offsets, found: object) -> None:
        """1/λ for each kind without a cell."""
        cells = _cells(found)
        for k, unknown in enumerate(1 / value.precisions):
            total += unknown if cells is None else np.where(cells[k] < 0, unknown, 0.0)

    def levels(self, value: Offsets, side: int) -> Array:
        """The mean offsets of the users' days, or of the items' periods."""
        return value.levels[ITEMS if side == ITEMS else USERS]

    def level(self, value: Offsets) -> Array:
        """The mean offset of the calendar."""
        return value.levels[2]

    def fold_in(self, who: FoldInRatings) -> FoldInPart[Offsets]:
        """Offsets of the person's own days are drawn; those of the items and the calendar are known."""
        return FoldInDays(self, who)

    # ---- in a file --------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """The clock."""
        return {"clock": np.array(self.clock)}

    def packed(self, value: Offsets) -> Arrays:
        """As of :class:`Term`."""
        made = {f"time_{name}": part for name, part in zip(KINDS, value.offsets, strict=True)}
        made |= {f"time_{name}_level": part for name, part in zip(KINDS, value.levels, strict=True)}
        return made | {"time_precisions": value.precisions}

    def unpacked(self, arrays: Arrays) -> Offsets:
        """As of :class:`Term`."""
        offsets, levels = [arrays[f"time_{k}"] for k in KINDS], [arrays[f"time_{k}_level"] for k in KINDS]
        made = (offsets[0], offsets[1], offsets[2]), arrays["time_precisions"], (levels[0], levels[1], levels[2])
        return Offsets(*made)

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """As of :class:`Term`."""
        made: dict[str, tuple[int, ...]] = {"time_precisions": (3,)}
        for name, cells, size in zip(KINDS, self.cells.kinds, self.cells.sizes, strict=True):
            made |= {f"time_{name}": (len(cells.keys),), f"time_{name}_level": (size,)}
        return made

    def is_sound(self, value: Offsets) -> bool:
        """Whether all λ are positive."""
        return bool(value.precisions.min() > 0)


def _cells(found: object) -> Found:
    assert found is None or isinstance(found, tuple)
    return found


def _clock_in(arrays: Arrays, ratings: RatingsTable) -> Clock:
    lengths = arrays.get("clock", np.empty(0))
    if ratings.times is None or lengths.shape != (3,) or not (np.isfinite(lengths) & (lengths > 0)).all():
        times = "no times" if ratings.times is None else "times"
        raise FormatError(
            f"The clock of bpmf does not fit: found {lengths!r} for three positive lengths, and ratings with {times}; "
            "use another copy of the file."
        )
    return Clock(*lengths.tolist())


class DaysOfOne:
    """The days of one person's ratings, by number; one day of all where no times are known."""

    def __init__(self, who: FoldInRatings, clock: Clock, known: bool) -> None:
        self.known = known and who.times is not None
        self.of = np.zeros(len(who.items), np.int64)
        if known and who.times is not None:
            self.of = np.unique(slots(who.times, clock.day), return_inverse=True)[1]
        self.count = int(self.of.max(initial=-1)) + 1


class FoldInDays(FoldInPart[Offsets]):
    """The offsets of somebody's days, drawn where their times are known."""

    def __init__(self, term: TimeOffsets, who: FoldInRatings) -> None:
        super().__init__(term, who)
        self.days = DaysOfOne(who, term.clock, known=term.calendar is not None)

    def draw(self, value: Offsets, left: Array, rest: Rest, chance: Chance) -> None:
        """The offset of each day."""
        if self.days.known:
            precision = float(value.precisions[0])
            drawn = drawn_cells(
                self.days.of, self.days.count, left, None, rest.noise_precision, precision, chance.rng
            )  # fmt: skip
            self.own = drawn[self.days.of]

    def finish(self, row: Array, biased: bool) -> None:
        """The mean over the ratings goes with the bias."""
        if biased and len(self.own):
            row[-1] += self.own.mean()
