"""Keras, imported at first use; JAX computes unless the variable KERAS_BACKEND names another backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from gramian.errors import DivergenceError, ParameterError
from gramian.persist import Arrays

__all__ = ["finite_loss", "get_state", "keras", "optimizer", "set_state"]


def keras() -> Any:
    """The package; ParameterError with the line to install it where it or its backend is missing."""
    backend = os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        return import_module("keras")
    except ImportError as missing:
        raise ParameterError(
            f"Neural models need Keras and its backend {backend!r}, and {missing.name or missing} is not installed; "
            f"run: pip install 'gramian[deep]'{'' if backend == 'jax' else f' {backend}'}."
        ) from None


def optimizer(name: str, learning_rate: float, momentum: float) -> Any:
    """Keras's SGD with momentum, or its Adam with the momentum as β₁."""
    kinds = keras().optimizers
    if name == "adam":
        return kinds.Adam(learning_rate, beta_1=momentum)
    return kinds.SGD(learning_rate, momentum=momentum)


def _variables(network: Any) -> dict[str, Any]:
    """Every number that a training changes, seeds of dropout included, by its path."""
    weights = {id(variable) for variable in network.weights}
    seeds = [variable for variable in network.variables if id(variable) not in weights]
    named = {f"network.{variable.path}": variable for variable in network.weights}
    named |= {f"seed.{n}": variable for n, variable in enumerate(seeds)}
    return named | {f"optimizer.{n}": variable for n, variable in enumerate(network.optimizer.variables)}


def get_state(network: Any) -> Arrays:
    """Copies of all variables of a compiled and built network; counters and seeds as int64, which files can hold."""
    to_numpy = keras().ops.convert_to_numpy
    arrays = {name: to_numpy(variable.value).copy() for name, variable in _variables(network).items()}
    return {name: array if array.dtype == np.float32 else array.astype(np.int64) for name, array in arrays.items()}


def set_state(network: Any, arrays: Arrays) -> None:
    """Put a network where :func:`get_state` found it."""
    for name, variable in _variables(network).items():
        variable.assign(arrays[name].astype(variable.dtype))


def finite_loss(loss: float, number: int, rate: float, check: Callable[[float], Any] = np.isfinite) -> float:
    """The loss of an epoch; DivergenceError where it is not finite."""
    if not check(loss):
        raise DivergenceError(
            f"The loss of epoch {number} is not finite: the learning rate {rate:g} is too high; lower learning_rate."
        )
    return loss
