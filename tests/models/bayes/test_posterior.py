"""What a posterior offers: averages by hand, fold-in, orders, ask_next, explanations, updates, strangers."""

from __future__ import annotations

import dataclasses
import pickle
import warnings

import numpy as np
import polars as pl
import pytest
from contract import assert_same_bits, assert_same_model, every_pair
from scipy import stats

import gramian as gm
from gramian.data.pairs import Pairs
from gramian.kernels import reference
from gramian.models.bayes import posterior


@pytest.fixture(scope="module", params=[True, False], ids=["biased", "plain"])
def model(request, ratings):
    """300 kept draws of 60 users and 40 items."""
    return gm.BPMF(factors=2, draws=400, burn_in=100, biases=request.param, keep_dtype="float32").fit(ratings)


@pytest.fixture(scope="module")
def single(ratings):
    """One draw: then everything has a closed form."""
    made = gm.BPMF(factors=2, draws=100, burn_in=99, keep_dtype="float32").fit(ratings)
    assert made.n_draws == 1
    return made


def tables(model):
    """(S, N, M): what every draw predicts for every pair, from the equation, in float64."""
    K, made = model.n_factors, []
    for draw in model.draws:
        users, items = draw.user_rows.astype(float), draw.item_rows.astype(float)
        made.append(model.global_mean + users[:, :K] @ items[:, :K].T)
        if model.biased:
            made[-1] += users[:, K:] + items[:, K]
    return np.array(made)


def design(model, draw):
    """V and c: the rows v of a user's regression on the items, and what the items' biases take from the ratings."""
    V = draw.item_rows.astype(float)
    if not model.biased:
        return V, np.zeros(len(V))
    return np.column_stack([V[:, :-1], np.ones(len(V))]), V[:, -1]


def given(model, draw, rated, values):
    """Mean and covariance of the row of a user with these ratings, given the rest of a draw."""
    V, c = design(model, draw)
    alpha, prior, X = draw.noise_precision, draw.users, V[rated]
    covariance = np.linalg.inv(prior.precision + alpha * X.T @ X)
    y = prior.precision @ prior.mean + alpha * X.T @ (values - model.global_mean - c[rated])
    return covariance @ y, covariance


def as_dictionary(model, items, values):
    return dict(zip(model.item_ids.take(items).to_list(), values.tolist(), strict=True))


# ---- predictions ---------------------------------------------------------------------------------------


