"""The scikit-learn bridge: searches, scores and pipelines work, and the estimator checks that apply."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import gramian as gm

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from gramian.interop.sklearn import RatingRegressor

FOLDS = KFold(3, shuffle=True, random_state=0)


@pytest.fixture(scope="module")
def pairs(frame):
    return frame.select("user", "item").to_numpy(), frame["rating"].to_numpy()


def test_it_predicts_what_the_model_does(frame, pairs, ratings):
    X, y = pairs
    ours = gm.ALS(factors=2, epochs=3).fit(ratings).predict(frame["user"], frame["item"])
    assert np.array_equal(RatingRegressor("als", factors=2, epochs=3).fit(X, y).predict(X), ours)
    table = frame.select("user", "item")
    for kind in (table, table.to_pandas(), X.astype(float), X.astype(object)):
        assert np.array_equal(RatingRegressor(factors=2, epochs=3).fit(kind, y).predict(kind), ours)


def test_text_ids_work(text_frame):
    X, y = text_frame.select("user", "item").to_numpy(), text_frame["rating"].to_numpy()
    assert RatingRegressor(factors=2).fit(X, y).score(X, y) > 0.3


def test_grid_search_cross_validation_and_pipelines(pairs):
    X, y = pairs
    grid = {"regularization": [1.0, 10.0], "recipe": ["als"], "factors": [2]}
    search = GridSearchCV(RatingRegressor(epochs=3), grid, cv=FOLDS, scoring="neg_root_mean_squared_error").fit(X, y)
    assert search.best_params_["regularization"] in (1.0, 10.0)
    piped = make_pipeline(FunctionTransformer(), RatingRegressor("baseline"))
    scores = cross_val_score(piped, X, y, cv=FOLDS)
    assert scores.shape == (3,)
    assert scores.min() > 0


def test_clones_are_equal_and_unfitted():
    one = RatingRegressor("als", factors=3)
    other = clone(one).set_params(epochs=2)
    assert one.get_params() == {"recipe": "als", "duplicates": "mean", "factors": 3}
    assert other.get_params() == {**one.get_params(), "epochs": 2}


def test_wrong_input_is_said(pairs):
    X, y = pairs
    for wrong in (X[:, :1], X[0], X + 0.5, X[:0]):
        with pytest.raises(gm.DataError):
            RatingRegressor().fit(wrong, y[: len(wrong)])
    with pytest.raises(gm.DataError, match="one rating per pair"):
        RatingRegressor().fit(X, y[:5])
    with pytest.raises(gm.ParameterError, match="has no setting"):
        RatingRegressor(colour=1).fit(X, y)


# those that do not feed X of arbitrary real numbers, which are no ids; the settings are those of any recipe, so
# they are kept in one attribute and not in one each (check_no_attributes_set_in_init)
CHECKS = [
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_requires_y_none",
    "check_valid_tag_types",
    "check_do_not_raise_errors_in_init_or_set_param",
]


@pytest.mark.parametrize("name", [name for name in CHECKS if hasattr(estimator_checks, name)])
def test_estimator_checks_that_apply(name):
    getattr(estimator_checks, name)("RatingRegressor", RatingRegressor())


def test_an_unknown_pair_is_predicted_from_the_biases(pairs):
    X, y = pairs
    model = RatingRegressor("baseline").fit(X, y)
    assert model.predict([[1, 1]]) == pytest.approx([model.model_.ratings.global_mean])
    assert isinstance(model.model_.recommend(101, 3), pl.DataFrame)
