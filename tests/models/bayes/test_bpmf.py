"""Training a BPMF: what is kept, seen, stopped, resumed, said; the sampler itself is tested in test_gibbs."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import polars as pl
import pytest
from chains import flat
from contract import assert_same_bits, every_pair, plain_history

import gramian as gm
from gramian.models.bayes import gibbs
from gramian.models.bayes.state import compact
from gramian.models.bayes.terms.collection import Terms
from gramian.models.bayes.traces import TRACED_PAIRS, trace_names

SMALL = gm.BPMF(factors=2, draws=20, burn_in=3, keep_dtype="float32")


def bits(draw):
    """A draw as bytes."""
    return [array.tobytes() for array in flat(draw)]


def by_hand(draw, model, users, items):
    """What a draw predicts for pairs of codes, in float64."""
    u, v, K = draw.user_rows[users].astype(float), draw.item_rows[items].astype(float), model.n_factors
    made = model.global_mean + np.sum(u[:, :K] * v[:, :K], axis=1)
    return made + u[:, K] + v[:, K] if model.biased else made


@pytest.fixture(scope="module")
def whole(ratings):
    """Every one of 17 draws."""
    return SMALL.fit(ratings)


# ---- what is kept ------------------------------------------------------------------------------------


def test_every_draw_after_burn_in_is_kept_where_there_is_room(whole, ratings):
    assert whole.n_draws == 17
    assert whole.burn_in == 3
    assert gm.BPMF(draws=50).dropped == 10
    assert gm.BPMF(draws=4).dropped == 0
    last = whole.draws[-1]
    table = ratings.by_user
    error = by_hand(last, whole, table.row_codes(), table.indices) - table.values
    assert whole.history[-1]["train_rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert whole.history[-1]["noise_std"] == pytest.approx(last.noise_precision**-0.5)
    assert whole.noise_std == pytest.approx(np.mean([draw.noise_precision**-0.5 for draw in whole.draws]))


@pytest.mark.parametrize("chains", [1, 2])
@pytest.mark.parametrize("room", [0, 1, 2, 4, 5, 8, 16, 17, 1000])
def test_thinned_draws_are_evenly_spaced_and_fit_into_memory(room, chains, whole, ratings):
    recipe = dataclasses.replace(SMALL, chains=chains)
    each = chains * sum(len(part) for part in bits(whole.draws[0]))
    thinned = dataclasses.replace(recipe, memory=(room + 0.5) * each / 2**30).fit(ratings)
    every = recipe.fit(ratings)
    step = 2 ** math.ceil(math.log2(max(1, 18 / (max(room, 1) + 1))))
    kept = [draw for s in range(step - 1, 17, step) for draw in every.draws[s * chains : (s + 1) * chains]]
    assert [bits(draw) for draw in thinned.draws] == [bits(draw) for draw in kept]
    assert min(max(room, 1), 17) / 2 < thinned.n_draws / chains + 1
    assert thinned.n_draws <= chains * max(room, 1)
    assert thinned.traces.tobytes() == every.traces.tobytes()


def test_draws_in_float16_are_those_in_float32_rounded(whole, ratings):
    half = dataclasses.replace(SMALL, keep_dtype="float16").fit(ratings)
    for mine, theirs in zip(half.draws, whole.draws, strict=True):
        assert mine.user_rows.dtype == mine.item_rows.dtype == np.float16
        np.testing.assert_array_equal(mine.user_rows, theirs.user_rows.astype(np.float16))
        assert mine.users.precision.tobytes() == theirs.users.precision.tobytes()
    users, items = every_pair(whole)
    np.testing.assert_allclose(half.predict(users, items), whole.predict(users, items), atol=2e-3)


@pytest.mark.parametrize(
    ("largest", "kept"), [(1e-3, "float32"), (0.5, "float16"), (5e4, "float16"), (7e4, "float32"), (1e30, "float32")]
)
def test_rows_that_do_not_suit_float16_are_kept_in_float32(largest, kept):
    rows = np.array([[largest, largest / 7], [-largest / 3, 0]])
    small = compact(rows, "float16")
    assert small.dtype == kept
    np.testing.assert_allclose(small, rows, rtol=1e-3)
    assert compact(rows, "float32").dtype == np.float32


def scaled(frame, times, plus=0.0):
    return gm.Ratings.from_frame(frame.with_columns(pl.col("rating") * times + plus))


@pytest.mark.parametrize("init", ["map", "cold"])
@pytest.mark.parametrize(("times", "plus"), [(2.0, 0.0), (2.0, 10.0), (1e-3, 0.0), (1e6, -4e6)])
def test_ratings_on_another_scale_give_the_same_model_on_that_scale(times, plus, init, frame, ratings):
    recipe = gm.BPMF(factors=3, draws=10, burn_in=2, init=init, dtype="float64", keep_dtype="float32")
    pairs = every_pair(recipe.fit(ratings))
    plain, other = recipe.fit(ratings), recipe.fit(scaled(frame, times, plus))
    for clip in (False, True):
        predicted = (other.predict(*pairs, clip=clip) - plus) / times
        np.testing.assert_allclose(predicted, plain.predict(*pairs, clip=clip), atol=5e-6)
    np.testing.assert_allclose(other.predict_std(*pairs) / times, plain.predict_std(*pairs), atol=5e-6)
    assert other.noise_std / times == pytest.approx(plain.noise_std, rel=1e-6)


@pytest.mark.parametrize("times", [1e-8, 1e-5, 1e5, 1e12])
def test_draws_kept_by_default_do_for_ratings_of_any_size(times, frame, ratings):
    recipe = gm.BPMF(factors=3, draws=10, burn_in=2)
    pairs = every_pair(recipe.fit(ratings))
    predicted = recipe.fit(scaled(frame, times)).predict(*pairs) / times
    np.testing.assert_allclose(predicted, recipe.fit(ratings).predict(*pairs), atol=5e-3)


# ---- what is seen on the way -------------------------------------------------------------------------


def test_traces_follow_what_they_name(whole):
    names = trace_names(True, Terms())
    assert whole.traces.shape == (20, 1, len(names))
    assert names[:4] == ["noise_std", "factor_std", "user_bias_std", "item_bias_std"]
    assert len(trace_names(False, Terms())) == len(names) - 2 == 2 + TRACED_PAIRS
    pairs = SMALL._random_pairs(whole.ratings, TRACED_PAIRS)
    rng = np.random.default_rng(0)
    for draw, trace in zip(whole.draws, whole.traces[3:, 0], strict=True):
        assert trace[0] == pytest.approx(draw.noise_precision**-0.5)
        np.testing.assert_allclose(trace[4:], by_hand(draw, whole, pairs.users, pairs.items), atol=1e-5)
        sides = [np.linalg.inv(prior.precision) for prior in (draw.users, draw.items)]
        assert trace[2:4] == pytest.approx([np.sqrt(covariance[2, 2]) for covariance in sides])
    w, u = (
        rng.multivariate_normal(prior.mean, np.linalg.inv(prior.precision), 200_000)[:, :2]
        for prior in (draw.users, draw.items)
    )
    assert trace[1] == pytest.approx(np.sqrt(np.mean(np.sum(w * u, axis=1) ** 2)), rel=0.05)


@pytest.mark.parametrize(("keep", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
@pytest.mark.parametrize("chains", [1, 2])
def test_the_validation_error_while_sampling_is_that_of_the_model(keep, tolerance, chains, parts):
    recipe = dataclasses.replace(SMALL, keep_dtype=keep, chains=chains)
    train, validation = parts
    models = list(recipe.iterate(train, validation))
    for model in models[2:3] + models[3::4] + models[-1:]:  # burn-in: of the last state; then of the mean so far
        seen = model.history[-1]["validation_rmse"]
        assert seen == pytest.approx(model.evaluate(validation)["rmse"], abs=tolerance)
    assert models[-1].history[-1]["validation_rmse"] < models[3].history[-1]["validation_rmse"]
    thinned = dataclasses.replace(recipe, memory=0.0).fit(train, validation)
    assert plain_history(thinned) == plain_history(models[-1])  # of all draws, kept or not


def test_sampling_stops_when_the_mean_has_settled(ratings):
    """Marks are at 8, 12, 16, 24, 32, … draws; each compares with the mean at half as many."""
    patient = gm.BPMF(factors=2, draws=157, burn_in=60, chains=2, keep_dtype="float32", stop_when=0.0)
    full = patient.fit(ratings)
    assert len(full.history) == 157
    pairs = patient._random_pairs(ratings, 1000)
    seen = np.array([np.clip(by_hand(draw, full, pairs.users, pairs.items), *ratings.scale) for draw in full.draws])
    means = np.cumsum(seen.reshape(97, 2, -1).mean(axis=1), axis=0) / np.arange(1, 98)[:, None]
    moved = {n: np.sqrt(np.mean((means[n - 1] - means[n // 2 - 1]) ** 2)) for n in (16, 24, 32, 48, 64, 96)}
    assert moved[96] < moved[32] < moved[16]
    for limit in (1.0, 1.001 * moved[24], 1.001 * moved[64]):
        stops = 60 + next(n for n, by in moved.items() if by <= limit)
        model = dataclasses.replace(patient, stop_when=limit).fit(ratings)
        assert len(model.history) == stops < 157
        assert model.history[-1]["epoch"] == stops
        assert len(model.traces) == stops
        assert_same_bits(model, dataclasses.replace(patient, draws=stops).fit(ratings))


def test_starting_from_least_squares_is_a_head_start(wide_ratings):
    first = {
        init: next(iter(dataclasses.replace(SMALL, init=init).iterate(wide_ratings))).history[-1]["train_rmse"]
        for init in ("map", "cold")
    }
    assert first["map"] < 0.8 * first["cold"]


# ---- checkpoints ---------------------------------------------------------------------------------------


def interrupt_at(sweep):
    def callback(model):
        if len(model.history) == sweep:
            raise KeyboardInterrupt

    return callback


EVERYTHING = gm.BPMF(factors=2, draws=30, burn_in=3, chains=2, memory=2e-5, stop_when=0.11)


def test_interrupted_at_any_sweep_and_resumed_is_the_same_chain(parts, tmp_path):
    train, test = parts
    path, uninterrupted = tmp_path / "c.checkpoint", EVERYTHING.fit(train, test)
    stopped = len(uninterrupted.history)
    assert stopped == 19  # 16 draws after burn-in
    assert uninterrupted.n_draws < 2 * 16
    for sweep in range(1, stopped + 1):
        with pytest.warns(gm.TrainingWarning, match=f"of epoch {sweep}, its last full one"):
            EVERYTHING.fit(train, test, checkpoint=path, callback=interrupt_at(sweep))
        assert_same_bits(EVERYTHING.fit(train, test, checkpoint=path, resume=True), uninterrupted)


def test_a_resumed_chain_may_be_longer(parts, tmp_path):
    train, test = parts
    path, longer = tmp_path / "c.checkpoint", dataclasses.replace(SMALL, draws=29)
    SMALL.fit(train, test, checkpoint=path, keep_checkpoint=True)
    assert_same_bits(longer.fit(train, test, checkpoint=path, resume=True), longer.fit(train, test))


def test_a_burn_in_that_is_a_share_of_the_draws_may_not_change_on_the_way(ratings, tmp_path):
    """Sweeps that were counted as burn-in, or not, cannot be taken back."""
    path, share = tmp_path / "c.checkpoint", dataclasses.replace(SMALL, burn_in=None)
    share.fit(ratings, checkpoint=path, keep_checkpoint=True)
    with pytest.raises(gm.DataError, match="it has burn_in 4, not 6; give the same settings"):
        dataclasses.replace(share, draws=30).fit(ratings, checkpoint=path, resume=True)
    longer = dataclasses.replace(share, draws=30, burn_in=4)
    assert_same_bits(longer.fit(ratings, checkpoint=path, resume=True), longer.fit(ratings))


# ---- chains that diverge -------------------------------------------------------------------------------


def diverging(monkeypatch, sweep, how):
    """Let the sweeps go wrong from one on, in one of the ways they can."""
    real = gibbs.sweep

    def broken(chain, *rest, **more):
        done = real(chain, *rest, **more)
        if rest[3].number < sweep:
            return done
        if how == "nan":
            lost = done.state._replace(user_rows=done.state.user_rows * np.nan)
            return done._replace(state=lost, squared=np.nan)
        if how == "no noise":
            return done._replace(state=done.state._replace(noise_precision=np.inf))
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(gibbs, "sweep", broken)


@pytest.mark.parametrize("how", ["nan", "no noise", "no system"])
def test_a_chain_that_diverges_keeps_the_last_good_state(how, ratings, monkeypatch, tmp_path):
    path, recipe = tmp_path / "c.checkpoint", dataclasses.replace(SMALL, burn_in=1, chains=2)
    before = next(itertools.islice(recipe.iterate(ratings), 3, None))
    diverging(monkeypatch, 5, how)
    with pytest.warns(gm.TrainingWarning, match="model is that of epoch 4.* Chain 0 diverged in sweep 5: ") as caught:
        kept = recipe.fit(ratings, checkpoint=path)
    assert str(caught[0].message).endswith("use dtype='float64', or check the ratings.")
    assert_same_bits(kept, before)
    assert np.isfinite(kept.predict(*every_pair(kept))).all()
    monkeypatch.undo()
    assert_same_bits(recipe.fit(ratings, checkpoint=path, resume=True), recipe.fit(ratings))


def test_a_chain_that_diverges_at_once_is_an_error_in_one_sentence(ratings, monkeypatch):
    diverging(monkeypatch, 1, "nan")
    with pytest.raises(gm.errors.DivergenceError, match=r"^Chain 0 diverged in sweep 1: [^.\n]*\.$"):
        SMALL.fit(ratings)


@pytest.mark.parametrize("init", ["map", "cold"])
def test_ratings_too_large_for_float32_diverge_and_float64_helps(init, frame):
    huge, recipe = scaled(frame, 1e32), dataclasses.replace(SMALL, init=init)
    with pytest.raises(gm.errors.DivergenceError, match="use dtype='float64'"):
        recipe.fit(huge)
    model = dataclasses.replace(recipe, dtype="float64").fit(huge)
    assert np.isfinite(model.predict(*every_pair(model))).all()


# ---- input that is bad, or looks it --------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), float("inf")])
def test_a_noise_precision_is_positive(value):
    with pytest.raises(gm.ParameterError, match=r"'noise_precision' parameter of BPMF must be .*; got"):
        gm.BPMF(noise_precision=value)


@pytest.mark.parametrize(("draws", "burn_in"), [(10, 10), (10, 11), (1, 1)])
def test_burn_in_is_less_than_the_draws(draws, burn_in):
    with pytest.raises(gm.ParameterError, match=f"'burn_in' .* less than draws, which is {draws}; got {burn_in}"):
        gm.BPMF(draws=draws, burn_in=burn_in)


def table(users, items, values):
    return gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))


STRANGE = {
    "constant": table(np.repeat(range(5), 4), np.tile(range(4), 5), [3.0] * 20),
    "one user with all": table([1] * 12, list(range(12)), [float(1 + k % 5) for k in range(12)]),
    "one item with all": table(list(range(12)), [1] * 12, [float(1 + k % 5) for k in range(12)]),
    "one rating": table([1], [1], [4.0]),
}


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("name", STRANGE)
def test_strange_tables_give_a_sane_posterior(name, biases):
    """With more factors than the rank of anything."""
    ratings = STRANGE[name]
    model = gm.BPMF(factors=20, draws=60, biases=biases).fit(ratings)
    users, items = every_pair(model)
    low, high = ratings.scale
    mean = model.predict(users, items)
    assert ((mean >= low) & (mean <= high)).all()
    std = model.predict_std(users, items)
    assert np.isfinite(std).all()
    assert (std > 0).all()
    assert np.isfinite(model.predict_interval(users, items, clip=False)).all()
    assert model.recommend(n=3).height == 0
    assert model.ask_next(users[0]).height == 0
    assert model.explain(users[0], items[0]).contributions.height == ratings.by_user.counts[0]
    assert np.isfinite(model.similar_items(items[0])["similarity"].to_numpy()).all() if len(set(items)) > 1 else True


def test_more_factors_than_the_rank_do_little_harm(parts):
    train, test = parts
    few, many = (gm.BPMF(factors=K, draws=100, init="cold").fit(train).evaluate(test)["rmse"] for K in (2, 40))
    assert many < 1.1 * few
