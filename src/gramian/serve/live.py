"""A model as it is served: what it can do, fast ways to its ids, and answers as plain data."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from gramian.data.ids import Codes, IdMap
from gramian.errors import DataError, ParameterError, UnknownIdError
from gramian.kernels.arrays import Array
from gramian.models.bayes.posterior import BayesianModel
from gramian.models.bayes.scores import Posterior
from gramian.models.conformal import Conformal
from gramian.models.factor_model import FactorModel
from gramian.models.fold_in import FoldingModel
from gramian.models.model import BLOCK_CELLS, Model
from gramian.registry import load
from gramian.serve.visitor import Newcomer, known_interval

__all__ = ["Live", "Lookup", "TopAsked", "load_live"]

Id = int | str


class Lookup:
    """The codes of single ids, fast: a binary search of integers, a dictionary of texts."""

    def __init__(self, ids: IdMap, what: str) -> None:
        self.is_text, self._what = ids.is_text, what
        if self.is_text:
            self._codes = {value: code for code, value in enumerate(ids)}
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
        self.inner: Any = model.model if isinstance(model, Conformal) else model
        self.users, self.items = Lookup(model.user_ids, "user"), Lookup(model.item_ids, "item")
        self.titles = model.ratings.titles
        self.small_titles = None if self.titles is None else self.titles.fill_null("").str.to_lowercase()

    # ---- what it is -----------------------------------------------------------------------------

    @property
    def abilities(self) -> dict[str, Any]:
        """What can be asked of this model."""
        draws = isinstance(self.inner, Posterior)
        return {
            "fold_in": isinstance(self.inner, FoldingModel),
            "intervals": draws or isinstance(self.model, Conformal),
            "orders": ["mean", "lower", "thompson"] if draws else ["mean"],
            "explain": isinstance(self.inner, FactorModel | BayesianModel),
            "ask": isinstance(self.inner, BayesianModel),
            "features": self.n_factors,
            "titles": self.titles is not None,
        }

    @property
    def n_factors(self) -> int:
        """K, 0 of a model without latent features."""
        return int(getattr(self.inner, "n_factors", 0))

    @property
    def most_at_once(self) -> int:
        """How many users' scores are computed together, so that memory stays bounded."""
        return max(1, min(64, BLOCK_CELLS // max(1, self.model.ratings.n_items)))

    def card(self) -> dict[str, Any]:
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
        if self.abilities["fold_in"]:
            items, values = ratings.by_user.row(0)
            own = dict(zip(ratings.item_ids.take(items).to_list(), values.tolist(), strict=True))
            somebody = Newcomer(self.model, dict(list(own.items())[:3]))
            somebody.recommend(10)
            somebody.interval(items[:1], 0.9)
            if self.abilities["explain"] and len(somebody.items):
                somebody.reasons(0)
        if self.n_factors:
            self.feature_positions()

    # ---- answers --------------------------------------------------------------------------------

    def top(self, asked: Sequence[TopAsked]) -> list[list[dict[str, Any]]]:
        """The best items of several known users, by one matrix product for all who ask for the same."""
        answers: list[list[dict[str, Any]]] = [[] for _ in asked]
        for exclude_seen in {one.exclude_seen for one in asked}:
            places = [place for place, one in enumerate(asked) if one.exclude_seen == exclude_seen]
            users = np.array([asked[place].user for place in places], np.int32)
            most = max(asked[place].n for place in places)
            rows, items, scores = self.model._best(users, most, exclude_seen, None)
            plain = isinstance(self.inner, FactorModel)  # whose scores are its predictions but for the scale
            predicted = np.clip(scores, *self.model.scale) if plain else self.predict(users[rows], items)
            listed = self.listed(items, scores, predicted)
            ends = np.searchsorted(rows, np.arange(len(places) + 1))
            for k, place in enumerate(places):
                answers[place] = listed[ends[k] : ends[k + 1]][: asked[place].n]
        for answer in answers:
            for rank, row in enumerate(answer, 1):
                row["rank"] = rank
        return answers

    def listed(self, items: Array, scores: Array, predicted: Array) -> list[dict[str, Any]]:
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
        return np.asarray(self.model._predict_codes(users, np.asarray(items, np.int32), "fallback", True), np.float64)

    def interval(self, users: Codes, items: Codes, level: float) -> Array | None:
        """Intervals of pairs of codes, or None of a model without."""
        return known_interval(self.model, users, items, level)

    def newcomer(self, ratings: Mapping[Any, float]) -> Newcomer:
        """Somebody with these ratings; they must be on the scale, their items known.

        Raises:
            ParameterError: A rating is off the scale, or the model cannot fold in.
            UnknownIdError: An item is unknown.
        """
        for item, value in ratings.items():
            self.items.code(item)
            self.check_rating(item, value)
        return Newcomer(self.model, {self.items.typed(item): value for item, value in ratings.items()})

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

    def search(self, text: str, n: int) -> list[dict[str, Any]]:
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

    def described(self, codes: Array) -> list[dict[str, Any]]:
        """Items with titles and how often they were rated."""
        ids = self.model.item_ids.take(codes).to_list()
        titles = [None] * len(ids) if self.titles is None else self.titles.gather(codes).to_list()
        counts = self.model.ratings.by_item.counts[codes].tolist()
        rows = zip(ids, titles, counts, strict=True)
        return [{"item": item, "title": title, "ratings": count} for item, title, count in rows]

    def similar(self, item: Id, n: int) -> list[dict[str, Any]]:
        """The items nearest to one."""
        self.need_features()
        code = self.items.code(item)
        return self.plain(self.inner.similar_items(self.model.item_ids.ids[code], n))

    def features(self, top: int) -> list[dict[str, Any]]:
        """The items at both ends of every latent feature."""
        self.need_features()
        return [
            {
                "feature": k,
                "high": self.plain(self.inner.top_items(k, top)),
                "low": self.plain(self.inner.top_items(k, top, lowest=True)),
            }
            for k in range(self.n_factors)
        ]

    def item_map(self, n: int) -> list[dict[str, Any]]:
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
        self.need_features()
        point = self.inner.point if isinstance(self.inner, BayesianModel) else self.inner
        return np.asarray(point.features.items)

    def need_features(self) -> None:
        """Raise ParameterError for a model without latent features."""
        if self.n_factors == 0:
            raise ParameterError("This model has no latent features: serve one with factors, ALS say.")

    def plain(self, table: pl.DataFrame) -> list[dict[str, Any]]:
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
    import dataclasses

    if Path(path).is_dir():
        raise DataError(
            f"A model file is needed to be served: {str(path)!r} is a folder; where it is a model that fits into "
            "memory, gm.load(folder).save(file) makes one."
        )
    model = load(path)
    with Path(path).open("rb") as file:
        version = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    if items is not None:
        ratings = model.ratings.with_items(items)
        if isinstance(model, Conformal):
            inner = dataclasses.replace(model.model, ratings=ratings)
            model = dataclasses.replace(model, ratings=ratings, model=inner)
        else:
            model = dataclasses.replace(model, ratings=ratings)
    return Live(model, version)
