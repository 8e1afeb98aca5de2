"""What the arguments of the command line mean: sources, ids, recipe fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gramian.cli.options import Duplicates, Item, Rating, Separator, Time, User
from gramian.core.parameters import FieldSpec, check_number
from gramian.core.plain import Plain
from gramian.errors import DataWarning, ParameterError, UnknownIdWarning
from gramian.visuals.console import note

if TYPE_CHECKING:
    import polars as pl

    from gramian.data.ids import Id, IdTable
    from gramian.data.ratings import Ratings
    from gramian.data.table import RatingsTable
    from gramian.kernels.arrays import Array
    from gramian.models.bayes.posterior import BayesianModel
    from gramian.models.calibration import Calibration
    from gramian.models.conformal import Conformal
    from gramian.models.factor_model import FactorModel
    from gramian.models.model import Model
    from gramian.models.predictive import UncertainModel

__all__ = [
    "READ",
    "Reading",
    "checkpoint_beside",
    "column_choices",
    "held_out_part",
    "intervals",
    "is_share",
    "item_id",
    "known_columns",
    "load_model",
    "measure_intervals",
    "need_draws",
    "open_source",
    "probabilities",
    "rated_items",
    "read_source",
    "recipe_fields",
    "tables_about",
    "typed_id",
    "with_options",
    "with_reading",
    "with_recipe_fields",
]


def with_recipe_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for every field of every recipe in the zoo."""
    from gramian.registry import RECIPES

    options: dict[str, tuple[type, list[str], dict[str, None]]] = {}
    parsers: dict[str, tuple[Callable[[str], object], str]] = {}
    for name, recipe in sorted(RECIPES.items()):
        for field in dataclasses.fields(recipe):
            spec = FieldSpec.of(field)
            if spec.table:  # a command reads the file and gives the table
                continue
            kind = {"int": int, "float": float, "bool": bool}.get(FieldSpec.kind(field), str)
            option = spec.option or field.name
            if spec.word is not None:
                parsers[option] = (_number_or_word, "NUMBER|WORD")
            if spec.most > 1:
                parsers[option] = (_numbers, "NUMBER[,NUMBER…]")
            _, owners, helps = options.setdefault(option, (kind, [], {}))
            owners.append(name)
            helps[f"{spec.help} [default for {name}: {field.default}]"] = None
    given = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    made = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_option(kind, f"{'; '.join(helps)} ({', '.join(owners)})", *parsers.get(name, ())),
        )
        for name, (kind, owners, helps) in options.items()
    ]
    names = ", ".join(sorted(RECIPES))
    hints = inspect.get_annotations(command, eval_str=True)
    typed = [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in given]
    typed = [p.replace(annotation=_named_models(names)) if p.name == "model" else p for p in typed]
    command.__signature__ = inspect.Signature([*typed, *made])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*typed, *made]}
    return command


def _option(kind: type, text: str, parser: Callable[[str], object] | None = None, shown: str | None = None) -> object:
    if parser is not None:
        return Annotated[str | None, typer.Option(help=text, parser=parser, metavar=shown)]
    return Annotated[kind | None, typer.Option(help=text)]


def _number_or_word(text: str) -> float | str:
    """A number where it is one; the recipe says which words it takes."""
    try:
        return float(text)
    except ValueError:
        return text


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(
            f"Whole numbers are needed, with commas between them, as 64 or 64,32; got {text!r}."
        ) from None


def _named_models(names: str) -> object:
    return Annotated[str, typer.Option("--model", "-m", help=f"Which model: {names}.")]


def recipe_fields(model: str, given: Mapping[str, object], time: str | None) -> tuple[Plain, str | None]:
    """The fields of a recipe among the options given, by their names; and the column of times.

    ``--time auto`` is a setting of a model that knows of time, not a column.
    """
    from gramian.registry import RECIPES

    fields = dataclasses.fields(RECIPES[model]) if model in RECIPES else ()
    names = {spec.option: field.name for field in fields if (spec := FieldSpec.of(field)).option}
    made: Plain = {names.get(name, name): value for name, value in given.items() if value is not None}
    if time == "auto" and "time" in names.values():
        made.setdefault("time", "auto")
        time = None
    return made, time


def checkpoint_beside(out: str, resume: bool) -> Path:
    """Where the state of a training is kept that will write ``out``; says what is found there."""
    path = Path(f"{out}.checkpoint")
    if Path(out).is_dir():
        raise ParameterError(f"A file name is needed for --out: {out!r} is a folder.")
    if resume and not path.exists():
        note(f"note: There is no checkpoint {path}: the training begins with the first epoch.")
    if not resume and path.exists():
        note(f"note: The checkpoint {path} of an earlier training is replaced; --resume would have gone on from it.")
    return path


