r"""ALS whose factors are too large for one machine: they stay in a folder that all machines of a cluster reach.

:func:`fit_stored` trains on Spark as ``ALS().fit(dataframe)`` does, to the same numbers, but holds nothing of the size
of a side anywhere: the start is written block by block, every half-sweep reads the folder of the one before and
writes its own (:mod:`gramian.engine.spark.routed`), and the driver sees sums. :class:`StoredModel` opens such a folder
and reads what a question needs: the row of a user, blocks of items.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.distributed import SparkRatings
from gramian.engine.spark.blocks import blocks_in
from gramian.errors import DataError, FormatError, ParameterError, UnknownIdError
from gramian.models.als import ALS
from gramian.parameters import check_number

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["StoredModel", "fit_stored", "is_stored_model", "open_stored_model"]

Array = npt.NDArray[Any]
ABOUT = "model.json"
FORMAT = 1


def fit_stored(recipe: ALS, ratings: SparkRatings, *, resume: bool = False,
               callback: Callable[[dict[str, Any]], object] | None = None) -> StoredModel:  # fmt: skip
    """Train ALS with factors that stay in the storage folder of the ratings.

    Args:
        recipe: ALS with the exact solver and joint biases; no patience.
        ratings: Ratings on a cluster, of :func:`gramian.spark_ratings` with a ``storage``.
        resume: Go on after the last whole epoch found in the folder, if it is of this recipe.
        callback: Called with the record of every epoch.

    Raises:
        ParameterError: The recipe needs what only one machine has.
    """
    if recipe.solver != "exact" or (recipe.biases and recipe.bias_update != "joint") or recipe.patience is not None:
        raise ParameterError("Stored factors need ALS(solver='exact', bias_update='joint', patience=None).")
    training = _Training(recipe, ratings)
    done = training.begin(resume)
    for number in range(done + 1, recipe.epochs + 1):
        record = training.epoch(number)
        if callback is not None:
            callback(record)
    return open_stored_model(ratings.storage)


class _Training:
    """The folders of a training, and the sums that come back from it."""

    def __init__(self, recipe: ALS, ratings: SparkRatings) -> None:
        from gramian.engine.spark.routed import Solve

        self.recipe, self.ratings, self.spark = recipe, ratings, ratings.session
        side = recipe.side
        self.solve = Solve(side.penalty, side.biased, recipe.offset(ratings), recipe.dtype)
        self.history: list[dict[str, Any]] = []
        self.edges = {side: np.array(ratings.about[f"{side}_edges"]) for side in ("user", "item")}
        self.blocks = {side: self._kept(side) for side in ("user", "item")}

    def _kept(self, side: str) -> DataFrame:
        """The blocks of a side on the executors' disks, in partitions of their own: they stay where they are."""
        from pyspark import StorageLevel

        parts = len(self.edges[side]) - 1
        rows = (self.ratings.by_user if side == "user" else self.ratings.by_item).frame()
        return (
            rows.select("block", "first", "indptr", "indices", "values")
            .repartition(parts, "block")
            .persist(StorageLevel.DISK_ONLY)
        )

    def begin(self, resume: bool) -> int:
        """Routes and the start, or what an earlier training left: the epochs that are done."""
        from gramian.engine.spark.routed import write_routes

        about = _about(self.ratings) if resume else None
        if about is not None and about["recipe"] == self.recipe.to_resume():
            self.history = about["history"]
            return len(self.history)
        for side, other in (("user", "item"), ("item", "user")):
            write_routes(self.blocks[side], self.edges[other], self._folder(f"routes_{side}"))
        self._write_start()
        self._sweep("user", 0)
        return 0

    def _folder(self, name: str) -> str:
        return f"{self.ratings.storage}/{name}"

    def _write_start(self) -> None:
        """Item factors from N(0, 1/K): the numbers that ALS has on one machine, drawn a block at a time."""
        from gramian.engine.spark.routed import FACTOR_SCHEMA, factor_batch

        rng = np.random.Generator(np.random.Philox(self.recipe.seed))
        K, edges = self.recipe.factors, self.edges["item"].tolist()
        for block, (first, stop) in enumerate(pairwise(edges)):
            rows = np.zeros((stop - first, K + self.recipe.biases), self.recipe.dtype)
            rows[:, :K] = rng.standard_normal((stop - first, K)) / np.sqrt(K)
            batch = factor_batch(block, first, rows, 0.0, self.solve.penalty, np.zeros(len(rows), np.int64))
            record = self.spark.createDataFrame([tuple(batch.to_pylist()[0].values())], FACTOR_SCHEMA)
            record.write.mode("overwrite" if block == 0 else "append").parquet(self._folder("item_factors/0"))

    def _sweep(self, side: str, number: int) -> dict[str, float]:
        """One half-sweep: its folder is written; the sums over its blocks."""
        from pyspark.sql import functions as sql

        from gramian.engine.spark.routed import routed_half_sweep

        other = "item" if side == "user" else "user"
        before = number if side == "user" else number - 1
        path = self._folder(f"{side}_factors/{number}")
        made = routed_half_sweep(
            self.blocks[side],
            self.spark.read.parquet(self._folder(f"routes_{side}")),
            self.spark.read.parquet(self._folder(f"{other}_factors/{before}")),
            self.solve,
            len(self.edges[side]) - 1,
        )
        made.write.mode("overwrite").parquet(path)
        names = ("squared", "penalty", "singular", "rows")
        sums = self.spark.read.parquet(path).agg(*(sql.sum(name).alias(name) for name in names)).collect()[0]
        if sums["rows"] != self.edges[side][-1]:
            raise DataError(
                f"The factors of the {side}s have {sums['rows']} rows, not {self.edges[side][-1]}; train anew."
            )
        return dict(sums.asDict())

    def epoch(self, number: int) -> dict[str, Any]:
        """Items given the users, then users given the new items, and a note that both are whole."""
        import time

        began = time.perf_counter()
        items, users = self._sweep("item", number), self._sweep("user", number)
        record = {
            "epoch": number,
            "objective": users["squared"] + users["penalty"] + items["penalty"],
            "train_rmse": float(np.sqrt(users["squared"] / len(self.ratings))),
            "seconds": time.perf_counter() - began,
        }
        singular = int(users["singular"] + items["singular"])
        self.history.append(record | ({"minimum_norm_rows": singular} if singular else {}))
        self._note(number)
        return self.history[-1]

    def _note(self, number: int) -> None:
        about = {
            "format": FORMAT, "recipe": self.recipe.to_resume(), "history": self.history, "epoch": number,
            "width": len(self.solve.penalty.precision), "dtype": self.recipe.dtype, "biased": self.solve.biased,
            "offset": self.solve.offset, "ratings": self.ratings.about,
        }  # fmt: skip
        self.ratings.write_text(ABOUT, json.dumps(about))
        for side in ("user", "item"):
            for old in range(number - 1):
                self.ratings.remove(f"{side}_factors/{old}")


