"""What the contract suite runs on: small recipes of every model. A new model adds one entry to ``MODELS``."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

import gramian as gm
from gramian.models.model import Model
from gramian.models.recipe import Recipe


class Variants(NamedTuple):
    """The small recipes of one model."""

    recipes: list[Recipe[Any]]
    # Whether a user's row is the solution of one system, so that fold-in gives it back to the bit.
    closed_form: bool
    # Small settings under which every field can show an effect (it overfits, so that patience can end it early).
    restless: Recipe[Any]
    # Whether a clipped prediction is the mean of many clipped ones, and not the free prediction clipped.
    clips_each_draw: bool = False


MODELS = {
    "baseline": Variants(
        [gm.Baseline(), gm.Baseline(biases=False), gm.Baseline(regularization=0.0, epochs=3)],
        closed_form=True,
        restless=gm.Baseline(regularization=0.0, epochs=3),
    ),
    "als": Variants(
        [
            gm.ALS(factors=4, regularization=2.0, epochs=6),
            gm.ALS(factors=4, regularization=2.0, epochs=6, bias_update="separate"),
            gm.ALS(factors=3, regularization=2.0, epochs=5, biases=False),
            gm.ALS(factors=4, regularization=0.1, epochs=5, weighting="count", bias_regularization=0.02),
            gm.ALS(factors=4, regularization=0.1, epochs=5, weighting="count", bias_update="separate"),
            gm.ALS(factors=5, regularization=1.0, bias_regularization=3.0, epochs=5, dtype="float64", seed=7),
            gm.ALS(factors=1, regularization=2.0, epochs=4),
            gm.ALS(factors=3, regularization=0.0, epochs=4, dtype="float64"),
            gm.ALS(factors=24, regularization=0.0, epochs=3, dtype="float64"),
            gm.ALS(factors=24, regularization=0.0, epochs=3, biases=False),
            gm.ALS(factors=4, regularization=2.0, epochs=6, solver="cg"),
            gm.ALS(factors=66, regularization=2.0, epochs=5, solver="block"),
        ],
        closed_form=True,
        restless=gm.ALS(factors=8, regularization=0.05, epochs=12),
    ),
    "svd": Variants(
        [
            gm.SVD(factors=4, epochs=3),
            gm.SVD(factors=3, impute="mean", epochs=3),
            gm.SVD(factors=4, impute="zero", epochs=3, dtype="float64"),
            gm.SVD(factors=45, impute="mean", epochs=3, dtype="float64"),
            gm.SVD(factors=1, bias_regularization=0.0, epochs=4),
        ],
        closed_form=True,
        restless=gm.SVD(factors=4, epochs=3),
    ),
    "softimpute": Variants(
        [
            gm.SoftImpute(factors=4, shrinkage=2.0, epochs=6, path=2),
            gm.SoftImpute(factors=4, shrinkage=2.0, epochs=6, centre="mean"),
            gm.SoftImpute(factors=45, shrinkage=1.0, epochs=4, bias_regularization=0.0, dtype="float64"),
            gm.SoftImpute(factors=2, shrinkage=0.0, epochs=4, dtype="float64"),
            gm.SoftImpute(factors=2, shrinkage=1e4, epochs=4),
        ],
        closed_form=True,
        restless=gm.SoftImpute(factors=8, shrinkage=0.05, path=4, epochs=12),
    ),
    "pmf": Variants(
        [
            gm.PMF(factors=4, epochs=6),
            gm.PMF(factors=4, epochs=5, noise_std=0.7, prior_precision=4.0, bias_precision=2.0),
            gm.PMF(factors=3, epochs=5, noise_std=0.7, biases=False, dtype="float64"),
            gm.PMF(factors=3, epochs=4, estimate="mle", dtype="float64"),
            gm.PMF(factors=2, epochs=4, prior_precision=3.0, seed=5),
        ],
        closed_form=True,
        restless=gm.PMF(factors=8, noise_std=0.5, prior_precision=0.2, epochs=12),
    ),
    "sgd": Variants(
        [
            gm.SGD(factors=4, regularization=2.0, epochs=4),
            gm.SGD(factors=4, regularization=0.1, weighting="count", optimizer="adam", learning_rate=0.01, epochs=4),
            gm.SGD(factors=3, regularization=1.0, bias_regularization=3.0, optimizer="momentum", learning_rate=0.002,
                   epochs=4, dtype="float64", seed=7),
            gm.SGD(factors=3, regularization=2.0, biases=False, schedule="inverse", epochs=4),
        ],
        closed_form=True,
        restless=gm.SGD(factors=8, regularization=0.05, optimizer="momentum", learning_rate=0.005,
                        schedule="inverse", epochs=30),
    ),
    "neuralmf": Variants(
        [gm.NeuralMF(factors=3, epochs=3)],
        closed_form=False,
        restless=gm.NeuralMF(factors=8, regularization=0.01, learning_rate=0.1, epochs=8, batch_size=1024),
    ),
    "mlp": Variants(
        [gm.MLP(factors=3, hidden=5, dropout=0.2, epochs=3)],
        closed_form=False,
        restless=gm.MLP(factors=8, hidden=64, regularization=0.01, layer_regularization=1e-6, dropout=0.05,
                        learning_rate=0.1, epochs=14, batch_size=1024, decay=0.0),
    ),
    "residual": Variants(
        [gm.ResidualMF(factors=3, hidden=4, epochs=3, optimizer="momentum", learning_rate=0.05)],
        closed_form=False,
        restless=gm.ResidualMF(factors=8, hidden=16, regularization=0.01, layer_regularization=1e-5, dropout=0.1,
                               learning_rate=0.1, epochs=8, batch_size=1024),
    ),
    "autorec": Variants(
        [
            gm.AutoRec(hidden=(6, 4), epochs=3, dropout=0.3, path="sparse"),
            gm.AutoRec(hidden=4, epochs=3, side="user", path="sparse", optimizer="momentum", dropout=0.0),
        ],
        closed_form=False,
        restless=gm.AutoRec(hidden=32, epochs=8, path="sparse", dropout=0.05, learning_rate=0.03, regularization=0.01),
    ),
    "bpmf": Variants(
        [
            gm.BPMF(factors=3, draws=8, burn_in=3),
            gm.BPMF(factors=2, draws=6, burn_in=2, chains=2, biases=False, keep_dtype="float32", init="cold"),
            gm.BPMF(factors=4, draws=5, burn_in=0, dtype="float64", noise_precision=2.0, seed=7),
            gm.BPMF(factors=2, draws=6, burn_in=2, implicit="both"),
            gm.BPMF(factors=2, draws=6, burn_in=2, noise="by_user"),
            gm.BPMF(factors=2, draws=6, burn_in=2, time=0.1),
            gm.BPMF(factors=2, draws=6, burn_in=2, time=0.1, drift=True),
            gm.BPMF(factors=2, draws=6, burn_in=2, likelihood="ordinal"),
        ],
        closed_form=False,
        restless=gm.BPMF(factors=2, draws=20, burn_in=2, memory=0.0),
        clips_each_draw=True,
    ),
}  # fmt: skip


TABLE = pl.DataFrame({"user": range(2000), "item": range(2000), "size": [n % 7 for n in range(2000)]})


def label(recipe: Recipe[Any]) -> str:
    """A recipe's name and what it sets, as a test id."""
    plain = {field.name: field.default for field in dataclasses.fields(recipe)}
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if value != plain[name]}
    return "-".join([recipe.name, *(f"{name}={value}" for name, value in fields.items())])


