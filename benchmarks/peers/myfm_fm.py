"""myFM's Gibbs sampler on users and items alone, which is BPMF with biases: seconds per sweep, and the error."""

from __future__ import annotations

import time

import numpy as np
from common import Columns, clipped_rmse, load_parts, report, sampling_arguments
from myfm import MyFMGibbsRegressor
from scipy.sparse import csr_matrix

asked = sampling_arguments()
train, test, (n_users, n_items) = load_parts(asked.folder)


def one_hot(part: Columns) -> csr_matrix:
    """One column per user and per item."""
    n = len(part[0])
    columns = np.stack([part[0], part[1] + n_users], axis=1).ravel()
    return csr_matrix((np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), (n, n_users + n_items))


times = [time.perf_counter()]


def swept(*state: object) -> tuple[bool, str]:
    """Note the time; go on."""
    times.append(time.perf_counter())
    return False, ""


model = MyFMGibbsRegressor(rank=asked.factors, random_seed=0)
model.fit(
    one_hot(train), train[2].astype(np.float64), n_iter=asked.burn_in + asked.draws, n_kept_samples=asked.draws,
    group_shapes=[n_users, n_items], callback=swept,
)  # fmt: skip
seconds = np.diff(times).tolist()
error = clipped_rmse(train, test, model.predict(one_hot(test), n_workers=2))
report("myfm", seconds, mean_seconds=float(np.mean(seconds[1:])), rmse=error)
