"""Blocks of ratings for gradient descent: a B × B grid of users and items, B blocks at a time.

A step changes the rows of one user and one item, so two blocks can be worked on at once if they share neither. The
users and the items are each dealt into B parts; block (p, q) holds the ratings of part p of the users and part q of
the items. A round takes the B blocks (p, p + s), which share nothing; B rounds are an epoch. B and the dealing
depend on the ratings and the seed alone, and within a block the ratings go one after the other: so threads decide
when a block is done, never what comes out of it.

Source: Gemulla, Nijkamp, Haas & Sismanis 2011 (DSGD); Chin, Zhuang, Juan & Lin 2015 (LIBMF's blocks).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import pool
from gramian.engine.rows import Intercepts
from gramian.kernels.arrays import Array, aligned_rows
from gramian.kernels.csr import CSR
from gramian.kernels.reference import DESCENT_RULES

if TYPE_CHECKING:
    from gramian.kernels.gradient.descent import RatingBlocks

__all__ = ["Descent", "Grid", "aligned_copy", "biases", "descend", "first_rows", "grid_of"]

# A block should fill a thread for longer than starting it takes; more parts let more threads work together and keep
# the rows of a block in the cache.
BLOCK_RATINGS, MOST_PARTS = 8_000, 64
SIDES = "user", "item"


class Grid(NamedTuple):
    """The ratings in the order of their blocks, in random order within each.

    Block (p, q) is ``starts[p * parts + q] : starts[p * parts + q + 1]``.
    """

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    parts: int


def grid_of(rows: CSR, n_columns: int, seed: int) -> Grid:
    """The grid of ratings by user."""
    n = len(rows.values)
    parts = max(1, min(max(2, math.isqrt(n // BLOCK_RATINGS)), MOST_PARTS, rows.n_rows, n_columns))
    parts = 1 << (parts.bit_length() - 1)  # what two, four or eight threads share evenly
    rng = np.random.Generator(np.random.Philox(seed))
    user_part, item_part = (rng.permutation(count) % parts for count in (rows.n_rows, n_columns))
    order = rng.permutation(n)
    users = rows.row_codes()[order]
    items = rows.indices[order]
    block = (user_part[users] * parts + item_part[items]).astype(np.uint16)
    by_block = np.argsort(block, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=parts**2))])
    return Grid(users[by_block], items[by_block], rows.values[order][by_block], starts, parts)


def first_rows(factors: Array, share: Array, dtype: str) -> tuple[Array, Array]:
    """The rows and the state that AdaGrad begins with: see :func:`gramian.kernels.gradient.adagrad.descend_by_rows`."""
    from gramian.kernels.gradient import adagrad

    count, K = factors.shape
    line = 64 // np.dtype(dtype).itemsize
    rows, state = aligned_rows(count, -(-K // line) * line, dtype), aligned_rows(count, adagrad.SMALL, dtype)
    rows[:, :K] = factors
    state[:, adagrad.SHARE] = share
    return rows, state


def biases(state: Array) -> Array:
    """The biases in AdaGrad's state."""
    from gramian.kernels.gradient import adagrad

    return state[:, adagrad.BIAS]


def aligned_copy(array: Array) -> Array:
    """A copy that begins on a cache line."""
    made = aligned_rows(array.shape[0], array.shape[1], array.dtype)
    made[:] = array
    return made


class Descent(NamedTuple):
    """How steps go down: K, μ and whether there are biases, λ of factors and biases, the rule, η, and β of the rule.

    The rule is one of ``reference.DESCENT_RULES``; β is that of momentum and of Adam.
    """

    factors: int
    intercepts: Intercepts
    penalties: tuple[float, float]
    rule: str
    rate: float
    beta: float


def descend(
    grid: Grid, arrays: dict[str, Array], how: Descent, rounds: Array, n_jobs: int | None = None
) -> tuple[float, float]:
    """One epoch in place: the sums of squared errors and of the objective, each rating's before its own step.

    Args:
        grid: The ratings.
        arrays: ``user_rows`` and ``item_rows``, ``user_state`` and ``item_state`` (what the rule keeps of each row),
            and, but for AdaGrad, whose state has them, ``user_share`` and ``item_share``: the share of the row's
            penalties that each of its ratings has, (rows, 1).
        how: The steps.
        rounds: The order of the rounds s = 0 … B − 1.
        n_jobs: Threads; see :func:`gramian.engine.pool.thread_count`.
    """
    from gramian.kernels.gradient.descent import RatingBlocks

    sums = np.zeros((grid.parts**2, 2))
    width = arrays["user_rows"].shape[1]
    step = _step(RatingBlocks(*grid[:4]), arrays, how)

    def work(numbers: list[int]) -> None:
        step(np.array(numbers), sums)

    threads = pool.thread_count(n_jobs)
    plan = _rounds(grid, rounds, threads)
    with pool.runner(threads, grid.parts, 8 * width * len(grid.values)) as run:
        for shares in plan:
            run([partial(work, share) for share in shares if share])
    squared, objective = sums.sum(axis=0).tolist()
    return squared, objective


def _step(blocks: RatingBlocks, arrays: dict[str, Array], how: Descent) -> Callable[[Array, Array], None]:
    """The kernel of a rule, to be given the numbers of blocks, and the sums of all of them."""
    from gramian.kernels.gradient import adagrad, descent

    def table(side: str, what: str) -> Array:
        return arrays[f"{side}_{what}"]

    settings = descent.DescentSettings(*how.intercepts, *how.penalties, how.rate, how.beta)
    if how.rule == "adagrad":
        flat = [adagrad.FlatSide(table(s, "rows").reshape(-1), table(s, "state").reshape(-1)) for s in SIDES]
        return lambda numbers, sums: adagrad.descend_by_rows(blocks, numbers, *flat, how.factors, settings, sums)
    sides = [descent.DescentSide(table(s, "rows"), table(s, "state"), table(s, "share")) for s in SIDES]
    rule = DESCENT_RULES.index(how.rule)
    return lambda numbers, sums: descent.descend(blocks, numbers, *sides, settings, rule, sums)


def _rounds(grid: Grid, rounds: Array, threads: int) -> list[list[list[int]]]:
    """The blocks of each round, dealt to the threads: the largest first, each to who has least."""
    sizes, B, made = np.diff(grid.starts).tolist(), grid.parts, []
    for shift in rounds.tolist():
        shares: list[list[int]] = [[] for _ in range(threads)]
        loads = [0] * threads
        for number in sorted((p * B + (p + shift) % B for p in range(B)), key=sizes.__getitem__, reverse=True):
            least = loads.index(min(loads))
            shares[least].append(number)
            loads[least] += sizes[number]
        made.append(shares)
    return made
