r"""One sweep of the Gibbs sampler of Bayesian matrix factorization (Salakhutdinov & Mnih 2008).

Ratings :math:`r_{ij} \sim N(\mu + b_i + c_j + w_i^\top u_j,\ \alpha^{-1})`; a row :math:`x = (w, b)` of a side is
:math:`N(m, \Lambda^{-1})`, with a mean and a full precision that all rows of the side share, a Normal–Wishart prior on
them, and a Gamma prior on α. Each is drawn from its distribution given all the rest:

.. math::
    (m, \Lambda) \mid \text{rows} &\sim \text{Normal–Wishart}, \\
    x_i \mid \text{other side}, m, \Lambda, \alpha &\sim N(A_i^{-1}y_i,\ A_i^{-1}), \quad
        A_i = \Lambda + \alpha \sum_j v_j v_j^\top, \quad y_i = \Lambda m + \alpha \sum_j (r_{ij} - \mu - c_j) v_j, \\
    \alpha \mid \text{rows} &\sim \text{Gamma}\big(a_0 + \tfrac12 |\Omega|,\ b_0 + \tfrac12 \textstyle\sum e_{ij}^2\big)

Whatever else is known, the *terms* of a recipe know (:mod:`gramian.models.bayes.terms`): what is observed, how much a
rating counts, what moves the means of the rows, and what is added to a rating. A sweep draws, in this order: what is
hidden behind what is observed; the items' prior, what moves it, and the items; the users likewise; what is added, last
term first; the weights and α. The rows are drawn by the half-sweep, divided by α. Whatever random numbers a sweep needs
come from its key (seed, chain, number of the sweep), so a chain can be resumed anywhere and is the same for any number
of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gramian.data.table import RatingsTable
from gramian.engine import entries, local, products
from gramian.engine.rows import Penalty, Rows, Weights, run
from gramian.kernels.arrays import Array, summed
from gramian.kernels.csr import CSR
from gramian.models.bayes.bundles import Chance, Rest, Setup
from gramian.models.bayes.state import ITEMS, USERS, Key, RowPrior, State
from gramian.models.bayes.terms.collection import Terms
from gramian.models.bayes.terms.term import Addition

__all__ = ["BothWays", "Hyperprior", "RowDraw", "Swept", "draw_prior", "draw_rows", "sweep"]


class Hyperprior(NamedTuple):
    """The priors of the priors: Λ ~ W(diag(scale)⁻¹, D), m ~ N(0, (strength·Λ)⁻¹), α ~ Gamma(shape, rate) or given."""

    scale: npt.NDArray[np.float64]
    strength: float
    shape: float
    rate: float
    noise_precision: float | None = None


class BothWays(NamedTuple):
    """The ratings by user and by item; and where each of the latter stands among the former, if it is asked for."""

    by_user: Rows
    by_item: Rows
    order: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, ratings: RatingsTable, terms: Terms) -> Self:
        """Those of a table, for these terms."""
        order = np.argsort(ratings.item_codes, kind="stable") if terms.by_rating else None
        return cls(ratings.by_user, ratings.by_item, order)


class RowDraw(NamedTuple):
    """How rows are drawn given the other side's: their prior, what moves its mean for each of them, α, and ω.

    Means of the rows come where ``counters`` is None.
    """

    prior: RowPrior
    noise_precision: float
    counters: tuple[int, int, int] | None
    means: Array | None = None
    weights: Array | Weights | None = None


class Swept(NamedTuple):
    """A chain after a sweep, Σ e² of the ratings, and how many rows were singular."""

    state: State
    squared: float
    singular: int


def draw_rows(rows: Rows, fixed: Array, how: RowDraw, setup: Setup) -> tuple[Array, int]:
    """Rows of one side given the other, or their means; and how many were singular."""
    precision = how.prior.precision / how.noise_precision
    linear = np.einsum("cd,d->c", precision, how.prior.mean)
    if how.means is not None:
        linear = products.dense_product(how.means, precision, linear, n_jobs=setup.n_jobs)
    step = local.HalfSweep(
        fixed, setup.intercepts, Penalty(precision), linear=linear, draw=how.counters,
        spread=how.noise_precision**-0.5, weights=how.weights,
    )  # fmt: skip
    return run(rows, step, setup.n_jobs)


def draw_prior(state: State, side: int, terms: Terms, hyper: Hyperprior, chance: Chance) -> tuple[State, Array | None]:
    """The mean and the precision of a side's rows, then what moves the mean; and by how much for each row."""
    from gramian.kernels.sampling import wishart

    rows, movers, (rng, _, n_jobs) = state.rows(side), terms.priors[side], chance
    n, size = rows.shape
    means = summed(term.means(term.of(state), n_jobs) for term in movers)
    total, cross = products.moments(rows, means, n_jobs=n_jobs)
    worth = 0
    for term in movers:
        count, own = term.as_rows(term.of(state), n_jobs)
        worth += count
        cross += own
    bartlett = np.tril(rng.standard_normal((size, size)), -1)
    np.fill_diagonal(bartlett, np.sqrt(rng.chisquare(size + n + worth - np.arange(size))))
    mean, precision = np.empty(size), np.empty((size, size))
    normals = rng.standard_normal(size)
    wishart.normal_wishart(
        n, total, cross, np.zeros(size), hyper.strength, hyper.scale, bartlett, normals, mean, precision
    )
    prior = RowPrior(mean, precision)
    state = state._replace(items=prior) if side == ITEMS else state._replace(users=prior)
    return _moved(state, side, terms, chance)


