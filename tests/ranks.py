"""Simulation-based calibration: where a truth drawn from the prior ranks among draws of its posterior."""

from __future__ import annotations

import numpy as np
from scipy import stats


def uniformity(ranks_of, simulations, kept=9):
    """The p-value of χ² for the ranks 0 … ``kept`` of each quantity; ``ranks_of(seed)`` makes one simulation."""
    ranks = np.array([ranks_of(seed) for seed in range(simulations)])
    counts = np.array([np.bincount(column, minlength=kept + 1) for column in ranks.T])
    return stats.chisquare(counts, axis=1).pvalue
