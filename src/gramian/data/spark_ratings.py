"""Ratings on a cluster: a table in blocks of rows, one :class:`RatingsTable` beside the one in memory.

A recipe fitted to it does what it always does; only the steps that go over all ratings run on Apache Spark, block by
block, by the same functions (:mod:`gramian.engine.spark`).
"""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from gramian.core.parameters import check_choice
from gramian.core.plain import Plain
from gramian.data.columns import Names, find_columns
from gramian.data.described import Described
from gramian.data.ids import Codes, IdMap
from gramian.data.ratings import DUPLICATES, Ratings
from gramian.data.table import RatingsTable
from gramian.engine.spark.session import (
    HadoopPath,
    checkpoint_folder,
    hadoop_path,
    is_spark_frame,
    parallelism,
    working_session,
)
from gramian.errors import DataError, ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gramian.engine.spark.spark_rows import SparkRows

__all__ = ["SparkRatings", "as_ratings", "open_spark_ratings", "picked_columns", "spark_ratings"]

FORMAT = 1
INTEGERS = ("tinyint", "smallint", "int", "bigint")
TIMES = ("timestamp", "timestamp_ntz", "date")


class SparkRatings(Described):
    """Ratings in a storage folder that all machines of a cluster can reach: Parquet of ids and of blocks.

    Attributes:
        session: The session of Spark that they are read with.
        storage: Where they are.
    """

    def __init__(self, spark: SparkSession, storage: str, about: Plain) -> None:
        super().__init__(about)
        self.session, self.storage = working_session(spark), storage
        # two tasks for each that can run at once; no file is cut
        share = (1 << 20) + 4 * len(self) // parallelism(spark)
        self.session.conf.set("spark.sql.files.maxPartitionBytes", str(share))

    # ---- small files beside the blocks -------------------------------------------------------------

    def read_text(self, name: str) -> str | None:
        """A small file of the storage, or None where there is none."""
        if not self._path(name).exists():
            return None
        return str(self.session.read.text(f"{self.storage}/{name}", wholetext=True).collect()[0][0])

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the storage under another name, then rename it."""
        fresh = self._path(f".{name}.new")
        fresh.write(text.encode())
        fresh.rename_over(self._path(name))

    def remove(self, name: str) -> None:
        """Remove a folder of the storage, if it is there."""
        self._path(name).remove()

    def _path(self, name: str) -> HadoopPath:
        return hadoop_path(self.session, f"{self.storage}/{name}")

    @cached_property
    def user_ids(self) -> IdMap:
        """The users, in the order of their codes."""
        return self._ids("user")

    @cached_property
    def item_ids(self) -> IdMap:
        """The items, in the order of their codes."""
        return self._ids("item")

    def _ids(self, side: str) -> IdMap:
        table = self.session.read.parquet(f"{self.storage}/{side}_ids").select("code", "id").toArrow()
        frame = pl.DataFrame(pl.from_arrow(table)).sort("code")
        return IdMap(frame["id"] if frame["id"].dtype == pl.String else frame["id"].cast(pl.Int64))

    @cached_property
    def by_user(self) -> SparkRows:
        """The ratings in blocks of users."""
        return self._rows("user", self.n_users)

    @cached_property
    def by_item(self) -> SparkRows:
        """The ratings in blocks of items."""
        return self._rows("item", self.n_items)

    def _rows(self, side: str, count: int) -> SparkRows:
        from gramian.engine.spark.spark_rows import SparkRows

        sides = (side, "item" if side == "user" else "user")
        edges = (np.array(self.about[f"{name}_edges"]) for name in sides)
        return SparkRows(self.session, f"{self.storage}/by_{side}", count, len(self), *edges)

    def to_local(self) -> Ratings:
        """The same table in this machine's memory."""
        rows, times = self.by_user.whole()
        return Ratings(self.user_ids, self.item_ids, rows, times, self.duplicates)

    def count_pairs(self, users: Codes, items: Codes) -> int:
        """How many of these pairs of codes are in the table, brought here."""
        return self.to_local().count_pairs(users, items)

    def __repr__(self) -> str:
        low, high = self.scale
        return (
            f"SparkRatings({len(self):,} by {self.n_users:,} users of {self.n_items:,} items, {low:g} to {high:g}, "
            f"in {len(self.about['user_edges']) - 1} and {len(self.about['item_edges']) - 1} blocks)"
        )


