"""The Gibbs sampler: each conditional against its closed form, the whole by simulation-based calibration.

A sampler with a wrong term still gives plausible numbers. So every term is dropped once, and the calibration must see
it; and a whole sweep is compared, number by number, with one written from the equations.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from chains import both_ways, flat, swept
from ranks import uniformity
from scipy import stats

import gramian as gm
from gramian.engine import local
from gramian.engine.rows import Intercepts
from gramian.kernels import reference
from gramian.kernels.sampling import wishart
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Setup
from gramian.models.bayes.gibbs import RowDraw
from gramian.models.bayes.state import ITEMS, USERS, Key, RowPrior, State

K, D = 2, 3
HYPER = gibbs.Hyperprior(scale=np.array([1.0, 1.0, 0.5]), strength=2.0, shape=3.0, rate=9.0)


def problem(n_users=5, n_items=6, biased=True, seed=0):
    """Some ratings (the last user has none), and a chain somewhere."""
    rng = np.random.default_rng(seed)
    size = K + biased
    seen = rng.random((n_users, n_items)) < 0.6
    seen[-1] = False
    users, items = np.nonzero(seen)
    ways = both_ways(users, items, rng.normal(3, 1, len(users)), seen.shape)
    priors = []
    for _ in range(2):
        root = rng.normal(size=(size, size))
        priors.append(RowPrior(rng.normal(size=size), root @ root.T + np.eye(size)))
    chain = State(rng.normal(size=(n_users, size)), rng.normal(size=(n_items, size)), *priors, 1.7)
    return ways, chain


def closed_form(ratings, i, other, prior, alpha, biased, offset):
    """Mean and covariance of row i given all the rest: A = Λ + α Σ v vᵀ, y = Λm + α Σ t v."""
    _, _, A, y = reference.row_system(
        *ratings.row(i), other, biased=biased, offset=offset, precision=prior.precision, by_count=False,
        linear=prior.precision @ prior.mean, weights=np.full(len(ratings.row(i)[0]), alpha),
    )  # fmt: skip
    return np.linalg.solve(A, y), np.linalg.inv(A)


# ---- the conditionals ------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [True, False])
def test_the_mean_of_a_row_is_the_closed_form(biased):
    ways, chain = problem(biased=biased)
    for ratings, other, prior in (
        (ways.by_user, chain.item_rows, chain.users),
        (ways.by_item, chain.user_rows, chain.items),
    ):
        rows, singular = gibbs.draw_rows(ratings, other, RowDraw(prior, 1.7, None), Setup(Intercepts(biased, 2.5)))
        known = [closed_form(ratings, i, other, prior, 1.7, biased, 2.5)[0] for i in range(ratings.n_rows)]
        np.testing.assert_allclose(rows, known, rtol=1e-10, atol=1e-12)
        assert singular == 0


@pytest.mark.parametrize("biased", [True, False])
def test_draws_of_a_row_have_the_mean_and_covariance_of_the_closed_form(biased):
    """4000 draws, made white by the closed form, have mean 0 and covariance 1 within 5 standard errors."""
    (by_user, *_), chain = problem(biased=biased)
    setup = Setup(Intercepts(biased, 2.5), 1)
    draws = np.array([
        gibbs.draw_rows(by_user, chain.item_rows, RowDraw(chain.users, 1.7, (0, s, 0)), setup)[0] for s in range(4000)
    ])  # fmt: skip
    for i in range(by_user.n_rows):  # the last has no ratings: its prior
        mean, covariance = closed_form(by_user, i, chain.item_rows, chain.users, 1.7, biased, 2.5)
        white = np.linalg.solve(np.linalg.cholesky(covariance), (draws[:, i] - mean).T)
        assert np.abs(white.mean(axis=1)).max() < 5 / np.sqrt(4000)
        assert np.abs(np.cov(white) - np.eye(len(mean))).max() < 5 * np.sqrt(2 / 4000)
        assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    np.testing.assert_allclose(closed_form(by_user, 4, chain.item_rows, chain.users, 1.7, biased, 2.5)[0],
                               chain.users.mean)  # fmt: skip
    rows = draws.reshape(4000, -1)
    between = np.corrcoef(rows.T)[:D, D:] if biased else np.corrcoef(rows.T)[:K, K:]
    assert np.abs(between).max() < 5 / np.sqrt(4000)  # rows are independent, given the rest


def test_alpha_is_drawn_from_its_gamma():
    """α · (b₀ + Σe²/2) ~ Gamma(a₀ + n/2, 1), whatever the rows; and Σe² is that of the rows drawn."""
    ways, chain = problem()
    by_user, made = ways.by_user, []
    for number in range(2000):
        new, squared, _ = swept(chain, ways, HYPER, Key(3, 0, number), True, 2.5, n_jobs=1)
        made.append(new.noise_precision * (HYPER.rate + squared / 2))
        if number < 20:
            known = reference.squared_errors(by_user, new.user_rows, new.item_rows, biased=True, offset=2.5).sum()
            assert squared == pytest.approx(known, rel=1e-10)
    assert stats.kstest(made, stats.gamma(HYPER.shape + len(by_user.indices) / 2).cdf).pvalue > 1e-3
    fixed = HYPER._replace(noise_precision=1.7)
    new = swept(chain, ways, fixed, Key(3, 0, 1), True, 2.5)[0]
    assert new.noise_precision == 1.7


def slow_sweep(chain, ways, hyper, key, biased, offset):
    """One sweep from the equations, of the same random numbers."""
    by_user, by_item, _ = ways
    rng = np.random.default_rng([*key])

    def side(rows, ratings, other, which):
        n, size = rows.shape
        bartlett = np.tril(rng.standard_normal((size, size)), -1)
        np.fill_diagonal(bartlett, np.sqrt(rng.chisquare(size + n - np.arange(size))))
        z = rng.standard_normal(size)
        mean, precision, _, _ = reference.normal_wishart(
            rows, np.zeros(size), hyper.strength, size, np.diag(hyper.scale), bartlett, z
        )
        prior, made = RowPrior(mean, precision), np.empty_like(rows)
        for i in range(n):
            center, covariance = closed_form(ratings, i, other, prior, chain.noise_precision, biased, offset)
            L = np.linalg.cholesky(np.linalg.inv(covariance))
            made[i] = center + np.linalg.solve(L.T, reference.normals(size, *key.side(which), i))
        return made, prior

    items, of_items = side(chain.item_rows, by_item, chain.user_rows, ITEMS)
    users, of_users = side(chain.user_rows, by_user, items, USERS)
    squared = reference.squared_errors(by_user, users, items, biased=biased, offset=offset).sum()
    alpha = rng.gamma(hyper.shape + len(by_user.indices) / 2) / (hyper.rate + squared / 2)
    return State(users, items, of_users, of_items, alpha)


@pytest.mark.parametrize("biased", [True, False])
def test_a_sweep_equals_its_twin(biased):
    ways, chain = problem(7, 9, biased)
    hyper = HYPER._replace(scale=HYPER.scale[: K + biased])
    for number in range(1, 6):
        key = Key(11, 2, number)
        slow = slow_sweep(chain, ways, hyper, key, biased, 2.5)
        chain, _, _ = swept(chain, ways, hyper, key, biased, 2.5)
        for fast, twin in zip(flat(chain), flat(slow), strict=True):
            np.testing.assert_allclose(fast, twin, rtol=1e-8, atol=1e-10)


# ---- simulation-based calibration (Talts, Betancourt, Simpson, Vehtari & Gelman 2018) ----------------
# The truth is drawn from the prior, ratings from the truth, and the posterior by the sampler: then the rank of any
# quantity of the truth among its draws is uniform. The chain starts at the truth, which is a draw from its posterior,
# so there is no burn-in; 20 sweeps make it forget the truth, 10 sweeps lie between draws that are compared.

N, M, FILL = 6, 5, 0.6
FORGET, APART, KEPT = 20, 10, 9
SIGNIFICANCE = 0.01  # over all quantities together, of the sound sampler
CERTAIN = 1e-5  # what a broken sampler must fall below


def drawn_prior(rng) -> RowPrior:
    precision = stats.wishart(D, np.diag(1 / HYPER.scale)).rvs(random_state=rng)
    return RowPrior(rng.multivariate_normal(np.zeros(D), np.linalg.inv(HYPER.strength * precision)), precision)


def drawn_rows(prior, n, rng):
    L = np.linalg.cholesky(prior.precision)
    return prior.mean + np.linalg.solve(L.T, rng.standard_normal((D, n))).T


def predictions(chain):
    users, items = chain.user_rows, chain.item_rows
    return users[:, :K] @ items[:, :K].T + users[:, K:] + items[:, K]


def quantities(chain):
    """What means the same however W and U are rotated; each looks at another part of the model."""
    free, sides = predictions(chain), ((chain.user_rows, chain.users), (chain.item_rows, chain.items))
    return [
        chain.noise_precision,
        free[0, 0],
        free[1, 2],
        np.sum(free**2),
        sum(np.linalg.slogdet(prior.precision)[1] for _, prior in sides),
        sum(prior.mean[K] for _, prior in sides),
        sum(rows.mean(axis=0) @ prior.precision @ prior.mean for rows, prior in sides),
    ]


def ranks_of(seed):
    """The rank of each quantity of a truth among 9 draws of its posterior: 0 … 9."""
    rng = np.random.default_rng([seed, 5])
    users, items = drawn_prior(rng), drawn_prior(rng)
    alpha = rng.gamma(HYPER.shape) / HYPER.rate
    truth = State(drawn_rows(users, N, rng), drawn_rows(items, M, rng), users, items, alpha)
    i, j = np.nonzero(rng.random((N, M)) < FILL)
    values = predictions(truth)[i, j] + rng.standard_normal(len(i)) / np.sqrt(alpha)
    ways, chain, draws = both_ways(i, j, values, (N, M)), truth, []
    for number in range(1, FORGET + APART * KEPT + 1):
        key = Key(seed, 0, number)
        chain = swept(chain, ways, HYPER, key, True, 0.0, n_jobs=1)[0]
        if number > FORGET and (number - FORGET) % APART == 0:
            draws.append(quantities(chain))
    return np.sum(np.array(draws) < quantities(truth), axis=0)


def test_ranks_of_the_truth_are_uniform():
    p = uniformity(ranks_of, 200, KEPT)
    assert p.min() > SIGNIFICANCE / len(p), p


def without(name):
    """The half-sweep with one of its settings made zero."""
    real = local.HalfSweep

    def broken(*arguments, **more):
        step = real(*arguments, **more)
        return dataclasses.replace(step, **{name: getattr(step, name) * 0})

    return broken


def without_pull(count, total, cross, center, strength, *rest):
    away = total / count - center
    wishart_draw(count, total, cross - strength * count / (strength + count) * np.outer(away, away), center, strength,
                 *rest)  # fmt: skip


def without_shrinkage(count, total, cross, center, strength, scale, bartlett, normals, mean, precision):
    wishart_draw(count, total, cross, center, strength, scale, bartlett, normals, mean, precision)
    mean += total / count - total / (strength + count)


def as_if_degrees_were_those_of_the_prior(count, total, cross, center, strength, scale, bartlett, *rest):
    size = len(center)
    lower = (size - np.arange(size)) / (size + count - np.arange(size))  # E χ²_{ν₀−k} / E χ²_{ν₀+n−k}
    wishart_draw(count, total, cross, center, strength, scale, bartlett * np.sqrt(lower), *rest)


wishart_draw = wishart.normal_wishart
BROKEN = {  # what is replaced, by what, and how many simulations are enough to see it
    "the mean of the prior, Λm, left out of y": (local, "HalfSweep", without("linear"), 40),
    "the mean of a row for a draw": (local, "HalfSweep", without("spread"), 40),
    "the pull of the prior on Λ left out": (wishart, "normal_wishart", without_pull, 100),
    "the prior's mean not shrunk to its centre": (wishart, "normal_wishart", without_shrinkage, 40),
    "too few degrees of freedom": (wishart, "normal_wishart", as_if_degrees_were_those_of_the_prior, 40),
    "the squared error left out of the rate of α": (local, "squared_errors", lambda *_, **__: 0.0, 40),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_sampler_with_a_term_dropped_is_seen(name, monkeypatch):
    *what, simulations = BROKEN[name]
    monkeypatch.setattr(*what)
    p = uniformity(ranks_of, simulations, KEPT)
    assert p.min() < CERTAIN, p


# ---- what made the ratings is found again ------------------------------------------------------------


@pytest.fixture(scope="module")
def recovered():
    """A truth of three features and noise 0.5; a model with five, of four fifths of its ratings; and the others."""
    truth = gm.synthetic_ratings(400, 200, 12_000, factors=3, noise=0.5, scale=None, times=False, seed=1)
    train, test = truth.ratings.split(0.2, seed=0)
    return truth, train, test, gm.BPMF(factors=5, draws=150).fit(train)


def test_the_noise_is_recovered(recovered):
    truth, _, _, model = recovered
    low, high = np.quantile(model.traces[model.burn_in :, 0, 0], [0.025, 0.975])
    assert low < truth.noise < high
    assert high - low < 0.03


def test_predictions_are_near_the_truth_without_noise(recovered):
    """Nearer than alternating least squares gets with the best of several λ, chosen on the truth itself."""
    truth, train, test, model = recovered
    expected = truth.expected(test.users, test.items)

    def error(other):
        return np.sqrt(np.mean((other.predict(test.users, test.items, clip=False) - expected) ** 2))

    best = min(error(gm.ALS(factors=5, regularization=value).fit(train)) for value in (1, 2, 4))
    assert error(model) < 0.3
    assert error(model) < 0.9 * best


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_cover_ratings_and_truth_as_often_as_they_say(recovered, level):
    truth, _, test, model = recovered
    for of, values in (("rating", test.values), ("mean", truth.expected(test.users, test.items))):
        low, high = model.predict_interval(test.users, test.items, level, of=of, clip=False).T
        assert np.mean((values >= low) & (values <= high)) == pytest.approx(level, abs=0.03), of


# ---- the same numbers ----------------------------------------------------------------------------------

GOLDEN = """
-0.333011483 0.380770547 -0.829872984 1.81870358 -0.921650436 -0.787974126 0.477714622 -0.109095982 -0.31720383
1.59805455 -1.03763486 -0.544788785 -2.30830605 -5.41680359 1.78754013 0.671792926 1.08809001 -0.732522319
0.193210151 -0.313694643 -0.334730159 -1.55304656 -3.64814839 1.87118213 -0.513726576 -0.693664529 -0.682363381
0.911453479 -0.494543081 -0.476979033 2.82828699 3.01227 0.64105729 3.01227 4.42592818 0.686924639
0.64105729 0.686924639 1.02912148 -0.230670168 -0.873472398 -0.113042259 3.03943679 -1.59876002 -1.35973928
-1.59876002 2.37525419 3.49125929 -1.35973928 3.49125929 5.84158441 0.389216795 11.1520183
"""


def test_golden_draws():
    """Three sweeps of a small chain in float64; another order of its random numbers, or NumPy's, would change them."""
    ways, chain = problem(4, 5, seed=2)
    for number in (1, 2, 3):
        chain, squared, _ = swept(chain, ways, HYPER, Key(2026, 1, number), True, 3.0)
    found = np.concatenate([array.ravel() for array in flat(chain)] + [[squared]])
    np.testing.assert_allclose(found, np.array(GOLDEN.split(), float), rtol=1e-6)


