"""A Gramian recipe, by its name, with its defaults."""

from __future__ import annotations

from typing import Any

import polars as pl
from common import THREADS, Columns
from whole import arguments, measure

import gramian as gm

asked = arguments()
recipe: Any = gm.make_recipe(asked.model)
if hasattr(recipe, "n_jobs"):
    recipe = gm.make_recipe(asked.model, n_jobs=THREADS)


def fit(part: Columns) -> Any:
    """The model of a table of codes as ids; reading the table is part of it, as it is for the others."""
    return recipe.fit(gm.Ratings.from_frame(pl.DataFrame(dict(zip(("user", "item", "rating"), part, strict=True)))))


def predict(model: Any, part: Columns) -> Any:
    """Who or what is unknown is predicted from what the biases know."""
    return model.predict(part[0], part[1], unknown="fallback")


measure("gramian", asked.folder, fit, predict)
