"""A model as it is served: what it can do, fast ways to its ids, and answers as plain data."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl

from gramian.core.parameters import check_level
from gramian.core.plain import Plain
from gramian.data.ids import Codes, IdTable
from gramian.data.pairs import Pairs
from gramian.errors import DataError, ParameterError, UnknownIdError
from gramian.kernels.arrays import Array
from gramian.models.capabilities import Asking, Featured
from gramian.models.fold_in import FoldingIn, FoldingModel, NewUser
from gramian.models.interval_model import IntervalModel
from gramian.models.model import BLOCK_CELLS, Model
from gramian.registry import load

__all__ = ["Live", "Lookup", "TopAsked", "load_live"]

Id = int | str


class Lookup:
    """The codes of single ids, fast: a binary search of integers, a dictionary of texts."""

    def __init__(self, ids: IdTable, what: str) -> None:
        self.is_text, self._what = ids.is_text, what
        if self.is_text:
            self._codes = {value: code for code, value in enumerate(ids.ids)}
        else:
            numbers = ids.ids.to_numpy()
            self._order = np.argsort(numbers, kind="stable")
            self._sorted = numbers[self._order]

    def typed(self, value: Id) -> Id:
        """The id in the kind that the model has: text that is an integer may stand for it.

        Raises:
            ParameterError: It is of the other kind.
        """
        if self.is_text:
            if isinstance(value, str):
                return value
            raise ParameterError(f"The {self._what} ids of this model are text; got the number {value!r}; quote it.")
        try:
            number = int(value)
        except ValueError:
            number = 2**63
        if not -(2**63) <= number < 2**63:
            raise ParameterError(f"The {self._what} ids of this model are integers; got {value!r}.")
        return number

    def get(self, value: Id) -> int:
        """The code of an id of the right kind, −1 if it is unknown."""
        if self.is_text:
            return self._codes.get(value, -1)
        place = int(np.searchsorted(self._sorted, value))
        known = place < len(self._sorted) and self._sorted[place] == value
        return int(self._order[place]) if known else -1

    def code(self, value: Id) -> int:
        """The code of an id, of whatever kind.

        Raises:
            UnknownIdError: The model does not know it.
        """
        code = self.get(self.typed(value))
        if code < 0:
            raise UnknownIdError(f"The {self._what} {value!r} is unknown to the model; check the id.")
        return code

    def codes(self, values: Iterable[Id], *, unknown: str = "raise") -> Codes:
        """The codes of several; unknown ones are −1 unless ``unknown`` is ``"raise"``."""
        one = self.code if unknown == "raise" else lambda value: self.get(self.typed(value))
        return np.array([one(value) for value in values], np.int32)


class TopAsked(NamedTuple):
    """Whose top n is asked for: a user code, n, and whether rated items are left out."""

    user: int
    n: int
    exclude_seen: bool


class Live:
    """One loaded model. It never changes; another takes its place when the file is read again.

    Attributes:
        version: The beginning of the SHA-256 of its file.
        loaded_at: When it was read, in seconds since 1970.
    """

    def __init__(self, model: Model, version: str) -> None:
        self.model, self.version, self.loaded_at = model, version, time.time()
        self.can = model.capabilities
        self.users, self.items = Lookup(model.user_ids, "user"), Lookup(model.item_ids, "item")
        self.titles = model.ratings.titles
        self.small_titles = None if self.titles is None else self.titles.fill_null("").str.to_lowercase()

    # ---- what it is -----------------------------------------------------------------------------

    @property
    def abilities(self) -> Plain:
        """What can be asked of this model, as plain data."""
        can, titled = self.can, self.titles is not None
        return {
            "fold_in": can.fold_in,
            "intervals": can.intervals,
            "orders": list(can.orders),
            "explain": can.explain,
            "ask": can.ask,
            "features": can.features,
            "titles": titled,
        }

    @property
    def most_at_once(self) -> int:
        """How many users' scores are computed together, so that memory stays bounded."""
        return max(1, min(64, BLOCK_CELLS // max(1, self.model.ratings.n_items)))

    def card(self) -> Plain:
        """The model card, as plain data."""
        ids = {"user": "text" if self.users.is_text else "integer", "item": "text" if self.items.is_text else "integer"}
        recipe = self.model.recipe.to_dict()
        plain = {name: value for name, value in recipe.items() if value is None or isinstance(value, int | float | str)}
        about = {"version": self.version, "loaded_at": self.loaded_at, "ids": ids, "abilities": self.abilities}
        return {**self.model.card(), "recipe": plain, **about}

    def warm(self) -> None:
        """Run every kernel once, so that no request waits for a compiler."""
        ratings = self.model.ratings
        self.top([TopAsked(0, 10, exclude_seen=True)])
        if self.can.fold_in:
            items, values = ratings.by_user.row(0)
            own = dict(zip(ratings.item_ids.take(items).to_list(), values.tolist(), strict=True))
            somebody = self.new_user(dict(list(own.items())[:3]))
            somebody.recommend(10)
            somebody.interval(items[:1], 0.9)
            if self.can.explain and len(somebody.items):
                somebody.reasons(0)
        if self.can.features:
            self.feature_positions()

    # ---- answers --------------------------------------------------------------------------------

    def top(self, asked: Sequence[TopAsked]) -> list[list[Plain]]:
        """The best items of several known users, by one matrix product for all who ask for the same."""
        answers: list[list[Plain]] = [[] for _ in asked]
        for exclude_seen in {one.exclude_seen for one in asked}:
            places = [place for place, one in enumerate(asked) if one.exclude_seen == exclude_seen]
            users = np.array([asked[place].user for place in places], np.int32)
            most = max(asked[place].n for place in places)
            rows, items, scores = self.model.best_codes(users, most, exclude_seen=exclude_seen)
            plain = self.can.scores_predict
            predicted = np.clip(scores, *self.model.scale) if plain else self.predict(users[rows], items)
            listed = self.listed(items, scores, predicted)
            ends = np.searchsorted(rows, np.arange(len(places) + 1))
            for k, place in enumerate(places):
                answers[place] = listed[ends[k] : ends[k + 1]][: asked[place].n]
        for answer in answers:
            for rank, row in enumerate(answer, 1):
                row["rank"] = rank
        return answers

    def listed(self, items: Array, scores: Array, predicted: Array) -> list[Plain]:
        """Items with scores and predictions as plain rows."""
        ids = self.model.item_ids.take(items).to_list()
        titles = [None] * len(ids) if self.titles is None else self.titles.gather(items).to_list()
        columns = zip(ids, titles, np.asarray(scores).tolist(), np.asarray(predicted).tolist(), strict=True)
        return [
            {
                "rank": rank,
                "item": item,
                "title": title,
                "score": score,
                "predicted": value,
                "lower": None,
                "upper": None,
            }
            for rank, (item, title, score, value) in enumerate(columns, 1)
        ]

    def predict(self, users: Codes, items: Codes) -> Array:
        """Predictions of pairs of codes, on the scale; −1 is somebody or something unknown."""
        return np.asarray(self.model.predict_codes(Pairs(users, np.asarray(items, np.int32))), np.float64)

    def interval(self, users: Codes, items: Codes, level: float) -> Array | None:
        """Intervals (n, 2) of pairs of codes, or None of a model without; −1 is somebody or something unknown."""
        check_level("level", level, "predict_interval")
        if not self.can.intervals:
            return None
        return cast(IntervalModel, self.model).interval_codes(Pairs(users, items), level)

    def new_user(self, ratings: Mapping[Any, float]) -> NewUser[FoldingModel]:
        """Somebody with these ratings; they must be on the scale, their items known.

        Raises:
            ParameterError: A rating is off the scale, or the model cannot fold in.
            UnknownIdError: An item is unknown.
        """
        for item, value in ratings.items():
            self.items.code(item)
            self.check_rating(item, value)
        if not self.can.fold_in:
            name = self.model.recipe.name
            raise ParameterError(f"A model of {name!r} cannot take in somebody new; serve one that can, ALS say.")
        return cast(FoldingIn, self.model).new_user(self.typed(ratings), unknown="raise")

    def typed(self, ratings: Mapping[Any, float]) -> dict[Id, float]:
        """Ratings by ids in the kind that the model has."""
        return {self.items.typed(item): value for item, value in ratings.items()}

    def check_rating(self, item: Id, value: float) -> None:
        """Raise ParameterError for a rating off the scale."""
        low, high = self.model.scale
        if not low <= value <= high:
            raise ParameterError(
                f"A rating must be on the scale {low:g} to {high:g}: got {value:g} for the item {item!r}; rescale it."
            )

    def trained_on(self, code: int) -> dict[Id, float]:
        """What a known user rated in training."""
        items, values = self.model.ratings.by_user.row(code)
        return dict(zip(self.model.item_ids.take(items).to_list(), values.tolist(), strict=True))

    def search(self, text: str, n: int) -> list[Plain]:
        """Items with ``text`` in their title, most rated first; those whose title begins with it before the rest."""
        if self.small_titles is None or self.titles is None:
            raise ParameterError("This model knows no titles: serve it with --items, or fit it with a table of items.")
        words = text.lower().split()
        found = np.ones(len(self.small_titles), bool)
        for word in words:
            found &= self.small_titles.str.contains(word, literal=True).to_numpy()
        codes = np.flatnonzero(found)
        counts = self.model.ratings.by_item.counts
        begins = self.small_titles.gather(codes).str.starts_with(" ".join(words)).to_numpy()
        codes = codes[np.lexsort((-counts[codes], ~begins))][:n]
        return self.described(codes)

    def described(self, codes: Array) -> list[Plain]:
        """Items with titles and how often they were rated."""
        ids = self.model.item_ids.take(codes).to_list()
        titles = [None] * len(ids) if self.titles is None else self.titles.gather(codes).to_list()
        counts = self.model.ratings.by_item.counts[codes].tolist()
        rows = zip(ids, titles, counts, strict=True)
        return [{"item": item, "title": title, "ratings": count} for item, title, count in rows]

    def similar(self, item: Id, n: int) -> list[Plain]:
        """The items nearest to one."""
        featured = self.featured()
        code = self.items.code(item)
        return self.plain(featured.similar_items(self.model.item_ids.ids[code], n))

    def features(self, top: int) -> list[Plain]:
        """The items at both ends of every latent feature."""
        featured = self.featured()
        return [
            {
                "feature": k,
                "high": self.plain(featured.top_items(k, top)),
                "low": self.plain(featured.top_items(k, top, lowest=True)),
            }
            for k in range(self.can.features)
        ]

    def item_map(self, n: int) -> list[Plain]:
        """The ``n`` most rated items with their places along the two leading latent features."""
        positions = self.feature_positions()
        if positions.shape[1] == 1:
            positions = np.column_stack([positions, np.zeros(len(positions))])
        popular = np.argsort(-self.model.ratings.by_item.counts, kind="stable")[:n]
        rows = self.described(popular)
        for row, (x, y) in zip(rows, positions[popular, :2].tolist(), strict=True):
            row |= {"x": x, "y": y}
        return rows

    def feature_positions(self) -> Array:
        """The items' weights in the latent features, (M, K)."""
        return self.featured().feature_positions

    def featured(self) -> Featured:
        """The model, if it shows latent features.

        Raises:
            ParameterError: It has none.
        """
        if not self.can.features:
            raise ParameterError("This model has no latent features: serve one with factors, ALS say.")
        return cast(Featured, self.model)

    def asking(self) -> Asking:
        """The model, if it knows which item to ask for.

        Raises:
            ParameterError: It does not.
        """
        if not self.can.ask:
            raise ParameterError(
                "This model keeps no draws, so it cannot tell which items to ask for; serve one of bpmf."
            )
        return cast(Asking, self.model)

    def plain(self, table: pl.DataFrame) -> list[Plain]:
        """A table of items as plain rows, each with a title or null."""
        rows = table.to_dicts()
        for row in rows:
            row.setdefault("title", None)
        return rows


def load_live(path: str | os.PathLike[str], items: pl.DataFrame | None = None) -> Live:
    """Read a model file to be served, with titles from a table of items where one is given.

    Raises:
        DataError: There is no such file, or it is a folder.
        FormatError: It is damaged, not a model, or of a newer format.
    """
    if Path(path).is_dir():
        raise DataError(
            f"A model file is needed to be served: {str(path)!r} is a folder; where it is a model that fits into "
            "memory, gm.load(folder).save(file) makes one."
        )
    model = load(path)
    with Path(path).open("rb") as file:
        version = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    if items is not None:
        model = model.with_items(items)
    return Live(model, version)
