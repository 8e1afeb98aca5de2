r"""SoftImpute: the singular value decomposition that works with missing values.

It fits the ratings that exist, and only those, and pays for the sum of the singular values (the nuclear norm):

.. math::
    J(Z) = \tfrac12 \|P_\Omega(X - Z)\|_F^2 + \lambda \|Z\|_*, \qquad \|Z\|_* = \sum_k s_k(Z)

with X the ratings less the offsets. J is convex. Its minimum is where filling the holes with Z itself and
shrinking the singular values by λ gives Z back,

.. math::
    Z = S_\lambda\big(P_\Omega(X) + P_\Omega^\perp(Z)\big), \qquad S_\lambda(U D V^\top) = U (D - \lambda)_+ V^\top

and iterating this is the method of Mazumder, Hastie & Tibshirani 2010
(:func:`gramian.kernels.reference.soft_impute`). With :math:`Z = A B^\top`, A and B of ``factors`` columns,

.. math::
    \lambda \|Z\|_* = \min_{A B^\top = Z} \tfrac\lambda2\left(\|A\|_F^2 + \|B\|_F^2\right)

reached where the two sides are *balanced*: :math:`A = U D^{1/2}, B = V D^{1/2}`. So an epoch here balances, solves all
items, balances, and solves all users, each exactly, by the half-sweep; J never rises, and ends at the same Z
wherever that has no more than ``factors`` singular values. (Hastie, Mazumder, Lee & Zadeh 2015 alternate the same
two sides, and fill the holes before each step instead.)

The start is the plain decomposition with 0 in the holes. The first ``path`` epochs go down from its first singular
value, at which Z = 0, to λ in equal ratios, each from where the one before ended (warm starts). J is recorded at
each epoch's own λ; lowering λ lowers J too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import Range, param
from gramian.data.table import RatingsTable
from gramian.engine import local, products
from gramian.engine.rows import NO_INTERCEPTS, Penalty
from gramian.errors import FormatError
from gramian.kernels import reference
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.factor_model import SideSettings, checked_rows
from gramian.models.model import check_ratings_given
from gramian.models.recipe import Epoch, Recipe
from gramian.models.residual import CentredModel, baseline_rows, remainder

__all__ = ["SoftImpute", "SoftImputeModel"]


@dataclass(frozen=True, kw_only=True)
class SoftImpute(Recipe["SoftImputeModel"]):
    """Matrix completion with the nuclear norm, along a warm-started path of shrinkages.

    See the head of this module for the objective. With validation ratings and ``patience`` the path stops where the
    validation error does, so it is a search for the shrinkage too; the model of an epoch has that epoch's λ.

    Raises:
        ParameterError: A field is outside its range.
    """

    name: ClassVar[str] = "softimpute"
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "factors": Range(8, 64, whole=True),
        "shrinkage": Range(3, 40, power=1),
        "bias_regularization": Range(0.5, 30),
    }

    factors: int = param(32, "the most singular values K; the shrinkage decides how many are not 0", low=1,
                         high=512)  # fmt: skip
    shrinkage: float = param(12.0, "λ, taken off every singular value; raise it when validation error rises", low=0)
    path: int = param(5, "epochs on the way down to the shrinkage", low=1)
    centre: str = param("biases", "what is taken from the ratings first: mean and biases, or the mean alone",
                        choices=("biases", "mean"))  # fmt: skip
    bias_regularization: float = param(4.0, "λ on the biases, under centre=biases", low=0)
    epochs: int = param(30, "passes over both sides, those of the path included", low=1)
    patience: int | None = param(None, "stop after so many epochs without a better validation error", low=1,
                                 optional=True)  # fmt: skip
    dtype: str = param("float32", "precision of the factors", choices=("float32", "float64"))
    n_jobs: int | None = param(None, "threads; all cores if not given", low=1, optional=True)

    def start(self, ratings: RatingsTable) -> Arrays:
        """The leading singular vectors with 0 in the holes, and the biases."""
        from gramian.kernels.linear import lanczos

        biases = {}
        if self.centre == "biases":
            biases["item_biases"] = baseline_rows(ratings, self.bias_regularization, self.dtype, self.n_jobs)
        by_user, by_item = self.residuals(ratings, biases)

        def apply(v: Array) -> Array:
            return products.sparse_product(
                by_item, products.sparse_product(by_user, v, n_jobs=self.n_jobs), n_jobs=self.n_jobs
            )

        size = min(ratings.n_items, 2 * self.factors + 20)
        pairs = lanczos.cycle(apply, lanczos.begin(ratings.n_items), size, min(size, self.factors))
        values = np.sqrt(pairs.values)
        items = np.zeros((ratings.n_items, self.factors), self.dtype)
        # No column begins at 0, where it would stay.
        items[:, : len(values)] = pairs.vectors.T * np.sqrt(np.maximum(values, 1e-2 * values[0]))
        arrays = {"item_factors": items, "largest": values[:1], "shrinkage": values[:1], **biases}
        return {**arrays, "user_factors": self.sweep(by_user, items, self._shrinkage(values[0], 1))}

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """Balance, items given the users; balance, users given the items."""
        shrinkage = self._shrinkage(float(arrays["largest"][0]), number)
        made = self.next_rows(ratings, arrays, shrinkage)
        users, items = made["user_factors"], made["item_factors"]
        rows = self.residuals(ratings, arrays)[0]
        squared = local.squared_errors(rows, users, items, NO_INTERCEPTS, self.n_jobs)
        record = {
            "objective": squared / 2 + shrinkage * float(_balanced(users, items)[2].sum()),
            "train_rmse": float(np.sqrt(squared / len(ratings))),
            "shrinkage": shrinkage,
        }
        return Epoch({**arrays, **made}, record)

    def next_rows(self, ratings: RatingsTable, arrays: Arrays, shrinkage: float) -> Arrays:
        """The rows of both sides after one more epoch at this shrinkage."""
        by_user, by_item = self.residuals(ratings, arrays)
        users, _, _ = _balanced(arrays["user_factors"], arrays["item_factors"])
        _, items, _ = _balanced(users, self.sweep(by_item, users, shrinkage))
        return {
            "user_factors": self.sweep(by_user, items, shrinkage),
            "item_factors": items,
            "shrinkage": np.array([shrinkage]),
        }

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """The rows of both sides, the biases with them."""
        users, items = arrays["user_factors"], arrays["item_factors"]
        if self.centre == "biases":
            _, biases = remainder(ratings.to_local().by_user, *self._offsets(ratings, arrays), self.n_jobs)
            assert biases is not None
            users, items = np.column_stack([users, biases]), np.column_stack([items, arrays["item_biases"]])
        return {"user_rows": users, "item_rows": items, "shrinkage": arrays["shrinkage"]}

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> SoftImputeModel:
        """The model of these rows and this shrinkage."""
        biased = self.centre == "biases"
        users, items = checked_rows(self, ratings, arrays, self.factors + biased)
        found = arrays.get("shrinkage")
        if found is None or found.shape != (1,) or not np.isfinite(found).all() or found[0] < 0:
            raise FormatError(f"The shrinkage of {self.name} is missing or no number from 0; use another copy.")
        penalty = Penalty(float(found[0]) * np.eye(items.shape[1]))
        side = SideSettings(biased, penalty, centred=True, n_jobs=self.n_jobs)
        offsets, bias = self._offsets(ratings, {"item_biases": items[:, -1]})
        return SoftImputeModel(self, ratings, history, users, items, ratings.global_mean, side, offsets, bias)

    def _shrinkage(self, largest: float, number: int) -> float:
        """λ of an epoch: from the first singular value down to the shrinkage asked for, in equal ratios."""
        low = max(self.shrinkage, 1e-3 * largest)
        if number >= self.path or low >= largest:
            return self.shrinkage
        return float(largest * (low / largest) ** (number / self.path))

    def _offsets(self, ratings: RatingsTable, arrays: Arrays) -> tuple[Array, float | None]:
        """What is taken from an item's ratings, (M,), and λ_b of the users' biases."""
        if self.centre == "mean":
            return np.full(ratings.n_items, ratings.global_mean, self.dtype), None
        return (np.float64(ratings.global_mean) + arrays["item_biases"]).astype(self.dtype), self.bias_regularization

    def residuals(self, ratings: RatingsTable, arrays: Arrays) -> tuple[CSR, CSR]:
        """P_Ω(X) by users and by items: what the offsets leave."""
        offsets, bias = self._offsets(ratings, arrays)
        by_user, biases = remainder(ratings.to_local().by_user, offsets, bias, self.n_jobs)
        rows = ratings.to_local().by_item
        rest = rows.values - offsets[rows.row_codes()]
        return by_user, rows._replace(values=rest if biases is None else rest - biases[rows.indices])

    def sweep(self, rows: CSR, fixed: Array, shrinkage: float) -> Array:
        """The best rows of one side for the residuals of the ratings, given the other side."""
        penalty = Penalty(shrinkage * np.eye(fixed.shape[1]))
        return local.half_sweep(rows, fixed, penalty, NO_INTERCEPTS, self.n_jobs)[0]


def _balanced(users: Array, items: Array) -> tuple[Array, Array, Array]:
    """The same A Bᵀ with AᵀA = BᵀB diagonal, and that diagonal: the singular values of A Bᵀ, largest first.

    With P D² Pᵀ the eigen-decomposition of G_A^½ G_B G_A^½ (G = AᵀA, BᵀB) it is A T and B T⁻ᵀ, for
    T = G_A^-½ P D^½. What is 0 to rounding is held above 0, so that T can be inverted and ABᵀ is kept in any case.
    """
    from gramian.kernels.linear import dense

    left, right = dense.gram(users), dense.gram(items)
    values, Q = dense.eigen(left)
    roots = np.sqrt(np.maximum(values, max(1e-12 * values[0], np.finfo(np.float32).tiny)))
    root, inverse = (np.einsum("ki,k,kj->ij", Q, r, Q) for r in (roots, 1 / roots))
    middle = np.einsum("ij,jk,kl->il", root, right, root)
    squares, P = dense.eigen((middle + middle.T) / 2)
    floor = np.maximum(squares, max(1e-24 * squares[0], np.finfo(np.float32).tiny)) ** 0.25
    T, back = np.einsum("ij,kj->ik", inverse, P) * floor, np.einsum("ij,kj->ik", root, P) / floor
    return dense.times(users, T), dense.times(items, back), np.sqrt(squares)


@dataclass(frozen=True, eq=False, repr=False)
class SoftImputeModel(CentredModel):
    """A completed matrix of few singular values."""

    def arrays(self) -> Arrays:
        """The parameters by name."""
        return {**super().arrays(), "shrinkage": np.array([self.shrinkage])}

    @property
    def shrinkage(self) -> float:
        """λ of this model's epoch."""
        return float(self.settings.penalty.precision[0, 0])

    @property
    def singular_values(self) -> Array:
        """The singular values of Z = ABᵀ, (K,), float64, largest first."""
        return _balanced(self.user_factors, self.item_factors)[2]

    def _factors(self, left: CSR, items: Array) -> Array:
        penalty = Penalty(self.settings.penalty.precision[: self.n_factors, : self.n_factors])
        return local.half_sweep(left, items, penalty, NO_INTERCEPTS, self.settings.n_jobs)[0]

    def _influence(self, rated: Array, target: Array) -> Array:
        penalty = self.settings.penalty.precision[: self.n_factors, : self.n_factors]
        ones = np.ones(len(rated), np.float32)
        return reference.explain_row(
            rated, ones, self.item_factors, target, biased=False, offset=0.0, precision=penalty, by_count=False
        )

    def update(self, new: RatingsTable) -> SoftImputeModel:
        """A new model that has also learned from ``new`` ratings: new biases, then one epoch from the rows so far.

        Known ids keep their codes; new users and items get rows. The history stays that of the training.
        """
        check_ratings_given(new, "update")
        recipe, ratings = self.recipe, self.ratings.merge(new)
        assert isinstance(recipe, SoftImpute)
        arrays: Arrays = {}
        if recipe.centre == "biases":
            arrays["item_biases"] = baseline_rows(ratings, recipe.bias_regularization, recipe.dtype, recipe.n_jobs)
        items = np.zeros((ratings.n_items, self.n_factors), self.item_rows.dtype)
        items[: len(self.item_rows)] = self.item_factors
        users = recipe.sweep(recipe.residuals(ratings, arrays)[0], items, self.shrinkage)
        arrays |= {"user_factors": users, "item_factors": items}
        made = recipe.next_rows(ratings, arrays, self.shrinkage)
        return recipe.finished(ratings, {**arrays, **made}, self.history)
