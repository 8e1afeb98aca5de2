"""The tables of the feedback store, and how an older database becomes a newer one.

A migration is a function of a connection; its place in the list is the version that it leads to. Each runs in one
transaction together with the note that it has run, and never changes once released.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from gramian.errors import FormatError

__all__ = ["MIGRATIONS", "keys", "migrate", "ratings", "writes"]

Migration = Callable[[sa.Connection], None]
# Any number that no other program takes for its own lock on the same database.
MIGRATION_LOCK = 0x6772616D

metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts up by itself in INTEGER columns only

versions = sa.Table(
    "gramian_versions",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
)
keys = sa.Table(
    "gramian_keys",
    metadata,
    sa.Column("id", _number, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
)
# One row for each accepted request: which key sent it, and when. 0 stands for no key.
writes = sa.Table(
    "gramian_writes",
    metadata,
    sa.Column("id", _number, primary_key=True),
    sa.Column("key_id", sa.BigInteger, nullable=False),
    sa.Column("client_key", sa.Text),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("key_id", "client_key"),
)
# Nothing is ever overwritten: what holds for a pair is its latest row.
ratings = sa.Table(
    "gramian_ratings",
    metadata,
    sa.Column("id", _number, primary_key=True),
    sa.Column("write_id", _number, sa.ForeignKey("gramian_writes.id"), nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("rating", sa.Double, nullable=False),
    sa.Column("rated_at", sa.BigInteger, nullable=False),
)


def _first_tables(connection: sa.Connection) -> None:
    metadata.create_all(connection, tables=[keys, writes, ratings])


def _index_of_users(connection: sa.Connection) -> None:
    connection.exec_driver_sql("CREATE INDEX gramian_ratings_by_user ON gramian_ratings (user_id, rated_at, id)")


MIGRATIONS: Sequence[Migration] = (_first_tables, _index_of_users)


def migrate(engine: sa.Engine, upto: int = len(MIGRATIONS)) -> None:
    """Bring a database to version ``upto``; several servers may start at once.

    Raises:
        FormatError: The database was written by a newer version of the library.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        metadata.create_all(connection, tables=[versions])
        found = connection.scalar(sa.select(sa.func.max(versions.c.version))) or 0
        if found > len(MIGRATIONS):
            raise FormatError(
                f"The feedback database is of a newer format: found version {found}, this library knows up to "
                f"{len(MIGRATIONS)}; upgrade gramian."
            )
        for version in range(found + 1, upto + 1):
            MIGRATIONS[version - 1](connection)
            connection.execute(versions.insert().values(version=version, applied_at=int(time.time())))
