"""Errors of predicted ratings: free functions on plain arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["log_loss", "mae", "mse", "per_group_means", "r2", "ranked_probability_score", "rating_errors", "rmse"]


def mse(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    r"""Mean squared error, :math:`\frac1n\sum_i (r_i-\hat r_i)^2`, accumulated in float64."""
    difference = np.asarray(actual, np.float64) - np.asarray(predicted, np.float64)
    return float(np.mean(difference * difference))


def rmse(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    r"""Root mean squared error, :math:`\sqrt{\mathrm{MSE}}`, on the scale of the ratings."""
    return float(np.sqrt(mse(actual, predicted)))


def mae(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    r"""Mean absolute error, :math:`\frac1n\sum_i |r_i-\hat r_i|`, on the scale of the ratings."""
    difference = np.asarray(actual, np.float64) - np.asarray(predicted, np.float64)
    return float(np.mean(np.abs(difference)))


def r2(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    r"""The share of variance explained, :math:`1 - \sum_i (r_i-\hat r_i)^2 / \sum_i (r_i-\bar r)^2`.

    1 is perfect, 0 as good as the mean of the ratings themselves; NaN where all ratings are equal.
    """
    spread = float(np.var(np.asarray(actual, np.float64)))
    return 1 - mse(actual, predicted) / spread if spread > 0 else float("nan")


def log_loss(steps: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    r"""Mean logarithmic loss of forecast probabilities, :math:`-\frac1n\sum_i \log p_{i k_i}`, in nats.

    Args:
        steps: (n,), which of the L levels came, 0 … L − 1.
        probabilities: (n, L). A probability of 0 counts as the smallest number there is.
    """
    p = np.asarray(probabilities, np.float64)
    came = np.take_along_axis(p, np.asarray(steps)[:, None], axis=1)
    return float(-np.log(np.maximum(came, np.finfo(np.float64).tiny)).mean())


def ranked_probability_score(steps: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    r"""Mean ranked probability score of forecasts on ordered levels; a near miss costs less than a far one.

    .. math:: \frac1n\sum_i\sum_{l=0}^{L-2}\Big(\sum_{m\le l} p_{im} - 1\{k_i \le l\}\Big)^2

    Args:
        steps: (n,), which of the L levels came, 0 … L − 1.
        probabilities: (n, L).

    Source: Epstein 1969.
    """
    p = np.asarray(probabilities, np.float64)
    seen = np.asarray(steps)[:, None] <= np.arange(p.shape[1] - 1)
    return float(np.square(np.cumsum(p, axis=1)[:, :-1] - seen).sum(axis=1).mean())


def per_group_means(values: npt.ArrayLike, groups: npt.ArrayLike) -> npt.NDArray[np.float64]:
    r"""The mean of the values of each group: of users, say, for a macro average.

    .. math::
        m_g = \frac{1}{n_g}\sum_{i \in g} x_i, \qquad \text{macro average} = \frac1G \sum_g m_g

    so that a user with a thousand ratings counts no more than one with ten. With squared errors for the values,
    the square roots are each user's RMSE.

    Returns:
        One mean per group that occurs, in the order of the groups.
    """
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(places, np.asarray(values, np.float64)) / np.bincount(places)


def rating_errors(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float | int]:
    """``{"rmse", "mse", "mae", "n"}`` of predictions against the ratings given."""
    squared = mse(actual, predicted)
    return {
        "rmse": float(np.sqrt(squared)),
        "mse": squared,
        "mae": mae(actual, predicted),
        "n": int(np.size(actual)),
    }
