"""The Normal–Wishart draw: against its NumPy twin, and the moments of many draws against closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from chains import drawn_prior
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gramian.engine import products
from gramian.kernels import reference
from gramian.kernels.sampling import wishart
from gramian.models.bayes import gibbs


def drawn(rows, center, strength, scale, bartlett, normals):
    """The fast draw, from rows."""
    size = len(center)
    total, cross = np.zeros(size), np.zeros((size, size))
    wishart.moments(rows, total, cross)
    mean, precision = np.empty(size), np.empty((size, size))
    wishart.normal_wishart(len(rows), total, cross, center, strength, scale, bartlett, normals, mean, precision)
    return mean, precision


@st.composite
def problems(draw):
    """Rows of any number and either type, columns of very different size, and a Bartlett factor."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, size = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    width = 10.0 ** rng.uniform(-3, 3, size) if draw(st.booleans()) else np.ones(size)
    rows = (rng.normal(size=(n, size)) + rng.normal(size=size)) * width
    bartlett = np.tril(rng.normal(size=(size, size)), -1)
    np.fill_diagonal(bartlett, np.sqrt(rng.chisquare(size + n - np.arange(size))))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    center, scale = rng.normal(size=size) * width, rng.uniform(0.1, 3, size) * width**2
    return rows.astype(dtype), center, draw(st.sampled_from([0.01, 2.0, 30.0])), scale, bartlett, rng.normal(size=size)


@given(problems())
def test_the_fast_draw_equals_its_twin(problem):
    rows, center, strength, scale, bartlett, normals = problem
    before = [array.copy() for array in problem if isinstance(array, np.ndarray)]
    mean, precision = drawn(*problem)
    degrees = float(len(center))
    slow_mean, slow_precision, _, grown = reference.normal_wishart(
        rows, center, strength, degrees, np.diag(scale), bartlett, normals
    )
    width = 1 / np.sqrt(np.diag(slow_precision))
    np.testing.assert_allclose(mean / width, slow_mean / width, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        precision * np.outer(width, width), slow_precision * np.outer(width, width), rtol=1e-8, atol=1e-8
    )
    np.testing.assert_array_equal(precision, precision.T)
    assert grown == degrees + len(rows)
    for array, was in zip([a for a in problem if isinstance(a, np.ndarray)], before, strict=True):
        np.testing.assert_array_equal(array, was)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_are_sums_in_float64(dtype):
    rows = np.random.default_rng(0).normal(size=(1000, 5)).astype(dtype)
    total, cross = np.ones(5), np.ones((5, 5))
    wishart.moments(rows, total, cross)
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(total, 1 + exact.sum(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.tril(cross), np.tril(1 + exact.T @ exact), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(np.triu(cross, 1), np.triu(np.ones((5, 5)), 1))


@pytest.fixture(scope="module")
def many():
    """20,000 draws given the same seven rows, and the closed form's parameters: ν_*, W_*, m_*, β_*."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(7, 3)) @ np.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 2]]) + [0.5, -1, 2]
    hyper = gibbs.Hyperprior(np.array([0.5, 1.0, 2.0]), 2.0, 1.0, 1.0)
    draws = [drawn_prior(rows, hyper, rng)[0] for _ in range(20_000)]
    away = rows.mean(axis=0)
    spread = (rows - away).T @ (rows - away)
    inverse = np.diag(hyper.scale) + spread + (2 * 7 / 9) * np.outer(away, away)
    means, precisions = (np.array(part) for part in zip(*draws, strict=True))
    return means, precisions, 3 + 7, np.linalg.inv(inverse), 7 * away / 9, 9.0


def test_precisions_have_the_moments_of_the_wishart(many):
    """Each entry's mean within 5 standard errors of SciPy's, each variance within 10 %."""
    _, precisions, degrees, scale, _, _ = many
    known = stats.wishart(degrees, scale)
    np.testing.assert_allclose(known.mean(), degrees * scale)
    error = np.sqrt(known.var() / len(precisions))
    assert (np.abs(precisions.mean(axis=0) - known.mean()) < 5 * error).all()
    np.testing.assert_allclose(precisions.var(axis=0), known.var(), rtol=0.1)


def test_precisions_are_distributed_as_scipys(many):
    _, precisions, degrees, scale, _, _ = many
    logs = np.linalg.slogdet(precisions)[1]
    theirs = np.linalg.slogdet(stats.wishart(degrees, scale).rvs(20_000, random_state=2))[1]
    assert stats.ks_2samp(logs, theirs).pvalue > 1e-3
    for c in range(3):  # Λ_cc / W_cc ~ χ²_ν
        assert stats.kstest(precisions[:, c, c] / scale[c, c], stats.chi2(degrees).cdf).pvalue > 1e-3
    # 1 / (Λ⁻¹)_cc is χ² with ν − D + 1 degrees, over (W⁻¹)_cc
    conditional = 1 / np.linalg.inv(precisions)[:, 1, 1] * np.linalg.inv(scale)[1, 1]
    assert stats.kstest(conditional, stats.chi2(degrees - 2).cdf).pvalue > 1e-3


def test_means_have_the_moments_of_their_t_distribution(many):
    """E[m] = m_*, Cov[m] = W_*⁻¹/(β_* (ν_* − D − 1)); and given Λ, m is normal with precision β_*Λ."""
    means, precisions, degrees, scale, center, strength = many
    covariance = np.linalg.inv(scale) / (strength * (degrees - 3 - 1))
    assert (np.abs(means.mean(axis=0) - center) < 5 * np.sqrt(np.diag(covariance) / len(means))).all()
    width = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(np.cov(means.T) / np.outer(width, width), covariance / np.outer(width, width), atol=0.05)
    away = means - center
    distance = strength * np.einsum("sc,scd,sd->s", away, precisions, away)
    assert stats.kstest(distance, stats.chi2(3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("threads", [1, 3])
def test_the_engine_sums_moments_in_the_same_pieces_for_any_threads(threads):
    rows = np.random.default_rng(2).standard_normal((2 * products.MOMENT_ROWS + 5, 40)).astype(np.float32)
    total, cross = products.moments(rows, n_jobs=threads)
    np.testing.assert_allclose(total, rows.astype(float).sum(0), rtol=1e-10)
    np.testing.assert_allclose(cross, np.tril(rows.T.astype(float) @ rows), atol=1e-7)
    assert [total.tobytes(), cross.tobytes()] == [part.tobytes() for part in products.moments(rows, n_jobs=2)]


def test_the_engine_converts_rows_as_numpy_does():
    rows = np.random.default_rng(3).standard_normal((60_001, 25)).astype(np.float32)
    np.testing.assert_array_equal(products.converted(rows, np.float16, n_jobs=2), rows.astype(np.float16))
