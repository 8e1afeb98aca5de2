"""Seconds per iteration on 17.4 million synthetic ratings, against what the machine's own sgemm could do.

    python benchmarks/speed.py [--quick]

One iteration solves both sides. Its operations are counted as nnz·K·(K+1)·2 + (N+M)·K³/3; the limit is the
speed of a large single-precision matrix product on as many threads. Everything is measured in turn in one run.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

import gramian as gm
from epoch import medians
from gramian.engine import local
from gramian.engine.rows import Intercepts, Penalty
from gramian.kernels.arrays import aligned_rows
from gramian.kernels.csr import CSR
from machine import THREADS, sgemm_speed
from page import options, synthetic, write_section

FACTORS = (10, 16, 32, 64, 128)


def iteration(ratings: gm.Ratings, factors: int, *, biases: bool) -> Callable[[], object]:
    """Both half-sweeps of ALS, without the objective."""
    recipe = gm.ALS(factors=factors, biases=biases, n_jobs=THREADS)
    side = recipe.side
    intercepts = side.intercepts(recipe.offset(ratings))
    users = recipe.start(ratings)["user_rows"]
    ratings.by_item  # noqa: B018  (made before anything is timed)

    def run() -> None:
        items = users
        for rows in (ratings.by_item, ratings.by_user):
            items, _ = local.half_sweep(rows, items, side.penalty, intercepts, THREADS)

    return run


def operations(ratings: gm.Ratings, factors: int) -> float:
    """Multiplications and additions of one iteration."""
    return len(ratings) * factors * (factors + 1) * 2 + (ratings.n_users + ratings.n_items) * factors**3 / 3


def speed_table(ratings: gm.Ratings) -> Iterator[str]:
    """The table: one row for each K."""
    yield "| K | seconds | with biases | whole epoch of ALS | GFLOP/s | sgemm, GFLOP/s | share of sgemm |"
    yield "|---|---|---|---|---|---|---|"
    for factors in FACTORS:
        recipe = gm.ALS(factors=factors, n_jobs=THREADS)
        arrays = recipe.start(ratings)
        before = sgemm_speed()
        seconds = medians(
            {
                "plain": iteration(ratings, factors, biases=False),
                "biased": iteration(ratings, factors, biases=True),
                "epoch": lambda recipe=recipe, arrays=arrays: recipe.epoch(ratings, arrays, 1),  # type: ignore[misc]
            },
            count=3,
        )
        limit = max(before, sgemm_speed())
        speed = operations(ratings, factors) / seconds["plain"] / 1e9
        yield (
            f"| {factors} | {seconds['plain']:.3f} | {seconds['biased']:.3f} | {seconds['epoch']:.3f} | "
            f"{speed:.0f} | {limit:.0f} | {speed / limit:.0%} |"
        )


def heavy_item_line(factors: int = 64, n_ratings: int = 8_000_000) -> str:
    """One half-sweep over items, the last of which has half of all ratings: one thread against two."""
    counts = np.concatenate([np.full(4000, n_ratings // 8000), [n_ratings // 2]])
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, counts.sum()).astype(np.float32)
    rows = CSR(np.concatenate([[0], np.cumsum(counts)]), rng.integers(0, 100_000, counts.sum(), np.int32), values)
    users = aligned_rows(100_000, factors, np.float32)
    users[:] = rng.normal(0, 0.3, users.shape)
    penalty, intercepts = Penalty(10 * np.eye(factors)), Intercepts(biased=False, offset=3.0)

    def run(threads: int) -> Callable[[], object]:
        return lambda: local.half_sweep(rows, users, penalty, intercepts, threads)

    seconds = medians({"one": run(1), "two": run(2)}, count=3)
    return (
        f"One item has half of {n_ratings / 1e6:g} million ratings, K = {factors}: {seconds['one']:.3f} s on one "
        f"thread, {seconds['two']:.3f} s on two ({seconds['one'] / seconds['two']:.2f} times as fast)."
    )


def memory_line(ratings: gm.Ratings, factors: int = 64) -> str:
    """Bytes per rating of the two orientations, and of all arrays at the peak of a training."""
    both = sum(array.nbytes for rows in (ratings.by_user, ratings.by_item) for array in rows)
    tracemalloc.start()
    gm.ALS(factors=factors, epochs=1, n_jobs=THREADS).fit(ratings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows = (ratings.n_users + ratings.n_items) * (factors + 1) * 4
    return (
        f"Memory: {both / len(ratings):.1f} bytes per rating for both orientations; a training with K = {factors} adds "
        f"{peak / 1e6:.0f} MB at its peak, where the factors are {rows / 1e6:.0f} MB."
    )


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    made = synthetic(asked.quick)
    lines = [*speed_table(made), "", heavy_item_line(), "", memory_line(made)]
    write_section("speed", lines, quick=asked.quick)
