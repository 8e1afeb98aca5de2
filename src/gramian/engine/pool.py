"""How many threads there are, the pools that they stay in, and blocks of rows of about the same work for them."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np

from gramian.errors import ParameterError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, PIECE_RATINGS

__all__ = ["Task", "blocks_of", "cut", "over_blocks", "runner", "thread_count"]

Task = Callable[[], None]
THREADS_VARIABLE = "GRAMIAN_NUM_THREADS"
CONTROL_GROUP = Path("/sys/fs/cgroup")
# Work is counted in multiplications; what a rating and a row cost beside their own is measured in them too.
RATING_WORK, ROW_WORK = 250, 5_000
# Blocks are about BLOCKS, so that threads end together; none so small that starting it costs more than it gains,
# none so large that an interrupt waits long (0.1 s).
BLOCKS, SMALL_BLOCK, LARGE_BLOCK = 64, 2e7, 1e9
SMALL_WORK = 1e7  # below this, waking threads costs more than it gains


def thread_count(n_jobs: int | None) -> int:
    """How many threads to use: ``n_jobs``, else the variable GRAMIAN_NUM_THREADS, else what this process may use.

    That is the cores it may run on, or fewer where its container has a limit of processor time.
    """
    if n_jobs is not None:
        return n_jobs
    given = os.environ.get(THREADS_VARIABLE)
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ParameterError(f"{THREADS_VARIABLE} must be a whole number from 1; got {given!r}.")
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _container_cores(CONTROL_GROUP) or cores)


@cache  # asked several times in every sweep
def _container_cores(folder: Path) -> int | None:
    """The processor time that the container's control group allows, in cores, rounded up; None without a limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2, version 1
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # else "max", or -1
            return max(1, math.ceil(int(quota) / int(period)))
    return None


# ---- blocks of rows ------------------------------------------------------------------------------


def cut(rows: CSR, per_rating: int, per_row: int | Array) -> tuple[list[tuple[int, int]], Array]:
    """Cut the rows into blocks of about the same work, in multiplications; heavy rows are left out and returned."""
    costs = np.concatenate([[0], np.cumsum(per_rating * rows.counts + per_row)])
    work = float(costs[-1])
    n_blocks = math.ceil(work / min(max(work / BLOCKS, SMALL_BLOCK), LARGE_BLOCK))
    goals = np.linspace(0, work, n_blocks + 1)[1:-1]
    heavy = np.flatnonzero(rows.counts > PIECE_RATINGS)
    cuts = np.unique(np.concatenate([[0, rows.n_rows], np.searchsorted(costs, goals), heavy, heavy + 1]))
    blocks = zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    out = set(heavy.tolist())
    return [block for block in blocks if block[0] not in out], heavy


def blocks_of(rows: CSR, per_rating: int) -> list[tuple[int, int]]:
    """All rows in blocks of about the same work, heavy rows alone and first; at so many multiplications per rating."""
    blocks, heavy = cut(rows, per_rating, ROW_WORK)
    return [*((row, row + 1) for row in heavy.tolist()), *blocks]


def over_blocks(work: Callable[[int, int], None], rows: CSR, per_rating: int, threads: int) -> None:
    """Run ``work(start, stop)`` over blocks of rows, at so many multiplications per rating; heavy rows first."""
    tasks: list[Task] = [partial(work, *block) for block in blocks_of(rows, per_rating)]
    with runner(threads, len(tasks), per_rating * int(rows.indptr[-1])) as run:
        run(tasks)


# ---- running -------------------------------------------------------------------------------------


class _Pools(threading.local):
    """The pool of each thread that has asked for one, by its process and its number of threads."""

    made: dict[tuple[int, int], ThreadPoolExecutor]

    def __init__(self) -> None:
        self.made = {}


_POOLS = _Pools()


@contextmanager
def runner(threads: int, n_tasks: int, work: int) -> Iterator[Callable[[list[Task]], None]]:
    """Give ``run(tasks)``, which returns when all tasks are done; an interrupt drops those not yet begun."""

    def run_alone(tasks: list[Task]) -> None:
        for task in tasks:
            task()

    if threads == 1 or n_tasks == 1 or work < SMALL_WORK:
        yield run_alone
        return
    pool = _pool(threads - 1)

    def run(tasks: list[Task]) -> None:
        left = deque(tasks)
        helpers = [pool.submit(_drain, left) for _ in range(min(threads, len(tasks)) - 1)]
        try:
            _drain(left)
            for helper in helpers:
                helper.result()
        except BaseException:
            left.clear()
            wait(helpers)
            raise

    yield run


def _drain(left: deque[Task]) -> None:
    """Do what is left, until others have done the rest."""
    while left:
        try:
            task = left.popleft()
        except IndexError:  # another took the last one
            return
        task()


def _pool(threads: int) -> ThreadPoolExecutor:
    """The calling thread's own pool, so that a task can have tasks; made anew after a fork, which copies no threads."""
    key, made = (os.getpid(), threads), _POOLS.made
    if key not in made:
        made.clear()
        made[key] = ThreadPoolExecutor(threads, "gramian")
    return made[key]
