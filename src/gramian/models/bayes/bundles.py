"""What always goes together on its way through a sweep, an update or a fold-in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gramian.data.ids import Codes
from gramian.data.pairs import Times
from gramian.engine.rows import Intercepts
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = ["Beginning", "Chance", "FoldInRatings", "Rest", "Setup", "Some"]


class Setup(NamedTuple):
    """What goes with every step over the ratings: μ and whether there are biases, and the threads."""

    intercepts: Intercepts
    n_jobs: int | None = None


class Beginning(NamedTuple):
    """What a chain begins with: the sizes N, M, K and D, the variance of the ratings, and the precision of rows."""

    n_users: int
    n_items: int
    factors: int
    size: int
    variance: float
    dtype: str


class Chance(NamedTuple):
    """Where random numbers come from: a generator, and the counters (seed, sweep, side) of those that go by row."""

    rng: np.random.Generator
    counters: tuple[int, int, int]
    n_jobs: int | None = None


class Rest(NamedTuple):
    """All that an addition is drawn given beside what is left of the ratings: the rows of the items, ω or None, α."""

    items: Array
    weights: Array | None
    noise_precision: float


class Some(NamedTuple):
    """Some ratings of the training: where they stand in the order of the users, the ratings, the other side's rows."""

    places: Array
    rows: CSR
    fixed: Array


class FoldInRatings(NamedTuple):
    """Somebody's ratings: codes of the items, values, and times where they are known."""

    items: Codes
    values: Array
    times: Times | None = None

    def sorted(self) -> FoldInRatings:
        """In the order of the items."""
        order = np.argsort(self.items)
        return FoldInRatings(self.items[order], self.values[order], None if self.times is None else self.times[order])
