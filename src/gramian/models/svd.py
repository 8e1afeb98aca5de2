r"""The singular value decomposition: the best approximation of rank K of a matrix that has no holes.

Ratings do have holes, so something must stand in them. With X the matrix so filled,

.. math::
    X = U S V^\top, \qquad X_K = \sum_{k \le K} s_k\, u_k v_k^\top, \qquad
    \|X - X_K\|_F^2 = \sum_{k > K} s_k^2 \le \|X - Y\|_F^2 \ \text{ for every } Y \text{ of rank } K

(Eckart & Young 1936). With S absorbed into U this is the factor model: :math:`W = US = XV`, and the item factors
are the rows of V. What X is, with :math:`t_{ij}` for the pairs in Ω:

=========  ====================================  ==========================
impute     where there is a rating               where there is none
=========  ====================================  ==========================
zero       :math:`r_{ij}`                        0
mean       :math:`r_{ij}`                        the item's mean :math:`m_j`
biases     :math:`r_{ij} - \mu - b_i - c_j`      0
=========  ====================================  ==========================

With ``"biases"`` the predictions are :math:`\mu + b_i + c_j + w_i^\top v_j`, μ, b and c those of the baseline. X is
never formed: it is a sparse matrix, plus :math:`1 m^\top` under ``"mean"``, and only ever multiplied with vectors
(:mod:`gramian.kernels.linear.lanczos`, on :math:`X^\top X`).

Somebody new is projected: :math:`w = V^\top x`, with x their ratings filled in the same way. A user who rated nothing
is :math:`x = m` under ``"mean"``, and is predicted :math:`V V^\top m`; so that, less μ, is the items' bias in the
model, and :attr:`user_factors` holds :math:`V^\top (x_i - m)`.

Sources: Sarwar, Karypis, Konstan & Riedl 2000 (the item's mean in the holes); Wu & Simon 2000 (the solver).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import Range, check_number, param
from gramian.data.table import RatingsTable
from gramian.engine import local, products
from gramian.engine.rows import Intercepts, Penalty
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.models.factor_model import SideSettings, checked_rows
from gramian.models.model import check_ratings_given
from gramian.models.recipe import Epoch, Recipe
from gramian.models.residual import CentredModel, baseline_rows, remainder

__all__ = ["SVD", "SVDModel"]

# Eigenvalues of XᵀX below this share of the first are rounding: their vectors would be any at all.
SMALLEST = 1e-13
# Residuals, as a share of the first eigenvalue, from which on nothing is left to gain.
CONVERGED = 1e-12


@dataclass(frozen=True, kw_only=True)
class SVD(Recipe["SVDModel"]):
    """Truncated singular value decomposition of the filled ratings.

    See the head of this module for the matrix. One epoch is one cycle of the Lanczos method, some K + 10
    multiplications with XᵀX; once all K singular values have converged, the epochs left cost nothing. The matrix
    has at most min(N, M) singular values; where ``factors`` asks for more, those beyond (and any that are 0 to
    rounding, below 3·10⁻⁷ of the first) are 0, and so are their columns: the approximation is then exact.

    Memory is (K + users + items)·K, never users × items.

    Raises:
        ParameterError: A field is outside its range.
    """

    name: ClassVar[str] = "svd"
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {
        "factors": Range(1, 64, whole=True),
        "bias_regularization": Range(0.5, 30),
    }

    factors: int = param(12, "singular values K; for prediction few are best, as nothing is regularized", low=1,
                         high=512)  # fmt: skip
    impute: str = param("biases", "biases: SVD of what mean and biases leave; mean: of the matrix with the items' "
                        "means in its holes; zero: with zeros", choices=("biases", "mean", "zero"))  # fmt: skip
    bias_regularization: float = param(4.0, "λ on the biases, under impute=biases", low=0)
    epochs: int = param(8, "cycles of the solver at most; those after convergence cost nothing", low=1)
    dtype: str = param("float32", "precision of the model; the solver works in float64", choices=("float32", "float64"))
    n_jobs: int | None = param(None, "threads; all cores if not given", low=1, optional=True)

    def start(self, ratings: RatingsTable) -> Arrays:
        """The biases where they are needed, and no vector yet."""
        from gramian.kernels.linear import lanczos

        arrays = lanczos.begin(ratings.n_items)._asdict()
        if self.impute == "biases":
            arrays["item_biases"] = baseline_rows(ratings, self.bias_regularization, self.dtype, self.n_jobs)
        return arrays

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """One cycle of the solver, unless it has converged."""
        pairs = {name: arrays[name] for name in ("values", "vectors", "residuals", "following")}
        total = self.total(ratings, arrays)
        if not _converged(pairs, self.factors):
            pairs = self._cycle(ratings, arrays, pairs)
        made = {**arrays, **pairs}
        found = float(pairs["values"][: self.factors].sum())
        rows = self.finish(ratings, made)
        intercepts = Intercepts(self.impute != "zero", self._mean(ratings))
        squared = local.squared_errors(ratings.by_user, rows["user_rows"], rows["item_rows"], intercepts, self.n_jobs)
        record: dict[str, float | int] = {
            "objective": max(total - found, 0.0),
            "train_rmse": float(np.sqrt(squared / len(ratings))),
            "explained": found / total if total > 0 else 0.0,
        }
        return Epoch(made, record)

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """The right singular vectors as item rows, and what the users' ratings project to."""
        V, offsets = self._vectors(arrays), self._offsets(ratings, arrays)
        if self.impute == "zero":
            items = V
        else:
            last = arrays["item_biases"] if self.impute == "biases" else _projected(V, offsets) - ratings.global_mean
            items = np.column_stack([V, last]).astype(self.dtype)
        return {"user_rows": self._made(ratings, items[:0], items, offsets).solved(ratings.by_user), "item_rows": items}

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> SVDModel:
        """The model of these rows."""
        users, items = checked_rows(self, ratings, arrays, self.factors + (self.impute != "zero"))
        biases = {"item_biases": items[:, -1]} if self.impute == "biases" else {}
        return self._made(ratings, users, items, self._offsets(ratings, biases), history)

    def _made(
        self, ratings: RatingsTable, users: Array, items: Array, offsets: Array, history: History | None = None
    ) -> SVDModel:
        biased, width = self.impute != "zero", items.shape[1]
        side = SideSettings(biased, Penalty(np.zeros((width, width))), centred=biased, n_jobs=self.n_jobs)
        bias = self.bias_regularization if self.impute == "biases" else None
        return SVDModel(self, ratings, history or History(), users, items, self._mean(ratings), side, offsets, bias)

    def _mean(self, ratings: RatingsTable) -> float:
        return ratings.global_mean if self.impute != "zero" else 0.0

    def _offsets(self, ratings: RatingsTable, arrays: Arrays) -> Array:
        """What is taken from an item's ratings, (M,): nothing, the item's mean, or μ + c."""
        if self.impute == "zero":
            return np.zeros(ratings.n_items, self.dtype)
        if self.impute == "biases":
            return (np.float64(ratings.global_mean) + arrays["item_biases"]).astype(self.dtype)
        return _item_means(ratings).astype(self.dtype)

    def total(self, ratings: RatingsTable, arrays: Arrays) -> float:
        """‖X‖²_F."""
        if self.impute == "zero":
            return float(np.sum(np.square(ratings.values, dtype=np.float64)))
        offsets = self._offsets(ratings, arrays)
        if self.impute == "biases":
            left, _ = remainder(ratings.to_local().by_user, offsets, self.bias_regularization, self.n_jobs)
            return float(np.sum(np.square(left.values, dtype=np.float64)))
        holes = ratings.n_users - ratings.by_item.counts
        return float(np.sum(np.square(ratings.values, dtype=np.float64)) + holes @ np.square(offsets, dtype=np.float64))

    def _cycle(self, ratings: RatingsTable, arrays: Arrays, pairs: Arrays) -> Arrays:
        from gramian.kernels.linear import lanczos

        offsets = self._offsets(ratings, arrays)
        bias = self.bias_regularization if self.impute == "biases" else None
        by_user, biases = remainder(ratings.to_local().by_user, offsets, bias, self.n_jobs)
        by_item = ratings.to_local().by_item
        rest = by_item.values - offsets[by_item.row_codes()]
        by_item = by_item._replace(values=rest if biases is None else rest - biases[by_item.indices])
        fill = offsets.astype(np.float64) if self.impute == "mean" else None

        def apply(v: Array) -> Array:
            """XᵀX v, with X = S + 1mᵀ where the means fill the holes."""
            left = products.sparse_product(by_user, v, n_jobs=self.n_jobs)
            if fill is None:
                return products.sparse_product(by_item, left, n_jobs=self.n_jobs)
            left += _dot(fill, v)
            return products.sparse_product(by_item, left, n_jobs=self.n_jobs) + fill * np.sum(left)

        size = min(ratings.n_items, 2 * self.factors + 20)
        return lanczos.cycle(apply, lanczos.EigenPairs(**pairs), size, min(size, self.factors + size // 4))._asdict()

    def _vectors(self, arrays: Arrays) -> Array:
        """V, (M, K): columns of unit length whose largest entry is positive, or zero where there is no more."""
        values, vectors = arrays["values"][: self.factors], arrays["vectors"][: self.factors]
        peaks = vectors[np.arange(len(vectors)), np.argmax(np.abs(vectors), axis=1)]
        signs = np.where(peaks < 0, -1.0, 1.0) * (values > SMALLEST * values[0])
        V = np.zeros((vectors.shape[1], self.factors), self.dtype)
        V[:, : len(vectors)] = (vectors * signs[:, None]).T
        return V


def _converged(pairs: Arrays, factors: int) -> bool:
    """Whether the leading pairs are as good as they get: a basis of all items leaves no residual."""
    residuals, values = pairs["residuals"][:factors], pairs["values"]
    enough = len(values) >= min(factors, pairs["vectors"].shape[1])
    return bool(len(values) and enough and residuals.max() <= CONVERGED * values[0])


def _item_means(ratings: RatingsTable) -> Array:
    """m, (M,), float64; μ for an item that nobody rated."""
    rows = ratings.to_local().by_item
    sums = np.bincount(rows.row_codes(), rows.values, minlength=ratings.n_items)
    return np.where(rows.counts > 0, sums / np.maximum(rows.counts, 1), ratings.global_mean)


def _dot(a: Array, b: Array) -> float:
    """aᵀb in a fixed order, which a threaded BLAS does not keep."""
    return float(np.sum(a * b))


def _projected(V: Array, offsets: Array) -> Array:
    """V Vᵀm, (M,), float64."""
    V = V.astype(np.float64)
    return np.einsum("mk,k->m", V, _fill_row(V, offsets))


def _fill_row(V: Array, offsets: Array) -> Array:
    """Vᵀm, (K,): the row of somebody who rated nothing."""
    return np.einsum("mk,m->k", V.astype(np.float64), offsets.astype(np.float64))


@dataclass(frozen=True, eq=False, repr=False)
class SVDModel(CentredModel):
    """A truncated singular value decomposition; its item factors are the right singular vectors."""

    def _factors(self, left: CSR, items: Array) -> Array:
        return products.sparse_product(left, items, n_jobs=self.settings.n_jobs)

    def _influence(self, rated: Array, target: Array) -> Array:
        return np.einsum("mk,k->m", self.item_factors[rated], target)

    @property
    def _imputed(self) -> SVD:
        assert isinstance(self.recipe, SVD)
        return self.recipe

    @property
    def right_vectors(self) -> Array:
        """V, (M, K): orthonormal columns, or zero ones beyond the rank."""
        return self.item_factors

    @property
    def left_factors(self) -> Array:
        """US = XV, (N, K), float64: S absorbed into the left side."""
        W = self.user_factors.astype(np.float64)
        return W + _fill_row(self.item_factors, self.offsets) if self._imputed.impute == "mean" else W

    @property
    def singular_values(self) -> Array:
        """s, (K,), float64, largest first; 0 beyond the rank."""
        W = self.left_factors
        return np.sqrt(np.einsum("nk,nk->k", W, W))

    @property
    def left_vectors(self) -> Array:
        """U, (N, K): orthonormal columns, or zero ones beyond the rank."""
        W, s = self.left_factors, self.singular_values
        return np.divide(W, s, out=np.zeros_like(W), where=s > 0)

    @property
    def explained_variance_ratio(self) -> Array:
        """s² / ‖X‖²_F, (K,): each component's share of the filled matrix's sum of squares."""
        biases = {"item_biases": self.item_rows[:, -1]} if self._imputed.impute == "biases" else {}
        total = self._imputed.total(self.ratings, biases)
        return self.singular_values**2 / total if total > 0 else np.zeros(self.n_factors)

    def low_rank(self, k: int) -> SVDModel:
        """The model of the leading ``k`` singular values: the best approximation of that rank.

        Raises:
            ParameterError: ``k`` is not from 1 to K.
        """
        check_number("k", k, low=1, high=self.n_factors, whole=True, owner="low_rank")
        recipe = dataclasses.replace(self._imputed, factors=k)
        users, items = (
            np.column_stack([rows[:, :k], rows[:, self.n_factors :]]) for rows in (self.user_rows, self.item_rows)
        )
        if recipe.impute == "mean":
            items[:, -1] = _projected(items[:, :k], self.offsets) - self.global_mean
        return recipe.model(self.ratings, {"user_rows": users, "item_rows": items}, self.history)

    def update(self, new: RatingsTable) -> SVDModel:
        """The model of these and the ``new`` ratings together; known ids keep their codes.

        Every entry of X takes part in every singular vector, so this is a fresh decomposition, in seconds.
        """
        check_ratings_given(new, "update")
        return self._imputed.fit(self.ratings.merge(new))