def as_ratings(table: object) -> RatingsTable:
    """A DataFrame of Spark as ratings on its cluster; anything else as it is (what is no ratings is refused later)."""
    return spark_ratings(table) if is_spark_frame(table) else cast(RatingsTable, table)


def spark_ratings(
    frame: DataFrame,
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | None = None,
    time: str | int | None = None,
    *,
    duplicates: str = "last",
    storage: str | None = None,
) -> SparkRatings:
    """Put the ratings of a DataFrame into blocks on its cluster.

    Args:
        frame: The ratings.
        user, item, rating, time: Column names or positions; see :meth:`gramian.Ratings.from_frame`.
        duplicates: Repeated (user, item) pairs: the ``"last"`` by time, their ``"mean"``, or ``"raise"``. Rows of a
            DataFrame have no order, so without times the last is the largest rating.
        storage: A folder that all machines reach (``hdfs://…``, ``s3a://…``, or a path on one machine); what is there
            already is used again if it was made of the same rows. Not given: the folder for checkpoints of the Spark
            context, or, on one machine, a temporary one.

    Raises:
        DataError: A column is missing; an id, rating or time is missing, not finite or of another kind.
        ParameterError: No storage is known.
    """
    check_choice("duplicates", duplicates, DUPLICATES, "spark_ratings")
    if not is_spark_frame(frame):
        raise DataError(f"A DataFrame of Spark is needed: found {type(frame).__name__}; use spark.read to make one.")
    if "connect" in type(frame).__module__:
        raise ParameterError("A session of Spark Connect has no context to send factors by; use a classic session.")
    spark = working_session(frame.sparkSession)
    names: Names = {"user": user, "item": item, "rating": rating, "time": time}
    picked = picked_columns(frame, find_columns(frame.columns, names))
    place = storage or _storage(spark)
    checked = _checked(picked)
    about = _read_about(spark, place)
    plan = f"{checked['fingerprint']}:{checked['rows']}:{duplicates}"
    if about is None or about["plan"] != plan:
        about = _build(picked, spark, place, duplicates, plan)
    return SparkRatings(spark, place, about)


def open_spark_ratings(spark: SparkSession, storage: str) -> SparkRatings:
    """The ratings of a storage folder that :func:`spark_ratings` filled.

    Raises:
        DataError: There are none, or not whole.
    """
    about = _read_about(spark, storage)
    if about is None:
        raise DataError(f"The folder {storage!r} has no ratings, or not whole; make them with spark_ratings.")
    return SparkRatings(spark, storage, about)


def _storage(spark: SparkSession) -> str:
    context, folder = spark.sparkContext, checkpoint_folder(spark)
    if folder is not None:
        return f"{folder}/gramian-{context.applicationId}"
    if not str(context.master).startswith("local"):
        raise ParameterError(
            "Blocks of ratings need a folder that all machines reach: give storage='hdfs://…', or set the Spark "
            "context's checkpoint folder."
        )
    return tempfile.mkdtemp(prefix="gramian-spark-")


def picked_columns(frame: DataFrame, names: dict[str, str]) -> DataFrame:
    """The columns by their roles, of the types that are used: ids as bigint or text, ratings float, times bigint."""
    from pyspark.sql import functions as sql

    columns = []
    for role, name in names.items():
        column, kind = frame[name], frame.schema[name].dataType.simpleString()
        if role in ("user", "item"):
            if kind not in (*INTEGERS, "string"):
                raise DataError(
                    f"The {role} id must be an integer or text: found {kind}; convert the {role} ids first."
                )
            columns.append((column if kind == "string" else column.cast("bigint")).alias(role))
        elif role == "rating":
            if kind in ("string", "boolean") or (kind not in (*INTEGERS, "float", "double") and "decimal" not in kind):
                raise DataError(f"The ratings must be numbers: found {kind}; convert the column.")
            columns.append(column.cast("float").alias(role))
        elif kind in TIMES:
            columns.append(sql.unix_timestamp(column).alias(role))
        elif kind in (*INTEGERS, "float", "double"):
            columns.append(sql.floor(column).cast("bigint").alias(role))
        else:
            raise DataError(f"The times must be numbers or dates: found {kind}; convert the column.")
    return frame.select(*columns)


