r"""Models of the form :math:`\hat r_{ij} = \mu + b_i + c_j + w_i^\top u_j`, however they were trained.

A side is one array of shape (rows, D): K factors and, with biases, the bias as the last column. A new user is
*folded in* by one row of the half-sweep against the item rows, the very function that training uses.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import polars as pl

from gramian.core.file_format import Arrays, checked_arrays
from gramian.core.parameters import check_number
from gramian.data.ids import Codes, Id
from gramian.data.table import RatingsTable
from gramian.engine import local
from gramian.engine.rows import Intercepts, Penalty, Rows
from gramian.errors import ParameterError
from gramian.kernels import reference
from gramian.kernels.arrays import Array
from gramian.kernels.csr import one_row
from gramian.models.capabilities import Capabilities
from gramian.models.fold_in import FoldingModel
from gramian.models.model import check_ratings_given
from gramian.models.selection import contribution_table, item_table, top_n
from gramian.models.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "FactorModel", "LatentFeatures", "SideSettings", "checked_rows"]

# Pairs are scored in pieces of this many, so that gathered rows stay small.
PIECE = 1 << 16


@dataclass(frozen=True)
class SideSettings:
    """How rows are solved: is the last column a bias, the prior, is μ subtracted first, and the threads."""

    biased: bool
    penalty: Penalty
    centred: bool
    n_jobs: int | None = None

    def intercepts(self, offset: float) -> Intercepts:
        """What a prediction has beside wᵀu, with this μ."""
        return Intercepts(self.biased, offset)


class LatentFeatures(NamedTuple):
    """WUᵀ = users · itemsᵀ with columns that mean something; see :attr:`FactorModel.features`."""

    users: Array
    items: Array


@dataclass(frozen=True)
class Explanation:
    """A prediction taken apart; the parts sum to :attr:`prediction`, which is not clipped.

    Attributes:
        prediction: μ + user bias + item bias + the sum of the contributions + rest.
        global_mean: μ.
        user_bias: How far this user's ratings lie from the rest, all else equal.
        item_bias: The same for the item.
        rest: What else there is: the mean of the prior, where a model has one, and the finite number of draws.
        contributions: A table of ``item``, ``rating``, ``contribution`` (and ``title``): what each item that
            the user rated adds to or takes from the prediction through the factors, strongest first.
    """

    user: Id
    item: Id
    prediction: float
    global_mean: float
    user_bias: float
    item_bias: float
    contributions: pl.DataFrame
    rest: float = 0.0

    def __str__(self) -> str:
        factors = self.contributions["contribution"].sum()
        rest = f" {self.rest:+.3f} rest" if self.rest else ""
        return (
            f"user {self.user!r}, item {self.item!r}: {self.prediction:.3f} = mean {self.global_mean:.3f} "
            f"{self.user_bias:+.3f} user {self.item_bias:+.3f} item {factors:+.3f} from "
            f"{self.contributions.height} rated items{rest}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class FactorModel(FoldingModel):
    """A trained factor model.

    Attributes:
        user_rows: (N, D), float32 or float64.
        item_rows: (M, D).
        global_mean: μ of the training ratings (0 where the recipe does not subtract it).
        settings: How a row is solved, for fold-in.
    """

    user_rows: Array
    item_rows: Array
    global_mean: float
    settings: SideSettings

    def __post_init__(self) -> None:
        self.user_rows.flags.writeable = self.item_rows.flags.writeable = False

    # ---- the parts by their usual names ---------------------------------------------------------

    @property
    def n_factors(self) -> int:
        """K."""
        return self.item_rows.shape[1] - self.settings.biased

    @property
    def user_factors(self) -> Array:
        """W, (N, K)."""
        return self.user_rows[:, : self.n_factors]

    @property
    def item_factors(self) -> Array:
        """U, (M, K)."""
        return self.item_rows[:, : self.n_factors]

    @property
    def user_biases(self) -> Array:
        """b, (N,); zeros where the recipe has no biases."""
        return self.user_rows[:, -1] if self.settings.biased else np.zeros(len(self.user_rows), self.user_rows.dtype)

    @property
    def item_biases(self) -> Array:
        """c, (M,); zeros where the recipe has no biases."""
        return self.item_rows[:, -1] if self.settings.biased else np.zeros(len(self.item_rows), self.item_rows.dtype)

    @property
    def item_offsets(self) -> Array:
        """What is taken from each item's ratings before the factors see them, (M,): μ + c."""
        return self.item_biases + self.item_rows.dtype.type(self.global_mean)

    def arrays(self) -> Arrays:
        """The parameters by name."""
        return {"user_rows": self.user_rows, "item_rows": self.item_rows}

    @property
    def capabilities(self) -> Capabilities:
        """What can be asked of it."""
        return Capabilities(fold_in=True, explain=True, features=self.n_factors, scores_predict=True)

    @property
    def feature_positions(self) -> Array:
        """The items' weights in the latent features, (M, K)."""
        return self.features.items

    # ---- scoring --------------------------------------------------------------------------------

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """μ + b + c + wᵀu of pairs of codes; an unknown side counts as a row of zeros.

        Without biases an unknown side says nothing: the mean of the training ratings stands in.
        """
        out = np.empty(len(users), self.item_rows.dtype)
        for low in range(0, len(users), PIECE):
            piece = slice(low, low + PIECE)
            out[piece] = self._score_rows(_rows_or_zero(self.user_rows, users[piece]), items[piece])
        if not self.settings.centred:
            out[(users < 0) | (items < 0)] = self.ratings.global_mean
        return out

    def _score_rows(self, user_rows: Array, items: Codes) -> Array:
        """One prediction per user row and item: a sum over K whose rounding does not depend on the others."""
        item_rows = _rows_or_zero(self.item_rows, items)
        K = self.n_factors
        scores = np.einsum("pk,pk->p", user_rows[:, :K], item_rows[:, :K]) + self.item_rows.dtype.type(self.global_mean)
        if self.settings.biased:
            scores += user_rows[:, K] + item_rows[:, K]
        return scores

    def score_block(self, users: Codes) -> Array:
        """All items for some users, by one matrix product."""
        rows = _rows_or_zero(self.user_rows, users)
        scores: Array = rows[:, : self.n_factors] @ self.item_factors.T
        scores += self.item_biases + self.item_rows.dtype.type(self.global_mean)
        if self.settings.biased:
            scores += rows[:, -1:]
        if not self.settings.centred:
            scores[users < 0] = self.ratings.global_mean
        return scores

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in_codes(self, items: Codes, values: Array) -> Array:
        """The row (D,) of a user with these ratings: the half-sweep's solution against the item rows.

        For a training user's own ratings it is that user's row. With no known item it is zero: the user is
        then predicted from the item biases alone.
        """
        return self.solved(one_row(items, values))[0]

    def solved(self, rows: Rows) -> Array:
        """The rows of users with these ratings."""
        return self.rows_given(rows, self.item_rows)

    def with_users(self, ratings: RatingsTable, rows: Array) -> Self:
        """The model as it is for other users, with their ratings and their rows."""
        return dataclasses.replace(self, ratings=ratings, user_rows=rows)

    def rows_given(self, rows: Rows, fixed: Array) -> Array:
        """The rows of one side with these ratings, given those of the other side."""
        s = self.settings
        return local.half_sweep(rows, fixed, s.penalty, s.intercepts(self.global_mean), s.n_jobs)[0]

    def score_row(self, row: Array) -> Array:
        """As of :class:`FoldingModel`."""
        items = np.arange(len(self.item_rows), dtype=np.int32)
        if not row.any():
            return self.score_pairs(np.full(len(items), -1, np.int32), items)
        return self._score_rows(np.broadcast_to(row, (len(items), len(row))), items)

    # ---- looking inside -------------------------------------------------------------------------

    def similar_items(self, item: Id, n: int = 10) -> pl.DataFrame:
        """The items whose factors point the same way: ``item``, ``similarity`` (cosine), ``rank``, ``title``."""
        code = self._one_code(self.item_ids, item, "item")
        best, cosine = self._nearest(self.item_factors, code, n)
        rank = np.arange(1, len(best) + 1, dtype=np.int32)
        return item_table(self.item_ids, best, self.ratings.titles, similarity=cosine, rank=rank)

    def similar_users(self, user: Id, n: int = 10) -> pl.DataFrame:
        """The users whose factors point the same way: ``user``, ``similarity`` (cosine), ``rank``."""
        code = self._one_code(self.user_ids, user, "user")
        best, cosine = self._nearest(self.user_factors, code, n)
        rank = np.arange(1, len(best) + 1, dtype=np.int32)
        return pl.DataFrame({"user": self.user_ids.take(best), "similarity": cosine, "rank": rank})

    def _nearest(self, factors: Array, code: int, n: int) -> tuple[Array, Array]:
        self._need_factors()
        check_number("n", n, low=1, whole=True, owner="similar")
        lengths = np.linalg.norm(factors, axis=1)
        products = np.einsum("mk,k->m", factors, factors[code]).astype(np.float64)
        cosine = np.divide(products, lengths * lengths[code], out=np.zeros(len(factors)), where=lengths > 0)
        cosine[code] = -np.inf
        best = top_n(cosine, n)
        return best, cosine[best]

    @cached_property
    def features(self) -> LatentFeatures:
        """The latent features that the predictions show, strongest first.

        WUᵀ = (WT)(UT⁻ᵀ)ᵀ for any invertible T, so the columns of W and U have no meaning by themselves. These
        are the singular directions of WUᵀ: users' features are uncorrelated and have mean square 1, so an
        item's weight says by how much (root mean square over the users, in units of the ratings) this
        feature moves the item's rating. The sign makes each feature's largest weight positive.
        """
        self._need_factors()
        W, U = self.user_factors.astype(np.float64), self.item_factors.astype(np.float64)
        Q, R = np.linalg.qr(W)
        A, _, _ = np.linalg.svd(R @ np.linalg.qr(U)[1].T)
        users, items = Q @ A * np.sqrt(len(W)), U @ (R.T @ A) / np.sqrt(len(W))
        peaks = items[np.argmax(np.abs(items), axis=0), np.arange(items.shape[1])]
        signs = np.where(peaks < 0, -1.0, 1.0)
        missing = ((0, 0), (0, self.n_factors - len(signs)))  # fewer users than factors
        return LatentFeatures(np.pad(users * signs, missing), np.pad(items * signs, missing))

    def top_items(self, feature: int, n: int = 10, *, lowest: bool = False) -> pl.DataFrame:
        """What does a latent feature mean? Its strongest items: ``item``, ``weight``, ``rank``, ``title``.

        Args:
            feature: 0 … K − 1 of :attr:`features`, 0 the strongest.
            n: How many items.
            lowest: The other end of the feature instead.
        """
        self._need_factors()
        check_number("feature", feature, low=0, high=self.n_factors - 1, whole=True, owner="top_items")
        check_number("n", n, low=1, whole=True, owner="top_items")
        weights = self.features.items[:, feature]
        best = top_n(-weights if lowest else weights, n)
        rank = np.arange(1, len(best) + 1, dtype=np.int32)
        return item_table(self.item_ids, best, self.ratings.titles, weight=weights[best], rank=rank)

    def plot_item_map(self, path: str | os.PathLike[str] | None = None, *, labels: int = 60) -> Figure:
        """Draw the items along the two leading features, the ``labels`` most rated ones with their titles."""
        from gramian.visuals.figures import item_map

        positions = self.features.items[:, :2]
        if positions.shape[1] == 1:
            positions = np.column_stack([positions, self.item_biases])
        counts = self.ratings.by_item.counts
        popular = np.argsort(-counts, kind="stable")[:labels]
        titles = self.ratings.titles
        names = self.item_ids.take(popular).cast(pl.String)
        if titles is not None:
            names = titles.gather(popular).fill_null(names)
        return item_map(positions, counts, names.to_list(), popular, path)

    def explain(self, user: Id, item: Id) -> Explanation:
        r"""Take a prediction apart exactly.

        The user's row solves :math:`A_i x_i = \sum_j v_j t_j`, so
        :math:`w_i^\top u = \sum_j (u^\top A_i^{-1} v_j)\, t_j`: one term for each item *j* that the user rated.

        Raises:
            UnknownIdError: The user or the item is not in the training ratings.
        """
        i, j = self._one_code(self.user_ids, user, "user"), self._one_code(self.item_ids, item, "item")
        rated, values = self.ratings.by_user.row(i)
        terms = self.reasons_for(rated, values, j)
        table = contribution_table(self.item_ids, rated, self.ratings.titles, values, terms)
        user_bias, item_bias = float(self.user_biases[i]), float(self.item_biases[j])
        prediction = self.global_mean + user_bias + item_bias + float(terms.sum())
        return Explanation(user, item, prediction, self.global_mean, user_bias, item_bias, table)

    def reasons_for(self, rated: Codes, values: Array, item: int) -> Array:
        """What each rated item adds to wᵀu of an item."""
        target = self.item_rows[item].copy()
        target[self.n_factors :] = 0
        s = self.settings
        return reference.explain_row(
            rated, values, self.item_rows, target, biased=s.biased, offset=self.global_mean,
            precision=s.penalty.precision, by_count=s.penalty.by_count,
        )  # fmt: skip

    def _need_factors(self) -> None:
        if self.n_factors == 0:
            raise ParameterError(
                f"{type(self.recipe).__name__} has no latent features: it has biases only; use ALS or another model."
            )

    # ---- new ratings ----------------------------------------------------------------------------

    def update(self, new: RatingsTable) -> FactorModel:
        """A new model that has also learned from ``new`` ratings, without starting again.

        Known ids keep their codes; new users and items get rows. A pair rated again takes the new rating (the
        later one where both tables have times). New and changed rows are solved first, then every row once
        more on each side: the cost is about one and a half epochs. Times are kept where both tables have them. The
        history stays that of the training.
        """
        check_ratings_given(new, "update")
        ratings = self.ratings.merge(new)
        grown = dataclasses.replace(
            self,
            ratings=ratings,
            user_rows=_padded(self.user_rows, ratings.n_users),
            item_rows=_padded(self.item_rows, ratings.n_items),
            global_mean=ratings.global_mean if self.settings.centred else 0.0,
        )
        users = grown.rows_given(ratings.by_user, grown.item_rows)
        items = grown.rows_given(ratings.by_item, users)
        users = grown.rows_given(ratings.by_user, items)
        return dataclasses.replace(grown, user_rows=users, item_rows=items)


def checked_rows(recipe: Settings, ratings: RatingsTable, arrays: Arrays, width: int) -> tuple[Array, Array]:
    """``user_rows`` and ``item_rows`` of a file, or FormatError where they cannot belong to this model."""
    shapes = {"user_rows": (ratings.n_users, width), "item_rows": (ratings.n_items, width)}
    made = checked_arrays(recipe.name, arrays, shapes, (np.float32, np.float64))
    return made["user_rows"], made["item_rows"]


def _rows_or_zero(rows: Array, codes: Codes) -> Array:
    """The rows of ``codes``, zeros for −1."""
    taken: Array = rows[codes]
    if len(codes) and int(codes.min()) < 0:
        taken[codes < 0] = 0
    return taken


def _padded(rows: Array, count: int) -> Array:
    return np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]), rows.dtype)])
