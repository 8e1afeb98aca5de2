"""MovieLens 100K, fold u1: seconds of each rung of the ladder, shares of features, the time to myFM's error.

    python benchmarks/reach.py [--ml-100k FOLDER] [--goodbooks FOLDER] [--quick]

On goodbooks-10k, what a sweep with sets of both sides costs beside a plain one: the two chains take turns.

The shares are of the variance that sets and tables explain, with the very tables and with their rows at other ids.
myFM's recipe knows users, items, days and the sets of both sides (its own example: K = 10, 512 sweeps, all kept).
Gramian has the same knowledge, a noise for each user, 120 draws and its other defaults. How many sweeps it takes to
myFM's error is seen in one fit with the test as validation; a fit of so many sweeps, with its predictions, is what is
timed. All cores.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import gramian as gm
from environments import Peer, run, write_columns
from gramian.errors import GramianWarning
from judge import published_fold
from page import options, write_section
from records import Case, movielens_100k, recipes

MYFM = Peer("myFM, flipped", "flipped_myfm.py", ("myfm",))
FACTORS, SWEEPS = 10, 512  # of myFM's example
DAY, FIRST_DAY = 86_400, 10_000  # the latter before that of any rating, so that days are small numbers
RECIPE = gm.BPMF(implicit="both", noise="by_user", time="auto", draws=120)


def of_myfm(folder: Path, sweeps: int) -> dict[str, Any]:
    """Its seconds and its error."""
    with tempfile.TemporaryDirectory() as name:
        for part, columns in zip(("train", "test"), published_fold(folder), strict=True):
            rows = np.loadtxt(folder / f"u1.{'base' if part == 'train' else part}", dtype=np.int64)
            days = rows[np.lexsort((rows[:, 1], rows[:, 0])), 3] // DAY
            write_columns(Path(name) / part, *columns)
            np.save(Path(name) / part / "day.npy", days - FIRST_DAY)
        return run(MYFM, Path(name), FACTORS, 0, sweeps)


def timed(recipe: gm.BPMF, train: gm.Ratings, test: gm.Ratings) -> tuple[float, float]:
    """Seconds of a fit and of predicting the test, and the error."""
    began = time.perf_counter()
    predicted = recipe.fit(train).predict(test.users, test.items, times=test.times)
    seconds = time.perf_counter() - began
    return seconds, float(np.sqrt(np.mean(np.square(predicted - test.values))))


def reached(target: float, train: gm.Ratings, test: gm.Ratings) -> tuple[gm.BPMF, float, float]:
    """The recipe of the fewest sweeps whose mean prediction is as good as the target, its seconds and its error."""
    errors = RECIPE.fit(train, test).history.column("validation_rmse")
    enough = 1 + next((n for n, error in enumerate(errors) if error <= target), len(errors) - 1)
    recipe = dataclasses.replace(RECIPE, draws=enough, burn_in=min(RECIPE.dropped, enough - 1))
    return recipe, *timed(recipe, train, test)


def shares(case: Case, train: gm.Ratings, test: gm.Ratings) -> Iterator[str]:
    """What the features explain: the tables as they are, and permuted."""
    rng = np.random.default_rng(0)
    permuted = {
        name: frame.with_columns(pl.Series(frame.columns[0], rng.permutation(frame[frame.columns[0]].to_numpy())))
        for name, frame in case.tables.items()
    }
    models = [
        dict(recipes(dataclasses.replace(case, tables=tables), 0, None))["tables"].fit(train)
        for tables in (case.tables, permuted)
    ]
    yield "\n| variance of | by | tables as they are | permuted |"
    yield "|---|---|---|---|"
    for row, other in zip(*(model.feature_shares().iter_rows(named=True) for model in models), strict=True):
        yield f"| {row['side']} {row['of']} | {row['by']} | {row['share']:.1%} | {other['share']:.1%} |"
    errors = " | ".join(f"{model.evaluate(test)['rmse']:.4f}" for model in models)
    yield f"| RMSE | | {errors} |"


def table(folder: Path, quick: bool) -> Iterator[str]:
    """Every rung, then the race."""
    train, test = (gm.read_ratings(folder / f"u1.{part}") for part in ("base", "test"))
    case = dataclasses.replace(movielens_100k(folder), draws=20 if quick else 320)
    yield "| what is known | seconds to fit and predict | RMSE |"
    yield "|---|---|---|"
    for place, (rung, recipe) in enumerate(recipes(case, 0, None)):
        timed(dataclasses.replace(recipe, draws=3), train, test)  # what is compiled at first use
        seconds, error = timed(recipe, train, test)
        yield f"| {'+ ' if place else ''}{rung} | {seconds:.1f} | {error:.4f} |"
    yield from shares(case, train, test)
    theirs = of_myfm(folder, 20 if quick else SWEEPS)
    print(f"myFM: {theirs}", flush=True)
    recipe, seconds, error = reached(theirs["rmse"], train, test)
    yield "\n| system | sweeps | seconds to fit and predict | RMSE |"
    yield "|---|---|---|---|"
    yield f"| myFM {theirs['version']}, K = {FACTORS} | {SWEEPS} | {theirs['seconds']:.1f} | {theirs['rmse']:.4f} |"
    yield f"| Gramian, K = {recipe.factors} | {recipe.draws} | {seconds:.1f} | {error:.4f} |"
    yield f"\nGramian takes 1/{theirs['seconds'] / seconds:.1f} of the time."


def costs(train: gm.Ratings, quick: bool) -> Iterator[str]:
    """Seconds of a sweep of the sampler, without and with sets, at K = 32, all cores."""
    plain = gm.BPMF(factors=32)
    every = np.ones(len(train), bool)  # a copy for each: what is made of ratings is kept for one recipe at a time
    runs = {name: sweeps(recipe, train.take(every)) for name, recipe in
            (("plain", plain), ("sets of both sides", dataclasses.replace(plain, implicit="both")))}  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(8 if quick else 40):
        for name, run_one in runs.items():
            began = time.perf_counter()
            next(run_one)
            if number >= 5:  # compiled, and far from where the chain began
                seconds[name].append(time.perf_counter() - began)
    ratings, users, items = len(train), train.n_users, train.n_items
    yield f"{ratings:,} ratings, {users:,} users, {items:,} items.\n"
    yield "| sweep | median seconds | least |"
    yield "|---|---|---|"
    middle = {name: float(np.median(times)) for name, times in seconds.items()}
    for name, times in seconds.items():
        yield f"| {name} | {middle[name]:.3f} | {min(times):.3f} |"
    plain_ones, others = seconds.values()
    least = min(others) / min(plain_ones)
    yield f"\n{middle['sets of both sides'] / middle['plain']:.2f} times by the medians, {least:.2f} by the least."


def sweeps(recipe: gm.BPMF, train: gm.Ratings) -> Iterator[None]:
    """A sweep of the only chain at each step; no draw is kept."""
    arrays, number = recipe.start(train), 1
    while True:
        made = recipe.epoch(train, arrays, number).arrays
        arrays = {name: array for name, array in made.items() if not name.startswith("draw")}
        number += 1
        yield


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    warnings.simplefilter("ignore", GramianWarning)  # of items that no training rating has
    if asked.ml_100k:
        write_section("reach", table(asked.ml_100k, asked.quick), quick=asked.quick)
    else:
        print("no --ml-100k: the time to myFM's error is not measured")
    if asked.goodbooks:
        train = gm.load_dataset("goodbooks", path=asked.goodbooks).split(0.1, seed=0)[0]
        write_section("sweeps with sets", costs(train, asked.quick), quick=asked.quick)
