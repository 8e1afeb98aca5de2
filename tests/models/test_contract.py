"""The contract that every model keeps, run over every recipe of ``contract.MODELS``."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from contract import (
    EVERY,
    FIRST,
    MODELS,
    assert_same_bits,
    assert_same_model,
    every_pair,
    fitted,
    label,
    other_value,
    plain_history,
    shorter,
)

import gramian as gm
from gramian import registry
from gramian.core import file_format
from gramian.engine import pool

every_recipe = pytest.mark.parametrize("recipe", EVERY, ids=label)
first_recipe = pytest.mark.parametrize("recipe", FIRST, ids=label)
CLOSED = [recipe for variants in MODELS.values() if variants.closed_form for recipe in variants.recipes]
closed_recipe = pytest.mark.parametrize("recipe", CLOSED, ids=label)
WITH_EPOCHS = [shorter(recipe, 4) for recipe in EVERY if hasattr(recipe, recipe.length_field)]
RESTLESS = [variants.restless for variants in MODELS.values()]
every_field = pytest.mark.parametrize(
    ("recipe", "field"),
    [(recipe, field) for recipe in RESTLESS for field in dataclasses.fields(recipe)],
    ids=lambda value: value.name if isinstance(value, dataclasses.Field) else type(value).__name__,
)


def test_every_model_of_the_zoo_keeps_the_contract():
    assert MODELS.keys() == registry.RECIPES.keys()
    for name, variants in MODELS.items():
        assert {recipe.name for recipe in [*variants.recipes, variants.restless]} == {name}


# ---- the same again --------------------------------------------------------------------------------


@every_recipe
def test_second_fit_equals_a_fresh_fit(recipe, ratings, parts):
    before = dataclasses.asdict(recipe)
    first = recipe.fit(ratings)
    recipe.fit(parts[0])
    assert_same_model(recipe.fit(ratings), first)
    assert dataclasses.asdict(recipe) == before


@every_recipe
def test_iterate_gives_a_usable_model_per_epoch_and_ends_where_fit_ends(recipe, ratings):
    models = list(recipe.iterate(ratings))
    assert [len(model.history) for model in models] == list(range(1, recipe.n_epochs + 1))
    assert_same_model(models[-1], fitted(recipe, ratings))
    if recipe.n_epochs > 2:
        second = list(itertools.islice(shorter(recipe, recipe.n_epochs).iterate(ratings), 2))[1]
        assert_same_bits(second, shorter(recipe, 2).fit(ratings))


@pytest.mark.parametrize("recipe", [r for r in EVERY if hasattr(r, "seed")], ids=label)
def test_same_seed_same_bits_and_another_seed_another_model(recipe, ratings):
    assert_same_bits(dataclasses.replace(recipe).fit(ratings), fitted(recipe, ratings))
    other = dataclasses.replace(recipe, seed=recipe.seed + 1).fit(ratings)
    users, items = every_pair(other)
    assert not np.array_equal(other.predict(users, items), fitted(recipe, ratings).predict(users, items))


@first_recipe
def test_another_process_gives_the_same_bits(recipe, ratings, tmp_path):
    fitted(recipe, ratings).save(tmp_path / "here.gramian")
    ratings.to_frame().sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "ratings.parquet")
    code = (
        "import sys, json, gramian as gm\n"
        "recipe = gm.recipe_from_dict(json.loads(sys.argv[1]))\n"
        "recipe.fit(gm.read_ratings(sys.argv[2])).save(sys.argv[3])"
    )
    paths = [str(tmp_path / "ratings.parquet"), str(tmp_path / "there.gramian")]
    subprocess.run([sys.executable, "-c", code, recipe.to_json(), *paths], check=True)
    assert_same_model(gm.load(tmp_path / "there.gramian"), fitted(recipe, ratings))


@pytest.mark.parametrize(
    "recipe", [r for r in EVERY if getattr(r, "path", "n_jobs") != "dense" and hasattr(r, "n_jobs")], ids=label
)
def test_one_thread_equals_many(recipe, wide_ratings, pools):
    alone = dataclasses.replace(recipe, n_jobs=1).fit(wide_ratings)
    assert pools == []
    for n_jobs in (2, 4):
        assert_same_bits(dataclasses.replace(recipe, n_jobs=n_jobs).fit(wide_ratings), alone)
        assert set(pools) == {n_jobs}
        pools.clear()
    assert_same_bits(fitted(recipe, wide_ratings), alone)


@every_recipe
def test_order_of_the_rows_does_not_matter(recipe, frame, ratings):
    for shuffled in (frame.sort("rating", "time"), frame.sample(fraction=1.0, shuffle=True, seed=8)):
        assert_same_model(recipe.fit(gm.Ratings.from_frame(shuffled)), fitted(recipe, ratings))


@every_recipe
def test_renaming_ids_changes_only_the_names(recipe, frame, ratings, text_ratings):
    model = fitted(recipe, ratings)
    negative = gm.Ratings.from_frame(frame.with_columns(pl.col("user") * 10 - 5000, pl.col("item") + 2**40))
    for renamed in (text_ratings, negative):
        other = recipe.fit(renamed)
        assert_same_bits(other, model)
        mine, theirs = model.recommend(n=6), other.recommend(n=6)
        assert theirs["user"].to_list() == other.user_ids.take(model.user_ids.codes(mine["user"])).to_list()
        assert theirs["item"].to_list() == other.item_ids.take(model.item_ids.codes(mine["item"])).to_list()
        assert theirs.drop("user", "item").equals(mine.drop("user", "item"))
        np.testing.assert_array_equal(other.predict(*every_pair(other)), model.predict(*every_pair(model)))


# ---- duplicates, small and strange tables ----------------------------------------------------------


@first_recipe
@pytest.mark.parametrize("timed", [True, False])
def test_repeated_pairs_follow_the_policy(recipe, frame, timed, ratings):
    rows = frame if timed else frame.drop("time")
    again = rows.head(50).with_columns(pl.lit(1.0).alias("rating"))
    if timed:  # the first 30 are older than the rows they repeat, the others newer
        older = pl.int_range(pl.len()) < 30
        again = again.with_columns(pl.when(older).then(pl.col("time") - 10**6).otherwise(pl.col("time") + 10**6))
    table = pl.concat([rows, again])
    with pytest.warns(gm.DataWarning, match="50 rows repeat"):
        last = gm.Ratings.from_frame(table, duplicates="last")
    replaced = slice(30, 50) if timed else slice(0, 50)
    kept = rows["rating"].to_numpy().copy()
    kept[replaced] = 1.0
    by_hand = gm.Ratings.from_frame(rows.drop("time", strict=False).with_columns(rating=pl.Series(kept)))
    assert last.duplicates == 50
    assert_same_bits(recipe.fit(last), recipe.fit(by_hand))

    with pytest.warns(gm.DataWarning, match="mean"):
        mean = gm.Ratings.from_frame(table, duplicates="mean")
    averaged = rows["rating"].to_numpy().copy()
    averaged[:50] = (averaged[:50] + 1.0) / 2
    by_hand = gm.Ratings.from_frame(rows.drop("time", strict=False).with_columns(rating=pl.Series(averaged)))
    assert_same_bits(recipe.fit(mean), recipe.fit(by_hand))

    with pytest.raises(gm.DataError, match=r"rated more than once: 50 rows"):
        gm.Ratings.from_frame(table, duplicates="raise")
    assert_same_bits(recipe.fit(gm.Ratings.from_frame(frame, duplicates="raise")), fitted(recipe, ratings))


STRANGE = {
    "one row": ([1], [1], [4.0]),
    "one user": ([1] * 6, range(6), [1, 2, 3, 4, 5, 3.5]),
    "one item": (range(6), [1] * 6, [1, 2, 3, 4, 5, 3.5]),
    "all equal": ([1, 1, 2, 2, 3], [1, 2, 2, 3, 1], [3.0] * 5),
    "all zero": ([1, 1, 2, 2, 3], [1, 2, 2, 3, 1], [0.0] * 5),
    "negative": ([1, 1, 2, 2, 3], [1, 2, 2, 3, 1], [-5, 3, -10, 7, 0]),
    "apart": ([1, 1, 2, 2], [1, 2, 3, 4], [1, 5, 2, 4]),
    "full": (np.repeat(range(4), 5), np.tile(range(5), 4), np.arange(20) % 5 + 1),
}


@every_recipe
@pytest.mark.parametrize("name", STRANGE)
def test_strange_tables(recipe, name, tmp_path):
    users, items, values = STRANGE[name]
    table = gm.Ratings.from_frame(
        pl.DataFrame({"user": list(users), "item": list(items), "rating": np.array(values, float),
                      "time": 10**9 + 10**5 * np.arange(len(values))})
    )  # fmt: skip
    model = recipe.fit(table)
    low, high = table.scale
    predicted = model.predict(*every_pair(model))
    assert np.isfinite(predicted).all()
    assert np.isfinite(model.predict(*every_pair(model), clip=False)).all()
    assert predicted.min() >= low
    assert predicted.max() <= high
    if low == high:
        assert set(predicted.tolist()) == {low}
    recommended = model.recommend(n=3)
    available = table.n_items - table.by_user.counts
    assert recommended.height == np.minimum(3, available).sum()
    assert recommended.columns == ["user", "item", "score", "rank"]
    assert model.evaluate(table)["n"] == len(table)
    model.save(tmp_path / "m.gramian")
    assert_same_model(gm.load(tmp_path / "m.gramian"), model)


def _bad(column, value):
    good = {"user": [1, 2, 3], "item": [4, 5, 6], "rating": [1.0, 2.0, 3.0], "time": [7, 8, 9]}
    return pl.DataFrame({**good, column: [good[column][0], value, good[column][2]]})


BAD_TABLES = {
    "nan": (lambda: _bad("rating", float("nan")), r"must be a finite number: row 2 has nan"),
    "inf": (lambda: _bad("rating", float("inf")), r"row 2 has inf"),
    "-inf": (lambda: _bad("rating", float("-inf")), r"row 2 has -inf"),
    "too large for float32": (lambda: _bad("rating", 1e39), r"row 2 has 1e\+?39"),
    "no rating": (lambda: _bad("rating", None), r"row 2 has no value"),
    "text rating": (
        lambda: _bad("rating", 0.0).with_columns(rating=pl.Series(["1", "five", "3"])),
        r"row 2 has 'five'",
    ),
    "true and false": (lambda: _bad("rating", 1.0).with_columns(pl.col("rating") > 1), r"True/False"),
    "lists": (lambda: _bad("rating", 1.0).with_columns(rating=pl.Series([[1], [2], [3]])), r"numbers: found List"),
    "no user": (lambda: _bad("user", None), r"user id is missing: row 2"),
    "no item": (lambda: _bad("item", None), r"item id is missing: row 2"),
    "fraction of an id": (lambda: _bad("item", 1).with_columns(item=pl.Series([1.0, 2.5, 3.0])), r"row 2 has 2\.5"),
    "id true": (lambda: _bad("user", 1).with_columns(pl.col("user") > 1), r"user id must be .*found Boolean"),
    "id list": (lambda: _bad("user", 1).with_columns(user=pl.Series([[1], [2], [3]])), r"user id must be .*List"),
    "huge id": (lambda: _bad("user", 1).with_columns(user=pl.Series([1, 2**63, 3], dtype=pl.UInt64)), r"too large"),
    "no time": (lambda: _bad("time", None), r"time must be .*row 2 has no value"),
    "text for a time": (
        lambda: _bad("time", 1).with_columns(time=pl.Series(["1", "noon", "3"])),
        r"time must be .*row 2 has 'noon'",
    ),
    "text for every time": (
        lambda: _bad("time", 1).with_columns(time=pl.Series(["morning", "noon", "night"])),
        r"time must be .*row 1 has 'morning'",
    ),
    "missing user": (lambda: _bad("user", 1).drop("user"), r"No column for the user"),
    "missing item": (lambda: _bad("user", 1).drop("item"), r"No column for the item"),
    "missing rating": (lambda: _bad("user", 1).drop("rating"), r"No column for the rating .*'user', 'item', 'time'"),
    "empty": (lambda: _bad("user", 1).head(0), r"There are no ratings"),
    "no columns": (lambda: pl.DataFrame(), r"No column for the user"),
    "not a table": (lambda: [1, 2, 3], r"dataframe is needed: found list"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_refused_in_one_sentence(name):
    make, message = BAD_TABLES[name]
    with pytest.raises(gm.DataError, match=message) as caught:
        gm.Ratings.from_frame(make())
    assert "\n" not in str(caught.value)


@first_recipe
@pytest.mark.parametrize("wrong", ["frame", "none", "array"])
def test_what_is_not_ratings_is_refused_before_training(recipe, frame, ratings, wrong):
    given = {"frame": frame, "none": None, "array": np.ones((3, 3))}[wrong]
    with pytest.raises((gm.GramianError, TypeError), match="Ratings"):
        recipe.fit(given)
    if given is not None:
        began = []
        with pytest.raises((gm.GramianError, TypeError), match="Ratings"):
            recipe.fit(ratings, validation=given, callback=began.append)
        assert not began


@every_recipe
def test_bad_arguments_of_a_model_are_refused(recipe, ratings, frame):
    model = fitted(recipe, ratings)
    with pytest.raises(gm.DataError, match="found 3 users and 2 items"):
        model.predict([101, 104, 107], [11, 18])
    with pytest.raises(gm.DataError, match=r"user ids .*found text \(such as '101'\) where the known ids are integers"):
        model.predict("101", 11)
    with pytest.raises(gm.DataError, match=r"item ids .*found text"):
        model.predict(101, ["11"])
    with pytest.raises(gm.DataError, match=r"user id must be an integer or text: row 2 has 1\.5"):
        model.predict([101.0, 1.5], 11)
    with pytest.raises(gm.DataError, match="user id is missing"):
        model.predict([101, None], 11)
    with pytest.raises(gm.DataError, match=r"more than one kind.*int.*str"):
        model.predict([101, "104"], 11)
    for n in (0, -1, 2.5, True, "3"):
        with pytest.raises(gm.ParameterError, match=r"'n' parameter of recommend must be a whole number in \[1, inf\)"):
            model.recommend(101, n=n)
    for verb in (lambda: model.predict(101, 11, unknown="mean"), lambda: model.recommend(101, unknown="mean"),
                 lambda: model.evaluate(ratings, unknown="mean")):  # fmt: skip
        with pytest.raises(gm.ParameterError, match=r"'unknown' parameter .* got 'mean'"):
            verb()


@pytest.mark.parametrize("recipe", RESTLESS, ids=label)
def test_fields_outside_their_range_are_refused_with_name_and_value(recipe):
    for field in dataclasses.fields(recipe):
        about = field.metadata
        wrong = ["no such word", [], float("nan")]
        if about["low"] is not None:
            wrong += [about["low"] - 1, float("inf"), -1, True]
        if about["high"] is not None:
            wrong.append(about["high"] + 1)
        if not about["optional"]:
            wrong.append(None)
        for value in wrong:
            with pytest.raises(gm.ParameterError) as caught:
                dataclasses.replace(recipe, **{field.name: value})
            assert f"'{field.name}' parameter of {type(recipe).__name__} must be" in str(caught.value)
            assert str(caught.value).endswith(f"got {value!r}.")


# ---- inputs ----------------------------------------------------------------------------------------


@every_recipe
def test_inputs_are_not_changed(recipe, parts):
    train, test = parts
    before = [part.fingerprint() for part in parts]
    columns = [array.tobytes() for array in train.by_item]
    model = recipe.fit(train, validation=test)
    users, items = test.users.copy(), test.items.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gm.UnknownIdWarning)
        model.predict(users, items)
    model.evaluate(test)
    model.recommend(train.users[:4], among=items)
    assert [part.fingerprint() for part in parts] == before
    assert [array.tobytes() for array in train.by_item] == columns
    np.testing.assert_array_equal(users, test.users)
    np.testing.assert_array_equal(items, test.items)
    parameters = {name: array.copy() for name, array in model.arrays().items()}
    model.predict(*every_pair(model))
    model.recommend(n=3)
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, parameters[name])


@first_recipe
def test_read_only_inputs_are_accepted(recipe, frame, ratings, tmp_path):
    arrays = {name: frame[name].to_numpy().copy() for name in frame.columns}
    for array in arrays.values():
        array.flags.writeable = False
    model = recipe.fit(gm.Ratings.from_frame(pl.DataFrame(arrays)))
    assert_same_model(model, fitted(recipe, ratings))
    np.testing.assert_array_equal(
        model.predict(arrays["user"], arrays["item"]), model.predict(frame["user"], frame["item"])
    )
    model.save(tmp_path / "m.gramian")
    mapped = gm.load(tmp_path / "m.gramian", mmap=True)
    assert not mapped.ratings.values.flags.writeable
    assert_same_model(recipe.fit(mapped.ratings), model)


# ---- predicting and recommending -------------------------------------------------------------------


@every_recipe
def test_a_batch_of_predictions_equals_a_loop_of_singles(recipe, ratings):
    model = fitted(recipe, ratings)
    users, items = (ids[::7] for ids in every_pair(model))
    batch = model.predict(users, items, clip=False)
    single = np.concatenate([model.predict(u, i, clip=False) for u, i in zip(users, items, strict=True)])
    np.testing.assert_array_equal(batch, single)
    np.testing.assert_array_equal(batch[::-1], model.predict(users[::-1], items[::-1], clip=False))
    np.testing.assert_array_equal(batch[:33], model.predict(users[:33], items[:33], clip=False))
    one = users[5]
    np.testing.assert_array_equal(model.predict(one, items), model.predict([one] * len(items), items))
    assert model.predict([], []).shape == (0,)


@every_recipe
def test_many_predictions_equal_a_few_at_a_time(recipe, wide_ratings):
    model = fitted(recipe, wide_ratings)
    users, items = every_pair(model)
    assert len(users) == 80_000
    whole = model.predict(users, items)
    pieces = [model.predict(users[k : k + 777], items[k : k + 777]) for k in range(0, len(users), 777)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))


@every_recipe
def test_a_batch_of_recommendations_equals_a_loop_of_singles(recipe, ratings):
    model = fitted(recipe, ratings)
    ids = model.user_ids.ids
    every = model.recommend(n=6)
    assert every.equals(model.recommend(ids, n=6))
    assert every.equals(pl.concat([model.recommend(user, n=6) for user in ids]))
    some = [ids[30], ids[2], ids[30]]
    assert model.recommend(some, n=6).equals(pl.concat([model.recommend(user, n=6) for user in some]))
    for container in (tuple(some), np.array(some), pl.Series(some)):
        assert model.recommend(container, n=6).equals(model.recommend(some, n=6))


@every_recipe
def test_recommendations_do_not_depend_on_the_block_of_users(recipe, ratings, monkeypatch):
    whole = fitted(recipe, ratings).recommend(n=9)
    monkeypatch.setattr("gramian.models.model.BLOCK_CELLS", 7 * ratings.n_items)
    assert fitted(recipe, ratings).recommend(n=9).equals(whole)


@every_recipe
def test_recommendations_are_the_best_unseen_items(recipe, ratings):
    model = fitted(recipe, ratings)
    users, items = every_pair(model)
    scores = model.predict(users, items, clip=False).reshape(ratings.n_users, -1)
    for n in (1, 7, ratings.n_items, ratings.n_items + 5):
        got = model.recommend(n=n)
        assert got.columns == ["user", "item", "score", "rank"]
        for code, user in enumerate(model.user_ids):
            mine = got.filter(pl.col("user") == user)
            unseen = np.setdiff1d(np.arange(ratings.n_items), ratings.by_user.row(code)[0])
            best = unseen[np.argsort(-scores[code, unseen], kind="stable")][:n]
            assert mine.height == min(n, len(unseen))
            assert mine["item"].to_list() == model.item_ids.take(best).to_list()
            assert mine["score"].to_list() == scores[code, best].tolist()
            assert mine["rank"].to_list() == list(range(1, len(best) + 1))


@every_recipe
def test_seen_items_and_candidates(recipe, ratings):
    model = fitted(recipe, ratings)
    user = model.user_ids.ids[4]
    seen = set(model.item_ids.take(ratings.by_user.row(4)[0]).to_list())
    unseen = [item for item in model.item_ids if item not in seen]
    assert set(model.recommend(user, n=1000)["item"]) == set(unseen)
    everything = model.recommend(user, n=1000, exclude_seen=False)
    assert set(everything["item"]) == set(model.item_ids)
    among = [*unseen[:5], *sorted(seen)[:3]]
    got = model.recommend(user, n=1000, among=among)
    assert set(got["item"]) == set(unseen[:5])
    order = everything.filter(pl.col("item").is_in(among))
    assert model.recommend(user, n=1000, among=among, exclude_seen=False)["item"].to_list() == order["item"].to_list()
    assert got.equals(model.recommend(user, n=1000, among=among + among))
    assert model.recommend(user, n=2, among=among).equals(got.head(2))
    assert model.recommend(user, among=sorted(seen)).height == 0
    nothing = model.recommend(user, among=[])
    assert nothing.height == 0
    assert nothing.schema == got.schema


@pytest.mark.parametrize("text", [False, True])
def test_no_users_give_an_empty_table_of_the_same_schema(ratings, text_ratings, text):
    model = fitted(FIRST[0], text_ratings if text else ratings)
    assert model.recommend([]).schema == model.recommend(n=1).schema
    assert model.recommend([]).height == 0


@every_recipe
def test_predictions_are_clipped_to_the_scale_only_if_asked(recipe, ratings):
    model = fitted(recipe, ratings)
    users, items = every_pair(model)
    free, clipped = model.predict(users, items, clip=False), model.predict(users, items)
    if not MODELS[recipe.name].clips_each_draw:
        np.testing.assert_array_equal(np.clip(free, *ratings.scale), clipped)
    low, high = ratings.scale
    assert low <= clipped.min() <= clipped.max() <= high
    predicted = model.predict(ratings.users, ratings.items, times=ratings.times)
    error = np.sqrt(np.mean((predicted.astype(float) - ratings.values) ** 2))
    assert model.evaluate(ratings)["rmse"] == pytest.approx(error, rel=1e-12)
    assert model.evaluate(ratings)["mse"] == pytest.approx(error**2, rel=1e-12)


# ---- unknown ids -----------------------------------------------------------------------------------


@every_recipe
def test_unknown_ids_in_predict(recipe, ratings):
    model = fitted(recipe, ratings)
    user, item = model.user_ids.ids[3], model.item_ids.ids[5]
    pairs = [user, 1, user, 1], [item, item, 2, 2]
    known = model.predict(user, item)[0]
    with pytest.warns(gm.UnknownIdWarning, match=r"2 of 4 (user|item) ids are unknown .*example [12]\b"):
        fallback = model.predict(*pairs)
    assert fallback[0] == known
    assert np.isfinite(fallback).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nan = model.predict(*pairs, unknown="nan")
    assert nan[0] == known
    assert np.isnan(nan[1:]).all()
    with pytest.raises(gm.UnknownIdError, match=r"2 of 4 user ids .*example 1; correct them"):
        model.predict(*pairs, unknown="raise")
    with pytest.raises(gm.UnknownIdError, match=r"1 of 1 item ids .*example 2; correct them"):
        model.predict(user, 2, unknown="raise")
    assert model.predict(user, item, unknown="raise")[0] == known


@closed_recipe
def test_unknown_ids_fall_back_on_the_biases_then_on_the_mean(recipe, ratings):
    model = fitted(recipe, ratings)
    user, item = model.user_ids.ids[3], model.item_ids.ids[5]
    with pytest.warns(gm.UnknownIdWarning):
        fallback = model.predict([1, user, 1], [2, 2, item], clip=False)
    biases = np.array([0.0, model.user_biases[3], model.item_biases[5]], np.float64)
    np.testing.assert_allclose(fallback, ratings.global_mean + biases, rtol=2e-6)


@every_recipe
def test_unknown_ids_in_evaluate(recipe, ratings):
    model = fitted(recipe, ratings)
    known = ratings.to_frame().head(40)
    strange = pl.DataFrame({"user": [1, 1, 101], "item": [11, 2, 2], "rating": [1.0, 5.0, 2.0]})
    test = gm.Ratings.from_frame(pl.concat([known.drop("time").with_columns(pl.col("rating").cast(float)), strange]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fallback = model.evaluate(test)
        without = model.evaluate(test, unknown="nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gm.UnknownIdWarning)
        expected = model.predict(test.users, test.items).astype(float)
    assert fallback["n"] == 43
    assert fallback["mae"] == pytest.approx(np.abs(expected - test.values).mean(), rel=1e-12)
    assert without == model.evaluate(gm.Ratings.from_frame(known.drop("time")))
    assert without["n"] == 40
    with pytest.raises(gm.UnknownIdError, match="unknown to the model"):
        model.evaluate(test, unknown="raise")
    nobody = gm.Ratings.from_frame(strange.filter(pl.col("user") == 1))
    with pytest.raises(gm.DataError, match="Nothing is left to evaluate"):
        model.evaluate(nobody, unknown="nan")
    assert model.evaluate(nobody)["n"] == 2


@every_recipe
def test_unknown_ids_in_recommend(recipe, ratings):
    model = fitted(recipe, ratings)
    with pytest.warns(gm.UnknownIdWarning, match="1 of 2 user ids"):
        got = model.recommend([104, 1], n=5)
    assert got["user"].to_list() == [104] * 5 + [1] * 5
    with pytest.warns(gm.UnknownIdWarning):
        expected = model.predict(1, model.item_ids.ids, clip=False)
    best = np.argsort(-expected, kind="stable")[:5]
    mine = got.filter(pl.col("user") == 1)
    assert mine["item"].to_list() == model.item_ids.take(best).to_list()
    assert mine["score"].to_list() == expected[best].tolist()
    assert model.recommend([104, 1], n=5, unknown="nan").equals(model.recommend([104], n=5))
    assert model.recommend([1], unknown="nan").height == 0
    with pytest.raises(gm.UnknownIdError, match="user ids are unknown"):
        model.recommend([104, 1], unknown="raise")
    with pytest.warns(gm.UnknownIdWarning, match="1 of 3 item ids"):
        among = model.recommend(104, among=[11, 18, 2], exclude_seen=False)
    assert set(among["item"]) == {11, 18}
    with pytest.raises(gm.UnknownIdError, match="item ids are unknown"):
        model.recommend(104, among=[11, 2], unknown="raise")


# ---- fold-in, explaining, updating -----------------------------------------------------------------


@closed_recipe
def test_folding_in_a_training_users_ratings_gives_its_row(recipe, ratings):
    model = fitted(recipe, ratings)
    for code, user in enumerate(model.user_ids):
        items, values = ratings.by_user.row(code)
        own = dict(zip(model.item_ids.take(items), values.tolist(), strict=True))
        if code % 2:
            own = dict(reversed(own.items()))
        np.testing.assert_array_equal(model.fold_in(own), model.user_rows[code])
        if code < 10:
            assert model.recommend_for(own, n=8).equals(model.recommend(user, n=8).drop("user"))


@closed_recipe
def test_the_parts_of_an_explanation_sum_to_the_prediction(recipe, ratings):
    model = fitted(recipe, ratings)
    tolerance = 1e-9 if model.item_rows.dtype == np.float64 else 2e-5
    for code in range(0, ratings.n_users, 5):
        for item in model.item_ids.ids[::9]:
            user = model.user_ids.ids[code]
            told = model.explain(user, item)
            contributions = told.contributions
            total = told.global_mean + told.user_bias + told.item_bias + contributions["contribution"].sum()
            assert told.prediction == pytest.approx(total, rel=1e-12)
            assert total == pytest.approx(model.predict(user, item, clip=False)[0], abs=tolerance)
            own = ratings.to_frame().filter(pl.col("user") == user)
            assert dict(contributions.select("item", "rating").iter_rows()) == dict(
                own.select("item", "rating").iter_rows()
            )
            strength = contributions["contribution"].abs().to_numpy()
            assert (np.diff(strength) <= 0).all()


@closed_recipe
def test_each_contribution_is_what_the_prediction_would_lose_without_that_rating_in_the_target(recipe, ratings):
    """The factors part is linear in the ratings, at fixed V: raising one rating by 1 adds its weight."""
    model = fitted(recipe, ratings)
    user, item = model.user_ids.ids[8], model.item_ids.ids[3]
    rated, values = ratings.by_user.row(8)
    own = dict(zip(model.item_ids.take(rated).to_list(), values.tolist(), strict=True))
    raised = next(key for key, value in own.items() if value <= 3.5)
    K, row = model.n_factors, model.item_rows[model.item_ids.codes(item)[0]].astype(float)
    changed = {**own, raised: own[raised] + 1.0}
    effect = (model.fold_in(changed).astype(float) - model.fold_in(own))[:K] @ row[:K]
    contributions = dict(model.explain(user, item).contributions.select("item", "contribution").iter_rows())
    shift = own[raised] - float(model.item_offsets[model.item_ids.codes(raised)[0]])
    assert contributions[raised] == pytest.approx(effect * shift, abs=2e-4)


@closed_recipe
def test_update_keeps_codes_and_learns_the_new(recipe, ratings, tmp_path):
    model = fitted(recipe, ratings)
    before = {name: array.copy() for name, array in model.arrays().items()}
    own = ratings.to_frame().filter(pl.col("user") == 104)
    again = own["item"][0]
    news = pl.DataFrame(
        {
            "user": [50, 50, 50, 999, 999, 999, 101, 104],
            "item": [11, 18, 3, 11, 25, 9999, 9999, again],
            "rating": [5.0, 4.5, 1.0, 0.5, 2.0, 5.0, 4.0, 0.5],
            "time": [2_000_000_000] * 8,
        }
    )
    updated = model.update(gm.Ratings.from_frame(news))
    old_users, old_items = model.user_ids.ids, model.item_ids.ids
    assert updated.user_ids.codes(old_users).tolist() == list(range(60))
    assert updated.item_ids.codes(old_items).tolist() == list(range(40))
    assert updated.user_ids.codes([50, 999]).tolist() == [60, 61]
    assert updated.item_ids.codes([3, 9999]).tolist() == [40, 41]
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    table = updated.ratings.to_frame()
    assert table.filter((pl.col("user") == 104) & (pl.col("item") == again))["rating"].to_list() == [0.5]
    assert len(updated.ratings) == len(ratings) + 7

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(updated.predict([50, 999, 999], [9999, 3, 18], unknown="raise")).all()
        assert updated.recommend([50, 999], n=100).height == 2 * (42 - 3)
        assert 9999 not in updated.recommend(101, n=100)["item"].to_list()
    for user in (50, 999, 104):
        items, values = updated.ratings.by_user.row(updated.user_ids.codes(user)[0])
        mine = dict(zip(updated.item_ids.take(items), values.tolist(), strict=True))
        np.testing.assert_array_equal(updated.fold_in(mine), updated.user_rows[updated.user_ids.codes(user)[0]])
    updated.save(tmp_path / "m.gramian")
    assert_same_model(gm.load(tmp_path / "m.gramian"), updated)


@pytest.mark.parametrize("weighting", ["none", "count"])
def test_updating_a_converged_model_with_what_it_knows_changes_nothing(ratings, weighting):
    model = gm.ALS(factors=2, regularization=1.0, weighting=weighting, epochs=800, dtype="float64").fit(ratings)
    updated = model.update(ratings)
    users, items = every_pair(model)
    np.testing.assert_allclose(
        updated.predict(users, items, clip=False), model.predict(users, items, clip=False), atol=1e-6
    )


def test_update_with_ids_of_another_kind_is_refused(ratings, text_ratings):
    with pytest.raises(gm.DataError, match="another kind"):
        fitted(FIRST[0], ratings).update(text_ratings)


# ---- keeping ---------------------------------------------------------------------------------------


@every_recipe
@pytest.mark.parametrize("mmap", [False, True])
def test_save_and_load_give_an_equal_model(recipe, ratings, text_ratings, parts, mmap, tmp_path):
    train, test = parts
    for model in (fitted(recipe, ratings), fitted(recipe, text_ratings), recipe.fit(train, validation=test)):
        path = tmp_path / "m.gramian"
        model.save(path)
        again = gm.load(path, mmap=mmap)
        assert type(again) is type(model)
        assert again.history == model.history
        assert_same_model(again, model)
        assert again.card() == model.card()
        again.save(tmp_path / "again.gramian")
        assert (tmp_path / "again.gramian").read_bytes() == path.read_bytes()
    first = next(iter(again.arrays().values()))
    assert isinstance(first, np.memmap) == (mmap and first.size > 0)


@first_recipe
def test_a_loaded_model_does_all_that_a_fresh_one_does(recipe, ratings, tmp_path):
    model = fitted(recipe, ratings)
    model.save(tmp_path / "m.gramian")
    given = {11: 4.5, 39: 1.0}
    for mmap in (False, True):
        again = gm.load(tmp_path / "m.gramian", mmap=mmap)
        assert again.recommend_for(given).equals(model.recommend_for(given))
        if hasattr(model, "explain"):
            assert again.explain(101, 18).contributions.equals(model.explain(101, 18).contributions)
            assert_same_model(again.update(ratings), model.update(ratings))


@first_recipe
def test_a_mapped_model_outlives_a_new_file_in_its_place(recipe, ratings, parts, tmp_path):
    """A file is replaced as a whole, never written into: whoever has the old one open keeps it."""
    path = tmp_path / "m.gramian"
    fitted(recipe, ratings).save(path)
    mapped = gm.load(path, mmap=True)
    new = recipe.fit(parts[0])
    new.save(path)
    assert_same_model(mapped, fitted(recipe, ratings))
    assert_same_model(gm.load(path), new)


@first_recipe
def test_a_copied_model_is_equal(recipe, ratings):
    assert_same_model(pickle.loads(pickle.dumps(fitted(recipe, ratings))), fitted(recipe, ratings))


def test_what_is_known_of_the_table_survives_saving(frame, tmp_path):
    titles = pl.DataFrame({"item": [11, 18, 25], "title": ["Straße", "", None]})
    with pytest.warns(gm.DataWarning):
        table = gm.Ratings.from_frame(pl.concat([frame, frame.head(3)])).with_items(titles)
    model = gm.Baseline(epochs=1).fit(table)
    model.save(tmp_path / "m.gramian")
    again = gm.load(tmp_path / "m.gramian")
    assert again.ratings.titles.equals(table.titles)
    assert again.ratings.titles[:3].to_list() == ["Straße", "", None]
    assert again.ratings.times.tolist() == table.times.tolist()
    assert again.ratings.describe() == table.describe()


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """One small model file per model."""
    folder = tmp_path_factory.mktemp("small")
    table = gm.Ratings.from_frame(
        pl.DataFrame(
            {"user": ["á", "á", "b", "b", "c"], "item": [1, 2, 2, 3, 1], "rating": [1.0, 2, 3, 4, 5], "time": range(5)}
        )
    )
    made = {}
    for recipe in FIRST:
        small = dataclasses.replace(shorter(recipe, 1), **{"factors": 2} if hasattr(recipe, "factors") else {})
        made[recipe] = folder / f"{recipe.name}.gramian"
        small.fit(table).save(made[recipe])
    return made


@first_recipe
def test_a_file_cut_short_is_refused(recipe, small_files, tmp_path):
    content = small_files[recipe].read_bytes()
    path = tmp_path / "cut.gramian"
    for length in [*range(0, 40), *range(40, len(content), 13), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        for mmap in (False, True):
            with pytest.raises(gm.FormatError, match=r"'.*cut\.gramian' is damaged or not a model file"):
                gm.load(path, mmap=mmap)
    path.write_bytes(content + b"\0")
    with pytest.raises(gm.FormatError):
        gm.load(path)


@first_recipe
@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_a_flipped_byte_is_refused_wherever_it_is(recipe, mask, small_files, tmp_path):
    whole = gm.load(small_files[recipe])
    content = bytearray(small_files[recipe].read_bytes())
    path = tmp_path / "flipped.gramian"
    wrong, refused = {}, 0
    for place in range(len(content)):
        content[place] ^= mask
        path.write_bytes(content)
        try:
            model = gm.load(path)
            # A last digit of a number in the header may change without changing the number that is read.
            assert model.history == whole.history
            assert_same_model(model, whole)
        except gm.FormatError:
            refused += 1
        except Exception as error:  # what else comes out is what this test is about
            wrong[place] = repr(error)
        content[place] ^= mask
    assert wrong == {}
    assert refused > len(content) - 12


def mapped_with_flips(path, source, mask):
    """What comes of a mapped load for every byte of the header flipped: a model or an exception."""
    content = bytearray(source.read_bytes())
    for place in range(8 + int.from_bytes(content[:8], "little")):
        content[place] ^= mask
        path.write_bytes(content)
        try:
            yield place, gm.load(path, mmap=True)
        except Exception as error:  # what comes out is what these tests are about
            yield place, error
        content[place] ^= mask


@first_recipe
@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_damaged_header_never_ends_in_a_traceback_when_mapped(recipe, mask, small_files, tmp_path):
    came = mapped_with_flips(tmp_path / "flipped.gramian", small_files[recipe], mask)
    wrong = {place: repr(it) for place, it in came if isinstance(it, Exception) and not isinstance(it, gm.FormatError)}
    assert wrong == {}


@first_recipe
def test_a_mapped_file_does_not_lie_about_its_recipe(recipe, small_files, tmp_path):
    """The arrays are not read then, so their digest cannot be checked; the header is read in full."""
    came = mapped_with_flips(tmp_path / "flipped.gramian", small_files[recipe], 0x01)
    recipes = {place: it.recipe for place, it in came if not isinstance(it, Exception)}
    assert {place: other for place, other in recipes.items() if other != gm.load(small_files[recipe]).recipe} == {}


@first_recipe
def test_a_file_of_a_newer_format_is_refused(recipe, small_files, tmp_path, monkeypatch):
    path = tmp_path / "newer.gramian"
    monkeypatch.setattr(file_format, "FORMAT_VERSION", file_format.FORMAT_VERSION + 1)
    gm.load(small_files[recipe]).save(path)
    gm.load(path)
    monkeypatch.undo()
    for mmap in (False, True):
        with pytest.raises(gm.FormatError, match=r"newer format: found version 2, this library reads up to 1; upgrade"):
            gm.load(path, mmap=mmap)


def test_what_is_no_model_file_is_refused(tmp_path, ratings):
    path = tmp_path / "m.gramian"
    others = {
        "empty": b"",
        "text": b"user,item,rating\n1,2,3\n" * 50,
        "pickle": pickle.dumps({"a": 1}),
        "zeros": bytes(1000),
        "json": (2).to_bytes(8, "little") + b"[]",
        "number": (2).to_bytes(8, "little") + b"17",
        "no metadata": (2).to_bytes(8, "little") + b"{}",
    }
    for name, content in others.items():
        path.write_bytes(content)
        for mmap in (False, True):
            with pytest.raises(gm.FormatError, match="damaged or not a model file"):
                gm.load(path, mmap=mmap)
            assert name
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(gm.FormatError, match="no Gramian header"):
        gm.load(path)
    with pytest.raises(gm.DataError, match="There is no model file"):
        gm.load(tmp_path / "nothing.gramian")
    with pytest.raises(gm.DataError, match="There is no model file"):
        gm.load(tmp_path)
    file_format.write_file(path, {}, {"kind": "checkpoint"})
    with pytest.raises(gm.FormatError, match="holds a checkpoint, not a model"):
        gm.load(path)


def _changed(arrays, name, change):
    return {**arrays, name: change(arrays[name])}


WRONG_ARRAYS = {
    "nan": lambda a: _changed(a, "model.user_rows", lambda x: np.where(np.arange(x.size).reshape(x.shape), x, np.nan)),
    "inf": lambda a: _changed(a, "model.item_rows", lambda x: np.full_like(x, np.inf)),
    "too few rows": lambda a: _changed(a, "model.item_rows", lambda x: x[:-1]),
    "too few factors": lambda a: _changed(a, "model.item_rows", lambda x: x[:, :-1]),
    "integers": lambda a: _changed(a, "model.user_rows", lambda x: x.astype(np.int32)),
    "missing": lambda a: {name: array for name, array in a.items() if name != "model.user_rows"},
    "missing ratings": lambda a: {name: array for name, array in a.items() if name != "ratings.indices"},
    "missing ids": lambda a: {name: array for name, array in a.items() if name != "item_ids"},
    "missing ends of ids": lambda a: {name: array for name, array in a.items() if name != "user_ids.ends"},
    "item out of range": lambda a: _changed(a, "ratings.indices", lambda x: x + 1),
    "item negative": lambda a: _changed(a, "ratings.indices", lambda x: x - 1),
    "indices as int64": lambda a: _changed(a, "ratings.indices", lambda x: x.astype(np.int64)),
    "indptr going back": lambda a: _changed(a, "ratings.indptr", lambda x: x[[0, 2, 1, 3]]),
    "indptr beyond the end": lambda a: _changed(a, "ratings.indptr", lambda x: np.array([0, 900, 4, 5])),
    "indptr not from 0": lambda a: _changed(a, "ratings.indptr", lambda x: np.array([-3, 2, 4, 5])),
    "nan rating": lambda a: _changed(a, "ratings.values", lambda x: np.full_like(x, np.nan)),
    "too few times": lambda a: _changed(a, "ratings.times", lambda x: x[:-1]),
    "times as float": lambda a: _changed(a, "ratings.times", lambda x: x.astype(float)),
    "two items of one id": lambda a: _changed(a, "item_ids", lambda x: np.array([1, 1, 2])),
    "ids as floats": lambda a: _changed(a, "item_ids", lambda x: x.astype(float)),
    "broken text": lambda a: _changed(a, "user_ids.text", lambda x: np.full_like(x, 255)),
    "ends of text beyond it": lambda a: _changed(a, "user_ids.ends", lambda x: x + 100),
}


def _with_one_rest(arrays, change):
    return _changed(arrays, "model.draw00000.rest", lambda x: change(x.copy()))


def _put(array, place, value):
    array[place] = value
    return array


WRONG_DRAWS = {
    "nan": lambda a: _changed(a, "model.draw00000.user_rows", lambda x: np.full_like(x, np.nan)),
    "inf": lambda a: _changed(a, "model.draw00000.item_rows", lambda x: np.full_like(x, np.inf)),
    "too few rows": lambda a: _changed(a, "model.draw00000.item_rows", lambda x: x[:-1]),
    "too few factors": lambda a: _changed(a, "model.draw00000.user_rows", lambda x: x[:, :-1]),
    "integers": lambda a: _changed(a, "model.draw00000.user_rows", lambda x: x.astype(np.int8)),
    "a part of a draw missing": lambda a: {k: v for k, v in a.items() if k != "model.draw00000.item_rows"},
    "the rest of a draw missing": lambda a: {k: v for k, v in a.items() if k != "model.draw00000.rest"},
    "no draw": lambda a: {k: v for k, v in a.items() if "draw" not in k},
    "a draw left out": lambda a: {k.replace("draw00000", "draw00001"): v for k, v in a.items()},
    "priors too short": lambda a: _changed(a, "model.draw00000.rest", lambda x: x[:-1]),
    "nan in a prior": lambda a: _with_one_rest(a, lambda x: _put(x, 3, np.nan)),
    "no noise": lambda a: _with_one_rest(a, lambda x: _put(x, 0, 0.0)),
    "negative noise": lambda a: _with_one_rest(a, lambda x: _put(x, 0, -1.0)),
    "a precision that is none": lambda a: _with_one_rest(a, lambda x: _put(x, slice(4, 13), 0.0)),
    "traces of another training": lambda a: _changed(a, "model.traces", lambda x: x[:, :, :-1]),
    "nan in the traces": lambda a: _changed(a, "model.traces", lambda x: np.full_like(x, np.nan)),
    "no offset": lambda a: {k: v for k, v in a.items() if k != "model.offset"},
    "something strange": lambda a: {**a, "model.more": np.zeros(2)},
}
WRONG_CONTENT = [
    *(pytest.param("als", change, id=f"als {name}") for name, change in WRONG_ARRAYS.items()),
    *(pytest.param("bpmf", change, id=f"bpmf {name}") for name, change in WRONG_DRAWS.items()),
]


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(("model", "change"), WRONG_CONTENT)
def test_arrays_that_do_not_fit_together_are_refused(model, change, mmap, small_files, tmp_path):
    """Files with a right digest but a wrong content: whoever wrote them, they must not be trusted."""
    arrays, about = file_format.read_file(small_files[next(r for r in FIRST if r.name == model)])
    path = tmp_path / "wrong.gramian"
    wrong = {key: np.ascontiguousarray(array) for key, array in change(arrays).items()}
    file_format.write_file(path, wrong, {key: value for key, value in about.items() if key != "format"})
    with pytest.raises(gm.FormatError):
        gm.load(path, mmap=mmap)


@first_recipe
def test_an_unknown_recipe_in_a_file_is_refused(recipe, small_files, tmp_path):
    arrays, about = file_format.read_file(small_files[recipe])
    path = tmp_path / "wrong.gramian"
    for wrong in (
        {"name": "oracle"},
        {**about["recipe"], "sweetness": 1},
        {**about["recipe"], recipe.length_field: -1},
        {},
    ):
        file_format.write_file(path, arrays, {**about, "recipe": wrong})
        with pytest.raises(gm.FormatError, match="recipe that is not known"):
            gm.load(path)


@first_recipe
def test_a_full_disk_leaves_the_old_file_whole(recipe, ratings, parts, tmp_path):
    pytest.importorskip("resource", reason="file size limits are POSIX only")
    path, old = tmp_path / "m.gramian", recipe.fit(parts[0])
    old.save(path)
    before = path.read_bytes()
    fitted(recipe, ratings).save(tmp_path / "new.gramian")
    code = (
        "import resource, sys, gramian as gm\n"
        "model = gm.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    model.save(sys.argv[2])\n"
        "except gm.DataError as error:\n"
        "    print(error)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "new.gramian"), str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"The file '.*m\.gramian' could not be written: .+; nothing that was there .*\n", done.stdout)
    assert path.read_bytes() == before
    assert_same_model(gm.load(path), old)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.gramian", "new.gramian"]


@first_recipe
def test_saving_where_there_is_no_folder_is_refused(recipe, ratings, tmp_path):
    with pytest.raises(gm.DataError, match=r"no folder '.*nowhere'; make it first"):
        fitted(recipe, ratings).save(tmp_path / "nowhere" / "m.gramian")
    with pytest.raises(gm.DataError, match="could not be written"):
        fitted(recipe, ratings).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- recipes ---------------------------------------------------------------------------------------


@every_recipe
def test_recipes_are_frozen_comparable_data(recipe):
    assert gm.recipe_from_dict(recipe.to_dict()) == recipe
    assert gm.recipe_from_dict(json.loads(recipe.to_json())) == recipe
    assert hash(gm.recipe_from_dict(json.loads(recipe.to_json()))) == hash(recipe)
    assert eval(repr(recipe), {type(recipe).__name__: type(recipe)}) == recipe
    assert gm.make_recipe(**recipe.to_dict()) == recipe
    for field in dataclasses.fields(recipe):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(recipe, field.name, getattr(recipe, field.name))
        assert dataclasses.replace(recipe, **{field.name: other_value(field, getattr(recipe, field.name))}) != recipe


def test_unknown_recipes_and_fields_are_refused():
    with pytest.raises(gm.ParameterError, match=r"no model 'oracle'; choose one of als, .*baseline"):
        gm.make_recipe("oracle")
    with pytest.raises(gm.ParameterError, match=r"'als' has no setting 'sweetness'; it has factors, "):
        gm.make_recipe("als", sweetness=3)


UNCHANGED: dict[str, tuple] = {}  # what is observed of each recipe as it is: the same for all of its fields


@every_field
def test_every_field_has_an_effect(recipe, field, wide_parts, pools, monkeypatch):
    """On the parameters, the number of epochs, or the threads that are started."""
    monkeypatch.setenv("GRAMIAN_NUM_THREADS", "3")
    train, validation = wide_parts

    def observed(settings):
        pools.clear()
        model = settings.fit(train, validation)
        arrays = [(name, a.dtype, a.shape, a.tobytes()) for name, a in model.arrays().items()]
        return arrays, len(model.history), set(pools)

    if recipe.name not in UNCHANGED:
        UNCHANGED[recipe.name] = observed(recipe)
        assert UNCHANGED[recipe.name] == observed(dataclasses.replace(recipe))
    changed = dataclasses.replace(recipe, **{field.name: other_value(field, getattr(recipe, field.name))})
    assert observed(changed) != UNCHANGED[recipe.name]


@every_field
def test_documented_defaults_and_ranges_are_the_real_ones(recipe, field):
    kind = type(recipe)
    default = inspect.signature(kind).parameters[field.name].default
    about = field.metadata
    assert getattr(kind(), field.name) == field.default == default
    assert kind() == kind(**{field.name: default})
    assert len(about["help"]) > 10
    assert ("if not given" in about["help"]) <= (default is None)
    assert (default is None) <= about["optional"]
    stated = re.findall(rf"``{field.name}=\"?([^\"`]+)\"?``[^.]*?\(?(?:the )?default", kind.__doc__ or "")
    assert all(text == str(default) for text in stated)
    assert not isinstance(default, str) or default == about["word"] or default in about["choices"]
    if about["low"] is not None and not isinstance(default, str | None):
        assert about["low"] <= default <= (about["high"] or np.inf)
        assert dataclasses.replace(kind(), **{field.name: about["low"]}) is not None
    if about["choices"] is not None:
        assert default in about["choices"]


def test_fields_that_stand_for_another_when_not_given(ratings, monkeypatch):
    plain = gm.ALS(factors=3, regularization=2.5, epochs=3)
    explicit = dataclasses.replace(plain, bias_regularization=2.5)
    different = dataclasses.replace(plain, bias_regularization=2.0)
    for one, other in ((plain, explicit), (plain, dataclasses.replace(plain, n_jobs=pool.thread_count(None)))):
        mine, theirs = one.fit(ratings), other.fit(ratings)
        assert mine.user_rows.tobytes() == theirs.user_rows.tobytes()
    assert plain.fit(ratings).user_rows.tobytes() != different.fit(ratings).user_rows.tobytes()
    monkeypatch.setenv("GRAMIAN_NUM_THREADS", "5")
    assert pool.thread_count(None) == 5
    assert pool.thread_count(2) == 2
    for wrong in ("0", "-1", "two", ""):
        monkeypatch.setenv("GRAMIAN_NUM_THREADS", wrong)
        with pytest.raises(gm.ParameterError, match="GRAMIAN_NUM_THREADS must be"):
            pool.thread_count(None)


@pytest.mark.parametrize("name", sorted(registry.RECIPES))
def test_defaults_give_a_decent_model(name, parts):
    train, test = parts
    model = gm.make_recipe(name).fit(train)
    constant = np.sqrt(np.mean((test.values - train.global_mean) ** 2))
    assert model.evaluate(test)["rmse"] < 0.9 * constant


# ---- interrupts and checkpoints --------------------------------------------------------------------


def interrupt_at(epoch):
    """A callback that stands for Ctrl-C after an epoch."""

    def callback(model):
        if len(model.history) == epoch:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("recipe", WITH_EPOCHS, ids=label)
@pytest.mark.parametrize("validated", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted(recipe, validated, parts, tmp_path):
    train, test = parts
    path, validation = tmp_path / "c.checkpoint", test if validated else None
    whole = recipe.fit(train, validation)
    for epoch in (1, 3):
        with pytest.warns(gm.TrainingWarning, match=f"interrupted: the model is that of epoch {epoch}"):
            kept = recipe.fit(train, validation, checkpoint=path, callback=interrupt_at(epoch))
        assert_same_bits(kept, shorter(recipe, epoch).fit(train, validation))
        assert path.exists()
        resumed = recipe.fit(train, validation, checkpoint=path, resume=True)
        assert_same_bits(resumed, whole)
        assert not path.exists()


@pytest.mark.parametrize("recipe", [r for r in RESTLESS if hasattr(r, "patience")], ids=label)
def test_interrupted_and_resumed_with_patience(recipe, wide_parts, tmp_path):
    train, test = wide_parts
    patient = dataclasses.replace(recipe, patience=2, epochs=60)
    whole = patient.fit(train, test)
    stopped = len(whole.history)
    assert 4 <= stopped < 20
    for epoch in range(1, stopped + 1):
        path = tmp_path / "c.checkpoint"
        with pytest.warns(gm.TrainingWarning):
            patient.fit(train, test, checkpoint=path, callback=interrupt_at(epoch))
        assert_same_bits(patient.fit(train, test, checkpoint=path, resume=True), whole)


@pytest.mark.parametrize("recipe", WITH_EPOCHS[:1] + WITH_EPOCHS[-1:], ids=label)
def test_an_interrupt_within_an_epoch_keeps_the_last_full_one(recipe, ratings, tmp_path, monkeypatch):
    path, real = tmp_path / "c.checkpoint", type(recipe).epoch
    whole = recipe.fit(ratings)

    def broken(self, table, arrays, number):
        done = real(self, table, arrays, number)
        if number == 3:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(type(recipe), "epoch", broken)
    with pytest.warns(gm.TrainingWarning, match="epoch 2"):
        kept = recipe.fit(ratings, checkpoint=path)
    monkeypatch.undo()
    assert_same_bits(kept, shorter(recipe, 2).fit(ratings))
    assert_same_bits(recipe.fit(ratings, checkpoint=path, resume=True), whole)


@first_recipe
def test_an_interrupt_before_the_first_epoch_is_raised(recipe, ratings, monkeypatch):
    def broken(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(recipe), "epoch", broken)
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(ratings)


@first_recipe
def test_a_checkpoint_may_be_resumed_with_more_epochs_or_other_threads(recipe, ratings, tmp_path):
    path = tmp_path / "c.checkpoint"
    threads = {"n_jobs": 2} if hasattr(recipe, "n_jobs") else {}
    longer = dataclasses.replace(recipe, **{recipe.length_field: recipe.n_epochs + 1}, **threads)
    with pytest.warns(gm.TrainingWarning):
        recipe.fit(ratings, checkpoint=path, callback=interrupt_at(2))
    assert_same_bits(longer.fit(ratings, checkpoint=path, resume=True), longer.fit(ratings))
    assert_same_bits(
        recipe.fit(ratings, checkpoint=path, resume=True), fitted(recipe, ratings)
    )  # no file: from scratch


@first_recipe
def test_a_checkpoint_that_does_not_fit_is_refused(recipe, ratings, parts, text_ratings, small_files, tmp_path):
    path = tmp_path / "c.checkpoint"
    with pytest.warns(gm.TrainingWarning):
        recipe.fit(ratings, checkpoint=path, callback=interrupt_at(2))
    content = path.read_bytes()
    free = (recipe.length_field, "n_jobs", "factors", "biases")
    field = next(f for f in dataclasses.fields(recipe) if f.name not in free)
    other = dataclasses.replace(recipe, **{field.name: other_value(field, getattr(recipe, field.name))})
    with pytest.raises(gm.DataError, match=rf"of another training: it has {field.name} .*, not "):
        other.fit(ratings, checkpoint=path, resume=True)
    for table in (parts[0], text_ratings):
        with pytest.raises(gm.DataError, match="made from other ratings"):
            recipe.fit(table, checkpoint=path, resume=True)
    assert path.read_bytes() == content
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(gm.FormatError, match="damaged"):
        recipe.fit(ratings, checkpoint=path, resume=True)
    path.write_bytes(small_files[recipe].read_bytes())
    with pytest.raises(gm.DataError, match="is not a checkpoint: it holds a model"):
        recipe.fit(ratings, checkpoint=path, resume=True)
    with pytest.raises(gm.ParameterError, match="'resume' parameter of fit needs a checkpoint"):
        recipe.fit(ratings, resume=True)
    with pytest.raises(gm.DataError, match="no folder"):
        recipe.fit(ratings, checkpoint=Path(tmp_path) / "nowhere" / "c")


@first_recipe
def test_the_progress_bar_changes_nothing(recipe, parts, capsys):
    train, test = parts
    model = recipe.fit(train, test, progress=True)
    assert_same_bits(model, recipe.fit(train, test))
    assert plain_history(model)[0]["epoch"] == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert type(recipe).__name__ in shown.err
