"""A model of ALS that stays in a folder, of which is read what a question needs.

:func:`gramian.cluster.fit_stored` writes such folders. Rows of users and items, ids and ratings lie there as Parquet,
in blocks; nothing of the size of a side is held here, unless somebody asks for all of it (``arrays``, ``save``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.plain import Plain
from gramian.data.described import Described
from gramian.data.ids import Codes, IdMap, Ids, id_series
from gramian.data.ratings import Ratings
from gramian.data.table import RatingsTable
from gramian.engine import local
from gramian.engine.rows import Elsewhere, Intercepts
from gramian.engine.spark.blocks import blocks_in
from gramian.errors import DataError, FormatError
from gramian.kernels.arrays import Array
from gramian.kernels.csr import CSR, one_row, stacked
from gramian.models.als import ALS
from gramian.models.fold_in import FoldingModel

__all__ = ["ABOUT", "FORMAT", "StoredModel", "StoredRatings", "is_stored_model", "open_stored_model"]

ABOUT = "model.json"
FORMAT = 1
PIECE = 1 << 16  # pairs whose rows are gathered at a time
SIDES = ("user", "item")


class StoredIds:
    """The ids of a side in their folder."""

    def __init__(self, folder: Path, side: str, count: int) -> None:
        self.path, self.count = f"{folder}/{side}_ids/*.parquet", count

    @cached_property
    def is_text(self) -> bool:
        """Whether the ids are text rather than integers."""
        return bool(pl.scan_parquet(self.path).collect_schema()["id"] == pl.String)

    def codes(self, values: Ids, what: str = "item") -> Codes:
        """Codes of ``values`` (int32), −1 for those unknown."""
        wanted = pl.DataFrame({"id": id_series(values, what)})
        if (wanted["id"].dtype == pl.String) != self.is_text and wanted.height:
            raise DataError(
                f"The {what} ids given are of another kind than the known ones, which are "
                f"{'text' if self.is_text else 'integers'}: found {wanted['id'][0]!r}; convert them."
            )
        known = self._scan().join(wanted.lazy().unique(), on="id", how="semi").collect()
        made = wanted.join(known, on="id", how="left", maintain_order="left")["code"]
        return made.fill_null(-1).cast(pl.Int32).to_numpy()

    def take(self, codes: Array) -> pl.Series:
        """The ids of ``codes``."""
        wanted = pl.DataFrame({"code": np.asarray(codes, np.int32)})
        known = self._scan().join(wanted.lazy().unique(), on="code", how="semi").collect()
        return wanted.join(known, on="code", how="left", maintain_order="left")["id"]

    @property
    def ids(self) -> pl.Series:
        """All of them, in the order of their codes."""
        return self._scan().sort("code").collect()["id"]

    def grow(self, values: Ids, what: str = "item") -> IdMap:
        """A map that also holds ``values``, brought here; every known id keeps its code."""
        return IdMap(self.ids).grow(values, what)

    def _scan(self) -> pl.LazyFrame:
        kind = pl.String if self.is_text else pl.Int64
        return pl.scan_parquet(self.path).select("code", pl.col("id").cast(kind))

    def __len__(self) -> int:
        return self.count

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) == self.is_text and bool(self.codes([value])[0] >= 0)


class StoredRows(Elsewhere):
    """The ratings of users in their folder of blocks, to be read."""

    def __init__(self, folder: Path, edges: Array, n_entries: int) -> None:
        self.folder, self.edges = folder, edges
        self.n_rows, self.n_entries = int(edges[-1]), n_entries
        self._last: tuple[int, int, CSR] | None = None

    def row(self, i: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The indices and values of one row; its block is read, and kept until another is."""
        number = int(np.searchsorted(self.edges, i, side="right")) - 1
        if self._last is None or self._last[0] != number:
            self._last = (number, *self.block(number))
        _, first, rows = self._last
        return rows.row(i - first)

    def block(self, number: int) -> tuple[int, CSR]:
        """The first row and the ratings of a block."""
        found = pl.scan_parquet(f"{self.folder}/by_user/*.parquet").filter(pl.col("block") == number).collect()
        if found.height != 1:
            raise FormatError(f"The ratings in {str(self.folder)!r} are damaged: block {number} of users is missing.")
        ((first, rows),) = blocks_in(found.to_arrow().to_batches())
        return first, rows

    def __getstate__(self) -> Plain:
        return {**vars(self), "_last": None}

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each user has."""
        return self.whole().counts

    def whole(self) -> CSR:
        """All rows, brought here."""
        return stacked([self.block(number)[1] for number in range(len(self.edges) - 1)])


class StoredRatings(Described):
    """The ratings that a stored model was trained on, in its folder."""

    user_ids: StoredIds
    item_ids: StoredIds
    by_user: StoredRows

    def __init__(self, folder: Path, about: Plain) -> None:
        super().__init__(about)
        self.folder = folder
        self.user_ids, self.item_ids = (StoredIds(folder, side, self.about[f"{side}s"]) for side in SIDES)
        self.by_user = StoredRows(folder, np.array(about["user_edges"]), len(self))

    @property
    def by_item(self) -> CSR:
        """The ratings by item, brought here."""
        return self.to_local().by_item

    def to_local(self) -> Ratings:
        """The same table in this machine's memory, without times."""
        return Ratings(IdMap(self.user_ids.ids), IdMap(self.item_ids.ids), self.by_user.whole(), None, self.duplicates)

    def count_pairs(self, users: Codes, items: Codes) -> int:
        """How many of these pairs of codes are in the table: blocks with their users are read."""
        pairs, edges, seen = np.sort(users.astype(np.int64) * self.n_items + items), self.by_user.edges, 0
        for number in np.unique(np.searchsorted(edges, users, side="right") - 1).tolist():
            first, rows = self.by_user.block(number)
            owners = (rows.row_codes() + np.int64(first)) * self.n_items
            part = slice(*np.searchsorted(pairs, edges[number : number + 2] * self.n_items))
            seen += int(np.isin(pairs[part], owners + rows.indices).sum())
        return seen

    def __repr__(self) -> str:
        return f"StoredRatings({len(self):,} by {self.n_users:,} users of {self.n_items:,} items)"


