"""What every model has in common: the verbs, and the policies behind them."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.file_format import Arrays, write_file
from gramian.core.history import History
from gramian.core.parameters import check_choice, check_number
from gramian.data.columns import time_column
from gramian.data.ids import Codes, IdMap, id_series
from gramian.data.ratings import Ratings
from gramian.errors import DataError, UnknownIdError, UnknownIdWarning
from gramian.kernels.arrays import Array
from gramian.metrics.prediction import rating_errors
from gramian.models.recipe import Recipe
from gramian.models.selection import best_pairs, item_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["UNKNOWN", "Model", "Times", "check_ratings_given", "pair_times"]

Times = npt.NDArray[np.int64]
UNKNOWN = ("fallback", "nan", "raise")
# Scores of one block of users in `recommend`: 16 million cells, 64 MiB in float32.
BLOCK_CELLS = 1 << 24
SEEN_RATINGS = 1 << 22  # trained pairs that are compared with test pairs at a time


@dataclass(frozen=True, eq=False, repr=False)
class Model(ABC):
    """A trained model. It never changes; :meth:`update` returns a new one.

    Attributes:
        recipe: The recipe it was made by.
        ratings: The training ratings (ids, what each user has seen, titles).
        history: The record of each epoch.
    """

    recipe: Recipe[Any]
    ratings: Ratings
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

    # ---- ids ------------------------------------------------------------------------------------

    @property
    def user_ids(self) -> IdMap:
        """The users, in the order of their codes."""
        return self.ratings.user_ids

    @property
    def item_ids(self) -> IdMap:
        """The items, in the order of their codes."""
        return self.ratings.item_ids

    @property
    def scale(self) -> tuple[float, float]:
        """The smallest and the largest rating seen in training; predictions are clipped to it."""
        return self.ratings.scale

    def _codes(self, ids: IdMap, values: Any, what: str, unknown: str, say: bool = True, depth: int = 3) -> Codes:
        """Codes of ids, −1 for unknown ones, after the policy has been carried out (``depth``: who is warned)."""
        return self._heeded(ids.codes(values, what), values, what, unknown, say, depth + 1)

    def _found(self, values: Any, what: str) -> Codes:
        """Codes of ids as predictions take them: −1 for unknown ones; a family may know others by codes below."""
        return (self.user_ids if what == "user" else self.item_ids).codes(values, what)

    def _heeded(self, codes: Codes, values: Any, what: str, unknown: str, say: bool = True, depth: int = 3) -> Codes:
        """The codes, after the policy for those that are −1 has been carried out."""
        check_choice("unknown", unknown, UNKNOWN, type(self).__name__)
        lost = int((codes == -1).sum())
        if lost and (unknown == "raise" or say):
            place = int(np.argmax(codes == -1))
            example = values if isinstance(values, str) or not np.ndim(values) else list(values)[place]
            example = example.item() if isinstance(example, np.generic) else example
            found = f"{lost} of {len(codes)} {what} ids are unknown to the model, for example {example!r}"
            if unknown == "raise":
                raise UnknownIdError(f"{found}; correct them, or choose unknown='fallback' or 'nan'.")
            if unknown == "fallback":
                warnings.warn(f"{found}; what the biases know stands in.", UnknownIdWarning, stacklevel=depth)
        return codes

    def _one_code(self, ids: IdMap, value: Any, what: str) -> int:
        code = int(ids.codes([value], what)[0])
        if code < 0:
            raise UnknownIdError(f"The {what} {value!r} is unknown to the model; give the id of a {what} in training.")
        return code

    # ---- predicting -----------------------------------------------------------------------------

    def predict(
        self, users: Any, items: Any, *, times: Any = None, unknown: str = "fallback", clip: bool = True
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
        codes = self._pair_codes(users, items, unknown)
        return self._predict_codes(*codes, unknown, clip, pair_times(times, len(codes[0])))

    def _pair_codes(self, users: Any, items: Any, unknown: str, depth: int = 4) -> tuple[Codes, Codes]:
        """Codes of (user, item) pairs after the policy has been carried out; one id alone goes with all others."""
        user_codes = self._heeded(self._found(users, "user"), users, "user", unknown, depth=depth)
        item_codes = self._heeded(self._found(items, "item"), items, "item", unknown, depth=depth)
        if 1 not in (len(user_codes), len(item_codes)) and len(user_codes) != len(item_codes):
            raise DataError(
                f"Users and items must pair up: found {len(user_codes)} users and {len(item_codes)} items; "
                "give one per pair, or a single one."
            )
        paired_users, paired_items = np.broadcast_arrays(user_codes, item_codes)
        return paired_users, paired_items

    def _predict_codes(self, users: Codes, items: Codes, unknown: str, clip: bool, times: Times | None = None) -> Array:
        predicted = self.score_pairs(users, items)
        if clip:
            np.clip(predicted, *self.scale, out=predicted)
        if unknown == "nan":
            predicted[(users < 0) | (items < 0)] = np.nan
        return predicted

    def evaluate(self, test: Ratings, *, unknown: str = "fallback", clip: bool = True) -> dict[str, float | int]:
        """``{"rmse", "mse", "mae", "n"}`` of the predictions of ``test``.

        A test user or item without training ratings is normal: ``unknown="fallback"`` predicts it from what
        the biases know, without a warning; ``"nan"`` leaves such pairs out of the figures and of ``n``.
        """
        users, items = self.codes_of(test, unknown)
        predicted = self._predict_codes(users, items, unknown, clip, test.times)
        known = ~np.isnan(predicted)
        if not known.any():
            raise DataError(
                "Nothing is left to evaluate: no test pair has both a known user and a known item; "
                "choose unknown='fallback', or test on ratings of known users."
            )
        return rating_errors(test.values[known], predicted[known])

    def count_seen(self, test: Ratings) -> int:
        """How many pairs of another table were in the training."""
        users, items = self.codes_of(test)
        known = (users >= 0) & (items >= 0)
        pairs = np.sort(users[known].astype(np.int64) * self.ratings.n_items + items[known])
        rows, seen = self.ratings.by_user, 0
        for low, high in rows.spans(SEEN_RATINGS):  # trained pairs are many more, and in order
            part = slice(*np.searchsorted(pairs, [low * self.ratings.n_items, high * self.ratings.n_items]))
            owners = np.repeat(np.arange(low, high), rows.counts[low:high]) * self.ratings.n_items
            seen += int(np.isin(pairs[part], owners + rows.indices[rows.indptr[low] : rows.indptr[high]]).sum())
        return seen

    def codes_of(self, test: Ratings, unknown: str = "fallback") -> tuple[Codes, Codes]:
        """This model's codes of the rows of another table: each id is looked up once."""
        check_ratings_given(test, "evaluate")
        users, items = test.user_ids.ids, test.item_ids.ids
        user_codes = self._heeded(self._found(users, "user"), users, "user", unknown, say=False)
        item_codes = self._heeded(self._found(items, "item"), items, "item", unknown, say=False)
        return user_codes[test.user_codes], item_codes[test.item_codes]

    # ---- recommending ---------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        *,
        exclude_seen: bool = True,
        among: Iterable[Any] | None = None,
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
            rows, columns, scores = self._best(codes[block], n, exclude_seen, candidates)
            parts.append(self._ranked(wanted.gather(block[rows]), rows, columns, scores))
        return pl.concat(parts) if parts else self._ranked(wanted.head(0), *(np.empty(0, np.int64),) * 3)

    def _candidates(self, among: Iterable[Any] | None, unknown: str) -> Array | None:
        """The item codes to choose from, or None for all."""
        if among is None:
            return None
        codes = self._codes(self.item_ids, id_series(among, "item"), "item", unknown)
        return np.unique(codes[codes >= 0])

    def _best(self, users: Codes, n: int, exclude_seen: bool, candidates: Array | None) -> tuple[Array, Array, Array]:
        """Rows (places in ``users``), item codes and scores of the best items of a block of users."""
        scores = self.score_block(users)
        if exclude_seen:
            for row, user in enumerate(users):
                if user >= 0:
                    scores[row, self.ratings.by_user.row(user)[0]] = -np.inf
        columns = np.arange(scores.shape[1]) if candidates is None else candidates
        if len(columns) == 0:
            return (np.empty(0, np.int64),) * 3
        rows, places, exact = best_pairs(
            scores if candidates is None else scores[:, columns],
            n,
            lambda row, place: self.score_pairs(users[row], columns[place].astype(np.int32)),
        )
        return rows, columns[places], exact

    def _ranked(self, users: pl.Series | None, rows: Array, items: Array, scores: Array) -> pl.DataFrame:
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
        return item_table(
            self.item_ids,
            items,
            self.ratings.titles,
            first={} if users is None else {"user": users},
            score=np.asarray(scores, np.float64),
            rank=rank.astype(np.int32),
        )

    # ---- looking up -----------------------------------------------------------------------------

    def rated_by(self, user: Any) -> pl.DataFrame:
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
            DataError: The file cannot be written; what stood there before is untouched.
        """
        write_file(path, *self.content())

    def content(self) -> tuple[Arrays, dict[str, Any]]:
        """What a model file holds: arrays and JSON-able metadata."""
        arrays = {f"model.{name}": array for name, array in self.arrays().items()}
        metadata = {"kind": "model", "recipe": self.recipe.to_dict(), "history": list(self.history)}
        return {**arrays, **self.ratings.to_arrays()}, metadata

    def plot_history(
        self, path: str | os.PathLike[str] | None = None, *, validation_label: str = "validation"
    ) -> Figure:
        """Draw the train and validation curves; returns the matplotlib figure, and writes it to ``path``."""
        from gramian.visuals.figures import learning_curve

        return learning_curve(self.history, path, title=type(self.recipe).__name__, validation_label=validation_label)

    def card(self) -> dict[str, Any]:
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

    def __repr__(self) -> str:
        return f"<model of {self.recipe} on {self.ratings}>"


def pair_times(times: Any, count: int) -> Times | None:
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


def check_ratings_given(table: Any, verb: str) -> None:
    """Refuse what is not ratings, in one sentence."""
    if not isinstance(table, Ratings):
        raise DataError(
            f"Ratings are needed to {verb}: got {type(table).__name__}; "
            "make them with gm.Ratings.from_frame, from_csr or gm.read_ratings."
        )
