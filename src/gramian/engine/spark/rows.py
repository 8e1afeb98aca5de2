"""The rows of one side on Spark: every step reads the blocks from their Parquet folder and runs on each.

The fixed side goes to the executors as a broadcast, which each holds once. Between two steps nothing is kept but
files, so an executor that is lost costs the blocks it was working on: they are done again elsewhere, from the same
bytes, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gramian.engine.remote import RemoteRows
from gramian.engine.spark.blocks import BLOCK_SCHEMA, RESULT_SCHEMA, assembled, blocks_in, on_blocks
from gramian.errors import ParameterError
from gramian.kernels.csr import CSR

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["SparkRows", "squared_distances", "totals"]

Array = npt.NDArray[Any]
SHARED = 4  # arrays that stay broadcast: both sides are used twice in an epoch


class SparkRows(RemoteRows):
    """The ratings of one side in a Parquet folder of blocks.

    Attributes:
        n_rows: How many rows there are.
        n_entries: How many ratings.
    """

    def __init__(self, spark: SparkSession, path: str, n_rows: int, n_entries: int, edges: Array) -> None:
        """The folder of blocks, and where each block begins and the last one ends."""
        self.spark, self.path, self.n_rows, self.n_entries = spark, path, n_rows, n_entries
        self.edges = edges
        self._shared: list[tuple[Array, Any]] = []

    @cached_property
    def _frame(self) -> DataFrame:  # made once: the files are listed once
        return self.spark.read.schema(BLOCK_SCHEMA).parquet(self.path)

    def frame(self, blocks: list[int] | None = None) -> DataFrame:
        """The records of all blocks, or of some."""
        return self._frame if blocks is None else self._frame.filter(self._frame.block.isin(blocks))

    def run(self, step: str, *arguments: Any, **settings: Any) -> Any:
        """As of :class:`RemoteRows`."""
        if settings.get("weights") is not None:
            raise ParameterError("Weights of single ratings are not available on Spark; use noise='common'.")
        given = [self._share(value) if isinstance(value, np.ndarray) else value for value in arguments]

        def on_block(first: int, rows: CSR) -> tuple[Array, int]:
            return _run(step, first, rows, given, settings)

        other = arguments[-1] if step == "squared_errors_by_row" else arguments[-2]
        return self._results(on_block, step, other)

    def _results(self, on_block: Any, step: str, other: Array) -> Any:
        from gramian.kernels import sweep

        table = self.results(on_block)
        if step == "squared_errors_by_row":
            out = np.empty(self.n_rows)
            assembled(table, out)
            return out
        out = sweep.aligned_rows(self.n_rows, other.shape[1], other.dtype)
        singular = assembled(table, out)
        return out if step == "cg_update" else (out, singular)

    def results(self, on_block: Callable[[int, CSR], tuple[Array, int]]) -> Any:
        """What a step makes of every block, as an Arrow table."""
        return self.frame().mapInArrow(on_blocks(on_block), RESULT_SCHEMA).toArrow()

    def _share(self, array: Array) -> Any:
        """The broadcast of an array; the last few are remembered."""
        for known, shared in self._shared:
            if known is array:
                return shared
        shared = self.spark.sparkContext.broadcast(np.ascontiguousarray(array))
        self._shared.append((array, shared))
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
        parts = [rows for _, rows in blocks_in(table.to_batches())]
        ends = np.cumsum([rows.n_entries for rows in parts])
        indptr = np.concatenate([[0], *(r.indptr[1:] + end - r.n_entries for r, end in zip(parts, ends, strict=True))])
        times = [np.frombuffer(held.as_buffer(), np.int64) for held in table.column("times") if held.is_valid]
        rows = CSR(indptr, *(np.concatenate([getattr(p, name) for p in parts]) for name in ("indices", "values")))
        return rows, np.concatenate(times) if times else None


def _run(step: str, first: int, rows: CSR, given: list[Any], settings: dict[str, Any]) -> tuple[Array, int]:
    """A step of the local engine on one block, on the worker."""
    from gramian.engine import local

    arguments = [value.value if hasattr(value, "unpersist") else value for value in given]
    if step in (
        "cg_update",
        "block_update",
        "separate_update",
        "squared_errors_by_row",
    ):  # those with rows of this side
        arguments[0] = arguments[0][first : first + rows.n_rows]
    settings = {**settings, "n_jobs": 1}
    if step == "half_sweep":
        settings["first_row"] = first
        linear = settings.get("linear")
        if linear is not None and linear.ndim == 2:
            settings["linear"] = linear[first : first + rows.n_rows]
    made = getattr(local, step)(rows, *arguments, **settings)
    return made if isinstance(made, tuple) else (made, 0)


def totals(first: int, rows: CSR) -> tuple[Array, int]:
    """Of a block: the number, sum, smallest and largest of its ratings; the sum is in float64."""
    v = rows.values
    ends = (float(v.min()), float(v.max())) if len(v) else (np.inf, -np.inf)
    return np.array([len(v), float(np.sum(v, dtype=np.float64)), *ends]), 0


def squared_distances(mean: float) -> Callable[[int, CSR], tuple[Array, int]]:
    """Of a block: the sum of squared distances of its ratings from the mean."""
    return lambda first, rows: (np.array([np.sum(np.square(rows.values - np.float64(mean)))]), 0)
