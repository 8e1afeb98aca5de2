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

__all__ = [
    "Penalty",
    "block_update",
    "cg_update",
    "half_sweep",
    "separate_update",
    "sparse_product",
    "squared_errors",
    "thread_count",
    "update",
]

Array = npt.NDArray[Any]
THREADS_VARIABLE = "GRAMIAN_NUM_THREADS"
# Blocks small enough for an interrupt to be answered quickly and for threads to end together.
BLOCK_RATINGS = 50_000
MOST_BLOCKS = 256
# Multiplications below which starting threads costs more than it gains.
SMALL_WORK = 5e7


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
    **more: Any,
) -> tuple[Array, int]:
    """Solve every row of one side, given the other side's rows.

    Args:
        rows: The ratings of the side to be solved.
        other: The fixed side, (rows, D), float32 or float64.
        penalty: The rows' prior.
        biased: Whether the last of the D columns is a bias.
        offset: μ, subtracted from every rating.
        n_jobs: Threads; see :func:`thread_count`.
        **more: ``linear``, ``weights``, ``shared``, ``draw`` and ``spread`` of
            :func:`gramian.kernels.sweep.half_sweep`.

    Returns:
        The solved rows, (rows, D), of the dtype of ``other``; and how many of them had a singular system and
        got the minimum-norm solution. A row without ratings and prior is zero.
    """
    from gramian.kernels import sweep

    out = sweep.aligned_rows(rows.n_rows, other.shape[1], other.dtype)
    if out.size == 0:
        return out, 0
    status = np.zeros(rows.n_rows, np.uint8)
    row_settings: dict[str, Any] = {"biased": biased, "offset": offset, "by_count": penalty.by_count}

    def block(first: int, last: int) -> None:
        sweep.half_sweep(out, status, rows, other, penalty.precision, start=first, stop=last, **row_settings, **more)

    _over_blocks(block, rows, other.shape[1] ** 2, thread_count(n_jobs))
    singular = np.flatnonzero((status != 0) & (rows.counts > 0)).tolist()
    for i in singular:
        indices, values = rows.row(i)
        system = {**row_settings, **_of_row(rows, i, more), "precision": penalty.precision}
        out[i] = reference.minimum_norm_row(indices, values, other, **system)
    return out, len(singular)


def _of_row(rows: CSR, i: int, more: dict[str, Any]) -> dict[str, Any]:
    """Those of the further settings that a row's system depends on, for this row."""
    own = {name: more[name] for name in ("linear", "weights", "shared") if more.get(name) is not None}
    if "weights" in own:
        own["weights"] = own["weights"][rows.indptr[i] : rows.indptr[i + 1]]
    if "linear" in own and own["linear"].ndim == 2:
        own["linear"] = own["linear"][i]
    return own


def update(
    solver: str, rows: CSR, here: Array, other: Array, penalty: Penalty, *, biased: bool, offset: float,
    n_jobs: int | None = None,
) -> tuple[Array, int]:  # fmt: skip
    """New rows of one side, from ``here`` where the solver is not ``"exact"``: what :func:`half_sweep` returns."""
    if solver == "cg":
        return cg_update(rows, here, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs), 0
    if solver == "block":
        return block_update(rows, here, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs)
    return half_sweep(rows, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs)


def separate_update(
    rows: CSR, here: Array, other: Array, penalty: Penalty, *, offset: float, n_jobs: int | None = None,
    solver: str = "exact",
) -> tuple[Array, int]:  # fmt: skip
    """One separate update of every row: the factors given the old bias, then the bias given the new factors.

    Two half-sweeps: the first over the other side's factors with all offsets taken from the ratings, the second
    over the constant 1 alone. Returns what :func:`half_sweep` returns.
    """
    K = other.shape[1] - 1
    who = rows.row_codes()
    factors = np.ascontiguousarray(other[:, :K])
    rest = (rows.values - other.dtype.type(offset) - other[rows.indices, K]).astype(other.dtype)
    solved, singular = update(
        solver, rows._replace(values=rest - here[who, K]), np.ascontiguousarray(here[:, :K]), factors,
        Penalty(penalty.precision[:K, :K], penalty.by_count), biased=False, offset=0.0, n_jobs=n_jobs,
    )  # fmt: skip
    rest -= np.einsum("ek,ek->e", solved[who], factors[rows.indices])
    ones = np.zeros((len(other), 1), other.dtype)
    biases, _ = half_sweep(
        rows._replace(values=rest), ones, Penalty(penalty.precision[K:, K:], penalty.by_count),
        biased=True, offset=0.0, n_jobs=n_jobs,
    )  # fmt: skip
    return np.concatenate([solved, biases], axis=1), singular


