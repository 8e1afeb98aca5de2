"""Ratings larger than memory: synthetic ones written in parts, prepared, and one epoch of ALS on them.

    python benchmarks/scale.py FOLDER [--ratings 100000000] [--factors 16]

Everything is written under FOLDER, which is left there. The memory stated is what a process had to itself at its
peak (anonymous pages); mapped pages of files can be given back to the system at any time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

PART = 10_000_000
STEPS = ("write", "prepare", "epoch")


def write(folder: Path, n_ratings: int) -> None:
    """Parquet parts: users by a mild power law, items by a steep one, ratings in halves around a rank-4 truth."""
    n_users, n_items = max(1000, n_ratings // 100), max(500, n_ratings // 5000)
    truth = np.random.default_rng(1)
    W, U = (truth.normal(0, 0.5, (count, 4)).astype(np.float32) for count in (n_users, n_items))
    ratings = folder / "ratings"
    ratings.mkdir(parents=True, exist_ok=True)
    for part, first in enumerate(range(0, n_ratings, PART)):
        rng = np.random.default_rng([2, part])
        count = min(PART, n_ratings - first)
        users = (n_users * rng.random(count, np.float32) ** 1.5).astype(np.int32)
        items = (n_items * rng.random(count, np.float32) ** 2).astype(np.int32)
        raw = 3.5 + np.einsum("nk,nk->n", W[users], U[items]) + 0.5 * rng.standard_normal(count, np.float32)
        values = np.clip(np.round(2 * raw) / 2, 0.5, 5).astype(np.float32)
        table = pl.DataFrame({"user": users, "item": items, "rating": values})
        table.write_parquet(ratings / f"part-{part:04d}.parquet")


def prepare(folder: Path) -> None:
    """`gramian prepare`."""
    import gramian as gm

    gm.prepare(folder / "ratings", folder / "prepared")


def epoch(folder: Path, factors: int) -> dict[str, Any]:
    """One epoch of ALS from its start: the seconds of each."""
    import gramian as gm

    ratings = gm.open_prepared(folder / "prepared")
    recipe = gm.ALS(factors=factors)
    began = time.perf_counter()
    arrays = recipe.start(ratings)
    started = time.perf_counter()
    done = recipe.epoch(ratings, arrays, 1)
    return {
        "ratings": len(ratings),
        "users": ratings.n_users,
        "items": ratings.n_items,
        "start": started - began,
        "epoch": time.perf_counter() - started,
        **done.record,
    }


class Memory:
    """The largest anonymous and whole resident memory of this process, looked at five times a second."""

    def __init__(self) -> None:
        self.anonymous = self.resident = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.anonymous = max(self.anonymous, int(lines["RssAnon"].split()[0]))
            self.resident = max(self.resident, int(lines["VmRSS"].split()[0]))
            time.sleep(0.2)


def measured(step: Callable[[], Any]) -> dict[str, Any]:
    """What a step returns, with its seconds and its memory in GB."""
    memory, began = Memory(), time.perf_counter()
    made = step() or {}
    seconds = time.perf_counter() - began
    return {
        **made,
        "seconds": seconds,
        "cpu": time.process_time(),
        "anonymous": memory.anonymous / 1e6,
        "resident": memory.resident / 1e6,
    }


def size_of(folder: Path) -> float:
    """GB of the files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratings", type=int, default=100_000_000)
    parser.add_argument("--factors", type=int, default=16)
    parser.add_argument("--step", choices=STEPS)
    asked = parser.parse_args()
    if asked.step is None:
        for name in STEPS:  # each in a process of its own, so that its memory is its own
            command = [sys.executable, __file__, str(asked.folder), "--ratings", str(asked.ratings)]
            subprocess.run([*command, "--factors", str(asked.factors), "--step", name], check=True)
        print(json.dumps({part.name: size_of(part) for part in asked.folder.iterdir() if part.is_dir()}))
    else:
        steps: dict[str, Callable[[], Any]] = {
            "write": lambda: write(asked.folder, asked.ratings),
            "prepare": lambda: prepare(asked.folder),
            "epoch": lambda: epoch(asked.folder, asked.factors),
        }
        print(json.dumps({"step": asked.step, **measured(steps[asked.step])}), flush=True)
