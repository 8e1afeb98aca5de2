"""Spark MLlib's ALS in one process, local[2]. Needs Java."""

from __future__ import annotations

import os
import time

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

from common import THREADS, arguments, measured, report
from pyspark.ml.recommendation import ALS
from pyspark.sql import SparkSession

MEMORY = "10g"

asked = arguments()
settings = {
    "spark.driver.memory": MEMORY,
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}
builder = SparkSession.builder.master(f"local[{THREADS}]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
ratings = spark.read.parquet(str(asked.folder / "ratings.parquet")).cache()
ratings.count()


def iterate(share: float = 1.0) -> float:
    """Seconds of one iteration.

    A fit makes the blocks of ratings, but nothing keeps the factors here, so they are computed when they are
    counted: both sides once. (A usual fit computes the items' factors a second time at its end.)
    """
    als = ALS(rank=asked.factors, maxIter=1, regParam=0.1, checkpointInterval=-1, seed=0, finalStorageLevel="NONE")
    als.setUserCol("user").setItemCol("item").setRatingCol("rating")
    model = als.fit(ratings.sample(fraction=share, seed=0) if share < 1 else ratings)
    began = time.perf_counter()
    model.userFactors.count()
    return time.perf_counter() - began


iterate(share=0.02)  # for the just-in-time compiler
report("pyspark", measured(iterate))
spark.stop()
