"""The command for ratings larger than memory: prepare. It reads arguments, calls the library, and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gramian.arguments import column_choices
from gramian.console import note, print_json
from gramian.errors import ParameterError
from gramian.options import Duplicates, Item, Json, Rating, Separator, Time, User

__all__ = ["prepare"]

LARGE = "a Parquet, Arrow or text file, a folder of them, a Delta Lake or Iceberg table, or a database's address"


def prepare(
    ratings: Annotated[str, typer.Argument(metavar="RATINGS", help=f"Ratings: {LARGE} (with --query).")],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to make.")] = "prepared",
    query: Annotated[str | None, typer.Option(help="SQL text: RATINGS is postgresql://… or sqlite:///….")] = None,
    memory: Annotated[float, typer.Option(help="GiB for the rows that are sorted at a time.")] = 2.0,
    times: Annotated[bool, typer.Option(help="Keep the times, where there are some.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a preparation that was broken off.")] = False,
    user: User = None,
    item: Item = None,
    rating: Rating = None,
    time: Time = None,
    separator: Separator = None,
    duplicates: Duplicates = "last",
    json: Json = False,
) -> None:
    """Turn ratings larger than memory into a folder that fit can train on."""
    import shutil

    from gramian.data import preparing
    from gramian.data.sources import stored_query

    if query is None and "://" in ratings:
        raise ParameterError("What to read from the database is missing: give --query 'SELECT …'.")
    source, goal = Path(ratings), Path(out)
    rows = goal.parent / f".{goal.name}.rows"
    preparing.check_goal(goal)
    if query is not None:
        note(f"reading from {ratings.partition(':')[0]}")
        source = stored_query(query, ratings, rows, resume=resume)
    made = preparing.prepare(
        source, goal, **column_choices(user, item, rating, time), separator=separator, duplicates=duplicates,
        times=times, memory=memory, resume=resume, say=note,
    )  # fmt: skip
    if query is not None:
        shutil.rmtree(rows)
    size = sum(file["bytes"] for file in made.about["files"].values())
    if json:
        print_json({"folder": out, "bytes": size, **{k: v for k, v in made.about.items() if k != "files"}})
    else:
        print(f"{out}: {made!r}, {size / 1e9:.2f} GB; train with: gramian fit {out}")
