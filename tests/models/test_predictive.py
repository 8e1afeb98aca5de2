"""What every model with uncertainty has, on the smallest real Bayesian model."""

from __future__ import annotations

import numpy as np
import pytest
from item_means import ItemMeans, item_mean_ratings
from scipy import stats

import gramian as gm
from gramian.models import predictive


@pytest.fixture(scope="module")
def split():
    return item_mean_ratings().split(0.4, seed=0)


@pytest.fixture(scope="module")
def model(split):
    return ItemMeans(draws=200).fit(split[0])


@pytest.fixture(scope="module")
def starred():
    """A model of whole stars."""
    return ItemMeans().fit(item_mean_ratings(grid=1.0))


def pairs(model):
    return model.ratings.users[:50], model.ratings.items[:50]


def test_interval_std_and_probability_are_those_of_the_distribution(model):
    users, items = pairs(model)
    mixture = model.predictive(users, items)
    np.testing.assert_array_equal(model.predict_std(users, items), mixture.std())
    np.testing.assert_array_equal(model.predict_std(users, items, of="mean"), mixture.mean_std())
    ends = model.predict_interval(users, items, 0.8, clip=False)
    assert ends.shape == (50, 2)
    np.testing.assert_allclose(mixture.cdf(ends[:, 0]), 0.1)
    np.testing.assert_allclose(mixture.cdf(ends[:, 1]), 0.9)
    believed = model.predict_interval(users, items, 0.8, of="mean", clip=False)
    inside = (mixture.means >= believed[:, 0]) & (mixture.means <= believed[:, 1])
    np.testing.assert_allclose(inside.mean(axis=0), 0.8, atol=0.01)
    assert (np.diff(believed) < np.diff(ends)).all()
    np.testing.assert_allclose(model.probability(users, items, at_least=3.2), 1 - mixture.cdf(3.2))


def test_intervals_of_the_model_that_made_the_ratings_cover_what_they_say(model, split):
    test = split[1]
    for level in (0.5, 0.9):
        low, high = model.predict_interval(test.users, test.items, level).T
        covered = np.mean((test.values >= low) & (test.values <= high))
        assert covered == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / len(test)))


def test_pieces_change_nothing(model, monkeypatch):
    users, items = pairs(model)
    whole = [model.predict_interval(users, items), model.predict_std(users, items)]
    monkeypatch.setattr(predictive, "PIECE_CELLS", 7 * model.n_draws)
    np.testing.assert_array_equal(model.predict_interval(users, items), whole[0])
    np.testing.assert_array_equal(model.predict_std(users, items), whole[1])
    one_by_one = [model.predict_interval(user, item)[0] for user, item in zip(users, items, strict=True)]
    np.testing.assert_array_equal(one_by_one, whole[0])
    worlds = model.sample_predictive(np.repeat(users, 2), np.repeat(items, 2), 2000)
    assert np.corrcoef(worlds[:, 0], worlds[:, -1])[0, 1] == pytest.approx(0, abs=0.1)


def test_clipping_keeps_the_ends_on_the_scale(model):
    users, items = pairs(model)
    low, high = model.scale
    ends = model.predict_interval(users, items, 0.9999)
    assert ends.min() >= low
    assert ends.max() <= high
    assert model.predict_interval(users, items, 0.9999, clip=False).min() < low


def test_probability_on_a_grid_takes_half_a_step(starred):
    users, items = pairs(starred)
    mixture = starred.predictive(users, items)
    np.testing.assert_allclose(starred.probability(users, items, at_least=4), 1 - mixture.cdf(3.5))
    np.testing.assert_allclose(starred.probability(users, items, at_least=3.2), 1 - mixture.cdf(3.5))
    assert (starred.probability(users, items, at_least=1) == 1).all()
    assert (starred.probability(users, items, at_least=5.1) == 0).all()
    steps = np.array([starred.probability(users, items, at_least=t) for t in (1, 2, 3, 4, 5)])
    assert (np.diff(steps, axis=0) < 0).all()


def test_probability_of_stars_is_how_often_they_are_given():
    train, test = item_mean_ratings(200, 80, grid=1.0).split(0.4, seed=0)
    model = ItemMeans().fit(train)
    said = model.probability(test.users, test.items, at_least=4)
    assert said.mean() == pytest.approx(np.mean(test.values >= 4), abs=0.02)


def test_samples_follow_the_distribution_and_share_worlds(model):
    users, items = model.ratings.users[[0, 1, 2]], model.ratings.items[[0, 0, 1]]
    worlds = model.sample_predictive(users, items, 4000, seed=3)
    assert worlds.shape == (4000, 3)
    mixture = model.predictive(users, items)
    uniform = [mixture.cdf(row) for row in worlds]
    assert stats.kstest(np.array(uniform)[:, 2], "uniform").pvalue > 0.001
    shared = mixture.mean_std()[0] ** 2 / mixture.std()[0] ** 2
    assert np.corrcoef(worlds[:, 0], worlds[:, 1])[0, 1] == pytest.approx(shared, abs=0.05)
    np.testing.assert_array_equal(worlds, model.sample_predictive(users, items, 4000, seed=3))
    assert not np.array_equal(worlds, model.sample_predictive(users, items, 4000, seed=4))


def test_unknown_ids_follow_the_policy(model):
    item = model.ratings.items[0]
    for verb, more in ((model.predict_std, {}), (model.predict_interval, {}), (model.probability, {"at_least": 3})):
        with pytest.warns(gm.UnknownIdWarning, match="1 of 1 item ids") as caught:
            unsure = verb(0, -5, **more)
        assert caught[0].filename == __file__
        assert np.isfinite(unsure).all()
        assert np.isnan(verb(0, [item, -5], unknown="nan", **more)[1]).all()
        assert np.isfinite(verb(0, [item, -5], unknown="nan", **more)[0]).all()
        with pytest.raises(gm.UnknownIdError):
            verb(0, -5, unknown="raise", **more)
    assert np.isnan(model.sample_predictive(0, [item, -5], 3, unknown="nan")[:, 1]).all()
    with pytest.warns(gm.UnknownIdWarning) as caught:
        model.predict(0, -5)
    assert caught[0].filename == __file__


def test_wrong_arguments_get_one_sentence(model):
    users, items = pairs(model)
    for level in (0, 1, 90, -0.5, float("nan"), "high", None, True):
        with pytest.raises(gm.ParameterError, match=r"'level' parameter .* must be a number in \(0, 1\); got"):
            model.predict_interval(users, items, level)
    with pytest.raises(gm.ParameterError, match="'rating', 'mean'"):
        model.predict_std(users, items, of="median")
    with pytest.raises(gm.ParameterError, match="at_least"):
        model.probability(users, items, at_least=float("inf"))
    with pytest.raises(gm.ParameterError, match="draws"):
        model.sample_predictive(users, items, 0)
    with pytest.raises(gm.DataError, match="must pair up"):
        model.predict_interval(users[:3], items[:4])


def test_nothing_asked_is_nothing_given(model):
    assert model.predict_interval([], []).shape == (0, 2)
    assert model.predict_std([], []).shape == (0,)
    assert model.sample_predictive([], [], 4).shape == (4, 0)
