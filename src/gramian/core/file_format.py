"""The model file: safetensors arrays with JSON metadata, no pickle, written whole or not at all.

The header's metadata has one key, ``gramian``: a JSON object with the format version, the library version,
what the file holds, and a SHA-256 digest over all of it and every array. A file that was cut, flipped or
written by a newer format is refused with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.plain import Plain
from gramian.errors import DataError, FormatError
from gramian.kernels.arrays import Array

__all__ = ["FORMAT_VERSION", "checked_arrays", "pack_text", "read_file", "unpack_text", "write_file", "written_whole"]

FORMAT_VERSION = 1
KEY = "gramian"
KINDS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "u1"}
Arrays = dict[str, Array]


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it takes the place of ``path`` only at success.

    Raises:
        DataError: The folder does not exist, or the file cannot be written (a full disk, say). What stood
            at ``path`` before is untouched.
    """
    goal = Path(path)
    if not goal.parent.is_dir():
        raise DataError(f"The file cannot be written: there is no folder {str(goal.parent)!r}; make it first.")
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{goal.name}.", suffix=goal.suffix, dir=goal.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _keep_mode(temporary, goal)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(goal)
    except OSError as error:
        raise DataError(
            f"The file {str(goal)!r} could not be written: {error.strerror or error}; "
            "nothing that was there before has changed."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _keep_mode(temporary: Path, goal: Path) -> None:
    """Give the new file the rights of the one it replaces, else the usual ones (mkstemp makes it private)."""
    if goal.exists():
        mode = goal.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    temporary.chmod(mode)


def write_file(path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Plain) -> None:
    """Write named arrays and JSON-able metadata as one file, atomically."""
    import safetensors
    from safetensors.numpy import save_file

    solid = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {"format": FORMAT_VERSION, **metadata}
    about["header_digest"] = _header_digest(about, solid)
    about["content_digest"] = _content_digest(solid)
    with written_whole(path) as temporary:
        try:
            save_file(solid, temporary, {KEY: json.dumps(about)})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error


def read_file(path: str | os.PathLike[str], *, mmap: bool = False) -> tuple[Arrays, Plain]:
    """Read what :func:`write_file` wrote, checked.

    Args:
        path: The file.
        mmap: Map the arrays read-only instead of reading them. The digest of their content is then not
            checked, since that would read everything; the header's is.

    Raises:
        DataError: There is no such file, or it cannot be read.
        FormatError: The file is not a Gramian file, is damaged, or is of a newer format.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"There is no model file {str(source)!r}; check the path.")
    try:
        raw, about = _read_header(source)
        arrays = _mapped(source, raw) if mmap else _loaded(source)
    except OSError as error:
        raise DataError(f"The file {str(source)!r} cannot be read: {error.strerror or error}.") from error
    header, content = about.pop("header_digest", None), about.pop("content_digest", None)
    if header != _header_digest(about, arrays):
        raise _damaged(source, "its header does not match its digest")
    if not mmap and content != _content_digest(arrays):
        raise _damaged(source, "its content does not match its digest")
    return arrays, about


def _read_header(source: Path) -> tuple[Plain, Plain]:
    """The raw safetensors header, and our own metadata in it."""
    with source.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= source.stat().st_size - 8:
            raise _damaged(source, "its header is not whole")
        text = file.read(length)
    try:
        raw = json.loads(text)
        about = json.loads(raw.pop("__metadata__")[KEY])
        version = about["format"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(source, "it has no Gramian header") from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FormatError(
            f"The file {str(source)!r} is of a newer format: found version {version!r}, this library reads up to "
            f"{FORMAT_VERSION}; upgrade gramian."
        )
    if source.stat().st_size != 8 + length + _content_length(source, raw):
        raise _damaged(source, "its length is not what its header says")
    return raw, about


def _content_length(source: Path, raw: Plain) -> int:
    """How many bytes of arrays there must be; the arrays lie one after another without gaps."""
    end = 0
    try:
        for entry in sorted(raw.values(), key=lambda entry: entry["data_offsets"]):
            low, high = entry["data_offsets"]
            size = np.dtype(KINDS[entry["dtype"]]).itemsize * math.prod(entry["shape"])
            if low != end or high - low != size or min([0, *entry["shape"]]) < 0:
                raise ValueError
            end = high
    except (KeyError, TypeError, ValueError):
        raise _damaged(source, "its header does not describe its arrays") from None
    return end


def _loaded(source: Path) -> Arrays:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return dict(load_file(source))
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _damaged(source, str(error)) from None


def _mapped(source: Path, raw: Plain) -> Arrays:
    """Read-only memory maps of the arrays, at the offsets of the safetensors header."""
    with source.open("rb") as file:
        base = 8 + int.from_bytes(file.read(8), "little")
    arrays: Arrays = {}
    for name, entry in raw.items():
        dtype, shape = np.dtype(KINDS[entry["dtype"]]), tuple(entry["shape"])
        if 0 in shape:
            arrays[name] = np.empty(shape, dtype)
        else:
            offset = base + entry["data_offsets"][0]
            arrays[name] = np.memmap(source, dtype=dtype, mode="r", offset=offset, shape=shape)
    return arrays


def _header_digest(about: Plain, arrays: Mapping[str, Array]) -> str:
    shapes = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    return hashlib.sha256(json.dumps([about, shapes], sort_keys=True).encode()).hexdigest()


def _content_digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _damaged(source: Path, reason: str) -> FormatError:
    return FormatError(f"The file {str(source)!r} is damaged or not a model file: {reason}; use another copy.")


def pack_text(name: str, series: pl.Series) -> Arrays:
    """A text series (nulls allowed) as two arrays: UTF-8 bytes, and the end of each entry (−end−1 for null)."""
    pieces = [None if text is None else text.encode() for text in series]
    ends = np.cumsum([0 if piece is None else len(piece) for piece in pieces], dtype=np.int64)
    missing = np.array([piece is None for piece in pieces], bool)
    content = np.frombuffer(b"".join(piece or b"" for piece in pieces), np.uint8)
    return {f"{name}.text": content, f"{name}.ends": np.where(missing, -ends - 1, ends)}


def unpack_text(name: str, arrays: Arrays) -> pl.Series:
    """The text series that :func:`pack_text` packed; FormatError where the two arrays do not fit together."""
    marks = arrays[f"{name}.ends"]
    content = arrays[f"{name}.text"].tobytes()
    ends = np.where(marks < 0, -marks - 1, marks)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    try:
        if marks.dtype != np.int64 or (starts > ends).any() or (ends[-1:] != len(content)).any():
            raise ValueError
        texts = [
            None if mark < 0 else content[start:end].decode()
            for mark, start, end in zip(marks.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]
    except ValueError:
        raise FormatError(f"The text {name!r} in the file is damaged; use another copy.") from None
    return pl.Series(name, texts, pl.String)


def checked_arrays(
    owner: str, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], dtypes: tuple[npt.DTypeLike, ...]
) -> Arrays:
    """The parameters of a model of these shapes and one of these dtypes, finite; ``owner`` is named in errors.

    Raises:
        FormatError: One is missing, or cannot belong to this model.
    """
    made = {}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype not in dtypes:
            found = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise FormatError(
                f"The parameters {name!r} of {owner} do not fit: found {found} for {shape}; "
                "use another copy of the file."
            )
        if not np.isfinite(array).all():
            raise FormatError(f"The parameters {name!r} of {owner} are not all finite; use another copy.")
        made[name] = array
    return made
