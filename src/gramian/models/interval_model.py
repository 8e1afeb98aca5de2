"""What a model gives that has intervals: their ends for pairs of codes, and what shows how well these hold."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gramian.data.pairs import Pairs
from gramian.kernels.arrays import Array
from gramian.models.model import Model

__all__ = ["Forecast", "IntervalModel"]


class Forecast(NamedTuple):
    """(levels, n) ends of clipped intervals; a spread per pair; and of distributions, CRPS, P(R < r) and P(R ≤ r)."""

    lower: Array
    upper: Array
    spread: Array
    below: Array
    upto: Array
    crps: Array | None = None

    @classmethod
    def empty(cls, levels: int, n: int) -> Forecast:
        """Room for so many levels and pairs."""
        return cls(*np.empty((2, levels, n)), *np.empty((3, n)))


@dataclass(frozen=True, eq=False, repr=False)
class IntervalModel(Model):
    """A model that says how far a rating may lie from its prediction."""

    @abstractmethod
    def forecast(self, pairs: Pairs, values: Array, levels: list[float]) -> Forecast:
        """Intervals of pairs of codes at these levels, and how the ratings that came lie in the distributions."""

    @abstractmethod
    def interval_codes(self, pairs: Pairs, level: float) -> Array:
        """The interval of the rating of each pair of codes, (n, 2), clipped to the scale; −1 is somebody unknown."""
