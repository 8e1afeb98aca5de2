"""The networks and SGD beside Baseline and ALS: test RMSE, settings chosen on validation ratings.

    python benchmarks/networks.py [--ml-100k FOLDER] [--goodbooks FOLDER] [--quick] [--only NeuralMF,SGD]

As in accuracy.py a tenth of the training ratings chooses settings and the number of epochs, the model is fitted again
on all of them, and the test ratings are used once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import gramian as gm
from accuracy import BASELINES, folds_of
from page import options, write_section

EARLY: dict[str, Any] = {"epochs": 40, "patience": 3}
LARGE: dict[str, Any] = {"batch_size": 512, "learning_rate": 0.01}
SLOWING: dict[str, Any] = {"batch_size": 2048, "decay": 0.5}
GRIDS: dict[str, Sequence[gm.Recipe[Any]]] = {
    "Baseline": BASELINES,
    "ALS": [gm.ALS(regularization=s, bias_regularization=3, **EARLY) for s in (8, 10, 12, 16, 20)],
    "SGD": [gm.SGD(regularization=s, bias_regularization=3, **EARLY) for s in (8, 10, 12, 16, 20)],
    "NeuralMF": [gm.NeuralMF(regularization=s, **EARLY) for s in (4, 6, 8, 10)],
    "MLP": [
        gm.MLP(regularization=s, layer_regularization=0.001, **EARLY, **steps)
        for s in (6, 10, 20)
        for steps in ({}, SLOWING)
    ],
    "ResidualMF": [
        gm.ResidualMF(regularization=s, layer_regularization=t, **EARLY)
        for s, t in ((6, 0.05), (8, 0.003), (10, 0.05), (12, 0.003))
    ],
    "I-AutoRec": [
        gm.AutoRec(regularization=s, hidden=64, epochs=60, patience=5, **steps)
        for s in (10, 20)
        for steps in ({}, LARGE)
    ],
}  # fmt: skip


def chosen(recipes: Sequence[gm.Recipe[Any]], train: gm.Ratings) -> gm.Recipe[Any]:
    """The recipe of least validation error, with the number of epochs that was best for it."""
    part, validation = train.split(0.1, seed=0)
    best: tuple[float, gm.Recipe[Any]] = (np.inf, recipes[0])
    for recipe in recipes:
        errors = recipe.fit(part, validation).history.column("validation_rmse")
        if getattr(recipe, "patience", None) is not None:
            recipe = dataclasses.replace(recipe, epochs=int(np.argmin(errors)) + 1, patience=None)  # type: ignore[call-arg]
            errors = [min(errors)]
        print(f"{errors[-1]:.4f} {recipe}", flush=True)
        best = min(best, (errors[-1], recipe), key=lambda pair: pair[0])
    return best[1]


def setting(recipe: gm.Recipe[Any]) -> str:
    """What was chosen, in a few letters."""
    names = {"regularization": "λ", "layer_regularization": "λ of layers", "dropout": "dropout", "batch_size": "batch",
             "decay": "decay", "epochs": "epochs"}  # fmt: skip
    return ", ".join(
        f"{letter}={getattr(recipe, name):g}" for name, letter in names.items() if getattr(recipe, name, 0)
    )


def table(splits: dict[str, tuple[gm.Ratings, gm.Ratings]], names: Sequence[str]) -> Iterator[str]:
    """One row for each model."""
    yield "| model |" + "".join(f" {name} | chosen | seconds |" for name in splits)
    yield "|---|" + "---|---|---|" * len(splits)
    for name in names:
        cells = ""
        for train, test in splits.values():
            recipe = chosen(GRIDS[name], train)
            model = recipe.fit(train)
            seconds = sum(model.history.column("seconds"))
            cells += f" {model.evaluate(test)['rmse']:.4f} | {setting(recipe)} | {seconds:.1f} |"
        print(name, cells, flush=True)
        yield f"| {name} |{cells}"


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--only", default="", help="only these models, separated by commas; nothing is written")
    asked = parser.parse_args()
    found: dict[str, tuple[gm.Ratings, gm.Ratings]] = {}
    if asked.ml_100k:
        _, train, test = next(iter(folds_of(asked.ml_100k)))
        found["MovieLens 100K, u1"] = train, test
    if asked.goodbooks:
        found["goodbooks-10k, 90/10"] = gm.load_dataset("goodbooks", path=asked.goodbooks).split(0.1, seed=0)
    names = asked.only.split(",") if asked.only else list(GRIDS)
    rows = table(found or {"bundled": gm.load_dataset("movielens-small").split(0.2)}, names)
    write_section("networks", rows, quick=asked.quick or bool(asked.only) or not found)
