"""A whole fit of Gramian's ALS: seconds per epoch, and the peak memory of reading the ratings and of the fit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from common import THREADS, arguments, load, peak_memory, report

import gramian as gm

asked = arguments("--cg", "--block")
users, items, values = load(asked.folder)
ratings = gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))
del users, items, values
reading = peak_memory()
counter = Path("/proc/self/clear_refs")
if counter.exists():
    counter.write_text("5")  # the peak is counted anew from here
solver = "cg" if asked.cg else "block" if asked.block else "exact"
model = gm.ALS(factors=asked.factors, epochs=3, solver=solver, n_jobs=THREADS).fit(ratings)
report("gramian", model.history.column("seconds"), reading=reading, ratings=len(ratings))
