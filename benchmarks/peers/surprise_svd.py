"""Surprise's SVD by stochastic gradient descent: as it comes, and the best of a few settings on validation ratings."""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from common import Columns, clipped_rmse, load_parts, report, sampling_arguments
from surprise import SVD, Dataset, Reader

asked = sampling_arguments()
train, test, _ = load_parts(asked.folder)
SETTINGS = [
    {"n_factors": factors, "n_epochs": epochs, "reg_all": penalty}
    for factors, epochs, penalty in product((asked.factors, 100), (20, 40), (0.05, 0.08))
]


def fitted(part: Columns, **settings: Any) -> tuple[Any, float]:
    """A model and the seconds per epoch of its fit."""
    table = pd.DataFrame(dict(zip(("user", "item", "rating"), part, strict=True)))
    reader = Reader(rating_scale=(float(part[2].min()), float(part[2].max())))
    rows = Dataset.load_from_df(table, reader).build_full_trainset()
    model = SVD(random_state=0, **settings)
    began = time.perf_counter()
    model.fit(rows)
    return model, (time.perf_counter() - began) / model.n_epochs


def error(model: Any, part: Columns, other: Columns) -> float:
    """The RMSE of the predictions of ``other``."""
    predicted = [model.predict(user, item).est for user, item in zip(*(c.tolist() for c in other[:2]), strict=True)]
    return clipped_rmse(part, other, np.array(predicted))


held = np.random.default_rng(0).random(len(train[0])) < 0.1
inner, validation = (tuple(column[mask] for column in train) for mask in (~held, held))
errors = [error(fitted(inner, **settings)[0], inner, validation) for settings in SETTINGS]
best = SETTINGS[int(np.argmin(errors))]
default, seconds = fitted(train)
tuned = error(fitted(train, **best)[0], train, test)
chosen = ", ".join(f"{name}={value}" for name, value in best.items())
report(
    "scikit-surprise",
    [seconds],
    mean_seconds=seconds,
    rmse=tuned,
    rmse_default=error(default, train, test),
    chosen=chosen,
)
