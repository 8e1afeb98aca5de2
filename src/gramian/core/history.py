"""The per-epoch record of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from gramian.core.plain import Plain

if TYPE_CHECKING:
    import polars as pl

__all__ = ["History"]


class History(Sequence[Plain]):
    """What happened in each epoch: a read-only sequence of dictionaries, one per epoch.

    Usual keys: ``epoch`` (from 1), ``objective`` (J), ``train_rmse``, ``validation_rmse`` (where a
    validation table was given), ``seconds`` (wall time of the epoch).
    """

    def __init__(self, records: Sequence[Mapping[str, object]] = ()) -> None:
        self._records = tuple(dict(record) for record in records)

    def append(self, **record: object) -> History:
        """Return a new history with one more record at its end."""
        longer = History()
        longer._records = (*self._records, record)
        return longer

    @overload
    def __getitem__(self, index: int) -> Plain: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> Plain | History:
        """Return one epoch's record, or a part of the history."""
        if isinstance(index, slice):
            return History(self._records[index])
        return dict(self._records[index])

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._records == other._records

    def __hash__(self) -> int:
        return hash(len(self._records))

    def __repr__(self) -> str:
        last = f", last {self._records[-1]}" if self._records else ""
        return f"History({len(self)} epochs{last})"

    def column(self, key: str) -> list[Any]:
        """One key's value per epoch, ``None`` where an epoch has none."""
        return [record.get(key) for record in self._records]

    def to_frame(self) -> pl.DataFrame:
        """The history as a polars table, one row per epoch."""
        import polars as pl

        return pl.DataFrame(list(self._records), infer_schema_length=None)
