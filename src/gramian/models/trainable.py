"""What a family of models gives so that it can be trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from gramian.core.file_format import Arrays
from gramian.core.history import History
from gramian.data.table import RatingsTable
from gramian.errors import ParameterError
from gramian.models.model import Model
from gramian.models.settings import Settings

__all__ = ["Epoch", "ModelT", "StateT", "Trainable"]

ModelT = TypeVar("ModelT", bound=Model, covariant=True)
if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultTypeVar

    StateT = DefaultTypeVar("StateT", default=Arrays)
else:
    StateT = TypeVar("StateT")


@dataclass(frozen=True)
class Epoch(Generic[StateT]):
    """One epoch's outcome: the new state, and what goes into the history beside epoch and seconds."""

    state: StateT
    record: dict[str, float | int]


@dataclass(frozen=True, kw_only=True)
class Trainable(Settings, ABC, Generic[ModelT, StateT]):
    """Settings, and how a model is trained by them, epoch by epoch.

    A family gives :meth:`start`, :meth:`epoch` and :meth:`model`; one whose state between epochs is more than named
    arrays (``Recipe[MyModel, MyState]``) gives :meth:`finished`, :meth:`to_arrays` and :meth:`from_arrays`, too.
    """

    def __class_getitem__(cls, kinds: object) -> object:
        """``Recipe[MyModel]`` is one whose state is named arrays."""
        given = kinds if isinstance(kinds, tuple) else (kinds,)
        both = (*given, Arrays) if len(given) < len(cls.__parameters__) else given  # type: ignore[attr-defined]
        return super().__class_getitem__(both)  # type: ignore[misc]

    def check_distributed(self) -> None:
        """Refuse what cannot be trained where the ratings are on a cluster; a recipe says itself what it can there."""
        if not self.distributed:
            raise ParameterError(
                f"{type(self).__name__} does not train on Spark; choose ALS, PMF, BPMF or Baseline, or bring the "
                "ratings here with to_local()."
            )

    @abstractmethod
    def start(self, ratings: RatingsTable) -> StateT:
        """The state before the first epoch."""

    @abstractmethod
    def epoch(self, ratings: RatingsTable, state: StateT, number: int) -> Epoch[StateT]:
        """One epoch (``number`` from 1) from the state given, which is not changed."""

    @abstractmethod
    def model(self, ratings: RatingsTable, arrays: Arrays, history: History) -> ModelT:
        """The model of finished parameters, from a training or a file; FormatError where they do not fit."""

    def finish(self, ratings: RatingsTable, arrays: Arrays) -> Arrays:
        """What a model keeps of the arrays after an epoch; the training goes on from ``arrays``."""
        return arrays

    def finished(self, ratings: RatingsTable, state: StateT, history: History) -> ModelT:
        """The usable model after an epoch."""
        return self.model(ratings, self.finish(ratings, self.to_arrays(state)), history)

    def validated(
        self, ratings: RatingsTable, state: StateT, history: History, validation: RatingsTable
    ) -> tuple[StateT, float]:
        """The RMSE on the validation ratings after an epoch, and the state, which may note something of it."""
        return state, self.finished(ratings, state, history).evaluate(validation)["rmse"]

    def settled(self, state: StateT) -> bool:
        """Whether the training may end before its last epoch."""
        return False

    def to_arrays(self, state: StateT) -> Arrays:
        """The state as named arrays, for a checkpoint; a state that is no more is taken as it is."""
        return cast(Arrays, state)

    def from_arrays(self, ratings: RatingsTable, arrays: Arrays) -> StateT:
        """The state that :meth:`to_arrays` took apart."""
        return cast(StateT, arrays)
