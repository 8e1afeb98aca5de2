r"""How far intervals and distributions can be trusted: free functions on plain arrays.

A forecast should be *calibrated* (a 90 % interval holds 90 % of the ratings) and, among calibrated ones, *sharp*
(narrow). Coverage and the PIT histogram show the first, the width the second; the interval score weighs both in units
of the rating, and cannot be gamed by reporting another distribution than one believes.

Sources: Dawid 1984 (PIT); Gneiting, Balabdaoui & Raftery 2007 (calibration and sharpness); Gneiting & Raftery 2007
(interval score); Czado, Gneiting & Held 2009 (PIT of discrete data).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gramian.core.parameters import check_level
from gramian.kernels.arrays import Array

__all__ = ["coverage", "interval_score", "mean_width", "pit_histogram", "spearman"]

PIT_BINS = 10


def coverage(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    r"""The share of intervals that hold what came: :math:`\frac1n\sum_k 1\{l_k \le r_k \le u_k\}`."""
    r = np.asarray(actual)
    return float(np.mean((np.asarray(lower) <= r) & (r <= np.asarray(upper))))


def mean_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    r"""The sharpness of intervals, :math:`\frac1n\sum_k (u_k - l_k)`, in units of the rating."""
    return float(np.mean(np.asarray(upper, np.float64) - np.asarray(lower, np.float64)))


def interval_score(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float) -> float:
    r"""The mean interval score (Winkler's): the width, and a fine for every rating missed; lower is better.

    .. math::
        (u - l) + \frac{2}{\alpha}(l - r)\,1\{r < l\} + \frac{2}{\alpha}(r - u)\,1\{r > u\},
        \qquad \alpha = 1 - \text{level}

    Source: Gneiting & Raftery 2007, eq. 43.
    """
    fine = 2 / (1 - check_level("level", level, "interval_score"))
    r, low, high = (np.asarray(values, np.float64) for values in (actual, lower, upper))
    return float(np.mean((high - low) + fine * (np.maximum(low - r, 0) + np.maximum(r - high, 0))))


def pit_histogram(below: npt.ArrayLike, upto: npt.ArrayLike, bins: int = PIT_BINS) -> Array:
    r"""The histogram of the probability integral transform, flat if the distributions are calibrated.

    A hump says too wide, a U too narrow, a slope says biased. For ratings on a grid the transform of a rating is not
    a number but the whole stretch from :math:`P(R < r)` to :math:`P(R \le r)`; it is spread evenly over it
    (the non-randomized PIT: the mean of the randomized one, without its noise):

    .. math::
        \bar F(u) = \frac1n\sum_k \operatorname{clip}\!\left(\frac{u - P(R_k<r_k)}{P(R_k\le r_k)-P(R_k<r_k)},
        0, 1\right), \qquad f_b = \bar F(b/B) - \bar F((b-1)/B)

    Args:
        below: P(R < r), one per rating.
        upto: P(R ≤ r); the same for a continuous distribution.
        bins: B.

    Returns:
        (B,): the share in each bin; they sum to 1.

    Source: Dawid 1984; Czado, Gneiting & Held 2009, eq. 2.
    """
    low, high = np.asarray(below, np.float64), np.asarray(upto, np.float64)
    width = high - low
    reached = np.zeros(bins + 1)
    reached[-1] = 1.0
    for b in range(1, bins):
        u = b / bins
        part = np.divide(u - low, width, out=(low <= u).astype(np.float64), where=width > 0)
        reached[b] = np.clip(part, 0, 1).mean()
    return np.diff(reached)


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    r"""Spearman's rank correlation, ties by mean rank; NaN where one side is constant or shorter than 2.

    Between σ and \|error\| it says whether the model knows *where* it errs. Even a perfect σ stays far below 1,
    since an error is one draw of its distribution.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(np.asarray(values, np.float64)) for values in (one, other)]
    if len(ranks[0]) < 2 or min(np.ptp(ranks[0]), np.ptp(ranks[1])) == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
