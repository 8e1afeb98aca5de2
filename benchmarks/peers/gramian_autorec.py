"""AutoRec by one of its two paths: seconds per epoch, the dense path's from some of its steps."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import polars as pl
from common import THREADS, load, report

import gramian as gm

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("hidden", type=int)
parser.add_argument("path")
for name in ("batch", "steps"):
    parser.add_argument(name, type=int)
asked = parser.parse_args()
users, items, values = load(asked.folder)
ratings = gm.Ratings.from_frame(pl.DataFrame({"user": users, "item": items, "rating": values}))
del users, items, values
recipe = gm.AutoRec(
    side="user", hidden=asked.hidden, path=asked.path, batch_size=asked.batch, dropout=0.5, n_jobs=THREADS
)
all_steps = -(-ratings.n_users // asked.batch)
if asked.path == "sparse":
    few = ratings.take(ratings.user_codes < 2 * asked.batch)
    recipe.epoch(few, recipe.start(few), 1)  # compiles
    steps, arrays = all_steps, recipe.start(ratings)
    began = time.perf_counter()
    recipe.epoch(ratings, arrays, 1)
    seconds = [time.perf_counter() - began]
else:
    from gramian.models.neural.autorec import dense_batches, dense_network

    steps, network = asked.steps, dense_network(recipe, ratings)
    rows = recipe.rows(ratings)
    picks = recipe.batches(rows, 1)[: steps + 1]
    network.fit(dense_batches(rows, ratings.n_items, picks[:1]), epochs=1, verbose=0)  # compiles
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        network.fit(dense_batches(rows, ratings.n_items, picks[1:]), epochs=1, shuffle=False, verbose=0)
        seconds.append((time.perf_counter() - began) * all_steps / steps)
report("gramian", seconds, mean_seconds=min(seconds), steps=steps, all_steps=all_steps)
