"""Any source of ratings in one common form, unchecked: what the data doctor looks at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from gramian.data.columns import Frame, Names, column_names, find_columns, pick_columns, to_polars
from gramian.data.ids import largest_float
from gramian.data.ratings import Ratings
from gramian.data.readers import read_table
from gramian.errors import DataError

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrame

__all__ = ["RawRows", "finite", "open_raw"]


@dataclass(frozen=True)
class RawRows:
    """A table as it came, in a common form.

    ``table`` has the columns ``row`` (its line or row), ``user`` and ``item`` (null where missing),
    ``user_kind`` and ``item_kind`` (what an id was: text or integer), ``rating`` (null where it is no number),
    ``raw_rating`` (as it came), and maybe ``time`` and ``raw_time``.
    """

    table: pl.DataFrame
    word: str

    @property
    def timed(self) -> bool:
        """Whether there are times."""
        return "time" in self.table.columns

    def usable(self) -> pl.DataFrame:
        """The rows with both ids and a finite rating."""
        return self.table.filter(pl.col("user").is_not_null() & pl.col("item").is_not_null() & finite("rating"))


def finite(column: str) -> pl.Expr:
    """Whether there is a number that float32 can hold."""
    return pl.col(column).cast(pl.Float32).is_finite().fill_null(value=False)


def open_raw(
    source: str | os.PathLike[str] | Frame, names: Names, separator: str | None, header: bool | None
) -> RawRows:
    """A file, a dataframe or ratings, row by row as they came; DataError where there is no table at all."""
    word = "row"
    if isinstance(source, Ratings):
        table = source.to_frame()
    elif isinstance(source, str | os.PathLike):
        table, word = read_table(source, names, separator=separator, header=header)
    else:
        table = _from_frame(source, names)
    if table.height == 0:
        raise DataError("There are no ratings: the table has no rows; check the source.")
    numbers = table["row"] if "row" in table.columns else pl.int_range(1, table.height + 1, eager=True)
    columns = {"row": numbers.cast(pl.Int64)}
    for role in ("user", "item"):
        columns |= {role: _ids_of(table[role]), f"{role}_kind": _kinds_of(table[role])}
    columns |= {"rating": _numbers(table["rating"]), "raw_rating": _raw(table["rating"])}
    if "time" in table.columns:
        columns |= {"time": _moments(table["time"]), "raw_time": _raw(table["time"])}
    return RawRows(pl.DataFrame(columns), word)


def _from_frame(frame: Frame, names: Names) -> pl.DataFrame:
    """The columns of a dataframe; one with values of several kinds becomes a column of Python objects."""
    try:
        return pick_columns(frame, names)
    except DataError:
        raise
    except Exception:  # what a mixed column raises depends on the library that holds it
        found = find_columns(column_names(frame), names)
        return pl.DataFrame([_loose(frame, column).alias(role) for role, column in found.items()])


def _loose(frame: Frame, column: str) -> pl.Series:
    try:
        return to_polars(frame, [column])[column]
    except Exception:
        import narwhals as nw

        table = nw.from_native(cast("IntoDataFrame", frame))
        return pl.Series(column, table[column].to_list(), dtype=pl.Object)


def _as_text(series: pl.Series) -> pl.Series:
    """Any column as text; what is missing stays so."""
    if series.dtype == pl.Object:
        return pl.Series([None if _is_missing(v) else str(v) for v in series.to_list()], dtype=pl.String)
    if series.dtype.is_nested():
        return pl.Series([None if v is None else str(v) for v in series.to_list()], dtype=pl.String)
    return series.cast(pl.String, strict=False)


def _is_missing(value: object) -> bool:
    """None, NaN, and what pandas has for them."""
    odd = isinstance(value, float | np.floating) and value != value
    return value is None or odd or type(value).__name__ in ("NAType", "NaTType")


def _raw(series: pl.Series) -> pl.Series:
    """A column as it came, for examples; without Python objects and lists."""
    return _as_text(series) if series.dtype == pl.Object or series.dtype.is_nested() else series


def _ids_of(series: pl.Series) -> pl.Series:
    """Ids as integers, where all are (whole floats too), else as text; empty text and NaN as missing."""
    if series.dtype == pl.Object:
        series = pl.Series([int(v) if _kind(v) == "integer" else v for v in series.to_list()], dtype=pl.Object)
    elif series.dtype.is_integer() or (series.dtype.is_float() and _whole(series).all()):
        return (series.fill_nan(None) if series.dtype.is_float() else series).cast(pl.Int64, strict=False)
    text = _as_text(series.fill_nan(None) if series.dtype.is_float() else series)
    return text.set((text.str.strip_chars() == "").fill_null(value=False), None)


def _kinds_of(series: pl.Series) -> pl.Series:
    """What each id is: ``"integer"``, ``"text"``, or the name of something that cannot be an id."""
    if series.dtype == pl.Object:
        return pl.Series([_kind(v) for v in series.to_list()], dtype=pl.Categorical)
    if series.dtype.is_float():
        large = (series.abs() >= largest_float(series.dtype)).fill_null(value=False)
        names = np.where(large, f"too large for {series.dtype}", np.where(_whole(series), "integer", "fraction"))
        return pl.Series(names).cast(pl.Categorical)
    if series.dtype.is_integer():
        kind = "integer"
    else:
        kind = "text" if series.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) else str(series.dtype)
    return pl.Series([kind], dtype=pl.Categorical).new_from_index(0, len(series))


def _whole(series: pl.Series) -> pl.Series:
    """Where a float column has a whole number, or nothing."""
    return ((series == series.round()) & series.is_finite() | series.is_nan()).fill_null(value=True)


def _kind(value: object) -> str:
    if isinstance(value, str) or _is_missing(value):
        return "text"
    if isinstance(value, bool | np.bool_):
        return "True/False"
    if isinstance(value, int | np.integer):
        return "integer"
    if isinstance(value, float | np.floating):
        if abs(float(value)) >= largest_float(pl.Float32() if isinstance(value, np.float32) else pl.Float64()):
            return "too large for a float"
        return "integer" if float(value).is_integer() else "fraction"
    return type(value).__name__


def _numbers(series: pl.Series) -> pl.Series:
    """Float64, NaN or null where there is no number."""
    if series.dtype in (pl.Object, pl.String):
        return _as_text(series).str.strip_chars().cast(pl.Float64, strict=False)
    if series.dtype.is_numeric() or series.dtype == pl.Null:
        return series.cast(pl.Float64, strict=False)
    return pl.repeat(None, len(series), dtype=pl.Float64, eager=True)


def _moments(series: pl.Series) -> pl.Series:
    """Numbers as they come, dates and ISO text as Unix seconds; null where it is neither."""
    if series.dtype in (pl.Object, pl.String):
        text = _as_text(series).str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() < len(numbers):
            return numbers
        try:
            series = text.str.to_datetime(strict=False, time_unit="us")
        except pl.exceptions.PolarsError:
            return numbers
    if series.dtype.is_temporal() and series.dtype not in (pl.Time, pl.Duration):
        series = series.cast(pl.Datetime("us")).dt.epoch("s")
    return _numbers(series).fill_nan(None)
