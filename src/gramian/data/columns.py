"""Anybody's table of ratings, reduced to the columns user, item, rating and (where there is one) time.

Works on column names and values only; what a rating set is, stands in :mod:`gramian.data.ratings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import polars as pl

from gramian.data.ids import Where, row_number
from gramian.errors import DataError

if TYPE_CHECKING:
    from narwhals.typing import IntoFrame

__all__ = ["Frame", "Names", "find_columns", "pick_columns", "rating_column", "time_column", "to_polars"]

Frame = object  # any dataframe that narwhals knows (polars, pandas, Arrow, …); `to_polars` says what it does not take
Names = dict[str, str | int | None]

USUAL = {
    "user": ("user", "userid", "uid", "users", "customer", "customerid", "reviewerid", "reviewer", "member",
             "memberid", "account", "accountid", "person", "personid"),
    "item": ("item", "itemid", "iid", "items", "movie", "movieid", "book", "bookid", "isbn", "product",
             "productid", "asin", "parentasin", "song", "songid", "track", "trackid", "artist", "artistid",
             "business", "businessid", "article", "articleid", "anime", "animeid", "game", "gameid"),
    "rating": ("rating", "ratings", "score", "stars", "star", "overall", "value", "rate", "bookrating"),
    "time": ("time", "timestamp", "ts", "date", "datetime", "unixtime", "unixreviewtime", "createdat", "ratedat"),
}  # fmt: skip


def to_polars(frame: Frame, columns: list[str] | None = None) -> pl.DataFrame:
    """Any dataframe (polars, pandas, Arrow, DuckDB, …) as a polars one, with only the columns named."""
    import narwhals as nw

    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame if columns is None else frame.select(columns)
    try:
        native = nw.from_native(cast("IntoFrame", frame))
    except TypeError:
        raise DataError(
            f"A dataframe is needed: found {type(frame).__name__}; "
            "give a polars, pandas, Arrow or DuckDB table, or use gm.read_ratings for a file."
        ) from None
    table = native.collect() if isinstance(native, nw.LazyFrame) else native
    names = columns or table.columns
    try:
        return table.select([nw.col(name) for name in names]).to_polars()
    except (ModuleNotFoundError, ValueError, TypeError):  # pandas without Arrow; a column of several kinds
        return pl.DataFrame([_loose_column(str(name), table[name].to_list()) for name in names])


def _loose_column(name: str, values: list[object]) -> pl.Series:
    """A column from Python values; of Python objects where they are of several kinds."""
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, values, dtype=pl.Object)


def column_names(frame: Frame) -> list[str]:
    """The column names of any dataframe, without copying its data."""
    import narwhals as nw

    if isinstance(frame, pl.DataFrame):
        return frame.columns
    try:
        native = nw.from_native(cast("IntoFrame", frame))
    except TypeError:
        return to_polars(frame).columns
    return list(native.collect_schema().names()) if isinstance(native, nw.LazyFrame) else native.columns


def find_columns(columns: list[str], given: Names) -> dict[str, str]:
    """Which column is which: as given, else by the usual names.

    Args:
        columns: The table's column names.
        given: For ``user``, ``item``, ``rating``, ``time``: a name, a position from 0, or None.

    Returns:
        A name for each role; ``time`` only where there is one.

    Raises:
        DataError: A column is missing, or two fit and none was given.
    """
    found: dict[str, str] = {}
    for role, wanted in given.items():
        if wanted is not None:
            found[role] = _given_column(role, wanted, columns)
    for role in given:
        if role in found:
            continue
        plain = {c: "".join(ch for ch in str(c).lower() if ch.isalnum()) for c in columns if c not in found.values()}
        fits = [c for c, name in plain.items() if name in USUAL[role]]
        if len(fits) > 1:
            names = " and ".join(repr(c) for c in fits)
            raise DataError(f"Two columns could be the {role}: found {names}; say which with {role}=….")
        if fits:
            found[role] = fits[0]
        elif role != "time":
            raise DataError(
                f"No column for the {role} was found: the columns are {', '.join(map(repr, columns))}; "
                f"say which it is with {role}=…."
            )
    return found


def _given_column(role: str, wanted: str | int, columns: list[str]) -> str:
    if isinstance(wanted, int) and 0 <= wanted < len(columns):
        return columns[wanted]
    if isinstance(wanted, str) and wanted in columns:
        return wanted
    raise DataError(
        f"The column given for the {role} does not exist: {wanted!r} is not among "
        f"{', '.join(map(repr, columns))}; correct {role}=…."
    )


def pick_columns(frame: Frame, given: Names) -> pl.DataFrame:
    """Reduce any dataframe to ``user``, ``item``, ``rating`` and (where there is one) ``time``, unchecked."""
    names = find_columns(column_names(frame), given)
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    if twice:
        raise DataError(f"One column was given twice: {twice.pop()!r}; user, item, rating and time must differ.")
    table = to_polars(frame, list(names.values()))
    return pl.DataFrame([table.to_series(place).alias(role) for place, role in enumerate(names)])


def rating_column(series: pl.Series, where: Where = row_number) -> pl.Series:
    """The ratings as finite float32, or DataError naming the first row that is not."""
    if series.dtype == pl.Boolean:
        raise DataError("The ratings must be numbers: found True/False; turn them into 1 and 0 if that is meant.")
    if series.dtype.is_temporal():
        raise DataError(
            f"The ratings must be numbers: found {series.dtype}, a time; say which column has them with rating=…."
        )
    if series.dtype == pl.Object:
        series = pl.Series([None if value is None else str(value) for value in series], dtype=pl.String)
    if series.dtype == pl.String:
        numbers = series.str.strip_chars().cast(pl.Float64, strict=False)
    else:
        try:
            numbers = series.cast(pl.Float64)
        except pl.exceptions.PolarsError:
            raise DataError(f"The ratings must be numbers: found {series.dtype}; convert the column.") from None
    numbers = numbers.cast(pl.Float32)
    finite = numbers.is_finite().fill_null(value=False)
    if not finite.all():
        row = int((~finite).arg_true()[0])
        what = "no value" if series[row] is None else repr(series[row])
        raise DataError(
            f"A rating must be a finite number: {where(row)} has {what}; "
            f"correct or drop it ({int((~finite).sum())} such in all)."
        )
    return numbers


def _parsed_dates(text: pl.Series) -> pl.Series:
    iso = text.str.contains(r"^\d{4}-\d{2}-\d{2}")  # 01/02/2020 is two days, so it is nobody's
    text = text.set((~iso).fill_null(value=True), None)
    try:
        return text.str.to_datetime(strict=False, time_unit="us")
    except pl.exceptions.PolarsError:
        return pl.Series([None] * len(text), dtype=pl.Datetime("us"))


def time_column(series: pl.Series, where: Where = row_number) -> pl.Series:
    """The times as Int64 (whole numbers as they come; dates and ISO text as Unix seconds)."""
    times = series
    if times.dtype == pl.String:
        text = times.str.strip_chars()
        times = text.cast(pl.Float64, strict=False)
        if times.null_count() == len(times) and len(times):
            times = _parsed_dates(text)
    if times.dtype == pl.Date or isinstance(times.dtype, pl.Datetime):
        times = times.cast(pl.Datetime("us")).dt.epoch("s")
    elif times.dtype in (pl.Float32, pl.Float64):
        times = times.set((~times.is_finite()).fill_null(value=True), None).floor().cast(pl.Int64, strict=False)
    elif times.dtype.is_integer():
        times = times.cast(pl.Int64, strict=False)
    else:
        raise DataError(f"The times must be numbers, dates or ISO text: found {series.dtype}; convert the column.")
    if times.null_count():
        row = int(times.is_null().arg_true()[0])
        what = "no value" if series[row] is None else repr(series[row])
        raise DataError(
            f"A time must be a number, a date or ISO text: {where(row)} has {what}; "
            "correct or drop it, or leave the time column out."
        )
    return times
