"""Groups of pairs by how much the training knew of their user or item."""

from __future__ import annotations

import numpy as np

from gramian.data.pairs import Pairs
from gramian.data.table import RatingsTable
from gramian.kernels.arrays import Array

__all__ = ["BY", "group_edges", "group_names", "group_of", "training_counts"]

BY = ("activity", "popularity")


def training_counts(ratings: RatingsTable, pairs: Pairs, by: str) -> Array:
    """How many training ratings the user (``"activity"``) or the item (``"popularity"``) of each pair has.

    Unknown users and items (code −1) have 0.
    """
    counts, codes = (ratings.by_user.counts, pairs.users) if by == "activity" else (ratings.by_item.counts, pairs.items)
    return np.where(codes < 0, 0, counts[codes])


def group_edges(ratings: RatingsTable, by: str, groups: int) -> Array:
    """The counts at which groups begin, the first at 0: quantiles over the training ratings, distinct.

    They depend on the training ratings alone, so calibration and test pairs fall into them alike.
    """
    counts = training_counts(ratings, Pairs(ratings.user_codes, ratings.item_codes), by)
    inner = np.quantile(counts, np.arange(1, groups) / groups, method="higher")
    return np.unique(np.concatenate([[0], inner])).astype(np.int64)


def group_of(edges: Array, counts: Array) -> Array:
    """The group of each count, from 0."""
    return np.searchsorted(edges, counts, side="right") - 1


def group_names(edges: Array) -> list[str]:
    """The groups in words: ``"0–27"``, ``"28–96"``, ``"97+"`` training ratings."""
    ends = [f"–{end - 1}" for end in edges[1:].tolist()]
    names = [f"{low}{end}" for low, end in zip(edges.tolist(), [*ends, "+"], strict=True)]
    return [name if len(set(name.split("–"))) > 1 or name.endswith("+") else name.split("–")[0] for name in names]
