"""How far intervals can be trusted: coverage at 90 %, width, CRPS, interval score, Spearman of σ and |error|.

    python benchmarks/calibration.py                                 # ALS and the baseline, the bundled ratings
    python benchmarks/calibration.py als '{"name": "als", "factors": 64}'
    python benchmarks/calibration.py --ml-100k FOLDER                # and fold u1 of MovieLens 100K

Recipes are names or JSON. Each gives up to three rows: its own intervals where it has some, fitted on the whole
training set; and conformal ones, one width and by popularity, fitted on nine tenths of it and calibrated on the last
tenth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gramian as gm
from gramian.models.predictive import UncertainModel

LEVEL = 0.9
Split = tuple[gm.Ratings, gm.Ratings]


def recipe_of(text: str) -> gm.Recipe[gm.Model]:
    """A recipe from its name or its JSON."""
    return gm.recipe_from_dict(json.loads(text) if text.startswith("{") else {"name": text})


def measured(recipe: gm.Recipe[gm.Model], train: gm.Ratings, test: gm.Ratings) -> Iterator[tuple[str, gm.Calibration]]:
    """The calibration on the test ratings, with each kind of interval."""
    whole = recipe.fit(train)
    if isinstance(whole, UncertainModel):
        yield "its own", gm.calibration(whole, test, levels=[LEVEL])
    part, held_out = train.split(0.1, seed=0)
    model = recipe.fit(part)
    yield "conformal", gm.calibration(gm.conformal(model, held_out), test, levels=[LEVEL])
    yield (
        "conformal by popularity",
        gm.calibration(gm.conformal(model, held_out, by="popularity"), test, levels=[LEVEL]),
    )


def table(recipes: list[gm.Recipe[gm.Model]], splits: list[Split]) -> Iterator[str]:
    """One row per recipe and kind of interval, the mean over the splits; of the groups, the least covered."""
    yield "| model | intervals | coverage at 90 % | least covered group | width | interval score | CRPS | Spearman |"
    yield "|---|---|---|---|---|---|---|---|"
    for recipe in recipes:
        found: dict[str, list[list[float]]] = {}
        for train, test in splits:
            for kind, result in measured(recipe, train, test):
                row = result.at(LEVEL)
                numbers = [row["coverage"], min(result.groups["coverage"]), row["width"], row["interval_score"]]
                extra = [np.nan if value is None else value for value in (result.crps, result.spearman)]
                found.setdefault(kind, []).append([*numbers, *extra])
        for kind, rows in found.items():
            mean = np.mean(rows, axis=0)
            cells = [f"{100 * mean[0]:.1f} %", f"{100 * mean[1]:.1f} %", *(f"{value:.3f}" for value in mean[2:4])]
            cells += ["" if np.isnan(value) else f"{value:.3f}" for value in mean[4:]]
            yield f"| {type(recipe).__name__} | {kind} | {' | '.join(cells)} |"


def bundled_splits() -> list[Split]:
    """Five random 80/20 splits of the bundled ratings."""
    ratings = gm.load_dataset("movielens-small")
    return [ratings.split(0.2, seed=seed) for seed in range(5)]


def u1_split(folder: Path) -> list[Split]:
    """Fold u1 of MovieLens 100K."""
    return [(gm.read_ratings(folder / "u1.base"), gm.read_ratings(folder / "u1.test"))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["baseline", "als"], help="names or JSON")
    parser.add_argument("--ml-100k", type=Path, help="a MovieLens 100K folder")
    given = parser.parse_args()
    chosen = [recipe_of(text) for text in given.recipes]
    print("\n".join(["bundled, five random splits", "", *table(chosen, bundled_splits())]), flush=True)
    if given.ml_100k:
        print("\n".join(["", "MovieLens 100K, fold u1", "", *table(chosen, u1_split(given.ml_100k))]))
