"""Arrow's types by their names, for what runs on a cluster: PyArrow itself is imported where it is used.

Spark reads the annotations of what it is given to run, so they must hold while the program runs, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Scalar, Table
else:
    RecordBatch = Scalar = Table = Any

__all__ = ["Batches", "MakeBatches", "MakeTable", "RecordBatch", "Scalar", "Table"]

Batches = Iterable[RecordBatch]
MakeBatches = Callable[[Batches], Iterator[RecordBatch]]  # what `mapInArrow` runs
MakeTable = Callable[[tuple[Scalar, ...], Table], Table]  # what `applyInArrow` runs on each group
