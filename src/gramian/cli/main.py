"""The command line: it reads arguments, calls the library, and prints. It has no logic of its own."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gramian.cli.arguments import (
    READ,
    Reading,
    checkpoint_beside,
    column_choices,
    held_out_part,
    intervals,
    item_id,
    known_columns,
    load_model,
    need_draws,
    open_source,
    probabilities,
    rated_items,
    recipe_fields,
    tables_about,
    typed_id,
    with_reading,
    with_recipe_fields,
)
from gramian.cli.convert import convert, export
from gramian.cli.inspect import ask, diagnose, features, similar
from gramian.cli.judge import compare, evaluate, report, tune
from gramian.cli.on_spark import SparkTable, fit_in_folder, prepare, recommend_on_spark, spark_source
from gramian.cli.options import (
    Count,
    Engine,
    Item,
    Items,
    Json,
    Master,
    ModelPath,
    Out,
    RatingsPath,
    Separator,
    Storage,
    Stored,
    Time,
    Unknown,
    User,
)
from gramian.cli.server import keys, serve, update
from gramian.core.plain import Plain
from gramian.errors import GramianError, ParameterError, TrainingWarning
from gramian.visuals.console import give, note, print_json, show_warnings_as_notes, write_table

if TYPE_CHECKING:
    from gramian.data.table import RatingsTable

T = TypeVar("T")

app = typer.Typer(
    name="gramian",
    help="Learn from ratings: fit, evaluate, predict, recommend, explain.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line: an error of ours is one sentence on stderr and exit code 2, never a traceback."""
    show_warnings_as_notes()
    try:
        app()
    except GramianError as error:
        note(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (what is left to flush has nowhere to go)
        note(f"error: The output could not be written: {error.strerror or error}.")
        sys.exit(2)


def _show_version(wanted: bool) -> None:
    if wanted:
        from gramian import __version__

        print(f"gramian {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learn from ratings: fit, evaluate, predict, recommend, explain."""


def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", help="The folder for the pictures and the model.")
    ] = "gramian-demo",
    user: Annotated[int, typer.Option(help="Whom to recommend for.")] = 15,
) -> None:
    """Train several models on bundled real ratings: an honest error table, recommendations, pictures."""
    from gramian.cli.demo import run_demo

    run_demo(Path(out), user)


@with_reading
def describe(
    ratings: RatingsPath,
    factors: Annotated[int, typer.Option(help="K, for the number of parameters.")] = 10,
    against: Annotated[str | None, typer.Option(help="A second file, the test set say: check for leaks.")] = None,
    read: Reading = READ,
    json: Json = False,
) -> None:
    """Say what is in a file of ratings, and what looks wrong with it."""
    from gramian.data.doctor import check_ratings
    from gramian.data.prepared import is_prepared, open_prepared

    if is_prepared(ratings):
        open_prepared(ratings).check()
        findings = []
    else:
        findings = check_ratings(
            open_source(ratings, read.separator),
            against=against and open_source(against, read.separator),
            separator=read.separator,
            **read.columns,
        )
    errors = [f for f in findings if f.severity == "error"]
    table = None if errors else read(ratings, quiet=True)
    if json:
        described = None if table is None else table.describe(factors).to_dict()
        print_json({"description": described, "findings": [dataclasses.asdict(f) for f in findings]})
    else:
        if table is not None:
            print(table.describe(factors))
        for finding in findings:
            print(finding)
    if errors:
        sys.exit(2)


