"""Ids as they come (integers or text), mapped to dense codes from 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.errors import DataError
from gramian.kernels.arrays import Array

__all__ = ["Codes", "Id", "IdMap", "IdTable", "Ids", "Where", "id_series", "largest_float", "row_number"]

Codes = npt.NDArray[np.int32]
Id = int | str
Ids = Id | Iterable[Any]  # one id or several, of whatever kind: `id_series` says what it does not take
Where = Callable[[int], str]
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


def row_number(place: int) -> str:
    """How a row is called in a message: ``row 1`` is the first."""
    return f"row {place + 1}"


def id_series(values: Ids, what: str = "item", where: Where = row_number) -> pl.Series:
    """Return ids as a polars series of Int64 or String, or raise DataError.

    Args:
        values: A scalar, sequence, NumPy array, or polars/pandas series of integers or text. Floats
            that are all whole numbers become integers (a table with a gap often turns them into floats), as far as
            floats tell whole numbers apart: below 2^53, or 2^24 in single precision.
        what: ``"user"`` or ``"item"``, for the message.
        where: What a row is called in the message, by its position from 0.
    """
    series = _as_series(values, what)
    if series.null_count():
        row = int(series.is_null().arg_true()[0])
        raise DataError(f"The {what} id is missing: {where(row)} has none; fill it in or drop the row.")
    kind = series.dtype
    if kind == pl.Object:
        raise DataError(_mixed(series, what))
    if kind == pl.String:
        return series
    if kind in (pl.Categorical, pl.Enum):
        return series.cast(pl.String)
    if kind in _INTEGERS:
        return _to_int64(series, what)
    if kind in (pl.Float32, pl.Float64):
        whole = series.is_finite() & (series == series.round())
        if whole.all():
            _refuse_merged(series, what, where)
            return _to_int64(series, what)
        row = int((~whole).arg_true()[0])
        raise DataError(
            f"The {what} id must be an integer or text: {where(row)} has {series[row]!r}; "
            f"round the {what} ids or turn them into text."
        )
    raise DataError(f"The {what} id must be an integer or text: found {kind}; convert the {what} ids first.")


def _refuse_merged(series: pl.Series, what: str, where: Where) -> None:
    """Raise DataError for floats that may be several whole numbers in one."""
    large = series.abs() >= largest_float(series.dtype)
    if large.any():
        row = int(large.arg_true()[0])
        raise DataError(
            f"The {what} id is too large for a float: {where(row)} has {series[row]:.0f} as {series.dtype}, where "
            f"different ids are one number; read the {what} ids as integers or text."
        )


def largest_float(kind: pl.DataType) -> float:
    """The whole number from which on floats of this kind leave some out."""
    return 2.0**24 if kind == pl.Float32 else 2.0**53


def _as_series(values: Ids, what: str) -> pl.Series:
    if isinstance(values, pl.Series):
        return values.rename(what)
    if isinstance(values, str | int | float | np.generic):
        values = [values]
    if not isinstance(values, np.ndarray):
        values = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    if isinstance(values, np.ndarray) and values.dtype != object:
        return pl.Series(what, np.ascontiguousarray(values.reshape(-1)))
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    try:
        return pl.Series(what, values, strict=True) if values else pl.Series(what, [], pl.Int64)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        raise DataError(_mixed(values, what)) from None


def _mixed(values: Iterable[object], what: str) -> str:
    examples: dict[str, object] = {}
    for value in values:
        examples.setdefault(type(value).__name__, value)
    found = " and ".join(f"{kind} (such as {value!r})" for kind, value in examples.items())
    return (
        f"The {what} ids are of more than one kind, or too large: found {found}; "
        "make them all integers or all text, since 1 and '1' are different ids."
    )


def _to_int64(series: pl.Series, what: str) -> pl.Series:
    try:
        return series.cast(pl.Int64)
    except pl.exceptions.PolarsError:
        raise DataError(
            f"The {what} id is too large: found {series.max()!r}, the largest integer id is 2^63 - 1; use text ids."
        ) from None


class IdTable(Protocol):
    """A map between ids and dense codes, to be read: an :class:`IdMap` in memory, or one that stays in its files."""

    @property
    def ids(self) -> pl.Series:
        """All ids, in the order of their codes."""

    @property
    def is_text(self) -> bool:
        """Whether the ids are text rather than integers."""

    def codes(self, values: Ids, what: str = "item") -> Codes:
        """Codes of ``values`` (int32), −1 for those unknown; DataError where they are of the other kind."""

    def take(self, codes: npt.NDArray[Any]) -> pl.Series:
        """The ids of ``codes``."""

    def grow(self, values: Ids, what: str = "item") -> IdTable:
        """A map that also holds ``values``; every known id keeps its code."""

    def __len__(self) -> int: ...

    def __contains__(self, value: object) -> bool: ...


class IdMap:
    """An immutable map between ids and dense codes.

    The code of an id is its position in :attr:`ids`. A new map sorts its ids; a grown one keeps the
    codes it had and appends the new ids, sorted among themselves.
    """

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids.alias("id")
        codes = pl.int_range(len(ids), dtype=pl.Int32, eager=True).alias("code")
        self._table = pl.DataFrame([self.ids, codes])

    @classmethod
    def from_values(cls, values: Ids, what: str = "item", where: Where = row_number) -> tuple[IdMap, Codes]:
        """Build the map of the distinct ``values``, and their codes, in one go."""
        series = id_series(values, what, where)
        made = cls(series.unique().sort())
        return made, made.codes(series, what)

    @property
    def is_text(self) -> bool:
        """Whether the ids are text rather than integers."""
        return self.ids.dtype == pl.String

    def codes(self, values: Ids, what: str = "item") -> Codes:
        """Codes of ``values`` (int32), −1 for those unknown.

        Raises:
            DataError: The values are text where the ids are integers, or the reverse.
        """
        series = id_series(values, what)
        if len(series) == 0:
            return np.empty(0, np.int32)
        if len(self) == 0:
            return np.full(len(series), -1, np.int32)
        self._refuse_other_kind(series, what)
        found = pl.DataFrame([series.alias("id")]).join(self._table, on="id", how="left", maintain_order="left")
        return found["code"].fill_null(-1).to_numpy()

    def _refuse_other_kind(self, series: pl.Series, what: str) -> None:
        if series.dtype != self.ids.dtype:
            ours, theirs = ("text", "integers") if self.is_text else ("integers", "text")
            raise DataError(
                f"The {what} ids given are of another kind than the known ones: found {theirs} "
                f"(such as {series[0]!r}) where the known ids are {ours} (such as {self.ids[0]!r}); convert them."
            )

    def grow(self, values: Ids, what: str = "item") -> IdMap:
        """Return a map that also holds ``values``; every known id keeps its code."""
        series = id_series(values, what).unique().sort()
        fresh = series.filter(pl.Series(self.codes(series, what)) < 0)
        return IdMap(pl.concat([self.ids, fresh.alias("id")]) if len(self) else fresh) if len(fresh) else self

    def take(self, codes: Array) -> pl.Series:
        """The ids of ``codes``."""
        return self.ids.gather(codes)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int | str]:
        return iter(self.ids)

    def __contains__(self, value: object) -> bool:
        if self.is_text:
            return isinstance(value, str) and bool(self.codes([value])[0] >= 0)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return whole and -(2**63) <= value < 2**63 and bool(self.codes([value])[0] >= 0)  # type: ignore[operator]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    def __hash__(self) -> int:
        return hash((len(self), self.ids.dtype))

    def __repr__(self) -> str:
        return f"IdMap({len(self)} {'text' if self.is_text else 'integer'} ids)"
