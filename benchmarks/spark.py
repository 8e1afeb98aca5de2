"""A Spark cluster of two processes: the numbers of one machine, and an iteration of ALS beside MLlib's.

    python benchmarks/spark.py FOLDER [--only equal|gramian|mllib] [--master local-cluster[2,1,4096]] [--quick]

The synthetic set of 17 million ratings is written to FOLDER, where blocks stay for another run. ``equal`` trains ALS
and BPMF here and there, there in two cuts into blocks and once with an executor killed in mid-sweep, and says by how
much the numbers differ; on goodbooks-10k, too, where ``--goodbooks`` names a copy. An iteration of the others solves
both sides once; the blocks of ratings stand before the clock starts, in both systems.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gramian as gm
from gramian.data.spark_ratings import SparkRatings
from gramian.engine import local
from gramian.engine.spark import building
from gramian.engine.spark.session import spark_session
from page import synthetic

ROUNDS = 3
CUTS = 4, 11  # blocks for each task that can run at once


def frame(spark: Any, folder: Path, quick: bool) -> Any:
    """The synthetic ratings as a DataFrame of codes."""
    return written(spark, folder / "ratings.parquet", lambda: synthetic(quick))


def written(spark: Any, path: Path, ratings: Callable[[], gm.Ratings]) -> Any:
    """Ratings as a DataFrame, through a file that is kept."""
    if not path.exists():
        ratings().to_frame().drop("time", strict=False).write_parquet(path, row_group_size=1_000_000)
    return spark.read.parquet(str(path))


def equal(spark: Any, folder: Path, quick: bool, goodbooks: Path | None) -> None:
    """By how much the numbers of the cluster differ from those of this machine, one line for each training."""
    sets: dict[str, Callable[[], gm.Ratings]] = {"synthetic": lambda: synthetic(quick)}
    if goodbooks is not None:
        sets = {"goodbooks": lambda: gm.load_dataset("goodbooks", path=goodbooks)} | sets
    for name, read in sets.items():
        path = folder / f"{'' if name == 'synthetic' else f'{name}-'}ratings.parquet"
        source = written(spark, path, read)
        compared(name, gm.read_ratings(path), source, folder)


def compared(name: str, here: gm.Ratings, source: Any, folder: Path) -> None:
    """The same of one set: both models in both cuts; in the second, with rows sent as needed and an executor killed."""
    als = gm.ALS(factors=64, epochs=3)
    recipes = als, gm.BPMF(factors=32, draws=4, burn_in=1, keep_dtype="float32")
    wanted = [recipe.fit(here) for recipe in recipes]
    for cut in CUTS:
        building.BLOCKS_PER_TASK = cut
        place = folder / ("storage" if (name, cut) == ("synthetic", CUTS[0]) else f"storage-{name}-{cut}")
        there = gm.spark_ratings(source, storage=str(place))
        blocks = [len(there.about[f"{side}_edges"]) - 1 for side in ("user", "item")]
        about = {"set": name, "ratings": len(here), "blocks": blocks}
        for recipe, mine in zip(recipes, wanted, strict=True):
            say({**about, "model": recipe.name, **apart(mine, recipe.fit(there))})
    for side in (there.by_user, there.by_item):
        vars(side)["routed"] = True
    for recipe, mine in zip(recipes, wanted, strict=True):
        say({**about, "model": recipe.name, "sent": "as needed", **apart(mine, recipe.fit(there))})
    killed: list[int] = []
    theirs = als.fit(there, callback=partial(kill_one, killed))
    say({**about, "model": "als", "executors_killed": len(killed), **apart(wanted[0], theirs)})


def say(result: dict[str, Any]) -> None:
    """A line of the results."""
    print(json.dumps(result), flush=True)


def apart(mine: Any, theirs: Any) -> dict[str, Any]:
    """How far the parameters of two models are from each other, and the predictions of 100,000 random pairs."""
    arrays = mine.arrays(), theirs.arrays()
    names = [name for name, array in arrays[0].items() if array.ndim == 2]
    steps = [np.abs(arrays[0][name].astype(float) - arrays[1][name]) for name in names]
    rng = np.random.default_rng(0)
    pairs = [rng.choice(ids.ids.to_numpy(), 100_000) for ids in (mine.user_ids, mine.item_ids)]
    predicted = [model.predict(*pairs) for model in (mine, theirs)]
    return {
        "numbers": sum(step.size for step in steps),
        "differ": sum(int((step != 0).sum()) for step in steps),
        "largest_difference": max(float(step.max()) for step in steps),
        "of_predictions": float(np.abs(predicted[0] - predicted[1]).max()),
    }


def kill_one(killed: list[int], model: Any) -> None:
    """A while after the first epoch, in the middle of a sweep, kill an executor."""

    def kill() -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            if not killed and is_executor(pid) and descends(pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    if len(model.history) == 1:
        threading.Timer(0.3 * model.history[-1]["seconds"], kill).start()


def is_executor(pid: int) -> bool:
    """Whether a process is an executor of Spark."""
    try:
        return b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def descends(pid: int) -> bool:
    """Whether a process descends from this one."""
    try:
        while pid not in (0, os.getpid()):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False
    return pid == os.getpid()


def moved(spark: Any) -> dict[str, float]:
    """Megabytes so far: shuffled, read from storage, and sent to the driver by tasks."""
    context = spark.sparkContext
    none = context._gateway.new_array(context._jvm.double, 0)  # noqa: SLF001 - only the JVM knows
    stages = context._jsc.sc().statusStore().stageList(None, False, False, none, None)  # noqa: SLF001
    made = {"shuffled": 0, "read": 0, "to_driver": 0}
    for place in range(stages.size()):
        stage = stages.apply(place)
        made["shuffled"] += stage.shuffleWriteBytes()
        made["read"] += stage.inputBytes()
        made["to_driver"] += stage.resultSize()
    return {name: value / 1e6 for name, value in made.items()}


def ours(spark: Any, folder: Path, factors: int, quick: bool) -> dict[str, Any]:
    """Both half-sweeps, the median of some; and a whole epoch with its objective."""
    began = time.perf_counter()
    ratings = gm.spark_ratings(frame(spark, folder, quick), storage=str(folder / "storage"))
    blocks = time.perf_counter() - began
    recipe = gm.ALS(factors=factors)
    arrays = recipe.start(ratings)
    sweep(recipe, ratings, arrays)
    before = moved(spark)
    seconds = [timed(lambda: sweep(recipe, ratings, arrays)) for _ in range(ROUNDS)]
    after = moved(spark)
    epoch = timed(lambda: recipe.epoch(ratings, arrays, 1))
    per = {name: (after[name] - before[name]) / ROUNDS for name in before}
    per["broadcast"] = sum(rows.nbytes for rows in arrays.values()) / 1e6
    return {"blocks": blocks, "iteration": statistics.median(seconds), "all": seconds, "epoch": epoch, **per}


def sweep(recipe: gm.ALS, ratings: SparkRatings, arrays: Any) -> None:
    """One iteration, without the objective, which MLlib does not compute either."""
    rows: Any = arrays["user_rows"].copy()
    intercepts = recipe.side.intercepts(ratings.global_mean)
    sides: tuple[Any, Any] = ratings.by_item, ratings.by_user
    for side in sides:
        rows, _ = local.half_sweep(side, rows, recipe.side.penalty, intercepts)


def mllib(spark: Any, folder: Path, factors: int, quick: bool) -> dict[str, Any]:
    """One iteration of ``pyspark.ml.recommendation.ALS``.

    A fit makes the blocks; nothing keeps the factors, so that both sides are computed once when they are counted.
    """
    from pyspark.ml.recommendation import ALS

    ratings = frame(spark, folder, quick).cache()
    ratings.count()
    als = ALS(rank=factors, maxIter=1, regParam=0.1, checkpointInterval=-1, seed=0, finalStorageLevel="NONE")
    als.setUserCol("user").setItemCol("item").setRatingCol("rating")
    als.fit(ratings.sample(fraction=0.02, seed=0)).userFactors.count()  # for the just-in-time compiler
    began = time.perf_counter()
    model = als.fit(ratings)
    blocks = time.perf_counter() - began
    before = moved(spark)
    seconds = [timed(model.userFactors.count)]
    after = moved(spark)
    seconds.append(timed(als.fit(ratings).userFactors.count))  # once more, when everything is compiled
    per = {name: after[name] - before[name] for name in before}
    return {"blocks": blocks, "iteration": min(seconds), "all": seconds, **per}


def timed(run: Callable[[], object]) -> float:
    """Seconds of a run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("equal", "gramian", "mllib"))
    parser.add_argument("--goodbooks", type=Path, help="a folder with a copy of goodbooks-10k")
    parser.add_argument("--master", default="local-cluster[2,1,4096]")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    cluster = spark_session(asked.master, spark_driver_memory="4g")
    if asked.only in (None, "equal"):
        equal(cluster, asked.folder, asked.quick, asked.goodbooks)
    building.BLOCKS_PER_TASK = CUTS[0]
    for name, measure in (("gramian", ours), ("mllib", mllib)):
        if asked.only in (None, name):
            made = measure(cluster, asked.folder, asked.factors, asked.quick)
            say({"system": name, "master": asked.master, "factors": asked.factors, **made})
    cluster.stop()
    sys.exit(0)
