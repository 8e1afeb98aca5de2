"""Features of prior means: each conditional against its closed form, calibration, and what features may claim."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from chains import drawn_prior
from ranks import uniformity
from scipy import stats

import gramian as gm
from gramian.engine import pool, ridge
from gramian.engine.rows import Intercepts
from gramian.kernels.csr import CSR, csr_from_sorted, transpose
from gramian.models.bayes import features as tables
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Chance, Setup
from gramian.models.bayes.gibbs import RowDraw
from gramian.models.bayes.state import RowPrior
from gramian.models.bayes.terms import side_information
from gramian.models.bayes.terms.side_information import Link, SideInformation

D, SCALE = 2, np.array([1.0, 0.7])
HYPER = gibbs.Hyperprior(SCALE, 2.0, 1.0, 1.0)


def sparse(dense) -> CSR:
    rows, columns = np.nonzero(dense)
    return csr_from_sorted(rows, columns, dense[rows, columns], len(dense))


def features_of(dense, groups=None) -> tables.SideFeatures:
    groups = np.zeros(dense.shape[1], np.int64) if groups is None else np.asarray(groups)
    return tables.SideFeatures(sparse(dense), transpose(sparse(dense), dense.shape[1]), groups, 1e-9)


def term_of(features) -> SideInformation:
    return SideInformation("user_features", 0, False, None, features)


def chance_of(seed, n_jobs=1) -> Chance:
    return Chance(np.random.default_rng(seed), (0, 0, 0), n_jobs)


@pytest.fixture(params=["cholesky", "conjugate gradient"])
def solver(request, monkeypatch):
    """Both ways to draw β, on few features."""
    if request.param != "cholesky":
        monkeypatch.setattr(side_information, "EXACT_LIMIT", 0)


# ---- the conditionals ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 3), (3, 6)])
def test_draws_of_the_coefficients_have_the_mean_and_covariance_of_the_closed_form(solver, shape):
    """β | rest ~ MN(H⁻¹Fᵀ(X − m), H⁻¹, Λ⁻¹): 3000 draws, made white, have mean 0 and covariance 1."""
    n, count = shape
    rng = np.random.default_rng(0)
    F = rng.normal(size=shape) * (rng.random(shape) < 0.7)
    groups = np.arange(count) // 2
    known, rows, mean = features_of(F, groups), rng.normal(size=(n, D)), rng.normal(size=D)
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    precisions = np.array([0.5, 2.0, 1.0])[: groups[-1] + 1]
    before = Link(rng.normal(size=(count, D)), precisions)
    root = np.linalg.cholesky(precision)
    draws = np.array([
        side_information.draw_link(known, rows, mean, root, before, chance_of(s)).coefficients
        for s in range(3000)
    ])  # fmt: skip
    F = F.astype(np.float32).astype(float)
    H = F.T @ F + np.diag(precisions[groups])
    white = np.linalg.cholesky(H).T @ (draws - np.linalg.solve(H, F.T @ (rows - mean))) @ root
    white = white.reshape(3000, -1)
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(3000)
    assert np.abs(np.cov(white.T) - np.eye(count * D)).max() < 5 * np.sqrt(2 / 3000)


def test_the_precision_of_each_group_is_drawn_from_its_gamma():
    """λ_g · (1 + ½ Σ β_fᵀΛβ_f) ~ Gamma(1 + ½ F_g D)."""
    rng = np.random.default_rng(1)
    known, away = features_of(rng.normal(size=(8, 3)), [0, 0, 1]), rng.normal(size=(8, D))
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    before = Link(np.zeros((3, D)), np.ones(2))
    made = []
    for seed in range(1000):
        link = side_information.draw_link(
            known, away, np.zeros(D), np.linalg.cholesky(precision), before, chance_of(seed)
        )
        lengths = np.einsum("fc,cd,fd->f", link.coefficients, precision, link.coefficients)
        made.append(link.ridge * (1 + np.array([lengths[:2].sum(), lengths[2]]) / 2))
    for group, count in enumerate((2, 1)):
        assert stats.kstest(np.array(made)[:, group], stats.gamma(1 + count * D / 2).cdf).pvalue > 1e-3


def test_rows_are_drawn_about_the_means_that_their_features_give():
    rng = np.random.default_rng(2)
    F, seen = rng.normal(size=(4, 3)).astype(np.float32), rng.random((4, 5)) < 0.5
    prior, link = RowPrior(rng.normal(size=D), np.diag([2.0, 3.0])), Link(rng.normal(size=(3, D)), np.ones(1))
    ratings, other = sparse(seen * rng.normal(size=(4, 5))), rng.normal(size=(5, D))
    setup, means = Setup(Intercepts(biased=True, offset=0.3)), term_of(features_of(F)).means(link)
    made, _ = gibbs.draw_rows(ratings, other, RowDraw(prior, 1.7, None, means), setup)
    for i in range(4):
        own = RowPrior(prior.mean + F[i] @ link.coefficients, prior.precision)
        alone, _ = gibbs.draw_rows(ratings.take(np.array([i])), other, RowDraw(own, 1.7, None), setup)
        np.testing.assert_allclose(made[i], alone[0], rtol=1e-6)


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(pool, "SMALL_WORK", 0)
    monkeypatch.setattr(pool, "SMALL_BLOCK", 1e4)
    rng = np.random.default_rng(3)
    dense = rng.random((20_000, 600)) * (rng.random((20_000, 600)) < 0.01)
    term, rows = term_of(features_of(dense)), rng.normal(size=(20_000, D)).astype(np.float32)
    begun = Link(np.zeros((600, D), np.float32), np.ones(1))
    one, three = (
        drawn_prior(rows, HYPER, np.random.default_rng(0), term, begun, n_jobs)[1].coefficients for n_jobs in (1, 3)
    )
    assert one.any()
    assert one.tobytes() == three.tobytes()


# ---- simulation-based calibration ------------------------------------------------------------------
# As in test_gibbs: rows are drawn from a truth, which is drawn from the prior; ranks of the truth must be uniform.

ROWS, COUNT, KEPT, APART = 12, 3, 9, 4


def quantities(prior, link):
    beta = link.coefficients
    return [*link.ridge, beta[0, 0], beta[2, 1], prior.mean[0], np.linalg.slogdet(prior.precision)[1],
            np.einsum("fc,cd,fd->", beta, prior.precision, beta), beta[1] @ prior.precision @ prior.mean]  # fmt: skip


def ranks_of(seed):
    rng = np.random.default_rng([seed, 6])
    F = rng.normal(size=(ROWS, COUNT)).astype(np.float32)
    term = term_of(features_of(F, [0, 0, 1]))
    precision = stats.wishart(D, np.diag(1 / SCALE)).rvs(random_state=rng)
    turn = np.linalg.inv(np.linalg.cholesky(precision))  # z Λ^-½: rows with precision Λ
    ridge = rng.gamma(1.0, size=2)
    beta = rng.standard_normal((COUNT, D)) @ turn / np.sqrt(ridge[[0, 0, 1]])[:, None]
    mean = rng.standard_normal(D) @ turn / np.sqrt(HYPER.strength)
    rows = mean + F @ beta + rng.standard_normal((ROWS, D)) @ turn
    now = truth = RowPrior(mean, precision), Link(beta, ridge)
    draws = []
    for number in range(1, 10 + APART * KEPT + 1):
        now = drawn_prior(rows, HYPER, np.random.default_rng([seed, number]), term, now[1], 1)
        if number > 10 and (number - 10) % APART == 0:
            draws.append(quantities(*now))
    return np.sum(np.array(draws) < quantities(*truth), axis=0)


def test_ranks_of_the_truth_are_uniform():
    p = uniformity(ranks_of, 400, KEPT)
    assert p.min() > 0.01 / len(p), p


def silent(count, size, dtype, seed, side, *, n_jobs=None):
    return ridge.strips_of(count, size, dtype)


def test_without_the_injected_noise_the_calibration_fails(monkeypatch):
    monkeypatch.setattr(ridge, "noise", silent)
    assert uniformity(ranks_of, 60, KEPT).min() < 1e-5


def known_coefficients(seed):
    """Ratings of users and items whose biases have known coefficients of ten features each; and the recipe."""
    rng = np.random.default_rng(seed)
    sides, tables_ = {}, {}
    for side, n in (("user", 300), ("item", 200)):
        F, beta = rng.normal(size=(n, 10)), 0.2 * rng.normal(size=10)
        frame = dict(zip("abcdefghij", F.T, strict=True))
        sides[side] = beta * F.std(axis=0), F @ beta + 0.4 * rng.normal(size=n), 0.5 * rng.normal(size=(n, 2))
        tables_[f"{side}_features"] = pl.DataFrame({side: np.arange(n), **frame})
    u, i = np.nonzero(rng.random((300, 200)) < 0.15)
    (_, b, W), (_, c, U) = sides["user"], sides["item"]
    values = 3 + b[u] + c[i] + np.sum(W[u] * U[i], axis=1) + 0.4 * rng.normal(size=len(u))
    ratings = gm.Ratings.from_frame(pl.DataFrame({"user": u, "item": i, "rating": values}))
    recipe = gm.BPMF(factors=2, draws=120, keep_dtype="float32", **tables_)
    return ratings, recipe, np.concatenate([sides[side][0] for side in ("user", "item")])


def share_inside(model, truth):
    """Of the coefficients of the biases, which no rotation changes, the share in their central 90 % intervals."""
    draws = [np.concatenate([term.of(draw).coefficients[:, -1] for term in model.terms]) for draw in model.draws]
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return float(np.mean((low <= truth) & (truth <= high)))


def test_known_coefficients_are_in_their_posterior_intervals(monkeypatch):
    """And most are not where the injected noise is left out."""
    ratings, recipe, truth = known_coefficients(0)
    assert share_inside(recipe.fit(ratings), truth) >= 0.75  # of 20: less in 1 of 90 experiments
    monkeypatch.setattr(ridge, "noise", silent)
    assert share_inside(recipe.fit(ratings), truth) < 0.5


# ---- tables ----------------------------------------------------------------------------------------


def test_columns_become_features():
    frame = pl.DataFrame({
        "item": ["a", "b", "c", "d"], "year": [1990.0, 2000.0, 2010.0, 2000.0], "kind": ["x", "y", "x", "z"],
        "genres": [["p", "q"], ["p"], [], ["q"]], "tags": ["u|v", "v", None, "u"],
    })  # fmt: skip
    table = tables.FeatureTable.from_frame(frame, "item")
    assert table.names == ("year", "kind=x", "genres=p", "genres=q", "tags=u", "tags=v")
    dense = np.zeros((4, 6))
    matrix = table.of(table.ids, "item")
    dense[matrix.row_codes(), matrix.indices] = matrix.values
    np.testing.assert_allclose(dense[:, 0], [-np.sqrt(2), 0, np.sqrt(2), 0], atol=1e-6)
    np.testing.assert_array_equal(dense[:, 1:], [[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 1, 1, 0]])
    assert table == tables.FeatureTable.from_frame(frame, "item")
    assert table != tables.FeatureTable.from_frame(frame.reverse(), "item")


def test_missing_numbers_are_said_and_marked():
    frame = pl.DataFrame({"user": [1, 2, 3], "age": [20.0, None, 40.0]})
    with pytest.warns(gm.errors.DataWarning, match="1 of 3 values of 'age' are missing"):
        table = tables.FeatureTable.from_frame(frame, "user")
    assert table.names == ("age", "age missing")


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (pl.DataFrame({"user": [1, 1], "age": [1, 2]}), "1 is repeated"),
        (pl.DataFrame({"user": [1, 2], "name": ["a", "b"]}), "has no feature"),
        (pl.DataFrame({"age": [1, 2]}), "No column for the user"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(frame, text):
    with pytest.raises(gm.DataError, match=text):
        gm.BPMF(user_features=frame)


# ---- the model -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    """Ratings of items whose worth and direction go with two features; items 150 … 199 are not in training."""
    rng = np.random.default_rng(0)
    F = rng.normal(size=(200, 2))
    items = F @ rng.normal(size=(2, 2)) + 0.2 * rng.normal(size=(200, 2))
    users, bias = rng.normal(size=(120, 2)), 0.6 * F[:, 0] + 0.1 * rng.normal(size=200)
    u, i = np.nonzero(rng.random((120, 200)) < 0.2)
    values = 3 + bias[i] + np.sum(users[u] * items[i], axis=1) + 0.3 * rng.normal(size=len(u))
    frame = pl.DataFrame({"user": u, "item": i, "rating": values})
    table = pl.DataFrame({"item": np.arange(200), "first": F[:, 0], "second": F[:, 1]})
    recipe = gm.BPMF(factors=3, draws=80, item_features=table, keep_dtype="float32")
    train, new = (gm.Ratings.from_frame(part) for part in (frame.filter(pl.col("item") < 150),
                                                           frame.filter(pl.col("item") >= 150)))  # fmt: skip
    return recipe, train, new, recipe.fit(train)


def item_frame(told):
    """The table of features that the recipe was given."""
    table = told[0].item_features
    dense = np.zeros((len(table.ids), len(table.names)))
    dense[table.matrix.row_codes(), table.matrix.indices] = table.matrix.values
    return pl.DataFrame({"item": table.ids.ids, **dict(zip(table.names, dense.T, strict=True))})


def test_features_explain_what_they_made_and_permuted_ones_about_nothing(told):
    """The very table, each row at another item's id."""
    recipe, train, _, model = told
    shares = dict(model.feature_shares().select("of", "share").iter_rows())
    assert shares["factors"] > 0.7
    assert shares["biases"] > 0.7
    frame = item_frame(told)
    permuted = frame.with_columns(pl.Series("item", np.random.default_rng(1).permutation(200)))
    other = dataclasses.replace(recipe, item_features=permuted).fit(train)
    assert other.feature_shares()["share"].max() < 0.05


