"""From a DataFrame of ratings to blocks of rows in both orientations, on the cluster.

Ids of any type become codes in their order, as on one machine: their distinct values are sorted by ranges, numbered
within each, and the ranges' sizes are added up. Rows get their codes by joins and travel once to the block of their
user, where they are sorted and repeated pairs are settled; and once more to the block of their item. What comes to
the driver are sums, and the number of ratings of every few thousand rows, from which the blocks are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gramian.engine.spark.arrow import Batches, MakeTable, RecordBatch, Scalar, Table
from gramian.engine.spark.blocks import BLOCK_SCHEMA, block_table, blocks_in
from gramian.kernels.arrays import Array
from gramian.kernels.csr import csr_from_sorted
from gramian.kernels.duplicates import sort_pairs

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["Cut", "cut_blocks", "item_blocks", "user_blocks", "write_ids"]

MOST_PIECE, FEWEST_PIECES = 4096, 64  # rows that stay together, and into how many pieces a side is cut at least
PIECES_PER_BLOCK = 8  # at least, in a block of rows with the usual number of ratings
BLOCKS_PER_TASK = 4  # blocks for each task that can run at once, so that they end together
MOST_RATINGS, FEWEST_RATINGS = 4_000_000, 20_000  # in a block
IDS_SCHEMA = "part int, place bigint, id {kind}, rows bigint"


def write_ids(frame: DataFrame, side: str, path: str) -> int:
    """Write the distinct ids of a side with their codes and numbers of rows; returns how many there are."""
    from pyspark.sql import functions as sql

    kind = frame.schema[side].dataType.simpleString()
    counted = frame.groupBy(side).agg(sql.count(sql.lit(1)).alias("rows")).select(sql.col(side).alias("id"), "rows")
    numbered = counted.orderBy("id").mapInArrow(_numbered, IDS_SCHEMA.format(kind=kind))
    numbered.write.mode("overwrite").parquet(f"{path}.parts")
    spark = frame.sparkSession
    kept = spark.read.parquet(f"{path}.parts")
    sizes = {row["part"]: row["count"] for row in kept.groupBy("part").count().collect()}
    starts = dict(zip(sorted(sizes), np.cumsum([0, *(sizes[part] for part in sorted(sizes))]).tolist(), strict=False))
    offsets = spark.createDataFrame(list(starts.items()), "part int, start bigint")
    coded = kept.join(sql.broadcast(offsets), "part").select(
        (sql.col("start") + sql.col("place")).cast("int").alias("code"), "id", "rows"
    )
    coded.write.mode("overwrite").parquet(path)
    return sum(sizes.values())


def _numbered(batches: Batches) -> Iterator[RecordBatch]:
    """The ids of a range with their places in it."""
    import pyarrow as pa
    from pyspark import TaskContext

    context = TaskContext.get()
    part, place = 0 if context is None else context.partitionId(), 0
    for batch in batches:
        count = batch.num_rows
        columns = [
            pa.array(np.full(count, part, np.int32)), pa.array(np.arange(place, place + count)),
            batch.column("id"), batch.column("rows"),
        ]  # fmt: skip
        yield pa.RecordBatch.from_arrays(columns, ["part", "place", "id", "rows"])
        place += count


class Cut:
    """How the rows of a side are cut into blocks, and the number by which a block finds its partition.

    Spark puts a row into the partition that the hash of its key says; ``keys`` are numbers whose hashes fall into
    one partition each, so that every block has a partition for itself.

    Attributes:
        edges: Where blocks begin, and the end.
        piece: All edges but the last are multiples of it.
        keys: A key for each block.
    """

    def __init__(self, edges: Array, piece: int, keys: list[int]) -> None:
        self.edges, self.piece, self.keys = edges, piece, keys

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.keys)

    def frame(self, spark: SparkSession) -> DataFrame:
        """The key of each piece, as a small table."""
        pieces = np.arange(0, self.edges[-1], self.piece)
        block = np.searchsorted(self.edges, pieces, side="right") - 1
        rows = [(number, self.keys[b]) for number, b in enumerate(block.tolist())]
        return spark.createDataFrame(rows, "piece int, key int")


def cut_blocks(ids: DataFrame, n_rows: int, tasks: int) -> Cut:
    """Cut a side into blocks of about the same number of ratings."""
    from pyspark.sql import functions as sql

    total = int(ids.agg(sql.sum("rows")).collect()[0][0])
    goal = min(max(total // (BLOCKS_PER_TASK * tasks), FEWEST_RATINGS), MOST_RATINGS)
    piece, most = 1, min(MOST_PIECE, n_rows // FEWEST_PIECES, goal * n_rows // (PIECES_PER_BLOCK * total))
    while 2 * piece <= most:
        piece *= 2
    summed = ids.groupBy(sql.floor(sql.col("code") / piece).alias("piece")).agg(sql.sum("rows").alias("rows")).collect()
    counts = np.zeros(-(-n_rows // piece), np.int64)
    for row in summed:
        counts[row["piece"]] = row["rows"]
    ends = np.cumsum(counts)
    marks = np.unique(np.searchsorted(ends, np.arange(goal, total, goal)))
    edges = np.unique(np.concatenate([[0], marks * piece, [n_rows]]))
    return Cut(edges, piece, _keys(ids.sparkSession, len(edges) - 1))


def _keys(spark: SparkSession, count: int) -> list[int]:
    """A whole number for each of ``count`` partitions that Spark's hash sends there."""
    from pyspark.sql import functions as sql

    found: dict[int, int] = {}
    number, step = 0, 64 * count + 256
    while len(found) < count:
        some = spark.range(number, number + step, 1, 1).select(sql.col("id").cast("int").alias("id"))
        for row in some.select("id", sql.pmod(sql.hash("id"), sql.lit(count)).alias("part")).collect():
            found.setdefault(row["part"], row["id"])
        number += step
    return [found[part] for part in range(count)]


