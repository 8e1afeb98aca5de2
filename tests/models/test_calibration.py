"""Calibration measures against known answers, and conformal intervals against what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from contract import fitted
from hypothesis import given
from hypothesis import strategies as st
from item_means import ItemMeans, item_mean_ratings
from scipy import stats

import gramian as gm
from gramian.core import file_format
from gramian.data.groups import group_edges, group_names, group_of, training_counts
from gramian.data.pairs import Pairs
from gramian.metrics.intervals import coverage, interval_score, mean_width, pit_histogram, spearman
from gramian.models.conformal import conformal_quantile

ALS = gm.ALS(factors=4, regularization=2.0, epochs=6)


@pytest.fixture(scope="module")
def thirds():
    """Training, calibration and test ratings that the ItemMeans model made."""
    rest, test = item_mean_ratings(200, 80).split(0.3, seed=0)
    return *rest.split(0.4, seed=1), test


@pytest.fixture(scope="module")
def starred_thirds():
    rest, test = item_mean_ratings(200, 80, grid=1.0).split(0.3, seed=0)
    return *rest.split(0.4, seed=1), test


# ---- measures on plain arrays ------------------------------------------------------------------------


def test_coverage_and_width_of_four_intervals():
    actual, lower, upper = [1, 2, 3, 4], [1, 0, 3.5, 2], [2, 1.5, 5, 4]
    assert coverage(actual, lower, upper) == 0.5
    assert mean_width(lower, upper) == pytest.approx((1 + 1.5 + 1.5 + 2) / 4)


def test_interval_score_by_hand():
    assert interval_score([3.0], [2.0], [4.0], 0.9) == pytest.approx(2.0)
    assert interval_score([1.5], [2.0], [4.0], 0.9) == pytest.approx(2.0 + 20 * 0.5)
    assert interval_score([5.0], [2.0], [4.0], 0.8) == pytest.approx(2.0 + 10 * 1.0)
    with pytest.raises(gm.ParameterError, match=r"\(0, 1\)"):
        interval_score([1], [1], [1], 1.0)


def test_interval_score_is_least_at_the_true_quantiles():
    values = np.random.default_rng(0).normal(size=50_000)
    scores = {
        z: interval_score(values, np.full(len(values), -z), np.full(len(values), z), 0.9) for z in (1.4, 1.645, 1.9)
    }
    assert min(scores, key=scores.get) == 1.645
    # E S = 2φ(z)·2/α for the true central interval
    assert scores[1.645] == pytest.approx(2 * stats.norm.pdf(1.645) * 2 / 0.1, rel=0.01)


def test_pit_of_continuous_distributions_is_the_histogram_of_the_transform():
    u = np.random.default_rng(1).random(5000)
    np.testing.assert_allclose(pit_histogram(u, u, 8), np.histogram(u, 8, (0, 1))[0] / len(u))


def test_pit_of_discrete_distributions_is_flat_where_the_randomized_one_is():
    p = np.array([0.1, 0.2, 0.4, 0.25, 0.05])
    upto = np.cumsum(p)
    stars = np.repeat(np.arange(5), (1000 * p).astype(int))
    np.testing.assert_allclose(pit_histogram((upto - p)[stars], upto[stars]), 0.1, atol=1e-12)
    drawn = np.random.default_rng(2).choice(5, 4000, p=[0.3, 0.3, 0.2, 0.1, 0.1])
    flat = pit_histogram((upto - p)[drawn], upto[drawn])
    v = np.random.default_rng(3).random((200, len(drawn)))
    randomized = (upto - p)[drawn] + v * p[drawn]
    np.testing.assert_allclose(flat, np.histogram(randomized, 10, (0, 1))[0] / randomized.size, atol=1e-3)
    assert flat[0] > 0.2


@given(st.lists(st.integers(0, 6), min_size=3, max_size=30), st.integers(0, 1000))
def test_spearman_is_that_of_scipy(values, seed):
    other = np.random.default_rng(seed).integers(0, 5, len(values))
    found = spearman(values, other)
    if len(set(values)) == 1 or len(set(other.tolist())) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(values, other).statistic, abs=1e-12)


def test_groups_go_by_training_counts(ratings):
    pairs = Pairs(np.array([-1, 0, 1], np.int32), np.array([0, -1, 2], np.int32))
    counts = training_counts(ratings, pairs, "activity")
    assert counts.tolist() == [0, *ratings.by_user.counts[:2]]
    assert training_counts(ratings, pairs, "popularity")[1] == 0
    assert group_names(np.array([0, 3, 4, 9])) == ["0–2", "3", "4–8", "9+"]
    edges = group_edges(ratings, "popularity", 4)
    assert edges[0] == 0
    labels = group_of(edges, ratings.by_item.counts[ratings.item_codes])
    np.testing.assert_allclose(np.bincount(labels) / len(ratings), 0.25, atol=0.1)
    assert group_of(np.array([0, 3, 4]), np.array([0, 2, 3, 4, 99])).tolist() == [0, 0, 1, 2, 2]


# ---- of a model --------------------------------------------------------------------------------------


def test_a_calibrated_model_is_found_calibrated(thirds):
    train, _, test = thirds
    measured = gm.calibration(ItemMeans(draws=100).fit(train), test)
    assert measured.n == len(test)
    off = (measured.curve["coverage"] - measured.curve["level"]) / measured.curve["error"]
    assert off.abs().max() < 4
    np.testing.assert_allclose(measured.pit, 0.1, atol=4 * np.sqrt(0.09 / len(test)))
    # for a normal of σ = 0.8 the mean CRPS is σ/√π
    assert measured.crps == pytest.approx(0.8 / np.sqrt(np.pi), rel=0.05)
    assert measured.groups.filter(pl.col("by") == "activity")["n"].sum() == len(test)
    wide = gm.calibration(ItemMeans(draws=100, noise=1.6).fit(train), test)
    assert wide.at(0.5)["coverage"] > 0.7
    assert wide.crps > measured.crps
    assert wide.at(0.9)["interval_score"] > measured.at(0.9)["interval_score"]
    assert wide.pit[4] > 0.15 > 0.05 > wide.pit[0]


def test_the_transform_of_stars_is_flat_too(starred_thirds):
    train, _, test = starred_thirds
    measured = gm.calibration(ItemMeans(draws=60, noise=np.hypot(0.8, 12**-0.5)).fit(train), test)
    np.testing.assert_allclose(measured.pit, 0.1, atol=0.02)


def test_calibration_is_plain_data_text_and_a_picture(thirds, tmp_path: Path):
    train, calibration, test = thirds
    for model in (ItemMeans().fit(train), gm.conformal(ALS.fit(train), calibration)):
        measured = gm.calibration(model, test, levels=[0.5, 0.8])
        data = json.loads(json.dumps(measured.to_dict()))
        assert [row["level"] for row in data["curve"]] == [0.5, 0.8, 0.9]
        assert (data["pit"] is None) == (data["crps"] is None) == isinstance(model, gm.Conformal)
        assert f"90 % intervals hold {100 * measured.at(0.9)['coverage']:.1f} %" in str(measured)
        assert len(measured.plot(tmp_path / "c.png").axes) == (2 if data["pit"] is None else 3)
        assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
        with pytest.raises(gm.ParameterError, match=r"0\.7 was not measured"):
            measured.at(0.7)


def test_what_cannot_be_measured_is_refused(thirds, ratings):
    train, calibration, test = thirds
    plain = ALS.fit(train)
    with pytest.raises(gm.ParameterError, match="A model of ALS has no intervals of its own"):
        gm.calibration(plain, test)
    known = gm.conformal(plain, calibration)
    with pytest.raises(gm.ParameterError, match=r"'levels' parameter .* \(0, 1\); got 90"):
        known.calibration(test, levels=[90])
    with pytest.raises(gm.DataError, match="Ratings are needed"):
        known.calibration(test.to_frame())
    strangers = gm.Ratings.from_frame(test.to_frame().with_columns(pl.col("user") + 10_000))
    assert known.calibration(strangers).n == len(strangers)
    with pytest.raises(gm.DataError, match="Nothing is left"):
        known.calibration(strangers, unknown="nan")


def test_the_two_intervals_are_drawn(thirds, tmp_path: Path):
    train = thirds[0]
    model = ItemMeans().fit(train)
    rated = model.rated_by(train.users[0]).head(5)
    figure = model.plot_intervals(train.users[0], rated["item"], tmp_path / "i.svg", actual=rated["rating"])
    drawn = [collection.get_segments() for collection in figure.axes[0].collections]
    expected = model.predict_interval(train.users[0], rated["item"], of="mean")
    np.testing.assert_allclose([segment[:, 0] for segment in drawn[1]], expected)
    assert (tmp_path / "i.svg").read_text().startswith("<?xml")
    with pytest.raises(gm.UnknownIdError):
        model.plot_intervals(train.users[0], [-7])


# ---- conformal ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.01, 0.99))
def test_the_quantile_is_the_published_order_statistic(scores, level):
    ordered = np.sort(np.array(scores, np.float64))
    k = int(np.ceil(round((len(ordered) + 1) * level, 9)))
    expected = np.inf if k > len(ordered) else ordered[k - 1]
    assert conformal_quantile(ordered, level) == expected


def test_the_quantile_does_not_slip_by_rounding():
    assert conformal_quantile(np.arange(1.0, 100.0), 0.28) == 28  # 100·0.28 is 28.000000000000004
    assert conformal_quantile(np.arange(1.0, 10.0), 0.9) == 9
    assert conformal_quantile(np.arange(1.0, 9.0), 0.9) == np.inf


def test_the_guarantee_holds_for_exchangeable_scores_of_any_shape():
    """P(covered) is within [level, level + 1/(n + 1)], exactly: here by 4,000 repetitions for each small n."""
    rng = np.random.default_rng(0)
    for n, level in ((9, 0.9), (10, 0.9), (23, 0.8), (57, 0.5)):
        scores = rng.pareto(1.5, (4000, n + 1))
        held = np.mean([row[-1] <= conformal_quantile(np.sort(row[:-1]), level) for row in scores])
        expected = np.ceil((n + 1) * level - 1e-9) / (n + 1)
        assert held == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 4000))


@pytest.mark.parametrize("recipe", [gm.Baseline(), ALS, ItemMeans(noise=0.2)], ids=lambda recipe: recipe.name)
def test_any_model_gets_the_coverage_it_says(recipe, thirds):
    train, calibration, test = thirds
    model = gm.conformal(recipe.fit(train), calibration)
    measured = model.calibration(test)
    noise = np.hypot(measured.curve["error"], np.sqrt(0.25 / len(calibration)))
    assert ((measured.curve["coverage"] - measured.curve["level"]).abs() / noise).max() < 4
    narrow = gm.conformal(recipe.fit(train), calibration).predict_interval(test.users, test.items, 0.5)
    assert (np.diff(narrow) <= np.diff(model.predict_interval(test.users, test.items, 0.9)) + 1e-12).all()


def test_ninety_percent_on_real_ratings():
    """90 ± 1 % on the bundled ratings. One split has a standard deviation of 0.4 % by its 20,000 test and 8,000
    calibration ratings, so three splits are averaged: 0.23 %.
    """
    ratings = gm.load_dataset("movielens-small")
    held = []
    for seed in range(3):
        rest, test = ratings.split(0.2, seed=seed)
        train, calibration = rest.split(0.1, seed=seed)
        model = gm.conformal(gm.ALS(factors=8, epochs=4).fit(train), calibration)
        held.append(model.calibration(test, levels=[0.9]).at(0.9)["coverage"])
    assert 0.89 <= np.mean(held) <= 0.91


def test_groups_are_calibrated_apart(thirds):
    """Noise that grows with the item's popularity: one width for all is wrong in every group, apart it is right."""
    rng = np.random.default_rng(0)
    fill = np.repeat([0.1, 0.6], 60)
    users, items = np.nonzero(rng.random((300, 120)) < fill)
    values = 3 + np.where(items < 60, 0.3, 1.2) * rng.standard_normal(len(users))
    every = gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))
    rest, test = every.split(0.3, seed=0)
    train, calibration = rest.split(0.4, seed=1)
    model = gm.Baseline(biases=False).fit(train)
    groups = {}
    for by in (None, "popularity"):
        found = gm.conformal(model, calibration, by=by, groups=8).calibration(test, levels=[], groups=8).groups
        groups[by] = found.filter(pl.col("by") == "popularity")
    assert groups[None]["coverage"].min() < 0.88
    assert groups[None]["coverage"].max() > 0.97
    np.testing.assert_allclose(groups["popularity"]["coverage"], 0.9, atol=0.045)
    assert groups["popularity"]["width"][-1] > 2 * groups["popularity"]["width"][0]