def _moved(state: State, side: int, terms: Terms, chance: Chance) -> tuple[State, Array | None]:
    """What moves the means of a side's rows, drawn given these and their prior; and by how much for each row."""
    rows, prior, movers = state.rows(side), state.prior(side), terms.priors[side]
    if not movers:
        return state, None
    root = np.linalg.cholesky(prior.precision)
    for term in movers:
        others = summed(other.means(other.of(state), chance.n_jobs) for other in movers if other is not term)
        left = rows if others is None else rows - others
        state = term.put(state, term.drawn(term.of(state), left, prior.mean, root, chance))
    return state, summed(term.means(term.of(state), chance.n_jobs) for term in movers)


def sweep(state: State, ratings: BothWays, terms: Terms, hyper: Hyperprior, key: Key, setup: Setup) -> Swept:
    """Everything drawn once."""
    given = _Given(terms, hyper, key, setup, Chance(np.random.default_rng([*key]), key.side(USERS), setup.n_jobs))
    state, observed = _observed(state, ratings.by_user, given)
    weights = _weights(state, ratings, terms)
    targets, by_item, fixed = _targets(state, observed, ratings, terms)
    state, singular_items = _side(state, ITEMS, by_item, fixed, weights[ITEMS], given)
    by_user = _without_moved(state, targets, given)
    state, singular_users = _side(state, USERS, by_user, state.item_rows, weights[USERS], given)
    state, errors, left = _added(state, observed, weights[USERS], given)
    state = _noise(state, observed, errors, given)
    if left is not None:
        errors = _errors(state, ratings.by_user, observed, errors, left, terms)
    return Swept(state, float(errors.sum()), singular_items + singular_users)


class _Given(NamedTuple):
    """What all steps of a sweep share."""

    terms: Terms
    hyper: Hyperprior
    key: Key
    setup: Setup
    chance: Chance


def _weights(state: State, ratings: BothWays, terms: Terms) -> tuple[Array | Weights | None, Array | Weights | None]:
    """ω of each rating, by user and by item."""
    term = terms.weighting
    if term is None:
        return None, None
    value = term.of(state)
    return term.weights(value, ratings.by_user, USERS), term.weights(value, ratings.by_item, ITEMS)


def _side(
    state: State, side: int, rows: Rows, fixed: Array, weights: Array | Weights | None, given: _Given
) -> tuple[State, int]:
    """The prior of one side's rows, then the rows; and how many were singular."""
    state, means = draw_prior(state, side, given.terms, given.hyper, given.chance)
    how = RowDraw(state.prior(side), state.noise_precision, given.key.side(side), means, weights)
    drawn, singular = draw_rows(rows, fixed, how, given.setup)
    return state._replace(item_rows=drawn) if side == ITEMS else state._replace(user_rows=drawn), singular


