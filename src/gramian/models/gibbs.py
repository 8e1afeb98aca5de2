r"""One sweep of the Gibbs sampler of Bayesian matrix factorization (Salakhutdinov & Mnih 2008).

Ratings :math:`r_{ij} \sim N(\mu + b_i + c_j + w_i^\top u_j,\ \alpha^{-1})`; a row :math:`x = (w, b)` of a side is
:math:`N(m, \Lambda^{-1})`, with a mean and a full precision that all rows of the side share, a Normal–Wishart prior on
them, and a Gamma prior on α. Each is drawn from its distribution given all the rest:

.. math::
    (m, \Lambda) \mid \text{rows} &\sim \text{Normal–Wishart}, \\
    x_i \mid \text{other side}, m, \Lambda, \alpha &\sim N(A_i^{-1}y_i,\ A_i^{-1}), \quad
        A_i = \Lambda + \alpha \sum_j v_j v_j^\top, \quad y_i = \Lambda m + \alpha \sum_j (r_{ij} - \mu - c_j) v_j, \\
    \alpha \mid \text{rows} &\sim \text{Gamma}\big(a_0 + \tfrac12 |\Omega|,\ b_0 + \tfrac12 \textstyle\sum e_{ij}^2\big)

Where a side has features, the mean of a row's prior is :math:`m + \beta^\top f_i`; how β is drawn stands in
:mod:`gramian.models.links`. The rows are drawn by the half-sweep, divided by α. Whatever random numbers a sweep needs
come from its key (seed, chain, number of the sweep), so a chain can be resumed anywhere and is the same for any number
of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import local
from gramian.kernels.csr import CSR
from gramian.models.links import Features, Link, draw_link, no_link, row_means
from gramian.models.noise import UserNoise, draw_user_noise, of_items, of_users

__all__ = ["ITEMS", "USERS", "Chain", "Hyperprior", "Key", "RowPrior", "draw_prior", "draw_rows", "sweep"]

Rows = npt.NDArray[np.floating[Any]]
USERS, ITEMS = 0, 1


class RowPrior(NamedTuple):
    """The prior of the rows of one side: N(mean + βᵀf, precision⁻¹); (D,) and (D, D), float64; and β where it has."""

    mean: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    link: Link | None = None


class Hyperprior(NamedTuple):
    """The priors of the priors: Λ ~ W(diag(scale)⁻¹, D), m ~ N(0, (strength·Λ)⁻¹), α ~ Gamma(shape, rate) or given."""

    scale: npt.NDArray[np.float64]
    strength: float
    shape: float
    rate: float
    noise_precision: float | None = None


class Chain(NamedTuple):
    """The state of a chain after a sweep."""

    user_rows: Rows
    item_rows: Rows
    users: RowPrior
    items: RowPrior
    noise_precision: float
    user_noise: UserNoise | None = None


class Key(NamedTuple):
    """What the random numbers of a sweep depend on."""

    seed: int
    chain: int
    number: int

    def side(self, which: int) -> tuple[int, int, int]:
        """The counters of the normals of one side's rows."""
        return self.seed, self.number, 2 * self.chain + which


def draw_prior(
    rows: Rows, hyper: Hyperprior, rng: np.random.Generator, features: Features | None = None,
    link: Link | None = None, n_jobs: int | None = None,
) -> RowPrior:  # fmt: skip
    """The mean and the precision of a side, given its rows and the β before; then β."""
    from gramian.kernels import wishart

    n, size = rows.shape
    known = 0
    if features is not None:
        link = no_link(features, size, rows.dtype) if link is None else link
        known = features.count
        # β, each feature at its precision, is as many rows more about the mean 0
        total, cross = local.moments(rows - row_means(features, link, n_jobs), n_jobs=n_jobs)
        cross += local.moments(link.coefficients * np.sqrt(link.ridge)[features.groups, None], n_jobs=n_jobs)[1]
    else:
        total, cross = local.moments(rows, n_jobs=n_jobs)
    bartlett = np.tril(rng.standard_normal((size, size)), -1)
    np.fill_diagonal(bartlett, np.sqrt(rng.chisquare(size + n + known - np.arange(size))))
    mean, precision = np.empty(size), np.empty((size, size))
    normals = rng.standard_normal(size)
    wishart.normal_wishart(
        n, total, cross, np.zeros(size), hyper.strength, hyper.scale, bartlett, normals, mean, precision
    )
    if features is None or link is None:
        return RowPrior(mean, precision)
    away = rows - mean.astype(rows.dtype)
    return RowPrior(mean, precision, draw_link(features, away, np.linalg.cholesky(precision), link, rng, n_jobs))


def draw_rows(
    ratings: CSR, other: Rows, prior: RowPrior, noise_precision: float,
    draw: tuple[int, int, int] | None, *, biased: bool, offset: float, n_jobs: int | None = None,
    features: Features | None = None, weights: Rows | None = None,
) -> tuple[Rows, int]:  # fmt: skip
    """Rows of one side given the other, or their means where ``draw`` is None; and how many were singular."""
    precision = prior.precision / noise_precision
    linear = np.einsum("cd,d->c", precision, prior.mean)
    if features is not None and prior.link is not None:  # Λ(m + βᵀf), with the small product first
        turned = Link(np.einsum("fc,cd->fd", prior.link.coefficients, precision), prior.link.ridge)
        linear = row_means(features, turned, n_jobs) + linear
    return local.half_sweep(
        ratings, other, local.Penalty(precision), biased=biased, offset=offset, n_jobs=n_jobs, linear=linear,
        draw=draw, spread=noise_precision**-0.5, weights=weights,
    )  # fmt: skip


def sweep(
    chain: Chain, by_user: CSR, by_item: CSR, hyper: Hyperprior, key: Key, *, biased: bool, offset: float,
    n_jobs: int | None = None, features: tuple[Features | None, Features | None] = (None, None),
) -> tuple[Chain, float, int]:  # fmt: skip
    """Everything drawn once, in the order items, users, noise: the new state, Σ e², and the singular rows.

    ``features`` are those of the users and of the items.
    """
    rng = np.random.default_rng([*key])
    how: dict[str, Any] = {"biased": biased, "offset": offset, "n_jobs": n_jobs}
    alpha, noise = chain.noise_precision, chain.user_noise
    of_user, of_item = features
    items_prior = draw_prior(chain.item_rows, hyper, rng, of_item, chain.items.link, n_jobs)
    items, singular_items = draw_rows(
        by_item,
        chain.user_rows,
        items_prior,
        alpha,
        key.side(ITEMS),
        features=of_item,
        weights=of_items(noise, by_item),
        **how,
    )
    users_prior = draw_prior(chain.user_rows, hyper, rng, of_user, chain.users.link, n_jobs)
    users, singular_users = draw_rows(
        by_user, items, users_prior, alpha, key.side(USERS), features=of_user, weights=of_users(noise, by_user), **how
    )
    if noise is None:
        squared = weighted = local.squared_errors(by_user, users, items, **how)
    else:
        errors = local.squared_errors_by_row(by_user, users, items, **how)
        noise = draw_user_noise(noise, by_user.counts, errors, alpha, rng)
        squared, weighted = float(errors.sum()), float(errors @ noise.factors)
    if hyper.noise_precision is None:
        alpha = rng.gamma(hyper.shape + int(by_user.n_entries) / 2) / (hyper.rate + weighted / 2)
    return Chain(users, items, users_prior, items_prior, float(alpha), noise), squared, singular_items + singular_users
