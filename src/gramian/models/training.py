"""The loop around the epochs, the same for every recipe.

Progress, validation, early stopping by patience, checkpoints, and interrupts live here; what an epoch
computes is the recipe's.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gramian.core.file_format import Arrays, read_file, write_file
from gramian.core.history import History
from gramian.data.ratings import Ratings
from gramian.data.spark_ratings import SparkRatings, as_ratings
from gramian.engine.spark.session import is_spark_frame
from gramian.errors import DataError, DivergenceError, ParameterError, TrainingWarning

if TYPE_CHECKING:
    from gramian.models.model import Model
    from gramian.models.recipe import ModelT, Recipe

__all__ = ["State", "check_distributed", "check_finite", "iterate", "placed", "train"]

BEYOND = 1e12  # a mean squared error before which no float32 weight is near its limit


@dataclass(frozen=True)
class State:
    """Where a training stands after some full epochs: the parameters, and those of the best epoch so far."""

    arrays: Arrays
    history: History
    best_arrays: Arrays
    best_epoch: int

    @property
    def epochs_since_best(self) -> int:
        """How many epochs have passed without a better validation error."""
        return len(self.history) - self.best_epoch


def check_finite(mean: float, arrays: Arrays, number: int, rate: float, of: str = "") -> None:
    """Raise DivergenceError where the mean squared error met in an epoch is not finite, or the weights after it.

    The weights are looked at where the error is so large that they may be.
    """
    weights = (array for array in arrays.values() if array.dtype.kind == "f")
    if np.isfinite(mean) and (mean < BEYOND or all(np.isfinite(array).all() for array in weights)):
        return
    raise DivergenceError(
        f"The outcome of epoch {number} is not finite: the learning rate {rate:g} is too high{of}; "
        "lower learning_rate, or scale the ratings."
    )


def placed(recipe: Recipe[Any], table: Any) -> Any:
    """A DataFrame of Spark as ratings on its cluster, where the recipe trains there; anything else as it is."""
    if is_spark_frame(table):
        check_distributed(recipe)
    return as_ratings(table)


def iterate(
    recipe: Recipe[Any], ratings: Ratings, validation: Ratings | None = None, state: State | None = None
) -> Iterator[State]:
    """The state after every epoch, to the recipe's last, or until its patience is over."""
    _check(recipe, ratings, validation)
    patience = getattr(recipe, "patience", None)
    if state is None:
        start = recipe.start(ratings)
        state = State(start, History(), start, 0)
    while len(state.history) < recipe.n_epochs and (patience is None or state.epochs_since_best < patience):
        if recipe.settled(state.arrays):
            break
        state = _next(recipe, ratings, validation, state)
        yield state


def _check(recipe: Recipe[Any], ratings: Ratings, validation: Ratings | None) -> None:
    """Refuse what cannot be trained on, before anything is begun."""
    for table in (ratings,) if validation is None else (ratings, validation):
        if not isinstance(table, Ratings):
            raise DataError(
                f"Ratings are needed to train: got {type(table).__name__}; "
                "make them with gm.Ratings.from_frame, from_csr or gm.read_ratings."
            )
    if isinstance(ratings, SparkRatings):
        check_distributed(recipe)
    if getattr(recipe, "patience", None) is not None and validation is None:
        raise ParameterError(
            f"The 'patience' parameter of {type(recipe).__name__} needs validation ratings; "
            "give validation=… or leave patience out."
        )


def check_distributed(recipe: Recipe[Any]) -> None:
    """Refuse what cannot be trained on a cluster."""
    if not recipe.distributed:
        raise ParameterError(
            f"{type(recipe).__name__} does not train on Spark; choose ALS, PMF, BPMF or Baseline, or bring the ratings "
            "here with to_local()."
        )
    plain: dict[str, Any] = {"implicit": "none", "user_features": None, "item_features": None}
    plain |= {"drift": False, "time": None, "likelihood": "normal"}
    for name, value in plain.items():
        if getattr(recipe, name, value) != value:
            raise ParameterError(f"The {name!r} parameter of {type(recipe).__name__} must be {value!r} on Spark.")


def _next(recipe: Recipe[Any], ratings: Ratings, validation: Ratings | None, state: State) -> State:
    number = len(state.history) + 1
    began = time.perf_counter()
    done = recipe.epoch(ratings, state.arrays, number)
    seconds = time.perf_counter() - began
    record, arrays = dict(done.record), done.arrays
    if validation is not None:
        arrays, record["validation_rmse"] = recipe.validated(ratings, arrays, state.history, validation)
    history = state.history.append(epoch=number, **record, seconds=seconds)
    if _is_better(record.get("validation_rmse"), state):
        return State(arrays, history, arrays, number)
    return replace(state, arrays=arrays, history=history)