def test_predictions_are_averages_over_the_draws_clipped_or_free(model):
    seen, pairs, (low, high) = tables(model), every_pair(model), model.scale
    np.testing.assert_allclose(model.predict(*pairs, clip=False), seen.mean(axis=0).ravel(), atol=1e-5)
    clipped = np.clip(seen, low, high).mean(axis=0).ravel()
    np.testing.assert_allclose(model.predict(*pairs), clipped, rtol=1e-5)
    assert np.abs(clipped - np.clip(seen.mean(axis=0).ravel(), low, high)).max() > 0.05  # which is something else
    table = model.ratings
    error = clipped.reshape(seen.shape[1:])[table.user_codes, table.item_codes] - table.values
    assert model.evaluate(table)["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    mixture = model.predictive(*pairs)
    np.testing.assert_allclose(mixture.means, seen.reshape(len(seen), -1), atol=1e-5)
    np.testing.assert_allclose(mixture.stds, [[draw.noise_precision**-0.5] for draw in model.draws])


def test_no_clipped_prediction_leaves_the_scale_by_rounding(ratings):
    """The float32 mean of many 5.0 may be more than 5.0."""
    high = gm.Ratings.from_frame(ratings.to_frame().with_columns(pl.col("rating") * 0.1))
    made = gm.BPMF(factors=2, draws=60).fit(high)
    predicted = made.predict(*every_pair(made))
    assert predicted.min() >= high.scale[0]
    assert predicted.max() <= high.scale[1]


def test_pieces_of_pairs_change_nothing(wide_ratings):
    made = gm.BPMF(factors=2, draws=5, burn_in=2).fit(wide_ratings)
    users, items = every_pair(made)
    assert len(users) > 1 << 16
    np.testing.assert_allclose(made.predict(users, items, clip=False), tables(made).mean(axis=0).ravel(), atol=1e-5)


# ---- strangers -----------------------------------------------------------------------------------------


def test_who_is_unknown_has_the_prior_of_the_side(model):
    """Means and variances of each draw, against 400,000 draws from its priors."""
    rng, item, user = np.random.default_rng(0), 5, 3
    some = dataclasses.replace(model, draws=model.draws[:: model.n_draws // 3])
    mixture = some.predictive_codes(Pairs(np.array([-1, user, -1, user]), np.array([item, -1, -1, item])))
    for s, draw in enumerate(some.draws):
        w, u = (
            rng.multivariate_normal(prior.mean, np.linalg.inv(prior.precision), 400_000)
            for prior in (draw.users, draw.items)
        )
        known = np.tile(draw.user_rows[user], (len(w), 1)), np.tile(draw.item_rows[item], (len(w), 1))
        for j, (a, b) in enumerate([(w, known[1]), (known[0], u), (w, u), known]):
            K = some.n_factors
            rating = some.global_mean + np.sum(a[:, :K] * b[:, :K], axis=1)
            rating += a[:, K] + b[:, K] if some.biased else 0
            error = rating.std() / np.sqrt(len(w))
            assert mixture.means[s, j] == pytest.approx(rating.mean(), abs=5 * error + 1e-5)
            variance = rating.var() + 1 / draw.noise_precision
            assert mixture.stds[s, j] ** 2 == pytest.approx(variance, rel=0.03)


def test_less_is_known_of_strangers(model):
    user, item = model.user_ids.ids[3], model.item_ids.ids[5]
    with pytest.warns(gm.UnknownIdWarning):
        new_user, new_item = model.predict_std(-1, item)[0], model.predict_std(user, -1)[0]
    with pytest.warns(gm.UnknownIdWarning):
        both = model.predict_std(-1, -1)[0]
    pairs = every_pair(model)
    known = model.predict_std(*pairs)
    assert np.median(known) < min(new_user, new_item)
    assert np.isfinite([new_user, new_item, both]).all()
    assert both > np.sqrt(np.mean(known**2))
    with pytest.warns(gm.UnknownIdWarning):
        ends = model.predict_interval([-1, user, -1], [item, -1, -1], clip=False)
    assert (np.diff(ends) > np.diff(model.predict_interval(user, item, clip=False))).all()
    with pytest.warns(gm.UnknownIdWarning):
        np.testing.assert_allclose(
            model.predict(-1, item, clip=False)[0], model.predictive(-1, item).means.mean(), rtol=1e-6
        )


# ---- fold-in -------------------------------------------------------------------------------------------


def test_a_folded_row_is_drawn_from_its_conditional_given_each_draw(model):
    """Made white by the closed form, the S rows are S · D standard normals; without ratings, by the prior."""
    items, values = model.ratings.by_user.row(8)
    for rated, ratings in ((items, values), (items[:0], values[:0]), (items[:1], values[:1] + 20)):
        if len(rated) == 1:
            with pytest.warns(gm.DataWarning, match="off the scale"):
                rows = model.fold_in(as_dictionary(model, rated, ratings))
        else:
            rows = model.fold_in(as_dictionary(model, rated, ratings))
        assert rows.shape == (model.n_draws, model.n_factors + model.biased)
        white = []
        for row, draw in zip(rows, model.draws, strict=True):
            mean, covariance = given(model, draw, rated, ratings)
            white.append(np.linalg.solve(np.linalg.cholesky(covariance), row - mean))
        assert stats.kstest(np.ravel(white), "norm").pvalue > 1e-3
        assert np.abs(np.corrcoef(np.array(white).T) - np.eye(rows.shape[1])).max() < 5 / np.sqrt(len(rows))
        np.testing.assert_allclose(np.cov(np.array(white).T), np.eye(rows.shape[1]), atol=0.4)
    with pytest.warns(gm.DataWarning):
        np.testing.assert_array_equal(rows, model.fold_in(as_dictionary(model, rated, ratings)))


def test_folding_in_a_training_users_ratings_gives_its_posterior(model):
    """Means within Monte Carlo error and spreads alike: the row given each draw is the posterior again."""
    seen, away, spread = tables(model), [], []
    for code in range(0, 60, 6):
        own = as_dictionary(model, *model.ratings.by_user.row(code))
        rows = model.fold_in(dict(reversed(own.items())))
        K = model.n_factors
        folded = np.array(
            [
                model.global_mean
                + draw.item_rows[:, :K] @ row[:K]
                + (draw.item_rows[:, K] + row[K] if model.biased else 0)
                for row, draw in zip(rows, model.draws, strict=True)
            ]
        )
        std = seen[:, code].std(axis=0)
        away.append((folded.mean(axis=0) - seen[:, code].mean(axis=0)) / std)
        spread.append(folded.std(axis=0) / std)
        told = model.recommend_for(own, n=100)
        unseen = np.setdiff1d(np.arange(40), model.ratings.by_user.row(code)[0])
        best = unseen[np.argsort(-folded.mean(axis=0)[unseen], kind="stable")]
        assert told["item"].to_list() == model.item_ids.take(best).to_list()
        np.testing.assert_allclose(told["score"], folded.mean(axis=0)[best], rtol=1e-5)
    assert np.abs(away).max() < 5 * np.sqrt(2 / (model.n_draws / 6))  # draws that are worth a sixth of their number
    assert np.sqrt(np.mean(np.square(away))) < np.sqrt(2 / (model.n_draws / 6))
    assert 0.9 < np.mean(spread) < 1.1


# ---- recommending --------------------------------------------------------------------------------------


def best_unseen(model, scores, n):
    """Items of every user by a table of scores, best first."""
    lists = []
    for code in range(model.ratings.n_users):
        unseen = np.setdiff1d(np.arange(model.ratings.n_items), model.ratings.by_user.row(code)[0])
        lists.append(unseen[np.argsort(-scores[code, unseen], kind="stable")][:n])
    return lists


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_recommending_by_the_lower_bound(model, level):
    seen = tables(model)
    scores = seen.mean(axis=0) - stats.norm.ppf((1 + level) / 2) * seen.std(axis=0)
    told = model.recommend(n=6, by="lower", level=level)
    lists = best_unseen(model, scores, 6)
    assert told["item"].to_list() == [item for best in lists for item in model.item_ids.take(best)]
    np.testing.assert_allclose(told["score"], np.concatenate([scores[i, b] for i, b in enumerate(lists)]), atol=2e-5)
    assert not told.equals(model.recommend(n=6))


def test_recommending_by_one_draw_for_each_user(model):
    """Thompson sampling: a user's list is the best of one draw, and which draw is left to chance."""
    seen, chosen = tables(model), []
    for seed in (0, 1):
        told = model.recommend(n=5, by="thompson", seed=seed)
        assert told.equals(model.recommend(n=5, by="thompson", seed=seed))
        scores, items = told["score"].to_numpy().reshape(60, 5), model.item_ids.codes(told["item"]).reshape(60, 5)
        for code in range(60):
            away = np.abs(seen[:, code, items[code]] - scores[code]).max(axis=1)
            which = int(np.argmin(away))
            assert away[which] < 1e-5 < np.partition(away, 1)[1]
            assert items[code].tolist() == best_unseen(model, seen[which], 5)[code].tolist()
            chosen.append(which)
        one = model.user_ids.ids[7]
        assert model.recommend(one, n=5, by="thompson", seed=seed).equals(told.filter(pl.col("user") == one))
    assert chosen[:60] != chosen[60:]
    assert len(set(chosen)) > 80
    assert stats.kstest(np.array(chosen) / model.n_draws, "uniform").pvalue > 1e-3


def test_orders_for_somebody_new(model):
    """The folded row of each draw takes the place of a known user's."""
    own = {11: 4.5, 39: 1.0, 74: 3.0}
    K, rows = model.n_factors, model.fold_in(own)
    seen = np.array([model.global_mean + d.item_rows[:, :K] @ r[:K] for d, r in zip(model.draws, rows, strict=True)])
    if model.biased:
        seen += rows[:, K:] + np.array([draw.item_rows[:, K] for draw in model.draws])
    unseen = np.setdiff1d(np.arange(40), model.item_ids.codes(list(own)))

    def best(scores):
        return model.item_ids.take(unseen[np.argsort(-scores[unseen], kind="stable")]).to_list()

    told = model.recommend_for(own, n=40, by="lower", level=0.8)
    lower = seen.mean(axis=0) - stats.norm.ppf(0.9) * seen.std(axis=0)
    assert told["item"].to_list() == best(lower)
    np.testing.assert_allclose(told["score"], np.sort(lower[unseen])[::-1], atol=2e-5)
    chosen = set()
    for seed in range(20):
        told = model.recommend_for(own, n=40, by="thompson", seed=seed)
        away = np.abs(seen[:, model.item_ids.codes(told["item"])] - told["score"].to_numpy()).max(axis=1)
        chosen.add(int(np.argmin(away)))
        assert away.min() < 1e-5
        assert told["item"].to_list() == best(seen[np.argmin(away)])
    assert len(chosen) > 15


def test_orders_for_strangers_and_wrong_words(model):
    for by in ("lower", "thompson"):
        with pytest.warns(gm.UnknownIdWarning):
            told = model.recommend([104, -1], n=5, by=by)
        assert told["user"].to_list() == [104] * 5 + [-1] * 5
        assert np.isfinite(told["score"].to_numpy()).all()
        assert model.recommend([104, -1], n=5, by=by, unknown="nan").height == 5
    with pytest.raises(gm.ParameterError, match="'by' parameter of recommend must be one of 'mean', 'lower'"):
        model.recommend(by="best")
    with pytest.raises(gm.ParameterError, match="'level' parameter"):
        model.recommend(by="lower", level=90)
    with pytest.raises(gm.ParameterError, match="'seed' parameter"):
        model.recommend(by="thompson", seed=-1)


# ---- ask_next ------------------------------------------------------------------------------------------


def test_ask_next_is_the_drop_of_variance_that_conditioning_gives(single):
    """With one draw: add each item to the user's ratings, and see how far the variances of the others fall."""
    draw = single.draws[0]
    V, _ = design(single, draw)
    for code in (0, 17):
        rated, values = single.ratings.by_user.row(code)
        unrated = np.setdiff1d(np.arange(40), rated)
        before = np.einsum("jc,cd,jd->j", V, given(single, draw, rated, values)[1], V)
        gains = []
        for j in unrated:
            more = given(single, draw, np.append(rated, j), np.append(values, 3.0))[1]
            others = unrated[unrated != j]
            gains.append(np.mean((before - np.einsum("jc,cd,jd->j", V, more, V))[others]))
        told = single.ask_next(single.user_ids.ids[code], n=100)
        order = np.argsort(-np.array(gains), kind="stable")
        assert told["item"].to_list() == single.item_ids.take(unrated[order]).to_list()
        np.testing.assert_allclose(told["gain"], np.array(gains)[order], rtol=1e-4)
        own = as_dictionary(single, rated, values)
        assert single.ask_next(own, n=100).equals(told)


def test_ask_next_is_the_documented_average_over_draws(model):
    for code in (2, 40):
        rated, values = model.ratings.by_user.row(code)
        unrated = np.setdiff1d(np.arange(40), rated)
        C, expected = np.zeros((40, 40)), []
        for draw in model.draws:
            V, c = design(model, draw)
            mean, covariance = given(model, draw, rated, values)
            C += V @ covariance @ V.T / model.n_draws
            expected.append(V @ mean + c)
        unsure = np.diag(C) + np.var(expected, axis=0) + np.mean([1 / draw.noise_precision for draw in model.draws])
        gains = np.array([np.mean(C[j, unrated[unrated != j]] ** 2) / unsure[j] for j in unrated])
        told = model.ask_next(model.user_ids.ids[code], n=7)
        order = np.argsort(-gains, kind="stable")[:7]
        assert told.columns == ["item", "gain", "rank"]
        assert told["rank"].to_list() == list(range(1, 8))
        assert told["item"].to_list() == model.item_ids.take(unrated[order]).to_list()
        np.testing.assert_allclose(told["gain"], gains[order], rtol=1e-3)


def test_ask_next_of_somebody_new_of_candidates_and_of_many_items(model, monkeypatch):
    first = model.ask_next({}, n=40)
    assert first.height == 40
    assert (np.diff(first["gain"]) <= 0).all()
    assert model.ask_next({int(first["item"][0]): 4.0}, n=1)["gain"][0] < first["gain"][0]
    user, items = model.user_ids.ids[4], model.item_ids.ids
    some = model.ask_next(user, among=items[:20])
    assert set(some["item"]) <= set(items[:20])
    assert not set(some["item"]) & set(model.rated_by(user)["item"])
    monkeypatch.setattr(posterior, "ABOUT_ITEMS", 30)  # a sample of the items stands for all of them
    fewer = model.ask_next({}, n=40)
    gains = [told.sort("item")["gain"].to_numpy() for told in (fewer, first)]
    assert not np.allclose(*gains, rtol=1e-3)
    np.testing.assert_allclose(*gains, rtol=0.35)
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(gm.ParameterError, match="'n' parameter of ask_next"):
            model.ask_next(user, n=wrong)
    with pytest.raises(gm.UnknownIdError, match="user -1 is unknown"):
        model.ask_next(-1)


# ---- explaining ----------------------------------------------------------------------------------------


def test_the_parts_of_an_explanation_sum_to_the_prediction(model):
    seen = tables(model)
    for code, item in ((0, 0), (8, 3), (31, 39)):
        user, item_id = model.user_ids.ids[code], model.item_ids.ids[item]
        told = model.explain(user, item_id)
        parts = [told.global_mean, told.user_bias, told.item_bias, told.contributions["contribution"].sum(), told.rest]
        assert told.prediction == pytest.approx(sum(parts), rel=1e-12)
        assert told.prediction == model.predict(user, item_id, clip=False)[0]
        assert told.prediction == pytest.approx(seen[:, code, item].mean(), rel=1e-5)
        assert dict(told.contributions.select("item", "rating").iter_rows()) == dict(
            model.rated_by(user).select("item", "rating").iter_rows()
        )
        assert (np.diff(told.contributions["contribution"].abs()) <= 0).all()
        assert f"{told.rest:+.3f} rest" in str(told)


def test_contributions_are_the_twins_averaged_over_the_draws(model):
    code, item = 8, 3
    rated, values = model.ratings.by_user.row(code)
    terms = np.zeros(len(rated))
    for draw in model.draws:
        target = draw.item_rows[item].astype(float)
        if model.biased:
            target[-1] = 0
        terms += reference.explain_row(
            rated, values, draw.item_rows, target, biased=model.biased, offset=model.global_mean, by_count=False,
            precision=draw.users.precision / draw.noise_precision,
        )  # fmt: skip
    told = model.explain(model.user_ids.ids[code], model.item_ids.ids[item]).contributions
    mine = dict(told.select("item", "contribution").iter_rows())
    found = [mine[key] for key in model.item_ids.take(rated)]
    np.testing.assert_allclose(found, terms / model.n_draws, rtol=1e-5, atol=1e-7)


def test_the_rest_is_the_mean_of_the_prior_and_what_a_draw_leaves(single):
    """With one draw, user bias and rest are known: row = expected row + what was drawn."""
    draw, code, item = single.draws[0], 8, 3
    rated, values = single.ratings.by_user.row(code)
    told = single.explain(single.user_ids.ids[code], single.item_ids.ids[item])
    _, covariance = given(single, draw, rated, values)
    mean, _ = given(single, draw, rated, values)
    u = draw.item_rows[item, :2].astype(float)
    of_prior = (covariance @ draw.users.precision @ draw.users.mean)[:2] @ u
    drawn = (draw.user_rows[code].astype(float) - mean)[:2] @ u
    assert told.rest == pytest.approx(of_prior + drawn, abs=1e-5)


# ---- updating ------------------------------------------------------------------------------------------

NEWS = pl.DataFrame(
    {
        "user": [50, 50, 50, 50, 999, 999, 999, 101],
        "item": [11, 18, 25, 3, 11, 32, 9999, 9999],
        "rating": [5.0, 4.5, 1.0, 2.0, 0.5, 2.0, 5.0, 4.0],
        "time": [2_000_000_000] * 8,
    }
)


def test_an_update_draws_anew_what_has_new_ratings_and_nothing_else(model, tmp_path):
    updated = model.update(gm.Ratings.from_frame(NEWS))
    assert updated.user_ids.codes(model.user_ids.ids).tolist() == list(range(60))
    assert updated.item_ids.codes([*model.item_ids.ids, 3, 9999]).tolist() == list(range(42))
    assert len(updated.ratings) == len(model.ratings.merge(gm.Ratings.from_frame(NEWS)))
    users = set(updated.user_ids.codes([50, 999, 101]).tolist())
    items = set(updated.item_ids.codes([11, 18, 25, 32, 3, 9999]).tolist())
    for old, new in zip(model.draws, updated.draws, strict=True):
        assert new.user_rows.shape[0] == 62
        assert new.item_rows.shape[0] == 42
        assert new.users is old.users
        assert new.items is old.items
        assert new.noise_precision == old.noise_precision
        for rows, before, changed in ((new.user_rows, old.user_rows, users), (new.item_rows, old.item_rows, items)):
            same = (rows[: len(before)] == before).all(axis=1)
            assert set(np.flatnonzero(~same).tolist()) == {code for code in changed if code < len(before)}
            assert rows.dtype == before.dtype
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(updated.predict([50, 999, 101], [9999, 3, 9999], unknown="raise")).all()
    assert_same_bits(updated, model.update(gm.Ratings.from_frame(NEWS.sample(fraction=1.0, shuffle=True, seed=1))))
    updated.save(tmp_path / "m.gramian")
    for mmap in (False, True):
        assert_same_model(gm.load(tmp_path / "m.gramian", mmap=mmap), updated)


def test_an_updated_row_is_drawn_from_its_conditional(model):
    """The users come last: given the items of each updated draw, theirs are the closed form's, made white."""
    updated = model.update(gm.Ratings.from_frame(NEWS))
    white = []
    for user in (50, 101):
        code = int(updated.user_ids.codes([user])[0])
        for draw in updated.draws:
            mean, covariance = given(updated, draw, *updated.ratings.by_user.row(code))
            white.append(np.linalg.solve(np.linalg.cholesky(covariance), draw.user_rows[code] - mean))
    assert stats.kstest(np.ravel(white), "norm").pvalue > 1e-3


def test_an_update_learns_the_new(model):
    """Somebody who loves what the others do not: the update moves the predictions to those ratings, and is surer."""
    seen = tables(model).mean(axis=(0, 1))
    items, values = np.argsort(seen)[:20], np.full(20, 5.0)
    new = gm.Ratings.from_frame(pl.DataFrame({"user": 999, "item": model.item_ids.take(items), "rating": values}))
    updated = model.update(new)
    with pytest.warns(gm.UnknownIdWarning):
        before, unsure = (verb(999, new.items) for verb in (model.predict, model.predict_std))
    assert updated.predict(999, new.items).mean() > before.mean() + 0.5
    assert updated.predict_std(999, new.items).mean() < unsure.mean()


def test_an_update_beyond_float16_is_kept_in_float32(ratings):
    half = gm.BPMF(factors=2, draws=5, burn_in=0).fit(ratings)
    huge = gm.Ratings.from_frame(pl.DataFrame({"user": [5] * 40, "item": half.item_ids.ids, "rating": [1e6] * 40}))
    updated = half.update(huge)
    assert updated.draws[0].user_rows.dtype == np.float32
    assert np.isfinite(updated.predict(*every_pair(updated), clip=False)).all()


# ---- one factor model for looking at ---------------------------------------------------------------------


def test_the_point_is_the_best_approximation_to_the_posterior_mean(model):
    K, some = model.n_factors, model.draws[:: 300 // 50]
    assert len(some) == 50
    mean = np.mean([d.user_rows[:, :K].astype(float) @ d.item_rows[:, :K].T for d in some], axis=0)
    left, values, right = np.linalg.svd(mean)
    best = (left[:, :K] * values[:K]) @ right[:K]
    found = model.point.user_factors @ model.point.item_factors.T
    assert np.linalg.norm(found - best) < 0.02 * np.linalg.norm(best)
    if model.biased:
        biases = np.mean([draw.item_rows[:, K] for draw in model.draws], axis=0)
        np.testing.assert_allclose(model.point.item_biases, biases, atol=1e-5)
    assert model.similar_items(11, n=3).equals(model.point.similar_items(11, n=3))
    assert model.top_items(0, n=3).equals(model.point.top_items(0, n=3))


def test_a_warning_points_to_who_asked(ratings):
    model = gm.BPMF(factors=2, draws=3).fit(ratings)
    with pytest.warns(gm.DataWarning, match="off the scale") as caught:
        model.recommend_for({ratings.item_ids.ids[0]: 99.0})
    assert caught[0].filename == __file__


def test_what_terms_have_computed_does_not_travel_with_a_model(ratings):
    model = gm.BPMF(factors=2, draws=3, implicit="both").fit(ratings)
    again = pickle.loads(pickle.dumps(model))
    before = len(pickle.dumps(again))
    for one in (model, again):
        one.predict(ratings.user_ids.ids[0], [*ratings.item_ids.ids[:2], -1], unknown="nan")
        one.feature_shares()
    assert len(pickle.dumps(again)) == before == len(pickle.dumps(pickle.loads(pickle.dumps(model))))
    pairs = ratings.user_ids.ids[:5], ratings.item_ids.ids[:5]
    np.testing.assert_array_equal(again.predict(*pairs), model.predict(*pairs))
