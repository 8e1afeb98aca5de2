"""Rows that are elsewhere: what an engine other than this machine's threads gives for the rows of one side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.kernels.csr import CSR

__all__ = ["RemoteRows", "Weights"]


class Weights(NamedTuple):
    """The weights of ratings that are elsewhere: one for each row there, or for each column."""

    values: npt.NDArray[np.float64]
    of_rows: bool

    def of(self, first: int, rows: CSR) -> npt.NDArray[np.float64]:
        """Those of a block's ratings, whose first row is this one."""
        if not self.of_rows:
            return self.values[rows.indices]
        return np.repeat(self.values[first : first + rows.n_rows], rows.counts)


class RemoteRows(ABC):
    """The ratings of one side, in blocks of rows on other machines; stands where a CSR stands."""

    n_rows: int
    n_entries: int

    @abstractmethod
    def run(self, step: str, *arguments: Any, **settings: Any) -> Any:
        """Run a function of :mod:`gramian.engine.local`, by its name, on every block of rows: what it returns of all.

        The arguments and settings are those of the function after its first one. Arrays that have a line for every
        row here are cut to the rows of each block; ``weights`` are a :class:`Weights`.
        """

    @property
    @abstractmethod
    def counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each row has."""

    @abstractmethod
    def row(self, i: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The indices and values of one row."""
