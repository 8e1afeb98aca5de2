"""Reading files of ratings: CSV, TSV, `::`, gzip, Parquet, Arrow."""

from __future__ import annotations

import gzip
import io
import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

from gramian.data.columns import USUAL, Names, find_columns, pick_columns
from gramian.data.prepared import is_prepared, open_prepared
from gramian.data.ratings import Ratings
from gramian.data.table_formats import ARROW, PARQUET, scan_folder
from gramian.errors import DataError, DataWarning

__all__ = [
    "TITLES",
    "features_of",
    "fields_of",
    "has_header",
    "items_of",
    "read_features",
    "read_items",
    "read_ratings",
    "read_table",
    "read_whole_table",
]

SEPARATORS = ("::", "\t", ",", ";", "|")
ROLES = ("user", "item", "rating", "time")
T = TypeVar("T")

TITLES = ("title", "name", "originaltitle")

# The five bytes that Windows-1252 leaves out are control characters in it (WHATWG, Encoding), so that no two bytes and
# no two ids become one.
WINDOWS_1252 = {
    byte: bytes([byte]).decode("cp1252") for byte in range(0x80, 0xA0) if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


def read_ratings(
    path: str | os.PathLike[str],
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | None = None,
    time: str | int | None = None,
    *,
    separator: str | None = None,
    header: bool | None = None,
    duplicates: str = "last",
) -> Ratings:
    """Read ratings from a file.

    Args:
        path: A CSV, TSV or ``::``-separated text (``.gz`` too), Parquet, or Arrow (IPC, Feather) file; a folder of
            Parquet or Arrow files, or a Delta Lake or Iceberg table; or a folder that :func:`gramian.prepare` made,
            for which nothing else is to be given.
        user, item, rating, time: Column names, or positions from 0. Not given: found by their usual names
            (``userId``, ``movie_id``, ``stars``, ``timestamp``, …), or, without a header, taken in the order
            user, item, rating, time. ``time`` may be absent.
        separator: Of a text file; found from its first line if not given.
        header: Whether a text file's first line names the columns; found if not given.
        duplicates: What to do with repeated (user, item) pairs: ``"last"``, ``"mean"`` or ``"raise"``; see
            :meth:`Ratings.from_frame`.

    Ids are kept as they come: a column where every entry is written as a plain integer gives integer ids,
    any other (``"007"``, ``"ab3"``) text ids.

    Raises:
        DataError: The file is missing, empty, or of an unknown kind; a column is missing; a rating or time is
            missing, not a number or not finite (with its line); pairs repeat under ``"raise"``.
    """
    names: Names = {"user": user, "item": item, "rating": rating, "time": time}
    if is_prepared(path):
        return open_prepared(path)
    table, word = read_table(path, names, separator=separator, header=header)
    return Ratings.from_columns(table, duplicates=duplicates, row_word=word)


def read_table(
    path: str | os.PathLike[str],
    names: Names,
    *,
    separator: str | None = None,
    header: bool | None = None,
    needed: tuple[str, ...] = ("user", "item", "rating"),
) -> tuple[pl.DataFrame, str]:
    """The columns of a file of ratings, unchecked, with each row's number as ``row``; and what a row is called.

    Blank lines of a text are passed over.
    """
    wanted = {
        role: names.get(role) for role in ROLES if role in needed or names.get(role) is not None or role == "time"
    }
    if Path(path).is_dir():
        return _read_folder(Path(path), wanted).with_row_index("row", 1), "row"
    source = _existing(path)
    kind = source.suffix.lower()
    if kind in PARQUET + ARROW:
        read = pl.read_parquet if kind in PARQUET else pl.read_ipc
        picked = pick_columns(_guarded(source, lambda: read(source)), wanted)
        return picked.with_row_index("row", 1), "row"
    content = _text_bytes(source)
    first = content[: content.find(b"\n") + 1 or None].decode("utf-8", errors="replace")
    sep, fields = fields_of(first, separator)
    headed = has_header(fields, names, "rating" in needed) if header is None else header
    if len(sep) > 1:
        content, sep = content.replace(sep.encode(), b"\x1f"), "\x1f"
    try:
        table = _parse(content, sep, headed)
    except pl.exceptions.PolarsError:
        _refuse_long_rows(source, content, sep)
        table = _guarded(source, lambda: _parse(content, sep, headed))
    if not headed:
        wanted = _by_position(wanted, len(table.columns), needed)
    picked = pick_columns(table, wanted).with_row_index("row", 2 if headed else 1)
    picked = picked.filter(~table.select(blank=pl.all_horizontal(pl.all().is_null()))["blank"])
    ids = [_plain_integers(picked[name]) for name in ("user", "item") if name in picked.columns]
    return picked.with_columns(ids), "line"


def _read_folder(path: Path, wanted: Names) -> pl.DataFrame:
    """The columns of a table that is a folder; no others are read."""
    scan = scan_folder(path)
    found = find_columns(_guarded(path, lambda: scan.collect_schema().names()), wanted)
    table = _guarded(path, lambda: scan.select(list(dict.fromkeys(found.values()))).collect())
    return pick_columns(table, dict(found))


def read_items(path: str | os.PathLike[str], item: str | None = None, title: str | None = None) -> pl.DataFrame:
    """A table about items from a CSV or Parquet file: the columns ``item`` and ``title``, then the rest.

    Args:
        path: The file, with a header.
        item, title: Column names; not given, found by the usual names (``movieId``, ``name``, …).
    """
    return items_of(read_whole_table(path), item, title)


def items_of(table: pl.DataFrame, item: str | None = None, title: str | None = None) -> pl.DataFrame:
    """What :func:`read_items` makes of a table that was read already."""
    column = find_columns(table.columns, {"item": item})["item"]
    titles = [title] if title else [c for c in table.columns if c.lower() in TITLES]
    if not titles or titles[0] not in table.columns:
        raise DataError(f"No column for the title was found: the columns are {table.columns}; say which with title=….")
    rest = [c for c in table.columns if c not in (column, titles[0], "item", "title")]
    return table.select(_plain_integers(table[column]).alias("item"), pl.col(titles[0]).alias("title"), *rest)


def read_features(path: str | os.PathLike[str], what: str, column: str | None = None) -> pl.DataFrame:
    """A table about users or items from a CSV or Parquet file, for a recipe's ``user_features`` or ``item_features``.

    The id comes first and is called ``what`` (``"user"`` or ``"item"``); ``column`` says which it is, else the usual
    names do. Columns of text that are numbers throughout become numbers; titles are left out.
    """
    return features_of(read_whole_table(path), what, column)


def features_of(table: pl.DataFrame, what: str, column: str | None = None) -> pl.DataFrame:
    """What :func:`read_features` makes of a table that was read already."""
    name = find_columns(table.columns, {what: column})[what]
    rest = [_plain_numbers(table[c]) for c in table.columns if c not in (name, what) and c.lower() not in TITLES]
    return pl.DataFrame([_plain_integers(table[name]).alias(what), *rest])


def _plain_numbers(series: pl.Series) -> pl.Series:
    if series.dtype != pl.String:
        return series
    text = series.str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    return numbers if (numbers.is_not_null() | text.is_null() | (text == "")).all() else series


def read_whole_table(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Every column of a file with a header."""
    source = _existing(path)
    if source.suffix.lower() in PARQUET:
        return _guarded(source, lambda: pl.read_parquet(source))
    content = _text_bytes(source)
    first = content[: content.find(b"\n")].decode("utf-8", errors="replace")
    sep = max(SEPARATORS[1:], key=first.count)
    return _guarded(source, lambda: _parse(content, sep, True))


def _existing(path: str | os.PathLike[str]) -> Path:
    source = Path(path)
    if source.is_dir():
        raise DataError(f"A file is needed: {str(source)!r} is a folder; name a file in it.")
    if not source.is_file():
        raise DataError(f"There is no file {str(source)!r}; check the path.")
    return source


def _text_bytes(source: Path) -> bytes:
    content = _guarded(source, source.read_bytes)
    if content[:2] == b"\x1f\x8b":
        content = _guarded(source, lambda: gzip.decompress(content))
    if not content.strip():
        raise DataError(f"The file {str(source)!r} is empty; give a file with ratings.")
    if b"\0" in content[:4096]:
        raise DataError(
            f"The file {str(source)!r} is not text: give CSV, TSV or '::' text (gzip too), Parquet or Arrow, "
            "with its usual ending."
        )
    return _as_utf8(source, content if b"\n" in content else content.replace(b"\r", b"\n"))


def _as_utf8(source: Path, content: bytes) -> bytes:
    """The content in UTF-8; what is not is taken as Windows-1252, the usual other one, with a warning."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = f"The file {str(source)!r} is not UTF-8 (line {line}): it was read as Windows-1252; convert it if not."
        warnings.warn(text, DataWarning, stacklevel=5)
        return content.decode("latin-1").translate(WINDOWS_1252).encode()
    return content


def _refuse_long_rows(source: Path, content: bytes, separator: str) -> None:
    """Say which line has more fields than the first: a reader would cut it, or shift its columns."""
    mark = separator.encode()
    lines = content.split(b"\n")
    most = lines[0].count(mark)
    for number, line in enumerate(lines, 1):
        if b'"' not in line and line.rstrip(b"\r").count(mark) > most:
            shown = line.decode(errors="replace").replace("\x1f", "::").strip()
            raise DataError(
                f"A line has too many fields: line {number} of {str(source)!r} has {shown!r}, "
                f"the first has {most + 1}; correct it, or give separator=…."
            )


def _guarded(source: Path, read: Callable[[], T]) -> T:
    """Run a reader; its errors become one sentence."""
    try:
        return read()
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise DataError(f"The file {str(source)!r} cannot be read: {reason}.") from None


def _parse(content: bytes, separator: str, header: bool) -> pl.DataFrame:
    """All columns as text: conversion comes later, where an error can name its line."""
    return pl.read_csv(
        io.BytesIO(content),
        separator=separator,
        has_header=header,
        infer_schema=False,
        encoding="utf8-lossy",
        quote_char=None if separator == "\x1f" else '"',
    )


def fields_of(line: str, separator: str | None) -> tuple[str, list[str]]:
    """What parts the fields of a file's first line, found if it is not given; and these."""
    found = separator or max(SEPARATORS, key=line.count)
    return found, [field.strip().strip('"') for field in line.strip("\r\n\ufeff").split(found)]


def has_header(fields: list[str], names: Names, rated: bool = True) -> bool:
    """A first line with a usual column name is a header; so is one without any number.

    A usual name may be an id, too: ``ann,game,5``. A line with a number where the rating stands is no header, unless
    all but the first are numbers: a wide table, with a column for each item.
    """
    if any(isinstance(name, str) for name in names.values()):  # names are found in a header alone
        return True
    plain = {"".join(ch for ch in field.lower() if ch.isalnum()) for field in fields}
    usual = {name for names in USUAL.values() for name in names}
    numbers, given = [_is_number(field) for field in fields], names.get("rating")
    place = given if isinstance(given, int) else ROLES.index("rating")
    wide = len(fields) > 3 and not numbers[0] and all(numbers[1:])
    if rated and 0 <= place < len(fields) and numbers[place] and not wide:
        return False
    return bool(plain & usual) or not any(numbers)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _by_position(wanted: Names, n_columns: int, needed: tuple[str, ...]) -> Names:
    """Without a header: user, item, rating, time in this order, where not given otherwise."""
    if n_columns < len(needed):
        raise DataError(
            f"Too few columns: found {n_columns} without a header, {', '.join(needed)} are needed; "
            "check the separator, or give separator=…."
        )
    places = {role: place for place, role in enumerate(r for r in ROLES if r in needed or r == "time")}
    given = {role: value for role, value in wanted.items() if value is not None}
    free = {role: place for role, place in places.items() if place < n_columns and role not in given}
    taken = {value for value in given.values() if isinstance(value, int)}
    return {**given, **{role: place for role, place in free.items() if place not in taken}}


def _plain_integers(series: pl.Series) -> pl.Series:
    """Text ids as integers where every one is written as a plain integer, so that nothing is lost.

    Spaces around an integer (``1, 2, 3``) are no part of it.
    """
    if series.dtype != pl.String:
        return series
    text = series.str.strip_chars()
    numbers = text.cast(pl.Int64, strict=False)
    same = (numbers.cast(pl.String) == text).fill_null(value=False)
    return numbers if (same | series.is_null()).all() else series
