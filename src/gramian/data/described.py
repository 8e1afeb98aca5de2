"""What a table of ratings that is not in memory knows from its description."""

from __future__ import annotations

from functools import cached_property
from typing import Any

__all__ = ["Described"]


class Described:
    """Sums over all ratings as they were noted when the table was made, in ``about``."""

    about: Any

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
