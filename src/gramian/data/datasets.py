"""Known rating sets by name: one comes with the package, the others are downloaded once into a cache."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from gramian.core.parameters import check_choice
from gramian.data.ratings import Ratings
from gramian.data.readers import read_ratings
from gramian.errors import DataError

__all__ = ["load_dataset"]

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MOVIETWEETINGS = "https://raw.githubusercontent.com/sidooms/MovieTweetings/master/snapshots/100K"
GOODBOOKS = "https://github.com/zygmuntz/goodbooks-10k/releases/download/v1.0/goodbooks-10k.zip"
BUNDLED = "movielens-small"
BROKEN = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)  # what reading a bad file can raise
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class RatingSet:
    """Where a rating set comes from, and which of its files are read.

    Attributes:
        ratings: The name of the file of ratings (``.gz`` may follow it).
        items: The name of the file of titles.
        urls: The official addresses: one archive, or both files.
        md5: The published checksum of the archive, or None where none is published.
    """

    ratings: str
    items: str
    urls: tuple[str, ...]
    md5: str | None = None


def _movielens(archive: str, ratings: str, items: str, md5: str) -> RatingSet:
    return RatingSet(ratings, items, (f"{GROUPLENS}/{archive}.zip",), md5)


# The MD5 sums are those that GroupLens publishes beside each archive (….zip.md5). MovieTweetings and goodbooks-10k
# publish none: their files are taken as they come.
SETS = {
    "movielens-100k": _movielens("ml-100k", "u.data", "u.item", "0e33842e24a9c977be4e0107933c0723"),
    "movielens-1m": _movielens("ml-1m", "ratings.dat", "movies.dat", "c4d9eecfca2ab87c1945afe126590906"),
    "movielens-10m": _movielens("ml-10m", "ratings.dat", "movies.dat", "ce571fd55effeba0271552578f2648bd"),
    "movielens-20m": _movielens("ml-20m", "ratings.csv", "movies.csv", "cd245b17a1ae2cc31bb14903e1204af3"),
    "movielens-25m": _movielens("ml-25m", "ratings.csv", "movies.csv", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "movielens-32m": _movielens("ml-32m", "ratings.csv", "movies.csv", "d472be332d4daa821edc399621853b57"),
    "movietweetings": RatingSet(
        "ratings.dat", "movies.dat", (f"{MOVIETWEETINGS}/ratings.dat", f"{MOVIETWEETINGS}/movies.dat")
    ),
    "goodbooks": RatingSet("ratings.csv", "books.csv", (GOODBOOKS,)),
}
SMALL = RatingSet("ratings.csv", "movies.csv", (f"{GROUPLENS}/ml-latest-small.zip",))


def load_dataset(name: str, *, path: str | os.PathLike[str] | None = None) -> Ratings:
    """Load a known rating set, with its titles.

    Args:
        name: ``"movielens-small"`` (100,004 ratings, bundled: needs no network), ``"movielens-100k"``, ``"-1m"``,
            ``"-10m"``, ``"-20m"``, ``"-25m"`` or ``"-32m"`` (also without ``"movielens-"``), ``"movietweetings"``
            (the fixed 100K snapshot) or ``"goodbooks"`` (goodbooks-10k).
        path: A copy that you have: the archive, the folder unpacked from it, or the file of ratings itself (titles
            are then looked for beside it). Nothing is downloaded. ``"movielens-small"`` takes any edition of
            ``ml-latest-small``. Default: the bundled files, or a download from the official address, checked
            against the published checksum and kept in the user's cache folder (in the folder named by the
            environment variable ``GRAMIAN_DATA``, where that is set).

    Returns:
        Ratings whose ``item_table`` has the columns ``item``, ``title`` (films: with the year, ``Toy Story (1995)``),
        ``year`` and, for films, ``genres`` (separated by ``|``), for books ``authors``.

    Raises:
        ParameterError: The name is not known.
        DataError: There is no connection, the checksum differs, or the copy given has not the files of this set.

    The sets keep their own terms of use: those of MovieLens exclude commercial use without permission.
    """
    full = f"movielens-{name}" if f"movielens-{name}" in SETS else name
    check_choice("name", full, (BUNDLED, *SETS), "load_dataset")
    kind = SETS.get(full, SMALL)
    if path is not None:
        return _from_path(Path(path), kind)
    return _bundled() if full == BUNDLED else _from_folder(_downloaded(full, kind), kind)


def _bundled() -> Ratings:
    folder = files("gramian.data") / "bundled"
    ratings, movies = (
        pl.read_parquet((folder / f"{BUNDLED}-{part}.parquet").read_bytes()) for part in ("ratings", "movies")
    )
    titled = movies.select(
        pl.col("movieId").cast(pl.Int64).alias("item"),
        pl.format("{} ({})", "title", "year").alias("title"),
        pl.col("year").cast(pl.Int32),
        "genres",
    )
    return Ratings.from_frame(ratings).with_items(titled)


# ---- a copy on this computer ------------------------------------------------------------------------


def _from_path(path: Path, kind: RatingSet) -> Ratings:
    if path.is_dir():
        return _from_folder(path, kind)
    if not path.is_file() or not (path.suffix == ".zip" or zipfile.is_zipfile(path)):
        return _read(path, kind)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _unpack(path, kind, Path(folder))
        except BROKEN as error:
            raise DataError(f"The archive {str(path)!r} cannot be read: {error}; use another copy.") from None
        return _from_folder(Path(folder), kind)


def _from_folder(folder: Path, kind: RatingSet) -> Ratings:
    found = _find(folder, kind.ratings)
    if found is None:
        raise DataError(
            f"The folder {str(folder)!r} is not of this data set: found no {kind.ratings!r} in it; correct path=…."
        )
    return _read(found, kind)


def _find(folder: Path, name: str) -> Path | None:
    """The file of this name in the folder, or else the one least deep below it; plain before ``.gz``."""
    found = [path for ending in ("", ".gz") for path in folder.rglob(name + ending)]
    return min(found, key=lambda path: len(path.parts), default=None)


def _unpack(archive: Path, kind: RatingSet, folder: Path) -> None:
    """Put the two files into the folder; the ratings come last, so where they are, everything is."""
    with zipfile.ZipFile(archive) as opened:
        for name in (kind.items, kind.ratings):
            fits = [m for m in opened.namelist() if m.split("/")[-1] in (name, name + ".gz")]
            if fits:
                member = min(fits, key=lambda m: m.count("/"))
                target = folder / member.split("/")[-1]
                partial = target.with_name(f"{target.name}.{os.getpid()}.part")
                with opened.open(member) as source, partial.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                partial.replace(target)
            elif name == kind.ratings:
                raise DataError(
                    f"The archive {str(archive)!r} is not of this data set: found no {name!r} in it; correct path=…."
                )


def _read(ratings: Path, kind: RatingSet) -> Ratings:
    table = read_ratings(ratings)
    items = [p for p in (ratings.with_name(kind.items), ratings.with_name(kind.items + ".gz")) if p.is_file()]
    return table.with_items(_titles(items[0], ITEM_READERS[kind.items])) if items else table


# ---- a download -------------------------------------------------------------------------------------


def _downloaded(name: str, kind: RatingSet) -> Path:
    """The cache folder with the files of the set, fetched if they are not there."""
    import pooch

    folder = Path(os.environ.get("GRAMIAN_DATA") or pooch.os_cache("gramian")) / name

    def unpack(archive: str, action: str, _: object) -> None:
        if action != "fetch" or _find(folder, kind.ratings) is None:
            _unpack(Path(archive), kind, folder)

    checksum = f"md5:{kind.md5}" if kind.md5 else None
    try:
        with _quiet(pooch.get_logger()):
            for url in kind.urls:
                file = Path(urlsplit(url).path).name
                pooch.retrieve(url, checksum, file, folder, unpack if file.endswith(".zip") else None)
    except (*BROKEN, ValueError) as error:
        addresses = " and ".join(kind.urls) + (" into one folder" if len(kind.urls) > 1 else "")
        raise DataError(
            f"The data set {name!r} could not be downloaded: {_reason(error)}; "
            f"download {addresses} by hand and give path=…."
        ) from None
    return folder


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return "the archive that came is not of this data set"
    if isinstance(error, ValueError):
        return "what came does not have the published checksum"
    if type(error).__name__ in ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError"):
        return "there is no connection to the address"
    if type(error).__name__ in ("ChunkedEncodingError", "ContentDecodingError"):
        return "the connection broke off"
    return " ".join(str(error).split())[:200]


# ---- titles -----------------------------------------------------------------------------------------


def _titles(path: Path, reader: Callable[[str], pl.DataFrame]) -> pl.DataFrame:
    try:
        return reader(_text(path))
    except (*BROKEN, IndexError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise DataError(
            f"The titles in {str(path)!r} cannot be read: {reason}; use another copy, or take the file away."
        ) from None


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _films(rows: Iterator[tuple[str, str, str]]) -> pl.DataFrame:
    """The table of (item, title, genres); the year is what stands in brackets at the end of the title."""
    kinds = {"item": pl.String, "title": pl.String, "genres": pl.String}
    table = pl.DataFrame(list(rows), schema=kinds, orient="row")
    year = pl.col("title").str.extract(r"\((\d{4})\D?(?:\d{4})?\)\s*$").cast(pl.Int32)
    return table.select("item", "title", year.alias("year"), "genres")


def _u_item(text: str) -> pl.DataFrame:
    """Id, title, dates, address and one 0/1 field per genre, separated by ``|``."""
    rows = (line.rstrip("\r").split("|") for line in text.split("\n") if line.strip())
    return _films(
        (row[0], row[1], "|".join(genre for genre, flag in zip(GENRES, row[5:], strict=False) if flag == "1"))
        for row in rows
    )


def _movies_dat(text: str) -> pl.DataFrame:
    """``id::title::genres``."""
    rows = (line.rstrip("\r").split("::") for line in text.split("\n") if line.strip())
    return _films((row[0], "::".join(row[1:-1]), row[-1]) for row in rows)


def _movies_csv(text: str) -> pl.DataFrame:
    """``movieId,title,genres``, titles with commas in quotes."""
    return _films(pl.read_csv(text.encode(), infer_schema=False).select("movieId", "title", "genres").iter_rows())


def _books_csv(text: str) -> pl.DataFrame:
    """The books: the ratings name a book by ``id`` in the first edition, by ``book_id`` in the second."""
    table = pl.read_csv(text.encode(), infer_schema=False)
    key = "id" if "id" in table.columns else "book_id"
    year = pl.col("original_publication_year").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
    return table.select(pl.col(key).alias("item"), "title", year.alias("year"), "authors")


ITEM_READERS: dict[str, Callable[[str], pl.DataFrame]] = {
    "u.item": _u_item,
    "movies.dat": _movies_dat,
    "movies.csv": _movies_csv,
    "books.csv": _books_csv,
}
