"""Seconds per epoch at K = 10: the fast half-sweeps against the vectorized-per-row listing in NumPy, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

import gramian as gm
from gramian.kernels.reference import listing_by_rows

RUNS = 7


def epoch_times(ratings: gm.Ratings, factors: int = 10) -> dict[str, float]:
    """Median seconds of one epoch (both sides) of the listing, of ALS with one thread, and with all of them.

    The three are run in turn, so that a change of the machine's speed meets all of them. The epochs of ALS
    include the objective and the training RMSE; the listing has neither.
    """
    rng = np.random.default_rng(0)
    W, U = rng.standard_normal((ratings.n_users, factors)), rng.standard_normal((ratings.n_items, factors))
    b, c = np.zeros(ratings.n_users), np.zeros(ratings.n_items)
    mu = ratings.global_mean

    def listing() -> None:
        listing_by_rows(ratings.by_user, W, b, U, c, mu, 10.0, 10.0)
        listing_by_rows(ratings.by_item, U, c, W, b, mu, 10.0, 10.0)

    def fast(n_jobs: int | None) -> Callable[[], object]:
        recipe = gm.ALS(factors=factors, n_jobs=n_jobs)
        arrays = recipe.start(ratings)
        return lambda: recipe.epoch(ratings, arrays, 1)

    runs = {"listing": listing, "one thread": fast(1), "all threads": fast(None)}
    return medians(runs)


def medians(runs: dict[str, Callable[[], object]], count: int = RUNS) -> dict[str, float]:
    """Median seconds of each, run in turn ``count`` times after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(count + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}
