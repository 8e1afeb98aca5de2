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
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gramian.engine import local
from gramian.kernels.csr import CSR

__all__ = ["Grid", "descend", "grid_of"]

Array = npt.NDArray[Any]
# A block should fill a thread for longer than starting it takes; more parts let more threads work together and keep
# the rows of a block in the cache.
BLOCK_RATINGS, MOST_PARTS = 8_000, 64


class Grid(NamedTuple):
    """The ratings in the order of their blocks, in random order within each.

    Block (p, q) is ``starts[p * parts + q] : starts[p * parts + q + 1]``.
    """

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    parts: int


# The grid of a table is needed in every epoch, and made once while the table is in use.
_KNOWN: WeakKeyDictionary[Any, tuple[int, Grid]] = WeakKeyDictionary()


def grid_of(table: Any, rows: CSR, n_columns: int, seed: int) -> Grid:
    """The grid of a table whose ratings are ``rows``; the last one made of each table is kept."""
    if table not in _KNOWN or _KNOWN[table][0] != seed:
        _KNOWN[table] = seed, _make(rows, n_columns, seed)
    return _KNOWN[table][1]


def _make(rows: CSR, n_columns: int, seed: int) -> Grid:
    n = len(rows.values)
    parts = max(1, min(max(2, math.isqrt(n // BLOCK_RATINGS)), MOST_PARTS, rows.n_rows, n_columns))
    rng = np.random.Generator(np.random.Philox(seed))
    user_part, item_part = (rng.permutation(count) % parts for count in (rows.n_rows, n_columns))
    order = rng.permutation(n)
    users = rows.row_codes()[order]
    items = rows.indices[order]
    block = (user_part[users] * parts + item_part[items]).astype(np.uint16)
    by_block = np.argsort(block, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=parts**2))])
    return Grid(users[by_block], items[by_block], rows.values[order][by_block], starts, parts)


def descend(
    grid: Grid,
    here: tuple[Array, Array],
    state: tuple[Array, Array],
    shrink: tuple[Array, Array],
    *,
    biased: bool,
    offset: float,
    rule: int,
    rate: float,
    beta: float,
    rounds: Array,
    n_jobs: int | None = None,
) -> float:
    """One epoch in place: the sum of squared errors, each as it was before its own step.

    Args:
        grid: The ratings.
        here: The rows of users and of items.
        state: What the rule keeps of each row.
        shrink: λ of the factors and of the bias for one rating of each row, (rows, 2).
        biased: Whether the last column is a bias.
        offset: μ, subtracted from every rating.
        rule: The place of the rule in ``reference.DESCENT_RULES``.
        rate: η.
        beta: β of momentum and of Adam.
        rounds: The order of the rounds s = 0 … B − 1.
        n_jobs: Threads; see :func:`gramian.engine.local.thread_count`.
    """
    from gramian.kernels import descent

    errors = np.zeros(grid.parts**2)

    def block(number: int) -> None:
        part = slice(grid.starts[number], grid.starts[number + 1])
        errors[number] = descent.descend(
            grid.users[part], grid.items[part], grid.values[part], *here, *state, *shrink,
            biased, offset, rule, rate, beta,
        )  # fmt: skip

    work = 8 * here[0].shape[1] * len(grid.values)
    with local.runner(local.thread_count(n_jobs), grid.parts, work) as run:
        for tasks in _rounds(grid, rounds, block):
            run(tasks)
    return float(errors.sum())


def _rounds(grid: Grid, rounds: Array, block: Callable[[int], None]) -> Iterator[list[local.Task]]:
    """The blocks of each round, the largest first so that threads end together."""
    sizes = np.diff(grid.starts)
    for shift in rounds.tolist():
        p = np.arange(grid.parts)
        numbers = p * grid.parts + (p + shift) % grid.parts
        yield [partial(block, number) for number in numbers[np.argsort(-sizes[numbers], kind="stable")].tolist()]
