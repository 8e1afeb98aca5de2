"""Gramian's BPMF, in a process like a peer's: seconds per sweep, and the error of the mean prediction."""

from __future__ import annotations

import numpy as np
import polars as pl
from common import THREADS, Columns, load_parts, report, sampling_arguments

import gramian as gm


def ratings(part: Columns) -> gm.Ratings:
    """A table of codes as ids."""
    return gm.Ratings.from_frame(pl.DataFrame(dict(zip(("user", "item", "rating"), part, strict=True))))


asked = sampling_arguments()
train, test, _ = load_parts(asked.folder)
fields = {
    "factors": asked.factors,
    "burn_in": asked.burn_in,
    "draws": asked.burn_in + asked.draws,
    "noise": "by_user" if asked.noise_by_user else "common",
    "seed": 0,
    "n_jobs": THREADS,
}
model = gm.make_recipe("bpmf", **fields).fit(ratings(train))
seconds = model.history.column("seconds")
report("gramian", seconds, mean_seconds=float(np.mean(seconds[1:])), rmse=float(model.evaluate(ratings(test))["rmse"]))