def _checked(frame: DataFrame) -> Plain:
    """The number of rows and their fingerprint, by one pass; DataError where something is missing."""
    from pyspark.sql import functions as sql

    bad = {name: sql.col(name).isNull() for name in frame.columns}
    bad["rating"] = bad["rating"] | sql.isnan("rating") | (sql.abs("rating") == float("inf"))
    found = frame.agg(
        sql.count(sql.lit(1)).alias("rows"),
        sql.bit_xor(sql.xxhash64(*frame.columns)).alias("fingerprint"),
        *(sql.sum(sql.when(column, 1).otherwise(0)).alias(name) for name, column in bad.items()),
    ).collect()[0]
    if found["rows"] == 0:
        raise DataError("There are no ratings: the table has no rows; check the source.")
    for name in frame.columns:
        if found[name]:
            example = frame.filter(bad[name]).first()
            what = "A rating must be a finite number" if name == "rating" else f"The {name} is missing in some rows"
            raise DataError(f"{what}: found {found[name]} such rows, for example {example}; correct or drop them.")
    return dict(found.asDict())


def _build(frame: DataFrame, spark: SparkSession, storage: str, duplicates: str, plan: str) -> Plain:
    """Write ids and blocks, and last what is known of the whole: a folder without it is not whole."""
    from gramian.engine.spark import building
    from gramian.engine.spark.spark_rows import SparkRows, squared_distances, totals

    counts = {side: building.write_ids(frame, side, f"{storage}/{side}_ids") for side in ("user", "item")}
    ids = tuple(frame.sparkSession.read.parquet(f"{storage}/{side}_ids") for side in ("user", "item"))
    cuts = [building.cut_blocks(part, n, parallelism(spark)) for part, n in zip(ids, counts.values(), strict=True)]
    building.user_blocks(frame, (ids[0], ids[1]), cuts[0], duplicates, f"{storage}/by_user")
    users = working_session(spark, records=100_000).read.parquet(f"{storage}/by_user")
    repeated = int(users.agg({"repeated": "sum"}).collect()[0][0])
    if repeated and duplicates == "raise":
        raise DataError(f"Some pairs are rated more than once: {repeated} rows repeat a pair; drop them, or choose "
                        "duplicates='last' or 'mean'.")  # fmt: skip
    building.item_blocks(users, cuts[1], f"{storage}/by_item")
    rows = SparkRows(spark, f"{storage}/by_user", counts["user"], 0, cuts[0].edges, cuts[1].edges)
    sums = np.array([np.frombuffer(x.as_buffer()) for x in rows.results(totals).column("data")])
    n, mean = int(sums[:, 0].sum()), float(sums[:, 1].sum() / sums[:, 0].sum())
    squares = [np.frombuffer(x.as_buffer())[0] for x in rows.results(squared_distances(mean)).column("data")]
    about = {
        "format": FORMAT, "plan": plan, "fingerprint": plan, "users": counts["user"], "items": counts["item"],
        "ratings": n, "scale": [float(sums[:, 2].min()), float(sums[:, 3].max())], "mean": mean,
        "variance": float(sum(squares) / n), "repeated": repeated,
        "user_edges": cuts[0].edges.tolist(), "item_edges": cuts[1].edges.tolist(),
    }  # fmt: skip
    text = spark.createDataFrame([(json.dumps(about),)], "about string")
    text.coalesce(1).write.mode("overwrite").text(f"{storage}/about")
    return about


def _read_about(spark: SparkSession, storage: str) -> Plain | None:
    """What a storage says of itself, or None where there is none or it is not whole."""
    if not hadoop_path(spark, f"{storage}/about/_SUCCESS").exists():
        return None
    about = json.loads(spark.read.text(f"{storage}/about").collect()[0][0])
    return about if about["format"] == FORMAT else None
