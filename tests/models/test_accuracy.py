"""Accuracy floors on the bundled ratings: random 80/20, mean of 5 seeds (of networks the first), clipped predictions.

The settings were chosen on validation parts of the training ratings (benchmarks/accuracy.py); the floors leave
about 0.002 above what benchmarks/README.md reports.
"""

from __future__ import annotations

import numpy as np
import pytest

import gramian as gm
from gramian.cli.demo import DEMO_RECIPES
from gramian.registry import RECIPES

MEASURED = {
    **DEMO_RECIPES,
    "SVD": gm.SVD(),
    "SoftImpute": gm.SoftImpute(),
    "PMF": gm.PMF(),
    "SGD": gm.SGD(),
    "NeuralMF": gm.NeuralMF(),
    "MLP": gm.MLP(),
    "ResidualMF": gm.ResidualMF(),
    "AutoRec": gm.AutoRec(),
}
FLOORS = {
    "global mean": 1.0605,
    "baseline (biases)": 0.8883,
    "ALS, K = 32": 0.8721,
    "SVD": 0.8804,
    "SoftImpute": 0.8731,
    "PMF": 0.8748,
    "SGD": 0.8750,
    "NeuralMF": 0.8745,
    "MLP": 0.8823,
    "ResidualMF": 0.8706,
    "AutoRec": 0.8742,
    "BPMF, K = 16": 0.8654,
}


@pytest.mark.parametrize("name", MEASURED)
def test_floor(name: str) -> None:
    ratings = gm.load_dataset("movielens-small")
    errors = []
    for seed in range(1 if MEASURED[name].extra else 5):  # a network is compiled anew for each split
        train, test = ratings.split(0.2, seed=seed)
        errors.append(MEASURED[name].fit(train).evaluate(test)["rmse"])
    assert np.mean(errors) <= FLOORS[name]


def test_every_recipe_has_a_floor() -> None:
    tested = {type(recipe) for recipe in MEASURED.values()}
    assert tested == set(RECIPES.values())
    assert set(FLOORS) == set(MEASURED)


def test_the_default_is_decent_without_any_argument() -> None:
    train, test = gm.load_dataset("movielens-small").split(0.2, seed=0)
    assert gm.ALS().fit(train).evaluate(test)["rmse"] < gm.Baseline().fit(train).evaluate(test)["rmse"] - 0.005


def test_float32_is_as_accurate_as_float64() -> None:
    train, test = gm.load_dataset("movielens-small").split(0.2, seed=0)
    errors = [gm.ALS(dtype=dtype).fit(train).evaluate(test)["rmse"] for dtype in ("float32", "float64")]
    assert errors[0] == pytest.approx(errors[1], abs=1e-4)
