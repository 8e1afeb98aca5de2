"""The feedback store: who rated what and when, in SQLite or PostgreSQL, and the keys of those who may ask.

Ratings are only ever added. A write is one transaction: when it has returned, the ratings are on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import sqlalchemy as sa

from gramian.core.plain import Plain
from gramian.errors import DataError, GramianError, ParameterError
from gramian.serve.tables import keys, migrate, ratings, writes

__all__ = ["ROLES", "ApiKey", "Given", "Receipt", "RepeatedKeyError", "Store", "StoreError"]

# What a key may do: ask; also add ratings; also reload the model.
ROLES = ("read", "write", "admin")
WAIT_SECONDS = 10  # for another process's write, or for a database that does not answer
ROWS_AT_A_TIME = 50_000


class StoreError(GramianError):
    """The database cannot be reached or does not do what it should."""


class RepeatedKeyError(GramianError):
    """A client's key for a write came again with other ratings."""


@dataclass(frozen=True)
class Given:
    """One rating: ids as text, ``rated_at`` in seconds since 1970, None for when it is kept."""

    user: str
    item: str
    rating: float
    rated_at: int | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of a write: how many ratings are kept, and whether they already were."""

    write: int
    count: int
    repeated: bool


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret."""

    id: int
    name: str
    role: str

    def may(self, role: str) -> bool:
        """Whether this key's role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Store:
    """A database of feedback; its tables are made or brought up to date at once.

    Args:
        where: A file for SQLite, or a database URL such as ``postgresql://user@host/name``.

    Raises:
        ParameterError: It is neither, or the driver is not installed.
        StoreError: The database cannot be reached.
        FormatError: The database is of a newer format.
    """

    def __init__(self, where: str) -> None:
        url = _url(where)
        self.name = url.render_as_string(hide_password=True)
        self._engine = _engine(url)
        self._writing = self._engine.execution_options(writing=True)
        try:
            with self._said():
                migrate(self._writing)
        except GramianError:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0].rstrip(".")
            raise StoreError(f"The feedback database {self.name} failed: {reason}; check that it runs.") from error

    # ---- ratings --------------------------------------------------------------------------------

    def add(self, given: Sequence[Given], *, key_id: int = 0, client_key: str | None = None) -> Receipt:
        """Keep ratings, all or none. The same ``client_key`` with the same ratings changes nothing.

        Raises:
            RepeatedKeyError: The client's key was used before for other ratings.
            StoreError: They could not be kept.
        """
        digest = hashlib.sha256(json.dumps([asdict(rating) for rating in given]).encode()).hexdigest()
        with self._said():
            try:
                return self._add(given, key_id, client_key, digest)
            except sa.exc.IntegrityError:  # another server was faster with the same key
                return self._add(given, key_id, client_key, digest)

    def _add(self, given: Sequence[Given], key_id: int, client_key: str | None, digest: str) -> Receipt:
        with self._writing.begin() as connection:
            if client_key is not None:
                same = sa.and_(writes.c.key_id == key_id, writes.c.client_key == client_key)
                earlier = connection.execute(writes.select().where(same)).mappings().first()
                if earlier is not None:
                    if earlier["digest"] != digest:
                        raise RepeatedKeyError(
                            f"The idempotency key {client_key!r} was used before for other ratings; take a new one."
                        )
                    return Receipt(int(earlier["id"]), int(earlier["count"]), repeated=True)
            row = {"key_id": key_id, "client_key": client_key, "digest": digest, "count": len(given)}
            now = int(time.time())
            made = connection.execute(writes.insert().values(**row, received_at=now))
            assert made.inserted_primary_key is not None
            write = int(made.inserted_primary_key[0])
            rows = [
                {
                    "write_id": write,
                    "user_id": g.user,
                    "item_id": g.item,
                    "rating": g.rating,
                    "rated_at": now if g.rated_at is None else g.rated_at,
                }
                for g in given
            ]
            connection.execute(ratings.insert(), rows)
        return Receipt(write, len(given), repeated=False)

    def of_user(self, user: str) -> dict[str, float]:
        """What a user's ratings are now, by item: of each pair the latest, by time and then by arrival."""
        query = (
            sa.select(ratings.c.item_id, ratings.c.rating)
            .where(ratings.c.user_id == user)
            .order_by(ratings.c.rated_at, ratings.c.id)
        )
        with self._said(), self._engine.connect() as connection:
            return {row.item_id: row.rating for row in connection.execute(query)}

    def audit(self, user: str, limit: int = 1000) -> list[Plain]:
        """Every rating of a user as it came, newest first: when, by which key, in which write."""
        query = (
            sa.select(
                ratings.c.item_id.label("item"), ratings.c.rating, ratings.c.rated_at, writes.c.received_at,
                sa.func.coalesce(keys.c.name, "").label("key"), writes.c.id.label("write"),
            )
            .select_from(ratings.join(writes).outerjoin(keys, keys.c.id == writes.c.key_id))
            .where(ratings.c.user_id == user)
            .order_by(ratings.c.id.desc())
            .limit(limit)
        )  # fmt: skip
        with self._said(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def count(self) -> int:
        """How many ratings were ever kept."""
        with self._said(), self._engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(ratings)) or 0)

    def check(self) -> None:
        """Raise StoreError unless the database answers."""
        with self._said(), self._engine.connect() as connection:
            connection.execute(sa.select(1))

    def frame(self, *, text_users: bool, text_items: bool) -> pl.DataFrame:
        """All ratings in the order of their arrival: ``user``, ``item``, ``rating``, ``time``.

        Args:
            text_users: Whether user ids are text; else they are made integers.
            text_items: The same of items.

        Raises:
            DataError: There are none, or an id is not an integer.
        """
        columns = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "time": pl.Int64}
        query = sa.select(ratings.c.user_id, ratings.c.item_id, ratings.c.rating, ratings.c.rated_at)
        with self._said(), self._engine.connect() as connection:
            rows = connection.execution_options(yield_per=ROWS_AT_A_TIME).execute(query.order_by(ratings.c.id))
            parts = [pl.DataFrame(list(map(tuple, part)), columns, orient="row") for part in rows.partitions()]
        if not parts:
            raise DataError(f"There is no feedback in {self.name}: nothing to update with.")
        table = pl.concat(parts)
        for name, is_text in (("user", text_users), ("item", text_items)):
            if not is_text:
                table = table.with_columns(_integers(table[name], self.name))
        return table

    # ---- keys -----------------------------------------------------------------------------------

    def create_key(self, name: str, role: str) -> str:
        """Make a key and return its secret, which is kept nowhere: the table has its SHA-256 only.

        (A secret of 256 random bits cannot be guessed, so a slow hash would add nothing.)

        Raises:
            ParameterError: The name is taken.
        """
        secret = f"gk_{secrets.token_urlsafe(32)}"
        row = {"name": name, "role": role, "digest": _digest(secret), "created_at": int(time.time())}
        with self._said():
            try:
                with self._writing.begin() as connection:
                    connection.execute(keys.insert().values(**row))
            except sa.exc.IntegrityError:
                raise ParameterError(f"There is already a key {name!r}; choose another name.") from None
        return secret

    def revoke_key(self, name: str) -> None:
        """Make a key worthless; its name stays in the audit.

        Raises:
            ParameterError: There is no such key.
        """
        change = keys.update().where(keys.c.name == name, keys.c.revoked_at.is_(None))
        with self._said(), self._writing.begin() as connection:
            if connection.execute(change.values(revoked_at=int(time.time()))).rowcount == 0:
                raise ParameterError(f"There is no key {name!r} that is in use; see gramian keys list.")

    def list_keys(self) -> list[Plain]:
        """All keys, without secrets and digests."""
        query = sa.select(keys.c.id, keys.c.name, keys.c.role, keys.c.created_at, keys.c.revoked_at)
        with self._said(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query.order_by(keys.c.id)).mappings()]

    def find_key(self, secret: str) -> ApiKey | None:
        """The key with this secret, if it is in use."""
        query = sa.select(keys.c.id, keys.c.name, keys.c.role)
        query = query.where(keys.c.digest == _digest(secret), keys.c.revoked_at.is_(None))
        with self._said(), self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else ApiKey(*row)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _integers(column: pl.Series, store: str) -> pl.Series:
    made = column.cast(pl.Int64, strict=False)
    if made.null_count():
        example = column.filter(made.is_null())[0]
        raise DataError(
            f"The ids of this model are integers: {store} has the {column.name} id {example!r}; "
            "give the model that this feedback was given to."
        )
    return made


