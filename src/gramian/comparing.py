"""Which model? Every recipe fitted to the same training ratings and measured on the same test ratings."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gramian.errors import DataError, DivergenceError, GramianError, ParameterError, TrainingWarning
from gramian.evaluate.protocols import breakdown
from gramian.evaluate.ranking import Popularity, evaluate_ranking
from gramian.evaluate.records import append_record, peak_memory, read_records, run_key, versions
from gramian.models.base import Array, Model, Recipe, check_ratings_given
from gramian.parameters import check_number
from gramian.ratings import Ratings
from gramian.significance import paired_test, rmse_error
from gramian.zoo import family, make_recipe

__all__ = ["Comparison", "compare", "label_of"]

Recipes = Sequence[Recipe[Any] | str] | Mapping[str, Recipe[Any]]
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
    """

    records: list[dict[str, Any]]
    models: dict[str, Model] = field(default_factory=dict, repr=False)
    losses: dict[str, Array] = field(default_factory=dict, repr=False)
    users: Array = field(default_factory=lambda: np.empty(0), repr=False)
    interrupted: bool = False

    @property
    def table(self) -> pl.DataFrame:
        """One row per model, best first: error ± its standard error, ranking, seconds, memory, parameters.

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


COLUMNS: dict[str, Any] = {
    "model": pl.String,
    "rmse": pl.Float64,
    "error": pl.Float64,
    "mae": pl.Float64,
    "ndcg": pl.Float64,
    "recall": pl.Float64,
    "fit_seconds": pl.Float64,
    "predict_us": pl.Float64,
    "peak_mb": pl.Float64,
    "parameters": pl.Int64,
    "reason": pl.String,
}


def compare(
    recipes: Recipes | None,
    train: Ratings,
    test: Ratings,
    *,
    k: int = 10,
    at_least: float | None = None,
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
        k: The length of the lists that are ranked.
        at_least: The rating from which a test item is relevant; the training mean if not given.
        log: A file to append a JSON line to after each model.
        resume: Take models that the log has with the same recipe, data, k and at_least from there.
        keep_models: Keep the models, in memory.
        say: Called with a line of text when a model is begun.

    An interrupt (Ctrl-C) ends the comparison with the rows that are finished.

    Raises:
        DataError: Ratings are not ratings, or the log cannot be written.
        ParameterError: A name is unknown, or ``resume`` is asked without a log.
    """
    for table in (train, test):
        check_ratings_given(table, "compare")
    check_number("k", k, low=1, whole=True, owner="compare")
    if resume and log is None:
        raise ParameterError("The 'resume' parameter of compare needs a log; give log='file'.")
    if log is not None and not Path(log).resolve().parent.is_dir():
        raise DataError(f"The log {str(log)!r} cannot be written: there is no such folder; make it first.")
    k, at_least = int(k), None if at_least is None else float(at_least)
    wanted = _labelled(recipes)
    done = {r.get("key"): r for r in read_records(log) if "reason" not in r} if resume and log else {}
    made = Comparison([], users=test.user_codes)
    for number, (label, recipe) in enumerate(wanted.items(), 1):
        key = run_key(recipe, train, test, k, at_least)
        if key in done:
            made.records.append({**done[key], "model": label})
            continue
        if say is not None:
            say(f"{number} of {len(wanted)}: {label} …")
        try:
            record = _one(label, recipe, train, test, k, at_least, made, keep_models)
        except KeyboardInterrupt:
            return dataclasses.replace(made, interrupted=True)
        made.records.append(record)
        if log is not None:
            append_record(log, {"key": key, **record})
    return made


def label_of(recipe: Recipe[Any]) -> str:
    """The recipe's name and what differs from its defaults."""
    changed = [
        f"{field.name}={getattr(recipe, field.name)}"
        for field in dataclasses.fields(recipe)
        if getattr(recipe, field.name) != field.default
    ]
    return f"{recipe.name} {', '.join(changed)}".strip()


def _labelled(recipes: Recipes | None) -> dict[str, Recipe[Any]]:
    if recipes is None:
        recipes = [*family(), Popularity()]
    if isinstance(recipes, str | Recipe):
        raise ParameterError(f"The 'recipes' parameter of compare must be a list of recipes; got {recipes!r}.")
    each = [_named(recipe) if isinstance(recipe, str) else recipe
            for recipe in (recipes.values() if isinstance(recipes, Mapping) else recipes)]  # fmt: skip
    for recipe in each:
        if not isinstance(recipe, Recipe):
            raise ParameterError(f"Recipes or their names are needed to compare; got {recipe!r}.")
    labels = recipes if isinstance(recipes, Mapping) else map(label_of, each)
    made = dict(zip(labels, each, strict=True))
    if not made:
        raise ParameterError("There is nothing to compare: the list of recipes is empty.")
    return made


