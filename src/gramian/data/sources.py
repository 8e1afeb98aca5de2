"""Tables that are too large to read: scanned in batches, from files, folders of files, lakes and databases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, cast

import polars as pl

from gramian.data.columns import Names, find_columns
from gramian.data.readers import fields_of, has_header, read_table
from gramian.data.table_formats import ARROW, PARQUET, need, scan_folder
from gramian.errors import DataError, ParameterError

__all__ = ["Scan", "batches_of_query", "scan_ratings", "signature", "stored_query"]

TEXT = (".csv", ".tsv", ".txt", ".dat")


class Scan(NamedTuple):
    """A table that is read in batches.

    Attributes:
        frame: The columns ``user``, ``item``, ``rating`` and, where there is one, ``time``.
        is_text: Whether it comes from text, where ids that are all written as integers are integers.
        is_picked: Whether the columns were found and have these names already.
    """

    frame: pl.LazyFrame
    is_text: bool = False
    is_picked: bool = False


def scan_ratings(source: str | os.PathLike[str] | pl.LazyFrame, names: Names, *, separator: str | None = None) -> Scan:
    """A scan of the columns ``user``, ``item``, ``rating`` and, where there is one, ``time``, unchecked.

    Args:
        source: A Parquet or Arrow file; a folder of such files, with ``key=value`` folders in it or not; a Delta
            Lake or Iceberg table; CSV or TSV text with a header, plain or ``.gz``; or a scan of polars.
        names: Column names or positions; see :meth:`gramian.Ratings.from_frame`.
        separator: Of a text file; found from its first line if not given.

    Raises:
        DataError: There is no such source, it is of another kind, or a column is missing.
    """
    scan = Scan(source) if isinstance(source, pl.LazyFrame) else _scan(Path(source), names, separator)
    try:
        columns = scan.frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"The ratings cannot be read: {_first_line(error)}.") from None
    given = {} if scan.is_picked else names
    found = find_columns(columns, {role: given.get(role) for role in ("user", "item", "rating", "time")})
    return scan._replace(frame=scan.frame.select(pl.col(name).alias(role) for role, name in found.items()))


def _scan(path: Path, names: Names, separator: str | None) -> Scan:
    if not path.exists():
        raise DataError(f"There is no file or folder {str(path)!r}; check the path.")
    if path.is_dir():
        return Scan(scan_folder(path))
    kind = path.suffix.lower()
    if kind in PARQUET:
        return Scan(pl.scan_parquet(path))
    if kind in ARROW:
        return Scan(pl.scan_ipc(path))
    if kind in TEXT:
        with path.open(encoding="utf-8", errors="replace") as file:
            mark, fields = fields_of(file.readline(), separator)
        if len(mark) == 1 and has_header(fields, names):
            return Scan(pl.scan_csv(path, separator=mark, infer_schema=False), is_text=True)
    # what cannot be scanned is read whole: gzip, `::`, text without a header
    return Scan(read_table(path, names, separator=separator)[0].drop("row").lazy(), is_picked=True)


def signature(source: str | os.PathLike[str] | pl.LazyFrame) -> str | list[list[str | int]]:
    """What a source is known by when a preparation goes on: names, sizes and times of its files, or its plan."""
    if isinstance(source, pl.LazyFrame):
        return source.explain(optimized=False)
    path = Path(source)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def batches_of_query(query: str, address: str, rows: int) -> Iterator[pl.DataFrame]:
    """The result of a query in batches, through ADBC: a database is read once and never held in memory.

    Args:
        query: SQL text.
        address: ``postgresql://…`` or ``sqlite:///…``.
        rows: At least so many rows in each batch but the last.

    Raises:
        DataError: The database cannot be reached, or refuses the query.
        ParameterError: No driver is known or installed for the address.
    """
    kind = address.partition(":")[0]
    kind = {"postgres": "postgresql"}.get(kind, kind)
    if kind not in ("postgresql", "sqlite"):
        raise ParameterError(f"The address of a database begins with postgresql:// or sqlite:///; got {address!r}.")
    need(f"adbc_driver_{kind}", f"from {kind}", "sql")
    from importlib import import_module

    driver = import_module(f"adbc_driver_{kind}.dbapi")
    try:
        with driver.connect(address.removeprefix("sqlite:///")) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            parts = (cast("pl.DataFrame", pl.from_arrow(part)) for part in cursor.fetch_record_batch())
            yield from _gathered(parts, rows)
    except driver.Error as error:
        raise DataError(
            f"The query could not be read: {_first_line(error)}; check the query and the address."
        ) from None


def stored_query(query: str, address: str, folder: Path, *, resume: bool = False, rows: int = 1 << 20) -> Path:
    """The result of a query as Parquet files in ``folder``; with ``resume``, what is there already, if it is whole.

    The folder belongs to whoever called. Errors are those of :func:`batches_of_query`.
    """
    whole, plan = folder / "whole", sha256(f"{query}\n{address}".encode()).hexdigest()  # an address may hold a password
    if resume and whole.is_file() and whole.read_text() == plan:
        return folder
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for number, batch in enumerate(batches_of_query(query, address, rows)):
        batch.write_parquet(folder / f"part-{number:06d}.parquet")
    whole.write_text(plan)
    return folder


def _gathered(parts: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Small batches put together to at least so many rows."""
    held: list[pl.DataFrame] = []
    for part in parts:
        held.append(part)
        if sum(table.height for table in held) >= rows:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split()).rstrip(".")
