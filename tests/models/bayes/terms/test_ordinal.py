"""Ratings as steps: the draws against closed forms, a grid and simulation; what a model makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from chains import both_ways, swept
from ranks import drawn_sides, ranked, uniformity
from scipy import special, stats

import gramian as gm
from gramian.engine import entries
from gramian.kernels import reference
from gramian.kernels.csr import csr_from_sorted
from gramian.kernels.sampling import latent as kernel
from gramian.metrics import prediction
from gramian.models.bayes import gibbs
from gramian.models.bayes.state import Key, State
from gramian.models.bayes.terms import ordinal
from gramian.models.bayes.terms.collection import Terms
from gramian.models.distributions.ordinal_mixture import OrdinalMixture

CUTS = np.array([1.5, 2.2, 3.6, 4.5])


def some_steps(n_rows=40, per_row=30, seed=0, spread=1.0):
    """Rows of ratings with latent means, stds, and steps made from them."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_rows), per_row)
    rows = csr_from_sorted(who, np.tile(np.arange(per_row), n_rows), np.zeros(len(who)), n_rows)
    mean, stds = 3.2 + spread * rng.normal(size=len(who)), 0.6 + 0.4 * rng.random(n_rows)
    z = mean + stds[who] * rng.normal(size=len(who))
    return rows, np.searchsorted(CUTS, z).astype(np.int32), mean, stds


# ---- truncated normals -------------------------------------------------------------------------------


def test_the_quantile_of_the_normal_is_that_of_scipy():
    p = np.concatenate([np.logspace(-270, -1, 400), np.linspace(0.01, 0.99, 99), 1 - np.logspace(-15, -1, 50)])
    found = np.array([kernel.truncated(-np.inf, np.inf, x) for x in p])
    np.testing.assert_allclose(found, special.ndtri(p), rtol=2e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("a", "b"), [(-1, 0.5), (2, 3), (6, np.inf), (-np.inf, -9), (-0.1, np.inf), (40, 41), (-60, -45)]
)
def test_numbers_between_two_bounds_have_the_truncated_distribution(a, b):
    u = (np.arange(2000) + 0.5) / 2000
    z = np.array([kernel.truncated(a, b, x) for x in u])
    assert ((z >= a) & (z <= b)).all()
    law = stats.truncnorm(a, b) if min(abs(a), abs(b)) < 35 else None
    if law is None:  # so far out the tail is exponential
        scale = 1 / min(abs(a), abs(b))
        near = z - a if a > 0 else b - z
        assert stats.kstest(near, stats.expon(scale=scale).cdf).statistic < 0.01
    else:
        assert stats.kstest(z, law.cdf).statistic < 1e-3


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_latent_ratings_equal_their_twin_on_any_number_of_threads(n_jobs, pools):
    rows, steps, mean, stds = some_steps()
    key = (2**40 + 7, 12, 3)
    found = entries.latent(rows, steps, mean, CUTS, stds, key, n_jobs)
    np.testing.assert_allclose(found, reference.latent_ratings(rows, steps, mean, CUTS, stds, key), rtol=1e-9)
    assert (np.searchsorted(CUTS, found) == steps).all()
    np.testing.assert_array_equal(found, entries.latent(rows, steps, mean, CUTS, stds, key, 1))
    other = entries.latent(rows, steps, mean, CUTS, stds, (key[0], 13, 3), n_jobs)
    assert not np.isclose(other, found).any()


# ---- cuts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_likelihood_of_the_cuts_has_the_slopes_that_it_shows(n_jobs, pools):
    rows, steps, mean, stds = some_steps(600, 5)
    value, slope, bend, beside = entries.cut_sums(rows, steps, mean, CUTS, stds, n_jobs)
    assert value == pytest.approx(reference.cuts_log_likelihood(rows, steps, mean, CUTS, stds), rel=1e-12)
    h, moves = 1e-5, np.eye(4)

    def slopes(at):
        return entries.cut_sums(rows, steps, mean, at, stds, n_jobs)[1]

    for k in range(4):
        up, down = (reference.cuts_log_likelihood(rows, steps, mean, CUTS + s * h * moves[k], stds) for s in (1, -1))
        assert slope[k] == pytest.approx((up - down) / (2 * h), rel=1e-6)
    hessian = np.diag(-bend) + np.diag(beside, 1) + np.diag(beside, -1)
    shown = np.stack([(slopes(CUTS + h * m) - slopes(CUTS - h * m)) / (2 * h) for m in moves])
    np.testing.assert_allclose(hessian, shown, rtol=1e-5, atol=1e-4 * np.abs(hessian).max())


