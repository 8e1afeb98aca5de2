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

from gramian.core import moved

__version__ = version("gramian")
moved.install()

if TYPE_CHECKING:
    from gramian.core.history import History as History
    from gramian.data.datasets import load_dataset as load_dataset
    from gramian.data.doctor import check_ratings as check_ratings
    from gramian.data.prepare import prepare as prepare
    from gramian.data.prepared import open_prepared as open_prepared
    from gramian.data.ratings import Ratings as Ratings
    from gramian.data.readers import read_items as read_items
    from gramian.data.readers import read_ratings as read_ratings
    from gramian.data.spark_ratings import open_spark_ratings as open_spark_ratings
    from gramian.data.spark_ratings import spark_ratings as spark_ratings
    from gramian.data.synthetic import synthetic_ratings as synthetic_ratings
    from gramian.errors import *  # noqa: F403
    from gramian.evaluate.compare import Comparison as Comparison
    from gramian.evaluate.compare import compare as compare
    from gramian.evaluate.protocols import breakdown as breakdown
    from gramian.evaluate.protocols import cross_validate as cross_validate
    from gramian.evaluate.protocols import evaluate_fold_in as evaluate_fold_in
    from gramian.evaluate.protocols import hold_out as hold_out
    from gramian.evaluate.topn import Popularity as Popularity
    from gramian.evaluate.topn import evaluate_ranking as evaluate_ranking
    from gramian.evaluate.tune import Tuned as Tuned
    from gramian.evaluate.tune import tune as tune
    from gramian.models.calibration import Calibration as Calibration
    from gramian.models.calibration import calibration as calibration
    from gramian.models.conformal import Conformal as Conformal
    from gramian.models.conformal import conformal as conformal
    from gramian.models.model import Model as Model
    from gramian.models.recipe import Recipe as Recipe
    from gramian.registry import *  # noqa: F403

_HOMES = {
    "Ratings": "gramian.data.ratings",
    "open_prepared": "gramian.data.prepared",
    "prepare": "gramian.data.prepare",
    "read_items": "gramian.data.readers",
    "read_ratings": "gramian.data.readers",
    "load_dataset": "gramian.data.datasets",
    "check_ratings": "gramian.data.doctor",
    "synthetic_ratings": "gramian.data.synthetic",
    "open_spark_ratings": "gramian.data.spark_ratings",
    "spark_ratings": "gramian.data.spark_ratings",
    "Calibration": "gramian.models.calibration",
    "calibration": "gramian.models.calibration",
    "Conformal": "gramian.models.conformal",
    "conformal": "gramian.models.conformal",
    "breakdown": "gramian.evaluate.protocols",
    "cross_validate": "gramian.evaluate.protocols",
    "evaluate_fold_in": "gramian.evaluate.protocols",
    "hold_out": "gramian.evaluate.protocols",
    "Popularity": "gramian.evaluate.topn",
    "evaluate_ranking": "gramian.evaluate.topn",
    "History": "gramian.core.history",
    "Comparison": "gramian.evaluate.compare",
    "compare": "gramian.evaluate.compare",
    "Tuned": "gramian.evaluate.tune",
    "tune": "gramian.evaluate.tune",
    "Model": "gramian.models.model",
    "Recipe": "gramian.models.recipe",
    "load": "gramian.registry",
    "make_recipe": "gramian.registry",
    "recipe_from_dict": "gramian.registry",
    "register": "gramian.registry",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - each name has the type that it has where it lives
    """Find a public name where it lives: in `_HOMES`, or, capitalized, among the errors or the recipes."""
    homes = [_HOMES[name]] if name in _HOMES else ["gramian.errors", "gramian.registry"] if name[0].isupper() else []
    for home in homes:
        module = import_module(home)
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module 'gramian' has no attribute {name!r}")


def __dir__() -> list[str]:
    from gramian import errors, registry

    classes = [
        name
        for module in (errors, registry)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__.startswith("gramian.")
    ]
    return sorted({*_HOMES, *classes, "__version__"})
