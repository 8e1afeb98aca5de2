"""The immutable table of ratings that everything is learned from."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.file_format import Arrays, pack_text, unpack_text
from gramian.core.parameters import check_choice
from gramian.data import splits
from gramian.data.columns import Frame, Names, pick_columns, rating_column, time_column, to_polars
from gramian.data.ids import Codes, IdMap, IdTable
from gramian.data.summary import Description, describe
from gramian.data.table import LocalTable, RatingsTable
from gramian.errors import DataError, DataWarning, FormatError
from gramian.kernels.csr import CSR, csr_from_sorted, empty_rows, is_sound, transpose
from gramian.kernels.duplicates import sort_pairs

__all__ = ["DUPLICATES", "Ratings"]

Connection = Any  # of whatever driver polars.read_database knows
DUPLICATES = ("last", "mean", "raise")
PIECE = 1 << 24  # ratings whose distances from the mean are held at a time
COMPARED = 1 << 22  # ratings that are compared with pairs at a time


class Entries(Protocol):
    """The stored entries of a sparse matrix, as SciPy has them."""

    row: npt.NDArray[Any]
    col: npt.NDArray[Any]
    data: npt.NDArray[Any]


class SparseMatrix(Protocol):
    """A sparse matrix of SciPy, of whatever format."""

    def tocoo(self) -> Entries:
        """Its stored entries."""


@dataclass(frozen=True, eq=False, repr=False)
class Ratings(LocalTable):
    """Who rated what, how much, and when: one row per (user, item) pair.

    Make one with :func:`gramian.read_ratings`, :func:`gramian.load_dataset`, or a ``from_…`` method
    below. Rows are kept in (user, item) order, so the order they came in has no influence on anything.
    Nothing dense of size users × items is ever made.

    Attributes:
        user_ids: The users, in the order of their codes.
        item_ids: The items, in the order of their codes.
        by_user: The ratings as compressed sparse rows of users (int32 item codes, float32 values).
        times: One Int64 per rating, or None.
        duplicates: How many rows were repeated (user, item) pairs and were merged.
        item_table: What is known of the items: a polars table with the column ``item`` and, where there
            are titles, ``title``; or None.
    """

    user_ids: IdTable
    item_ids: IdTable
    by_user: CSR
    times: npt.NDArray[np.int64] | None = None
    duplicates: int = 0
    item_table: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        for array in (*self.by_user, self.times):
            if array is not None:
                array.flags.writeable = False

    # ---- made from ------------------------------------------------------------------------------

    @classmethod
    def from_frame(
        cls,
        frame: Frame,
        user: str | int | None = None,
        item: str | int | None = None,
        rating: str | int | None = None,
        time: str | int | None = None,
        *,
        duplicates: str = "last",
    ) -> Ratings:
        """Make ratings from any dataframe: polars, pandas, Arrow, DuckDB, … (whatever narwhals knows).

        Args:
            frame: The table; it is not changed.
            user, item, rating, time: Column names, or positions from 0. Not given: found by the usual
                names (``userId``, ``movie_id``, ``stars``, ``timestamp``, …). ``time`` may be absent.
            duplicates: What to do with repeated (user, item) pairs: keep the ``"last"`` by time (by order
                where there is no time), take their ``"mean"``, or ``"raise"``.

        Raises:
            DataError: A column is missing; a rating or time is missing, not a number or not finite; an id
                is missing or of a mixed kind; there are no rows; pairs repeat under ``"raise"``.
        """
        names: Names = {"user": user, "item": item, "rating": rating, "time": time}
        return cls.from_columns(pick_columns(frame, names), duplicates=duplicates)

    @classmethod
    def from_columns(cls, table: pl.DataFrame, *, duplicates: str = "last", row_word: str = "row") -> Ratings:
        """Make ratings from a polars table with the columns ``user``, ``item``, ``rating`` and maybe ``time``.

        A column ``row`` numbers the rows in messages, where they are called ``row_word`` (``line 2``).
        """
        check_choice("duplicates", duplicates, DUPLICATES, "Ratings")
        if table.height == 0:
            raise DataError("There are no ratings: the table has no rows; check the source.")

        def where(place: int) -> str:
            return f"{row_word} {table['row'][place] if 'row' in table.columns else place + 1}"

        values = rating_column(table["rating"], where).to_numpy()
        times = time_column(table["time"], where).to_numpy() if "time" in table.columns else None
        user_ids, users = IdMap.from_values(table["user"], "user", where)
        item_ids, items = IdMap.from_values(table["item"], "item", where)
        return _assemble(user_ids, users, item_ids, items, values, times, duplicates)

    @classmethod
    def from_csr(cls, matrix: SparseMatrix, *, duplicates: str = "raise") -> Ratings:
        """Make ratings from a SciPy sparse matrix: users are its rows, items its columns, ids their numbers.

        Every stored entry is a rating, stored zeros too. Rows and columns without entries get no id.
        """
        if not hasattr(matrix, "tocoo"):
            raise DataError(f"A SciPy sparse matrix is needed: found {type(matrix).__name__}; see scipy.sparse.")
        entries = matrix.tocoo()
        columns = {"user": entries.row, "item": entries.col, "rating": entries.data}
        return cls.from_columns(pl.DataFrame(columns), duplicates=duplicates)

    @classmethod
    def from_sql(cls, query: str, connection: Connection, **names: str | int | None) -> Ratings:
        """Make ratings from a database query.

        Args:
            query: The SQL text; its columns are found as in :meth:`from_frame`.
            connection: A DB-API, SQLAlchemy or ADBC connection.
            **names: ``user``, ``item``, ``rating``, ``time``, ``duplicates`` as in :meth:`from_frame`.
        """
        try:
            table = pl.read_database(query, connection, infer_schema_length=None)
        except Exception as error:  # every driver has errors of its own
            raise DataError(f"The query could not be read: {error}; check the query and the connection.") from error
        duplicates = str(names.pop("duplicates", "last"))
        return cls.from_frame(table, duplicates=duplicates, **names)

    # ---- seen as --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.by_user.indices)

    @cached_property
    def by_item(self) -> CSR:
        """The ratings as compressed sparse rows of items, made at first use."""
        transposed = transpose(self.by_user, self.n_items)
        for array in transposed:
            array.flags.writeable = False
        return transposed

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The ratings, float32, one per row."""
        return self.by_user.values

    @property
    def user_codes(self) -> Codes:
        """The user code of every row."""
        return self.by_user.row_codes()

    @property
    def item_codes(self) -> Codes:
        """The item code of every row."""
        return self.by_user.indices

    @property
    def users(self) -> npt.NDArray[Any]:
        """The user id of every row."""
        return self.user_ids.take(self.user_codes).to_numpy()

    @property
    def items(self) -> npt.NDArray[Any]:
        """The item id of every row."""
        return self.item_ids.take(self.item_codes).to_numpy()

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The smallest and the largest rating."""
        return float(self.values.min()), float(self.values.max())

    @cached_property
    def global_mean(self) -> float:
        """μ, the mean of all ratings."""
        return float(np.mean(self.values, dtype=np.float64))

    @cached_property
    def variance(self) -> float:
        """s², the mean squared distance of the ratings from μ."""
        n, mean = len(self), np.mean(self.values, dtype=np.float64)
        pieces = (self.values[low : low + PIECE] - mean for low in range(0, n, PIECE))
        return float(sum(np.add.reduce(piece * piece) for piece in pieces) / n)

    def to_frame(self) -> pl.DataFrame:
        """The rows with their original ids: ``user``, ``item``, ``rating`` and maybe ``time``."""
        columns = [
            self.user_ids.take(self.user_codes).alias("user"),
            self.item_ids.take(self.item_codes).alias("item"),
            pl.Series("rating", self.values),
        ]
        if self.times is not None:
            columns.append(pl.Series("time", self.times))
        return pl.DataFrame(columns)

    def describe(self, factors: int = 10) -> Description:
        """Users, items, fill, memory, the scale, and the parameters that a model of K ``factors`` would have."""
        times = None if self.times is None else (int(self.times.min()), int(self.times.max()))
        return describe(self.by_user, self.n_items, factors, times, self.duplicates)

    def __repr__(self) -> str:
        low, high = self.scale
        timed = ", timed" if self.times is not None else ""
        return f"Ratings({len(self):,} by {self.n_users:,} users of {self.n_items:,} items, {low:g} to {high:g}{timed})"

    @cached_property
    def titles(self) -> pl.Series | None:
        """The title of every item in the order of the codes (null where unknown), or None."""
        if self.item_table is None or "title" not in self.item_table.columns:
            return None
        known = self.item_table.select(pl.col("item").alias("id"), "title").unique("id", keep="first")
        found = pl.DataFrame([self.item_ids.ids]).join(known, on="id", how="left", maintain_order="left")
        return found["title"]

    # ---- taken apart and put together -------------------------------------------------------------

    def with_items(self, table: Frame) -> Ratings:
        """The same ratings with a table about the items: the column ``item`` and, for titles, ``title``."""
        about = to_polars(table)
        if "title" in about.columns:
            about = about.with_columns(pl.col("title").cast(pl.String))
        if "item" not in about.columns:
            raise DataError(f"The table of items needs a column 'item': found {about.columns}; rename one.")
        if about["item"].dtype != self.item_ids.ids.dtype:
            about = about.with_columns(pl.col("item").cast(self.item_ids.ids.dtype, strict=False))
        known = self.item_ids.ids.is_in(about["item"].implode())
        if known.mean() < 0.5:  # type: ignore[operator]
            missing = self.item_ids.ids.filter(~known)[0]
            text = (
                f"The table of items knows {known.sum()} of {len(known)} rated items, not {missing!r}; check its ids."
            )
            warnings.warn(text, DataWarning, stacklevel=2)
        return dataclasses.replace(self, item_table=about)

    def take(self, rows: npt.NDArray[Any]) -> Ratings:
        """The rows of a boolean mask, with the users and items that occur in them.

        Raises:
            DataError: No row is left.
        """
        mask = np.asarray(rows, bool)
        if not mask.any():
            raise DataError("No rating is left: the rows asked for are none; ask for more.")
        user_ids, users = _compact(self.user_ids, self.user_codes[mask])
        item_ids, items = _compact(self.item_ids, self.item_codes[mask])
        by_user = csr_from_sorted(users, items, self.values[mask], len(user_ids))
        times = None if self.times is None else self.times[mask]
        return Ratings(user_ids, item_ids, by_user, times, 0, self.item_table)

    def to_local(self) -> Ratings:
        """This very table."""
        return self

    def described_as(self, table: RatingsTable) -> Ratings:
        """These rows with the scale, μ and s² of another table, of which they are a part."""
        made = dataclasses.replace(self)
        vars(made).update(scale=table.scale, global_mean=table.global_mean, variance=table.variance)
        return made

    def with_rows(self, by_user: CSR) -> Ratings:
        """The same users and items, and the scale, μ and s² as they are, with other rows."""
        return Ratings(self.user_ids, self.item_ids, by_user).described_as(self)

    def without_rows(self) -> Ratings:
        """The users and items alone, with the scale, μ and s² of the ratings."""
        return self.with_rows(empty_rows(self.n_users))

    def count_pairs(self, users: Codes, items: Codes) -> int:
        """How many of these pairs of codes are in the table; trained pairs are many more, and are gone through once."""
        pairs, rows, seen = np.sort(users.astype(np.int64) * self.n_items + items), self.by_user, 0
        for low, high in rows.spans(COMPARED):
            part = slice(*np.searchsorted(pairs, [low * self.n_items, high * self.n_items]))
            owners = np.repeat(np.arange(low, high), rows.counts[low:high]) * self.n_items
            seen += int(np.isin(pairs[part], owners + rows.indices[rows.indptr[low] : rows.indptr[high]]).sum())
        return seen

    def merge(self, new: RatingsTable) -> Ratings:
        """These ratings with ``new`` ones: known ids keep their codes; a pair rated again is replaced.

        A repeated pair keeps the later rating by time where both tables have times, else the new one.
        Times are kept only where both tables have them.
        """
        user_ids, item_ids = (
            self.user_ids.grow(new.user_ids.ids, "user"),
            self.item_ids.grow(new.item_ids.ids, "item"),
        )
        users = user_ids.codes(new.user_ids.ids, "user")[new.user_codes]
        items = item_ids.codes(new.item_ids.ids, "item")[new.item_codes]
        timed = self.times is not None and new.times is not None
        times = np.concatenate([self.times, new.times]) if timed else None
        merged = _assemble(
            user_ids,
            np.concatenate([self.user_codes, users]),
            item_ids,
            np.concatenate([self.item_codes, items]),
            np.concatenate([self.values, new.values]),
            times,
            "last",
            quiet=True,
        )
        tables = [t for t in (self.item_table, new.item_table) if t is not None]
        table = pl.concat(tables, how="diagonal_relaxed").unique("item", keep="first") if tables else None
        return dataclasses.replace(merged, item_table=table)

    def split(self, fraction: float = 0.2, *, seed: int = 0) -> tuple[Ratings, Ratings]:
        """``(train, test)``: a random ``fraction`` of the rows is the test."""
        return self._parted(splits.random_rows(len(self), fraction, seed))

    def split_by_time(self, fraction: float = 0.2) -> tuple[Ratings, Ratings]:
        """``(train, test)``: the latest ``fraction`` of the rows is the test. Needs times."""
        return self._parted(splits.latest_rows(self.times, fraction))

    def leave_last_out(self, n: int = 1) -> tuple[Ratings, Ratings]:
        """``(train, test)``: each user's last ``n`` rows are the test. Needs times."""
        return self._parted(splits.last_rows(self.user_codes, self.times, n))

    def folds(self, folds: int = 5, *, seed: int = 0) -> Iterator[tuple[Ratings, Ratings]]:
        """``(train, test)`` for each of ``folds`` random folds: every row is in one test."""
        labels = splits.fold_labels(len(self), folds, seed)
        return (self._parted(labels == fold) for fold in range(folds))

    def _parted(self, test: splits.Mask) -> tuple[Ratings, Ratings]:
        return self.take(~test), self.take(test)

    # ---- kept in a file ---------------------------------------------------------------------------

    def to_arrays(self) -> Arrays:
        """The table as named arrays for a model file; of the item table, the titles."""
        arrays: Arrays = {f"ratings.{name}": array for name, array in self.by_user._asdict().items()}
        arrays["ratings.duplicates"] = np.array([self.duplicates], np.int64)
        if self.times is not None:
            arrays["ratings.times"] = self.times
        for name, ids in (("user_ids", self.user_ids), ("item_ids", self.item_ids)):
            arrays |= pack_text(name, ids.ids) if ids.is_text else {name: ids.ids.to_numpy()}
        return arrays if self.titles is None else arrays | pack_text("titles", self.titles)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Ratings:
        """The table that :meth:`to_arrays` took apart.

        Raises:
            FormatError: An array is missing, or its shape or type is not what it must be.
        """
        try:
            users, items = (_unpacked_ids(name, arrays) for name in ("user_ids", "item_ids"))
            by_user = CSR(*(arrays[f"ratings.{name}"] for name in CSR._fields))
            duplicates = int(arrays["ratings.duplicates"][0])
            titles = unpack_text("titles", arrays) if "titles.text" in arrays else None
        except KeyError as error:
            raise FormatError(f"The model file lacks the array {error.args[0]!r}; use another copy.") from None
        times = arrays.get("ratings.times")
        timed = times is None or (times.dtype == np.int64 and times.shape == by_user.values.shape)
        titled = titles is None or len(titles) == len(items)
        if not (is_sound(by_user, len(users), len(items)) and timed and titled):
            raise FormatError("The ratings in the model file do not fit together; use another copy.")
        table = None if titles is None else pl.DataFrame({"item": items.ids, "title": titles})
        return cls(users, items, by_user, times, duplicates, table)

    def fingerprint(self) -> str:
        """A short digest of ids, codes, values and times: equal for equal ratings."""
        digest = hashlib.blake2b(digest_size=16)
        for ids in (self.user_ids, self.item_ids):
            digest.update(f"{ids!r}\0".encode() + "\0".join(map(str, ids.ids)).encode())
        for array in (*self.by_user, self.times):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _unpacked_ids(name: str, arrays: Arrays) -> IdMap:
    """The ids of a model file, or FormatError where they are not ids or not distinct."""
    ids = pl.Series(arrays[name]) if name in arrays else unpack_text(name, arrays)
    if ids.dtype not in (pl.Int64, pl.String) or ids.null_count() or ids.n_unique() != len(ids):
        raise FormatError(f"The {name} in the model file are not distinct ids; use another copy.")
    return IdMap(ids)


