r"""How sure is a mean? Standard errors, bootstrap intervals, and a paired test: free functions on plain arrays.

The errors of one user's ratings resemble each other, so they are not independent draws. With ``groups`` (the user of
each value) whole groups are what was drawn, and the standard error is the cluster-robust one,

.. math::
    \mathrm{se}(\bar x) = \frac1n\sqrt{\frac{G}{G-1}\sum_g \Bigl(\sum_{i\in g}(x_i - \bar x)\Bigr)^2}

which with groups of one is the usual :math:`s/\sqrt n`. Source: Liang & Zeger 1986.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gramian.core.parameters import check_level, check_number
from gramian.errors import DataError
from gramian.kernels.arrays import Array

__all__ = ["Difference", "bootstrap_interval", "paired_test", "rmse_error", "standard_error"]


def standard_error(values: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> float:
    """The standard error of the mean; NaN of a single value or group."""
    x = _values(values)
    sums = _group_sums(x - x.mean(), groups)
    n_groups = len(sums)
    if n_groups < 2:
        return math.nan
    return float(np.sqrt(n_groups / (n_groups - 1) * np.square(sums).sum()) / len(x))


def rmse_error(
    actual: npt.ArrayLike, predicted: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> tuple[float, float]:
    r"""The RMSE and its standard error, :math:`\mathrm{se}(\mathrm{MSE}) / (2\,\mathrm{RMSE})` (delta method)."""
    squared = np.square(np.asarray(actual, np.float64) - np.asarray(predicted, np.float64))
    root = float(np.sqrt(squared.mean()))
    return root, (standard_error(squared, groups) / (2 * root) if root > 0 else 0.0)


def bootstrap_interval(
    values: npt.ArrayLike, level: float = 0.95, *, groups: npt.ArrayLike | None = None, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of the mean, from means of values (or whole groups) drawn with replacement."""
    check_level("level", level, "bootstrap_interval")
    check_number("draws", draws, low=1, whole=True, owner="bootstrap_interval")
    x = _values(values)
    sums, sizes = _group_sums(x, groups), _group_sums(np.ones_like(x), groups)
    rng = np.random.default_rng(int(check_number("seed", seed, low=0, whole=True, owner="bootstrap_interval")))
    means = np.empty(draws)
    for draw in range(draws):  # one at a time: memory stays that of the values
        drawn = rng.integers(0, len(sums), len(sums))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """The mean of one model's losses less another's on the same pairs: below 0 the first is better.

    Attributes:
        mean: Of the differences.
        error: Its standard error.
        p_value: The probability of a mean this far from 0, either way, were there no difference.
    """

    mean: float
    error: float
    p_value: float


def paired_test(one: npt.ArrayLike, other: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Difference:
    r"""Is one model better than another? The paired t-test of their losses, pair by pair on the same test ratings.

    :math:`t = \bar d / \mathrm{se}(\bar d)` with :math:`d_i = a_i - b_i`, against Student's t with G − 1 degrees of
    freedom. What both models find hard cancels, so it sees differences far smaller than either standard error. It
    speaks of this one training set: another draw of it would move both models.

    Args:
        one: The losses of one model, squared errors say.
        other: Those of the other, in the same order.
        groups: The user of each pair.
    """
    a, b = _values(one), _values(other)
    if a.shape != b.shape:
        raise DataError(f"Losses must pair up: found {len(a)} and {len(b)}; give both models' on the same ratings.")
    from scipy.special import stdtr

    difference = a - b
    n_groups = len(_group_sums(difference, groups))
    mean, error = float(difference.mean()), standard_error(difference, groups)
    if not error > 0:
        return Difference(mean, error, 1.0 if mean == 0 else math.nan)
    return Difference(mean, error, float(2 * stdtr(n_groups - 1, -abs(mean / error))))


def _values(values: npt.ArrayLike) -> Array:
    x = np.asarray(values, np.float64).ravel()
    if len(x) == 0 or not np.isfinite(x).all():
        raise DataError("Finite values are needed, one at least; leave out what has no figure.")
    return x


def _group_sums(x: Array, groups: npt.ArrayLike | None) -> Array:
    if groups is None:
        return x
    labels = np.asarray(groups)
    if labels.shape != x.shape:
        raise DataError(f"There must be one group per value: found {len(labels)} groups and {len(x)} values.")
    return np.bincount(np.unique(labels, return_inverse=True)[1], x)