def column_choices(user: str | None, item: str | None, rating: str | None, time: str | None) -> Plain:
    """Column names as given, positions as integers."""
    given = {"user": user, "item": item, "rating": rating, "time": time}
    return {role: int(text) if text is not None and text.isdecimal() else text for role, text in given.items()}


def open_source(ratings: str, separator: str | None) -> str | Ratings:
    """A data set by its name, or the path itself."""
    if Path(ratings).exists() or separator is not None or "." in Path(ratings).name or "/" in ratings:
        return ratings
    from gramian.data.datasets import load_dataset

    try:
        return load_dataset(ratings)
    except ParameterError:
        raise ParameterError(f"There is no file or data set {ratings!r}; check the path or the name.") from None


def read_source(ratings: str, names: Plain, separator: str | None, duplicates: str, quiet: bool = False) -> Ratings:
    """The ratings of a file, or a data set by its name."""
    from gramian.data.readers import read_ratings

    found = open_source(ratings, separator)
    if not isinstance(found, str):
        if any(value is not None for value in names.values()) or duplicates != "last":
            raise ParameterError("Columns and duplicates are given for files only; a data set by its name has its own.")
        return found
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", DataWarning)
        return read_ratings(found, **names, separator=separator, duplicates=duplicates)


READING: list[tuple[str, object, str | None]] = [
    ("user", User, None),
    ("item", Item, None),
    ("rating", Rating, None),
    ("time", Time, None),
    ("separator", Separator, None),
    ("duplicates", Duplicates, "last"),
]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a table of ratings is read: its columns, what parts them, and what is done with repeated pairs."""

    columns: Plain
    separator: str | None
    duplicates: str

    def __call__(self, source: str, *, quiet: bool = False) -> Ratings:
        """The ratings of a file, or of a data set by its name."""
        return read_source(source, self.columns, self.separator, self.duplicates, quiet)


READ = Reading({}, None, "last")  # stands for the options that `with_reading` puts in its place


def with_options(
    name: str, options: Sequence[tuple[str, object, object]], bundle: Callable[..., object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes ``name`` some options in its place, of which ``bundle`` makes it.

    Args:
        name: The parameter of the command.
        options: The name, the annotation for Typer, and the default of each option.
        bundle: Called with the options by their names.
    """

    def changed(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        hints = inspect.get_annotations(command, eval_str=True)
        made: list[inspect.Parameter] = []
        for own, parameter in signature.parameters.items():
            if own != name:
                made.append(parameter.replace(annotation=hints[own], kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            made += [
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=usual, annotation=kind)
                for option, kind, usual in options
            ]

        @functools.wraps(command)
        def run(**given: object) -> None:
            rest: Plain = {**given}
            together = bundle(**{option: rest.pop(option) for option, _, _ in options})
            command(**{name: together}, **rest)

        run.__signature__ = signature.replace(parameters=made)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
        return run

    return changed


def _reading(separator: str | None, duplicates: str, **columns: str | None) -> Reading:
    return Reading(column_choices(**columns), separator, duplicates)


# Gives a command that takes `read` the options for it: --user, --item, --rating, --time and how to read.
with_reading = with_options("read", READING, _reading)


def held_out_part(
    train: RatingsTable, validation: str | None, read: Reading
) -> tuple[RatingsTable, RatingsTable | None]:
    """The training and the validation ratings: a random share of the file, or a file of its own."""
    from gramian.data.ratings import Ratings

    if validation is None:
        return train, None
    if not is_share(validation):
        return train, read(validation)
    assert isinstance(train, Ratings), "of ratings on a cluster a share is refused before"
    return train.split(float(validation), seed=0)


def is_share(validation: str) -> bool:
    """Whether this is a share to hold out, rather than a file."""
    try:
        float(validation)
    except ValueError:
        return False
    return True


def tables_about(
    model: str, users: str | None, items: str | None, items_id: str | None, items_title: str | None
) -> tuple[Plain, pl.DataFrame | None]:
    """The fields of a recipe that learns from features, and the items with their titles, where there are some."""
    from gramian.data.readers import TITLES, features_of, items_of, read_features, read_whole_table
    from gramian.models.bayes.features import FeatureTable
    from gramian.registry import RECIPES

    learns = model in RECIPES and "item_features" in {field.name for field in dataclasses.fields(RECIPES[model])}
    if users is not None and not learns:
        raise ParameterError(f"The model {model!r} does not learn from a table of users; use --model bpmf.")
    fields: Plain = {} if users is None else {"user_features": read_features(users, "user")}
    if items is None:
        return fields, None
    table = read_whole_table(items)
    titled = items_title is not None or any(name.lower() in TITLES for name in table.columns)
    if learns:
        known = features_of(table, "item", items_id)
        known = known.drop([name for name in known.columns if name == items_title and name != "item"])
        made = FeatureTable.found_in(known, "item") if titled else FeatureTable.from_frame(known, "item")
        fields |= {} if made is None else {"item_features": made}
    return fields, items_of(table, items_id, items_title) if titled or not learns else None


def load_model(path: str, *, stored: bool = False) -> FactorModel:
    """The model of a file; or of a folder, for what works on those, too (``stored``)."""
    from gramian.cluster.stored_model import is_stored_model
    from gramian.registry import load

    if not stored and is_stored_model(path):
        raise ParameterError(
            f"The model {path!r} stays in its folder, where predict, evaluate and recommend work on it; if it fits "
            "into memory, gm.load(folder).save(file) makes a model file of it."
        )
    return cast("FactorModel", load(path))


def need_draws(model: Model, what: str) -> BayesianModel:
    """The model, if it is a posterior; else an error that says what it lacks."""
    from gramian.models.bayes.posterior import BayesianModel

    if not isinstance(model, BayesianModel):
        name = getattr(model.recipe, "name", "")
        raise ParameterError(
            f"A model of {name!r} has no {what}: it keeps no posterior draws; fit one with --model bpmf."
        )
    return model


def intervals(model: Model, pairs: pl.DataFrame, level: float, unknown: str, clip: bool) -> Array:
    """The intervals of a model that has some, for a table of ``user``, ``item`` and perhaps ``time``."""
    from gramian.models.calibration import check_intervals

    trained = cast("UncertainModel | Conformal", check_intervals(model))
    times = pairs.get_column("time", default=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownIdWarning)  # the prediction has said it
        return trained.predict_interval(pairs["user"], pairs["item"], level, times=times, clip=clip, unknown=unknown)


def probabilities(model: Model, pairs: pl.DataFrame, unknown: str) -> pl.DataFrame:
    """A table of the probability of every rating, of a model that has them."""
    import polars as pl

    trained = need_draws(model, "probabilities")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownIdWarning)  # the prediction has said it
        times = pairs.get_column("time", default=None)
        made = trained.predict_proba(pairs["user"], pairs["item"], times=times, unknown=unknown)
    return pl.DataFrame({f"p_{level:g}": column for level, column in zip(trained.levels, made.T, strict=True)})


def measure_intervals(model: Model, test: Ratings, unknown: str, plot: str | None) -> Calibration:
    """The calibration of a model's intervals, drawn to a file where one is given."""
    from gramian.models.calibration import calibration

    measured = calibration(model, test, unknown=unknown)
    if plot is not None:
        measured.plot(plot)
        note(f"{plot}: the calibration")
    return measured


def typed_id(text: str, ids: IdTable) -> Id:
    """An id from the command line, of the kind that the model's ids are."""
    if ids.is_text:
        return text
    try:
        return int(text)
    except ValueError:
        raise ParameterError(f"The ids of this model are integers; got {text!r}; give an integer.") from None


def item_id(model: Model, text: str) -> Id:
    """An item by its id or, failing that, by a part of its title that only one item has."""
    if model.item_ids.is_text or text.lstrip("-").isdecimal():
        code = typed_id(text, model.item_ids)
        if code in model.item_ids or model.ratings.titles is None:
            return code
    found = model.find_items(text, 5)
    if found.height == 1:
        return found["item"][0]
    if found.height == 0:
        raise ParameterError(f"No item has the id or the title {text!r}; check it.")
    names = "; ".join(f"{item} {title}" for item, title in found.select("item", "title").iter_rows())
    raise ParameterError(
        f"Several items have {text!r} in their title: {names}{' …' if found.height == 5 else ''}; give the id."
    )


def rated_items(model: Model, rated: list[str]) -> dict[Id, float]:
    """The ratings that several ITEM=RATING of the command line give."""
    ratings = dict(_parse_rated(model, text) for text in rated)
    if len(ratings) < len(rated):
        raise ParameterError("An item is rated twice: give each item once with --rated.")
    return ratings


def known_columns(about: list[str]) -> dict[str, str]:
    """What several COLUMN=VALUE of the command line say."""
    parts = [text.partition("=") for text in about]
    for (column, sign, _), text in zip(parts, about, strict=True):
        if not column or not sign:
            raise ParameterError(f"What is known of somebody is written COLUMN=VALUE; got {text!r}.")
    return {column: value for column, _, value in parts}


def _parse_rated(model: Model, text: str) -> tuple[Id, float]:
    """An ITEM=RATING of the command line."""
    item, _, rating = text.rpartition("=")
    try:
        if not item:
            raise ValueError
        value = float(rating)
    except ValueError:
        raise ParameterError(f"A rating is written ITEM=RATING; got {text!r}.") from None
    return item_id(model, item), float(check_number("--rated", value, owner="recommend"))