def test_a_model_that_knows_its_uncertainty_keeps_it(thirds):
    train, calibration, test = thirds
    inner = ItemMeans(noise=0.2).fit(train)
    model = gm.conformal(inner, calibration)
    ends = model.predict_interval(test.users, test.items, clip=False)
    ratio = np.diff(ends)[:, 0] / inner.predict_std(test.users, test.items)
    np.testing.assert_allclose(ratio, ratio[0])
    assert ratio[0] / 2 > 1.645
    np.testing.assert_allclose(ends.mean(axis=1), inner.predict(test.users, test.items))
    assert model.calibration(test).spearman is not None
    plain = gm.conformal(ALS.fit(train), calibration)
    assert np.ptp(np.diff(plain.predict_interval(test.users, test.items, clip=False))) < 1e-9
    assert plain.calibration(test).spearman is None


@pytest.mark.parametrize("recipe", [ALS, ItemMeans(spread=3.0, draws=7)], ids=lambda recipe: recipe.name)
def test_predictions_and_recommendations_are_the_models_own(recipe, starred_thirds):
    train, calibration, test = starred_thirds
    inner = recipe.fit(train)
    model = gm.conformal(inner, calibration)
    assert isinstance(model, gm.Model)
    for clip in (True, False):
        expected = inner.predict(test.users, test.items, clip=clip)
        np.testing.assert_array_equal(model.predict(test.users, test.items, clip=clip), expected)
    assert model.evaluate(test) == inner.evaluate(test)
    assert model.recommend(n=4).equals(inner.recommend(n=4))
    if recipe is not ALS:
        assert model.recommend(n=1, by="chance")["by"][0] == "chance"


