"""Surprise's SVD by stochastic gradient descent, λ and η chosen on validation ratings."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from common import Columns, clipped_rmse, descent_arguments, load_parts, report_descent
from surprise import SVD, Dataset, Reader

asked = descent_arguments()
train, test, _ = load_parts(asked.folder)
SETTINGS = [{"reg_all": penalty, "lr_all": rate} for penalty, rate in product((0.04, 0.08), (0.005, 0.01))]
CHOOSING = 20


def table(part: Columns) -> Any:
    """The ratings as Surprise has them; not timed."""
    frame = pd.DataFrame(dict(zip(("user", "item", "rating"), part, strict=True)))
    reader = Reader(rating_scale=(float(part[2].min()), float(part[2].max())))
    return Dataset.load_from_df(frame, reader).build_full_trainset()


def fitted(rows: Any, epochs: int, settings: dict[str, float]) -> Any:
    """A model."""
    return SVD(n_factors=asked.factors, n_epochs=epochs, random_state=0, **settings).fit(rows)


def error(model: Any, part: Columns, other: Columns) -> float:
    """The RMSE of the predictions of ``other``."""
    predicted = [model.predict(user, item).est for user, item in zip(*(c.tolist() for c in other[:2]), strict=True)]
    return clipped_rmse(part, other, np.array(predicted))


held = np.random.default_rng(0).random(len(train[0])) < 0.1
inner, validation = (tuple(column[mask] for column in train) for mask in (~held, held))
begun = table(inner)
best = min(SETTINGS, key=lambda settings: error(fitted(begun, CHOOSING, settings), inner, validation))
rows = table(train)
report_descent(
    "scikit-surprise", lambda epochs: fitted(rows, epochs, best), lambda model: error(model, train, test),
    asked.target, chosen=", ".join(f"{name}={value:g}" for name, value in best.items()),
)  # fmt: skip
