"""The table of ratings: what it is made from, its ids, its description, and its splits."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import sqlite3

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import gramian as gm
from conftest import make_frame
from gramian.data.ids import IdMap, id_series
from gramian.data.summary import model_size


def rows_of(table):
    """The rows as a set of tuples."""
    return set(table.to_frame().iter_rows())


# ---- made from -------------------------------------------------------------------------------------


def test_a_table_holds_the_rows_with_their_own_ids(frame, ratings):
    assert len(ratings) == frame.height
    assert (ratings.n_users, ratings.n_items) == (60, 40)
    expected = frame.sort("user", "item").with_columns(pl.col("rating").cast(pl.Float32))
    assert ratings.to_frame().equals(expected)
    assert ratings.users.tolist() == expected["user"].to_list()
    assert ratings.items.tolist() == expected["item"].to_list()
    assert ratings.values.dtype == np.float32
    assert ratings.values.tolist() == expected["rating"].to_list()
    assert ratings.times.tolist() == expected["time"].to_list()
    assert ratings.scale == (frame["rating"].min(), frame["rating"].max())
    assert ratings.global_mean == pytest.approx(frame["rating"].mean(), rel=1e-12)
    assert ratings.user_ids.ids.to_list() == sorted(set(frame["user"]))


def test_both_orientations_hold_the_same_entries_sparsely(ratings):
    dense = np.zeros((60, 40), np.float32)
    dense[ratings.user_codes, ratings.item_codes] = ratings.values
    for rows, matrix in ((ratings.by_user, dense), (ratings.by_item, dense.T)):
        assert [array.dtype for array in rows] == [np.int64, np.int32, np.float32]
        assert rows.n_rows == len(matrix)
        assert rows.counts.tolist() == (matrix > 0).sum(axis=1).tolist()
        for i in range(rows.n_rows):
            indices, values = rows.row(i)
            assert indices.tolist() == np.flatnonzero(matrix[i]).tolist()
            assert values.tolist() == matrix[i, indices].tolist()
    assert ratings.by_item is ratings.by_item


def test_a_table_that_would_be_huge_when_dense_is_small():
    rng = np.random.default_rng(0)
    n = 20_000
    table = gm.Ratings.from_frame(
        pl.DataFrame({"user": np.arange(n) * 10**9, "item": rng.permutation(n) * 10**9, "rating": rng.random(n)})
    )
    assert table.describe().dense_memory == 4 * n * n
    assert table.describe().memory < 10**6
    assert table.by_item.n_rows == n


FRAMES = {
    "polars": lambda frame: frame,
    "lazy polars": lambda frame: frame.lazy(),
    "pandas": lambda frame: frame.to_pandas(),
    "pandas with an index": lambda frame: frame.to_pandas().set_index(pd.Index(range(5, 5 + len(frame)))).iloc[::-1],
    "arrow": lambda frame: frame.to_arrow(),
    "duckdb": lambda frame: duckdb.from_arrow(frame.to_arrow()),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("text", [False, True])
def test_any_dataframe_gives_the_same_ratings(kind, text, frame, text_frame, ratings, text_ratings):
    source, expected = (text_frame, text_ratings) if text else (frame, ratings)
    named = source.rename({"user": "userId", "item": "movieId", "time": "timestamp"})
    table = gm.Ratings.from_frame(FRAMES[kind](named))
    assert table.to_frame().equals(expected.to_frame())
    assert table.fingerprint() == expected.fingerprint()
    given_names = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
    assert gm.Ratings.from_frame(FRAMES[kind](named), **given_names).fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("kind", FRAMES)
def test_a_dataframe_is_not_changed(kind, frame):
    native = FRAMES[kind](frame)
    before = native.copy() if "pandas" in kind else frame.clone()
    gm.Ratings.from_frame(native)
    if "pandas" in kind:
        pd.testing.assert_frame_equal(native, before)
    elif kind == "duckdb":
        assert pl.from_arrow(native.to_arrow_table()).equals(before)
    elif kind == "arrow":
        assert native.equals(before.to_arrow())
    else:
        assert native.lazy().collect().equals(before)


def test_pandas_kinds_of_columns(frame, ratings, text_frame, text_ratings):
    table = frame.to_pandas()
    for column in ("user", "item"):
        for kind in ("int32", "uint16", "Int64", "float64", "int64[pyarrow]", object):
            assert gm.Ratings.from_frame(table.astype({column: kind})).fingerprint() == ratings.fingerprint(), kind
    for kind in ("float32", "Float64", "double[pyarrow]", object):
        assert gm.Ratings.from_frame(table.astype({"rating": kind})).fingerprint() == ratings.fingerprint(), kind
    text = text_frame.to_pandas()
    for kind in ("category", object, "string", "string[pyarrow]"):
        made = gm.Ratings.from_frame(text.astype({"user": kind, "item": kind}))
        assert made.fingerprint() == text_ratings.fingerprint(), kind
    table["time"] = pd.to_datetime(table["time"], unit="s")
    assert gm.Ratings.from_frame(table).fingerprint() == ratings.fingerprint()


def test_pandas_gaps_are_refused(frame):
    table = frame.to_pandas().astype({"user": "float64"})
    table.loc[3, "user"] = np.nan
    with pytest.raises(gm.DataError, match="user id is missing: row 4"):
        gm.Ratings.from_frame(table)
    table = frame.to_pandas()
    table.loc[7, "rating"] = np.nan
    with pytest.raises(gm.DataError, match=r"finite number: row 8 has (nan|no value)"):
        gm.Ratings.from_frame(table)


def test_columns_by_position_and_columns_named_by_numbers(frame, ratings):
    assert gm.Ratings.from_frame(frame, user=0, item=1, rating=2, time=3).fingerprint() == ratings.fingerprint()
    array = pd.DataFrame(frame.select("item", "user", "rating").to_numpy())
    made = gm.Ratings.from_frame(array, user=1, item=0, rating=2)
    assert made.to_frame().equals(ratings.to_frame().drop("time"))


@pytest.mark.parametrize(
    "names",
    [
        ("userId", "movieId", "rating", "timestamp"),
        ("user_id", "item_id", "stars", "date"),
        ("User-ID", "ISBN", "Book-Rating", None),
        ("reviewerID", "asin", "overall", "unixReviewTime"),
        ("UID", "IID", "Score", "ts"),
        ("Customer Id", "Product Id", "VALUE", "created_at"),
    ],
)
def test_usual_names_are_recognised(names, frame, ratings):
    chosen = frame.select("time", "rating", "item", "user").rename(
        {old: new for old, new in zip(("user", "item", "rating", "time"), names, strict=True) if new}
    )
    chosen = chosen.drop("time", strict=False) if names[3] is None else chosen
    expected = ratings.to_frame() if names[3] else ratings.to_frame().drop("time")
    assert gm.Ratings.from_frame(chosen.with_columns(genre=pl.lit("x"))).to_frame().equals(expected)


def test_doubtful_columns_are_asked_about(frame):
    two = frame.with_columns(userId=pl.col("user"))
    with pytest.raises(gm.DataError, match=r"Two columns could be the user: found 'user' and 'userId'; say which"):
        gm.Ratings.from_frame(two)
    assert gm.Ratings.from_frame(two, user="userId").n_users == 60
    with pytest.raises(gm.DataError, match=r"column given for the item does not exist: 'film'"):
        gm.Ratings.from_frame(frame, item="film")
    for place in (4, -1):
        with pytest.raises(gm.DataError, match=f"does not exist: {place}"):
            gm.Ratings.from_frame(frame, item=place)
    with pytest.raises(gm.DataError, match=r"One column was given twice: 'user'"):
        gm.Ratings.from_frame(frame, user="user", item="user")
    with pytest.raises(gm.ParameterError, match=r"'duplicates' parameter .* one of 'last', 'mean', 'raise'; got 'sum'"):
        gm.Ratings.from_frame(frame, duplicates="sum")


TIMES = {
    "dates": [datetime.date(2020, 1, 2), datetime.date(1970, 1, 1), datetime.date(1969, 12, 31)],
    "datetimes": [
        datetime.datetime(2020, 1, 2),
        datetime.datetime(1970, 1, 1),
        datetime.datetime(1969, 12, 31),
    ],
    "zoned": [
        datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(1969, 12, 31, tzinfo=datetime.UTC),
    ],
    "integers": [1577923200, 0, -86400],
    "floats": [1577923200.9, 0.2, -86399.5],
    "text numbers": ["1577923200", " 0", "-86400"],
    "iso dates": ["2020-01-02", "1970-01-01", "1969-12-31"],
    "iso times": ["2020-01-02T00:00:00", "1970-01-01T00:00:00", "1969-12-31T00:00:00"],
    "iso with a blank": ["2020-01-02 00:00:00", "1970-01-01 00:00:00", "1969-12-31 00:00:00"],
    "iso with zone": ["2020-01-02T00:00:00Z", "1970-01-01T00:00:00Z", "1969-12-31T00:00:00Z"],
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_of_all_kinds_become_seconds(kind):
    table = gm.Ratings.from_frame(pl.DataFrame({"user": [1, 2, 3], "item": 1, "rating": 1.0, "time": TIMES[kind]}))
    assert table.times.dtype == np.int64
    assert table.times.tolist() == [1577923200, 0, -86400]


def test_numbers_of_all_kinds_are_ratings():
    for values in (["1", " 2.5 ", "-3e0"], [decimal.Decimal("1"), decimal.Decimal("2.5"), decimal.Decimal("-3")]):
        table = gm.Ratings.from_frame(pl.DataFrame({"user": [1, 2, 3], "item": 1, "rating": values}))
        assert table.values.tolist() == [1.0, 2.5, -3.0]


def test_from_csr(ratings):
    matrix = sparse.csr_array((ratings.values, (ratings.users, ratings.items)), shape=(400, 400))
    expected = ratings.to_frame().drop("time")
    for kind in (sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.csr_matrix, sparse.lil_array):
        assert gm.Ratings.from_csr(kind(matrix)).to_frame().equals(expected)
    before = [array.copy() for array in (matrix.data, matrix.indices, matrix.indptr)]
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    made = gm.Ratings.from_csr(matrix)
    assert made.to_frame().equals(expected)
    for array, kept in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_from_csr_stored_zeros_repeats_and_bad_input():
    zeros = sparse.coo_array((np.array([0.0, 3.0]), ([0, 2], [1, 5])), shape=(3, 6))
    assert rows_of(gm.Ratings.from_csr(zeros)) == {(0, 1, 0.0), (2, 5, 3.0)}
    twice = sparse.coo_array((np.array([1.0, 3.0]), ([2, 2], [5, 5])), shape=(3, 6))
    with pytest.raises(gm.DataError, match="user 2 rated item 5 more than once"):
        gm.Ratings.from_csr(twice)
    with pytest.warns(gm.DataWarning):
        assert rows_of(gm.Ratings.from_csr(twice, duplicates="mean")) == {(2, 5, 2.0)}
    with pytest.raises(gm.DataError, match="SciPy sparse matrix is needed: found ndarray"):
        gm.Ratings.from_csr(np.eye(3))
    with pytest.raises(gm.DataError, match="no ratings"):
        gm.Ratings.from_csr(sparse.csr_array((3, 4)))
    with pytest.raises(gm.DataError, match="row 1 has nan"):
        gm.Ratings.from_csr(sparse.csr_array(([np.nan], ([0], [0])), shape=(1, 1)))


@pytest.mark.parametrize("text", [False, True])
def test_from_sql(text, frame, text_frame, ratings, text_ratings, tmp_path):
    source, expected = (text_frame, text_ratings) if text else (frame, ratings)
    path = tmp_path / "ratings.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("create table ratings (user, item, rating real, time integer)")
        connection.executemany("insert into ratings values (?, ?, ?, ?)", list(source.iter_rows()))
        connection.commit()
        made = gm.Ratings.from_sql("select * from ratings", connection)
        assert made.fingerprint() == expected.fingerprint()
        query = "select rating as grade, user as who, item as what from ratings where rating >= 4"
        some = gm.Ratings.from_sql(query, connection, user="who", item="what", rating="grade")
        assert rows_of(some) == {row[:3] for row in rows_of(expected) if row[2] >= 4}
        with pytest.raises(gm.DataError, match="no ratings"):
            gm.Ratings.from_sql("select * from ratings where rating > 100", connection)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert gm.Ratings.from_sql("select * from ratings", connection).fingerprint() == expected.fingerprint()
    engine.dispose()


# ---- duplicates ------------------------------------------------------------------------------------


@given(st.data())
def test_repeated_pairs_follow_the_policy_whatever_the_order(data):
    n = data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = [
        (int(rng.integers(3)), int(rng.integers(3)), float(rng.integers(1, 6)), time)
        for time in rng.permutation(n).tolist()
    ]
    settled = {"last": {}, "mean": {}}
    for user, item, *_ in rows:
        mine = [row for row in rows if row[:2] == (user, item)]
        settled["last"][user, item] = max(mine, key=lambda row: row[3])[2]
        settled["mean"][user, item] = float(np.float32(np.mean([row[2] for row in mine])))
    repeated = n - len(settled["last"])
    for policy, expected in settled.items():
        table = pl.DataFrame(rows, ["user", "item", "rating", "time"], orient="row")
        with pytest.warns(gm.DataWarning, match=f"{repeated} rows repeat") if repeated else contextlib.nullcontext():
            made = gm.Ratings.from_frame(table, duplicates=policy)
        assert made.duplicates == repeated
        assert {(u, i): r for u, i, r, _ in made.to_frame().iter_rows()} == expected
        last_times = {(u, i): max(t for a, b, _, t in rows if (a, b) == (u, i)) for u, i, _, _ in rows}
        assert {(u, i): t for u, i, _, t in made.to_frame().iter_rows()} == last_times


def test_of_pairs_without_a_time_or_with_the_same_the_last_in_order_is_kept():
    rows = pl.DataFrame({"user": [1, 2, 1, 1], "item": [5, 5, 5, 5], "rating": [1.0, 2.0, 4.0, 3.0]})
    for table in (rows, rows.with_columns(time=pl.lit(9))):
        with pytest.warns(gm.DataWarning, match="2 rows repeat .* user 1 rated item 5 more than once; the last"):
            made = gm.Ratings.from_frame(table)
        assert made.values.tolist() == [3.0, 2.0]
        assert made.describe().duplicates == 2
        assert "2 repeated pairs merged" in str(made.describe())


# ---- ids -------------------------------------------------------------------------------------------


integer_ids = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30)
text_ids = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=30)


@given(st.one_of(integer_ids, text_ids))
def test_an_id_map_gives_each_id_its_place_in_order(ids):
    made, codes = IdMap.from_values(ids)
    assert list(made) == sorted(set(ids), key=lambda i: i.encode() if isinstance(i, str) else i)
    assert codes.dtype == np.int32
    assert made.take(codes).to_list() == ids
    assert made.codes(ids).tolist() == codes.tolist()
    assert len(made) == len(set(ids))
    assert all(i in made for i in ids)
    assert made.is_text == isinstance(ids[0], str)
    again = IdMap.from_values(list(reversed(ids)))[0]
    assert again == made
    assert hash(again) == hash(made)


@given(st.one_of(st.tuples(integer_ids, integer_ids), st.tuples(text_ids, text_ids)))
def test_a_grown_id_map_keeps_every_code(both):
    old, new = both
    made, codes = IdMap.from_values(old)
    grown = made.grow(new)
    assert grown.codes(old).tolist() == codes.tolist()
    assert (grown.codes(new) >= 0).all()
    assert set(grown) == set(old) | set(new)
    assert list(grown)[: len(made)] == list(made)
    assert list(made) == list(IdMap.from_values(old)[0])
    lost = made.codes(new)
    assert ((lost >= 0) == [i in set(old) for i in new]).all()
    assert (grown == made) == (set(new) <= set(old))


def test_ids_of_another_kind_are_said():
    numbers, text = IdMap.from_values([1, 2])[0], IdMap.from_values(["1", "2"])[0]
    with pytest.raises(gm.DataError, match=r"found text \(such as '1'\) where the known .* integers \(such as 1\)"):
        numbers.codes(["1"])
    with pytest.raises(gm.DataError, match=r"found integers \(such as 1\) where the known .* text \(such as '1'\)"):
        text.grow([1])
    with pytest.raises(gm.DataError, match=r"more than one kind.* int \(such as 1\) and str \(such as '1'\)"):
        IdMap.from_values([1, "1"])
    assert numbers != text
    assert 1 in numbers
    assert np.int64(1) in numbers
    assert "1" in text


@pytest.mark.parametrize("value", [3, -1, 2**63, 10**30, "1", 1.5, None, True, (1, 2), [1], b"1"])
def test_what_is_not_an_id_of_a_map_is_not_in_it(value):
    assert value not in IdMap.from_values([0, 2])[0]


def test_an_empty_id_map_knows_nothing_and_can_grow():
    for new in ([3, 1], ["b", "a"]):
        empty, codes = IdMap.from_values([])
        assert len(codes) == 0
        assert empty.codes(new).tolist() == [-1, -1]
        assert list(empty.grow(new)) == sorted(new)


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2],
        (3, 1, 2),
        np.array([3, 1, 2]),
        np.array([3, 1, 2], np.uint8),
        np.array([3.0, 1.0, 2.0]),
        np.array([3, 1, 2], object),
        [np.int32(3), np.int64(1), 2],
        pl.Series([3, 1, 2]),
        pl.Series([3.0, 1.0, 2.0]),
        pd.Series([3, 1, 2], index=[7, 8, 9]),
        pd.Index([3, 1, 2]),
        pa.array([3, 1, 2]),
        np.array([[3], [1], [2]])[:, 0],
        (value for value in [3, 1, 2]),
    ],
    ids=lambda values: type(values).__name__,
)
def test_ids_are_taken_from_any_sequence(values):
    series = id_series(values)
    assert series.dtype == pl.Int64
    assert series.to_list() == [3, 1, 2]


@pytest.mark.parametrize(
    "values",
    [
        ["b", "007"],
        np.array(["b", "007"]),
        np.array(["b", "007"], object),
        pl.Series(["b", "007"], dtype=pl.Categorical),
        pl.Series(["b", "007"], dtype=pl.Enum(["007", "b"])),
        pd.Series(["b", "007"]),
        pd.Categorical(["b", "007"]),
        pa.array(["b", "007"]),
    ],
    ids=lambda values: type(values).__name__,
)
def test_text_ids_are_taken_from_any_sequence(values):
    assert id_series(values).dtype == pl.String
    assert id_series(values).to_list() == ["b", "007"]


def test_categories_are_ordered_as_text():
    order = pl.Enum(["z", "a", "m"])
    made = gm.Ratings.from_frame(
        pl.DataFrame({"user": pl.Series(["a", "z", "m"], dtype=order), "item": 1, "rating": [1.0, 2.0, 3.0]})
    )
    assert made.users.tolist() == ["a", "m", "z"]


# ---- description -----------------------------------------------------------------------------------


def test_the_size_table_of_the_theory():
    size = model_size(130_000, 26_000, 20_000_000, 10)
    assert size.cells == 3_380_000_000
    assert round(size.fill_percent, 1) == 0.6
    assert size.fill_percent == pytest.approx(100 * 20 / 3380, rel=1e-12)
    assert size.parameters == 1_560_000
    assert round(size.parameters_percent, 2) == 0.05
    assert size.parameters_percent == pytest.approx(100 * 1.56 / 3380, rel=1e-12)


def test_describe(frame, ratings):
    told = ratings.describe(factors=7)
    counts = frame.group_by("user").len()["len"].to_numpy()
    items = frame.group_by("item").len()["len"].to_numpy()
    assert (told.n_users, told.n_items, told.n_ratings, told.duplicates) == (60, 40, frame.height, 0)
    assert told.mean == pytest.approx(frame["rating"].mean(), rel=1e-12)
    assert told.scale == (frame["rating"].min(), frame["rating"].max())
    assert told.grid == 0.5
    assert told.distinct_values == frame["rating"].n_unique()
    assert told.times == (frame["time"].min(), frame["time"].max())
    assert told.ratings_per_user == pytest.approx(np.quantile(counts, [0, 0.25, 0.5, 0.75, 1]))
    assert told.ratings_per_item == pytest.approx(np.quantile(items, [0, 0.25, 0.5, 0.75, 1]))
    assert told.size == model_size(60, 40, frame.height, 7)
    assert told.size.parameters == 100 * 7
    assert told.dense_memory == 60 * 40 * 4
    arrays = [*ratings.by_user, *ratings.by_item, ratings.times]
    assert told.memory == sum(array.nbytes for array in arrays)
    assert told.to_dict()["size"]["cells"] == 2400
    text = str(told)
    for piece in (f"{frame.height} ratings by 60 users of 40 items", "in steps of 0.5", "700 parameters", "2001-09-09"):
        assert piece in text
    assert repr(ratings) == f"Ratings({frame.height} by 60 users of 40 items, 0.5 to 5, timed)"
    with pytest.raises(gm.ParameterError, match=r"'factors' parameter of describe"):
        ratings.describe(-1)


def test_a_scale_without_a_grid_is_described():
    table = gm.Ratings.from_frame(pl.DataFrame({"user": [1, 2, 3], "item": [1, 1, 1], "rating": [1.0, 2.5, np.pi]}))
    assert table.describe().grid is None
    assert "3 distinct values" in str(table.describe())
    one = gm.Ratings.from_frame(pl.DataFrame({"user": [1], "item": [1], "rating": [1.0]}))
    assert one.describe().grid is None
    assert one.describe().times is None
    assert "1 ratings by 1 users" in str(one.describe())


# ---- splits ----------------------------------------------------------------------------------------


@given(st.integers(2, 400), st.floats(0.02, 0.98), st.integers(0, 50))
def test_a_random_split_parts_the_rows(n, fraction, seed):
    rows = make_frame(20, 20, 1.0)
    table = gm.Ratings.from_frame(rows.head(min(n, rows.height)))
    n = len(table)
    count = round(n * fraction)
    if not 0 < count < n:
        with pytest.raises(gm.ParameterError, match=r"'fraction' parameter of split must leave ratings on both sides"):
            table.split(fraction, seed=seed)
        return
    train, test = table.split(fraction, seed=seed)
    assert len(test) == count
    assert len(train) == n - count
    assert rows_of(train).isdisjoint(rows_of(test))
    assert rows_of(train) | rows_of(test) == rows_of(table)
    for part in (train, test):
        assert part.n_users == len(set(part.users))
        assert part.n_items == len(set(part.items))
        assert part.user_ids.ids.to_list() == sorted(set(part.users.tolist()))


def test_seeds_of_a_split(ratings):
    assert [p.fingerprint() for p in ratings.split(0.2, seed=4)] == [p.fingerprint() for p in ratings.split(seed=4)]
    tests = [frozenset(rows_of(ratings.split(0.2, seed=seed)[1])) for seed in range(6)]
    assert len(set(tests)) == 6
    share = np.mean([row in test for test in tests for row in sorted(rows_of(ratings))[:200]])
    assert 0.12 < share < 0.28


@pytest.mark.parametrize("wrong", [-0.1, 0, 1, 1.5, "half", None, float("nan"), True])
def test_a_wrong_fraction_is_refused(ratings, wrong):
    for verb in (ratings.split, ratings.split_by_time):
        with pytest.raises(gm.ParameterError, match="'fraction' parameter of split"):
            verb(wrong)
    with pytest.raises(gm.ParameterError, match="'seed' parameter of split"):
        ratings.split(0.2, seed=-1)


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_a_partition(ratings, folds):
    tests = []
    for train, test in ratings.folds(folds, seed=2):
        assert rows_of(train) == rows_of(ratings) - rows_of(test)
        assert abs(len(test) - len(ratings) / folds) < 1
        tests.append(rows_of(test))
    assert len(tests) == folds
    assert set.union(*tests) == rows_of(ratings)
    assert sum(map(len, tests)) == len(ratings)
    again = [rows_of(test) for _, test in ratings.folds(folds, seed=2)]
    assert again == tests
    assert [rows_of(test) for _, test in ratings.folds(folds, seed=3)] != tests
    assert len(list(ratings.folds())) == 5


def test_wrong_folds_are_refused(ratings):
    for wrong in (1, 0, 2.5, "five"):
        with pytest.raises(gm.ParameterError, match=r"'folds' parameter .* whole number in \[2, inf\)"):
            ratings.folds(wrong)
    with pytest.raises(gm.DataError, match=f"found {len(ratings)} for 5000 folds"):
        ratings.folds(5000)


def test_split_by_time(ratings):
    train, test = ratings.split_by_time(0.3)
    assert len(test) == round(0.3 * len(ratings))
    assert train.times.max() < test.times.min()
    assert rows_of(train) | rows_of(test) == rows_of(ratings)


def test_rows_of_one_instant_stay_on_one_side():
    rows = pl.DataFrame({"user": range(10), "item": 0, "rating": 1.0, "time": [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]})
    train, test = gm.Ratings.from_frame(rows).split_by_time(0.2)
    assert set(train.times) == {1}
    assert set(test.times) == {2}
    mostly_first = rows.with_columns(time=pl.Series([1] * 9 + [2]))
    train, test = gm.Ratings.from_frame(mostly_first).split_by_time(0.5)
    assert (len(train), len(test)) == (9, 1)
    with pytest.raises(gm.DataError, match="All ratings have the same time"):
        gm.Ratings.from_frame(rows.with_columns(time=pl.lit(5))).split_by_time()


@pytest.mark.parametrize("n", [1, 2, 15])
def test_leave_last_out(ratings, n):
    train, test = ratings.leave_last_out(n)
    everything = ratings.to_frame()
    for user, count in zip(ratings.user_ids, ratings.by_user.counts, strict=True):
        mine = everything.filter(pl.col("user") == user).sort("time")
        held = set(mine.tail(n).iter_rows()) if count > n else set()
        assert set(test.to_frame().filter(pl.col("user") == user).iter_rows()) == held
    assert rows_of(train) == rows_of(ratings) - rows_of(test)


def test_splits_by_time_need_times(ratings):
    timeless = gm.Ratings.from_frame(ratings.to_frame().drop("time"))
    for verb in ("split_by_time", "leave_last_out"):
        with pytest.raises(gm.DataError, match=f"{verb} needs the time of each rating"):
            getattr(timeless, verb)()
    with pytest.raises(gm.DataError, match="No user has more than 1000 ratings"):
        ratings.leave_last_out(1000)
    for wrong in (0, 1.5, "one"):
        with pytest.raises(gm.ParameterError, match="'n' parameter of leave_last_out"):
            ratings.leave_last_out(wrong)


# ---- taken apart and put together ------------------------------------------------------------------


def test_take_and_titles(ratings):
    titles = pl.DataFrame({"item": [11, 18, 9], "title": ["A", "B", "C"], "year": [1, 2, 3]})
    with pytest.warns(gm.DataWarning, match="knows 2 of 40 rated items, not 25; check its ids"):
        titled = ratings.with_items(titles)
    assert ratings.titles is None
    assert titled.titles.to_list() == ["A", "B", *[None] * 38]
    some = titled.take(titled.items == 18)
    assert some.titles.to_list() == ["B"]
    assert some.n_items == 1
    assert set(some.users) == set(ratings.users[ratings.items == 18])
    with pytest.raises(gm.DataError, match="No rating is left"):
        ratings.take(np.zeros(len(ratings), bool))
    with pytest.raises(gm.DataError, match="needs a column 'item'"):
        ratings.with_items(titles.rename({"item": "movie"}))
    with pytest.warns(gm.DataWarning, match="knows 2 of 40"):
        as_text = ratings.with_items(titles.with_columns(pl.col("item").cast(pl.String)).to_pandas())
    assert as_text.titles[0] == "A"


def test_merge_replaces_by_time_and_keeps_codes(ratings):
    old = ratings.to_frame().row(0)
    new = pl.DataFrame(
        {"user": [old[0], old[0], 5], "item": [old[1], 3, old[1]], "rating": [1.5, 2.0, 3.0], "time": old[3] - 10}
    )
    merged = ratings.merge(gm.Ratings.from_frame(new))
    assert len(merged) == len(ratings) + 2
    assert old in rows_of(merged), "the older rating does not replace the later one"
    later = ratings.merge(gm.Ratings.from_frame(new.with_columns(pl.col("time") + 20)))
    assert (old[0], old[1], 1.5, old[3] + 10) in rows_of(later)
    timeless = ratings.merge(gm.Ratings.from_frame(new.drop("time")))
    assert (old[0], old[1], 1.5) in rows_of(timeless)
    assert timeless.times is None
    for table in (merged, later, timeless):
        assert table.user_ids.ids[:60].to_list() == ratings.user_ids.ids.to_list()
        assert table.user_ids.ids[60:].to_list() == [5]
        assert table.item_ids.ids[40:].to_list() == [3]
        assert table.duplicates == 1


@given(st.integers(0, 2**32 - 1))
def test_a_table_survives_being_taken_to_arrays(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    letters = ["", "a", "ß", "日本", "a b", '"', "\n", "007", "🙂", "\0", "é" * 30, "-1"]
    users = [letters[k] for k in rng.permutation(12)[:n]]
    titles = pl.DataFrame({"item": np.arange(12), "title": ["", None, "x", "ü"] * 3})
    table = gm.Ratings.from_frame(
        pl.DataFrame({"user": users, "item": rng.permutation(12)[:n], "rating": rng.random(n)})
    ).with_items(titles)
    again = gm.Ratings.from_arrays(table.to_arrays())
    assert again.to_frame().equals(table.to_frame())
    assert again.fingerprint() == table.fingerprint()
    assert again.titles.equals(table.titles)


def test_fingerprints_tell_tables_apart(frame, ratings):
    prints = {ratings.fingerprint()}
    changed = [
        frame.with_columns(pl.col("rating") * 2),
        frame.with_columns(pl.col("time") + 1),
        frame.drop("time"),
        frame.with_columns(pl.col("user") + 1),
        frame.with_columns(pl.col("item") + 1),
        frame.with_columns(pl.col("user").cast(pl.String)),
        frame.head(-1),
    ]
    for table in changed:
        prints.add(gm.Ratings.from_frame(table).fingerprint())
    assert len(prints) == len(changed) + 1
    assert gm.Ratings.from_frame(frame.sample(fraction=1.0, shuffle=True, seed=2)).fingerprint() in prints


def test_titles_of_other_items_are_said(ratings):
    with pytest.warns(gm.DataWarning, match="knows 0 of 40 rated items, not 11; check its ids"):
        ratings.with_items(pl.DataFrame({"item": ["a"], "title": ["A"]}))


def test_ratings_cannot_be_written_to(ratings):
    for array in (*ratings.by_user, *ratings.by_item, ratings.times):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    model = gm.ALS(factors=2, epochs=1).fit(ratings)
    with pytest.raises(ValueError, match="read-only"):
        model.user_factors[0] = 1


def test_a_query_that_fails_is_said():
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(gm.DataError, match=r"query could not be read: .*; check the query"),
    ):
        gm.Ratings.from_sql("select * from nowhere", connection)


def test_only_iso_dates_are_dates(ratings):
    frame = pl.DataFrame({"user": [1, 1], "item": [1, 2], "rating": [3.0, 4.0], "time": ["2020-01-02", "2020-02-03"]})
    assert gm.Ratings.from_frame(frame).times.tolist() == [1577923200, 1580688000]
    with pytest.raises(gm.DataError, match=r"a date or ISO text: row 1 has '01/02/2020'"):
        gm.Ratings.from_frame(frame.with_columns(time=pl.lit("01/02/2020")))


# ---- ids and ratings that a conversion would merge or make up -------------------------------------------------


@pytest.mark.parametrize(("kind", "limit"), [(pl.Float64, 2**53), (pl.Float32, 2**24)])
def test_ids_that_floats_do_not_tell_apart_are_refused(kind, limit):
    def table(*ids):
        return pl.DataFrame({"user": [1, 2], "item": pl.Series(ids).cast(kind), "rating": [3, 4]})

    found = gm.Ratings.from_frame(table(float(limit - 1), float(1 - limit)))
    assert found.item_ids.ids.to_list() == [1 - limit, limit - 1]
    for large in (limit, -limit, 8 * limit):
        broken = table(1.0, float(large))
        with pytest.raises(gm.DataError, match=rf"item id is too large for a float: row 2 has {large} as Float"):
            gm.Ratings.from_frame(broken)
        (finding,) = [f for f in gm.check_ratings(broken) if f.severity == "error"]
        assert "neither integers nor text" in finding.check
        assert "too large for" in finding.example
    model = gm.Baseline().fit(gm.Ratings.from_frame(table(1.0, 2.0)))
    with pytest.raises(gm.DataError, match="item id is too large for a float"):
        model.predict([1], np.array([2.0 * limit], np.float64 if kind == pl.Float64 else np.float32))


@pytest.mark.parametrize(
    "values",
    [
        [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
        [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)],
        [datetime.timedelta(days=1), datetime.timedelta(days=2)],
        [datetime.time(10, 30), datetime.time(11, 0)],
    ],
    ids=["dates", "datetimes", "durations", "times of day"],
)
@pytest.mark.parametrize("source", ["frame", "pandas", "parquet", "csv", "prepared"])
def test_times_are_no_ratings(values, source, tmp_path):
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "rating": values})
    path = tmp_path / ("r.csv" if source == "csv" else "r.parquet")
    if source == "csv":
        frame.select(pl.col("user", "item"), pl.Series("rating", [str(value) for value in values])).write_csv(path)
    else:
        frame.write_parquet(path)
    read = {
        "frame": lambda: gm.Ratings.from_frame(frame),
        "pandas": lambda: gm.Ratings.from_frame(frame.to_pandas()),
        "prepared": lambda: gm.prepare(path, tmp_path / "folder"),
    }.get(source, lambda: gm.read_ratings(path))
    with pytest.raises(gm.DataError, match=r"The ratings must be numbers: found|A rating must be a finite number"):
        read()
