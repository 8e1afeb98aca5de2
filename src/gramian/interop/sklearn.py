"""The bridge to scikit-learn: any recipe as a regressor of ratings on two columns, user and item.

    RatingRegressor("als", factors=8).fit(X, y)          # X: user ids and item ids
    GridSearchCV(RatingRegressor(), {"factors": [8, 16], "regularization": [5, 10]}, cv=KFold(5, shuffle=True))

Shuffle the folds: rows are often ordered by user, and a user who is not in the training part is predicted from the
item's bias alone. Needs the extra ``sklearn``.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import polars as pl

from gramian.core.plain import Plain
from gramian.data.columns import Frame
from gramian.data.pairs import Pairs
from gramian.data.ratings import Ratings
from gramian.errors import DataError, DataWarning, GramianError, ParameterError
from gramian.kernels.arrays import Array
from gramian.models.model import Model
from gramian.registry import make_recipe

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise GramianError("This needs scikit-learn, which is not installed: pip install 'gramian[sklearn]'.") from None

__all__ = ["RatingRegressor"]


class RatingRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ratings predicted from two columns of ids.

    Attributes:
        model_: The trained model, after ``fit``, with all that a Gramian model does.
        n_features_in_: 2.

    Args:
        recipe: The name of a recipe.
        duplicates: What to do with repeated pairs, ``"mean"``, ``"last"`` or ``"raise"``.
        **fields: The recipe's fields; those not given have their defaults.
    """

    def __init__(self, recipe: str = "als", *, duplicates: str = "mean", **fields: object) -> None:
        self.recipe = recipe
        self.duplicates = duplicates
        self.fields = fields

    def get_params(self, deep: bool = True) -> Plain:
        """All parameters, those of the recipe among them."""
        return {"recipe": self.recipe, "duplicates": self.duplicates, **self.fields}

    def set_params(self, **params: object) -> RatingRegressor:
        """Set parameters; a field that the recipe does not have is refused by ``fit``."""
        for name, value in params.items():
            if name in ("recipe", "duplicates"):
                setattr(self, name, value)
            else:
                self.fields = {**self.fields, name: value}
        return self

    def fit(self, X: npt.ArrayLike | Frame, y: npt.ArrayLike | None) -> RatingRegressor:
        """Train on pairs of ids and their ratings.

        Args:
            X: (n, 2): users and items, as an array or a table; the order of the columns counts, not their names.
            y: (n,): the ratings.

        Raises:
            DataError: The ids or the ratings cannot be used.
            ParameterError: A parameter is outside its range.
        """
        recipe = make_recipe(self.recipe, **self.fields)
        if y is None:
            raise DataError("RatingRegressor requires y to be passed, but the target y is None.")
        users, items = _columns(X)
        values = np.asarray(y)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.shape != (len(users),):
            raise DataError(
                f"There must be one rating per pair: found {len(users)} pairs and y of shape {values.shape}."
            )
        table = pl.DataFrame({"user": users, "item": items, "rating": values})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # repeated pairs have a policy, stated above
            ratings = Ratings.from_frame(table, duplicates=self.duplicates)
        self.model_: Model = recipe.fit(ratings)
        self.n_features_in_ = 2
        return self

    def predict(self, X: npt.ArrayLike | Frame) -> Array:
        """Ratings of pairs of ids; unknown ones are predicted from what the biases know."""
        check_is_fitted(self)
        users, items = _columns(X)
        model = self.model_
        pairs = Pairs(model.user_ids.codes(users, "user"), model.item_ids.codes(items, "item"))
        return np.asarray(model.predict_codes(pairs))


def _columns(X: npt.ArrayLike | Frame) -> tuple[pl.Series, pl.Series]:
    """The user and the item column of an array or a table."""
    if hasattr(X, "columns"):
        from gramian.data.columns import to_polars

        table = to_polars(X)
        columns = [table[name] for name in table.columns]
    else:
        array = np.asarray(X)
        if array.ndim != 2:
            raise DataError(f"X must have two columns, user and item: found an array of shape {array.shape}.")
        columns = [_ids(array[:, place]) for place in range(array.shape[1])]
    if len(columns) != 2:
        raise DataError(f"X must have two columns, user and item: found {len(columns)}.")
    if len(columns[0]) == 0:
        raise DataError("There are no ratings: X has no rows.")
    return columns[0], columns[1]


def _ids(column: Array) -> pl.Series:
    """Whole numbers that came as floats, or as objects of an array of both columns, are integers."""
    if column.dtype.kind == "O":
        return pl.Series(column.tolist())
    if column.dtype.kind == "f":
        if not (np.isfinite(column).all() and (column == np.round(column)).all()):
            raise DataError("Ids must be whole numbers or text: found a number with a fraction, NaN or infinity.")
        column = column.astype(np.int64)
    if column.dtype.kind == "c":
        raise ParameterError("Complex data not supported: ids are whole numbers or text.")
    return pl.Series(column.astype(str).tolist() if column.dtype.kind in "US" else column)