def cg_update(
    rows: CSR, here: Array, other: Array, penalty: Penalty, *, biased: bool, offset: float, n_jobs: int | None = None
) -> Array:
    """A few steps of conjugate gradient on every row, from ``here``, which is not changed; Λ must be diagonal."""
    from gramian.kernels import cg

    out = here.copy()
    prior = np.diag(penalty.precision).astype(other.dtype)

    def block(first: int, last: int) -> None:
        cg.cg_rows(out, *rows, offset, other, biased, prior, penalty.by_count, cg.STEPS, first, last)

    _over_blocks(block, rows, 8 * other.shape[1], thread_count(n_jobs))
    return out


def block_update(
    rows: CSR, here: Array, other: Array, penalty: Penalty, *, biased: bool, offset: float, n_jobs: int | None = None
) -> tuple[Array, int]:
    """Every row's columns solved block by block, each given the rest; the bias goes with the last block.

    A block is a half-sweep over its columns alone, whose ratings are the residuals without it. Λ must be
    diagonal. Memory: one number per rating. Returns what :func:`half_sweep` returns.
    """
    from gramian.kernels import subspace

    size, threads, singular = other.shape[1], thread_count(n_jobs), 0
    factors = size - 1 if biased else size
    rest = rows.values - other.dtype.type(offset)
    if biased:
        rest = rest - other[rows.indices, factors]

    def add(sign: float, mine: Array, theirs: Array, with_bias: bool) -> None:
        def block(first: int, last: int) -> None:
            subspace.add_products(rest, sign, rows.indptr, rows.indices, mine, theirs, with_bias, first, last)

        _over_blocks(block, rows, theirs.shape[1], threads)

    add(-1.0, here, other, biased)
    out = np.zeros_like(here)
    for first in range(0, factors, subspace.BLOCK_COLUMNS):
        last = min(factors, first + subspace.BLOCK_COLUMNS)
        with_bias = biased and last == factors
        part = slice(first, size if with_bias else last)
        mine, theirs = here[:, part].copy(), other[:, part].copy()
        if with_bias:
            theirs[:, -1] = 0  # the other side's bias is out of the ratings already
        add(1.0, mine, theirs, with_bias)
        out[:, part], count = half_sweep(
            rows._replace(values=rest), theirs, Penalty(penalty.precision[part, part], penalty.by_count),
            biased=with_bias, offset=0.0, n_jobs=n_jobs,
        )  # fmt: skip
        singular = max(singular, count)
        if last < factors:
            add(-1.0, np.ascontiguousarray(out[:, part]), theirs, with_bias)
    return out, singular


def squared_errors(
    rows: CSR, here: Array, other: Array, *, biased: bool, offset: float, n_jobs: int | None = None
) -> float:
    """The sum of squared residuals over all ratings, accumulated in float64 in a fixed order."""
    from gramian.kernels import residuals, sweep

    out = np.empty(rows.n_rows)
    fixed, here, other = [sweep.fixed(array) for array in rows], sweep.fixed(here), sweep.fixed(other)

    def block(first: int, last: int) -> None:
        residuals.squared_errors(*fixed, here, other, biased, offset, first, last, out)

    _over_blocks(block, rows, other.shape[1], thread_count(n_jobs))
    return float(out.sum())


def sparse_product(rows: CSR, other: Array, *, n_jobs: int | None = None) -> Array:
    """The sparse matrix times ``other``, (columns, K) or (columns,), of the dtype of ``other``."""
    from gramian.kernels import lanczos, sweep

    out = np.empty((rows.n_rows, *other.shape[1:]), other.dtype)
    fixed, other = [sweep.fixed(array) for array in rows], sweep.fixed(other)
    multiply = lanczos.sparse_times if other.ndim == 2 else lanczos.sparse_times_vector

    def block(first: int, last: int) -> None:
        multiply(*fixed, other, first, last, out)

    _over_blocks(block, rows, max(1, int(np.prod(other.shape[1:]))), thread_count(n_jobs))
    return out


def _over_blocks(work: Callable[[int, int], None], rows: CSR, cost: int, threads: int) -> None:
    """Run ``work(start, stop)`` over blocks of rows, at ``cost`` multiplications per rating.

    An interrupt drops the blocks not yet begun.
    """
    n_blocks = min(MOST_BLOCKS, 1 + int(rows.indptr[-1]) // BLOCK_RATINGS)
    goals = np.linspace(0, rows.indptr[-1], n_blocks + 1)[1:-1]
    cuts = np.unique([0, *np.searchsorted(rows.indptr, goals), rows.n_rows])
    blocks = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    if threads == 1 or len(blocks) == 1 or cost * int(rows.indptr[-1]) < SMALL_WORK:
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
