"""What each piece of knowledge is worth: the ladder of BPMF from the ratings alone to all that is known.

    python benchmarks/records.py [--quick] [--ml-100k FOLDER] [--goodbooks FOLDER] [--only SET] [--n-jobs N]

Every rung has all that stands before it; K, sweeps and priors are fixed beforehand. Each fit adds a line to
``records.jsonl``, and what is there already is not fitted again: a run may be stopped and goes on where it was. The
tables and the picture are made of the lines of splits that have every rung; ``--fits 0`` makes them anew.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import gramian as gm
from accuracy import folds_of
from gramian.errors import GramianWarning
from ladder import LEVEL, complete, page, picture, read_lines
from page import HERE, options, write_section

LINES = HERE / "records.jsonl"
GROUPS = 5
RUNGS: dict[str, dict[str, Any]] = {
    "ratings alone": {},
    "sets of ratings": {"implicit": "both"},
    "tables": {},
    "noise of each user": {"noise": "by_user"},
    "time": {"time": "auto"},
    "drift": {"drift": True},
    "steps": {"likelihood": "ordinal"},
}


@dataclass(frozen=True)
class Case:
    """A set, its splits by name, its tables, the rungs that it has data for, and how often each is sampled.

    Attributes:
        name: Of the set.
        splits: Name, training and test ratings of each split.
        tables: ``user_features`` and ``item_features``, where there are any.
        rungs: Names of :data:`RUNGS`, in order.
        seeds: Of the sampler, on each split.
        draws: Sweeps.
    """

    name: str
    splits: Callable[[], Iterator[tuple[str, gm.Ratings, gm.Ratings]]]
    tables: dict[str, pl.DataFrame]
    rungs: tuple[str, ...]
    seeds: range
    draws: int = 320


def movielens_100k(folder: Path) -> Case:
    """The five published folds, with what is known of users and films."""
    names = ["user", "age", "sex", "occupation", "zip"]
    users = pl.read_csv(folder / "u.user", separator="|", has_header=False, new_columns=names, infer_schema=False)
    users = users.with_columns(pl.col("user").cast(pl.Int64), pl.col("age").cast(pl.Int64), pl.col("zip").str.head(1))
    tables = {"user_features": users, "item_features": films(gm.load_dataset("movielens-100k", path=folder))}
    return Case("movielens-100k", lambda: folds_of(folder), tables, tuple(RUNGS), range(3))


def films(ratings: gm.Ratings) -> pl.DataFrame:
    """Genres and year."""
    assert ratings.item_table is not None
    return ratings.item_table.select("item", "year", "genres")


def bundled(quick: bool) -> Case:
    """Random fifths of the bundled ratings held out; of some users where ``quick``."""
    draws = 20 if quick else 320
    ratings = gm.load_dataset("movielens-small")
    if quick:
        ratings = ratings.take(ratings.user_codes < 100)

    def splits() -> Iterator[tuple[str, gm.Ratings, gm.Ratings]]:
        for seed in range(1 if quick else 5):
            yield f"seed {seed}", *ratings.split(0.2, seed=seed)

    tables = {"item_features": films(ratings)}
    return Case("bundled", splits, tables, tuple(RUNGS), range(1 if quick else 3), draws)


def goodbooks(folder: Path) -> Case:
    """Random tenths held out."""

    def splits() -> Iterator[tuple[str, gm.Ratings, gm.Ratings]]:
        ratings = gm.load_dataset("goodbooks", path=folder)
        for seed in range(3):
            yield f"seed {seed}", *ratings.split(0.1, seed=seed)

    rungs = ("ratings alone", "sets of ratings", "noise of each user")
    return Case("goodbooks", splits, {}, rungs, range(3), 120)


def recipes(case: Case, seed: int, n_jobs: int | None) -> Iterator[tuple[str, gm.BPMF]]:
    """The recipe of every rung."""
    recipe = gm.BPMF(draws=case.draws, seed=seed, n_jobs=n_jobs)
    for rung in case.rungs:
        recipe = replace(recipe, **(case.tables if rung == "tables" else RUNGS[rung]))
        yield rung, recipe


# ---- one fit ---------------------------------------------------------------------------------------


def measured(recipe: gm.BPMF, train: gm.Ratings, test: gm.Ratings) -> dict[str, Any]:
    """Errors, probabilities, intervals overall and by groups of users, and the seconds of the fit."""
    began = time.perf_counter()
    model = recipe.fit(train)
    seconds = time.perf_counter() - began
    made = model.evaluate(test) | model.evaluate_probabilities(test)
    ends = model.predict_interval(test.users, test.items, LEVEL, times=test.times)
    inside = (test.values >= ends[:, 0]) & (test.values <= ends[:, 1])
    by_noise, by_count = (covered(inside, order) for order in user_orders(train, test))
    return {
        "rmse": made["rmse"], "log_loss": made["log_loss"], "rps": made["rps"], "coverage": float(inside.mean()),
        "width": float(np.mean(ends[:, 1] - ends[:, 0])), "by_noise": by_noise, "by_count": by_count,
        "seconds": seconds, "draws": recipe.draws, "factors": recipe.factors, "n": len(test),
    }  # fmt: skip


def user_orders(train: gm.Ratings, test: gm.Ratings) -> tuple[Any, Any]:
    """Of each test rating's user, from training ratings: how far from their means by user and item, and how many."""
    model = gm.Baseline().fit(train)
    left = train.values - model.predict(train.users, train.items)
    counts = np.bincount(train.user_codes, minlength=train.n_users)
    spread = np.sqrt(np.bincount(train.user_codes, np.square(left), minlength=train.n_users) / counts)
    users = model.codes_of(test)[0]
    return np.where(users < 0, np.nan, spread[users]), np.where(users < 0, np.nan, counts[users])


