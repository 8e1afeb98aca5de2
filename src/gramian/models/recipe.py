"""What every recipe has in common: settings, and the verbs that train."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gramian.data.spark_ratings import as_ratings
from gramian.data.table import RatingsTable
from gramian.engine.spark.session import is_spark_frame
from gramian.models import training
from gramian.models.model import Model
from gramian.models.trainable import Epoch, ModelT, StateT, Trainable

__all__ = ["AnyRecipe", "Epoch", "ModelT", "Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Trainable[ModelT, StateT]):
    """Settings of a model, and the verbs that train one.

    What a family of models gives stands at :class:`gramian.models.trainable.Trainable`. Training itself (progress,
    validation, early stopping, checkpoints, interrupts) is the same for all: :mod:`gramian.models.training`.
    """

    def fit(
        self,
        ratings: RatingsTable,
        validation: RatingsTable | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        keep_checkpoint: bool = False,
        progress: bool = False,
        callback: Callable[[Model], object] | None = None,
    ) -> ModelT:
        """Train a fresh model; the recipe is not changed.

        Args:
            ratings: The training ratings; or a DataFrame of Spark, on whose cluster recipes train that can.
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
        table = self._placed(ratings)
        options = training.Options.checked(checkpoint, resume, keep_checkpoint, progress, callback)
        return training.train(self, table, validation, options)

    def iterate(self, ratings: RatingsTable, validation: RatingsTable | None = None) -> Iterator[ModelT]:
        """A usable model after every epoch."""
        table = self._placed(ratings)
        made = training.iterate(self, table, validation)
        return (self.finished(table, now.state, now.history) for now in made)

    def _placed(self, table: RatingsTable) -> RatingsTable:
        """A DataFrame of Spark as ratings on its cluster, where the recipe trains there; anything else as it is."""
        if is_spark_frame(table):
            self.check_distributed()
        return as_ratings(table)


AnyRecipe = Recipe[Any, Any]
