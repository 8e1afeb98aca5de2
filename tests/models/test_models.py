"""What single models do beyond the contract: history and early stopping, similar things, features, pictures."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings

import numpy as np
import polars as pl
import pytest
from contract import MODELS, fitted

import gramian as gm
from gramian.core.parameters import param
from gramian.metrics import prediction
from gramian.models.selection import best_pairs
from gramian.visuals import figures

PLAIN = gm.ALS(factors=4, regularization=2.0, epochs=6)
WIDE = gm.ALS(factors=3, regularization=1.5, epochs=8, dtype="float64", seed=2)
RESTLESS = MODELS["als"].restless


@pytest.fixture(scope="module")
def titled(ratings):
    """The ratings with titles for all items but one."""
    items = ratings.item_ids.ids
    titles = pl.DataFrame({"item": items[:-1], "title": [f"Film {item}" for item in items[:-1]]})
    return ratings.with_items(titles)


# ---- history and early stopping --------------------------------------------------------------------


def test_the_history_records_every_epoch(parts):
    train, test = parts
    plain = PLAIN.fit(train).history
    assert [record["epoch"] for record in plain] == [1, 2, 3, 4, 5, 6]
    assert all(record.keys() == {"epoch", "objective", "train_rmse", "seconds"} for record in plain)
    assert all(record["seconds"] > 0 for record in plain)
    model = PLAIN.fit(train, validation=test)
    table = model.history.to_frame()
    assert set(table.columns) == {"epoch", "objective", "train_rmse", "validation_rmse", "seconds"}
    assert table.height == len(model.history) == 6
    assert table["epoch"].to_list() == list(range(1, 7))
    assert model.history[-1]["validation_rmse"] == model.evaluate(test)["rmse"]
    assert model.history[-1]["train_rmse"] == pytest.approx(model.evaluate(train, clip=False)["rmse"], rel=1e-6)
    assert model.history.column("validation_rmse") == table["validation_rmse"].to_list()
    assert model.history.column("nothing") == [None] * 6


def test_a_history_is_a_read_only_sequence():
    history = gm.History([{"epoch": 1, "train_rmse": 0.9}]).append(epoch=2, train_rmse=0.8)
    assert len(history) == 2
    assert history[-1] == {"epoch": 2, "train_rmse": 0.8}
    assert history[:1] == gm.History([{"epoch": 1, "train_rmse": 0.9}])
    assert next(reversed(history))["epoch"] == 2
    assert history != gm.History()
    history[0]["epoch"] = 77
    assert history[0]["epoch"] == 1
    assert "2 epochs" in repr(history)
    with pytest.raises(IndexError):
        history[2]


@pytest.mark.parametrize("recipe", [RESTLESS, dataclasses.replace(RESTLESS, bias_update="separate", factors=5)])
@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_returns_the_best_epoch(recipe, patience, wide_parts):
    train, test = wide_parts
    model = dataclasses.replace(recipe, patience=patience, epochs=60).fit(train, validation=test)
    errors = model.history.column("validation_rmse")
    best = int(np.argmin(errors)) + 1
    assert 1 < best < len(errors) < 60
    assert len(errors) == best + patience
    assert model.evaluate(test)["rmse"] == errors[best - 1] == min(errors)
    alone = dataclasses.replace(recipe, epochs=best).fit(train)
    assert model.user_rows.tobytes() == alone.user_rows.tobytes()
    assert model.item_rows.tobytes() == alone.item_rows.tobytes()


def test_without_patience_the_last_epoch_is_returned(wide_parts):
    train, test = wide_parts
    model = dataclasses.replace(RESTLESS, epochs=8).fit(train, validation=test)
    errors = model.history.column("validation_rmse")
    assert len(errors) == 8
    assert model.evaluate(test)["rmse"] == errors[-1] > min(errors)


def test_patience_that_is_never_tried_changes_nothing(parts):
    train, test = parts
    model = dataclasses.replace(PLAIN, patience=6).fit(train, validation=test)
    errors = model.history.column("validation_rmse")
    assert len(errors) == 6
    assert model.evaluate(test)["rmse"] == min(errors)
    with pytest.raises(gm.ParameterError, match="'patience' parameter of ALS needs validation ratings"):
        dataclasses.replace(PLAIN, patience=6).fit(train)
    with pytest.raises(gm.ParameterError, match="needs validation ratings"):
        list(dataclasses.replace(PLAIN, patience=6).iterate(train))


def test_callbacks_see_a_usable_model_per_epoch(parts):
    train, test = parts
    seen = []
    model = PLAIN.fit(train, test, callback=lambda m: seen.append((len(m.history), m.evaluate(test)["rmse"])))
    assert seen == list(enumerate(model.history.column("validation_rmse"), 1))


def test_an_error_of_a_callback_is_not_swallowed(ratings):
    def broken(_):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        PLAIN.fit(ratings, callback=broken)


def test_a_test_set_with_new_users_and_items_is_normal(ratings):
    some = ratings.take(ratings.users < 200)
    rest = ratings.take(ratings.users >= 200)
    model = PLAIN.fit(some, validation=rest)
    assert model.evaluate(rest)["n"] == len(rest)
    assert model.history[-1]["validation_rmse"] == model.evaluate(rest)["rmse"]


def test_als_beats_the_baseline_and_the_mean(wide_ratings):
    train, test = wide_ratings.split(0.2, seed=0)
    mean, bar, model = (
        recipe.fit(train).evaluate(test)["rmse"] for recipe in (gm.Baseline(biases=False), gm.Baseline(), PLAIN)
    )
    assert model < 0.75 * bar < 0.75 * 0.9 * mean


def test_the_mean_alone_is_the_mean(ratings):
    model = gm.Baseline(biases=False, dtype="float64").fit(ratings)
    assert model.predict(101, 11) == pytest.approx(np.mean(ratings.values.astype(float)), rel=1e-12)
    assert model.n_factors == 0
    assert model.user_factors.shape == (60, 0)


def test_a_baseline_solves_its_equations(ratings):
    model = gm.Baseline(regularization=3.0, epochs=300, dtype="float64").fit(ratings)
    b, c, mu = model.user_biases, model.item_biases, ratings.global_mean
    left = ratings.values.astype(float) - mu - b[ratings.user_codes] - c[ratings.item_codes]
    np.testing.assert_allclose(np.bincount(ratings.user_codes, left), 3.0 * b, atol=1e-9)
    np.testing.assert_allclose(np.bincount(ratings.item_codes, left), 3.0 * c, atol=1e-9)
    assert model.predict(101, 18, clip=False)[0] == pytest.approx(mu + b[0] + c[1], rel=1e-12)


def test_metrics():
    errors = prediction.rating_errors([1.0, 2.0, 4.0], [1.0, 4.0, 1.0])
    assert errors == pytest.approx({"rmse": np.sqrt(13 / 3), "mse": 13 / 3, "mae": 5 / 3, "n": 3})
    assert isinstance(errors["n"], int)
    assert prediction.rmse([1, 2], [1, 4]) == pytest.approx(np.sqrt(2))
    assert prediction.mae([1, 2], [1, 4]) == 1.0
    large = np.full(10_000, 1e4 + 0.1, np.float32)
    assert prediction.mse(large, np.zeros(10_000, np.float32)) == pytest.approx(float(large[0]) ** 2, rel=1e-12)


# ---- similar things --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["items", "users"])
def test_similar_things_are_those_of_the_largest_cosine(side, ratings):
    model = fitted(WIDE, ratings)
    factors, ids = {
        "items": (model.item_factors, model.item_ids),
        "users": (model.user_factors, model.user_ids),
    }[side]
    verb = model.similar_items if side == "items" else model.similar_users
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    for code in (0, 7, len(ids) - 1):
        cosine = unit @ unit[code]
        others = np.delete(np.arange(len(ids)), code)
        order = others[np.argsort(-cosine[others], kind="stable")]
        for n in (1, 5, len(ids) - 1, len(ids), 1000):
            got = verb(ids.ids[code], n=n)
            assert got.columns == [side[:-1], "similarity", "rank"]
            assert got.height == min(n, len(ids) - 1)
            assert got[side[:-1]].to_list() == ids.take(order[:n]).to_list()
            np.testing.assert_allclose(got["similarity"], cosine[order[:n]], atol=1e-12)
            assert got["rank"].to_list() == list(range(1, got.height + 1))
    with pytest.raises(gm.UnknownIdError, match=rf"The {side[:-1]} 2 is unknown to the model"):
        verb(2)
    with pytest.raises(gm.DataError, match="another kind"):
        verb("11")
    with pytest.raises(gm.ParameterError, match="'n' parameter of similar"):
        verb(ids.ids[0], n=0)


def test_items_without_factors_are_like_nothing():
    table = gm.Ratings.from_frame(pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 3], "rating": [3.0, 3.0, 3.0]}))
    model = gm.ALS(factors=2, regularization=1.0, epochs=30).fit(table)
    assert not model.item_factors.any()
    assert model.similar_items(1)["similarity"].to_list() == [0.0, 0.0]


def test_models_of_biases_have_no_features(ratings):
    model = fitted(gm.Baseline(), ratings)
    for verb in (
        lambda: model.similar_items(11),
        lambda: model.similar_users(101),
        lambda: model.top_items(0),
        lambda: model.plot_item_map(),
    ):
        with pytest.raises(gm.ParameterError, match="Baseline has no latent features"):
            verb()


# ---- latent features -------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [WIDE, PLAIN, gm.ALS(factors=1, epochs=3, dtype="float64")], ids=repr)
def test_features_are_the_singular_directions_and_leave_the_predictions(recipe, ratings):
    model = fitted(recipe, ratings)
    K = recipe.factors
    users, items = model.features
    W, U = model.user_factors.astype(float), model.item_factors.astype(float)
    np.testing.assert_allclose(users @ items.T, W @ U.T, atol=1e-12)
    np.testing.assert_allclose(users.T @ users / len(users), np.eye(K), atol=1e-12)
    gram = items.T @ items
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-12 * gram[0, 0])
    singular = np.linalg.svd(W @ U.T, compute_uv=False)[:K]
    np.testing.assert_allclose(np.sqrt(np.diag(gram) * len(users)), singular, rtol=1e-9)
    assert (items[np.abs(items).argmax(axis=0), np.arange(K)] > 0).all()


def test_fewer_users_than_factors_have_empty_features():
    few = gm.Ratings.from_frame(pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 2, 3], "rating": [1.0, 4, 2, 5]}))
    model = gm.ALS(factors=4, regularization=0.1, dtype="float64").fit(few)
    users, items = model.features
    assert (users.shape, items.shape) == ((2, 4), (3, 4))
    np.testing.assert_allclose(users @ items.T, model.user_factors @ model.item_factors.T, atol=1e-12)
    assert not items[:, 2:].any()


def test_features_do_not_depend_on_how_the_factors_are_turned(ratings):
    model = fitted(WIDE, ratings)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rows = {name: np.column_stack([array[:, :3] @ turn, array[:, 3]]) for name, array in model.arrays().items()}
    other = dataclasses.replace(model, **rows)
    for feature in range(3):
        mine, theirs = model.top_items(feature, n=40), other.top_items(feature, n=40)
        assert mine["item"].to_list() == theirs["item"].to_list()
        np.testing.assert_allclose(mine["weight"], theirs["weight"], atol=1e-9)


def test_top_items_are_the_strongest_of_a_feature(ratings):
    model = fitted(WIDE, ratings)
    weights = model.features.items
    for feature in range(3):
        order = np.argsort(-weights[:, feature], kind="stable")
        for n in (1, 10, 40, 99):
            got = model.top_items(feature, n=n)
            assert got["item"].to_list() == model.item_ids.take(order[:n]).to_list()
            np.testing.assert_allclose(got["weight"], weights[order[:n], feature], atol=1e-12)
            assert got["rank"].to_list() == list(range(1, min(n, 40) + 1))
        low = model.top_items(feature, n=40, lowest=True)
        assert low["item"].to_list() == model.item_ids.take(order[::-1]).to_list()
        assert low["weight"][0] == pytest.approx(weights[:, feature].min())
    for wrong in (-1, 3, 1.0, True, "first"):
        with pytest.raises(gm.ParameterError, match=r"'feature' parameter of top_items .* \[0, 2\]"):
            model.top_items(wrong)
    with pytest.raises(gm.ParameterError, match="'n' parameter of top_items"):
        model.top_items(0, n=0)


@pytest.mark.parametrize(
    "recipe",
    [
        gm.ALS(factors=6, regularization=5.0),
        gm.ALS(factors=6, regularization=0.1, weighting="count"),
        gm.ALS(factors=6, regularization=0.1, epochs=5),
    ],
    ids=repr,
)
def test_the_first_feature_is_the_leading_singular_direction(recipe, wide_ratings):
    """Of WUᵀ, which is all that a prediction shows of the factors; users are active in very different degrees."""
    rank = np.arange(len(wide_ratings)) - wide_ratings.by_user.indptr[wide_ratings.user_codes]
    model = recipe.fit(wide_ratings.take(rank < 3 + wide_ratings.user_codes**2 // 2000))
    leading = np.linalg.svd(model.user_factors.astype(float) @ model.item_factors.T.astype(float))[2][0]
    weights = dict(model.top_items(0, n=10**6).select("item", "weight").iter_rows())
    ours = np.array([weights[item] for item in model.item_ids])
    assert abs(ours @ leading) / np.linalg.norm(ours) > 0.99


def test_features_that_made_the_ratings_are_found_again():
    """Two features with disjoint items: each comes back with its own items at its ends."""
    rng = np.random.default_rng(1)
    taste = np.sqrt(80) * np.linalg.qr(rng.normal(size=(80, 2)))[0]
    style = np.zeros((30, 2))
    style[:15, 0], style[15:, 1] = rng.normal(0, 1.5, 15), rng.normal(0, 0.8, 15)
    users, items = np.divmod(np.arange(80 * 30), 30)
    values = np.sum(taste[users] * style[items], axis=1)
    model = gm.ALS(factors=2, regularization=1.0, biases=False, epochs=300, dtype="float64").fit(
        gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))
    )
    for feature, members in ((0, set(range(15))), (1, set(range(15, 30)))):
        ends = [model.top_items(feature, n=3), model.top_items(feature, n=3, lowest=True)]
        strong = max(ends, key=lambda table: abs(table["weight"][0]))
        assert set(strong["item"]) <= members
    truth = np.sum(taste[:, None] * style, axis=2)
    got = model.predict(users, items, clip=False)
    np.testing.assert_allclose(got, truth.reshape(-1), atol=0.25)


# ---- somebody new ----------------------------------------------------------------------------------


def test_recommend_for_somebody_new(ratings):
    model = fitted(WIDE, ratings)
    given = {11: 5.0, 18: 0.5, 25: 4.0}
    row = model.fold_in(given)
    V = np.column_stack([model.item_factors[:3], np.ones(3)])
    targets = np.array([5.0, 0.5, 4.0]) - model.global_mean - model.item_biases[:3]
    expected = np.linalg.solve(V.T @ V + 1.5 * np.eye(4), V.T @ targets)
    np.testing.assert_allclose(row, expected, rtol=1e-9)
    scores = model.global_mean + row[3] + model.item_biases + model.item_factors @ row[:3]
    order = [code for code in np.argsort(-scores, kind="stable") if code > 2]
    for n in (1, 10, 37, 38, 100):
        got = model.recommend_for(given, n=n)
        assert got.columns == ["item", "score", "rank"]
        assert got.height == min(n, 37)
        assert got["item"].to_list() == model.item_ids.take(order[:n]).to_list()
        np.testing.assert_allclose(got["score"], scores[order[:n]], atol=1e-12)
        assert got["rank"].to_list() == list(range(1, got.height + 1))
    assert model.recommend_for(dict(reversed(given.items()))).equals(model.recommend_for(given))
    everything = model.recommend_for(given, n=100, exclude_seen=False)
    assert everything.height == 40
    among = model.recommend_for(given, n=100, among=[18, 32, 39], exclude_seen=False)
    assert set(among["item"]) == {18, 32, 39}
    assert model.recommend_for(given, among=[18]).height == 0


def test_recommend_for_somebody_who_rated_nothing_gives_the_best_biases(ratings):
    model = fitted(WIDE, ratings)
    got = model.recommend_for({}, n=40)
    assert got["item"].to_list() == model.item_ids.take(np.argsort(-model.item_biases, kind="stable")).to_list()
    np.testing.assert_allclose(got["score"], np.sort(model.global_mean + model.item_biases)[::-1], atol=1e-12)
    assert not model.fold_in({}).any()


def test_unknown_and_wrong_ratings_of_somebody_new(ratings):
    model = fitted(WIDE, ratings)
    with pytest.warns(gm.UnknownIdWarning, match="1 of 2 item ids .* example 2"):
        assert model.recommend_for({11: 5.0, 2: 1.0}).equals(model.recommend_for({11: 5.0}))
    with pytest.raises(gm.UnknownIdError, match="example 2"):
        model.recommend_for({11: 5.0, 2: 1.0}, unknown="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = model.recommend_for({11: 5.0, 2: 1.0}, unknown="nan")
    assert quiet.equals(model.recommend_for({11: 5.0}))
    with pytest.warns(gm.DataWarning, match=r"rating 7\.0 of item 18 is off the scale 0\.5 to 5") as caught:
        model.recommend_for({11: 5.0, 18: 7.0})
    assert caught[0].filename == __file__
    for wrong in (float("nan"), float("inf"), "5", None, True):
        with pytest.raises(gm.ParameterError, match="rating of item 11"):
            model.recommend_for({11: wrong})
    for wrong in ([11, 18], [(11, 5.0)], "11", None):
        with pytest.raises(gm.DataError, match=r"dictionary of item: rating; got"):
            model.recommend_for(wrong)
    with pytest.raises(gm.DataError, match="another kind"):
        model.recommend_for({"11": 5.0})
    with pytest.raises(gm.ParameterError, match="'n' parameter of recommend_for"):
        model.recommend_for({11: 5.0}, n=0)


@pytest.mark.parametrize("n", [1, 4, 25, 50, 70])
def test_rounding_of_the_block_does_not_change_what_is_chosen(n):
    """Scores of a block are only good to rounding: the best are chosen and ordered by the exact ones."""
    rng = np.random.default_rng(0)
    exact = rng.choice([3.0, 3.000001, 3.000002, 2.0], (20, 50))
    exact[:, 40:] = -np.inf
    rough = exact + np.where(np.isfinite(exact), rng.normal(0, 3e-6, exact.shape), 0)
    rows, columns, scores = best_pairs(rough, n, lambda rows, columns: exact[rows, columns])
    for row in range(20):
        expected = np.argsort(-exact[row, :40], kind="stable")[:n]
        assert columns[rows == row].tolist() == expected.tolist()
        assert scores[rows == row].tolist() == exact[row, expected].tolist()


# ---- titles, explanations --------------------------------------------------------------------------


def test_titles_go_wherever_items_go(titled, ratings, tmp_path):
    model, bare = PLAIN.fit(titled), fitted(PLAIN, ratings)
    model.save(tmp_path / "m.gramian")
    for one in (model, gm.load(tmp_path / "m.gramian")):
        for got, expected in (
            (one.recommend(101), bare.recommend(101)),
            (one.recommend_for({11: 5.0}), bare.recommend_for({11: 5.0})),
            (one.similar_items(11), bare.similar_items(11)),
            (one.top_items(0, n=40), bare.top_items(0, n=40)),
            (one.explain(101, 11).contributions, bare.explain(101, 11).contributions),
        ):
            assert got.drop("title").equals(expected)
            last = titled.item_ids.ids[-1]
            assert got["title"].to_list() == [None if i == last else f"Film {i}" for i in got["item"]]


def test_titles_of_new_items_come_with_an_update(titled):
    model = PLAIN.fit(titled)
    table = pl.DataFrame({"user": [101, 5], "item": [3, 3], "rating": [4.0, 2.0]})
    news = gm.Ratings.from_frame(table).with_items(pl.DataFrame({"item": [3], "title": ["New"]}))
    updated = model.update(news)
    assert updated.ratings.titles[40] == "New"
    assert updated.ratings.titles[0] == "Film 11"
    assert updated.recommend(104, among=[3])["title"].to_list() == ["New"]


def test_an_explanation_reads_as_a_sum(ratings):
    model = fitted(WIDE, ratings)
    told = model.explain(107, 32)
    assert (told.user, told.item) == (107, 32)
    assert told.global_mean == ratings.global_mean
    assert told.user_bias == model.user_biases[2]
    assert told.item_bias == model.item_biases[3]
    assert told.prediction == pytest.approx(model.predict(107, 32, clip=False)[0], rel=1e-12)
    assert f"user 107, item 32: {told.prediction:.3f} = mean {told.global_mean:.3f}" in str(told)
    assert told.contributions.columns == ["item", "rating", "contribution"]
    for user, item, lost in ((1, 11, "user 1"), (101, 2, "item 2")):
        with pytest.raises(gm.UnknownIdError, match=f"The {lost} is unknown to the model"):
            model.explain(user, item)
    with pytest.raises(KeyError):
        model.explain(1, 11)


def test_what_a_user_rated(titled):
    model = PLAIN.fit(titled)
    got = model.rated_by(104)
    mine = titled.to_frame().filter(pl.col("user") == 104)
    assert got.columns == ["item", "rating", "title"]
    assert set(got.select("item", "rating").iter_rows()) == set(mine.select("item", "rating").iter_rows())
    assert got["rating"].is_sorted(descending=True)
    with pytest.raises(gm.UnknownIdError):
        model.rated_by(1)


def test_finding_items_by_title(titled, ratings):
    model = PLAIN.fit(titled)
    assert model.find_items("film 11")["item"].to_list() == [11]
    several = model.find_items("LM 1", n=100)
    assert set(several["item"]) == {i for i in titled.item_ids.ids[:-1] if str(i).startswith("1")}
    counts = dict(zip(ratings.item_ids, ratings.by_item.counts.tolist(), strict=True))
    assert several["ratings"].to_list() == [counts[item] for item in several["item"]]
    assert several["ratings"].is_sorted(descending=True)
    assert model.find_items("LM 1", n=2).equals(several.head(2))
    assert model.find_items("[").height == 0
    with pytest.raises(gm.DataError, match="knows no titles"):
        fitted(PLAIN, ratings).find_items("x")


def test_cards_and_names(ratings):
    model = fitted(PLAIN, ratings)
    card = model.card()
    assert card["recipe"] == PLAIN.to_dict()
    assert (card["users"], card["items"], card["ratings"]) == (60, 40, len(ratings))
    assert card["last_epoch"] == model.history[-1]
    assert repr(model).startswith("<model of ALS(factors=4, regularization=2.0")
    assert "60 users" in repr(model)


# ---- pictures --------------------------------------------------------------------------------------


def is_png(path):
    """Whether a file is a PNG of some size."""
    content = path.read_bytes()
    return content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 5000


def test_plots_are_written(titled, parts, tmp_path):
    train, test = parts
    model = PLAIN.fit(titled, validation=test)
    figure = model.plot_history(tmp_path / "history.png")
    assert is_png(tmp_path / "history.png")
    train_line, validation_line = figure.axes[0].get_lines()
    assert train_line.get_ydata().tolist() == model.history.column("train_rmse")
    assert validation_line.get_ydata().tolist() == model.history.column("validation_rmse")
    assert train_line.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert len(PLAIN.fit(train).plot_history().axes[0].get_lines()) == 1
    figure = model.plot_item_map(tmp_path / "map.png", labels=5)
    assert is_png(tmp_path / "map.png")
    positions = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(positions, model.features.items[:, :2])
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert 0 < len(labels) <= 5
    popular = np.argsort(-titled.by_item.counts, kind="stable")[:5]
    titles = titled.titles.gather(popular).fill_null(titled.item_ids.take(popular).cast(pl.String))
    assert labels <= set(titles.to_list())
    one = gm.ALS(factors=1, epochs=2).fit(train)
    assert one.plot_item_map(tmp_path / "line.png") is not None
    assert is_png(tmp_path / "line.png")
    with pytest.raises(gm.DataError, match="nothing to draw"):
        figures.learning_curve(gm.History())
    with pytest.raises(gm.DataError, match="no folder"):
        model.plot_history(tmp_path / "nowhere" / "h.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.png", "line.png", "map.png"]


# ---- what is loaded when ---------------------------------------------------------------------------


def modules_after(code, *arguments):
    """The modules of a fresh interpreter after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_starts_nothing_heavy():
    loaded = modules_after("import gramian; gramian.__version__; gramian.DataError")
    assert "gramian.errors" in loaded
    heavy = {"numba", "llvmlite", "matplotlib", "polars", "numpy", "scipy", "pandas", "narwhals", "safetensors", "rich"}
    assert loaded & heavy == set()


