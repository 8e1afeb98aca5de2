"""Rows sorted by (user, item), with repeated pairs settled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gramian.kernels.arrays import Array

__all__ = ["SortedPairs", "sort_pairs"]


class SortedPairs(NamedTuple):
    """Rows in (user, item) order, one per pair; how many rows were repetitions, and one such pair."""

    users: Array
    items: Array
    values: Array
    times: Array | None
    repeated: int
    example: tuple[int, int] | None


def sort_pairs(
    users: Array,
    items: Array,
    n_items: int,
    values: Array,
    times: Array | None,
    duplicates: str,
    order: Array | None = None,
) -> SortedPairs:
    """Sort rows by (user, item) codes and keep one of each pair: the ``"last"``, or one with the ``"mean"``.

    The last is by time where there is one, and by order among rows of the same time. ``order`` is the stable order
    of the rows, where it is known.
    """
    if order is None:
        order = np.argsort(users.astype(np.int64) * n_items + items, kind="stable")
    users, items = users[order], items[order]
    first = np.append(True, (users[1:] != users[:-1]) | (items[1:] != items[:-1]))
    repeated = int(len(first) - first.sum())
    if not repeated:
        return SortedPairs(users, items, values[order], None if times is None else times[order], 0, None)
    where = int(np.argmin(first))
    example = int(users[where]), int(items[where])
    starts = np.flatnonzero(first)
    users, items = users[starts], items[starts]
    several = np.diff(np.append(starts, len(order))) > 1  # of the groups, those with repeated rows
    group = np.cumsum(first) - 1
    rows = several[group]
    order, among, chosen = order[rows], group[rows], order[starts]
    ends = np.flatnonzero(np.append(among[1:] != among[:-1], True))
    last = order if times is None else order[np.lexsort((times[order], among))]
    chosen[several] = last[ends]
    kept = values[chosen]
    if duplicates == "mean":
        kept = kept.astype(np.float64)
        kept[several] = _means(values[order], among, np.append(0, ends[:-1] + 1))
    return SortedPairs(users, items, kept, None if times is None else times[chosen], repeated, example)


def _means(values: Array, group: Array, starts: Array) -> Array:
    """The mean of each group; summed in order of value, so that the order of the rows has no influence."""
    ordered = values[np.lexsort((values, group))].astype(np.float64)
    return np.add.reduceat(ordered, starts) / np.diff(np.append(starts, len(ordered)))
