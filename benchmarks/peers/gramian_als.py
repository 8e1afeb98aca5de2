"""Gramian's own iterations, in a process like a peer's: without biases as most peers', and whole epochs of a fit."""

from __future__ import annotations

import polars as pl
from common import THREADS, arguments, load, measured, report

import gramian as gm

asked = arguments()
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


full = gm.ALS(factors=asked.factors, n_jobs=THREADS)


def epoch() -> None:
    """Both half-sweeps with biases, the objective and the training RMSE."""
    global arrays
    arrays = full.epoch(ratings, arrays, 1).arrays


iterate()  # compiles
seconds = measured(iterate)
arrays = full.start(ratings)
epoch()
report("gramian", seconds, epoch=min(measured(epoch)))
