"""Module paths of before the rooms that documentation named: a script may hold one, so each of them still imports."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

__all__ = ["MOVED", "install"]

# The path that documentation named, and where its names are now.
MOVED = {
    "gramian.bridges": ("gramian.interop.libraries",),
    "gramian.evaluate.calibration": ("gramian.metrics.intervals", "gramian.models.calibration"),
    "gramian.evaluate.records": ("gramian.evaluate.log", "gramian.interop.mlflow"),
    "gramian.mixture": ("gramian.models.distributions.normal_mixture",),
    "gramian.ranking": ("gramian.metrics.ranking",),
    "gramian.ratings": ("gramian.data.ratings",),
    "gramian.significance": ("gramian.metrics.significance",),
    "gramian.sklearn": ("gramian.interop.sklearn",),
    "gramian.stored": ("gramian.cluster.stored_training", "gramian.cluster.stored_model"),
}


class _MovedFinder(MetaPathFinder, Loader):
    """Finds a path of before and fills a module of that name with what is in its new homes."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        for home in map(import_module, MOVED[module.__name__]):
            vars(module).update({name: value for name, value in vars(home).items() if not name.startswith("__")})


def install() -> None:
    """Let the import system look here last; once."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
