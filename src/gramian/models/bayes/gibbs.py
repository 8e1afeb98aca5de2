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
:mod:`gramian.models.bayes.terms.side_information`; what time adds, in
:mod:`gramian.models.bayes.terms.time_offsets` and :mod:`gramian.models.bayes.terms.time_factors`; how steps become
numbers, in :mod:`gramian.models.bayes.terms.ordinal`. The rows are drawn by the half-sweep, divided by α. Whatever
random numbers a sweep needs come from its key (seed, chain, number of the sweep), so a chain can be resumed anywhere
and is the same for any number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine import entries, local
from gramian.kernels.csr import CSR
from gramian.models.bayes.terms.ordinal import Cuts, Ladder, draw_cuts, expected
from gramian.models.bayes.terms.side_information import Features, Link, draw_link, moved, no_link, row_means
from gramian.models.bayes.terms.time_factors import by_item_and_day, draw_drift, drifted, rows_of_days
from gramian.models.bayes.terms.time_offsets import Calendar, TimeOffsets, draw_times
from gramian.models.bayes.terms.user_noise import UserNoise, draw_user_noise, of_items, of_users

__all__ = ["ITEMS", "USERS", "Chain", "Hyperprior", "Key", "RowPrior", "draw_prior", "draw_rows", "sweep", "user_stds"]

Rows = npt.NDArray[np.floating[Any]]
USERS, ITEMS = 0, 1


class RowPrior(NamedTuple):
    """The prior of the rows of one side: N(mean + βᵀf, precision⁻¹); (D,) and (D, D), float64; and β where it has."""

    mean: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    link: Link | None = None


class Hyperprior(NamedTuple):
    """The priors of the priors: Λ ~ W(diag(scale)⁻¹, D), m ~ N(0, (strength·Λ)⁻¹), α ~ Gamma(shape, rate) or given.

    The λ of the offsets by time and of the drift have the priors Gamma(1, time_rate) and Gamma(1, drift_rate).
    """

    scale: npt.NDArray[np.float64]
    strength: float
    shape: float
    rate: float
    noise_precision: float | None = None
    time_rate: float = 0.01
    drift_rate: float = 0.01


class Chain(NamedTuple):
    """The state of a chain after a sweep."""

    user_rows: Rows
    item_rows: Rows
    users: RowPrior
    items: RowPrior
    noise_precision: float
    user_noise: UserNoise | None = None
    time: TimeOffsets | None = None
    cuts: Cuts | None = None


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
    from gramian.kernels.sampling import wishart

    n, size = rows.shape
    known = 0
    if features is not None:
        link = no_link(features, size, rows.dtype) if link is None else link
        known = features.count
        # β, each feature at its precision, is as many rows more about the mean 0
        means, crosses = moved(features, link, n_jobs)
        total, cross = local.moments(rows, means, n_jobs=n_jobs)
        cross += np.einsum("g,gcd->cd", link.ridge, crosses)
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
    return RowPrior(mean, precision, draw_link(features, rows, mean, np.linalg.cholesky(precision), link, rng, n_jobs))


def draw_rows(
    ratings: CSR, other: Rows, prior: RowPrior, noise_precision: float,
    draw: tuple[int, int, int] | None, *, biased: bool, offset: float, n_jobs: int | None = None,
    features: Features | None = None, weights: Rows | None = None,
) -> tuple[Rows, int]:  # fmt: skip
    """Rows of one side given the other, or their means where ``draw`` is None; and how many were singular."""
    precision = prior.precision / noise_precision
    linear = np.einsum("cd,d->c", precision, prior.mean)
    if features is not None and prior.link is not None:
        linear = local.dense_product(row_means(features, prior.link, n_jobs), precision, linear, n_jobs=n_jobs)
    return local.half_sweep(
        ratings, other, local.Penalty(precision), biased=biased, offset=offset, n_jobs=n_jobs, linear=linear,
        draw=draw, spread=noise_precision**-0.5, weights=weights,
    )  # fmt: skip


def sweep(
    chain: Chain, by_user: CSR, by_item: CSR, hyper: Hyperprior, key: Key, *, biased: bool, offset: float,
    n_jobs: int | None = None, features: tuple[Features | None, Features | None] = (None, None),
    calendar: Calendar | None = None, ladder: Ladder | None = None,
) -> tuple[Chain, float, int]:  # fmt: skip
    """Everything drawn once, in the order cuts, items, users, times, noise: the new state, Σ e², the singular rows.

    ``features`` are those of the users and of the items, ``calendar`` the cells of the ratings in time, ``ladder``
    their steps where these are what is known of them.
    """
    rng = np.random.default_rng([*key])
    how: dict[str, Any] = {"biased": biased, "offset": offset, "n_jobs": n_jobs}
    chain, seen = _seen(chain, by_user, key, rng, calendar, ladder, how)
    weights = of_users(chain.user_noise, by_user), of_items(chain.user_noise, by_item)
    told, by_item, other = _told(chain, seen, by_item, calendar, ladder)
    given = hyper, key, rng, features, weights, how
    items, items_prior, singular_items = _side(ITEMS, chain, by_item, other, *given)
    if calendar is not None and chain.time is not None and chain.time.drift is not None:
        rest = told.values - drifted(chain.time.drift, calendar, items, n_jobs)
        told = told._replace(values=rest.astype(items.dtype))
    users, users_prior, singular_users = _side(USERS, chain, told, items, *given)
    made = chain._replace(user_rows=users, item_rows=items, users=users_prior, items=items_prior)
    made, errors, away = _noise(made, seen, hyper, key, rng, calendar, ladder, weights[USERS], how)
    if ladder is not None and made.cuts is not None and away is not None:  # of ratings, not of latent ones
        stds = np.repeat(user_stds(made), by_user.counts)
        errors = by_user.values - expected(seen.values - away, made.cuts.values, ladder.levels, stds)
        errors = np.square(errors)
    return made, float(errors.sum()), singular_items + singular_users


