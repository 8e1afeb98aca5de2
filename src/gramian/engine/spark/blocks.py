"""A block of rows as one record of a Parquet folder, and the steps that run on blocks.

A record is ``block`` and ``first`` (the number of its first row), the three arrays of a CSR as bytes, and, where there
are some, the times. What a step makes of a block goes back as such a record, too: ``first``, the number of rows, and
the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from gramian.engine.spark.arrow import Batches, MakeBatches, RecordBatch, Table
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR

__all__ = ["BLOCK_SCHEMA", "RESULT_SCHEMA", "OnBlock", "assembled", "block_table", "blocks_in", "on_blocks",
           "result_batch"]  # fmt: skip

BLOCK_SCHEMA = "block int, first bigint, indptr binary, indices binary, values binary, times binary, repeated bigint"
RESULT_SCHEMA = "first bigint, rows bigint, singular bigint, data binary"
KINDS = {"indptr": np.int64, "indices": np.int32, "values": np.float32}
OnBlock = Callable[[int, CSR], tuple[Array, int]]  # a block's first row and its ratings; what is made of them


def block_table(block: int, first: int, rows: CSR, times: Array | None = None, repeated: int = 0) -> Table:
    """A block as an Arrow table of one record."""
    import pyarrow as pa

    held = {name: [np.ascontiguousarray(array).tobytes()] for name, array in rows._asdict().items()}
    return pa.Table.from_arrays(
        [
            pa.array([block], pa.int32()), pa.array([first], pa.int64()),
            *(pa.array(held[name], pa.binary()) for name in CSR._fields),
            pa.array([None if times is None else times.tobytes()], pa.binary()), pa.array([repeated], pa.int64()),
        ],
        ["block", "first", *CSR._fields, "times", "repeated"],
    )  # fmt: skip


def blocks_in(batches: Batches) -> Iterator[tuple[int, CSR]]:
    """The first row and the ratings of each block in Arrow batches; nothing is copied."""
    for batch in batches:
        parts = [batch.column(name) for name in CSR._fields]
        for place, first in enumerate(batch.column("first").to_pylist()):
            arrays = [
                np.frombuffer(column[place].as_buffer(), kind)
                for column, kind in zip(parts, KINDS.values(), strict=True)
            ]
            yield int(first), CSR(*arrays)


def on_blocks(step: OnBlock) -> MakeBatches:
    """What a worker runs: the step on each of its blocks, one after another."""

    def run(batches: Batches) -> Iterator[RecordBatch]:
        for first, rows in blocks_in(batches):
            yield result_batch(first, rows.n_rows, *step(first, rows))

    return run


def result_batch(first: int, n_rows: int, made: Array, singular: int) -> RecordBatch:
    """What a step made of a block, as a record."""
    import pyarrow as pa

    columns = [
        pa.array([first], pa.int64()), pa.array([n_rows], pa.int64()), pa.array([singular], pa.int64()),
        pa.array([np.ascontiguousarray(made).tobytes()], pa.binary()),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, ["first", "rows", "singular", "data"])


def assembled(table: Table, out: Array) -> int:
    """Fill ``out`` with the results of all blocks, an Arrow table; returns their singular rows."""
    column = table.column("data").combine_chunks() if table.num_rows else table.column("data")
    firsts, rows = (table.column(name).to_pylist() for name in ("first", "rows"))
    filled = 0
    for place, (first, count) in enumerate(zip(firsts, rows, strict=True)):
        part = out[first : first + count]
        part[:] = np.frombuffer(column[place].as_buffer(), out.dtype).reshape(part.shape)
        filled += count
    if filled != len(out):
        raise RuntimeError(
            f"The blocks have {filled} rows where {len(out)} were wanted: files of the storage are missing."
        )
    return int(sum(table.column("singular").to_pylist()))
