r"""How good are lists of recommendations? Free functions on plain arrays.

A list is one row of ``hits`` (users, length): whether the item at rank 1, 2, … is relevant to the user.
``relevant`` (users,) says how many relevant items there are in all, those that the list misses too. Each function
gives one figure per user, to be averaged with its standard error (:mod:`gramian.metrics.significance`). A user without
relevant items has no figure and must be left out before.

A list may be shorter than k, where fewer items are left to recommend: its places are then misses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gramian.core.parameters import check_number
from gramian.errors import DataError
from gramian.kernels.arrays import Array

__all__ = [
    "auc",
    "average_precision",
    "catalogue_coverage",
    "diversity",
    "hit_rate",
    "ndcg",
    "novelty",
    "popularity_bias",
    "precision",
    "recall",
    "reciprocal_rank",
]


def precision(hits: npt.ArrayLike, k: int) -> Array:
    r"""The share of the list that is relevant, :math:`\frac1k\sum_{r\le k} h_r`."""
    shares: Array = _first(hits, k).mean(axis=1)
    return shares


def recall(hits: npt.ArrayLike, relevant: npt.ArrayLike, k: int) -> Array:
    r"""The share of what is relevant that the list holds, :math:`\frac1R\sum_{r\le k} h_r`."""
    shares: Array = _first(hits, k).sum(axis=1) / _counts(relevant)
    return shares


def hit_rate(hits: npt.ArrayLike, k: int) -> Array:
    r"""Is there any relevant item in the list? :math:`\max_{r\le k} h_r`."""
    found: Array = _first(hits, k).max(axis=1)
    return found


def reciprocal_rank(hits: npt.ArrayLike, k: int) -> Array:
    r"""One over the rank of the first relevant item, 0 where there is none; its mean over users is MRR."""
    by_rank: Array = _first(hits, k) / np.arange(1, k + 1)
    return by_rank.max(axis=1)


def average_precision(hits: npt.ArrayLike, relevant: npt.ArrayLike, k: int) -> Array:
    r"""The precision at the rank of each hit; its mean over users is MAP.

    .. math::
        \frac{1}{\min(R, k)}\sum_{r\le k} h_r \cdot \frac1r\sum_{s\le r} h_s
    """
    first = _first(hits, k)
    at_rank = np.cumsum(first, axis=1) / np.arange(1, k + 1)
    return (first * at_rank).sum(axis=1) / np.minimum(_counts(relevant), k)


def ndcg(hits: npt.ArrayLike, relevant: npt.ArrayLike, k: int) -> Array:
    r"""Discounted cumulative gain over that of the best list there is.

    .. math::
        \frac{\sum_{r\le k} h_r / \log_2(r+1)}{\sum_{r\le \min(R, k)} 1 / \log_2(r+1)}

    Source: Järvelin & Kekäläinen 2002.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(_counts(relevant), k)]
    return _first(hits, k) @ discount / best


def auc(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    r"""The probability that a relevant item of one user has a higher score than another; ties count one half.

    .. math::
        \frac{1}{|P||N|}\sum_{p\in P}\sum_{n\in N} 1\{s_p > s_n\} + \tfrac12 1\{s_p = s_n\}

    NaN where all items are relevant, or none is.

    Args:
        scores: One per candidate item.
        relevant: Whether it is relevant.
    """
    values, mask = np.asarray(scores, np.float64), np.asarray(relevant, bool)
    positive, others = values[mask], np.sort(values[~mask])
    if len(positive) == 0 or len(others) == 0:
        return float("nan")
    below, upto = (np.searchsorted(others, positive, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(others)))


# ---- beyond accuracy: what is recommended to everyone together ------------------------------------


def catalogue_coverage(items: npt.ArrayLike, n_items: int) -> float:
    """The share of all items that is in anybody's list; ``items`` are codes, −1 an empty place."""
    return len(_codes(items, n_items)) / n_items


def novelty(items: npt.ArrayLike, counts: npt.ArrayLike, n_users: int) -> float:
    r"""The mean self-information in bits, :math:`-\log_2 p_j` with :math:`p_j` the share of users who rated item j.

    An item that nobody rated counts as rated once. Source: Zhou et al. 2010.
    """
    known = _flat(items)
    rated = np.maximum(np.asarray(counts)[known], 1)
    return float(np.mean(-np.log2(rated / n_users)))


def diversity(items: npt.ArrayLike, factors: npt.ArrayLike) -> float:
    r"""How unlike each other the items of a list are, :math:`1 - \cos(u_j, u_l)` over its pairs; averaged over lists.

    Lists of fewer than two items are left out. Source: Ziegler et al. 2005 (intra-list distance).
    """
    vectors = np.asarray(factors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    apart = []
    for row in np.atleast_2d(np.asarray(items)):
        chosen = units[row[row >= 0]]
        n = len(chosen)
        if n > 1:
            cosines = chosen @ chosen.T
            apart.append(1 - (cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    return float(np.mean(apart)) if apart else float("nan")


def popularity_bias(items: npt.ArrayLike, counts: npt.ArrayLike) -> float:
    r"""How much more popular the recommended items are than the ratings themselves.

    The mean number of training ratings of a recommended item over that of a rated one,
    :math:`\bar n_{\text{recommended}} / (\sum_j n_j^2 / \sum_j n_j)`: 1 is neutral, above it popular items are
    recommended more than they are rated.
    """
    n = np.asarray(counts, np.float64)
    return float(n[_flat(items)].mean() / (np.square(n).sum() / n.sum()))


def _first(hits: npt.ArrayLike, k: int) -> Array:
    """The first k places of every list, as numbers; short lists are filled with misses."""
    check_number("k", k, low=1, whole=True, owner="ranking")
    table = np.atleast_2d(np.asarray(hits, np.float64))
    missing = max(0, k - table.shape[1])
    return np.pad(table, ((0, 0), (0, missing)))[:, :k]


def _counts(relevant: npt.ArrayLike) -> Array:
    counts = np.atleast_1d(np.asarray(relevant))
    if (counts < 1).any():
        raise DataError("Every user needs a relevant item: found users with none; leave them out of the figures.")
    return counts


def _flat(items: npt.ArrayLike) -> Array:
    codes = np.asarray(items).ravel()
    if not (codes >= 0).any():
        raise DataError("Nothing was recommended: all lists are empty.")
    return codes[codes >= 0]


def _codes(items: npt.ArrayLike, n_items: int) -> Array:
    check_number("n_items", n_items, low=1, whole=True, owner="catalogue_coverage")
    codes = np.unique(np.asarray(items))
    return codes[codes >= 0]