@pytest.mark.parametrize("n_rows", [2, 20])
def test_cuts_and_noise_have_the_posterior_of_a_grid(n_rows):
    """Four levels leave one cut and α: their joint posterior, summed on a grid, is what the draws show."""
    rows, steps, mean, _ = some_steps(n_rows, 6, seed=4)
    steps = np.minimum(steps, 3).astype(np.int32)
    steps[:4] = range(4)
    fixed, rate, rng = np.array([1.5, 3.6]), 1.0, np.random.default_rng(0)
    middle, log_alpha = np.linspace(1.5, 3.6, 151)[1:-1], np.linspace(-4, 4, 161)
    grid = np.array([[
        reference.cuts_log_likelihood(rows, steps, mean, np.array([1.5, c, 3.6]), np.full(n_rows, np.exp(-a / 2)))
        + a - rate * np.exp(a) for a in log_alpha] for c in middle])  # fmt: skip
    weight = np.exp(grid - grid.max())
    weight /= weight.sum()
    cuts, alpha, seen, accepted = ordinal.Cuts(np.array([1.5, 2.5, 3.6])), 1.0, [], []
    for number in range(5_000):
        stds = np.full(n_rows, alpha**-0.5)
        cuts = ordinal.draw_cuts(cuts, rows, steps, mean, stds, rng, 1)
        z = entries.latent(rows, steps, mean, cuts.values, stds, (1, number, 0), 1)
        alpha = rng.gamma(1 + len(z) / 2) / (rate + np.sum((z - mean) ** 2) / 2)
        seen.append([cuts.values[1], np.log(alpha)])
        accepted.append(cuts.accepted)
    assert cuts.values[[0, 2]].tolist() == fixed.tolist()
    assert 0.3 < np.mean(accepted) <= 1
    for k, (points, chance) in enumerate(((middle, weight.sum(axis=1)), (log_alpha, weight.sum(axis=0)))):
        draws = np.array(seen)[200:, k]
        for p in (0.1, 0.25, 0.5, 0.75, 0.9):  # a draw is worth a tenth of one
            at = np.interp(p, np.cumsum(chance) - chance / 2, points)
            assert np.mean(draws < at) == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) * 10 / len(draws)))


# The truth from the prior, the posterior by the sampler: the ranks of the truth are uniform (see test_gibbs.py).

N, M = 6, 5
HYPER = gibbs.Hyperprior(np.array([1.0, 0.5]), 2.0, 3.0, 3.0)
LEVELS = np.arange(1.0, 6.0)


def ranks_of(seed):
    rng = np.random.default_rng([seed, 9])
    sides, priors = drawn_sides(rng, (N, M), HYPER)
    alpha, cuts = rng.gamma(HYPER.shape) / HYPER.rate, np.array([1.5, *np.sort(rng.uniform(1.5, 4.5, 2)), 4.5])
    u, i = np.nonzero(rng.random((N, M)) < 0.8)
    chain = State(*sides, *priors, alpha, {"cuts": ordinal.Cuts(cuts)})
    z = 3 + free(chain)[u, i] + rng.normal(size=len(u)) / np.sqrt(alpha)
    steps = np.searchsorted(cuts, z).astype(np.int32)
    ways, terms = both_ways(u, i, LEVELS[steps], (N, M)), Terms((ordinal.Ordinal(LEVELS, steps),))

    def sweep(state, number):
        return swept(state, ways, HYPER, Key(seed, 0, number), True, 3.0, terms, 1)[0]

    return ranked(chain, quantities, sweep, 56, 2, 6)


def free(chain):
    users, items = chain.user_rows, chain.item_rows
    return users[:, :1] @ items[:, :1].T + users[:, 1:] + items[:, 1]


def quantities(chain):
    made = free(chain)
    return [chain.noise_precision, *chain.cuts.values[1:3], made[0, 0], made[1, 2], made.mean(), np.sum(made**2)]


def test_ranks_of_the_truth_are_uniform():
    p = uniformity(ranks_of, 50)
    assert p.min() > 0.01 / len(p), p


