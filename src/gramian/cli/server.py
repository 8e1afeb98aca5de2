"""The commands of the server: serve, keys, update. They read arguments, call the library, and print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gramian.cli.arguments import READ, Reading, load_model, with_options, with_reading
from gramian.cli.options import Json, ModelPath
from gramian.errors import GramianError, ParameterError
from gramian.visuals.console import note, print_json, print_table

if TYPE_CHECKING:
    from gramian.data.ratings import Ratings
    from gramian.models.model import Model

__all__ = ["keys", "serve", "update"]

keys = typer.Typer(help="Make, list and revoke the API keys of a server.", no_args_is_help=True, rich_markup_mode=None)

Db = Annotated[str, typer.Option(help="The database: a file for SQLite, or a URL such as postgresql://user@host/name.")]


def need(extra: str = "serve") -> None:
    """Raise GramianError where the libraries of the extra are not installed."""
    import importlib.util

    if any(
        importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "sqlalchemy", "prometheus_client")
    ):
        raise GramianError(f"This needs FastAPI and others, which are not installed: pip install 'gramian[{extra}]'.")


class Capacity(NamedTuple):
    """How much the server takes on: requests per second of one client, and how many are worked on at once."""

    rate: float = 200.0
    threads: int = 2


CAPACITY = Capacity()
RATE = Annotated[float, typer.Option(help="Requests per second of one client, 0 for no limit.", min=0)]
THREADS = Annotated[int, typer.Option(help="How many requests are worked on at once.", min=1, max=64)]


@with_options("capacity", [("rate", RATE, CAPACITY.rate), ("threads", THREADS, CAPACITY.threads)], Capacity)
def serve(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model file; the demonstration's model if not given.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to be reached at; others than loopback need API keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port.", min=1, max=65535)] = 8000,
    db: Annotated[
        str | None, typer.Option(help="Keep new ratings here: a file for SQLite, or a PostgreSQL URL. Needs API keys.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="A table of items with titles to show.")] = None,
    test: Annotated[str | None, typer.Option(help="Ratings to measure the model with: errors and calibration.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="A name it may be called by, behind a proxy say; several times for more."),
    ] = None,
    capacity: Capacity = CAPACITY,
) -> None:
    """Put a model on the network: an HTTP API, a page for people, and new ratings kept."""
    need()
    from gramian.serve.limits import Limits
    from gramian.serve.run import run

    names = tuple(one.lower() for one in name or ())
    rate, threads = capacity
    settings = Limits(host=host, names=names, keys=db is not None, rate=rate, burst=int(2 * rate), threads=threads)
    run(model, settings, port=port, db=db, items=items, test=test)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called, in the list and in the audit.")],
    db: Db,
    role: Annotated[str, typer.Option(help="read: ask; write: also rate; admin: also reload.")] = "read",
) -> None:
    """Make an API key and print its secret, which is shown this once and kept nowhere."""
    need()
    from gramian.core.parameters import check_choice
    from gramian.serve.store import ROLES, Store

    check_choice("--role", role, ROLES, "keys create")
    store = Store(db)
    try:
        print(store.create_key(name, role))
    finally:
        store.close()
    note(f"The key {name!r} has the role {role}. Send it as 'Authorization: Bearer KEY'.")


@keys.command(name="list")
def list_keys(db: Db, json: Json = False) -> None:
    """List the keys: name, role, when made and revoked."""
    need()
    import polars as pl

    from gramian.serve.store import Store

    store = Store(db)
    try:
        rows = [dict(row) for row in store.list_keys()]
    finally:
        store.close()
    if json:
        print_json(rows)
        return
    columns = {"name": pl.String, "role": pl.String, "created_at": pl.Int64, "revoked_at": pl.Int64}
    dates = [pl.from_epoch(name).alias(name) for name in ("created_at", "revoked_at")]
    print_table(
        pl.DataFrame([{name: row[name] for name in columns} for row in rows], schema=columns).with_columns(dates)
    )


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="The key's name.")], db: Db) -> None:
    """Make a key worthless, for running servers within seconds."""
    need()
    from gramian.serve.store import Store

    store = Store(db)
    try:
        store.revoke_key(name)
    finally:
        store.close()
    note(f"The key {name!r} is worthless now.")


@with_reading
def update(
    model: ModelPath,
    ratings: Annotated[str | None, typer.Argument(metavar="[RATINGS]", help="A file of new ratings.")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The model file to write.")] = "updated.gramian",
    db: Annotated[str | None, typer.Option(help="Take the feedback that a server has kept in this database.")] = None,
    read: Reading = READ,
    json: Json = False,
) -> None:
    """Fold new ratings into a model without starting again: a file of them, or the feedback of a server."""
    if (ratings is None) == (db is None):
        raise ParameterError("Say where the new ratings are: a file, or --db with the database of a server.")
    trained = load_model(model)
    new = _feedback(db, trained) if db is not None else read(str(ratings))
    updated = trained.update(new)
    updated.save(out)
    if json:
        print_json({"model": out, "new_ratings": len(new), **updated.card()})
    else:
        grown = updated.ratings
        print(
            f"{out}: {len(new):,} new ratings; now {len(grown):,} by {grown.n_users:,} users of {grown.n_items:,} items"
        )


def _feedback(db: str, model: Model) -> Ratings:
    """All feedback of a database, of each pair the latest rating."""
    need()
    from gramian.data.ratings import Ratings
    from gramian.serve.store import Store

    store = Store(db)
    try:
        table = store.frame(text_users=model.user_ids.is_text, text_items=model.item_ids.is_text)
    finally:
        store.close()
    latest = table.sort("time", maintain_order=True).unique(["user", "item"], keep="last", maintain_order=True)
    return Ratings.from_columns(latest)
