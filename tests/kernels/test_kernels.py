"""The fast half-sweep against its slow twin, the theory's listings, and what must hold of any solution."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from contract import EVERY, MODELS, label
from hypothesis import example, given
from hypothesis import strategies as st
from problems import EPSILON, as_keywords, penalty_of, problems, random_rows

import gramian as gm
from gramian.engine import local, pool
from gramian.engine.rows import Intercepts, Penalty
from gramian.kernels import reference
from gramian.kernels.csr import CSR, csr_from_sorted, transpose


def assert_close_rows(fast, slow, rows, other, penalty, biased, offset):
    """Rows agree to the rounding that their systems' conditions allow."""
    for i in range(rows.n_rows):
        indices, values = rows.row(i)
        _, _, A, _ = reference.row_system(indices, values, other, **as_keywords(penalty, biased, offset))
        condition = np.linalg.cond(A) if len(indices) else 1.0
        allowed = 8 * EPSILON[other.dtype.type] * (len(indices) + 20) ** 0.5 * condition
        assert np.linalg.norm(fast[i] - slow[i]) <= allowed * (np.linalg.norm(slow[i]) + 0.1), i


@given(problems())
def test_the_fast_half_sweep_equals_its_slow_twin(problem):
    rows, other, penalty, biased, offset, _ = problem
    before = other.copy(), [array.copy() for array in rows]
    fast, singular = local.half_sweep(rows, other, penalty, Intercepts(biased, offset))
    slow = reference.half_sweep(rows, other, **as_keywords(penalty, biased, offset))
    assert fast.dtype == other.dtype
    assert singular == 0
    assert not fast[rows.counts == 0].any()
    assert_close_rows(fast, slow, rows, other, penalty, biased, offset)
    np.testing.assert_array_equal(other, before[0])
    for array, kept in zip(rows, before[1], strict=True):
        np.testing.assert_array_equal(array, kept)


@given(problems())
def test_the_half_sweep_solves_the_equations_of_the_theory(problem):
    """A x = y written out by hand, apart from the reference twin's code."""
    rows, other, penalty, biased, offset, _ = problem
    wide = other.astype(np.float64)
    fast = local.half_sweep(rows, wide, penalty, Intercepts(biased, offset))[0]
    K = other.shape[1] - biased
    for i in np.flatnonzero(rows.counts):
        indices, values = rows.row(i)
        scale = len(indices) if penalty.by_count else 1
        lambdas = scale * np.diag(penalty.precision)
        w, b = fast[i, :K], fast[i, K] if biased else 0.0
        c = wide[indices, K] if biased else 0.0
        left = values.astype(np.float64) - offset - c - b - wide[indices, :K] @ w
        np.testing.assert_allclose(wide[indices, :K].T @ left, lambdas[:K] * w, rtol=0, atol=1e-9 * len(indices))
        if biased:
            assert left.sum() == pytest.approx(lambdas[K] * b, abs=1e-9 * len(indices))


@given(problems())
def test_a_separate_update_equals_the_listing(problem):
    rows, other, penalty, biased, offset, start = problem
    if not biased:
        return
    wide, here = other.astype(np.float64), start.astype(np.float64)
    kept = here.copy()
    fast, singular = local.SeparateUpdate(wide, Intercepts(biased=True, offset=offset), penalty, factors=here).run(rows)
    np.testing.assert_array_equal(here, kept)
    assert singular == 0
    U, c = wide[:, :-1].copy(), wide[:, -1].copy()
    for i in np.flatnonzero(rows.counts):
        alone = csr_from_sorted(np.zeros(rows.counts[i], int), *rows.row(i), 1)
        scale = rows.counts[i] if penalty.by_count else 1
        W, b = kept[i : i + 1, :-1].copy(), kept[i : i + 1, -1].copy()
        lambdas = scale * np.diag(penalty.precision)
        reference.listing_by_rows(alone, W, b, U, c, offset, lambdas[0], lambdas[-1])
        np.testing.assert_allclose(fast[i, :-1], W[0], rtol=1e-9, atol=1e-9)
        assert fast[i, -1] == pytest.approx(b[0], rel=1e-9, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.01, 20), st.floats(0, 20))