@with_reading
@with_recipe_fields
def fit(  # noqa: PLR0913 - its options are the user's
    ratings: RatingsPath,
    model: str = "als",
    out: Annotated[str, typer.Option("--out", "-o", help="The model file to write.")] = "model.gramian",
    validation: Annotated[
        str | None, typer.Option(help="Hold out a part (0.1) or give a file, to measure after each epoch.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    items: Items = None,
    users: Annotated[str | None, typer.Option("--users", help="A table about users, as features (bpmf).")] = None,
    items_title: Annotated[str | None, typer.Option(help="The column of titles in --items.")] = None,
    items_id: Annotated[str | None, typer.Option(help="The column of item ids in --items, found if not given.")] = None,
    engine: Engine = "local",
    master: Master = None,
    storage: Storage = None,
    stored: Stored = False,
    read: Reading = READ,
    json: Json = False,
    **fields: object,
) -> None:
    """Train a model and write it to a file."""
    from gramian.registry import make_recipe

    features, titles = tables_about(model, users, items, items_id, items_title)
    given, time = recipe_fields(model, fields, read.columns["time"])
    recipe = make_recipe(model, **given, **features)
    read = dataclasses.replace(read, columns={**read.columns, "time": time})
    on_spark = SparkTable(engine, master, ratings, storage, read)
    if stored:
        fit_in_folder(recipe, on_spark, validation, out, resume, json)
        return
    train: RatingsTable = read(ratings) if engine == "local" else spark_source(recipe, on_spark, validation)
    if titles is not None:
        train = train.with_items(titles)
    train, held_out = held_out_part(train, validation, read)
    note(f"{recipe}\n{train}")
    checkpoint = checkpoint_beside(out, resume)
    trained, interrupted = _interruptible(
        lambda: recipe.fit(
            train, held_out, checkpoint=checkpoint, resume=resume, keep_checkpoint=True, progress=not json
        )
    )
    trained.save(out)
    if not interrupted:
        checkpoint.unlink(missing_ok=True)
    last = dict(trained.history[-1])
    if json:
        print_json({"model": out, **trained.card()})
    else:
        errors = ", ".join(f"{key} {last[key]:.4f}" for key in ("train_rmse", "validation_rmse") if key in last)
        print(f"{out}: epoch {last['epoch']}, {errors}")
    if interrupted:
        note(f"Go on with the same command and --resume (the state is in {out}.checkpoint).")
        sys.exit(130)


def _interruptible(training: Callable[[], T]) -> tuple[T, bool]:
    """Run a training; say whether it was interrupted and its model is that of the last full epoch."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained = training()
    for warning in caught:
        note(f"note: {warning.message}")
    return trained, any(issubclass(w.category, TrainingWarning) for w in caught)


def predict(  # noqa: PLR0913 - its options are the user's
    model: ModelPath,
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help="A table with the columns user and item.")],
    out: Out = None,
    unknown: Unknown = "fallback",
    clip: Annotated[bool, typer.Option(help="Clip predictions to the scale.")] = True,
    interval: Annotated[
        float | None, typer.Option(help="Add the ends of intervals of this level, 0.9 say: lower and upper.")
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Add the probability of every rating: p_1 …")] = False,
    user: User = None,
    item: Item = None,
    time: Time = None,
    separator: Separator = None,
    json: Json = False,
) -> None:
    """Predict ratings of (user, item) pairs, at their times where given; to stdout as CSV unless --out is given."""
    from gramian.data.readers import read_table

    trained = load_model(model, stored=True)
    table = read_table(pairs, column_choices(user, item, None, time), separator=separator, needed=("user", "item"))[0]
    times = table.get_column("time", default=None)
    predicted = trained.predict(table["user"], table["item"], times=times, unknown=unknown, clip=clip)
    made = table.select("user", "item").with_columns(prediction=predicted)
    if interval is not None:
        ends = intervals(trained, table, interval, unknown, clip)
        made = made.with_columns(lower=ends[:, 0], upper=ends[:, 1])
    if proba:
        made = made.hstack(probabilities(trained, table, unknown))
    if json:
        print_json(made.to_dicts())
    elif out:
        write_table(made, out)
        note(f"{out}: {made.height:,} predictions")
    else:
        sys.stdout.write(made.write_csv())


@with_reading
def conformal(
    model: ModelPath,
    ratings: RatingsPath,
    out: Annotated[str, typer.Option("--out", "-o", help="The model file to write.")] = "conformal.gramian",
    by: Annotated[str | None, typer.Option(help="Calibrate within groups: by activity or popularity.")] = None,
    groups: Annotated[int, typer.Option(help="How many groups.")] = 4,
    read: Reading = READ,
) -> None:
    """Give any model intervals with guaranteed coverage, from ratings held out of its training."""
    from gramian.models.conformal import conformal as calibrate

    held_out = read(ratings)
    calibrate(load_model(model), held_out, by=by, groups=groups).save(out)
    note(f"{out}: the model of {model} with intervals from {len(held_out):,} ratings")


def recommend(  # noqa: PLR0913 - its options are the user's
    model: ModelPath,
    user: Annotated[list[str] | None, typer.Option(help="A user id; may be given several times.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="For every user.")] = False,
    rated: Annotated[
        list[str] | None, typer.Option("--rated", metavar="ITEM=RATING", help="For somebody new, who rated this.")
    ] = None,
    about: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="For somebody new, of whom this is known (bpmf).")
    ] = None,
    among: Annotated[list[str] | None, typer.Option(help="A candidate item; may be given several times.")] = None,
    n: Count = 10,
    seen: Annotated[bool, typer.Option("--seen", help="Items that the user rated, too.")] = False,
    by: Annotated[
        str | None, typer.Option(help="Models that know how sure they are: mean, lower (what is safe) or thompson.")
    ] = None,
    level: Annotated[float, typer.Option(help="The level of the interval, for --by lower.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Which draw, for --by thompson.")] = 0,
    unknown: Unknown = "raise",
    engine: Engine = "local",
    master: Master = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Recommend items: for users, for everyone, or for somebody new from a few ratings."""
    if (bool(user), everyone, bool(rated or about)).count(True) != 1:
        raise ParameterError(
            "Say for whom to recommend: one of --user ID, --all, or --rated ITEM=RATING (and --about)."
        )
    trained = load_model(model, stored=True)
    if engine != "local":
        recommend_on_spark(engine, trained, everyone, n, not seen, master, out)
        return
    options: Plain = {"exclude_seen": not seen, "unknown": unknown}
    options["among"] = [item_id(trained, text) for text in among] if among else None
    if by is not None:
        need_draws(trained, "other order of recommendations")
        options |= {"by": by, "level": level, "seed": seed}
    if about:
        need_draws(trained, "features")
        options["features"] = known_columns(about)
    if rated or about:
        table = trained.recommend_for(rated_items(trained, rated or []), n, **options)
    else:
        ids = [typed_id(text, trained.user_ids) for text in user] if user else None
        table = trained.recommend(ids, n, **options)
    give(table, out, json)


COMMANDS = (
    demo, describe, fit, predict, recommend, evaluate, compare, tune, report,  # what a user meets first comes first
    similar, features, ask, diagnose, conformal, update, serve, convert, export, prepare,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.add_typer(keys, name="keys")
