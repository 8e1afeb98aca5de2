r"""Tables about users or items, and sets of ratings, as sparse features f of the rows of a factor model.

A table becomes columns of numbers: a numeric column is standardized; a text column has one feature for each value that
occurs at least twice (one-hot), as has a list column for each of its entries, or text parted by ``|`` (multi-hot). A
missing value is 0 in all of them, and has a feature of its own where a number is missing.

An *implicit set* has a feature for each row of the other side,

.. math:: f_{ij} = |R_i|^{-1/2} \text{ for } j \in R_i, \text{ else } 0,

with R_i the ratings of row *i* in training: which items a user rated (SVD++), or who rated an item.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.file_format import Arrays, pack_text, unpack_text
from gramian.core.lean import Lean
from gramian.core.plain import Plain
from gramian.data.columns import Frame, find_columns, to_polars
from gramian.data.ids import Codes, Id, IdMap, IdTable, id_series
from gramian.data.table import RatingsTable
from gramian.engine import products, ridge
from gramian.errors import DataError, DataWarning, FormatError, ParameterError, UnknownIdError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, csr_from_sorted, transpose

__all__ = ["FINE", "ROUGH", "FeatureTable", "SideFeatures", "Unseen", "implicit_sets", "side_features", "table_of"]

SEPARATOR = "|"
MISSING = " missing"  # after the name of a numeric column: the feature that a number is missing
LEAST = 2  # rows that a value must have: a value of one row is that row's id again
SOME = 1000  # rows whose features stand for those of rows that were not in training
# Of the residual of a draw of β, relative to its right side. What is left out stays as it was in the sweep before: with
# sets alone that is little. Beside a table, whose few columns the sets nearly make too, the directions between them are
# slow.
ROUGH, FINE = 5e-2, 1e-3


@dataclass(frozen=True, repr=False)
class FeatureTable:
    """What a table says about users or items: its features by name, and for each of its ids their values.

    Equal where the content is. As plain data it is only a name (``digest``) for its content, which a model file has.
    ``scales`` (F, 2) are the mean and the spread that a feature was standardized by; spread 0 where it was not.
    """

    digest: str
    names: tuple[str, ...]
    ids: IdMap | None = field(default=None, compare=False)
    matrix: CSR | None = field(default=None, compare=False)
    scales: npt.NDArray[np.float64] | None = field(default=None, compare=False)

    @classmethod
    def from_frame(cls, frame: Frame, what: str) -> FeatureTable:
        """The features of a dataframe with a column for the id of the ``what`` (``"user"`` or ``"item"``).

        Raises:
            DataError: There is no such column; an id is missing or repeated; no feature is left.
        """
        made = cls.found_in(frame, what)
        if made is None:
            raise DataError(f"The table of {what}s has no feature: no column has numbers or a value that occurs twice.")
        return made

    @classmethod
    def found_in(cls, frame: Frame, what: str) -> FeatureTable | None:
        """As :meth:`from_frame`; None where no feature is left, as of a table of titles only."""
        table = to_polars(frame)
        name = find_columns(table.columns, {what: None})[what]
        ids = id_series(table[name], what)
        if ids.n_unique() != len(ids):
            raise DataError(f"The table of {what}s must have a row per {what}: {ids[int(_again(ids))]!r} is repeated.")
        parts = [_encoded(column) for column in table.drop(name)]
        names = tuple(text for part, *_ in parts for text in part)
        if not names:
            return None
        dense = np.concatenate([values for _, values, _ in parts], axis=1)
        scales = np.concatenate([scale for *_, scale in parts])
        rows, columns = np.nonzero(dense)
        matrix = csr_from_sorted(rows, columns, dense[rows, columns], len(ids))
        return cls(_digest(ids, names, matrix, scales), names, IdMap(ids), matrix, scales)

    def __repr__(self) -> str:
        return f"<{len(self.names)} features {self.digest}>"

    def to_dict(self) -> Plain:
        """What a recipe says of it."""
        return {"digest": self.digest, "names": list(self.names)}

    def of(self, ids: IdTable, what: str) -> CSR:
        """The features of these ids, in their order; none for an id that the table lacks, which is said."""
        if self.ids is None or self.matrix is None:
            raise ParameterError(
                f"The '{what}_features' parameter of BPMF was read from a file, which has no table; give it again."
            )
        codes = self.ids.codes(ids.ids, what)
        lost = codes < 0
        if lost.any():
            text = f"{lost.sum()} of {len(ids)} {what}s are not in the table of features, for example"
            warnings.warn(
                f"{text} {ids.ids[int(lost.argmax())]!r}: only their ratings count.", DataWarning, stacklevel=2
            )
        empty = self.matrix._replace(indptr=np.append(self.matrix.indptr, self.matrix.indptr[-1]))
        return empty.take(np.where(lost, len(self.ids), codes))

    def row_of(self, who: Id) -> npt.NDArray[np.float32]:
        """The features (F,) of an id of the table.

        Raises:
            UnknownIdError: The table has no such id.
        """
        assert self.ids is not None
        assert self.matrix is not None
        place = self.ids.codes([who], "user")
        if place[0] < 0:
            raise UnknownIdError(f"The table of features has no {who!r}; give what is known as {{column: value}}.")
        out, (columns, values) = np.zeros(len(self.names), np.float32), self.matrix.row(int(place[0]))
        out[columns] = values
        return out

    def row(self, known: Mapping[str, object]) -> npt.NDArray[np.float32]:
        """The features (F,) of somebody whose columns are ``known``; a column that is not given counts as missing.

        Raises:
            DataError: The table has no such column.
        """
        assert self.scales is not None
        out, places = np.zeros(len(self.names), np.float32), {name: place for place, name in enumerate(self.names)}
        columns = {name.partition("=")[0] for name in self.names} | places.keys()
        for name, value in known.items():
            if name not in columns:
                raise DataError(f"The table of features has no column {name!r}; it has {', '.join(sorted(columns))}.")
            place = places.get(name)
            number = None if place is None else _number(value)
            if place is not None and number is not None and self.scales[place, 1] > 0:
                out[place] = (number - self.scales[place, 0]) / self.scales[place, 1]
            for entry in () if value is None or place is not None else _entries(value):
                if f"{name}={entry}" in places:
                    out[places[f"{name}={entry}"]] = 1.0
        for name, place in places.items():
            column = name.removesuffix(MISSING)
            out[place] = float(_number(known.get(column)) is None) if name.endswith(MISSING) else out[place]
        return out

    def to_arrays(self, stem: str) -> Arrays:
        """The content as named arrays."""
        assert self.ids is not None
        assert self.matrix is not None
        assert self.scales is not None
        ids = self.ids
        made = pack_text(f"{stem}.ids", ids.ids) if ids.is_text else {f"{stem}.ids": ids.ids.to_numpy()}
        made |= {f"{stem}.{name}": array for name, array in self.matrix._asdict().items()}
        return {**made, f"{stem}.scales": self.scales}

    def with_arrays(self, stem: str, arrays: Arrays) -> FeatureTable:
        """The table with the content that :meth:`to_arrays` took apart, or FormatError where it is another."""
        name = f"{stem}.ids"
        try:
            ids = pl.Series(arrays[name]) if name in arrays else unpack_text(name, arrays)
            matrix = CSR(*(np.asarray(arrays[f"{stem}.{part}"]) for part in CSR._fields))
            scales = np.asarray(arrays[f"{stem}.scales"])
        except KeyError as error:
            raise FormatError(f"The model file lacks the array {error.args[0]!r}; use another copy.") from None
        if _digest(ids, self.names, matrix, scales) != self.digest:
            raise FormatError(
                f"The features {stem!r} in the model file are others than its recipe's; use another copy."
            )
        return FeatureTable(self.digest, self.names, IdMap(ids), matrix, scales)


def table_of(value: object, what: str) -> FeatureTable | None:
    """What a recipe was given: nothing, a dataframe, such a table already, or its plain data from a file."""
    if value is None or isinstance(value, FeatureTable):
        return value
    if isinstance(value, dict) and value.keys() == {"digest", "names"}:
        return FeatureTable(str(value["digest"]), tuple(value["names"]))
    if not hasattr(value, "columns") and not hasattr(value, "collect") and not hasattr(value, "column_names"):
        raise ParameterError(f"The '{what}_features' parameter of BPMF must be a table or None; got {value!r}.")
    return FeatureTable.from_frame(value, what)


def _again(ids: pl.Series) -> int:
    return int(ids.is_duplicated().arg_true()[0])


def _digest(ids: pl.Series, names: tuple[str, ...], matrix: CSR, scales: npt.NDArray[np.float64]) -> str:
    made = hashlib.blake2b("\0".join([*names, "", *map(str, ids)]).encode(), digest_size=8)
    for array in (*matrix, scales):
        made.update(np.ascontiguousarray(array).data)
    return made.hexdigest()


def _number(value: object) -> float | None:
    """A value of a numeric or temporal column; None where it is missing."""
    if value is None:
        return None
    column = pl.Series([value])
    try:
        number = float((_seconds(column) if column.dtype.is_temporal() else column)[0])
    except (TypeError, ValueError):
        raise DataError(f"A feature that is a number must be given as one; got {value!r}.") from None
    return number if np.isfinite(number) else None


def _seconds(column: pl.Series) -> pl.Series:
    return column.cast(pl.Float64) if column.dtype == pl.Time else column.cast(pl.Datetime("us")).dt.epoch("s")


def _entries(value: object) -> list[str]:
    """The entries of a value of a text or a list column."""
    if isinstance(value, str):
        return value.split(SEPARATOR)
    return [str(entry) for entry in value] if isinstance(value, Iterable) else [str(value)]


def _encoded(column: pl.Series) -> tuple[list[str], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The features of a column, their names and their scales."""
    if column.dtype == pl.Boolean or column.dtype.is_numeric():
        return _standardized(column)
    if column.dtype.is_temporal():
        return _standardized(_seconds(column))
    lists = column if isinstance(column.dtype, pl.List) else column.cast(pl.String).str.split(SEPARATOR)
    long = pl.DataFrame({"row": np.arange(len(column)), "value": lists}).explode("value").drop_nulls().unique()
    long = long.with_columns(pl.col("value").cast(pl.String)).filter(pl.col("value") != "")
    counts = long.group_by("value").len().filter((pl.col("len") >= LEAST) & (pl.col("len") < len(column)))
    values = counts["value"].sort()
    places = long.join(pl.DataFrame({"value": values, "code": np.arange(len(values))}), on="value")
    out = np.zeros((len(column), len(values)), np.float32)
    out[places["row"].to_numpy(), places["code"].to_numpy()] = 1.0
    return [f"{column.name}={value}" for value in values], out, np.zeros((len(values), 2))


