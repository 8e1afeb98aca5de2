"""Which model? Every recipe fitted to the same training ratings and measured on the same test ratings."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from gramian.core.parameters import check_number
from gramian.core.plain import Plain
from gramian.data.pairs import Pairs
from gramian.data.ratings import Ratings
from gramian.errors import DataError, DivergenceError, GramianError, ParameterError, TrainingWarning
from gramian.evaluate.cold_start import ColdUsers
from gramian.evaluate.log import append_record, check_log, peak_memory, read_records, run_key, versions
from gramian.evaluate.protocols import breakdown
from gramian.evaluate.topn import Popularity, evaluate_ranking
from gramian.kernels.arrays import Array
from gramian.metrics.prediction import per_group_means
from gramian.metrics.significance import paired_test, rmse_error
from gramian.models.model import Model, check_ratings_given
from gramian.models.predictive import UncertainModel
from gramian.models.recipe import AnyRecipe, Recipe
from gramian.registry import family, make_recipe

__all__ = ["Comparison", "compare", "label_of"]

Recipes = Sequence[AnyRecipe | str] | Mapping[str, AnyRecipe]
SECONDS = 0.2  # predicting is timed for about so long


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        records: One per model, as they stand in the log: label, recipe, figures, history, breakdown, or the ``reason``
            why there are none.
        models: The models fitted in this call, by label, where they were to be kept.
        losses: Squared test errors of the models fitted in this call, by label.
        users: The user of each test rating.
        interrupted: Whether an interrupt ended it; the rows are those that were finished.
        earlier: How many other settings the log has that were measured on the same test ratings before.
    """

    records: list[Plain]
    models: dict[str, Model] = field(default_factory=dict, repr=False)
    losses: dict[str, Array] = field(default_factory=dict, repr=False)
    users: Array = field(default_factory=lambda: np.empty(0), repr=False)
    interrupted: bool = False
    earlier: int = 0

    @property
    def table(self) -> pl.DataFrame:
        """One row per model, best first: error ± its standard error, ranking, seconds, memory, parameters.

        ``user_rmse`` is the mean over the users of each one's RMSE, in which all users count alike (the records have
        ``user_mae``, too). ``log_loss`` is that of the probabilities of every rating, of models that give them (the
        records have ``rps``, too).
        ``p`` is that of the paired test against the best model of this call; ``peak_mb`` by how much fitting raised
        the memory of the process at most.
        """
        rows = [{name: record.get(name) for name in COLUMNS} for record in self.records]
        made = pl.DataFrame(rows, schema=COLUMNS)
        p_values = [self._p_value(label) for label in made["model"]]
        made = made.with_columns(pl.Series("p", p_values, pl.Float64)).sort(
            "rmse", nulls_last=True, maintain_order=True
        )
        empty = [name for name in made.columns if name not in ("rmse", "error") and made[name].is_null().all()]
        return made.drop(empty)

    @property
    def best(self) -> str:
        """The label of the least RMSE.

        Raises:
            DataError: No model has one.
        """
        with_error = [record for record in self.records if record.get("rmse") is not None]
        if not with_error:
            raise DataError("There is no best model: none was fitted; see the reasons in the table.")
        return str(min(with_error, key=lambda record: record["rmse"])["model"])

    def _p_value(self, label: str) -> float | None:
        if label not in self.losses:
            return None
        best = min(self.losses, key=lambda name: float(self.losses[name].mean()))
        if label == best:
            return None
        p = paired_test(self.losses[label], self.losses[best], self.users).p_value
        return None if math.isnan(p) else p

    def __str__(self) -> str:
        return str(self.table)


COLUMNS: dict[str, type[pl.DataType]] = {
    "model": pl.String,
    "rmse": pl.Float64,
    "error": pl.Float64,
    "mae": pl.Float64,
    "user_rmse": pl.Float64,
    "log_loss": pl.Float64,
    "ndcg": pl.Float64,
    "recall": pl.Float64,
    "fit_seconds": pl.Float64,
    "predict_us": pl.Float64,
    "peak_mb": pl.Float64,
    "parameters": pl.Int64,
    "reason": pl.String,
}


