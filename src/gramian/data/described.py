"""What a table of ratings whose rows are in files knows from its description."""

from __future__ import annotations

from functools import cached_property

import polars as pl

from gramian.core.plain import Plain
from gramian.data.ratings import Ratings
from gramian.data.table import RatingsTable
from gramian.kernels.csr import empty_rows

__all__ = ["Described", "Noted"]


class Noted:
    """Sums over all ratings, noted when the table was made, so that nobody goes over its rows for them.

    Attributes:
        about: The numbers of users, items and ratings, sums over all of these, and a fingerprint.
    """

    about: Plain

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The smallest and the largest rating."""
        low, high = self.about["scale"]
        return low, high

    @cached_property
    def global_mean(self) -> float:
        """μ, the mean of all ratings."""
        return float(self.about["mean"])

    @cached_property
    def variance(self) -> float:
        """s², the mean squared distance of the ratings from μ."""
        return float(self.about["variance"])


class Described(Noted, RatingsTable):
    """A table of which is here what was noted when it was made."""

    times: None = None
    item_table: pl.DataFrame | None = None
    titles: pl.Series | None = None

    def __init__(self, about: Plain) -> None:
        self.about = about

    def __len__(self) -> int:
        return int(self.about["ratings"])

    @property
    def n_users(self) -> int:
        """How many users there are (N)."""
        return int(self.about["users"])

    @property
    def n_items(self) -> int:
        """How many items there are (M)."""
        return int(self.about["items"])

    @property
    def duplicates(self) -> int:
        """How many rows were repeated (user, item) pairs and were merged."""
        return int(self.about["repeated"])

    def fingerprint(self) -> str:
        """A digest of the rows, whatever their order."""
        return str(self.about["fingerprint"])

    def without_rows(self) -> Ratings:
        """The users and items alone, with the scale, μ and s² of the ratings; ids that stay in their files do so."""
        return Ratings(self.user_ids, self.item_ids, empty_rows(self.n_users)).described_as(self)
