"""Preparing ratings that are larger than memory: sorted blocks on the disk, in both orientations.

Five stages, each of which can be taken up where it was left:

1. *ids*: every user and item with its number of rows, by a streamed grouping;
2. *deal*: the rows, in batches, are coded and dealt into files by ranges of users that fit into memory;
3. *users*: each such file is sorted, repeated pairs are settled, and it goes to the end of the users' arrays; its
   rows are dealt again, by ranges of items;
4. *items*: the same for the items, whose rows come in the order of the users already;
5. *finish*: what is known of the whole is written, and the folder gets its name.

Memory: the ids and counts, and one range of rows. Disk: some 12 bytes per rating (20 with times) beside the result
while it is made. A break leaves a hidden folder beside the goal, and never half a result.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from gramian.core.parameters import check_choice, check_number
from gramian.data.columns import Names, rating_column, time_column
from gramian.data.ids import IdMap, id_series
from gramian.data.journal import Journal, clear
from gramian.data.prepared import ABOUT, FORMAT, PreparedRatings, is_prepared, open_prepared
from gramian.data.ratings import DUPLICATES, Ratings
from gramian.data.readers import _plain_integers
from gramian.data.sources import Scan, scan_ratings, signature
from gramian.errors import DataError, DataWarning
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR
from gramian.kernels.duplicates import SortedPairs, sort_pairs

__all__ = ["check_goal", "prepare"]

Say = Callable[[str], object]
BATCH = 4_000_000  # rows read at a time
NOTED = 16  # batches between two notes in the journal
ROW_BYTES = 96  # what sorting a range takes for each of its rows, at most
TABLE_ROOM = 8  # codes of integer ids are looked up in a table of at most so many entries per id


def prepare(  # noqa: PLR0913 - its options are the user's
    source: str | os.PathLike[str] | pl.LazyFrame,
    folder: str | os.PathLike[str],
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | None = None,
    time: str | int | None = None,
    *,
    separator: str | None = None,
    duplicates: str = "last",
    times: bool = True,
    memory: float = 2.0,
    resume: bool = False,
    say: Say | None = None,
) -> PreparedRatings:
    """Turn ratings of any size into a folder that a model can be trained on with little memory.

    Args:
        source: A Parquet, Arrow or text file, a folder of such files, a Delta Lake or Iceberg table, or a polars
            LazyFrame; see :func:`gramian.data.sources.scan_ratings`.
        folder: The folder to make. A prepared folder of that name is replaced, anything else is refused.
        user, item, rating, time, separator: As in :func:`gramian.read_ratings`.
        duplicates: Repeated (user, item) pairs: keep the ``"last"``, take their ``"mean"``, or ``"raise"``.
        times: Whether to keep the times, 8 bytes per rating, where there are some.
        memory: GiB for the rows that are sorted at a time; the ids come on top.
        resume: Go on with a preparation that was broken off, if it had the same source and settings.
        say: Called with a line of progress now and then.

    Returns:
        The ratings of the folder, opened.

    Raises:
        DataError: The source cannot be used, or the folder cannot be made.
        ParameterError: A setting is outside its range.
    """
    check_choice("duplicates", duplicates, DUPLICATES, "prepare")
    check_number("memory", memory, low=0.001, owner="prepare")
    goal = Path(folder)
    check_goal(goal)
    names: Names = {"user": user, "item": item, "rating": rating, "time": time}
    scan = scan_ratings(source, names, separator=separator)
    if not times:
        scan = scan._replace(frame=scan.frame.drop("time", strict=False))
    room = max(1000, int(memory * 2**30) // ROW_BYTES)
    plan = [FORMAT, signature(source), names, separator, duplicates, times, room]
    hidden = goal.parent / f".{goal.name}.preparing"
    journal = Journal(hidden, plan, resume=resume)
    if say is not None and resume:
        say(f"going on with {journal.state.get('stage', 'ids')}" if journal.resumed else "nothing to go on with")
    try:
        _Preparation(scan, journal, duplicates, room, say or (lambda _: None)).run()
    except DataError:
        clear(hidden)
        raise
    except OSError as error:
        raise DataError(
            f"The folder {str(goal)!r} could not be made: {error.strerror or error}; make room, and go on with resume."
        ) from error
    _give_name(hidden, goal)
    return open_prepared(goal)


def check_goal(goal: Path) -> None:
    """Raise DataError where a prepared folder cannot come to stand."""
    if not goal.parent.is_dir():
        raise DataError(f"The folder cannot be made: there is no folder {str(goal.parent)!r}; make it first.")
    if goal.exists() and not is_prepared(goal):
        raise DataError(f"There is something else at {str(goal)!r} already; remove it, or give another name.")


def _give_name(hidden: Path, goal: Path) -> None:
    """Put the finished folder in its place; an earlier one goes only when the new one stands."""
    before = goal.parent / f".{goal.name}.before"
    clear(before)
    if goal.exists():
        goal.rename(before)
    hidden.rename(goal)
    clear(before)


class _Preparation:
    """One preparation: what its stages share."""

    def __init__(self, scan: Scan, journal: Journal, duplicates: str, room: int, say: Say) -> None:
        self.scan, self.journal, self.duplicates, self.room, self.say = scan, journal, duplicates, room, say
        self.timed = "time" in scan.frame.collect_schema().names()

    def run(self) -> None:
        """All stages that are not done."""
        if "stage" not in self.journal.state:
            self._count_ids()
        ids = [_read_arrow(self.journal.folder / f"{side}_ids.arrow") for side in ("user", "item")]
        self.users, self.items = map(IdMap, ids)
        counts = [self.journal.read(f"{side}_counts", np.int64) for side in ("user", "item")]
        self.user_edges, self.item_edges = (_edges(part, self.room) for part in counts)
        self.n_rows = int(counts[0].sum())
        while (stage := self.journal.state["stage"]) != "done":
            {"deal": self._deal, "users": self._sort_users, "items": self._sort_items, "finish": self._finish}[stage]()

    def _next(self, stage: str) -> None:
        self.journal.note(stage=stage, done=0)

    # ---- 1: who and what there is ----------------------------------------------------------------

    def _count_ids(self) -> None:
        for side in ("user", "item"):
            self.say(f"counting the {side}s")
            ids, counts = _counted(self.scan, side)
            path = self.journal.folder / f"{side}_ids.arrow"
            pl.DataFrame([ids.alias("id")]).write_ipc(path, compression="uncompressed")
            self.journal.append(path.name, np.fromfile(path, np.uint8))
            self.journal.append(f"{side}_counts", counts)
        self._next("deal")

    # ---- 2: rows into ranges of users ------------------------------------------------------------

    def _deal(self) -> None:
        done = self.journal.state["done"]
        coders = [_Coder(ids, side, self.scan.is_text) for ids, side in ((self.users, "user"), (self.items, "item"))]
        batches = self.scan.frame.slice(done).collect_batches(chunk_size=BATCH, maintain_order=True)
        for number, batch in enumerate(batches, 1):
            self._deal_into("users", self.user_edges, self._coded(batch, coders, done), "row")
            done += batch.height
            if number % NOTED == 0:
                self.journal.note(done=done)
                self.say(f"dealt {done:,} of {self.n_rows:,} rows")
        self._next("users")

    def _coded(self, batch: pl.DataFrame, coders: list[_Coder], first: int) -> Array:
        """A batch as records of codes, checked."""
        word, shift = ("line", 2) if self.scan.is_text else ("row", 1)

        def where(place: int) -> str:
            return f"{word} {first + place + shift}"

        records = np.empty(batch.height, self._kind())
        records["row"], records["column"] = (coder.codes(batch[coder.side], where) for coder in coders)
        records["value"] = rating_column(batch["rating"], where).to_numpy()
        if self.timed:
            records["time"] = time_column(batch["time"], where).to_numpy()
        return records

    def _kind(self, timed: bool | None = None) -> np.dtype[np.void]:
        timed = self.timed if timed is None else timed
        return np.dtype([("row", "<i4"), ("column", "<i4"), ("value", "<f4")] + [("time", "<i8")] * timed)

    def _deal_into(self, name: str, edges: Array, records: Array, by: str) -> None:
        """Append records to the files of the ranges that they belong to, in their order."""
        ranges = (np.searchsorted(edges, records[by], side="right") - 1).astype(np.uint16)
        records = records[np.argsort(ranges, kind="stable")]
        ends = np.cumsum(np.bincount(ranges, minlength=len(edges) - 1))
        for k, (low, high) in enumerate(zip(np.append(0, ends[:-1]), ends, strict=True)):
            if high > low:
                self.journal.append(f"{name}.{k}", records[low:high])

    # ---- 3 and 4: sorted ranges, one after another -----------------------------------------------

    def _ranges(self, name: str, edges: Array, timed: bool) -> Iterator[tuple[Array, int, int]]:
        """The records of each range that is not done, with its first row and the one after its last."""
        for k in range(self.journal.state["done"], len(edges) - 1):
            yield self.journal.read(f"{name}.{k}", self._kind(timed)), int(edges[k]), int(edges[k + 1])
            self.journal.drop(f"{name}.{k}")
            self.journal.note(done=k + 1)
            self.say(f"sorted {k + 1} of {len(edges) - 1} ranges of {name}")

    def _sort_users(self) -> None:
        from gramian.kernels.sorting import order_of

        for records, first, stop in self._ranges("users", self.user_edges, self.timed):
            rows, columns = records["row"] - np.int32(first), np.ascontiguousarray(records["column"])
            order = order_of(rows, stop - first, order_of(columns, len(self.items)))
            times = records["time"] if self.timed else None
            pairs = sort_pairs(rows, columns, len(self.items), records["value"], times, self.duplicates, order)
            self._note_repeated(pairs, first)
            self._append("by_user", pairs.users, pairs.items, pairs.values, stop - first)
            if pairs.times is not None:
                self.journal.append("times", pairs.times)
            transposed = np.empty(len(pairs.users), self._kind(timed=False))
            transposed["row"], transposed["column"] = pairs.users + np.int32(first), pairs.items
            transposed["value"] = pairs.values
            self._deal_into("items", self.item_edges, transposed, "column")
        self._next("items")

    def _sort_items(self) -> None:
        from gramian.kernels.sorting import order_of

        for records, first, stop in self._ranges("items", self.item_edges, False):
            if stop - first == 1:  # one item, perhaps of very many ratings: its rows are in order
                self._append("by_item", np.zeros(len(records), np.int32), records["row"], records["value"], 1)
                continue
            items = records["column"] - np.int32(first)
            order = order_of(items, stop - first)
            self._append("by_item", items, records["row"][order], records["value"][order], stop - first)
        self._next("finish")

    def _append(self, name: str, rows: Array, columns: Array, values: Array, n_rows: int) -> None:
        """Add a range of rows to the arrays of an orientation."""
        self.journal.append(f"{name}.counts", np.bincount(rows, minlength=n_rows))
        self.journal.append(f"{name}.indices", columns.astype(np.int32, copy=False))
        self.journal.append(f"{name}.values", values.astype(np.float32, copy=False))

    def _note_repeated(self, pairs: SortedPairs, first: int) -> None:
        if pairs.example is None:
            return
        state = self.journal.state
        state["repeated"] = state.get("repeated", 0) + pairs.repeated
        user, item = self.users.ids[pairs.example[0] + first], self.items.ids[pairs.example[1]]
        state.setdefault("example", f"user {user!r} rated item {item!r} more than once")
        if self.duplicates == "raise":
            raise DataError(
                f"Some pairs are rated more than once, for example {state['example']}; "
                "drop them, or choose duplicates='last' or 'mean'."
            )

    # ---- 5: the whole ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Where rows begin, the checksums, and what is known of the whole."""
        journal, folder = self.journal, self.journal.folder
        for name in ("by_user", "by_item"):
            counts = journal.read(f"{name}.counts", np.int64)
            journal.drop(f"{name}.indptr")  # of a finish that was broken off
            journal.append(f"{name}.indptr", np.append(0, np.cumsum(counts)))
        kept = {
            name: file
            for name, file in journal.files().items()
            if name.partition(".")[2] not in ("counts",) and not name.endswith("_counts")
        }
        rows = CSR(*(np.memmap(folder / f"by_user.{part}", kind, "r") for part, kind in _KINDS.items()))
        whole = Ratings(self.users, self.items, rows)
        repeated, example = journal.state.get("repeated", 0), journal.state.get("example")
        about = {
            "format": FORMAT, "users": len(self.users), "items": len(self.items), "ratings": len(whole),
            "scale": whole.scale, "mean": whole.global_mean, "variance": whole.variance, "timed": self.timed,
            "repeated": repeated, "files": kept,
        }  # fmt: skip
        journal.append(ABOUT, np.frombuffer(json.dumps(about).encode(), np.uint8))
        for name in journal.files().keys() - kept.keys() - {ABOUT}:
            journal.drop(name)
        journal.note(stage="done")
        (folder / "journal.json").unlink()
        if example is not None:
            done = "the last rating was kept" if self.duplicates == "last" else "their mean was taken"
            said = f"{repeated} rows repeat a (user, item) pair, for example {example}; {done}."
            warnings.warn(said, DataWarning, stacklevel=5)


