"""Accuracy of the recipes, with hyper-parameters chosen on validation parts of the training data only.

For every training set, a random tenth of it is held out, the grid below is fitted on the rest with early
stopping, and the setting with the least validation error is refitted on the whole training set with the number
of epochs found. The test set is used once, for the number reported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

import gramian as gm

GRID = [
    gm.ALS(factors=factors, regularization=regularization, bias_regularization=bias, epochs=40, patience=3)
    for factors, regularization, bias in product((16, 32, 64), (8, 10, 12, 14, 16, 18, 21), (1, 3, 5, 8))
]
BAYES = [gm.BPMF(factors=factors, prior_scale=scale) for factors, scale in product((16, 32, 64), (0.1, 0.3))]
DRAWS = 2000  # of the Bayesian model that is measured; it is chosen with the default's 300
BASELINES = [gm.Baseline(regularization=regularization) for regularization in (1, 2, 3, 4, 5, 6, 8)]
Split = tuple[str, gm.Ratings, gm.Ratings]


def best_recipes(train: gm.Ratings, seed: int) -> tuple[gm.Baseline, gm.ALS]:
    """The baseline and the ALS of least validation error, ready to be refitted on all of ``train``."""
    part, validation = train.split(0.1, seed=seed)
    baseline = min(BASELINES, key=lambda recipe: recipe.fit(part).evaluate(validation)["rmse"])
    errors = {recipe: recipe.fit(part, validation).history.column("validation_rmse") for recipe in GRID}
    best = min(GRID, key=lambda recipe: min(errors[recipe]))
    epochs = int(np.argmin(errors[best])) + 1
    return baseline, dataclasses.replace(best, epochs=epochs, patience=None)


def best_bayes(train: gm.Ratings) -> gm.BPMF:
    """The Bayesian model of least mean error on three random tenths of the training ratings, with more draws."""
    parts = [train.split(0.1, seed=seed) for seed in range(3)]
    best = min(BAYES, key=lambda recipe: sum(recipe.fit(part).evaluate(held)["rmse"] for part, held in parts))
    return dataclasses.replace(best, draws=DRAWS)


def measure(name: str, train: gm.Ratings, test: gm.Ratings, seed: int) -> tuple[list[float], gm.ALS, gm.BPMF, float]:
    """Test RMSE of the baseline, ALS and BPMF; the two that were chosen; and the seconds of BPMF's fit."""
    baseline, als = best_recipes(train, seed)
    bayes = best_bayes(train)
    errors = [recipe.fit(train).evaluate(test)["rmse"] for recipe in (baseline, als)]
    began = time.perf_counter()
    model = bayes.fit(train)
    seconds = time.perf_counter() - began
    errors.append(model.evaluate(test)["rmse"])
    print(f"{name}: Baseline {errors[0]:.4f}  ALS {errors[1]:.4f}  BPMF {errors[2]:.4f} ({bayes})", flush=True)
    return errors, als, bayes, seconds


def random_splits(ratings: gm.Ratings) -> Iterator[Split]:
    """Five random 80/20 splits."""
    for seed in range(5):
        yield f"seed {seed}", *ratings.split(0.2, seed=seed)


def folds_of(folder: Path) -> Iterator[Split]:
    """The published folds u1 … u5 of MovieLens 100K."""
    for fold in range(1, 6):
        yield f"u{fold}", gm.read_ratings(folder / f"u{fold}.base"), gm.read_ratings(folder / f"u{fold}.test")
