r"""ALS whose factors are too large for one machine: they stay in a folder that all machines of a cluster reach.

:func:`fit_stored` trains on Spark as ``ALS().fit(dataframe)`` does, to the same numbers, but holds nothing of the size
of a side anywhere: the start is written block by block, every half-sweep reads the folder of the one before and
writes its own (:mod:`gramian.engine.spark.routed`), and the driver sees sums. The folder is opened by
:func:`gramian.load` (:mod:`gramian.cluster.stored_model`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gramian.cluster.stored_model import ABOUT, FORMAT, StoredModel, open_stored_model
from gramian.data.spark_ratings import SparkRatings
from gramian.errors import DataError, ParameterError
from gramian.models.als import ALS
from gramian.models.recipe import AnyRecipe

__all__ = ["StoredModel", "check_stored", "fit_stored", "open_stored_model"]

START_BYTES = 1 << 26  # of the start that are on their way to the cluster at a time


def fit_stored(recipe: AnyRecipe, ratings: SparkRatings, *, resume: bool = False,
               callback: Callable[[dict[str, Any]], object] | None = None) -> StoredModel | None:  # fmt: skip
    """Train ALS with factors that stay in the storage folder of the ratings.

    The model comes back opened; or None, where this machine does not read the storage as files (``hdfs://…``, say):
    open it with :func:`gramian.load` where it is mounted.

    Args:
        recipe: ALS with the exact solver and joint biases; no patience.
        ratings: Ratings on a cluster, of :func:`gramian.spark_ratings` with a ``storage``.
        resume: Go on after the last whole epoch found in the folder, if it is of this recipe.
        callback: Called with the record of every epoch.

    Raises:
        ParameterError: The recipe needs what only one machine has.
    """
    als = check_stored(recipe)
    training = _Training(als, ratings)
    done = training.begin(resume)
    for number in range(done + 1, als.epochs + 1):
        record = training.epoch(number)
        if callback is not None:
            callback(record)
    place = ratings.storage.removeprefix("file://")
    return open_stored_model(place) if Path(place).is_dir() else None


def check_stored(recipe: AnyRecipe) -> ALS:
    """The recipe, if it can leave its factors in a folder; else it is refused."""
    if not isinstance(recipe, ALS):
        raise ParameterError(f"Stored factors are those of ALS: got {type(recipe).__name__}; use gm.ALS.")
    if recipe.solver != "exact" or (recipe.biases and recipe.bias_update != "joint") or recipe.patience is not None:
        raise ParameterError("Stored factors need ALS(solver='exact', bias_update='joint', patience=None).")
    return recipe


class _Training:
    """The folders of a training, and the sums that come back from it."""

    def __init__(self, recipe: ALS, ratings: SparkRatings) -> None:
        from gramian.engine.spark.routed import Solve

        self.recipe, self.ratings, self.spark = recipe, ratings, ratings.session
        side = recipe.side
        self.solve = Solve(side.penalty, side.intercepts(recipe.offset(ratings)), recipe.dtype)
        self.history: list[dict[str, Any]] = []
        self.edges = {side: np.array(ratings.about[f"{side}_edges"]) for side in ("user", "item")}
        self.blocks = {"user": ratings.by_user.kept, "item": ratings.by_item.kept}

    def begin(self, resume: bool) -> int:
        """Routes and the start, or what an earlier training left: the epochs that are done."""
        from gramian.engine.spark.routed import write_routes

        about = _about(self.ratings) if resume else None
        if about is not None and about["recipe"] == self.recipe.to_resume():
            self.history = about["history"]
            return len(self.history)
        for old in (ABOUT, "user_factors", "item_factors"):
            self.ratings.remove(old)
        for side, fixed in (("user", "item"), ("item", "user")):
            write_routes(self.blocks[side], self.edges[fixed], self._folder(f"routes_{side}"))
        self._write_start()
        self._sweep("user", 0)
        return 0

    def _folder(self, name: str) -> str:
        return f"{self.ratings.storage}/{name}"

    def _write_start(self) -> None:
        """Item factors from N(0, 1/K): the numbers that ALS has on one machine, drawn a block at a time."""
        import pyarrow as pa

        from gramian.engine.spark.routed import factor_batch

        rng = np.random.Generator(np.random.Philox(self.recipe.seed))
        K, edges = self.recipe.factors, self.edges["item"].tolist()
        held: list[Any] = []
        for block, (first, stop) in enumerate(pairwise(edges)):
            rows = np.zeros((stop - first, K + self.recipe.biases), self.recipe.dtype)
            rows[:, :K] = rng.standard_normal((stop - first, K)) / np.sqrt(K)
            held.append(factor_batch(block, first, rows, 0.0, self.solve.penalty, np.zeros(len(rows), np.int64)))
            if stop == edges[-1] or sum(batch.nbytes for batch in held) > START_BYTES:
                frame = self.spark.createDataFrame(pa.Table.from_batches(held))
                frame.write.mode("append").parquet(self._folder("item_factors/0"))
                held = []

    def _sweep(self, side: str, number: int) -> dict[str, float]:
        """One half-sweep: its folder is written; the sums over its blocks."""
        from pyspark.sql import functions as sql

        from gramian.engine.spark.routed import routed_half_sweep

        fixed = "item" if side == "user" else "user"
        before = number if side == "user" else number - 1
        path = self._folder(f"{side}_factors/{number}")
        made = routed_half_sweep(
            self.blocks[side],
            self.spark.read.parquet(self._folder(f"routes_{side}")),
            self.spark.read.parquet(self._folder(f"{fixed}_factors/{before}")),
            self.solve,
            len(self.edges[side]) - 1,
        )
        made.write.mode("overwrite").parquet(path)
        names = ("squared", "penalty", "singular", "rows")
        sums = self.spark.read.parquet(path).agg(*(sql.sum(name).alias(name) for name in names)).collect()[0]
        if sums["rows"] != self.edges[side][-1]:
            raise DataError(
                f"The factors of the {side}s have {sums['rows']} rows, not {self.edges[side][-1]}; train anew."
            )
        return dict(sums.asDict())

    def epoch(self, number: int) -> dict[str, Any]:
        """Items given the users, then users given the new items, and a note that both are whole."""
        import time

        began = time.perf_counter()
        items, users = self._sweep("item", number), self._sweep("user", number)
        record = {
            "epoch": number,
            "objective": users["squared"] + users["penalty"] + items["penalty"],
            "train_rmse": float(np.sqrt(users["squared"] / len(self.ratings))),
            "seconds": time.perf_counter() - began,
        }
        singular = int(users["singular"] + items["singular"])
        self.history.append(record | ({"minimum_norm_rows": singular} if singular else {}))
        self._note(number)
        return self.history[-1]

    def _note(self, number: int) -> None:
        about = {
            "format": FORMAT, "recipe": self.recipe.to_resume(), "history": self.history, "epoch": number,
            "width": len(self.solve.penalty.precision), "dtype": self.recipe.dtype, **self.solve.intercepts._asdict(),
            "ratings": self.ratings.about,
        }  # fmt: skip
        self.ratings.write_text(ABOUT, json.dumps(about))
        for side in ("user", "item"):
            for old in range(number - 1):
                self.ratings.remove(f"{side}_factors/{old}")


def _about(ratings: SparkRatings) -> dict[str, Any] | None:
    text = ratings.read_text(ABOUT)
    return None if text is None else json.loads(text)