def covered(inside: Any, order: Any) -> list[float]:
    """The share of ratings inside their intervals, by fifths of the test ratings in this order of their users."""
    known = np.isfinite(order)
    edges = np.quantile(order[known], np.arange(1, GROUPS) / GROUPS)
    group = np.searchsorted(edges, order[known], side="right")
    return [float(inside[known][group == g].mean()) for g in range(GROUPS)]


def run(case: Case, lines: list[dict[str, Any]], n_jobs: int | None) -> Iterator[dict[str, Any]]:
    """Fit what ``lines`` lack."""
    done = {(line["set"], line["split"], line["seed"], line["rung"]) for line in lines}
    for seed in case.seeds:
        for split, train, test in case.splits():
            for rung, recipe in recipes(case, seed, n_jobs):
                if (case.name, split, seed, rung) not in done:
                    where = {"set": case.name, "split": split, "seed": seed, "rung": rung}
                    yield where | measured(recipe, train, test)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--only", choices=("movielens-100k", "bundled", "goodbooks"), help="the only set to fit")
    parser.add_argument("--n-jobs", type=int, help="threads; all cores if not given")
    parser.add_argument("--fits", type=int, help="how many fits to make at most; all if not given")
    parser.add_argument("--lines", type=Path, default=LINES, help="where the results of the fits are")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", GramianWarning)  # of items that no training rating has
    cases = [bundled(asked.quick)]
    if not asked.quick:
        cases += [movielens_100k(asked.ml_100k)] if asked.ml_100k else []
        cases += [goodbooks(asked.goodbooks)] if asked.goodbooks else []
    lines = [] if asked.quick else read_lines(asked.lines)
    made = chain.from_iterable(run(case, lines, asked.n_jobs) for case in cases if asked.only in (None, case.name))
    for line in islice(made, asked.fits):
        print(json.dumps(line), flush=True)
        lines.append(line)
        if not asked.quick:
            with asked.lines.open("a") as file:
                file.write(json.dumps(line) + "\n")
    whole = complete(lines)
    if not asked.quick:
        picture(whole, HERE.parent / "docs" / "records.png")
    write_section("records", page(whole), quick=asked.quick)
