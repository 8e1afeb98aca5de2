"""The draw of the coefficients of a ridge regression against its slow twin, on strips of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.engine import pool, ridge
from gramian.kernels import reference
from gramian.kernels.csr import csr_from_sorted, transpose
from gramian.kernels.linear.feature_products import GROUP

PRECISIONS = np.array([0.5, 2.0, 1.0])


def design_of(shape, seed=0, density=0.05):
    """A random sparse F as a design of three groups, and F."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(rng.random(shape) < density)
    values = rng.normal(size=len(rows)).astype(np.float32)
    dense = np.zeros(shape)
    dense[rows, columns] = values
    matrix = csr_from_sorted(rows, columns, values, shape[0])
    groups = np.sort(np.arange(shape[1]) % 3)
    return ridge.Design(matrix, transpose(matrix, shape[1]), groups), dense


def drawn(design, D, dtype, *, tolerance, n_jobs=None, seed=1):
    """A draw with no rows, and its noise, as rows."""
    n, f = design.rows.n_rows, len(design.groups)
    Y, E = ridge.noise(n, D, dtype, seed, 0), ridge.noise(f, D, dtype, seed, 1)
    noise = ridge.rows_of(Y, D), ridge.rows_of(E, D).copy()
    before = np.random.default_rng(seed).normal(size=(f, D)).astype(dtype)
    return ridge.draw(design, PRECISIONS, Y, E, before, tolerance=tolerance, steps=300, n_jobs=n_jobs), noise


@pytest.mark.parametrize("rank_from", [1, 10_000], ids=["with a basis", "diagonal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(300, 130), (130, 300)], ids=["by features", "by rows"])
@pytest.mark.parametrize("D", [2, 17, 33])
def test_a_draw_solves_the_system_of_its_twin(monkeypatch, shape, dtype, D, rank_from):
    monkeypatch.setattr(ridge, "RANK_FROM", rank_from)
    monkeypatch.setattr(ridge, "PART_ENTRIES", 500)
    monkeypatch.setattr(ridge, "RANK", 32)
    monkeypatch.setattr(ridge, "COLUMNS", 40)
    design, F = design_of(shape)
    made, (Y, E) = drawn(design, D, dtype, tolerance=1e-4 if dtype == "float32" else 1e-9)
    wanted = reference.ridge_draw(F, PRECISIONS[design.groups], Y, E)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=2e-3 if dtype == "float32" else 1e-7)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 40), f=st.integers(1, 40), D=st.integers(1, 20), seed=st.integers(0, 9))
def test_any_shape(n, f, D, seed):
    design, F = design_of((n, f), seed, density=0.3)
    made, (Y, E) = drawn(design, D, "float64", tolerance=1e-10)
    np.testing.assert_allclose(made, reference.ridge_draw(F, PRECISIONS[design.groups], Y, E), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(900, 600), (600, 900)])
def test_threads_do_not_change_a_bit(monkeypatch, shape):
    for name in ("SMALL_WORK", "SMALL_BLOCK"):
        monkeypatch.setattr(pool, name, 1)
    monkeypatch.setattr(ridge, "PART_ENTRIES", 5_000)
    monkeypatch.setattr(ridge, "PIECE_ROWS", 128)
    made = [drawn(design_of(shape)[0], 33, "float32", tolerance=1e-2, n_jobs=n_jobs)[0] for n_jobs in (1, 2, 3)]
    assert made[0].tobytes() == made[1].tobytes() == made[2].tobytes()


def test_the_basis_holds_the_leading_eigenvectors_and_saves_steps(monkeypatch):
    """Of S(FᵀF + I)S, which has as many large eigenvalues as there are kinds of features that go together."""
    rng = np.random.default_rng(0)
    shape = (3000, 600)
    kinds = np.arange(shape[1]) % 30
    level = 0.01 + 0.3 * (rng.random((shape[0], 30)) < 0.1)[:, kinds]
    rows, columns = np.nonzero(rng.random(shape) < level)
    matrix = csr_from_sorted(rows, columns, np.ones(len(rows), np.float32), shape[0])
    design = ridge.Design(matrix, transpose(matrix, shape[1]), np.zeros(shape[1], np.int64))
    F = np.zeros(shape)
    F[rows, columns] = 1
    H = F.T @ F + np.eye(shape[1])
    scale = np.diag(H) ** -0.5
    values = np.linalg.eigvalsh(scale[:, None] * H * scale)[::-1]
    spectrum = design.spectrum()
    V = spectrum.basis.reshape(-1, shape[1], GROUP).swapaxes(0, 1).reshape(shape[1], -1)
    np.testing.assert_allclose(V.T @ V, np.eye(ridge.RANK), atol=1e-5)
    np.testing.assert_allclose(spectrum.values[0], values[0], rtol=1e-5)
    np.testing.assert_allclose(spectrum.values[:3], values[:3], rtol=0.05)

    before = np.zeros((shape[1], 4), np.float32)

    def steps():
        for count in range(1, 100):
            Y, E = ridge.noise(*shape[:1], 4, "float32", 0, 0), ridge.noise(shape[1], 4, "float32", 0, 1)
            if ridge.draw(design, np.ones(1), Y, E, before, tolerance=1e-2, steps=count) is not None:
                return count
        raise AssertionError

    with_basis = steps()
    monkeypatch.setattr(ridge, "RANK_FROM", 10_000)
    del design.__dict__["_found"]
    assert with_basis <= 0.6 * steps()


def test_noise_depends_on_the_place_alone_and_is_normal(monkeypatch):
    monkeypatch.setattr(ridge, "PIECE_ROWS", 64)
    made = ridge.rows_of(ridge.noise(1001, 33, "float64", 5, 0), 33)
    for other in (ridge.noise(1001, 17, "float64", 5, 0), ridge.noise(1001, 5, "float64", 5, 0, n_jobs=3)):
        size = sum(1 if strip.ndim == 1 else strip.shape[1] for strip in other)
        size = min(size, 17)
        np.testing.assert_array_equal(ridge.rows_of(other, size), made[:, :size])
    assert abs(made.mean()) < 4 / np.sqrt(made.size)
    assert np.abs(np.corrcoef(made.T) - np.eye(33)).max() < 5 / np.sqrt(1001)
    assert not np.isin(made, ridge.rows_of(ridge.noise(1001, 33, "float64", 5, 1), 33)).any()
    assert len(np.unique(made)) == made.size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_become_white_and_noisy(dtype):
    rng = np.random.default_rng(0)
    X, mean, root = rng.normal(size=(70, 17)).astype(dtype), rng.normal(size=17), rng.normal(size=(17, 17))
    noise = ridge.rows_of(ridge.noise(70, 17, dtype, 3, 0), 17)
    made = ridge.rows_of(ridge.whitened(X, mean, root, 3, 0), 17)
    np.testing.assert_allclose(made, (X - mean) @ root + noise, rtol=0, atol=2e-5 if dtype == "float32" else 1e-12)
