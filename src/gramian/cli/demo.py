"""The demonstration: several models on the bundled ratings, from description to recommendations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from gramian.data.datasets import load_dataset
from gramian.data.ratings import Ratings
from gramian.errors import DataError, ParameterError
from gramian.metrics.intervals import coverage
from gramian.models.bayes.posterior import BayesianModel
from gramian.models.factor_model import FactorModel
from gramian.models.model import Model
from gramian.models.recipe import AnyRecipe
from gramian.registry import ALS, BPMF, Baseline
from gramian.visuals.console import note, print_table

__all__ = ["DEMO_RECIPES", "run_demo"]

# Chosen on validation parts of the training ratings (see benchmarks/README.md), never on the test ratings.
DEMO_RECIPES: dict[str, AnyRecipe] = {
    "global mean": Baseline(biases=False),
    "baseline (biases)": Baseline(regularization=4.0),
    "ALS, K = 32": ALS(factors=32, regularization=12.0, bias_regularization=3.0, epochs=15),
    "BPMF, K = 16": BPMF(factors=16, draws=150),
}


def run_demo(folder: Path, user: int) -> None:
    """Describe, split, fit, measure, show features, recommend, and draw into ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The folder {str(folder)!r} cannot be made: {error.strerror}; give another with --out."
        ) from None
    ratings = load_dataset("movielens-small")
    print("MovieLens Latest Small (2016), bundled with its terms of use\n")
    print(ratings.describe(factors=32))
    train, test = ratings.split(0.2, seed=0)
    if user not in train.user_ids:
        raise ParameterError(f"There is no user {user} in the bundled ratings; give one from 1 to {ratings.n_users}.")
    print(f"\nA random fifth is the test: {len(train):,} ratings to learn from, {len(test):,} to be measured on.\n")
    compile_kernels(train)
    models: dict[str, Model] = {name: recipe.fit(train, test, progress=True) for name, recipe in DEMO_RECIPES.items()}
    print_table(error_table(models, train, test), "Errors in stars (predictions clipped to the scale)")
    model, sure = models["ALS, K = 32"], models["BPMF, K = 16"]
    assert isinstance(model, FactorModel)
    assert isinstance(sure, BayesianModel)
    print()
    show_intervals(sure, test, user)
    show_features(model)
    show_recommendations(model, user)
    model.plot_history(folder / "learning-curve.png", validation_label="test")
    model.plot_item_map(folder / "item-map.png")
    model.save(folder / "als.gramian")
    sure.save(folder / "bpmf.gramian")
    print(f"Written to {folder}/: learning-curve.png, item-map.png, als.gramian and bpmf.gramian. Try next:")
    print(f"  gramian similar {folder}/als.gramian --item 'Toy Story (1995)'")
    print(f"  gramian recommend {folder}/als.gramian --rated 'Toy Story (1995)=5' --rated 'Shrek (2001)=4'")
    print(f"  gramian ask {folder}/bpmf.gramian --rated 'Toy Story (1995)=5'")


def compile_kernels(ratings: Ratings) -> None:
    """Let the kernels be compiled before anything is timed; the compiled code is kept on disk."""
    note("Making the kernels ready for this processor (some seconds after an installation, then no more) …")
    ALS(factors=2, epochs=1).fit(ratings.take(ratings.user_codes < 5))


def error_table(models: dict[str, Model], train: Ratings, test: Ratings) -> pl.DataFrame:
    """Train and test errors and seconds of each model."""
    rows = []
    for name, model in models.items():
        on_train, on_test = model.evaluate(train), model.evaluate(test)
        rows.append(
            {
                "model": name,
                "train MSE": on_train["mse"],
                "test MSE": on_test["mse"],
                "train RMSE": on_train["rmse"],
                "test RMSE": on_test["rmse"],
                "seconds": f"{sum(model.history.column('seconds')):.2f}",
            }
        )
    return pl.DataFrame(rows)


def show_intervals(model: BayesianModel, test: Ratings, user: int) -> None:
    """Print intervals for some test ratings of a user, and how many of all test ratings theirs hold."""
    lower, upper = model.predict_interval(test.users, test.items, level=0.9, unknown="nan").T
    known = ~np.isnan(lower)
    share = coverage(test.values[known], lower[known], upper[known])
    rows = np.flatnonzero(known & (test.users == user))[::30]
    predicted = model.predict(user, test.items[rows])
    columns = {"predicted": predicted, "90 % lower": lower[rows], "90 % upper": upper[rows], "gave": test.values[rows]}
    titles = test.titles if test.titles is not None else test.item_ids.ids
    table = pl.DataFrame({"title": titles.gather(test.item_codes[rows]), **columns})
    print_table(table, f"How sure is BPMF of user {user}? Its 90 % intervals hold {share:.1%} of the test ratings")
    print()


def show_features(model: FactorModel, features: int = 3) -> None:
    """Print the ten strongest titles of the leading latent features."""
    tops = [model.top_items(k, 10)["title"].alias(f"feature {k}") for k in range(features)]
    print_table(pl.DataFrame(tops), "What do the latent features mean? Their ten strongest items", cut=True)
    print()


def show_recommendations(model: FactorModel, user: int) -> None:
    """Print what a user liked beside what the model recommends."""
    best = model.recommend(user, n=10, unknown="raise")
    liked = model.rated_by(user).head(10)
    table = pl.concat(
        [
            liked.select(pl.col("title").alias(f"user {user} liked"), pl.col("rating").alias("stars")),
            best.select(pl.col("title").alias("recommended"), "score"),
        ],
        how="horizontal",
    )
    print_table(table, f"Ten recommendations for user {user}", cut=True)
    print()
