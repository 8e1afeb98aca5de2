"""Answers that take real work, computed in a thread: a model and what was asked in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gramian.core.plain import Plain
from gramian.errors import DataError, ParameterError
from gramian.kernels.arrays import Array
from gramian.serve.live import Id, Live
from gramian.serve.schemas import Explained, Pair, Predicted, Recommended

__all__ = ["ask_next", "explain", "predict_items", "predict_pairs", "recommend_known", "recommend_new", "with_ends"]

Rows = list[Plain]
History = Mapping[Any, float]
MOST_FOLDED = 100  # users who are folded in for one request


def recommend_known(live: Live, user: int, asked: Recommended) -> Rows:
    """The best items for a user code, in any order, among candidates, without exclusions."""
    ids = live.model.item_ids.ids
    excluded = set(live.items.codes(asked.exclude).tolist())
    among = None if asked.among is None else [ids[int(code)] for code in live.items.codes(asked.among)]
    if among is not None and not among:
        return []
    options: dict[str, Any] = {"exclude_seen": not asked.include_seen, "among": among, "unknown": "raise"}
    if asked.order != "mean":
        need_orders(live)
        options |= {"by": asked.order, "level": asked.level, "seed": asked.seed}
    table = live.model.recommend([live.model.user_ids.ids[user]], asked.n + len(excluded), **options)
    codes = live.items.codes(table["item"])
    kept = np.array([code not in excluded for code in codes], bool)
    codes, scores = codes[kept][: asked.n], table["score"].to_numpy()[kept][: asked.n]
    rows = live.listed(codes, scores, live.predict(np.full(len(codes), user, np.int32), codes))
    return with_ends(live, user, rows, asked.level) if asked.intervals else rows


def with_ends(live: Live, user: int, rows: Rows, level: float) -> Rows:
    """A user's list with the ends of intervals."""
    codes = live.items.codes([row["item"] for row in rows])
    ends = live.interval(np.full(len(codes), user, np.int32), codes, level)
    return [dict(row) for row in rows] if ends is None else _joined(rows, ends)


def _joined(rows: Rows, ends: Array) -> Rows:
    return [{**row, "lower": low, "upper": high} for row, (low, high) in zip(rows, ends.tolist(), strict=True)]


def recommend_new(live: Live, ratings: History, asked: Recommended) -> Rows:
    """The best items for somebody with these ratings."""
    if asked.order != "mean":
        need_orders(live)
    if asked.among is not None and not asked.among:
        return []
    somebody = live.new_user(ratings)
    exclude = [] if asked.include_seen else list(live.typed(ratings))
    exclude += [live.items.typed(item) for item in asked.exclude]
    among = None if asked.among is None else [live.items.typed(item) for item in asked.among]
    table = somebody.recommend(
        asked.n, order=asked.order, level=asked.level, seed=asked.seed, exclude=exclude, among=among
    )
    codes = live.items.codes(table["item"])
    rows = live.listed(codes, table["score"].to_numpy(), somebody.predict(codes))
    ends = somebody.interval(codes, asked.level) if asked.intervals else None
    return rows if ends is None else _joined(rows, ends)


def need_orders(live: Live) -> None:
    """Raise ParameterError for a model that can order by the mean only."""
    if len(live.can.orders) == 1:
        raise ParameterError("This model keeps no draws, so it can order by 'mean' only; serve one of bpmf for others.")


def predict_pairs(live: Live, pairs: Sequence[Pair], histories: Mapping[Id, History], asked: Predicted) -> Rows:
    """Predictions of pairs; users with feedback are predicted from all their ratings."""
    items = live.items.codes([pair.item for pair in pairs], unknown=asked.unknown)
    users = np.array([_user_code(live, pair.user, histories, asked.unknown) for pair in pairs], np.int32)
    predicted = live.predict(users, items)
    ends = live.interval(users, items, asked.level)
    folded: dict[Id, list[int]] = {}
    for place, pair in enumerate(pairs):
        if pair.user in histories and items[place] >= 0:
            folded.setdefault(pair.user, []).append(place)
    if len(folded) > MOST_FOLDED:
        raise ParameterError(
            f"Too many users with new ratings at once: found {len(folded)}, the most is {MOST_FOLDED}; ask in parts."
        )
    for user, places in folded.items():
        somebody = live.new_user(histories[user])
        predicted[places] = somebody.predict(items[places])
        own = somebody.interval(items[places], asked.level)
        if ends is not None and own is not None:
            ends[places] = own
    return _predictions([pair.user for pair in pairs], [pair.item for pair in pairs], predicted, ends)


def _user_code(live: Live, user: Id, histories: Mapping[Id, History], unknown: str) -> int:
    if user in histories or unknown != "raise":
        return live.users.get(live.users.typed(user))
    return live.users.code(user)


def predict_items(live: Live, asked: Predicted) -> Rows:
    """Predictions of items for somebody new."""
    items = asked.items or []
    codes = live.items.codes(items)
    somebody = live.new_user(asked.ratings or {})
    return _predictions([None] * len(items), items, somebody.predict(codes), somebody.interval(codes, asked.level))


def _predictions(users: Sequence[Id | None], items: Sequence[Id], predicted: Array, ends: Array | None) -> Rows:
    lowers, uppers = ([None] * len(items),) * 2 if ends is None else np.asarray(ends).T.tolist()
    columns = zip(users, items, np.asarray(predicted).tolist(), lowers, uppers, strict=True)
    names = ("user", "item", "predicted", "lower", "upper")
    return [dict(zip(names, row, strict=True)) for row in columns]


def explain(live: Live, ratings: History, asked: Explained) -> Plain:
    """The rated items that pull a prediction most, of somebody with these ratings."""
    if not live.can.explain:
        raise ParameterError("This model cannot say why: serve one with factors, ALS say.")
    code = live.items.code(asked.item)
    somebody = live.new_user(ratings)
    table = somebody.reasons(code)
    predicted = float(somebody.predict(np.array([code], np.int32))[0])
    score = float(somebody.scores()[code])
    return {
        "item": live.model.item_ids.ids[code],
        "title": None if live.titles is None else live.titles[code],
        "predicted": predicted,
        "reasons": live.plain(table.head(asked.n)),
        "rest": score - float(table["contribution"].sum()),
    }


def ask_next(live: Live, ratings: History, n: int) -> Rows:
    """The items whose rating would tell most about somebody with these ratings."""
    asking = live.asking()
    for item, value in ratings.items():
        live.items.code(item)
        live.check_rating(item, value)
    typed = live.typed(ratings)
    if len(typed) >= live.model.ratings.n_items:
        raise DataError("There is nothing left to ask: every item is rated.")
    return live.plain(asking.ask_next(typed, n))
