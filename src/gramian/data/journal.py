"""Files that grow, and a journal of how far they have come: after a break, work goes on from its last entry."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gramian.core.file_format import written_whole
from gramian.core.plain import Plain
from gramian.kernels.arrays import Array

__all__ = ["Journal"]

NAME = "journal.json"


class Journal:
    """A folder of growing files. What was appended after the last :meth:`note` is cut off when it is opened again.

    Attributes:
        state: What the work keeps between its steps, JSON-able.
    """

    def __init__(self, folder: Path, plan: object, *, resume: bool) -> None:
        """Open the folder; go on with what is there if it was made by the same plan and ``resume`` is wanted."""
        self.folder, self._plan = folder, json.loads(json.dumps(plan))
        self.state: Plain = {}
        self._lengths: dict[str, int] = {}
        self._checksums: dict[str, int] = {}
        self.resumed = resume and self._reopened()
        if not self.resumed:
            clear(folder)
            folder.mkdir()

    def _reopened(self) -> bool:
        try:
            kept = json.loads((self.folder / NAME).read_text())
            if kept["plan"] != self._plan:
                return False
            self.state, self._lengths, self._checksums = kept["state"], kept["lengths"], kept["checksums"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        for path in self.folder.iterdir():
            if path.name in self._lengths:
                os.truncate(path, self._lengths[path.name])
            elif path.name != NAME:
                path.unlink()
        return True

    def append(self, name: str, values: Array) -> None:
        """Add an array's bytes at the end of a file."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        with (self.folder / name).open("r+b" if name in self._lengths else "wb") as file:
            file.seek(self._lengths.get(name, 0))
            file.write(data)
        self._lengths[name] = self._lengths.get(name, 0) + len(data)
        self._checksums[name] = zlib.crc32(data, self._checksums.get(name, 0))

    def read(self, name: str, dtype: npt.DTypeLike) -> Array:
        """All that was appended to a file."""
        path = self.folder / name
        return np.fromfile(path, dtype) if name in self._lengths else np.empty(0, dtype)

    def drop(self, name: str) -> None:
        """Forget a file; it is removed after the next note, since until then a break would need it."""
        if name in self._lengths:
            del self._lengths[name], self._checksums[name]

    def files(self) -> dict[str, dict[str, int]]:
        """The length in bytes and the CRC-32 of every file."""
        return {name: {"bytes": size, "crc": self._checksums[name]} for name, size in self._lengths.items()}

    def note(self, **state: object) -> None:
        """Put all that was appended on the disk, then say so: from here work would go on."""
        for name in self._lengths:
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())
        self.state |= state
        about = {
            "plan": self._plan,
            "state": self.state,
            "lengths": self._lengths,
            "checksums": self._checksums,
        }
        with written_whole(self.folder / NAME) as path:
            path.write_text(json.dumps(about))
        for path in self.folder.iterdir():
            if path.name not in self._lengths and path.name != NAME:
                path.unlink()


def clear(folder: Path) -> None:
    """Remove a folder of files, if it is there."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