def test_everything_else_is_as_the_model_does_it(thirds):
    train, calibration, _ = thirds
    inner = ALS.fit(train)
    model = gm.conformal(inner, calibration)
    item = train.items[0]
    assert model.recommend_for({item: 4.0}, n=3).equals(inner.recommend_for({item: 4.0}, n=3))
    assert model.n_factors == 4
    assert gm.conformal(model, calibration).model is inner
    with pytest.raises(gm.ParameterError, match="cannot be updated"):
        model.update(calibration)
    with pytest.raises(AttributeError):
        _ = model.nonsense


@pytest.mark.parametrize("by", [None, "activity", "popularity"])
def test_saved_loaded_equal(thirds, tmp_path: Path, by):
    train, calibration, test = thirds
    model = gm.conformal(ALS.fit(train), calibration, by=by, groups=3)
    model.save(tmp_path / "m.gramian")
    for mmap in (False, True):
        read = gm.load(tmp_path / "m.gramian", mmap=mmap)
        assert isinstance(read, gm.Conformal)
        assert read.by == by
        assert repr(read) == repr(model)
        ends = read.predict_interval(test.users, test.items, 0.8)
        np.testing.assert_array_equal(ends, model.predict_interval(test.users, test.items, 0.8))
        assert read.recommend_for({train.items[0]: 4.0}, n=3).equals(model.recommend_for({train.items[0]: 4.0}, n=3))