def test_what_solves_nothing_does_not_start_numba(ratings, tmp_path):
    fitted(PLAIN, ratings).save(tmp_path / "m.gramian")
    ratings.to_frame().write_csv(tmp_path / "r.csv")
    code = (
        "import sys, gramian as gm\n"
        "ratings = gm.read_ratings(sys.argv[1])\n"
        "ratings.describe(); ratings.split()\n"
        "model = gm.load(sys.argv[2])\n"
        "model.evaluate(ratings); model.recommend(); model.similar_items(11); model.explain(101, 11)\n"
        "model.save(sys.argv[2])\n"
    )
    loaded = modules_after(code, tmp_path / "r.csv", tmp_path / "m.gramian")
    assert "gramian.models.als" in loaded
    assert loaded & {"numba", "llvmlite", "matplotlib", "pandas"} == set()


def test_public_names():
    names = {"ALS", "Baseline", "Ratings", "read_ratings", "load", "make_recipe", "recipe_from_dict", "History",
             "Model", "Recipe", "GramianError", "DataError", "ParameterError", "UnknownIdError", "FormatError",
             "DataWarning", "UnknownIdWarning", "TrainingWarning"}  # fmt: skip
    assert names <= set(dir(gm))
    for name in names:
        assert getattr(gm, name).__name__ == name
    for name in ("Nothing", "nothing", "als", "np"):
        with pytest.raises(AttributeError, match=f"module 'gramian' has no attribute '{name}'"):
            getattr(gm, name)
    for kind in (gm.DataError, gm.ParameterError, gm.UnknownIdError, gm.FormatError):
        assert issubclass(kind, gm.GramianError)
    assert issubclass(gm.UnknownIdError, KeyError)
    assert str(gm.UnknownIdError("plain words")) == "plain words"
    assert str(gm.UnknownIdError()) == ""


def test_whole_numbers_are_whole_whichever_way_a_field_says_so():
    made = dataclasses.make_dataclass(
        "Mine",
        [("k", int, param(3, "how many", low=1)), ("e", int | None, param(None, "or none", low=1, optional=True))],
        bases=(gm.Baseline,), frozen=True, kw_only=True,
    )  # fmt: skip
    assert type(made().k) is int
    with pytest.raises(gm.ParameterError, match="k"):
        made(k=2.5)


def test_a_model_without_its_ratings_is_not_saved(ratings, tmp_path):
    light = gm.Baseline().fit(ratings).without_ratings()
    with pytest.raises(gm.DataError, match="A model without its ratings cannot be saved: found 0"):
        light.save(tmp_path / "m.gramian")
    assert not (tmp_path / "m.gramian").exists()