def _compact(ids: IdTable, codes: Codes) -> tuple[IdMap, Codes]:
    """Keep only the ids whose codes occur, in their order, and renumber the codes."""
    used = np.bincount(codes, minlength=len(ids)) > 0
    fresh = np.cumsum(used, dtype=np.int32) - 1
    return IdMap(ids.ids.filter(pl.Series(used))), fresh[codes]


def _assemble(
    user_ids: IdTable,
    users: Codes,
    item_ids: IdTable,
    items: Codes,
    values: npt.NDArray[Any],
    times: npt.NDArray[Any] | None,
    duplicates: str,
    quiet: bool = False,
) -> Ratings:
    """Sort the rows by (user, item), settle repeated pairs, and build the table."""
    rows = sort_pairs(users, items, len(item_ids), values, times, duplicates)
    if rows.example is not None:
        user, item = rows.example
        example = f"user {user_ids.ids[user]!r} rated item {item_ids.ids[item]!r} more than once"
        if duplicates == "raise":
            raise DataError(
                f"Some pairs are rated more than once: {rows.repeated} rows repeat a pair, for example {example}; "
                "drop them, or choose duplicates='last' or 'mean'."
            )
        if not quiet:
            kept = "the last rating was kept" if duplicates == "last" else "their mean was taken"
            text = f"{rows.repeated} rows repeat a (user, item) pair, for example {example}; {kept}."
            warnings.warn(text, DataWarning, stacklevel=5)
    by_user = csr_from_sorted(rows.users, rows.items, rows.values, len(user_ids))
    return Ratings(user_ids, item_ids, by_user, rows.times, rows.repeated)
