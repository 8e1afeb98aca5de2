"""Spark gives the answers of one machine: one session for most, and a cluster of two processes to kill one of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import gramian as gm
from gramian.cluster.inference import evaluate, fold_in, recommend_all, recommend_new
from gramian.cluster.stored_model import StoredModel
from gramian.cluster.stored_training import fit_stored
from gramian.data.spark_ratings import SparkRatings
from gramian.engine.spark import building
from gramian.engine.spark.session import spark_session

pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.skipif(shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="Spark needs Java"),
]


# The virtual machine compiles less: most of the time of small jobs is its compiler's.
LIGHT = {
    "spark_driver_memory": "1g",
    "spark_driver_extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark_sql_shuffle_partitions": "2",
    "spark_sql_codegen_wholeStage": "false",
}


@pytest.fixture(scope="module")
def spark():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = spark_session("local[2]", **LIGHT)
        yield session
        session.stop()


@pytest.fixture(scope="module")
def table():
    made = gm.synthetic_ratings(500, 200, 20_000, seed=5).ratings.to_frame()
    return made.sample(fraction=1, shuffle=True, seed=0).with_columns(item="i" + pl.col("item").cast(pl.String))


@pytest.fixture(scope="module")
def ratings(table):
    return gm.Ratings.from_frame(table)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def frame(spark, table, folder):
    table.write_parquet(folder / "ratings.parquet")
    return spark.read.parquet(str(folder / "ratings.parquet"))


@pytest.fixture(scope="module", autouse=True)
def several_blocks():
    before, building.FEWEST_RATINGS = building.FEWEST_RATINGS, 2000
    yield
    building.FEWEST_RATINGS = before


@pytest.fixture(scope="module")
def there(frame, folder):
    return gm.spark_ratings(frame, storage=str(folder / "storage"))


@pytest.fixture(scope="module")
def models(ratings, there):
    recipe = gm.ALS(factors=6, epochs=3)
    return recipe.fit(ratings), recipe.fit(there)


def collected(frame):
    return pl.DataFrame(pl.from_arrow(frame.toArrow()))


def test_blocks_hold_what_memory_holds(ratings, there):
    assert isinstance(there, SparkRatings)
    assert len(there.about["user_edges"]) > 2
    back = there.to_local()
    for mine, theirs in (((*ratings.by_user, ratings.times), (*back.by_user, back.times)),
                         (ratings.by_item, there.by_item.whole()[0])):  # fmt: skip
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert back.user_ids == ratings.user_ids
    assert back.item_ids == ratings.item_ids
    assert there.scale == ratings.scale
    assert there.global_mean == pytest.approx(ratings.global_mean, rel=1e-14)
    assert there.variance == pytest.approx(ratings.variance, rel=1e-14)
    np.testing.assert_array_equal(there.by_item.counts, ratings.by_item.counts)
    np.testing.assert_array_equal(there.by_user.row(321)[0], ratings.by_user.row(321)[0])


def test_what_parts_ratings_brings_them_here(ratings, there):
    assert there.describe() == ratings.describe()
    np.testing.assert_array_equal(there.users, ratings.users)
    np.testing.assert_array_equal(there.items, ratings.items)
    parts = [(made.split(0.2, seed=1), made.split_by_time(0.2), made.leave_last_out()) for made in (there, ratings)]
    for ours, theirs in zip(*parts, strict=True):
        assert [part.fingerprint() for part in ours] == [part.fingerprint() for part in theirs]
    recipe = gm.ALS(factors=2, epochs=2)
    ours, theirs = (gm.cross_validate(recipe, made, folds=2) for made in (there, ratings))
    assert (ours.rmse, ours.error) == (theirs.rmse, theirs.error)


@pytest.mark.parametrize("recipe", [
    gm.ALS(factors=4, epochs=2, solver="cg", weighting="count"),
    gm.ALS(factors=4, epochs=2, bias_update="separate"),
    gm.PMF(factors=4, epochs=2),
    gm.BPMF(factors=4, draws=3, burn_in=1, noise="by_user"),
], ids=["cg", "separate", "pmf", "bpmf"])  # fmt: skip
def test_recipes_equal_one_machine(ratings, there, recipe):
    mine, theirs = recipe.fit(ratings), recipe.fit(there)
    for name, array in mine.arrays().items():
        np.testing.assert_allclose(theirs.arrays()[name], array, rtol=2e-5, atol=2e-6)
    for key in mine.history[-1].keys() - {"seconds"}:
        assert theirs.history[-1][key] == pytest.approx(mine.history[-1][key], rel=1e-6)


def test_rows_sent_as_needed_give_the_bits_of_a_broadcast(spark, there, monkeypatch):
    recipe = gm.BPMF(factors=4, draws=1, burn_in=0, init="cold", noise="by_user", keep_dtype="float32")
    made = []
    for copies in (1, 1000):
        monkeypatch.setattr("gramian.engine.spark.spark_rows.executors", lambda spark, copies=copies: copies)
        fresh = SparkRatings(spark, there.storage, there.about)
        made.append(recipe.fit(fresh).arrays())
        assert [fresh.by_user.routed, fresh.by_item.routed] == 2 * [copies > 1]
    for name, array in made[0].items():
        np.testing.assert_array_equal(made[1][name], array)


def test_exact_als_and_its_verbs(models, ratings, frame, tmp_path):
    mine, theirs = models
    np.testing.assert_allclose(theirs.user_rows, mine.user_rows, rtol=1e-5, atol=1e-6)
    user = mine.user_ids.ids[7]
    assert theirs.recommend(user, 5)["item"].to_list() == mine.recommend(user, 5)["item"].to_list()
    assert theirs.rated_by(user).equals(mine.rated_by(user))
    theirs.save(tmp_path / "m.gramian")
    back = gm.load(tmp_path / "m.gramian")
    assert back.ratings.fingerprint() == ratings.fingerprint()
    stranger = frame.limit(1).selectExpr("cast(999999 as bigint) as user", "item", "rating")
    both = frame.select("user", "item", "rating").union(stranger)
    found, wanted = evaluate(theirs, both, unknown="nan"), mine.evaluate(ratings)
    assert found == pytest.approx(wanted, rel=1e-6)
    assert evaluate(theirs, both)["n"] == len(ratings) + 1
    with pytest.raises(gm.DataError, match="Nothing is left"):
        evaluate(theirs, stranger, unknown="nan")


def test_recommendations_for_everyone(models, spark):
    wanted = models[0].recommend(None, 4).sort("user", "rank")
    for model in models:  # ratings here, ratings there
        made = collected(recommend_all(model, 4, spark=spark)).sort("user", "rank")
        assert made["user"].to_list() == wanted["user"].to_list()
        assert (made["item"] == wanted["item"]).mean() > 0.999
        np.testing.assert_allclose(made["score"], wanted["score"], rtol=1e-5)


def test_new_users_by_a_frame(models, frame, ratings):
    mine = models[0]
    some = frame.filter("user < 40").selectExpr("user + 100000 as user", "item", "rating")
    made = collected(fold_in(mine, some)).sort("user")
    codes = mine.user_ids.codes(made["user"] - 100_000, "user")
    assert len(codes) > 20
    np.testing.assert_allclose(np.array(made["row"].to_list()), mine.user_rows[codes], rtol=1e-4, atol=1e-5)
    best = collected(recommend_new(mine, some, 3)).sort("user", "rank")
    wanted = mine.recommend(made["user"] - 100_000, 3)
    assert best["item"].to_list() == wanted["item"].to_list()


def test_factors_that_stay_on_the_cluster(models, there, ratings, tmp_path):
    mine, recipe = models[0], gm.ALS(factors=6, epochs=3)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_stored(recipe, there, callback=stop)
    numbers = []
    fit_stored(recipe, there, resume=True, callback=lambda record: numbers.append(record["epoch"]))
    assert numbers == [3]
    model = gm.load(there.storage)
    assert isinstance(model, StoredModel)
    for made, wanted in zip(model.history, mine.history, strict=True):
        assert made["objective"] == pytest.approx(wanted["objective"], rel=1e-6)
        assert made["train_rmse"] == pytest.approx(wanted["train_rmse"], rel=1e-6)
    users, items = ratings.users[::37], ratings.items[::37]
    np.testing.assert_allclose(model.predict(users, items), mine.predict(users, items), rtol=1e-5)
    with pytest.warns(gm.UnknownIdWarning):
        predicted, wanted = model.predict(-1, "i5"), mine.predict(-1, "i5")
    np.testing.assert_allclose(predicted, wanted, rtol=1e-5)
    best, expected = model.recommend(users[0], 5), mine.recommend(users[0], 5)
    assert best["item"].to_list() == expected["item"].to_list()
    np.testing.assert_allclose(best["score"], expected["score"], rtol=1e-5)
    assert best["rank"].to_list() == [1, 2, 3, 4, 5]
    with pytest.raises(gm.UnknownIdError, match="example -1"):
        model.recommend(-1, unknown="raise")
    test = ratings.split(0.1, seed=0)[1]
    assert model.evaluate(test) == pytest.approx(mine.evaluate(test), rel=1e-5)
    assert model.count_seen(test) == len(test)
    person = {"i5": 5.0, "i8": 1.0}
    assert model.recommend_for(person, 4)["item"].to_list() == mine.recommend_for(person, 4)["item"].to_list()
    made = collected(recommend_all(model, 4, spark=there.session)).sort("user", "rank")
    assert (made["item"] == mine.recommend(None, 4).sort("user", "rank")["item"]).mean() > 0.999
    some = there.session.createDataFrame([(-5, "i5", 5.0), (-5, "i8", 1.0)], "user bigint, item string, rating double")
    (folded,) = collected(fold_in(model, some))["row"]
    np.testing.assert_allclose(folded, mine.fold_in(person), rtol=1e-4, atol=1e-5)
    best, expected = (collected(recommend_new(one, some, 4)).sort("rank") for one in (model, mine))
    assert best["item"].to_list() == expected["item"].to_list()
    np.testing.assert_allclose(best["score"], expected["score"], rtol=1e-5)
    model.save(tmp_path / "whole.gramian")
    np.testing.assert_allclose(gm.load(tmp_path / "whole.gramian").user_rows, mine.user_rows, rtol=1e-5, atol=1e-6)
    with pytest.raises(gm.ParameterError, match="solver='exact'"):
        fit_stored(gm.ALS(solver="cg"), there)
    assert len(list((Path(there.storage) / "user_factors").iterdir())) == 2  # older ones are gone


def test_repeated_pairs_and_storage(spark, table, folder, tmp_path):
    again = table.head(300).with_columns(rating=pl.lit(5.0, pl.Float32), time=pl.col("time") + 1)
    twice = pl.concat([table, again])
    twice.write_parquet(tmp_path / "twice.parquet")
    frame = spark.read.parquet(str(tmp_path / "twice.parquet"))
    storage = str(tmp_path / "storage")
    made = gm.spark_ratings(frame, storage=storage)
    with pytest.warns(gm.DataWarning, match="300 rows repeat"):
        wanted = gm.Ratings.from_frame(twice)
    assert made.duplicates == 300
    np.testing.assert_array_equal(made.to_local().by_user.values, wanted.by_user.values)
    marks = {path: path.stat().st_mtime_ns for path in Path(storage).rglob("*")}
    assert len(gm.spark_ratings(frame, storage=storage)) == len(made)
    assert {path: path.stat().st_mtime_ns for path in Path(storage).rglob("*")} == marks  # used again
    with pytest.raises(gm.DataError, match="more than once"):
        gm.spark_ratings(frame, storage=storage, duplicates="raise")
    with pytest.raises(gm.DataError, match="no ratings, or not whole"):
        gm.open_spark_ratings(spark, str(tmp_path / "none"))


@pytest.mark.parametrize(("change", "match"), [
    ("case when user = 3 then null else user end as user, item, rating", "The user is missing in some rows"),
    ("user, item, float('nan') as rating", "A rating must be a finite number"),
    ("cast(user as double) as user, item, rating", "must be an integer or text: found double"),
    ("user, item, cast(rating as string) as rating", "must be numbers: found string"),
    ("user, item", "No column for the rating"),
])  # fmt: skip
def test_frames_that_cannot_be_used(frame, change, match):
    with pytest.raises(gm.DataError, match=match):
        gm.ALS().fit(frame.selectExpr(*[part.strip() for part in change.split(", ")]))


def test_what_does_not_train_there(there, frame, monkeypatch):
    monkeypatch.setattr("gramian.models.recipe.as_ratings", lambda table: pytest.fail("blocks were made"))
    for recipe, match in ((gm.SVD(), "SVD does not train on Spark"), (gm.BPMF(implicit="both"), "'implicit'")):
        with pytest.raises(gm.ParameterError, match=match):
            recipe.fit(frame)
    monkeypatch.undo()
    for recipe, match in ((gm.BPMF(time="auto"), "'time'"), (gm.BPMF(drift=True), "'drift'")):
        with pytest.raises(gm.ParameterError, match=match):
            recipe.fit(there)


def test_the_command_line(frame, folder, tmp_path, capsys, ratings):
    from gramian.cli.main import app

    source, model, out = str(folder / "ratings.parquet"), str(tmp_path / "m.gramian"), str(tmp_path / "best")
    how = ["--engine", "spark", "--master", "local[2]"]
    storage = ["--storage", str(folder / "storage")]
    app(["fit", source, "-m", "als", "--factors", "6", "--epochs", "3", "-o", model, "--json", *how, *storage],
        standalone_mode=False)  # fmt: skip
    assert json.loads(capsys.readouterr().out)["ratings"] == len(ratings)
    app(["evaluate", model, source, *how], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["n"] == len(ratings)
    app(["recommend", model, "--all", "-n", "2", "-o", out, *how], standalone_mode=False)
    assert pl.read_parquet(f"{out}/*.parquet").height == gm.load(model).recommend(None, 2).height
    stored = str(tmp_path / "stored")
    app(["fit", source, "-m", "als", "--factors", "3", "--epochs", "1", "-o", stored, "--stored", *how],
        standalone_mode=False)  # fmt: skip
    app(["recommend", stored, "--user", "7", "-n", "2", "--json"], standalone_mode=False)
    assert "score" in capsys.readouterr().out
    with pytest.raises(gm.ParameterError, match="stays in its folder"):
        app(["similar", stored, "--item", "i1"], standalone_mode=False)
    with pytest.raises(gm.ParameterError, match="give --all and --out"):
        app(["recommend", model, "--user", "1", *how], standalone_mode=False)
    with pytest.raises(gm.ParameterError, match="a share cannot be held out"):
        app(["fit", source, "--validation", "0.1", *how], standalone_mode=False)
    with pytest.raises(gm.ParameterError, match="'--engine' parameter"):
        app(["fit", source, "--engine", "flink"], standalone_mode=False)


KILLED = """
import os, signal, sys
import gramian as gm
from gramian.engine.spark import spark_rows
from gramian.engine.spark.session import spark_session

