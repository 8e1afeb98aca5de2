"""Figures from plain arrays: errors of predictions, quality of rankings, and what a difference means."""

from gramian.metrics.prediction import (
    log_loss,
    mae,
    mse,
    per_group_means,
    r2,
    ranked_probability_score,
    rating_errors,
    rmse,
)

__all__ = ["log_loss", "mae", "mse", "per_group_means", "r2", "ranked_probability_score", "rating_errors", "rmse"]