def _about(ratings: SparkRatings) -> dict[str, Any] | None:
    text = ratings.read_text(ABOUT)
    return None if text is None else json.loads(text)


@dataclass(frozen=True, eq=False, repr=False)
class StoredModel:
    """A model in a folder, of which is read what a question needs.

    The folder must be one that this machine reads as files (a mounted or local one).

    Attributes:
        folder: Where it is.
        about: What ``model.json`` says.
    """

    folder: Path
    about: dict[str, Any]

    def predict(self, users: Any, items: Any, *, clip: bool = True) -> Array:
        """Predicted ratings of pairs; a user or item that is not known counts as a row of zeros."""
        rows = self._rows("user", users), self._rows("item", items)
        K = self.about["width"] - self.about["biased"]
        scores = np.einsum("pk,pk->p", rows[0][:, :K], rows[1][:, :K]) + rows[0].dtype.type(self.about["offset"])
        if self.about["biased"]:
            scores += rows[0][:, K] + rows[1][:, K]
        return np.clip(scores, *self.about["ratings"]["scale"]) if clip else scores

    def recommend(self, user: Any, n: int = 10) -> pl.DataFrame:
        """The best items for a user that the user has not rated: ``item``, ``score``, ``rank``.

        The blocks of items are read one after another.

        Raises:
            UnknownIdError: The user is not known.
        """
        check_number("n", n, low=1, whole=True, owner="recommend")
        code = int(self._codes("user", [user])[0])
        if code < 0:
            raise UnknownIdError(f"The user {user!r} is unknown to the model; give the id of a user in training.")
        row, seen = self._row("user", code), self._rated(code)
        K = self.about["width"] - self.about["biased"]
        best = np.empty(0), np.empty(0, np.int64)
        for first, items in self._blocks("item"):
            scores = (items[:, :K] @ row[:K]).astype(np.float64) + self.about["offset"]
            if self.about["biased"]:
                scores += items[:, K] + row[K]
            scores[seen[(seen >= first) & (seen < first + len(items))] - first] = -np.inf
            both = np.concatenate([best[0], scores]), np.concatenate([best[1], np.arange(first, first + len(items))])
            order = np.lexsort((both[1], -both[0]))[:n]
            best = both[0][order], both[1][order]
        known = np.isfinite(best[0])
        ids = self._ids("item", best[1][known])
        return pl.DataFrame([ids.alias("item"), pl.Series("score", best[0][known])]).with_columns(
            rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32)
        )

    def _scan(self, name: str) -> pl.LazyFrame:
        return pl.scan_parquet(f"{self.folder}/{name}/*.parquet")

    def _codes(self, side: str, ids: Any) -> Array:
        wanted = pl.DataFrame({"id": ids})
        known = (
            self._scan(f"{side}_ids").select("code", "id").join(wanted.lazy().unique(), on="id", how="semi").collect()
        )
        return wanted.join(known, on="id", how="left", maintain_order="left")["code"].fill_null(-1).to_numpy()

    def _ids(self, side: str, codes: Array) -> pl.Series:
        wanted = pl.DataFrame({"code": codes.astype(np.int32)})
        known = self._scan(f"{side}_ids").select("code", "id").join(wanted.lazy(), on="code", how="semi").collect()
        return wanted.join(known, on="code", how="left", maintain_order="left")["id"]

    def _rows(self, side: str, ids: Any) -> Array:
        """The rows of some ids: only their blocks are read."""
        codes = self._codes(side, ids)
        out = np.zeros((len(codes), self.about["width"]), self.about["dtype"])
        edges = self._edges[side]
        block = np.searchsorted(edges, codes, side="right") - 1
        for number in np.unique(block[codes >= 0]).tolist():
            ((first, rows),) = self._blocks(side, number)
            mine = (block == number) & (codes >= 0)
            out[mine] = rows[codes[mine] - first]
        return out

    def _row(self, side: str, code: int) -> Array:
        ((first, rows),) = self._blocks(side, int(np.searchsorted(self._edges[side], code, side="right")) - 1)
        row: Array = rows[code - first]
        return row

    @cached_property
    def _edges(self) -> dict[str, Array]:
        return {side: np.array(self.about["ratings"][f"{side}_edges"]) for side in ("user", "item")}

    def _blocks(self, side: str, number: int | None = None) -> Iterator[tuple[int, Array]]:
        """The blocks of factors of a side, or one of them."""
        name = f"{side}_factors/{self.about['epoch']}"
        count = len(self._edges[side]) - 1
        for block in range(count) if number is None else [number]:
            found = self._scan(name).filter(pl.col("block") == block).select("first", "data").collect()
            if found.height != 1:
                raise FormatError(f"The model in {str(self.folder)!r} is damaged: block {block} of {name} is missing.")
            yield (
                found["first"][0],
                np.frombuffer(found["data"][0], self.about["dtype"]).reshape(-1, self.about["width"]),
            )

    def _rated(self, code: int) -> Array:
        """The codes of the items that a user rated."""
        block = int(np.searchsorted(self._edges["user"], code, side="right")) - 1
        found = self._scan("by_user").filter(pl.col("block") == block).collect().to_arrow()
        ((first, rows),) = blocks_in(found.to_batches())
        return rows.row(code - first)[0]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The record of each epoch."""
        return list(self.about["history"])

    def __repr__(self) -> str:
        sizes = self.about["ratings"]
        return f"<stored ALS of {sizes['users']:,} users and {sizes['items']:,} items in {str(self.folder)!r}>"


def is_stored_model(folder: str | os.PathLike[str]) -> bool:
    """Whether this is a folder with a model of :func:`fit_stored`."""
    return (Path(folder) / ABOUT).is_file()


def open_stored_model(folder: str | os.PathLike[str]) -> StoredModel:
    """Open the folder of :func:`fit_stored`; no factors are read.

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
    return StoredModel(path, about)
