"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Count",
    "Duplicates",
    "Engine",
    "Item",
    "Items",
    "Json",
    "Master",
    "ModelPath",
    "Out",
    "Rating",
    "RatingsPath",
    "Separator",
    "Storage",
    "Stored",
    "Time",
    "Unknown",
    "User",
]

SOURCE = "a file (CSV, TSV, '::', gzip, Parquet, Arrow) or a data set's name such as movielens-small"

RatingsPath = Annotated[str, typer.Argument(metavar="RATINGS", help=f"Ratings: {SOURCE}.")]
ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="A model file.")]
User = Annotated[str | None, typer.Option(help="The column of users: a name, or a position from 0.")]
Item = Annotated[str | None, typer.Option(help="The column of items.")]
Rating = Annotated[str | None, typer.Option(help="The column of ratings.")]
Time = Annotated[str | None, typer.Option(help="The column of times; for fit also auto, which is --period auto.")]
Separator = Annotated[str | None, typer.Option(help="The separator of a text file, found if not given.")]
Duplicates = Annotated[str, typer.Option(help="Repeated pairs: last, mean or raise.")]
Items = Annotated[str | None, typer.Option("--items", help="A table of items: titles to show; features, for bpmf.")]
Out = Annotated[str | None, typer.Option("--out", "-o", help="Write to this file (.csv or .parquet) instead.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Unknown = Annotated[str, typer.Option(help="Ids the model does not know: fallback, nan or raise.")]
Count = Annotated[int, typer.Option("-n", "--n", help="How many.")]
Engine = Annotated[str, typer.Option(help="Where: local (threads of this machine) or spark.")]
Master = Annotated[str | None, typer.Option(help="Spark's master: local[4], yarn, spark://host:7077, …")]
Storage = Annotated[str | None, typer.Option(help="Spark: a folder that all machines reach, for blocks of ratings.")]
Stored = Annotated[
    bool, typer.Option("--stored", help="Spark: the model is the folder OUT, and nothing large comes to this machine.")
]
