"""What a trained model does on a cluster: evaluate, recommend for everyone, and take in new users, by DataFrames.

The model goes to the executors as a broadcast, without its ratings; a worker calls the very verbs that it has on one
machine, on its part of the rows.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from gramian.cluster.stored_model import StoredModel
from gramian.core.parameters import check_choice, check_number
from gramian.data.columns import find_columns
from gramian.data.ids import IdMap
from gramian.data.ratings import Ratings
from gramian.data.spark_ratings import SparkRatings, open_spark_ratings, picked_columns, spark_ratings
from gramian.data.table import RatingsTable
from gramian.engine.spark.arrow import Batches, RecordBatch
from gramian.engine.spark.blocks import blocks_in
from gramian.engine.spark.session import parallelism, spark_session, working_session
from gramian.errors import DataError, ParameterError, UnknownIdWarning
from gramian.kernels.csr import CSR, csr_from_sorted
from gramian.models.factor_model import FactorModel
from gramian.models.model import UNKNOWN, Model

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["evaluate", "fold_in", "open_spark_ratings", "recommend_all", "recommend_new", "spark_ratings",
           "spark_session"]  # fmt: skip

GATHERED = 500_000  # rows that a worker predicts at a time
USERS_AT_A_TIME = 10_000
Foldable = FactorModel | StoredModel  # models of one set of factors


def evaluate(model: Model, frame: DataFrame, *, unknown: str = "fallback", clip: bool = True,
             **names: str | int | None) -> dict[str, float | int]:  # fmt: skip
    """``{"rmse", "mse", "mae", "n"}`` of the predictions of a DataFrame of ratings, as :meth:`gramian.Model.evaluate`.

    Args:
        model: Any model.
        frame: The test: columns as in :func:`spark_ratings`, or given by ``user``, ``item``, ``rating``.
        unknown, clip: As in :meth:`gramian.Model.evaluate`.
        **names: Column names or positions.

    Raises:
        DataError: Nothing is left to evaluate, or a column is missing.
    """
    check_choice("unknown", unknown, UNKNOWN, "evaluate")
    roles = ("user", "item", "rating")
    picked = picked_columns(frame, find_columns(frame.columns, {role: names.get(role) for role in roles}))
    shared = frame.sparkSession.sparkContext.broadcast(model.without_ratings())

    def measure(batches: Batches) -> Iterator[RecordBatch]:
        import pyarrow as pa

        for table in _gathered(batches):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnknownIdWarning)
                predicted = shared.value.predict(table["user"], table["item"], unknown=unknown, clip=clip)
            error = predicted.astype(np.float64) - table["rating"].to_numpy()
            error = error[~np.isnan(error)]
            yield pa.RecordBatch.from_pydict(
                {"n": [len(error)], "squares": [float(error @ error)], "sizes": [float(np.abs(error).sum())]}
            )

    from pyspark.sql import functions as sql

    parts = picked.mapInArrow(measure, "n bigint, squares double, sizes double")
    found = parts.agg(*(sql.sum(name).alias(name) for name in parts.columns)).collect()[0]
    n = found["n"] or 0
    if n == 0:
        raise DataError(
            "Nothing is left to evaluate: no test pair has both a known user and a known item; "
            "choose unknown='fallback', or test on ratings of known users."
        )
    mse = found["squares"] / n
    return {"rmse": math.sqrt(mse), "mse": mse, "mae": found["sizes"] / n, "n": int(n)}


def recommend_all(model: Model, n: int = 10, *, exclude_seen: bool = True, spark: SparkSession | None = None
                  ) -> DataFrame:  # fmt: skip
    """The best items for every user, as a DataFrame of ``user``, ``item``, ``score`` and ``rank``; nothing runs yet.

    Write it: ``recommend_all(model).write.parquet("…")``. Users are scored block by block where their ratings are.

    Args:
        model: Any model; one that was trained on a cluster finds what users have seen in its blocks there.
        n: How many items per user.
        exclude_seen: Leave out what a user rated in training.
        spark: The session, for a model whose ratings are not on a cluster; the active one if not given.
    """
    check_number("n", n, low=1, whole=True, owner="recommend_all")
    ratings = model.ratings
    if isinstance(model, StoredModel):
        return _recommend_stored(model, n, exclude_seen, working_session(spark or spark_session()))
    if isinstance(ratings, SparkRatings):
        blocks = ratings.by_user.frame()
    else:
        blocks = _spans(ratings, working_session(spark or spark_session()))
    shared = blocks.sparkSession.sparkContext.broadcast(model.without_ratings())
    seen = None
    if not isinstance(ratings, SparkRatings):
        seen = blocks.sparkSession.sparkContext.broadcast(ratings.to_local().by_user)

    def best(batches: Batches) -> Iterator[RecordBatch]:
        for first, rows in _seen_rows(batches, seen):
            whole = _with_block(shared.value, first, rows)
            for low in range(first, first + rows.n_rows, USERS_AT_A_TIME):
                users = whole.user_ids.ids[low : min(low + USERS_AT_A_TIME, first + rows.n_rows)]
                table = whole.recommend(users, n, exclude_seen=exclude_seen)
                yield from table.select("user", "item", "score", "rank").to_arrow().to_batches()

    return blocks.mapInArrow(best, f"{_kinds(model)}, score double, rank int")


def _recommend_stored(model: StoredModel, n: int, exclude_seen: bool, spark: SparkSession) -> DataFrame:
    """The same of a model in a folder, of which every worker reads what it needs."""

    def best(batches: Batches) -> Iterator[RecordBatch]:
        for batch in batches:
            for first, stop in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                users = model.user_ids.take(np.arange(first, stop))
                table = model.recommend(users, n, exclude_seen=exclude_seen)
                yield from table.select("user", "item", "score", "rank").to_arrow().to_batches()

    return _spans(model.ratings, spark).mapInArrow(best, f"{_kinds(model)}, score double, rank int")


def fold_in(model: Model, frame: DataFrame, **names: str | int | None) -> DataFrame:
    """The factors of users that the model never saw, from a DataFrame of their ratings: ``user`` and ``row``.

    The row is K factors and, where the model has biases, the bias: what :meth:`gramian.FactorModel.fold_in` gives.
    Items that the model does not know say nothing. Repeated pairs keep the largest rating.
    """
    known = _foldable(model)
    shared = frame.sparkSession.sparkContext.broadcast(known.without_ratings())

    def solve(batches: Batches) -> Iterator[RecordBatch]:
        import pyarrow as pa

        for users, rows in _new_users(batches, shared.value):
            solved = shared.value.solved(rows)
            ends = pa.array(np.arange(0, solved.size + 1, solved.shape[1], dtype=np.int32))
            held = pa.ListArray.from_arrays(ends, pa.array(solved.astype(np.float32).reshape(-1)))
            yield pa.RecordBatch.from_arrays([users.to_arrow(), held], ["user", "row"])

    picked = _by_user(frame, names)
    kind = picked.schema["user"].dataType.simpleString()
    return picked.mapInArrow(solve, f"user {kind}, row array<float>")


def recommend_new(model: Model, frame: DataFrame, n: int = 10, **names: str | int | None) -> DataFrame:
    """The best items for users that the model never saw: ``user``, ``item``, ``score``, ``rank``; nothing runs yet.

    What they rated is left out. Arguments as in :func:`fold_in`.
    """
    check_number("n", n, low=1, whole=True, owner="recommend_new")
    known = _foldable(model)
    shared = frame.sparkSession.sparkContext.broadcast(known.without_ratings())

    def best(batches: Batches) -> Iterator[RecordBatch]:
        for users, rows in _new_users(batches, shared.value):
            made = _of_new(shared.value, users, rows).recommend(None, n)
            yield from made.select("user", "item", "score", "rank").to_arrow().to_batches()

    picked = _by_user(frame, names)
    kinds = f"user {picked.schema['user'].dataType.simpleString()}, {_kinds(model).partition(', ')[2]}"
    return picked.mapInArrow(best, f"{kinds}, score double, rank int")


# ---- what goes to the workers ------------------------------------------------------------------------


def _with_block(model: Model, first: int, rows: CSR) -> Model:
    """The model with the ratings of a block of its users."""
    before = np.zeros(first, np.int64)
    after = np.full(model.ratings.n_users - first - rows.n_rows, rows.n_entries)
    whole = rows._replace(indptr=np.concatenate([before, rows.indptr, after]))
    return dataclasses.replace(model, ratings=model.ratings.to_local().with_rows(whole))


def _spans(ratings: RatingsTable, spark: SparkSession) -> DataFrame:
    """Ranges of users, for ratings that are not on the cluster."""
    step = max(1, min(USERS_AT_A_TIME, -(-ratings.n_users // (4 * parallelism(spark)))))
    spans = [(low, min(low + step, ratings.n_users)) for low in range(0, ratings.n_users, step)]
    return spark.createDataFrame(spans, "first bigint, stop bigint").repartition(
        min(len(spans), 4 * parallelism(spark))
    )


def _seen_rows(batches: Batches, seen: Broadcast[CSR] | None) -> Iterator[tuple[int, CSR]]:
    """The first user and the ratings of each block, or of each range of users of a table that came along."""
    if seen is None:
        yield from blocks_in(batches)
        return
    for batch in batches:
        for first, stop in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield first, seen.value.take(np.arange(first, stop))


def _of_new(model: Foldable, users: pl.Series, rows: CSR) -> Foldable:
    """The model as it is for new users alone, with their ratings."""
    table = Ratings(IdMap(users), model.item_ids, rows).described_as(model.ratings)
    return model.with_users(table, model.solved(rows))


def _foldable(model: Model) -> Foldable:
    if not isinstance(model, FactorModel | StoredModel):
        raise ParameterError(
            f"New users of a {type(model).__name__} cannot be folded in on a cluster: it is no single set of factors; "
            "use recommend_for on one machine, or a model of ALS, PMF or SVD."
        )
    return model


def _by_user(frame: DataFrame, names: dict[str, str | int | None]) -> DataFrame:
    """A DataFrame of ratings with all rows of a user in one partition."""
    roles = ("user", "item", "rating")
    picked = picked_columns(frame, find_columns(frame.columns, {role: names.get(role) for role in roles}))
    return picked.repartition(4 * parallelism(frame.sparkSession), "user")


def _new_users(batches: Batches, model: Model) -> Iterator[tuple[pl.Series, CSR]]:
    """The users of a partition and their ratings of known items, sorted."""
    parts = [pl.DataFrame(pl.from_arrow(batch)) for batch in batches]
    if not parts or sum(part.height for part in parts) == 0:
        return
    table = pl.concat(parts)
    users = table["user"].unique().sort()
    table = table.with_columns(item=pl.Series(model.item_ids.codes(table["item"], "item"))).filter(pl.col("item") >= 0)
    table = table.group_by("user", "item").agg(pl.col("rating").max()).sort("user", "item")
    codes = users.search_sorted(table["user"]).to_numpy() if table.height else np.empty(0, np.int64)
    yield users, csr_from_sorted(codes, table["item"].to_numpy(), table["rating"].to_numpy(), len(users))


def _gathered(batches: Batches) -> Iterator[pl.DataFrame]:
    """Batches put together: looking ids up costs much for few rows."""
    held: list[pl.DataFrame] = []
    for batch in batches:
        held.append(pl.DataFrame(pl.from_arrow(batch)))
        if sum(part.height for part in held) >= GATHERED:
            yield pl.concat(held)
            held = []
    if held and sum(part.height for part in held):
        yield pl.concat(held)


def _kinds(model: Model) -> str:
    return ", ".join(
        f"{side} {'string' if ids.is_text else 'bigint'}"
        for side, ids in (("user", model.user_ids), ("item", model.item_ids))
    )
