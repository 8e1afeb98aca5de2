"""The commands that judge models: evaluate, compare, tune, report. They read arguments, call the library, and print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gramian.cli.arguments import READ, Reading, load_model, measure_intervals, with_reading
from gramian.cli.options import Engine, Items, Json, Master, ModelPath, Out, RatingsPath, Unknown
from gramian.core.plain import Plain
from gramian.errors import ParameterError
from gramian.visuals.console import note, print_json, print_table, terminal_width, write_table

if TYPE_CHECKING:
    from gramian.data.ratings import Ratings
    from gramian.evaluate.compare import Comparison
    from gramian.evaluate.protocols import HeldOut

__all__ = ["compare", "evaluate", "report", "tune"]

WIDE = 110  # characters that all columns of a comparison take
NARROW = ("model", "rmse", "error", "p", "ndcg", "fit_seconds", "peak_mb", "reason")
VALIDATION = 0.1  # of the training ratings, for --choose
TABLES = (".csv", ".parquet")
PICTURES = (".png", ".svg", ".pdf")

Test = Annotated[str, typer.Option(help="The test: a share (0.2) or a file.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How a share is held out: time (the default where there are times), random, last (each user's last "
        "rating) or cold_users (users whom the models meet for the first time)."
    ),
]
Models = Annotated[str | None, typer.Option(help="Names, separated by commas; the whole family if not given.")]
Seed = Annotated[int, typer.Option(help="Of a random split.")]
Length = Annotated[int, typer.Option("-k", "--k", help="The length of the lists that are ranked.")]
Threshold = Annotated[float | None, typer.Option(help="The rating from which a test item is relevant.")]
Log = Annotated[str | None, typer.Option(help="Append a JSON line to this file after each model.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on: take what is in the log from there.")]


@with_reading
def evaluate(  # noqa: PLR0913 - its options are the user's
    model: ModelPath,
    ratings: RatingsPath,
    unknown: Unknown = "fallback",
    clip: Annotated[bool, typer.Option(help="Clip predictions to the scale.")] = True,
    calibration: Annotated[bool, typer.Option("--calibration", help="Measure the intervals, too.")] = False,
    plot: Annotated[str | None, typer.Option(help="Draw the calibration to this PNG, SVG or PDF.")] = None,
    engine: Engine = "local",
    master: Master = None,
    read: Reading = READ,
    json: Json = False,
) -> None:
    """Measure a model on ratings it was not trained on."""
    if plot is not None and not calibration:
        raise ParameterError("The picture --plot shows the calibration: give --calibration with it.")
    trained = load_model(model, stored=True)
    if engine != "local":
        from gramian.cli.on_spark import spark_frame
        from gramian.cluster.inference import evaluate as evaluate_on_spark

        columns = {**read.columns, "time": None}
        print_json(
            evaluate_on_spark(trained, spark_frame(engine, ratings, master), unknown=unknown, clip=clip, **columns)
        )
        return
    test = read(ratings)
    users, items = trained.codes_of(test)
    cold = int(((users < 0) | (items < 0)).sum())
    seen = trained.count_seen(test)
    errors = trained.evaluate(test, unknown=unknown, clip=clip)
    measured = measure_intervals(trained, test, unknown, plot) if calibration else None
    if json:
        more = {} if measured is None else {"calibration": measured.to_dict()}
        print_json({**errors, "cold": cold, "seen": seen, **more})
        return
    print(
        "  ".join(
            f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value:,}" for key, value in errors.items()
        )
    )
    if measured is not None:
        print(measured)
        print_table(measured.curve)
        print_table(measured.groups, f"{100 * measured.level:g} % intervals within groups by training ratings")
    if cold:
        print(f"{cold:,} of {len(test):,} pairs have a user or an item without training ratings.")
    if seen:
        note(f"note: {seen:,} of {len(test):,} pairs were in the training: for them this is no test.")


@with_reading
def compare(  # noqa: PLR0913 - its options are the user's
    ratings: RatingsPath,
    models: Models = None,
    test: Test = "0.2",
    protocol: Protocol = None,
    seed: Seed = 0,
    k: Length = 10,
    at_least: Threshold = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Compare on validation ratings, and measure the best on the test, once.")
    ] = False,
    log: Log = None,
    resume: Resume = False,
    report: Annotated[str | None, typer.Option(help="Write the whole report to this HTML file, too.")] = None,
    out: Out = None,
    read: Reading = READ,
    json: Json = False,
) -> None:
    """Fit several models to the same ratings: errors, rankings, seconds and memory in one table."""
    from gramian.evaluate.compare import compare as compare_recipes

    check_writable(out, TABLES)
    check_writable(report)
    if report is not None:
        check_reported(protocol, choose)
    train, held, rule = parts(ratings, test, protocol, seed, read)
    keeping = keep_apart(train, held, rule, seed) if choose else None
    if keeping is not None:
        train, held = keeping.train, keeping.validation or held
    given, asked = held.split(0.5, seed=seed) if rule == "cold_users" else (None, held)
    log = log if log is not None or not resume else "compare.jsonl"
    made = compare_recipes(
        chosen(models), train, asked, given=given, k=k, at_least=at_least, split=f"{rule}, {test}, seed {seed}",
        log=log, resume=resume, keep_models=report is not None, say=note,
    )  # fmt: skip
    final = _measure_best(made, keeping, log) if keeping is not None and not made.interrupted else None
    _show(made, final, out, json, k)
    if report is not None and made.records and not made.interrupted:
        from gramian.evaluate.report import write_report

        write_report(report, made, train, asked)
        note(f"{report}: the report")
    if made.interrupted:
        note("Interrupted: the rows are those that were finished." + (" Go on with --resume." if log else ""))
        sys.exit(130)


def check_reported(protocol: str | None, choose: bool = False) -> None:
    """Raise ParameterError for what a report cannot show."""
    if protocol == "cold_users":
        raise ParameterError("A report is about users of the training: give --protocol time, random or last.")
    if choose:
        raise ParameterError("A report shows test errors, which --choose keeps back: leave one of the two out.")


def keep_apart(train: Ratings, test: Ratings, rule: str, seed: int) -> HeldOut:
    """The test kept back, and a validation part cut from the training by the same rule, to choose on."""
    from gramian.evaluate.protocols import HeldOut, cut_off

    rule = "random" if rule == "file" else rule
    return HeldOut(*cut_off(train, rule, VALIDATION, seed + 1), train, rule, test, seed)


def _measure_best(made: Comparison, held: HeldOut, log: str | None) -> Plain:
    """The model chosen, fitted on training and validation ratings, and measured on the test once."""
    from gramian.evaluate.log import append_record
    from gramian.registry import recipe_from_dict

    record = next(record for record in made.records if record["model"] == made.best)
    final = {"chosen": made.best, **held.evaluate(recipe_from_dict(record["recipe"]).fit(held.development))}
    if log is not None:
        append_record(log, {**final, "recipe": record["recipe"], "versions": record["versions"]})
    return final


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


def parts(ratings: str, test: str, protocol: str | None, seed: int, read: Reading) -> tuple[Ratings, Ratings, str]:
    """The training and the test ratings, a share of one file by a protocol or two files; and which it was."""
    from gramian.core.parameters import check_choice
    from gramian.evaluate.protocols import PROTOCOLS, cut_off

    if protocol is not None:
        check_choice("--protocol", protocol, PROTOCOLS, "compare")
    table = read(ratings)
    try:
        share = float(test)
    except ValueError:
        if protocol is not None:
            raise ParameterError(
                "A --protocol cuts the test from the ratings; leave it out where --test is a file."
            ) from None
        return table, read(test), "file"
    rule = protocol or ("random" if table.times is None else "time")
    return *cut_off(table, rule, share, seed), rule


def _show(made: Comparison, final: Plain | None, out: str | None, json: bool, k: int) -> None:
    on = "the test" if final is None else "validation ratings"
    if json:
        print_json(made.records if final is None else {"records": made.records, "chosen": final})
    elif out:
        write_table(made.table, out)
        note(f"{out}: {made.table.height:,} rows")
    elif made.records:
        table = made.table
        what = f"Errors on {on} ± standard error, ndcg and recall at {k}, µs per pair, p against the best"
        if terminal_width() < WIDE:
            table = table.select(name for name in NARROW if name in table.columns)
            note("note: The terminal is too narrow for all columns; --out and --json have them.")
        print_table(table, what)
    if final is not None and not json:
        print(f"chosen: {final['chosen']}; on the test, once: RMSE {final['rmse']:.4f}, MAE {final['mae']:.4f}")
    elif made.earlier and final is None:
        note(
            f"note: The log has {made.earlier} other settings on these test ratings. The least of many errors is "
            "partly luck: choose on validation ratings (--choose, or gramian tune)."
        )


@with_reading
def tune(  # noqa: PLR0913 - its options are the user's
    ratings: RatingsPath,
    model: Annotated[str, typer.Option("--model", "-m", help="Which model.")] = "als",
    trials: Annotated[int, typer.Option(help="How many settings are tried.")] = 50,
    seconds: Annotated[float | None, typer.Option(help="Begin no trial after so long.")] = None,
    validation: Annotated[float, typer.Option(help="The share to validate on, cut from RATINGS.")] = 0.1,
    protocol: Annotated[str, typer.Option(help="How it is cut: random, time or last.")] = "random",
    folds: Annotated[
        int | None, typer.Option(help="How many parts are cut; 3 if not given, 1 by time or last.")
    ] = None,
    seed: Seed = 0,
    storage: Annotated[str | None, typer.Option(help="An SQLite file to keep the trials in.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search of --storage.")] = False,
    jobs: Annotated[int, typer.Option(help="Trials at a time.")] = 1,
    log: Annotated[str | None, typer.Option(help="Append a JSON line to this file after each trial.")] = None,
    plot: Annotated[str | None, typer.Option(help="Draw the validation curve to this PNG, SVG or PDF.")] = None,
    read: Reading = READ,
    json: Json = False,
) -> None:
    """Search for the best settings of a model, on validation ratings; print them as Python and as a command."""
    from gramian.evaluate.tune import tune as search

    check_writable(plot, PICTURES)
    train = read(ratings)
    found = search(
        model, train, trials=trials, seconds=seconds, validation=validation, protocol=protocol, folds=folds, seed=seed,
        storage=storage, resume=resume, jobs=jobs, log=log, progress=not json and sys.stderr.isatty(),
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
    else:
        print(str(found).replace("fit RATINGS", f"fit {ratings}"))
    if plot is not None:
        from gramian.core.history import History
        from gramian.visuals.figures import learning_curve

        epochs = [{"epoch": epoch, "validation_rmse": error} for epoch, error in enumerate(found.curve, 1)]
        learning_curve(History(epochs), plot, title=found.python)
        note(f"{plot}: the validation curve")
    if found.interrupted:
        note("Interrupted: this is the best so far." + (" Go on with --resume." if storage else ""))
        sys.exit(130)


@with_reading
def report(  # noqa: PLR0913 - its options are the user's
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
    read: Reading = READ,
) -> None:
    """Compare several models, and write one HTML file that shows what came out: data, errors, features, lists."""
    from pathlib import Path

    from gramian.evaluate.compare import compare as compare_recipes
    from gramian.evaluate.report import write_report

    check_writable(out)
    check_reported(protocol)
    train, held, rule = parts(ratings, test, protocol, seed, read)
    if items is not None:
        from gramian.data.readers import read_items

        train = train.with_items(read_items(items))
    log = log if log is not None or not resume else "compare.jsonl"
    made = compare_recipes(
        chosen(models), train, held, k=k, at_least=at_least, split=f"{rule}, {test}, seed {seed}", log=log,
        resume=resume, keep_models=True, say=note,
    )  # fmt: skip
    if made.interrupted:
        note("Interrupted: no report was written." + (" Go on with --resume." if log else ""))
        sys.exit(130)
    write_report(out, made, train, held, title=title or f"Which model for {Path(ratings).name}?")
    note(f"{out}: the report")