_KINDS = {"indptr": "<i8", "indices": "<i4", "values": "<f4"}


class _Coder:
    """Codes of the ids of one side, batch by batch."""

    def __init__(self, ids: IdMap, side: str, is_text: bool) -> None:
        self.ids, self.side, self._strip = ids, side, is_text and not ids.is_text
        self._table: Array | None = None
        if not ids.is_text:
            known = ids.ids.to_numpy()
            self._low = int(known[0])
            width = int(known[-1]) - self._low + 1
            if width <= TABLE_ROOM * len(known) + 1_000_000:
                self._table = np.full(width, -1, np.int32)
                self._table[known - self._low] = np.arange(len(known), dtype=np.int32)

    def codes(self, values: pl.Series, where: Callable[[int], str]) -> Array:
        """The codes of a batch."""
        if self._strip:
            values = values.str.strip_chars().cast(pl.Int64)
        series = id_series(values, self.side, where)
        if self._table is None:
            return self.ids.codes(series, self.side)
        return self._table[series.to_numpy() - self._low]


def _counted(scan: Scan, side: str) -> tuple[pl.Series, Array]:
    """The sorted ids of a side, and how many rows each has."""
    grouped = scan.frame.group_by(side).agg(pl.len().alias("rows")).collect(engine="streaming")
    if grouped.height == 0:
        raise DataError("There are no ratings: the table has no rows; check the source.")
    values = grouped[side]
    if values.null_count():
        row = scan.frame.with_row_index("at").filter(pl.col(side).is_null()).select("at").head(1).collect().item()
        where = f"line {row + 2}" if scan.is_text else f"row {row + 1}"
        raise DataError(f"The {side} id is missing: {where} has none; fill it in or drop the row.")
    if scan.is_text:
        values = _plain_integers(values)
    ids = id_series(values, side, lambda place: f"a row (with {values[place]!r})")
    table = pl.DataFrame({"id": ids, "rows": grouped["rows"]}).group_by("id").agg(pl.col("rows").sum()).sort("id")
    return table["id"], table["rows"].to_numpy().astype(np.int64)


def _edges(counts: Array, room: int) -> Array:
    """Where ranges of rows begin, and the end: at most ``room`` ratings in each, but at least one row."""
    ends = np.cumsum(counts)
    edges = [0]
    while edges[-1] < len(counts):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, before + room, side="right"))))
    return np.array(edges)


def _read_arrow(path: Path) -> pl.Series:
    return pl.read_ipc(path).to_series()