def test_latent_ratings_too_far_from_their_mean_fail_the_calibration(monkeypatch):
    real = entries.latent
    monkeypatch.setattr(
        entries, "latent", lambda rows, steps, mean, cuts, stds, key, n_jobs: mean + 1.3 * (
            real(rows, steps, mean, cuts, stds, key, n_jobs) - mean)
    )  # fmt: skip
    assert uniformity(ranks_of, 24).min() < 1e-4


# ---- distributions -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture():
    rng = np.random.default_rng(3)
    cuts = np.sort(CUTS + 0.05 * rng.normal(size=(8, 4)), axis=1)
    return OrdinalMixture(3 + rng.normal(size=(8, 50)), 0.5 + rng.random((8, 1)), cuts, LEVELS)


def test_the_distribution_is_that_of_the_steps(mixture):
    p = mixture.probabilities
    by_hand = np.mean([
        np.diff(special.ndtr((np.concatenate([[-np.inf], c, [np.inf]])[:, None] - m) / s), axis=0)
        for m, s, c in zip(mixture.latent, mixture.stds, mixture.cuts, strict=True)
    ], axis=0).T  # fmt: skip
    np.testing.assert_allclose(p, by_hand, atol=1e-12)
    np.testing.assert_allclose(mixture.mean(), p @ LEVELS, atol=1e-12)
    np.testing.assert_allclose(mixture.std() ** 2, p @ LEVELS**2 - (p @ LEVELS) ** 2, atol=1e-10)
    for k in range(1, 5):
        np.testing.assert_allclose(mixture.cdf(k + 0.5), p[:, :k].sum(axis=1), atol=1e-12)
    for q in (0.001, 0.05, 0.4, 0.95, 0.9999):
        np.testing.assert_allclose(mixture.cdf(mixture.quantile(q)), q, rtol=1e-6)
    r = np.arange(50) % 5 + 1.0
    rps = sum((p[:, :k].sum(axis=1) - (r <= k)) ** 2 for k in range(1, 5))
    np.testing.assert_allclose(mixture.crps(r), rps, atol=1e-12)
    draws = mixture.sample(20_000, np.random.default_rng(0))
    for k in range(5):
        np.testing.assert_allclose((draws == k + 1).mean(axis=0), p[:, k], atol=0.02)


def test_scores_of_probabilities_are_their_sums():
    p, came = np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]]), [1, 2]
    assert prediction.log_loss(came, p) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
    assert prediction.ranked_probability_score(came, p) == pytest.approx((0.2**2 + 0.3**2 + 0.7**2 + 0.9**2) / 2)
    assert prediction.log_loss([0], [[0.0, 1.0]]) > 700


# ---- the model ---------------------------------------------------------------------------------------


def stepped(n_users=80, n_items=60, seed=0, cuts=CUTS, fill=0.4):
    rng = np.random.default_rng(seed)
    u, i = np.nonzero(rng.random((n_users, n_items)) < fill)
    z = 3.2 + 0.5 * rng.normal(size=n_users)[u] + 0.8 * rng.normal(size=n_items)[i] + 0.6 * rng.normal(size=len(u))
    times = 10**9 + 86_400 * rng.integers(30, size=len(u))
    return gm.Ratings.from_frame(pl.DataFrame({
        "user": u, "item": i, "rating": np.searchsorted(cuts, z) + 1.0, "time": times
    }))  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return stepped().split(0.2, seed=0)


@pytest.fixture(scope="module")
def recipe():
    return gm.BPMF(factors=2, draws=100, likelihood="ordinal", keep_dtype="float32")


@pytest.fixture(scope="module")
def model(parts, recipe):
    return recipe.fit(parts[0])


def test_cuts_and_noise_are_recovered(model):
    cuts = np.array([draw.cuts.values for draw in model.draws])
    assert (cuts[:, [0, 3]] == CUTS[[0, 3]]).all()
    assert (np.abs(cuts.mean(axis=0) - CUTS)[1:3] < 4 * cuts.std(axis=0)[1:3]).all()
    assert cuts.std(axis=0).max() < 0.1
    assert model.noise_std == pytest.approx(0.6, abs=0.06)
    assert np.mean(model.history.column("cuts_accepted")) > 0.5
    assert model.trace_names[4:6] == ["cut_2", "cut_3"]
    np.testing.assert_allclose(model.traces[-1, 0, 4:6], model.draws[-1].cuts.values[1:3])


