"""What every model has in common: the verbs, and the policies behind them."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import polars as pl

from gramian.core.file_format import Arrays, write_file
from gramian.core.history import History
from gramian.core.parameters import check_choice, check_number
from gramian.core.plain import Plain
from gramian.data.columns import Frame, time_column
from gramian.data.ids import Codes, Id, Ids, IdTable, id_series
from gramian.data.pairs import Pairs, Times
from gramian.data.table import RatingsTable
from gramian.errors import DataError, UnknownIdError, UnknownIdWarning
from gramian.kernels.arrays import Array
from gramian.metrics.prediction import rating_errors
from gramian.models.capabilities import Capabilities
from gramian.models.selection import best_pairs, item_table
from gramian.models.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLOCK_CELLS", "UNKNOWN", "Best", "Model", "TimesGiven", "check_ratings_given", "pair_times"]

TimesGiven = object  # one time or several: numbers, dates, ISO text; `pair_times` says what it does not take
UNKNOWN = ("fallback", "nan", "raise")
# Scores of one block of users in `recommend`: 16 million cells, 64 MiB in float32.
BLOCK_CELLS = 1 << 24


class Best(NamedTuple):
    """The best items of some users: places among these users, item codes and scores, by user and then by rank."""

    rows: Array
    items: Array
    scores: Array


@dataclass(frozen=True, eq=False, repr=False)
class Model(ABC):
    """A trained model. It never changes; what learns from new ratings (``update`` of some models) returns a new one.

    Attributes:
        recipe: The recipe it was made by.
        ratings: The training ratings (ids, what each user has seen, titles).
        history: The record of each epoch.
    """

    recipe: Settings
    ratings: RatingsTable
    history: History

    # ---- what a family gives --------------------------------------------------------------------

    @abstractmethod
    def score_pairs(self, users: Codes, items: Codes) -> Array:
        """Unclipped predictions of pairs of codes; −1 is somebody or something unknown."""

    @abstractmethod
    def score_block(self, users: Codes) -> Array:
        """Unclipped predictions of some users for all items, (users, M), to rounding."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """The parameters, as :meth:`Recipe.model` takes them."""

    @property
    def capabilities(self) -> Capabilities:
        """What can be asked of it."""
        return Capabilities()

    # ---- ids ------------------------------------------------------------------------------------

    @property
    def user_ids(self) -> IdTable:
        """The users, in the order of their codes."""
        return self.ratings.user_ids

    @property
    def item_ids(self) -> IdTable:
        """The items, in the order of their codes."""
        return self.ratings.item_ids

    @property
    def scale(self) -> tuple[float, float]:
        """The smallest and the largest rating seen in training; predictions are clipped to it."""
        return self.ratings.scale

    def _codes(self, ids: IdTable, values: Ids, what: str, unknown: str, say: bool = True, depth: int = 3) -> Codes:
        """Codes of ids, −1 for unknown ones, after the policy has been carried out (``depth``: who is warned)."""
        return self._heeded(ids.codes(values, what), values, what, unknown, say, depth + 1)

    def _found(self, values: Ids, what: str) -> Codes:
        """Codes of ids as predictions take them: −1 for unknown ones; a family may know others by codes below."""
        return (self.user_ids if what == "user" else self.item_ids).codes(values, what)

    def _heeded(self, codes: Codes, values: Ids, what: str, unknown: str, say: bool = True, depth: int = 3) -> Codes:
        """The codes, after the policy for those that are −1 has been carried out."""
        check_choice("unknown", unknown, UNKNOWN, type(self).__name__)
        lost = int((codes == -1).sum())
        if lost and (unknown == "raise" or say):
            place = int(np.argmax(codes == -1))
            example = id_series(values, what)[place]
            found = f"{lost} of {len(codes)} {what} ids are unknown to the model, for example {example!r}"
            if unknown == "raise":
                raise UnknownIdError(f"{found}; correct them, or choose unknown='fallback' or 'nan'.")
            if unknown == "fallback":
                warnings.warn(f"{found}; what the biases know stands in.", UnknownIdWarning, stacklevel=depth)
        return codes

    def _one_code(self, ids: IdTable, value: Id, what: str) -> int:
        code = int(ids.codes([value], what)[0])
        if code < 0:
            raise UnknownIdError(f"The {what} {value!r} is unknown to the model; give the id of a {what} in training.")
        return code

    # ---- predicting -----------------------------------------------------------------------------

    def predict(
        self, users: Ids, items: Ids, *, times: TimesGiven = None, unknown: str = "fallback", clip: bool = True
    ) -> Array:
        """Predicted ratings of (user, item) pairs, on the rating scale.

        Args:
            users: User ids, one per pair; one id alone goes with every item.
            items: Item ids, one per pair; one id alone goes with every user.
            times: When, one per pair or one for all, as in the training ratings. Only models that know of time
                (``time=`` of :class:`gramian.BPMF`) look at it; without it, they predict for no time in particular.
            unknown: Pairs with an unknown id: ``"fallback"`` predicts what the biases know, then the global
                mean, and warns; ``"nan"`` gives NaN; ``"raise"`` raises.
            clip: Whether to clip to the scale of the training ratings.

        Returns:
            A float array with one prediction per pair.

        Raises:
            DataError: The lengths differ, or the ids are of another kind than the model's.
            UnknownIdError: An id is unknown, under ``"raise"``.
        """
        return self.predict_codes(self._pairs_of(users, items, times, unknown), unknown=unknown, clip=clip)

    def _pairs_of(self, users: Ids, items: Ids, times: TimesGiven, unknown: str, depth: int = 4) -> Pairs:
        """The codes of (user, item) pairs after the policy has been carried out; one id alone goes with all others."""
        user_codes = self._heeded(self._found(users, "user"), users, "user", unknown, depth=depth)
        item_codes = self._heeded(self._found(items, "item"), items, "item", unknown, depth=depth)
        if 1 not in (len(user_codes), len(item_codes)) and len(user_codes) != len(item_codes):
            raise DataError(
                f"Users and items must pair up: found {len(user_codes)} users and {len(item_codes)} items; "
                "give one per pair, or a single one."
            )
        paired_users, paired_items = np.broadcast_arrays(user_codes, item_codes)
        return Pairs(paired_users, paired_items, pair_times(times, len(paired_users)))

    def predict_codes(self, pairs: Pairs, *, unknown: str = "fallback", clip: bool = True) -> Array:
        """As :meth:`predict`, of pairs of this model's codes; −1 is somebody or something unknown."""
        predicted = self.score_pairs(pairs.users, pairs.items)
        if clip:
            np.clip(predicted, *self.scale, out=predicted)
        if unknown == "nan":
            predicted[pairs.unknown] = np.nan
        return predicted

    def evaluate(self, test: RatingsTable, *, unknown: str = "fallback", clip: bool = True) -> dict[str, float | int]:
        """``{"rmse", "mse", "mae", "n"}`` of the predictions of ``test``.

        A test user or item without training ratings is normal: ``unknown="fallback"`` predicts it from what
        the biases know, without a warning; ``"nan"`` leaves such pairs out of the figures and of ``n``.
        """
        predicted = self.predict_codes(self.pairs_of(test, unknown), unknown=unknown, clip=clip)
        known = ~np.isnan(predicted)
        if not known.any():
            raise DataError(
                "Nothing is left to evaluate: no test pair has both a known user and a known item; "
                "choose unknown='fallback', or test on ratings of known users."
            )
        return rating_errors(test.values[known], predicted[known])

    def count_seen(self, test: RatingsTable) -> int:
        """How many pairs of another table were in the training."""
        users, items = self.codes_of(test)
        known = (users >= 0) & (items >= 0)
        return self.ratings.count_pairs(users[known], items[known])

    def pairs_of(self, test: RatingsTable, unknown: str = "fallback") -> Pairs:
        """The rows of another table as pairs of this model's codes."""
        return Pairs(*self.codes_of(test, unknown), test.times)

    def codes_of(self, test: RatingsTable, unknown: str = "fallback") -> tuple[Codes, Codes]:
        """This model's codes of the rows of another table: each id is looked up once."""
        check_ratings_given(test, "evaluate")
        users, items = test.user_ids.ids, test.item_ids.ids
        user_codes = self._heeded(self._found(users, "user"), users, "user", unknown, say=False)
        item_codes = self._heeded(self._found(items, "item"), items, "item", unknown, say=False)
        return user_codes[test.user_codes], item_codes[test.item_codes]

    # ---- recommending ---------------------------------------------------------------------------

    def recommend(
        self,
        users: Ids | None = None,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        among: Ids | None = None,
        unknown: str = "fallback",
    ) -> pl.DataFrame:
        """The best items for one user, many, or (by default) all.

        Args:
            users: A user id, several, or None for every user.
            n: How many items per user; exactly min(n, available) come.
            exclude_seen: Leave out the items that the user rated in training.
            among: Candidate items; unknown ones are left out (with a warning) or raise.
            unknown: An unknown user: ``"fallback"`` gets the items with the best biases, with a warning;
                ``"nan"`` gets no rows; ``"raise"`` raises.

        Returns:
            A polars table: ``user``, ``item``, ``score``, ``rank`` (from 1), and ``title`` where titles are
            known. The score is the predicted rating before clipping, so that the order can be seen.

        Memory: users are scored in blocks of 64 MiB of scores; choosing the best of them takes some three
        times as much again, whatever the number of users.
        """
        check_number("n", n, low=1, whole=True, owner="recommend")
        ids = self.user_ids.ids if users is None else users
        codes = self._heeded(self._found(ids, "user"), ids, "user", unknown)
        wanted = self.user_ids.ids if len(codes) == 0 or users is None else id_series(users, "user")
        places = np.flatnonzero(codes != -1) if unknown == "nan" else np.arange(len(codes))
        candidates = self._candidates(among, unknown)
        parts = []
        step = max(1, BLOCK_CELLS // max(1, self.ratings.n_items))
        for low in range(0, len(places), step):
            block = places[low : low + step]
            best = self.best_codes(codes[block], n, exclude_seen=exclude_seen, among=candidates)
            parts.append(self._ranked(best, wanted.gather(block[best.rows])))
        return pl.concat(parts) if parts else self._ranked(Best(*(np.empty(0, np.int64),) * 3), wanted.head(0))

    def _candidates(self, among: Ids | None, unknown: str) -> Array | None:
        """The item codes to choose from, or None for all."""
        if among is None:
            return None
        codes = self._codes(self.item_ids, id_series(among, "item"), "item", unknown)
        return np.unique(codes[codes >= 0])

    def best_codes(self, users: Codes, n: int, *, exclude_seen: bool = True, among: Array | None = None) -> Best:
        """The best items of a block of users by their codes; ``among`` some item codes, ascending."""
        scores = self.score_block(users)
        if exclude_seen:
            for row, user in enumerate(users):
                if user >= 0:
                    scores[row, self.ratings.by_user.row(user)[0]] = -np.inf
        columns = np.arange(scores.shape[1]) if among is None else among
        if len(columns) == 0:
            return Best(*(np.empty(0, np.int64),) * 3)
        rows, places, exact = best_pairs(
            scores if among is None else scores[:, columns],
            n,
            lambda row, place: self.score_pairs(users[row], columns[place].astype(np.int32)),
        )
        return Best(rows, columns[places], exact)

    def _ranked(self, best: Best, users: pl.Series | None = None) -> pl.DataFrame:
        rank = np.arange(len(best.rows)) - np.searchsorted(best.rows, best.rows) + 1
        return item_table(
            self.item_ids,
            best.items,
            self.ratings.titles,
            first={} if users is None else {"user": users},
            score=np.asarray(best.scores, np.float64),
            rank=rank.astype(np.int32),
        )

    # ---- looking up -----------------------------------------------------------------------------

    def rated_by(self, user: Id) -> pl.DataFrame:
        """What a user rated in training: ``item``, ``rating`` and ``title`` where known, best first.

        Raises:
            UnknownIdError: The user is not in the training ratings.
        """
        code = self._codes(self.user_ids, [user], "user", "raise")[0]
        items, values = self.ratings.by_user.row(int(code))
        order = np.argsort(-values, kind="stable")
        return item_table(self.item_ids, items[order], self.ratings.titles, rating=values[order])

    def find_items(self, text: str, n: int = 10) -> pl.DataFrame:
        """Items with ``text`` in their title, most rated first: ``item``, ``ratings``, ``title``.

        A title that is ``text`` itself, whatever its case, is the only one found.

        Raises:
            DataError: The model knows no titles.
        """
        titles = self.ratings.titles
        if titles is None:
            raise DataError("The model knows no titles: it was trained without a table of items; give item ids.")
        small = titles.str.to_lowercase()
        same = (small == text.lower()).fill_null(value=False)
        found = same if same.any() else small.str.contains(text.lower(), literal=True).fill_null(value=False)
        counts = self.ratings.by_item.counts
        codes = found.arg_true().to_numpy()
        codes = codes[np.argsort(-counts[codes], kind="stable")][:n]
        return item_table(self.item_ids, codes, titles, ratings=counts[codes])

    # ---- keeping and showing --------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as one safe file (safetensors, no pickle), whole or not at all.

        Raises:
            DataError: The file cannot be written, and what stood there before is untouched; or the model has no
                ratings any more.
        """
        write_file(path, *self.content())

    def content(self) -> tuple[Arrays, Plain]:
        """What a model file holds: arrays and JSON-able metadata."""
        if len(self.ratings) == 0:
            raise DataError("A model without its ratings cannot be saved: found 0; save the one that it was made of.")
        arrays = {f"model.{name}": array for name, array in self.arrays().items()}
        metadata: Plain = {"kind": "model", "recipe": self.recipe.to_dict(), "history": list(self.history)}
        return {**arrays, **self.ratings.to_arrays()}, metadata

    def plot_history(
        self, path: str | os.PathLike[str] | None = None, *, validation_label: str = "validation"
    ) -> Figure:
        """Draw the train and validation curves; returns the matplotlib figure, and writes it to ``path``."""
        from gramian.visuals.figures import learning_curve

        return learning_curve(self.history, path, title=type(self.recipe).__name__, validation_label=validation_label)

    def card(self) -> Plain:
        """What this model is, as plain data: recipe, sizes, scale, last epoch."""
        return {
            "recipe": self.recipe.to_dict(),
            "users": self.ratings.n_users,
            "items": self.ratings.n_items,
            "ratings": len(self.ratings),
            "scale": list(self.scale),
            "global_mean": self.ratings.global_mean,
            "last_epoch": dict(self.history[-1]) if len(self.history) else None,
        }

    def with_items(self, table: Frame) -> Self:
        """The same model with a table about the items, for their titles; see :meth:`gramian.Ratings.with_items`."""
        return replace(self, ratings=self.ratings.with_items(table))

    def without_ratings(self) -> Self:
        """The model with ids but no ratings: what is needed to score, to be sent somewhere; it cannot be saved."""
        return replace(self, ratings=self.ratings.without_rows())

    def __repr__(self) -> str:
        return f"<model of {self.recipe} on {self.ratings}>"


def pair_times(times: TimesGiven, count: int) -> Times | None:
    """The times of ``count`` pairs, one for all or one each; None where none are given.

    Raises:
        DataError: They are no times, or not as many as there are pairs.
    """
    if times is None:
        return None
    series = times if isinstance(times, pl.Series) else pl.Series(np.atleast_1d(np.asarray(times)))
    made = time_column(series).to_numpy()
    if len(made) not in (1, count):
        raise DataError(f"Times must pair up: found {len(made)} times and {count} pairs; give one per pair, or one.")
    return np.broadcast_to(made, (count,))


def check_ratings_given(table: object, verb: str) -> None:
    """Refuse what is not ratings, in one sentence."""
    if not isinstance(table, RatingsTable):
        raise DataError(
            f"Ratings are needed to {verb}: got {type(table).__name__}; "
            "make them with gm.Ratings.from_frame, from_csr or gm.read_ratings."
        )
