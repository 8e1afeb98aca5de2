"""The log of experiments: one JSON line per run, appended; and what a run cost the machine."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

from gramian.core.plain import Plain
from gramian.data.ratings import Ratings
from gramian.errors import DataError
from gramian.models.recipe import AnyRecipe

__all__ = [
    "PeakMemory",
    "append_record",
    "check_log",
    "peak_memory",
    "read_records",
    "run_key",
    "versions",
]


def run_key(recipe: AnyRecipe, train: Ratings, test: Ratings, *settings: object) -> str:
    """A digest of recipe, data and settings: equal for runs that would give the same figures."""
    about = json.dumps([recipe.to_dict(), train.fingerprint(), test.fingerprint(), *settings], sort_keys=True)
    return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()


def versions() -> dict[str, str]:
    """What a figure depends on beside recipe and data."""
    made = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("gramian", "numpy", "numba", "polars"):
        with contextlib.suppress(PackageNotFoundError):
            made[package] = version(package)
    return made


def append_record(path: str | os.PathLike[str], record: Plain) -> None:
    """Add one line, with the time it was made at.

    Raises:
        DataError: The log cannot be written.
    """
    line = json.dumps({"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **record}, default=str)
    try:
        with Path(path).open("a+b") as file:
            if file.tell() and not _ends_whole(file):
                line = f"\n{line}"  # a run was killed while it wrote
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"The log {str(path)!r} cannot be written: {error.strerror or error}.") from error


def _ends_whole(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def check_log(path: str | os.PathLike[str] | None) -> None:
    """Raise DataError where a log could not be written: before anything is trained."""
    if path is None:
        return
    if Path(path).is_dir() or not Path(path).resolve().parent.is_dir():
        raise DataError(f"The log {str(path)!r} cannot be written: it needs to be a file in a folder that there is.")


def read_records(path: str | os.PathLike[str]) -> list[Plain]:
    """Every whole line of a log; none where there is no log. A line cut off by a kill is passed over."""
    if not Path(path).exists():
        return []
    made = []
    for line in Path(path).read_text(errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict):
                made.append(record)
    return made


class PeakMemory:
    """Filled in by :func:`peak_memory` when its block ends: bytes, or None where the system does not tell."""

    bytes: int | None = None


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure by how much the resident memory of this process rose within the block, at its highest (Linux)."""
    made = PeakMemory()
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = _status("VmRSS")
    except OSError:
        yield made
        return
    yield made
    made.bytes = max(0, _status("VmHWM") - before)


def _give_back() -> None:
    """Hand freed memory back to the system: what an earlier model left in the heap would hide what this one takes."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
