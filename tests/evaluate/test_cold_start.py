"""Users and items without ratings, known by features or not at all: predictions, intervals, lists, fold-in."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from commands import Run

import gramian as gm

USERS, ITEMS, OLD_USERS, OLD_ITEMS = 300, 200, 220, 150
WARM = "ignore::gramian.errors.UnknownIdWarning"


@pytest.fixture(scope="module")
def world():
    """Ratings of users and items whose biases and factors go with features; and both tables."""
    rng = np.random.default_rng(0)
    F, G, sex = rng.normal(size=(USERS, 2)), rng.normal(size=(ITEMS, 2)), rng.integers(0, 2, USERS)
    W, U = (0.6 * f @ rng.normal(size=(2, 2)) + 0.3 * rng.normal(size=f.shape) for f in (F, G))
    b = 0.5 * F[:, 0] + 0.4 * sex + 0.2 * rng.normal(size=USERS)
    c = 0.5 * G[:, 1] + 0.2 * rng.normal(size=ITEMS)
    u, i = np.nonzero(rng.random((USERS, ITEMS)) < 0.15)
    values = 3 + b[u] + c[i] + np.sum(W[u] * U[i], axis=1) + 0.3 * rng.normal(size=len(u))
    users = pl.DataFrame({"user": np.arange(USERS), "age": 40 + 9 * F[:, 0], "far": F[:, 1], "sex": sex.astype(str)})
    items = pl.DataFrame({"item": np.arange(ITEMS), "first": G[:, 0], "second": G[:, 1]})
    table = pl.DataFrame({"user": u, "item": i, "rating": values, "time": 86_400 * rng.integers(0, 40, len(u))})
    return table, users, items


def part(table, new_users, new_items):
    """The ratings of old or new users and items."""
    return gm.Ratings.from_frame(
        table.filter((pl.col("user") >= OLD_USERS) == new_users, (pl.col("item") >= OLD_ITEMS) == new_items)
    )


@pytest.fixture(scope="module")
def recipe(world):
    _, users, items = world
    return gm.BPMF(factors=3, draws=60, user_features=users, item_features=items, implicit="both")


@pytest.fixture(scope="module")
def model(world, recipe):
    return recipe.fit(part(world[0], False, False))


def coverage(model, test):
    low, high = model.predict_interval(test.users, test.items, 0.9, clip=False).T
    return float(np.mean((low <= test.values) & (test.values <= high)))


@pytest.mark.filterwarnings(WARM)
@pytest.mark.parametrize("told", [True, False], ids=["in the tables", "in no table"])
def test_intervals_of_ids_without_ratings_hold_what_they_say(world, recipe, model, told):
    table, users, items = world
    if not told:  # whose features are anybody's: their spread is a part of what is not known
        known = {"user_features": users.head(OLD_USERS), "item_features": items.head(OLD_ITEMS)}
        model = dataclasses.replace(recipe, **known).fit(model.ratings)
    for new in ((True, False), (False, True), (True, True)):
        assert 0.86 < coverage(model, part(table, *new)) < 0.94


def test_what_is_believed_of_somebody_new_is_as_wide_as_the_prior(world, model):
    """``of="mean"`` differs from the rating by the noise, also of somebody new."""
    pairs = np.arange(OLD_USERS, USERS), model.item_ids.ids[:80]
    of_mean, of_rating = (model.predict_std(*pairs, of=of) for of in ("mean", "rating"))
    noise = np.mean([1 / draw.noise_precision for draw in model.draws])
    np.testing.assert_allclose(of_mean**2 + noise, of_rating**2, rtol=0.1)
    ends = model.predict_interval(*pairs, 0.9, of="mean", clip=False)
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * 1.645 * of_mean, rtol=0.25)
    steps = gm.BPMF(factors=2, draws=10, likelihood="ordinal", user_features=world[1]).fit(
        part(world[0].with_columns(pl.col("rating").round().clip(1, 5)), False, False)
    )
    assert np.median(steps.predict_std(USERS - 1, steps.item_ids.ids, of="mean")) > 0.2
    mean = steps.believed_codes(steps._pairs_of(USERS - 1, steps.item_ids.ids, None, "raise")).mean(axis=0)
    assert np.abs(mean - steps.predict(USERS - 1, steps.item_ids.ids)).max() < 0.15


def test_who_is_in_the_table_is_not_unknown(model):
    """Neither a warning nor an error, and never NaN."""
    new, item = USERS - 1, int(model.item_ids.ids[0])
    assert model.predict(new, item, unknown="raise") == model.predict(new, item, unknown="nan")
    assert np.isfinite(model.predict_std(new, ITEMS - 1, unknown="nan")).all()
    with pytest.raises(
        gm.errors.UnknownIdError, match=f"1 of 2 user ids are unknown to the model, for example {USERS}"
    ):
        model.predict([new, USERS], item, unknown="raise")


@pytest.mark.parametrize("changes", [{}, {"time": "auto", "noise": "by_user", "draws": 20}], ids=["plain", "timed"])
def test_lists_of_who_is_only_in_the_table_are_those_of_its_predictions(recipe, model, changes):
    model = dataclasses.replace(recipe, **changes).fit(model.ratings) if changes else model
    new = [USERS - 2, USERS - 1]
    lists = model.recommend(new, 5, unknown="raise")
    for user in new:
        mine = lists.filter(pl.col("user") == user)
        scores = model.predict(user, model.item_ids.ids, clip=False)
        assert mine["item"].to_list() == model.item_ids.take(np.argsort(-scores)[:5]).to_list()
        np.testing.assert_allclose(mine["score"], np.sort(scores)[::-1][:5], rtol=1e-5)
        safe = model.recommend(user, 1, by="lower", level=0.8)
        low = model.predict_interval(user, safe["item"], 0.8, of="mean", clip=False)[0, 0]
        assert safe["score"][0] == pytest.approx(low, abs=0.2)
        assert len(model.recommend(user, 5, by="thompson")) == 5


def features_of(world, user):
    return world[1].drop("user").row(user, named=True)


def test_somebody_new_may_be_told_by_features(world, model):
    """Told what the table has of an id, the rows of an empty fold-in are drawn about that id's predictions."""
    user, items = USERS - 1, model.item_ids.ids
    row = model.fold_in({}, features=features_of(world, user))
    assert np.sqrt(np.mean((model.score_row(row) - model.predict(user, items, clip=False)) ** 2)) < 0.15
    np.testing.assert_array_equal(row, model.fold_in({}, features=user))  # by the id
    with pytest.raises(gm.errors.UnknownIdError, match="The table of features has no 300"):
        model.fold_in({}, features=USERS)
    with pytest.raises(gm.DataError, match="no column 'height'"):
        model.fold_in({}, features={"height": 3})
    with pytest.raises(gm.DataError, match="must be given as one; got 'old'"):
        model.fold_in({}, features={"age": "old"})


