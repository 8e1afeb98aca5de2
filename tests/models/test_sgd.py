"""Gradient descent: the kernel against its plain twin, the blocks, the objective, and rates that are too high."""

from __future__ import annotations

import numpy as np
import pytest

import gramian as gm
from gramian.engine import grid
from gramian.kernels import reference
from gramian.kernels.reference import DESCENT_RULES

PENALTIES = 0.2, 0.1


def problem(rule, biased, dtype="float64", rows=(7, 5), factors=3):
    rng = np.random.default_rng(1)
    D = factors + biased
    sides = [rng.normal(0, 0.5, (count, D)).astype(dtype) for count in rows]
    width = {"adam": 2 * D + 2, "momentum": D, "adagrad": 1 + biased}[rule]
    states = [np.zeros((count, width), dtype) for count in rows]
    for state in states:
        state[:, 2 * D :] = 1
    shares = [rng.uniform(0, 1, (count, 1)).astype(dtype) for count in rows]
    codes = [rng.integers(0, count, 60).astype(np.int32) for count in rows]
    return [*codes, rng.uniform(1, 5, 60).astype(np.float32), *sides, *states, *shares]


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("biased", [True, False])
def test_the_kernel_does_what_its_plain_twin_does(rule, biased):
    from gramian.kernels.gradient import descent

    fast, slow = problem(rule, biased), problem(rule, biased)
    blocks = descent.RatingBlocks(*fast[:3], np.array([0, 0, 25, 60]))
    sides = [descent.DescentSide(*fast[3 + side :: 2]) for side in (0, 1)]
    settings = descent.DescentSettings(biased, 3.0, *PENALTIES, rate=0.03, beta=0.8)
    for _ in range(3):
        sums = np.zeros((3, 2))
        descent.descend(blocks, np.array([1, 2]), *sides, settings, DESCENT_RULES.index(rule), sums)
        theirs = reference.descend(*slow, *PENALTIES, biased=biased, offset=3.0, rule=rule, rate=0.03, beta=0.8)
        assert sums.sum(axis=0).tolist() == pytest.approx(theirs, rel=1e-9)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("factors", [1, 3, 8, 21])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_kernel_of_adagrad_does_what_its_plain_twin_does(biased, factors, dtype):
    """Rows of one register and of several, full ones and such with zeros at their end; four at a time, and alone."""
    from gramian.kernels.gradient import adagrad, descent

    users, items, values, *sides = problem("adagrad", biased, dtype, rows=(23, 17), factors=factors)
    slow = [np.array(side, np.float64) for side in sides]
    packed = [
        grid.first_rows(rows[:, :factors], share[:, 0], dtype) for rows, share in zip(sides[:2], sides[4:], strict=True)
    ]
    for (_, state), rows in zip(packed, sides[:2], strict=True):
        state[:, adagrad.BIAS] = rows[:, -1] if biased else 0
    flat = [adagrad.FlatSide(rows.reshape(-1), state.reshape(-1)) for rows, state in packed]
    blocks = descent.RatingBlocks(users, items, values, np.array([0, 0, 25, 60]))
    settings = descent.DescentSettings(biased, 3.0, *PENALTIES, rate=0.03, beta=0.0)
    near = 1e-9 if dtype == "float64" else 1e-4
    for _ in range(3):
        made = np.zeros((3, 2))
        adagrad.descend_by_rows(blocks, np.array([1, 2]), *flat, factors, settings, made)
        theirs = reference.descend(
            users, items, values, *slow, *PENALTIES, biased=biased, offset=3.0, rule="adagrad", rate=0.03, beta=0.0
        )
        assert made.sum(axis=0).tolist() == pytest.approx(theirs, rel=near)
    for (rows, state), plain, sums in zip(packed, slow[:2], slow[2:4], strict=True):
        np.testing.assert_allclose(rows[:, :factors], plain[:, :factors], rtol=10 * near, atol=near)
        assert not rows[:, factors:].any()
        np.testing.assert_allclose(state[:, adagrad.SUM], sums[:, 0], rtol=10 * near)
        if biased:
            np.testing.assert_allclose(state[:, adagrad.BIAS], plain[:, -1], rtol=10 * near, atol=near)
            np.testing.assert_allclose(state[:, adagrad.BIAS_SUM], sums[:, 1], rtol=10 * near)


