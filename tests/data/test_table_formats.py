"""Tables that are folders, and a database: what is read from them is what is read from a file."""

from __future__ import annotations

import shutil

import polars as pl
import pytest

import gramian as gm
from gramian.data import table_formats
from gramian.data.sources import batches_of_query
from gramian.data.table_formats import files_in


@pytest.fixture(scope="module")
def table():
    made = gm.synthetic_ratings(60, 40, 900, seed=3).ratings.to_frame()
    return made.sample(fraction=1, shuffle=True, seed=0)


@pytest.fixture(scope="module")
def kept(table):
    """What is left once the ratings of 5 are deleted."""
    return gm.Ratings.from_frame(table.filter(pl.col("rating") != 5))


def check(folder, wanted, tmp_path):
    """The folder gives these ratings, read into memory and prepared."""
    prepared = gm.prepare(folder, tmp_path / "prepared")
    for made in (gm.read_ratings(folder), gm.read_ratings(folder, user=0, item=1, rating="rating"), prepared):
        assert made.to_frame().equals(wanted.to_frame())


def test_a_folder_with_partitions(table, tmp_path):
    folder = tmp_path / "ratings"
    for day in range(3):
        (folder / f"day={day}").mkdir(parents=True)
        table[day::3].write_parquet(folder / f"day={day}" / "part.parquet")
    (folder / "_SUCCESS").touch()
    assert len(files_in(folder, (".parquet",))) == 3
    check(folder, gm.Ratings.from_frame(table), tmp_path)


def test_a_delta_table(table, kept, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    folder = tmp_path / "delta"
    table[:500].write_delta(folder)
    table[500:].write_delta(folder, mode="append")
    deltalake.DeltaTable(folder).delete("rating = 5.0")
    check(folder, kept, tmp_path)
    shutil.rmtree(folder / "_delta_log")
    (folder / "_delta_log").mkdir()
    with pytest.raises(gm.DataError, match="cannot be read"):
        gm.read_ratings(folder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_iceberg_table(table, kept, tmp_path):
    sql = pytest.importorskip("pyiceberg.catalog.sql")
    catalog = sql.SqlCatalog("c", uri="sqlite://", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("lake")
    made = catalog.create_table("lake.ratings", schema=table.to_arrow().schema)
    made.append(table.to_arrow())
    made.delete("rating == 5.0")
    folder = tmp_path / "lake" / "ratings"
    min((folder / "metadata").glob("*.metadata.json")).touch()  # the first state is not the newest for its date
    check(folder, kept, tmp_path)
    catalog.engine.dispose()


@pytest.mark.parametrize(("mark", "package"), [("_delta_log", "deltalake"), ("metadata", "pyiceberg")])
def test_a_missing_package_is_named(mark, package, tmp_path, monkeypatch):
    (tmp_path / mark).mkdir()
    monkeypatch.setattr(table_formats, "find_spec", lambda name: None)
    with pytest.raises(gm.ParameterError, match=rf"the package {package} is needed: pip install 'gramian\[lake\]'"):
        gm.read_ratings(tmp_path)


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(gm.DataError, match="no Parquet or Arrow files"):
        gm.read_ratings(tmp_path)


def test_postgresql_in_batches(table, postgres_url, tmp_path, capsys):
    pytest.importorskip("adbc_driver_postgresql")
    import psycopg

    from gramian.cli.main import app

    with psycopg.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("create table bought (who bigint, what bigint, stars real, at bigint)")
        with cursor.copy("copy bought from stdin") as copy:
            for row in table.iter_rows():
                copy.write_row(row)
    query = "select who, what, stars, at from bought"
    assert sum(batch.height for batch in batches_of_query(query, postgres_url, 100)) == table.height
    columns = ["--user", "who", "--item", "what", "--rating", "stars", "--time", "at"]
    how = ["-o", str(tmp_path / "prepared"), "--query", query, *columns]
    app(["prepare", postgres_url, *how], standalone_mode=False)
    assert "900 by 60 users" in capsys.readouterr().out
    made = gm.open_prepared(tmp_path / "prepared")
    assert made.to_frame().equals(gm.Ratings.from_frame(table).to_frame())
    with pytest.raises(gm.DataError, match=r"could not be read: .*nowhere"):
        list(batches_of_query("select * from nowhere", postgres_url, 100))
