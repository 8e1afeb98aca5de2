"""Small rating tables with a known structure, in plain polars, for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import Run
from hypothesis import settings

import gramian as gm
from gramian.cli.main import main
from gramian.engine import pool

settings.register_profile("gramian", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("gramian")


def make_frame(n_users: int = 60, n_items: int = 40, fill: float = 0.35, seed: int = 0) -> pl.DataFrame:
    """Ratings from two latent features and biases, on the scale 0.5 … 5 in halves, each with its own time.

    User ids are 101, 104, …; item ids 11, 18, …; rows are in random order. Every user and every item occurs.
    """
    rng = np.random.default_rng(seed)
    taste, style = rng.normal(0, 0.7, (n_users, 2)), rng.normal(0, 0.7, (n_items, 2))
    strict, good = rng.normal(0, 0.4, n_users), rng.normal(0, 0.5, n_items)
    truth = 3.2 + strict[:, None] + good + taste @ style.T + rng.normal(0, 0.3, (n_users, n_items))
    seen = rng.random((n_users, n_items)) < fill * rng.uniform(0.4, 1.6, n_items)
    seen[np.arange(n_users), np.arange(n_users) % n_items] = True
    seen[np.arange(n_items) % n_users, np.arange(n_items)] = True
    users, items = (places[order] for order in [rng.permutation(int(seen.sum()))] for places in np.nonzero(seen))
    return pl.DataFrame(
        {
            "user": 101 + 3 * users,
            "item": 11 + 7 * items,
            "rating": np.clip(np.round(truth[users, items] * 2) / 2, 0.5, 5.0),
            "time": 1_000_000_000 + 60 * rng.permutation(len(users)),
        }
    )


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The same table with text ids in the same order: 101 becomes ``"u00101"``, 11 ``"i00011"``."""
    padded = [
        (pl.lit(mark) + pl.col(column).cast(pl.String).str.zfill(5)).alias(column)
        for column, mark in (("user", "u"), ("item", "i"))
    ]
    return frame.with_columns(padded)


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    """60 users × 40 items, integer ids, with times, rows in random order."""
    return make_frame()


@pytest.fixture(scope="session")
def text_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """The same with text ids in the same order."""
    return as_text(frame)


@pytest.fixture(scope="session")
def ratings(frame: pl.DataFrame) -> gm.Ratings:
    """The ratings of ``frame``."""
    return gm.Ratings.from_frame(frame)


@pytest.fixture(scope="session")
def text_ratings(text_frame: pl.DataFrame) -> gm.Ratings:
    """The ratings of ``text_frame``."""
    return gm.Ratings.from_frame(text_frame)


@pytest.fixture(scope="session")
def parts(ratings: gm.Ratings) -> tuple[gm.Ratings, gm.Ratings]:
    """Training ratings and held-out ones."""
    return ratings.split(0.25, seed=3)


@pytest.fixture(scope="session")
def wide_ratings() -> gm.Ratings:
    """Some 40,000 ratings: a model needs more than one piece of everything."""
    return gm.Ratings.from_frame(make_frame(400, 200, 0.5, seed=5))


@pytest.fixture
def pools(monkeypatch) -> list[int]:
    """Cut small blocks, use threads for any work, and list how many threads each piece of work was given."""
    started: list[int] = []
    make = pool._pool

    def recorded(helpers):
        started.append(helpers + 1)
        return make(helpers)

    monkeypatch.setattr(pool, "_pool", recorded)
    monkeypatch.setattr(pool, "SMALL_BLOCK", 1)
    monkeypatch.setattr(pool, "SMALL_WORK", 0)
    return started


@pytest.fixture(scope="session")
def wide_parts(wide_ratings: gm.Ratings) -> tuple[gm.Ratings, gm.Ratings]:
    """Few training ratings and many held-out ones: a model without much regularization soon overfits."""
    return wide_ratings.split(0.6, seed=1)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server."""
    from serving import postgres

    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path) -> str:
    """An empty feedback database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "feedback.db")
    import sqlalchemy as sa

    from gramian.serve import tables

    url = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        tables.metadata.drop_all(connection)
    engine.dispose()
    return url


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")

    def go(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gramian", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return go
