"""Choosing the best n of many scores, and the tables that come out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from gramian.data.ids import IdTable
from gramian.kernels.arrays import Array

__all__ = ["best_pairs", "contribution_table", "item_table", "top_n"]

GROUP = 64  # columns whose largest score stands for them in the search for a threshold


def best_pairs(scores: Array, n: int, rescore: Callable[[Array, Array], Array]) -> tuple[Array, Array, Array]:
    """The ``n`` best columns of each row, exactly, whatever the block the row was scored in.

    A matrix product rounds differently for blocks of different shape. So the block's scores only choose the
    candidates, with a margin; they are then scored pair by pair, and ordered by that score, ties by column.

    Args:
        scores: (rows, columns); −inf is never chosen.
        n: How many are wanted; fewer come where fewer are available.
        rescore: Maps (row, column) index arrays to their exact scores.

    Returns:
        Rows, columns and exact scores of the pairs chosen, by row and then by rank.
    """
    n = min(n, scores.shape[1])
    nth = _at_most_nth(scores, n)
    margin = 1e-4 * (1 + np.abs(np.where(np.isfinite(nth), nth, 0)))
    rows, columns = np.divmod(np.flatnonzero(scores >= nth - margin), scores.shape[1])
    if not np.isfinite(nth).all():
        able = scores[rows, columns] > -np.inf
        rows, columns = rows[able], columns[able]
    exact = rescore(rows, columns)
    order = np.lexsort((columns, -exact, rows))
    rows, columns, exact = rows[order], columns[order], exact[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < n
    return rows[kept], columns[kept], exact[kept]


def _at_most_nth(scores: Array, n: int) -> Array:
    """A number for each row, (rows, 1), that its n-th largest score reaches, and hardly more scores than n.

    It is the n-th largest of the maxima of groups of columns, which vector instructions find in one pass.
    """
    count = scores.shape[1] // GROUP
    if count < 4 * n:
        return np.partition(scores, scores.shape[1] - n, axis=1)[:, scores.shape[1] - n, None]
    whole = scores[:, : count * GROUP].reshape(len(scores), GROUP, count)
    maxima = whole.max(axis=1)
    return np.partition(maxima, count - n, axis=1)[:, count - n, None]


def top_n(scores: Array, n: int) -> Array:
    """The positions of the ``n`` largest scores that are not −inf, best first, ties by position."""
    _, columns, _ = best_pairs(scores[None, :], n, lambda _, columns: scores[columns])
    return columns


def item_table(
    ids: IdTable,
    codes: Array,
    titles: pl.Series | None,
    *,
    first: Mapping[str, pl.Series] | None = None,
    **columns: Array,
) -> pl.DataFrame:
    """A table with ``item``, further columns, and ``title`` where titles are known."""
    made = {**(first or {}), "item": ids.take(codes), **columns}
    if titles is not None:
        made["title"] = titles.gather(codes)
    return pl.DataFrame(made)


def contribution_table(
    ids: IdTable, codes: Array, titles: pl.Series | None, rating: Array, parts: Array
) -> pl.DataFrame:
    """What each rated item adds to a prediction, strongest first: ``item``, ``rating``, ``contribution``, ``title``."""
    order = np.argsort(-np.abs(parts), kind="stable")
    return item_table(ids, codes[order], titles, rating=rating[order], contribution=parts[order])
