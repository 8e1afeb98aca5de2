"""The rows of one side on Spark: every step reads the blocks from their Parquet folder and runs on each.

The fixed side goes to the executors as a broadcast, which each holds once, or, where that moves fewer bytes, block by
block the rows that are referred to there (:mod:`gramian.engine.spark.routed`); the bits are the same. Between two steps
nothing is kept but files, so an executor that is lost costs the blocks it was working on: they are done again
elsewhere, from the same bytes, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gramian.engine.rows import BlockedRows, Step, Weights
from gramian.engine.spark import routed
from gramian.engine.spark.arrow import Table
from gramian.engine.spark.blocks import BLOCK_SCHEMA, RESULT_SCHEMA, OnBlock, assembled, blocks_in, on_blocks
from gramian.engine.spark.session import executors
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, stacked

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["SparkRows", "squared_distances", "totals"]

SHARED = 4  # arrays that stay broadcast: both sides are used twice in an epoch
NOTHING = np.empty((0, 0))


class SparkRows(BlockedRows):
    """The ratings of one side in a Parquet folder of blocks.

    Attributes:
        n_rows: How many rows there are.
        n_entries: How many ratings.
        edges: Where each block begins, and the end.
        other_edges: The same of the other side.
    """

    def __init__(
        self, spark: SparkSession, path: str, n_rows: int, n_entries: int, edges: Array, other_edges: Array
    ) -> None:
        """The folder of blocks, and how both sides are cut."""
        self.spark, self.path, self.n_rows, self.n_entries = spark, path, n_rows, n_entries
        self.edges, self.other_edges = edges, other_edges
        self._shared: list[tuple[Array | Weights, Broadcast[Any]]] = []

    @cached_property
    def _frame(self) -> DataFrame:  # made once: the files are listed once
        return self.spark.read.schema(BLOCK_SCHEMA).parquet(self.path)

    def frame(self, blocks: list[int] | None = None) -> DataFrame:
        """The records of all blocks, or of some."""
        return self._frame if blocks is None else self._frame.filter(self._frame.block.isin(blocks))

    @cached_property
    def kept(self) -> DataFrame:
        """The blocks on the executors' disks, in partitions of their own: there they stay when others come to them."""
        from pyspark import StorageLevel

        rows = self._frame.select("block", "first", "indptr", "indices", "values")
        return rows.repartition(len(self.edges) - 1, "block").persist(StorageLevel.DISK_ONLY)

    def run(self, step: Step) -> tuple[Array, int]:
        """As of :class:`BlockedRows`."""
        out = step.room(self.n_rows)
        table = self._routed(step) if self.routed else self._broadcast(step)
        return out, assembled(table, out)

    @cached_property
    def routed(self) -> bool:
        """Whether only the rows that a block refers to are sent to it.

        A broadcast moves the fixed side once to each executor; on routes it goes to the cluster once, and each of its
        rows to every block that refers to it. Numbers are counted, since all rows are of one width. No row is without
        a block, so two executors never need the count.
        """
        n_others, copies = int(self.other_edges[-1]), executors(self.spark)
        if copies <= 2:
            return False
        met = self.results(lambda first, rows: (np.array([len(np.unique(rows.indices))]), 0))
        counts = [np.frombuffer(held.as_buffer(), np.int64)[0] for held in met.column("data")]
        return int(sum(counts)) + n_others < copies * n_others

    def _broadcast(self, step: Step) -> Table:
        factors, fixed, weights = (self._share(array) for array in (step.factors, step.fixed, step.weights))
        light = _without_arrays(step)

        def on_block(first: int, rows: CSR) -> tuple[Array, int]:
            mine = None if factors is None else factors.value[first : first + rows.n_rows]
            omega = None if weights is None else weights.value.of(first, rows)
            assert fixed is not None
            return _run(replace(light, factors=mine, fixed=fixed.value, weights=omega), first, rows)

        return self.results(on_block)

    def _routed(self, step: Step) -> Table:
        weights, kind, light = self._share(step.weights), step.fixed.dtype, _without_arrays(step)
        shape = len(self.edges) - 1, step.fixed.shape[1]
        sent = routed.sent_rows(self.spark, step.fixed, self.other_edges)
        own = None if step.factors is None else routed.sent_rows(self.spark, step.factors, self.edges)

        def on_block(first: int, rows: CSR, near: CSR, factors: Array | None, fixed: Array) -> tuple[Array, int]:
            omega = None if weights is None else weights.value.of(first, rows)
            return _run(replace(light, factors=factors, fixed=fixed, weights=omega), first, near)

        return routed.on_routed_blocks(on_block, self.kept, self._routes, sent, own, shape, kind).toArrow()

    @cached_property
    def _routes(self) -> DataFrame:
        """Which rows of the fixed side each block refers to; a folder beside that of the blocks."""
        path = f"{self.path}_routes"
        routed.write_routes(self.kept, self.other_edges, path)
        return self.spark.read.parquet(path)

    def results(self, on_block: OnBlock) -> Table:
        """What a step makes of every block, as an Arrow table."""
        return self.frame().mapInArrow(on_blocks(on_block), RESULT_SCHEMA).toArrow()

    def _share(self, value: Array | Weights | None) -> Broadcast[Any] | None:
        """The broadcast of an array or of weights, None of None; the last few are remembered."""
        if value is None:
            return None
        for known, shared in self._shared:
            if known is value:
                return shared
        solid = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
        shared = self.spark.sparkContext.broadcast(solid)
        self._shared.append((value, shared))
        if len(self._shared) > SHARED:
            self._shared.pop(0)[1].unpersist()
        return shared

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each row has."""
        out = np.empty(self.n_rows, np.int64)
        assembled(self.results(lambda first, rows: (rows.counts, 0)), out)
        return out

    def row(self, i: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The indices and values of one row: its block is read."""
        block = int(np.searchsorted(self.edges, i, side="right")) - 1
        table = self.frame([block]).toArrow()
        ((first, rows),) = blocks_in(table.to_batches())
        indices, values = rows.row(i - first)
        return indices, values

    def whole(self) -> tuple[CSR, Array | None]:
        """All blocks put together here, and the times where there are some: for tables that fit into memory."""
        table = self.frame().toArrow().sort_by("first")
        times = [np.frombuffer(held.as_buffer(), np.int64) for held in table.column("times") if held.is_valid]
        rows = stacked([part for _, part in blocks_in(table.to_batches())])
        return rows, np.concatenate(times) if times else None


def _without_arrays(step: Step) -> Step:
    """What is sent with the code; the arrays go by themselves."""
    return replace(step, factors=None, fixed=NOTHING, weights=None)


def _run(step: Step, first: int, rows: CSR) -> tuple[Array, int]:
    """A step on one block, on the worker: it has the rows of both sides that it needs."""
    return step.of_block(first, rows.n_rows).run(rows, n_jobs=1)


def totals(first: int, rows: CSR) -> tuple[Array, int]:
    """Of a block: the number, sum, smallest and largest of its ratings; the sum is in float64."""
    v = rows.values
    ends = (float(v.min()), float(v.max())) if len(v) else (np.inf, -np.inf)
    return np.array([len(v), float(np.sum(v, dtype=np.float64)), *ends]), 0


def squared_distances(mean: float) -> Callable[[int, CSR], tuple[Array, int]]:
    """Of a block: the sum of squared distances of its ratings from the mean."""
    return lambda first, rows: (np.array([np.sum(np.square(rows.values - np.float64(mean)))]), 0)
