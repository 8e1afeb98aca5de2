"""The data doctor: each fault put into a clean table is found, counted and shown; a clean table has none."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gramian as gm
from gramian.data.doctor import Finding, check_ratings
from gramian.data.synthetic import synthetic_ratings


def found(source: object, **options: object) -> dict[str, Finding]:
    """The findings by name, notes left out."""
    return {f.check: f for f in check_ratings(source, **options) if f.severity != "note"}


def notes(source: object, **options: object) -> dict[str, Finding]:
    return {f.check: f for f in check_ratings(source, **options) if f.severity == "note"}


def with_row(frame: pl.DataFrame, **row: object) -> pl.DataFrame:
    """The table with one more row at its end: the first one, but for what is given."""
    return pl.concat(
        [frame, frame.head(1).with_columns(**{k: pl.lit(v) for k, v in row.items()})], how="vertical_relaxed"
    )


@pytest.fixture(scope="module")
def clean() -> pl.DataFrame:
    return synthetic_ratings(60, 40, 1200, popularity_skew=0.5, activity_skew=0.3).ratings.to_frame()


# ---- clean tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scale", [(0.5, 5.0, 0.5), (1, 5, 1), (0, 10, 1), (0, 100, 1), (-1, 1, 0.1), (1, 5, 1 / 3), None]
)
def test_a_clean_table_has_no_finding(scale: tuple[float, float, float] | None) -> None:
    middle, wide = ((scale[0] + scale[1]) / 2, (scale[1] - scale[0]) / 5) if scale else (0, 1)
    truth = synthetic_ratings(300, 100, 9000, mean=middle, noise=wide, scale=scale, activity_skew=0.3)
    assert check_ratings(truth.ratings) == []
    assert check_ratings(truth.ratings.to_frame()) == []


def test_the_bundled_set_has_notes_only() -> None:
    ratings = gm.load_dataset("movielens-small")
    assert [(f.check, f.count) for f in check_ratings(ratings)] == [("items with one rating only", 3063)]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_sources_agree(ending: str, clean: pl.DataFrame, tmp_path: Path) -> None:
    bad = with_row(clean, rating=99.0)
    path = tmp_path / f"ratings.{ending}"
    bad.write_csv(path) if ending == "csv" else bad.write_parquet(path)
    word = "line 1202" if ending == "csv" else "row 1201"
    from_file = found(path)
    assert set(from_file) == {"conflicting duplicates", "ratings off the scale"}
    assert from_file["ratings off the scale"].example.startswith(f"{word} has 99")
    for other in (bad, bad.to_pandas(), bad.to_arrow(), bad.lazy()):
        assert {k: f.count for k, f in found(other).items()} == {k: f.count for k, f in from_file.items()}


def test_column_names_can_be_given(clean: pl.DataFrame, tmp_path: Path) -> None:
    odd = clean.rename({"user": "who", "item": "what", "rating": "how"})
    assert check_ratings(odd, user="who", item="what", rating="how") == []
    odd.write_csv(tmp_path / "odd.csv", separator="|")
    assert check_ratings(tmp_path / "odd.csv", user="who", item="what", rating="how", separator="|") == []


# ---- duplicates --------------------------------------------------------------------------------------


def test_exact_and_conflicting_duplicates() -> None:
    frame = pl.DataFrame(
        {
            "user": [1, 1, 1, 2, 2, 3, 3, 3],
            "item": [5, 5, 5, 5, 6, 5, 5, 7],
            "rating": [4.0, 4.0, 4.0, 2.0, 3.0, 1.0, 5.0, 4.0],
        }
    )
    findings = found(frame)
    exact, conflict = findings.pop("exact duplicates"), findings.pop("conflicting duplicates")
    assert not findings
    assert (exact.count, exact.example) == (2, "user 1 rated item 5 4 in rows 1 and 2")
    assert (conflict.count, conflict.example) == (1, "user 3 rated item 5 1 and 5 in rows 6 and 7")


def test_the_same_rating_at_another_time_is_a_note() -> None:
    times = [1_000_000_000, 1_000_000_000, 1_100_000_000, 1_000_000_000]
    frame = pl.DataFrame({"user": [1, 1, 1, 2], "item": [5, 5, 5, 5], "rating": [4.0, 4.0, 4.0, 3.0], "time": times})
    assert {name: f.count for name, f in found(frame).items()} == {"exact duplicates": 1}
    again = notes(frame)["ratings given again at another time"]
    assert (again.count, again.example) == (1, "user 1 rated item 5 4 in rows 1 and 3")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=40))
def test_duplicates_add_up(rows: list[tuple[int, int, int]]) -> None:
    findings = found(pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row"))
    pairs, values = {row[:2] for row in rows}, set(rows)
    several = {pair for pair in pairs if len({r for *p, r in values if tuple(p) == pair}) > 1}
    counts = {name: f.count for name, f in findings.items()}
    assert counts.get("exact duplicates", 0) == len(rows) - len(values)
    assert counts.get("conflicting duplicates", 0) == len(several)


def test_what_was_merged_while_reading_is_a_note() -> None:
    with pytest.warns(gm.DataWarning):
        ratings = gm.Ratings.from_frame(pl.DataFrame({"user": [1, 1], "item": [2, 2], "rating": [3, 4]}))
    assert notes(ratings)["repeated pairs"].count == 1


# ---- values ------------------------------------------------------------------------------------------


def test_ratings_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("user,item,rating\n1,1,4\n1,2,\n1,3,NaN\n2,1,four\n2,2,inf\n2,3,1e99\n3,1, 3 \n")
    findings = found(path)
    missing, wrong = findings["missing ratings"], findings["ratings that are no finite numbers"]
    assert (missing.severity, missing.count, missing.example) == ("error", 2, "line 3 has nothing")
    assert (wrong.severity, wrong.count, wrong.example) == ("error", 3, "line 5 has 'four'")


def test_what_the_doctor_calls_an_error_the_reader_refuses(clean: pl.DataFrame) -> None:
    for row in ({"rating": None}, {"rating": float("nan")}, {"user": None}, {"time": None}):
        bad = with_row(clean, **row)
        assert check_ratings(bad)[0].severity == "error"
        with pytest.raises(gm.DataError):
            gm.Ratings.from_frame(bad)


def test_true_and_false_are_no_ratings() -> None:
    frame = pl.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [True, False]})
    assert found(frame)["ratings that are no finite numbers"].count == 2


@given(
    step=st.sampled_from([1.0, 0.5, 0.25, 0.1]),
    low=st.integers(-3, 3),
    places=st.integers(4, 10),
    off=st.lists(st.tuples(st.integers(0, 3), st.floats(0.2, 0.8)), max_size=4),
    far=st.lists(st.integers(20, 90), max_size=4),
)
def test_values_off_the_grid_and_off_the_scale_are_counted(
    step: float, low: int, places: int, off: list[tuple[int, float]], far: list[int]
) -> None:
    """Of 2000 ratings on an even grid, a few are moved between its steps, and a few far beyond its ends."""
    rng = np.random.default_rng(0)
    scale = low + step * np.arange(places)
    values = rng.choice(scale, 2000)
    values[: len(off)] = [scale[place % (places - 1)] + step * part for place, part in off]
    values[10 : 10 + len(far)] = [scale[-1] + step * steps for steps in far]
    frame = pl.DataFrame({"user": np.arange(2000) // 20, "item": np.arange(2000) % 20, "rating": values})
    counts = {name: f.count for name, f in found(frame).items()}
    expected = {"ratings off the grid": len(off), "ratings off the scale": len(far)}
    assert counts == {name: count for name, count in expected.items() if count}


def test_the_scale_is_named(clean: pl.DataFrame) -> None:
    bad = with_row(with_row(clean, rating=3.7, item=-1), rating=50.0, item=-2)
    grid, scale = (found(bad)[f"ratings off the {what}"] for what in ("grid", "scale"))
    assert grid.example == "row 1201 has 3.7 where the others are 0.5 to 5 in steps of 0.5"
    assert scale.example == "row 1202 has 50 where the others are 0.5 to 5 in steps of 0.5"


def test_a_small_table_with_one_wild_value() -> None:
    values = [1, 2, 3, 4, 5, 3, 4, 2, 5, 1, 3, 4, 4, 5, 2, 3, 4, 1, 5, 50]
    frame = pl.DataFrame({"user": np.arange(20) % 4, "item": np.arange(20), "rating": values})
    assert found(frame)["ratings off the scale"].example.startswith("row 20 has 50 where the others are 1 to 5")


def test_a_wild_value_where_there_is_no_grid() -> None:
    truth = synthetic_ratings(60, 40, 1200, scale=None, popularity_skew=0.5, activity_skew=0.3)
    bad = with_row(truth.ratings.to_frame(), rating=pl.Series([99.0], dtype=pl.Float32)[0], item=-1)
    assert found(bad)["ratings off the scale"].count == 1


def test_a_rare_end_of_the_scale_is_a_note() -> None:
    values = np.resize([1, 2, 3, 4, 5], 4000)
    values[[7, 8]] = 0
    frame = pl.DataFrame({"user": np.arange(4000) // 40, "item": np.arange(4000) % 40, "rating": values})
    assert not found(frame)
    assert notes(frame)["rare ratings at the end of the scale"].count == 2
    farther = frame.with_columns(rating=pl.Series([-1, *values[1:]]))
    assert found(farther)["ratings off the scale"].example == "row 1 has -1 where the others are 1 to 5 in steps of 1"


# ---- users -------------------------------------------------------------------------------------------


def test_users_with_one_value_for_everything(clean: pl.DataFrame) -> None:
    def always(user: int, times: int) -> pl.DataFrame:
        columns = {"user": user, "item": pl.int_range(times), "rating": pl.lit(4.0, pl.Float32)}
        return clean.head(times).with_columns(**columns)

    distinct = clean.with_columns(item=pl.int_range(pl.len()))
    bad = pl.concat([distinct, always(900, 6), always(901, 4)], how="vertical_relaxed")
    one = found(bad)["users with one value for everything"]
    assert (one.count, one.example) == (1, "user 900 gave 4 to all of 6 items")


def test_ratings_that_are_all_the_same() -> None:
    frame = pl.DataFrame({"user": [1] * 6 + [2] * 6, "item": [*range(6)] * 2, "rating": [1.0] * 12})
    assert list(found(frame)) == ["ratings that are all the same"]


def test_single_ratings_are_notes(clean: pl.DataFrame) -> None:
    lone = with_row(clean, user=777, item=778)
    assert not found(lone)
    assert {name: (f.count, f.example) for name, f in notes(lone).items()} == {
        "users with one rating only": (1, "user 777"),
        "items with one rating only": (1, "item 778"),
    }


# ---- ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("twins", "example"),
    [
        (["a", " a"], "' a' and 'a'"),
        (["A", "a"], "'A' and 'a'"),
        (["007", "7"], "'007' and '7'"),
        (["7", "7.0"], "'7' and '7.0'"),
        (["x", "x\t"], r"'x' and 'x\t'"),
    ],
)
def test_ids_that_look_alike(twins: list[str], example: str) -> None:
    frame = pl.DataFrame({"user": [*twins, "other", "0", "00x"], "item": [1, 2, 3, 4, 5], "rating": [1, 2, 3, 4, 5]})
    alike = found(frame)["user ids that look alike"]
    assert (alike.count, alike.example) == (1, example)


def test_ids_that_differ_are_left_alone() -> None:
    names = ["a", "b", "10", "1", "100", "1.5", "0", "a1", "a01", "1a"]
    frame = pl.DataFrame({"user": names, "item": range(10), "rating": [1, 2, 3, 4, 5] * 2})
    assert not found(frame)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_one_and_the_text_one(library: str) -> None:
    users = [1, "1", 2, 3]
    if library == "pandas":
        frame = pd.DataFrame({"user": pd.Series(users, dtype=object), "item": [1, 2, 3, 4], "rating": [1, 2, 3, 4]})
    else:
        frame = pl.DataFrame({"user": pl.Series(users, dtype=pl.Object), "item": [1, 2, 3, 4], "rating": [1, 2, 3, 4]})
    findings = found(frame)
    assert findings["user ids of two kinds"].count == 1
    assert findings["user ids that look alike"].example == "1 and '1'"


def test_objects_of_all_sorts() -> None:
    frame = pd.DataFrame(
        {
            "user": pd.Series(["a", None, float("nan"), pd.NA, "b", True], dtype=object),
            "item": [1.0, 2.0, float("nan"), 4.0, 5.0, 6.0],
            "rating": pd.Series([1, "2", "x", None, 3.5, float("inf")], dtype=object),
        }
    )
    counts = {name: f.count for name, f in found(frame).items()}
    assert counts == {
        "missing user ids": 3,
        "user ids that are neither integers nor text": 1,
        "missing item ids": 1,
        "missing ratings": 1,
        "ratings that are no finite numbers": 2,
    }


def test_missing_and_broken_ids(tmp_path: Path) -> None:
    (tmp_path / "gaps.csv").write_text("user,item,rating\nann,1,4\n,2,3\nbob,,2\n  ,3,5\n")
    findings = found(tmp_path / "gaps.csv")
    assert (findings["missing user ids"].count, findings["missing user ids"].example) == (2, "line 3 has none")
    assert findings["missing item ids"].count == 1
    fractions = pl.DataFrame({"user": [1.0, 2.5], "item": [1, 2], "rating": [3, 4]})
    assert found(fractions)["user ids that are neither integers nor text"].example == "row 2 has 2.5 (fraction)"


# ---- times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "check"),
    [
        (1_500_000_000_000, "times in mixed units"),
        (1_500_000_000_000_000, "times in mixed units"),
        # a name without the time: every process that collects tests must find the same names
        pytest.param(int(time.time()) + 3 * 86_400, "times in the future", id="in three days"),
        (4_000_000_000, "times in the future"),
        (9_000_000_000_000_000_000, "times in the future"),
        (0, "times before 1990"),
        (-5, "times before 1990"),
    ],
)
def test_odd_times(moment: int, check: str, clean: pl.DataFrame) -> None:
    findings = found(with_row(clean, time=moment, item=-1))
    assert list(findings) == [check]
    assert findings[check].count == 1
    assert str(moment) in findings[check].example


@pytest.mark.parametrize("size", [10**3, 10**6, 10**9])
def test_another_unit_throughout_is_fine(size: int, clean: pl.DataFrame) -> None:
    other = clean.with_columns(pl.col("time") * size)
    assert check_ratings(other) == []
    assert list(found(with_row(other, time=4_000_000_000 * size, item=-1))) == ["times in the future"]
    assert list(found(with_row(other, time=1_500_000_000, item=-1))) == (["times in mixed units"])


def test_times_as_dates_and_as_text(clean: pl.DataFrame) -> None:
    dates = clean.with_columns(pl.from_epoch("time"))
    assert check_ratings(dates) == []
    assert check_ratings(dates.with_columns(pl.col("time").cast(pl.String))) == []
    assert check_ratings(clean.with_columns(pl.col("time").cast(pl.String))) == []


def test_times_that_cannot_be_read(clean: pl.DataFrame) -> None:
    bad = with_row(clean.with_columns(pl.col("time").cast(pl.String)), time="yesterday", item=-1)
    one = found(bad)["times that are missing or cannot be read"]
    assert (one.severity, one.count, one.example) == ("error", 1, "row 1201 has 'yesterday'")
    assert found(clean.with_columns(time=pl.lit("yesterday")))["times that are missing or cannot be read"].count == 1200


def test_times_that_only_order(clean: pl.DataFrame) -> None:
    ordered = clean.with_columns(time=pl.int_range(pl.len()))
    assert not found(ordered)
    assert notes(ordered)["times that are no dates"].count == 1200


# ---- two tables --------------------------------------------------------------------------------------


def test_pairs_in_both_tables(clean: pl.DataFrame) -> None:
    train, test = clean.head(900), clean.slice(890)
    leak = found(test, against=train)["pairs in both tables"]
    first = clean.row(890, named=True)
    assert (leak.severity, leak.count) == ("error", 10)
    assert leak.example == f"user {first['user']} and item {first['item']} in row 1"
    assert not found(clean.slice(900), against=train)


def test_a_clean_split_has_no_leak(clean: pl.DataFrame, tmp_path: Path) -> None:
    train, test = gm.Ratings.from_frame(clean).split_by_time(0.2)
    train.to_frame().write_csv(tmp_path / "train.csv")
    checks = {f.check for f in check_ratings(test, against=tmp_path / "train.csv")}
    assert not checks & {"pairs in both tables", "tested before the training ends"}
    train, test = gm.Ratings.from_frame(clean).split(0.2)
    assert notes(test, against=train)["tested before the training ends"].count > 200


def test_other_kinds_of_ids_in_the_other_table(clean: pl.DataFrame) -> None:
    text = clean.with_columns(pl.col("user").cast(pl.String))
    findings = found(text, against=clean)
    assert findings["user ids of another kind in the other table"].example == "text here, integer there"
    assert findings["pairs in both tables"].count == 1200


# ---- the findings themselves, and what is no table ----------------------------------------------------


def test_a_finding_is_one_line_and_plain_data(clean: pl.DataFrame) -> None:
    bad = with_row(with_row(clean, rating=None, item=-1), rating=99.0, item=-2, time=0)
    findings = check_ratings(pl.concat([bad, bad.tail(1)]), against=clean)
    assert {f.severity for f in findings} == {"error", "warning", "note"}
    order = [("error", "warning", "note").index(f.severity) for f in findings]
    assert order == sorted(order)
    for finding in findings:
        assert "\n" not in str(finding)
        assert str(finding).startswith(f"{finding.severity}: {finding.check} ({finding.count:,}): ")
        assert json.loads(json.dumps(dataclasses.asdict(finding)))["count"] == finding.count
        assert type(finding.count) is int


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("user,item,rating\n", "no rows"), ("user,item\n1,2\n", "No column for the rating")],
)
def test_a_file_that_is_no_table(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(gm.DataError, match=message):
        check_ratings(path)


def test_what_is_no_table() -> None:
    with pytest.raises(gm.DataError, match="There is no file"):
        check_ratings("nowhere.csv")
    with pytest.raises(gm.DataError, match="A dataframe is needed"):
        check_ratings(7)
    with pytest.raises(gm.DataError, match="No column for the user"):
        check_ratings(pd.DataFrame({"a": pd.Series([1, "1"], dtype=object), "item": [1, 2], "rating": [1, 2]}))


def test_a_table_without_one_usable_row() -> None:
    findings = check_ratings(pl.DataFrame({"user": [None], "item": ["a"], "rating": [None]}))
    assert [f.check for f in findings] == ["missing user ids", "missing ratings"]


def test_the_source_is_not_changed(clean: pl.DataFrame) -> None:
    frame = clean.to_pandas()
    before = frame.copy()
    check_ratings(frame)
    pd.testing.assert_frame_equal(frame, before)
