"""Offsets by time: their conditionals against closed forms and by simulation; what a model makes of times."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import polars as pl
import pytest
from chains import swept
from ranks import drawn_sides, ranked, uniformity
from scipy import stats

import gramian as gm
from gramian.data.pairs import Pairs
from gramian.kernels import reference
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Beginning, Chance, Rest
from gramian.models.bayes.calendar import Calendar, Clock, clock_of
from gramian.models.bayes.state import Key, State
from gramian.models.bayes.terms import time_offsets
from gramian.models.bayes.terms.collection import Terms
from gramian.models.bayes.terms.time_offsets import TimeOffsets

DAY = 86_400


def dated(n_users=60, n_items=40, days=60, seed=0, fill=0.5, stds=(0.5, 0.4, 0.3), noise=0.3):
    """Ratings with offsets of each user's days, each item's periods of ten days, and the calendar's days."""
    rng = np.random.default_rng(seed)
    u, i = np.nonzero(rng.random((n_users, n_items)) < fill)
    visits = rng.integers(days, size=(n_users, 4))
    day = visits[u, rng.integers(4, size=len(u))]
    parts = [std * rng.normal(size=shape) for std, shape in zip(
        stds, ((n_users, days), (n_items, days // 10), (days,)), strict=True)]  # fmt: skip
    added = parts[0][u, day] + parts[1][i, day // 10] + parts[2][day]
    values = 3 + 0.4 * rng.normal(size=n_users)[u] + 0.4 * rng.normal(size=n_items)[i] + added
    frame = pl.DataFrame({
        "user": u, "item": i, "rating": values + noise * rng.normal(size=len(u)),
        "time": DAY * 10 * 1500 + day * DAY + rng.integers(DAY, size=len(u)),
    })  # fmt: skip
    return gm.Ratings.from_frame(frame)


@pytest.fixture(scope="module")
def parts():
    return dated().split(0.2, seed=0)


@pytest.fixture(scope="module")
def recipe():
    return gm.BPMF(factors=2, draws=80, time=10, keep_dtype="float32")


@pytest.fixture(scope="module")
def model(parts, recipe):
    return recipe.fit(parts[0])


# ---- cells -------------------------------------------------------------------------------------------


def test_cells_are_those_of_rows_and_slots(parts):
    train = parts[0]
    calendar = Calendar.of(train, clock_of(10, train))
    assert calendar.clock == Clock(DAY, 10 * DAY, DAY)
    rows = (train.user_codes, train.item_codes, np.zeros(len(train)))
    for cells, row, length in zip(calendar.kinds, rows, calendar.clock, strict=True):
        by_hand = list(zip(row.tolist(), (train.times // length).astype(int).tolist(), strict=True))
        names = sorted(set(by_hand))
        assert [names.index(name) for name in by_hand] == cells.codes.tolist()
        assert cells.rows.tolist() == [name[0] for name in names]
        assert cells.slots.tolist() == [name[1] for name in names]
    found = calendar.find(Pairs(np.array([-1, 0, 0]), np.array([0, -1, 0]), np.array([train.times[0], 0, 10**12])))
    assert [cells.tolist()[1:] for cells in found] == [[-1, -1]] * 3
    assert [int(cells[0] >= 0) for cells in found][::2] == [0, 1]
    everywhere = calendar.find(Pairs(train.user_codes, train.item_codes, train.times))
    for cells, codes in zip(calendar.kinds, everywhere, strict=True):
        np.testing.assert_array_equal(cells.codes, codes)


@pytest.mark.parametrize("unit", [1, 1000])
def test_auto_cuts_the_span_into_fifteen(unit, frame):
    spread = frame.with_columns(time=unit * (pl.col("time") + pl.int_range(pl.len()) * 40_000))
    table = gm.Ratings.from_frame(spread)
    clock = clock_of("auto", table)
    span = table.times.max() - table.times.min()
    assert clock.day == DAY * unit
    assert clock.period == pytest.approx(span / 15)
    assert clock.stretch == pytest.approx(max(clock.day, span / 225))


# ---- the conditionals --------------------------------------------------------------------------------


def test_offsets_are_drawn_from_their_normal():
    rng = np.random.default_rng(1)
    codes, left, weights = rng.integers(6, size=40), rng.normal(size=40), rng.gamma(2, size=40)
    draws = np.array([time_offsets.drawn_cells(codes, 7, left, weights, 1.7, 2.5, rng) for _ in range(4000)])
    mean, variance = reference.offsets_given(codes, 7, left, weights, 1.7, 2.5)
    assert variance[6] == 1 / 2.5
    white = (draws - mean) / np.sqrt(variance)
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert np.abs(np.cov(white.T) - np.eye(7)).max() < 5 * np.sqrt(2 / 4000)
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3


def test_precisions_are_drawn_from_their_gamma(parts):
    train = parts[0]
    calendar = Calendar.of(train, clock_of(10, train))
    term, far = TimeOffsets(calendar.clock, calendar, 0.5), np.random.default_rng(0).normal(size=len(train))
    before, made = term.start(Beginning(train.n_users, train.n_items, 1, 2, 1.0, "float64")), []
    for seed in range(500):
        chance = Chance(np.random.default_rng(seed), (0, 0, 0))
        new, left = term.drawn(before, far, None, Rest(np.empty(0), None, 2.0), chance)
        made.append([p * (0.5 + np.sum(o**2) / 2) for p, o in zip(new.precisions, new.offsets, strict=True)])
    np.testing.assert_allclose(left, far - new.of(calendar), atol=1e-12)
    for k, cells in enumerate(calendar.kinds):
        assert stats.kstest(np.array(made)[:, k], stats.gamma(1 + len(cells.keys) / 2).cdf).pvalue > 1e-3
    by_user = [new.offsets[0][calendar.kinds[0].codes[train.user_codes == u]].mean() for u in range(train.n_users)]
    np.testing.assert_allclose(new.levels[0], by_user, atol=1e-12)


# The truth from the prior, the posterior by the sampler: the ranks of the truth are uniform (see test_gibbs.py).

N, M, DAYS = 5, 4, 3
HYPER, RATE = gibbs.Hyperprior(np.array([1.0, 0.5]), 2.0, 3.0, 9.0), 1.5


def ranks_of(seed):
    rng = np.random.default_rng([seed, 7])
    sides, priors = drawn_sides(rng, (N, M), HYPER)
    u, i = np.nonzero(rng.random((N, M)) < 0.8)
    frame = pl.DataFrame(
        {"user": u, "item": i, "rating": np.zeros(len(u)), "time": DAY * rng.integers(DAYS, size=len(u))}
    )
    table = gm.Ratings.from_frame(frame)
    calendar = Calendar.of(table, Clock(DAY, 2 * DAY, DAY))
    sides = [side[ids.ids.to_numpy()] for side, ids in zip(sides, (table.user_ids, table.item_ids), strict=True)]
    precisions = rng.gamma(1, size=3) / RATE
    offsets = [rng.normal(size=len(c.keys)) / np.sqrt(p) for c, p in zip(calendar.kinds, precisions, strict=True)]
    time = time_offsets.levelled(calendar, offsets, precisions)
    alpha = rng.gamma(HYPER.shape) / HYPER.rate
    chain, terms = State(*sides, *priors, alpha, {"time": time}), Terms((TimeOffsets(calendar.clock, calendar, RATE),))
    W, U, (a, b) = *sides, (table.user_codes, table.item_codes)
    values = W[a, 0] * U[b, 0] + W[a, 1] + U[b, 1] + time.of(calendar) + rng.normal(size=len(a)) / np.sqrt(alpha)
    ways = gibbs.BothWays.of(table, terms)
    ways = ways._replace(by_user=table.by_user._replace(values=values))

    def sweep(state, number):
        return swept(state, ways, HYPER, Key(seed, 0, number), True, 0.0, terms, 1)[0]

    return ranked(chain, quantities, sweep, 55, 10, 5)


def quantities(chain):
    time = chain.time
    return [chain.noise_precision, *time.precisions, time.offsets[0][0], time.offsets[1][-1], time.offsets[2][0],
            sum(np.sum(o**2) for o in time.offsets)]  # fmt: skip


def test_ranks_of_the_truth_are_uniform():
    p = uniformity(ranks_of, 60)
    assert p.min() > 0.01 / len(p), p


def test_forgetting_the_noise_of_the_offsets_fails_the_calibration(monkeypatch):
    real = time_offsets.drawn_cells

    def without(codes, count, left, weights, alpha, precision, rng):
        mean = real(codes, count, left, weights, alpha, precision, rng)
        known = precision + alpha * np.bincount(codes, weights, minlength=count)
        return alpha * np.bincount(codes, left, minlength=count) / known + 0 * mean

    monkeypatch.setattr(time_offsets, "drawn_cells", without)
    assert uniformity(ranks_of, 30).min() < 1e-5


# ---- the model ---------------------------------------------------------------------------------------


def test_what_time_adds_is_recovered(parts, model):
    train, test = parts
    stds = model.traces[model.burn_in :, 0, [model.trace_names.index(f"{kind}_std") for kind in time_offsets.KINDS]]
    low, high = np.quantile(stds, [0.005, 0.995], axis=0)
    assert ((low < [0.5, 0.4, 0.3]) & (high > [0.5, 0.4, 0.3])).all(), (low, high)
    assert model.noise_std == pytest.approx(0.3, abs=0.05)
    timeless = gm.BPMF(factors=2, draws=80).fit(train).evaluate(test)["rmse"]
    assert model.evaluate(test)["rmse"] < 0.85 * timeless
    no_times = np.sqrt(np.mean((model.predict(test.users, test.items) - test.values) ** 2))
    assert no_times < 1.1 * timeless
    for told in (test.times, None):
        low, high = model.predict_interval(test.users, test.items, times=told, clip=False).T
        assert np.mean((low <= test.values) & (test.values <= high)) == pytest.approx(0.9, abs=0.05)


def test_predictions_have_the_offsets_of_their_times(model):
    user, item = model.user_ids.ids[3], model.item_ids.ids[5]
    place = model.ratings.by_user.indptr[3]
    when = int(model.ratings.times[place])
    codes, others = np.array([3], np.int32), np.array([5], np.int32)
    (term,) = model.terms
    calendar = term.calendar
    cells = calendar.find(Pairs(codes, others, np.array([when])))
    known, spread = [], []
    for draw in model.draws:
        free = draw.user_rows[3] @ np.append(draw.item_rows[5, :2], 1) + draw.item_rows[5, 2] + model.global_mean
        o = sum(float(part[c[0]]) for part, c in zip(draw.time.offsets, cells, strict=True) if c[0] >= 0)
        known.append(free + o)
        spread.append(1 / draw.noise_precision + sum(
            1 / p for p, c in zip(draw.time.precisions, cells, strict=True) if c[0] < 0))  # fmt: skip
    assert model.predict(user, item, times=when, clip=False)[0] == pytest.approx(np.mean(known), abs=1e-5)
    std = np.sqrt(np.mean(spread) + np.var(known))
    assert model.predict_std(user, item, times=when)[0] == pytest.approx(std, rel=1e-5)
    far = model.predict_std(user, item, times=10**10)[0]
    assert far > std
    usual = [d.time.levels[0][3] + d.time.levels[1][5] + d.time.levels[2][0] for d in model.draws]
    between = np.array([k - sum(float(p[c[0]]) for p, c in zip(d.time.offsets, cells, strict=True) if c[0] >= 0) + u
                        for k, u, d in zip(known, usual, model.draws, strict=True)])  # fmt: skip
    assert model.predict(user, item, clip=False)[0] == pytest.approx(between.mean(), abs=1e-5)
    assert model.score_block(codes)[0, 5] == pytest.approx(between.mean(), abs=1e-4)
    assert model.explain(user, item).prediction == pytest.approx(between.mean(), abs=1e-5)


def test_somebody_new_is_taken_in_with_and_without_times(parts, model):
    """The day of a rating takes a part of what is odd about it, so a row moves less for ratings of one day."""
    train = parts[0]
    items, values = train.by_user.row(7)
    given = dict(zip(train.item_ids.take(items).to_list(), (values + 1.0).tolist(), strict=True))
    when = int(train.times[train.by_user.indptr[7]])
    plain, dated_, again = (model.fold_in(given, times=t)[:, -1] for t in (None, when, when))
    np.testing.assert_array_equal(dated_, again)
    assert np.isfinite(dated_).all()
    assert dated_.std() > plain.std()
    for kind in (None, when, [when] * len(given)):
        table = model.recommend_for(given, 3, times=kind)
        assert table.height == 3
    assert model.recommend_for({}, 3, times=when).height == 3
    assert model.ask_next(given, 3).height == model.ask_next(train.user_ids.ids[7], 3).height == 3
    with pytest.raises(gm.DataError, match=r"found 2 times and \d+ pairs"):
        model.fold_in(given, times=[1, 2])


def test_a_folded_row_has_the_mean_of_the_joint_conditional(model):
    """A row and the offsets of its days, given one draw, are one normal: the mean over draws is the closed form's."""
    draw = model.draws[-1]
    same = dataclasses.replace(model, draws=(draw,) * 1500)
    items = np.array([1, 4, 9, 12], np.int32)
    ids, values = model.item_ids.take(items).to_list(), np.array([4.0, 2.0, 5.0, 3.0])
    when = model.ratings.times.min() + DAY * np.array([0, 0, 1, 1])
    made = same.fold_in(dict(zip(ids, values.tolist(), strict=True)), times=when)
    (term,) = model.terms
    calendar = term.calendar
    cells = calendar.find(Pairs(np.full(4, -1), items, when))
    V = np.column_stack([draw.item_rows[items, :2], np.ones(4), [1, 1, 0, 0], [0, 0, 1, 1]])
    prior = np.zeros((5, 5))
    prior[:3, :3], prior[3:, 3:] = draw.users.precision, draw.time.precisions[0] * np.eye(2)
    told = values - model.global_mean - draw.item_rows[items, 2] - draw.time.at(cells)
    covariance = np.linalg.inv(prior + draw.noise_precision * V.T @ V)
    mean = covariance @ (prior @ np.append(draw.users.mean, [0, 0]) + draw.noise_precision * V.T @ told)
    shown = np.column_stack([np.eye(3), [[0, 0], [0, 0], [0.5, 0.5]]])
    error = np.sqrt(np.diag(shown @ covariance @ shown.T) * 6 / 1500)  # draws follow one another
    assert (np.abs(made.mean(axis=0) - shown @ mean) < 4 * error).all()


def test_a_model_that_knows_of_time_is_saved_resumed_and_the_same_on_threads(parts, recipe, model, tmp_path, pools):
    train, test = parts
    model.save(tmp_path / "m.gramian")
    again = gm.load(tmp_path / "m.gramian")
    asked = (test.users, test.items)
    np.testing.assert_array_equal(again.predict(*asked, times=test.times), model.predict(*asked, times=test.times))
    threads = dataclasses.replace(recipe, n_jobs=2).fit(train)
    assert 2 in pools
    np.testing.assert_array_equal(threads.predict(*asked, times=test.times), model.predict(*asked, times=test.times))
    short = dataclasses.replace(recipe, draws=20, burn_in=16)
    short.fit(train, checkpoint=tmp_path / "c", keep_checkpoint=True)
    longer = dataclasses.replace(recipe, draws=40, burn_in=16)
    whole = longer.fit(train)
    resumed = longer.fit(train, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(resumed.predict(*asked, times=test.times), whole.predict(*asked, times=test.times))


def test_new_ratings_get_offsets_of_their_own(parts, model, tmp_path):
    train, test = parts
    late = test.to_frame().with_columns(pl.col("time") + 100 * DAY, pl.col("rating") + 2.0)
    grown = model.update(gm.Ratings.from_frame(late))
    assert len(grown.draws[0].time.offsets[2]) > len(model.draws[0].time.offsets[2])
    new = grown.evaluate(gm.Ratings.from_frame(late))["rmse"]
    assert new < 0.6
    old = grown.evaluate(train)["rmse"]
    assert old < 1.5 * model.evaluate(train)["rmse"]
    grown.save(tmp_path / "m.gramian")
    assert gm.load(tmp_path / "m.gramian").evaluate(train)["rmse"] == old
    with pytest.raises(gm.DataError, match="New ratings need times"):
        model.update(gm.Ratings.from_frame(late.drop("time")))


def test_times_go_with_everything_else(parts):
    train, test = parts
    side = pl.DataFrame({"item": range(40), "kind": [n % 3 for n in range(40)]})
    recipe = gm.BPMF(factors=2, draws=30, time="auto", noise="by_user", implicit="both", item_features=side, chains=2)
    model = recipe.fit(train, validation=test)
    assert model.history[-1]["validation_rmse"] == pytest.approx(model.evaluate(test)["rmse"], abs=2e-3)
    measured = gm.calibration(model, test)
    assert measured.at(0.9)["coverage"] > 0.8
    conformal = gm.conformal(model, test)
    assert conformal.predict_interval(1, 2, times=test.times[0]).shape == (1, 2)
    with pytest.warns(gm.UnknownIdWarning):
        strange = model.predict_std(10**6, 2, times=test.times[0])[0]
    assert strange > model.predict_std(1, 2, times=test.times[0])[0]


def test_wrong_times_get_one_sentence(parts, model, ratings, frame):
    with pytest.raises(gm.DataError, match="needs ratings with times: found none"):
        gm.BPMF(time="auto").fit(gm.Ratings.from_frame(frame.drop("time")))
    with pytest.raises(gm.DataError, match="found 2 times and 3 pairs"):
        model.predict([1, 2, 3], 4, times=[1, 2])
    with pytest.raises(gm.DataError, match=r"must be a number, a date or ISO text"):
        model.predict(1, 2, times="noon")
    for value in (0, "day", -1):
        with pytest.raises(gm.ParameterError, match=re.escape("or 'auto'; got")):
            gm.BPMF(time=value)
    plain = gm.BPMF(factors=2, draws=4).fit(ratings)
    np.testing.assert_array_equal(plain.predict(101, 11, times=5), plain.predict(101, 11))


GOLDEN = """
-0.0007626365 0.2142355 0.1468022 -0.2377938 -0.009190676 0.07120745 -0.07804747 0.07566392 -0.04750319 -0.004506334
0.07593142 -0.1971447 0.02406773 -0.008223604 0.1225897 -0.04426312 0.03792821 0.03840285 -0.01899539 0.01785385
0.001083233 -0.01709596 0.1184304 -0.04009068 0.0007537288 -0.1494211 -0.08004171 0.1715897 0.1340634 0.1443509
-0.2129488 -0.05770323 -0.05784253 108.7371 279.7395 91.88035 0.1425694 -0.1416448 0.03100839 -0.001191775 0.007973967
-0.1971447 0.03255254 0.0176177 0.005570772 -0.008006363 0.02636449 -0.01718161
"""


def test_golden_draws():
    """Three sweeps of a small chain in float64."""
    table = dated(6, 5, 20, seed=3)
    recipe = gm.BPMF(factors=1, draws=3, burn_in=2, time=7, dtype="float64", keep_dtype="float32", seed=2026, n_jobs=1)
    draw = recipe.fit(table).draws[-1]
    found = np.concatenate([*draw.time.offsets, draw.time.precisions, *draw.time.levels])
    np.testing.assert_allclose(found, np.array(GOLDEN.split(), float), rtol=1e-5)