def states(table, n_jobs, chain=0, dtype="float32"):
    """Three sweeps of a chain over all ratings of a table."""
    recipe = gm.BPMF(factors=4, dtype=dtype, n_jobs=n_jobs)
    ways, terms = gibbs.BothWays(table.by_user, table.by_item), recipe.terms(table)
    state, hyper = recipe.start_chain(table, terms, chain), recipe._hyper(table, terms)
    for number in (1, 2, 3):
        state, squared, _ = swept(state, ways, hyper, Key(0, chain, number), True, table.global_mean, n_jobs=n_jobs)
    return [*flat(state), np.array(squared)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit(dtype, wide_ratings, pools):
    alone = states(wide_ratings, 1, dtype=dtype)
    assert pools == []
    for n_jobs in (2, 4):
        for one, other in zip(states(wide_ratings, n_jobs, dtype=dtype), alone, strict=True):
            assert one.tobytes() == other.tobytes()
        assert set(pools) == {n_jobs}
        pools.clear()


def test_every_random_number_depends_on_seed_chain_and_sweep(ratings):
    """No two keys share normals: not those of the rows, nor those of the priors and the noise."""
    ways, chain = problem()
    made = {}
    for key in (Key(0, 0, 1), Key(1, 0, 1), Key(0, 1, 1), Key(0, 0, 2), Key(0, 1, 2)):
        made[key] = flat(swept(chain, ways, HYPER, key, True, 2.5)[0])
    keys = list(made)
    for k, one in enumerate(keys):
        for other in keys[k + 1 :]:
            for mine, theirs in zip(made[one], made[other], strict=True):
                assert (mine != theirs).all()


def test_a_chain_is_the_same_alone_and_beside_another(ratings):
    two = gm.BPMF(factors=2, draws=4, burn_in=0, chains=2, keep_dtype="float32").fit(ratings)
    one = gm.BPMF(factors=2, draws=4, burn_in=0, keep_dtype="float32").fit(ratings)
    assert two.traces[:, :1].tobytes() == one.traces.tobytes()
    for mine, theirs in zip(one.draws, two.draws[::2], strict=True):
        assert [part.tobytes() for part in flat(mine)] == [part.tobytes() for part in flat(theirs)]
    assert (two.traces[:, 0] != two.traces[:, 1]).all()
    third = gm.BPMF(factors=4, draws=3, burn_in=2, chains=3, keep_dtype="float32").fit(ratings)
    for c, draw in enumerate(third.draws):  # each with random numbers of its own, not just a start of its own
        for kept, known in zip(flat(draw), states(ratings, 1, chain=c), strict=False):
            assert kept.tobytes() == known.tobytes()
