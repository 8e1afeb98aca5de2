"""myFM's Gibbs sampler on users and items alone, which is BPMF with biases."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import THREADS, Columns, load_parts
from myfm import MyFMGibbsRegressor
from scipy.sparse import csr_matrix
from whole import arguments, measure

asked = arguments()
n_users, n_items = load_parts(asked.folder)[2]


def one_hot(part: Columns) -> csr_matrix:
    """One column per user and per item."""
    n = len(part[0])
    columns = np.stack([part[0], part[1] + n_users], axis=1).ravel()
    return csr_matrix((np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), (n, n_users + n_items))


def fit(part: Columns) -> Any:
    """A sampled model."""
    model = MyFMGibbsRegressor(rank=asked.factors, random_seed=0)
    return model.fit(
        one_hot(part), part[2].astype(np.float64), n_iter=asked.burn_in + asked.draws, n_kept_samples=asked.draws,
        group_shapes=[n_users, n_items],
    )  # fmt: skip


def predict(model: Any, part: Columns) -> Any:
    """The mean over the draws."""
    return model.predict(one_hot(part), n_workers=THREADS)


measure("myfm", asked.folder, fit, predict)
