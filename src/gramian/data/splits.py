"""Which rows are held out: free functions that return a boolean mask, True for the test rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gramian.core.parameters import check_number
from gramian.errors import DataError, ParameterError
from gramian.kernels.arrays import Array

__all__ = ["fold_labels", "last_rows", "latest_rows", "random_rows", "rows_of_users"]

Mask = npt.NDArray[np.bool_]


def random_rows(n: int, fraction: float, seed: int) -> Mask:
    """A random ``fraction`` of ``n`` rows (rounded to the nearest count)."""
    count = _test_count(n, fraction)
    mask = np.zeros(n, bool)
    mask[np.random.default_rng(_seed(seed)).permutation(n)[:count]] = True
    return mask


def fold_labels(n: int, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold (0 … folds − 1) of each of ``n`` rows; sizes differ by one at most."""
    check_number("folds", folds, low=2, whole=True, owner="folds")
    if n < folds:
        raise DataError(f"There are fewer ratings than folds: found {n} for {folds} folds; ask for fewer folds.")
    labels = np.arange(n) % folds
    return np.random.default_rng(_seed(seed)).permutation(labels)


def latest_rows(times: Array | None, fraction: float) -> Mask:
    """The latest ``fraction`` of the rows by time: train on the past, test on the future.

    Rows of one instant stay on one side, so the share can differ a little from ``fraction``.
    """
    moments = _needed(times, "split_by_time")
    count = _test_count(len(moments), fraction)
    cut = np.partition(moments, len(moments) - count)[len(moments) - count]
    mask: Mask = moments >= cut
    if mask.all():
        mask = moments > cut
    if not mask.any():
        raise DataError("All ratings have the same time, so none is later than the rest; use split() instead.")
    return mask


def last_rows(user_codes: npt.NDArray[np.int32], times: Array | None, n: int) -> Mask:
    """Each user's last ``n`` rows by time; users with no more than ``n`` rows keep them all in training."""
    moments = _needed(times, "leave_last_out")
    check_number("n", n, low=1, whole=True, owner="leave_last_out")
    order = np.lexsort((moments, user_codes))
    counts = np.bincount(user_codes)
    ends = np.cumsum(counts)
    place_from_end = ends[user_codes[order]] - 1 - np.arange(len(order))
    mask = np.zeros(len(order), bool)
    mask[order] = (place_from_end < n) & (counts[user_codes[order]] > n)
    if not mask.any():
        raise DataError(f"No user has more than {n} ratings, so none can be left out; lower n or use split().")
    return mask


def rows_of_users(user_codes: npt.NDArray[np.int32], fraction: float, seed: int) -> Mask:
    """All rows of a random ``fraction`` of the users."""
    chosen = random_rows(int(user_codes.max()) + 1, fraction, seed)
    mask: Mask = chosen[user_codes]
    return mask


def _needed(times: Array | None, verb: str) -> Array:
    if times is None:
        raise DataError(
            f"{verb} needs the time of each rating: this table has none; name it with time=… or use split()."
        )
    return times


def _test_count(n: int, fraction: float) -> int:
    check_number("fraction", fraction, low=0, high=1, owner="split")
    count = round(n * fraction)
    if not 0 < count < n:
        raise ParameterError(
            f"The 'fraction' parameter of split must leave ratings on both sides; got {fraction!r} of {n} ratings."
        )
    return count


def _seed(seed: int) -> int:
    return int(check_number("seed", seed, low=0, whole=True, owner="split"))