def test_features_and_ratings_together_tell_more_than_either(world, model):
    table = world[0]
    errors = {"both": [], "ratings": [], "features": []}
    inside = []
    for user in range(OLD_USERS, USERS):
        own = table.filter(pl.col("user") == user, pl.col("item") < OLD_ITEMS)
        given, rest = dict(own.head(3).select("item", "rating").iter_rows()), own.tail(-3)
        told = features_of(world, user)
        codes, values = model.item_ids.codes(rest["item"], "item"), rest["rating"].to_numpy()
        rows = {"both": model.fold_in(given, features=told), "ratings": model.fold_in(given),
                "features": model.fold_in({}, features=told)}  # fmt: skip
        for name, row in rows.items():
            errors[name].append(model.score_row(row)[codes] - values)
        mixture = model.predictive_of_row(rows["both"], codes)
        inside.append((mixture.quantile(0.05) <= values) & (values <= mixture.quantile(0.95)))
    rmse = {name: np.sqrt(np.mean(np.concatenate(parts) ** 2)) for name, parts in errors.items()}
    assert rmse["both"] < 0.95 * min(rmse["ratings"], rmse["features"])
    assert 0.86 < np.mean(np.concatenate(inside)) < 0.94


def test_cold_users_are_judged_with_what_the_table_has_of_them(world, recipe, model):
    new = part(world[0], True, False)
    blind = dataclasses.replace(recipe, user_features=None).fit(model.ratings)
    errors = [gm.evaluate_fold_in(one, *new.split(0.9, seed=0))["rmse"] for one in (model, blind)]
    assert errors[0] < 0.9 * errors[1]


def test_models_without_a_table_of_users_refuse_features(ratings):
    with pytest.raises(gm.ParameterError, match="need a model with user_features"):
        gm.BPMF(factors=2, draws=3).fit(ratings).fold_in({}, features={"age": 3})


def test_a_row_of_features_is_that_of_the_table():
    frame = pl.DataFrame({
        "user": [1, 2, 3, 4], "age": [20.0, None, 40.0, 60.0], "sex": ["m", "f", "f", "m"],
        "likes": [["p", "q"], ["p"], [], ["q"]], "born": [None, *pl.date_range(pl.date(1980, 1, 1), pl.date(1980, 3, 1),
                                                                             "1mo", eager=True).to_list()],
    })  # fmt: skip
    with pytest.warns(gm.errors.DataWarning, match="missing"):
        table = gm.BPMF(user_features=frame).user_features
    dense = np.zeros((4, len(table.names)), np.float32)
    dense[table.matrix.row_codes(), table.matrix.indices] = table.matrix.values
    for place, known in enumerate(frame.drop("user").iter_rows(named=True)):
        np.testing.assert_allclose(table.row(known), dense[place], atol=1e-6)
    np.testing.assert_array_equal(
        table.row({"age": 20.0, "sex": "x", "likes": "p|q"}), table.row({"age": "20", "likes": ["q", "p"]})
    )


def test_features_on_the_command_line(run: Run, tmp_path, world) -> None:
    table, users, _ = world
    table.filter(pl.col("user") < OLD_USERS, pl.col("item") < OLD_ITEMS).write_csv(tmp_path / "r.csv")
    users.write_csv(tmp_path / "u.csv")
    words = ("--model", "bpmf", "--factors", "2", "--draws", "6", "--users", "u.csv")
    assert run("fit", "r.csv", *words, "-o", "m.gramian")[0] == 0
    code, out, _ = run("features", "m.gramian", "--shares", "--json")
    assert code == 0
    assert [(row["side"], row["of"], row["by"]) for row in json.loads(out)] == [
        ("user", "factors", "table"), ("user", "biases", "table"),
    ]  # fmt: skip
    new = str(USERS - 1)
    code, out, err = run("recommend", "m.gramian", "--user", new, "-n", "3", "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)) == 3
    about = [word for name, value in features_of(world, USERS - 1).items() for word in ("--about", f"{name}={value}")]
    code, out, _ = run("recommend", "m.gramian", *about, "--rated", "3=4", "-n", "3", "--json")
    assert code == 0
    assert 3 not in [row["item"] for row in json.loads(out)]
    for wrong, said in ((("--about", "age"), "COLUMN=VALUE"), (("--about", "age=x"), "given as one")):
        code, _, err = run("recommend", "m.gramian", *wrong)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