def test_sets_and_tables_have_shares_of_their_own(told):
    recipe, train, _, _ = told
    both = dataclasses.replace(recipe, implicit="items", draws=20).fit(train).feature_shares()
    assert both["by"].to_list() == ["both", "sets", "table"] * 2
    share = dict(both.filter(pl.col("of") == "factors").select("by", "share").iter_rows())
    assert share["table"] > 0.6
    assert share["sets"] < share["both"] < 1


def test_an_item_that_nobody_rated_is_predicted_from_its_features(told):
    recipe, train, new, model = told
    plain = dataclasses.replace(recipe, item_features=None).fit(train)
    assert model.evaluate(new)["rmse"] < 0.6 * plain.evaluate(new)["rmse"]
    intervals = model.predictive_codes(model.pairs_of(new))
    inside = (intervals.quantile(0.05) <= new.values) & (new.values <= intervals.quantile(0.95))
    assert 0.85 < inside.mean() < 0.95


def test_a_model_with_features_is_saved_and_updated(told, tmp_path):
    _, _, new, model = told
    model.save(tmp_path / "m.gramian")
    again = gm.load(tmp_path / "m.gramian")
    assert again.recipe == model.recipe
    assert again.evaluate(new) == model.evaluate(new)
    assert again.update(new).evaluate(new)["rmse"] < model.evaluate(new)["rmse"]
    arrays, stub = model.arrays(), gm.recipe_from_dict(model.recipe.to_dict())
    with pytest.raises(gm.FormatError, match="others than its recipe's"):
        stub.model(model.ratings, {**arrays, "item_features.values": arrays["item_features.values"] + 1}, model.history)


def test_a_model_with_implicit_sets_takes_in_new_ratings(ratings, tmp_path):
    model = gm.BPMF(factors=2, draws=8, burn_in=2, implicit="both").fit(ratings)
    user, item = (ids.ids[0] for ids in (model.user_ids, model.item_ids))
    new, strange = user + 10**6, item + 10**6 if isinstance(item, int) else "new"
    table = pl.DataFrame({"user": [new, user], "item": [strange, item], "rating": [4.0, 2.0]})
    grown = model.update(gm.Ratings.from_frame(table))
    grown.save(tmp_path / "m.gramian")
    assert gm.load(tmp_path / "m.gramian").predict(new, strange) == grown.predict(new, strange)
    assert len(model.ask_next({item: 4.0}, 3)) == 3
    assert np.abs(model.recommend_for({item: 4.0}, 3)["score"].to_numpy()).max() < 10
