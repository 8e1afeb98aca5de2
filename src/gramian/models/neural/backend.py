"""Keras, imported at first use; JAX computes unless the variable KERAS_BACKEND names another backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from gramian.core.file_format import Arrays
from gramian.errors import ParameterError

__all__ = [
    "KerasModel",
    "KerasObject",
    "batch_size",
    "compiled",
    "get_state",
    "is_installed",
    "keras",
    "optimizer",
    "rate",
    "set_state",
]

KerasObject = Any  # Keras has no types of its own
KerasModel = KerasObject
BACKENDS = ("jax", "tensorflow", "torch")  # those of Keras that can train
# Compiled networks are kept while all of them together have no more weights than this; the last one always is.
KEPT_WEIGHTS = 1 << 23
_KEPT: dict[Hashable, KerasModel] = {}


def is_installed() -> bool:
    """Whether the package and its backend can be imported, found out without importing them."""
    return all(find_spec(name) is not None for name in ("keras", os.environ.get("KERAS_BACKEND", "jax")))


def keras() -> ModuleType:
    """The package; ParameterError with the line to install it where it or its backend is missing."""
    backend = os.environ.setdefault("KERAS_BACKEND", "jax")
    if backend not in BACKENDS:
        raise ParameterError(f"The variable KERAS_BACKEND must be one of {', '.join(BACKENDS)}; got {backend!r}.")
    try:
        return import_module("keras")
    except ImportError as missing:
        raise ParameterError(
            f"Neural models need Keras and its backend {backend!r}, and {missing.name or missing} is not installed; "
            f"run: pip install 'gramian[deep]'{'' if backend == 'jax' else f' {backend}'}."
        ) from None


def rate(learning_rate: float, decay: float, number: int) -> float:
    """The learning rate of an epoch (``number`` from 1)."""
    return learning_rate / (1 + decay * (number - 1))


def optimizer(name: str, learning_rate: float, momentum: float) -> KerasObject:
    """Keras's SGD with momentum, or its Adam with the momentum as β₁."""
    kinds = keras().optimizers
    if name == "adam":
        return kinds.Adam(learning_rate, beta_1=momentum)
    return kinds.SGD(learning_rate, momentum=momentum)


def batch_size(asked: int | None, count: int, default: int, owner: str, what: str) -> int:
    """The size of a batch; ParameterError where more is asked for than there is."""
    if asked is not None and asked > count:
        raise ParameterError(
            f"The 'batch_size' parameter of {owner} must be a whole number in [1, {count}], the number of {what}; "
            f"got {asked}; give a smaller one, or leave it out."
        )
    return min(count, default) if asked is None else asked


def compiled(key: Hashable, make: Callable[[], KerasModel]) -> KerasModel:
    """The network of this key: made by ``make``, or the one that was made before, with whatever state it was left."""
    if key in _KEPT:
        _KEPT[key] = _KEPT.pop(key)  # the last to be dropped
    else:
        _KEPT[key] = make()
    while len(_KEPT) > 1 and sum(network.count_params() for network in _KEPT.values()) > KEPT_WEIGHTS:
        del _KEPT[next(iter(_KEPT))]
    return _KEPT[key]


def _variables(network: KerasModel) -> dict[str, KerasObject]:
    """Every number that a training changes, seeds of dropout included, by its path."""
    weights = {id(variable) for variable in network.weights}
    seeds = [variable for variable in network.variables if id(variable) not in weights]
    named = {f"network.{variable.path}": variable for variable in network.weights}
    named |= {f"seed.{n}": variable for n, variable in enumerate(seeds)}
    return named | {f"optimizer.{n}": variable for n, variable in enumerate(network.optimizer.variables)}


def get_state(network: KerasModel) -> Arrays:
    """Copies of all variables of a compiled and built network; counters and seeds as int64, which files can hold."""
    to_numpy = keras().ops.convert_to_numpy
    arrays = {name: to_numpy(variable.value).copy() for name, variable in _variables(network).items()}
    return {name: array if array.dtype == np.float32 else array.astype(np.int64) for name, array in arrays.items()}


def set_state(network: KerasModel, arrays: Arrays) -> None:
    """Put a network where :func:`get_state` found it."""
    for name, variable in _variables(network).items():
        variable.assign(arrays[name].astype(variable.dtype).reshape(variable.shape))