def _is_better(error: float | None, state: State) -> bool:
    if error is None or state.best_epoch == 0:
        return True
    before = state.history[state.best_epoch - 1].get("validation_rmse")
    return before is None or bool(error < before)


def train(
    recipe: Recipe[ModelT],
    ratings: Ratings,
    validation: Ratings | None,
    checkpoint: str | os.PathLike[str] | None,
    resume: bool,
    keep_checkpoint: bool,
    progress: bool,
    callback: Callable[[Model], object] | None,
) -> ModelT:
    """Run a whole training; the arguments are those of :meth:`Recipe.fit`."""
    _check(recipe, ratings, validation)
    if resume and checkpoint is None:
        raise ParameterError("The 'resume' parameter of fit needs a checkpoint; give checkpoint='file'.")
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise DataError(f"The checkpoint cannot be written: there is no folder {str(path.parent)!r}; make it first.")
    data = "" if path is None else " ".join(t.fingerprint() for t in (ratings, validation) if t is not None)
    begun = _read(path, recipe, data) if path is not None and resume and path.exists() else None
    state, clock = begun, _CheckpointClock()
    with _bar(recipe, state, progress) as advance:
        try:
            for state in iterate(recipe, ratings, validation, begun):
                if path is not None and clock.is_due():
                    clock.wrote(lambda state=state: _write(path, recipe, data, state))  # type: ignore[misc]
                if callback is not None:
                    callback(recipe.finished(ratings, state.arrays, state.history))
                advance(state)
        except (KeyboardInterrupt, DivergenceError) as stop:
            if state is None or len(state.history) == 0:
                raise
            if path is not None:
                _write(path, recipe, data, state)
            why = "interrupted" if isinstance(stop, KeyboardInterrupt) else "stopped"
            text = f"The training was {why}: the model is that of epoch {len(state.history)}, its last full one."
            warnings.warn(f"{text} {stop}".strip(), TrainingWarning, stacklevel=3)
            return recipe.finished(ratings, state.arrays, state.history)
    assert state is not None  # a recipe has at least one epoch
    if path is not None and not keep_checkpoint:
        path.unlink(missing_ok=True)
    early = getattr(recipe, "patience", None) is not None
    return recipe.finished(ratings, state.best_arrays if early else state.arrays, state.history)


class _CheckpointClock:
    """Writes a checkpoint after every epoch, unless that would cost more than a twentieth of the time."""

    def __init__(self) -> None:
        self._due = 0.0

    def is_due(self) -> bool:
        return time.perf_counter() >= self._due

    def wrote(self, write: Callable[[], None]) -> None:
        began = time.perf_counter()
        write()
        ended = time.perf_counter()
        self._due = ended + 20 * (ended - began)


def _bar(recipe: Recipe[Any], state: State | None, shown: bool) -> Any:
    from gramian.core.progress import epoch_bar

    return epoch_bar(type(recipe).__name__, recipe.n_epochs, 0 if state is None else len(state.history), shown)


def _write(path: Path, recipe: Recipe[Any], data: str, state: State) -> None:
    arrays = {f"now.{name}": array for name, array in state.arrays.items()}
    if getattr(recipe, "patience", None) is not None and state.best_epoch != len(state.history):
        arrays |= {f"best.{name}": array for name, array in state.best_arrays.items()}
    about = {
        "kind": "checkpoint",
        "recipe": recipe.to_resume(),
        "data": data,
        "history": list(state.history),
        "best_epoch": state.best_epoch,
    }
    write_file(path, arrays, about)


def _read(path: Path, recipe: Recipe[Any], data: str) -> State:
    arrays, about = read_file(path)
    if about.get("kind") != "checkpoint":
        raise DataError(f"The file {str(path)!r} is not a checkpoint: it holds a {about.get('kind')}; name another.")
    asked, found = recipe.to_resume(), about["recipe"]
    other = [name for name in {**asked, **found} if asked.get(name) != found.get(name)]
    if other:
        settings = "; ".join(f"{name} {found.get(name)!r}, not {asked.get(name)!r}" for name in other)
        raise DataError(
            f"The checkpoint {str(path)!r} is of another training: it has {settings}; "
            "give the same settings, or train anew without resume."
        )
    if about["data"] != data:
        raise DataError(f"The checkpoint {str(path)!r} was made from other ratings; give the same ones, or train anew.")
    now = {name[4:]: np.asarray(array) for name, array in arrays.items() if name.startswith("now.")}
    best = {name[5:]: np.asarray(array) for name, array in arrays.items() if name.startswith("best.")}
    return State(now, History(about["history"]), best or now, about["best_epoch"])
