"""myFM's flipped recipe on a set with days: users, items, days, each user's items and each item's users, as blocks.

Its own example (`examples/ml-100k-regression.py`, feature set ``timesvdpp_flipped``): sets of the training ratings at
1/√n, a group for every kind of column, every sweep kept.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import clipped_rmse, load_parts, report, sampling_arguments
from myfm import MyFMRegressor, RelationBlock
from scipy.sparse import csr_matrix, hstack, identity

asked = sampling_arguments()
train, test, (n_users, n_items) = load_parts(asked.folder)
days = [np.load(asked.folder / part / "day.npy") for part in ("train", "test")]
n_days = 1 + max(part.max() for part in days)


def sets(rows: Any, columns: Any, shape: tuple[int, int]) -> csr_matrix:
    """1/√n where a row has a rating of a column."""
    counts = np.bincount(rows, minlength=shape[0])
    return csr_matrix((1 / np.sqrt(counts[rows]), (rows, columns)), shape)


def days_of(part: Any) -> csr_matrix:
    """One column per day; none for a day that no training rating has."""
    known = np.isin(part, days[0])
    rows = np.flatnonzero(known)
    return csr_matrix((np.ones(len(rows)), (rows, part[known])), (len(part), n_days))


began = time.perf_counter()
users = hstack([identity(n_users), sets(train[0], train[1], (n_users, n_items))], format="csr")
items = hstack([identity(n_items), sets(train[1], train[0], (n_items, n_users))], format="csr")
sizes = [n_days, n_users, n_items, n_items, n_users]
model = MyFMRegressor(rank=asked.factors, random_seed=0)
blocks = [[RelationBlock(part[0], users), RelationBlock(part[1], items)] for part in (train, test)]
model.fit(
    days_of(days[0]), train[2].astype(np.float64), X_rel=blocks[0], group_shapes=sizes,
    n_iter=asked.burn_in + asked.draws, n_kept_samples=asked.draws,
)  # fmt: skip
predicted = model.predict(days_of(days[1]), blocks[1], n_workers=2)
seconds = time.perf_counter() - began
report("myfm", [seconds], rmse=clipped_rmse(train, test, predicted))
