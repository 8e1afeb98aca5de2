"""Rows sorted by (user, item), with repeated pairs settled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SortedPairs", "sort_pairs"]

Array = npt.NDArray[Any]


class SortedPairs(NamedTuple):
    """Rows in (user, item) order, one per pair; how many rows were repetitions, and one such pair."""

    users: Array
    items: Array
    values: Array
    times: Array | None
    repeated: int
    example: tuple[int, int] | None


def sort_pairs(
    users: Array, items: Array, n_items: int, values: Array, times: Array | None, duplicates: str
) -> SortedPairs:
    """Sort rows by (user, item) codes and keep one of each pair: the ``"last"``, or one with the ``"mean"``.

    The last is by time where there is one, and by order among rows of the same time.
    """
    pair = users.astype(np.int64) * n_items + items
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    first = np.append(True, pair[1:] != pair[:-1])
    repeated = int(len(pair) - first.sum())
    example = None
    if repeated:
        example = divmod(int(pair[~first][0]), n_items)
        group = np.cumsum(first)
        starts = np.flatnonzero(first)
        means = _means(values[order], group, starts) if duplicates == "mean" else None
        if times is not None:
            order = order[np.lexsort((times[order], group))]
        order = order[np.append(starts[1:] - 1, len(order) - 1)]
        values = values[order] if means is None else means
    else:
        values = values[order]
    return SortedPairs(users[order], items[order], values, None if times is None else times[order], repeated, example)


def _means(values: Array, group: Array, starts: Array) -> Array:
    """The mean of each group; summed in order of value, so that the order of the rows has no influence."""
    ordered = values[np.lexsort((values, group))].astype(np.float64)
    return np.add.reduceat(ordered, starts) / np.diff(np.append(starts, len(ordered)))
