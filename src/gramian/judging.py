"""The commands that judge models: compare, tune, report. They read arguments, call the library, and print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gramian.arguments import column_choices, read_source
from gramian.console import note, print_json, print_table, write_table
from gramian.errors import ParameterError
from gramian.options import Duplicates, Item, Items, Json, Out, Rating, RatingsPath, Separator, Time, User

if TYPE_CHECKING:
    from gramian.comparing import Comparison
    from gramian.ratings import Ratings

__all__ = ["compare", "report", "tune"]

TABLES = (".csv", ".parquet")
PICTURES = (".png", ".svg", ".pdf")

Test = Annotated[str, typer.Option(help="The test: a share (0.2) or a file.")]
Protocol = Annotated[
    str | None,
    typer.Option(help="How a share is held out: time (the default where there are times), random or last."),
]
Models = Annotated[str | None, typer.Option(help="Names, separated by commas; the whole family if not given.")]
Seed = Annotated[int, typer.Option(help="Of a random split.")]
Length = Annotated[int, typer.Option("-k", "--k", help="The length of the lists that are ranked.")]
Threshold = Annotated[float | None, typer.Option(help="The rating from which a test item is relevant.")]
Log = Annotated[str | None, typer.Option(help="Append a JSON line to this file after each model.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on: take what is in the log from there.")]


def compare(
    ratings: RatingsPath,
    models: Models = None,
    test: Test = "0.2",
    protocol: Protocol = None,
    seed: Seed = 0,
    k: Length = 10,
    at_least: Threshold = None,
    log: Log = None,
    resume: Resume = False,
    report: Annotated[str | None, typer.Option(help="Write the whole report to this HTML file, too.")] = None,
    out: Out = None,
    user: User = None,
    item: Item = None,
    rating: Rating = None,
    time: Time = None,
    separator: Separator = None,
    duplicates: Duplicates = "last",
    json: Json = False,
) -> None:
    """Fit several models to the same ratings: errors, rankings, seconds and memory in one table."""
    from gramian.comparing import compare as compare_recipes

    check_writable(out, TABLES)
    check_writable(report)
    train, held = parts(
        ratings, test, protocol, seed, column_choices(user, item, rating, time), separator, duplicates
    )  # fmt: skip
    log = log if log is not None or not resume else "compare.jsonl"
    made = compare_recipes(
        chosen(models), train, held, k=k, at_least=at_least, log=log, resume=resume, keep_models=report is not None,
        say=note,
    )  # fmt: skip
    _show(made, out, json, k)
    if report is not None and made.records and not made.interrupted:
        from gramian.report import write_report

        write_report(report, made, train, held)
        note(f"{report}: the report")
    if made.interrupted:
        note("Interrupted: the rows are those that were finished." + (" Go on with --resume." if log else ""))
        sys.exit(130)


def check_writable(path: str | None, endings: tuple[str, ...] = ()) -> None:
    """Raise ParameterError where a file that is written at the end could not be: before anything is trained."""
    from pathlib import Path

    if path is None:
        return
    if not Path(path).resolve().parent.is_dir():
        raise ParameterError(f"{path!r} cannot be written: there is no folder {str(Path(path).parent)!r}; make it.")
    if endings and not path.lower().endswith(endings):
        raise ParameterError(f"{path!r} must end in one of {', '.join(endings)}.")


def chosen(models: str | None) -> list[str] | None:
    """The names of a list with commas."""
    return None if models is None else [name.strip() for name in models.split(",") if name.strip()]


def parts(
    ratings: str, test: str, protocol: str | None, seed: int, names: dict[str, Any], separator: str | None,
    duplicates: str,
) -> tuple[Ratings, Ratings]:  # fmt: skip
    """The training and the test ratings: a share of one file by a protocol, or two files."""
    from gramian.evaluate.protocols import PROTOCOLS, cut_off
    from gramian.parameters import check_choice

    if protocol is not None:
        # who is new is folded in, which is another measure than that of the table: see hold_out
        check_choice("--protocol", protocol, tuple(name for name in PROTOCOLS if name != "cold_users"), "compare")
    table = read_source(ratings, names, separator, duplicates)
    try:
        share = float(test)
    except ValueError:
        if protocol is not None:
            raise ParameterError(
                "A --protocol cuts the test from the ratings; leave it out where --test is a file."
            ) from None
        return table, read_source(test, names, separator, duplicates)
    return cut_off(table, protocol or ("random" if table.times is None else "time"), share, seed)


def _show(made: Comparison, out: str | None, json: bool, k: int) -> None:
    if json:
        print_json(made.records)
    elif out:
        write_table(made.table, out)
        note(f"{out}: {made.table.height:,} rows")
    elif made.records:
        print_table(made.table, f"Errors ± standard error, ndcg and recall at {k}, µs per pair, p against the best")


def tune(
    ratings: RatingsPath,
    model: Annotated[str, typer.Option("--model", "-m", help="Which model.")] = "als",
    trials: Annotated[int, typer.Option(help="How many settings are tried.")] = 50,
    seconds: Annotated[float | None, typer.Option(help="Begin no trial after so long.")] = None,
    validation: Annotated[float, typer.Option(help="The share to validate on, cut from RATINGS.")] = 0.1,
    protocol: Annotated[str, typer.Option(help="How it is cut: random, time or last.")] = "random",
    seed: Seed = 0,
    storage: Annotated[str | None, typer.Option(help="An SQLite file to keep the trials in.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search of --storage.")] = False,
    jobs: Annotated[int, typer.Option(help="Trials at a time.")] = 1,
    plot: Annotated[str | None, typer.Option(help="Draw the validation curve to this PNG, SVG or PDF.")] = None,
    user: User = None,
    item: Item = None,
    rating: Rating = None,
    time: Time = None,
    separator: Separator = None,
    duplicates: Duplicates = "last",
    json: Json = False,
) -> None:
    """Search for the best settings of a model, on validation ratings; print them as Python and as a command."""
    from gramian.tuning import tune as search

    check_writable(plot, PICTURES)
    train = read_source(ratings, column_choices(user, item, rating, time), separator, duplicates)
    found = search(
        model, train, trials=trials, seconds=seconds, validation=validation, protocol=protocol, seed=seed,
        storage=storage, resume=resume, jobs=jobs, progress=not json and sys.stderr.isatty(),
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
    else:
        print(str(found).replace("fit RATINGS", f"fit {ratings}"))
    if plot is not None:
        from gramian.history import History
        from gramian.plots import learning_curve

        epochs = [{"epoch": epoch, "validation_rmse": error} for epoch, error in enumerate(found.curve, 1)]
        learning_curve(History(epochs), plot, title=found.python)
        note(f"{plot}: the validation curve")
    if found.interrupted:
        note("Interrupted: this is the best so far." + (" Go on with --resume." if storage else ""))
        sys.exit(130)


def report(
    ratings: RatingsPath,
    out: Annotated[str, typer.Option("--out", "-o", help="The HTML file to write.")] = "report.html",
    title: Annotated[str | None, typer.Option(help="The heading; the name of the ratings if not given.")] = None,
    items: Items = None,
    models: Models = None,
    test: Test = "0.2",
    protocol: Protocol = None,
    seed: Seed = 0,
    k: Length = 10,
    at_least: Threshold = None,
    log: Log = None,
    resume: Resume = False,
    user: User = None,
    item: Item = None,
    rating: Rating = None,
    time: Time = None,
    separator: Separator = None,
    duplicates: Duplicates = "last",
) -> None:
    """Compare several models, and write one HTML file that shows what came out: data, errors, features, lists."""
    from pathlib import Path

    from gramian.comparing import compare as compare_recipes
    from gramian.report import write_report

    check_writable(out)
    train, held = parts(ratings, test, protocol, seed, column_choices(user, item, rating, time), separator, duplicates)
    if items is not None:
        from gramian.data.readers import read_items

        train = train.with_items(read_items(items))
    log = log if log is not None or not resume else "compare.jsonl"
    made = compare_recipes(
        chosen(models), train, held, k=k, at_least=at_least, log=log, resume=resume, keep_models=True, say=note
    )
    if made.interrupted:
        note("Interrupted: no report was written." + (" Go on with --resume." if log else ""))
        sys.exit(130)
    write_report(out, made, train, held, title=title or f"Which model for {Path(ratings).name}?")
    note(f"{out}: the report")
