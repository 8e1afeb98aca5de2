"""Protocols: what is learned from, what is chosen on, and what is measured on, once.

A figure says what it seems to say only if the test ratings took no part in any choice. :func:`hold_out` therefore
cuts the validation ratings from the training ratings, and hands out the test only to measure, once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from gramian.core.parameters import check_choice, check_number
from gramian.data import splits
from gramian.data.groups import BY, group_edges, group_names, group_of, training_counts
from gramian.data.ratings import Ratings
from gramian.errors import DataError, ParameterError
from gramian.evaluate.cold_start import ColdUsers
from gramian.kernels.arrays import Array
from gramian.metrics.significance import rmse_error, standard_error
from gramian.models.model import Model, check_ratings_given
from gramian.models.recipe import AnyRecipe

__all__ = ["CrossValidation", "HeldOut", "breakdown", "cross_validate", "cut_off", "evaluate_fold_in", "hold_out"]

PROTOCOLS = ("random", "time", "last", "cold_users")


# ---- hold-out -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class HeldOut:
    """Training, validation and test ratings that keep apart; made by :func:`hold_out`.

    Attributes:
        train: To learn from while choosing.
        validation: To choose on, cut from the training ratings by the same rule as the test; None if not wanted.
        development: Both together: what the model to be tested is trained on.
        protocol: The rule.
        tests: How often the test was used.
    """

    train: Ratings
    validation: Ratings | None
    development: Ratings
    protocol: str
    _test: Ratings = field(repr=False)
    _seed: int = field(default=0, repr=False)
    tests: int = 0

    def evaluate(self, model: Model, *, again: bool = False) -> dict[str, float | int]:
        """The test errors of the model chosen; for ``cold_users``, of users folded in from half of their ratings.

        Raises:
            ParameterError: The test has been used before, and ``again`` was not said.
            DataError: The model has seen test ratings in its training.
        """
        if self.tests and not again:
            raise ParameterError(
                "The test ratings were used already: whoever chooses by them gets a figure that is too good; choose on "
                ".validation, or say again=True where nothing was chosen since."
            )
        seen = model.count_seen(self._test)
        if seen:
            raise DataError(
                f"The model has seen {seen:,} of the {len(self._test):,} test ratings in its training: fit it on "
                ".train or .development."
            )
        measure = _cold_errors if self.protocol == "cold_users" else _errors
        found = measure(model, self._test, self._seed)
        self.tests += 1
        return found


def hold_out(
    ratings: Ratings, protocol: str | None = None, *, test: float = 0.2, validation: float = 0.1, seed: int = 0
) -> HeldOut:
    """Split ratings so that a test can be believed.

    Args:
        ratings: All ratings.
        protocol: ``"time"``: the latest ratings are held out, as in use, where one predicts what comes; the default
            where there are times. ``"random"``: random ratings; the default otherwise. ``"last"``: each user's last
            rating. ``"cold_users"``: all ratings of some users; the model meets them for the first time in the test,
            by fold-in (strong generalization).
        test: The share of ratings (or users) for the test; not used by ``"last"``.
        validation: The share of what remains for validation; 0 for none.
        seed: Of what is random.
    """
    check_ratings_given(ratings, "hold out")
    chosen = protocol or ("random" if ratings.times is None else "time")
    check_choice("protocol", chosen, PROTOCOLS, "hold_out")
    check_number("validation", validation, low=0, high=1, owner="hold_out")
    development, held = cut_off(ratings, chosen, test, seed)
    train, part = (development, None) if validation == 0 else cut_off(development, chosen, validation, seed + 1)
    return HeldOut(train, part, development, chosen, held, seed)


def cut_off(ratings: Ratings, protocol: str, share: float, seed: int) -> tuple[Ratings, Ratings]:
    """``(rest, held out)`` by one of the protocols of :func:`hold_out`."""
    if protocol == "time":
        return ratings.split_by_time(share)
    if protocol == "last":
        return ratings.leave_last_out()
    if protocol == "random":
        return ratings.split(share, seed=seed)
    held = splits.rows_of_users(ratings.user_codes, share, seed)
    return ratings.take(~held), ratings.take(held)


def _errors(model: Model, test: Ratings, seed: int) -> dict[str, float | int]:
    return model.evaluate(test)


def _cold_errors(model: Model, test: Ratings, seed: int) -> dict[str, float | int]:
    return evaluate_fold_in(model, *test.split(0.5, seed=seed))


def evaluate_fold_in(model: Model, given: Ratings, asked: Ratings) -> dict[str, float | int]:
    """Errors on ``asked`` ratings of users that the model meets for the first time, through their ``given`` ones.

    An item unknown to the model counts: it is predicted by the global mean. Users without
    given ratings are predicted as anybody new.

    Raises:
        ParameterError: The model cannot fold in.
    """
    return ColdUsers.of(model, given).evaluate(asked)


# ---- folds --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The errors of one recipe on every fold.

    Attributes:
        folds: A table: ``fold``, ``rmse``, ``mse``, ``mae``, ``n``, ``seconds``.
        rmse: The mean over the folds.
        error: Its standard error over the folds. Their training sets overlap, so it is a little too small.
    """

    folds: pl.DataFrame
    rmse: float
    error: float

    def __str__(self) -> str:
        return f"RMSE {self.rmse:.4f} ± {self.error:.4f} over {self.folds.height} folds"


def cross_validate(recipe: AnyRecipe, ratings: Ratings, folds: int = 5, *, seed: int = 0) -> CrossValidation:
    """Fit a recipe once per random fold, and measure it on that fold.

    Raises:
        ParameterError: ``folds`` is outside its range.
        DataError: There are fewer ratings than folds.
    """
    check_ratings_given(ratings, "cross-validate")
    rows = []
    for number, (train, test) in enumerate(ratings.folds(folds, seed=seed)):
        model = recipe.fit(train)
        seconds = float(sum(model.history.column("seconds")))
        rows.append({"fold": number, **model.evaluate(test), "seconds": seconds})
    table = pl.DataFrame(rows)
    errors = table["rmse"].to_numpy()
    return CrossValidation(table, float(errors.mean()), standard_error(errors))


# ---- where the errors are ---------------------------------------------------------------------------------


def breakdown(model: Model, test: Ratings, *, groups: int = 4) -> pl.DataFrame:
    """Errors by how much the training knew: of the user (``activity``) and of the item (``popularity``).

    Returns:
        A table: ``by``, ``ratings`` in training (0 is cold), ``n``, ``rmse``, its standard ``error``, ``mae``.
    """
    check_number("groups", groups, low=1, whole=True, owner="breakdown")
    pairs = model.pairs_of(test)
    predicted = model.predict_codes(pairs).astype(np.float64)
    rows = []
    for by in BY:
        edges = np.unique(np.concatenate([[0, 1], group_edges(model.ratings, by, groups)]))
        labels = group_of(edges, training_counts(model.ratings, pairs, by))
        names = group_names(edges)
        for label in np.unique(labels).tolist():
            rows.append({"by": by, "ratings": names[label], **_group_errors(test, predicted, labels == label)})
    return pl.DataFrame(rows)


def _group_errors(test: Ratings, predicted: Array, inside: Array) -> dict[str, float | int | None]:
    actual = test.values[inside]
    root, error = rmse_error(actual, predicted[inside], test.user_codes[inside])
    mae = float(np.abs(actual - predicted[inside]).mean())
    return {"n": len(actual), "rmse": root, "error": None if math.isnan(error) else error, "mae": mae}
