"""The engine for what is asked of every rating by itself, on the threads of :mod:`gramian.engine.pool`."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from gramian.engine.pool import RATING_WORK, Task, over_blocks, runner, thread_count
from gramian.engine.rows import Intercepts
from gramian.kernels.arrays import Array, readonly
from gramian.kernels.csr import CSR

__all__ = ["cut_sums", "expect_block", "latent", "predictions"]

CHUNK = 256  # rows whose derivatives by the cuts are summed by one thread
NORMAL_WORK = 400  # of a normal probability and its inverse, in multiplications


def predictions(rows: CSR, factors: Array, fixed: Array, intercepts: Intercepts, n_jobs: int | None = None) -> Array:
    """What a model says of every rating, float64, in their order; the arguments are those of ``squared_errors``."""
    from gramian.kernels import residuals

    out, model = np.empty(len(rows.indices)), residuals.predictor(factors, fixed, *intercepts)
    indptr, indices = readonly(rows.indptr), readonly(rows.indices)

    def block(first: int, last: int) -> None:
        residuals.predictions(indptr, indices, model, first, last, out)

    over_blocks(block, rows, RATING_WORK + model.width, thread_count(n_jobs))
    return out


def latent(
    rows: CSR, steps: Array, mean: Array, cuts: Array, stds: Array, key: tuple[int, int, int],
    n_jobs: int | None = None,
) -> Array:  # fmt: skip
    """The latent rating of every rating, (n,), float64, drawn given its step and its mean.

    Args:
        rows: The ratings; their values are not looked at.
        steps: (n,), int32, the step of each.
        mean: (n,), float64.
        cuts: The inner cuts.
        stds: The noise of each row, (rows,).
        key: Seed, sweep and side.
        n_jobs: Threads.
    """
    from gramian.kernels.sampling import latent

    out, ordinal = np.empty(len(steps)), latent.ordinal(rows.indptr, steps, mean, cuts, stds)

    def block(first: int, last: int) -> None:
        latent.latent(ordinal, key, first, last, out)

    over_blocks(block, rows, NORMAL_WORK, thread_count(n_jobs))
    return out


def cut_sums(
    rows: CSR, steps: Array, mean: Array, cuts: Array, stds: Array, n_jobs: int | None = None
) -> tuple[float, Array, Array, Array]:
    """The log likelihood of the inner cuts, its slope, minus its second derivatives, and those by neighbours.

    The arguments are those of :func:`latent`. Sums are of fixed chunks of rows, in their order.
    """
    from gramian.kernels.sampling import latent

    ordinal, starts = latent.ordinal(rows.indptr, steps, mean, cuts, stds), range(0, rows.n_rows, CHUNK)
    value, parts = np.zeros((len(starts), 1)), np.zeros((3, len(starts), len(ordinal.cuts)))
    sums = [latent.CutSums(value[place], *parts[:, place]) for place in range(len(starts))]
    tasks: list[Task] = [
        partial(latent.cut_sums, ordinal, first, min(first + CHUNK, rows.n_rows), own)
        for first, own in zip(starts, sums, strict=True)
    ]
    with runner(thread_count(n_jobs), len(tasks), NORMAL_WORK * len(steps)) as run:
        run(tasks)
    slope, bend, beside = np.add.reduce(parts, axis=1)[:, 1:-1]
    return float(value.sum()), slope, bend, beside[:-1]


def expect_block(scores: Array, cuts: Array, levels: Array, stds: Array, n_jobs: int | None = None) -> None:
    """Latent means, (rows, columns), become expected ratings, in place; ``stds`` (rows,)."""
    from gramian.kernels.sampling import latent

    fixed = readonly(cuts), readonly(levels), readonly(stds)
    threads = thread_count(n_jobs)
    edges = np.linspace(0, len(scores), threads + 1).astype(int).tolist()
    tasks: list[Task] = [partial(latent.expect_block, scores, *fixed, first, last) for first, last in pairwise(edges)]
    with runner(threads, threads, 10 * scores.size) as run:
        run(tasks)
