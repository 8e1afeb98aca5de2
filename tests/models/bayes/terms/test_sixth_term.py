"""One more piece of knowledge, in one file: what a weekday adds to ratings, by nothing but what terms are to answer.

A toy, but a real one: it is learned, predicted with, folded in, updated, saved and loaded, beside any other term.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
import pytest
from chains import swept
from ranks import drawn_sides, ranked, uniformity

import gramian as gm
from gramian.core.file_format import Arrays, checked_arrays, read_file, write_file
from gramian.core.parameters import param
from gramian.data.pairs import Pairs, Times
from gramian.data.table import RatingsTable
from gramian.kernels.arrays import Array
from gramian.models.bayes import gibbs
from gramian.models.bayes.bundles import Beginning, Chance, Rest, Some
from gramian.models.bayes.state import USERS, Key, State
from gramian.models.bayes.terms.collection import Terms
from gramian.models.bayes.terms.term import Addition, PriorMean
from gramian.registry import RECIPES

DAY, DAYS = 86_400, 7
RATE = 0.01


# ---- the term ----------------------------------------------------------------------------------------


class Offsets(NamedTuple):
    """What each weekday adds, (7,), and their precision λ."""

    offsets: Array
    precision: float


def weekdays(times: Times) -> Array:
    return times // DAY % DAYS


@dataclass(frozen=True, eq=False)
class Weekdays(Addition[Offsets]):
    r"""r ~ N(… + o_{weekday}, α⁻¹) with o ~ N(0, λ⁻¹), λ ~ Gamma(1, s²/100).

    ``days`` has the weekday of each training rating, ``shares`` how many of them lie on each.
    """

    name = "weekday"
    settings: ClassVar[Mapping[str, object]] = {"weekday": False}

    days: Array
    shares: Array
    rate: float

    @classmethod
    def of_ratings(cls, ratings: RatingsTable, arrays: Arrays | None = None) -> Weekdays:
        if ratings.times is None:
            raise gm.DataError("The weekdays of ratings need times: found none; give them.")
        days = weekdays(ratings.times)
        if arrays is None:
            shares = np.bincount(days, minlength=DAYS) / len(days)
        else:
            shares = checked_arrays("BPMF", arrays, {"weekday_shares": (DAYS,)}, (np.float64,))["weekday_shares"]
        return cls(days, shares, RATE * ratings.variance)

    def start(self, begin: Beginning) -> Offsets:
        return Offsets(np.zeros(DAYS), 25 / begin.variance)

    def added(self, value: Offsets, items: Array, n_jobs: int | None = None) -> Array:
        return value.offsets[self.days]

    def added_to(self, value: Offsets, some: Some) -> Array:
        return value.offsets[self.days[some.places]]

    def drawn(
        self, value: Offsets, left: Array, beside: Array | None, rest: Rest, chance: Chance
    ) -> tuple[Offsets, Array]:
        given, (_, weights, alpha) = left if beside is None else left - beside, rest
        sums = np.bincount(self.days, given if weights is None else given * weights, minlength=DAYS)
        known = value.precision + alpha * np.bincount(self.days, weights, minlength=DAYS)
        offsets = alpha * sums / known + chance.rng.standard_normal(DAYS) / np.sqrt(known)
        precision = chance.rng.gamma(1 + DAYS / 2) / (self.rate + np.sum(offsets**2) / 2)
        made = Offsets(offsets, precision)
        return made, left - self.added(made, rest.items)

    def trace_names(self) -> list[str]:
        return ["weekday_std"]

    def trace(self, value: Offsets) -> list[float]:
        return [value.precision**-0.5]

    def rebound(self, ratings: RatingsTable) -> Weekdays:
        return self.of_ratings(ratings)

    def check_new(self, new: RatingsTable) -> None:
        if new.times is None:
            raise gm.DataError("New ratings need times, for the model knows of weekdays: found none; give them.")

    def find(self, pairs: Pairs) -> Array | None:
        return None if pairs.times is None else weekdays(pairs.times)

    def at(self, value: Offsets, pairs: Pairs, found: object, items: Array) -> Array:
        usual = np.full(len(pairs), value.offsets @ self.shares)
        return usual if found is None else value.offsets[np.asarray(found)]

    def add_variance(self, total: Array, value: Offsets, found: object) -> None:
        total += 0.0 if found is not None else self.shares @ (value.offsets - value.offsets @ self.shares) ** 2

    def level(self, value: Offsets) -> Array:
        return np.array([value.offsets @ self.shares])

    def arrays(self) -> Arrays:
        return {"weekday_shares": self.shares}

    def packed(self, value: Offsets) -> Arrays:
        return {"weekday_offsets": value.offsets, "weekday_precision": np.array([value.precision])}

    def unpacked(self, arrays: Arrays) -> Offsets:
        return Offsets(arrays["weekday_offsets"], float(arrays["weekday_precision"][0]))

    def shapes(self, begin: Beginning) -> dict[str, tuple[int, ...]]:
        return {"weekday_offsets": (DAYS,), "weekday_precision": (1,)}

    def is_sound(self, value: Offsets) -> bool:
        return value.precision > 0

    def light(self) -> Weekdays:
        return replace(self, days=self.days[:0])


# ---- the recipe --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WeekdayBPMF(gm.BPMF):
    """BPMF that knows of weekdays."""

    name: ClassVar[str] = "weekday_bpmf"

    weekday: bool = param(True, "what each weekday adds")

    def terms(self, ratings: RatingsTable, arrays: Arrays | None = None) -> Terms:
        known = super().terms(ratings, arrays)
        return Terms((*known, Weekdays.of_ratings(ratings, arrays))) if self.weekday else known


@pytest.fixture(autouse=True)
def known():
    """The recipe, known by its name for the time of a test."""
    gm.register(WeekdayBPMF)
    yield
    del RECIPES[WeekdayBPMF.name]


ADDED = np.array([0.0, -0.4, -0.2, 0.1, 0.3, 0.8, -0.6])


def dated(seed=0, added=ADDED):
    rng = np.random.default_rng(seed)
    u, i = np.nonzero(rng.random((60, 40)) < 0.5)
    time = DAY * rng.integers(18_000, 18_060, len(u))
    values = 3 + 0.4 * rng.normal(size=60)[u] + 0.5 * rng.normal(size=40)[i] + added[weekdays(time)]
    frame = pl.DataFrame({"user": u, "item": i, "rating": values + 0.3 * rng.normal(size=len(u)), "time": time})
    return gm.Ratings.from_frame(frame)


@pytest.fixture(scope="module")
def parts():
    return dated().split(0.2, seed=0)


RECIPE = WeekdayBPMF(factors=2, draws=60, keep_dtype="float32")


@pytest.fixture(scope="module")
def model(parts):
    return RECIPE.fit(parts[0])


# ---- what it can do ----------------------------------------------------------------------------------


def test_what_weekdays_add_is_learned(parts, model):
    test = parts[1]
    offsets = np.array([draw.weekday.offsets for draw in model.draws])
    learned = offsets.mean(axis=0) - offsets.mean()
    np.testing.assert_allclose(learned, ADDED - ADDED.mean(), atol=0.12)
    plain = dataclasses.replace(RECIPE, weekday=False).fit(parts[0]).evaluate(test)["rmse"]
    assert model.evaluate(test)["rmse"] < 0.75 * plain
    assert "weekday_std" in model.trace_names
    assert model.traces.shape[2] == len(model.trace_names)
    for times in (test.times, None):
        low, high = model.predict_interval(test.users, test.items, times=times, clip=False).T
        assert np.mean((low <= test.values) & (test.values <= high)) == pytest.approx(0.9, abs=0.05)


def test_predictions_have_the_offset_of_their_day(model):
    user, item = model.user_ids.ids[3], model.item_ids.ids[5]
    best, worst = (model.predict(user, item, times=DAY * day, clip=False)[0] for day in (5, 6))
    assert best - worst == pytest.approx(np.mean([d.weekday.offsets @ [0, 0, 0, 0, 0, 1, -1] for d in model.draws]))
    usual = [d.weekday.offsets @ model.terms.additions[0].shares - d.weekday.offsets[5] for d in model.draws]
    assert model.predict(user, item, clip=False)[0] - best == pytest.approx(np.mean(usual))
    block = model.score_block(np.array([3], np.int32))
    assert block[0, 5] == pytest.approx(model.predict(user, item, clip=False)[0], abs=1e-4)
    assert model.recommend(user, 3).height == model.ask_next(user, 3).height == 3
    told = model.explain(user, item)
    parts = told.global_mean + told.user_bias + told.item_bias + told.rest
    assert told.prediction == pytest.approx(parts + told.contributions["contribution"].sum())


def test_somebody_new_is_taken_in_by_what_their_days_leave(model):
    """Ratings that are high for their day say more of a person than the same on a day of high ones."""
    given = dict(zip(model.item_ids.ids[:12].to_list(), [4.0] * 12, strict=True))
    high, low = (model.fold_in(given, times=DAY * day)[:, -1].mean() for day in (6, 5))
    assert high - low == pytest.approx(ADDED[5] - ADDED[6], abs=0.6)
    somebody = model.new_user(given, times=DAY)
    assert somebody.recommend(3).height == 3
    assert somebody.interval(np.arange(4, dtype=np.int32), 0.9).shape == (4, 2)


def test_new_ratings_are_learned_from(parts, model):
    later = parts[1].to_frame().with_columns(pl.col("time") + 70 * DAY, pl.col("rating") + 1.5)
    new = gm.Ratings.from_frame(later)
    grown = model.update(new)
    assert grown.evaluate(new)["rmse"] < 0.7 * model.evaluate(new)["rmse"]
    assert len(grown.terms.additions[0].days) == len(grown.ratings)
    with pytest.raises(gm.DataError, match="knows of weekdays"):
        model.update(gm.Ratings.from_frame(later.drop("time")))


def test_it_is_saved_loaded_and_resumed(parts, model, tmp_path):
    train, test = parts
    model.save(tmp_path / "m.gramian")
    again, asked = gm.load(tmp_path / "m.gramian"), {"users": test.users, "items": test.items}
    assert again.recipe == RECIPE
    for times in (test.times, None):
        np.testing.assert_array_equal(again.predict(**asked, times=times), model.predict(**asked, times=times))
    longer = dataclasses.replace(RECIPE, draws=40, burn_in=10)
    dataclasses.replace(longer, draws=20).fit(train, checkpoint=tmp_path / "c", keep_checkpoint=True)
    resumed = longer.fit(train, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(resumed.predict(**asked), longer.fit(train).predict(**asked))
    broken = model.draws[0]._replace(terms={"weekday": model.draws[0].weekday._replace(precision=-1.0)})
    dataclasses.replace(model, draws=(broken,)).save(tmp_path / "broken.gramian")
    with pytest.raises(gm.FormatError, match="draws of weekday_bpmf do not fit"):
        gm.load(tmp_path / "broken.gramian")


def test_it_goes_with_everything_else(parts):
    train, test = (
        gm.Ratings.from_frame(part.to_frame().with_columns(pl.col("rating").round().clip(1, 5))) for part in parts
    )
    table = pl.DataFrame({"item": range(40), "kind": [n % 3 for n in range(40)]})
    recipe = dataclasses.replace(RECIPE, draws=30, chains=2, drift=True, noise="by_user", implicit="both",
                                 item_features=table, likelihood="ordinal")  # fmt: skip
    model = recipe.fit(train, validation=test)
    assert [term.name for term in model.terms] == [
        "user_features", "item_features", "time", "drift", "user_noise", "cuts", "weekday"
    ]  # fmt: skip
    assert model.history[-1]["validation_rmse"] == pytest.approx(model.evaluate(test)["rmse"], abs=2e-3)
    assert model.update(test).evaluate(test)["rmse"] < model.evaluate(test)["rmse"]
    given: dict[Any, float] = {1: 5.0, 3: 2.0}
    assert model.recommend_for(given, 3, times=test.times[0]).height == 3
    assert gm.conformal(model, test).predict_interval(1, 2, times=test.times[0]).shape == (1, 2)


# The truth from the prior, the posterior by the sampler, beside offsets by time: ranks are uniform (see test_gibbs.py).

N, M = 6, 5
HYPER = gibbs.Hyperprior(np.array([1.0, 0.5]), 2.0, 3.0, 9.0)


def ranks_of(seed):
    rng = np.random.default_rng([seed, 12])
    sides, priors = drawn_sides(rng, (N, M), HYPER)
    u, i = np.nonzero(np.ones((N, M)))
    frame = {"user": u, "item": i, "rating": np.zeros(len(u)), "time": DAY * rng.integers(14, size=len(u))}
    table = gm.Ratings.from_frame(pl.DataFrame(frame))
    known = gm.BPMF(time=7).terms(table).every[0]
    # the rate of both precisions, which is otherwise that of the ratings
    time, week = dataclasses.replace(known, rate=1.5), dataclasses.replace(Weekdays.of_ratings(table), rate=1.0)
    terms, precision, alpha = Terms((time, week)), rng.gamma(1), rng.gamma(HYPER.shape) / HYPER.rate
    state = State(*sides, *priors, alpha)
    state = terms.started(state, Beginning(N, M, 1, 2, 1.0, "float64"))
    precisions = rng.gamma(1, size=3) / 1.5
    kinds = time.cells.kinds
    offsets = [rng.normal(size=len(c.keys)) / np.sqrt(p) for c, p in zip(kinds, precisions, strict=True)]
    state = time.put(state, time.of(state)._replace(offsets=tuple(offsets), precisions=precisions))
    state = week.put(state, Offsets(rng.normal(size=DAYS) / np.sqrt(precision), precision))
    W, U = sides
    values = W[u, 0] * U[i, 0] + W[u, 1] + U[i, 1] + rng.normal(size=len(u)) / np.sqrt(alpha)
    values += sum(term.added(term.of(state), U) for term in terms)
    ways = gibbs.BothWays.of(table, terms)._replace(by_user=table.by_user._replace(values=values))

    def sweep(state, number):
        return swept(state, ways, HYPER, Key(seed, 0, number), True, 0.0, terms, 1)[0]

    return ranked(state, quantities, sweep, 100, 10, 10)


def quantities(state):
    week, time = state.weekday, state.time
    return [state.noise_precision, week.precision, week.offsets[0] - week.offsets[3], np.sum(week.offsets**2),
            time.precisions[0], np.sum(time.offsets[0] ** 2), np.sum(time.offsets[1] ** 2)]  # fmt: skip


def test_ranks_of_the_truth_are_uniform():
    p = uniformity(ranks_of, 60)
    assert p.min() > 0.01 / len(p), p


# ---- what is refused -----------------------------------------------------------------------------------


def test_terms_that_cannot_go_together_are_refused(parts):
    train, _ = parts
    week, noise = Weekdays.of_ratings(train), gm.BPMF(noise="by_user").terms(train).every[0]
    with pytest.raises(gm.ParameterError, match=r"Two terms have one name: found \['weekday', 'weekday'\]"):
        Terms((week, week))
    twin = type("Twin", (type(noise),), {"name": "twin"})(3)
    with pytest.raises(gm.ParameterError, match=r"More than one term says how much a rating counts: found .*'twin'"):
        Terms((noise, twin))
    with pytest.raises(gm.ParameterError, match="its term 'weekday' cannot be sampled on Spark"):
        Terms((noise, week)).check_distributed("WeekdayBPMF")
    users = type("Users", (Weekdays,), {"name": "users"})(week.days, week.shares, week.rate)
    with pytest.raises(gm.ParameterError, match=r"must not be that of a part of a draw: found \['users'\]"):
        Terms((users,))
    twins = Terms((week, type("Twin", (Weekdays,), {"name": "twin"})(week.days, week.shares, week.rate)))
    with pytest.raises(gm.ParameterError, match=r"term 'twin' have names that are taken: \['weekday_shares'\]"):
        twins.arrays()


@pytest.mark.parametrize("broken", [None, np.ones(3), np.full(DAYS, np.nan)], ids=["missing", "short", "not finite"])
def test_a_file_whose_term_is_damaged_is_refused(model, tmp_path, broken):
    arrays, about = model.content()
    arrays = {name: array for name, array in arrays.items() if name != "model.weekday_shares"}
    if broken is not None:
        arrays["model.weekday_shares"] = broken
    write_file(tmp_path / "m.gramian", arrays, about)
    assert read_file(tmp_path / "m.gramian")[0].keys() == arrays.keys()
    with pytest.raises(gm.FormatError, match="weekday_shares"):
        gm.load(tmp_path / "m.gramian")


class Known(PriorMean[None]):
    """A term of which only the spread of what it does not know is asked."""

    def __init__(self, name: str, spread: Array | None) -> None:
        self.name, self.side, self._spread = name, USERS, spread

    def lacking(self, code: int) -> str | None:
        return None if self._spread is None else self.name

    def spread(self, value: None, lacking: object) -> Array:
        assert self._spread is not None
        return self._spread


Known.__abstractmethods__ = frozenset()  # the rest is not asked


def test_what_several_terms_do_not_know_of_a_row_adds_up(parts):
    plain = gm.BPMF(factors=2, draws=2, biases=False).fit(parts[0])
    one, two = np.eye(2), np.diag([3.0, 4.0])
    for spreads, total in [((one, two), one + two), ((one, None), one), ((None, two), two), ((None, None), None)]:
        terms = Terms(tuple(Known(f"t{k}", spread) for k, spread in enumerate(spreads)))
        draws = tuple(draw._replace(terms={term.name: None for term in terms}) for draw in plain.draws)
        several = dataclasses.replace(plain, terms=terms, draws=draws)
        np.testing.assert_equal(several._spread(0, USERS, -1), total)


def test_a_name_is_that_of_one_recipe():
    gm.register(WeekdayBPMF)  # again is no harm
    other = type("Other", (gm.BPMF,), {"name": "bpmf"})
    with pytest.raises(gm.ParameterError, match="The name 'bpmf' is that of the recipe BPMF; give Other another"):
        gm.register(other)
    assert isinstance(gm.make_recipe("weekday_bpmf", weekday=False), WeekdayBPMF)
