"""The engine of one machine: blocks of rows on a pool of threads.

Blocks are cut by the number of ratings alone, and every row is solved by itself, so the answer has the same
bits for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.errors import ParameterError
from gramian.kernels import reference
from gramian.kernels.csr import CSR

__all__ = ["Penalty", "half_sweep", "squared_errors", "thread_count"]

Array = npt.NDArray[Any]
THREADS_VARIABLE = "GRAMIAN_NUM_THREADS"
# Blocks small enough for an interrupt to be answered quickly and for threads to end together.
BLOCK_RATINGS = 10_000
MOST_BLOCKS = 256


class Penalty(NamedTuple):
    """The prior of a row: its precision Λ (D × D), and whether it grows with the row's number of ratings."""

    precision: Array
    by_count: bool = False


def thread_count(n_jobs: int | None) -> int:
    """How many threads to use: ``n_jobs``, else the variable GRAMIAN_NUM_THREADS, else this process's cores."""
    if n_jobs is not None:
        return n_jobs
    given = os.environ.get(THREADS_VARIABLE)
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ParameterError(f"{THREADS_VARIABLE} must be a whole number from 1; got {given!r}.")
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def half_sweep(
    rows: CSR,
    other: Array,
    penalty: Penalty,
    *,
    biased: bool,
    offset: float,
    n_jobs: int | None = None,
    start: Array | None = None,
) -> tuple[Array, int]:
    """Solve every row of one side, given the other side's rows.

    Args:
        rows: The ratings of the side to be solved.
        other: The fixed side, (rows, D), float32 or float64.
        penalty: The rows' prior.
        biased: Whether the last of the D columns is a bias.
        offset: μ, subtracted from every rating.
        n_jobs: Threads; see :func:`thread_count`.
        start: This side's rows so far; given, factors and bias are updated once one after the other
            instead of being solved together.

    Returns:
        The solved rows, (rows, D), of the dtype of ``other``; and how many of them had a singular system and
        got the minimum-norm solution.
    """
    from gramian.kernels import sweep

    out = np.empty((rows.n_rows, other.shape[1]), other.dtype) if start is None else start.copy()
    failed = np.zeros(rows.n_rows, np.uint8)
    precision = np.ascontiguousarray(penalty.precision, other.dtype)

    def block(first: int, last: int) -> None:
        sweep.half_sweep(
            *rows,
            other,
            biased,
            offset,
            precision,
            penalty.by_count,
            start is not None,
            first,
            last,
            out,
            failed,
        )

    _over_blocks(block, rows, thread_count(n_jobs))
    singular = np.flatnonzero(failed)
    for i in singular.tolist():
        out[i] = reference.minimum_norm_row(
            *rows.row(i), other, biased=biased, offset=offset, precision=precision, by_count=penalty.by_count
        )
    return out, len(singular)


def squared_errors(
    rows: CSR, here: Array, other: Array, *, biased: bool, offset: float, n_jobs: int | None = None
) -> float:
    """The sum of squared residuals over all ratings, accumulated in float64 in a fixed order."""
    from gramian.kernels import sweep

    out = np.empty(rows.n_rows)

    def block(first: int, last: int) -> None:
        sweep.squared_errors(*rows, here, other, biased, offset, first, last, out)

    _over_blocks(block, rows, thread_count(n_jobs))
    return float(out.sum())


def _over_blocks(work: Callable[[int, int], None], rows: CSR, threads: int) -> None:
    """Run ``work(start, stop)`` over blocks of rows; an interrupt drops the blocks not yet begun."""
    n_blocks = min(MOST_BLOCKS, 1 + int(rows.indptr[-1]) // BLOCK_RATINGS)
    goals = np.linspace(0, rows.indptr[-1], n_blocks + 1)[1:-1]
    cuts = np.unique([0, *np.searchsorted(rows.indptr, goals), rows.n_rows])
    blocks = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    if threads == 1 or len(blocks) == 1:
        for start, stop in blocks:
            work(start, stop)
        return
    with ThreadPoolExecutor(min(threads, len(blocks)), "gramian") as pool:
        try:
            for future in [pool.submit(work, start, stop) for start, stop in blocks]:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
