"""The family on the same splits: Baseline, SVD by what fills its holes, SoftImpute, ALS, PMF.

    python benchmarks/family.py                     # prints the tables of docs/svd.md and docs/pmf.md

As in accuracy.py, settings are chosen on a random tenth of each training set and refitted on all of it; the test
ratings are used once. PMF chooses nothing: it estimates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

import gramian as gm
from accuracy import BASELINES, random_splits

RANKS = (1, 2, 4, 6, 8, 12, 16, 24, 32)
SHRINKAGES = (8, 10, 12, 14, 16)
GRIDS: dict[str, Sequence[gm.Recipe[Any]]] = {
    "Baseline": BASELINES,
    "SVD, zeros": [gm.SVD(factors=k, impute="zero") for k in RANKS],
    "SVD, means": [gm.SVD(factors=k, impute="mean") for k in RANKS],
    "SVD, biases": [gm.SVD(factors=k, impute="biases") for k in RANKS],
    "SoftImpute": [gm.SoftImpute(factors=64, shrinkage=s, epochs=60, patience=3) for s in SHRINKAGES],
    "ALS": [
        gm.ALS(factors=64, regularization=s, bias_regularization=3, epochs=60, patience=3) for s in SHRINKAGES
    ],
    "PMF": [gm.PMF(factors=64)],
}  # fmt: skip


def chosen(recipes: Sequence[gm.Recipe[Any]], train: gm.Ratings, seed: int) -> gm.Recipe[Any]:
    """The recipe of least validation error, with the number of epochs that was best for it."""
    part, validation = train.split(0.1, seed=seed)
    best: tuple[float, gm.Recipe[Any]] = (np.inf, recipes[0])
    for recipe in recipes if len(recipes) > 1 else ():
        errors = recipe.fit(part, validation).history.column("validation_rmse")
        if getattr(recipe, "patience", None) is None:
            best = min(best, (errors[-1], recipe), key=lambda pair: pair[0])
        else:
            epochs = {"epochs": int(np.argmin(errors)) + 1, "patience": None}
            best = min(best, (min(errors), dataclasses.replace(recipe, **epochs)), key=lambda pair: pair[0])
    return best[1]


def setting(recipe: gm.Recipe[Any]) -> str:
    """What was chosen, in a few letters."""
    names = {"factors": "K", "regularization": "λ", "shrinkage": "λ", "epochs": "epochs"}
    shown = names if isinstance(recipe, gm.ALS | gm.SoftImpute) else {"factors": "K", "regularization": "λ"}
    return ", ".join(f"{letter}={getattr(recipe, name):g}" for name, letter in shown.items() if hasattr(recipe, name))


def errors_of(name: str, splits: Sequence[tuple[str, gm.Ratings, gm.Ratings]]) -> str:
    """One line of the table: train and test RMSE, their means, and what was chosen."""
    train_errors, test_errors, settings = [], [], []
    for seed, (_, train, test) in enumerate(splits):
        recipe = chosen(GRIDS[name], train, seed)
        model = recipe.fit(train)
        train_errors.append(model.evaluate(train)["rmse"])
        test_errors.append(model.evaluate(test)["rmse"])
        settings.append(setting(recipe))
    each = ", ".join(f"{error:.4f}" for error in test_errors)
    return f"| {name} | {np.mean(train_errors):.4f} | **{np.mean(test_errors):.4f}** | {each} | {'; '.join(settings)} |"


def ranks(train: gm.Ratings, test: gm.Ratings) -> None:
    """Test RMSE by rank: more of a plain SVD is a better copy of what was filled in."""
    print("\n| K | " + " | ".join(map(str, RANKS)) + " |\n|" + "---|" * (len(RANKS) + 1))
    for impute in ("zero", "mean", "biases"):
        model = gm.SVD(factors=max(RANKS), impute=impute).fit(train)
        print(f"| {impute} | " + " | ".join(f"{model.low_rank(k).evaluate(test)['rmse']:.3f}" for k in RANKS) + " |")


def estimates(splits: Sequence[tuple[str, gm.Ratings, gm.Ratings]]) -> None:
    """What PMF estimates, beside the penalty chosen on validation ratings."""
    print("\n| K | σ | λ = σ²α | λ_b | test RMSE |\n|---|---|---|---|---|")
    for factors in (10, 32, 64):
        rows = []
        for _, train, test in splits:
            model = gm.PMF(factors=factors).fit(train)
            variance = model.noise_std**2
            rows.append(
                (model.noise_std, variance * model.scales.prior_precision, variance * model.scales.bias_precision,
                 model.evaluate(test)["rmse"])
            )  # fmt: skip
        mean = np.mean(rows, axis=0)
        print(f"| {factors} | {mean[0]:.3f} | {mean[1]:.1f} | {mean[2]:.1f} | {mean[3]:.4f} |")


def collapse(train: gm.Ratings, factors: int = 32) -> None:
    """The closed forms from the fitted rows, in turn with the rows: the precision grows without end."""
    noise, precision = 1.0, 5.0
    print("\nα from the fitted rows, in turn with them:", end="")
    while precision < 1e6:
        print(f" {precision:.4g}", end="")
        model = gm.PMF(factors=factors, noise_std=noise, prior_precision=precision, bias_precision=5.0).fit(train)
        noise = max(float(model.history[-1]["train_rmse"]), 1e-3)
        squares = sum(float(np.sum(np.square(f, dtype=float))) for f in (model.user_factors, model.item_factors))
        precision = (train.n_users + train.n_items) * factors / max(squares, 1e-9)
    print(" … over a million")


if __name__ == "__main__":
    every = list(random_splits(gm.load_dataset("movielens-small")))
    print("| model | train RMSE | test RMSE, mean | seeds 0 … 4 | chosen |\n|---|---|---|---|---|")
    for each in GRIDS:
        print(errors_of(each, every), flush=True)
    ranks(*every[0][1:])
    estimates(every)
    collapse(every[0][1])