def compare(  # noqa: PLR0913 - its options are the user's
    recipes: Recipes | None,
    train: Ratings,
    test: Ratings,
    *,
    given: Ratings | None = None,
    k: int = 10,
    at_least: float | None = None,
    split: str | None = None,
    log: str | None = None,
    resume: bool = False,
    keep_models: bool = False,
    say: Callable[[str], object] | None = None,
) -> Comparison:
    """Fit recipes to the same ratings and measure them on the same test; one that fails is a row with its reason.

    Args:
        recipes: Recipes, names of recipes, or a mapping of labels to recipes; None is the whole family with its
            default settings, and the popularity list beside it.
        train: The training ratings.
        test: The test ratings. Whoever goes on choosing by them must test the choice on others.
        given: Ratings of the test's users, where the training has none of theirs: every model takes them in first
            (cold users, strong generalization); one that cannot is a row that says so.
        k: The length of the lists that are ranked.
        at_least: The rating from which a test item is relevant; the training mean if not given.
        split: How the test was held out, in a word, for the log.
        log: A file to append a JSON line to after each model.
        resume: Take models that the log has with the same recipe, data, k and at_least from there.
        keep_models: Keep the models, in memory.
        say: Called with a line of text when a model is begun.

    An interrupt (Ctrl-C) ends the comparison with the rows that are finished.

    Raises:
        DataError: Ratings are not ratings, or the log cannot be written.
        ParameterError: A name is unknown, or ``resume`` is asked without a log.
    """
    for table in (train, test) if given is None else (train, test, given):
        check_ratings_given(table, "compare")
    check_number("k", k, low=1, whole=True, owner="compare")
    if resume and log is None:
        raise ParameterError("The 'resume' parameter of compare needs a log; give log='file'.")
    check_log(log)
    wanted = _labelled(recipes)
    job = _Job(train, test, given, int(k), None if at_least is None else float(at_least), split, keep_models)
    known = {r["key"]: r for r in read_records(log) if r.get("key") and "reason" not in r} if log else {}
    done = known if resume else {}
    made = Comparison([], users=test.user_codes, earlier=job.earlier(known, wanted))
    try:
        for number, (label, recipe) in enumerate(wanted.items(), 1):
            key = job.key(recipe)
            if key in done:
                made.records.append({**done[key], "model": label})
                continue
            if say is not None:
                say(f"{number} of {len(wanted)}: {label} …")
            made.records.append(_one(label, recipe, job, made))
            if log is not None:
                append_record(log, {"key": key, **made.records[-1]})
    except KeyboardInterrupt:
        return dataclasses.replace(made, interrupted=True)
    return made


def label_of(recipe: AnyRecipe) -> str:
    """The recipe's name and what differs from its defaults."""
    changed = [
        f"{field.name}={getattr(recipe, field.name)}"
        for field in dataclasses.fields(recipe)
        if getattr(recipe, field.name) != field.default
    ]
    return f"{recipe.name} {', '.join(changed)}".strip()


def _labelled(recipes: Recipes | None) -> dict[str, AnyRecipe]:
    if recipes is None:
        recipes = [*family(), Popularity()]
    if isinstance(recipes, str | Recipe):
        raise ParameterError(f"The 'recipes' parameter of compare must be a list of recipes; got {recipes!r}.")
    wanted = recipes.values() if isinstance(recipes, Mapping) else recipes
    each = [_named(recipe) if isinstance(recipe, str) else recipe for recipe in wanted]
    for recipe in each:
        if not isinstance(recipe, Recipe):
            raise ParameterError(f"Recipes or their names are needed to compare; got {recipe!r}.")
    labels = recipes if isinstance(recipes, Mapping) else map(label_of, each)
    made = dict(zip(labels, each, strict=True))
    if not made:
        raise ParameterError("There is nothing to compare: the list of recipes is empty.")
    return made


def _named(name: str) -> AnyRecipe:
    return Popularity() if name == Popularity.name else make_recipe(name)


@dataclass(frozen=True)
class _Job:
    """What all rows share."""

    train: Ratings
    test: Ratings
    given: Ratings | None
    k: int
    at_least: float | None
    split: str | None
    keep: bool

    @property
    def about(self) -> Plain:
        """The data and the settings, for the log."""
        made: Plain = {"train": self.train.fingerprint(), "test": self.test.fingerprint()}
        if self.given is not None:
            made["given"] = self.given.fingerprint()
        return made | {"split": self.split, "k": self.k, "at_least": self.at_least, "versions": versions()}

    def key(self, recipe: AnyRecipe) -> str:
        """Equal for runs that would give the same figures."""
        more = [] if self.given is None else [self.given.fingerprint()]
        return run_key(recipe, self.train, self.test, self.k, self.at_least, *more)

    def earlier(self, known: Mapping[str, Plain], wanted: Mapping[str, AnyRecipe]) -> int:
        """How many settings that are not wanted now were measured on the test before."""
        now = [recipe.to_dict() for recipe in wanted.values()]
        test = self.test.fingerprint()
        others = [r["recipe"] for r in known.values() if r.get("test") == test and r.get("recipe") not in now]
        return len({json.dumps(recipe, sort_keys=True) for recipe in others})

    def judged(self, model: Model) -> Model:
        """The model as the test's users meet it."""
        return model if self.given is None else ColdUsers.of(model, self.given)


