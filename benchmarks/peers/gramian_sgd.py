"""Gramian's SGD with the penalties of the ALS that it is held against; nothing is searched."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from common import THREADS, Columns, descent_arguments, load_parts, report_descent

import gramian as gm


def ratings(part: Columns) -> gm.Ratings:
    """A table of codes as ids."""
    return gm.Ratings.from_frame(pl.DataFrame(dict(zip(("user", "item", "rating"), part, strict=True))))


asked = descent_arguments()
train, test, _ = load_parts(asked.folder)
table, held = ratings(train), ratings(test)
settings = {name: getattr(asked, name) for name in ("factors", "regularization", "bias_regularization")}


def fitted(epochs: int) -> Any:
    """A whole fit, from the ratings on: the blocks are made anew for every table."""
    return gm.SGD(epochs=epochs, n_jobs=THREADS, **settings).fit(table.take(np.ones(len(table), bool)))


report_descent("gramian", fitted, lambda model: float(model.evaluate(held)["rmse"]), asked.target)
