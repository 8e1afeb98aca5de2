"""What every table of ratings is, wherever its rows are: in memory, in a folder, on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.file_format import Arrays
from gramian.data.columns import Frame
from gramian.data.ids import Codes, IdTable
from gramian.data.summary import Description
from gramian.engine.rows import Rows
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = ["LocalTable", "RatingsTable"]


class RatingsTable(ABC):
    """Who rated what, how much, and when, to be read: one row per (user, item) pair, in (user, item) order.

    :class:`gramian.Ratings` is the one in memory. Others answer the same questions without bringing their rows here;
    what cannot be done without them, :meth:`to_local` does, once.
    """

    if TYPE_CHECKING:  # as attributes or properties, as a table likes

        @property
        def user_ids(self) -> IdTable:
            """The users, in the order of their codes."""

        @property
        def item_ids(self) -> IdTable:
            """The items, in the order of their codes."""

        @property
        def by_user(self) -> Rows:
            """The ratings by user."""

        @property
        def by_item(self) -> Rows:
            """The ratings by item."""

        @property
        def times(self) -> npt.NDArray[np.int64] | None:
            """One Int64 per rating, or None."""

        @property
        def duplicates(self) -> int:
            """How many rows were repeated (user, item) pairs and were merged."""

        @property
        def item_table(self) -> pl.DataFrame | None:
            """What is known of the items, or None."""

        @property
        def titles(self) -> pl.Series | None:
            """The title of every item in the order of the codes (null where unknown), or None."""

        @property
        def scale(self) -> tuple[float, float]:
            """The smallest and the largest rating."""

        @property
        def global_mean(self) -> float:
            """μ, the mean of all ratings."""

        @property
        def variance(self) -> float:
            """s², the mean squared distance of the ratings from μ."""

    @abstractmethod
    def __len__(self) -> int:
        """How many ratings there are."""

    @abstractmethod
    def to_local(self) -> LocalTable:
        """The same table in this machine's memory."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short digest: equal for equal ratings."""

    @abstractmethod
    def without_rows(self) -> LocalTable:
        """The users and items alone, with the scale, μ and s² of the ratings."""

    @abstractmethod
    def count_pairs(self, users: Codes, items: Codes) -> int:
        """How many of these pairs of codes are in the table."""

    @property
    def n_users(self) -> int:
        """How many users there are (N)."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """How many items there are (M)."""
        return len(self.item_ids)

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The ratings, float32, one per row: brought here, for tables that fit into memory."""
        return self.to_local().values

    @property
    def user_codes(self) -> Codes:
        """The user code of every row, brought here."""
        return self.to_local().user_codes

    @property
    def item_codes(self) -> Codes:
        """The item code of every row, brought here."""
        return self.to_local().item_codes

    def to_frame(self) -> pl.DataFrame:
        """The rows with their original ids: ``user``, ``item``, ``rating`` and maybe ``time``, brought here."""
        return self.to_local().to_frame()

    def to_arrays(self) -> Arrays:
        """The table as named arrays for a model file, brought here."""
        return self.to_local().to_arrays()

    def merge(self, new: RatingsTable) -> LocalTable:
        """These ratings with ``new`` ones, brought here; see :meth:`gramian.Ratings.merge`."""
        return self.to_local().merge(new)

    def with_items(self, table: Frame) -> LocalTable:
        """The same ratings with a table about the items, brought here; see :meth:`gramian.Ratings.with_items`."""
        return self.to_local().with_items(table)

    @property
    def users(self) -> Array:
        """The user id of every row, brought here."""
        return self.to_local().users

    @property
    def items(self) -> Array:
        """The item id of every row, brought here."""
        return self.to_local().items

    def describe(self, factors: int = 10) -> Description:
        """As of :meth:`gramian.Ratings.describe`, brought here."""
        return self.to_local().describe(factors)

    def split(self, fraction: float = 0.2, *, seed: int = 0) -> tuple[LocalTable, LocalTable]:
        """As of :meth:`gramian.Ratings.split`, brought here."""
        return self.to_local().split(fraction, seed=seed)

    def split_by_time(self, fraction: float = 0.2) -> tuple[LocalTable, LocalTable]:
        """As of :meth:`gramian.Ratings.split_by_time`, brought here."""
        return self.to_local().split_by_time(fraction)

    def leave_last_out(self, n: int = 1) -> tuple[LocalTable, LocalTable]:
        """As of :meth:`gramian.Ratings.leave_last_out`, brought here."""
        return self.to_local().leave_last_out(n)

    def folds(self, folds: int = 5, *, seed: int = 0) -> Iterator[tuple[LocalTable, LocalTable]]:
        """As of :meth:`gramian.Ratings.folds`, brought here."""
        return self.to_local().folds(folds, seed=seed)


class LocalTable(RatingsTable):
    """A table whose rows are here."""

    @abstractmethod
    def with_rows(self, by_user: CSR) -> LocalTable:
        """The same users and items, and the scale, μ and s² as they are, with other rows."""

    if TYPE_CHECKING:

        @property
        def by_user(self) -> CSR:
            """The ratings by user."""

        @property
        def by_item(self) -> CSR:
            """The ratings by item."""