def test_the_two_listings_of_the_theory_equal_each_other(seed, K, regularization, bias_regularization):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, rng.integers(0, 15, 8), 20)
    start = rng.normal(size=(8, K)), rng.normal(size=8)
    U, c = rng.normal(size=(20, K)), rng.normal(size=20)
    made = []
    for listing in (reference.listing_by_loops, reference.listing_by_rows):
        W, b = (array.copy() for array in start)
        listing(rows, W, b, U, c, 3.0, regularization, bias_regularization)
        made.append((W, b))
    np.testing.assert_allclose(made[0][0], made[1][0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-8, atol=1e-10)
    empty = rows.counts == 0
    np.testing.assert_array_equal(made[1][0][empty], start[0][empty])
    assert empty.all() or np.abs(made[1][0] - start[0]).max() > 1e-6


@pytest.mark.parametrize(("regularization", "bias_regularization"), [(2.0, None), (0.7, 5.0)])
@pytest.mark.parametrize("listing", [reference.listing_by_loops, reference.listing_by_rows])
def test_a_whole_separate_training_equals_the_listing_epoch_by_epoch(
    ratings, regularization, bias_regularization, listing
):
    recipe = gm.ALS(
        factors=5,
        regularization=regularization,
        bias_regularization=bias_regularization,
        bias_update="separate",
        dtype="float64",
        epochs=6,
        seed=4,
    )
    start = recipe.start(ratings)
    bias = regularization if bias_regularization is None else bias_regularization
    W, b = start["user_rows"][:, :-1].copy(), start["user_rows"][:, -1].copy()
    U, c = start["item_rows"][:, :-1].copy(), start["item_rows"][:, -1].copy()
    mu = float(np.mean(ratings.values.astype(float)))
    history = recipe.fit(ratings).history
    arrays = start
    for number, record in enumerate(history, 1):
        listing(ratings.by_item, U, c, W, b, mu, regularization, bias)
        listing(ratings.by_user, W, b, U, c, mu, regularization, bias)
        arrays = recipe.epoch(ratings, arrays, number).state
        np.testing.assert_allclose(arrays["user_rows"], np.column_stack([W, b]), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(arrays["item_rows"], np.column_stack([U, c]), rtol=1e-9, atol=1e-9)
        predicted = mu + b[ratings.user_codes] + c[ratings.item_codes]
        predicted += np.einsum("pk,pk->p", W[ratings.user_codes], U[ratings.item_codes])
        squared = np.sum((ratings.values - predicted) ** 2)
        J = squared + regularization * (np.sum(W**2) + np.sum(U**2)) + bias * (np.sum(b**2) + np.sum(c**2))
        assert record["objective"] == pytest.approx(J, rel=1e-10)
        assert record["train_rmse"] == pytest.approx(np.sqrt(squared / len(ratings)), rel=1e-10)


@pytest.mark.parametrize("weighting", ["none", "count"])
def test_joint_and_separate_updates_end_at_the_same_minimum(ratings, weighting):
    """K = 1 with a strong λ has one minimum, up to sign."""
    plain = gm.ALS(factors=1, regularization=0.3, weighting=weighting, epochs=600, dtype="float64")
    one = plain.fit(ratings)
    other = dataclasses.replace(plain, bias_update="separate").fit(ratings)
    assert one.history[-1]["objective"] == pytest.approx(other.history[-1]["objective"], rel=1e-9)
    pairs = ratings.user_codes, ratings.item_codes
    np.testing.assert_allclose(one.score_pairs(*pairs), other.score_pairs(*pairs), atol=1e-5)


# ---- objective and gradient ------------------------------------------------------------------------


def arguments_of(model):
    """A factor model's settings as the reference twin takes them."""
    return as_keywords(model.settings.penalty, model.settings.biased, model.global_mean)


@pytest.mark.parametrize("recipe", [recipe for recipe in EVERY if recipe.name in ("als", "baseline")], ids=label)
def test_the_recorded_objective_is_the_reference_one(recipe, ratings):
    """At the state that the record is about: before a separate training's last joint solution."""
    arrays = recipe.start(ratings)
    model = recipe.fit(ratings)
    for number, record in enumerate(model.history, 1):
        arrays = recipe.epoch(ratings, arrays, number).state
        wide = [arrays[name].astype(np.float64) for name in ("user_rows", "item_rows")]
        J = reference.objective(ratings.by_user, ratings.by_item, *wide, **arguments_of(model))
        squared = reference.squared_errors(
            ratings.by_user, *wide, biased=model.settings.biased, offset=model.global_mean
        )
        tolerance = 1e-11 if arrays["user_rows"].dtype == np.float64 else 2e-6
        floor = tolerance * np.sum(ratings.values.astype(float) ** 2) * 1e-2
        assert record["objective"] == pytest.approx(J, rel=tolerance, abs=floor)
        assert record["train_rmse"] ** 2 * len(ratings) == pytest.approx(squared.sum(), rel=tolerance, abs=floor)


@st.composite
def als_recipes(draw):
    """Any small ALS recipe with some regularization."""
    weighting = draw(st.sampled_from(["none", "count"]))
    top = 20.0 if weighting == "none" else 1.0
    return gm.ALS(
        factors=draw(st.integers(1, 12)),
        regularization=draw(st.floats(0.01, top)),
        bias_regularization=draw(st.none() | st.floats(0.0, top)),
        weighting=weighting,
        biases=draw(st.booleans()),
        bias_update=draw(st.sampled_from(["joint", "separate"])),
        epochs=8,
        seed=draw(st.integers(0, 1000)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )


@given(st.one_of(als_recipes(), st.builds(gm.Baseline, regularization=st.floats(0.0, 50.0))))
@example(gm.ALS(factors=3, regularization=0.0, dtype="float64", epochs=8))
@example(gm.ALS(factors=24, regularization=0.0, dtype="float64", epochs=4))
@example(gm.ALS(factors=12, regularization=0.01, bias_update="separate", epochs=8))
def test_the_objective_never_rises(ratings, recipe):
    start = recipe.start(ratings)
    before = recipe.record(ratings, start, 0)["objective"]
    objectives = [before, *recipe.fit(ratings).history.column("objective")]
    # Rounding: of float64 sums, or of float32 rows.
    wide = start["user_rows"].dtype == np.float64
    slack = (1e-12 if wide else 1e-6) * (np.array(objectives[:-1]) + np.sum(ratings.values.astype(float) ** 2) * 1e-2)
    assert (np.diff(objectives) <= slack).all(), np.diff(objectives).max()
    assert objectives[-1] < 0.9 * objectives[0] or objectives[0] < 1e-9 or isinstance(recipe, gm.Baseline)


CONVERGED = [
    gm.Baseline(epochs=200, dtype="float64"),
    gm.ALS(factors=2, regularization=2.0, epochs=1500, dtype="float64"),
    gm.ALS(factors=2, regularization=2.0, epochs=1500, dtype="float64", bias_update="separate"),
    gm.ALS(factors=2, regularization=0.1, epochs=1500, dtype="float64", weighting="count", bias_regularization=0.3),
    gm.ALS(factors=2, regularization=2.0, epochs=1500, dtype="float64", biases=False),
]


@pytest.mark.parametrize("recipe", CONVERGED, ids=label)
def test_at_convergence_the_gradient_is_zero_on_both_sides(recipe, ratings):
    model = recipe.fit(ratings)
    users, items = model.user_rows, model.item_rows
    for rows, here, other in ((ratings.by_user, users, items), (ratings.by_item, items, users)):
        gradient = reference.gradient(rows, here, other, **arguments_of(model))
        assert gradient.shape == here.shape
        assert np.abs(gradient).max() < 1e-6
    # The gradient is that of J: a finite difference in some direction away from the minimum agrees.
    rng = np.random.default_rng(0)
    shifted, step = users + rng.normal(0, 0.1, users.shape), rng.normal(0, 1e-4, users.shape)
    J = [
        reference.objective(ratings.by_user, ratings.by_item, shifted + sign * step, items, **arguments_of(model))
        for sign in (1, -1)
    ]
    gradient = 2 * reference.gradient(ratings.by_user, shifted, items, **arguments_of(model))
    assert (J[0] - J[1]) / 2 == pytest.approx(np.sum(gradient * step), rel=1e-6)
    assert abs(J[0] - J[1]) > 1e-3


# ---- λ = 0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", ["few", "repeated", "zero", "enough"])
def test_without_regularization_the_solution_has_the_least_norm(dtype, biased, kind):
    rng = np.random.default_rng(3)
    K, n_other = 12, 50
    counts = np.array([1, 2, 5, 11, 0, 8]) if kind == "few" else np.array([30, 1, 40, 5, 13, 14])
    if kind == "enough":
        counts = np.array([30, 40, 50, 35, 26])
    rows = random_rows(rng, counts, n_other)
    other = rng.normal(0, 0.5, (n_other, K + biased)).astype(dtype)
    if kind == "repeated":
        other[:, :K] = other[np.arange(n_other) % 4, :K]
    if kind == "zero":
        other[:, 3:K] = 0
    penalty = penalty_of(K + biased, 0, 0, biased)
    got, singular = local.half_sweep(rows, other, penalty, Intercepts(biased, 3.0))
    deficient = 0
    for i in range(rows.n_rows):
        indices, values = rows.row(i)
        V = other[indices].astype(np.float64)
        targets = values.astype(np.float64) - 3.0
        if biased:
            targets, V[:, -1] = targets - V[:, -1], 1.0
        deficient += bool(len(indices)) and np.linalg.matrix_rank(V) < K + biased
        expected = np.linalg.pinv(V, rcond=1e-6) @ targets if len(indices) else np.zeros(K + biased)
        np.testing.assert_allclose(got[i], expected, rtol=0, atol=5e-4 if dtype == np.float32 else 1e-10)
    assert singular == deficient
    assert (deficient > 0) == (kind != "enough")


def test_without_regularization_of_the_factors_only_the_bias_is_shrunk():
    rng = np.random.default_rng(5)
    rows = random_rows(rng, np.array([2, 3, 20]), 30)
    other = rng.normal(size=(30, 7))
    penalty = penalty_of(7, 0.0, 2.0, True)
    got, singular = local.half_sweep(rows, other, penalty, Intercepts(biased=True, offset=1.0))
    assert singular == 2
    for i in range(3):
        V, targets, A, y = reference.row_system(*rows.row(i), other, **as_keywords(penalty, True, 1.0))
        np.testing.assert_allclose(got[i], np.linalg.pinv(A, rcond=1e-12, hermitian=True) @ y, atol=1e-9)
        np.testing.assert_allclose(A, V.T @ V + penalty.precision)
        np.testing.assert_allclose(y, V.T @ targets)


def test_singular_rows_are_said_in_the_history(ratings):
    few = gm.ALS(factors=24, regularization=0.0, epochs=2, dtype="float64").fit(ratings)
    counts = np.concatenate([ratings.by_user.counts, ratings.by_item.counts])
    assert few.history[0]["minimum_norm_rows"] >= (counts < 25).sum() > 0
    assert few.history[-1]["train_rmse"] < 0.1
    some = gm.ALS(factors=24, regularization=1.0, epochs=2).fit(ratings)
    assert "minimum_norm_rows" not in some.history[0]


# ---- the same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("separate", [False, True])
def test_threads_and_the_cut_of_blocks_change_no_bit(dtype, separate, pools, monkeypatch):
    rng = np.random.default_rng(1)
    rows = random_rows(rng, rng.integers(0, 120, 300), 150)
    other = rng.normal(size=(150, 18)).astype(dtype)
    start = rng.normal(size=(300, 18)).astype(dtype) if separate else None
    penalty = penalty_of(18, 0.5, 1.5, True)

    def solved(n_jobs):
        if separate:
            return local.SeparateUpdate(other, Intercepts(biased=True, offset=3.0), penalty, factors=start).run(
                rows, n_jobs
            )[0]
        return local.half_sweep(rows, other, penalty, Intercepts(biased=True, offset=3.0), n_jobs)[0]

    def errors(n_jobs):
        return local.squared_errors(rows, once, other, Intercepts(biased=True, offset=3.0), n_jobs)

    once = solved(1)
    total = errors(1)
    for blocks in (50, 7, 1):
        monkeypatch.setattr(pool, "BLOCKS", blocks)
        for n_jobs in (1, 2, 3, 8):
            assert solved(n_jobs).tobytes() == once.tobytes()
            assert errors(n_jobs) == total
        # So many pools were indeed started: none where all rows are one block.
        assert set(pools) == (set() if blocks == 1 else {2, 3, 8})
        pools.clear()


def test_a_row_is_solved_the_same_alone_as_among_others():
    rng = np.random.default_rng(2)
    rows = random_rows(rng, np.array([3, 0, 64, 65, 130, 1, 64]), 200)
    other = rng.normal(size=(200, 9)).astype(np.float32)
    penalty = penalty_of(9, 1.0, 1.0, True, by_count=True)
    whole = local.half_sweep(rows, other, penalty, Intercepts(biased=True, offset=3.0))[0]
    for i in range(rows.n_rows):
        alone = CSR(np.array([0, rows.counts[i]]), *(array.copy() for array in rows.row(i)))
        assert (
            local.half_sweep(alone, other, penalty, Intercepts(biased=True, offset=3.0))[0].tobytes()
            == whole[i].tobytes()
        )


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_an_interrupt_in_a_block_of_rows_drops_the_rest(n_jobs, pools, monkeypatch):
    from gramian.kernels.sweep import half_sweep

    rows = random_rows(np.random.default_rng(0), np.full(400, 20), 30)
    begun = []

    def interrupted(*_, **__):
        begun.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(half_sweep, "prepared", lambda *_, **__: interrupted)
    with pytest.raises(KeyboardInterrupt):
        local.half_sweep(rows, np.ones((30, 2)), penalty_of(2, 1, 1, True), Intercepts(biased=True, offset=0.0), n_jobs)
    assert pools == ([] if n_jobs == 1 else [n_jobs])
    # Of 64 blocks; with threads, how many had begun by then is a matter of chance.
    assert len(begun) == 1 if n_jobs == 1 else 1 <= len(begun) <= 64


@given(problems())
def test_squared_errors_equal_their_slow_twin(problem):
    rows, other, _, biased, offset, here = problem
    fast = local.squared_errors(rows, here, other, Intercepts(biased, offset))
    slow = reference.squared_errors(
        rows, here.astype(np.float64), other.astype(np.float64), biased=biased, offset=offset
    )
    assert fast == pytest.approx(slow.sum(), rel=1e-11 if other.dtype == np.float64 else 2e-6)


@given(problems())
def test_turning_rows_into_columns_and_back_gives_the_same(problem):
    rows, other, *_ = problem
    turned = transpose(rows, len(other))
    assert [array.dtype for array in turned] == [np.int64, np.int32, np.float32]
    dense = np.zeros((rows.n_rows, len(other)), np.float32)
    dense[rows.row_codes(), rows.indices] = rows.values
    np.testing.assert_array_equal(turned.row_codes(), np.nonzero(dense.T)[0])
    np.testing.assert_array_equal(dense[turned.indices, turned.row_codes()], turned.values)
    for array, again in zip(rows, transpose(turned, rows.n_rows), strict=True):
        np.testing.assert_array_equal(array, again)


# gradient descent has a learning rate and a start that are in units of ratings too
@pytest.mark.parametrize("name", [name for name, v in MODELS.items() if v.closed_form and name != "sgd"])
def test_a_training_survives_values_of_any_size(name, frame):
    """Ratings in millionths or in millions: float32 neither overflows nor loses the model."""
    for unit in (1e-6, 1.0, 1e6):
        scaled = gm.Ratings.from_frame(frame.with_columns(frame["rating"] * unit))
        penalty = {"baseline": {"regularization": 0.0}, "als": {"regularization": 2 * unit},
                   "softimpute": {"shrinkage": 2 * unit}}  # fmt: skip
        recipe = dataclasses.replace(MODELS[name].recipes[0], **penalty.get(name, {}))
        errors = recipe.fit(scaled).history.column("train_rmse")
        assert np.isfinite(errors).all()
        assert errors[-1] < 0.75 * float(np.std(scaled.values))


def test_singular_rows_keep_their_weights_and_prior_means():
    """The minimum-norm rescue solves the row's own system, whatever it is made of."""
    rng = np.random.default_rng(5)
    rows = random_rows(rng, np.array([3, 12, 2]), 30)
    other = rng.normal(size=(30, 6))
    precision = np.diag([2.0, 0, 0, 0, 0, 0])
    more = {"weights": rng.uniform(0.5, 2, 17), "linear": rng.normal(size=(3, 6)) * [1, 0, 0, 0, 0, 0]}
    found, singular = local.HalfSweep(other, Intercepts(biased=False, offset=1.0), Penalty(precision), **more).run(rows)
    assert singular == 2
    expected = reference.half_sweep(rows, other, biased=False, offset=1.0, precision=precision, **more)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    for i in (0, 2):
        _, _, A, y = reference.row_system(
            *rows.row(i), other, biased=False, offset=1.0, precision=precision, by_count=False,
            weights=more["weights"][rows.indptr[i] : rows.indptr[i + 1]], linear=more["linear"][i],
        )  # fmt: skip
        np.testing.assert_allclose(found[i], np.linalg.pinv(A) @ y, rtol=1e-8, atol=1e-8)