def _observed(state: State, by_user: Rows, given: _Given) -> tuple[State, Rows]:
    """What stands for the ratings in a sweep: themselves, or what they hide, which is drawn before."""
    terms, term, setup = given.terms, given.terms.observation, given.setup
    if term is None:
        return state, by_user
    assert isinstance(by_user, CSR)
    mean = entries.predictions(by_user, state.user_rows, state.item_rows, *setup)
    for addition in terms.additions:
        mean += addition.added(addition.of(state), state.item_rows, setup.n_jobs)
    value, hidden = term.drawn(term.of(state), by_user, mean, terms.stds(state), given.chance)
    return term.put(state, value), by_user._replace(values=hidden)


def _targets(state: State, observed: Rows, ratings: BothWays, terms: Terms) -> tuple[Rows, Rows, Array]:
    """What the rows are to explain: by user, and by item; and the rows that the items are drawn given.

    These are the users', or where something of a rating moves these, the moved ones.
    """
    if ratings.order is None:
        return observed, ratings.by_item, state.user_rows
    assert isinstance(observed, CSR)
    assert isinstance(ratings.by_item, CSR)
    beside = _total([term for term in terms.additions if not term.in_rows], state)
    values = (observed.values - (0.0 if beside is None else beside)).astype(state.user_rows.dtype)
    by_item, fixed = ratings.by_item._replace(values=values[ratings.order]), state.user_rows
    for term in terms.additions:
        if term.in_rows:
            by_item, fixed = term.moved_rows(term.of(state), by_item, fixed)
    return observed._replace(values=values), by_item, fixed


def _without_moved(state: State, targets: Rows, given: _Given) -> Rows:
    """What the users' rows themselves are to explain: without what moves them."""
    for term in given.terms.additions:
        if term.in_rows:
            assert isinstance(targets, CSR)
            left = targets.values - term.added(term.of(state), state.item_rows, given.setup.n_jobs)
            targets = targets._replace(values=left.astype(state.item_rows.dtype))
    return targets


def _total(additions: Sequence[Addition[Any]], state: State, n_jobs: int | None = None) -> Array | None:
    """What these add to each rating; None of nothing."""
    return summed(term.added(term.of(state), state.item_rows, n_jobs) for term in additions)


def _added(
    state: State, observed: Rows, weights: Array | Weights | None, given: _Given
) -> tuple[State, Array, Array | None]:
    """The additions drawn, last term first; Σ e² of each user, or of all; and e, where it was made."""
    terms, setup, key = given.terms, given.setup, given.key
    if not terms.by_rating:
        how = (state.user_rows, state.item_rows, *setup)
        if terms.weighting is None:
            return state, np.array([local.squared_errors(observed, *how)]), None
        return state, local.squared_errors_by_row(observed, *how), None
    assert isinstance(observed, CSR)
    assert not isinstance(weights, Weights)
    left = observed.values - entries.predictions(observed, state.user_rows, state.item_rows, *setup)
    rest = Rest(state.item_rows, weights, state.noise_precision)
    chance = given.chance._replace(counters=(key.seed, key.number, key.chain))
    for place, term in reversed(list(enumerate(terms.additions))):
        beside = _total(terms.additions[:place], state, setup.n_jobs)
        value, left = term.drawn(term.of(state), left, beside, rest, chance)
        state = term.put(state, value)
    return state, np.bincount(observed.row_codes(), np.square(left), minlength=observed.n_rows), left


def _noise(state: State, observed: Rows, errors: Array, given: _Given) -> State:
    """The weights and α, given the squared errors."""
    term, hyper, chance, weighted = given.terms.weighting, given.hyper, given.chance, float(errors.sum())
    if term is not None:
        value = term.drawn(term.of(state), observed.counts, errors, state.noise_precision, chance)
        state = term.put(state, value)
        weighted = float(errors @ term.factors(value, np.arange(observed.n_rows, dtype=np.int32)))
    if hyper.noise_precision is None:
        alpha = float(chance.rng.gamma(hyper.shape + int(observed.n_entries) / 2) / (hyper.rate + weighted / 2))
        state = state._replace(noise_precision=alpha)
    return state


def _errors(state: State, by_user: Rows, observed: Rows, errors: Array, left: Array, terms: Terms) -> Array:
    """The squared errors of the ratings themselves, where what was explained is hidden behind them."""
    term = terms.observation
    if term is None:
        return errors
    assert isinstance(observed, CSR)
    assert isinstance(by_user, CSR)
    stds = observed.of_rows(terms.stds(state))
    return np.square(by_user.values - term.expected(term.of(state), observed.values - left, stds))
