"""Where the time of a half-sweep goes: gathering rows, adding up the Gramian, solving.

    python benchmarks/cycles.py [--quick]

Each part is timed alone with two threads, over the same rows and blocks as the whole: the gather as the kernel does
it; the tiles of the Gramian on a block that stays in cache; and the solves as half-sweeps over rows of one rating.
What the gather costs because the rows are far away in memory is the same half-sweep less one whose ratings are all
of a few rows that stay in cache. The parts are those of solving every row directly, by a system of size K.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit

import gramian as gm
from gramian.engine import local
from gramian.engine.rows import Intercepts, Penalty
from gramian.kernels.arrays import readonly
from gramian.kernels.csr import CSR
from gramian.kernels.sweep.gather import gather, prepare_roots
from gramian.kernels.sweep.given import Observed, Shape, observed_of
from gramian.kernels.sweep.gram import add_gramian
from gramian.kernels.sweep.row_layout import aligned, block_ratings, padded_columns
from machine import THREADS, sgemm_speed
from page import options, synthetic, write_section

FACTORS = (32, 64, 128)
NEAR = 16  # rows of the other side that stay in cache
RUNS = 3


@njit(nogil=True)
def gather_only(observed: Observed, shape: Shape, start: int, stop: int) -> None:
    """Every block of every row gathered, with the sums that the gather makes."""
    indptr, fixed, columns = observed.indptr, observed.fixed, shape.columns
    piece = block_ratings(columns, fixed.itemsize)
    panel, roots = aligned(piece * columns, fixed), aligned(2 * piece, fixed)
    sums, totals = aligned(2 * columns, fixed), aligned(2, fixed)
    for row in range(start, stop):
        at = indptr[row]
        while at < indptr[row + 1]:
            count = min(piece, indptr[row + 1] - at)
            prepare_roots(roots, totals, observed, shape, at, count)
            gather(panel, sums, roots, observed, shape, at, count)
            at += count


@njit(nogil=True)
def gramian_only(observed: Observed, shape: Shape, start: int, stop: int) -> None:
    """The Gramian of as many blocks of the same lengths, each of them the same block in cache."""
    indptr, fixed, columns = observed.indptr, observed.fixed, shape.columns
    piece = block_ratings(columns, fixed.itemsize)
    panel, slot, near = aligned(piece * columns, fixed), aligned(columns * columns, fixed), observed.indices[:0]
    for row in range(start, stop):
        left = indptr[row + 1] - indptr[row]
        while left > 0:
            count = min(piece, left)
            add_gramian(slot, columns, slot, 1.0, panel, count, fixed, near, 0)
            left -= count


def shared_out(work: Callable[[int, int], None], rows: CSR) -> Callable[[], None]:
    """``work`` over blocks of rows of about the same number of ratings, on two threads."""
    goals = np.linspace(0, rows.indptr[-1], 65)[1:-1]
    cuts = np.unique([0, *np.searchsorted(rows.indptr, goals), rows.n_rows]).tolist()

    def run() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, cuts[:-1], cuts[1:]))

    return run


def parts(rows: CSR, other: Any) -> dict[str, Callable[[], object]]:
    """The whole half-sweep and its parts, ready to be timed."""
    K = other.shape[1]
    penalty, intercepts = Penalty(np.eye(K) * 10.0), Intercepts(biased=False, offset=3.5)

    def sweep(some: CSR, **more: Any) -> Callable[[], object]:
        return lambda: local.HalfSweep(other, intercepts, penalty, **more).run(some, THREADS)

    # With a Gramian that all rows share, be it zero, no row is solved by a smaller dual system.
    directly = {"shared": np.zeros((K, K), other.dtype)}
    one = np.arange(rows.n_rows + 1, dtype=np.int64)
    observed, shape = observed_of(rows, other, 0.0), Shape(K, K, padded_columns(readonly(other), K), False)
    return {
        "whole": sweep(rows),
        "directly": sweep(rows, **directly),
        "near": sweep(rows._replace(indices=rows.indices % NEAR), **directly),
        "solve": sweep(CSR(one, rows.indices[: rows.n_rows] % NEAR, rows.values[: rows.n_rows]), **directly),
        "gather": shared_out(lambda first, last: gather_only(observed, shape, first, last), rows),
        "gramian": shared_out(lambda first, last: gramian_only(observed, shape, first, last), rows),
    }


def least(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest seconds of each, run in turn, after one run to compile."""
    seconds = dict.fromkeys(runs, np.inf)
    for turn in range(RUNS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def cycles_table(ratings: gm.Ratings) -> Iterator[str]:
    """Both half-sweeps at each K."""
    yield (
        "| K | rows solved | whole, s | every row directly | gather alone | Gramian alone | "
        "its GFLOP/s, share of sgemm | solve alone | directly, other side in cache |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(0)
    for K in FACTORS:
        limit = sgemm_speed()
        for name, rows, count in (
            ("items", ratings.by_item, ratings.n_users),
            ("users", ratings.by_user, ratings.n_items),
        ):
            t = least(parts(rows, rng.standard_normal((count, K), np.float32)))
            speed = len(ratings) * K * (K + 1) / t["gramian"] / 1e9
            cells = [f"{t[part]:.3f}" for part in ("whole", "directly", "gather", "gramian", "solve", "near")]
            cells[4:4] = [f"{speed:.0f}, {speed / limit:.0%}"]
            yield f"| {K} | {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    quick = options(__doc__).parse_args().quick
    write_section("cycles", cycles_table(synthetic(quick)), quick=quick)
