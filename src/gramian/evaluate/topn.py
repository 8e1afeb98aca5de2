r"""Top-n lists of a model, held against test ratings.

A test user's candidates are all items of the training that this user has not rated in it; relevant are the user's
test items rated ``at_least`` so high. An item that the training does not know cannot be recommended, but is relevant
all the same: a miss. Users without a relevant item, or unknown to the training, have no list. All candidates are
ranked; sampling some of them changes which model wins (Krichene & Rendle 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import polars as pl

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import check_number
from gramian.data.ids import Codes
from gramian.data.table import RatingsTable
from gramian.errors import DataError
from gramian.kernels.arrays import Array
from gramian.metrics import ranking as metrics
from gramian.metrics.significance import standard_error
from gramian.models.model import Model
from gramian.models.recipe import Epoch, Recipe

__all__ = ["Popularity", "Ranking", "evaluate_ranking"]

BLOCK = 256  # users whose scores of all items are held at a time


@dataclass(frozen=True, kw_only=True)
class Popularity(Recipe["PopularityModel"]):
    """The same list for everyone: the items with most ratings. The bar for rankings, as Baseline is for errors.

    It predicts no ratings: its scores are counts.
    """

    name: ClassVar[str] = "popularity"

    def start(self, ratings: RatingsTable) -> Arrays:
        """Nothing."""
        return {}

    def epoch(self, ratings: RatingsTable, arrays: Arrays, number: int) -> Epoch[Arrays]:
        """Count."""
        return Epoch({"counts": ratings.by_item.counts.astype(np.float32)}, {})

    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> PopularityModel:
        """The model of the counts."""
        return PopularityModel(self, ratings, history, arrays["counts"])


@dataclass(frozen=True, eq=False, repr=False)
class PopularityModel(Model):
    """Items by their number of training ratings, ties in the order of the ids."""

    counts: Array

    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """The item's number of ratings, 0 of one unknown."""
        return np.where(items < 0, np.float32(0), self.counts[items])

    def score_block(self, users: Codes) -> Array:
        """The same counts for all."""
        return np.tile(self.counts, (len(users), 1))

    def arrays(self) -> Arrays:
        """The counts."""
        return {"counts": self.counts}


@dataclass(frozen=True, eq=False)
class Ranking:
    """What top-k lists are worth on test ratings.

    Attributes:
        k: The length of the lists.
        at_least: The rating from which a test item is relevant.
        figures: ``precision``, ``recall``, ``hit_rate``, ``mrr``, ``map``, ``ndcg``, ``auc``: means over users.
        errors: Their standard errors.
        lists: Of all lists together: ``coverage``, ``novelty``, ``popularity_bias`` and, of models with item factors,
            ``diversity``.
        per_user: A table with the user and each figure.
    """

    k: int
    at_least: float
    figures: dict[str, float]
    errors: dict[str, float]
    lists: dict[str, float]
    per_user: pl.DataFrame = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the table as plain data."""
        whole = {"k": self.k, "at_least": self.at_least, "users": self.per_user.height}
        return {**whole, **self.figures, "errors": self.errors, **self.lists}

    def __str__(self) -> str:
        means = [f"{name} {value:.4f} ± {self.errors[name]:.4f}" for name, value in self.figures.items()]
        return f"at {self.k}, {self.per_user.height:,} users: " + ", ".join(
            means + [f"{name} {value:.3f}" for name, value in self.lists.items()]
        )


def evaluate_ranking(model: Model, test: RatingsTable, k: int = 10, *, at_least: float | None = None) -> Ranking:
    """Measure a model's top-k lists on ratings it was not trained on.

    Args:
        model: A trained model.
        test: The test ratings.
        k: The length of the lists.
        at_least: A test item is relevant from this rating on; the mean of the training ratings if not given.

    Raises:
        DataError: No test user is known and has a relevant item.
    """
    check_number("k", k, low=1, whole=True, owner="evaluate_ranking")
    threshold = model.ratings.global_mean if at_least is None else float(at_least)
    users, items = model.codes_of(test)
    wanted = (users >= 0) & (test.values >= threshold)
    if not wanted.any():
        raise DataError(
            f"There is nothing to rank for: no known user has a test rating of {threshold:g} or more; lower at_least."
        )
    users, items = users[wanted], items[wanted]
    who, relevant = np.unique(users, return_counts=True)
    hits, listed, areas = _lists(model, who, users, items, k)
    columns = {
        "precision": metrics.precision(hits, k),
        "recall": metrics.recall(hits, relevant, k),
        "hit_rate": metrics.hit_rate(hits, k),
        "mrr": metrics.reciprocal_rank(hits, k),
        "map": metrics.average_precision(hits, relevant, k),
        "ndcg": metrics.ndcg(hits, relevant, k),
        "auc": areas,
    }
    present = {name: values[np.isfinite(values)] for name, values in columns.items() if np.isfinite(values).any()}
    return Ranking(
        k,
        threshold,
        {name: float(values.mean()) for name, values in present.items()},
        {name: standard_error(values) for name, values in present.items()},
        _of_lists(model, listed),
        pl.DataFrame({"user": model.user_ids.take(who), **columns}),
    )


def _lists(model: Model, who: Codes, users: Codes, items: Codes, k: int) -> tuple[Array, Array, Array]:
    """Hits (users, k), item codes (users, k; −1 is an empty place) and AUC of each user."""
    width = model.ratings.n_items
    pairs = np.sort(users[items >= 0].astype(np.int64) * width + items[items >= 0])
    hits, listed, areas = np.zeros((len(who), k), bool), np.full((len(who), k), -1, np.int64), np.empty(len(who))
    for low in range(0, len(who), BLOCK):
        block = who[low : low + BLOCK]
        rows, columns, _ = model.best_codes(block, k)
        ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
        listed[low + rows, ranks] = columns
        hits[low + rows, ranks] = np.isin(block[rows].astype(np.int64) * width + columns, pairs)
        areas[low : low + BLOCK] = list(_areas(model, block, pairs))
    return hits, listed, areas


def _areas(model: Model, block: Codes, pairs: Array) -> Iterator[float]:
    width = model.ratings.n_items
    for user, scores in zip(block.tolist(), model.score_block(block), strict=True):
        first, last = np.searchsorted(pairs, [user * width, (user + 1) * width])
        relevant, candidate = np.zeros(width, bool), np.ones(width, bool)
        relevant[pairs[first:last] - user * width] = True
        candidate[model.ratings.by_user.row(user)[0]] = False
        yield metrics.auc(scores[candidate], relevant[candidate])


def _of_lists(model: Model, listed: Array) -> dict[str, float]:
    counts = model.ratings.by_item.counts
    made = {
        "coverage": metrics.catalogue_coverage(listed, len(counts)),
        "novelty": metrics.novelty(listed, counts, model.ratings.n_users),
        "popularity_bias": metrics.popularity_bias(listed, counts),
    }
    factors = getattr(model, "item_factors", None)
    return made if factors is None or not factors.shape[1] else made | {"diversity": metrics.diversity(listed, factors)}
