"""Rows with few ratings, by their dual system: the twin, the direct system, the same bits, and its conditions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import assert_close, solve

from gramian.kernels import reference
from gramian.kernels.csr import CSR
from gramian.kernels.sweep.dual import dual_limit


def limit_of(precision, shared=None, drawing=False):
    return dual_limit(precision, shared, drawing)


def problem(seed, factors, dtype, biased):
    """Rows of 0 to a few more ratings than the dual takes, and a diagonal prior of different penalties."""
    rng = np.random.default_rng(seed)
    width = factors + biased
    precision = np.diag(rng.uniform(0.5, 20, width)).astype(dtype)
    counts = rng.integers(0, limit_of(precision) + 10, 30)
    counts[:3] = 0, limit_of(precision), limit_of(precision) + 1
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = rng.integers(0, 400, indptr[-1]).astype(np.int32)
    rows = CSR(indptr, indices, rng.normal(3, 1, indptr[-1]).astype(np.float32))
    return rows, rng.normal(0, 1, (400, width)).astype(dtype), precision


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    factors=st.one_of(st.integers(97, 160), st.sampled_from([97, 112, 128])),
    dtype=st.sampled_from([np.float32, np.float64]),
    biased=st.booleans(),
    weighted=st.booleans(),
    by_count=st.booleans(),
    prior=st.sampled_from(["zero", "one", "per row"]),
)
def test_dual_rows_equal_their_twin_and_the_direct_system(seed, factors, dtype, biased, weighted, by_count, prior):
    rows, other, precision = problem(seed, factors, dtype, biased)
    rng = np.random.default_rng(seed)
    options = {"biased": biased, "by_count": by_count, "offset": 0.25}
    if weighted:
        options["weights"] = rng.uniform(0, 2, len(rows.indices)).astype(dtype)
        options["weights"][::7] = 0
    if prior != "zero":
        size = len(precision)
        options["linear"] = rng.normal(0, 1, size if prior == "one" else (rows.n_rows, size)).astype(dtype)
    found, status = solve(rows, other, precision, **options)
    assert not status.any()
    assert_close(found, reference.half_sweep(rows, other, precision=precision, **options), dtype, factors)
    direct, _ = solve(rows, other, precision, draw=(0, 0, 0), spread=0.0, **options)
    assert_close(found, direct, dtype, factors)
    few = (rows.counts > 0) & (rows.counts <= limit_of(precision))
    assert (found[few] != direct[few]).any(axis=1).mean() > 0.9  # they were solved another way
    np.testing.assert_array_equal(found[~few & (rows.counts > 0)], direct[~few & (rows.counts > 0)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factors", [100, 128])
def test_bits_do_not_depend_on_the_rows_around(dtype, factors):
    rows, other, precision = problem(3, factors, dtype, True)
    whole, _ = solve(rows, other, precision, biased=True)
    for cuts in ((0, 1, 2, 20, 30), (*range(0, 30, 7), 30)):
        out = np.zeros_like(whole)
        for start, stop in itertools.pairwise(cuts):
            solve(rows, other, precision, start, stop, out, biased=True)
        assert out.tobytes() == whole.tobytes()


def test_there_is_a_dual_only_for_a_diagonal_positive_prior():
    plain = np.eye(128)
    assert limit_of(plain) == 64
    assert limit_of(np.eye(97)) == 48
    assert limit_of(np.eye(96)) == -1
    assert limit_of(plain, drawing=True) == -1
    assert limit_of(plain, shared=np.eye(128)) == -1
    for place in ((0, 1), (127, 3)):
        full = plain.copy()
        full[place] = 0.1
        assert limit_of(full) == -1
    for value in (0.0, -1.0, np.nan):
        assert limit_of(np.diag(np.append(np.ones(127), value))) == -1


def test_nan_is_flagged_and_not_spread():
    rows, other, precision = problem(4, 110, np.float32, False)
    other[rows.indices[rows.indptr[1]]] = np.nan
    out, status = solve(rows, other, precision, out=np.zeros((30, 110), np.float32))
    assert 0 < status.sum() < 30
    assert np.isfinite(out).all()