def test_damaged_scores_are_refused(thirds, tmp_path: Path):
    train, calibration, _ = thirds
    arrays, about = gm.conformal(ALS.fit(train), calibration, by="activity").content()
    bad = {
        "conformal.scores": [arrays["conformal.scores"][:-1], arrays["conformal.scores"].astype(np.float32), None],
        "conformal.ends": [arrays["conformal.ends"][::-1].copy(), np.empty(0, np.int64), None],
        "conformal.edges": [arrays["conformal.edges"][1:], None],
    }
    for name, values in bad.items():
        for value in values:
            changed = {key: array for key, array in {**arrays, name: value}.items() if array is not None}
            file_format.write_file(tmp_path / "m.gramian", changed, about)
            with pytest.raises(gm.FormatError, match="do not fit together"):
                gm.load(tmp_path / "m.gramian")
    file_format.write_file(tmp_path / "m.gramian", arrays, {**about, "by": "mood"})
    with pytest.raises(gm.FormatError):
        gm.load(tmp_path / "m.gramian")


def test_calibration_ratings_that_were_trained_on_are_refused(thirds):
    train, calibration, _ = thirds
    model = ALS.fit(train)
    with pytest.raises(gm.DataError, match=r"must be held out: 5 of 5 were in the training"):
        gm.conformal(model, train.take(np.arange(len(train)) < 5))
    mixed = calibration.merge(train.take(np.arange(len(train)) < 7))
    with pytest.raises(gm.DataError, match=f"7 of {len(mixed):,} were"):
        gm.conformal(model, mixed)
    for wrong in ([], calibration.to_frame(), None):
        with pytest.raises(gm.DataError, match="Ratings are needed to calibrate"):
            gm.conformal(model, wrong)
    with pytest.raises(gm.ParameterError, match="'activity', 'popularity'"):
        gm.conformal(model, calibration, by="age")
    with pytest.raises(gm.ParameterError, match="groups"):
        gm.conformal(model, calibration, by="activity", groups=0)


