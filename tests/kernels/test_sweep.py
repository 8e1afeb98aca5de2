"""The compiled half-sweep against its NumPy twin: every option, both types, any K; bits, singular rows, draws."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import assert_close, solve

from gramian.kernels import reference
from gramian.kernels.arrays import aligned_rows
from gramian.kernels.csr import CSR
from gramian.kernels.sampling.normals import fill_normals, philox
from gramian.kernels.sweep import half_sweep

DTYPES = (np.float32, np.float64)
ITEMS = 300


def problem(rng, factors, dtype, n_rows=37, most=40, biased=False):
    """Random ratings, an empty row first and one heavy row; a dense, definite Λ."""
    width = factors + biased
    counts = rng.integers(0, most, n_rows)
    counts[0], counts[n_rows // 2] = 0, 700
    indptr = np.concatenate([[0], np.cumsum(counts)])
    rows = CSR(indptr, rng.integers(0, ITEMS, indptr[-1]).astype(np.int32), rng.normal(3, 1, indptr[-1]).astype("f4"))
    other = rng.normal(0, 1, (ITEMS, width)).astype(dtype)
    root = rng.normal(0, 1, (width, width)) / np.sqrt(width)
    return rows, other, (root @ root.T + 2 * np.eye(width)).astype(dtype)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    factors=st.one_of(st.integers(1, 130), st.sampled_from([16, 32, 64, 96, 97, 128])),
    dtype=st.sampled_from(DTYPES),
    biased=st.booleans(),
    weighted=st.booleans(),
    implicit=st.booleans(),
    by_count=st.booleans(),
    prior=st.sampled_from(["zero", "one", "per row"]),
    drawing=st.booleans(),
)
def test_the_kernel_equals_its_twin(seed, factors, dtype, biased, weighted, implicit, by_count, prior, drawing):
    rng = np.random.default_rng(seed)
    rows, other, precision = problem(rng, factors, dtype, n_rows=int(rng.integers(1, 40)), biased=biased)
    width = factors + biased
    options = {"biased": biased, "by_count": by_count, "offset": 0.25}
    if weighted:
        options["weights"] = rng.uniform(0, 2, len(rows.indices)).astype(dtype)
    if implicit:
        root = rng.normal(0, 1, (width, width))
        options["shared"] = (root @ root.T).astype(dtype)
    if prior != "zero":
        options["linear"] = rng.normal(0, 1, width if prior == "one" else (rows.n_rows, width)).astype(dtype)
    if drawing:
        options["draw"] = (seed, 3, 1)
        options["spread"] = 0.7
    found, status = solve(rows, other, precision, **options)
    assert not status.any()
    assert_close(found, reference.half_sweep(rows, other, precision=precision, **options), dtype, factors)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("factors", [256, 512])
def test_large_systems(factors, biased):
    rows, other, precision = problem(np.random.default_rng(0), factors, np.float32, n_rows=3, biased=biased)
    found, status = solve(rows, other, precision, biased=biased)
    assert not status.any()
    expected = reference.half_sweep(rows, other, precision=precision, biased=biased, offset=0.0)
    assert_close(found, expected, np.float32, factors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factors", [5, 16, 50, 96, 100, 128])
@pytest.mark.parametrize("biased", [False, True])
def test_bits_do_not_depend_on_how_the_rows_are_cut(dtype, factors, biased):
    case = problem(np.random.default_rng(1), factors, dtype, n_rows=75, biased=biased)
    options = {"biased": biased, "draw": (5, 6, 0)}
    whole, _ = solve(*case, **options)
    for threads, cuts in ((1, (0, 1, 2, 20, 75)), (2, (0, 33, 75)), (4, (*range(0, 75, 5), 75))):
        out = np.zeros_like(whole)
        with ThreadPoolExecutor(threads) as pool:
            parts = [pool.submit(solve, *case, start, stop, out, **options) for start, stop in itertools.pairwise(cuts)]
            for part in parts:
                part.result()
        assert whole.tobytes() == out.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factors", [3, 16, 30, 96, 110])
@pytest.mark.parametrize("biased", [False, True])
def test_rows_with_fewer_ratings_than_unknowns_are_flagged_and_left(dtype, factors, biased):
    rng = np.random.default_rng(2)
    rows, other, precision = problem(rng, factors, dtype, n_rows=40, most=2 * factors, biased=biased)
    found, status = solve(rows, other, np.zeros_like(precision), biased=biased)
    few = rows.counts < factors + biased
    assert (status[few] == 1).all()
    assert (status[rows.counts == 700] == 0).all()
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), status == 1)
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), status == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factors", [8, 64, 110])
def test_a_singular_gramian_is_found_by_its_pivots(dtype, factors):
    """Enough ratings, but of fewer different items than unknowns."""
    rows, other, precision = problem(np.random.default_rng(6), factors, dtype, n_rows=60, most=4 * factors)
    found, status = solve(rows._replace(indices=rows.indices % (factors - 3)), other, np.zeros_like(precision))
    assert status.mean() > 0.95
    assert np.isnan(found[status == 1]).all()


def test_nan_is_flagged_and_not_spread():
    for factors in (8, half_sweep.LANE_LIMIT + 1):
        rows, other, precision = problem(np.random.default_rng(3), factors, np.float32)
        other[rows.indices[rows.indptr[5]]] = np.nan
        out, status = solve(rows, other, precision, out=np.zeros((37, factors), np.float32))
        assert status.any()
        assert np.isfinite(out).all()


def test_read_only_inputs_need_no_second_compilation():
    rows, other, precision = problem(np.random.default_rng(4), 7, np.float32)
    expected, _ = solve(rows, other, precision)
    variants = len(half_sweep._lane_sweep.signatures)
    for array in (*rows, other, precision):
        array.flags.writeable = False
    found, _ = solve(rows, other, precision)
    np.testing.assert_array_equal(found, expected)
    assert len(half_sweep._lane_sweep.signatures) == variants


def test_rows_begin_on_cache_lines():
    for width in (1, 7, 33):
        made = aligned_rows(5, width, np.float32)
        assert made.shape == (5, width)
        assert made.ctypes.data % 64 == 0
        assert not made.any()


# Published with Random123 (its kat_vectors, philox4x32 10): counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    words = [int(word, 16) for word in f"{counter} {key}".split()]
    expected = tuple(int(word, 16) for word in answer.split())
    assert tuple(map(int, philox(*map(np.uint64, words)))) == expected
    assert reference.philox(tuple(words[:4]), tuple(words[4:])) == expected


def test_normals_equal_their_twin_and_are_normal():
    z = np.empty(40_004)
    fill_normals(z, 1, 40_000, np.uint64(2**63 + 9), 3, 1, 2**34 + 7)
    z = z[:40_000]
    np.testing.assert_allclose(z[:50], reference.normals(50, 2**63 + 9, 3, 1, 2**34 + 7), atol=1e-12)
    assert abs(z.mean()) < 4 / 200
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / 40_000)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / 40_000)


@pytest.mark.parametrize("factors", [4, half_sweep.LANE_LIMIT + 1])
@pytest.mark.parametrize("biased", [False, True])
def test_draws_have_the_moments_of_the_posterior(factors, biased):
    """One row drawn in 6000 sweeps: mean A⁻¹y and covariance A⁻¹, within sampling error."""
    rows, other, precision = problem(np.random.default_rng(5), factors, np.float64, n_rows=2, biased=biased)
    system = {"biased": biased, "offset": 0.0, "precision": precision, "by_count": False}
    _, _, A, y = reference.row_system(*rows.row(1), other, **system)
    count, width = 6000, factors + biased
    draws = np.empty((count, width))
    for turn in range(count):
        draws[turn] = solve(rows, other, precision, start=1, biased=biased, draw=(1, turn, 0))[0][1]
    white = (draws - np.linalg.solve(A, y)) @ np.linalg.cholesky(A)
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(count)
    assert np.abs(white.T @ white / count - np.eye(width)).max() < 6 * np.sqrt(2 / count)


def copied_package(folder):
    """A copy of the package, and a program that calls a kernel of the copy."""
    import shutil
    from pathlib import Path

    import gramian

    package = folder / "site" / "gramian"
    shutil.copytree(Path(gramian.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    return package, (
        "import numpy as np, gramian, gramian.kernels.vector.compiled as c\n"
        "from gramian.kernels.csr import CSR\n"
        "from gramian.kernels.residuals import predictor, squared_errors\n"
        f"assert gramian.__file__.startswith({str(folder)!r})\n"
        "out, model = np.empty(1), predictor(np.ones((1, 1)), np.ones((1, 1)), False, 0.0)\n"
        "squared_errors(CSR(np.array([0, 1]), np.zeros(1, 'i4'), np.ones(1, 'f4')), model, 0, 1, out)\n"
        "assert out[0] == 0\n"
    )


def run_alone(code, package, **environment):
    """What a program says that finds the package there."""
    import os
    import subprocess
    import sys

    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=given | environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr, done.stdout


def test_a_read_only_installation_compiles_without_a_cache(tmp_path):
    """Neither the package's folder nor the home can be written to: it works, and says nothing."""
    package, code = copied_package(tmp_path)
    # A file in the place of each cache folder keeps everybody from writing there, root too.
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    home = str(tmp_path / "home")
    assert run_alone(code, package, HOME=home, XDG_CACHE_HOME=home) == (0, "", "")


def test_what_another_version_compiled_does_no_harm(tmp_path):
    """What a kernel was given there may be a tuple that is not here: the compiled code on disk is of its class."""
    package, code = copied_package(tmp_path)
    cache = tmp_path / "cache"
    settings = {"HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(cache)}
    assert run_alone(code, package, **settings) == (0, "", "")
    begun = {path.name for path in cache.rglob("*.nbi")}
    assert any(name.startswith("residuals.squared_errors-") for name in begun)
    file = package / "kernels" / "residuals.py"
    file.write_text(file.read_text().replace("Predictor", "OtherName"))
    assert run_alone(code, package, **settings) == (0, "", "")
    assert {path.name for path in cache.rglob("*.nbi")} == begun
    assert run_alone(f"{code}assert not squared_errors.stats.cache_misses", package, **settings) == (0, "", "")
