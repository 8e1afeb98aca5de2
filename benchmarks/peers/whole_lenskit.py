"""LensKit's BiasedMFScorer with its defaults, and its own fallback to the biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from common import THREADS, Columns
from lenskit.als import BiasedMFScorer
from lenskit.data import ItemList, from_interactions_df
from lenskit.operations import predict as predict_ratings
from lenskit.parallel.config import initialize
from lenskit.pipeline import predict_pipeline
from lenskit.training import TrainingOptions
from whole import arguments, measure

asked = arguments()
initialize(processes=1, threads=THREADS, backend_threads=1)


def fit(part: Columns) -> Any:
    """A trained pipeline."""
    table = pd.DataFrame(dict(zip(("user_id", "item_id", "rating"), part, strict=True)))
    pipeline = predict_pipeline(BiasedMFScorer())
    pipeline.train(from_interactions_df(table), TrainingOptions(rng=0))
    return pipeline


def predict(model: Any, part: Columns) -> Any:
    """User by user, in the order of the pairs."""
    made = np.empty(len(part[0]))
    for user in np.unique(part[0]):
        rows = np.flatnonzero(part[0] == user)
        made[rows] = predict_ratings(model, user, ItemList(part[1][rows])).scores()
    return made


measure("lenskit", asked.folder, fit, predict)