def test_too_few_ratings_for_a_level_are_said(thirds):
    train, calibration, test = thirds
    model = gm.conformal(ALS.fit(train), calibration.take(np.arange(len(calibration)) < 8))
    with pytest.warns(gm.DataWarning, match=r"for level 0\.9: found 8, needed 9; the interval is infinite") as caught:
        ends = model.predict_interval(test.users, test.items, 0.9, clip=False)
    assert caught[0].filename == __file__
    assert np.isinf(ends).all()
    with pytest.warns(gm.DataWarning):
        assert model.predict_interval(test.users, test.items, 0.9).tolist() == [list(model.scale)] * len(test)
    assert np.isfinite(model.predict_interval(test.users, test.items, 0.8, clip=False)).all()
    few = gm.conformal(ALS.fit(train), calibration.take(np.arange(len(calibration)) < 40), by="popularity")
    with pytest.warns(gm.DataWarning, match=r"ratings of popularity \d+.*; the interval is infinite there"):
        few.predict_interval(test.users, test.items, 0.95)


def test_conformal_intervals_follow_the_policy_for_unknown_ids(thirds):
    train, calibration, _ = thirds
    model = gm.conformal(ALS.fit(train), calibration, by="activity")
    item = train.items[0]
    with pytest.warns(gm.UnknownIdWarning) as caught:
        assert np.isfinite(model.predict_interval(-5, item)).all()
    assert caught[0].filename == __file__
    assert np.isnan(model.predict_interval([train.users[0], -5], item, unknown="nan")).tolist() == [
        [False] * 2,
        [True] * 2,
    ]
    with pytest.raises(gm.UnknownIdError):
        model.predict_interval(-5, item, unknown="raise")
    with pytest.raises(gm.ParameterError, match="'level'"):
        model.predict_interval(train.users[0], item, 1.0)


def test_fitted_models_of_the_contract_have_conformal_intervals_of_any_ids(text_ratings):
    train, calibration = text_ratings.split(0.3, seed=0)
    model = gm.conformal(fitted(ALS, train), calibration, by="activity", groups=2)
    ends = model.predict_interval(calibration.users, calibration.items, 0.8)
    assert coverage(calibration.values, *ends.T) == pytest.approx(0.8, abs=0.02)


def test_a_model_with_conformal_intervals_is_judged_on_cold_users_as_the_model_is(ratings):
    train, calibration = ratings.split(0.3, seed=0)
    model = fitted(ALS, train)
    new = calibration.take(calibration.user_codes < 10)
    asked = new.split(0.5, seed=1)
    found = gm.evaluate_fold_in(gm.conformal(model, calibration), *asked)
    assert found["rmse"] == gm.evaluate_fold_in(model, *asked)["rmse"]
