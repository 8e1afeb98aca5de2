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

Source: Simm et al. 2015, *Macau: scalable Bayesian multi-relational factorization with side information*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import numpy.typing as npt

from gramian.engine import local, ridge
from gramian.errors import DivergenceError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, transpose

__all__ = ["FINE", "ROUGH", "Features", "Link", "Strangers", "draw_link", "explained", "moved", "no_link", "row_means"]

EXACT_LIMIT = 512  # features whose H is factored: 0.05 GFLOP a sweep
# Of the residual, relative to its right side. What is left out stays as it was in the sweep before: with sets alone
# that is little. Beside a table, whose few columns the sets nearly make too, the directions between them are slow.
ROUGH, FINE = 5e-2, 1e-3
SOME = 1000  # rows whose features stand for those of strangers
STEPS = 200  # of conjugate gradient at most; tens are usual


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one side: (rows, F), the same by feature, the group of each feature, and how near β is drawn."""

    matrix: CSR
    turned: CSR
    groups: npt.NDArray[np.int64]
    tolerance: float = FINE

    @property
    def count(self) -> int:
        """F."""
        return len(self.groups)

    @cached_property
    def mean(self) -> Array:
        """The mean features of the rows, (F,)."""
        totals = np.bincount(self.matrix.indices, self.matrix.values, minlength=self.count)
        return totals / max(1, self.matrix.n_rows)

    @cached_property
    def design(self) -> ridge.Design:
        """F as :func:`gramian.engine.ridge.draw` takes it."""
        return ridge.Design(self.matrix, self.turned, self.groups)

    @cached_property
    def last(self) -> dict[str, tuple[ref[Any], Moved]]:
        """What :func:`moved` made last."""
        return {}

    @cached_property
    def gram(self) -> Array:
        """FᵀF, dense."""
        from scipy.sparse import csr_array

        F = csr_array((self.matrix.values, self.matrix.indices, self.matrix.indptr), (self.matrix.n_rows, self.count))
        wide = F.astype(np.float64)
        return np.asarray((wide.T @ wide).todense())

    @cached_property
    def some(self) -> Features:
        """At most ``SOME`` of the rows, evenly spread."""
        n = self.matrix.n_rows
        return self.take(np.unique(np.linspace(0, n - 1, min(n, SOME)).astype(np.int64)))

    def take(self, rows: npt.NDArray[Any]) -> Features:
        """The same features of some of the rows."""
        part = self.matrix.take(rows)
        return Features(part, transpose(part, self.count), self.groups, self.tolerance)


class Strangers(NamedTuple):
    """What is known of rows that were not in training: a code −1 has the mean features, −2 − k row k of a table.

    ``mean`` (F,) over the rows in training, of which ``some`` say how much features differ; the table's features begin
    at ``first``.
    """

    mean: Array
    first: int
    table: CSR | None
    some: Features

    def spread(self, link: Link, lacking: slice) -> Array:
        """Cov(βᵀf) of the features that are not known, over some rows, (D, D)."""
        beta = np.zeros_like(link.coefficients, np.float32)
        beta[lacking] = link.coefficients[lacking]
        shifts = row_means(self.some, Link(beta, link.ridge), n_jobs=1).astype(np.float64)
        shifts -= shifts.mean(axis=0)
        return shifts.T @ shifts / len(shifts)

    def completed(self, sets: CSR | None, told: Array | None) -> tuple[Array, slice | None]:
        """All features of somebody new, (F,), the mean of those that are not known, and which these are.

        ``sets`` is one row of the features before ``first``, ``told`` the rest; either may be unknown.
        """
        values, last = self.mean.astype(np.float32), len(self.mean)
        lacking = [self.first > 0, self.first < last]
        if sets is not None and self.first:
            values[: self.first] = 0
            values[sets.indices] = sets.values
            lacking[0] = False
        if told is not None:
            values[self.first :] = told
            lacking[1] = False
        which = slice(0 if lacking[0] else self.first, last if lacking[1] else self.first)
        return values, which if any(lacking) else None

    def shifts(self, link: Link, codes: npt.NDArray[Any]) -> Array:
        """βᵀf of negative codes, (codes, D)."""
        beta = link.coefficients.astype(np.float32)
        made = np.tile(np.einsum("f,fd->d", self.mean, beta), (len(codes), 1))
        own = codes < -1
        if self.table is not None and own.any():
            part = np.einsum("f,fd->d", self.mean[: self.first], beta[: self.first])
            made[own] = part + local.sparse_product(self.table.take(-2 - codes[own]), beta[self.first :], n_jobs=1)
        return made


class Link(NamedTuple):
    """β, (F, D), and λ of each group."""

    coefficients: Array
    ridge: npt.NDArray[np.float64]


def no_link(features: Features, size: int, dtype: npt.DTypeLike) -> Link:
    """What a chain starts at: no feature matters."""
    return Link(np.zeros((features.count, size), dtype), np.ones(int(features.groups.max(initial=-1)) + 1))


def row_means(features: Features, link: Link, n_jobs: int | None = None) -> Array:
    """Fβ, (rows, D): by how much the features move the mean of each row."""
    known = _kept(features, link)
    if known is not None:
        return known.means
    return ridge.product(features.matrix, ridge.cut(link.coefficients), link.coefficients.shape[1], n_jobs=n_jobs)


class Moved(NamedTuple):
    """What is asked of β several times: Fβ, (rows, D); and Σ ββᵀ over each group, (groups, D, D), float64."""

    means: Array
    crosses: Array


def moved(features: Features, link: Link, n_jobs: int | None = None) -> Moved:
    """What a sweep and the next one ask of its β; kept until it is asked of another."""
    known = _kept(features, link)
    if known is not None:
        return known
    edges = np.searchsorted(features.groups, np.arange(len(link.ridge) + 1)).tolist()
    low = np.array([local.moments(link.coefficients[a:b], n_jobs=n_jobs)[1] for a, b in pairwise(edges)])
    means = features.design.times(link.coefficients, n_jobs=n_jobs)
    made = Moved(means, low + np.tril(low, -1).swapaxes(1, 2))
    features.last["moved"] = ref(link.coefficients), made
    return made


def _kept(features: Features, link: Link) -> Moved | None:
    """What :func:`moved` made, where it was of these very coefficients."""
    coefficients, made = features.last.get("moved", (None, None))
    return made if coefficients is not None and coefficients() is link.coefficients else None


def draw_link(
    features: Features, rows: Array, mean: Array, root: Array, before: Link, rng: np.random.Generator,
    n_jobs: int | None = None,
) -> Link:  # fmt: skip
    """β, then λ, given the rows (n × D), their common mean m, and L."""
    size, seed = rows.shape[1], int(rng.integers(2**63))
    Y = ridge.whitened(rows, mean, root, seed, 0, n_jobs=n_jobs)
    E = ridge.noise(features.count, size, rows.dtype, seed, 1, n_jobs=n_jobs)
    if features.count <= EXACT_LIMIT:
        white = _factored(
            features, before.ridge[features.groups], ridge.rows_of(Y, size), ridge.rows_of(E, size), n_jobs
        )
    else:
        white = local.dense_product(before.coefficients, root, n_jobs=n_jobs)
        drawn = ridge.draw(
            features.design, before.ridge, Y, E, white, tolerance=features.tolerance, steps=STEPS, n_jobs=n_jobs
        )
        if drawn is None:
            raise DivergenceError(
                f"The coefficients of {features.count} features were not found in {STEPS} steps of conjugate "
                "gradient; use dtype='float64', or fewer features."
            )
        white = drawn
    link = Link(local.dense_product(white, np.linalg.inv(root), n_jobs=n_jobs), before.ridge)
    lengths = np.einsum("gcd,cd->g", moved(features, link, n_jobs).crosses, root @ root.T)
    shapes = 1 + np.bincount(features.groups) * size / 2
    return link._replace(ridge=rng.gamma(shapes) / (1 + lengths / 2))


def explained(features: Features, link: Link, precision: Array, columns: slice) -> Array:
    r"""The shares of the variance of some columns of a side's rows that its features explain: all, then each group.

    .. math:: \operatorname{tr} \operatorname{Cov}(F_g\beta_g) \big/
        \big(\operatorname{tr} \operatorname{Cov}(F\beta) + \operatorname{tr} \Lambda^{-1}\big),

    the same however the factors are rotated. Groups that go together do not add up to what all explain.
    """
    groups = range(len(link.ridge))
    parts = [link.coefficients] + [
        np.where((features.groups == g)[:, None], link.coefficients, 0) for g in groups if len(groups) > 1
    ]
    shifts = [row_means(features, Link(part.astype(np.float32), link.ridge))[:, columns] for part in parts]
    by_features = np.array([part.var(axis=0, dtype=np.float64).sum() for part in shifts])
    return by_features / (by_features[0] + float(np.diag(np.linalg.inv(precision))[columns].sum()))


def _factored(features: Features, precisions: Array, Y: Array, E: Array, n_jobs: int | None) -> Array:
    """H⁻¹(FᵀY + Λ^½E), by Cholesky in float64."""
    from scipy.linalg import cho_factor, cho_solve

    target = (
        local.sparse_product(features.turned, Y.astype(np.float64), n_jobs=n_jobs) + np.sqrt(precisions)[:, None] * E
    )
    factor = cho_factor(features.gram + np.diag(precisions), lower=True, check_finite=False)
    return np.asarray(cho_solve(factor, target, check_finite=False)).astype(Y.dtype)
