"""Simulation-based calibration: where a truth drawn from the prior ranks among draws of its posterior."""

from __future__ import annotations

import numpy as np
from scipy import stats

from gramian.models.bayes.state import RowPrior


def uniformity(ranks_of, simulations, kept=9):
    """The p-value of χ² for the ranks 0 … ``kept`` of each quantity; ``ranks_of(seed)`` makes one simulation."""
    ranks = np.array([ranks_of(seed) for seed in range(simulations)])
    counts = np.array([np.bincount(column, minlength=kept + 1) for column in ranks.T])
    return stats.chisquare(counts, axis=1).pvalue


def drawn_sides(rng, sizes, hyper):
    """Rows of both sides and their priors, drawn from the priors of these."""
    size, rows, priors = len(hyper.scale), [], []
    for n in sizes:
        precision = stats.wishart(size, np.diag(1 / hyper.scale)).rvs(random_state=rng)
        mean = rng.multivariate_normal(np.zeros(size), np.linalg.inv(hyper.strength * precision))
        priors.append(RowPrior(mean, precision))
        rows.append(mean + np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=(size, n))).T)
    return rows, priors


def ranked(chain, quantities, sweep, sweeps, dropped, every):
    """Ranks of the truth, ``quantities(chain)``, among those of every so manieth state; ``sweep(chain, number)``."""
    true, draws = quantities(chain), []
    for number in range(1, sweeps + 1):
        chain = sweep(chain, number)
        if number > dropped and number % every == 0:
            draws.append(quantities(chain))
    return np.sum(np.array(draws) < true, axis=0)
