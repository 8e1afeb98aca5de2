r"""Factors that drift: on each of a user's days they deviate from what they usually are.

.. math::
    r_{ij}(t) \sim N\big(\mu + b_i + c_j + (w_i + \delta_{i\,d(t)})^\top u_j + \dots,\ \alpha^{-1}\big), \qquad
    \delta_{id} \sim N(0, \lambda_\delta^{-1} I), \quad \lambda_\delta \sim \text{Gamma}(1, s/100)

beside the offset of the day (:mod:`gramian.models.bayes.terms.time_offsets`), over the same days; s is the standard
deviation of the ratings, and :math:`\delta^\top u` is in units of the rating. Given all the rest, the deviations are
rows like any others: those of (user, day), with the items as the other side and what the rest leaves of a rating as its
value. So the half-sweep draws them; and it draws the items given the rows :math:`w_i + \delta_{id}` of the days.

On a day without training ratings the deviation is not known, and what it may add has the variance
:math:`\bar v = \lambda_\delta^{-1}\tfrac1M\sum_j\lVert u_j\rVert^2`, that of an item on average. There, and where no
time is asked for, the mean over the user's training ratings stands in: a kept draw has it in :math:`w_i`, and its
deviations are those from it (:func:`centred`). Their sums are as they were.

Source: Koren 2009, *Collaborative filtering with temporal dynamics* (timeSVD++), whose day-specific factors these are,
under a prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.data.pairs import Pairs
from gramian.engine import entries, local
from gramian.engine.rows import NO_INTERCEPTS, Penalty
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Beginning, Chance, FoldInRatings, Rest, Some
from gramian.models.bayes.calendar import Calendar, by_cell
from gramian.models.bayes.state import ITEMS, compact
from gramian.models.bayes.terms.term import FoldInPart
from gramian.models.bayes.terms.time_offsets import DaysOfOne, InTime, TimeOffsets

__all__ = ["Drift", "TimeFactors", "centred", "deviations", "rows_of_days", "unknown_variance"]

SIDE = 1 << 20  # of the counters of the deviations' normals: beyond those of the users and items of any chain
RATE = 0.01  # of the prior of λ, times the standard deviation of the ratings


class Drift(NamedTuple):
    """δ of each cell of a user and a day, (G, K); λ of δ; and the variance that an unknown deviation adds, v̄."""

    rows: Array
    precision: float
    spread: float

    def of(self, cells: Array) -> Array:
        """The deviations of cells, (n, K), float32: 0 where there is none (−1)."""
        return np.where(cells[:, None] < 0, np.float32(0), self.rows[np.maximum(cells, 0)].astype(np.float32))

    def at(self, cells: Array, items: Array) -> Array:
        """What they add for cells and the row of an item each, (n, D)."""
        return np.asarray(np.einsum("pk,pk->p", self.of(cells), self.factors(items).astype(np.float32)))

    def factors(self, rows: Array) -> Array:
        """Rows without their biases, (n, K)."""
        return np.ascontiguousarray(rows[:, : self.rows.shape[1]])


def rows_of_days(drift: Drift, calendar: Calendar, users: Array, cells: Array | slice = slice(None)) -> Array:
    """The row of each user on each day, or in some of the cells, (G, D): w + δ, and the bias."""
    rows: Array = users[calendar.kinds[0].rows[cells]]
    rows[:, : drift.rows.shape[1]] += drift.rows[cells]
    return rows


def unknown_variance(precision: float, factors: Array) -> float:
    """v̄, of λ and the factors of the items."""
    return float(np.square(factors, dtype=np.float64).sum() / max(1, len(factors)) / precision)


def centred(drift: Drift, calendar: Calendar, users: Array) -> tuple[Drift, Array]:
    """The deviations from their mean over each user's ratings, and the rows of the users with this mean."""
    days, K = calendar.kinds[0], drift.rows.shape[1]
    there, first, owner = np.unique(days.rows, return_index=True, return_inverse=True)
    totals = np.add.reduceat(days.counts[:, None] * drift.rows, first, axis=0)
    means = (totals / np.add.reduceat(days.counts, first)[:, None]).astype(users.dtype)
    rows = users.copy()
    rows[there, :K] += means
    return drift._replace(rows=drift.rows - means[owner].astype(drift.rows.dtype)), rows