def test_probabilities_are_better_than_those_of_a_normal_distribution(parts, model):
    train, test = parts
    scores, normal = model.evaluate(test), gm.BPMF(factors=2, draws=100).fit(train)
    chances = model.predict_proba(test.users, test.items)
    steps = (test.values - 1).astype(int)
    assert scores["log_loss"] == pytest.approx(prediction.log_loss(steps, chances))
    assert scores["rps"] == pytest.approx(prediction.ranked_probability_score(steps, chances))
    assert scores["log_loss"] < normal.evaluate_probabilities(test)["log_loss"] - 0.02
    assert "log_loss" not in normal.evaluate(test)
    np.testing.assert_allclose(normal.predict_proba(test.users, test.items).sum(axis=1), 1)
    np.testing.assert_allclose(chances @ model.levels, model.predict(test.users, test.items), atol=1e-6)
    shown, came = chances.mean(axis=0), np.bincount(steps, minlength=5) / len(test)
    assert np.abs(shown - came).max() < 4 * np.sqrt(0.25 / len(test))
    for star in (2, 3.5, 5):
        by_hand = chances[:, model.levels >= star].sum(axis=1)
        np.testing.assert_allclose(model.probability(test.users, test.items, at_least=star), by_hand, atol=1e-12)
    low, high = model.predict_interval(test.users, test.items).T
    assert np.mean((low <= test.values) & (test.values <= high)) == pytest.approx(0.9, abs=0.05)
    assert set(np.unique(model.sample_predictive(test.users[:9], test.items[:9], 50))) <= set(LEVELS)


def test_scores_of_blocks_are_those_of_pairs_to_a_hundred_thousandth(model):
    users = np.array([0, 5, -1], np.int32)
    block = model.score_block(users)
    items = np.arange(model.ratings.n_items, dtype=np.int32)
    for row, user in enumerate(users):
        pairs = model.score_pairs(np.full(len(items), user, np.int32), items)
        np.testing.assert_allclose(block[row], pairs, atol=3e-5)
    assert 1 <= block.min() < block.max() <= 5


def test_a_folded_row_is_that_of_a_long_chain(parts, model):
    """Given one draw, the row of somebody new has the posterior that importance sampling from its prior finds."""
    draw = model.draws[-1]
    same = dataclasses.replace(model, draws=(draw,) * 2000)
    items, values = np.array([2, 7, 30], np.int32), np.array([5.0, 2.0, 4.0])
    given = dict(zip(model.item_ids.take(items).to_list(), values.tolist(), strict=True))
    rows = same.fold_in(given)
    np.testing.assert_array_equal(rows, same.fold_in(given))
    rng, prior = np.random.default_rng(0), draw.users
    x = prior.mean + np.linalg.solve(np.linalg.cholesky(prior.precision).T, rng.normal(size=(3, 400_000))).T
    V = draw.item_rows[items]
    mean = model.global_mean + x[:, :2] @ V[:, :2].T + x[:, 2:] + V[:, 2]
    edges = np.concatenate([[-np.inf], draw.cuts.values, [np.inf]])
    steps, root = (values - 1).astype(int), np.sqrt(draw.noise_precision)
    chance = special.ndtr((edges[steps + 1] - mean) * root) - special.ndtr((edges[steps] - mean) * root)
    weight = chance.prod(axis=1) / chance.prod(axis=1).sum()
    center = weight @ x
    spread = np.sqrt(weight @ (x - center) ** 2)
    assert (np.abs(rows.mean(axis=0) - center) < 5 * spread * np.sqrt(4 / 2000)).all()
    np.testing.assert_allclose(rows.std(axis=0), spread, rtol=0.12)
    assert model.recommend_for(given, 3).height == 3
    assert model.ask_next(given, 3).height == model.ask_next(model.user_ids.ids[4], 3).height == 3


