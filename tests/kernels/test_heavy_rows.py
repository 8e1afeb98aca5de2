"""Heavy rows, summed in fixed pieces: the twin, the same bits through every path, bounded work and memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sweeps import assert_close, solve

from gramian.engine import local, pool
from gramian.engine.rows import Intercepts, Penalty
from gramian.kernels import reference
from gramian.kernels.csr import CSR, PIECE_RATINGS, pieces_of
from gramian.kernels.sweep import half_sweep

OTHERS = 900
# One row has most of all ratings; others lie just under, at and over one and two pieces.
COUNTS = [3, 90_000, 0, PIECE_RATINGS, PIECE_RATINGS + 1, 40, 2 * PIECE_RATINGS, 2 * PIECE_RATINGS + 7, 11, 5]


def problem(factors, dtype, biased):
    rng = np.random.default_rng(factors)
    indptr = np.concatenate([[0], np.cumsum(COUNTS)])
    indices = np.concatenate([np.sort(rng.integers(0, OTHERS, count)) for count in COUNTS]).astype(np.int32)
    rows = CSR(indptr, indices, rng.normal(3, 1, indptr[-1]).astype(np.float32))
    width = factors + biased
    root = rng.normal(0, 1, (width, width)) / np.sqrt(width)
    other = rng.normal(0, 1, (OTHERS, width)).astype(dtype)
    return rows, other, (root @ root.T + 2 * np.eye(width)).astype(dtype)


def everything(rows, width, dtype):
    """Every option of the half-sweep at once."""
    rng = np.random.default_rng(1)
    root = rng.normal(0, 1, (width, width))
    return {
        "weights": rng.uniform(0, 2, len(rows.indices)).astype(dtype),
        "shared": (root @ root.T).astype(dtype),
        "linear": rng.normal(0, 1, (rows.n_rows, width)).astype(dtype),
        "draw": (5, 6, 0),
        "spread": 0.7,
    }


@pytest.fixture(params=[(5, np.float64, True), (24, np.float32, False), (110, np.float32, True)], ids=str)
def case(request):
    """The rows, the other side, Λ, and whether there is a bias; systems solved in lanes and alone."""
    factors, dtype, biased = request.param
    return *problem(factors, dtype, biased), biased


@pytest.mark.parametrize("by_count", [False, True])
@pytest.mark.parametrize("all_options", [False, True])
def test_heavy_rows_equal_their_twin(case, by_count, all_options):
    rows, other, precision, biased = case
    more = everything(rows, other.shape[1], other.dtype) if all_options else {}
    intercepts = Intercepts(biased, 0.25)
    found, singular = local.HalfSweep(other, intercepts, Penalty(precision, by_count), **more).run(rows)
    expected = reference.half_sweep(rows, other, precision=precision, by_count=by_count, **intercepts._asdict(), **more)
    assert singular == 0
    assert_close(found, expected, other.dtype, other.shape[1])


@pytest.mark.parametrize("all_options", [False, True])
def test_bits_do_not_depend_on_threads_or_on_waves(case, all_options, pools, monkeypatch):
    rows, other, precision, biased = case
    more = everything(rows, other.shape[1], other.dtype) if all_options else {}
    intercepts = Intercepts(biased, 0.25)
    kernel, _ = solve(rows, other, precision, **intercepts._asdict(), **more)  # one call of the kernel solves all rows
    for parts_bytes, n_jobs in itertools.product([1, 300_000, 2**26], [1, 2, 4]):
        monkeypatch.setattr(local, "PARTS_BYTES", parts_bytes)
        found, _ = local.HalfSweep(other, intercepts, Penalty(precision), **more).run(rows, n_jobs)
        assert found.tobytes() == kernel.tobytes()
    assert set(pools) == {2, 4}


def test_a_heavy_row_is_never_one_task_and_few_sums_are_held(pools, monkeypatch):
    rows, other, precision = problem(8, np.float32, False)
    summed, solved = [], []
    sum_pieces, prepared = half_sweep.piece_sums, half_sweep.prepared

    def counted_sums(parts, rows, other, row, first, **more):
        summed.extend((row, first + p) for p in range(len(parts)))
        sum_pieces(parts, rows, other, row, first, **more)

    def counted(*arguments, **more):
        solve_rows = prepared(*arguments, **more)

        def solve(start, stop, sums=None):
            solved.extend((row, sums is not None) for row in range(start, stop))
            solve_rows(start, stop, sums)

        return solve

    monkeypatch.setattr(half_sweep, "piece_sums", counted_sums)
    monkeypatch.setattr(half_sweep, "prepared", counted)
    local.half_sweep(rows, other, Penalty(precision), Intercepts(biased=False, offset=0.0), 2)
    assert sorted(solved) == [(row, count > PIECE_RATINGS) for row, count in enumerate(COUNTS)]
    heavy = [row for row, count in enumerate(COUNTS) if count > PIECE_RATINGS]
    assert sorted(summed) == [(row, p) for row in heavy for p in range(pieces_of(COUNTS[row]))]
    waves = list(local._waves(rows, np.array(heavy), 4))
    assert [sum(part.pieces for part in wave) for wave in waves] == [4, 4, 4, 1]
    assert [part.row for wave in waves for part in wave if part.last] == heavy


def test_a_heavy_row_without_a_prior_may_be_singular():
    rows, other, _ = problem(6, np.float64, False)
    other[:, 3:] = 0
    found, singular = local.half_sweep(rows, other, Penalty(np.zeros((6, 6))), Intercepts(biased=False, offset=0.0))
    assert singular == np.count_nonzero(rows.counts)
    expected = reference.minimum_norm_row(
        *rows.row(1), other, biased=False, offset=0.0, precision=np.zeros((6, 6)), by_count=False
    )
    np.testing.assert_allclose(found[1], expected, atol=1e-10)


def test_blocks_have_about_the_same_work(monkeypatch):
    """Few heavy rows and very many light ones: a block's work is that of its ratings and of its systems."""
    rng = np.random.default_rng(0)
    counts = np.concatenate([rng.integers(1, 4, 30_000), rng.integers(1000, 2000, 300), [PIECE_RATINGS + 1]])
    rows = CSR(np.concatenate([[0], np.cumsum(counts)]), np.zeros(0, np.int32), np.zeros(0, np.float32))
    blocks, heavy = pool.cut(rows, 100, 3000)
    assert heavy.tolist() == [len(counts) - 1]
    assert [first for first, _ in blocks[1:]] == [last for _, last in blocks[:-1]]
    assert (blocks[0][0], blocks[-1][1]) == (0, len(counts) - 1)
    work = np.array([100 * (rows.indptr[b] - rows.indptr[a]) + 3000 * (b - a) for a, b in blocks])
    assert len(blocks) > 5
    assert work[:-1].max() <= work[:-1].min() + 2 * (100 * 2000 + 3000)
    monkeypatch.setattr(pool, "LARGE_BLOCK", 1e6)
    assert len(pool.cut(rows, 100, 3000)[0]) > 50
