"""A noise precision for each user: its conditionals against closed forms, and what intervals make of it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

import gramian as gm
from gramian.models.bayes.terms import user_noise


def test_the_factor_of_each_user_is_drawn_from_its_gamma():
    """γ · (ν + α Σe²)/2 ~ Gamma((ν + n)/2, 1)."""
    counts, squared = np.array([0, 3, 50]), np.array([0.0, 4.0, 30.0])
    before = user_noise.NoiseFactors(np.ones(3), 1.0, 6.0)
    made = np.array([
        user_noise.draw_factors(before, counts, squared, 1.5, np.random.default_rng(s)).factors for s in range(2000)
    ])  # fmt: skip
    for i in range(3):
        law = stats.gamma((6 + counts[i]) / 2)
        assert stats.kstest(made[:, i] * (6 + 1.5 * squared[i]) / 2, law.cdf).pvalue > 1e-3


def test_ranks_of_true_degrees_are_uniform():
    """ν and γ from the prior, residuals from them: the rank of ν among its draws is uniform."""
    ranks, prior = [], np.exp(user_noise.PRIOR - user_noise.PRIOR.max())
    for seed in range(300):
        rng = np.random.default_rng(seed)
        nu = rng.choice(user_noise.DEGREES, p=prior / prior.sum())
        factors = rng.gamma(nu / 2, size=8) / (nu / 2)
        squared = rng.chisquare(5, size=8) / (2.0 * factors)
        state, seen = user_noise.NoiseFactors(factors, 1.0, nu), []
        for number in range(1, 200):
            state = user_noise.draw_factors(state, np.full(8, 5), squared, 2.0, rng)
            if number >= 20 and number % 20 == 0:
                seen.append(state.degrees + 1e-9 * rng.random())
        ranks.append(int(np.sum(np.array(seen) < nu + 1e-9 * rng.random())))
    assert stats.chisquare(np.bincount(ranks, minlength=10)).pvalue > 0.01


@pytest.fixture(scope="module")
def uneven():
    """Half of the users have three times the noise of the others; and a model that may see it."""
    rng = np.random.default_rng(0)
    u, i = np.nonzero(rng.random((100, 120)) < 0.4)
    std = np.where(np.arange(100) % 2, 0.9, 0.3)
    values = 3 + 0.5 * rng.normal(size=120)[i] + std[u] * rng.normal(size=len(u))
    train, test = gm.Ratings.from_frame(pl.DataFrame({"user": u, "item": i, "rating": values})).split(0.2, seed=0)
    return std, train, test, gm.BPMF(factors=2, draws=80, noise="by_user", keep_dtype="float32").fit(train)


def test_intervals_differ_by_user_and_hold_for_both_kinds(uneven, tmp_path):
    std, train, test, model = uneven
    inside = {}
    for name, made in (("own", model), ("one", gm.BPMF(factors=2, draws=80).fit(train))):
        low, high = made.predict_interval(test.users, test.items, clip=False).T
        hit = (low <= test.values) & (test.values <= high)
        inside[name] = [hit[std[test.users] == s].mean() for s in (0.3, 0.9)]
    assert np.abs(np.array(inside["own"]) - 0.9).max() < 0.04
    assert np.abs(np.array(inside["one"]) - 0.9).max() > 0.06
    model.save(tmp_path / "m.gramian")
    again = gm.load(tmp_path / "m.gramian")
    assert again.predict_std(1, 2) == model.predict_std(1, 2)
    assert again.update(test).predict_std(1, 2) < 1.2
    with pytest.warns(gm.errors.UnknownIdWarning):
        assert 0.2 < model.predict_std("nobody" if model.user_ids.is_text else 10**6, 2)[0] < 2
