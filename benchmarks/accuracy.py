"""Accuracy of the recipes, with hyper-parameters chosen on validation parts of the training data only.

    python benchmarks/accuracy.py bundled                    # random 80/20 of the bundled ratings, 5 seeds
    python benchmarks/accuracy.py folds FOLDER               # u1 … u5 of a MovieLens 100K folder

For every training set, a random tenth of it is held out, the grid below is fitted on the rest with early
stopping, and the setting with the least validation error is refitted on the whole training set with the number
of epochs found. The test set is used once, for the number printed.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

import gramian as gm

GRID = [
    gm.ALS(factors=factors, regularization=regularization, bias_regularization=bias, epochs=40, patience=3)
    for factors, regularization, bias in product((16, 32, 64), (8, 10, 12, 14, 16, 18, 21), (1, 3, 5, 8))
]
BASELINES = [gm.Baseline(regularization=regularization) for regularization in (1, 2, 3, 4, 5, 6, 8)]


def best_recipe(train: gm.Ratings, seed: int) -> tuple[gm.Recipe, gm.Recipe]:
    """The baseline and the ALS of least validation error, ready to be refitted on all of ``train``."""
    part, validation = train.split(0.1, seed=seed)
    baseline = min(BASELINES, key=lambda recipe: recipe.fit(part).evaluate(validation)["rmse"])
    errors = {recipe: recipe.fit(part, validation).history.column("validation_rmse") for recipe in GRID}
    best = min(GRID, key=lambda recipe: min(errors[recipe]))
    epochs = int(np.argmin(errors[best])) + 1
    return baseline, dataclasses.replace(best, epochs=epochs, patience=None)


def measure(name: str, train: gm.Ratings, test: gm.Ratings, seed: int) -> list[float]:
    """Print one line, and return the test RMSE of the baseline and of ALS."""
    baseline, als = best_recipe(train, seed)
    errors = [recipe.fit(train).evaluate(test)["rmse"] for recipe in (baseline, als)]
    print(f"{name}: Baseline {errors[0]:.4f}  ALS {errors[1]:.4f}   {baseline} {als}", flush=True)
    return errors


def splits(arguments: list[str]) -> Iterator[tuple[str, gm.Ratings, gm.Ratings]]:
    """The (name, train, test) sets asked for."""
    if arguments == ["bundled"]:
        ratings = gm.load_dataset("movielens-small")
        for seed in range(5):
            yield f"seed {seed}", *ratings.split(0.2, seed=seed)
    elif len(arguments) == 2 and arguments[0] == "folds":
        folder = Path(arguments[1])
        for fold in range(1, 6):
            yield f"u{fold}", gm.read_ratings(folder / f"u{fold}.base"), gm.read_ratings(folder / f"u{fold}.test")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    table = [measure(name, train, test, seed) for seed, (name, train, test) in enumerate(splits(sys.argv[1:]))]
    print("mean: Baseline {:.4f}  ALS {:.4f}".format(*np.mean(table, axis=0)))
