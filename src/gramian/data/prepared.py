"""Ratings in a folder of plain arrays, in both orientations, that are mapped and never read whole.

``gramian prepare`` makes such a folder (:mod:`gramian.data.prepare`). It holds ``prepared.json``, the ids as Arrow
files, and for each orientation ``….indptr`` (int64), ``….indices`` (int32) and ``….values`` (float32). Training walks
over the rows of one side in blocks, so the system reads ahead what is needed and gives back what is done with: only
the factors must fit into memory. It is the half-sweep of a table in memory, on the same numbers, with the same bits.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from gramian.core.file_format import Arrays, pack_text, unpack_text
from gramian.core.plain import Plain
from gramian.data.described import Noted
from gramian.data.ids import IdMap
from gramian.data.ratings import Ratings
from gramian.errors import DataError, FormatError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = ["ABOUT", "FORMAT", "PreparedRatings", "is_prepared", "open_prepared", "open_stored"]

ABOUT = "prepared.json"
FORMAT = 1
KINDS: dict[str, str] = {"indptr": "<i8", "indices": "<i4", "values": "<f4"}


@dataclass(frozen=True, eq=False, repr=False)
class PreparedRatings(Noted, Ratings):
    """The ratings of a prepared folder: a :class:`gramian.Ratings` whose arrays are mapped files.

    Attributes:
        folder: Where they are.
        about: What ``prepared.json`` says.
    """

    folder: str = ""
    about: Plain = field(default_factory=dict)

    @cached_property
    def by_item(self) -> CSR:
        """The ratings as compressed sparse rows of items, mapped."""
        return _mapped_rows(Path(self.folder), "by_item", self.about)

    def fingerprint(self) -> str:
        """A short digest of what the folder holds."""
        return f"prepared {sorted((name, file['crc']) for name, file in self.about['files'].items())}"

    def to_arrays(self) -> Arrays:
        """Where the ratings are, for a model file: it does not hold them."""
        text = json.dumps({"folder": str(Path(self.folder).resolve()), "fingerprint": self.fingerprint()})
        return pack_text("prepared", pl.Series([text]))

    def check(self) -> None:
        """Read everything once and compare it with its checksums.

        Raises:
            FormatError: A file is not what it was when it was made.
        """
        for name, file in self.about["files"].items():
            checksum = 0
            with (Path(self.folder) / name).open("rb") as content:
                while part := content.read(1 << 24):
                    checksum = zlib.crc32(part, checksum)
            if checksum != file["crc"]:
                raise _damaged(Path(self.folder), f"the file {name!r} does not match its checksum")


def is_prepared(path: str | os.PathLike[str]) -> bool:
    """Whether this is a folder that ``gramian prepare`` made."""
    return (Path(path) / ABOUT).is_file()


def open_prepared(folder: str | os.PathLike[str]) -> PreparedRatings:
    """Open a folder that ``gramian prepare`` made; nothing but ids is read.

    Raises:
        DataError: It is not such a folder.
        FormatError: It is damaged, or of a newer format.
    """
    path = Path(folder)
    if not is_prepared(path):
        raise DataError(
            f"The folder {str(path)!r} is not a prepared one; make it with gramian prepare RATINGS -o FOLDER."
        )
    try:
        about = json.loads((path / ABOUT).read_text())
        version, files = about["format"], about["files"]
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, f"{ABOUT} cannot be read") from None
    if version > FORMAT:
        raise FormatError(f"The folder {str(path)!r} is of a newer format: found version {version}; upgrade gramian.")
    for name, file in files.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != file["bytes"]:
            raise _damaged(path, f"the file {name!r} has {found} bytes, not {file['bytes']}")
    users, items = (IdMap(_read_ids(path / f"{side}_ids.arrow")) for side in ("user", "item"))
    times = _mapped(path / "times", "<i8") if about["timed"] else None
    rows = _mapped_rows(path, "by_user", about)
    return PreparedRatings(users, items, rows, times, about["repeated"], None, str(path), about)


def open_stored(arrays: Arrays, beside: str | os.PathLike[str]) -> Ratings:
    """The ratings that a model file holds, or the prepared folder that it names, there or beside the file."""
    if "prepared.text" not in arrays:
        return Ratings.from_arrays(arrays)
    named = json.loads(unpack_text("prepared", arrays)[0])
    folder = Path(named["folder"])
    places = [place for place in (folder, Path(beside).parent / folder.name) if is_prepared(place)]
    if not places:
        raise DataError(
            f"The ratings of the model are in the prepared folder {str(folder)!r}, which is not there; "
            "put it there, or beside the model file."
        )
    ratings = open_prepared(places[0])
    if ratings.fingerprint() != named["fingerprint"]:
        raise DataError(
            f"The prepared folder {str(places[0])!r} has other ratings than the model was trained on; "
            "train anew, or put the old folder there."
        )
    return ratings


def _read_ids(path: Path) -> pl.Series:
    return pl.read_ipc(path).to_series()


def _mapped(path: Path, dtype: str) -> Array:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))


def _mapped_rows(folder: Path, name: str, about: Plain) -> CSR:
    made = CSR(*(_mapped(folder / f"{name}.{part}", KINDS[part]) for part in CSR._fields))
    count = about["users"] if name == "by_user" else about["items"]
    if len(made.indptr) != count + 1 or made.indptr[-1] != len(made.indices) or len(made.values) != len(made.indices):
        raise _damaged(folder, f"the arrays of {name} do not fit together")
    return made


def _damaged(folder: Path, reason: str) -> FormatError:
    return FormatError(f"The prepared folder {str(folder)!r} is damaged: {reason}; prepare it again.")
