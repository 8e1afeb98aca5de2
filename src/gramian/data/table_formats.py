"""Tables that are folders: Parquet or Arrow files, with ``key=value`` folders in them or not, Delta Lake, Iceberg."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from gramian.errors import DataError, ParameterError

__all__ = ["ARROW", "PARQUET", "files_in", "need", "scan_folder"]

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
VERSION = re.compile(r"v?(\d+)[-.]")  # v3.metadata.json, v3.gz.metadata.json, 00003-….metadata.json


def scan_folder(path: Path) -> pl.LazyFrame:
    """A scan of the table that a folder holds.

    Raises:
        DataError: It holds none.
        ParameterError: The package that reads such a table is missing.
    """
    if (path / "_delta_log").is_dir():
        need("deltalake", "a Delta Lake table", "lake")
        return _opened(path, lambda: pl.scan_delta(str(path)))
    if (path / "metadata").is_dir():
        return _scan_iceberg(path)
    for endings, scan in ((PARQUET, pl.scan_parquet), (ARROW, pl.scan_ipc)):
        files = files_in(path, endings)
        if files:
            partitioned = any("=" in part for part in files[0].relative_to(path).parts[:-1])
            return scan(files, hive_partitioning=partitioned)
    raise DataError(
        f"The folder {str(path)!r} has no Parquet or Arrow files, and is not a Delta Lake or Iceberg table or one of "
        "gramian prepare; name another, or a file."
    )


def _scan_iceberg(path: Path) -> pl.LazyFrame:
    """The newest state of an Iceberg table: that of its metadata with the highest number."""
    need("pyiceberg", "an Iceberg table", "lake")
    numbered = {file: VERSION.match(file.name) for file in (path / "metadata").glob("*.metadata.json")}
    versions = {file: int(match[1]) for file, match in numbered.items() if match}
    if not versions:
        raise DataError(f"The folder {str(path)!r} has no metadata of an Iceberg table; check the path.")
    if find_spec("polars_iceberg") is None:
        os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")  # what polars does anyway, with a warning
    newest = str(max(versions, key=lambda file: versions[file]))
    return _opened(path, lambda: pl.scan_iceberg(newest))


def _opened(path: Path, scan: Callable[[], pl.LazyFrame]) -> pl.LazyFrame:
    """A scan through another package, whose errors, of whatever kind, become one sentence."""
    try:
        made = scan()
        made.collect_schema()
    except Exception as error:
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        raise DataError(f"The table {str(path)!r} cannot be read: {reason}.") from None
    return made


def files_in(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files of a folder and the folders in it, in order; those whose names begin with ``_`` or ``.`` are passed."""
    found = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in endings)
    return [file for file in found if not any(part[0] in "._" for part in file.relative_to(path).parts)]


def need(module: str, what: str, extra: str) -> None:
    """Refuse, in a sentence with its remedy, to read what takes a package that is missing."""
    if find_spec(module) is None:
        raise ParameterError(f"To read {what} the package {module} is needed: pip install 'gramian[{extra}]'.")
