"""The singular value decomposition, SoftImpute and probabilistic matrix factorization, against plain NumPy."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from contract import every_pair, fitted
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gramian as gm
from gramian.kernels import reference
from gramian.kernels.linear import dense, lanczos

IMPUTE = ("zero", "mean", "biases")
floats = st.floats(-5, 5, allow_subnormal=False)
matrices = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=floats)


def dense_ratings(ratings: gm.Ratings) -> tuple[np.ndarray, np.ndarray]:
    """The ratings as a matrix, and where there is one."""
    X, seen = np.zeros((ratings.n_users, ratings.n_items)), np.zeros((ratings.n_users, ratings.n_items), bool)
    X[ratings.user_codes, ratings.item_codes] = ratings.values
    seen[ratings.user_codes, ratings.item_codes] = True
    return X, seen


def filled(ratings: gm.Ratings, recipe: gm.SVD) -> tuple[np.ndarray, np.ndarray]:
    """The matrix that is decomposed, and what is added to its approximation to predict."""
    X, seen = dense_ratings(ratings)
    if recipe.impute == "zero":
        return X, np.zeros_like(X)
    if recipe.impute == "mean":
        return np.where(seen, X, X.sum(0) / seen.sum(0)), np.zeros_like(X)
    base = gm.Baseline(regularization=recipe.bias_regularization, dtype="float64").fit(ratings)
    fit = base.global_mean + base.user_biases[:, None] + base.item_biases
    return np.where(seen, X - fit, 0), fit


# ---- the eigenvalue route --------------------------------------------------------------------------


@given(matrices)
def test_the_eigen_route_is_the_svd(X):
    U, s, Vt = reference.svd_by_eigen(X)
    size = min(X.shape)
    assert (U.shape, s.shape, Vt.shape) == ((X.shape[0], size), (size,), (size, X.shape[1]))
    scale = max(1.0, np.linalg.norm(X))
    np.testing.assert_allclose(s, np.linalg.svd(X, compute_uv=False), atol=1e-6 * scale)
    np.testing.assert_allclose(U * s @ Vt, X, atol=1e-6 * scale)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(size), atol=1e-6)
    np.testing.assert_allclose(U.T @ U, np.eye(size), atol=1e-6)


def test_the_two_products_share_their_eigenvalues():
    X = np.random.default_rng(0).normal(size=(7, 4))
    _, s, _ = reference.svd_by_eigen(X)
    np.testing.assert_allclose(np.linalg.eigvalsh(X @ X.T)[::-1], [*s**2, 0, 0, 0], atol=1e-12)


@given(matrices, st.integers(0, 2**32 - 1), st.data())
def test_the_truncation_is_the_best_approximation_of_its_rank(X, seed, data):
    k = data.draw(st.integers(1, min(X.shape)))
    U, s, Vt = reference.svd_by_eigen(X)
    error = np.linalg.norm(X - (U[:, :k] * s[:k]) @ Vt[:k])
    assert error == pytest.approx(np.sqrt(np.sum(s[k:] ** 2)), abs=1e-6 * (1 + np.linalg.norm(X)))
    rng = np.random.default_rng(seed)
    W = (U[:, :k] * s[:k]) + 0.1 * rng.normal(size=(len(X), k))
    other = W @ np.linalg.lstsq(W, X, rcond=None)[0]  # the best of this column space
    assert np.linalg.norm(X - other) >= error - 1e-6


# ---- the solver ------------------------------------------------------------------------------------


@given(matrices)
def test_small_eigenproblems_are_solved(X):
    A = X.T @ X
    values, vectors = dense.eigen(A)
    scale = max(1.0, np.abs(A).max())
    np.testing.assert_allclose(values, np.linalg.eigvalsh(A)[::-1], atol=1e-12 * scale)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(A)), atol=1e-13)
    np.testing.assert_allclose(vectors @ A @ vectors.T, np.diag(values), atol=1e-10 * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dense_products_equal_numpy(dtype):
    rng = np.random.default_rng(3)
    rows, square = rng.normal(size=(50, 7)).astype(dtype), rng.normal(size=(7, 7))
    np.testing.assert_allclose(dense.gram(rows), rows.T.astype(float) @ rows, rtol=1e-6)
    np.testing.assert_allclose(dense.times(rows, square), rows @ square, rtol=1e-4, atol=1e-5)
    weights, basis = rng.normal(size=(4, 9)), rng.normal(size=(9, 700))
    np.testing.assert_allclose(dense.combine(weights, basis), weights @ basis, rtol=1e-12, atol=1e-13)


def test_the_solver_finds_repeated_and_missing_eigenvalues():
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    true = np.array([9.0, 9.0, 9.0, 4.0, 4.0, 1.0] + [0.0] * 54)
    A = (Q * true) @ Q.T
    pairs = lanczos.begin(60)
    for _ in range(6):
        pairs = lanczos.cycle(lambda v: A @ v, pairs, 20, 12)
    np.testing.assert_allclose(pairs.values[:6], true[:6], atol=1e-10)
    np.testing.assert_allclose(A @ pairs.vectors[:6].T, pairs.vectors[:6].T * true[:6], atol=1e-8)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(12), atol=1e-12)


# ---- SVD -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impute", IMPUTE)
@pytest.mark.parametrize("factors", [3, 12])
def test_svd_equals_numpy_on_the_filled_matrix(impute, factors, wide_ratings):
    recipe = gm.SVD(factors=factors, impute=impute, dtype="float64")
    model = recipe.fit(wide_ratings)
    X, base = filled(wide_ratings, recipe)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    U, s, Vt, every = U[:, :factors], s[:factors], Vt[:factors], np.sum(s**2)
    predicted = model.predict(*every_pair(model), clip=False).reshape(X.shape)
    np.testing.assert_allclose(model.singular_values, s, rtol=1e-6)
    np.testing.assert_allclose(predicted, (U * s) @ Vt + base, atol=2e-6)
    np.testing.assert_allclose(np.abs(np.sum(model.right_vectors * Vt.T, 0)), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(model.left_vectors * U, 0)), 1, atol=1e-6)
    np.testing.assert_allclose(model.explained_variance_ratio, s**2 / every, rtol=1e-6)
    assert model.history[-1]["explained"] == pytest.approx(np.sum(s**2) / every, rel=1e-6)
    assert model.history[-1]["objective"] == pytest.approx(np.sum((X - (U * s) @ Vt) ** 2), rel=1e-6)


@pytest.mark.parametrize("impute", IMPUTE)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-7)])
def test_singular_vectors_are_orthonormal_and_their_sign_is_fixed(impute, dtype, tolerance, ratings):
    model = gm.SVD(factors=6, impute=impute, dtype=dtype).fit(ratings)
    for vectors in (model.right_vectors, model.left_vectors):
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=tolerance)
    V = model.right_vectors
    assert (V[np.argmax(np.abs(V), axis=0), np.arange(6)] > 0).all()
    absorbed_right = model.left_vectors @ (model.right_vectors * model.singular_values).T
    np.testing.assert_allclose(model.left_factors @ V.T, absorbed_right, atol=100 * tolerance)


@pytest.mark.parametrize("impute", IMPUTE)
def test_a_lower_rank_is_the_model_of_fewer_factors(impute, ratings, tmp_path):
    model = gm.SVD(factors=8, impute=impute, dtype="float64").fit(ratings)
    lower, fresh = model.low_rank(3), gm.SVD(factors=3, impute=impute, dtype="float64").fit(ratings)
    assert lower.recipe == fresh.recipe
    pairs = every_pair(model)
    np.testing.assert_allclose(lower.predict(*pairs), fresh.predict(*pairs), atol=1e-6)
    np.testing.assert_allclose(lower.singular_values, model.singular_values[:3])
    lower.save(tmp_path / "m.gramian")
    np.testing.assert_array_equal(gm.load(tmp_path / "m.gramian").predict(*pairs), lower.predict(*pairs))
    for wrong in (0, 9, 2.5):
        with pytest.raises(gm.ParameterError, match=r"'k' parameter of low_rank must be a whole number in \[1, 8\]"):
            model.low_rank(wrong)


@pytest.mark.parametrize("impute", IMPUTE)
def test_more_factors_than_singular_values_give_the_matrix_itself_and_zeros(impute, ratings):
    model = gm.SVD(factors=50, impute=impute, dtype="float64").fit(ratings)
    X, base = filled(ratings, model.recipe)
    predicted = model.predict(*every_pair(model), clip=False).reshape(X.shape)
    np.testing.assert_allclose(predicted, X + base, atol=2e-6)
    rank = int(np.sum(np.linalg.svd(X, compute_uv=False) > 1e-5))
    assert (model.singular_values > 1e-5).sum() == rank <= 40
    assert not model.singular_values[rank:].any()
    assert not model.item_factors[:, rank:].any()
    assert not model.left_vectors[:, rank:].any()


def test_constant_ratings_have_one_singular_value():
    table = pl.DataFrame({"user": [1, 1, 2, 2, 3], "item": [1, 2, 2, 3, 1], "rating": [3.0] * 5})
    model = gm.SVD(factors=2, impute="mean").fit(gm.Ratings.from_frame(table))
    np.testing.assert_allclose(model.singular_values, [9, 0], atol=1e-6)
    assert gm.SVD(factors=2).fit(gm.Ratings.from_frame(table)).explained_variance_ratio.tolist() == [0, 0]


@pytest.mark.parametrize("impute", IMPUTE)
def test_cycles_approach_the_decomposition_and_then_stand_still(impute, wide_ratings):
    history = gm.SVD(factors=20, impute=impute, epochs=10).fit(wide_ratings).history
    objective = history.column("objective")
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(objective))
    assert objective[-1] == objective[-2]
    assert objective[-1] < objective[0]


def test_a_user_who_rated_nothing_is_predicted_what_the_means_project_to(ratings):
    model = gm.SVD(factors=4, impute="mean", dtype="float64").fit(ratings)
    X, seen = dense_ratings(ratings)
    V = model.right_vectors
    with pytest.warns(gm.UnknownIdWarning):
        got = model.predict(1, model.item_ids.ids, clip=False)
    np.testing.assert_allclose(got, V @ (V.T @ (X.sum(0) / seen.sum(0))), atol=1e-9)


def test_the_filled_matrix_is_never_formed():
    """80,000 × 80,000 would be 51 GB."""
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"user": rng.integers(80_000, size=100_000), "item": rng.integers(80_000, size=100_000)})
    table = table.unique(maintain_order=True)
    ratings = gm.Ratings.from_frame(table.with_columns(rating=pl.Series(rng.integers(1, 6, table.height))))
    for impute in IMPUTE:
        assert gm.SVD(factors=2, impute=impute, epochs=1).fit(ratings).singular_values[0] > 0


def test_the_threads_of_blas_change_no_bit(tmp_path):
    code = (
        "import hashlib, gramian as gm\n"
        "r = gm.load_dataset('movielens-small')\n"
        "recipes = (gm.SVD(factors=90, epochs=1), gm.SVD(impute='mean'), gm.SoftImpute(epochs=2), gm.PMF(epochs=2))\n"
        "for recipe in recipes:\n"
        "    for array in recipe.fit(r).arrays().values():\n"
        "        print(hashlib.sha256(array.tobytes()).hexdigest())"
    )
    seen = set()
    for threads in "12":
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "GRAMIAN_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        seen.add(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout)
    assert len(seen) == 1


# ---- SoftImpute ------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", ["mean", "biases"])
@pytest.mark.parametrize("shrinkage", [3.0, 6.0])
def test_softimpute_ends_where_imputing_and_shrinking_ends(centre, shrinkage, ratings):
    recipe = gm.SoftImpute(factors=40, shrinkage=shrinkage, centre=centre, epochs=300, dtype="float64")
    model = recipe.fit(ratings)
    X, seen = dense_ratings(ratings)
    base = np.full(X.shape, ratings.global_mean)
    if centre == "biases":
        base = model.global_mean + model.user_biases[:, None] + model.item_biases
    Z = reference.soft_impute(X - base, seen, shrinkage, steps=1500)
    predicted = model.predict(*every_pair(model), clip=False).reshape(X.shape)
    np.testing.assert_allclose(predicted, base + Z, atol=3e-4)
    s = np.linalg.svd(Z, compute_uv=False)
    np.testing.assert_allclose(model.singular_values, s, atol=1e-3)
    objective = 0.5 * np.sum((X - base - Z)[seen] ** 2) + shrinkage * s.sum()
    assert model.history[-1]["objective"] == pytest.approx(objective, rel=1e-6)


@pytest.mark.parametrize("centre", ["mean", "biases"])
def test_the_objective_of_softimpute_never_rises_along_the_path(centre, wide_ratings):
    model = gm.SoftImpute(factors=10, shrinkage=3.0, centre=centre, path=6, epochs=25, dtype="float64").fit(
        wide_ratings
    )
    objective, shrinkage = model.history.column("objective"), model.history.column("shrinkage")
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(objective))
    ratio = shrinkage[1] / shrinkage[0]
    np.testing.assert_allclose(np.divide(shrinkage[1:6], shrinkage[:5]), ratio)
    assert shrinkage[0] * ratio**5 == pytest.approx(3.0)
    assert set(shrinkage[5:]) == {3.0}
    assert model.shrinkage == 3.0


def test_the_recorded_objective_of_softimpute_is_that_of_its_definition(ratings):
    for model in gm.SoftImpute(factors=5, shrinkage=2.0, epochs=4, dtype="float64").iterate(ratings):
        X, seen = dense_ratings(ratings)
        Z = model.user_factors @ model.item_factors.T
        rest = X - (model.global_mean + model.user_biases[:, None] + model.item_biases) - Z
        nuclear = np.linalg.svd(Z, compute_uv=False)
        np.testing.assert_allclose(model.singular_values, nuclear[:5], atol=1e-6)
        expected = 0.5 * np.sum(rest[seen] ** 2) + model.shrinkage * nuclear.sum()
        assert model.history[-1]["objective"] == pytest.approx(expected, rel=1e-7)


def test_more_shrinkage_leaves_fewer_singular_values(wide_ratings):
    ranks = [
        int((gm.SoftImpute(shrinkage=s, epochs=60).fit(wide_ratings).singular_values > 1e-3).sum()) for s in (5, 9, 1e3)
    ]
    assert 32 >= ranks[0] > ranks[1] > ranks[2] == 0


def test_a_stopped_path_keeps_its_shrinkage(wide_parts, tmp_path):
    train, test = wide_parts
    model = gm.SoftImpute(shrinkage=0.01, path=12, patience=1).fit(train, test)
    best = min(model.history, key=lambda record: record["validation_rmse"])
    assert model.shrinkage == best["shrinkage"] > 0.01
    assert model.evaluate(test)["rmse"] == best["validation_rmse"]
    model.save(tmp_path / "m.gramian")
    assert gm.load(tmp_path / "m.gramian").shrinkage == model.shrinkage


# ---- PMF -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_map_is_regularized_als_and_mle_unregularized(biases, dtype, ratings):
    shared = {"factors": 3, "epochs": 6, "biases": biases, "dtype": dtype, "seed": 4}
    probable = gm.PMF(noise_std=0.5, prior_precision=8.0, bias_precision=2.0, **shared).fit(ratings)
    ridge = gm.ALS(regularization=2.0, bias_regularization=0.5, **shared).fit(ratings)
    likely = gm.PMF(estimate="mle", noise_std=0.5, **shared).fit(ratings)
    plain = gm.ALS(regularization=0.0, **shared).fit(ratings)
    for mine, theirs in ((probable, ridge), (likely, plain)):
        np.testing.assert_array_equal(mine.user_rows, theirs.user_rows)
        np.testing.assert_array_equal(mine.item_rows, theirs.item_rows)
        assert mine.history.column("objective") == theirs.history.column("objective")
        assert mine.history.column("minimum_norm_rows") == theirs.history.column("minimum_norm_rows")
    # the posterior is the objective times −1/(2σ²), but for a constant
    shift = np.add(probable.history.column("log_posterior"), np.array(ridge.history.column("objective")) / 0.5)
    np.testing.assert_allclose(shift, shift[0], rtol=1e-6)


def test_probabilities_are_those_of_scipy(ratings):
    from scipy.stats import norm

    model = gm.PMF(factors=3, noise_std=0.6, prior_precision=5.0, bias_precision=2.0, dtype="float64").fit(ratings)
    predicted = model.predict(ratings.users, ratings.items, clip=False)
    likelihood = norm.logpdf(ratings.values, predicted, 0.6).sum()
    assert model.history[-1]["log_likelihood"] == pytest.approx(likelihood, rel=1e-6)
    prior = sum(norm.logpdf(x, 0, 5**-0.5).sum() for x in (model.user_factors, model.item_factors))
    prior += sum(norm.logpdf(x, 0, 2**-0.5).sum() for x in (model.user_biases, model.item_biases))
    assert model.history[-1]["log_posterior"] == pytest.approx(likelihood + prior, rel=1e-6)


def test_the_posterior_of_fixed_scales_never_falls(ratings):
    for recipe in (gm.PMF(factors=4, noise_std=0.6, prior_precision=5.0), gm.PMF(factors=2, estimate="mle")):
        history = dataclasses.replace(recipe, dtype="float64", epochs=30).fit(ratings).history
        for name in ("log_likelihood",) if recipe.estimate == "mle" else ("log_posterior",):
            values = history.column(name)
            assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(values))


def test_without_priors_rows_of_few_ratings_are_said(ratings):
    model = gm.PMF(factors=8, estimate="mle", epochs=2).fit(ratings)
    assert model.history[-1]["minimum_norm_rows"] > 0
    assert model.noise_std == pytest.approx(model.history[-1]["train_rmse"])
    assert "log_posterior" not in model.history[-1]


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_noise_that_made_the_ratings_is_found_again(noise):
    made = gm.synthetic_ratings(600, 300, 40_000, factors=4, noise=noise, scale=None, seed=2)
    model = gm.PMF(factors=6).fit(made.ratings)
    assert model.noise_std == pytest.approx(noise, rel=0.15)
    fitted_noise = gm.PMF(factors=6, estimate="mle").fit(made.ratings).noise_std
    assert fitted_noise < model.noise_std


def test_the_estimates_are_those_of_the_equations(ratings):
    model = gm.PMF(factors=4, epochs=8).fit(ratings)
    n, N, M = len(ratings), ratings.n_users, ratings.n_items
    last = model.history[-1]
    assert last["prior_precision"] == pytest.approx((np.sqrt(n / N) + np.sqrt(n / M)) / last["noise_std"])
    assert (last["noise_std"], last["prior_precision"], last["bias_precision"]) == model.scales
    lambdas = np.diag(model.settings.penalty.precision) / last["noise_std"] ** 2
    np.testing.assert_allclose(lambdas, [last["prior_precision"]] * 4 + [last["bias_precision"]])


@pytest.mark.parametrize("name", ["equal", "one", "one user", "exact"])
def test_estimates_do_not_collapse(name):
    tables = {
        "equal": ([1, 1, 2, 2, 3], [1, 2, 2, 3, 1], [3.0] * 5),
        "one": ([1], [1], [4.0]),
        "one user": ([1] * 6, range(6), [1, 2, 3, 4, 5, 3.5]),
        "exact": (np.repeat(range(9), 9), np.tile(range(9), 9), np.outer(np.arange(1, 10), np.arange(1, 10)).ravel()),
    }
    users, items, values = tables[name]
    frame = pl.DataFrame({"user": list(users), "item": list(items), "rating": np.array(values, float)})
    table = gm.Ratings.from_frame(frame)
    model = gm.PMF(factors=2, epochs=200).fit(table)
    assert all(np.isfinite(list(record.values())).all() for record in model.history)
    assert model.noise_std >= (1e-3 * float(np.std(table.values, dtype=float)) or 1e-6)
    assert np.isfinite(model.predict(*every_pair(model), clip=False)).all()


def test_the_estimated_penalty_is_near_the_one_chosen_on_validation_ratings():
    """benchmarks/README.md: λ = 10 to 12 on these splits, with K = 64."""
    train, _ = gm.load_dataset("movielens-small").split(0.2, seed=0)
    for factors in (32, 64):
        last = gm.PMF(factors=factors).fit(train).history[-1]
        assert 9 < last["noise_std"] ** 2 * last["prior_precision"] < 14


@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), "guess", None, True])
def test_noise_must_be_above_zero_or_estimated(value):
    with pytest.raises(
        gm.ParameterError, match=r"'noise_std' parameter of PMF must be a number in .* or 'estimate'; got"
    ):
        gm.PMF(noise_std=value)


# ---- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "name"), [(gm.SoftImpute(factors=2), "shrinkage"), (gm.PMF(factors=2), "scales")])
def test_wrong_numbers_in_a_file_are_refused(recipe, name, ratings):
    model = fitted(recipe, ratings)
    arrays = model.arrays()
    for wrong in (None, np.full_like(arrays[name], np.nan), -arrays[name], arrays[name][:0]):
        changed = {key: value for key, value in arrays.items() if key != name} | (
            {} if wrong is None else {name: wrong}
        )
        with pytest.raises(gm.FormatError, match=f"The {name} of {recipe.name}"):
            recipe.model(ratings, changed, model.history)