source, folder = sys.argv[1:]
ordinary = spark_rows._run

def killing(step, first, block):
    if os.path.exists(folder + "/armed") and first == 0:
        try:
            os.rename(folder + "/armed", folder + "/fired")  # of two workers, one
        except FileNotFoundError:
            return ordinary(step, first, block)
        parent = os.getpid()
        while b"CoarseGrainedExecutorBackend" not in open(f"/proc/{parent}/cmdline", "rb").read():
            parent = int(open(f"/proc/{parent}/stat").read().split(")")[1].split()[1])
        os.kill(parent, signal.SIGKILL)  # the executor that this task runs on
    return ordinary(step, first, block)

spark_rows._run = killing
light = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
spark = spark_session("local-cluster[2,1,1024]", spark_sql_shuffle_partitions="2", spark_sql_codegen_wholeStage="false",
                      spark_driver_extraJavaOptions=light, spark_executor_extraJavaOptions=light)
spark.sparkContext.setLogLevel("OFF")
ratings = gm.spark_ratings(spark.read.parquet(source), storage=folder + "/storage")
open(folder + "/armed", "w").close()

def after(model):
    print("epoch", len(model.history), os.path.exists(folder + "/fired"), flush=True)
    if len(model.history) == 2:
        os.kill(os.getpid(), signal.SIGKILL)  # the driver

gm.ALS(factors=6, epochs=3).fit(ratings, checkpoint=folder + "/checkpoint", callback=after)
"""


def test_a_killed_executor_and_a_killed_driver_change_nothing(spark, frame, folder, models, tmp_path):
    source = str(folder / "ratings.parquet")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    done = subprocess.run([sys.executable, "-c", KILLED, source, str(tmp_path)], capture_output=True, text=True,
                          env=clean, timeout=600)  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["epoch 1 True", "epoch 2 True"], done.stderr[-2000:]
    assert done.returncode == -9
    assert not (tmp_path / "armed").exists()
    ratings = gm.open_spark_ratings(spark, str(tmp_path / "storage"))
    numbers = []
    model = gm.ALS(factors=6, epochs=3).fit(
        ratings, checkpoint=tmp_path / "checkpoint", resume=True,
        callback=lambda model: numbers.append(len(model.history)),
    )  # fmt: skip
    assert numbers == [3]
    np.testing.assert_array_equal(model.user_rows, models[1].user_rows)
    np.testing.assert_array_equal(model.item_rows, models[1].item_rows)
