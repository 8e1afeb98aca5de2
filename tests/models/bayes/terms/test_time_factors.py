"""Factors that drift: their conditionals against closed forms and by simulation; what a model makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from chains import swept
from ranks import drawn_sides, ranked, uniformity
from scipy import stats

import gramian as gm
from gramian.data.pairs import Pairs
from gramian.engine import entries, local
from gramian.engine.rows import Intercepts
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Beginning, Chance, Rest, Setup
from gramian.models.bayes.calendar import Calendar, Clock, clock_of
from gramian.models.bayes.state import Key, State
from gramian.models.bayes.terms import time_factors, time_offsets
from gramian.models.bayes.terms.collection import Terms
from gramian.models.bayes.terms.time_factors import TimeFactors
from gramian.models.bayes.terms.time_offsets import TimeOffsets

DAY = 86_400
K = 2


def drifting(n_users=80, n_items=60, days=40, visits=5, fill=0.7, std=0.6, noise=0.25, seed=0):
    """Ratings of two factors whose users are somebody else on each of their five days."""
    rng = np.random.default_rng(seed)
    u, i = np.nonzero(rng.random((n_users, n_items)) < fill)
    day = rng.integers(days, size=(n_users, visits))[u, rng.integers(visits, size=len(u))]
    W, U = 0.6 * rng.normal(size=(n_users, K)), rng.normal(size=(n_items, K))
    away = std * rng.normal(size=(n_users, days, K))
    values = 3 + 0.3 * rng.normal(size=n_items)[i] + np.sum((W[u] + away[u, day]) * U[i], axis=1)
    frame = pl.DataFrame({
        "user": u, "item": i, "rating": values + noise * rng.normal(size=len(u)),
        "time": DAY * (15_000 + day) + rng.integers(DAY, size=len(u)),
    })  # fmt: skip
    return gm.Ratings.from_frame(frame)


@pytest.fixture(scope="module")
def parts():
    return drifting().split(0.2, seed=0)


@pytest.fixture(scope="module")
def recipe():
    return gm.BPMF(factors=K, draws=80, drift=True, keep_dtype="float32")


@pytest.fixture(scope="module")
def model(parts, recipe):
    return recipe.fit(parts[0])


def calendar_of(ratings):
    return Calendar.of(ratings, clock_of("auto", ratings))


# ---- the conditionals --------------------------------------------------------------------------------


def test_deviations_are_drawn_from_their_normal():
    rng = np.random.default_rng(1)
    codes, items = rng.integers(4, size=30), rng.integers(6, size=30)
    left, weights, U = rng.normal(size=30), rng.gamma(2, size=30), rng.normal(size=(6, K))
    cells = time_factors.by_cell(codes, 5, items)
    made = np.array([time_factors.deviations(cells, left, U, weights, (2.5, 1.7), (3, n, 0)) for n in range(4000)])
    for g in range(5):
        V, own = U[items[codes == g]], weights[codes == g]
        A = 2.5 * np.eye(K) + 1.7 * (V * own[:, None]).T @ V
        white = (made[:, g] - np.linalg.solve(A, 1.7 * V.T @ (own * left[codes == g]))) @ np.linalg.cholesky(A)
        assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(4000)
        assert np.abs(np.cov(white.T) - np.eye(K)).max() < 5 * np.sqrt(2 / 4000)
        assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3


def test_what_deviations_add_is_that_of_each_rating(parts):
    """The sums that go by day agree with one rating at a time, also as rows of days that the items see."""
    train, rng = parts[0], np.random.default_rng(2)
    calendar = calendar_of(train)
    days = calendar.kinds[0]
    users, items = rng.normal(size=(train.n_users, K + 1)), rng.normal(size=(train.n_items, K + 1))
    one = time_factors.Drift(rng.normal(size=(len(days.keys), K)), 4.0, 0.5)
    added = np.array([one.rows[c] @ items[j, :K] for c, j in zip(days.codes, train.item_codes, strict=True)])
    np.testing.assert_allclose(TimeFactors(calendar.clock, calendar, 1.0).added(one, items), added, atol=1e-12)
    np.testing.assert_allclose(one.at(days.codes, items[train.item_codes]), added, atol=1e-5)
    assert one.at(np.array([-1]), items[:1]).tolist() == [0]
    seen, rows = TimeFactors(calendar.clock, calendar, 1.0).moved_rows(one, train.by_item, users)
    for j in (0, 7):
        column = seen.indices[seen.indptr[j] : seen.indptr[j + 1]]
        owners = train.by_item.indices[train.by_item.indptr[j] : train.by_item.indptr[j + 1]]
        np.testing.assert_allclose(rows[column, K], users[owners, K])
        np.testing.assert_allclose(rows[column, :K], users[owners, :K] + one.rows[column])


def test_centred_deviations_leave_every_sum_as_it_was(parts):
    train, rng = parts[0], np.random.default_rng(4)
    calendar = calendar_of(train)
    days, users = calendar.kinds[0], rng.normal(size=(train.n_users, K + 1))
    before = time_factors.Drift(rng.normal(size=(len(days.keys), K)), 4.0, 0.5)
    after, rows = time_factors.centred(before, calendar, users)
    np.testing.assert_allclose(
        time_factors.rows_of_days(after, calendar, rows), time_factors.rows_of_days(before, calendar, users)
    )
    for user in (0, 11, train.n_users - 1):
        mine = days.codes[train.user_codes == user]
        np.testing.assert_allclose(after.rows[mine].mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(rows[user, :K], users[user, :K] + before.rows[mine].mean(axis=0))
    np.testing.assert_array_equal(rows[:, K], users[:, K])


def test_the_precision_is_drawn_from_its_gamma(parts):
    train, rng = parts[0], np.random.default_rng(0)
    calendar = calendar_of(train)
    term = TimeFactors(calendar.clock, calendar, 0.5)
    before = term.start(Beginning(train.n_users, train.n_items, K, K + 1, 1.0, "float64"))
    left, items, made = rng.normal(size=len(train)), rng.normal(size=(train.n_items, K + 1)), []
    for seed in range(400):
        chance = Chance(np.random.default_rng(seed), (0, seed, 0))
        new, _ = term.drawn(before, left, None, Rest(items, None, 2.0), chance)
        made.append(new.precision * (0.5 + np.sum(new.rows**2) / 2))
    assert stats.kstest(made, stats.gamma(1 + new.rows.size / 2).cdf).pvalue > 1e-3
    assert new.spread == pytest.approx(np.mean(np.sum(items[:, :K] ** 2, axis=1)) / new.precision)


# The truth from the prior, the posterior by the sampler: the ranks of the truth are uniform (see test_gibbs.py).

N, M, DAYS = 5, 4, 2
HYPER, RATES = gibbs.Hyperprior(np.array([1.0, 0.5]), 2.0, 3.0, 9.0), (1.5, 1.0)


def ranks_of(seed):
    rng = np.random.default_rng([seed, 11])
    sides, priors = drawn_sides(rng, (N, M), HYPER)
    u, i = np.nonzero(rng.random((N, M)) < 0.8)
    frame = {"user": u, "item": i, "rating": np.zeros(len(u)), "time": DAY * rng.integers(DAYS, size=len(u))}
    table = gm.Ratings.from_frame(pl.DataFrame(frame))
    calendar = Calendar.of(table, Clock(DAY, 2 * DAY, DAY))
    sides = [side[ids.ids.to_numpy()] for side, ids in zip(sides, (table.user_ids, table.item_ids), strict=True)]
    precisions, scale = rng.gamma(1, size=3) / RATES[0], rng.gamma(1) / RATES[1]
    offsets = [rng.normal(size=len(c.keys)) / np.sqrt(p) for c, p in zip(calendar.kinds, precisions, strict=True)]
    moves = time_factors.Drift(rng.normal(size=(len(calendar.kinds[0].keys), 1)) / np.sqrt(scale), scale, 0.0)
    time = time_offsets.levelled(calendar, offsets, precisions)
    alpha = rng.gamma(HYPER.shape) / HYPER.rate
    chain = State(*sides, *priors, alpha, {"time": time, "drift": moves})
    terms = Terms((TimeOffsets(calendar.clock, calendar, RATES[0]), TimeFactors(calendar.clock, calendar, RATES[1])))
    W, U, (a, b) = *sides, (table.user_codes, table.item_codes)
    factors = W[a, 0] + moves.rows[calendar.kinds[0].codes, 0]
    values = factors * U[b, 0] + W[a, 1] + U[b, 1] + time.of(calendar) + rng.normal(size=len(a)) / np.sqrt(alpha)
    ways = gibbs.BothWays.of(table, terms)
    ways = ways._replace(by_user=table.by_user._replace(values=values))

    def sweep(state, number):
        return swept(state, ways, HYPER, Key(seed, 0, number), True, 0.0, terms, 1)[0]

    return ranked(chain, quantities, sweep, 210, 30, 20)


def quantities(chain):
    moves, u = chain.drift, chain.item_rows[:, 0]
    return [chain.noise_precision, moves.precision, np.sum(moves.rows**2), np.abs(moves.rows[0, 0]),
            (chain.user_rows[0, 0] + moves.rows[0, 0]) * u[0], moves.rows[0, 0] * u[1],
            np.sum(u**2) * np.sum(moves.rows**2), chain.time.offsets[0][0]]  # fmt: skip


def test_ranks_of_the_truth_are_uniform():
    p = uniformity(ranks_of, 60)
    assert p.min() > 0.01 / len(p), p


def test_forgetting_the_noise_of_the_deviations_fails_the_calibration(monkeypatch):
    real = local.HalfSweep

    def without(*arguments, draw=None, spread=1.0, **more):
        return real(*arguments, draw=draw, spread=0.0 if draw[2] >= time_factors.SIDE else spread, **more)

    monkeypatch.setattr(local, "HalfSweep", without)
    assert uniformity(ranks_of, 20).min() < 1e-5


# ---- the model ---------------------------------------------------------------------------------------


def test_drift_is_recovered_and_helps(parts, model):
    train, test = parts
    still = gm.BPMF(factors=K, draws=80, time="auto").fit(train)
    assert model.evaluate(test)["rmse"] < 0.7 * still.evaluate(test)["rmse"]
    assert model.noise_std == pytest.approx(0.25, abs=0.04)
    spread = model.traces[model.burn_in :, 0, model.trace_names.index("drift_std")].mean()
    assert spread == pytest.approx(0.6 * np.sqrt(K), rel=0.25)  # of δᵀu, for items of length √K
    for told in (test.times, None):
        low, high = model.predict_interval(test.users, test.items, times=told, clip=False).T
        assert np.mean((low <= test.values) & (test.values <= high)) == pytest.approx(0.9, abs=0.05)


def test_without_drift_it_is_found_to_be_small():
    train, test = drifting(std=0.0).split(0.2, seed=0)
    model = gm.BPMF(factors=K, draws=60, drift=True).fit(train)
    assert model.traces[-20:, 0, model.trace_names.index("drift_std")].mean() < 0.2
    still = gm.BPMF(factors=K, draws=60, time="auto").fit(train)
    assert model.evaluate(test)["rmse"] < 1.02 * still.evaluate(test)["rmse"]


def test_predictions_have_the_deviations_of_their_days(model):
    place, item = model.ratings.by_user.indptr[3], model.item_ids.ids[5]
    user, when = model.user_ids.ids[3], int(model.ratings.times[place])
    codes, others = np.array([3], np.int32), np.array([5], np.int32)
    cells = calendar_of(model.ratings).find(Pairs(codes, others, np.array([when])))
    known, unknown, spread = [], [], []
    for draw in model.draws:
        free = draw.user_rows[3] @ np.append(draw.item_rows[5, :K], 1) + draw.item_rows[5, K] + model.global_mean
        known.append(free + draw.time.at(cells)[0] + draw.drift.rows[cells[0][0]] @ draw.item_rows[5, :K])
        unknown.append(free + draw.time.usual(Pairs(codes, others))[0])
        mean = np.mean(np.sum(draw.item_rows[:, :K] ** 2, axis=1)) / draw.drift.precision
        spread.append(1 / draw.noise_precision + mean + np.sum(1 / draw.time.precisions))
    assert model.predict(user, item, times=when, clip=False)[0] == pytest.approx(np.mean(known), abs=1e-5)
    assert model.predict(user, item, clip=False)[0] == pytest.approx(np.mean(unknown), abs=1e-5)
    assert model.score_block(codes)[0, 5] == pytest.approx(np.mean(unknown), abs=1e-4)
    std = np.sqrt(np.mean(spread) + np.var(unknown))
    assert model.predict_std(user, item)[0] == pytest.approx(std, rel=1e-4)
    assert model.predict_std(user, item, times=when)[0] < std
    assert model.explain(user, item).prediction == pytest.approx(np.mean(unknown), abs=1e-5)
    rated, values = model.ratings.by_user.row(3)
    places, calendar = slice(*model.ratings.by_user.indptr[3:5]), calendar_of(model.ratings)
    for draw, mine in zip(model.draws, model.targets_of_user(3), strict=True):
        rows = draw.drift.rows[calendar.kinds[0].codes[places]]
        left = values - draw.time.of(calendar, places) - np.sum(rows * draw.item_rows[rated, :K], axis=1)
        np.testing.assert_allclose(mine.targets, left, atol=1e-5)


def test_an_unknown_item_is_seen_by_who_the_user_was_on_that_day(model):
    """Its factors are N(m, Λ⁻¹): of (w + δ)ᵀu + c, given a draw, mean and variance in closed form."""
    place = model.ratings.by_user.indptr[3]
    user, item, when = np.array([3], np.int32), np.array([-1], np.int32), model.ratings.times[place : place + 1]
    pairs, calendar = Pairs(user, item, when), calendar_of(model.ratings)
    cells, found = calendar.find(pairs), model._find(pairs)
    for s in range(0, model.n_draws, 20):
        draw = model.draws[s]
        row = np.append(draw.user_rows[3, :K] + draw.drift.rows[cells[0][0]], 1)
        mean = row @ draw.items.mean + draw.user_rows[3, K] + model.global_mean + draw.time.at(cells)[0]
        variance = row @ np.linalg.inv(draw.items.precision) @ row + 1 / draw.noise_precision
        variance += 1 / draw.time.precisions[1]  # the item's period, which is unknown, too
        assert model._mean(draw, pairs, found)[0] == pytest.approx(mean, rel=1e-5)
        assert model._variance(s, pairs, found)[0] == pytest.approx(variance, rel=1e-5)


def test_a_folded_row_has_the_mean_of_the_joint_conditional(model):
    """A row, and the offsets and deviations of its days, given one draw, are one normal."""
    draw = model.draws[-1]
    same = dataclasses.replace(model, draws=(draw,) * 2500)
    items = np.array([1, 4, 9, 12, 20, 33], np.int32)
    ids, values = model.item_ids.take(items).to_list(), np.array([4.0, 2.0, 5.0, 3.0, 1.0, 4.0])
    when = model.ratings.times.min() + DAY * np.array([0, 0, 0, 1, 1, 1])
    made = same.fold_in(dict(zip(ids, values.tolist(), strict=True)), times=when)
    cells = calendar_of(model.ratings).find(Pairs(np.full(6, -1), items, when))
    U, first = draw.item_rows[items, :K], np.array([1, 1, 1, 0, 0, 0])[:, None]
    V = np.column_stack([U, np.ones(6), first, 1 - first, first * U, (1 - first) * U])
    prior = np.zeros((V.shape[1],) * 2)
    prior[: K + 1, : K + 1] = draw.users.precision
    prior[K + 1 : K + 3, K + 1 : K + 3] = draw.time.precisions[0] * np.eye(2)
    prior[K + 3 :, K + 3 :] = draw.drift.precision * np.eye(2 * K)
    told = values - model.global_mean - draw.item_rows[items, K] - draw.time.at(cells)
    covariance = np.linalg.inv(prior + draw.noise_precision * V.T @ V)
    centre = np.zeros(len(prior))
    centre[: K + 1] = draw.users.mean
    mean = covariance @ (prior @ centre + draw.noise_precision * V.T @ told)
    shown = np.zeros((K + 1, len(prior)))  # a row with the mean of what its days add
    shown[:, : K + 1], shown[K, K + 1 : K + 3] = np.eye(K + 1), 0.5
    shown[:K, K + 3 : 2 * K + 3] = shown[:K, 2 * K + 3 :] = 0.5 * np.eye(K)
    error = np.sqrt(np.diag(shown @ covariance @ shown.T) * 8 / 2500)  # draws follow one another
    assert (np.abs(made.mean(axis=0) - shown @ mean) < 4 * error).all()


def test_a_drifting_model_is_saved_resumed_and_the_same_on_threads(parts, recipe, model, tmp_path, pools):
    train, test = parts
    model.save(tmp_path / "m.gramian")
    again, asked = gm.load(tmp_path / "m.gramian"), (test.users, test.items)
    np.testing.assert_array_equal(again.predict(*asked, times=test.times), model.predict(*asked, times=test.times))
    threads = dataclasses.replace(recipe, n_jobs=3).fit(train)
    assert 3 in pools
    np.testing.assert_array_equal(threads.predict(*asked, times=test.times), model.predict(*asked, times=test.times))
    short = dataclasses.replace(recipe, draws=20, burn_in=16)
    short.fit(train, checkpoint=tmp_path / "c", keep_checkpoint=True)
    longer = dataclasses.replace(recipe, draws=40, burn_in=16)
    whole = longer.fit(train)
    resumed = longer.fit(train, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(resumed.predict(*asked, times=test.times), whole.predict(*asked, times=test.times))


def test_new_ratings_get_deviations_of_their_own(parts, model):
    """Users of a new day, on which they are as different as on any other: half of it is learned, half predicted."""
    train, _ = parts
    later = drifting(days=3, seed=0).to_frame().join(train.to_frame(), on=["user", "item"], how="anti")
    new, rest = gm.Ratings.from_frame(later.with_columns(pl.col("time") + 100 * DAY)).split(0.3, seed=1)
    grown = model.update(new)
    for old, draw in zip(model.draws[::20], grown.draws[::20], strict=True):
        assert len(draw.drift.rows) > len(old.drift.rows)
        spread = time_factors.unknown_variance(draw.drift.precision, draw.item_rows[:, :K])
        assert draw.drift.spread == pytest.approx(spread, rel=1e-4)
    assert grown.evaluate(rest)["rmse"] < 0.75 * model.evaluate(rest)["rmse"]
    assert grown.evaluate(train)["rmse"] < 1.5 * model.evaluate(train)["rmse"]


def test_drift_goes_with_everything_else(parts):
    train, test = (
        gm.Ratings.from_frame(part.to_frame().with_columns(pl.col("rating").round().clip(1, 5))) for part in parts
    )
    side = pl.DataFrame({"item": range(60), "kind": [n % 3 for n in range(60)]})
    recipe = gm.BPMF(factors=K, draws=40, drift=True, noise="by_user", implicit="both", item_features=side, chains=2,
                     likelihood="ordinal")  # fmt: skip
    assert recipe.time == "auto"
    model = recipe.fit(train, validation=test)
    assert model.history[-1]["validation_rmse"] == pytest.approx(model.evaluate(test)["rmse"], abs=2e-3)
    assert (
        model.evaluate(test)["log_loss"]
        < gm.BPMF(factors=K, draws=40).fit(train).evaluate_probabilities(test)["log_loss"]
    )
    user, given = train.user_ids.ids[7], dict(zip(range(8), (5.0, 1.0) * 4, strict=True))
    scores = model.score_pairs(np.full(60, 7, np.int32), np.arange(60, dtype=np.int32))
    np.testing.assert_allclose(model.score_block(np.array([7], np.int32))[0], scores, atol=1e-4)
    when = int(train.times[0])
    assert model.recommend_for(given, 3, times=when).height == model.ask_next(user, 3).height == 3
    grown = model.update(gm.Ratings.from_frame(test.to_frame()))
    assert grown.evaluate(test)["rmse"] < model.evaluate(test)["rmse"]


def test_latent_ratings_are_drawn_about_what_the_day_adds(parts, monkeypatch):
    """Of steps, with noise by user: the mean of each latent number has offsets and deviation, its noise the user's."""
    frame = parts[0].to_frame().with_columns(pl.col("rating").round().clip(1, 5))
    train, seen = gm.Ratings.from_frame(frame), []
    recipe = gm.BPMF(factors=K, draws=6, drift=True, likelihood="ordinal", noise="by_user", dtype="float64", n_jobs=1)
    terms, calendar = recipe.terms(train), calendar_of(train)
    chain, ways = recipe.start_chain(train, terms, 0), gibbs.BothWays.of(train, terms)
    hyper, setup = recipe._hyper(train, terms), Setup(Intercepts(biased=True, offset=3.0))
    real = entries.latent

    def latent(rows, steps, mean, cuts, stds, *rest):
        seen[:] = mean.copy(), stds
        return real(rows, steps, mean, cuts, stds, *rest)

    monkeypatch.setattr(entries, "latent", latent)
    for number in range(1, 5):
        before = chain
        chain = gibbs.sweep(before, ways, terms, hyper, Key(0, 0, number), setup)[0]
    users, items = before.user_rows[train.user_codes], before.item_rows[train.item_codes]
    rows = users[:, :K] + before.drift.rows[calendar.kinds[0].codes]
    expected = 3.0 + np.sum(rows * items[:, :K], axis=1) + users[:, K] + items[:, K] + before.time.of(calendar)
    np.testing.assert_allclose(seen[0], expected, atol=1e-9)
    np.testing.assert_allclose(seen[1], (before.noise_precision * before.user_noise.factors) ** -0.5)


