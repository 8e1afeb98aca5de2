"""Protocols keep the test apart, and measure what they say."""

from __future__ import annotations

import numpy as np
import pytest

import gramian as gm
from gramian.evaluate.protocols import breakdown, cross_validate, evaluate_fold_in, hold_out


@pytest.mark.parametrize("protocol", ["random", "time", "last", "cold_users"])
def test_parts_share_no_rating_and_the_test_is_used_once(ratings, protocol):
    held = hold_out(ratings, protocol, validation=0.2, seed=1)
    pairs = [set(zip(part.users.tolist(), part.items.tolist(), strict=True)) for part in (held.train, held.validation)]
    assert not pairs[0] & pairs[1]
    assert len(held.train) + len(held.validation) == len(held.development) < len(ratings)
    model = gm.ALS(factors=2, epochs=3).fit(held.development)
    assert held.evaluate(model)["n"] > 0
    with pytest.raises(gm.ParameterError, match="used already"):
        held.evaluate(model)
    assert held.evaluate(model, again=True)["n"] > 0


def test_time_is_the_default_where_there_are_times(ratings, frame):
    held = hold_out(ratings)
    assert held.protocol == "time"
    assert held.train.times.max() < held.validation.times.min() <= held.validation.times.max()
    assert hold_out(gm.Ratings.from_frame(frame.drop("time"))).protocol == "random"


def test_a_model_that_saw_the_test_is_refused(ratings):
    held = hold_out(ratings, "random")
    with pytest.raises(gm.DataError, match="has seen"):
        held.evaluate(gm.Baseline().fit(ratings))
    assert held.tests == 0


def test_cold_users_are_not_in_the_training_and_fold_in_is_recommend_for(ratings):
    held = hold_out(ratings, "cold_users", seed=2)
    model = gm.ALS(factors=2, epochs=5).fit(held.development)
    test = held._test
    assert not set(test.users.tolist()) & set(held.development.users.tolist())
    given, asked = test.split(0.5, seed=0)
    found = evaluate_fold_in(model, given, asked)
    squared = []
    for user, item, value in zip(asked.users.tolist(), asked.items.tolist(), asked.values, strict=True):
        rated = {
            i: float(r)
            for u, i, r in zip(given.users.tolist(), given.items.tolist(), given.values, strict=True)
            if u == user
        }
        table = model.recommend_for(rated, n=ratings.n_items, exclude_seen=False)
        score = dict(table.select("item", "score").iter_rows()).get(item, model.ratings.global_mean)
        squared.append((np.clip(score, *model.scale) - value) ** 2)
    assert found["mse"] == pytest.approx(np.mean(squared), rel=1e-5)


def test_cross_validation_is_the_mean_over_the_folds(ratings):
    recipe = gm.ALS(factors=2, epochs=2)
    found = cross_validate(recipe, ratings, 3, seed=4)
    by_hand = [recipe.fit(train).evaluate(test)["rmse"] for train, test in ratings.folds(3, seed=4)]
    assert found.folds["rmse"].to_list() == by_hand
    assert found.rmse == pytest.approx(np.mean(by_hand))
    assert found.error == pytest.approx(np.std(by_hand, ddof=1) / np.sqrt(3))


def test_the_groups_of_a_breakdown_add_up(parts):
    model = gm.ALS(factors=2, epochs=3).fit(parts[0])
    table = breakdown(model, parts[1])
    whole = model.evaluate(parts[1])
    for _, group in table.group_by("by"):
        assert group["n"].sum() == whole["n"]
        assert (group["n"] * group["rmse"] ** 2).sum() / whole["n"] == pytest.approx(whole["mse"], rel=1e-6)