def shorter(recipe: Recipe[Any], epochs: int) -> Recipe[Any]:
    """The same training with so many epochs, and without burn-in, which may not be longer than they."""
    fields = {recipe.length_field: epochs} | ({"burn_in": 0} if hasattr(recipe, "burn_in") else {})
    return dataclasses.replace(recipe, **fields)


EVERY = [recipe for variants in MODELS.values() for recipe in variants.recipes]
FIRST = [variants.recipes[0] for variants in MODELS.values()]


@functools.cache
def fitted(recipe: Recipe[Any], ratings: gm.Ratings) -> Model:
    """A model of these ratings, trained once for all tests (models never change; ratings go by identity)."""
    return recipe.fit(ratings)


def plain_history(model: Model) -> list[dict[str, Any]]:
    """The history without the wall time, the only thing that may differ between equal trainings."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in model.history]


def assert_same_bits(one: Model, other: Model) -> None:
    """Parameters and history are equal to the bit; ids may differ."""
    mine, theirs = one.arrays(), other.arrays()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype
        assert mine[name].shape == theirs[name].shape
        assert mine[name].tobytes() == theirs[name].tobytes(), name
    assert plain_history(one) == plain_history(other)


def assert_same_model(one: Model, other: Model) -> None:
    """Recipe, ids, parameters, history and everything that comes out are equal."""
    assert one.recipe == other.recipe
    assert one.user_ids == other.user_ids
    assert one.item_ids == other.item_ids
    assert_same_bits(one, other)
    assert one.ratings.to_frame().equals(other.ratings.to_frame())
    users, items = every_pair(one)
    np.testing.assert_array_equal(one.predict(users, items), other.predict(users, items))
    assert one.recommend(n=7).equals(other.recommend(n=7))


def every_pair(model: Model) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """All (user, item) pairs of a model, by their ids."""
    users, items = model.user_ids.ids.to_numpy(), model.item_ids.ids.to_numpy()
    return np.repeat(users, len(items)), np.tile(items, len(users))


def rebuilt(frame: pl.DataFrame, **columns: Any) -> gm.Ratings:
    """The ratings of a table with some columns changed."""
    return gm.Ratings.from_frame(frame.with_columns(**columns))


def other_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """Another allowed value of a recipe's field."""
    about = field.metadata
    if about["table"]:
        return TABLE
    if about["choices"] is not None:
        return next(choice for choice in about["choices"] if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return value[:1]
    if isinstance(value, str):
        return 1.0
    if field.name == "batch_size" and value != 100:
        return 100
    if value is None:
        return 1 if about["low"] is None or about["low"] <= 1 else about["low"]
    if about["high"] is None or value + 1 <= about["high"]:
        return value + 1
    return value / 2 if value > 0 else about["high"] / 2