def _named(name: str) -> Recipe[Any]:
    return Popularity() if name == Popularity.name else make_recipe(name)


def _one(
    label: str, recipe: Recipe[Any], train: Ratings, test: Ratings, k: int, at_least: float | None,
    made: Comparison, keep: bool,
) -> dict[str, Any]:  # fmt: skip
    """The record of one model; its reason instead where anything at all goes wrong."""
    about: dict[str, Any] = {
        "model": label,
        "recipe": recipe.to_dict(),
        "train": train.fingerprint(),
        "test": test.fingerprint(),
    }
    about |= {"k": k, "at_least": at_least, "versions": versions()}
    try:
        _warm_up(recipe, train)
        model, seconds, peak = _timed_fit(recipe, train)
        figures: dict[str, Any] = {"fit_seconds": seconds, "peak_mb": None if peak is None else peak / 2**20}
        figures |= {"parameters": sum(array.size for array in model.arrays().values())}
        figures |= {"history": [dict(epoch) for epoch in model.history]}
        if not isinstance(recipe, Popularity):
            figures |= _errors(model, test, made, label)
        figures |= _ranks(model, test, k, at_least)
    except Exception as error:  # whatever it is, the others go on
        made.losses.pop(label, None)  # what failed later is not the best either
        said = str(error) if isinstance(error, GramianError) else f"{type(error).__name__}: {error}"
        return {**about, "reason": said.splitlines()[0] if said else type(error).__name__}
    if keep:
        made.models[label] = model
    return {**about, **figures}


def _warm_up(recipe: Recipe[Any], train: Ratings) -> None:
    """One epoch on a few ratings, so that no compiling is timed; where that fails, the fit says why."""
    short = {recipe.length_field: 1} if hasattr(recipe, recipe.length_field) else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataclasses.replace(recipe, **short).fit(train.take(train.user_codes < 5))
    except Exception:
        return


def _timed_fit(recipe: Recipe[Any], train: Ratings) -> tuple[Model, float, int | None]:
    with warnings.catch_warnings(record=True) as caught, peak_memory() as peak:
        warnings.simplefilter("always", TrainingWarning)
        began = time.perf_counter()
        model = recipe.fit(train)
        seconds = time.perf_counter() - began
    for warning in caught:
        said = str(warning.message)
        if issubclass(warning.category, TrainingWarning) and "interrupted" in said:
            raise KeyboardInterrupt  # a model of fewer epochs is none of those to be compared
        if issubclass(warning.category, TrainingWarning) and "was stopped" in said:
            raise DivergenceError(said)
    return model, seconds, peak.bytes


def _errors(model: Model, test: Ratings, made: Comparison, label: str) -> dict[str, Any]:
    users, items = model.codes_of(test)
    predicted = model._predict_codes(users, items, "fallback", True, test.times).astype(np.float64)
    root, error = rmse_error(test.values, predicted, test.user_codes)
    made.losses[label] = np.square(test.values - predicted)
    return {
        "rmse": root,
        "error": None if math.isnan(error) else error,
        "mae": float(np.abs(test.values - predicted).mean()),
        "n": len(test),
        "predict_us": 1e6 * _predict_seconds(model, users, items),
        "breakdown": breakdown(model, test).to_dicts(),
    }


def _predict_seconds(model: Model, users: Array, items: Array) -> float:
    """Seconds per pair, of predictions of the whole test, repeated while that is quick."""
    spent, pairs = 0.0, 0
    while spent < SECONDS:
        began = time.perf_counter()
        model._predict_codes(users, items, "fallback", True)
        spent += time.perf_counter() - began
        pairs += len(users)
    return spent / pairs


def _ranks(model: Model, test: Ratings, k: int, at_least: float | None) -> dict[str, Any]:
    try:
        ranked = evaluate_ranking(model, test, k, at_least=at_least)
    except DataError:  # no relevant item in the test: errors are all there is
        return {}
    return {**ranked.figures, "ranking_errors": ranked.errors, **ranked.lists}
