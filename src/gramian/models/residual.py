r"""Factor models of what is left when known offsets have been taken from the ratings.

The offsets :math:`o_j` of the items and, where there are user biases, :math:`b_i` come first; the factors see

.. math::
    t_{ij} = r_{ij} - o_j - b_i, \qquad b_i = \frac{1}{|\Psi_i| + \lambda_b} \sum_{j\in\Psi_i} (r_{ij} - o_j)

with :math:`\Psi_i` the items that the user rated. This b is the least-squares bias given the items' biases, as
:class:`gramian.Baseline` has it. A user's row is linear in the ratings, so predictions can be taken apart exactly.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from gramian.data.ids import Codes
from gramian.data.table import RatingsTable
from gramian.engine import local
from gramian.engine.rows import Intercepts, Penalty, Rows
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.baseline import Baseline
from gramian.models.factor_model import FactorModel

__all__ = ["CentredModel", "baseline_rows", "remainder"]


def baseline_rows(ratings: RatingsTable, regularization: float, dtype: str, n_jobs: int | None) -> Array:
    """The items' biases c of a :class:`gramian.Baseline`, (M,)."""
    recipe = Baseline(regularization=regularization, dtype=dtype, n_jobs=n_jobs)
    arrays = recipe.start(ratings)
    for number in range(recipe.epochs):
        arrays = recipe.epoch(ratings, arrays, number + 1).state
    return np.ascontiguousarray(arrays["item_rows"][:, 0])


def remainder(
    rows: CSR, offsets: Array, regularization: float | None, n_jobs: int | None = None
) -> tuple[CSR, Array | None]:
    """What the offsets leave of some users' ratings, and the users' biases (rows,), None without λ_b.

    Args:
        rows: The users' ratings.
        offsets: o, (M,), float32 or float64; the results have its type.
        regularization: λ_b.
        n_jobs: Threads.
    """
    left = rows.values - offsets[rows.indices]
    if regularization is None:
        return rows._replace(values=left), None
    ones = np.zeros((len(offsets), 1), offsets.dtype)
    penalty = Penalty(np.array([[regularization]]))
    alone = Intercepts(biased=True, offset=0.0)
    solved, _ = local.half_sweep(rows._replace(values=left), ones, penalty, alone, n_jobs)
    biases = solved[:, 0]
    return rows._replace(values=left - biases[rows.row_codes()]), biases


@dataclass(frozen=True, eq=False, repr=False)
class CentredModel(FactorModel):
    """A factor model with known offsets.

    Attributes:
        offsets: o, (M,): what is taken from a rating before the factors see it, μ included.
        user_regularization: λ_b of the users' biases; None where users have none.
    """

    offsets: Array
    user_regularization: float | None

    @property
    def item_offsets(self) -> Array:
        """What is taken from each item's ratings before the factors see them, (M,)."""
        return self.offsets

    @abstractmethod
    def _factors(self, left: CSR, items: Array) -> Array:
        """The users' factors, (rows, K), from what the offsets left of their ratings and the item factors."""

    @abstractmethod
    def _influence(self, rated: Array, target: Array) -> Array:
        """By how much uᵀw grows with each rated item's t, for the item factors u."""

    def rows_given(self, rows: Rows, fixed: Array) -> Array:
        """As of :class:`FactorModel`."""
        assert isinstance(rows, CSR)
        left, biases = remainder(rows, self.offsets, self.user_regularization, self.settings.n_jobs)
        factors = self._factors(left, np.ascontiguousarray(fixed[:, : self.n_factors]))
        if not self.settings.biased:
            return factors
        last = np.zeros(rows.n_rows, fixed.dtype) if biases is None else biases
        return np.column_stack([factors, last])

    def reasons_for(self, rated: Codes, values: Array, item: int) -> Array:
        """What each rated item adds to wᵀu: its share of t, and of the bias that is taken from every t."""
        influence = self._influence(rated, self.item_factors[item].astype(np.float64))
        if self.user_regularization is not None:
            influence = influence - influence.sum() / (len(rated) + self.user_regularization)
        return influence * (values - self.offsets[rated].astype(np.float64))
