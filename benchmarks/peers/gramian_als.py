"""Gramian's own iterations, in a process like a peer's: without biases as most peers', and whole epochs of a fit."""

from __future__ import annotations

import polars as pl
from common import THREADS, arguments, load, measured, report

import gramian as gm

asked = arguments("--epoch")
users, items, values = load(asked.folder)
ratings = gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))
del users, items, values
recipe = gm.ALS(factors=asked.factors, biases=False, n_jobs=THREADS)
arrays = recipe.start(ratings)
rows = arrays["user_rows"]


def iterate() -> None:
    """Both half-sweeps."""
    global rows
    rows = recipe.sweep(ratings, recipe.sweep(ratings, rows, users=False)[0], users=True)[0]


iterate()  # compiles
more = {}
seconds = measured(iterate)
if asked.epoch:
    full = gm.ALS(factors=asked.factors, n_jobs=THREADS)
    arrays = full.start(ratings)
    # Both half-sweeps with biases, the objective and the training RMSE.
    more["epoch"] = min(measured(lambda: full.epoch(ratings, arrays, 1)))
report("gramian", seconds, **more)
