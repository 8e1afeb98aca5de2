"""The command line for what is larger than one machine's memory: prepare, and other commands on Spark."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gramian.cli.arguments import READ, Reading, is_share, with_reading
from gramian.cli.options import Json
from gramian.core.parameters import check_choice
from gramian.core.plain import Plain
from gramian.errors import ParameterError
from gramian.visuals.console import note, print_json

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from gramian.data.spark_ratings import SparkRatings
    from gramian.models.model import Model
    from gramian.models.recipe import AnyRecipe

__all__ = ["SparkTable", "fit_in_folder", "prepare", "recommend_on_spark", "spark_frame", "spark_source"]

ENGINES = ("local", "spark")
READERS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".orc": "orc", ".json": "json"}

LARGE = "a Parquet, Arrow or text file, a folder of them, a Delta Lake or Iceberg table, or a database's address"


@dataclasses.dataclass(frozen=True)
class SparkTable:
    """A table of ratings on Spark: by which session it is read, how, and where its blocks go."""

    engine: str
    master: str | None
    ratings: str
    storage: str | None
    read: Reading


@with_reading
def prepare(
    ratings: Annotated[str, typer.Argument(metavar="RATINGS", help=f"Ratings: {LARGE} (with --query).")],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")] = "prepared",
    query: Annotated[str | None, typer.Option(help="SQL text: RATINGS is postgresql://… or sqlite:///….")] = None,
    memory: Annotated[float, typer.Option(help="GiB for the rows that are sorted at a time.")] = 2.0,
    times: Annotated[bool, typer.Option(help="Keep the times, where there are some.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a preparation that was broken off.")] = False,
    read: Reading = READ,
    json: Json = False,
) -> None:
    """Turn ratings larger than memory into a folder that fit can train on."""
    import shutil

    from gramian.data import prepare
    from gramian.data.sources import stored_query

    if query is None and "://" in ratings:
        raise ParameterError("What to read from the database is missing: give --query 'SELECT …'.")
    source, goal = Path(ratings), Path(out)
    rows = goal.parent / f".{goal.name}.rows"
    prepare.check_goal(goal)
    if query is not None:
        note(f"reading from {ratings.partition(':')[0]}")
        source = stored_query(query, ratings, rows, resume=resume)
    made = prepare.prepare(
        source, goal, **read.columns, separator=read.separator, duplicates=read.duplicates,
        times=times, memory=memory, resume=resume, say=note,
    )  # fmt: skip
    if query is not None:
        shutil.rmtree(rows)
    size = sum(file["bytes"] for file in made.about["files"].values())
    if json:
        print_json({"folder": out, "bytes": size, **{k: v for k, v in made.about.items() if k != "files"}})
    else:
        print(f"{out}: {made!r}, {size / 1e9:.2f} GB; train with: gramian fit {out}")


def spark_frame(engine: str, ratings: str, master: str | None) -> DataFrame:
    """A table on Spark, from any address that it reads: Parquet, CSV with a header, ORC, JSON, or a Delta folder."""
    from gramian.engine.spark.session import spark_session

    check_choice("--engine", engine, ENGINES, "the command")
    spark = spark_session(master)
    kind = READERS.get(Path(ratings).suffix.lower(), "parquet")
    if "://" not in ratings and (Path(ratings) / "_delta_log").is_dir():
        kind = "delta"
    from pyspark.errors import PySparkException

    try:
        return spark.read.format(kind).options(header="true", inferSchema="true").load(ratings)
    except PySparkException as error:
        reason = str(error).split("\n")[0]
        raise ParameterError(f"Spark cannot read {ratings!r}: {reason}") from None


def spark_source(recipe: AnyRecipe, table: SparkTable, validation: str | None) -> SparkRatings:
    """The ratings of a table on Spark, in blocks there, for a recipe that trains there."""
    from gramian.data.spark_ratings import spark_ratings

    check_choice("--engine", table.engine, ENGINES, "the command")
    recipe.check_distributed()
    if validation is not None and is_share(validation):
        raise ParameterError("On Spark a share cannot be held out: give --validation a file.")
    frame = spark_frame(table.engine, table.ratings, table.master)
    return spark_ratings(frame, **table.read.columns, duplicates=table.read.duplicates, storage=table.storage)


def fit_in_folder(
    recipe: AnyRecipe, table: SparkTable, validation: str | None, out: str, resume: bool, json: bool
) -> None:
    """Train on Spark a model that stays in the folder ``out``, with the blocks of its ratings."""
    from gramian.cluster.stored_training import check_stored, fit_stored

    if table.engine == "local" or validation is not None or table.storage is not None:
        raise ParameterError("With --stored a model is trained by --engine spark, in OUT, without --validation.")
    check_stored(recipe)
    train = spark_source(recipe, dataclasses.replace(table, storage=out), None)
    note(f"{recipe}\n{train}")

    def say(record: Plain) -> None:
        note(f"epoch {record['epoch']}: train_rmse {record['train_rmse']:.4f}, {record['seconds']:.1f} s")

    model = fit_stored(recipe, train, resume=resume, callback=say)
    if json:
        print_json({"model": out, **({} if model is None else model.card())})
    else:
        print(f"{out}: a model in a folder" + ("; open it where it is mounted" if model is None else ""))


def recommend_on_spark(
    engine: str, model: Model, everyone: bool, n: int, exclude_seen: bool, master: str | None, out: str | None
) -> None:
    """Write the best items for every user as a folder of Parquet."""
    from gramian.cluster.inference import recommend_all
    from gramian.engine.spark.session import spark_session

    check_choice("--engine", engine, ENGINES, "the command")
    if not everyone or out is None:
        raise ParameterError("On Spark recommendations are for everyone and go to a folder: give --all and --out.")
    made = recommend_all(model, n, exclude_seen=exclude_seen, spark=spark_session(master))
    made.write.mode("overwrite").parquet(out)
    note(f"{out}: a folder of Parquet with the best {n} items for {len(model.user_ids):,} users")