def test_a_step_of_plain_descent_is_the_gradient_of_the_objective(ratings):
    """Summed over all ratings at fixed rows, the steps are -η/2 times the gradient of J (by differences)."""
    table = ratings.by_user
    rng = np.random.default_rng(0)
    W, U = (rng.normal(0, 0.3, (count, 4)) for count in (ratings.n_users, ratings.n_items))
    recipe = gm.SGD(factors=3, regularization=2.0, bias_regularization=0.7, dtype="float64")
    total = [np.zeros_like(W), np.zeros_like(U)]
    shares = [1 / counts[:, None] for counts in (table.counts, ratings.by_item.counts)]
    for i, j, r in zip(table.row_codes(), table.indices, table.values, strict=True):
        w, u = W.copy(), U.copy()
        reference.descend(
            np.array([i]), np.array([j]), np.array([r]), w, u, np.zeros_like(w), np.zeros_like(u), *shares,
            *recipe._penalties, biased=True, offset=3.0, rule="momentum", rate=1.0, beta=0.0,
        )  # fmt: skip
        total[0] += w - W
        total[1] += u - U

    def objective(W, U):
        e = table.values - 3.0 - np.einsum("nk,nk->n", W[table.row_codes(), :3], U[table.indices, :3])
        e = e - W[table.row_codes(), 3] - U[table.indices, 3]
        return (e**2).sum() + sum(2.0 * (x[:, :3] ** 2).sum() + 0.7 * (x[:, 3] ** 2).sum() for x in (W, U))

    for side, place in ((0, (4, 1)), (0, (9, 3)), (1, (2, 0)), (1, (5, 3))):
        ends = []
        for step in (1e-5, -1e-5):
            rows = [W.copy(), U.copy()]
            rows[side][place] += step
            ends.append(objective(*rows))
        assert total[side][place] == pytest.approx(-(ends[0] - ends[1]) / 4e-5, rel=1e-5)


def test_the_grid_holds_every_rating_once_and_the_blocks_of_a_round_share_no_row(wide_ratings):
    made = grid.grid_of(wide_ratings.by_user, wide_ratings.n_items, 3)
    pairs = sorted(zip(made.users.tolist(), made.items.tolist(), made.values.tolist(), strict=True))
    table = wide_ratings.by_user
    assert pairs == list(zip(table.row_codes().tolist(), table.indices.tolist(), table.values.tolist(), strict=True))
    assert made.parts > 1
    ran = []
    for shares in grid._rounds(made, np.arange(made.parts), 2):
        numbers = [number for share in shares for number in share]
        ran += numbers
        parts = [slice(*made.starts[number : number + 2]) for number in numbers]
        for codes in (made.users, made.items):
            rows = [set(codes[part]) for part in parts]
            assert sum(map(len, rows)) == len(set().union(*rows))
    assert sorted(ran) == list(range(made.parts**2))


def test_descent_comes_to_the_minimum_that_als_finds(ratings):
    fields = {"factors": 1, "regularization": 4.0, "dtype": "float64"}
    als = gm.ALS(epochs=200, **fields).fit(ratings).history[-1]["objective"]
    slow = gm.SGD(
        optimizer="momentum", momentum=0.0, epochs=600, learning_rate=0.05, schedule="inverse", decay=0.05, **fields
    ).fit(ratings)
    assert slow.history[-1]["objective"] == pytest.approx(als, rel=5e-3)


def test_a_rate_that_is_too_high_keeps_the_last_good_epoch_and_is_named(ratings):
    recipe = gm.SGD(optimizer="momentum", learning_rate=0.2, momentum=0.99, epochs=30, regularization=0.0)
    with pytest.raises(gm.DivergenceError, match=r"epoch 1 is not finite: the learning rate 0\.2 is too high for mom"):
        recipe.fit(ratings)
    grows = gm.SGD(optimizer="momentum", learning_rate=0.03, momentum=0.95, epochs=60, regularization=0.0, factors=8)
    with pytest.warns(gm.TrainingWarning, match=r"its last full one\. .* learning rate 0\.03 is too high"):
        model = grows.fit(ratings)
    assert 1 <= len(model.history) < 60
    assert np.isfinite(model.predict(ratings.users, ratings.items)).all()


def test_the_schedules():
    rates = {s: [gm.SGD(schedule=s, learning_rate=0.5, decay=0.2).rate(n) for n in (1, 6)] for s in
             ("constant", "inverse", "exponential")}  # fmt: skip
    assert rates == {"constant": [0.5, 0.5], "inverse": [0.5, 0.25], "exponential": [0.5, 0.5 * np.exp(-1.0)]}
