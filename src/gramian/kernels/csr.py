"""Compressed sparse rows, and their transpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.kernels.arrays import Array, readonly

__all__ = [
    "CSR",
    "PIECE_RATINGS",
    "csr_from_sorted",
    "empty_rows",
    "is_sound",
    "one_row",
    "pieces_of",
    "readonly_csr",
    "stacked",
    "transpose",
]

# A heavy row's sums are made of pieces of so many ratings: at K = 512, a fifth of a second's work at most.
PIECE_RATINGS = 16_384


class CSR(NamedTuple):
    """A sparse matrix by rows: row *i* holds ``indices[indptr[i]:indptr[i+1]]`` and their values.

    ``indptr`` is int64 of length rows + 1, ``indices`` int32 (ascending within a row), ``values`` float32.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]

    @property
    def n_rows(self) -> int:
        """How many rows there are, empty ones included."""
        return len(self.indptr) - 1

    @property
    def n_entries(self) -> int:
        """How many entries there are in all rows."""
        return len(self.indices)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many entries each row has."""
        return np.diff(self.indptr)

    def row_codes(self) -> npt.NDArray[np.int32]:
        """The row of every entry, in order (made anew at each call)."""
        return np.repeat(np.arange(self.n_rows, dtype=np.int32), self.counts)

    def of_rows(self, values: Array) -> Array:
        """A number for each entry: that of its row."""
        return np.repeat(values, self.counts)

    def of_columns(self, values: Array) -> Array:
        """A number for each entry: that of its column."""
        return np.asarray(values[self.indices])

    def row(self, i: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The indices and values of one row (views)."""
        part = slice(self.indptr[i], self.indptr[i + 1])
        return self.indices[part], self.values[part]

    def places(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Where the entries of some rows stand, row by row."""
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        return np.arange(counts.sum()) + np.repeat(self.indptr[rows] - ends + counts, counts)

    def spans(self, entries: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows, all of them in order, of about so many entries each, but at least one row."""
        low = 0
        while low < self.n_rows:
            high = int(np.searchsorted(self.indptr, self.indptr[low] + entries, side="right")) - 1
            high = min(max(low + 1, high), self.n_rows)
            yield low, high
            low = high

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> CSR:
        """Some rows, in the order given."""
        places = self.places(rows)
        return CSR(np.concatenate([[0], np.cumsum(self.counts[rows])]), self.indices[places], self.values[places])


def readonly_csr(matrix: CSR, dtype: npt.DTypeLike | None = None) -> CSR:
    """The same matrix as kernels want it, its values of a dtype."""
    return CSR(readonly(matrix.indptr), readonly(matrix.indices), readonly(matrix.values, dtype))


def pieces_of(count: int) -> int:
    """In how many pieces a row of so many ratings is summed: 1 for most rows, 0 for an empty one."""
    return -(-count // PIECE_RATINGS)


def csr_from_sorted(rows: npt.NDArray[Any], columns: npt.NDArray[Any], values: npt.NDArray[Any], n_rows: int) -> CSR:
    """Build a CSR from entries that are already sorted by (row, column)."""
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n_rows), out=indptr[1:])
    return CSR(indptr, np.ascontiguousarray(columns, np.int32), np.ascontiguousarray(values, np.float32))


def one_row(columns: npt.NDArray[Any], values: npt.NDArray[Any]) -> CSR:
    """Entries of one row, in any order, as a matrix of that row."""
    order = np.argsort(columns)
    return csr_from_sorted(np.zeros(len(columns), np.int64), columns[order], values[order], 1)


def empty_rows(n_rows: int) -> CSR:
    """A matrix of so many rows without entries."""
    return CSR(np.zeros(n_rows + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


def stacked(parts: Sequence[CSR]) -> CSR:
    """The rows of several matrices, one matrix after the other."""
    ends = np.cumsum([part.n_entries for part in parts])
    starts = [part.indptr[1:] + end - part.n_entries for part, end in zip(parts, ends, strict=True)]
    indices, values = [part.indices for part in parts], [part.values for part in parts]
    return CSR(np.concatenate([[0], *starts]), np.concatenate(indices), np.concatenate(values))


def is_sound(matrix: CSR, n_rows: int, n_columns: int) -> bool:
    """Whether the arrays fit together: types, lengths, ranges, ascending columns, finite values; not empty."""
    indptr, indices, values = matrix
    if [array.dtype for array in matrix] != [np.int64, np.int32, np.float32] or any(a.ndim != 1 for a in matrix):
        return False
    if len(indptr) != n_rows + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or len(indices) != len(values):
        return False
    if len(indices) == 0 or bool((np.diff(indptr) < 0).any()) or not np.isfinite(values).all():
        return False
    first = np.zeros(len(indices), bool)
    first[indptr[:-1][np.diff(indptr) > 0]] = True
    ascending = bool((first[1:] | (indices[1:] > indices[:-1])).all())
    return ascending and int(indices.min()) >= 0 and int(indices.max()) < n_columns


def transpose(matrix: CSR, n_columns: int) -> CSR:
    """The same entries by columns; rows stay ascending within each column."""
    from scipy.sparse import csr_array

    by_column = csr_array((matrix.values, matrix.indices, matrix.indptr), shape=(matrix.n_rows, n_columns)).tocsc()
    return CSR(
        np.asarray(by_column.indptr, np.int64),
        np.asarray(by_column.indices, np.int32),
        np.asarray(by_column.data, np.float32),
    )