@pytest.mark.parametrize(("precision", "spread"), [(0.0, 1.0), (1.0, -1.0)])
def test_a_file_with_a_wrong_precision_is_refused(model, tmp_path, precision, spread):
    draw = model.draws[0]
    broken = draw.drift._replace(precision=precision, spread=spread)
    draws = (draw._replace(terms={**draw.terms, "drift": broken}), *model.draws[1:])
    dataclasses.replace(model, draws=draws).save(tmp_path / "m.gramian")
    with pytest.raises(gm.FormatError, match="draws of bpmf do not fit"):
        gm.load(tmp_path / "m.gramian")


GOLDEN = """
0.0722069 -0.1018361 0.1314653 0.08629394 -0.06154285 -0.01237554 -0.0806298 0.0268766 -0.1607523
0.05358408 -0.09791666 0.04895833 0.01961334 -0.03922668 28.71312 0.006274845
"""


def test_golden_draws():
    """Three sweeps of a small chain in float64."""
    table = drifting(6, 5, 20, 3, seed=3)
    recipe = gm.BPMF(factors=1, draws=3, burn_in=2, drift=True, dtype="float64", keep_dtype="float32", seed=2026,
                     n_jobs=1)  # fmt: skip
    moves = recipe.fit(table).draws[-1].drift
    found = np.concatenate([moves.rows[:, 0], [moves.precision, moves.spread]])
    np.testing.assert_allclose(found, np.array(GOLDEN.split(), float), rtol=1e-5)
