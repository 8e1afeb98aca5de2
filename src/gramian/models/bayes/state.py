"""The state of a chain after a sweep, which is also a draw of the posterior: everything, drawn once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import products
from gramian.kernels.arrays import Array

__all__ = ["ITEMS", "SIDES", "USERS", "Key", "RowPrior", "State", "compact"]

USERS, ITEMS = 0, 1
SIDES = ("user", "item")
HALF_RANGE = (1e-2, 6e4)  # of the largest number of an array: below, float16 loses digits; beyond, it overflows


class Key(NamedTuple):
    """What the random numbers of a sweep depend on."""

    seed: int
    chain: int
    number: int

    def side(self, which: int) -> tuple[int, int, int]:
        """The counters of the normals of one side's rows."""
        return self.seed, self.number, 2 * self.chain + which


class RowPrior(NamedTuple):
    """The prior of the rows of one side: N(mean, precision⁻¹); (D,) and (D, D), float64."""

    mean: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]


class State(NamedTuple):
    """One draw of all parameters.

    ``user_rows`` (N, D) and ``item_rows`` (M, D), with the priors of both sides' rows; ``noise_precision`` is α; and
    ``terms`` has the value of each term (:mod:`gramian.models.bayes.terms`) by its name, which is an attribute, too:
    ``draw.cuts``, say.
    """

    user_rows: Array
    item_rows: Array
    users: RowPrior
    items: RowPrior
    noise_precision: float
    terms: Mapping[str, object] = MappingProxyType({})

    def __getattr__(self, name: str) -> object:
        """The value of the term of this name."""
        try:
            return self.terms[name]
        except KeyError:
            raise AttributeError(f"A draw has no {name!r}; it has {[*self._fields, *self.terms]}.") from None

    def rows(self, side: int) -> Array:
        """The rows of the users (0) or the items (1)."""
        return self.item_rows if side == ITEMS else self.user_rows

    def prior(self, side: int) -> RowPrior:
        """The prior of these rows."""
        return self.items if side == ITEMS else self.users


def compact(rows: Array, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Array:
    """Rows in ``dtype``, but in float32 where they do not suit float16."""
    low, high = HALF_RANGE
    suits = np.dtype(dtype) != np.float16 or low <= float(max(rows.max(initial=0), -rows.min(initial=0))) <= high
    return products.converted(rows, dtype if suits else np.float32, n_jobs=n_jobs)
