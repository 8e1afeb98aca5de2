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

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import entries, local
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

if TYPE_CHECKING:
    from gramian.models.bayes.terms.time_offsets import Calendar

__all__ = [
    "Drift", "by_cell", "by_item_and_day", "centred", "deviations", "draw_drift", "drifted", "no_drift",
    "rows_of_days", "unknown_variance",
]  # fmt: skip

SIDE = 1 << 20  # of the counters of the deviations' normals: beyond those of the users and items of any chain


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

    def mapped(self, change: Callable[[Array], Array]) -> Drift:
        """With the deviations changed by a function, to another precision say."""
        return self._replace(rows=change(self.rows))


def by_cell(codes: Array, count: int, items: Array) -> tuple[CSR, npt.NDArray[np.int64]]:
    """Ratings of items by their ``count`` cells, without values; and the place that each had before."""
    order = np.argsort(codes, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=count))])
    return CSR(indptr, items[order].astype(np.int32), np.empty(len(items), np.float32)), order


def no_drift(calendar: Calendar, factors: int, deviation: float, dtype: str) -> Drift:
    """What a chain starts at: no deviation, and a precision of small ones; ``deviation`` is that of the ratings."""
    return Drift(np.zeros((len(calendar.kinds[0].keys), factors), dtype), 100 / deviation, 0.0)


def drifted(drift: Drift, calendar: Calendar, items: Array, n_jobs: int | None = None) -> Array:
    """What the deviations add to every rating, δᵀu, (n,), float64, in the order of the users."""
    rows, order = calendar.by_day
    out = np.empty(len(order))
    out[order] = entries.predictions(rows, drift.rows, drift.factors(items), biased=False, offset=0.0, n_jobs=n_jobs)
    return out


def rows_of_days(drift: Drift, calendar: Calendar, users: Array, cells: Any = slice(None)) -> Array:
    """The row of each user on each day, or in some of the cells, (G, D): w + δ, and the bias."""
    rows = users[calendar.kinds[0].rows[cells]]
    rows[:, : drift.rows.shape[1]] += drift.rows[cells]
    return rows


def by_item_and_day(calendar: Calendar, by_item: CSR) -> CSR:
    """The ratings of the items, as being those of a user's day."""
    return by_item._replace(indices=calendar.turned_days)


def draw_drift(
    calendar: Calendar, before: Drift, left: Array, items: Array, weights: Array | None, noise_precision: float,
    rate: float, key: tuple[int, int, int], rng: np.random.Generator, n_jobs: int | None = None,
) -> Drift:  # fmt: skip
    """The deviations of all days, and λ of δ, given what the rest leaves of the ratings.

    Args:
        calendar: The cells of the ratings.
        before: The deviations before.
        left: (n,), in the order of the users.
        items: The rows of the items, (M, D), of which the first K columns count.
        weights: ω of each rating, or None.
        noise_precision: α.
        rate: Of the prior of λ, s/100.
        key: Of the normals: seed, sweep and chain.
        rng: Of λ.
        n_jobs: Threads.
    """
    factors = before.factors(items)
    made = deviations(calendar.by_day, left, factors, weights, before.precision, noise_precision, key, n_jobs)
    precision = rng.gamma(1 + made.size / 2) / (rate + np.square(made, dtype=np.float64).sum() / 2)
    return Drift(made, precision, unknown_variance(precision, factors))


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
    cells: tuple[CSR, Array], left: Array, factors: Array, weights: Array | None, precision: float,
    noise_precision: float, key: tuple[int, int, int], n_jobs: int | None = None,
) -> Array:  # fmt: skip
    """δ of the cells of :func:`by_cell`, drawn given λ and what is left of their ratings; weights as of these."""
    rows, order = cells
    return local.half_sweep(
        rows._replace(values=left[order].astype(factors.dtype)), factors,
        local.Penalty(precision / noise_precision * np.eye(factors.shape[1])), biased=False, offset=0.0,
        n_jobs=n_jobs, draw=(key[0], key[1], SIDE + key[2]), spread=noise_precision**-0.5,
        weights=None if weights is None else weights[order],
    )[0]  # fmt: skip