def user_stds(chain: Chain) -> npt.NDArray[np.float64]:
    """The noise of each user's ratings, (N,)."""
    factors = np.ones(len(chain.user_rows)) if chain.user_noise is None else chain.user_noise.factors
    return np.asarray(1 / np.sqrt(chain.noise_precision * factors))


def _seen(
    chain: Chain, by_user: CSR, key: Key, rng: np.random.Generator, calendar: Calendar | None,
    ladder: Ladder | None, how: dict[str, Any],
) -> tuple[Chain, CSR]:  # fmt: skip
    """What stands for the ratings in a sweep: themselves, or latent ones between cuts, which are drawn before."""
    if ladder is None or chain.cuts is None:
        return chain, by_user
    mean = entries.predictions(by_user, chain.user_rows, chain.item_rows, **how)
    if calendar is not None and chain.time is not None:
        mean += chain.time.of(calendar)
        if chain.time.drift is not None:
            mean += drifted(chain.time.drift, calendar, chain.item_rows, how["n_jobs"])
    stds, n_jobs = user_stds(chain), how["n_jobs"]
    cuts = draw_cuts(chain.cuts, by_user, ladder.steps, mean, stds, rng, n_jobs)
    latent = entries.latent(by_user, ladder.steps, mean, cuts.values, stds, key.side(USERS), n_jobs)
    return chain._replace(cuts=cuts), by_user._replace(values=latent)


def _told(
    chain: Chain, seen: CSR, by_item: CSR, calendar: Calendar | None, ladder: Ladder | None
) -> tuple[CSR, CSR, Rows]:
    """What ratings say beside what time adds: by user, and by item; and the rows that the items are drawn given.

    These are the users', or where their factors drift, those of their days.
    """
    order = calendar or ladder
    if order is None:
        return seen, by_item, chain.user_rows
    added = 0.0 if calendar is None or chain.time is None else chain.time.of(calendar)
    told = seen._replace(values=(seen.values - added).astype(chain.user_rows.dtype))
    by_item = by_item._replace(values=told.values[order.turned])
    drift = None if chain.time is None else chain.time.drift
    if drift is None or calendar is None:
        return told, by_item, chain.user_rows
    return told, by_item_and_day(calendar, by_item), rows_of_days(drift, calendar, chain.user_rows)


def _side(
    which: int, chain: Chain, ratings: CSR, other: Rows, hyper: Hyperprior, key: Key, rng: np.random.Generator,
    features: tuple[Features | None, Features | None], weights: tuple[Any, Any], how: dict[str, Any],
) -> tuple[Rows, RowPrior, int]:  # fmt: skip
    """The prior of one side's rows, then the rows; and how many were singular."""
    rows, prior = ((chain.user_rows, chain.users), (chain.item_rows, chain.items))[which]
    prior = draw_prior(rows, hyper, rng, features[which], prior.link, how["n_jobs"])
    drawn, singular = draw_rows(
        ratings, other, prior, chain.noise_precision, key.side(which), features=features[which],
        weights=weights[which], **how,
    )  # fmt: skip
    return drawn, prior, singular


def _noise(
    chain: Chain, seen: CSR, hyper: Hyperprior, key: Key, rng: np.random.Generator, calendar: Calendar | None,
    ladder: Ladder | None, weights: Any, how: dict[str, Any],
) -> tuple[Chain, npt.NDArray[Any], npt.NDArray[Any] | None]:  # fmt: skip
    """The times, the noise of each user and α, given the rows; Σ e² of each user or of all; and e where it was made."""
    alpha, noise, time, away = chain.noise_precision, chain.user_noise, chain.time, None
    if calendar is not None or ladder is not None:
        away = seen.values - entries.predictions(seen, chain.user_rows, chain.item_rows, **how)
        if calendar is not None and time is not None:
            time, away = _times(chain, time, away, weights, hyper, key, rng, calendar, how["n_jobs"])
        errors = np.bincount(seen.row_codes(), np.square(away), minlength=seen.n_rows)
    elif noise is None:
        errors = np.array([local.squared_errors(seen, chain.user_rows, chain.item_rows, **how)])
    else:
        errors = local.squared_errors_by_row(seen, chain.user_rows, chain.item_rows, **how)
    weighted = float(errors.sum())
    if noise is not None:
        noise = draw_user_noise(noise, seen.counts, errors, alpha, rng)
        weighted = float(errors @ noise.factors)
    if hyper.noise_precision is None:
        alpha = float(rng.gamma(hyper.shape + int(seen.n_entries) / 2) / (hyper.rate + weighted / 2))
    return chain._replace(noise_precision=alpha, user_noise=noise, time=time), errors, away


def _times(
    chain: Chain, time: TimeOffsets, away: Rows, weights: Rows | None, hyper: Hyperprior, key: Key,
    rng: np.random.Generator, calendar: Calendar, n_jobs: int | None,
) -> tuple[TimeOffsets, Rows]:  # fmt: skip
    """The drift, if there is one, and the offsets; and what they leave of ``away``."""
    alpha = chain.noise_precision
    if time.drift is not None:
        drift = draw_drift(
            calendar, time.drift, away - time.of(calendar), chain.item_rows, weights, alpha, hyper.drift_rate,
            (key.seed, key.number, key.chain), rng, n_jobs,
        )  # fmt: skip
        time = time._replace(drift=drift)
        away = away - drifted(drift, calendar, chain.item_rows, n_jobs)
    return draw_times(calendar, time, away, weights, alpha, hyper.time_rate, rng)
