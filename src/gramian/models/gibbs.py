r"""One sweep of the Gibbs sampler of Bayesian matrix factorization (Salakhutdinov & Mnih 2008).

Ratings :math:`r_{ij} \sim N(\mu + b_i + c_j + w_i^\top u_j,\ \alpha^{-1})`; a row :math:`x = (w, b)` of a side is
:math:`N(m, \Lambda^{-1})`, with a mean and a full precision that all rows of the side share, a Normal–Wishart prior on
them, and a Gamma prior on α. Each is drawn from its distribution given all the rest:

.. math::
    (m, \Lambda) \mid \text{rows} &\sim \text{Normal–Wishart}, \\
    x_i \mid \text{other side}, m, \Lambda, \alpha &\sim N(A_i^{-1}y_i,\ A_i^{-1}), \quad
        A_i = \Lambda + \alpha \sum_j v_j v_j^\top, \quad y_i = \Lambda m + \alpha \sum_j (r_{ij} - \mu - c_j) v_j, \\
    \alpha \mid \text{rows} &\sim \text{Gamma}\big(a_0 + \tfrac12 |\Omega|,\ b_0 + \tfrac12 \textstyle\sum e_{ij}^2\big)

The rows are drawn by the half-sweep, divided by α. Whatever random numbers a sweep needs come from its key (seed,
chain, number of the sweep), so a chain can be resumed anywhere and is the same for any number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import local
from gramian.kernels.csr import CSR

__all__ = ["ITEMS", "USERS", "Chain", "Hyperprior", "Key", "RowPrior", "draw_prior", "draw_rows", "sweep"]

Rows = npt.NDArray[np.floating[Any]]
USERS, ITEMS = 0, 1


class RowPrior(NamedTuple):
    """The prior of the rows of one side: N(mean, precision⁻¹); (D,) and (D, D), float64."""

    mean: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]


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


class Key(NamedTuple):
    """What the random numbers of a sweep depend on."""

    seed: int
    chain: int
    number: int

    def side(self, which: int) -> tuple[int, int, int]:
        """The counters of the normals of one side's rows."""
        return self.seed, self.number, 2 * self.chain + which


def draw_prior(rows: Rows, hyper: Hyperprior, rng: np.random.Generator, n_jobs: int | None = None) -> RowPrior:
    """The mean and the precision of a side, given its rows."""
    from gramian.kernels import wishart

    n, size = rows.shape
    total, cross = local.moments(rows, n_jobs=n_jobs)
    bartlett = np.tril(rng.standard_normal((size, size)), -1)
    np.fill_diagonal(bartlett, np.sqrt(rng.chisquare(size + n - np.arange(size))))
    mean, precision = np.empty(size), np.empty((size, size))
    normals = rng.standard_normal(size)
    wishart.normal_wishart(
        n, total, cross, np.zeros(size), hyper.strength, hyper.scale, bartlett, normals, mean, precision
    )
    return RowPrior(mean, precision)


def draw_rows(
    ratings: CSR, other: Rows, prior: RowPrior, noise_precision: float,
    draw: tuple[int, int, int] | None, *, biased: bool, offset: float, n_jobs: int | None = None,
) -> tuple[Rows, int]:  # fmt: skip
    """Rows of one side given the other, or their means where ``draw`` is None; and how many were singular."""
    penalty = local.Penalty(prior.precision / noise_precision)
    linear = np.einsum("cd,d->c", prior.precision, prior.mean) / noise_precision
    return local.half_sweep(
        ratings, other, penalty, biased=biased, offset=offset, n_jobs=n_jobs, linear=linear, draw=draw,
        spread=noise_precision**-0.5,
    )  # fmt: skip


def sweep(
    chain: Chain, by_user: CSR, by_item: CSR, hyper: Hyperprior, key: Key, *, biased: bool, offset: float,
    n_jobs: int | None = None,
) -> tuple[Chain, float, int]:  # fmt: skip
    """Everything drawn once, in the order items, users, noise: the new state, Σ e², and the singular rows."""
    rng = np.random.default_rng([*key])
    how: dict[str, Any] = {"biased": biased, "offset": offset, "n_jobs": n_jobs}
    alpha = chain.noise_precision
    of_items = draw_prior(chain.item_rows, hyper, rng, n_jobs)
    items, singular_items = draw_rows(by_item, chain.user_rows, of_items, alpha, key.side(ITEMS), **how)
    of_users = draw_prior(chain.user_rows, hyper, rng, n_jobs)
    users, singular_users = draw_rows(by_user, items, of_users, alpha, key.side(USERS), **how)
    squared = local.squared_errors(by_user, users, items, **how)
    if hyper.noise_precision is None:
        alpha = rng.gamma(hyper.shape + len(by_user.indices) / 2) / (hyper.rate + squared / 2)
    return Chain(users, items, of_users, of_items, float(alpha)), squared, singular_items + singular_users
