"""The ratings of one side row by row, wherever they are, and what is done to them.

A :class:`Step` is one thing that is done to every row of a side, given the rows of the other side: the half-sweep is
one. On a CSR it runs here, on threads; on :class:`BlockedRows`, rows on other machines, on each of their blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from gramian.kernels.arrays import Array, aligned_rows
from gramian.kernels.csr import CSR

__all__ = ["NO_INTERCEPTS", "BlockedRows", "Elsewhere", "Intercepts", "Penalty", "Rows", "Step", "Weights", "run"]


class Intercepts(NamedTuple):
    """What a prediction has beside wᵀu: whether the last of the D columns is a bias, and μ (0 where there is none)."""

    biased: bool
    offset: float


NO_INTERCEPTS = Intercepts(biased=False, offset=0.0)


class Penalty(NamedTuple):
    """The prior of a row: its precision Λ (D × D), and whether it grows with the row's number of ratings."""

    precision: Array
    by_count: bool = False


class Weights(NamedTuple):
    """The weights of ratings that are elsewhere: one for each row there, or for each column."""

    values: npt.NDArray[np.float64]
    of_rows: bool

    def of(self, first: int, rows: CSR) -> npt.NDArray[np.float64]:
        """Those of a block's ratings, whose first row is this one."""
        if not self.of_rows:
            return rows.of_columns(self.values)
        return rows.of_rows(self.values[first : first + rows.n_rows])


class Rows(Protocol):
    """The ratings of one side, to be read: a :class:`CSR` here, or :class:`BlockedRows`."""

    @property
    def n_rows(self) -> int:
        """How many rows there are, empty ones included."""

    @property
    def n_entries(self) -> int:
        """How many ratings there are in all rows."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each row has."""

    def row(self, i: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The indices and values of one row."""

    def of_rows(self, values: Array) -> Array | Weights:
        """A number for each rating: that of its row."""

    def of_columns(self, values: Array) -> Array | Weights:
        """A number for each rating: that of its column."""


@dataclass(frozen=True, eq=False)
class Step(ABC):
    """What is done to every row of a side by itself.

    Attributes:
        fixed: The rows of the other side, (columns, D), float32 or float64.
        intercepts: What a prediction has beside wᵀu.
        factors: The rows of this side that the step begins at, (rows, D), where it begins at some.
        weights: ω of each rating; 1 if not given.
    """

    fixed: Array
    intercepts: Intercepts
    factors: Array | None = field(default=None, kw_only=True)
    weights: Array | Weights | None = field(default=None, kw_only=True)

    @abstractmethod
    def run(self, rows: CSR, n_jobs: int | None = None) -> tuple[Array, int]:
        """What it makes of these rows, a line for each; and how many of them were singular."""

    def of_block(self, first: int, n_rows: int) -> Self:
        """The same for so many of the rows, from a first one on; the arrays above are given for them already."""
        return self

    def begun_at(self) -> Array:
        """The rows of this side that the step begins at."""
        assert self.factors is not None
        return self.factors

    def room(self, n_rows: int) -> Array:
        """Zeros for what it makes of so many rows."""
        return aligned_rows(n_rows, self.fixed.shape[1], self.fixed.dtype)


class Elsewhere:
    """Rows that are not here: a number for each of their ratings is one for each row, or for each column."""

    def of_rows(self, values: Array) -> Weights:
        """A number for each rating: that of its row."""
        return Weights(values, of_rows=True)

    def of_columns(self, values: Array) -> Weights:
        """A number for each rating: that of its column."""
        return Weights(values, of_rows=False)


class BlockedRows(Elsewhere, ABC):
    """The ratings of one side in blocks of rows on other machines."""

    n_rows: int
    n_entries: int

    @abstractmethod
    def run(self, step: Step) -> tuple[Array, int]:
        """What a step makes of all rows; and how many of them were singular."""

    @property
    @abstractmethod
    def counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each row has."""

    @abstractmethod
    def row(self, i: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The indices and values of one row."""


def run(rows: Rows, step: Step, n_jobs: int | None = None) -> tuple[Array, int]:
    """What a step makes of rows, wherever they are; and how many of them were singular.

    Raises:
        TypeError: The rows are neither a CSR nor blocked ones.
    """
    if isinstance(rows, BlockedRows):
        return rows.run(step)
    if isinstance(rows, CSR):
        return step.run(rows, n_jobs)
    raise TypeError(f"Rows must be a CSR or BlockedRows: got {type(rows).__name__}.")
