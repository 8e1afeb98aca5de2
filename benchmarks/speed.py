"""Seconds per iteration on 17.4 million synthetic ratings, against what the machine's own sgemm could do.

    python benchmarks/speed.py [--quick]

One iteration solves both sides. Its operations are counted as nnz·K·(K+1)·2 + (N+M)·K³/3; the limit is the
speed of a large single-precision matrix product on as many threads. Everything is measured in turn in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gramian as gm
from epoch import medians
from gramian.engine import local
from machine import THREADS, sgemm_speed
from page import options, synthetic, write_section

FACTORS = (10, 16, 32, 64, 128)


def iteration(ratings: gm.Ratings, factors: int, *, biases: bool) -> Callable[[], object]:
    """Both half-sweeps of ALS, without the objective."""
    recipe = gm.ALS(factors=factors, biases=biases, n_jobs=THREADS)
    side, offset = recipe.side, recipe.offset(ratings)
    users = recipe.start(ratings)["user_rows"]
    ratings.by_item  # noqa: B018  (made before anything is timed)

    def run() -> None:
        items = users
        for rows in (ratings.by_item, ratings.by_user):
            items, _ = local.half_sweep(rows, items, side.penalty, biased=side.biased, offset=offset, n_jobs=THREADS)

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


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    made = synthetic(asked.quick)
    write_section("speed", speed_table(made), quick=asked.quick)
