r"""The bar that every model must beat: the global mean and, on top of it, a bias per user and item.

.. math::
    \hat r_{ij} = \mu + b_i + c_j, \qquad
    J = \sum_{(i,j)\in\Omega} (r_{ij} - \hat r_{ij})^2 + \lambda\left(\|b\|^2 + \|c\|^2\right)

It is the factor model with K = 0, and is solved by the same half-sweeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.parameters import Range, param
from gramian.data.table import RatingsTable
from gramian.engine.rows import Penalty
from gramian.models.als import AlternatingRecipe
from gramian.models.factor_model import SideSettings
from gramian.models.recipe import Epoch

__all__ = ["Baseline"]


@dataclass(frozen=True, kw_only=True)
class Baseline(AlternatingRecipe[Arrays]):
    """μ + user bias + item bias, regularized; or μ alone.

    Raises:
        ParameterError: A field is outside its range.
    """

    name: ClassVar[str] = "baseline"
    distributed: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {"regularization": Range(0.3, 30)}

    biases: bool = param(True, "user and item biases; without them the global mean alone")
    regularization: float = param(4.0, "λ on the biases: so many ratings at the mean are added to each row", low=0)
    epochs: int = param(10, "passes over both sides", low=1)
    dtype: str = param("float32", "precision of the biases", choices=("float32", "float64"))
    n_jobs: int | None = param(None, "threads; all cores if not given", low=1, optional=True)

    @property
    def side(self) -> SideSettings:
        """How a row is solved: one unknown, its bias; or none."""
        lambdas = np.full(int(self.biases), self.regularization)
        return SideSettings(self.biases, Penalty(np.diag(lambdas)), centred=True, n_jobs=self.n_jobs)

    def start(self, ratings: RatingsTable) -> Arrays:
        """All biases 0."""
        width = int(self.biases)
        return {
            "user_rows": np.zeros((ratings.n_users, width), self.dtype),
            "item_rows": np.zeros((ratings.n_items, width), self.dtype),
        }

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """Item biases given the users', then user biases given the new items'."""
        items, singular_items = self.sweep(ratings, arrays["user_rows"], users=False)
        users, singular_users = self.sweep(ratings, items, users=True)
        made = {"user_rows": users, "item_rows": items}
        return Epoch(made, self.record(ratings, made, singular_items + singular_users))
