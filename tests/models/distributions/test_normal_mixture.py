"""Mixtures of normals against numerical integration, simulation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

import gramian as gm
from gramian.models.distributions.normal_mixture import CLOSED_DRAWS, NormalMixture


@st.composite
def mixtures(draw: st.DrawFn, most: int = 2 * CLOSED_DRAWS) -> NormalMixture:
    """One to many draws, pairs and noise levels, wide and narrow."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    S, n = draw(st.integers(1, most)), draw(st.integers(1, 5))
    spread, ratio = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0])), draw(st.sampled_from([1.0, 1.2, 3.0]))
    stds = rng.uniform(0.5, 0.5 * ratio, (S, draw(st.sampled_from([1, n]))))
    return NormalMixture(draw(st.sampled_from([-3.0, 0.0, 3.5])) + spread * rng.normal(size=(S, n)), stds)


def part(mixture: NormalMixture, x: float, j: int, what: str) -> float:
    stds = np.broadcast_to(mixture.stds, mixture.means.shape)
    return float(np.mean(getattr(stats.norm, what)(x, mixture.means[:, j], stds[:, j])))


@given(mixtures(), st.floats(-6, 9))
def test_cdf_and_density_are_the_mean_of_the_parts(mixture, x):
    cdf = [part(mixture, x, j, "cdf") for j in range(len(mixture))]
    density = [part(mixture, x, j, "pdf") for j in range(len(mixture))]
    np.testing.assert_allclose(mixture.cdf(x), cdf, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(mixture.log_density(x), np.log(np.maximum(density, 1e-320)), atol=1e-6)


@given(mixtures(), st.sampled_from([1e-12, 1e-4, 0.05, 0.3, 0.5, 0.77, 0.95, 1 - 1e-4, 1 - 1e-12]))
def test_quantile_inverts_the_cdf(mixture, p):
    x = mixture.quantile(p)
    if p <= 0.5:
        np.testing.assert_allclose(mixture.cdf(x), p, rtol=1e-9)
    else:
        np.testing.assert_allclose(NormalMixture(-mixture.means, mixture.stds).cdf(-x), 1 - p, rtol=1e-9)


def test_quantile_of_parts_far_apart_and_of_unlike_noise():
    far = NormalMixture(np.array([[0.0], [1000.0]]), np.array([[1e-3], [1.0]]))
    assert far.quantile(0.25) == pytest.approx(0.0, abs=1e-9)
    assert far.quantile(0.75) == pytest.approx(1000.0, abs=1e-9)
    assert 0.003 < far.quantile(0.5) < 999
    np.testing.assert_allclose(far.cdf(far.quantile(0.4999999)), 0.4999999, rtol=1e-9)


def test_quantile_takes_one_p_per_pair_and_is_exact_for_one_draw():
    p = np.array([0.1, 0.5, 0.99])
    alone = NormalMixture(np.array([[1.0, 2.0, 3.0]]), np.array([[0.5]]))
    np.testing.assert_allclose(alone.quantile(p), stats.norm.ppf(p, [1, 2, 3], 0.5), rtol=1e-14)
    for bad in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(gm.ParameterError, match=r"\(0, 1\)"):
            alone.quantile(bad)


@given(mixtures())
def test_moments_are_those_of_the_mixture(mixture):
    second = (np.square(mixture.means) + np.square(mixture.stds)).mean(axis=0)
    np.testing.assert_allclose(mixture.std() ** 2, second - mixture.mean() ** 2, rtol=1e-9)
    np.testing.assert_allclose(mixture.mean_std(), mixture.means.std(axis=0))
    assert (mixture.std() > mixture.mean_std()).all()


@given(mixtures(), st.floats(-6, 9))
def test_crps_is_the_integral_of_the_squared_distance(mixture, x):
    for j, score in enumerate(mixture.crps(x)):
        ends = [min(x, mixture.means[:, j].min() - 40), max(x, mixture.means[:, j].max() + 40)]
        grid = np.concatenate([np.linspace(ends[0], x, 20001), np.linspace(x, ends[1], 20001)])
        below = _cdf(mixture, j, grid)
        squared = np.where(np.arange(len(grid)) <= 20000, below, 1 - below) ** 2
        assert score == pytest.approx(integrate.trapezoid(squared, grid), abs=2e-5)


def _cdf(mixture: NormalMixture, j: int, grid: np.ndarray) -> np.ndarray:
    stds = np.broadcast_to(mixture.stds, mixture.means.shape)
    return np.mean([stats.norm.cdf(grid, m, s) for m, s in zip(mixture.means[:, j], stds[:, j], strict=True)], axis=0)


@pytest.mark.parametrize("ratio", [1.0, 1.3, 4.0])
def test_the_two_ways_to_the_crps_agree(ratio):
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.3, 4.0):
        mixture = NormalMixture(spread * rng.normal(size=(50, 7)), rng.uniform(0.7, 0.7 * ratio, (50, 1)))
        np.testing.assert_allclose(mixture._integrated_half_spread(), mixture._half_spread(), atol=1e-6)


def test_crps_of_one_normal_is_the_published_closed_form():
    """Gneiting & Raftery 2007: σ(z(2Φ(z) − 1) + 2φ(z) − 1/√π)."""
    z, std = np.array([-2.0, 0.0, 0.5, 4.0]), 0.8
    mixture = NormalMixture(np.full((1, 4), 3.0), np.array([[std]]))
    known = std * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(mixture.crps(3.0 + std * z), known, rtol=1e-13)


def test_samples_have_the_moments_and_share_a_draw():
    mixture = NormalMixture(np.array([[0.0, 0.0], [10.0, 20.0]]), np.array([[0.1, 0.2], [0.1, 0.2]]))
    rows = mixture.sample(20_000, np.random.default_rng(1))
    np.testing.assert_allclose(rows.mean(axis=0), mixture.mean(), atol=0.3)
    np.testing.assert_allclose(rows.std(axis=0), mixture.std(), rtol=0.02)
    np.testing.assert_array_equal(rows[:, 0] > 5, rows[:, 1] > 10)


@pytest.mark.parametrize(
    ("means", "stds"),
    [
        (np.zeros(3), np.ones(3)),
        (np.zeros((2, 3)), np.ones((3, 1))),
        (np.zeros((2, 3)), np.zeros((2, 1))),
        (np.full((2, 3), np.nan), np.ones((2, 1))),
        (np.zeros((0, 3)), np.ones((0, 1))),
    ],
)
def test_what_is_no_mixture_is_refused(means, stds):
    with pytest.raises(gm.ParameterError, match="A mixture needs"):
        NormalMixture(means, stds)