def deviations(
    cells: tuple[CSR, Array], left: Array, factors: Array, weights: Array | None, precisions: tuple[float, float],
    counters: tuple[int, int, int], n_jobs: int | None = None,
) -> Array:  # fmt: skip
    """δ of the cells of :func:`by_cell`, drawn given λ and α and what is left of their ratings.

    Args:
        cells: The ratings of each cell, and where they stand.
        left: (n,), in the order of the ratings.
        factors: Those of the items, (M, K).
        weights: ω of each rating, or None.
        precisions: λ and α.
        counters: Of the normals: seed, sweep and side.
        n_jobs: Threads.
    """
    (rows, order), (precision, noise_precision) = cells, precisions
    targets = rows._replace(values=left[order].astype(factors.dtype))
    penalty = Penalty(precision / noise_precision * np.eye(factors.shape[1]))
    step = local.HalfSweep(
        factors, NO_INTERCEPTS, penalty, weights=None if weights is None else weights[order],
        draw=(counters[0], counters[1], SIDE + counters[2]), spread=noise_precision**-0.5,
    )  # fmt: skip
    return step.run(targets, n_jobs)[0]


@dataclass(frozen=True, eq=False)
class TimeFactors(InTime[Drift]):
    """Factors of the users that deviate on each of their days; the rate of the prior of λ is s/100."""

    name = "drift"
    settings: ClassVar[Mapping[str, object]] = {"drift": False}
    in_rows: ClassVar[bool] = True

    @classmethod
    def beside(cls, offsets: TimeOffsets, variance: float) -> TimeFactors:
        """The deviations on the days that also have offsets."""
        return cls(offsets.clock, offsets.calendar, RATE * variance**0.5)

    # ---- while sampling -------------------------------------------------------------------------

    def start(self, begin: Beginning) -> Drift:
        """No deviation, and a precision of small ones."""
        rows = np.zeros((len(self.cells.kinds[0].keys), begin.factors), begin.dtype)
        return Drift(rows, 100 / begin.variance**0.5, 0.0)

    def added(self, value: Drift, items: Array, n_jobs: int | None = None) -> Array:
        """δᵀu of every rating."""
        rows, order = self.cells.by_day
        out = np.empty(len(order))
        out[order] = entries.predictions(rows, value.rows, value.factors(items), NO_INTERCEPTS, n_jobs)
        return out

    def added_to(self, value: Drift, some: Some) -> Array:
        """The same of some of the ratings."""
        return value.at(self.cells.kinds[0].codes[some.places], some.fixed[some.rows.indices])

    def drawn(self, value: Drift, left: Array, beside: Array | None, rest: Rest, chance: Chance) -> tuple[Drift, Array]:
        """The deviations of all days, and λ."""
        factors, given = value.factors(rest.items), left if beside is None else left - beside
        rows = deviations(
            self.cells.by_day, given, factors, rest.weights, (value.precision, rest.noise_precision), chance.counters,
            chance.n_jobs,
        )  # fmt: skip
        size = np.square(rows, dtype=np.float64).sum()
        precision = chance.rng.gamma(1 + rows.size / 2) / (self.rate + size / 2)
        made = Drift(rows, precision, unknown_variance(precision, factors))
        return made, left - self.added(made, rest.items, chance.n_jobs)

    def moved_rows(self, value: Drift, rows: CSR, users: Array, places: Array | None = None) -> tuple[CSR, Array]:
        """The ratings of the items as being those of a user's day; and the row of each user on each day."""
        if places is None:
            return rows._replace(indices=self.cells.transposed_days), rows_of_days(value, self.cells, users)
        there, days = np.unique(self.cells.kinds[0].codes[places], return_inverse=True)
        return rows._replace(indices=days.astype(np.int32)), rows_of_days(value, self.cells, users, there)

    def shown(self, value: Drift, users: Array, items: Array) -> tuple[Drift, Array]:
        """The rows of the users are those of no day in particular."""
        spread = unknown_variance(value.precision, value.factors(items))
        return centred(value._replace(spread=spread), self.cells, users)

    def compacted(self, value: Drift, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Drift:
        """As of :class:`Term`."""
        return value._replace(rows=compact(value.rows, dtype, n_jobs))

    def trace_names(self) -> list[str]:
        """The root of v̄."""
        return ["drift_std"]

    def trace(self, value: Drift) -> list[float]:
        """As of :class:`Term`."""
        return [value.spread**0.5]

    # ---- new ratings ----------------------------------------------------------------------------

    def grown(self, value: Drift, before: TimeFactors) -> Drift:
        """The deviations, float32: 0 in new cells."""
        days = self.cells.kinds[0]
        return value._replace(rows=value.of(before.cells.kinds[0].find(days.rows, days.slots)))

    def redrawn(
        self, value: Drift, before: TimeFactors, side: int, some: Some, left: Array, beside: Array | None, rest: Rest,
        chance: Chance,
    ) -> tuple[Drift, Array]:  # fmt: skip
        """Of users, the deviations on all of their days; of items none: what they add is in the moved rows."""
        if side == ITEMS:
            return value, left
        days = self.cells.kinds[0].codes[some.places]
        there, local_days = np.unique(days, return_inverse=True)
        rows = value.rows.copy()
        rows[there] = deviations(
            by_cell(local_days, len(there), some.rows.indices), left if beside is None else left - beside,
            value.factors(some.fixed), rest.weights, (value.precision, rest.noise_precision), chance.counters,
            chance.n_jobs,
        )  # fmt: skip
        made = value._replace(rows=rows)
        return made, left - made.at(days, some.fixed[some.rows.indices])

    # ---- pairs that are asked for ------------------------------------------------------------------

    def find(self, pairs: Pairs) -> Array | None:
        """The days of pairs; None where no times are asked for."""
        return None if self.calendar is None else self.calendar.days_of(pairs)

    def at(self, value: Drift, pairs: Pairs, found: object, items: Array) -> Array | None:
        """δᵀu on the days of the pairs."""
        days = _days(found)
        return None if days is None else value.at(days, items)

    def add_variance(self, total: Array, value: Drift, found: object) -> None:
        """v̄, where the day is not known."""
        days = _days(found)
        total += value.spread if days is None else np.where(days < 0, value.spread, 0.0)

    def move(self, value: Drift, rows: Array, found: object, which: Array) -> None:
        """Add the deviations of the days to the users' factors."""
        days = _days(found)
        if days is not None:
            rows[:, : value.rows.shape[1]] += value.of(days[which])

    def fold_in(self, who: FoldInRatings) -> FoldInPart[Drift]:
        """Deviations on the person's own days."""
        return FoldInDrift(self, who)

    # ---- in a file --------------------------------------------------------------------------------

    def packed(self, value: Drift) -> Arrays:
        """As of :class:`Term`."""
        return {"drift": value.rows, "drift_scale": np.array([value.precision, value.spread])}

    def unpacked(self, arrays: Arrays) -> Drift:
        """As of :class:`Term`."""
        return Drift(arrays["drift"], *arrays["drift_scale"].tolist())

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """As of :class:`Term`."""
        return {"drift": (len(self.cells.kinds[0].keys), begin.factors), "drift_scale": (2,)}

    def is_sound(self, value: Drift) -> bool:
        """Whether λ is positive, and v̄ not negative."""
        return value.precision > 0 and value.spread >= 0


def _days(found: object) -> Array | None:
    assert found is None or isinstance(found, np.ndarray)
    return found


class FoldInDrift(FoldInPart[Drift]):
    """The deviations of somebody's factors on their days, drawn where the times are known."""

    def __init__(self, term: TimeFactors, who: FoldInRatings) -> None:
        super().__init__(term, who)
        self.days = DaysOfOne(who, term.clock, known=term.calendar is not None)
        self.usual = np.zeros(0)

    def known(self, value: Drift, items: Array) -> Array | None:
        """Nothing: on none of these days is anybody known."""
        return None

    def draw(self, value: Drift, left: Array, rest: Rest, chance: Chance) -> None:
        """The deviation of each day."""
        if not self.days.known:
            return
        factors = value.factors(rest.items)
        cells = by_cell(self.days.of, self.days.count, np.arange(len(factors)))
        precisions = value.precision, rest.noise_precision
        drawn = deviations(cells, left, factors, None, precisions, chance.counters, chance.n_jobs)[self.days.of]
        self.usual = drawn.sum(axis=0) / max(1, len(drawn))
        self.own = np.einsum("pk,pk->p", drawn, factors).astype(np.float64)

    def finish(self, row: Array, biased: bool) -> None:
        """The mean over the ratings goes with the factors."""
        row[: len(self.usual)] += self.usual
