"""The loop around the epochs, the same for every recipe.

Progress, validation, early stopping by patience, checkpoints, and interrupts live here; what an epoch computes, and
what its state is, is the recipe's: see :class:`gramian.models.trainable.Trainable`.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from gramian.core.file_format import Arrays, read_file, write_file
from gramian.core.history import History
from gramian.core.progress import epoch_bar
from gramian.data.spark_ratings import SparkRatings
from gramian.data.table import RatingsTable
from gramian.errors import DataError, DivergenceError, ParameterError, TrainingWarning
from gramian.models.model import Model, check_ratings_given
from gramian.models.trainable import ModelT, Trainable

__all__ = ["Options", "Progress", "check_finite", "iterate", "train"]

BEYOND = 1e12  # a mean squared error before which no float32 weight is near its limit

StateT = TypeVar("StateT")


@dataclass(frozen=True)
class Progress(Generic[StateT]):
    """Where a training stands after some full epochs: the state, and that of the best epoch so far."""

    state: StateT
    history: History
    best: StateT
    best_epoch: int

    @property
    def epochs_since_best(self) -> int:
        """How many epochs have passed without a better validation error."""
        return len(self.history) - self.best_epoch


@dataclass(frozen=True)
class Options:
    """How a training is run: the arguments of :meth:`gramian.Recipe.fit` of these names."""

    checkpoint: Path | None
    resume: bool
    keep_checkpoint: bool
    progress: bool
    callback: Callable[[Model], object] | None

    @classmethod
    def checked(
        cls, checkpoint: str | os.PathLike[str] | None, resume: bool, keep_checkpoint: bool, progress: bool,
        callback: Callable[[Model], object] | None,
    ) -> Options:  # fmt: skip
        """The options, if a checkpoint can be kept as they ask."""
        if resume and checkpoint is None:
            raise ParameterError("The 'resume' parameter of fit needs a checkpoint; give checkpoint='file'.")
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and not path.parent.is_dir():
            raise DataError(
                f"The checkpoint cannot be written: there is no folder {str(path.parent)!r}; make it first."
            )
        return cls(path, resume, keep_checkpoint, progress, callback)


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


def iterate(
    recipe: Trainable[ModelT, StateT], ratings: RatingsTable, validation: RatingsTable | None = None,
    begun: Progress[StateT] | None = None,
) -> Iterator[Progress[StateT]]:  # fmt: skip
    """Where the training stands after every epoch, to the recipe's last, or until its patience is over."""
    _check(recipe, ratings, validation)
    now = begun
    if now is None:
        start = recipe.start(ratings)
        now = Progress(start, History(), start, 0)
    while len(now.history) < recipe.n_epochs and (recipe.waits is None or now.epochs_since_best < recipe.waits):
        if recipe.settled(now.state):
            break
        now = _next(recipe, ratings, validation, now)
        yield now


def _check(recipe: Trainable[ModelT, StateT], ratings: RatingsTable, validation: RatingsTable | None) -> None:
    """Refuse what cannot be trained on, before anything is begun."""
    for table in (ratings,) if validation is None else (ratings, validation):
        check_ratings_given(table, "train")
    if isinstance(ratings, SparkRatings):
        recipe.check_distributed()
    if recipe.waits is not None and validation is None:
        raise ParameterError(
            f"The 'patience' parameter of {type(recipe).__name__} needs validation ratings; "
            "give validation=… or leave patience out."
        )


def _next(
    recipe: Trainable[ModelT, StateT], ratings: RatingsTable, validation: RatingsTable | None,
    before: Progress[StateT],
) -> Progress[StateT]:  # fmt: skip
    number = len(before.history) + 1
    began = time.perf_counter()
    done = recipe.epoch(ratings, before.state, number)
    seconds = time.perf_counter() - began
    record, state = dict(done.record), done.state
    if validation is not None:
        state, record["validation_rmse"] = recipe.validated(ratings, state, before.history, validation)
    history = before.history.append(epoch=number, **record, seconds=seconds)
    if _is_better(record.get("validation_rmse"), before):
        return Progress(state, history, state, number)
    return replace(before, state=state, history=history)


def _is_better(error: float | None, before: Progress[StateT]) -> bool:
    if error is None or before.best_epoch == 0:
        return True
    least = before.history[before.best_epoch - 1].get("validation_rmse")
    return least is None or bool(error < least)


def train(
    recipe: Trainable[ModelT, StateT], ratings: RatingsTable, validation: RatingsTable | None, options: Options
) -> ModelT:
    """Run a whole training."""
    _check(recipe, ratings, validation)
    path, clock = options.checkpoint, _CheckpointClock()
    data = "" if path is None else " ".join(t.fingerprint() for t in (ratings, validation) if t is not None)
    begun = _read(path, recipe, ratings, data) if path is not None and options.resume and path.exists() else None
    now = begun
    with epoch_bar(type(recipe).__name__, recipe.n_epochs, 0 if now is None else len(now.history), options.progress
                   ) as advance:  # fmt: skip
        try:
            for now in iterate(recipe, ratings, validation, begun):
                if path is not None and clock.is_due():
                    clock.wrote(lambda now=now: _write(path, recipe, data, now))  # type: ignore[misc]
                if options.callback is not None:
                    options.callback(recipe.finished(ratings, now.state, now.history))
                advance(now)
        except (KeyboardInterrupt, DivergenceError) as stop:
            if now is None or len(now.history) == 0:
                raise
            if path is not None:
                _write(path, recipe, data, now)
            why = "interrupted" if isinstance(stop, KeyboardInterrupt) else "stopped"
            text = f"The training was {why}: the model is that of epoch {len(now.history)}, its last full one."
            warnings.warn(f"{text} {stop}".strip(), TrainingWarning, stacklevel=3)
            return recipe.finished(ratings, now.state, now.history)
    assert now is not None  # a recipe has at least one epoch
    if path is not None and not options.keep_checkpoint:
        path.unlink(missing_ok=True)
    return recipe.finished(ratings, now.state if recipe.waits is None else now.best, now.history)


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


def _write(path: Path, recipe: Trainable[ModelT, StateT], data: str, now: Progress[StateT]) -> None:
    arrays = {f"now.{name}": array for name, array in recipe.to_arrays(now.state).items()}
    if recipe.waits is not None and now.best_epoch != len(now.history):
        arrays |= {f"best.{name}": array for name, array in recipe.to_arrays(now.best).items()}
    about = {
        "kind": "checkpoint",
        "recipe": recipe.to_resume(),
        "data": data,
        "history": list(now.history),
        "best_epoch": now.best_epoch,
    }
    write_file(path, arrays, about)


def _read(path: Path, recipe: Trainable[ModelT, StateT], ratings: RatingsTable, data: str) -> Progress[StateT]:
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
    now, best = (
        {name.removeprefix(start): np.asarray(array) for name, array in arrays.items() if name.startswith(start)}
        for start in ("now.", "best.")
    )
    state = recipe.from_arrays(ratings, now)
    kept = recipe.from_arrays(ratings, best) if best else state
    return Progress(state, History(about["history"]), kept, about["best_epoch"])
