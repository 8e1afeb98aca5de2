"""The approximate sweeps: conjugate gradient and blocks of columns, against their slow twins and the exact sweep."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from contract import assert_same_bits
from hypothesis import given
from problems import EPSILON, as_keywords, penalty_of, problems, random_rows

import gramian as gm
from gramian.engine import local, pool
from gramian.engine.rows import Intercepts
from gramian.kernels import reference
from gramian.kernels.sweep import cg, subspace

APPROXIMATE = ["cg", "block"]
approximate = pytest.mark.parametrize("solver", APPROXIMATE)


def quadratic(rows, here, other, penalty, biased, offset):
    """J as far as it depends on these rows."""
    squared = reference.squared_errors(rows, here, other.astype(np.float64), biased=biased, offset=offset)
    scale = np.maximum(rows.counts, 1) if penalty.by_count else 1
    return squared + scale * (here**2 @ np.diag(penalty.precision))


@given(problems())
def test_conjugate_gradient_equals_its_slow_twin(problem):
    rows, other, penalty, biased, offset, here = problem
    before = here.copy(), other.copy()
    fast = local.update("cg", rows, here, other, penalty, Intercepts(biased, offset))[0]
    slow = reference.cg_half_sweep(rows, here, other, cg.STEPS, **as_keywords(penalty, biased, offset))
    np.testing.assert_array_equal(here, before[0])
    np.testing.assert_array_equal(other, before[1])
    assert fast.dtype == other.dtype
    assert not fast[rows.counts == 0].any()
    # What counts is J: two nearly parallel directions may be told apart only by rounding.
    J = [quadratic(rows, x.astype(np.float64), other, penalty, biased, offset) for x in (here, fast, slow)]
    size = J[0] + rows.counts * offset**2 + 1
    assert np.all(np.abs(J[1] - J[2]) <= 400 * EPSILON[other.dtype.type] * size)
    assert np.all((J[1] - J[0])[rows.counts > 0] <= (20 * EPSILON[other.dtype.type] * size)[rows.counts > 0])


@pytest.mark.parametrize("width", [1, 7, 64])
@given(problem=problems())
def test_blocks_equal_their_slow_twin(width, problem):
    rows, other, penalty, biased, offset, here = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspace, "BLOCK_COLUMNS", width)
        fast, singular = local.update("block", rows, here, other, penalty, Intercepts(biased, offset))
    slow = reference.block_half_sweep(rows, here, other, width, **as_keywords(penalty, biased, offset))
    assert singular == 0
    assert fast.dtype == other.dtype
    for i in range(rows.n_rows):
        A = reference.row_system(*rows.row(i), other, **as_keywords(penalty, biased, offset))[2]
        allowed = 100 * EPSILON[other.dtype.type] * np.sqrt(len(rows.row(i)[0]) + 20) * np.linalg.cond(A)
        assert np.linalg.norm(fast[i] - slow[i]) <= allowed * (np.linalg.norm(slow[i]) + np.linalg.norm(here[i]) + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("K", [15, 16, 70, 512])
def test_rows_of_any_length_and_width(dtype, biased, K):
    """Rows around a group, and beyond the workspace (248 rows at K = 512 in float32, 124 in float64)."""
    rng = np.random.default_rng(K)
    rows = random_rows(rng, np.array([0, 1, 7, 8, 9, 255, 256, 600]), 700)
    other = rng.normal(0, K**-0.5, (700, K + biased)).astype(dtype)
    here = rng.normal(0, 0.3, (8, K + biased)).astype(dtype)
    penalty = penalty_of(K + biased, 1.5, 0.5, biased)
    keywords = as_keywords(penalty, biased, 3.0)
    tolerance = 3e-5 if dtype == np.float32 else 1e-12
    fast = local.update("cg", rows, here, other, penalty, Intercepts(biased, 3.0))[0]
    np.testing.assert_allclose(fast, reference.cg_half_sweep(rows, here, other, cg.STEPS, **keywords), atol=tolerance)
    fast, _ = local.update("block", rows, here, other, penalty, Intercepts(biased, 3.0))
    slow = reference.block_half_sweep(rows, here, other, subspace.BLOCK_COLUMNS, **keywords)
    np.testing.assert_allclose(fast, slow, atol=tolerance)


@approximate
@pytest.mark.parametrize("biased", [False, True])
def test_again_and_again_gives_the_exact_rows(solver, biased, monkeypatch):
    monkeypatch.setattr(subspace, "BLOCK_COLUMNS", 4)
    rng = np.random.default_rng(4)
    rows = random_rows(rng, rng.integers(0, 60, 30), 80)
    other = rng.normal(size=(80, 10 + biased))
    penalty = penalty_of(10 + biased, 2.0, 1.0, biased)
    exact, _ = local.half_sweep(rows, other, penalty, Intercepts(biased, 3.0))
    here = rng.normal(size=exact.shape)
    for _ in range(120):
        if solver == "cg":
            here = local.update("cg", rows, here, other, penalty, Intercepts(biased, 3.0))[0]
        else:
            here, _ = local.update("block", rows, here, other, penalty, Intercepts(biased, 3.0))
    np.testing.assert_allclose(here, exact, atol=1e-9)


@approximate
def test_threads_and_the_cut_of_blocks_change_no_bit(solver, pools, monkeypatch):
    rng = np.random.default_rng(1)
    rows = random_rows(rng, rng.integers(0, 120, 300), 150)
    other, here = (rng.normal(size=(size, 70)).astype(np.float32) for size in (150, 300))
    intercepts = Intercepts(biased=True, offset=3.0)

    def solved(n_jobs):
        return local.update(solver, rows, here, other, penalty_of(70, 0.5, 1.5, True), intercepts, n_jobs)[0]

    once = solved(1)
    for blocks in (50, 7):
        monkeypatch.setattr(pool, "BLOCKS", blocks)
        for n_jobs in (1, 2, 3, 8):
            assert solved(n_jobs).tobytes() == once.tobytes()
        assert set(pools) == {2, 3, 8}
        pools.clear()


@approximate
@pytest.mark.parametrize("regularization", [0.0, 2.0])
@pytest.mark.parametrize("weighting", ["none", "count"])
def test_the_objective_never_rises(solver, regularization, weighting, ratings, monkeypatch):
    monkeypatch.setattr(subspace, "BLOCK_COLUMNS", 3)
    recipe = gm.ALS(factors=8, solver=solver, regularization=regularization, weighting=weighting, dtype="float64")
    start = recipe.record(ratings, recipe.start(ratings), 0)["objective"]
    J = np.array([start, *recipe.fit(ratings).history.column("objective")])
    assert np.isfinite(J).all()
    assert (np.diff(J) <= 1e-10 * J[:-1]).all()
    assert J[-1] < 0.9 * J[0]


@approximate
@pytest.mark.parametrize("biases", [True, False])
def test_at_convergence_the_gradient_is_zero_and_the_model_is_the_exact_one(solver, biases, ratings, monkeypatch):
    monkeypatch.setattr(subspace, "BLOCK_COLUMNS", 1)
    exact = gm.ALS(factors=2, regularization=2.0, epochs=1500, dtype="float64", biases=biases)
    model, target = dataclasses.replace(exact, solver=solver).fit(ratings), exact.fit(ratings)
    for rows, here, other in (
        (ratings.by_user, model.user_rows, model.item_rows),
        (ratings.by_item, model.item_rows, model.user_rows),
    ):
        keywords = as_keywords(model.settings.penalty, biases, model.global_mean)
        assert np.abs(reference.gradient(rows, here, other, **keywords)).max() < 1e-6
    assert model.history[-1]["objective"] == pytest.approx(target.history[-1]["objective"], rel=1e-9)
    np.testing.assert_allclose(model.score_block(np.arange(60)), target.score_block(np.arange(60)), atol=1e-6)


@approximate
def test_the_users_of_the_model_are_solved_exactly(solver, ratings):
    model = gm.ALS(factors=12, regularization=2.0, epochs=3, solver=solver).fit(ratings)
    settings = model.settings
    exact, _ = local.half_sweep(
        ratings.by_user, model.item_rows, settings.penalty, Intercepts(biased=True, offset=model.global_mean)
    )
    assert exact.tobytes() == model.user_rows.tobytes()


@approximate
def test_the_bundled_set_is_predicted_as_well_as_by_the_exact_solver(solver):
    train, test = gm.load_dataset("movielens-small").split(0.2, seed=0)
    exact = gm.ALS(factors=80, epochs=10)
    error = exact.fit(train).evaluate(test)["rmse"]
    assert dataclasses.replace(exact, solver=solver, epochs=13).fit(train).evaluate(test)["rmse"] <= 1.001 * error


def test_one_block_is_the_exact_solver_to_rounding(ratings):
    exact = gm.ALS(factors=6, regularization=2.0, epochs=5, dtype="float64").fit(ratings)
    block = dataclasses.replace(exact.recipe, solver="block").fit(ratings)
    np.testing.assert_allclose(block.user_rows, exact.user_rows, atol=1e-9)


@approximate
def test_separate_updates_may_be_approximate_too(solver, ratings, monkeypatch):
    monkeypatch.setattr(subspace, "BLOCK_COLUMNS", 3)
    recipe = gm.ALS(factors=8, regularization=2.0, epochs=15, bias_update="separate", dtype="float64", solver=solver)
    J = recipe.fit(ratings).history.column("objective")
    assert (np.diff(J) <= 1e-10 * np.array(J[:-1])).all()
    assert dataclasses.replace(recipe, bias_update="joint").fit(ratings).history.column("objective") != J
    recipe = gm.ALS(factors=2, epochs=2, bias_update="separate", solver=solver, biases=False)
    assert_same_bits(recipe.fit(ratings), dataclasses.replace(recipe, bias_update="joint").fit(ratings))