def user_blocks(frame: DataFrame, ids: tuple[DataFrame, DataFrame], cut: Cut, duplicates: str, path: str) -> None:
    """Write the blocks of users of a DataFrame of ``user``, ``item``, ``rating`` and maybe ``time``."""
    from pyspark.sql import functions as sql

    timed = "time" in frame.columns
    users, items = (
        part.select(sql.col("id").alias(side), sql.col("code").alias(f"{side}_code"))
        for part, side in zip(ids, ("user", "item"), strict=True)
    )
    coded = frame.join(users, "user").join(items, "item")
    chosen = [sql.col("user_code").alias("row"), sql.col("item_code").alias("column"), sql.col("rating").alias("value")]
    coded = coded.select(*chosen, *([sql.col("time")] if timed else []))
    n_columns = int(ids[1].count())
    _write_blocks(coded, cut, _user_block(cut.edges, cut.keys, n_columns, duplicates, timed), path)


def _user_block(edges: Array, keys: list[int], n_columns: int, duplicates: str, timed: bool) -> MakeTable:
    places = {key: block for block, key in enumerate(keys)}

    def build(key: tuple[Scalar, ...], table: Table) -> Table:
        columns = {name: table.column(name).to_numpy() for name in table.column_names if name != "key"}
        block = places[int(key[0].as_py())]
        first, stop = int(edges[block]), int(edges[block + 1])
        if timed:  # the order in which rows come is not known here: of the same time, the largest rating is the last
            order = np.lexsort((columns["value"], columns["time"], columns["column"], columns["row"]))
        else:
            order = np.lexsort((columns["value"], columns["column"], columns["row"]))
        rows, times = columns["row"] - np.int32(first), columns.get("time")
        pairs = sort_pairs(rows, columns["column"], n_columns, columns["value"], times, duplicates, order)
        made = csr_from_sorted(pairs.users, pairs.items, pairs.values, stop - first)
        return block_table(block, first, made, pairs.times, pairs.repeated)

    return build


def item_blocks(users: DataFrame, cut: Cut, path: str) -> None:
    """Write the blocks of items, from those of the users."""
    transposed = users.mapInArrow(_transposed, "row int, column int, value float")
    _write_blocks(transposed, cut, _item_block(cut.edges, cut.keys), path)


def _transposed(batches: Batches) -> Iterator[RecordBatch]:
    import pyarrow as pa

    for first, rows in blocks_in(batches):
        users = rows.row_codes() + np.int32(first)
        yield pa.RecordBatch.from_arrays(
            [pa.array(rows.indices), pa.array(users), pa.array(rows.values)], ["row", "column", "value"]
        )


def _item_block(edges: Array, keys: list[int]) -> MakeTable:
    places = {key: block for block, key in enumerate(keys)}

    def build(key: tuple[Scalar, ...], table: Table) -> Table:
        columns = {name: table.column(name).to_numpy() for name in table.column_names if name != "key"}
        block = places[int(key[0].as_py())]
        first, stop = int(edges[block]), int(edges[block + 1])
        order = np.lexsort((columns["column"], columns["row"]))
        rows = columns["row"][order] - np.int32(first)
        return block_table(
            block, first, csr_from_sorted(rows, columns["column"][order], columns["value"][order], stop - first)
        )

    return build


def _write_blocks(frame: DataFrame, cut: Cut, build: MakeTable, path: str) -> None:
    """Send rows to the partitions of their blocks, and write what ``build`` makes of each block."""
    from pyspark.sql import functions as sql

    keyed = frame.withColumn("piece", sql.floor(sql.col("row") / cut.piece).cast("int"))
    keyed = keyed.join(sql.broadcast(cut.frame(frame.sparkSession)), "piece").drop("piece")
    grouped = keyed.repartition(cut.blocks, "key").groupBy("key")
    grouped.applyInArrow(build, BLOCK_SCHEMA).write.mode("overwrite").parquet(path)