def _url(where: str) -> sa.URL:
    """The URL of a database; a plain path is an SQLite file."""
    if "://" not in where:
        if not Path(where).resolve().parent.is_dir():
            raise ParameterError(f"{where!r} cannot be made: there is no folder {str(Path(where).parent)!r}; make it.")
        return sa.URL.create("sqlite", database=where)
    try:
        url = sa.make_url(where)
    except sa.exc.ArgumentError:
        raise ParameterError("The database URL cannot be read; write it as postgresql://user@host/name.") from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and not url.database:
        raise ParameterError("Feedback in memory would be lost at the end: name a file, sqlite:///feedback.db.")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ParameterError(f"Feedback is kept in SQLite or PostgreSQL; got {url.get_backend_name()!r}.")
    return url


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": WAIT_SECONDS})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = {"connect_timeout": WAIT_SECONDS, "options": f"-c statement_timeout={1000 * WAIT_SECONDS}"}
    try:
        return sa.create_engine(url, pool_pre_ping=True, pool_size=5, connect_args=options)
    except ImportError:
        raise ParameterError(
            "PostgreSQL needs psycopg, which is not installed: pip install 'gramian[postgres]'."
        ) from None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, below
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log. A new file must be had alone for it, for which SQLite does not wait by itself."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    """A write takes the lock at its beginning: a reader that becomes a writer would fail without waiting."""
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
