"""Writes ``tests/saved/models``: models and checkpoints of every recipe, and what they predict.

    python tests/support/saved_models.py FOLDER

Run once for a version, by that version: what stands there was written by 0.1.0 before its modules moved. It is not
written anew; files of later versions go into folders of their own.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl

import gramian as gm

USERS, ITEMS, DAY = 16, 12, 86_400


def ratings(seed=15):
    """Stars from 1 to 5 with times, by text ids of items; of another seed, those of the other pairs."""
    rng = np.random.default_rng(seed)
    u, i = np.nonzero((np.random.default_rng(15).random((USERS, ITEMS)) < 0.6) == (seed == 15))
    latent = 3.4 + rng.normal(size=USERS)[u] * 0.6 + rng.normal(size=ITEMS)[i] * 0.6 + 0.5 * rng.normal(size=len(u))
    values = np.clip(np.rint(latent), 1, 5)
    time = 12_000 * DAY + rng.integers(0, 90 * DAY, len(u))
    items = [f"item {k:02d}" for k in i]
    return gm.Ratings.from_frame(pl.DataFrame({"user": u, "item": items, "rating": values, "time": time}))


def recipes():
    """Small ones of every kind."""
    ages = pl.DataFrame({"user": range(USERS + 2), "age": [20.0 + 3 * k for k in range(USERS + 2)]})
    kinds = pl.DataFrame({"item": [f"item {k:02d}" for k in range(ITEMS)], "kind": [f"k{k % 3}" for k in range(ITEMS)]})
    known = {"implicit": "both", "noise": "by_user", "time": "auto", "drift": True}
    tables = {"user_features": ages, "item_features": kinds}
    return {
        "baseline": gm.Baseline(),
        "als": gm.ALS(factors=3, epochs=2),
        "als-separate": gm.ALS(factors=3, epochs=2, bias_update="separate", weighting="count", dtype="float64"),
        "pmf": gm.PMF(factors=3, epochs=2),
        "svd": gm.SVD(factors=3, epochs=2),
        "softimpute": gm.SoftImpute(factors=3, epochs=2),
        "sgd": gm.SGD(factors=3, epochs=2),
        "neural_mf": gm.NeuralMF(factors=3, epochs=2),
        "mlp": gm.MLP(factors=3, epochs=2),
        "residual_mf": gm.ResidualMF(factors=3, epochs=2),
        "autorec": gm.AutoRec(epochs=2),
        "bpmf": gm.BPMF(factors=3, draws=3, burn_in=2),
        "bpmf-known": gm.BPMF(factors=3, draws=3, burn_in=2, **known, **tables),
        "bpmf-ordinal": gm.BPMF(factors=3, draws=3, burn_in=2, likelihood="ordinal", biases=False, **known),
    }


def asked(table):
    """Pairs and times to predict, with somebody and something unknown."""
    places = np.arange(0, len(table), 4)
    users = [*np.asarray(table.users)[places].tolist(), 99]
    items = [*np.asarray(table.items)[places].tolist(), "item 99"]
    return users, items, np.append(table.times[places], table.times[0])


def predictions(model, table):
    """What a model says of these pairs: predictions, and ends of intervals where it has them."""
    users, items, times = asked(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gm.errors.UnknownIdWarning)
        made = {"predict": model.predict(users, items, times=times)}
        if hasattr(model, "predict_interval"):
            made["interval"] = np.ravel(model.predict_interval(users, items, times=times))
    return {name: np.asarray(values, float).tolist() for name, values in made.items()}


# The recipe that a checkpoint is of, and the longer one that goes on from it.
LONGER = {"als": {"epochs": 4}, "bpmf": {"draws": 5}, "bpmf-known": {"draws": 5}, "bpmf-ordinal": {"draws": 5}}


def main(folder):
    """Write everything."""
    warnings.simplefilter("ignore")
    table, every = ratings(), {}
    for name, recipe in recipes().items():
        model = recipe.fit(table, checkpoint=folder / f"{name}.checkpoint", keep_checkpoint=name in LONGER)
        model.save(folder / f"{name}.gramian")
        every[name] = predictions(model, table)
        if name in LONGER:
            every[f"{name}, gone on"] = predictions(dataclasses.replace(recipe, **LONGER[name]).fit(table), table)
        if name == "als":
            wrapped = gm.conformal(model, ratings(16))
            wrapped.save(folder / "conformal.gramian")
            every["conformal"] = predictions(wrapped, table)
    (folder / "predictions.json").write_text(json.dumps(every))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
