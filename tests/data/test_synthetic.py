"""Ratings with known truth: the counts asked for are met, and the truth shows in the ratings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gramian as gm
from gramian.data import synthetic
from gramian.data.synthetic import Synthetic, synthetic_ratings


def residuals(truth: Synthetic) -> np.ndarray:
    r = truth.ratings
    return r.values - truth.expected(r.users, r.items, r.times)


@given(st.data())
def test_counts_are_exact_and_pairs_distinct(data: st.DataObject) -> None:
    n_users, n_items = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    n_ratings = data.draw(st.integers(1, n_users * n_items))
    skew, selection = data.draw(st.floats(0, 5)), data.draw(st.sampled_from([0.0, 1.0, 20.0]))
    truth = synthetic_ratings(
        n_users,
        n_items,
        n_ratings,
        popularity_skew=skew,
        activity_skew=skew,
        selection=selection,
        factors=data.draw(st.integers(0, 3)),
        seed=data.draw(st.integers(0, 99)),
    )
    frame = truth.ratings.to_frame()
    assert len(frame) == n_ratings
    assert frame.select("user", "item").is_unique().all()
    assert frame["user"].is_between(0, n_users - 1).all()
    assert frame["item"].is_between(0, n_items - 1).all()
    if n_ratings >= n_users:
        assert truth.ratings.n_users == n_users


def test_default_counts_and_scale() -> None:
    truth = gm.synthetic_ratings()
    ratings = truth.ratings
    assert (len(ratings), ratings.n_users) == (50_000, 1000)
    assert set(np.unique(ratings.values)) == set(np.arange(1, 11, dtype=np.float32) / 2)
    assert truth.user_factors.shape == (1000, 5)
    assert truth.item_factors.shape == (500, 5)
    assert truth.scale == (0.5, 5.0, 0.5)


def test_same_seed_same_bits() -> None:
    one, two, other = (synthetic_ratings(80, 40, 900, selection=1.0, drift=0.5, seed=seed) for seed in (4, 4, 5))
    assert one.ratings.fingerprint() == two.ratings.fingerprint() != other.ratings.fingerprint()
    assert np.array_equal(one.user_factors, two.user_factors)
    assert np.array_equal(one.item_drift, two.item_drift)


def test_blocks_of_users_do_not_break_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BLOCK_CELLS", 100)
    truth = synthetic_ratings(70, 30, 800, noise=0.0, scale=None)
    frame = truth.ratings.to_frame()
    assert frame.equals(frame.sort("user", "item"))
    assert np.abs(residuals(truth)).max() < 1e-5


def test_noiseless_ratings_are_what_is_expected() -> None:
    truth = synthetic_ratings(100, 60, 2000, noise=0.0, scale=None, drift=0.7)
    assert np.abs(residuals(truth)).max() < 1e-5
    without_time = truth.ratings.values - truth.expected(truth.ratings.users, truth.ratings.items)
    assert np.std(without_time) > 0.1


def test_expected_is_the_equation() -> None:
    truth = synthetic_ratings(20, 10, 100, drift=1.0, seed=3)
    assert truth.period is not None
    start, end = truth.period
    base = 3.5 + truth.user_biases[7] + truth.item_biases[4] + truth.user_factors[7] @ truth.item_factors[4]
    assert truth.expected(7, 4) == pytest.approx(base)
    assert truth.expected([7, 7], [4, 4], [start, end]) == pytest.approx(
        [base - truth.item_drift[4] / 2, base + truth.item_drift[4] / 2]
    )
    assert truth.expected([], []).shape == (0,)


@pytest.mark.parametrize("user", [-1, 20, 1.5, "a"])
def test_expected_refuses_unknown_ids(user: object) -> None:
    truth = synthetic_ratings(20, 10, 100)
    with pytest.raises(gm.UnknownIdError, match=r"no such user: got .*; ids are whole numbers, 0 to 19"):
        truth.expected(user, 4)


def test_spreads_are_those_asked_for() -> None:
    truth = synthetic_ratings(
        2000, 1500, 60_000, noise=0.3, user_bias=0.2, item_bias=0.6, factor_scale=0.8, factors=7, scale=None, drift=0.4
    )
    products = np.einsum("nk,nk->n", truth.user_factors[:1500], truth.item_factors)
    found = [residuals(truth).std(), truth.user_biases.std(), truth.item_biases.std(), truth.item_drift.std()]
    assert found == pytest.approx([0.3, 0.2, 0.6, 0.4], rel=0.06)
    assert products.std() == pytest.approx(0.8, rel=0.1)
    assert abs(residuals(truth).mean()) < 0.006


def test_skews_shape_the_counts() -> None:
    even = synthetic_ratings(400, 300, 12_000, popularity_skew=0, activity_skew=0).ratings
    skewed = synthetic_ratings(400, 300, 12_000, popularity_skew=1.5, activity_skew=1.5).ratings
    assert set(even.by_user.counts) == {30}
    assert even.by_item.counts.max() < 75
    assert np.log(skewed.by_user.counts).std() == pytest.approx(1.35, abs=0.25)
    assert skewed.by_item.counts.max() > 150


def test_popularity_is_drawn_without_replacement_in_proportion() -> None:
    """Two of three items with weights p: the chance that an item is left out is known in closed form."""
    weights = np.array([0.6, 0.3, 0.1])
    choice = synthetic._Choice(np.log(weights), np.zeros(3), np.zeros((20_000, 0)), np.zeros((3, 0)))
    counts = np.zeros(3)
    for _, items in choice.pairs(np.full(20_000, 2), np.random.default_rng(0)):
        counts += np.bincount(items, minlength=3)
    pairs = {j: [(a, b) for a in range(3) for b in range(3) if a != b and j not in (a, b)] for j in range(3)}
    left_out = [sum(weights[a] * weights[b] / (1 - weights[a]) for a, b in pairs[j]) for j in range(3)]
    assert counts / 20_000 == pytest.approx(1 - np.array(left_out), abs=0.012)


def test_both_ways_of_drawing_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def shares() -> np.ndarray:
        truth = synthetic_ratings(3000, 6, 9000, popularity_skew=1.0, activity_skew=0, selection=1.5, seed=2)
        return np.bincount(truth.ratings.items, minlength=6) / 3000

    one_by_one = shares()
    monkeypatch.setattr(synthetic, "ROUNDS", 0)
    assert shares() == pytest.approx(one_by_one, abs=0.035)


def test_selection_prefers_what_is_liked() -> None:
    def excess(selection: float) -> float:
        truth = synthetic_ratings(500, 400, 10_000, selection=selection, noise=0.0, scale=None, seed=1)
        r = truth.ratings
        return float(np.mean(truth.expected(r.users, r.items) - 3.5 - truth.user_biases[r.users]))

    assert abs(excess(0.0)) < 0.12
    assert excess(1.0) > excess(0.0) + 0.2
    assert excess(4.0) > excess(1.0) + 0.1


def test_selection_odds_are_those_documented() -> None:
    """With item biases ±1 and nothing else, half the items liked, s = 2: e² times as readily rated."""
    tilt = np.where(np.arange(1000) < 500, 1.0, -1.0)
    choice = synthetic._Choice(np.zeros(1000), tilt, np.zeros((400, 0)), np.zeros((1000, 0)))
    items = np.concatenate([i for _, i in choice.pairs(np.full(400, 10), np.random.default_rng(0))])
    assert (items < 500).mean() == pytest.approx(np.e / (1 + np.e), abs=0.03)


def test_truth_lines_up_with_the_ids_left() -> None:
    truth = synthetic_ratings(300, 900, 900, noise=0.0, scale=None, popularity_skew=2.0)
    r = truth.ratings
    assert r.n_items < 900
    c = truth.item_biases[r.item_ids.ids.to_numpy()]
    assert c[r.item_codes] == pytest.approx(truth.item_biases[r.items])
    assert np.abs(residuals(truth)).max() < 1e-5


def test_a_model_recovers_the_truth() -> None:
    truth = synthetic_ratings(300, 120, 15_000, factors=2, noise=0.1, scale=None, popularity_skew=0.3, seed=1)
    model = gm.ALS(factors=2, regularization=0.5, epochs=30).fit(truth.ratings)
    users, items = (a.reshape(-1) for a in np.meshgrid(np.arange(300), truth.ratings.item_ids.ids.to_numpy()))
    error = model.predict(users, items, clip=False) - truth.expected(users, items)
    assert np.sqrt(np.mean(error**2)) < 0.1


def test_times_lie_in_the_period_or_are_absent() -> None:
    truth = synthetic_ratings(50, 30, 400)
    assert truth.period is not None
    assert truth.ratings.times is not None
    assert truth.period[0] <= truth.ratings.times.min() < truth.ratings.times.max() <= truth.period[1]
    timeless = synthetic_ratings(50, 30, 400, times=False)
    assert timeless.ratings.times is None
    assert timeless.period is None


def test_every_pair_can_be_rated() -> None:
    assert len(synthetic_ratings(12, 7, 84, popularity_skew=5, selection=3.0).ratings) == 84


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_ratings": 101}, "more than there are pairs; got 101 for 10 × 10 = 100"),
        ({"n_ratings": 0}, "'n_ratings' parameter .* whole number in .1, inf.; got 0"),
        ({"n_users": 2.5}, "'n_users' parameter"),
        ({"noise": -1.0}, "'noise' parameter"),
        ({"selection": float("nan")}, "'selection' parameter"),
        ({"popularity_skew": 6}, r"in \[0, 5\]; got 6"),
        ({"factors": -1}, "'factors' parameter"),
        ({"seed": -1}, "'seed' parameter"),
        ({"scale": (1, 5)}, "'scale' parameter"),
        ({"scale": (1, 5, 3)}, "'scale' parameter"),
        ({"scale": (5, 1, 1)}, "'scale' parameter"),
        ({"scale": ("a", 5, 1)}, "'scale' parameter"),
        ({"drift": 0.5, "times": False}, "'drift' parameter .* needs times=True"),
    ],
)
def test_arguments_outside_their_range(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(gm.ParameterError, match=message):
        synthetic_ratings(**{"n_users": 10, "n_items": 10, "n_ratings": 50, **wrong})
