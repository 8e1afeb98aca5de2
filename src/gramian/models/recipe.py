"""What every recipe has in common: settings as plain data, and the verbs that train."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.core.parameters import Range, check_fields
from gramian.data.ratings import Ratings
from gramian.models import training

if TYPE_CHECKING:
    from gramian.models.model import Model

__all__ = ["Epoch", "ModelT", "Recipe"]

ModelT = TypeVar("ModelT", bound="Model", covariant=True)


@dataclass(frozen=True)
class Epoch:
    """One epoch's outcome: the new parameters, and what goes into the history beside epoch and seconds."""

    arrays: Arrays
    record: dict[str, float | int]


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC, Generic[ModelT]):
    """Settings of a model: a frozen dataclass, comparable, printable, and JSON-able.

    A family of models gives :meth:`start`, :meth:`epoch` and :meth:`model`; training itself (progress,
    validation, early stopping, checkpoints, interrupts) is the same for all and stands in
    :mod:`gramian.models.training`.
    """

    name: ClassVar[str]
    # The field that says how long a training is; a checkpoint may be resumed with another value of it.
    length_field: ClassVar[str] = "epochs"
    # The extra that has to be installed for it to be trained.
    extra: ClassVar[str] = ""
    # Whether a training goes over the ratings by half-sweeps and sums alone, so that they can be on a cluster.
    distributed: ClassVar[bool] = False
    # Where tuning looks: a range or a tuple of choices for each field worth it.
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {}

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def n_epochs(self) -> int:
        """How many epochs a full training has."""
        return int(getattr(self, self.length_field, 1))

    def to_dict(self) -> dict[str, Any]:
        """The recipe's name and fields as plain data; :func:`gramian.recipe_from_dict` reads it back."""
        fields = dataclasses.asdict(self)
        return {"name": self.name} | {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict())

    def to_resume(self) -> dict[str, Any]:
        """What a checkpoint and the training that goes on from it must share; it may be longer, and elsewhere."""
        free = (self.length_field, "n_jobs")
        return {name: value for name, value in self.to_dict().items() if name not in free}

    def fit(
        self,
        ratings: Ratings,
        validation: Ratings | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        keep_checkpoint: bool = False,
        progress: bool = False,
        callback: Callable[[Model], object] | None = None,
    ) -> ModelT:
        """Train a fresh model; the recipe is not changed.

        Args:
            ratings: The training ratings; or a DataFrame of Spark, on whose cluster ``distributed`` recipes train.
            validation: Ratings to measure after each epoch, and to stop early on where the recipe has a
                ``patience``; the model of the best epoch is then returned.
            checkpoint: A file to keep the state of the training in after every epoch.
            resume: Go on from ``checkpoint`` if that file exists. The result is the same as without a break.
            keep_checkpoint: Leave the checkpoint after a whole training too, until the model is saved, say.
            progress: Show a progress bar on stderr.
            callback: Called with the model after every epoch.

        An interrupt (Ctrl-C) ends the training with the model of the last full epoch and a TrainingWarning;
        before the first epoch is done it is raised as usual.

        Raises:
            DataError: The ratings or the checkpoint cannot be used.
            ParameterError: ``patience`` is set without ``validation``.
        """
        table = training.placed(self, ratings)
        return training.train(self, table, validation, checkpoint, resume, keep_checkpoint, progress, callback)

    def iterate(self, ratings: Ratings, validation: Ratings | None = None) -> Iterator[ModelT]:
        """A usable model after every epoch."""
        ratings = training.placed(self, ratings)
        states = training.iterate(self, ratings, validation)
        return (self.finished(ratings, state.arrays, state.history) for state in states)

    def finished(self, ratings: Ratings, arrays: Arrays, history: History) -> ModelT:
        """The usable model after an epoch."""
        return self.model(ratings, self.finish(ratings, arrays), history)

    @abstractmethod
    def start(self, ratings: Ratings) -> Arrays:
        """The parameters before the first epoch."""

    @abstractmethod
    def epoch(self, ratings: Ratings, arrays: Arrays, number: int) -> Epoch:
        """One epoch (``number`` from 1) from the parameters given, which are not changed."""

    def finish(self, ratings: Ratings, arrays: Arrays) -> Arrays:
        """What a model keeps of the parameters after an epoch; the training goes on from ``arrays``."""
        return arrays

    def validated(
        self, ratings: Ratings, arrays: Arrays, history: History, validation: Ratings
    ) -> tuple[Arrays, float]:
        """The RMSE on the validation ratings after an epoch, and the parameters, which may note something of it."""
        return arrays, self.finished(ratings, arrays, history).evaluate(validation)["rmse"]

    def settled(self, arrays: Arrays) -> bool:
        """Whether the training may end before its last epoch."""
        return False

    @abstractmethod
    def model(self, ratings: Ratings, arrays: Arrays, history: History) -> ModelT:
        """The model of finished parameters, from a training or a file; FormatError where they do not fit."""