def test_a_model_of_steps_is_saved_resumed_updated_and_the_same_on_threads(parts, recipe, model, tmp_path, pools):
    train, test = parts
    model.save(tmp_path / "m.gramian")
    again, asked = gm.load(tmp_path / "m.gramian"), (test.users, test.items)
    np.testing.assert_array_equal(again.predict_proba(*asked), model.predict_proba(*asked))
    threads = dataclasses.replace(recipe, n_jobs=2).fit(train)
    assert 2 in pools
    np.testing.assert_array_equal(threads.predict_proba(*asked), model.predict_proba(*asked))
    short, longer = (dataclasses.replace(recipe, draws=n, burn_in=16) for n in (20, 40))
    short.fit(train, checkpoint=tmp_path / "c", keep_checkpoint=True)
    resumed = longer.fit(train, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(resumed.predict_proba(*asked), longer.fit(train).predict_proba(*asked))
    grown = model.update(test)
    assert grown.evaluate(test)["log_loss"] < model.evaluate(test)["log_loss"] - 0.05
    grown.save(tmp_path / "m.gramian")
    np.testing.assert_array_equal(gm.load(tmp_path / "m.gramian").predict(*asked), grown.predict(*asked))


def test_steps_go_with_everything_else(parts):
    train, test = parts
    side = pl.DataFrame({"item": range(60), "kind": [n % 3 for n in range(60)]})
    recipe = gm.BPMF(factors=2, draws=40, time=5, noise="by_user", implicit="both", item_features=side, chains=2,
                     likelihood="ordinal")  # fmt: skip
    model = recipe.fit(train, validation=test)
    assert model.history[-1]["validation_rmse"] == pytest.approx(model.evaluate(test)["rmse"], abs=2e-3)
    measured = gm.calibration(model, test)
    assert measured.at(0.9)["coverage"] == pytest.approx(0.9, abs=0.06)
    assert gm.conformal(model, test).predict_interval(1, 2, times=test.times[0]).shape == (1, 2)
    for by in ("mean", "lower", "thompson"):
        table = model.recommend([1, 2], 4, by=by)
        assert table.height == 8
        assert table["score"].is_between(1, 5).all()
    explained = model.explain(1, 2)
    parts_ = explained.global_mean + explained.user_bias + explained.item_bias + explained.rest
    assert explained.prediction == pytest.approx(parts_ + explained.contributions["contribution"].sum())
    grown = model.update(test)
    assert grown.evaluate(test)["rmse"] < model.evaluate(test)["rmse"]
    with pytest.warns(gm.UnknownIdWarning):
        strange = model.predict_proba(10**6, 2)
    assert strange.sum() == pytest.approx(1)
    assert model.recommend_for({1: 5.0, 3: 2.0}, 3, times=test.times[0]).height == 3
    low_memory = dataclasses.replace(recipe, memory=0.0).fit(train)
    assert low_memory.n_draws == 2


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_few_levels_are_enough(levels):
    ratings = stepped(30, 20, cuts=np.array([2.5, 3.5])[: levels - 1])
    model = gm.BPMF(factors=1, draws=20, likelihood="ordinal").fit(ratings)
    chances = model.predict_proba(ratings.users, ratings.items)
    assert chances.shape == (len(ratings), levels)
    assert np.isfinite(model.predict_interval(ratings.users, ratings.items)).all()
    assert model.predict(ratings.users, ratings.items).min() >= 1
    if levels == 1:
        assert (chances == 1).all()
    assert model.recommend(n=2)["score"].is_between(1, levels).all()


def test_ratings_that_are_no_steps_are_refused():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"user": np.arange(300) % 20, "item": np.arange(300) // 20, "rating": rng.normal(size=300)})
    ratings = gm.Ratings.from_frame(frame)
    with pytest.raises(gm.DataError, match="at most 100 steps: found 300 different"):
        gm.BPMF(likelihood="ordinal").fit(ratings)
    with pytest.raises(gm.ParameterError, match="at most 100 levels: found 300"):
        gm.BPMF(factors=1, draws=2).fit(ratings).predict_proba(1, 2)


GOLDEN = """
1.5 2.363125 3.922711 4.5 8.013706 0.005618925 -0.09593248 -0.3844583 0.6698668 -0.007222592 -0.08852938 0.01732703
0.7059954 -0.2780269 0.8440317 -0.1052525 0.5711333 -0.1616061 0.2849047 -0.009357924 -0.327217 0.2980345 -0.8315063
0.5326682 -0.4643679 -0.5188721 0.4071529
"""


def test_golden_draws():
    """Three sweeps of a small chain in float64."""
    recipe = gm.BPMF(factors=1, draws=3, burn_in=2, likelihood="ordinal", dtype="float64", keep_dtype="float32",
                     seed=2026, n_jobs=1)  # fmt: skip
    draw = recipe.fit(stepped(6, 5, seed=1, fill=0.8)).draws[-1]
    found = np.concatenate([draw.cuts.values, [draw.noise_precision], draw.user_rows.ravel(), draw.item_rows.ravel()])
    np.testing.assert_allclose(found, np.array(GOLDEN.split(), float), rtol=1e-5)
