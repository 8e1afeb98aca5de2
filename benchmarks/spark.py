"""One iteration of ALS on a Spark cluster of two processes: ours against MLlib's, and the bytes that each moves.

    python benchmarks/spark.py FOLDER [--system gramian|mllib] [--master local-cluster[2,1,4096]] [--quick]

The synthetic set of 17 million ratings is written to FOLDER, where blocks stay for another run. An iteration solves
both sides once; the blocks of ratings stand before the clock starts, in both systems.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gramian as gm
from gramian.distributed import SparkRatings
from gramian.engine import local
from gramian.engine.spark.session import spark_session
from page import synthetic

ROUNDS = 3


def frame(spark: Any, folder: Path, quick: bool) -> Any:
    """The ratings as a DataFrame of codes."""
    path = folder / "ratings.parquet"
    if not path.exists():
        synthetic(quick).to_frame().drop("time", strict=False).write_parquet(path, row_group_size=1_000_000)
    return spark.read.parquet(str(path))


def moved(spark: Any) -> dict[str, float]:
    """Megabytes so far: shuffled, read from storage, and sent to the driver by tasks."""
    context = spark.sparkContext
    none = context._gateway.new_array(context._jvm.double, 0)
    stages = context._jsc.sc().statusStore().stageList(None, False, False, none, None)
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
    how: dict[str, Any] = {"biased": recipe.biases, "offset": ratings.global_mean}
    sides: tuple[Any, Any] = ratings.by_item, ratings.by_user
    for side in sides:
        rows, _ = local.half_sweep(side, rows, recipe.side.penalty, **how)


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
    parser.add_argument("--system", choices=("gramian", "mllib"))
    parser.add_argument("--master", default="local-cluster[2,1,4096]")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    cluster = spark_session(asked.master, spark_driver_memory="4g")
    for name, measure in (("gramian", ours), ("mllib", mllib)):
        if asked.system in (None, name):
            made = measure(cluster, asked.folder, asked.factors, asked.quick)
            print(json.dumps({"system": name, "master": asked.master, "factors": asked.factors, **made}), flush=True)
    cluster.stop()
    sys.exit(0)
