"""Factors too large for one machine: Parquet between half-sweeps, and only the rows that a block needs on their way.

A half-sweep is one job. The blocks of the fixed side's factors meet the *routes*, which say for each block of ratings
on the other side which of their rows it refers to; these rows are cut out and shuffled to that block, where the local
half-sweep solves its rows against them. So a block of ratings receives (distinct columns) × D numbers, not the whole
fixed side. What the next half-sweep reads is the files of this one: no lineage grows, and a lost executor or driver
costs the work since the last whole folder.

A record of factors is ``block``, ``first``, ``rows``, the numbers as bytes, and what is summed over the blocks: the
squared errors, the penalty, the singular rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gramian.engine.rows import Intercepts, Penalty
from gramian.engine.spark.arrow import Batches, RecordBatch, Scalar, Table
from gramian.engine.spark.blocks import RESULT_SCHEMA, blocks_in, result_batch
from gramian.kernels.arrays import Array, aligned_rows
from gramian.kernels.csr import CSR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["FACTOR_SCHEMA", "Solve", "factor_batch", "factors_in", "on_routed_blocks", "routed_half_sweep",
           "sent_rows", "write_routes"]  # fmt: skip

FACTOR_SCHEMA = (
    "block int, first bigint, rows bigint, data binary, squared double, penalty double, singular bigint, ratings bigint"
)
ROUTE_SCHEMA = "source int, dest int, places binary"
MESSAGE_SCHEMA = "dest int, source int, data binary"
OWN = -1  # the source of a message with the rows of the block itself


class Solve(NamedTuple):
    """How rows are solved: what :func:`gramian.engine.local.half_sweep` takes."""

    penalty: Penalty
    intercepts: Intercepts
    dtype: str


def write_routes(blocks: DataFrame, sources: Array, path: str) -> None:
    """Write which rows of the fixed side each block of ratings refers to, by the block that has them there.

    Args:
        blocks: The blocks of ratings.
        sources: Where the blocks of the fixed side begin, and the end.
        path: The folder.
    """

    def route(batches: Batches) -> Iterator[RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            numbers = batch.column("block").to_pylist()
            for dest, (_, rows) in zip(numbers, blocks_in([batch]), strict=True):
                needed = np.unique(rows.indices)
                cuts = np.searchsorted(needed, sources)
                found = [s for s in range(len(sources) - 1) if cuts[s + 1] > cuts[s]]
                places = [(needed[cuts[s] : cuts[s + 1]] - sources[s]).astype(np.int32).tobytes() for s in found]
                yield pa.RecordBatch.from_arrays(
                    [pa.array(found, pa.int32()), pa.array([dest] * len(found), pa.int32()),
                     pa.array(places, pa.binary())], ["source", "dest", "places"],
                )  # fmt: skip

    blocks.mapInArrow(route, ROUTE_SCHEMA).write.mode("overwrite").parquet(path)


def sent_rows(spark: SparkSession, rows: Array, edges: Array) -> DataFrame:
    """The rows of a side, which the driver has, as records of their blocks on the cluster."""
    import pyarrow as pa

    cuts = [(int(first), int(stop)) for first, stop in pairwise(edges)]
    data = pa.array([np.ascontiguousarray(rows[first:stop]).tobytes() for first, stop in cuts], pa.binary())
    table = pa.Table.from_arrays([pa.array(np.arange(len(cuts), dtype=np.int32)), data], ["block", "data"])
    return spark.createDataFrame(table)


def messages(routes: DataFrame, factors: DataFrame, width: int, kind: np.dtype[Any]) -> DataFrame:
    """What each block of ratings needs of each block of the fixed side, cut out of it."""

    def cut(batches: Batches) -> Iterator[RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            held, places = batch.column("data"), batch.column("places")
            for k in range(batch.num_rows):
                rows = np.frombuffer(held[k].as_buffer(), kind).reshape(-1, width)
                cut_out = rows[np.frombuffer(places[k].as_buffer(), np.int32)]
                yield pa.RecordBatch.from_arrays(
                    [batch.column("dest")[k : k + 1], batch.column("source")[k : k + 1],
                     pa.array([cut_out.tobytes()], pa.binary())], ["dest", "source", "data"],
                )  # fmt: skip

    met = factors.select("block", "data").join(routes, factors["block"] == routes["source"])
    return met.select("dest", "source", "places", "data").mapInArrow(cut, MESSAGE_SCHEMA)


def arrived(table: Table, rows: CSR, width: int, kind: np.dtype[Any]) -> tuple[CSR, Array]:
    """A block whose columns are places among the rows that have come for it, and these rows."""
    needed, places = np.unique(rows.indices, return_inverse=True)
    other = aligned_rows(len(needed), width, kind)
    sources, held, first = table.column("source").to_numpy(), table.column("data"), 0
    for message in np.argsort(sources, kind="stable").tolist():  # not sorted as a table: that would copy the rows
        if sources[message] != OWN:
            part = np.frombuffer(held[message].as_buffer(), kind).reshape(-1, width)
            other[first : first + len(part)] = part
            first += len(part)
    if first != len(needed):
        raise RuntimeError(f"A block of ratings got {first} rows where it needs {len(needed)}: its routes are old.")
    return CSR(rows.indptr, places.astype(np.int32), rows.values), other


def on_routed_blocks(
    step: Callable[..., tuple[Array, int]], blocks: DataFrame, routes: DataFrame, factors: DataFrame,
    here: DataFrame | None, shape: tuple[int, int], kind: np.dtype[Any],
) -> DataFrame:  # fmt: skip
    """A step on every block, with the rows that it needs: results as those of a step that has a broadcast.

    Args:
        step: Called with the block's first row, its ratings, the same with columns among the rows that have come, the
            rows of its own side or None, and the rows that have come.
        blocks: The blocks of ratings; partitioned by ``block`` and kept, they do not travel.
        routes: What :func:`write_routes` wrote for these blocks.
        factors: The rows of the fixed side, of :func:`sent_rows`.
        here: Those of this side, where the step takes some.
        shape: How many blocks there are, and how wide the rows of both sides.
        kind: Their dtype.
    """
    from pyspark.sql import functions as sql

    parts, width = shape
    sent = messages(routes, factors, width, kind)
    if here is not None:
        own = here.select(sql.col("block").alias("dest"), sql.lit(OWN).alias("source"), "data")
        sent = sent.unionByName(own)

    def run(left: Table, right: Table) -> Table:
        import pyarrow as pa

        ((first, rows),) = blocks_in(left.to_batches())
        near, other = arrived(right, rows, width, kind)
        mine = np.flatnonzero(right.column("source").to_numpy() == OWN).tolist()
        held = [np.frombuffer(right.column("data")[message].as_buffer(), kind) for message in mine]
        own = held[0].reshape(-1, width) if held else None
        batch = result_batch(first, rows.n_rows, *step(first, rows, near, own, other))
        return pa.Table.from_batches([batch])

    grouped = sent.repartition(parts, "dest").groupBy("dest")
    return blocks.groupBy("block").cogroup(grouped).applyInArrow(run, RESULT_SCHEMA)


def routed_half_sweep(blocks: DataFrame, routes: DataFrame, factors: DataFrame, solve: Solve, parts: int) -> DataFrame:
    """The new factors of one side as records; nothing runs until they are written.

    Args:
        blocks: The blocks of ratings of the side to be solved; partitioned by ``block`` and kept, they do not travel.
        routes: What :func:`write_routes` wrote for these blocks.
        factors: The records of the fixed side.
        solve: How.
        parts: Partitions of the messages.
    """
    width, kind = len(solve.penalty.precision), np.dtype(solve.dtype)
    sent = messages(routes, factors, width, kind).repartition(parts, "dest").groupBy("dest")
    return blocks.groupBy("block").cogroup(sent).applyInArrow(_solver(solve, width, kind), FACTOR_SCHEMA)


def _solver(solve: Solve, width: int, kind: np.dtype[Any]) -> Callable[[tuple[Scalar, ...], Table, Table], Table]:
    """What a worker does with a block of ratings and the rows that have come for it."""

    def run(key: tuple[Scalar, ...], left: Table, right: Table) -> Table:
        import pyarrow as pa

        from gramian.engine import local

        ((first, rows),) = blocks_in(left.to_batches())
        near, other = arrived(right, rows, width, kind)
        made, singular = local.half_sweep(near, other, solve.penalty, solve.intercepts, n_jobs=1)
        squared = local.squared_errors(near, made, other, solve.intercepts, n_jobs=1)
        batch = factor_batch(
            left.column("block")[0].as_py(), first, made, squared, solve.penalty, rows.counts, singular
        )  # fmt: skip
        return pa.Table.from_batches([batch])

    return run


def factor_batch(
    block: int, first: int, made: Array, squared: float, penalty: Penalty, counts: Array, singular: int = 0
) -> RecordBatch:
    """A record of factors, with the sums over its rows."""
    import pyarrow as pa

    squares = np.square(made, dtype=np.float64) @ np.diag(penalty.precision)
    shrunk = float(np.sum(squares * counts) if penalty.by_count else np.sum(squares))
    values = {
        "block": pa.array([block], pa.int32()), "first": pa.array([first], pa.int64()),
        "rows": pa.array([len(made)], pa.int64()), "data": pa.array([made.tobytes()], pa.binary()),
        "squared": pa.array([squared]), "penalty": pa.array([shrunk]), "singular": pa.array([singular], pa.int64()),
        "ratings": pa.array([int(counts.sum())], pa.int64()),
    }  # fmt: skip
    return pa.RecordBatch.from_arrays(list(values.values()), list(values))


def factors_in(batches: Batches, width: int, kind: npt.DTypeLike) -> Iterator[tuple[int, Array]]:
    """The first row and the rows of each record of factors."""
    for batch in batches:
        for first, held in zip(batch.column("first").to_pylist(), batch.column("data"), strict=True):
            yield first, np.frombuffer(held.as_buffer(), kind).reshape(-1, width)