def _standardized(column: pl.Series) -> tuple[list[str], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    numbers = column.cast(pl.Float64).to_numpy().copy()
    lost = ~np.isfinite(numbers)
    spread = float(numbers[~lost].std()) if (~lost).any() else 0.0
    names, parts, scales = [], [], []
    if spread > 0:
        numbers[lost] = mean = float(numbers[~lost].mean())
        names, parts, scales = [str(column.name)], [(numbers - mean) / spread], [(mean, spread)]
    if lost.any():
        text = f"{lost.sum()} of {len(column)} values of {column.name!r} are missing: the mean stands in, with a mark."
        warnings.warn(text, DataWarning, stacklevel=2)
        if not lost.all():
            names, parts = [*names, f"{column.name}{MISSING}"], [*parts, lost.astype(float)]
            scales = [*scales, (0.0, 0.0)]
    made = np.array(parts, np.float32).reshape(len(parts), len(column)).T
    return names, made, np.array(scales, np.float64).reshape(len(parts), 2)


# ---- of the rows of a training ---------------------------------------------------------------------


def implicit_sets(mine: CSR, n_features: int) -> CSR:
    """Each row's ratings as a set: 1/√n where there is a rating, of those below ``n_features``."""
    weights = 1 / np.sqrt(np.maximum(mine.counts, 1))
    known = mine.indices < n_features
    rows = mine.row_codes()[known]
    return csr_from_sorted(rows, mine.indices[known], weights[rows], mine.n_rows)


def _beside(left: CSR, right: CSR, width: int) -> CSR:
    """Two matrices of the same rows side by side; the left one has ``width`` columns."""
    from scipy.sparse import csr_array, hstack

    columns = int(right.indices.max(initial=-1)) + 1
    parts = [
        csr_array((part.values, part.indices, part.indptr), (part.n_rows, size))
        for part, size in ((left, width), (right, columns))
    ]
    both = hstack(parts, format="csr")
    return CSR(both.indptr.astype(np.int64), both.indices.astype(np.int32), both.data.astype(np.float32))


def side_features(table: FeatureTable | None, sets: bool, ratings: RatingsTable, side: int) -> SideFeatures:
    """The features of the users (0) or the items (1) of a training: their sets, a table, or both."""
    ids, rows, others, what = (
        (ratings.item_ids, ratings.by_item, ratings.n_users, "item")
        if side
        else (ratings.user_ids, ratings.by_user, ratings.n_items, "user")
    )
    parts, sizes = [], []
    if sets:
        assert isinstance(rows, CSR)
        parts, sizes = [implicit_sets(rows, others)], [others]
    if table is not None:
        parts, sizes = [*parts, table.of(ids, what)], [*sizes, len(table.names)]
    matrix = parts[0] if len(parts) == 1 else _beside(parts[0], parts[1], others)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return SideFeatures(matrix, transpose(matrix, len(groups)), groups, FINE if table is not None else ROUGH)


@dataclass(frozen=True, eq=False)
class SideFeatures(Lean):
    """The features of one side: (rows, F), the same by feature, the group of each feature, and how near β is drawn."""

    matrix: CSR
    transposed: CSR
    groups: npt.NDArray[np.int64]
    tolerance: float = FINE

    @property
    def count(self) -> int:
        """F."""
        return len(self.groups)

    @cached_property
    def mean(self) -> Array:
        """The mean features of the rows, (F,)."""
        totals = np.bincount(self.matrix.indices, self.matrix.values, minlength=self.count)
        return totals / max(1, self.matrix.n_rows)

    @cached_property
    def design(self) -> ridge.Design:
        """F as :func:`gramian.engine.ridge.draw` takes it."""
        return ridge.Design(self.matrix, self.transposed, self.groups)

    @cached_property
    def gram(self) -> Array:
        """FᵀF, dense."""
        from scipy.sparse import csr_array

        F = csr_array((self.matrix.values, self.matrix.indices, self.matrix.indptr), (self.matrix.n_rows, self.count))
        wide = F.astype(np.float64)
        return np.asarray((wide.T @ wide).todense())

    @cached_property
    def some(self) -> SideFeatures:
        """At most ``SOME`` of the rows, evenly spread."""
        n = self.matrix.n_rows
        return self.take(np.unique(np.linspace(0, n - 1, min(n, SOME)).astype(np.int64)))

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> SideFeatures:
        """The same features of some of the rows."""
        part = self.matrix.take(rows)
        return SideFeatures(part, transpose(part, self.count), self.groups, self.tolerance)

    def times(self, coefficients: Array, n_jobs: int | None = None) -> Array:
        """F times coefficients, (rows, D)."""
        return ridge.product(self.matrix, ridge.cut(coefficients), coefficients.shape[1], n_jobs=n_jobs)


class Unseen(NamedTuple):
    """What is known of rows that were not in training: a code −1 has the mean features, −2 − k row k of a table.

    ``mean`` (F,) over the rows in training, of which ``some`` say how much features differ; the table's features begin
    at ``first``.
    """

    mean: Array
    first: int
    table: CSR | None
    some: SideFeatures

    def spread(self, coefficients: Array, lacking: slice) -> Array:
        """Cov(βᵀf) of the features that are not known, over some rows, (D, D)."""
        beta = np.zeros_like(coefficients, np.float32)
        beta[lacking] = coefficients[lacking]
        shifts = self.some.times(beta, n_jobs=1).astype(np.float64)
        shifts -= shifts.mean(axis=0)
        return shifts.T @ shifts / len(shifts)

    def completed(self, sets: CSR | None, given: Array | None) -> tuple[Array, slice | None]:
        """All features of somebody new, (F,), the mean of those that are not known, and which these are.

        ``sets`` is one row of the features before ``first``, ``given`` the rest; either may be unknown.
        """
        values, last = self.mean.astype(np.float32), len(self.mean)
        lacking = [self.first > 0, self.first < last]
        if sets is not None and self.first:
            values[: self.first] = 0
            values[sets.indices] = sets.values
            lacking[0] = False
        if given is not None:
            values[self.first :] = given
            lacking[1] = False
        which = slice(0 if lacking[0] else self.first, last if lacking[1] else self.first)
        return values, which if any(lacking) else None

    def shifts(self, coefficients: Array, codes: Codes) -> Array:
        """βᵀf of negative codes, (codes, D)."""
        beta = coefficients.astype(np.float32)
        made = np.tile(np.einsum("f,fd->d", self.mean, beta), (len(codes), 1))
        own = codes < -1
        if self.table is not None and own.any():
            part = np.einsum("f,fd->d", self.mean[: self.first], beta[: self.first])
            made[own] = part + products.sparse_product(self.table.take(-2 - codes[own]), beta[self.first :], n_jobs=1)
        return made
