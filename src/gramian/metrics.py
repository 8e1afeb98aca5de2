"""Errors of predicted ratings: free functions on plain arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mae", "mse", "rating_errors", "rmse"]


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


def rating_errors(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> dict[str, float | int]:
    """``{"rmse", "mse", "mae", "n"}`` of predictions against the ratings given."""
    squared = mse(actual, predicted)
    return {
        "rmse": float(np.sqrt(squared)),
        "mse": squared,
        "mae": mae(actual, predicted),
        "n": int(np.size(actual)),
    }
