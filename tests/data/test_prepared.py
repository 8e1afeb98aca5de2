"""Ratings in a folder of mapped arrays: the same numbers as in memory, whatever happened while it was made."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import gramian as gm
from gramian.data import prepare
from gramian.data.journal import Journal
from gramian.data.sources import batches_of_query
from gramian.data.table_formats import files_in

SMALL = 0.001  # GiB: ranges of some 11,000 ratings


@pytest.fixture(scope="module")
def table(request):
    made = gm.synthetic_ratings(400, 150, 30_000, seed=3).ratings.to_frame()
    return made.sample(fraction=1, shuffle=True, seed=0)


@pytest.fixture(scope="module")
def source(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "ratings.parquet"
    table.write_parquet(path)
    return path


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    return gm.prepare(source, tmp_path_factory.mktemp("prepared") / "folder", memory=SMALL)


def assert_same(ratings, prepared):
    for mine, theirs in ((ratings.by_user, prepared.by_user), (ratings.by_item, prepared.by_item)):
        for a, b in zip(mine, theirs, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert ratings.user_ids == prepared.user_ids
    assert ratings.item_ids == prepared.item_ids
    assert (ratings.times is None) == (prepared.times is None)
    if ratings.times is not None:
        np.testing.assert_array_equal(ratings.times, prepared.times)
    for name in ("scale", "global_mean", "variance", "duplicates"):
        assert getattr(ratings, name) == getattr(prepared, name)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_arrays_equal_those_in_memory(table, prepared):
    assert_same(gm.Ratings.from_frame(table), prepared)
    assert len(prepared.about["files"]) == 9
    prepared.check()


@pytest.mark.parametrize("recipe", [
    gm.ALS(factors=5, epochs=2),
    gm.ALS(factors=5, epochs=2, solver="cg"),
    gm.ALS(factors=5, epochs=2, weighting="count", bias_update="separate"),
    gm.PMF(factors=5, epochs=2),
    gm.BPMF(factors=5, draws=4),
    gm.Baseline(),
], ids=lambda recipe: f"{recipe.name}-{getattr(recipe, 'solver', '')}")  # fmt: skip
def test_models_have_the_same_bits(table, prepared, recipe):
    model, other = recipe.fit(gm.Ratings.from_frame(table)), recipe.fit(prepared)
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])


def test_training_holds_no_copy_of_the_ratings(tmp_path):
    rng = np.random.default_rng(0)
    count = 1_000_000
    frame = pl.DataFrame({
        "user": rng.integers(0, 2000, count), "item": rng.integers(0, 2000, count), "rating": rng.integers(1, 6, count)
    })  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gm.DataWarning)
        ratings = gm.prepare(frame.lazy(), tmp_path / "folder", memory=0.02)
    recipe = gm.ALS(factors=4, epochs=1)
    recipe.fit(ratings)
    tracemalloc.start()
    recipe.fit(ratings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(ratings)


@pytest.mark.parametrize("duplicates", ["last", "mean"])
@pytest.mark.parametrize("timed", [True, False])
def test_repeated_pairs_as_in_memory(table, tmp_path, duplicates, timed):
    again = table.head(5000).with_columns(pl.col("rating") + 1, pl.col("time") - (pl.col("item") % 3 - 1) * 10**6)
    twice = pl.concat([table, again, table.head(100)]).sample(fraction=1, shuffle=True, seed=1)
    twice = twice if timed else twice.drop("time")
    path = tmp_path / "twice.parquet"
    twice.write_parquet(path)
    with pytest.warns(gm.DataWarning, match="repeat"):
        ratings = gm.read_ratings(path, duplicates=duplicates)
    with pytest.warns(gm.DataWarning, match="5100 rows repeat"):
        made = gm.prepare(path, tmp_path / "folder", memory=SMALL, duplicates=duplicates)
    assert_same(ratings, made)
    with pytest.raises(gm.DataError, match="more than once"):
        gm.prepare(path, tmp_path / "other", memory=SMALL, duplicates="raise")
    assert not list(tmp_path.glob("*other*"))


@pytest.mark.parametrize("kind", ["csv", "tsv.gz", "arrow", "parts", "hive", "text ids"])
def test_sources(table, tmp_path, kind):
    path = tmp_path / f"ratings.{kind}"
    if kind == "csv":
        table.write_csv(path)
    elif kind == "tsv.gz":
        import gzip

        path.write_bytes(gzip.compress(table.write_csv(separator="\t").encode()))
    elif kind == "arrow":
        table.write_ipc(path)
    elif kind == "text ids":
        path = tmp_path / "named.parquet"
        table = table.with_columns(user="u" + pl.col("user").cast(pl.String))
        table.write_parquet(path)
    else:
        for part in range(3):
            folder = path / f"day={part}" if kind == "hive" else path
            folder.mkdir(parents=True, exist_ok=True)
            table.filter(pl.col("user") % 3 == part).write_parquet(folder / f"{part}.parquet")
        (path / "_SUCCESS").touch()
        table = pl.concat([table.filter(pl.col("user") % 3 == part) for part in range(3)])
    assert_same(gm.Ratings.from_frame(table), gm.prepare(path, tmp_path / "folder", memory=SMALL))


def test_files_of_a_folder_pass_over_hidden_ones(tmp_path):
    for name in ("b.parquet", "a.parquet", "_tmp/c.parquet", ".d.parquet", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in files_in(tmp_path, (".parquet",))] == ["a.parquet", "b.parquet"]


class Stop(BaseException):
    """A break that nothing catches."""


@pytest.mark.parametrize("stop_at", [1, 3, 7, 12, 20, 33, 47])
def test_broken_off_and_resumed_equals_unbroken(source, prepared, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(prepare, "BATCH", 7000)
    monkeypatch.setattr(prepare, "NOTED", 2)
    append, calls = Journal.append, iter(range(1000))

    def breaking(self, name, values):
        if next(calls) == stop_at:
            half = np.ascontiguousarray(values)[: len(values) // 2]
            append(self, name, half)  # half written, as by a break within a write
            raise Stop
        append(self, name, values)

    monkeypatch.setattr(Journal, "append", breaking)
    goal = tmp_path / "folder"
    with pytest.raises(Stop):
        gm.prepare(source, goal, memory=SMALL)
    assert not goal.exists()
    monkeypatch.setattr(Journal, "append", append)
    said = []
    made = gm.prepare(source, goal, memory=SMALL, resume=True, say=said.append)
    assert said[0] == ("nothing to go on with" if stop_at < 4 else said[0])
    assert contents(goal) == contents(prepared.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    made.check()


def test_a_killed_preparation_leaves_no_folder_and_goes_on(source, prepared, tmp_path):
    goal = tmp_path / "folder"
    code = (
        "import os, sys, gramian as gm\n"
        "def say(text):\n"
        "    if text.startswith('sorted 2 of') and 'items' in text: os.kill(os.getpid(), 9)\n"
        "gm.prepare(sys.argv[1], sys.argv[2], memory=0.001, say=say)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, source, goal]).returncode == -9
    assert not goal.exists()
    said = []
    gm.prepare(source, goal, memory=SMALL, resume=True, say=said.append)
    assert said[0] == "going on with items"
    assert contents(goal) == contents(prepared.folder)


def test_another_plan_is_not_gone_on_with(source, tmp_path):
    def stop(text):
        if text.startswith("sorted 1"):
            raise Stop

    with pytest.raises(Stop):
        gm.prepare(source, tmp_path / "folder", memory=SMALL, say=stop)
    said = []
    gm.prepare(source, tmp_path / "folder", memory=SMALL, times=False, resume=True, say=said.append)
    assert said[0] == "nothing to go on with"


def test_a_model_names_its_folder(prepared, tmp_path):
    folder = shutil.copytree(prepared.folder, tmp_path / "data")
    model = gm.ALS(factors=3, epochs=1).fit(gm.read_ratings(folder))
    path = tmp_path / "models" / "m.gramian"
    path.parent.mkdir()
    model.save(path)
    assert path.stat().st_size < 20_000
    user = model.user_ids.ids[0]
    assert gm.load(path).recommend(user, 3).equals(model.recommend(user, 3))
    folder.rename(path.parent / "data")  # beside the model file is right, too
    assert gm.load(path).recommend(user, 3).equals(model.recommend(user, 3))
    gm.prepare(gm.load_dataset("movielens-small").to_frame().lazy(), path.parent / "data")
    with pytest.raises(gm.DataError, match="other ratings"):
        gm.load(path)
    shutil.rmtree(path.parent / "data")
    with pytest.raises(gm.DataError, match="is not there"):
        gm.load(path)


def test_seen_pairs_are_counted(prepared, table):
    model = gm.ALS(factors=3, epochs=1).fit(prepared)
    fresh = table.head(50).with_columns(item=pl.col("item") + 10**6)
    assert model.count_seen(gm.Ratings.from_frame(pl.concat([table.head(700), fresh]))) == 700


def test_damage_is_found(prepared, tmp_path):
    folder = shutil.copytree(prepared.folder, tmp_path / "data")
    with (folder / "by_item.values").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\0\0\0")
    with pytest.raises(gm.FormatError, match=r"'by_item.values' does not match its checksum"):
        gm.open_prepared(folder).check()
    with (folder / "by_user.indices").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(gm.FormatError, match=r"'by_user.indices' has .* bytes"):
        gm.open_prepared(folder)
    (folder / "prepared.json").write_text(json.dumps({"format": 99, "files": {}}))
    with pytest.raises(gm.FormatError, match="newer format"):
        gm.open_prepared(folder)
    (folder / "prepared.json").write_text("{")
    with pytest.raises(gm.FormatError, match="cannot be read"):
        gm.open_prepared(folder)


@pytest.mark.parametrize(("change", "message"), [
    (pl.lit(None, pl.Int64).alias("user"), "The user id is missing: row 1 has none"),
    (pl.when(pl.int_range(pl.len()) == 9000).then(None).otherwise("rating").alias("rating"), "row 9001 has no value"),
    (pl.col("item").cast(pl.Float64) + 0.5, "The item id must be an integer or text"),
    (pl.col("rating").alias("wrong"), None),
])  # fmt: skip
def test_bad_rows_are_named_and_leave_nothing(table, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(prepare, "BATCH", 7000)
    scan = table.lazy().with_columns(change)
    if message is None:
        scan, message = scan.drop("rating"), "No column for the rating"
    with pytest.raises(gm.DataError, match=message):
        gm.prepare(scan, tmp_path / "folder", memory=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_goals_and_sources_that_cannot_be(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file.txt").touch()
    for goal, match in ((tmp_path / "mine", "something else"), (tmp_path / "no" / "folder", "no folder")):
        with pytest.raises(gm.DataError, match=match):
            gm.prepare(source, goal)
    for path, match in ((tmp_path / "no.parquet", "no file"), (tmp_path / "mine", "no Parquet or Arrow")):
        with pytest.raises(gm.DataError, match=match):
            gm.prepare(path, tmp_path / "folder")
    with pytest.raises(gm.DataError, match="not a prepared one"):
        gm.open_prepared(tmp_path / "mine")
    with pytest.raises(gm.DataError, match="gramian prepare"):
        gm.read_ratings(tmp_path / "mine")


def test_from_the_command_line_with_a_database(table, tmp_path, capsys):
    from gramian.cli.main import app

    base = tmp_path / "ratings.db"
    with sqlite3.connect(base) as connection:
        connection.execute("create table r (who integer, what integer, stars real)")
        connection.executemany("insert into r values (?, ?, ?)", table.select("user", "item", "rating").iter_rows())
    connection.close()
    batches = list(batches_of_query("select * from r", f"sqlite:///{base}", 5000))
    assert len(batches) > 2
    assert sum(batch.height for batch in batches) == table.height
    folder, model = str(tmp_path / "folder"), str(tmp_path / "m.gramian")
    how = ["--query", "select * from r", "--user", "who", "--item", "what", "--rating", "stars", "--json"]
    app(["prepare", f"sqlite:///{base}", "-o", folder, *how], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["ratings"] == table.height
    assert_same(gm.Ratings.from_frame(table.drop("time")), gm.open_prepared(folder))
    app(["fit", folder, "--factors", "3", "--epochs", "1", "-o", model, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["ratings"] == table.height
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(("address", "query", "error", "match"), [
    ("sqlite:////no/such/place.db", "select 1", gm.DataError, "could not be read"),
    ("oracle://x", "select 1", gm.ParameterError, "begins with postgresql://"),
])  # fmt: skip
def test_databases_that_cannot_be_read(address, query, error, match):
    with pytest.raises(error, match=match):
        list(batches_of_query(query, address, 10))