def _one(label: str, recipe: AnyRecipe, job: _Job, made: Comparison) -> Plain:
    """The record of one model; its reason instead where anything at all goes wrong."""
    about: Plain = {"model": label, "recipe": recipe.to_dict(), **job.about}
    try:
        _warm_up(recipe, job.train)
        model, seconds, peak = _timed_fit(recipe, job.train)
        figures: Plain = {"fit_seconds": seconds, "peak_mb": None if peak is None else peak / 2**20}
        figures |= {"parameters": sum(array.size for array in model.arrays().values())}
        figures |= {"history": [dict(epoch) for epoch in model.history]}
        judged = job.judged(model)
        if not isinstance(recipe, Popularity):
            figures |= _errors(judged, job.test, made, label)
        figures |= _ranks(judged, job)
    except Exception as error:  # whatever it is, the others go on
        made.losses.pop(label, None)  # what failed later is not the best either
        said = str(error) if isinstance(error, GramianError) else f"{type(error).__name__}: {error}"
        return {**about, "reason": said.splitlines()[0] if said else type(error).__name__}
    if job.keep:
        made.models[label] = model
    return {**about, **figures}


def _warm_up(recipe: AnyRecipe, train: Ratings) -> None:
    """One epoch on a few ratings, so that no compiling is timed; where that fails, the fit says why."""
    short = {recipe.length_field: 1} if hasattr(recipe, recipe.length_field) else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(Exception):
            dataclasses.replace(recipe, **short).fit(train.take(train.user_codes < 5))
    _pass_on_interrupt(caught)


def _timed_fit(recipe: AnyRecipe, train: Ratings) -> tuple[Model, float, int | None]:
    with warnings.catch_warnings(record=True) as caught, peak_memory() as peak:
        warnings.simplefilter("always", TrainingWarning)
        began = time.perf_counter()
        model = recipe.fit(train)
        seconds = time.perf_counter() - began
    _pass_on_interrupt(caught)
    for warning in caught:
        if issubclass(warning.category, TrainingWarning) and "was stopped" in str(warning.message):
            raise DivergenceError(str(warning.message))
    return model, seconds, peak.bytes


def _pass_on_interrupt(caught: list[warnings.WarningMessage]) -> None:
    """A fit ends on an interrupt with the model of fewer epochs, which is none of those to be compared."""
    for warning in caught:
        if issubclass(warning.category, TrainingWarning) and "interrupted" in str(warning.message):
            raise KeyboardInterrupt


def _errors(model: Model, test: Ratings, made: Comparison, label: str) -> Plain:
    pairs = model.pairs_of(test)
    predicted = model.predict_codes(pairs).astype(np.float64)
    root, error = rmse_error(test.values, predicted, test.user_codes)
    errors = np.abs(test.values - predicted)
    made.losses[label] = np.square(errors)
    cold = isinstance(model, ColdUsers)
    groups = breakdown(model, test).to_dicts()
    return {
        "rmse": root,
        "error": None if math.isnan(error) else error,
        "mae": float(errors.mean()),
        "user_rmse": float(np.sqrt(per_group_means(made.losses[label], test.user_codes)).mean()),
        "user_mae": float(per_group_means(errors, test.user_codes).mean()),
        **_probabilities(model, test),
        "n": len(test),
        "predict_us": None if cold else 1e6 * _predict_seconds(model, Pairs(pairs.users, pairs.items)),
        # cold users are known by their given ratings alone, which say nothing of how popular an item is
        "breakdown": [group for group in groups if group["by"] == "activity" or not cold],
    }


def _probabilities(model: Model, test: Ratings) -> Plain:
    """Log loss and ranked probability score of a model that knows how sure it is, where ratings are steps."""
    if not isinstance(model, UncertainModel):
        return {}
    try:
        made = model.evaluate_probabilities(test)
    except ParameterError:  # too many different ratings
        return {}
    return {name: made[name] for name in ("log_loss", "rps")}


def _predict_seconds(model: Model, pairs: Pairs) -> float:
    """Seconds per pair, of predictions of the whole test, repeated while that is quick."""
    spent, predicted = 0.0, 0
    while spent < SECONDS:
        began = time.perf_counter()
        model.predict_codes(pairs)
        spent += time.perf_counter() - began
        predicted += len(pairs)
    return spent / predicted


def _ranks(model: Model, job: _Job) -> Plain:
    threshold = job.train.global_mean if job.at_least is None else job.at_least
    try:
        ranked = evaluate_ranking(model, job.test, job.k, at_least=threshold)
    except DataError:  # no relevant item in the test: errors are all there is
        return {}
    lists = {} if isinstance(model, ColdUsers) else ranked.lists  # which compare with the training
    return {**ranked.figures, "ranking_errors": ranked.errors, **lists}
