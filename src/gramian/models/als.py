r"""Alternating least squares: matrix factorization in closed form.

The model is :math:`\hat r_{ij} = \mu + b_i + c_j + w_i^\top u_j`, the objective

.. math::
    J = \sum_{(i,j)\in\Omega} (r_{ij} - \hat r_{ij})^2
        + \sum_i s_i\left(\lambda\|w_i\|^2 + \lambda_b b_i^2\right)
        + \sum_j s_j\left(\lambda\|u_j\|^2 + \lambda_b c_j^2\right)

with :math:`s = 1`, or the number of the row's ratings (``weighting="count"``: Zhou et al. 2008, ALS-WR). J is
quadratic in one side while the other is fixed, so each side's best rows are found exactly, in turn, always
with the newest values of the other; J never rises.

``bias_update="joint"`` solves :math:`(w_i, b_i)` as one system, with a constant 1 appended to
:math:`u_j`. ``"separate"`` is the classical scheme: :math:`w_i` with the old bias, then :math:`b_i` with the
new :math:`w_i`. Both end at the same minimum; joint gets there in fewer epochs.

For very many factors, ``solver="cg"`` and ``"block"`` only approach a row's best in each sweep, from the row so
far: by a few steps of conjugate gradient, or block by block of its columns. J still falls, and ends at the same
kind of minimum. The users' rows of the model are always solved exactly.

Sources: Bell & Koren 2007 (alternating ridge regressions); Zhou et al. 2008 (count weighting); Takács, Pilászy &
Tikk 2011 (conjugate gradient); Rendle, Krichene, Zhang & Koren 2021 (blocks: iALS++).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import Range, param
from gramian.data.table import RatingsTable
from gramian.engine import local
from gramian.engine.rows import Penalty, run
from gramian.kernels.arrays import Array
from gramian.models.factor_model import FactorModel, SideSettings, checked_rows
from gramian.models.recipe import Epoch, Recipe
from gramian.models.trainable import StateT

__all__ = ["ALS", "AlternatingRecipe", "RidgeRecipe"]


@dataclass(frozen=True, kw_only=True)
class AlternatingRecipe(Recipe[FactorModel, StateT]):
    """What the recipes solved by alternating half-sweeps share."""

    @property
    @abstractmethod
    def side(self) -> SideSettings:
        """How a row is solved."""

    def offset(self, ratings: RatingsTable) -> float:
        """What is subtracted from every rating: μ of the training ratings, or 0."""
        return ratings.global_mean if self.side.centred else 0.0

    def random_items(self, ratings: RatingsTable, factors: int, seed: int, dtype: str) -> Array:
        """Item factors from N(0, 1/K), and biases 0, where there are some."""
        rng = np.random.Generator(np.random.Philox(seed))
        items = np.zeros((ratings.n_items, factors + self.side.biased), dtype)
        items[:, :factors] = rng.standard_normal((ratings.n_items, factors)) / np.sqrt(factors)
        return items

    def sweep(
        self, ratings: RatingsTable, fixed: Array, *, users: bool, side: SideSettings | None = None,
        draw: tuple[int, int, int] | None = None, spread: float = 1.0,
    ) -> tuple[Array, int]:  # fmt: skip
        """The best rows of one side, given the other, or draws about them; and how many had a singular system."""
        rows, side = (ratings.by_user if users else ratings.by_item), side or self.side
        intercepts = side.intercepts(self.offset(ratings))
        return run(rows, local.HalfSweep(fixed, intercepts, side.penalty, draw=draw, spread=spread), side.n_jobs)

    def record(
        self, ratings: RatingsTable, arrays: Arrays, singular: int, side: SideSettings | None = None
    ) -> dict[str, float | int]:
        """J, the training RMSE and, where there were some, the singular rows of an epoch."""
        side = side or self.side
        users, items = arrays["user_rows"], arrays["item_rows"]
        intercepts = side.intercepts(self.offset(ratings))
        squared = local.squared_errors(ratings.by_user, users, items, intercepts, side.n_jobs)
        penalties = sum(
            _penalty(rows, counts, side.penalty)
            for rows, counts in ((users, ratings.by_user.counts), (items, ratings.by_item.counts))
        )
        made: dict[str, float | int] = {
            "objective": squared + penalties,
            "train_rmse": float(np.sqrt(squared / len(ratings))),
        }
        return made | ({"minimum_norm_rows": singular} if singular else {})

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> FactorModel:
        """The factor model of these rows."""
        users, items = checked_rows(self, ratings, arrays, len(self.side.penalty.precision))
        return FactorModel(self, ratings, history, users, items, self.offset(ratings), self.side)


@dataclass(frozen=True, kw_only=True)
class RidgeRecipe(AlternatingRecipe[StateT]):
    """What the recipes with the penalties of ALS share, whichever way they go down."""

    factors: int = param(32, "latent features K; more fit finer tastes and cost time", low=1, high=512)
    regularization: float = param(12.0, "λ on the factors; raise it when validation error rises", low=0)
    bias_regularization: float | None = param(None, "λ on the biases; as regularization if not given", low=0,
                                              optional=True)  # fmt: skip
    weighting: str = param("none", "count: λ times the row's number of ratings (then use λ near 0.1)",
                           choices=("none", "count"))  # fmt: skip
    biases: bool = param(True, "a bias per user and item, and the global mean")
    n_jobs: int | None = param(None, "threads; all cores if not given", low=1, optional=True)

    @property
    def side(self) -> SideSettings:
        """How a row is solved."""
        lambdas = np.full(self.factors, self.regularization)
        if self.biases:
            bias = self.regularization if self.bias_regularization is None else self.bias_regularization
            lambdas = np.append(lambdas, bias)
        penalty = Penalty(np.diag(lambdas), self.weighting == "count")
        return SideSettings(self.biases, penalty, centred=self.biases, n_jobs=self.n_jobs)


def _penalty(rows: Array, counts: Array, penalty: Penalty) -> float:
    """Σ s xᵀΛx for a diagonal Λ, in float64."""
    squares = np.square(rows, dtype=np.float64) @ np.diag(penalty.precision)
    return float(np.sum(squares * counts) if penalty.by_count else np.sum(squares))


@dataclass(frozen=True, kw_only=True)
class ALS(RidgeRecipe[Arrays]):
    """Matrix factorization with biases by alternating least squares.

    See the head of this module for the objective. The defaults suit some 10⁵ ratings on a five-star scale;
    ``regularization`` is in units of squared ratings, so it grows with the square of the scale.

    Raises:
        ParameterError: A field is outside its range.
    """

    name: ClassVar[str] = "als"
    distributed: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "factors": Range(4, 64, whole=True),
        "regularization": Range(2, 60, power=1),
        "bias_regularization": Range(0.5, 30),
    }

    bias_update: str = param("joint", "joint: bias and factors in one solve; separate: one after the other",
                             choices=("joint", "separate"))  # fmt: skip
    solver: str = param("exact", "cg, block: approximate sweeps, faster where factors are 256 or more",
                        choices=("exact", "cg", "block"))  # fmt: skip
    epochs: int = param(15, "passes over both sides", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    seed: int = param(0, "of the random start", low=0)
    dtype: str = param("float32", "precision of the factors", choices=("float32", "float64"))

    def start(self, ratings: RatingsTable) -> Arrays:
        """Item factors from N(0, 1/K), biases 0, and the users' best rows for these."""
        items = self.random_items(ratings, self.factors, self.seed, self.dtype)
        users = np.zeros((ratings.n_users, items.shape[1]), self.dtype)
        return {"user_rows": self._solve(ratings, users, items, users=True)[0], "item_rows": items}

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """Items given the users, then users given the new items: the users always fit the items exactly."""
        items, singular_items = self._solve(ratings, arrays["item_rows"], arrays["user_rows"], users=False)
        users, singular_users = self._solve(ratings, arrays["user_rows"], items, users=True)
        made = {"user_rows": users, "item_rows": items}
        return Epoch(made, self.record(ratings, made, singular_items + singular_users))

    def _solve(self, ratings: RatingsTable, factors: Array, fixed: Array, *, users: bool) -> tuple[Array, int]:
        """New rows of one side, from these ``factors``, given the ``fixed`` ones."""
        rows, side = ratings.by_user if users else ratings.by_item, self.side
        intercepts = side.intercepts(self.offset(ratings))
        if self.bias_update == "joint" or not self.biases:
            return local.update(self.solver, rows, factors, fixed, side.penalty, intercepts, self.n_jobs)
        step = local.SeparateUpdate(fixed, intercepts, side.penalty, self.solver, factors=factors)
        return run(rows, step, self.n_jobs)

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """The users' joint and exact solution; exact joint updates end on it already."""
        if self.solver == "exact" and (not self.biases or self.bias_update == "joint"):
            return arrays
        return {**arrays, "user_rows": self.sweep(ratings, arrays["item_rows"], users=True)[0]}
