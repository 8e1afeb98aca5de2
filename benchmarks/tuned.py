"""Tuned against default settings: what a search on validation ratings is worth on test ratings.

    python benchmarks/tuned.py [--quick] [--ml-100k FOLDER] [--goodbooks FOLDER] [--movietweetings FOLDER]

Every search sees the training ratings alone; the tuned and the default recipe are fitted on all of them and measured
on the test, once each. The bundled ratings are split at random and by time.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

import gramian as gm
from gramian.data.pairs import Pairs
from gramian.metrics.significance import paired_test
from page import options, write_section

TRIALS = {"als": 40, "bpmf": 12}
SEARCHED = {"als": gm.ALS(), "bpmf": gm.BPMF(draws=120)}  # fewer draws in the search, for its time
SAMPLE = 5000  # users of goodbooks-10k
Split = tuple[str, gm.Ratings, gm.Ratings, str]


def splits(asked: argparse.Namespace) -> Iterator[Split]:
    """Name, training and test ratings, and the protocol by which validation ratings are cut."""
    bundled = gm.load_dataset("movielens-small")
    if asked.quick:
        few = bundled.take(bundled.user_codes < 150)
        yield "some bundled ratings, random", *few.split(0.2, seed=0), "random"
        return
    yield "bundled, random fifth", *bundled.split(0.2, seed=0), "random"
    yield "bundled, last fifth", *bundled.split_by_time(0.2), "time"
    if asked.ml_100k:
        yield (
            "movielens-100k, u1",
            gm.read_ratings(asked.ml_100k / "u1.base"),
            gm.read_ratings(asked.ml_100k / "u1.test"),
            "random",
        )
    if asked.goodbooks:
        books = gm.load_dataset("goodbooks", path=asked.goodbooks)
        chosen = np.random.default_rng(0).permutation(books.n_users)[:SAMPLE]
        some = books.take(np.isin(books.user_codes, chosen))
        yield f"goodbooks, {SAMPLE:,} users, random fifth", *some.split(0.2, seed=0), "random"
    if asked.movietweetings:
        tweets = gm.load_dataset("movietweetings", path=asked.movietweetings)
        yield "movietweetings, random fifth", *tweets.split(0.2, seed=0), "random"


def row(name: str, split: Split, trials: int) -> str:
    """One row of the table."""
    label, train, test, protocol = split
    found = gm.tune(SEARCHED[name], train, trials=trials, protocol=protocol, seed=0)
    errors, losses = [], []
    default: Any = gm.make_recipe(name)
    tuned: Any = found.recipe
    if name == "bpmf":
        tuned = dataclasses.replace(tuned, draws=default.draws)
    recipes: list[Any] = [default, tuned]
    for recipe in recipes:
        model = recipe.fit(train)
        pairs = Pairs(*model.codes_of(test))
        losses.append(np.square(test.values - model.predict_codes(pairs).astype(float)))
        errors.append(float(np.sqrt(losses[-1].mean())))
    p = paired_test(losses[0], losses[1], test.user_codes).p_value
    changed = [f.name for f in dataclasses.fields(tuned) if getattr(tuned, f.name) != getattr(default, f.name)]
    settings = ", ".join(f"{field}={getattr(tuned, field)}" for field in changed)
    print(f"{name} {label}: {errors} {found.python}", flush=True)
    return (
        f"| {recipes[0].name.upper()} | {label} | {found.default_rmse:.4f} → {found.rmse:.4f} | {errors[0]:.4f} | "
        f"{errors[1]:.4f} | {1 - errors[1] / errors[0]:+.2%} | {'< 0.0001' if p < 1e-4 else f'{p:.4f}'} | "
        f"{settings} |"
    )


def table(asked: argparse.Namespace) -> Iterator[str]:
    """Both recipes on every split."""
    yield "| recipe | ratings | validation RMSE | default, test RMSE | tuned | gain | paired p | tuned to |"
    yield "|---|---|---|---|---|---|---|---|"
    for split in splits(asked):
        for name, trials in TRIALS.items():
            yield row(name, split, 4 if asked.quick else trials)


if __name__ == "__main__":
    asked = options(__doc__).parse_args()
    write_section("tuned", table(asked), quick=asked.quick)
