"""Gramian learns from ratings: matrix factorization, the whole family in one house.

    >>> import gramian as gm
    >>> ratings = gm.load_dataset("movielens-small")
    >>> train, test = ratings.split(0.2, seed=0)
    >>> model = gm.ALS().fit(train)
    >>> model.recommend(15, n=10)  # doctest: +SKIP

Names are loaded at first use: importing the package is quick and starts neither Numba nor a plotting library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("gramian")

if TYPE_CHECKING:
    from gramian.comparing import Comparison as Comparison
    from gramian.comparing import compare as compare
    from gramian.data.datasets import load_dataset as load_dataset
    from gramian.data.doctor import check_ratings as check_ratings
    from gramian.data.prepared import open_prepared as open_prepared
    from gramian.data.preparing import prepare as prepare
    from gramian.data.readers import read_items as read_items
    from gramian.data.readers import read_ratings as read_ratings
    from gramian.data.synthetic import synthetic_ratings as synthetic_ratings
    from gramian.distributed import open_spark_ratings as open_spark_ratings
    from gramian.distributed import spark_ratings as spark_ratings
    from gramian.errors import *  # noqa: F403
    from gramian.evaluate.calibration import Calibration as Calibration
    from gramian.evaluate.calibration import calibration as calibration
    from gramian.evaluate.conformal import Conformal as Conformal
    from gramian.evaluate.conformal import conformal as conformal
    from gramian.evaluate.protocols import breakdown as breakdown
    from gramian.evaluate.protocols import cross_validate as cross_validate
    from gramian.evaluate.protocols import evaluate_fold_in as evaluate_fold_in
    from gramian.evaluate.protocols import hold_out as hold_out
    from gramian.evaluate.ranking import Popularity as Popularity
    from gramian.evaluate.ranking import evaluate_ranking as evaluate_ranking
    from gramian.history import History as History
    from gramian.models.base import Model as Model
    from gramian.models.recipe import Recipe as Recipe
    from gramian.ratings import Ratings as Ratings
    from gramian.tuning import Tuned as Tuned
    from gramian.tuning import tune as tune
    from gramian.zoo import *  # noqa: F403

_HOMES = {
    "Ratings": "gramian.ratings",
    "open_prepared": "gramian.data.prepared",
    "prepare": "gramian.data.preparing",
    "read_items": "gramian.data.readers",
    "read_ratings": "gramian.data.readers",
    "load_dataset": "gramian.data.datasets",
    "check_ratings": "gramian.data.doctor",
    "synthetic_ratings": "gramian.data.synthetic",
    "open_spark_ratings": "gramian.distributed",
    "spark_ratings": "gramian.distributed",
    "Calibration": "gramian.evaluate.calibration",
    "calibration": "gramian.evaluate.calibration",
    "Conformal": "gramian.evaluate.conformal",
    "conformal": "gramian.evaluate.conformal",
    "breakdown": "gramian.evaluate.protocols",
    "cross_validate": "gramian.evaluate.protocols",
    "evaluate_fold_in": "gramian.evaluate.protocols",
    "hold_out": "gramian.evaluate.protocols",
    "Popularity": "gramian.evaluate.ranking",
    "evaluate_ranking": "gramian.evaluate.ranking",
    "History": "gramian.history",
    "Comparison": "gramian.comparing",
    "compare": "gramian.comparing",
    "Tuned": "gramian.tuning",
    "tune": "gramian.tuning",
    "Model": "gramian.models.base",
    "Recipe": "gramian.models.recipe",
    "load": "gramian.zoo",
    "make_recipe": "gramian.zoo",
    "recipe_from_dict": "gramian.zoo",
}


def __getattr__(name: str) -> Any:
    """Find a public name where it lives: in `_HOMES`, or, capitalized, among the errors or the recipes."""
    homes = [_HOMES[name]] if name in _HOMES else ["gramian.errors", "gramian.zoo"] if name[0].isupper() else []
    for home in homes:
        module = import_module(home)
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module 'gramian' has no attribute {name!r}")


def __dir__() -> list[str]:
    from gramian import errors, zoo

    classes = [name for module in (errors, zoo) for name, value in vars(module).items() if isinstance(value, type)]
    return sorted({*_HOMES, *classes, "__version__"})
