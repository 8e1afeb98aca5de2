"""How kernels are compiled: without the interpreter's lock, and kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["borrowing", "compiled", "inlined"]


def _stamp() -> tuple[float, int]:
    """Time and size of all kernels together.

    Numba looks only at the file of the function itself when it judges whether compiled code on disk is
    fresh; a kernel also holds the code of the files it calls.
    """
    files = [path.stat() for path in Path(__file__).parents[1].rglob("*.py")]
    return max(file.st_mtime for file in files), sum(file.st_size for file in files)


STAMP = _stamp()


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a kernel at its first call; its code is cached on disk, unless no folder can be written to.

    Division is IEEE's: a check for zero in every division would keep loops from being vectorized.
    """
    return _cached(function, {})


def borrowing(function: Callable[..., Any]) -> Any:
    """Compile a kernel that allocates nothing: it counts no references, which all threads would write to.

    In a loop over short rows those counters of the arrays that threads share cost more than the arithmetic.
    """
    return _cached(function, {"_nrt": False})


def _cached(function: Callable[..., Any], more: dict[str, Any]) -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **more}
    try:
        made = njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return njit(**options)(function)
    cache: Any = getattr(made, "_cache", None)
    cache_file: Any = getattr(cache, "_cache_file", None)
    if hasattr(cache_file, "_source_stamp") and hasattr(cache_file, "_version"):
        # Numba has no public way to say what a cache is of. It reads the version first, and nothing else of another
        # one: the keys of another version of ours may be of tuples that are no more.
        cache_file._source_stamp = STAMP  # noqa: SLF001
        cache_file._version = cache_file._version, STAMP  # noqa: SLF001
    if hasattr(cache, "save_overload"):
        cache.save_overload = partial(_save, cache.save_overload)
    return made


def _save(save: Callable[..., None], *what: Any) -> None:
    """A full disk costs the next process the compiling, not this one its training."""
    with suppress(OSError):
        save(*what)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a small function into every kernel that calls it, so that the loop around it can be vectorized."""
    return njit(nogil=True, error_model="numpy", forceinline=True, _nrt=False)(function)
