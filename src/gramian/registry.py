"""The registry: every recipe by its name. A new model is one file in `models/` and one import here.

A recipe that lives elsewhere is made known by :func:`register`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, TypeVar

from gramian.cluster.stored_model import is_stored_model, open_stored_model
from gramian.core.file_format import read_file
from gramian.core.history import History
from gramian.data.prepared import open_stored
from gramian.errors import FormatError, ParameterError
from gramian.models.als import ALS as ALS
from gramian.models.baseline import Baseline as Baseline
from gramian.models.bayes.bpmf import BPMF as BPMF
from gramian.models.conformal import Conformal
from gramian.models.model import Model
from gramian.models.neural import backend
from gramian.models.neural.autorec import AutoRec as AutoRec
from gramian.models.neural.factorization import MLP as MLP
from gramian.models.neural.factorization import NeuralMF as NeuralMF
from gramian.models.neural.factorization import ResidualMF as ResidualMF
from gramian.models.pmf import PMF as PMF
from gramian.models.recipe import AnyRecipe
from gramian.models.sgd import SGD as SGD
from gramian.models.softimpute import SoftImpute as SoftImpute
from gramian.models.svd import SVD as SVD

__all__ = ["RECIPES", "family", "load", "make_recipe", "recipe_from_dict", "register"]

RecipeT = TypeVar("RecipeT", bound=AnyRecipe)

RECIPES: dict[str, type[AnyRecipe]] = {
    value.name: value for value in tuple(globals().values()) if isinstance(value, type) and hasattr(value, "name")
}


def register(kind: type[RecipeT]) -> type[RecipeT]:
    """Make a recipe of your own known by its name; a class may be decorated with it.

    Its models can then be loaded, and ``make_recipe``, ``compare`` and ``tune`` take its name.

    Raises:
        ParameterError: Another recipe has this name.
    """
    known = RECIPES.get(kind.name, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):  # a cell may be run again
        raise ParameterError(
            f"The name {kind.name!r} is that of the recipe {known.__qualname__}; give {kind.__qualname__} another."
        )
    RECIPES[kind.name] = kind
    return kind


def family() -> list[AnyRecipe]:
    """One recipe of every kind that can be trained here, with its default settings."""
    return [kind() for kind in RECIPES.values() if not kind.extra or backend.is_installed()]


def make_recipe(name: str, **fields: object) -> AnyRecipe:
    """The recipe of this name with these fields.

    Raises:
        ParameterError: There is no such recipe or field, or a value is outside its range.
    """
    if name not in RECIPES:
        raise ParameterError(f"There is no model {name!r}; choose one of {', '.join(sorted(RECIPES))}.")
    known = [field.name for field in dataclasses.fields(RECIPES[name])]
    for field in fields:
        if field not in known:
            raise ParameterError(f"The model {name!r} has no setting {field!r}; it has {', '.join(known)}.")
    return RECIPES[name](**fields)


def recipe_from_dict(data: dict[str, Any]) -> AnyRecipe:
    """The recipe that :meth:`Recipe.to_dict` wrote."""
    fields = dict(data)
    return make_recipe(fields.pop("name"), **fields)


def load(path: str | os.PathLike[str], *, mmap: bool = False) -> Model:
    """Read a model that :meth:`Model.save` wrote, conformal intervals included.

    Args:
        path: The file; or a folder of :func:`gramian.cluster.stored_training.fit_stored`, which gives a
            :class:`gramian.cluster.stored_model.StoredModel`.
        mmap: Map the arrays instead of reading them, for models near the size of memory or shared by many
            processes. The digest is then not checked.

    Raises:
        DataError: There is no such file.
        FormatError: It is damaged, not a model, or of a newer format.
    """
    if is_stored_model(path):
        return open_stored_model(path)
    arrays, about = read_file(path, mmap=mmap)
    if about.get("kind") not in ("model", "conformal"):
        raise FormatError(f"The file {str(path)!r} holds a {about.get('kind')}, not a model; load it with resume.")
    parameters = {name.removeprefix("model."): a for name, a in arrays.items() if name.startswith("model.")}
    try:
        recipe = recipe_from_dict(about["recipe"])
    except (ParameterError, KeyError, TypeError) as error:
        raise FormatError(f"The file {str(path)!r} holds a recipe that is not known here: {error}") from None
    model = recipe.model(open_stored(arrays, path), parameters, History(about["history"]))
    return Conformal.from_content(model, arrays, about) if about["kind"] == "conformal" else model
