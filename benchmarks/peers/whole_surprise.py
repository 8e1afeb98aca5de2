"""Surprise's SVD, SVD++ or nearest neighbours, with their defaults."""

from __future__ import annotations

from typing import Any

import pandas as pd
import surprise
from common import Columns
from whole import arguments, measure

asked = arguments()
kind = getattr(surprise, asked.model)
seeded = {"random_state": 0} if asked.model.startswith("SVD") else {"verbose": False}


def fit(part: Columns) -> Any:
    """A fitted algorithm."""
    table = pd.DataFrame(dict(zip(("user", "item", "rating"), part, strict=True)))
    reader = surprise.Reader(rating_scale=(float(part[2].min()), float(part[2].max())))
    return kind(**seeded).fit(surprise.Dataset.load_from_df(table, reader).build_full_trainset())


def predict(model: Any, part: Columns) -> Any:
    """Pair by pair, as there is no other way."""
    return [model.predict(user, item).est for user, item in zip(part[0].tolist(), part[1].tolist(), strict=True)]


measure("scikit-surprise", asked.folder, fit, predict)
