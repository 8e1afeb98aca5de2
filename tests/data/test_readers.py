"""Reading files: every kind and separator, header or none, ids as they come, and what is said of bad ones."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import polars as pl
import pytest

import gramian as gm
from gramian.data.readers import read_items


@pytest.fixture
def write(tmp_path):
    """Write a text or bytes to a file and give its path."""

    def written(content, name="ratings.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def text_of(frame, separator=",", header=True, end="\n"):
    """A table as text."""
    rows = [separator.join(map(str, row)) for row in frame.iter_rows()]
    return end.join(([separator.join(frame.columns)] if header else []) + rows) + end


SEPARATORS = {"comma": ",", "tab": "\t", "colons": "::", "semicolon": ";", "bar": "|"}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("kind", SEPARATORS)
def test_text_of_every_separator(kind, header, frame, ratings, text_frame, text_ratings, write):
    for source, expected in ((frame, ratings), (text_frame, text_ratings)):
        path = write(text_of(source, SEPARATORS[kind], header), "ratings.dat")
        for read in (
            gm.read_ratings(path),
            gm.read_ratings(str(path), separator=SEPARATORS[kind], header=header),
        ):
            assert read.fingerprint() == expected.fingerprint()
            assert read.to_frame().equals(expected.to_frame())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n",
        lambda text: "\ufeff" + text,
    ],
    ids=["CRLF", "no end of line", "blank last line", "byte order mark"],
)
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("separator", [",", "::"])
def test_text_as_other_programs_write_it(change, header, separator, frame, ratings, write):
    path = write(change(text_of(frame, separator, header)))
    assert gm.read_ratings(path).to_frame().equals(ratings.to_frame())


def test_quoted_text(write):
    path = write('"User-ID";"ISBN";"Book-Rating"\n"1";"00;7";"5"\n"2";"a""b";"3"\n')
    table = gm.read_ratings(path)
    assert table.to_frame().rows() == [(1, "00;7", 5.0), (2, 'a"b', 3.0)]


@pytest.mark.parametrize("kind", ["csv.gz", "dat.gz", "parquet", "pq", "arrow", "feather", "ipc"])
def test_compressed_and_columnar_files(kind, frame, ratings, text_frame, text_ratings, tmp_path):
    path = tmp_path / f"ratings.{kind}"
    for source, expected in ((frame, ratings), (text_frame, text_ratings)):
        if kind.endswith("gz"):
            path.write_bytes(gzip.compress(text_of(source, "::" if "dat" in kind else ",").encode()))
        elif kind in ("parquet", "pq"):
            source.write_parquet(path)
        else:
            source.write_ipc(path)
        assert gm.read_ratings(path).to_frame().equals(expected.to_frame())
        shuffled = gm.read_ratings(path, user="item", item="user")
        assert shuffled.n_users == 40


def test_columns_by_name_and_by_place(frame, ratings, write):
    odd = frame.select("time", "rating", "item", "user").rename({"user": "who", "item": "what", "rating": "grade"})
    path = write(text_of(odd))
    assert gm.read_ratings(path, "who", "what", "grade").fingerprint() == ratings.fingerprint()
    assert gm.read_ratings(path, 3, 2, 1, 0).fingerprint() == ratings.fingerprint()
    assert gm.read_ratings(path, user=3, item="what", rating=1).fingerprint() == ratings.fingerprint()
    with pytest.raises(gm.DataError, match="No column for the user was found: the columns are 'time', 'grade', 'what'"):
        gm.read_ratings(path)
    with pytest.raises(gm.DataError, match="column given for the user does not exist: 'me'"):
        gm.read_ratings(path, user="me", item=2, rating=1)


def test_columns_by_place_without_a_header(frame, ratings, write):
    path = write(text_of(frame.select("item", "user", "time", "rating"), header=False))
    read = gm.read_ratings(path, user=1, item=0, rating=3, time=2)
    assert read.fingerprint() == ratings.fingerprint()
    assert gm.read_ratings(path, user=1, item=0, rating=3).n_users == 60
    with pytest.raises(gm.DataError, match="does not exist: 4"):
        gm.read_ratings(path, user=4)
    three = write(text_of(frame.drop("time"), header=False))
    assert gm.read_ratings(three).to_frame().equals(ratings.to_frame().drop("time"))
    extra = write(text_of(frame.with_columns(more=pl.lit("x")), header=False))
    assert gm.read_ratings(extra).fingerprint() == ratings.fingerprint()


@pytest.mark.parametrize(
    ("first", "rows"),
    [
        ("user,item,rating", 1),
        ("userId,movieId,rating,timestamp", 1),
        ("who,what,how", 1),
        ("u1,i1,5", 2),
        ("1,2,3.5", 2),
        ("1,two,3.5", 2),
        ("-1,2,-3e2", 2),
    ],
)
def test_whether_there_is_a_header_is_found_out(first, rows, write):
    path = write(f"{first}\nu2,i2,4,100\n" if first.count(",") == 3 else f"{first}\nu2,i2,4\n")
    by_place = {"user": 0, "item": 1, "rating": 2}
    assert len(gm.read_ratings(path, **by_place)) == rows


def test_header_can_be_said(write):
    path = write("1,2,3\n4,5,6\n")
    assert len(gm.read_ratings(path)) == 2
    assert len(gm.read_ratings(path, "1", "2", "3", header=True)) == 1
    named = write("user,item,rating\n1,2,3\n")
    with pytest.raises(gm.DataError, match=r"finite number: line 1 has 'rating'"):
        gm.read_ratings(named, header=False)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "2", "30"], [1, 2, 30]),
        (["-1", "0", "5"], [-1, 0, 5]),
        (["007", "7", "8"], ["007", "7", "8"]),
        (["1", "2", "x"], ["1", "2", "x"]),
        (["+1", "2", "3"], ["+1", "2", "3"]),
        (["1.0", "2", "3"], ["1.0", "2", "3"]),
        (["-0", "2", "3"], ["-0", "2", "3"]),
        (["1e3", "2", "3"], ["1e3", "2", "3"]),
        ([" 1", "2", "3"], [1, 2, 3]),
        (["9223372036854775807", "2", "3"], [2, 3, 9223372036854775807]),
        (["9223372036854775808", "2", "3"], ["2", "3", "9223372036854775808"]),
        (["nan", "null", "None"], ["None", "nan", "null"]),
        (["true", "false", "NA"], ["NA", "false", "true"]),
        (["2020-01-01", "2", "3"], ["2", "2020-01-01", "3"]),
        (["ü", "日本", "🙂"], ["ü", "日本", "🙂"]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else None,
)
def test_ids_are_kept_as_they_come(ids, expected, write):
    rows = "".join(f"{i},{k},3\n" for k, i in enumerate(ids))
    for header in ("user,item,rating\n", ""):
        table = gm.read_ratings(write(header + rows), header=bool(header))
        assert table.user_ids.ids.to_list() == expected
        swapped = gm.read_ratings(write(header + rows), header=bool(header), user=1, item=0)
        assert swapped.item_ids.ids.to_list() == expected


def test_text_and_integer_ids_are_not_confused(write):
    numbers = gm.read_ratings(write("user,item,rating\n1,1,3\n2,2,4\n"))
    text = gm.read_ratings(write("user,item,rating\n1,1,3\nx,2,4\n"))
    model = gm.Baseline().fit(numbers)
    with pytest.raises(gm.DataError, match=r"another kind .* found text \(such as '1'\) where .* integers"):
        model.evaluate(text)
    with pytest.raises(gm.DataError, match="another kind"):
        model.update(text)
    with pytest.raises(gm.DataError, match="another kind"):
        gm.Baseline().fit(text).predict(1, 1)


def test_repeated_pairs_of_a_file(write):
    path = write("user,item,rating\n1,1,3\n1,1,5\n")
    with pytest.warns(gm.DataWarning, match="1 rows repeat"):
        assert gm.read_ratings(path).values.tolist() == [5.0]
    with pytest.warns(gm.DataWarning):
        assert gm.read_ratings(path, duplicates="mean").values.tolist() == [4.0]
    with pytest.raises(gm.DataError, match="user 1 rated item 1 more than once"):
        gm.read_ratings(path, duplicates="raise")


BAD_TEXTS = {
    "empty": ("", r"The file '.*' is empty; give a file with ratings\."),
    "blank": (" \n\n  \n", r"is empty"),
    "header only": ("user,item,rating\n", r"There are no ratings: the table has no rows"),
    "a missing column": ("user,rating\n1,2\n", r"No column for the item was found: the columns are 'user', 'rating'"),
    "two columns": ("1,2\n3,4\n", r"Too few columns: found 2 without a header"),
    "one column": ("1\n3\n", r"Too few columns: found 1 without a header"),
    "text for a rating": ("user,item,rating\n1,2,3\n1,3,good\n", r"must be a finite number: line 3 has 'good'"),
    "text for a rating, no header": ("1,2,3\n1,3,good\n", r"must be a finite number: line 2 has 'good'"),
    "no rating": ("user,item,rating\n1,2,\n", r"line 2 has no value"),
    "nan": ("user,item,rating\n1,2,3\n1,3,nan\n1,4,inf\n", r"line 3 has 'nan'; correct or drop it \(2 such in all\)"),
    "inf": ("user,item,rating\n1,2,-inf\n", r"line 2 has '-inf'"),
    "too large": ("user,item,rating\n1,2,1e300\n", r"line 2 has '1e300'"),
    "decimal comma": ('user;item;rating\n1;2;"3,5"\n', r"line 2 has '3,5'"),
    "a short line": ("user,item,rating\n1,2,3\n4,5\n6,7,8\n", r"line 3 has no value"),
    "a blank line before": ("user,item,rating\n1,2,3\n\n1,3,good\n", r"line 4 has 'good'"),
    "no user": ("user,item,rating\n1,2,3\n,2,3\n", r"user id is missing: line 3"),
    "no item": ("user,item,rating\n1,2,3\n2,,3\n", r"item id is missing: line 3"),
    "text for a time": ("user,item,rating,time\n1,2,3,4\n1,3,4,noon\n", r"time must be .*: line 3 has 'noon'"),
    "text for every time": ("user,item,rating,time\n1,2,3,noon\n", r"time must be .*: line 2 has 'noon'"),
    "no time": ("user,item,rating,time\n1,2,3,4\n1,3,4,\n", r"time must be .*: line 3 has no value"),
    "binary": (b"\x00\x01\x02\x03" * 100, r"is not text: give CSV"),
    "UTF-16": ("user,item,rating\n1,2,3\n".encode("utf-16"), r"is not text"),
    "a broken quote": ('user,item,rating\n1,2,3\n"1,3,4\n', r"cannot be read|line 3|quote"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_texts_are_refused_in_one_sentence(name, write):
    content, message = BAD_TEXTS[name]
    with pytest.raises(gm.DataError, match=message) as caught:
        gm.read_ratings(write(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", ["::", "\t"])
def test_line_numbers_are_right_for_other_separators(separator, write):
    rows = [[str(k), "2", "3"] for k in range(50)]
    rows[41][2] = "?"
    for header in (["user", "item", "rating"], None):
        lines = [separator.join(row) for row in ([header] if header else []) + rows]
        with pytest.raises(gm.DataError, match=rf"line {43 if header else 42} has '\?'"):
            gm.read_ratings(write("\n".join(lines)))


def test_bad_files_are_refused_in_one_sentence(tmp_path, frame, write):
    with pytest.raises(gm.DataError, match=r"There is no file '.*nothing\.csv'; check the path"):
        gm.read_ratings(tmp_path / "nothing.csv")
    with pytest.raises(gm.DataError, match="no Parquet or Arrow files"):
        gm.read_ratings(tmp_path)
    frame.write_parquet(tmp_path / "whole.parquet")
    frame.write_ipc(tmp_path / "whole.arrow")
    for kind in ("parquet", "arrow"):
        whole = (tmp_path / f"whole.{kind}").read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"user,item,rating\n1,2,3\n"):
            with pytest.raises(gm.DataError, match=r"The file '.*' cannot be read: ") as caught:
                gm.read_ratings(write(content, f"bad.{kind}"))
            assert "\n" not in str(caught.value)
    frame.drop("item").write_parquet(tmp_path / "missing.parquet")
    with pytest.raises(gm.DataError, match="No column for the item"):
        gm.read_ratings(tmp_path / "missing.parquet")
    seventh = pl.int_range(pl.len()) == 6
    wrong = frame.with_columns(rating=pl.when(seventh).then(np.nan).otherwise(pl.col("rating")))
    wrong.write_parquet(tmp_path / "nan.parquet")
    with pytest.raises(gm.DataError, match="row 7 has nan"):
        gm.read_ratings(tmp_path / "nan.parquet")


def test_damaged_gzip_is_refused(frame, write):
    whole = gzip.compress(text_of(frame).encode())
    assert gm.read_ratings(write(whole, "whole.csv.gz")).n_users == 60
    with pytest.raises(gm.DataError, match=r"cannot be read: "):
        gm.read_ratings(write(whole[: len(whole) // 2], "cut.csv.gz"))
    kinds = set()
    for place in range(20, len(whole), 97):
        content = bytearray(whole)
        content[place] ^= 0xFF
        try:
            gzip.decompress(content)
        except (zlib.error, OSError, EOFError) as error:
            kinds.add(type(error))
        with pytest.raises(gm.DataError, match=r"cannot be read: "):
            gm.read_ratings(write(bytes(content), "flipped.csv.gz"))
    assert kinds == {zlib.error, gzip.BadGzipFile}


def test_read_items(tmp_path, write):
    path = write('movieId,title,genres\n1,"Toy Story, or so (1995)",A|B\n7,Straße,\n', "movies.csv")
    table = read_items(path)
    assert table.columns == ["item", "title", "genres"]
    assert table.rows() == [(1, "Toy Story, or so (1995)", "A|B"), (7, "Straße", None)]
    table.write_parquet(tmp_path / "movies.parquet")
    assert read_items(tmp_path / "movies.parquet").equals(table)
    odd = write("key,label\n007,x\n", "odd.csv")
    assert read_items(odd, item="key", title="label").rows() == [("007", "x")]
    with pytest.raises(gm.DataError, match=r"No column for the title .* say which with title="):
        read_items(odd, item="key")
    with pytest.raises(gm.DataError, match="No column for the item"):
        read_items(odd, title="label")
    with pytest.raises(gm.DataError, match="is empty"):
        read_items(write("", "none.csv"))
    with pytest.raises(gm.DataError, match="There is no file"):
        read_items(tmp_path / "nothing.csv")


def test_a_line_with_too_many_fields_is_refused(write):
    path = write("user,item,rating\n1,2,3\n1,3,3,5\n")
    with pytest.raises(gm.DataError, match=r"too many fields: line 3 of .* has '1,3,3,5', the first has 3"):
        gm.read_ratings(path)


def test_other_encodings_are_read_and_said(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("user,item,rating\nandré,a,3\nandrè,a,4\n".encode("latin-1"))
    with pytest.warns(gm.DataWarning, match=r"is not UTF-8 \(line 2\): it was read as Windows-1252"):
        table = gm.read_ratings(path)
    assert table.user_ids.ids.to_list() == ["andrè", "andré"]


# ---- what is read is what was written ---------------------------------------------------------------------


PLACES = {"user": 0, "item": 1, "rating": 2}


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("ann,game,5\nbob,chess,3\n", {}, [("ann", "game", 5.0), ("bob", "chess", 3.0)]),
        ("ann,game,5\nbob,chess,3\n", PLACES, [("ann", "game", 5.0), ("bob", "chess", 3.0)]),
        ("user,book,1e0\nbob,chess,3\n", PLACES, [("bob", "chess", 3.0), ("user", "book", 1.0)]),
        ("5,ann,game\n3,bob,a\n", {"rating": 0, "user": 1, "item": 2}, [("ann", "game", 5.0), ("bob", "a", 3.0)]),
        ("5::ann::game\n3::bob::a\n", {"rating": 0, "user": 1, "item": 2}, [("ann", "game", 5.0), ("bob", "a", 3.0)]),
        ("who::what::stars\nann::game::5\n", {"user": "who", "item": "what"}, [("ann", "game", 5.0)]),
        ("user,item,rating\nann,game,5\n", {}, [("ann", "game", 5.0)]),
        ("who,what,how\nann,game,5\n", PLACES, [("ann", "game", 5.0)]),
        ("rating,user,item,2001\n5,ann,game,1\n", {}, [("ann", "game", 5.0)]),
    ],
)  # fmt: skip
def test_a_word_that_names_columns_may_be_an_id(text, columns, rows, write, tmp_path):
    for found in (gm.read_ratings(write(text), **columns), gm.prepare(write(text), tmp_path / "folder", **columns)):
        assert sorted(found.to_frame().select("user", "item", "rating").rows()) == rows


def test_the_header_of_a_wide_table_is_no_rating(write):
    with pytest.raises(gm.DataError, match="No column for the item was found: the columns are 'user', '1', '2', '3'"):
        gm.read_ratings(write("user,1,2,3\nann,4,5,3\n"))


def test_no_two_bytes_of_another_encoding_become_one_id(tmp_path):
    """The 128 bytes above ASCII, each an id: Windows-1252 itself has 123 of them."""
    path = tmp_path / "bytes.csv"
    path.write_bytes(b"user,item,rating\n" + b"".join(b"u%c,x%c,3\n" % (byte, byte) for byte in range(128, 256)))
    with pytest.warns(gm.DataWarning, match="was read as Windows-1252"):
        ratings = gm.read_ratings(path)
    assert (ratings.n_users, ratings.n_items) == (128, 128)
    known = [byte for byte in range(128, 256) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)]
    assert {f"u{bytes([byte]).decode('cp1252')}" for byte in known} < set(ratings.user_ids.ids)