@dataclass(frozen=True, eq=False, repr=False)
class StoredModel(FoldingModel):
    """A model of ALS in a folder that this machine reads as files (a mounted or local one).

    Attributes:
        folder: Where it is.
        about: What ``model.json`` says.
        users: The rows of the users in ``ratings``, where these are none of the folder's.
    """

    folder: Path
    about: Plain
    users: Array | None = None

    @property
    def n_factors(self) -> int:
        """K."""
        return int(self.about["width"]) - int(self.about["biased"])

    @property
    def global_mean(self) -> float:
        """μ of the training ratings (0 where the recipe does not subtract it)."""
        return float(self.about["offset"])

    def arrays(self) -> Arrays:
        """All rows of both sides, brought here: for models that fit into memory."""
        return {f"{side}_rows": np.concatenate([rows for _, rows in self.blocks(side)]) for side in SIDES}

    # ---- scoring --------------------------------------------------------------------------------

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """μ + b + c + wᵀu of pairs of codes; an unknown side counts as a row of zeros, as in memory."""
        out, K = np.empty(len(users), self.about["dtype"]), self.n_factors
        for low in range(0, len(users), PIECE):
            piece = slice(low, low + PIECE)
            mine, theirs = self.rows("user", users[piece]), self.rows("item", items[piece])
            out[piece] = np.einsum("pk,pk->p", mine[:, :K], theirs[:, :K]) + out.dtype.type(self.global_mean)
            if self.about["biased"]:
                out[piece] += mine[:, K] + theirs[:, K]
        if not self.about["biased"]:
            out[(users < 0) | (items < 0)] = self.ratings.global_mean
        return out

    def score_block(self, users: Codes) -> Array:
        """All items for some users, block of items by block of items."""
        scores = self._scores(self.rows("user", users))
        if not self.about["biased"]:
            scores[users < 0] = self.ratings.global_mean
        return scores

    def _scores(self, rows: Array) -> Array:
        out, K = np.empty((len(rows), self.ratings.n_items), rows.dtype), self.n_factors
        for first, items in self.blocks("item"):
            part = rows[:, :K] @ items[:, :K].T + rows.dtype.type(self.global_mean)
            if self.about["biased"]:
                part += items[:, K] + rows[:, K:]
            out[:, first : first + len(items)] = part
        return out

    # ---- somebody new ---------------------------------------------------------------------------

    def fold_in_codes(self, items: Codes, values: Array) -> Array:
        """As of :class:`gramian.FactorModel`: the row (D,) of a user with these ratings."""
        return self.solved(one_row(items, values))[0]

    def solved(self, rows: CSR) -> Array:
        """The rows of users with these ratings of known items; only the rows of these items are read."""
        needed, places = np.unique(rows.indices, return_inverse=True)
        near = CSR(rows.indptr, places.astype(np.int32), rows.values)
        intercepts = Intercepts(bool(self.about["biased"]), self.global_mean)
        penalty = cast(ALS, self.recipe).side.penalty
        return local.half_sweep(near, self.rows("item", needed), penalty, intercepts)[0]

    def with_users(self, ratings: RatingsTable, rows: Array) -> Self:
        """The model as it is for other users, with their ratings and their rows."""
        return replace(self, ratings=ratings, users=rows)

    def without_ratings(self) -> Self:
        """Itself: it holds none."""
        return self

    def score_row(self, row: Array) -> Array:
        """As of :class:`FoldingModel`."""
        if not row.any():
            return self.score_block(np.array([-1], np.int32))[0]
        return self._scores(row[None, :])[0]

    # ---- what is read ---------------------------------------------------------------------------

    def rows(self, side: str, codes: Codes) -> Array:
        """The rows of some codes, zeros for −1: only their blocks are read."""
        out = np.zeros((len(codes), self.about["width"]), self.about["dtype"])
        if side == "user" and self.users is not None:
            out[codes >= 0] = self.users[codes[codes >= 0]]
            return out
        owner = np.searchsorted(self._edges(side), codes, side="right") - 1
        for number in np.unique(owner[codes >= 0]).tolist():
            first, held = self._block(side, number)
            mine = owner == number
            out[mine] = held[codes[mine] - first]
        return out

    def blocks(self, side: str) -> Iterator[tuple[int, Array]]:
        """The first row and the rows of each block of a side, in order."""
        return (self._block(side, number) for number in range(len(self._edges(side)) - 1))

    def _block(self, side: str, number: int) -> tuple[int, Array]:
        name = f"{side}_factors/{self.about['epoch']}"
        scan = pl.scan_parquet(f"{self.folder}/{name}/*.parquet").filter(pl.col("block") == number)
        found = scan.select("first", "data").collect()
        if found.height != 1:
            raise FormatError(f"The model in {str(self.folder)!r} is damaged: block {number} of {name} is missing.")
        return found["first"][0], np.frombuffer(found["data"][0], self.about["dtype"]).reshape(-1, self.about["width"])

    def _edges(self, side: str) -> Array:
        return np.array(self.about["ratings"][f"{side}_edges"])

    def __repr__(self) -> str:
        return f"<stored {self.recipe} on {self.ratings} in {str(self.folder)!r}>"


def is_stored_model(folder: str | os.PathLike[str]) -> bool:
    """Whether this is a folder with a model of :func:`gramian.cluster.stored_training.fit_stored`."""
    return (Path(folder) / ABOUT).is_file()


def open_stored_model(folder: str | os.PathLike[str]) -> StoredModel:
    """Open the folder of :func:`gramian.cluster.stored_training.fit_stored`; no factors are read.

    Raises:
        DataError: There is no model in the folder.
        FormatError: It is of a newer format, or damaged.
    """
    path = Path(folder)
    if not is_stored_model(path):
        raise DataError(f"The folder {str(path)!r} has no model; train one with fit_stored.")
    try:
        about = json.loads((path / ABOUT).read_text())
        version = about["format"]
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"The model in {str(path)!r} is damaged: {ABOUT} cannot be read; train it again.") from None
    if version > FORMAT:
        raise FormatError(f"The model in {str(path)!r} is of a newer format: found version {version}; upgrade gramian.")
    known = {field.name for field in fields(ALS)}
    recipe = ALS(epochs=about["epoch"], **{name: value for name, value in about["recipe"].items() if name in known})
    return StoredModel(recipe, StoredRatings(path, about["ratings"]), History(about["history"]), path, about)
