r"""What is known of a row beforehand: features f whose coefficients β move the mean of its prior (Macau).

.. math::
    x_i \sim N(m + \beta^\top f_i,\ \Lambda^{-1}), \qquad
    \beta_{f\cdot} \sim N\big(0,\ (\lambda_{g(f)}\Lambda)^{-1}\big), \qquad \lambda_g \sim \text{Gamma}(1, 1)

for each of the features, which come in groups *g* of a precision each. With R = X - Fβ (row by row), n rows, F_g
features in a group and D columns, the full conditionals are

.. math::
    \Lambda, m \mid \beta &\sim \text{Normal–Wishart of the rows } R, \text{ with }
        \textstyle\sum_g F_g \text{ degrees of freedom and } \sum_f \lambda_{g(f)} \beta_f\beta_f^\top
        \text{ more, for the prior of β has Λ in it too} \\
    \beta \mid m, \Lambda, \lambda &\sim \text{MN}\big(H^{-1}F^\top(X - 1m^\top),\ H^{-1},\ \Lambda^{-1}\big),
        \qquad H = F^\top F + \operatorname{diag}(\lambda) \\
    \lambda_g \mid \beta, \Lambda &\sim \text{Gamma}\big(1 + \tfrac12 F_g D,\
        1 + \tfrac12 \textstyle\sum_{f \in g} \beta_f^\top \Lambda \beta_f\big)

With :math:`\Lambda = LL^\top` the columns of βL are independent, and the whole of β is drawn by solving

.. math:: H\,(\beta L) = F^\top\big((X - 1m^\top)L + E_1\big) + \operatorname{diag}(\lambda)^{1/2} E_2

with standard normal E₁ (n × D) and E₂ (F × D): the right side has the covariance H, so what solves it has H⁻¹
(*noise injection*). By a Cholesky factor of H where the features are at most ``EXACT_LIMIT``; else by conjugate
gradient on the sparse F, in as many unknowns as there are features or rows, whichever are fewer
(:mod:`gramian.engine.ridge`): H is never formed.

Where a row has no ratings, its prior is all that is known of it. Of features that are not known, f is the mean
:math:`\bar f` over the rows in training, and the covariance has :math:`\operatorname{Cov}(\beta^\top f)` of those rows
as well: an id in no table may have any of them; one in a table, or somebody new with ratings, any of the rest.

Source: Simm et al. 2015, *Macau: scalable Bayesian multi-relational factorization with side information*.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import Arrays
from gramian.core.lean import Lean
from gramian.data.ids import Codes, Id, Ids
from gramian.data.table import RatingsTable
from gramian.engine import products, ridge
from gramian.errors import DivergenceError, ParameterError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, one_row
from gramian.models.bayes.bundles import Beginning, Chance
from gramian.models.bayes.features import FeatureTable, SideFeatures, Unseen, implicit_sets, side_features
from gramian.models.bayes.state import SIDES, compact
from gramian.models.bayes.terms.term import Knowledge, PriorMean

__all__ = ["Link", "SideInformation", "draw_link", "explained"]

EXACT_LIMIT = 512  # features whose H is factored: 0.05 GFLOP a sweep
STEPS = 200  # of conjugate gradient at most; tens are usual


class Moved(NamedTuple):
    """What is asked of β several times: Fβ, (rows, D); and Σ ββᵀ over each group, (groups, D, D), float64."""

    means: Array
    crosses: Array


class Link(NamedTuple):
    """β, (F, D), and λ of each group; and, while a chain runs, what is asked of this β."""

    coefficients: Array
    ridge: npt.NDArray[np.float64]
    moved: Moved | None = None


def moved(features: SideFeatures, link: Link, n_jobs: int | None = None) -> Moved:
    """What a sweep and the next one ask of its β; found once."""
    if link.moved is not None:
        return link.moved
    edges = np.searchsorted(features.groups, np.arange(len(link.ridge) + 1)).tolist()
    low = np.array([products.moments(link.coefficients[a:b], n_jobs=n_jobs)[1] for a, b in pairwise(edges)])
    return Moved(features.design.times(link.coefficients, n_jobs=n_jobs), low + np.tril(low, -1).swapaxes(1, 2))


def draw_link(features: SideFeatures, rows: Array, mean: Array, root: Array, before: Link, chance: Chance) -> Link:
    """β, then λ, given the rows (n × D), their common mean m, and L."""
    size, (rng, _, n_jobs) = rows.shape[1], chance
    seed = int(rng.integers(2**63))
    Y = ridge.whitened(rows, mean, root, seed, 0, n_jobs=n_jobs)
    E = ridge.noise(features.count, size, rows.dtype, seed, 1, n_jobs=n_jobs)
    if features.count <= EXACT_LIMIT:
        white = _factored(
            features, before.ridge[features.groups], ridge.rows_of(Y, size), ridge.rows_of(E, size), n_jobs
        )
    else:
        white = products.dense_product(before.coefficients, root, n_jobs=n_jobs)
        drawn = ridge.draw(
            features.design, before.ridge, Y, E, white, tolerance=features.tolerance, steps=STEPS, n_jobs=n_jobs
        )
        if drawn is None:
            raise DivergenceError(
                f"The coefficients of {features.count} features were not found in {STEPS} steps of conjugate "
                "gradient; use dtype='float64', or fewer features."
            )
        white = drawn
    link = Link(products.dense_product(white, np.linalg.inv(root), n_jobs=n_jobs), before.ridge)
    asked = moved(features, link, n_jobs)
    lengths = np.einsum("gcd,cd->g", asked.crosses, root @ root.T)
    shapes = 1 + np.bincount(features.groups) * size / 2
    return Link(link.coefficients, rng.gamma(shapes) / (1 + lengths / 2), asked)


def _factored(features: SideFeatures, precisions: Array, Y: Array, E: Array, n_jobs: int | None) -> Array:
    """H⁻¹(FᵀY + Λ^½E), by Cholesky in float64."""
    from scipy.linalg import cho_factor, cho_solve

    known = products.sparse_product(features.transposed, Y.astype(np.float64), n_jobs=n_jobs)
    target = known + np.sqrt(precisions)[:, None] * E
    factor = cho_factor(features.gram + np.diag(precisions), lower=True, check_finite=False)
    return np.asarray(cho_solve(factor, target, check_finite=False)).astype(Y.dtype)


def explained(features: SideFeatures, link: Link, precision: Array, columns: slice) -> Array:
    r"""The shares of the variance of some columns of a side's rows that its features explain: all, then each group.

    .. math::
        \operatorname{tr} \operatorname{Cov}(F_g\beta_g) \big/
        \big(\operatorname{tr} \operatorname{Cov}(F\beta) + \operatorname{tr} \Lambda^{-1}\big),

    the same however the factors are rotated. Groups that go together do not add up to what all explain.
    """
    groups = range(len(link.ridge))
    parts = [link.coefficients] + [
        np.where((features.groups == g)[:, None], link.coefficients, 0) for g in groups if len(groups) > 1
    ]
    shifts = [features.times(part.astype(np.float32))[:, columns] for part in parts]
    by_features = np.array([part.var(axis=0, dtype=np.float64).sum() for part in shifts])
    return by_features / (by_features[0] + float(np.diag(np.linalg.inv(precision))[columns].sum()))


# ---- the term --------------------------------------------------------------------------------------


class KnownFeatures(Knowledge[Link]):
    """The features of one row, some of which may be the mean of all, for they are not known."""

    def __init__(self, row: CSR, lacking: tuple[int, int] | None) -> None:
        self.row, self.lacking = row, lacking

    def mean(self, value: Link) -> Array:
        """βᵀf."""
        beta = value.coefficients[self.row.indices].astype(np.float64)
        return np.asarray(np.einsum("f,fd->d", self.row.values, beta))


@dataclass(frozen=True, eq=False)
class SideInformation(Lean, PriorMean[Link]):
    """Features of the users (0) or the items (1): their sets of ratings, a table, or both.

    Attributes:
        name: One for each side.
        side: Whose.
        sets: Whether the set of a row's ratings is among them.
        table: The table, or None.
        features: Those of the rows in training; of some of them, in a model that is without its ratings.
        known: What is known of rows that were not in training, where it cannot be found from the features.
    """

    settings: ClassVar[Mapping[str, object]] = {"implicit": "none", "user_features": None, "item_features": None}

    name: str
    side: int
    sets: bool
    table: FeatureTable | None
    features: SideFeatures
    known: Unseen | None = None

    @classmethod
    def asked(
        cls, implicit: str, tables: tuple[FeatureTable | None, FeatureTable | None], ratings: RatingsTable
    ) -> list[SideInformation]:
        """The terms of the sides that have sets (``"users"``, ``"items"``, ``"both"``) or a table."""
        made = []
        for side, table in enumerate(tables):
            sets = implicit in (f"{SIDES[side]}s", "both")
            if sets or table is not None:
                features = side_features(table, sets, ratings, side)
                made.append(cls(f"{SIDES[side]}_features", side, sets, table, features))
        return made

    @property
    def n_sets(self) -> int:
        """How many of the features are those of sets."""
        return self.features.count - (0 if self.table is None else len(self.table.names))

    # ---- while sampling -------------------------------------------------------------------------

    def start(self, begin: Beginning) -> Link:
        """No feature matters."""
        link, ridge_ = self.shapes(begin).values()
        return Link(np.zeros(link, begin.dtype), np.ones(ridge_))

    def means(self, value: Link, n_jobs: int | None = None) -> Array:
        """Fβ."""
        return moved(self.features, value, n_jobs).means

    def means_of(self, value: Link, rows: Codes, n_jobs: int | None = None) -> Array:
        """Fβ of some of the rows."""
        return self.features.take(rows).times(value.coefficients, n_jobs)

    def as_rows(self, value: Link, n_jobs: int | None = None) -> tuple[int, Array]:
        """Each feature, at its precision, is a row about the mean 0."""
        return self.features.count, np.einsum("g,gcd->cd", value.ridge, moved(self.features, value, n_jobs).crosses)

    def drawn(self, value: Link, rows: Array, mean: Array, root: Array, chance: Chance) -> Link:
        """β, then λ."""
        return draw_link(self.features, rows, mean, root, value, chance)

    def compacted(self, value: Link, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Link:
        """As of :class:`Term`."""
        return Link(compact(value.coefficients, dtype, n_jobs), value.ridge)

    # ---- new ratings ----------------------------------------------------------------------------

    def rebound(self, ratings: RatingsTable) -> SideInformation:
        """With the features of more rows."""
        return replace(self, features=side_features(self.table, self.sets, ratings, self.side))

    def grown(self, value: Link, before: SideInformation) -> Link:
        """β in float32, with zeros for features that came after those of the sets: of these nothing is known."""
        beta = value.coefficients.astype(np.float32)
        new = self.features.count - len(beta)
        beta = np.insert(beta, [before.n_sets] * new, 0.0, axis=0) if new else beta
        return Link(beta, value.ridge)

    def kept_dtype(self, value: Link, rows: npt.DTypeLike) -> npt.DTypeLike:
        """β stays in the precision that it has."""
        return value.coefficients.dtype

    # ---- one row, and rows that were not in training -----------------------------------------------

    def knowledge(self, row: int) -> KnownFeatures:
        """All features of a row of the training."""
        return KnownFeatures(self.features.matrix.take(np.array([row])), None)

    def fold_in(self, items: Codes, about: object) -> KnownFeatures:
        """The features of somebody new: the set of what they rated, and what is known of them.

        Raises:
            ParameterError: Something is given that only a table could hold.
        """
        sets = None
        if len(items):
            sets = implicit_sets(one_row(items, np.ones(len(items), np.float32)), self.n_sets)
        values, lacking = self.unseen.completed(sets, self._given(about))
        row = one_row(np.flatnonzero(values).astype(np.int32), values[values != 0])
        return KnownFeatures(row, None if lacking is None else (lacking.start, lacking.stop))

    def _given(self, about: object) -> Array | None:
        if about is None:
            return None
        if self.table is None:
            raise ParameterError("Features of somebody new need a model with user_features; this one has none.")
        return self.table.row(about) if isinstance(about, Mapping) else self.table.row_of(cast(Id, about))

    def found(self, ids: Ids) -> Codes | None:
        """−2 − k for the id in row k of the table."""
        if self.table is None or self.table.ids is None:
            return None
        places = self.table.ids.codes(ids, SIDES[self.side])
        return np.where(places >= 0, -2 - places, -1).astype(np.int32)

    def knows(self, value: object) -> bool:
        """Whether the table has this id."""
        return self.table is not None and self.table.ids is not None and value is not None and value in self.table.ids

    @cached_property
    def unseen(self) -> Unseen:
        """What is known of rows that were not in training."""
        if self.known is not None:
            return self.known
        table = None if self.table is None else self.table.matrix
        return Unseen(self.features.mean, self.n_sets, table, self.features.some)

    def means_unseen(self, value: Link, codes: Codes) -> Array:
        """As of :class:`PriorMean`."""
        return self.unseen.shifts(value.coefficients, codes)

    def lacking(self, code: int) -> Hashable:
        """The places of the features that are not known: of an id of the table, those of the sets; else all."""
        if code >= 0 or (code < -1 and self.unseen.first == 0):
            return None
        return (0, len(self.unseen.mean)) if code == -1 else (0, self.unseen.first)

    def spread(self, value: Link, lacking: Hashable) -> Array:
        """As of :class:`PriorMean`."""
        return self.unseen.spread(value.coefficients, slice(*cast("tuple[int, int]", lacking)))

    def explained(self, value: Link, precision: Array, columns: slice) -> list[tuple[str, float]]:
        """By sets and table together and each by itself, where there are both."""
        shares = explained(self.features, value, precision, columns)
        names = ["both", "sets", "table"] if len(shares) > 1 else ["sets" if self.sets else "table"]
        return [(name, float(share)) for name, share in zip(names, shares, strict=True)]

    # ---- in a file --------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """The table."""
        return {} if self.table is None else self.table.to_arrays(self.name)

    def packed(self, value: Link) -> Arrays:
        """As of :class:`Term`."""
        return {f"{SIDES[self.side]}_link": value.coefficients, f"{SIDES[self.side]}_ridge": value.ridge}

    def unpacked(self, arrays: Arrays) -> Link:
        """As of :class:`Term`."""
        return Link(arrays[f"{SIDES[self.side]}_link"], arrays[f"{SIDES[self.side]}_ridge"])

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        """As of :class:`Term`."""
        groups = int(self.features.groups.max(initial=-1)) + 1
        side = SIDES[self.side]
        return {f"{side}_link": (self.features.count, begin.size), f"{side}_ridge": (groups,)}

    def light(self) -> SideInformation:
        """With what is known of rows that were not in training, and no features of the others."""
        return replace(self, features=self.unseen.some, known=self.unseen)
